package raftrepl

import (
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// simWire is a group's transport with messages that get lost, come late, overtake each other and come
// twice, beside what simnet does to connections. It sees every message that a leader sends.
type simWire struct {
	raft.Transport
	s *sim
	r *simRun

	mu  sync.Mutex
	rng *rand.Rand
	odd atomic.Int64 // of a thousand messages so many have something happen to them
}

var _ raft.WithPreVote = (*simWire)(nil)

var errSimLost = errors.New("the simulation has lost the message")

// fate is what happens to one message.
type fate struct {
	lost     bool // it does not arrive
	unheard  bool // its answer does not
	twice    bool // it comes again
	late     time.Duration
	again    time.Duration
	deadline time.Duration // after which the sender gives a lost one up
}

func (w *simWire) fate() (f fate) {
	odd := int(w.odd.Load())
	if odd == 0 {
		return f
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rng.IntN(1000) >= odd {
		return f
	}
	f.deadline = w.s.scaled(500 * time.Millisecond)
	switch w.rng.IntN(4) {
	case 0:
		f.lost = true
	case 1:
		f.unheard = true
	case 2:
		f.twice = true
		f.again = time.Duration(w.rng.Int64N(int64(w.s.scaled(400 * time.Millisecond))))
	default:
		f.late = time.Duration(w.rng.Int64N(int64(w.s.scaled(400 * time.Millisecond))))
	}
	return f
}

// carry sends a message as its fate says. A process that has ended and begun again never gets
// one twice: that would be another connection.
func (w *simWire) carry(to raft.ServerID, send func() error, repeat func()) error {
	if w.r.dead.Load() {
		return errSimLost
	}
	f := w.fate()
	if f.late > 0 {
		time.Sleep(f.late)
	}
	if f.lost {
		time.Sleep(f.deadline)
		return errSimLost
	}
	if f.twice {
		node := w.s.nodes[memberNode(to)-1]
		first := node.run.Load()
		w.s.echoes.Go(func() {
			time.Sleep(f.again)
			if first != nil && node.run.Load() == first && !w.r.dead.Load() {
				repeat()
			}
		})
	}
	err := send()
	if f.unheard {
		time.Sleep(f.deadline)
		return errSimLost
	}
	return err
}

func (w *simWire) AppendEntries(id raft.ServerID, to raft.ServerAddress, m *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if !w.r.dead.Load() {
		w.s.leads(w.r, m.Term)
	}
	own := *m
	return w.carry(id, func() error { return w.Transport.AppendEntries(id, to, m, resp) },
		func() { w.Transport.AppendEntries(id, to, &own, new(raft.AppendEntriesResponse)) })
}

func (w *simWire) RequestVote(id raft.ServerID, to raft.ServerAddress, m *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if c := w.s.contested.Load(); c != nil && memberID(c.voter.id) == id && !w.r.dead.Load() {
		return c.ask(w.s, memberID(w.r.n.id), &resp.Granted, func() error { return w.Transport.RequestVote(id, to, m, resp) })
	}
	if v := w.s.lateVotes.Load(); v != nil && v.second == memberID(w.r.n.id) && v.first == id {
		time.Sleep(w.s.plan.timing.Election)
		return errSimLost
	} else if v != nil && v.first == memberID(w.r.n.id) {
		defer time.Sleep(w.s.plan.timing.Election * 3 / 4)
	}
	own := *m
	return w.carry(id, func() error { return w.Transport.RequestVote(id, to, m, resp) },
		func() { w.Transport.RequestVote(id, to, &own, new(raft.RequestVoteResponse)) })
}

func (w *simWire) RequestPreVote(id raft.ServerID, to raft.ServerAddress, m *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	own := *m
	pre := w.Transport.(raft.WithPreVote)
	return w.carry(id, func() error { return pre.RequestPreVote(id, to, m, resp) },
		func() { pre.RequestPreVote(id, to, &own, new(raft.RequestPreVoteResponse)) })
}

func (w *simWire) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, m *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	err := w.Transport.InstallSnapshot(id, to, m, resp, data)
	if err == nil && resp.Success {
		w.s.count("installs", 1)
	}
	return err
}

func (w *simWire) TimeoutNow(id raft.ServerID, to raft.ServerAddress, m *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	own := *m
	return w.carry(id, func() error { return w.Transport.TimeoutNow(id, to, m, resp) },
		func() { w.Transport.TimeoutNow(id, to, &own, new(raft.TimeoutNowResponse)) })
}

// slowDisk is a log's disk that takes its time.
type slowDisk struct {
	mu    sync.Mutex
	until time.Time // to then each write takes up to each
	syncs bool      // and syncs only
	each  time.Duration
	hangs time.Time // to then writes wait
}

// wait is what a write to the log begins with, or a sync. No lock is held meanwhile.
func (d *slowDisk) wait(sync bool) {
	d.mu.Lock()
	now := time.Now()
	pause := d.hangs.Sub(now)
	if pause <= 0 && now.Before(d.until) && (sync || !d.syncs) {
		pause = d.each
	}
	d.mu.Unlock()
	if pause > 0 {
		time.Sleep(pause)
	}
}

func (d *slowDisk) set(until time.Time, each time.Duration, hangs time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.until, d.each, d.hangs, d.syncs = until, each, hangs, false
}

// setSyncs has syncs take so long, and what is written goes on meanwhile.
func (d *slowDisk) setSyncs(until time.Time, each time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.until, d.each, d.syncs = until, each, true
}
