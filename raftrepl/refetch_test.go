package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/simnet"
	"github.com/x/embedlog/internal/vfs"
)

// newDBCluster is three databases that begin a cluster together.
func newDBCluster(t *testing.T, n int) *dbCluster {
	c := &dbCluster{t: t, net: simnet.New(), peers: map[int32]string{}}
	for id := int32(1); id <= int32(n); id++ {
		c.nodes = append(c.nodes, &dbNode{id: id, disk: vfs.NewMem()})
		c.peers[id] = simAddress(id)
	}
	return c
}

// restart ends a database in order, does something to its files, and opens it again.
func (c *dbCluster) restart(n *dbNode, between func(fsys vfs.FS)) {
	c.t.Helper()
	if err := n.db.Close(); err != nil {
		c.t.Fatal(err)
	}
	between(n.disk)
	c.start(n)
}

// partitionFS is the directory of a partition on a node's disk.
func partitionFS(t testing.TB, n *dbNode, topic string, partition int) (fsys vfs.FS, dir string) {
	t.Helper()
	for _, top := range n.db.Engine().Info().Topics {
		if top.Name == topic {
			dir = fmt.Sprintf("topics/%s/%d", top.ID, partition)
			return vfs.Sub(n.disk, dir), dir
		}
	}
	t.Fatalf("node %d has no topic %s", n.id, topic)
	return nil, ""
}

// well says whether all replicas of a topic are members with a vote, in sync, and hold want records each.
func (c *dbCluster) well(topic string, want int) error {
	have := 0
	for _, n := range c.nodes {
		for _, s := range n.db.Cluster().Status() {
			if s.Topic != topic {
				continue
			}
			if s.Reason != "" {
				return fmt.Errorf("node %d, %s/%d: %s", n.id, topic, s.Partition, s.Reason)
			}
			if s.Leader == n.id && (len(s.InSync) != len(c.nodes) || len(s.Members) != len(c.nodes)) {
				return fmt.Errorf("node %d, %s/%d: in sync %v, members %+v", n.id, topic, s.Partition, s.InSync, s.Members)
			}
			for _, m := range s.Members { // who is in sync has its vote a moment later
				if s.Leader == n.id && !m.Voter {
					return fmt.Errorf("node %d, %s/%d: node %d has no vote yet", n.id, topic, s.Partition, m.Node)
				}
			}
		}
		top, err := n.db.Engine().Topic(topic)
		if err != nil {
			return err
		}
		have = 0
		for i := range top.Partitions() {
			p, err := top.Partition(int32(i))
			if err != nil {
				return err
			}
			if p.Replicated() == nil {
				return fmt.Errorf("node %d has no replica of %s", n.id, p)
			}
			have += int(p.HighWatermark())
		}
		if have != want {
			return fmt.Errorf("node %d has %d records of %d", n.id, have, want)
		}
	}
	return nil
}

// Whatever happens to the files of one replica, its node goes on with the others, answers with what was
// written, and has the replica again after a while; all is there, everywhere.
func TestDamagedReplicaIsFetchedAgain(t *testing.T) {
	kinds := damageKinds
	kinds = append(kinds[:len(kinds):len(kinds)], damageKind{name: "a lost directory"})
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := context.Background()
				c := newDBCluster(t, 3)
				defer c.net.Close()
				for _, n := range c.nodes {
					c.start(n)
				}
				c.until("make a topic", func() error {
					_, err := c.nodes[0].db.CreateTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 2, ReplicationFactor: 3, SegmentBytes: 4 << 10})
					return err
				})
				sent := 0
				produce := func(at *dbNode, partition int32, n int) {
					t.Helper()
					for range n {
						c.until("append", func() error {
							top, err := at.db.Engine().Topic("orders")
							if err != nil {
								return err
							}
							p, err := top.Partition(partition)
							if err == nil {
								_, err = p.Append(ctx, record(fmt.Sprintf("%d %s", sent, strings.Repeat("x", 300))), nil)
							}
							return err
						})
						sent++
					}
				}
				produce(c.nodes[0], 0, 60)
				produce(c.nodes[2], 1, 20)
				c.until("all replicas have all", func() error { return c.well("orders", sent) })

				sick := c.nodes[1]
				fsys, dir := partitionFS(t, sick, "orders", 0)
				c.restart(sick, func(vfs.FS) {
					if kind.do != nil {
						kind.do(t, fsys)
						return
					}
					remove(t, fsys, named(t, fsys, "")...)
					if err := sick.disk.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
						t.Fatal(err)
					}
				})
				// What it answers meanwhile is true, or an error.
				read := func(n *dbNode, partition int32) (got int, err error) {
					top, err := n.db.Topic("orders")
					if err != nil {
						return 0, err
					}
					for rec, err := range top.Scan(ctx, nil) {
						if err != nil {
							return got, err
						}
						if !strings.HasSuffix(string(rec.Value), strings.Repeat("x", 300)) {
							t.Fatalf("node %d answers %q", n.id, rec.Value)
						}
						if rec.Partition == partition {
							got++
						}
					}
					return got, nil
				}
				c.until("all is read at the damaged node", func() error {
					for part, want := range []int{60, 20} {
						if got, err := read(sick, int32(part)); err != nil || got != want {
							return fmt.Errorf("partition %d: %d records: %v", part, got, err)
						}
					}
					return nil
				})
				if !kind.read {
					c.until("it is another replica", func() error {
						if life := lifeOf(sick, "orders", 0); life != 1 {
							return fmt.Errorf("its life is %d", life)
						}
						return nil
					})
				}
				produce(sick, 0, 5)
				c.until("all replicas have all again", func() error { return c.well("orders", sent) })
				if kind.read && kind.name != "a lost segment" && lifeOf(sick, "orders", 0) != 1 {
					t.Errorf("its life is %d", lifeOf(sick, "orders", 0))
				}
				if lifeOf(sick, "orders", 1) != 0 {
					t.Error("the other partition was given up, too")
				}
				// After a power cut of all nothing has come back.
				c.crash(rand.New(rand.NewPCG(1, 2)))
				for _, n := range c.nodes {
					c.start(n)
				}
				c.until("after a power cut", func() error { return c.well("orders", sent) })
				for _, n := range c.nodes {
					if err := n.db.Close(); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

// lifeOf is which replica of a partition a node has.
func lifeOf(n *dbNode, topic string, partition int32) uint32 {
	for _, top := range n.db.Engine().Info().Topics {
		if top.Name == topic {
			v, _ := n.node.votes.get(engine.LogID{Topic: top.ID, Partition: partition})
			return v.life
		}
	}
	return 0
}

// A node that has lost its votes does not start, whatever else it has lost with them: it could
// vote twice, and begin twice.
func TestLostVotesRefuseToStart(t *testing.T) {
	for _, also := range []string{"", "topics", "meta"} {
		t.Run("also "+also, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newDBCluster(t, 1)
				n := c.nodes[0]
				c.start(n)
				c.until("make a topic", func() error {
					_, err := n.db.CreateTopic(context.Background(), "orders", &embedlog.TopicConfig{ReplicationFactor: 1})
					return err
				})
				_, dir := partitionFS(t, n, "orders", 0)
				if err := n.db.Close(); err != nil {
					t.Fatal(err)
				}
				remove(t, n.disk, "raft.votes")
				switch also {
				case "topics":
					fsys := vfs.Sub(n.disk, dir)
					remove(t, fsys, named(t, fsys, "")...)
				case "meta":
					fsys := vfs.Sub(n.disk, "meta")
					remove(t, fsys, named(t, fsys, "")...)
				}
				node, err := New(Config{Node: 1, Cluster: "sim", Listen: simAddress(1), AllowInsecure: true, Peers: c.peers, Network: c.net.Host(hostName(1))})
				if err != nil {
					t.Fatal(err)
				}
				if db, err := embedlog.OpenFS(n.disk, &embedlog.Options{Replication: node}); !errors.Is(err, ErrVotesLost) || !strings.Contains(err.Error(), "another number") {
					t.Errorf("it starts: %v, %v", db, err)
				}
				c.net.Close()
			})
		})
	}
}

// segmentHeader is where the frames of a segment begin.
const segmentHeader = 128

// The leader's files are damaged while it runs: readers on any node get what was written, or an error; another
// node leads, and the damaged replica is fetched again.
func TestDamagedLeaderIsReplaced(t *testing.T) {
	for name, segment := range map[string]func(names []string) string{
		"an older segment": func(s []string) string { return s[1] },
		"the newest":       func(s []string) string { return s[len(s)-1] },
	} {
		for part, at := range map[string]int64{"frame header": segmentHeader + 9, "record bytes": segmentHeader + 180} {
			t.Run(name+", "+part, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
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
					c.until("all replicas have all", func() error { return c.well("orders", 60) })
					leader := func() (n *dbNode) {
						c.until("a leader", func() error {
							for _, n = range c.nodes {
								for _, s := range n.db.Cluster().Status() {
									if s.Topic == "orders" && s.Partition == 0 && s.Leader == n.id {
										return nil
									}
								}
							}
							return errors.New("nobody leads")
						})
						return n
					}
					sick := leader()
					fsys, _ := partitionFS(t, sick, "orders", 0)
					f, err := fsys.Open(segment(segments(t, fsys)))
					if err != nil {
						t.Fatal(err)
					}
					var b [1]byte
					if _, err = f.ReadAt(b[:], at); err == nil {
						b[0] ^= 16
						_, err = f.WriteAt(b[:], at)
					}
					if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
						t.Fatal(err)
					}
					read := func(n *dbNode, want int) error {
						top, err := n.db.Topic("orders")
						if err != nil {
							return err
						}
						next := int64(0)
						for rec, err := range top.Scan(ctx, &embedlog.ScanOptions{Partitions: []int32{0}, Linearizable: true}) {
							if err != nil {
								return err
							}
							if want := fmt.Sprintf("%d %s", 2*rec.Offset, strings.Repeat("x", 300)); string(rec.Value) != want || rec.Offset != next {
								t.Fatalf("node %d answers %q at offset %d, want %q at %d", n.id, rec.Value, rec.Offset, want, next)
							}
							next++
						}
						if next != int64(want) {
							return fmt.Errorf("%d records of %d", next, want)
						}
						return nil
					}
					c.until("the damage is found and the replica another", func() error {
						err := read(sick, 30)
						if life := lifeOf(sick, "orders", 0); life != 1 {
							return fmt.Errorf("its life is %d: %v", life, err)
						}
						return nil
					})
					c.until("it goes on", func() error { return fillOrders(sick.db, 60, 70) })
					c.until("all replicas have all again", func() error { return c.well("orders", 70) })
					for _, n := range c.nodes {
						c.until("all is read", func() error { return read(n, 35) })
					}
					if life := lifeOf(sick, "orders", 1); life != 0 {
						t.Errorf("the other partition's replica is of life %d", life)
					}
					c.until("it leads again", func() error {
						if err := c.nodes[0].db.Cluster().TransferLeadership(ctx, "orders", 0, sick.id); err != nil {
							return err
						}
						return read(sick, 35)
					})
					for _, n := range c.nodes {
						if err := n.db.Close(); err != nil {
							t.Error(err)
						}
					}
				})
			})
		}
	}
}
