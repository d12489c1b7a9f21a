package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// What makes a node itself is lost or damaged: it does not start, says what to do, and what it says to do
// works: another node takes its place, with all that is there.
func TestNodeThatLostItselfIsReplaced(t *testing.T) {
	all := func(b []byte) []byte {
		b[len(b)/2] ^= 8
		return b
	}
	for name, lost := range map[string]struct {
		do   func(t *testing.T, n *dbNode)
		want error
	}{
		"lost votes":    {func(t *testing.T, n *dbNode) { remove(t, n.disk, "raft.votes") }, ErrVotesLost},
		"damaged votes": {func(t *testing.T, n *dbNode) { rewrite(t, n.disk, "raft.votes", all) }, ErrVotesLost},
		"emptied votes": {func(t *testing.T, n *dbNode) {
			rewrite(t, n.disk, "raft.votes", func([]byte) []byte { return nil })
		}, ErrVotesLost},
		"lost count of starts":    {func(t *testing.T, n *dbNode) { remove(t, n.disk, "raft.boot") }, ErrBootsLost},
		"damaged count of starts": {func(t *testing.T, n *dbNode) { rewrite(t, n.disk, "raft.boot", all) }, ErrBootsLost},
		"emptied metadata": {func(t *testing.T, n *dbNode) {
			fsys := vfs.Sub(n.disk, "meta")
			remove(t, fsys, named(t, fsys, "")...)
		}, embedlog.ErrCorrupt},
		"metadata without its segment": {func(t *testing.T, n *dbNode) {
			fsys := vfs.Sub(n.disk, "meta")
			remove(t, fsys, named(t, fsys, ".log")...)
		}, embedlog.ErrCorrupt},
		"damaged metadata": {func(t *testing.T, n *dbNode) {
			fsys := vfs.Sub(n.disk, "meta")
			flip(t, fsys, named(t, fsys, ".log")[0], 0)
		}, embedlog.ErrCorrupt},
		"metadata without its checkpoint": {func(t *testing.T, n *dbNode) {
			fsys := vfs.Sub(n.disk, "meta")
			remove(t, fsys, named(t, fsys, "checkpoint")...)
		}, nil},
		"damaged checkpoint of the metadata": {func(t *testing.T, n *dbNode) {
			fsys := vfs.Sub(n.disk, "meta")
			for _, f := range named(t, fsys, "checkpoint") {
				rewrite(t, fsys, f, func(b []byte) []byte {
					for i := range b {
						b[i] ^= 1
					}
					return b
				})
			}
		}, embedlog.ErrCorrupt},
		"lost FORMAT": {func(t *testing.T, n *dbNode) { remove(t, n.disk, "FORMAT") }, nil},
	} {
		t.Run(name, func(t *testing.T) {
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
				produce := func(n *dbNode, value string) error {
					top, err := n.db.Topic("orders")
					if err == nil {
						_, err = top.Produce(ctx, embedlog.Record{Value: []byte(value)})
					}
					return err
				}
				c.until("a record", func() error { return produce(c.nodes[0], "a") })
				c.until("all have all", func() error { return c.well("orders", 1) })
				sick := c.nodes[2]
				if err := sick.db.Close(); err != nil {
					t.Fatal(err)
				}
				lost.do(t, sick)
				node, err := New(Config{Node: 3, Cluster: "sim", Listen: simAddress(3), AllowInsecure: true, Peers: c.peers, Network: c.net.Host(hostName(3))})
				if err != nil {
					t.Fatal(err)
				}
				db, err := embedlog.OpenFS(sick.disk, &embedlog.Options{Replication: node})
				if err == nil {
					t.Error("it starts")
					db.Close()
					c.nodes = c.nodes[:2]
					c.close()
					return
				}
				t.Log(err)
				if lost.want != nil && !errors.Is(err, lost.want) {
					t.Errorf("it does not start because of %v, want %v", err, lost.want)
				}
				// The words of it are what is done now.
				for _, words := range []string{"another number", "empty directory", "--join", "embedlog cluster add", "embedlog cluster drain", "embedlog cluster remove"} {
					if !strings.Contains(err.Error(), words) {
						t.Errorf("it does not say %q", words)
					}
				}
				c.nodes = c.nodes[:2]
				fresh := c.replaceNode(3, 4)
				c.until("the new one has all", func() error { return c.well("orders", 1) })
				c.until("it goes on", func() error { return produce(fresh, "b") })
				c.until("all have all in the end", func() error { return c.well("orders", 2) })
				c.close()
			})
		})
	}
}

// replaceNode is what a person is told to do about a node that is gone for good. The first of the others is asked.
func (c *dbCluster) replaceNode(lost, with int32) (fresh *dbNode) {
	c.t.Helper()
	ctx, first := context.Background(), c.nodes[0]
	c.until("add", func() error {
		err := first.db.Cluster().AddNode(ctx, with, simAddress(with))
		if errors.Is(err, embedlog.ErrInvalidNode) {
			return nil
		}
		return err
	})
	fresh = &dbNode{id: with, disk: vfs.NewMem(), join: simAddress(first.id)}
	c.peers = nil
	c.nodes = append(c.nodes, fresh)
	c.start(fresh)
	c.until("it is there", func() error {
		for _, n := range first.db.Cluster().Nodes() {
			if n.ID == with && !n.Directory.IsZero() {
				return nil
			}
		}
		return fmt.Errorf("node %d is not registered", with)
	})
	c.until("drain", func() error { return first.db.Cluster().DrainNode(ctx, lost) })
	c.until("nothing is left there", func() error {
		for _, s := range first.db.Cluster().Status()[1:] {
			if slices.Contains(s.Replicas, lost) || slices.ContainsFunc(s.Members, func(m embedlog.MemberStatus) bool { return m.Node == lost }) {
				return fmt.Errorf("%+v", s)
			}
		}
		return nil
	})
	c.until("remove", func() error {
		err := first.db.Cluster().RemoveNode(ctx, lost)
		if errors.Is(err, embedlog.ErrUnknownNode) {
			return nil
		}
		return err
	})
	return fresh
}

// raft.db on a real disk: damaged, emptied, lost, the node does not start.
func TestDamagedBoltDoesNotStart(t *testing.T) {
	for name, do := range map[string]func(b []byte) []byte{
		"emptied":   func([]byte) []byte { return nil },
		"cut":       func(b []byte) []byte { return b[:len(b)/2] },
		"first bit": func(b []byte) []byte { b[boltHeader] ^= 1; return b },
		"a newer page": func(b []byte) []byte {
			for i := range os.Getpagesize() {
				b[os.Getpagesize()+i] = 0xff
			}
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			open := func() error {
				node, err := New(Config{Node: 1, Cluster: "one", Listen: "127.0.0.1:0", Advertise: "127.0.0.1:9", AllowInsecure: true, Peers: map[int32]string{1: "127.0.0.1:9"}})
				if err != nil {
					t.Fatal(err)
				}
				db, err := embedlog.Open(dir, &embedlog.Options{Replication: node})
				if err != nil {
					return err
				}
				return db.Close()
			}
			if err := open(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "raft.db")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, do(b), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := open(); !errors.Is(err, ErrVotesLost) || !strings.Contains(err.Error(), "another number") || name != "emptied" && !errors.Is(err, log.ErrCorrupt) {
				t.Errorf("it starts: %v", err)
			}
		})
	}
}
