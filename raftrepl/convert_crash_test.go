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

// atEachOperation calls run, which crashes a disk at operation k and returns whether it came so far, for points
// operations of a run, the first and the last among them. offset moves them.
func atEachOperation(t *testing.T, points, offset int, run func(t *testing.T, k int) (crashed bool, ops int)) {
	t.Helper()
	total := 0
	try := func(k int) (crashed bool) {
		synctest.Test(t, func(t *testing.T) {
			var ops int
			crashed, ops = run(t, k)
			total = max(total, ops)
		})
		if t.Failed() {
			t.Fatalf("crash at operation %d", k)
		}
		return crashed
	}
	if try(1 << 30) {
		t.Fatal("it crashes though it has not come to that operation")
	}
	step := max(1, total/testcount.N(points))
	if everyOperation() {
		step = 1
	}
	tried := 0
	for k := offset % step; k <= total; k += step {
		try(k)
		tried++
	}
	t.Logf("%d operations, %d crashes", total, tried)
	if total < 50 {
		t.Errorf("%d operations only", total)
	}
}

// A crash at each operation while a directory that was used alone becomes a node leaves one that is alone still, with all
// that is in it, or one that is a node, and goes on.
func TestConversionOfADatabaseCrashes(t *testing.T) {
	alone, nodes := 0, 0
	d := newAloneDir(t, func(m *vfs.Mem) *vfs.Mem { return m.AfterKill() })
	atEachOperation(t, 16, 1, func(t *testing.T, k int) (crashed bool, ops int) {
		c := &dbCluster{t: t, net: simnet.New(), maintenance: -1}
		n := &dbNode{id: 1, disk: d.disk.AfterKill(vfs.CrashAt(k), vfs.CrashByte(k%700))}
		c.nodes = append(c.nodes, n)
		disk := n.disk
		err := c.tryStart(n)
		if err == nil {
			for range 30 {
				if time.Sleep(100 * time.Millisecond); disk.Crashed() || d.there(n) == nil {
					break
				}
			}
		} else if !disk.Crashed() {
			t.Fatal(err)
		}
		crashed, ops = disk.Crashed(), disk.Ops()
		c.cut(n, uint64(k))
		// Opened alone it has everything, or says that it is a node's.
		fork := n.disk.AfterKill()
		n.disk = n.disk.AfterKill()
		db, err := embedlog.OpenFS(fork, &embedlog.Options{MaintenanceInterval: -1})
		if err == nil {
			alone++
			if err := d.there(&dbNode{db: db}); err != nil {
				t.Errorf("alone: %v", err)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		} else if nodes++; !errors.Is(err, embedlog.ErrInvalidNode) {
			t.Errorf("it is neither alone nor a node's: %v", err)
		}
		c.start(n)
		c.until("all is there", func() error { return d.there(n) })
		if err := n.db.Cluster().Status(); len(err) != 9 {
			t.Errorf("%d logs are in groups: %+v", len(err), err)
		}
		time.Sleep(d.client.Timeout)
		c.until("nothing is open", func() error { return decided(n) })
		c.until("it goes on", func() error {
			for _, name := range aloneTopics {
				top, err := n.db.Topic(name)
				if err == nil {
					_, err = top.Produce(context.Background(), embedlog.Record{Key: []byte("k"), Value: []byte("v")})
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		c.close()
		return crashed, ops
	})
	t.Logf("%d were alone after it, %d a node's", alone, nodes)
	if alone == 0 || nodes == 0 {
		t.Error("the crashes are on one side of the conversion only")
	}
}

// growing is a node that has a topic with what is not there as single entries any more, and another node
// to which it gives replicas.
func growing(t *testing.T, k int) (c *dbCluster, second *dbNode, disk *vfs.Mem) {
	ctx := context.Background()
	c = newDBCluster(t, 1)
	c.maintenance = -1
	first := c.nodes[0]
	c.start(first)
	c.until("make a topic", func() error {
		_, err := first.db.CreateTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 2, ReplicationFactor: 1, SegmentBytes: 4 << 10})
		return err
	})
	c.until("fill it", func() error { return fillOrders(first.db, 0, 60) })
	top, err := first.db.Topic("orders")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := top.DeleteRecords(ctx, 0, 20); err != nil {
		t.Fatal(err)
	}
	c.peers = nil
	second = &dbNode{id: 2, disk: vfs.NewMem(vfs.CrashAt(k), vfs.CrashByte(k%700)), join: simAddress(1)}
	c.nodes = append(c.nodes, second)
	return c, second, second.disk
}

// fillOrders has the partitions of the topic orders hold all records up to n.
func fillOrders(db *embedlog.DB, from, n int) error {
	top, err := db.Topic("orders")
	if err != nil {
		return err
	}
	for i := from; i < n; i++ {
		value := fmt.Sprintf("%d %s", i, strings.Repeat("x", 300))
		if _, err := top.ProduceAt(context.Background(), int32(i%2), int64(i/2), embedlog.Record{Value: []byte(value)}); err != nil && !errors.Is(err, embedlog.ErrUnexpectedOffset) {
			return err
		}
	}
	return nil
}

// hasOrders says whether a node has n records of the topic orders, but for the first 20 of partition 0, which are deleted.
func hasOrders(n *dbNode, want int) error {
	values, starts, err := readAll(n.db, "orders")
	if err != nil {
		return err
	}
	if len(values) != want-20 || starts[0] != 20 || starts[1] != 0 {
		return fmt.Errorf("node %d has %d records from %v", n.id, len(values), starts)
	}
	for i, v := range values {
		at := 2 * (i + 20)
		if in := want/2 - 20; i >= in {
			at = 2*(i-in) + 1
		}
		if !strings.HasPrefix(v, fmt.Sprintf("%d x", at)) {
			return fmt.Errorf("node %d: record %d is %.20q, want %d", n.id, i, v, at)
		}
	}
	return nil
}

// A crash of a new node at each operation while it joins, gets the metadata and the logs, and becomes a member, leaves one that
// joins, or goes on, when it is started again.
func TestJoiningCrashes(t *testing.T) {
	atEachOperation(t, 12, 2, func(t *testing.T, k int) (crashed bool, ops int) {
		ctx := context.Background()
		c, second, disk := growing(t, k)
		first := c.nodes[0]
		defer c.net.Close()
		if err := first.db.Cluster().AddNode(ctx, 2, simAddress(2)); err != nil {
			t.Fatal(err)
		}
		err := c.tryStart(second)
		if err != nil && !disk.Crashed() {
			t.Fatal(err)
		}
		factor := func() error {
			err := first.db.Cluster().SetReplicationFactor(ctx, "orders", 2)
			if err != nil && !disk.Crashed() {
				return err
			}
			return nil
		}
		c.until("it is known", factor)
		c.until("it has all, or has crashed", func() error {
			if disk.Crashed() {
				return nil
			}
			return c.well("orders", 60)
		})
		crashed, ops = disk.Crashed(), disk.Ops()
		c.cut(second, uint64(k))
		c.start(second)
		c.until("replicate", func() error { return first.db.Cluster().SetReplicationFactor(ctx, "orders", 2) })
		c.until("it has all", func() error { return c.well("orders", 60) })
		c.until("it goes on", func() error { return fillOrders(second.db, 60, 70) })
		for _, n := range c.nodes {
			c.until("all is there", func() error { return hasOrders(n, 70) })
		}
		for _, n := range c.nodes {
			if err := n.db.Close(); err != nil {
				t.Error(err)
			}
		}
		return crashed, ops
	})
}

// A crash at each operation while a damaged replica is given up and fetched again, and while a replica is removed: in the end there is
// what should be there.
func TestRefetchAndRemovalCrash(t *testing.T) {
	for _, what := range []string{"refetch", "removal"} {
		t.Run(what, func(t *testing.T) {
			atEachOperation(t, 8, 3, func(t *testing.T, k int) (crashed bool, ops int) {
				ctx := context.Background()
				c := newDBCluster(t, 3)
				c.maintenance = -1
				defer c.net.Close()
				for _, n := range c.nodes {
					c.start(n)
				}
				c.until("make a topic", func() error {
					_, err := c.nodes[0].db.CreateTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 2, ReplicationFactor: 3, SegmentBytes: 4 << 10})
					return err
				})
				c.until("fill it", func() error { return fillOrders(c.nodes[0].db, 0, 60) })
				c.until("all have all", func() error { return c.well("orders", 60) })
				top, err := c.nodes[0].db.Topic("orders")
				if err != nil {
					t.Fatal(err)
				}
				c.until("trim", func() error { _, err := top.DeleteRecords(ctx, 0, 20); return err })
				sick := c.nodes[2]
				fsys, _ := partitionFS(t, sick, "orders", 0)
				if err := sick.db.Close(); err != nil {
					t.Fatal(err)
				}
				if what == "refetch" {
					remove(t, fsys, named(t, fsys, "checkpoint")...)
				}
				sick.disk = sick.disk.AfterKill(vfs.CrashAt(k), vfs.CrashByte(k%700))
				disk := sick.disk
				if err := c.tryStart(sick); err != nil && !disk.Crashed() {
					t.Fatal(err)
				}
				done := func() error { return c.well("orders", 60) }
				if what == "removal" {
					c.until("remove the replica", func() error { return c.nodes[0].db.Cluster().Reassign(ctx, "orders", 0, []int32{1, 2}) })
					done = func() error {
						infos, err := fsysOf(sick).List(".")
						if err != nil || len(infos) > 2 {
							return fmt.Errorf("%v, %v", infos, err)
						}
						return nil
					}
				}
				c.until("it is done, or has crashed", func() error {
					if disk.Crashed() {
						return nil
					}
					return done()
				})
				crashed, ops = disk.Crashed(), disk.Ops()
				c.cut(sick, uint64(k))
				c.start(sick)
				c.until("it is done", done)
				c.until("it goes on", func() error { return fillOrders(sick.db, 60, 70) })
				for _, n := range c.nodes {
					c.until("all is there", func() error { return hasOrdersAnywhere(n, 70) })
				}
				if life := lifeOf(sick, "orders", 1); life != 0 {
					t.Errorf("the other partition's replica is of life %d", life)
				}
				for _, n := range c.nodes {
					if err := n.db.Close(); err != nil {
						t.Error(err)
					}
				}
				return crashed, ops
			})
		})
	}
}

// fsysOf is the directory of the topic orders on a node's disk.
func fsysOf(n *dbNode) vfs.FS {
	for _, top := range n.db.Engine().Info().Topics {
		if top.Name == "orders" {
			return vfs.Sub(n.disk, "topics/"+top.ID.String())
		}
	}
	return vfs.NewMem()
}

// hasOrdersAnywhere is hasOrders for a node that may have no replica of partition 0, and so does not know where it begins.
func hasOrdersAnywhere(n *dbNode, want int) error {
	values, _, err := readAll(n.db, "orders")
	if err == nil && len(values) != want-20 {
		err = fmt.Errorf("node %d has %d records", n.id, len(values))
	}
	return err
}
