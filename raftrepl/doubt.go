package raftrepl

import (
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/seed"
)

// doubt is the state of a replica that may have lost what it had acknowledged: after an
// unclean stop at a weak level. It asks nobody for a vote and grants none, so that a
// leader is elected without it, and has all that was committed. It ends when the replica
// has all of the log that the leader had, or believed it to have, when the two met, and
// an entry of that leader's own term is committed, before which lies what earlier leaders
// had committed.
type doubt struct {
	doubtful atomic.Bool

	mu     sync.Mutex
	g      *Group
	met    bool
	term   uint64 // of the leader that was met
	target uint64 // what it had
}

func (d *doubt) begin(g *Group) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.g, d.met = g, false
	d.doubtful.Store(true)
}

// is says whether the replica is doubtful.
func (d *doubt) is() bool { return d.doubtful.Load() && !seed.Is(seed.DoubtIgnored) }

// heard notes what a leader says. Heartbeats say nothing about the log.
func (d *doubt) heard(m *raft.AppendEntriesRequest) {
	if !d.is() || onlyHeartbeat(m) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if m.Term < d.term || d.met && m.Term == d.term {
		return
	}
	// What it sends next lies behind all that it has heard us acknowledge.
	d.met, d.term = true, m.Term
	d.target = max(m.LeaderCommitIndex, m.PrevLogEntry+uint64(len(m.Entries)))
	if seed.Is(seed.DoubtEndsEarly) {
		d.term, d.target = 0, 0
	}
}

// committed ends the doubt when there is no more reason for it.
func (d *doubt) committed(index, term uint64) {
	if !d.is() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.met || index < d.target || term < d.term {
		return
	}
	d.endLocked()
}

// EndDoubt is an operator's decision that this replica goes on with what it has, when so
// many of a group may have lost records that nobody can be elected: what it lacks of what
// was acknowledged is lost. It is for one replica, the one with the longest log, and
// changes nothing where there is no doubt.
func (g *Group) EndDoubt() {
	d := &g.doubt
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.is() {
		d.endLocked()
	}
}

func (d *doubt) endLocked() {
	d.doubtful.Store(false)
	d.g.mu.Lock()
	p := d.g.p
	d.g.mu.Unlock()
	p.SetDoubtful(false)
	d.g.cfg.Logger.Info("the replica has its vote again")
}
