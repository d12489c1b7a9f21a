package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// The test binary is its own worker, as the program is.
func TestMain(m *testing.M) {
	if os.Getenv("EMBEDLOG_EXAMPLE_WORKER") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestTransactions(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if !strings.HasSuffix(out.String(), "all 2000 payments are in the balances, each exactly once\n") {
		t.Errorf("it printed\n%s", &out)
	}
}
