package query

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
	"github.com/x/embedlog/internal/testcount"
)

// fixture is a database with a topic.
type fixture struct {
	*testing.T
	db  *embedlogtest.DB
	top *embedlog.Topic
	ctx context.Context
}

func newFixture(t *testing.T, partitions int) *fixture {
	f := &fixture{T: t, db: embedlogtest.Open(t, nil), ctx: t.Context()}
	f.top = f.topic("t", partitions)
	return f
}

func (f *fixture) topic(name string, partitions int) *embedlog.Topic {
	f.Helper()
	top, err := f.db.EnsureTopic(f.ctx, name, &embedlog.TopicConfig{Partitions: partitions})
	if err != nil {
		f.Fatal(err)
	}
	return top
}

// put produces "key=value", "key" for a tombstone.
func (f *fixture) put(top *embedlog.Topic, rows string) {
	f.Helper()
	for _, row := range strings.Fields(rows) {
		key, value, ok := strings.Cut(row, "=")
		rec := embedlog.Record{Key: []byte(key)}
		if ok {
			rec.Value = []byte(value)
		}
		if _, err := top.Produce(f.ctx, rec); err != nil {
			f.Fatal(err)
		}
	}
}

// records are a topic's, as put takes them.
func (f *fixture) records(name string) string {
	f.Helper()
	top, err := f.db.Topic(name)
	if err != nil {
		f.Fatal(err)
	}
	var list []string
	for rec, err := range top.Scan(f.ctx, nil) {
		if err != nil {
			f.Fatal(err)
		}
		if rec.Value == nil {
			list = append(list, string(rec.Key))
		} else {
			list = append(list, fmt.Sprintf("%s=%s", rec.Key, rec.Value))
		}
	}
	return strings.Join(list, " ")
}

func (f *fixture) stream() *Stream[string, string] { return From(f.top, codec.String, codec.String) }
func (f *fixture) table() *Table[string, string]   { return TableFrom(f.top, codec.String, codec.String) }

func view[K, V any](f *fixture, t *Table[K, V]) *View[K, V] {
	f.Helper()
	v, err := Materialize("v", t)
	if err != nil {
		f.Fatal(err)
	}
	return v
}

// rows are a view's, as text.
func rows[K, V any](f *fixture, v *View[K, V]) string {
	f.Helper()
	var list []string
	for row, err := range v.All(f.ctx) {
		if err != nil {
			f.Fatal(err)
		}
		list = append(list, fmt.Sprintf("%v=%v", row.Key, row.Value))
	}
	return strings.Join(list, " ")
}

func (f *fixture) want(what, got, want string) {
	f.Helper()
	if got != want {
		f.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestDeadLetters(t *testing.T) {
	f := newFixture(t, 1)
	v := view(f, Count(From(f.top, codec.String, codec.JSON[int]{})))
	f.put(f.top, "a=1 a=x b=2 a=3")
	f.want("rows", rows(f, v), "a=2 b=1")
	if s := v.Graph().Stats(); s.DeadLetters != 1 {
		t.Errorf("%+v", s)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	f.want("dead letters", f.records("v-dead-letter"), "a=x")
	top, _ := f.db.Topic("v-dead-letter")
	for rec, err := range top.Scan(f.ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{HeaderTopic: "t", HeaderPartition: "0", HeaderOffset: "1", HeaderReason: "decode the value"} {
			if got, _ := rec.Header(name); !strings.HasPrefix(string(got), want) {
				t.Errorf("header %s: %q, want %q", name, got, want)
			}
		}
	}
	// It is not a dead letter again.
	v = view(f, Count(From(f.top, codec.String, codec.JSON[int]{})))
	f.want("rows of the next life", rows(f, v), "a=2 b=1")
	if s := v.Graph().Stats(); s.DeadLetters != 0 {
		t.Errorf("in the next life: %+v", s)
	}
}

// A sink's records are those of the stream, in order, with times and keys, once.
func TestSink(t *testing.T) {
	f := newFixture(t, 2)
	out := f.topic("out", 1)
	start := func() *Graph {
		g := NewGraph(f.db.DB, "g", nil)
		To(g, MapValues(f.stream(), func(_, v string) string { return v + v }), out)
		if err := g.Start(f.ctx); err != nil {
			t.Fatal(err)
		}
		return g
	}
	for i, add := range []string{"a=1 b=2 a=3", "", "c=4"} {
		g := start()
		f.put(f.top, add)
		if err := g.CatchUp(f.ctx); err != nil {
			t.Fatal(err)
		}
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			f.db.Kill()
			f.top, out = f.topic("t", 2), f.topic("out", 1)
		}
	}
	got := map[string]int{}
	for _, r := range strings.Fields(f.records("out")) {
		got[r]++
	}
	if want := map[string]int{"a=11": 1, "a=33": 1, "b=22": 1, "c=44": 1}; !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestWrongGraphs(t *testing.T) {
	f := newFixture(t, 1)
	other := embedlogtest.Open(t, nil)
	foreign, err := other.EnsureTopic(t.Context(), "t", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, says string
		is         error
		build      func(g *Graph)
	}{
		{"nothing", "neither views nor sinks", nil, func(*Graph) {}},
		{"a fold of a table", "cannot take rows back", ErrNotReversible, func(g *Graph) {
			Add(g, "v", Fold(GroupBy(f.table(), codec.String, func(k, _ string) string { return k }), codec.Int64, func(n int64, _, _ string) int64 { return n }, nil))
		}},
		{"two views of a name", "two views are named v", nil, func(g *Graph) { Add(g, "v", f.table()); Add(g, "v", f.table()) }},
		{"keys of two codecs", "codecs", nil, func(g *Graph) {
			Add(g, "v", Join(f.table(), TableFrom(f.top, codec.JSON[string]{}, codec.String), func(_, a, b string) string { return a + b }))
		}},
		{"two databases", "another database", nil, func(g *Graph) {
			Add(g, "v", f.table())
			Add(g, "w", TableFrom(foreign, codec.String, codec.String))
		}},
		{"top 0", "n is 0", nil, func(g *Graph) { Add(g, "v", TopN(f.stream(), 0, func(_, v string) string { return v })) }},
		{"a topic's name", "only letters", nil, func(g *Graph) { Add(g, "no name", f.table()) }},
	} {
		g := NewGraph(f.db.DB, "wrong", nil)
		c.build(g)
		err := g.Start(f.ctx)
		if err == nil || !strings.Contains(err.Error(), c.says) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
		if err := g.Close(); !errors.Is(err, ErrNotStarted) {
			t.Errorf("%s: closed: %v", c.name, err)
		}
	}
}

func TestStartedWithAnotherDefinition(t *testing.T) {
	f := newFixture(t, 1)
	v := view(f, Count(f.stream()))
	f.put(f.top, "a=1")
	f.want("rows", rows(f, v), "a=1")
	if _, err := Materialize("v", Count(f.stream())); !errors.Is(err, ErrRunning) {
		t.Errorf("a second one: %v", err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Materialize("v", Count(f.stream().Filter(func(_, v string) bool { return v != "" }))); !errors.Is(err, ErrDefinition) || !strings.Contains(err.Error(), "filter") {
		t.Errorf("another definition: %v", err)
	}
	// The same name and another topic of the same name.
	if err := f.db.DeleteTopic(f.ctx, "t"); err != nil {
		t.Fatal(err)
	}
	f.top = f.topic("t", 1)
	v = view(f, Count(f.stream()))
	if _, _, err := v.Get(f.ctx, "a"); !errors.Is(err, ErrDefinition) || !strings.Contains(err.Error(), "another topic t") {
		t.Errorf("another topic: %v", err)
	}
}

func TestPanicsStopTheGraph(t *testing.T) {
	f := newFixture(t, 1)
	boom := errors.New("boom")
	v := view(f, Count(f.stream().Filter(func(_, v string) bool {
		if v == "x" {
			panic(boom)
		}
		return true
	})))
	f.put(f.top, "a=1")
	f.want("rows", rows(f, v), "a=1")
	f.put(f.top, "a=2 a=x")
	_, _, err := v.Get(f.ctx, "a")
	var stopped *StoppedError
	var panicked *PanicError
	if !errors.As(err, &stopped) || !errors.As(err, &panicked) || !errors.Is(err, boom) || len(panicked.Stack) == 0 {
		t.Errorf("%v", err)
	}
	for _, err := range v.Watch(f.ctx) {
		if !errors.As(err, &panicked) {
			t.Errorf("watch: %v", err)
		}
	}
}

func TestMisplacedKeys(t *testing.T) {
	f := newFixture(t, 2)
	wrong := 1 - embedlog.KeyPartition([]byte("a"), 2)
	if _, err := f.top.ProduceTo(f.ctx, wrong, embedlog.Record{Key: []byte("a"), Value: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	f.put(f.top, "a=2")
	v := view(f, Count(f.stream()))
	var misplaced *MisplacedKeyError
	if err := v.Graph().CatchUp(f.ctx); !errors.As(err, &misplaced) || misplaced.Position.Partition != wrong {
		t.Errorf("%v", err)
	}
	v.Close()
	g := NewGraph(f.db.DB, "one", &Options{OneTask: true})
	v = Add(g, "v", Count(f.stream()))
	if err := g.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.want("rows", rows(f, v), "a=2")
}

// Records that were deleted before they were read are no view without them.
func TestGap(t *testing.T) {
	f := newFixture(t, 1)
	v := view(f, Count(f.stream()))
	f.put(f.top, "a=1 a=2")
	f.want("rows", rows(f, v), "a=2")
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	f.put(f.top, "a=3 a=4 a=5")
	if _, err := f.top.DeleteRecords(f.ctx, 0, 4); err != nil {
		t.Fatal(err)
	}
	v = view(f, Count(f.stream()))
	var gap *GapError
	if _, _, err := v.Get(f.ctx, "a"); !errors.As(err, &gap) || !errors.Is(err, ErrGap) || gap.Reset.From != 2 || gap.Reset.To != 4 {
		t.Errorf("%v", err)
	}
	// What is deleted before the view is first started is not missed.
	w, err := Materialize("w", Count(f.stream()))
	if err != nil {
		t.Fatal(err)
	}
	f.want("rows of a new one", rows(f, w), "a=1")
}

func TestClosed(t *testing.T) {
	f := newFixture(t, 1)
	g := NewGraph(f.db.DB, "g", nil)
	v := Add(g, "v", f.table())
	if _, _, err := v.GetNow(f.ctx, "a"); !errors.Is(err, ErrNotStarted) {
		t.Errorf("before Start: %v", err)
	}
	if err := g.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.Start(f.ctx); !errors.Is(err, ErrRunning) {
		t.Errorf("started twice: %v", err)
	}
	f.put(f.top, "a=1")
	f.want("rows", rows(f, v), "a=1")
	waiting := make(chan error, 1)
	go func() {
		waiting <- g.Wait(f.ctx, embedlog.Position{Topic: "t", Offset: 100})
	}()
	time.Sleep(time.Millisecond)
	if err := f.db.DB.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; !errors.Is(err, ErrClosed) {
		t.Errorf("who waited: %v", err)
	}
	if _, _, err := v.Get(f.ctx, "a"); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := g.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	short, cancel := context.WithCancel(f.ctx)
	cancel()
	if _, _, err := v.Get(short, "a"); err == nil {
		t.Error("an ended context")
	}
}

// A stream's row has the table's row of its time: joined one by one, they are what a loop would have.
func TestJoinTableIsInOrder(t *testing.T) {
	f := newFixture(t, 1)
	// Both are of one topic: the table has what the very record has put there.
	j := JoinTable(f.stream(), Count(f.stream()), func(_, v string, n int64) string { return fmt.Sprint(v, n) })
	left := LeftJoinTable(f.stream(), TableFrom(f.top, codec.String, codec.String).Filter(func(_, v string) bool { return v != "2" }), func(_, v string, w *string) string {
		if w == nil {
			return v + "-"
		}
		return v + *w
	})
	f.put(f.top, "a=1 a=2 b=2 a=3") // before it is started: in one batch or more
	g := NewGraph(f.db.DB, "g", nil)
	To(g, j, f.topic("joined", 1))
	To(g, left, f.topic("left", 1))
	if err := g.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.CatchUp(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.put(f.top, "b=9")
	if err := g.CatchUp(f.ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	f.want("joined", f.records("joined"), "a=11 a=22 b=21 a=33 b=92")
	f.want("left", f.records("left"), "a=11 a=2- b=2- a=33 b=99")
}

// Watch gives the rows of before, then those that change, the last value of each, and says when a version is complete.
func TestWatch(t *testing.T) {
	f := newFixture(t, 3)
	v := view(f, f.table())
	f.put(f.top, "a=1 b=1 c=1 b")
	if err := v.Graph().CatchUp(f.ctx); err != nil {
		t.Fatal(err)
	}
	steps := []string{"a=2 d=1", "c", "a=3 a=4 a=5"}
	seen, want := map[string]string{}, map[string]string{"a": "1", "c": "1"}
	step := 0
	wait := []embedlog.Position{}
	for c, err := range v.Watch(f.ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if c.Version == nil {
			if seen[c.Key] = c.Value; c.Deleted {
				delete(seen, c.Key)
			}
			continue
		}
		for _, p := range wait {
			for _, at := range c.Version {
				if at.Topic == p.Topic && at.Partition == p.Partition && at.Offset < p.Offset {
					goto notYet
				}
			}
		}
		if !maps.Equal(seen, want) {
			t.Errorf("step %d: %v, want %v, at %v", step, seen, want, c.Version)
		}
		if step == len(steps) {
			break
		}
		f.put(f.top, steps[step])
		for _, row := range strings.Fields(steps[step]) {
			key, value, ok := strings.Cut(row, "=")
			if want[key] = value; !ok {
				delete(want, key)
			}
		}
		wait, err = f.top.ListOffsets(f.ctx, embedlog.LastStable)
		if err != nil {
			t.Fatal(err)
		}
		step++
	notYet:
	}
}

// Views of a graph are seen at one version, whatever happens meanwhile, and ranges are what they say.
func TestSnapshot(t *testing.T) {
	f := newFixture(t, 3)
	g := NewGraph(f.db.DB, "g", nil)
	all := Add(g, "all", f.table())
	count := Add(g, "count", Count(GroupBy(f.table(), codec.String, func(_, v string) string { return "all" })))
	if err := g.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.put(f.top, "a=1 b=1 ba=1 bb=1 c=1")
	s, err := g.Snapshot(f.ctx)
	if err != nil {
		t.Fatal(err)
	}
	f.put(f.top, "a b=2 d=1 e=1")
	f.want("rows now", rows(f, all), "b=2 ba=1 bb=1 c=1 d=1 e=1")
	collect := func(seq func(func(Row[string, string], error) bool)) string {
		var list []string
		for row, err := range seq {
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, row.Key+"="+row.Value)
		}
		return strings.Join(list, " ")
	}
	for range 2 {
		f.want("rows then", collect(all.In(s).All()), "a=1 b=1 ba=1 bb=1 c=1")
	}
	f.want("range", collect(all.In(s).Range("b", "c")), "b=1 ba=1 bb=1")
	f.want("prefix", collect(all.In(s).Prefix([]byte("b"))), "b=1 ba=1 bb=1")
	f.want("range now", collect(all.Range(f.ctx, "bb", "e")), "bb=1 c=1 d=1")
	f.want("prefix now", collect(all.Prefix(f.ctx, []byte("b"))), "b=2 ba=1 bb=1")
	if n, found, err := count.In(s).Get("all"); n != 5 || !found || err != nil {
		t.Errorf("count then: %d, %v, %v", n, found, err)
	}
	if v, found, err := all.In(s).Get("a"); v != "1" || !found || err != nil {
		t.Errorf("a then: %q, %v, %v", v, found, err)
	}
	if n, err := all.Len(f.ctx); n != 6 || err != nil {
		t.Errorf("%d rows, %v", n, err)
	}
	s.Release()
	s.Release()
}

// What was added and deleted leaves nothing in any store.
func TestDeletedRowsLeaveNothing(t *testing.T) {
	f := newFixture(t, 1)
	b := f.topic("b", 1)
	g := NewGraph(f.db.DB, "g", &Options{CommitInterval: time.Millisecond})
	grouped := GroupBy(f.table(), codec.String, func(_, v string) string { return v })
	Add(g, "v1", Join(f.table(), TableFrom(b, codec.String, codec.String), func(_, a, b string) string { return a + b }))
	Add(g, "v2", TopN(grouped, 2, func(k, _ string) string { return k }))
	Add(g, "v3", Sum(grouped, func(string, string) float64 { return 0.1 }))
	Add(g, "v4", ForeignJoin(f.table(), TableFrom(b, codec.String, codec.String), func(_, v string) string { return v }, func(_, a, b string) string { return a + b }))
	if err := g.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.put(f.top, "a=x b=y c=x d=z a=z")
	f.put(b, "x=1 y=2 a=3")
	f.put(f.top, "a b c d")
	f.put(b, "x y a")
	if err := g.CatchUp(f.ctx); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		left := 0
		tasks, err := g.all(f.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			task.clock.RLock()
			for _, s := range task.stores {
				left += s.entries()
			}
			task.clock.RUnlock()
		}
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d rows are left", left)
		}
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSums(t *testing.T) {
	add := func(xs ...float64) (s sum) {
		for _, x := range xs {
			s = plus(s, x, false)
		}
		return s
	}
	inf := math.Inf(1)
	for _, c := range []struct {
		name string
		s    sum
		want float64
	}{
		{"nothing", sum{}, 0},
		{"large and small", add(1e100, 1, -1e100), 1},
		{"tenths", add(0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1), 1},
		{"overflow on the way", add(math.MaxFloat64, math.MaxFloat64, -math.MaxFloat64), math.MaxFloat64},
		{"overflow", add(math.MaxFloat64, math.MaxFloat64), inf},
		{"taken out again", plus(add(1e300, 3), 1e300, true), 3},
		{"infinity taken out again", plus(add(inf, 3), inf, true), 3},
		{"infinities", add(inf, -inf), math.NaN()},
		{"not a number taken out again", plus(add(math.NaN(), 3), math.NaN(), true), 3},
		{"smallest", add(math.SmallestNonzeroFloat64, 1, -1), math.SmallestNonzeroFloat64},
	} {
		b, err := sumCodec{}.Append(nil, c.s)
		if err != nil {
			t.Fatal(err)
		}
		again, err := sumCodec{}.Decode(b)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		for _, s := range []sum{c.s, again} {
			if got, err := total[float64](s); got != c.want && !(math.IsNaN(got) && math.IsNaN(c.want)) || err != nil {
				t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.want)
			}
		}
	}
	whole := plus(plus(sum{}, int64(math.MaxInt64), false), int64(1), false)
	if _, err := total[int64](whole); !errors.Is(err, ErrOverflow) {
		t.Errorf("overflow: %v", err)
	}
	if n, err := total[int64](plus(whole, int64(5), true)); n != math.MaxInt64-4 || err != nil {
		t.Errorf("below again: %d, %v", n, err)
	}
	if n, err := total[uint8](plus(plus(sum{}, uint8(250), false), uint8(7), false)); !errors.Is(err, ErrOverflow) {
		t.Errorf("of bytes: %d, %v", n, err)
	}
	if n, err := total[uint64](plus(sum{}, uint64(math.MaxUint64), false)); n != math.MaxUint64 || err != nil {
		t.Errorf("largest: %d, %v", n, err)
	}
	if n, err := total[int8](plus(plus(sum{}, int8(-100), false), int8(-28), false)); n != -128 || err != nil {
		t.Errorf("least: %d, %v", n, err)
	}
}

// An overflow stops the graph with its reason.
func TestOverflow(t *testing.T) {
	f := newFixture(t, 1)
	v := view(f, Sum(f.stream(), func(_, v string) int64 { return math.MaxInt64 - 1 }))
	f.put(f.top, "a=1")
	f.want("rows", rows(f, v), fmt.Sprintf("a=%d", int64(math.MaxInt64-1)))
	f.put(f.top, "a=1")
	if _, _, err := v.Get(f.ctx, "a"); !errors.Is(err, ErrOverflow) {
		t.Errorf("%v", err)
	}
}

// One key in two encodings is one row.
func TestKeysAreEncodedOnce(t *testing.T) {
	type key struct{ A, B int }
	f := newFixture(t, 1)
	v := view(f, Count(From(f.top, codec.JSON[key]{}, codec.String)))
	f.put(f.top, `{"A":1,"B":2}=x {"B":2,"A":1}=x {"A":1}=x`)
	if n, found, err := v.Get(f.ctx, key{1, 2}); n != 2 || !found || err != nil {
		t.Errorf("%d, %v, %v", n, found, err)
	}
	if n, err := v.Len(f.ctx); n != 2 || err != nil {
		t.Errorf("%d rows, %v", n, err)
	}
}

// The changelog is the table, for whoever reads it.
func TestChangelogIsTheTable(t *testing.T) {
	f := newFixture(t, 1)
	v := view(f, Count(f.stream()))
	f.put(f.top, "a=1 b=1 a=1")
	if err := v.Graph().CatchUp(f.ctx); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	top, err := f.db.Topic("v-changelog")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for rec, err := range embedlog.Typed(top, codec.String, codec.Int64).Scan(f.ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
		got[rec.Key] = rec.Value
	}
	if want := map[string]int64{"a": 2, "b": 1}; !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestDescribe(t *testing.T) {
	f := newFixture(t, 1)
	g := NewGraph(f.db.DB, "g", nil)
	s := f.stream().Filter(func(_, _ string) bool { return true })
	Add(g, "n", Count(s))
	To(g, s, f.topic("out", 1))
	f.want("words", g.Describe(), "1 stream t\n2 filter <- 1\n3 count <- 2\nview n <- 3\nsink out <- 2\n")
	for _, line := range []string{`n1[("stream t")]`, "n1 --> n2", `n4[/"sink out"/]`, `v1(["n"])`, "n3 --> v1"} {
		if !strings.Contains(g.Mermaid(), line) {
			t.Errorf("%s\nhas no %s", g.Mermaid(), line)
		}
	}
}

// Close waits for the commit that is under way, and makes another one for the rest.
func TestCloseCommitsAll(t *testing.T) {
	f := newFixture(t, 1)
	out := f.topic("out", 1)
	for i := range testcount.N(60) {
		g := NewGraph(f.db.DB, "g", &Options{CommitInterval: time.Microsecond})
		To(g, f.stream(), out)
		if err := g.Start(f.ctx); err != nil {
			t.Fatal(err)
		}
		f.put(f.top, "a=1 a=2")
		if err := g.CatchUp(f.ctx); err != nil {
			t.Fatal(err)
		}
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		if n := len(strings.Fields(f.records("out"))); n != 2*(i+1) {
			t.Fatalf("%d records were appended in %d lives, want %d", n, i+1, 2*(i+1))
		}
	}
}

// What is added too late, or read from another graph's snapshot, is an error and no panic.
func TestWrongOrder(t *testing.T) {
	f := newFixture(t, 1)
	v := view(f, f.table())
	f.put(f.top, "a=1")
	s, err := v.Graph().Snapshot(f.ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	other, err := Materialize("other", f.table())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := other.In(s).Get("a"); !errors.Is(err, ErrOtherGraph) {
		t.Errorf("of another graph: %v", err)
	}
	for _, err := range other.In(s).All() {
		if !errors.Is(err, ErrOtherGraph) {
			t.Errorf("of another graph: %v", err)
		}
	}
	late := Add(v.Graph(), "late", Count(f.stream()))
	if _, _, err := late.Get(f.ctx, "a"); !errors.Is(err, ErrStarted) || !strings.Contains(err.Error(), "view late") {
		t.Errorf("added late: %v", err)
	}
	if _, _, err := late.In(s).Get("a"); !errors.Is(err, ErrStarted) {
		t.Errorf("added late, in a snapshot: %v", err)
	}
}
