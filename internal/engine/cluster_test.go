package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/x/embedlog/internal/clustertest"
	. "github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

var ctx = context.Background()

// meta is the log of the metadata.
var meta LogID

// peers are engines that are one cluster, each with its own disk.
type peers struct {
	t     testing.TB
	net   *clustertest.Net
	files map[int32]vfs.FS
	open  map[int32]*Engine
	nodes map[int32]*clustertest.Node
}

// newPeers opens nodes 1 to n, which begin a cluster together, and waits until all of
// them are registered.
func newPeers(t testing.TB, n int32) *peers {
	var all []int32
	for id := range n {
		all = append(all, id+1)
	}
	p := &peers{t: t, net: clustertest.New(all...), files: map[int32]vfs.FS{}, open: map[int32]*Engine{}, nodes: map[int32]*clustertest.Node{}}
	for _, id := range all {
		p.files[id] = vfs.NewMem()
		p.start(id)
	}
	t.Cleanup(p.stopAll)
	p.registered(all...)
	return p
}

func (p *peers) options(id int32) *Options {
	p.nodes[id] = p.net.Node(id)
	return &Options{FS: p.files[id], Cluster: p.nodes[id], MaintenanceInterval: -1, Logger: slog.New(slog.NewTextHandler(logTo{p.t}, nil)).With("node", id)}
}

// logTo writes what engines log where a test that fails shows it.
type logTo struct{ t testing.TB }

func (l logTo) Write(b []byte) (int, error) {
	l.t.Logf("%s", b[:len(b)-1])
	return len(b), nil
}

func (p *peers) start(id int32) {
	p.t.Helper()
	e, err := Open(fmt.Sprint("node", id), p.options(id))
	if err != nil {
		p.t.Fatal(err)
	}
	p.open[id] = e
}

func (p *peers) stop(id int32) {
	p.t.Helper()
	if err := p.open[id].Close(); err != nil {
		p.t.Errorf("node %d: %v", id, err)
	}
	delete(p.open, id)
}

func (p *peers) stopAll() {
	for _, id := range []int32{1, 2, 3, 4, 5} {
		if p.open[id] != nil {
			p.stop(id)
		}
	}
}

// until waits for something that nodes do by themselves.
func (p *peers) until(what string, f func() bool) {
	p.t.Helper()
	for range 3000 {
		if f() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.t.Fatalf("it does not come: %s", what)
}

// registered waits until every open node knows of the nodes and their directories.
func (p *peers) registered(nodes ...int32) {
	p.t.Helper()
	p.until(fmt.Sprint("nodes ", nodes), func() bool {
		for _, e := range p.open {
			var has []int32
			for _, n := range e.Nodes() {
				if !n.Directory.IsZero() {
					has = append(has, n.ID)
				}
			}
			if !slices.Equal(has, nodes) {
				return false
			}
		}
		return true
	})
}

// leader is the engine that leads the metadata.
func (p *peers) leader() *Engine {
	for _, e := range p.open {
		node, _ := e.MetaLeader()
		return p.open[node]
	}
	return nil
}

// agree waits until all open nodes have applied what the leader has, and compares them.
func (p *peers) agree() {
	p.t.Helper()
	offset := p.leader().MetadataOffset()
	want := ""
	for id, e := range p.open {
		if err := e.AwaitMetadata(ctx, offset); err != nil {
			p.t.Fatal(err)
		}
		got := topics(e)
		if want == "" {
			want = got
		}
		if got != want {
			p.t.Fatalf("node %d has\n%s\nanother one\n%s", id, got, want)
		}
		for _, top := range e.Topics() {
			for _, part := range top.Partitions() {
				mine := slices.Contains(top.Replicas(part.ID()), id)
				if mine != (part.Replicated() != nil) || mine == part.Elsewhere() {
					p.t.Errorf("node %d: %s of %v: %v", id, part, top.Replicas(part.ID()), part.Err())
				}
			}
		}
	}
}

func topics(e *Engine) (text string) {
	for _, t := range e.Topics() {
		retention, _ := t.Settings().Get("retention.ms")
		text += fmt.Sprintf("%s %s retention %s factor %d", t.Name(), t.ID(), retention, t.ReplicationFactor())
		for n := range t.Partitions() {
			text += fmt.Sprint(" ", t.Replicas(int32(n)))
		}
		text += "\n"
	}
	return text
}

func (p *peers) create(name string, partitions, factor int) *Topic {
	p.t.Helper()
	t, err := p.leader().CreateTopic(ctx, TopicSpec{Name: name, Partitions: partitions, ReplicationFactor: factor})
	if err != nil {
		p.t.Fatal(err)
	}
	return t
}

// dirs are the directories of partitions that a node has.
func (p *peers) dirs(id int32, topic TopicID) (names []string) {
	infos, err := p.files[id].List("topics/" + topic.String())
	if err != nil && !isNotExist(err) {
		p.t.Fatal(err)
	}
	for _, info := range infos {
		if info.Dir {
			names = append(names, info.Name)
		}
	}
	return names
}

func isNotExist(err error) bool { return err != nil && errors.Is(err, fs.ErrNotExist) }

// What the leader makes is made on all nodes, and what one replica takes is on the
// others.
func TestTopicsOnAllNodes(t *testing.T) {
	p := newPeers(t, 3)
	p.create("orders", 4, 0)
	p.create("small", 3, 1)
	p.agree()
	lead := p.leader()
	if err := lead.AlterTopic(ctx, "orders", map[string]string{"retention.ms": "7"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := lead.AddPartitions(ctx, "small", 6); err != nil {
		t.Fatal(err)
	}
	p.agree()
	top, err := lead.Topic("orders")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range top.Partitions() {
		node, _ := part.Leader()
		at, err := p.open[node].Topic("orders")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := at.Partitions()[part.ID()].Append(ctx, []log.Record{{Value: []byte("v")}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for id, e := range p.open {
		at, _ := e.Topic("orders")
		for _, part := range at.Partitions() {
			if part.HighWatermark() != 1 {
				t.Errorf("node %d: %s ends at %d", id, part, part.HighWatermark())
			}
		}
	}
	if err := lead.DeleteTopic(ctx, "orders"); err != nil {
		t.Fatal(err)
	}
	p.agree()
	p.until("files are gone", func() bool {
		for id, e := range p.open {
			if len(e.Info().Deleting) > 0 || len(p.dirs(id, top.ID())) > 0 {
				return false
			}
		}
		return true
	})
	if _, err := lead.CreateTopic(ctx, TopicSpec{Name: "many", ReplicationFactor: 4}); !errors.Is(err, ErrInvalidReplicationFactor) {
		t.Errorf("four replicas on three nodes: %v", err)
	}
}
