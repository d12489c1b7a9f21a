package invariant

import (
	"strings"
	"testing"
)

func TestTrue(t *testing.T) {
	True(true, "never printed")
	defer func() {
		got := recover()
		if !On {
			if got != nil {
				t.Fatalf("panicked with %v although the checks are off", got)
			}
			return
		}
		if s, ok := got.(string); !ok || !strings.Contains(s, "end 3 is below start 7") {
			t.Fatalf("panic value %v, want the message", got)
		}
	}()
	True(false, "end %d is below start %d", 3, 7)
}
