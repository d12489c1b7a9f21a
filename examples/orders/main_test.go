package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/testcount"
)

// The test binary is its own instance, as the program is.
func TestMain(m *testing.M) {
	if os.Getenv(instanceEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// The whole story: orders, fraud, a mail, a kill in the middle, and what the topics say in the end. Where counts are small it is that of one instance:
// TestKilledInstances has three.
func TestStory(t *testing.T) {
	for _, n := range []int{1, 3}[:testcount.N(2)] {
		t.Run(fmt.Sprintf("instances=%d", n), func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			var out bytes.Buffer
			if err := run(t.Context(), n, &out); err != nil {
				t.Fatalf("%v\n%s", err, &out)
			}
			for _, want := range []string{
				"all VALIDATED", "all FAILED", "customer 102 for 2000: FAILED\n", "gets \"Dear Franz Kafka", "was killed", "was back", "all 24 orders were validated, paid for",
				fmt.Sprintf("instance %d: 53 orders, each with three checks and one verdict; 25 mails, one for each order that was paid for; reserved is what was sold: 39 UNDERPANTS and 2 JUMPERS\n", n),
			} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("it did not print %q but\n%s", want, &out)
				}
			}
			left, err := os.ReadDir(os.Getenv("TMPDIR"))
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}
