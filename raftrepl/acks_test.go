package raftrepl

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/log"
)

// Who acknowledges before it may loses nothing by that unless a power cut follows at once. These tests hold
// the disk where it has written and not synced yet, and look at who says what meanwhile.

// heldDisk is a log's disk whose syncs wait until they are let go. The group calls before it writes, too.
type heldDisk struct {
	held    atomic.Bool
	waiting atomic.Bool  // a sync does
	writes  atomic.Int64 // that were begun
	let     chan struct{}
}

// of puts it under a process whose group does not take part yet.
func (d *heldDisk) of(r *simRun) {
	d.let = make(chan struct{})
	r.g.stall = func() {
		// There is one sync at a time.
		if inst := r.g.instance(); inst == nil || inst.store.sync.since().IsZero() || d.waiting.Load() {
			d.writes.Add(1)
		} else if d.held.Load() {
			d.waiting.Store(true)
			<-d.let
			d.waiting.Store(false)
		}
	}
}

// scripted is a replica whose leader is the test: what it answers is what a leader would count.
type scripted struct {
	t    *testing.T
	c    *simCluster
	n    *simNode
	disk heldDisk
	term uint64
	end  int64 // offset behind the last record that was sent
}

// script starts the second of three nodes, which hears of nobody else.
func script(t *testing.T) *scripted {
	s := &scripted{t: t, c: newSimCluster(t, 3, 3), term: 2}
	s.n = s.c.nodes[1]
	s.c.opened = func(r *simRun) { s.disk.of(r) }
	if err := s.n.start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// reply comes for a message of the leader's that is on its way.
type reply chan raft.RPCResponse

// message is one of the leader's, with entries behind prev. Each is a record.
func (s *scripted) message(prev, prevTerm, commit uint64, records ...string) *raft.AppendEntriesRequest {
	m := &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("1"), Addr: []byte("1")},
		Term:      s.term, PrevLogEntry: prev, PrevLogTerm: prevTerm, LeaderCommitIndex: commit,
	}
	for i, text := range records {
		b, err := log.AppendBatch(nil, &log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}, []log.Record{{Value: []byte(text)}})
		if err != nil {
			s.t.Fatal(err)
		}
		log.SetBatchOffset(b, s.end, int32(s.term))
		s.end++
		m.Entries = append(m.Entries, &raft.Log{Index: prev + uint64(i) + 1, Term: s.term, Type: raft.LogCommand, Data: b})
	}
	return m
}

// take gives the replica a message. What it returns waits for the answer.
func (s *scripted) take(m any) answering { return s.n.run.Load().g.gate.take(raft.RPC{Command: m}) }

// send gives the replica a message, and time to write.
func (s *scripted) send(prev, prevTerm, commit uint64, records ...string) reply {
	wait := s.take(s.message(prev, prevTerm, commit, records...))
	a := make(reply, 1)
	go func() {
		resp, err := wait()
		a <- raft.RPCResponse{Response: resp, Error: err}
	}()
	time.Sleep(time.Millisecond)
	return a
}

// yes waits for an answer that a leader counts.
func (s *scripted) yes(a reply) {
	s.t.Helper()
	select {
	case r := <-a:
		if m, ok := r.Response.(*raft.AppendEntriesResponse); !ok || r.Error != nil || !m.Success {
			s.t.Fatalf("it answers %+v, %v", r.Response, r.Error)
		}
	case <-time.After(time.Second):
		s.t.Fatal("it does not answer")
	}
}

// survives takes the power away, and all that was not synced.
func (s *scripted) survives(index uint64) {
	s.t.Helper()
	r := s.n.run.Load()
	fs := s.n.disk.Load().AfterCrash(nil)
	s.n.die(r, false, 0)
	close(s.disk.let)
	r.end()
	s.n.disk.Store(fs)
	if err := s.n.start(); err != nil {
		s.t.Fatal(err)
	}
	if last, _ := s.n.run.Load().p.LastEntry(); last < index {
		s.t.Errorf("it has acknowledged entry %d, and after a power cut it ends with %d", index, last)
	}
}

// What an instance has written and not synced when it ended is not taken for synced by the next one.
func TestNextInstanceSyncsBeforeItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script(t)
		defer s.c.close()
		s.yes(s.send(1, 1, 0, "a"))
		written := s.take(s.message(2, 2, 0, "b"))
		time.Sleep(time.Millisecond)
		// The disk has no room for a new term, for a moment: the instance ends before somebody has looked
		// whether the answer is true.
		s.n.disk.Load().SetCapacity(0)
		s.term = 3
		if r := <-s.send(3, 2, 0); r.Error == nil {
			t.Errorf("a term that is not stored is answered: %+v", r.Response)
		}
		if resp, err := written(); err == nil {
			t.Errorf("an instance that has ended answers %+v", resp)
		}
		s.n.disk.Load().SetCapacity(-1)
		time.Sleep(2 * firstRestart)
		s.yes(s.send(3, 2, 0))
		s.survives(3)
	})
}
