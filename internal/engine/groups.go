package engine

import "time"

// Groups are the consumer groups.
type Groups struct{ engine *Engine }

func openGroups(e *Engine) (*Groups, error) { return &Groups{engine: e}, nil }

// tick ends sessions and offsets that are over. It is called once a second.
func (g *Groups) tick(now time.Time) {}

// close ends what waits. Topics are still open.
func (g *Groups) close() {}
