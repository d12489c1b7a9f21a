package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/simnet"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

// leave takes a node out as `cluster leave` does, asked at that node: all of its steps may be taken again. It fails as long as
// something is left to do.
func leave(n *dbNode) error {
	// Whom it asks may have crashed, and does not end his process.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c := n.db.Cluster()
	if c.Removed() != nil {
		return nil
	}
	err := c.DrainNode(ctx, n.id)
	if err == nil {
		err = c.RemoveNode(ctx, n.id) // refused while it has replicas
	}
	if errors.Is(err, embedlog.ErrUnknownNode) || errors.Is(err, embedlog.ErrNodeRemoved) {
		return nil // by an earlier try
	}
	return err
}

// A crash at each operation of the node that leaves, of the one that leads one of its partitions meanwhile, and of the one that
// gets its replicas: when it is started again, and asked again, the node leaves; nothing acknowledged is lost, and no partition has fewer
// replicas than before.
func TestLeaveCrashes(t *testing.T) {
	var disks []*vfs.Mem
	synctest.Test(t, func(t *testing.T) { disks = grown(t, []int32{1, 2}) })
	for _, sick := range []int32{2, 1, 3} {
		t.Run(fmt.Sprintf("node 2 leaves, node %d crashes", sick), func(t *testing.T) {
			from, leftAt, total, again := 0, 0, 0, 0
			try := func(k int) {
				synctest.Test(t, func(t *testing.T) {
					begun, end, ops := crashWhileLeaving(t, disks, sick, k)
					if k > 1<<29 {
						from, leftAt, total = begun, end, ops
					}
					if end == 0 {
						again++
					}
				})
				if t.Failed() {
					t.Fatalf("crash at operation %d", k)
				}
			}
			try(1 << 30)
			step, to := max(1, (leftAt-from)/testcount.N(4)), leftAt
			if everyOperation() {
				step, to = 1, total
			}
			tried := 0
			for k := from + step/2; k <= to; k += step {
				try(k)
				tried++
			}
			t.Logf("operations %d to %d, it left by %d; %d crashes, of which %d before that", from, total, leftAt, tried, again)
			if leftAt-from < 5 || again == 0 && tried >= 4 { // one or two may come too late
				t.Error("nothing was interrupted")
			}
		})
	}
}

// crashWhileLeaving has node 2 leave, and a node crash at its k-th operation. from is the one at which leaving began, end the one at
// which it had left (0 when the crash came first), ops how many there were.
func crashWhileLeaving(t *testing.T, disks []*vfs.Mem, sickID int32, k int) (from, end, ops int) {
	ctx := context.Background()
	c := &dbCluster{t: t, net: simnet.New(), maintenance: -1}
	for i, d := range disks {
		c.nodes = append(c.nodes, &dbNode{id: int32(i + 1), disk: d.AfterKill()})
	}
	defer c.net.Close()
	sick, leaving := c.nodes[sickID-1], c.nodes[1]
	sick.disk = disks[sickID-1].AfterKill(vfs.CrashAt(k), vfs.CrashByte(k%700))
	disk := sick.disk
	orCrashed := func(f func() error) func() error {
		return func() error {
			if disk.Crashed() {
				return nil
			}
			return f()
		}
	}
	for _, n := range c.nodes {
		if err := c.tryStart(n); err != nil && !(n == sick && disk.Crashed()) {
			t.Fatal(err)
		}
	}
	before, after := []int32{1, 2}, []int32{1, 3}
	c.until("as before", orCrashed(func() error { return c.hasReplicas(before, 60) }))
	for part, leader := range []int32{1, 2} {
		c.until("each leads one", orCrashed(func() error {
			if node, _ := leaderOf(c.nodes[2], int32(part)); node == leader {
				return nil
			}
			return errors.Join(c.nodes[0].db.Cluster().TransferLeadership(ctx, "orders", int32(part), leader), errors.New("asked to"))
		}))
	}
	from = disk.Ops()
	c.until("leave", orCrashed(func() error {
		err := leave(leaving)
		if err == nil && !disk.Crashed() {
			end = disk.Ops()
		}
		return err
	}))
	// Who has left is told nothing more.
	rest := *c
	rest.nodes = []*dbNode{c.nodes[0], c.nodes[2]}
	rest.until("it has left, or somebody has crashed", orCrashed(func() error { return rest.hasReplicas(after, 60) }))
	ops = disk.Ops()
	c.cut(sick, uint64(k))
	c.start(sick)
	c.until("leave again", func() error { return leave(leaving) })
	rest.until("all replicas are elsewhere", func() error { return rest.hasReplicas(after, 60) })
	for _, n := range rest.nodes {
		rest.until("it is forgotten", func() error {
			if nodes := n.db.Cluster().Nodes(); len(nodes) != 2 || nodes[0].ID != 1 || nodes[1].ID != 3 {
				return fmt.Errorf("node %d knows %+v", n.id, nodes)
			}
			return nil
		})
	}
	rest.until("it goes on", func() error { return fillOrders(rest.nodes[1].db, 60, 70) })
	rest.until("all have all", func() error { return rest.hasReplicas(after, 70) })
	for _, n := range rest.nodes {
		rest.until("all is there", func() error { return hasOrdersAnywhere(n, 70) })
	}
	rest.until("the replicas are the same", func() error { return c.sameEntries(after) })
	c.until("who has left says so", func() error {
		if leaving.db.Cluster().Removed() == nil {
			return errors.New("it does not know that it was removed")
		}
		return nil
	})
	for _, n := range c.nodes {
		if err := n.db.Close(); err != nil {
			t.Error(err)
		}
	}
	return from, end, ops
}

// notLeadingMetadata has another node lead the metadata.
func notLeadingMetadata(c *dbCluster, n *dbNode) {
	other := c.nodes[n.id%3]
	leads := func() bool { node, _ := other.db.Engine().MetaLeader(); return node == n.id }
	for leads() {
		c.cut(n, 1)
		c.until("another leads", func() error {
			if node, _ := other.db.Engine().MetaLeader(); node < 1 || node == n.id {
				return errors.New("nobody does")
			}
			return nil
		})
		c.start(n)
		time.Sleep(5 * time.Second)
	}
}

// A node is not removed while nobody leads a partition whose members it is one of: its vote may be needed there, and those that take
// its replica over may have nothing yet.
func TestRemovalWaitsForALeader(t *testing.T) {
	var disks []*vfs.Mem
	synctest.Test(t, func(t *testing.T) { disks = grown(t, []int32{1, 2}) })
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c := &dbCluster{t: t, net: simnet.New(), maintenance: -1}
		for i, d := range disks {
			c.nodes = append(c.nodes, &dbNode{id: int32(i + 1), disk: d.AfterKill()})
		}
		defer c.net.Close()
		for _, n := range c.nodes {
			c.start(n)
		}
		c.until("as before", func() error { return c.hasReplicas([]int32{1, 2}, 60) })
		other, leaving, asked := c.nodes[0], c.nodes[1], c.nodes[2]
		notLeadingMetadata(c, leaving)
		// All three are there, and two do not hear each other.
		c.net.CutBoth(hostName(1), hostName(2))
		c.until("drain", func() error { return asked.db.Cluster().DrainNode(ctx, 2) })
		c.until("nobody leads", func() error {
			for part := range int32(2) {
				for _, n := range []*dbNode{other, leaving} {
					if node, _ := leaderOf(n, part); node >= 0 {
						return fmt.Errorf("node %d leads", node)
					}
				}
			}
			return nil
		})
		for range 20 {
			err := asked.db.Cluster().RemoveNode(ctx, 2)
			var invalid *embedlog.InvalidNodeError
			if !errors.As(err, &invalid) || !strings.Contains(err.Error(), "nobody is known to lead orders/") {
				t.Errorf("it is removed: %v", err)
				break
			}
			time.Sleep(500 * time.Millisecond)
		}
		c.net.HealAll()
		c.until("it leaves", func() error { return leave(leaving) })
		rest := *c
		rest.nodes = []*dbNode{other, asked}
		rest.until("its replicas are elsewhere", func() error { return rest.hasReplicas([]int32{1, 3}, 60) })
		for _, n := range c.nodes {
			if err := n.db.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// A node that was removed while it could not be asked, and leads a partition, gives the lead to somebody who knows who is to have it.
func TestRemovedNodeGivesTheLeadAway(t *testing.T) {
	var disks []*vfs.Mem
	synctest.Test(t, func(t *testing.T) { disks = grown(t, []int32{1, 2}) })
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c := &dbCluster{t: t, net: simnet.New(), maintenance: -1}
		for i, d := range disks {
			c.nodes = append(c.nodes, &dbNode{id: int32(i + 1), disk: d.AfterKill()})
		}
		defer c.net.Close()
		for _, n := range c.nodes {
			c.start(n)
		}
		c.until("as before", func() error { return c.hasReplicas([]int32{1, 2}, 60) })
		first, removed, asked := c.nodes[0], c.nodes[1], c.nodes[2]
		notLeadingMetadata(c, removed)
		for part := range int32(2) {
			c.until("it leads", func() error {
				if node, _ := leaderOf(asked, part); node == 2 {
					return nil
				}
				return errors.Join(first.db.Cluster().TransferLeadership(ctx, "orders", part, 2), errors.New("asked to"))
			})
		}
		c.net.CutBoth(hostName(2), hostName(3))
		c.until("drain", func() error { return asked.db.Cluster().DrainNode(ctx, 2) })
		c.until("remove", func() error {
			err := asked.db.Cluster().RemoveNode(ctx, 2)
			if errors.Is(err, embedlog.ErrUnknownNode) {
				return nil
			}
			return err
		})
		rest := *c
		rest.nodes = []*dbNode{first, asked}
		rest.until("its replicas are elsewhere", func() error { return rest.hasReplicas([]int32{1, 3}, 60) })
		if removed.db.Cluster().Removed() == nil {
			t.Error("it does not know that it was removed")
		}
		for _, n := range c.nodes {
			if err := n.db.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
