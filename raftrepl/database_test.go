package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/simnet"
	"github.com/x/embedlog/internal/vfs"
)

// dbNode is a whole database on a simulated disk and network.
type dbNode struct {
	id   int32
	disk *vfs.Mem
	join string
	dead *atomic.Bool
	node *Node
	db   *embedlog.DB
}

type dbCluster struct {
	t     *testing.T
	net   *simnet.Net
	nodes []*dbNode
	peers map[int32]string // those that begin together
	// maintenance is Options.MaintenanceInterval.
	maintenance time.Duration
	// preferred is Options.PreferredLeaders.
	preferred time.Duration
	// maxBytes is Options.MaxBytes of nodes.
	maxBytes map[int32]int64
}

func (c *dbCluster) start(n *dbNode) {
	c.t.Helper()
	if err := c.tryStart(n); err != nil {
		c.t.Fatal(err)
	}
}

func (c *dbCluster) tryStart(n *dbNode) error {
	c.t.Helper()
	logger := slog.New(slog.DiscardHandler)
	if os.Getenv("EMBEDLOG_TEST_LOG") != "" {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	n.dead = new(atomic.Bool)
	node, err := New(Config{
		Peers: c.peers,
		Node:  n.id, Cluster: "sim", Listen: simAddress(n.id), AllowInsecure: true, Join: n.join,
		Network: mortal{c.net.Host(hostName(n.id)), n.dead}, Logger: logger.With("node", n.id),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	n.node = node
	n.db, err = embedlog.OpenFS(n.disk, &embedlog.Options{Replication: node, Logger: logger.With("node", n.id), MaintenanceInterval: c.maintenance, MaxBytes: c.maxBytes[n.id], PreferredLeaders: c.preferred})
	return err
}

// cut ends one node as a power cut does, at one of the states that its disk may have then.
func (c *dbCluster) cut(n *dbNode, seed uint64) {
	n.dead.Store(true)
	c.net.Host(hostName(n.id)).Crash()
	disk := n.disk.AfterCrash(vfs.Random(seed))
	if n.db != nil {
		n.db.Close()
	}
	n.disk, n.db = disk, nil
}

// crash ends all nodes as a power cut does: what was not synced is lost, or not.
func (c *dbCluster) crash(rnd *rand.Rand) {
	c.t.Helper()
	var disks []*vfs.Mem
	for _, n := range c.nodes {
		n.dead.Store(true)
		c.net.Host(hostName(n.id)).Crash()
		disks = append(disks, n.disk.AfterCrash(vfs.Random(rnd.Uint64())))
	}
	for i, n := range c.nodes {
		n.db.Close()
		n.disk = disks[i]
	}
}

func (c *dbCluster) close() {
	for _, n := range c.nodes {
		if err := n.db.Close(); err != nil {
			c.t.Error(err)
		}
	}
	c.net.Close()
}

func (c *dbCluster) until(what string, f func() error) {
	c.t.Helper()
	var err error
	for range 600 {
		if err = f(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, n := range c.nodes {
		if n.db == nil {
			continue
		}
		c.t.Logf("node %d knows %+v", n.id, n.db.Cluster().Nodes())
		for _, s := range n.db.Cluster().Status() {
			c.t.Logf("node %d: %+v", n.id, s)
		}
	}
	c.t.Fatalf("%s: %v", what, err)
}

// One database becomes three, and after a power cut of all of them they find each other
// by what they know, and everything acknowledged is there.
func TestDatabaseGrowsAndSurvivesAPowerCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, rnd := context.Background(), rand.New(rand.NewPCG(7, 7))
		c := &dbCluster{t: t, net: simnet.New()}
		first := &dbNode{id: 1, disk: vfs.NewMem()}
		c.nodes = append(c.nodes, first)
		// A life without replication leaves records.
		alone, err := embedlog.OpenFS(first.disk, nil)
		if err != nil {
			t.Fatal(err)
		}
		orders, err := alone.CreateTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 2})
		if err != nil {
			t.Fatal(err)
		}
		sent := map[string]bool{}
		add := func(top *embedlog.Topic, n int) error {
			value := fmt.Sprint("record ", n)
			_, err := top.Produce(ctx, embedlog.Record{Key: fmt.Append(nil, n), Value: []byte(value)})
			if err == nil {
				sent[value] = true
			}
			return err
		}
		for i := range 20 {
			if err := add(orders, i); err != nil {
				t.Fatal(err)
			}
		}
		if err := alone.Close(); err != nil {
			t.Fatal(err)
		}
		c.start(first)
		for id := int32(2); id <= 3; id++ {
			c.until("add a node", func() error {
				err := first.db.Cluster().AddNode(ctx, id, simAddress(id))
				if errors.Is(err, embedlog.ErrInvalidNode) {
					return nil // it is there already: the answer was lost
				}
				return err
			})
			n := &dbNode{id: id, disk: vfs.NewMem(), join: simAddress(1)}
			c.nodes = append(c.nodes, n)
			c.start(n)
		}
		c.until("replicate the topic", func() error { return first.db.Cluster().SetReplicationFactor(ctx, "orders", 3) })
		everywhere := func() error {
			for _, n := range c.nodes {
				top, err := n.db.Topic("orders")
				if err != nil {
					return err
				}
				info, err := top.Describe()
				if err != nil {
					return err
				}
				have := int64(0)
				for _, p := range info.Partitions {
					if len(p.Replicas) != 3 || p.Leader < 1 {
						return fmt.Errorf("node %d: %+v", n.id, p)
					}
					have += p.HighWatermark
				}
				if have != int64(len(sent)) {
					return fmt.Errorf("node %d has %d records of %d", n.id, have, len(sent))
				}
			}
			return nil
		}
		c.until("all nodes have all records", everywhere)
		for i := range 30 {
			top, err := c.nodes[i%3].db.Topic("orders")
			if err == nil {
				err = add(top, 100+i)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		// Right away: nothing but what is durable is known to be committed.
		for range 3 {
			c.crash(rnd)
			for _, n := range c.nodes {
				n.join = ""
				c.start(n)
			}
			c.until("after the power cut", everywhere)
		}
		for _, n := range c.nodes {
			top, err := n.db.Topic("orders")
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]int{}
			for rec, err := range top.Scan(ctx, nil) {
				if err != nil {
					t.Fatal(err)
				}
				got[string(rec.Value)]++
			}
			for value := range sent {
				if got[value] != 1 {
					t.Errorf("node %d has %q %d times", n.id, value, got[value])
				}
			}
		}
		c.close()
	})
}
