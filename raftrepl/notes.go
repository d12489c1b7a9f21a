package raftrepl

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// notes tell followers what is committed when nothing else does: the library would only
// after CommitTimeout. One is sent when the committed index has moved and noteDelay has
// passed without another entry, which would have carried it.
type notes struct {
	mu      sync.Mutex
	timer   *time.Timer
	inst    *instance
	index   uint64
	term    uint64
	sent    uint64
	stopped bool
}

const noteDelay = 2 * time.Millisecond

// committed follows what the FSM has applied.
func (g *Group) committed(i *instance, l *raft.Log) {
	g.pause.Store(0)
	g.doubt.committed(l.Index, l.Term)
	i.pmu.Lock()
	leads := i.leading != 0
	i.pmu.Unlock()
	if !leads {
		return
	}
	n := &g.notes
	n.mu.Lock()
	defer n.mu.Unlock()
	n.inst, n.index, n.term = i, l.Index, l.Term
	switch {
	case n.stopped:
	case n.timer == nil:
		n.timer = time.AfterFunc(noteDelay, func() { g.note() })
	default:
		n.timer.Reset(noteDelay)
	}
}

func (n *notes) stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stopped = true
	if n.timer != nil {
		n.timer.Stop()
	}
}

// note sends one to every follower, unless what was stored since carries it.
func (g *Group) note() {
	n := &g.notes
	n.mu.Lock()
	defer n.mu.Unlock()
	inst, index, term := n.inst, n.index, n.term
	if n.stopped || index <= n.sent {
		return
	}
	inst.pmu.Lock()
	leading := inst.leading
	inst.pmu.Unlock()
	if last, _ := inst.store.LastIndex(); last != index || leading == 0 {
		return
	}
	n.sent = index
	t := g.gate.transport(inst)
	for _, s := range inst.raft.GetConfiguration().Configuration().Servers {
		if s.ID == g.self {
			continue
		}
		m := &raft.AppendEntriesRequest{
			RPCHeader: g.gate.header(), Term: leading,
			PrevLogEntry: index, PrevLogTerm: term, LeaderCommitIndex: index,
		}
		g.work.Go(func() { t.ask(s.ID, s.Address, m, new(raft.AppendEntriesResponse)) })
	}
}
