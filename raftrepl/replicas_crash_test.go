package raftrepl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/simnet"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

// replicaChange is a change of the replicas of the topic orders, both of whose partitions have the same ones. Nodes
// are in ascending order.
type replicaChange struct {
	name          string
	before, after []int32
	ask           func(ctx context.Context, c *embedlog.Cluster) error
	// gets is a node that gets a replica, or loses one. Node 1 leads both partitions, gives what it has, and stays or goes.
	gets int32
}

func reassign(nodes ...int32) func(context.Context, *embedlog.Cluster) error {
	return func(ctx context.Context, c *embedlog.Cluster) error {
		return errors.Join(c.Reassign(ctx, "orders", 0, nodes), c.Reassign(ctx, "orders", 1, nodes))
	}
}

func factor(n int) func(context.Context, *embedlog.Cluster) error {
	return func(ctx context.Context, c *embedlog.Cluster) error { return c.SetReplicationFactor(ctx, "orders", n) }
}

var replicaChanges = []replicaChange{
	{"one replica more", []int32{1}, []int32{1, 2}, reassign(1, 2), 2},
	{"replication factor up", []int32{1}, []int32{1, 2, 3}, factor(3), 3},
	{"replication factor down", []int32{1, 2, 3}, []int32{1}, factor(1), 3},
	{"reassigned", []int32{1, 2}, []int32{2, 3}, reassign(2, 3), 3},
}

// grown are the disks of three registered nodes, closed in order. The first was used alone: its part of the topic orders
// begins with a boundary, and one of its partitions has lost its first records since. nodes have replicas.
func grown(t *testing.T, nodes []int32) (disks []*vfs.Mem) {
	ctx := context.Background()
	c := &dbCluster{t: t, net: simnet.New(), maintenance: -1}
	first := &dbNode{id: 1, disk: vfs.NewMem()}
	alone, err := embedlog.OpenFS(first.disk, &embedlog.Options{MaintenanceInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alone.CreateTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 2, SegmentBytes: 4 << 10}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fillOrders(alone, 0, 50), alone.Close()); err != nil {
		t.Fatal(err)
	}
	c.nodes = append(c.nodes, first)
	c.start(first)
	c.addTwo()
	c.until("all are registered", func() error {
		for _, n := range first.db.Cluster().Nodes() {
			if n.Directory.IsZero() {
				return fmt.Errorf("node %d is not registered", n.ID)
			}
		}
		return nil
	})
	c.until("fill it", func() error { return fillOrders(first.db, 50, 60) })
	c.until("trim it", func() error {
		top, err := first.db.Topic("orders")
		if err == nil {
			_, err = top.DeleteRecords(ctx, 0, 20)
		}
		return err
	})
	if len(nodes) > 1 {
		c.until("replicas", func() error { return reassign(nodes...)(ctx, first.db.Cluster()) })
	}
	c.until("they are there", func() error { return c.hasReplicas(nodes, 60) })
	c.close()
	for _, n := range c.nodes {
		disks = append(disks, n.disk)
	}
	return disks
}

// hasReplicas says whether the partitions of orders have exactly these replicas, all of them members with a vote, in sync and
// with all records, and whether no other node has files of them.
func (c *dbCluster) hasReplicas(nodes []int32, want int) error {
	for part := range 2 {
		led := false
		for _, n := range c.nodes {
			has := slices.Contains(nodes, n.id)
			for _, s := range n.db.Cluster().Status() {
				if s.Topic != "orders" || int(s.Partition) != part || !has {
					continue
				}
				if s.Reason != "" {
					return fmt.Errorf("node %d, orders/%d: %s", n.id, part, s.Reason)
				}
				if s.Leader != n.id {
					continue
				}
				led = true
				slices.Sort(s.InSync)
				if !slices.Equal(s.InSync, nodes) || len(s.Members) != len(nodes) || slices.ContainsFunc(s.Members, func(m embedlog.MemberStatus) bool { return !m.Voter }) {
					return fmt.Errorf("node %d, orders/%d: in sync %v, members %+v, want %v", n.id, part, s.InSync, s.Members, nodes)
				}
			}
			top, err := n.db.Engine().Topic("orders")
			if err != nil {
				return err
			}
			p, err := top.Partition(int32(part))
			if err != nil {
				return err
			}
			if has != (p.Replicated() != nil) || has && p.HighWatermark() != int64(want/2) {
				return fmt.Errorf("node %d, %s: replicated %t, %d records of %d", n.id, p, p.Replicated() != nil, p.HighWatermark(), want/2)
			}
			if _, err := n.disk.Stat(fmt.Sprintf("topics/%s/%d", top.ID(), part)); !has && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("node %d has files of %s: %v", n.id, p, err)
			}
		}
		if !led {
			return fmt.Errorf("nobody leads orders/%d", part)
		}
	}
	return nil
}

// sameEntries compares the replicas of orders, entry by entry, from the highest first complete index on.
func (c *dbCluster) sameEntries(nodes []int32) error {
	for part := range int32(2) {
		var from, to uint64
		for _, id := range nodes {
			top, err := c.nodes[id-1].db.Engine().Topic("orders")
			if err != nil {
				return err
			}
			p, err := top.Partition(part)
			if err != nil {
				return err
			}
			from = max(from, p.Log().FirstCompleteIndex())
			st, _ := p.Group()
			if to == 0 || st.Index < to {
				to = st.Index
			}
		}
		var want []byte
		for _, id := range nodes {
			top, _ := c.nodes[id-1].db.Engine().Topic("orders")
			p, _ := top.Partition(part)
			var got bytes.Buffer
			for i := from; i <= to; i++ {
				f, err := p.Log().Entry(i)
				if err != nil {
					return fmt.Errorf("node %d, %s, entry %d: %w", id, p, i, err)
				}
				fmt.Fprintf(&got, "%d %d %v %d %x\n", f.Index, f.Epoch, f.Kind, f.Offset, f.Payload)
			}
			if want == nil {
				want = got.Bytes()
			}
			if got.Len() == 0 || !bytes.Equal(got.Bytes(), want) {
				return fmt.Errorf("orders/%d: the entries %d to %d differ: node %d has\n%snode %d has\n%s", part, from, to, id, got.Bytes(), nodes[0], want)
			}
		}
	}
	return nil
}

// A crash at each operation of the node that gets a replica or loses one, and of the one that leads meanwhile, while replicas
// change: when it is started again, there are the replicas that should be, and all of them have everything.
func TestChangeOfReplicasCrashes(t *testing.T) {
	for _, change := range replicaChanges {
		var disks []*vfs.Mem
		synctest.Test(t, func(t *testing.T) { disks = grown(t, change.before) })
		for _, sick := range []int32{change.gets, 1} {
			t.Run(fmt.Sprintf("%s, node %d", change.name, sick), func(t *testing.T) {
				from, total := 0, 0
				try := func(k int) {
					synctest.Test(t, func(t *testing.T) {
						_, begun, ops := crashWhileReplicasChange(t, disks, change, sick, k)
						if k > 1<<29 {
							from, total = begun, ops
						}
					})
					if t.Failed() {
						t.Fatalf("crash at operation %d", k)
					}
				}
				try(1 << 30)
				step := max(1, (total-from)/testcount.N(3))
				if everyOperation() {
					step = 1
				}
				tried := 0
				for k := from + step/2; k <= total; k += step {
					try(k)
					tried++
				}
				t.Logf("operations %d to %d, %d crashes", from, total, tried)
				if total-from < 5 {
					t.Errorf("%d operations only", total-from)
				}
			})
		}
	}
}

// everyOperation says that crashes are tried at each operation, and not at a few.
func everyOperation() bool { return os.Getenv("EMBEDLOG_FAULTS") == "all" }

// crashWhileReplicasChange has a node crash at its k-th operation. from is the one at which the change began, ops how many
// there were.
func crashWhileReplicasChange(t *testing.T, disks []*vfs.Mem, change replicaChange, sickID int32, k int) (crashed bool, from, ops int) {
	ctx := context.Background()
	c := &dbCluster{t: t, net: simnet.New(), maintenance: -1}
	for i, d := range disks {
		c.nodes = append(c.nodes, &dbNode{id: int32(i + 1), disk: d.AfterKill()})
	}
	defer c.net.Close()
	sick, asks := c.nodes[sickID-1], c.nodes[sickID%3]
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
	c.until("as before", orCrashed(func() error { return c.hasReplicas(change.before, 60) }))
	for part := range int32(2) {
		c.until("the first one leads", orCrashed(func() error {
			if node, _ := leaderOf(asks, part); node == 1 {
				return nil
			}
			return errors.Join(asks.db.Cluster().TransferLeadership(ctx, "orders", part, 1), errors.New("asked to"))
		}))
	}
	from = disk.Ops()
	changed := false
	c.until("change", func() error {
		// Whom it asks may have crashed, and does not end his process.
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		err := change.ask(ctx, asks.db.Cluster())
		if changed = err == nil; disk.Crashed() {
			err = nil
		}
		return err
	})
	c.until("it is done, or has crashed", orCrashed(func() error { return c.hasReplicas(change.after, 60) }))
	crashed, ops = disk.Crashed(), disk.Ops()
	c.cut(sick, uint64(k))
	c.start(sick)
	if !changed {
		c.until("change again", func() error { return change.ask(ctx, asks.db.Cluster()) })
	}
	c.until("it is done", func() error { return c.hasReplicas(change.after, 60) })
	c.until("it goes on", func() error { return fillOrders(sick.db, 60, 70) })
	c.until("all have all", func() error { return c.hasReplicas(change.after, 70) })
	for _, n := range c.nodes {
		c.until("all is there", func() error { return hasOrdersAnywhere(n, 70) })
		for part := range int32(2) {
			if life := lifeOf(n, "orders", part); life != 0 {
				t.Errorf("node %d: a crash has made orders/%d a replica of life %d", n.id, part, life)
			}
		}
	}
	c.until("the replicas are the same", func() error { return c.sameEntries(change.after) })
	for _, n := range c.nodes {
		if err := n.db.Close(); err != nil {
			t.Error(err)
		}
	}
	return crashed, from, ops
}

// leaderOf is who leads a partition of orders, as a node knows.
func leaderOf(n *dbNode, part int32) (node, epoch int32) {
	top, err := n.db.Engine().Topic("orders")
	if err != nil {
		return -1, -1
	}
	p, err := top.Partition(part)
	if err != nil {
		return -1, -1
	}
	return p.Leader()
}
