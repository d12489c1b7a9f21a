package main

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// What is said of a leave that did not come to its end, and how the program ends.
func TestInterruptedLeaveSaysHowItGoesOn(t *testing.T) {
	for _, row := range []struct {
		err  error
		code int
	}{{context.Canceled, exitInterrupted}, {context.DeadlineExceeded, exitFailure}, {errors.New("connection lost"), exitFailure}} {
		err := interruptedLeave(3, "and is drained", row.err)
		if code := exitCode(err); code != row.code || !errors.Is(err, row.err) {
			t.Errorf("%v: exit code %d, %v", row.err, code, err)
		}
		for _, words := range []string{"node 3 has not left", row.err.Error(), "call leave again", "embedlog cluster remove 3", "embedlog cluster drain 3 --undo"} {
			if !strings.Contains(err.Error(), words) {
				t.Errorf("%q does not say %q", err, words)
			}
		}
	}
}
