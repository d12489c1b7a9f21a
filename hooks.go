package embedlog

import "github.com/x/embedlog/internal/engine"

// Hooks are functions that are called for what happens, in the goroutine where it
// does: they should be quick, and must not call the database. A nil field costs
// nothing.
type Hooks = engine.Hooks
