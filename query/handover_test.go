package query

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/internal/vfs"
)

// illStores are a node's stores, whose disk can be ill.
type illStores struct {
	MemStores
	ill   atomic.Pointer[illError]
	opens atomic.Int64 // of stores, also in vain
}

type illError struct{ matches error }

func (e *illError) Error() string        { return "the disk is ill" }
func (e *illError) Is(target error) bool { return target == e.matches }

func (s *illStores) err() error {
	if e := s.ill.Load(); e != nil {
		return e
	}
	return nil
}

func (s *illStores) OpenStore(dir, name string) (RowStore, error) {
	s.opens.Add(1)
	if err := s.err(); err != nil {
		return nil, err
	}
	r, err := s.MemStores.OpenStore(dir, name)
	return &illRows{RowStore: r, s: s}, err
}

// illRows are as disk's are: a store that has failed does nothing any more, and is empty when it is opened again.
type illRows struct {
	RowStore
	s      *illStores
	failed atomic.Pointer[illError]
}

func (r *illRows) err() error {
	r.failed.CompareAndSwap(nil, r.s.ill.Load())
	if e := r.failed.Load(); e != nil {
		return e
	}
	return nil
}

func (r *illRows) Get(dst, key []byte) ([]byte, bool, error) {
	if err := r.err(); err != nil {
		return nil, false, err
	}
	return r.RowStore.Get(dst, key)
}

func (r *illRows) Walk(from, to []byte, backwards bool, f func(key, row []byte) bool) error {
	if err := r.err(); err != nil {
		return err
	}
	return r.RowStore.Walk(from, to, backwards, f)
}

func (r *illRows) Apply(changes []RowChange) error {
	if err := r.err(); err != nil {
		return err
	}
	return r.RowStore.Apply(changes)
}

func (r *illRows) Clear() error {
	if err := r.err(); err != nil {
		return err
	}
	return r.RowStore.Clear()
}

func (r *illRows) Close() error {
	if r.failed.Load() != nil {
		r.RowStore.Clear()
	}
	return r.RowStore.Close()
}

// outFor is for how long who has failed for good is not chosen in these tests: looks every 10 ms take their time, also where it is not real.
const outFor = time.Minute

// illNodes are three nodes with such stores, of which the first one leads all.
func illNodes(t *testing.T) (*nodes, []*illStores) {
	t.Helper()
	stores := []*illStores{{}, {}, {}}
	c := openNodes(t, 3, func(c *nodes) {
		c.set = []func(*Graph){func(g *Graph) { g.outFor = outFor }}
		c.opts = func(i int) *Options {
			return &Options{CommitInterval: 5 * time.Millisecond, Store: stores[i], CacheBytes: 1}
		}
	})
	c.leadAll(1)
	c.until("node 1 has all tasks", func() bool { return len(c.owns(0)) == 5 })
	c.produce(0, 40)
	c.check("at first", 0, 1, 2)
	return c, stores
}

func (c *nodes) leadAll(node int32) {
	c.t.Helper()
	for p := range int32(3) {
		if err := c.lead(c.graph[0].progressName(), 2+p, node); err != nil {
			c.t.Fatal(err)
		}
	}
}

// has waits until a node has all tasks.
func (c *nodes) has(i int) {
	c.t.Helper()
	c.until(fmt.Sprintf("node %d has all tasks", i+1), func() bool { return len(c.owns(i)) == 5 })
}

// away waits until a node has no task, and the others have all.
func (c *nodes) away(i int) {
	c.t.Helper()
	c.until(fmt.Sprintf("node %d has no task", i+1), func() bool {
		return len(c.owns(i)) == 0 && len(c.owns((i+1)%3))+len(c.owns((i+2)%3)) == 5
	})
}

// stopped says of each node whether its graph has stopped because of its own disk, here and for who reads.
func (c *nodes) stopped() (list [3]bool) {
	c.t.Helper()
	for i, g := range c.graph {
		// What task 4 reads comes from the others.
		if g.owners.stopped("g", 0) == nil || g.owners.stopped("g", 1) == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, _, read := c.group[i].Get(ctx, "g3")
		list[i] = true
		for _, err := range []error{g.Err(), read} {
			stopped, ill := (*StoppedError)(nil), (*illError)(nil)
			if !errors.As(err, &stopped) || !errors.As(err, &ill) {
				c.t.Fatalf("node %d: %v", i+1, err)
			}
		}
	}
	return list
}

// A node whose disk fails gives its tasks away, answers for them as before, and does not get them back, whoever leads: neither while its disk is ill nor when
// it is well again. Who has them keeps them, until it fails.
func TestHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stores := illNodes(t)
		stores[0].ill.Store(&illError{embedlog.ErrStorageFailed})
		c.produce(40, 20)
		c.away(0)
		c.check("at other nodes", 0, 1, 2)
		opens := func() (n [3]int64) {
			for i, s := range stores {
				n[i] = s.opens.Load()
			}
			return n
		}
		before := opens()
		stores[0].ill.Store(nil)
		time.Sleep(2 * outFor)
		c.produce(60, 20)
		c.check("later", 0, 1, 2)
		if now := opens(); now != before {
			t.Errorf("tasks have moved again: stores were opened %v times, then %v", before, now)
		}
		if got := fmt.Sprint(c.graph[0].Stats().Handovers, c.graph[1].Stats().Handovers, c.graph[0].Err()); got != "3 0 <nil>" {
			t.Errorf("handovers of node 1, of node 2, and why node 1 has stopped: %s", got)
		}
		// Others lead, and node 1 again.
		c.leadAll(3)
		c.has(2)
		c.check("node 3 leads", 0, 1, 2)
		c.leadAll(1)
		time.Sleep(time.Second)
		c.has(2)
		c.check("node 1 leads again", 0, 1, 2)
		// Of two that have failed once and one that has not it is that one, and then the first of all.
		stores[2].ill.Store(&illError{embedlog.ErrCorrupt})
		c.produce(80, 20)
		c.has(1)
		c.check("at node 2 again", 0, 1, 2)
		stores[1].ill.Store(&illError{embedlog.ErrStorageFailed})
		c.produce(100, 20)
		c.has(0)
		c.check("at node 1, whose disk is well", 0, 1, 2)
		if got := c.stopped(); got != [3]bool{} {
			t.Errorf("nodes have stopped: %v", got)
		}
	})
}

// When all disks are ill the graph has stopped at all nodes, each with its own error, and nobody goes on trying. It goes on when there is somebody who
// can, and by itself after a long time.
func TestHandoverOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stores := illNodes(t)
		for _, s := range stores {
			s.ill.Store(&illError{embedlog.ErrStorageFailed})
			s.opens.Store(0)
		}
		c.produce(40, 20)
		all := [3]bool{true, true, true}
		c.until("all have stopped", func() bool { return c.stopped() == all })
		time.Sleep(10 * time.Second) // task 4 may have had something to write, too
		// Five tasks of three numbers, which fail twice at each node.
		for i, s := range stores {
			if n := s.opens.Load(); n < 2 || n > 10 {
				t.Errorf("node %d has tried %d times", i+1, n)
			}
			s.opens.Store(0)
		}
		time.Sleep(outFor / 2)
		if c.stopped() != all {
			t.Errorf("who has stopped: %v", c.stopped())
		}
		for i, s := range stores {
			if n := s.opens.Load(); n > 0 {
				t.Errorf("node %d has tried %d times more", i+1, n)
			}
		}
		// Node 3 is started anew.
		stores[2].ill.Store(nil)
		if err := c.graph[2].Close(); err != nil {
			t.Error(err)
		}
		c.start(2)
		c.has(2)
		c.check("node 3 is well", 0, 1, 2)
		if got := c.stopped(); got != [3]bool{} {
			t.Errorf("nodes have stopped: %v", got)
		}
		// It fails, too, and there it ends. Later another disk is well.
		stores[2].ill.Store(&illError{embedlog.ErrStorageFailed})
		c.produce(60, 20)
		c.until("all have stopped again", func() bool { return c.stopped() == all })
		stores[1].ill.Store(nil)
		time.Sleep(outFor)
		c.has(1)
		c.check("node 2 is well", 0, 1, 2)
	})
}

// A node that has failed tries again when the one goes that had its tasks, and nobody else runs the graph.
func TestHandoverBack(t *testing.T) {
	for _, healed := range []bool{true, false} {
		t.Run(fmt.Sprint("healed=", healed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, stores := illNodes(t)
				stores[0].ill.Store(&illError{embedlog.ErrStorageFailed})
				c.produce(40, 20)
				c.away(0)
				c.check("at other nodes", 0, 1, 2)
				if healed {
					stores[0].ill.Store(nil)
				}
				if err := c.graph[2].Close(); err != nil {
					t.Error(err)
				}
				if err := c.dbs[1].Close(); err != nil {
					t.Error(err)
				}
				c.produce(60, 20)
				if healed {
					c.has(0)
					c.check("at node 1 again", 0)
				} else {
					c.until("node 1 has stopped", func() bool { return c.stopped()[0] })
				}
				c.open(1)
				c.start(1)
				c.start(2)
				c.until("no node has stopped", func() bool { return c.stopped() == [3]bool{} })
				c.check("all are there", 0, 1, 2)
			})
		})
	}
}

// Where there is no room nobody stops: the first one that has room goes on, whichever that is, and reads wait for it.
func TestHandoverWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stores := illNodes(t)
		for _, s := range stores {
			s.ill.Store(&illError{embedlog.ErrNoSpace})
		}
		c.produce(40, 20)
		time.Sleep(2 * time.Minute)
		for i, s := range stores {
			if n := s.opens.Load(); n < 12 {
				t.Errorf("node %d has tried %d times in two minutes", i+1, n)
			}
		}
		if got := c.stopped(); got != [3]bool{} {
			t.Errorf("nodes have stopped: %v", got)
		}
		var readers sync.WaitGroup
		for i := range c.group {
			readers.Go(func() {
				if _, _, err := c.group[i].Get(t.Context(), "g3"); err != nil {
					t.Errorf("a read at node %d: %v", i+1, err)
				}
			})
		}
		time.Sleep(time.Second)
		stores[2].ill.Store(nil)
		readers.Wait()
		c.has(2)
		c.check("node 3 has room", 0, 1, 2)
	})
}

// Disks fail and are mended, graphs are closed and started, others lead: in the end all is as the records say.
func TestHandoverWhileClosing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stores := illNodes(t)
		for i := range 9 {
			at := i % 3
			stores[at].ill.Store(&illError{embedlog.ErrStorageFailed})
			c.produce(40+20*i, 20)
			time.Sleep(time.Duration(i*i) * 5 * time.Millisecond) // at another step each time
			if err := c.graph[at].Close(); err != nil {
				if ill := (*illError)(nil); !errors.As(err, &ill) {
					t.Errorf("close: %v", err)
				}
			}
			if i%2 == 0 {
				c.leadAll(int32(1 + (i/2)%3))
			}
			c.check("without one", (at+1)%3, (at+2)%3)
			stores[at].ill.Store(nil)
			c.start(at)
			c.check("with it again", 0, 1, 2)
		}
	})
}

// So does a node that cannot make the directory of checkpoints.
func TestHandoverOfFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := vfs.NewFault(vfs.NewMem(), vfs.Rule{Op: vfs.OpMkdir, Glob: "views", Count: -1, Effect: vfs.Fail(syscall.EIO)})
		c := openNodes(t, 3, func(c *nodes) { c.fs[0] = fault })
		c.leadAll(1)
		c.away(0)
		c.produce(0, 20)
		c.check("at other nodes", 0, 1, 2)
		if n := c.graph[0].Stats().Handovers; n != 3 {
			t.Errorf("%d handovers, want 3", n)
		}
	})
}

// A function that panics does so at every node: nobody else is tried, and the graph stops where it was computed.
func TestPanicsAreNotHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openNodes(t, 3)
		var graphs []*Graph
		for _, db := range c.dbs {
			top, err := db.Topic("orders")
			if err != nil {
				t.Fatal(err)
			}
			g := NewGraph(db, "bad", &Options{CommitInterval: 5 * time.Millisecond, OneTask: true})
			Add(g, "n", Count(From(top, codec.String, codec.Int64).Filter(func(string, int64) bool { panic("wrong") })))
			if err := g.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			graphs = append(graphs, g)
		}
		time.Sleep(time.Second) // who leads may have been asked before its graph was started
		c.produce(0, 5)
		stopped := func() (n int) {
			for _, g := range graphs {
				if err := (*StoppedError)(nil); errors.As(g.Err(), &err) {
					n++
				}
			}
			return n
		}
		c.until("its owner has stopped", func() bool { return stopped() > 0 })
		time.Sleep(time.Minute)
		if n := stopped(); n != 1 {
			t.Errorf("%d nodes have stopped", n)
		}
		for i, g := range graphs {
			if n := g.Stats().Handovers; n != 0 {
				t.Errorf("node %d has given tasks away %d times", i+1, n)
			}
		}
	})
}
