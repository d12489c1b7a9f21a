package raftrepl

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/x/embedlog/partition"
)

func TestGroupReplicates(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3).start()
		defer c.stop()
		l := c.leader()
		var want []string
		for i := range 50 {
			v := fmt.Sprintf("value %d", i)
			l.mustAppend(v)
			want = append(want, v)
		}
		c.settle()
		for _, n := range c.nodes {
			if got := n.values(); !slices.Equal(got, want) {
				t.Errorf("node %d: %q, want %q", n.id, got, want)
			}
			if n != l {
				if _, err := n.append("no"); !errors.Is(err, partition.ErrNotLeader) {
					t.Errorf("append at node %d: %v", n.id, err)
				}
				if node, _ := n.g.Leader(); node != l.id {
					t.Errorf("node %d says that %d leads", n.id, node)
				}
			}
		}
		c.same()
	})
}

func TestGroupGoesOnWithoutItsLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3).start()
		defer c.stop()
		var want []string
		for round := range 4 {
			l := c.leader()
			for i := range 20 {
				v := fmt.Sprintf("%d/%d", round, i)
				l.mustAppend(v)
				want = append(want, v)
			}
			l.kill()
			next := c.leader()
			next.mustAppend("without")
			want = append(want, "without")
			l.start()
			c.settle()
		}
		for _, n := range c.nodes {
			if got := n.values(); !slices.Equal(got, want) {
				t.Errorf("node %d: %q, want %q", n.id, got, want)
			}
		}
		c.same()
	})
}
