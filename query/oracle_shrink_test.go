package query

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// shrunk is the flags of a smaller case that fails, too: of one view, of as few steps as that one needs. It is tried in processes of its own, so that what they
// say is not in the way. Where a case fails now and then, it may be larger than it has to be.
func shrunk(t *testing.T, seed uint64) string {
	if t.Name() != "TestOracle" || *oracleOnly >= 0 || *oracleSteps >= 0 || os.Getenv("EMBEDLOG_BUG") != "" {
		return ""
	}
	program, err := os.Executable()
	if err != nil {
		return ""
	}
	deadline := time.Now().Add(30 * time.Second)
	fails := func(view, steps int) bool {
		if time.Now().After(deadline) {
			return false
		}
		c := exec.Command(program, "-test.run", "^TestOracle$", "-test.timeout", "10s", "-oracle.seed", fmt.Sprint(seed), "-oracle.view", fmt.Sprint(view), "-oracle.steps", fmt.Sprint(steps))
		_, failed := c.Run().(*exec.ExitError)
		return failed
	}
	const most = 14 // steps of a case
	view := -1
	for v := range 3 {
		if fails(v, most) {
			view = v
			break
		}
	}
	if view < 0 && !fails(view, most) {
		return ""
	}
	steps := most
	for steps > 0 && fails(view, steps-1) {
		steps--
	}
	return fmt.Sprintf(" -oracle.view %d -oracle.steps %d", view, steps)
}
