//go:build race || invariants

package invariant

import "fmt"

// On says whether the checks are compiled in. Hot paths guard the call with it,
// so that the arguments cost nothing when it is false.
const On = true

// True panics with the formatted message when ok is false.
func True(ok bool, format string, args ...any) {
	if !ok {
		panic("invariant broken: " + fmt.Sprintf(format, args...))
	}
}
