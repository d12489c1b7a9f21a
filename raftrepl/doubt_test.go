package raftrepl

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// A replica in doubt grants neither votes nor pre-votes, asks for none, and does not begin an election when it is told to: each of
// these by itself, whatever the others would keep from happening.
func TestDoubtfulReplicaHasNoPartInVotes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3)
		c.cfg.Log.Level = log.OS
		c.start()
		defer c.stop()
		l := c.leader()
		l.mustAppend(numbered("a", 5)...)
		c.settle()
		n, other := c.node(l.id%3+1), c.node((l.id+1)%3+1)
		n.crash(func(m *vfs.Mem) *vfs.Mem { return m.AfterCrash(nil) })
		for _, n := range c.nodes {
			c.net.isolate(n.id, true)
		}
		n.start()
		if !n.g.Doubtful() {
			t.Fatal("it does not doubt")
		}
		time.Sleep(time.Second)
		header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(memberID(other.id)), Addr: []byte(memberID(other.id))}
		told := func(m any) (any, error) { return n.g.gate.take(raft.RPC{Command: m})() }
		if r, err := told(&raft.RequestPreVoteRequest{RPCHeader: header, Term: 90, LastLogIndex: 1000, LastLogTerm: 80}); err != nil || r.(*raft.RequestPreVoteResponse).Granted {
			t.Errorf("a pre-vote: %+v, %v", r, err)
		}
		if r, err := told(&raft.TimeoutNowRequest{RPCHeader: header}); !errors.Is(err, errDoubtful) {
			t.Errorf("it is told to ask for votes: %+v, %v", r, err)
		}
		if r, err := told(&raft.RequestVoteRequest{RPCHeader: header, Term: 90, LastLogIndex: 1000, LastLogTerm: 80}); err != nil || r.(*raft.RequestVoteResponse).Granted {
			t.Errorf("a vote: %+v, %v", r, err)
		}
		out, id := n.g.gate.transport(n.g.instance()), memberID(other.id)
		if err := out.RequestVote(id, raft.ServerAddress(id), &raft.RequestVoteRequest{RPCHeader: header}, &raft.RequestVoteResponse{}); !errors.Is(err, errDoubtful) {
			t.Errorf("it asks for a vote: %v", err)
		}
		if err := out.RequestPreVote(id, raft.ServerAddress(id), &raft.RequestPreVoteRequest{RPCHeader: header}, &raft.RequestPreVoteResponse{}); !errors.Is(err, errDoubtful) {
			t.Errorf("it asks for a pre-vote: %v", err)
		}
	})
}

// Doubt ends when the replica has what its leader had when the two met, and an entry of that leader's own term is
// committed here; not before, whatever else is committed.
func TestDoubtEnds(t *testing.T) {
	type step struct {
		heard     *raft.AppendEntriesRequest
		committed [2]uint64 // index, term
		ends      bool
	}
	heard := func(term, prev, committed uint64) step {
		return step{heard: &raft.AppendEntriesRequest{Term: term, PrevLogEntry: prev, PrevLogTerm: 1, LeaderCommitIndex: committed}}
	}
	committed := func(index, term uint64, ends bool) step {
		return step{committed: [2]uint64{index, term}, ends: ends}
	}
	for name, steps := range map[string][]step{
		"nobody was met":                   {committed(100, 5, false)},
		"a heartbeat says nothing":         {heard(5, 0, 0), committed(100, 5, false)},
		"below what the leader had":        {heard(5, 20, 10), committed(10, 5, false), committed(19, 5, false), committed(20, 5, true)},
		"what it believed to be committed": {heard(5, 8, 12), committed(8, 5, false), committed(12, 5, true)},
		"an entry of an older term":        {heard(5, 20, 10), committed(20, 4, false), committed(25, 4, false), committed(26, 5, true)},
		"what it gets later is not waited": {heard(5, 20, 10), heard(5, 90, 50), committed(20, 5, true)},
		"another leader":                   {heard(5, 20, 10), heard(6, 30, 10), committed(20, 5, false), committed(29, 6, false), committed(30, 6, true)},
		"a leader that was replaced":       {heard(6, 20, 10), heard(5, 2, 1), committed(10, 6, false), committed(20, 6, true)},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newTestCluster(t, 1).start()
				defer c.stop()
				c.leader()
				g := c.node(1).g
				g.doubt.begin(g)
				for i, s := range steps {
					if s.heard != nil {
						g.doubt.heard(s.heard)
					} else {
						g.doubt.committed(s.committed[0], s.committed[1])
					}
					if g.Doubtful() == s.ends {
						t.Fatalf("step %d: it doubts: %t", i, g.Doubtful())
					}
				}
			})
		})
	}
}

// Whether a log may have lost what it acknowledged depends on how it was written, not on what its topic is set to at the next start: that may
// have been changed while the node was down, or the node knows only of an older setting, because what was committed of the metadata it hears later.
func TestDoubtIsNoted(t *testing.T) {
	for name, durable := range map[string][2]bool{ // at the beginning, at the next start
		"weak before": {false, true}, "weak since a moment ago": {true, true}, "weak all the time": {false, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newTestCluster(t, 3)
				if !durable[0] {
					c.cfg.Log.Level = log.OS
				}
				c.start()
				defer c.stop()
				c.leader().mustAppend("a")
				c.settle()
				// Closed and opened again, nothing says yet that they were written to.
				c.stop()
				c.start()
				l := c.settle()
				for _, n := range c.nodes {
					if err := n.p.SetLevel(log.OS); err != nil {
						t.Fatal(err)
					}
				}
				forgets, behind := c.node(l.id%3+1), c.node((l.id+1)%3+1)
				c.net.isolate(behind.id, true)
				l.mustAppend("b")
				c.cfg.Log.Level = log.OS
				if durable[1] {
					c.cfg.Log.Level = log.Durable
				}
				end := forgets.p.LogEnd()
				forgets.crash(func(m *vfs.Mem) *vfs.Mem { return m.AfterCrash(nil) })
				l.stop()
				c.net.isolate(behind.id, false)
				forgets.start()
				if forgets.p.LogEnd() >= end {
					t.Fatal("nothing was lost")
				}
				if !forgets.g.Doubtful() {
					t.Error("it does not doubt")
				}
				// The two that are left are a majority, and neither has what was acknowledged.
				time.Sleep(20 * time.Second)
				for _, n := range []*testNode{forgets, behind} {
					if node, _ := n.g.Leader(); node != -1 {
						t.Errorf("node %d says that %d leads", n.id, node)
					}
				}
				l.start()
				c.settle()
				for _, n := range c.nodes {
					if got := n.values(); !slices.Equal(got, []string{"a", "b"}) {
						t.Errorf("node %d: %q", n.id, got)
					}
				}
			})
		})
	}
}
