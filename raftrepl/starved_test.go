package raftrepl

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// Who found no room for an entry grants no pre-vote to who has it, and one to who has as much as itself; after a while to
// both.
func TestStarvedReplicasRefuseLongerLogs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3).start()
		defer c.stop()
		l := c.settle()
		l.mustAppend("a")
		c.settle()
		follower, other := c.nodes[l.id%3], c.nodes[(l.id+1)%3]
		inst := follower.g.instance()
		index, term := follower.p.LastEntry()
		header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(memberID(other.id)), Addr: []byte(memberID(other.id))}
		pre := func(index uint64) bool {
			m := &raft.RequestPreVoteRequest{RPCHeader: header, Term: inst.raft.CurrentTerm() + 1, LastLogIndex: index, LastLogTerm: term}
			response, err := follower.g.gate.take(raft.RPC{Command: m})()
			if err != nil {
				t.Fatal(err)
			}
			return response.(*raft.RequestPreVoteResponse).Granted
		}
		c.net.isolate(l.id, true)
		defer c.net.isolate(l.id, false)
		c.net.isolate(other.id, true) // nobody is elected meanwhile
		defer c.net.isolate(other.id, false)
		for !inst.missed() {
			time.Sleep(time.Millisecond)
		}
		if !pre(index) || !pre(index+1) {
			t.Fatal("no pre-vote, with room")
		}
		follower.g.starve(index + 1)
		if pre(index + 1) {
			t.Error("a pre-vote for an entry that there is no room for")
		}
		if !pre(index) {
			t.Error("no pre-vote for who has no more")
		}
		follower.g.starve(index + 5) // what is before it has room
		if !pre(index + 4) {
			t.Error("no pre-vote for entries that there is room for")
		}
		time.Sleep(max(starvedFor*follower.g.cfg.Timing.Election, 2*longRestart))
		if !pre(index + 9) {
			t.Error("no pre-vote after a while")
		}
	})
}
