package raftrepl

import (
	"errors"
	"time"

	"github.com/x/embedlog/internal/engine"
)

// A connection says who its peer is; what the peer may do is looked up at each message, because that changes while the
// connection lasts.
//
//	                    calls                     messages of a group
//	registered          all                       all
//	added, not here     to be registered          of which it is a member; of one that nobody is known to lead, or that it leads
//	not known           none                      the same: this node may have been away when it was added
//	removed             none                      of which it is a member still: its vote may be needed to let it go
//
// Nobody else has a connection for long.

func (t *transport) standingOf(node int32, directory engine.TopicID) engine.Standing {
	if t.standing == nil {
		return engine.StandsRegistered
	}
	return t.standing(node, directory)
}

func (l *wire) standing() engine.Standing { return l.t.standingOf(l.peer.node, l.directory) }

// encodeRefusal answers a request of who may not ask for it.
func encodeRefusal(id uint64, s engine.Standing, node int32) []byte {
	reason := RefusedNode
	switch s {
	case engine.StandsRemoved:
		reason = RefusedRemoved
	case engine.StandsOther:
		reason = RefusedDirectory
	}
	return encodeFailure(id, statusRefused, string(rune(reason))+s.Why(node))
}

// heardOf notes what a peer's refusal says about this node.
func (l *wire) heardOf(err error) error {
	if refused := (*PeerRefusedError)(nil); errors.As(err, &refused) {
		refused.Address = l.address
		if errors.Is(err, engine.ErrNodeRemoved) {
			l.t.removedBy.Store(l.peer.node)
		}
	}
	return err
}

// takesFrom says whether a group takes messages of a node that is not registered here.
func (g *groupTransport) takesFrom(node int32, s engine.Standing) bool {
	if g.hooks.member == nil || g.hooks.member(node) {
		return s != engine.StandsOther
	}
	if s != engine.StandsExpected && s != engine.StandsUnknown {
		return false
	}
	leads := g.hooks.leads()
	return leads < 0 || leads == node
}

// memberOfAny says whether a node is a member of a group that is here.
func (t *transport) memberOfAny(node int32) bool {
	t.mu.Lock()
	groups := make([]*groupTransport, 0, len(t.groups))
	for _, g := range t.groups {
		groups = append(groups, g)
	}
	t.mu.Unlock()
	for _, g := range groups {
		if g.hooks.member != nil && g.hooks.member(node) {
			return true
		}
	}
	return false
}

// nodesChanged has connections looked at: some may be of nodes that have no part any more. It does not wait.
func (t *transport) nodesChanged() {
	select {
	case t.rejudged <- struct{}{}:
	default:
	}
}

// rejudge ends the connections of who has no part any more. One that was removed keeps its own as long as it is a member of
// a group, and then half an election timeout, so that it has the answer to what it asked.
func (t *transport) rejudge() {
	var again <-chan time.Time
	grace := t.election / 2
	partless := map[*wire]time.Time{} // when a removed node was first seen without a part; zero while it has one
	for {
		select {
		case <-t.rejudged:
		case <-again:
		case <-t.ctx.Done():
			return
		}
		again = nil
		next := map[*wire]time.Time{}
		for _, l := range t.wires() {
			s := l.standing()
			if s != engine.StandsRemoved && s != engine.StandsOther {
				continue
			}
			if s == engine.StandsRemoved {
				since := partless[l]
				if t.memberOfAny(l.peer.node) {
					since = time.Time{}
				} else if since.IsZero() {
					since = time.Now()
				}
				if since.IsZero() || time.Since(since) < grace {
					next[l] = since
					continue
				}
			}
			reason := RefusedRemoved
			if s == engine.StandsOther {
				reason = RefusedDirectory
			}
			l.fail(&PeerRefusedError{Node: l.peer.node, Address: l.address, Reason: reason, Detail: s.Why(l.peer.node)})
		}
		if partless = next; len(partless) > 0 {
			again = time.After(grace)
		}
	}
}

// wires are all connections that are up.
func (t *transport) wires() (list []*wire) {
	t.mu.Lock()
	peers := make([]*peer, 0, len(t.peers))
	for _, p := range t.peers {
		peers = append(peers, p)
	}
	t.mu.Unlock()
	for _, p := range peers {
		p.mu.Lock()
		for f := range p.slots {
			if l := p.slots[f].wire; l != nil {
				list = append(list, l)
			}
		}
		p.mu.Unlock()
	}
	return list
}

var (
	_ engine.NodesWatcher = (*Node)(nil)
	_ engine.Removable    = (*Node)(nil)
)

// NodesChanged implements engine.NodesWatcher.
func (n *Node) NodesChanged() {
	n.mu.Lock()
	t := n.transport
	n.mu.Unlock()
	if t != nil {
		t.nodesChanged()
	}
}

// RemovedBy implements engine.Removable.
func (n *Node) RemovedBy() int32 {
	n.mu.Lock()
	t := n.transport
	n.mu.Unlock()
	if t == nil {
		return 0
	}
	return t.removedBy.Load()
}

// standing is what the engine says of a directory that says to be a node's; nil where nobody says anything.
func (n *Node) standing() func(node int32, directory engine.TopicID) engine.Standing {
	r, ok := n.host.(engine.Registry)
	if !ok {
		return nil
	}
	return r.Standing
}
