package raftrepl

import "github.com/x/embedlog/internal/engine"

var _ engine.Forgetter = (*Node)(nil)

// Forget implements engine.Forgetter: of a log whose group has let go of this node the
// term and the vote stay, so that it may be made a member again with an empty log; of one
// that is gone for good nothing does.
func (n *Node) Forget(id engine.LogID, gone bool) error {
	n.mu.Lock()
	v := n.votes
	n.mu.Unlock()
	switch {
	case v == nil:
		return nil
	case gone:
		return v.Forget(id)
	}
	return v.LetGo(id)
}
