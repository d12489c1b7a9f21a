package raftrepl

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/log"
)

// What a node has written as a leader is on its disk before it answers another leader: the answer
// says that the entries are here, and whoever counts it must not be told of some that a power cut takes.
func TestFormerLeaderSyncsBeforeItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newSimCluster(t, 3, 3)
		defer c.close()
		var calls, armed atomic.Int64
		let := make(chan struct{})
		c.opened = func(r *simRun) {
			r.g.stall = func(bool) {
				// The leader's first call is before it writes, the second one before it syncs.
				if armed.Load() == int64(r.n.id) && calls.Add(1) > 1 {
					<-let
				}
			}
		}
		for _, n := range c.nodes {
			if err := n.start(); err != nil {
				t.Fatal(err)
			}
		}
		l, err := c.settle(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		armed.Store(int64(l.n.id))
		appended := make(chan error, 1)
		go func() {
			_, err := l.p.Append(context.Background(), []log.Record{{Value: []byte("a")}}, nil)
			appended <- err
		}()
		time.Sleep(10 * time.Millisecond)
		if got := calls.Load(); got != 2 {
			t.Fatalf("the disk was used %d times, want a write and a sync", got)
		}
		last, epoch := l.p.LastEntry()
		other := memberID(l.n.id%3 + 1)
		answer := make(chan raft.RPCResponse, 1)
		wait := l.g.gate.take(raft.RPC{Command: &raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(other), Addr: []byte(other)},
			Term:      epoch + 1, PrevLogEntry: last, PrevLogTerm: epoch,
		}})
		go func() {
			resp, err := wait()
			answer <- raft.RPCResponse{Response: resp, Error: err}
		}()
		time.Sleep(10 * time.Millisecond)
		if len(answer) > 0 {
			t.Errorf("it has answered for entry %d, which is not synced", last)
		}
		close(let)
		if a := <-answer; a.Error != nil || !a.Response.(*raft.AppendEntriesResponse).Success {
			t.Errorf("the answer is %+v", a)
		}
		<-appended // another leader may have it or not
	})
}
