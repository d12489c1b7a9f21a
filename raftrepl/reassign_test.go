package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/simnet"
	"github.com/x/embedlog/internal/vfs"
)

// A reassignment to a node that does not come is seen, and called off, at any node: the replicas are then those of before, in
// their order, and as many, whatever was assigned meanwhile.
func TestCancelReassignment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &dbCluster{t: t, net: simnet.New(), peers: map[int32]string{}, preferred: -1}
		for id := range int32(4) {
			c.peers[id+1] = simAddress(id + 1)
		}
		for id := range int32(4) {
			n := &dbNode{id: id + 1, disk: vfs.NewMem()}
			c.nodes = append(c.nodes, n)
			c.start(n)
		}
		defer c.close()
		soon := func() context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			t.Cleanup(cancel)
			return ctx
		}
		c.until("the topic is made", func() error {
			e := c.nodes[0].db.Engine()
			_, err := e.CreateTopic(soon(), engine.TopicSpec{Name: "orders", Partitions: 1, Replicas: [][]int32{{2, 1, 3}}})
			if errors.Is(err, embedlog.ErrTopicExists) {
				err = nil
			}
			return err
		})
		status := func(n *dbNode) embedlog.ReplicaStatus {
			for _, s := range n.db.Cluster().AskStatus(soon()) {
				if s.Topic == "orders" {
					return s
				}
			}
			return embedlog.ReplicaStatus{}
		}
		c.until("all three are members", func() error {
			if s := status(c.nodes[1]); len(s.InSync) != 3 {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
		if err := c.nodes[2].db.Cluster().CancelReassignment(soon(), "orders", 0); !errors.Is(err, embedlog.ErrNoReassignment) {
			t.Errorf("cancelled what is not under way: %v", err)
		}
		gone := c.nodes[3]
		c.net.Host(hostName(4)).Crash()
		gone.dead.Store(true)
		called := func(node *dbNode) {
			c.until("it is called off", func() error {
				err := node.db.Cluster().CancelReassignment(soon(), "orders", 0)
				if errors.Is(err, embedlog.ErrNoReassignment) { // the answer to the first call was lost
					return nil
				}
				return err
			})
		}
		are := func(want ...int32) {
			c.until(fmt.Sprintf("the replicas are %v", want), func() error {
				for _, n := range c.nodes[:3] {
					s := status(n)
					adding, removing := s.Moving()
					if !slices.Equal(s.Replicas, want) || s.Factor != len(want) || len(adding)+len(removing) > 0 || len(s.Members) != len(want) {
						return fmt.Errorf("node %d: %v of %d, adding %v, removing %v, members %v", n.id, s.Replicas, s.Factor, adding, removing, s.Members)
					}
				}
				return nil
			})
		}
		for i, row := range [][][]int32{{{1, 2, 4}}, {{4, 3, 2}}, {{4, 1, 2, 3}}, {{1, 4}}, {{3, 4}, {4, 2, 3}}} {
			node := c.nodes[i%3]
			for _, to := range row {
				c.until("it is reassigned", func() error { return node.db.Cluster().Reassign(soon(), "orders", 0, to) })
			}
			for _, n := range c.nodes[:3] {
				c.until("the reassignment is seen", func() error {
					s := status(n)
					if adding, _ := s.Moving(); !slices.Contains(adding, 4) {
						return fmt.Errorf("node %d: adding %v: %+v", n.id, adding, s)
					}
					return nil
				})
			}
			time.Sleep(20 * time.Second) // whatever can be done is
			called(c.nodes[(i+1)%3])
			are(2, 1, 3)
		}
		// One that is over is called off no more, and the next one goes back to where it led.
		c.until("it is reassigned", func() error { return c.nodes[1].db.Cluster().Reassign(soon(), "orders", 0, []int32{3, 2}) })
		are(3, 2)
		c.until("nothing is under way", func() error {
			if err := c.nodes[0].db.Cluster().CancelReassignment(soon(), "orders", 0); !errors.Is(err, embedlog.ErrNoReassignment) {
				return fmt.Errorf("cancelled: %v", err)
			}
			return nil
		})
		c.until("it is reassigned", func() error { return c.nodes[2].db.Cluster().Reassign(soon(), "orders", 0, []int32{4, 3}) })
		called(c.nodes[0])
		are(3, 2)
	})
}
