package query

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/internal/clustertest"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

// nodes are databases in one process that are one cluster, each with the graph of repGraph.
type nodes struct {
	t     *testing.T
	net   *clustertest.Net
	peers []*clustertest.Node
	dbs   []*embedlog.DB
	fs    []vfs.FS
	opts  func(i int) *Options // of the graphs
	set   []func(*Graph)
	graph []*Graph
	key   []*View[string, int64]
	group []*View[string, int64]
	out   *embedlog.Topic
	top   *embedlog.Topic // at node 1
}

func openNodes(t *testing.T, n int, set ...func(*nodes)) *nodes {
	t.Helper()
	var all []int32
	for i := range n {
		all = append(all, int32(i+1))
	}
	c := &nodes{t: t, net: clustertest.New(all...), peers: make([]*clustertest.Node, n), dbs: make([]*embedlog.DB, n),
		graph: make([]*Graph, n), key: make([]*View[string, int64], n), group: make([]*View[string, int64], n)}
	c.opts = func(int) *Options { return &Options{CommitInterval: 5 * time.Millisecond} }
	for range n {
		c.fs = append(c.fs, vfs.NewMem())
	}
	for _, f := range set {
		f(c)
	}
	for i := range n {
		c.open(i)
	}
	t.Cleanup(func() {
		for _, p := range c.peers {
			p.Cut(false)
		}
		for _, db := range c.dbs {
			if err := db.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
	})
	c.until("all nodes are registered", func() bool {
		for _, db := range c.dbs {
			known := db.Engine().Nodes()
			for _, n := range known {
				if n.Directory.IsZero() {
					return false
				}
			}
			if len(known) != n {
				return false
			}
		}
		return true
	})
	for i := range n {
		c.start(i)
	}
	return c
}

func (c *nodes) open(i int) {
	c.t.Helper()
	c.peers[i] = c.net.Node(int32(i + 1))
	db, err := embedlog.OpenFS(c.fs[i], &embedlog.Options{Replication: c.peers[i], MaintenanceInterval: -1, PreferredLeaders: -1, ReplicationFactor: min(3, len(c.peers))})
	if err != nil {
		c.t.Fatal(err)
	}
	c.dbs[i] = db
}

// start starts the graph at a node.
func (c *nodes) start(i int) {
	c.t.Helper()
	top, out, g, key, group, err := repGraph(context.Background(), c.dbs[i], c.opts(i), c.set...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.graph[i], c.key[i], c.group[i] = g, key, group
	if i == 0 {
		c.top, c.out = top, out
	}
}

func (c *nodes) until(what string, f func() bool) {
	c.t.Helper()
	for range 4000 {
		if f() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	c.t.Fatalf("it does not come: %s", what)
}

// owns says which tasks a node runs.
func (c *nodes) owns(i int) (slots []int) {
	for s := range c.graph[i].slots {
		slot := &c.graph[i].slots[s]
		slot.mu.Lock()
		if slot.task != nil {
			slots = append(slots, s)
		}
		slot.mu.Unlock()
	}
	return slots
}

// lead has a node lead a partition of a topic.
func (c *nodes) lead(topic string, partition, node int32) error {
	top, err := c.dbs[node-1].Engine().Topic(topic)
	if err != nil {
		return err
	}
	return c.net.Elect(engine.LogID{Topic: top.ID(), Partition: partition}, node)
}

func (c *nodes) produce(from, n int) {
	c.t.Helper()
	for i := from; i < from+n; i++ {
		rec := embedlog.Record{Key: fmt.Appendf(nil, "k%d", i%5), Value: mustInt(int64(i))}
		for {
			_, err := c.top.Produce(context.Background(), rec)
			if err == nil {
				break
			}
			if !embedlog.IsRetriable(err) {
				c.t.Fatal(err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// check compares what each node answers with what the records come to, and what was appended.
func (c *nodes) check(when string, at ...int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	want, sent := map[string]int64{}, map[string]int{}
	for rec, err := range c.top.Scan(ctx, &embedlog.ScanOptions{Linearizable: true}) {
		if err != nil {
			c.t.Fatal(err)
		}
		n, err := codec.Int64.Decode(rec.Value)
		if err != nil {
			c.t.Fatal(err)
		}
		want[string(rec.Key)] += n
		want[fmt.Sprint("g", n%7)] += n
		sent[fmt.Sprint(n)]++
	}
	again := func(f func() error) {
		c.t.Helper()
		for {
			err := f()
			if err == nil {
				return
			}
			if ctx.Err() != nil || !errors.Is(err, ErrInterrupted) && !embedlog.IsRetriable(err) {
				c.t.Fatalf("%s: %v", when, err)
			}
		}
	}
	for _, i := range at {
		got := map[string]int64{}
		again(func() error {
			for _, v := range []*View[string, int64]{c.key[i], c.group[i]} {
				for row, err := range v.All(ctx) {
					if err != nil {
						return err
					}
					got[row.Key] = row.Value
				}
			}
			return nil
		})
		if !maps.Equal(got, want) {
			c.t.Fatalf("%s: at node %d the views are %v, the records come to %v", when, i+1, got, want)
		}
		again(func() error {
			v, found, err := c.group[i].Get(ctx, "g3")
			if err == nil && (v != want["g3"] || found != (want["g3"] != 0)) {
				c.t.Fatalf("%s: node %d: g3 is %d, %v; want %d", when, i+1, v, found, want["g3"])
			}
			return err
		})
		again(func() error {
			n, err := c.key[i].Len(ctx)
			if m, err2 := c.group[i].Len(ctx); err == nil && err2 == nil && n+m != len(want) {
				c.t.Fatalf("%s: node %d: %d and %d rows, want %d", when, i+1, n, m, len(want))
			}
			return err
		})
	}
	c.until(when+": all is appended", func() bool {
		seen := map[string]int{}
		for rec, err := range c.out.Scan(ctx, &embedlog.ScanOptions{Linearizable: true}) {
			if err != nil {
				c.t.Fatal(err)
			}
			n, err := codec.Int64.Decode(rec.Value)
			if err != nil {
				c.t.Fatal(err)
			}
			seen[fmt.Sprint(n)]++
		}
		for n, k := range seen {
			if k > sent[n] {
				c.t.Fatalf("%s: %s was appended %d times, sent %d times", when, n, k, sent[n])
			}
		}
		return maps.Equal(seen, sent)
	})
}

// The tasks are where the progress topic's partitions are led; all nodes answer; others take over from a node that goes, warm.
func TestTakeover(t *testing.T) {
	c := openNodes(t, 3)
	progress := c.graph[0].progressName()
	for p := range int32(3) {
		if err := c.lead(progress, 2+p, p+1); err != nil { // of the widest stage
			t.Fatal(err)
		}
	}
	// Stage 0 has two tasks, stage 1 three.
	c.until("each node has its tasks", func() bool {
		return fmt.Sprint(c.owns(0), c.owns(1), c.owns(2)) == "[0 2] [1 3] [4]"
	})
	c.produce(0, 40)
	c.check("at first", 0, 1, 2)
	// The others have followed.
	c.until("the standbys are warm", func() bool {
		for i := range 3 {
			for s := range c.graph[i].slots {
				slot := &c.graph[i].slots[s]
				slot.mu.Lock()
				follows := slot.follows
				slot.mu.Unlock()
				if follows == nil {
					continue
				}
				follows.clock.RLock()
				n := 0
				for _, k := range follows.stores {
					n += k.entries()
				}
				follows.clock.RUnlock()
				if n == 0 && s < 2 {
					return false
				}
			}
		}
		return true
	})
	if err := c.lead(progress, 2, 3); err != nil {
		t.Fatal(err)
	}
	c.until("tasks move", func() bool { return fmt.Sprint(c.owns(0), c.owns(2)) == "[] [0 2 4]" })
	c.produce(40, 20)
	c.check("after a move", 0, 1, 2)
	// A node closes the graph, and leads on.
	if err := c.graph[2].Close(); err != nil {
		t.Fatal(err)
	}
	c.produce(60, 20)
	c.check("without the graph at node 3", 0, 1)
	c.start(2)
	c.check("with it again", 0, 1, 2)
	// A node goes, with its database.
	if err := c.dbs[1].Close(); err != nil {
		t.Fatal(err)
	}
	c.produce(80, 20)
	c.check("without node 2", 0, 2)
	c.open(1)
	c.start(1)
	c.check("with node 2 again", 0, 1, 2)
	for range c.key[0].Watch(t.Context()) {
		break // of what is here
	}
}

// While who leads changes, and nodes are cut off, nothing is lost and nothing counts twice.
func TestTakeoverChaos(t *testing.T) {
	c := openNodes(t, 3)
	r := rand.New(rand.NewPCG(rand.Uint64(), 1))
	var chaos sync.WaitGroup
	stop := make(chan struct{})
	topics := map[string]int32{c.graph[0].progressName(): 5, "orders": 2, "out": 1, "g-by-group-repartition": 3, "g-per-key-changelog": 2, "g-per-group-changelog": 3}
	chaos.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(r.IntN(30)) * time.Millisecond):
			}
			if node := r.IntN(3); node > 0 && r.IntN(3) == 0 {
				c.peers[node].Cut(true)
				time.Sleep(time.Duration(r.IntN(40)) * time.Millisecond)
				c.peers[node].Cut(false)
				continue
			}
			for name, partitions := range topics {
				if r.IntN(3) == 0 {
					_ = c.lead(name, r.Int32N(partitions), 1+r.Int32N(3))
				}
			}
		}
	})
	for i := range testcount.N(40) {
		c.produce(i*20, 20)
		time.Sleep(10 * time.Millisecond)
	}
	close(stop)
	chaos.Wait()
	for _, p := range c.peers {
		p.Cut(false)
	}
	c.check("after all", 0, 1, 2)
}

// Whoever has written reads it, at any node, while the tasks move.
func TestReadYourWritesWhileTasksMove(t *testing.T) {
	c := openNodes(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var moving sync.WaitGroup
	stop := make(chan struct{})
	moving.Go(func() {
		r := rand.New(rand.NewPCG(rand.Uint64(), 2))
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(r.IntN(20)) * time.Millisecond):
				_ = c.lead(c.graph[0].progressName(), r.Int32N(5), 1+r.Int32N(3))
			}
		}
	})
	defer moving.Wait()
	defer close(stop)
	var sum int64
	for i := range testcount.N(200) {
		c.produce(7*i+3, 1) // its group is g3
		sum += int64(7*i + 3)
		at := i % 3
		if got, _, err := c.group[at].Get(ctx, "g3"); err != nil || got != sum {
			t.Fatalf("write %d: node %d gets %d, %v; want %d", i, at+1, got, err, sum)
		}
		s, err := c.graph[at].Snapshot(ctx)
		if err != nil {
			t.Fatalf("write %d: snapshot at node %d: %v", i, at+1, err)
		}
		got, _, err := c.group[at].In(s).Get("g3")
		if err == nil && got != sum {
			t.Fatalf("write %d: node %d's snapshot has %d, want %d", i, at+1, got, sum)
		}
		if err != nil && !errors.Is(err, ErrInterrupted) && !embedlog.IsRetriable(err) {
			t.Fatalf("write %d: node %d's snapshot: %v", i, at+1, err)
		}
		s.Release()
	}
}

// A cluster that starts again has the rows of its tasks from their checkpoints.
func TestClusterStartsFromCheckpoints(t *testing.T) {
	c := openNodes(t, 1)
	c.until("it has its tasks", func() bool { return len(c.owns(0)) == 5 })
	const keys = 4000
	var recs []embedlog.Record
	for i := range keys {
		recs = append(recs, embedlog.Record{Key: fmt.Appendf(nil, "k%d", i), Value: mustInt(int64(i))})
	}
	if _, err := c.top.Produce(t.Context(), recs...); err != nil {
		t.Fatal(err)
	}
	c.check("at first", 0)
	if err := c.dbs[0].Close(); err != nil {
		t.Fatal(err)
	}
	c.open(0)
	c.start(0)
	c.check("after a start", 0)
	if s := c.graph[0].Stats(); s.RestoredRows < keys || s.RestoredRecords > keys/10 { // the groups are too few for a checkpoint
		t.Errorf("%d rows of checkpoints and %d records of changelogs, want %d and those of the groups", s.RestoredRows, s.RestoredRecords, keys)
	}
}
