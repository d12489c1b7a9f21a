package query

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

var (
	repSeed = flag.Uint64("repartition.seed", 0, "run one case of TestRepartitionOracle")
	repRuns = flag.Int("repartition.runs", 0, "how many cases TestRepartitionOracle runs; 0 is some")
)

// The oracle of repartitions: random graphs with some, beside an evaluator that looks at all records.

type repRow struct {
	topic, key string
	val        int64
	dead       bool // a tombstone
}

type repRowsExpr struct {
	text  string
	build func(topics map[string]*embedlog.Topic) Rows[string, int64]
	eval  func(log []repRow) []repRow
}

type repTableExpr struct {
	text  string
	build func(topics map[string]*embedlog.Topic) *Table[string, int64]
	eval  func(log []repRow) map[string]int64
}

type repGen struct {
	*rand.Rand
	reps int
}

// through has rows repartitioned, or not.
func (g *repGen) through(r repRowsExpr) repRowsExpr {
	if g.IntN(5) == 0 {
		return r
	}
	g.reps++
	name, n := fmt.Sprint("r", g.reps), g.IntN(4)
	return repRowsExpr{fmt.Sprintf("repartition %d(%s)", n, r.text), func(topics map[string]*embedlog.Topic) Rows[string, int64] {
		switch rows := r.build(topics).(type) {
		case *Stream[string, int64]:
			return rows.Repartition(name, n)
		case *Grouped[string, int64]:
			return rows.Repartition(name, n)
		case *Table[string, int64]:
			return rows.Repartition(name, n)
		}
		panic("rows")
	}, r.eval}
}

func (g *repGen) newKey() (string, func(string, int64) string) {
	n := int64(g.IntN(4) + 2)
	if g.IntN(3) == 0 {
		return "key+key", func(k string, _ int64) string { return k + k }
	}
	return fmt.Sprintf("val%%%d", n), func(_ string, v int64) string { return fmt.Sprint("g", v%n) }
}

func (g *repGen) rows(depth int) repRowsExpr {
	if depth == 0 || g.IntN(2) == 0 {
		name := []string{"a", "b"}[g.IntN(2)]
		s := repRowsExpr{"stream " + name,
			func(topics map[string]*embedlog.Topic) Rows[string, int64] {
				return From(topics[name], codec.String, codec.Int64)
			},
			func(log []repRow) (out []repRow) {
				for _, l := range log {
					if l.topic == name && !l.dead {
						out = append(out, l)
					}
				}
				return out
			}}
		text, f := g.newKey()
		return g.through(repRowsExpr{fmt.Sprintf("rekey(%s, %s)", s.text, text),
			func(topics map[string]*embedlog.Topic) Rows[string, int64] {
				return Rekey(s.build(topics).(*Stream[string, int64]), codec.String, f)
			},
			func(log []repRow) (out []repRow) {
				for _, r := range s.eval(log) {
					out = append(out, repRow{key: f(r.key, r.val), val: r.val})
				}
				return out
			}})
	}
	t := g.table(depth - 1)
	text, f := g.newKey()
	return g.through(repRowsExpr{fmt.Sprintf("group by(%s, %s)", t.text, text),
		func(topics map[string]*embedlog.Topic) Rows[string, int64] {
			return GroupBy(t.build(topics), codec.String, f)
		},
		func(log []repRow) (out []repRow) {
			for k, v := range t.eval(log) {
				out = append(out, repRow{key: f(k, v), val: v})
			}
			return out
		}})
}

func (g *repGen) table(depth int) repTableExpr {
	switch {
	case depth <= 0 || g.IntN(6) == 0:
		name := []string{"a", "b"}[g.IntN(2)]
		r := g.through(repRowsExpr{"table " + name, func(topics map[string]*embedlog.Topic) Rows[string, int64] {
			return TableFrom(topics[name], codec.String, codec.Int64)
		}, nil})
		return repTableExpr{r.text,
			func(topics map[string]*embedlog.Topic) *Table[string, int64] {
				return r.build(topics).(*Table[string, int64])
			},
			func(log []repRow) map[string]int64 {
				out := map[string]int64{}
				for _, l := range log {
					if l.topic == name {
						if delete(out, l.key); !l.dead {
							out[l.key] = l.val
						}
					}
				}
				return out
			}}
	case g.IntN(3) == 0:
		a, b := g.table(depth-1), g.table(depth-1)
		return repTableExpr{fmt.Sprintf("outer join(%s, %s)", a.text, b.text),
			func(topics map[string]*embedlog.Topic) *Table[string, int64] {
				return OuterJoin(a.build(topics), b.build(topics), func(_ string, l, r *int64) int64 { return pairOf(l, r) })
			},
			func(log []repRow) map[string]int64 {
				out, ls, rs := map[string]int64{}, a.eval(log), b.eval(log)
				for k, l := range ls {
					if r, ok := rs[k]; ok {
						out[k] = pairOf(&l, &r)
					} else {
						out[k] = pairOf(&l, nil)
					}
				}
				for k, r := range rs {
					if _, ok := ls[k]; !ok {
						out[k] = pairOf(nil, &r)
					}
				}
				return out
			}}
	}
	in := g.rows(depth)
	kind := g.IntN(3)
	return repTableExpr{fmt.Sprintf("%s(%s)", []string{"count", "sum", "max"}[kind], in.text),
		func(topics map[string]*embedlog.Topic) *Table[string, int64] {
			val := func(_ string, v int64) int64 { return v }
			switch r := in.build(topics); kind {
			case 0:
				return Count(r)
			case 1:
				return Sum(r, val)
			default:
				return Max(r, val)
			}
		},
		func(log []repRow) map[string]int64 {
			groups := map[string][]int64{}
			for _, r := range in.eval(log) {
				groups[r.key] = append(groups[r.key], r.val)
			}
			out := map[string]int64{}
			for k, vals := range groups {
				switch kind {
				case 0:
					out[k] = int64(len(vals))
				case 1:
					for _, v := range vals {
						out[k] += v
					}
				default:
					out[k] = slices.Max(vals)
				}
			}
			return out
		}}
}

func pairOf(l, r *int64) int64 {
	n := int64(7)
	for _, p := range []*int64{l, r} {
		if n *= 31; p != nil {
			n += *p + 100
		}
	}
	return n % 1000
}

func TestRepartitionOracle(t *testing.T) {
	if *repSeed != 0 {
		repartitionCase(t, *repSeed)
		return
	}
	runs := *repRuns
	if runs == 0 {
		runs = testcount.N(60)
	}
	for seed := range uint64(runs) {
		if repartitionCase(t, seed+1); t.Failed() {
			t.Fatalf("case %d failed: go test -run TestRepartitionOracle ./query -repartition.seed %d", seed+1, seed+1)
		}
	}
}

func repartitionCase(t *testing.T, seed uint64) {
	ctx := context.Background()
	g := &repGen{Rand: rand.New(rand.NewPCG(seed, 11))}
	var exprs []repTableExpr
	for range g.IntN(3) + 1 {
		exprs = append(exprs, g.table(g.IntN(3)+1))
	}
	db := embedlogtest.Open(t, &embedlogtest.Options{Seed: seed})
	partitions := map[string]int{"a": g.IntN(3) + 1, "b": g.IntN(3) + 1}
	interval := []time.Duration{time.Millisecond, 10 * time.Millisecond, time.Hour}[g.IntN(3)]
	topics := map[string]*embedlog.Topic{}
	open := func() (graph *Graph, views []*View[string, int64]) {
		for name, n := range partitions {
			var err error
			if topics[name], err = db.EnsureTopic(ctx, name, &embedlog.TopicConfig{Partitions: n}); err != nil {
				t.Fatal(err)
			}
		}
		graph = NewGraph(db.DB, "g", &Options{CommitInterval: interval})
		for i, e := range exprs {
			views = append(views, Add(graph, fmt.Sprint("v", i), e.build(topics)))
		}
		if err := graph.Start(ctx); err != nil {
			t.Fatalf("case %d: %v\n%s", seed, err, graph.Describe())
		}
		return graph, views
	}
	graph, views := open()
	var log []repRow
	check := func() {
		s, err := graph.Snapshot(ctx)
		if err != nil {
			t.Fatalf("case %d: %v", seed, err)
		}
		defer s.Release()
		for i, e := range exprs {
			got, want := map[string]int64{}, e.eval(log)
			for row, err := range views[i].In(s).All() {
				if err != nil {
					t.Fatal(err)
				}
				got[row.Key] = row.Value
			}
			if !maps.Equal(got, want) {
				t.Fatalf("case %d, partitions %v:\n%s\n is %v\nnot %v\n%s", seed, partitions, e.text, got, want, graph.Describe())
			}
			for k, v := range want {
				if got, found, err := views[i].Get(ctx, k); got != v || !found || err != nil {
					t.Fatalf("case %d: get %s is %d, %v, %v; want %d", seed, k, got, found, err, v)
				}
				break
			}
		}
		// The version is where all was read.
		for _, p := range s.Version() {
			ends, err := topics[p.Topic].ListOffsets(ctx, embedlog.LastStable)
			if err != nil {
				t.Fatal(err)
			}
			if p.Offset > ends[p.Partition].Offset {
				t.Fatalf("case %d: version %v, but %s/%d ends at %d", seed, s.Version(), p.Topic, p.Partition, ends[p.Partition].Offset)
			}
		}
	}
	for range g.IntN(10) + 3 {
		switch g.IntN(8) {
		case 0, 1:
			if g.IntN(2) == 0 {
				if err := graph.Close(); err != nil {
					t.Fatal(err)
				}
			} else if g.IntN(2) == 0 {
				db.Crash()
			} else {
				db.Kill()
			}
			graph, views = open()
		case 2:
			check()
		default:
			for range g.IntN(10) + 1 {
				r := repRow{topic: []string{"a", "b"}[g.IntN(2)], key: fmt.Sprint("k", g.IntN(6)), val: int64(g.IntN(21)), dead: g.IntN(6) == 0}
				rec := embedlog.Record{Key: []byte(r.key)}
				if !r.dead {
					rec.Value = mustInt(r.val)
				}
				if _, err := topics[r.topic].Produce(ctx, rec); err != nil {
					t.Fatal(err)
				}
				log = append(log, r)
			}
		}
	}
	check()
	if err := db.DB.Close(); err != nil {
		t.Fatal(err)
	}
}

// repGraph has a view of each record's key, and behind a repartition sums by a field and a sink.
func repGraph(ctx context.Context, db *embedlog.DB, o *Options, set ...func(*Graph)) (orders, out *embedlog.Topic, g *Graph, perKey, perGroup *View[string, int64], err error) {
	if orders, err = db.EnsureTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 2}); err != nil {
		return
	}
	if out, err = db.EnsureTopic(ctx, "out", nil); err != nil {
		return
	}
	g = NewGraph(db, "g", o)
	for _, f := range set {
		f(g)
	}
	s := From(orders, codec.String, codec.Int64)
	perKey = Add(g, "per-key", Sum(s, func(_ string, n int64) int64 { return n }))
	rows := Rekey(s, codec.String, func(_ string, n int64) string { return fmt.Sprint("g", n%7) }).Repartition("by-group", 3)
	perGroup = Add(g, "per-group", Sum(rows, func(_ string, n int64) int64 { return n }))
	To(g, rows, out)
	return orders, out, g, perKey, perGroup, g.Start(ctx)
}

// smallRepartitions has what was read deleted soon, and tasks wait for those behind.
func smallRepartitions(g *Graph) { g.trimRecords, g.repartitionRecords = 20, 100 }

// Snapshots of a graph that is being written to are one cut: the same records everywhere, each wholly.
func TestRepartitionSnapshots(t *testing.T) {
	ctx, db := t.Context(), embedlogtest.Open(t, nil)
	orders, _, g, perKey, perGroup, err := repGraph(ctx, db.DB, &Options{CommitInterval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if got := g.Stats().Tasks; got != 5 {
		t.Errorf("%d tasks, want 2 and 3", got)
	}
	var writer sync.WaitGroup
	stop := make(chan struct{})
	writer.Go(func() {
		for i := int64(0); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := orders.Produce(ctx, embedlog.Record{Key: fmt.Appendf(nil, "k%d", i%5), Value: mustInt(i)}); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(20 * time.Microsecond) // or the views would fall behind more and more
		}
	})
	last := int64(-1)
	for i := 0; i < testcount.N(60) || last <= 0; i++ {
		take := g.Snapshot
		if last%2 == 0 {
			take = g.SnapshotNow
		}
		s, err := take(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var sums [2]int64
		for i, v := range []*View[string, int64]{perKey, perGroup} {
			for row, err := range v.In(s).All() {
				if err != nil {
					t.Fatal(err)
				}
				sums[i] += row.Value
			}
		}
		records := int64(0)
		for _, p := range s.Version() {
			records += p.Offset
		}
		s.Release()
		if sums[0] != sums[1] || sums[0] < last {
			t.Fatalf("version %v: %v; before %d", s.Version(), sums, last)
		}
		last = sums[0]
	}
	close(stop)
	writer.Wait()
}

// Whoever waits for what it wrote gets it from behind a repartition, without waiting for the commit interval.
func TestRepartitionReadYourWrites(t *testing.T) {
	ctx, db := t.Context(), embedlogtest.Open(t, nil)
	orders, _, g, _, perGroup, err := repGraph(ctx, db.DB, &Options{CommitInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	sum := int64(0)
	for i := range int64(20) {
		at, err := orders.Produce(ctx, embedlog.Record{Key: fmt.Appendf(nil, "k%d", i), Value: mustInt(7 * i)})
		if err != nil {
			t.Fatal(err)
		}
		sum += 7 * i
		if i%2 == 0 {
			if got, _, err := perGroup.Get(ctx, "g0"); got != sum || err != nil {
				t.Fatalf("get after %d: %d, %v; want %d", i, got, err, sum)
			}
			continue
		}
		if err := g.Wait(ctx, at...); err != nil {
			t.Fatal(err)
		}
		if got, _, err := perGroup.GetNow(ctx, "g0"); got != sum || err != nil {
			t.Fatalf("after waiting for %d: %d, %v; want %d", i, got, err, sum)
		}
	}
	v, err := g.Version(ctx)
	if err != nil || len(v) != 2 || v[0].Offset+v[1].Offset != 20 {
		t.Errorf("version %v, %v", v, err)
	}
}

// What was read of a repartition is deleted, and the tasks before wait for those behind.
func TestRepartitionStaysSmall(t *testing.T) {
	ctx, db := t.Context(), embedlogtest.Open(t, nil)
	orders, _, g, _, perGroup, err := repGraph(ctx, db.DB, &Options{CommitInterval: time.Millisecond}, smallRepartitions)
	if err != nil {
		t.Fatal(err)
	}
	sum := int64(0)
	for i := range 40 {
		var recs []embedlog.Record
		for range 50 {
			recs = append(recs, embedlog.Record{Key: fmt.Appendf(nil, "k%d", i), Value: mustInt(7)})
			sum += 7
		}
		if _, err := orders.Produce(ctx, recs...); err != nil {
			t.Fatal(err)
		}
	}
	if got, _, err := perGroup.Get(ctx, "g0"); got != sum || err != nil {
		t.Fatalf("%d, %v; want %d", got, err, sum)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if full, err := backlog(ctx, g.between["g-by-group-repartition"]); err != nil || full > 1000 {
		t.Errorf("%d records of 2000 are left, %v", full, err)
	}
	_, _, _, _, perGroup, err = repGraph(ctx, db.DB, nil, smallRepartitions)
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := perGroup.Get(ctx, "g0"); got != sum || err != nil {
		t.Fatalf("after a restart: %d, %v; want %d", got, err, sum)
	}
}

// Records may lie in any partition where they are repartitioned before anything is kept of them.
func TestRepartitionMisplaced(t *testing.T) {
	ctx, db := t.Context(), embedlogtest.Open(t, nil)
	orders, err := db.EnsureTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 3})
	if err != nil {
		t.Fatal(err)
	}
	for p := range int32(3) {
		if _, err := orders.ProduceTo(ctx, p, embedlog.Record{Key: []byte("ann"), Value: mustInt(1)}, embedlog.Record{Value: mustInt(2)}); err != nil {
			t.Fatal(err)
		}
	}
	g := NewGraph(db.DB, "g", nil)
	counts := Add(g, "counts", Count(From(orders, codec.String, codec.Int64).Repartition("again", 0)))
	if err := g.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if got, _, err := counts.Get(ctx, "ann"); got != 3 || err != nil {
		t.Errorf("%d, %v; want 3", got, err)
	}
	if err := g.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	if s := g.Stats(); s.Tasks != 6 || s.NoKey != 3 {
		t.Errorf("%+v; want 6 tasks, 3 rows without a key", s)
	}
}

// Windows behind a repartition are those that one task computes: what is late depends on a record's own partition.
func TestRepartitionWindows(t *testing.T) {
	for seed := range uint64(testcount.N(12)) {
		ctx, r := t.Context(), rand.New(rand.NewPCG(seed, 3))
		db := embedlogtest.Open(t, &embedlogtest.Options{Seed: seed})
		orders, err := db.EnsureTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 3})
		if err != nil {
			t.Fatal(err)
		}
		windows := Tumbling(10 * time.Second).Grace(5 * time.Second).Retain(40 * time.Second)
		var graphs []*Graph
		var views [][]*View[WindowKey[string], int64]
		start := func() {
			graphs, views = nil, nil
			for i, name := range []string{"one", "parted"} {
				g := NewGraph(db.DB, name, &Options{CommitInterval: time.Millisecond})
				rows := GroupBy(From(orders, codec.String, codec.Int64), codec.String, func(_ string, n int64) string { return fmt.Sprint("g", n) })
				if i == 1 {
					rows = rows.Repartition("by-value", 2)
				}
				counts := Count(Windowed(rows, windows))
				views = append(views, []*View[WindowKey[string], int64]{
					Add(g, "counts", counts), Add(g, "final", Final(counts)), Add(g, "sessions", CountSessions(rows, Session(3*time.Second))),
				})
				graphs = append(graphs, g)
				if err := g.Start(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
		start()
		now := [3]int64{1_000_000, 1_000_000, 1_000_000}
		var late [2]int64
		lateNow := func() {
			for i, g := range graphs {
				late[i] += g.Stats().Late
			}
		}
		for round := range 6 {
			for range r.IntN(30) {
				p := r.IntN(3)
				now[p] += int64(r.IntN(4000 * (p + 1)))
				rec := embedlog.Record{Key: []byte("k"), Value: mustInt(int64(r.IntN(3))), Timestamp: time.UnixMilli(now[p] - int64(r.IntN(30_000)))}
				if _, err := orders.ProduceTo(ctx, int32(p), rec); err != nil {
					t.Fatal(err)
				}
			}
			var texts [2]string
			for i, g := range graphs {
				if err := g.CatchUp(ctx); err != nil {
					t.Fatal(err)
				}
				var b strings.Builder
				for j, v := range views[i] {
					for row, err := range v.All(ctx) {
						if err != nil {
							t.Fatal(err)
						}
						fmt.Fprintf(&b, "%d %s %d-%d: %d\n", j, row.Key.Key, row.Key.Start.UnixMilli(), row.Key.End.UnixMilli(), row.Value)
					}
				}
				texts[i] = b.String()
			}
			if texts[0] != texts[1] {
				t.Fatalf("seed %d, round %d: one task has\n%s\nbehind a repartition there is\n%s", seed, round, texts[0], texts[1])
			}
			if round == 3 { // nothing is computed twice: what is late was counted before
				lateNow()
				for _, g := range graphs {
					if err := g.Close(); err != nil {
						t.Fatal(err)
					}
				}
				start()
			}
		}
		if lateNow(); late[0] != late[1] {
			t.Errorf("seed %d: %v rows are late", seed, late)
		}
		for _, g := range graphs {
			g.Close()
		}
	}
}

// The process is killed, or the power fails, at some file operation while a graph with a repartition runs: everything counts once.
func TestRepartitionCrashes(t *testing.T) {
	seed := rand.Uint64()
	for _, power := range []bool{true, false} {
		runs := 1 << 30
		k := func(i int) int { return i }
		if !*crashAll {
			r := rand.New(rand.NewPCG(seed, 5))
			runs, k = testcount.N(20), func(int) int { return r.IntN(1200) }
		}
		done := 0
		for i := range runs {
			through, at := false, k(i)
			synctest.Test(t, func(t *testing.T) { through = repartitionCrash(t, at, power, seed+uint64(i)) })
			if t.Failed() {
				t.Fatalf("seed %d, crash at operation %d, power %v", seed+uint64(i), at, power)
			}
			if done++; through && *crashAll {
				break
			}
		}
		t.Logf("power cut %v: %d crashes", power, done)
	}
}

func repartitionCrash(t *testing.T, k int, power bool, seed uint64) (through bool) {
	ctx := context.Background()
	o := &embedlog.Options{MaintenanceInterval: -1}
	fs := vfs.NewMem(vfs.CrashAt(k))
	next := int64(0)
	use := func(db *embedlog.DB, n int) error {
		orders, _, g, _, _, err := repGraph(ctx, db, &Options{CommitInterval: 5 * time.Millisecond}, func(g *Graph) { g.trimRecords = 4 })
		if err != nil {
			return err
		}
		defer g.Close()
		for range n {
			next++
			if _, err := orders.Produce(ctx, embedlog.Record{Key: fmt.Appendf(nil, "k%d", next%5), Value: mustInt(next)}); err != nil {
				return err
			}
			if next%4 == 0 {
				time.Sleep(7 * time.Millisecond)
			}
		}
		return g.Close()
	}
	db, err := embedlog.OpenFS(fs, o)
	if err == nil {
		use(db, 12)
		db.Close()
		if db, err = embedlog.OpenFS(fs, o); err == nil {
			use(db, 8)
			db.Close()
		}
	}
	through = !fs.Crashed()
	after := fs.AfterKill()
	if power {
		after = fs.AfterCrash(vfs.Random(seed))
	}
	if db, err = embedlog.OpenFS(after, o); err != nil {
		t.Fatalf("open after the crash: %v", err)
	}
	defer db.Close()
	for round := range 2 {
		orders, out, g, perKey, perGroup, err := repGraph(ctx, db, &Options{CommitInterval: 5 * time.Millisecond}, func(g *Graph) { g.trimRecords = 4 })
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for range 3 {
			next++
			if _, err := orders.Produce(ctx, embedlog.Record{Key: fmt.Appendf(nil, "k%d", next%5), Value: mustInt(next)}); err != nil {
				t.Fatal(err)
			}
		}
		got, want := map[string]int64{}, map[string]int64{}
		sent, seen := map[string]int{}, map[string]int{}
		for _, v := range []*View[string, int64]{perKey, perGroup} {
			for row, err := range v.All(ctx) {
				if err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
				got[row.Key] = row.Value
			}
		}
		if err := g.CatchUp(ctx); err != nil {
			t.Fatal(err)
		}
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		for rec, err := range orders.Scan(ctx, nil) {
			if err != nil {
				t.Fatal(err)
			}
			n, err := codec.Int64.Decode(rec.Value)
			if err != nil {
				t.Fatal(err)
			}
			want[string(rec.Key)] += n
			want[fmt.Sprint("g", n%7)] += n
			sent[fmt.Sprint(n)]++
		}
		if !maps.Equal(got, want) {
			t.Errorf("round %d: the views are %v, the records come to %v", round, got, want)
		}
		for rec, err := range out.Scan(ctx, nil) {
			if err != nil {
				t.Fatal(err)
			}
			n, err := codec.Int64.Decode(rec.Value)
			if err != nil {
				t.Fatal(err)
			}
			seen[fmt.Sprint(n)]++
		}
		if !maps.Equal(seen, sent) {
			t.Errorf("round %d: appended %v, want %v", round, seen, sent)
		}
	}
	return through
}

// What lies in a repartition's topic is not trusted.
func TestRepartitionBroken(t *testing.T) {
	for name, value := range map[string][]byte{
		"empty": {}, "kind": {9, 0}, "no task": {kindRow}, "task of nobody": {kindRow, 77, 2, 0, 0}, "short row": {kindRow, 0, 2},
		"row without its key": {kindRow, 0, 2, 0, 0, 1}, "short mark": {kindMark, 0, 1}, "mark with too many positions": {kindMark, 0, 1, 0, 200, 1},
		"mark with a long name": {kindMark, 0, 1, 0, 1, 0xff, 0xff, 0xff, 0xff, 0x0f}, "mark and more": {kindMark, 0, 1, 0, 0, 1},
	} {
		ctx, db := t.Context(), embedlogtest.Open(t, nil)
		_, _, g, _, perGroup, err := repGraph(ctx, db.DB, nil)
		if err != nil {
			t.Fatal(err)
		}
		top, err := db.Topic("g-by-group-repartition")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := top.ProduceTo(ctx, 0, embedlog.Record{Value: value}); err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			if _, err = perGroup.Len(ctx); err != nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if err == nil || !strings.Contains(err.Error(), errRepartition.Error()) {
			t.Errorf("%s: %v", name, err)
		}
		g.Close()
	}
}
