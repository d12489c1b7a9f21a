package raftrepl

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/testcount"
)

// A process that has ended is followed by another leader at once: whoever had a connection with it is told
// that nobody listens there any more.
func TestLeaderWhoseProcessHasEnded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newSimCluster(t, 3, 3)
		defer c.close()
		c.mustStart()
		for range testcount.N(20) {
			old := c.mustSettle()
			time.Sleep(3 * time.Second) // connections that end as soon as they are there say nothing
			old.n.crash(false, 0)
			began := time.Now()
			for c.leader() == nil {
				time.Sleep(time.Millisecond)
				if took := time.Since(began); took > FastTiming.Heartbeat/2 {
					t.Fatalf("nobody leads %v after node %d has ended", took, old.n.id)
				}
			}
			if err := old.n.start(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A machine that is silent may be there: its followers wait for the timeout, and one of them asks for
// votes soon after it.
func TestLeaderWhoIsSilent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 5).start()
		defer c.stop()
		for i := range testcount.N(20) {
			old := c.settle()
			time.Sleep(time.Duration(i) * 37 * time.Millisecond) // the library's timers are anywhere
			c.net.isolate(old.id, true)
			began := time.Now()
			for leads := false; !leads; {
				time.Sleep(time.Millisecond)
				for _, n := range c.nodes {
					if _, err := n.g.LeaderEpoch(); n != old && err == nil {
						leads = true
					}
				}
				if took := time.Since(began); took > FastTiming.Heartbeat*2 {
					t.Fatalf("nobody leads %v after node %d was cut off", took, old.id)
				}
			}
			c.net.isolate(old.id, false)
		}
		c.settle()
		c.same()
	})
}

// A leader whom one replica alone believes to be gone stays, in its term.
func TestLeaderThatOneReplicaMisses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3)
		var one, gone atomic.Int32 // who believes it, and of whom
		c.gone = func(at, node int32) bool { return at == one.Load() && node == gone.Load() }
		c.start()
		defer c.stop()
		l := c.settle()
		epoch, err := l.g.LeaderEpoch()
		if err != nil {
			t.Fatal(err)
		}
		who := c.node(l.id%3 + 1)
		var rounds atomic.Int64
		c.net.mu.Lock()
		c.net.seen = func(from, _ raft.ServerAddress, m any) {
			if _, ok := m.(*raft.RequestPreVoteRequest); ok && from == raft.ServerAddress(memberID(who.id)) {
				rounds.Add(1)
			}
		}
		c.net.mu.Unlock()
		gone.Store(l.id)
		one.Store(who.id)
		who.g.nodeGone(l.id)
		for range 100 {
			l.mustAppend("a")
			time.Sleep(50 * time.Millisecond)
		}
		if now, err := l.g.LeaderEpoch(); err != nil || now != epoch {
			t.Errorf("node %d led in %d, and is in %d now: %v", l.id, epoch, now, err)
		}
		if rounds.Load() == 0 {
			t.Error("the one that misses it has asked nobody")
		}
	})
}

// Two that voted for themselves in one term do not wait for the library's timers, and a replica whose
// term is behind learns of the newer one.
func TestSplitVoteIsFollowedByAnotherOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3).start()
		defer c.stop()
		for range testcount.N(10) {
			old := c.settle()
			old.kill()
			began := time.Now()
			for _, n := range c.nodes {
				if n != old { // both at the same moment, without a round before
					inst := n.g.instance()
					inst.inject(&raft.TimeoutNowRequest{RPCHeader: n.g.gate.header()})
				}
			}
			c.leader().mustAppend("a")
			if took := time.Since(began); took > FastTiming.Election {
				t.Errorf("a leader after %v", took)
			}
			old.start()
		}
		c.settle()
		c.same()
	})
}
