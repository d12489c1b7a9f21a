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
	"github.com/x/embedlog/internal/vfs"
)

// newDatabases starts nodes that begin a cluster together, with a topic on all of them.
func newDatabases(t *testing.T, nodes int) *dbCluster {
	c := &dbCluster{t: t, net: simnet.New(), peers: map[int32]string{}}
	for id := range int32(nodes) {
		c.peers[id+1] = simAddress(id + 1)
		c.nodes = append(c.nodes, &dbNode{id: id + 1, disk: vfs.NewMem()})
	}
	for _, n := range c.nodes {
		c.start(n)
	}
	c.until("a topic on all nodes", func() error {
		_, err := c.nodes[0].db.EnsureTopic(t.Context(), "orders", &embedlog.TopicConfig{ReplicationFactor: nodes})
		return err
	})
	c.until("all is well", func() error { return c.well("orders", 0) })
	return c
}

func (c *dbCluster) remove(by *dbNode, node int32) {
	c.t.Helper()
	ctx := c.t.Context()
	c.until("drain", func() error { return by.db.Cluster().DrainNode(ctx, node) })
	c.until("remove", func() error {
		err := by.db.Cluster().RemoveNode(ctx, node)
		if errors.Is(err, embedlog.ErrUnknownNode) {
			return nil
		}
		return err
	})
}

func produceTo(n *dbNode, value string) error {
	top, err := n.db.Topic("orders")
	if err == nil {
		_, err = top.Produce(context.Background(), embedlog.Record{Value: []byte(value)})
	}
	return err
}

// mustBeRemoved checks that a node is served nothing, and says why to its callers and in its own status.
func (c *dbCluster) mustBeRemoved(n *dbNode) {
	c.t.Helper()
	c.until("it says that it was removed", func() error {
		if why := n.db.Cluster().Status()[0].Reason; !strings.Contains(why, fmt.Sprintf("node %d was removed from the cluster", n.id)) {
			return fmt.Errorf("it says %q", why)
		}
		return nil
	})
	began := time.Now()
	ctx := context.Background()
	_, created := n.db.CreateTopic(ctx, "of-a-stranger", nil)
	for what, err := range map[string]error{"produce": produceTo(n, "by a stranger"), "create a topic": created, "add a node": n.db.Cluster().AddNode(ctx, 9, simAddress(9))} {
		if !errors.Is(err, embedlog.ErrNodeRemoved) || !strings.Contains(err.Error(), "empty directory") {
			c.t.Errorf("node %d: %s: %v", n.id, what, err)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		c.t.Errorf("node %d took %v to say so", n.id, took)
	}
}

// A node that was removed while it was away is served nothing when it is back, nor under its number when that is added again:
// its directory is out. A new directory is let in, and replaces it.
func TestRemovedNodeIsServedNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newDatabases(t, 3)
		first, gone := c.nodes[0], c.nodes[2]
		if err := produceTo(gone, "a"); err != nil {
			t.Fatal(err)
		}
		c.until("all have it", func() error { return c.well("orders", 1) })
		c.cut(gone, 1)
		c.nodes = c.nodes[:2]
		time.Sleep(time.Minute)
		c.remove(first, 3)
		peers := c.peers
		c.start(gone)
		c.mustBeRemoved(gone)

		c.until("its number is added again", func() error { return first.db.Cluster().AddNode(t.Context(), 3, simAddress(3)) })
		time.Sleep(time.Minute)
		c.mustBeRemoved(gone)
		for _, n := range first.db.Cluster().Nodes() {
			if n.ID == 3 && !n.Directory.IsZero() {
				t.Errorf("its directory was registered again: %+v", n)
			}
		}
		c.cut(gone, 2)
		c.start(gone) // what it was told is not kept
		c.mustBeRemoved(gone)
		c.cut(gone, 3)

		fresh := &dbNode{id: 3, disk: vfs.NewMem(), join: simAddress(1)}
		c.peers = nil
		c.start(fresh)
		c.nodes = append(c.nodes, fresh)
		c.until("a new directory is registered", func() error {
			for _, n := range first.db.Cluster().Nodes() {
				if n.ID == 3 && !n.Directory.IsZero() && n.Alive {
					return nil
				}
			}
			return errors.New("it is not")
		})
		c.until("it gets replicas", func() error { return first.db.Cluster().SetReplicationFactor(t.Context(), "orders", 3) })
		c.until("and is served", func() error { return produceTo(fresh, "b") })
		c.until("all have all", func() error { return c.well("orders", 2) })
		c.peers = peers
		c.close()
	})
}

// Of two nodes one is removed while it runs: until the groups have let it go its vote is needed, and then it is out.
func TestOneOfTwoIsRemoved(t *testing.T) {
	for _, leads := range []bool{false, true} { // the one that goes leads the metadata
		t.Run(fmt.Sprintf("leads=%t", leads), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newDatabases(t, 2)
				stays, goes := c.nodes[0], c.nodes[1]
				if lead := stays.db.Cluster().Status()[0].Leader; (lead == goes.id) != leads {
					stays, goes = goes, stays
				}
				c.remove(stays, goes.id)
				c.mustBeRemoved(goes)
				c.until("the other goes on alone", func() error { return produceTo(stays, "a") })
				if nodes := stays.db.Cluster().Nodes(); len(nodes) != 1 || nodes[0].ID != stays.id {
					t.Errorf("nodes %+v", nodes)
				}
				c.close()
			})
		})
	}
}
