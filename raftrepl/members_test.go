package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/partition"
)

// setMembers has whoever leads make nodes the members, as the engine would.
func (c *testCluster) setMembers(nodes ...int32) {
	c.t.Helper()
	for range 20 {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		err := c.leader().g.SetMembers(ctx, nodes)
		cancel()
		if err == nil {
			return
		}
		if !errors.Is(err, partition.ErrNotLeader) {
			c.t.Logf("set members %v: %v", nodes, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	c.t.Fatalf("the members do not become %v", nodes)
}

func (n *testNode) members() (list []string) {
	for _, m := range n.g.Status().Members {
		kind := "voter"
		if !m.Voter {
			kind = "reader"
		}
		list = append(list, fmt.Sprintf("%d %s", m.Node, kind))
	}
	slices.Sort(list)
	return list
}

func TestMembersChangeOneAtATime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3).start()
		defer c.stop()
		c.leader().mustAppend("a", "b", "c")
		for range 2 {
			c.add().start() // no initial members: they wait
		}
		if r := c.node(4).g.Status().Reason; !strings.Contains(r, "waits to be made a member") {
			t.Errorf("a node that waits says %q", r)
		}
		c.setMembers(1, 2, 3, 4, 5)
		c.settle()
		c.setMembers(3, 4, 5) // whoever leads of 1 and 2 goes last
		l := c.leader()
		if got, want := l.members(), []string{"3 voter", "4 voter", "5 voter"}; !slices.Equal(got, want) {
			t.Fatalf("members %q, want %q", got, want)
		}
		c.node(1).stop()
		c.node(2).stop()
		l = c.leader()
		l.mustAppend("d")
		c.settle()
		c.same()
		if got, want := c.node(5).values(), []string{"a", "b", "c", "d"}; !slices.Equal(got, want) {
			t.Errorf("node 5 has %q, want %q", got, want)
		}
		for _, m := range l.g.Status().Members {
			if !m.InSync || m.Lag != 0 {
				t.Errorf("member %+v", m)
			}
		}
	})
}

func TestTransferMovesTheLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3).start()
		defer c.stop()
		l := c.leader()
		moves := make(chan struct{}, 100)
		cancel := l.g.Watch(func() { moves <- struct{}{} })
		defer cancel()
		to := c.node(l.id%3 + 1)
		ctx := context.Background()
		l.mustAppend("a")
		if err := l.g.Transfer(ctx, to.id); err != nil {
			t.Fatal(err)
		}
		now := c.leader()
		if now != to {
			t.Errorf("node %d leads, want %d", now.id, to.id)
		}
		now.mustAppend("b")
		<-moves
		if err := l.g.Transfer(ctx, to.id); !errors.Is(err, partition.ErrNotLeader) {
			t.Errorf("transfer by who does not lead: %v", err)
		}
		if err := now.g.Confirm(ctx); err != nil {
			t.Errorf("confirm: %v", err)
		}
		// Nobody hears of a node that is cut off, so it cannot confirm.
		c.net.isolate(now.id, true)
		if err := now.g.Confirm(ctx); !errors.Is(err, partition.ErrNotLeader) {
			t.Errorf("confirm without a majority: %v", err)
		}
		time.Sleep(3 * time.Second)
		if _, err := now.g.LeaderEpoch(); err == nil || c.leader() == now {
			t.Error("it leads without a majority")
		}
		if r := now.g.Status().Reason; !strings.Contains(r, "no majority of votes") || !strings.Contains(r, "unreachable") {
			t.Errorf("reason %q", r)
		}
		c.net.isolate(now.id, false)
		c.settle()
	})
}

// A member that is behind does not know one that came since. Together they are a majority when a third
// is lost, and the newer one is elected.
// Found by TestSimulation.
func TestVoteForMemberThatCameSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newSimCluster(t, 3, 4)
		defer c.close()
		for _, n := range c.nodes {
			if err := n.start(); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if l := c.mustSettle(); l.n.id != 2 {
			if err := l.g.Transfer(ctx, 2); err != nil {
				t.Fatal(err)
			}
		}
		l := c.mustSettle()
		if l.n.id != 2 {
			t.Fatalf("node %d leads", l.n.id)
		}
		for _, other := range []int32{2, 3, 4} {
			c.net.CutBoth(hostName(1), hostName(other))
		}
		if err := l.g.SetMembers(ctx, []int32{1, 2, 4}); err != nil {
			t.Fatal(err)
		}
		c.nodes[1].crash(false, 0)
		c.nodes[2].stop()
		c.net.Reset(hostName(1), hostName(2)) // what is under way would tell node 1 of node 4
		c.net.HealAll()
		for range 1000 {
			time.Sleep(10 * time.Millisecond)
			if l := c.leader(); l != nil && l.n.id == 4 {
				if _, err := l.p.Append(ctx, record("v"), nil); err != nil {
					t.Fatal(err)
				}
				return
			}
		}
		for _, id := range []int{0, 3} {
			t.Errorf("node %d: %+v", id+1, c.nodes[id].run.Load().g.Status())
		}
	})
}
