package raftrepl

import (
	"io"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// The library tries again to send entries after a pause that doubles with each failure, up to ten seconds:
// a follower that comes back after minutes would get them that late. So a failure is not told before the
// follower was heard again, by the heartbeats, which are tried twice in a timeout, or there is a connection
// with its node; then the same entries are sent again, and the library knows of no failure at all.
//
//	library: entries ── fail ─────────────────────────────── entries ── answer
//	library: heartbeat ── fail ── fail ── fail ── answer ──> heard
//
// Who waits holds no entries, only where they begin.

const (
	firstRetry = 10 * time.Millisecond
	lastRetry  = time.Second
)

// retried sends entries until they are answered. It ends with an error when this instance does not lead in
// the term of the request any more, or the follower is no member.
func (t *instanceTransport) retried(id raft.ServerID, m *raft.AppendEntriesRequest, send func() error) error {
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		began := time.Now()
		err := send()
		if err == nil {
			return nil
		}
		n := len(m.Entries)
		m.Entries = nil
		if !t.untilHeard(id, m.Term, began, pause) {
			return err
		}
		for i := range n {
			e := new(raft.Log)
			if t.inst.store.GetLog(m.PrevLogEntry+uint64(i)+1, e) != nil || e.Term > m.Term {
				return err // deleted meanwhile
			}
			m.Entries = append(m.Entries, e)
		}
	}
}

// untilHeard waits until a follower has answered what was sent after a time, and for a pause at least. It says
// whether there is any use in sending again.
func (t *instanceTransport) untilHeard(id raft.ServerID, term uint64, after time.Time, pause time.Duration) bool {
	for {
		heard := t.hear(id, after)
		timer := time.NewTimer(max(pause, t.g.cfg.Timing.Heartbeat))
		if heard == nil {
			timer.Reset(pause)
		}
		select {
		case <-heard: // never, when it was heard already
		case <-timer.C:
		case <-t.inst.done:
			timer.Stop()
			return false
		}
		timer.Stop()
		if t.inst.raft.State() != raft.Leader || t.inst.raft.CurrentTerm() != term || !t.member(id) {
			return false
		}
		if heard == nil {
			return true
		}
	}
}

// hear is a channel that is closed when a follower answers; nil when it has since a time.
func (l *gate) hear(id raft.ServerID, since time.Time) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.peers[id]; p != nil && p.contact.After(since) || l.reached[memberNode(id)].After(since) {
		return nil
	}
	if l.hearing[id] == nil {
		l.hearing[id] = make(chan struct{})
	}
	return l.hearing[id]
}

// heardLocked is told to those who wait for a follower. mu is held.
func (l *gate) heardLocked(id raft.ServerID) {
	if c := l.hearing[id]; c != nil {
		close(c)
		delete(l.hearing, id)
	}
}

// met is told that there is a connection with a node: those who wait for a follower there try.
func (l *gate) met(node int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reached[node] = time.Now()
	for id := range l.hearing {
		if memberNode(id) == node {
			l.heardLocked(id)
		}
	}
}

func (t *instanceTransport) member(id raft.ServerID) bool {
	return slices.ContainsFunc(t.inst.raft.GetConfiguration().Configuration().Servers, func(s raft.Server) bool { return s.ID == id })
}

// installed is what an install ended with. A failure is told when the follower was heard again, for the same
// reason; what was made for it is let go before.
func (t *instanceTransport) installed(id raft.ServerID, m *raft.InstallSnapshotRequest, began time.Time, data io.Reader, err error) error {
	if err == nil || t.inst.cutOff.Load() {
		return err
	}
	if c, ok := data.(io.Closer); ok {
		c.Close()
	}
	t.untilHeard(id, m.Term, began, firstRetry)
	return err
}
