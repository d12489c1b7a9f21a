package disk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/internal/clustertest"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/query"
)

// cluster is three nodes, each with its stores beside its log.
type cluster struct {
	t      *testing.T
	net    *clustertest.Net
	files  [3]*vfs.Fault // of the stores
	dbs    [3]*embedlog.DB
	graph  [3]*query.Graph
	view   [3]*query.View[string, int64]
	closed [3]bool // the graph is
	top    *embedlog.Topic
	want   map[string]int64
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	ctx := context.Background()
	c := &cluster{t: t, net: clustertest.New(1, 2, 3), want: map[string]int64{}}
	var fs [3]*vfs.Mem
	for i := range c.dbs {
		fs[i] = vfs.NewMem()
		c.files[i] = vfs.NewFault(fs[i])
		db, err := embedlog.OpenFS(fs[i], &embedlog.Options{Replication: c.net.Node(int32(i + 1)), MaintenanceInterval: -1, PreferredLeaders: -1, ReplicationFactor: 3})
		if err != nil {
			t.Fatal(err)
		}
		c.dbs[i] = db
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	c.until("all nodes are registered", func() bool {
		for _, db := range c.dbs {
			known := db.Engine().Nodes()
			for _, n := range known {
				if n.Directory.IsZero() {
					return false
				}
			}
			if len(known) != len(c.dbs) {
				return false
			}
		}
		return true
	})
	for i, db := range c.dbs {
		top, err := db.EnsureTopic(ctx, "t", nil)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			c.top = top
		}
		stores := New(&Options{Dir: "stores", WriteBytes: 1 << 16})
		stores.fs = logFS{c.files[i]}
		c.graph[i] = query.NewGraph(db, "g", &query.Options{CommitInterval: 5 * time.Millisecond, Store: stores, CacheBytes: 1})
		c.view[i] = query.Add(c.graph[i], "v", query.TableFrom(top, codec.String, codec.Int64))
		if err := c.graph[i].Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *cluster) until(what string, f func() bool) {
	c.t.Helper()
	for range 4000 {
		if f() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	c.t.Fatalf("it does not come: %s", what)
}

// owner has a node own the task.
func (c *cluster) owner(node int32) {
	c.t.Helper()
	top, err := c.dbs[0].Engine().Topic("g-progress")
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.net.Elect(engine.LogID{Topic: top.ID()}, node); err != nil {
		c.t.Fatal(err)
	}
	c.until(fmt.Sprintf("node %d owns the task", node), func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		for _, err := range c.view[node-1].Watch(ctx) { // of rows that are here
			return err == nil
		}
		return false
	})
}

// set gives keys a value; nil deletes them. The view has it, and it is committed.
func (c *cluster) set(from, to int, value func(i int) *int64) {
	c.t.Helper()
	ctx := context.Background()
	for i := from; i < to; i++ {
		rec := embedlog.Record{Key: fmt.Appendf(nil, "k%03d", i)}
		if v := value(i); v != nil {
			rec.Value, _ = codec.Int64.Append(nil, *v)
			c.want[string(rec.Key)] = *v
		} else {
			delete(c.want, string(rec.Key))
		}
		if _, err := c.top.Produce(ctx, rec); err != nil {
			c.t.Fatal(err)
		}
	}
	c.check("after the records")
	c.until("it is committed", func() bool { // the last record of the progress has the last position
		progress, err := c.dbs[0].Topic("g-progress")
		if err != nil {
			c.t.Fatal(err)
		}
		ends, err := c.top.ListOffsets(ctx, embedlog.LastStable)
		if err != nil {
			c.t.Fatal(err)
		}
		last := ""
		for rec, err := range progress.Scan(ctx, &embedlog.ScanOptions{Linearizable: true}) {
			if err != nil {
				return false
			}
			last = string(rec.Value)
		}
		return strings.Contains(last, fmt.Sprintf(`"offset":%d`, ends[0].Offset))
	})
}

func (c *cluster) check(when string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for i, v := range c.view {
		if c.closed[i] {
			continue
		}
		got, err := map[string]int64(nil), query.ErrInterrupted
		for errors.Is(err, query.ErrInterrupted) || embedlog.IsRetriable(err) {
			got, err = map[string]int64{}, nil
			for row, e := range v.All(ctx) {
				if err = e; e == nil {
					got[row.Key] = row.Value
				}
			}
		}
		if err != nil || !maps.Equal(got, c.want) {
			c.t.Fatalf("%s: at node %d the view is %v, %v; want %v", when, i+1, got, err, c.want)
		}
	}
}

// A standby whose rows are on disk is cold: it reads what came after its own rows of before when it takes over, or all where it has none.
// Rows that were deleted meanwhile do not come back with it, also when compaction has removed the tombstones.
func TestTakeoverWithStores(t *testing.T) {
	ctx := context.Background()
	c := newCluster(t)
	number := func(n int64) func(int) *int64 { return func(i int) *int64 { n := n + int64(i); return &n } }
	none := func(int) *int64 { return nil }
	c.owner(1)
	c.set(0, 100, number(1000))
	c.owner(2)
	c.check("at node 2")
	if s := c.graph[1].Stats(); s.RestoredRows != 0 || s.RestoredRecords < 100 {
		t.Errorf("node 2 has begun with %+v", s)
	}
	c.set(0, 20, number(2000))
	c.set(90, 100, none)
	c.owner(1)
	c.check("at node 1 again")
	if s := c.graph[0].Stats(); s.RestoredRows != 100 || s.RestoredRecords == 0 || s.RestoredRecords > 60 || s.CheckpointsRefused != 0 {
		t.Errorf("node 1 has begun with %+v", s)
	}
	// Node 2 has rows of now; these go, and nothing is left that says so.
	c.set(50, 90, none)
	c.set(0, 10, number(3000))
	changelog, err := c.dbs[0].Topic("g-v-changelog")
	if err != nil {
		t.Fatal(err)
	}
	if err := changelog.Alter(ctx, map[string]string{"delete.retention.ms": "1", "min.compaction.lag.ms": "0"}); err != nil {
		t.Fatal(err)
	}
	c.until("the tombstones are gone at all nodes", func() bool {
		for i, db := range c.dbs {
			if err := db.Compact(ctx, "g-v-changelog"); err != nil {
				t.Fatalf("node %d: %v", i+1, err)
			}
			top, err := db.Topic("g-v-changelog")
			if err != nil {
				t.Fatal(err)
			}
			for rec, err := range top.Scan(ctx, nil) {
				if err != nil || rec.Value == nil {
					return false
				}
			}
		}
		return true
	})
	c.owner(2)
	c.check("at node 2 again")
	if s := c.graph[1].Stats(); s.CheckpointsRefused != 1 {
		t.Errorf("node 2 has used rows of before: %+v", s)
	}
	c.set(80, 100, number(4000))
	for i, g := range c.graph {
		if err := g.Close(); err != nil {
			t.Errorf("node %d: %v", i+1, err)
		}
	}
}

// The files of the owner's store fail for good: another node has the task then, and readers at all nodes, the ill one too, have every record. It takes the
// task again when its files are well and nobody else is left.
func TestHandoverOfFailingFiles(t *testing.T) {
	for name, op := range map[string]vfs.Op{"writes": vfs.OpWrite, "all": vfs.OpAny} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { handoverOfFailingFiles(t, op) })
		})
	}
}

func handoverOfFailingFiles(t *testing.T, op vfs.Op) {
	c := newCluster(t)
	number := func(n int64) func(int) *int64 { return func(i int) *int64 { n := n + int64(i); return &n } }
	c.owner(1)
	c.set(0, 50, number(1000))
	c.files[0].Add(vfs.Rule{Op: op, Count: -1, Effect: vfs.Fail(syscall.EIO)})
	big := func(i int) *int64 { n := int64(i) << 40; return &n }
	for round := range 40 { // until what is in memory has to be written
		c.set(0, 100, big)
		c.set(40, 60, number(int64(round)))
		if c.graph[0].Stats().Handovers > 0 {
			break
		}
	}
	if n := c.graph[0].Stats().Handovers; n != 1 {
		t.Fatalf("it has given the task away %d times", n)
	}
	c.set(20, 80, number(3000))
	for i, g := range c.graph {
		if err := g.Err(); err != nil {
			t.Errorf("node %d: %v", i+1, err)
		}
	}
	c.files[0].Clear()
	for i := 1; i < 3; i++ {
		c.closed[i] = true
		if err := c.graph[i].Close(); err != nil {
			t.Errorf("node %d: %v", i+1, err)
		}
	}
	c.set(0, 30, number(4000))
	if err := c.graph[0].Close(); err != nil {
		t.Error(err)
	}
}
