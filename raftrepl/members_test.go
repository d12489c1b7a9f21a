package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
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
