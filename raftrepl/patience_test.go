package raftrepl

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/testcount"
)

// When a leader is gone the next one need not wait until the slower follower has found out by
// itself: the mean over many losses is far below the two timeouts that it would be.
func TestElectionDoesNotWaitForTheSlower(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3).start()
		defer c.stop()
		c.leader().mustAppend("a")
		var sum, longest time.Duration
		n := testcount.N(40)
		for i := range n {
			old := c.settle()
			time.Sleep(time.Duration(i) * 37 * time.Millisecond) // the timers are anywhere
			old.kill()
			began := time.Now()
			now := c.leader()
			took := time.Since(began)
			sum, longest = sum+took, max(longest, took)
			now.mustAppend("b")
			old.start()
		}
		c.settle()
		c.same()
		mean := sum / time.Duration(n)
		t.Logf("a new leader after %v on the average, %v at most", mean, longest)
		if mean > FastTiming.Heartbeat*17/10 {
			t.Errorf("a new leader after %v on the average, the timeout is %v", mean, FastTiming.Heartbeat)
		}
	})
}

// A follower that hears its leader keeps it, whatever another one believes: neither pre-vote nor vote
// is granted. One that has missed heartbeats grants both, to whom they may be granted.
func TestFollowersKeepALeaderThatTheyHear(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3).start()
		defer c.stop()
		l := c.settle()
		l.mustAppend("a")
		c.settle()
		var follower, other *testNode
		for _, n := range c.nodes {
			switch {
			case n == l:
			case follower == nil:
				follower = n
			default:
				other = n
			}
		}
		inst := follower.g.instance()
		index, term := follower.p.LastEntry()
		header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(memberID(other.id)), Addr: []byte(memberID(other.id))}
		ask := func(m any) (granted bool) {
			response, _ := follower.g.gate.take(raft.RPC{Command: m})()
			switch r := response.(type) {
			case *raft.RequestPreVoteResponse:
				return r.Granted
			case *raft.RequestVoteResponse:
				return r.Granted
			}
			return false
		}
		pre := func(index, term uint64) bool {
			return ask(&raft.RequestPreVoteRequest{RPCHeader: header, Term: inst.raft.CurrentTerm() + 1, LastLogIndex: index, LastLogTerm: term})
		}
		vote := func() bool {
			return ask(&raft.RequestVoteRequest{RPCHeader: header, Term: inst.raft.CurrentTerm() + 1, LastLogIndex: index, LastLogTerm: term})
		}
		for range 20 {
			time.Sleep(41 * time.Millisecond)
			if pre(index, term) || vote() {
				t.Fatal("a vote against a leader that is heard")
			}
		}
		c.net.isolate(l.id, true)
		defer c.net.isolate(l.id, false)
		for !inst.missed() {
			time.Sleep(time.Millisecond)
		}
		if _, leader := inst.raft.LeaderWithID(); leader == "" {
			t.Fatal("the library has found out by itself")
		}
		if pre(index-1, term) || pre(index, term-1) {
			t.Error("a pre-vote for who lacks entries")
		}
		header.ID = []byte("9")
		if pre(index, term) {
			t.Error("a pre-vote for who is no member")
		}
		header.ID = []byte(memberID(other.id))
		if !pre(index, term) || !vote() {
			t.Error("no vote, though the leader is silent")
		}
	})
}

// A candidate that was told to ask for votes while it asked for pre-votes, and then has the last message of its leader, is a candidate
// that knows a leader, for the library; it votes for others all the same, and looks for votes itself.
func TestCandidatesHaveNoLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3).start()
		defer c.stop()
		l := c.settle()
		l.mustAppend("a")
		c.settle()
		n, other := c.node(l.id%3+1), c.node((l.id+1)%3+1)
		inst := n.g.instance()
		last := heartbeatOf(l.g.instance())
		for _, n := range c.nodes {
			c.net.isolate(n.id, true)
		}
		for inst.raft.State() != raft.Candidate {
			time.Sleep(time.Millisecond)
		}
		inst.inject(&raft.TimeoutNowRequest{RPCHeader: n.g.gate.header()})
		inst.inject(last)
		synctest.Wait()
		if _, id := inst.raft.LeaderWithID(); inst.raft.State() != raft.Candidate || id == "" {
			t.Fatalf("the library is a %v that knows %q as leader", inst.raft.State(), id)
		}
		if node, _ := n.g.Leader(); node != -1 {
			t.Errorf("node %d is said to lead", node)
		}
		// Only this one and the other are left: each needs the other one's vote.
		c.net.isolate(n.id, false)
		c.net.isolate(other.id, false)
		for began := time.Now(); ; time.Sleep(time.Millisecond) {
			_, err1 := n.g.LeaderEpoch()
			_, err2 := other.g.LeaderEpoch()
			if err1 == nil || err2 == nil {
				break
			}
			if time.Since(began) > 10*FastTiming.Election {
				t.Fatalf("nobody leads: %v and %v", err1, err2)
			}
		}
		c.net.isolate(l.id, false)
		c.settle()
		c.same()
	})
}

// heartbeatOf is a leader's message that carries nothing.
func heartbeatOf(i *instance) *raft.AppendEntriesRequest {
	h := i.g.gate.header()
	return &raft.AppendEntriesRequest{RPCHeader: h, Term: i.raft.CurrentTerm()}
}
