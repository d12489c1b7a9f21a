//go:build seededbugs

package seed

import "os"

var chosen = os.Getenv("EMBEDLOG_BUG")

// Is says whether the bug is the one that EMBEDLOG_BUG names.
func Is(bug string) bool { return chosen == bug }
