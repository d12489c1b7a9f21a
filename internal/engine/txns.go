package engine

import "time"

// Txns are the transactions.
type Txns struct{ engine *Engine }

func openTxns(e *Engine) (*Txns, error) { return &Txns{engine: e}, nil }

// tick ends transactions whose time is over. It is called once a second.
func (t *Txns) tick(now time.Time) {}

// close ends what waits. Topics are still open.
func (t *Txns) close() {}
