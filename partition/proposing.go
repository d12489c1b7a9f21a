package partition

import "sync"

// proposing is held by who proposes, for as long as it takes until the proposal is stored. That may be
// seconds, so it is a channel and not a mutex: in a testing/synctest bubble time passes for who
// waits for it.
type proposing chan struct{}

var _ sync.Locker = proposing(nil)

func newProposing() proposing { return make(proposing, 1) }

func (c proposing) Lock()   { c <- struct{}{} }
func (c proposing) Unlock() { <-c }
