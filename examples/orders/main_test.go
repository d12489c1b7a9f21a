package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// The test binary is its own instance, as the program is.
func TestMain(m *testing.M) {
	if os.Getenv(instanceEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// The whole story: orders, fraud, a mail, a kill in the middle, and what the log says in the end.
func TestStory(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{"all VALIDATED", "all FAILED", "customer 102 for 2000: FAILED\n", "gets \"Dear Franz Kafka", "instance 1 was killed", "instance 2 of the shop serves", "reserved is what was sold: 55 UNDERPANTS and 2 JUMPERS"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it did not print %q but\n%s", want, &out)
		}
	}
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
