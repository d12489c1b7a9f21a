package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
	"github.com/x/embedlog/internal/testcount"
)

// soon bounds what must come.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// Who leads has closed the graph, and of the others that could have the tasks one is gone: the last one has them.
func TestTasksOfNobody(t *testing.T) {
	c := openNodes(t, 3)
	progress := c.graph[0].progressName()
	lead := func() {
		for p := range int32(5) {
			if err := c.lead(progress, p, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	lead()
	c.until("node 1 has the tasks", func() bool { return len(c.owns(0)) == 5 })
	c.produce(0, 20)
	if err := c.dbs[1].Close(); err != nil {
		t.Fatal(err)
	}
	lead()
	if err := c.graph[0].Close(); err != nil {
		t.Fatal(err)
	}
	c.until("node 3 has the tasks", func() bool { return len(c.owns(2)) == 5 })
	c.produce(20, 20)
	c.check("at node 3", 2)
	c.start(0)
	c.check("at both", 0, 2)
}

// A node that has the tasks closes the graph, or its database, and opens them again: those who read at others notice nothing but the time that it takes.
func TestReadsWhileOwnersClose(t *testing.T) {
	c := openNodes(t, 3)
	progress := c.graph[0].progressName()
	c.produce(0, 20)
	ctx := soon(t)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	var reads atomic.Int64
	for i := range 2 {
		for _, read := range []func() error{
			func() error { _, _, err := c.key[i].Get(ctx, "k1"); return err },
			func() error { _, _, err := c.group[i].Get(ctx, "g1"); return err },
			func() error { _, err := c.key[i].Len(ctx); return err },
			func() error { return c.graph[i].CatchUp(ctx) },
		} {
			readers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if err := read(); err != nil && !embedlog.IsRetriable(err) {
						t.Errorf("node %d: %v", i+1, err)
						return
					}
					reads.Add(1)
				}
			})
		}
	}
	for n := range testcount.N(4) {
		for p := range int32(5) {
			if err := c.lead(progress, p, 3); err != nil {
				t.Fatal(err)
			}
		}
		c.until("node 3 has the tasks", func() bool { return len(c.owns(2)) == 5 })
		before := reads.Load()
		c.until("it is read", func() bool { return reads.Load() > before+20 || t.Failed() })
		if n%2 == 0 {
			if err := c.graph[2].Close(); err != nil {
				t.Fatal(err)
			}
		} else {
			if err := c.dbs[2].Close(); err != nil {
				t.Logf("close: %v", err) // of the last commit
			}
			c.open(2)
		}
		c.start(2)
	}
	close(stop)
	readers.Wait()
	c.produce(20, 20)
	c.check("afterwards", 0, 1, 2)
}

// startDefinition starts one of two definitions under one name: their rows are of different types, and would be read as each other's.
func (c *nodes) startDefinition(i int, second bool) (g *Graph, view *View[string, int64]) {
	c.t.Helper()
	ctx := soon(c.t)
	top, err := c.dbs[i].EnsureTopic(ctx, "things", &embedlog.TopicConfig{Partitions: 2})
	if err != nil {
		c.t.Fatal(err)
	}
	rows := From(top, codec.String, codec.Int64)
	g = NewGraph(c.dbs[i], "d", &Options{CommitInterval: 5 * time.Millisecond, Rebuild: second})
	if second {
		view = Add(g, "total", Count(rows))
	} else {
		view = Add(g, "total", Sum(rows, func(_ string, n int64) int64 { return n }))
	}
	if err := g.Start(ctx); err != nil {
		c.t.Fatal(err)
	}
	return g, view
}

// One node has a new definition, and the others, who run the old one, lead what the new one's tasks are owned by: they have not got these
// tasks, and are asked for none of the rows.
func TestAnotherDefinitionAtPeers(t *testing.T) {
	c := openNodes(t, 3)
	ctx := soon(t)
	var graphs []*Graph
	for i := range 3 {
		g, _ := c.startDefinition(i, false)
		graphs = append(graphs, g)
		defer func() { g.Close() }()
	}
	top, err := c.dbs[0].Topic("things")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, err := top.Produce(ctx, embedlog.Record{Key: fmt.Appendf(nil, "k%d", i%2), Value: mustInt(100)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := graphs[0].CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	if err := graphs[0].Close(); err != nil && !errors.Is(err, embedlog.ErrFenced) {
		t.Fatal(err)
	}
	g, view := c.startDefinition(0, true)
	defer func() { g.Close() }()
	for p := range int32(2) {
		c.until("it leads", func() bool { return c.lead(g.progressName(), p, 2+p) == nil })
	}
	for _, key := range []string{"k0", "k1"} {
		if n, found, err := view.Get(ctx, key); n != 5 || !found || err != nil {
			t.Errorf("%s: %d, %v, %v; want 5", key, n, found, err)
		}
	}
	// The others follow.
	for i := 1; i < 3; i++ {
		graphs[i].Close()
		g, view := c.startDefinition(i, true)
		defer func() { g.Close() }()
		if n, found, err := view.Get(ctx, "k1"); n != 5 || !found || err != nil {
			t.Errorf("node %d: %d, %v, %v; want 5", i+1, n, found, err)
		}
	}
}

// asks is a graph that answers a peer that runs the same.
type asks struct {
	t *testing.T
	g *Graph
	v *View[string, string]
	x *Index[string, string, string]
}

func newAsks(t *testing.T, value func(i int) string, rows int) *asks {
	ctx, db := context.Background(), embedlogtest.Open(t, nil)
	top, err := db.EnsureTopic(ctx, "things", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		if _, err := top.Produce(ctx, embedlog.Record{Key: fmt.Appendf(nil, "k%03d", i), Value: []byte(value(i))}); err != nil {
			t.Fatal(err)
		}
	}
	a := &asks{t: t, g: NewGraph(db.DB, "g", &Options{CommitInterval: time.Millisecond})}
	a.v = Add(a.g, "things", TableFrom(top, codec.String, codec.String))
	a.x = AddIndex(a.v, "first", codec.String, func(_, v string) []string { return []string{v[:1]} })
	if err := a.g.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := a.g.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *asks) ask(ctx context.Context, q request) (r reply, size int, err error) {
	q.Graph = a.g.identity()
	b, err := json.Marshal(q)
	if err != nil {
		a.t.Fatal(err)
	}
	answer, err := a.g.answer(ctx, 2, b)
	if err == nil {
		err = json.Unmarshal(answer, &r)
	}
	return r, len(answer), err
}

// A page of large rows is short: a call takes 64 MiB, and nobody wants to hold so much at once.
func TestPagesOfLargeRows(t *testing.T) {
	const rows, size = 30, 200_000
	a := newAsks(t, func(i int) string { return strings.Repeat(string(rune('a'+i%26)), size) }, rows)
	pin, _, err := a.ask(t.Context(), request{Op: opPin})
	if err != nil || pin.Pin == 0 {
		t.Fatal(pin, err)
	}
	n, from := 0, []byte{}
	for more := true; more; {
		r, bytes, err := a.ask(t.Context(), request{Op: opPage, View: "things", Pin: pin.Pin, From: from})
		if err != nil {
			t.Fatal(err)
		}
		if bytes > 4<<20 {
			t.Fatalf("an answer has %d bytes", bytes)
		}
		for _, row := range r.Rows {
			if want := fmt.Sprintf("k%03d", n); string(row.Key) != want || len(row.Value) != size {
				t.Fatalf("row %d is %s, of %d bytes", n, row.Key, len(row.Value))
			}
			n++
		}
		more, from = r.More, r.Next
	}
	if n != rows {
		t.Errorf("%d rows came, want %d", n, rows)
	}
}

// Where a task's rows cannot be read, a peer is not told that there are none.
func TestPeersOfABrokenStore(t *testing.T) {
	a := newAsks(t, func(int) string { return "x" }, 3)
	if r, _, err := a.ask(t.Context(), request{Op: opGet, View: "things", Key: []byte("k001")}); err != nil || !r.Found {
		t.Fatal(r, err)
	}
	task, err := a.g.local(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	task.clock.fail(errors.New("the disk is gone"))
	for _, q := range []request{{Op: opGet, View: "things", Key: []byte("k001")}, {Op: opLen, View: "things"}} {
		if r, _, err := a.ask(t.Context(), q); err == nil && r.Stopped == "" { // the task may have seen it already
			t.Errorf("%s is answered: %+v", q.Op, r)
		}
	}
}

// What peers have pinned is let go when they are gone, when the task ends, and when the graph does.
func TestLeases(t *testing.T) {
	a := newAsks(t, func(int) string { return "x" }, 3)
	task, err := a.g.local(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	pinned := func() (leases, pins int) {
		a.g.pinMu.Lock()
		defer a.g.pinMu.Unlock()
		task.clock.RLock()
		defer task.clock.RUnlock()
		return len(a.g.pins), len(task.clock.pins)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if r, _, err := a.ask(gone, request{Op: opPin}); err == nil && r.Pin != 0 {
		t.Errorf("who has gone got %+v", r)
	}
	if leases, pins := pinned(); leases+pins != 0 {
		t.Errorf("who has gone holds %d leases and %d pins", leases, pins)
	}
	r, _, err := a.ask(t.Context(), request{Op: opPin})
	if err != nil {
		t.Fatal(err)
	}
	if leases, pins := pinned(); leases != 1 || pins != 1 {
		t.Errorf("%d leases and %d pins, want one", leases, pins)
	}
	if _, _, err := a.ask(t.Context(), request{Op: opUnpin, Pin: r.Pin}); err != nil {
		t.Fatal(err)
	}
	if leases, pins := pinned(); leases+pins != 0 {
		t.Errorf("%d leases and %d pins are left", leases, pins)
	}
	if _, _, err := a.ask(t.Context(), request{Op: opPin}); err != nil {
		t.Fatal(err)
	}
	a.g.unpinTask(task) // as when it has moved
	if leases, _ := pinned(); leases != 0 {
		t.Errorf("%d leases of a task that has ended", leases)
	}
	if err := a.g.Close(); err != nil {
		t.Fatal(err)
	}
	if r, _, err := a.ask(t.Context(), request{Op: opPin}); err != nil || !r.Elsewhere {
		t.Errorf("a graph that is closed answers %+v, %v", r, err)
	}
	if leases, _ := pinned(); leases != 0 {
		t.Errorf("%d leases of a graph that is closed", leases)
	}
}

// What peers send is not trusted: it is answered, or refused, and nothing stops.
func TestRequestsOfPeers(t *testing.T) {
	a := newAsks(t, func(int) string { return "x" }, 3)
	other, _ := json.Marshal(request{Op: opGet, View: "things", Key: []byte("k001"), Graph: "g 1 00"})
	if b, err := a.g.answer(t.Context(), 2, other); err != nil || !strings.Contains(string(b), "elsewhere") {
		t.Errorf("a peer with another definition is answered with %s, %v", b, err)
	}
	for _, q := range []request{
		{Op: "nonsense"}, {Op: opGet}, {Op: opGet, View: "no such view"}, {Op: opGet, View: "things", Slot: 1}, {Op: opLen, Slot: -1, View: "things"},
	} {
		if r, _, err := a.ask(t.Context(), q); err == nil {
			t.Errorf("%+v is answered with %+v", q, r)
		}
	}
	for _, q := range []request{{Op: opPage, View: "things"}, {Op: opPage, View: "things", Pin: 17}, {Op: opGet, View: "things", Pin: 17}} {
		if r, _, err := a.ask(t.Context(), q); err != nil || !r.Interrupted {
			t.Errorf("%+v is answered with %+v, %v", q, r, err)
		}
	}
	for _, text := range []string{"", "null", "[]", `{"op":1}`, `{"slot":1e99}`, `{"op":"get"`, "\x00\xff"} {
		if b, err := a.g.answer(t.Context(), 2, []byte(text)); err == nil && !strings.Contains(string(b), "elsewhere") {
			t.Errorf("%q is answered with %s", text, b)
		}
	}
	r := rand.New(rand.NewPCG(rand.Uint64(), 1))
	ops := []string{"", opGet, opCatchUp, opReach, opSettle, opCommitted, opVersion, opLen, opPin, opUnpin, opPage, opIndex, "x"}
	for range testcount.N(2000) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		q := request{
			Op: ops[r.IntN(len(ops))], Slot: r.IntN(4) - 1, View: []string{"", "things"}[r.IntN(2)], Index: []string{"", a.x.title()}[r.IntN(2)], Key: make([]byte, r.IntN(5)), Fresh: r.IntN(2) == 0,
			Pin: r.Uint64N(5), From: make([]byte, r.IntN(3)), To: make([]byte, r.IntN(3)), Topic: []string{"", "things"}[r.IntN(2)], Part: r.Int32N(4) - 1, Offset: r.Int64() - r.Int64(),
		}
		a.ask(ctx, q)
		cancel()
	}
	if v, found, err := a.v.Get(soon(t), "k001"); v != "x" || !found || err != nil {
		t.Errorf("afterwards: %q, %v, %v", v, found, err)
	}
	if err := a.g.Close(); err != nil {
		t.Error(err)
	}
}

// What passes when a node asks others that go is no reason to stop for good; what a function of the program says is.
func TestWhatPasses(t *testing.T) {
	c := openNodes(t, 3)
	for _, err := range []error{context.Canceled, context.DeadlineExceeded, embedlog.ErrClosed, embedlog.ErrFenced, errStale} {
		if !c.graph[0].passes(&task{}, fmt.Errorf("node 2: %w", err)) {
			t.Errorf("the graph stops for %v of a peer", err)
		}
	}
	if own := fmt.Errorf("a function: %w", context.DeadlineExceeded); c.graph[0].passes(&task{failed: own}, own) {
		t.Error("an error of a function is taken for one that passes")
	}
}
