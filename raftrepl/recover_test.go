package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/vfs"
)

// A crash at each operation of a decision to go on alone leaves the old group or the new one, with all that was
// there, and the decision can be made again.
func TestTakeOverCrash(t *testing.T) {
	// run has node 1 of three decide, with its disks ending at the given operations, and
	// returns how many there were before and after.
	run := func(t *testing.T, logOps, voteOps int) (ops [4]int) {
		bubble(t, func(t *testing.T) {
			c := newTestCluster(t, 3).start()
			defer c.stop()
			c.leader().mustAppend(numbered("a", 5)...)
			c.settle()
			for _, n := range c.nodes {
				n.stop()
			}
			n := c.node(1)
			n.fs, n.votes = n.fs.AfterKill(vfs.CrashAt(logOps)), n.votes.AfterKill(vfs.CrashAt(voteOps))
			n.vfs = n.fs
			if err := n.tryStart(); err != nil {
				t.Fatal(err)
			}
			ops[0], ops[1] = n.fs.Ops(), n.votes.Ops()
			took := n.g.TakeOver() == nil
			ops[2], ops[3] = n.fs.Ops(), n.votes.Ops()
			n.crash(func(m *vfs.Mem) *vfs.Mem { return m.AfterCrash(nil) })
			n.start()
			time.Sleep(3 * time.Second)
			if _, err := n.g.LeaderEpoch(); err != nil {
				if took {
					t.Fatalf("operations %d, %d: it was decided and is forgotten: %+v", logOps, voteOps, n.g.Status())
				}
				if err := n.g.TakeOver(); err != nil {
					t.Fatal(err)
				}
			}
			c.leader().mustAppend("alone")
			if got := n.values(); len(got) != 6 || len(n.g.Status().Members) != 1 {
				t.Errorf("operations %d, %d: it has %v, %+v", logOps, voteOps, got, n.g.Status())
			}
			// One of the others comes back, and is a member again.
			c.node(2).start()
			if err := n.g.SetMembers(t.Context(), []int32{1, 2}); err != nil {
				t.Fatal(err)
			}
			c.settle()
			c.same()
		})
		return ops
	}
	const never = 1 << 30
	ops := run(t, never, never)
	for k := ops[0]; k <= ops[2]; k++ {
		run(t, k, never)
	}
	for k := ops[1]; k <= ops[3]; k++ {
		run(t, never, k)
	}
}

// Two of three disks are gone: the third goes on when a person says so, with all that it had, and
// the cluster grows again.
func TestRecoverFromTwoLostDisks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c := newDBCluster(t, 3)
		defer c.net.Close()
		for _, n := range c.nodes {
			c.start(n)
		}
		c.until("make a topic", func() error {
			_, err := c.nodes[0].db.CreateTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 1, ReplicationFactor: 3})
			return err
		})
		add := func(n *dbNode, value string) error {
			top, err := n.db.Topic("orders")
			if err == nil {
				_, err = top.Produce(ctx, embedlog.Record{Value: []byte(value)})
			}
			return err
		}
		for i := range 10 {
			if err := add(c.nodes[i%3], fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		c.until("all have all", func() error { return c.well("orders", 10) })
		left := c.nodes[0]
		if _, err := left.db.Cluster().Recover(ctx, "orders", 0); !errors.Is(err, embedlog.ErrNotRecoverable) {
			t.Errorf("recovery of what is well: %v", err)
		}
		for _, n := range c.nodes[1:] {
			if err := n.db.Close(); err != nil {
				t.Error(err)
			}
		}
		c.nodes = c.nodes[:1]
		var err error
		c.until("nobody leads", func() error {
			_, err = left.db.Cluster().Recover(ctx, "", 0)
			if err == nil || strings.Contains(err.Error(), "leads it") {
				return fmt.Errorf("metadata: %v", err)
			}
			return nil
		})
		if !errors.Is(err, embedlog.ErrNotRecoverable) || !strings.Contains(err.Error(), "1 of 3 replicas are there") {
			t.Errorf("recovery without naming the lost: %v", err)
		}
		if _, err := left.db.Cluster().Recover(ctx, "", 0, 2); !errors.Is(err, embedlog.ErrNotRecoverable) {
			t.Errorf("recovery where a majority is left: %v", err)
		}
		for _, topic := range []string{"", "orders"} {
			c.until("recover "+topic, func() error {
				r, err := left.db.Cluster().Recover(ctx, topic, 0, 2, 3)
				if err == nil && !r.Alone {
					t.Errorf("recovered %+v", r)
				}
				return err
			})
		}
		c.until("it goes on", func() error { return add(left, "10") })
		// A kill, and what was decided holds.
		if err := left.db.Close(); err != nil {
			t.Fatal(err)
		}
		left.disk = left.disk.AfterKill()
		c.start(left)
		c.until("it goes on after a kill", func() error { return add(left, "11") })
		got := 0
		top, err := left.db.Topic("orders")
		if err != nil {
			t.Fatal(err)
		}
		for rec, err := range top.Scan(ctx, nil) {
			if err != nil {
				t.Fatal(err)
			}
			if string(rec.Value) != fmt.Sprint(got) {
				t.Errorf("record %d is %s", got, rec.Value)
			}
			got++
		}
		if got != 12 {
			t.Errorf("%d records", got)
		}
		// The lost ones are forgotten, and new machines take their places.
		for id := int32(2); id <= 3; id++ {
			c.until("drain", func() error { return left.db.Cluster().DrainNode(ctx, id) })
		}
		for id := int32(2); id <= 3; id++ {
			c.until("remove", func() error {
				err := left.db.Cluster().RemoveNode(ctx, id)
				if errors.Is(err, embedlog.ErrUnknownNode) {
					return nil
				}
				return err
			})
		}
		for id := int32(4); id <= 5; id++ {
			c.until("add a node", func() error {
				err := left.db.Cluster().AddNode(ctx, id, simAddress(id))
				if errors.Is(err, embedlog.ErrInvalidNode) {
					return nil
				}
				return err
			})
			n := &dbNode{id: id, disk: vfs.NewMem(), join: simAddress(1)}
			c.peers, c.nodes = nil, append(c.nodes, n)
			c.start(n)
		}
		c.until("replicate the topic", func() error { return left.db.Cluster().SetReplicationFactor(ctx, "orders", 3) })
		c.until("three have all again", func() error { return c.well("orders", 12) })
		if err := left.db.Close(); err != nil {
			t.Error(err)
		}
		c.nodes = c.nodes[1:]
		c.until("the new ones go on", func() error { return add(c.nodes[0], "12") })
		c.close()
	})
}

// All nodes have stopped without order while a topic was written at the level os: none has a vote, until a person
// says that they go on with what they have.
func TestRecoverFromDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c := newDBCluster(t, 3)
		defer c.net.Close()
		for _, n := range c.nodes {
			c.start(n)
		}
		c.until("make a topic", func() error {
			_, err := c.nodes[0].db.CreateTopic(ctx, "weak", &embedlog.TopicConfig{Partitions: 1, ReplicationFactor: 3, Durability: embedlog.OS})
			return err
		})
		top, err := c.nodes[0].db.Topic("weak")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := top.Produce(ctx, embedlog.Record{Value: []byte("a")}); err != nil {
			t.Fatal(err)
		}
		for _, n := range c.nodes {
			if err := n.db.Sync(ctx); err != nil {
				t.Fatal(err)
			}
		}
		c.crash(rand.New(rand.NewPCG(3, 4)))
		for _, n := range c.nodes {
			c.start(n)
		}
		doubts := func() error {
			for _, n := range c.nodes {
				for _, s := range n.db.Cluster().Status() {
					if s.Topic == "weak" && !strings.Contains(s.Reason, "embedlog cluster recover") {
						return fmt.Errorf("node %d: %+v", n.id, s)
					}
				}
			}
			return nil
		}
		c.until("they doubt", doubts)
		time.Sleep(time.Minute)
		if err := doubts(); err != nil {
			t.Fatal(err)
		}
		c.until("recover", func() error {
			r, err := c.nodes[1].db.Cluster().Recover(ctx, "weak", 0)
			if err == nil && (len(r.Doubted) != 2 || r.Alone) {
				t.Errorf("recovered %+v", r)
			}
			return err
		})
		c.until("it goes on", func() error {
			top, err := c.nodes[2].db.Topic("weak")
			if err == nil {
				_, err = top.Produce(ctx, embedlog.Record{Value: []byte("b")})
			}
			return err
		})
		c.close()
	})
}

// A replica that was not there when others were told to go on without what it has is fetched again when it comes: it
// neither acknowledges what it passes over, nor shows for ever what the group does not have.
func TestRecoveredWithoutWhoHasMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c := newDBCluster(t, 3)
		defer c.net.Close()
		for _, n := range c.nodes {
			c.start(n)
		}
		c.until("make a topic", func() error {
			_, err := c.nodes[0].db.CreateTopic(ctx, "weak", &embedlog.TopicConfig{Partitions: 1, ReplicationFactor: 3, Durability: embedlog.OS})
			return err
		})
		produce := func(n *dbNode, value string) {
			c.until("produce", func() error {
				top, err := n.db.Topic("weak")
				if err == nil {
					_, err = top.Produce(ctx, embedlog.Record{Value: []byte(value)})
				}
				return err
			})
		}
		values := func(n *dbNode) (list []string) {
			top, err := n.db.Topic("weak")
			if err != nil {
				t.Fatal(err)
			}
			for rec, err := range top.Scan(ctx, nil) {
				if err != nil {
					return []string{err.Error()}
				}
				list = append(list, string(rec.Value))
			}
			return list
		}
		for i := range 20 {
			produce(c.nodes[i%3], fmt.Sprint("lost ", i))
		}
		c.until("all have all", func() error { return c.well("weak", 20) })
		more := c.nodes[2]
		if err := more.db.Close(); err != nil {
			t.Fatal(err)
		}
		left := c.nodes[:2]
		for _, n := range left {
			n.dead.Store(true)
			c.net.Host(hostName(n.id)).Crash()
			disk := n.disk.AfterCrash(nil)
			n.db.Close()
			n.disk = disk
		}
		c.nodes = left
		for _, n := range left {
			c.start(n)
		}
		c.until("recover", func() error {
			_, err := left[0].db.Cluster().Recover(ctx, "weak", 0)
			return err
		})
		for i := range 3 {
			produce(left[i%2], fmt.Sprint("kept ", i))
		}
		kept := values(left[0])
		if len(kept) >= 20 {
			t.Fatalf("nothing was lost: %q", kept)
		}
		c.nodes = append(c.nodes, more)
		c.start(more)
		c.until("all have the same", func() error {
			if err := c.well("weak", len(kept)); err != nil {
				return err
			}
			for _, n := range c.nodes {
				if got := values(n); !slices.Equal(got, kept) {
					return fmt.Errorf("node %d has %q, and %q is kept", n.id, got, kept)
				}
			}
			return nil
		})
		c.close()
	})
}
