package log

import (
	"fmt"
	"os"
	"testing"

	"github.com/x/embedlog/internal/crashtest"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

// faults are the ways in which one operation goes wrong. every says which of them
// are tried: 1 is each.
var faults = []struct {
	name   string
	effect vfs.Effect
	every  int
}{
	{"failed sync", vfs.FailSync(), 1},
	{"EIO", vfs.Fail(nil), 19},
	{"no space", vfs.Full(0), 13},
	{"no space after 100 bytes", vfs.Full(100), 17},
	{"short by 513 bytes", vfs.Short(513), 13},
}

// TestEveryOperationFailsOnce lets each operation of the workloads fail once: each
// sync for certain, the others in steps that testcount stretches; EMBEDLOG_FAULTS=all
// is every operation. Of each failure two stories are told. In one the world stops
// there: kill, power cut, and both in a row, and the pages of the failed sync are gone
// although they read well. In the other the workload lives on, with the log or with
// one that it opens again.
func TestEveryOperationFailsOnce(t *testing.T) {
	smallLog(t, 2048)
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			x := &crashtest.Explorer{Workloads: crashWorkloads(), PerRun: 4}
			var all crashtest.Totals
			step := fault.every
			if os.Getenv("EMBEDLOG_FAULTS") == "all" {
				step = 1
			} else if step > 1 {
				step *= 10 / testcount.N(10)
			}
			for i := range x.Workloads {
				for _, tolerant := range []bool{false, true} {
					for k := 0; ; k += step {
						done, totals, err := x.FaultPoint(i, k, fault.effect, tolerant)
						all.Runs += totals.Runs
						all.States += totals.States
						if err != nil {
							t.Fatal(fmt.Errorf("tolerant=%t: %w", tolerant, err))
						}
						if done {
							break
						}
					}
				}
			}
			if all.Runs < 100 {
				t.Fatalf("only %d runs", all.Runs)
			}
			t.Logf("%d failures, %d states after them", all.Runs, all.States)
		})
	}
}
