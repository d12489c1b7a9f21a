package query

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
	"github.com/x/embedlog/internal/testcount"
)

// The oracle: random graphs over random logs, compared with an evaluator that computes each view anew from all records and knows nothing of
// changes, weights, batches or restarts.

var (
	oracleSeed = flag.Uint64("oracle.seed", 0, "run one case of TestOracle")
	oracleFrom = flag.Uint64("oracle.from", 1, "the first case of TestOracle")
	oracleRuns = flag.Int("oracle.runs", 0, "how many cases TestOracle runs; 0 is some")
)

// kv is a row of a stream for the evaluator.
type kv struct {
	key  string
	val  int64
	null bool
}

// entry of a log, as it was acknowledged.
type logged struct {
	topic string
	kv
	tombstone bool
}

// world is the topics that a case has.
type world struct{ a, b *embedlog.Topic }

func (w world) topic(name string) *embedlog.Topic {
	if name == "a" {
		return w.a
	}
	return w.b
}

type streamExpr struct {
	text  string
	build func(w world) *Stream[string, int64]
	eval  func(log []logged) []kv
}

type tableExpr struct {
	text  string
	build func(w world) *Table[string, int64]
	eval  func(log []logged) map[string]int64
}

// rowsExpr is what can be aggregated.
type rowsExpr struct {
	text    string
	appends bool
	build   func(w world) Rows[string, int64]
	eval    func(log []logged) []kv
}

// gen makes expressions.
type gen struct {
	*rand.Rand
	size int // of what is made so far
}

func pick[T any](g *gen, list ...T) T { return list[g.IntN(len(list))] }

func (g *gen) source() string { return pick(g, "a", "b") }

// fn is a function of a row whose text says what it is.
type fn[T any] struct {
	text string
	f    func(key string, val int64) T
}

func (g *gen) predicate() fn[bool] {
	n := int64(g.IntN(5) + 2)
	return pick(g,
		fn[bool]{fmt.Sprintf("val%%%d!=0", n), func(_ string, v int64) bool { return v%n != 0 }},
		fn[bool]{fmt.Sprintf("val<%d", n), func(_ string, v int64) bool { return v < n }},
		fn[bool]{"key!=k1", func(k string, _ int64) bool { return k != "k1" }},
	)
}

func (g *gen) number() fn[int64] {
	n := int64(g.IntN(5) + 2)
	return pick(g,
		fn[int64]{fmt.Sprintf("val*%d", n), func(_ string, v int64) int64 { return v * n }},
		fn[int64]{fmt.Sprintf("val%%%d", n), func(_ string, v int64) int64 { return v % n }},
		fn[int64]{"len(key)-val", func(k string, v int64) int64 { return int64(len(k)) - v }},
		fn[int64]{"7", func(string, int64) int64 { return 7 }},
	)
}

func (g *gen) newKey() fn[string] {
	n := int64(g.IntN(3) + 2)
	return pick(g,
		fn[string]{fmt.Sprintf("k(val%%%d)", n), func(_ string, v int64) string { return fmt.Sprint("k", v%n) }},
		fn[string]{"key+key", func(k string, _ int64) string { return k + k }},
		fn[string]{"all", func(string, int64) string { return "all" }},
		fn[string]{"empty", func(string, int64) string { return "" }},
	)
}

func (g *gen) stream(depth int) streamExpr {
	g.size++
	if depth == 0 || g.IntN(4) == 0 {
		name := g.source()
		return streamExpr{"stream " + name,
			func(w world) *Stream[string, int64] { return From(w.topic(name), codec.String, codec.Int64) },
			func(log []logged) (out []kv) {
				for _, l := range log {
					if l.topic == name && !l.tombstone {
						out = append(out, l.kv)
					}
				}
				return out
			}}
	}
	in := g.stream(depth - 1)
	switch g.IntN(5) {
	case 0:
		p := g.predicate()
		return streamExpr{fmt.Sprintf("filter(%s, %s)", in.text, p.text),
			func(w world) *Stream[string, int64] { return in.build(w).Filter(p.f) },
			func(log []logged) (out []kv) {
				for _, r := range in.eval(log) {
					if p.f(r.key, r.val) {
						out = append(out, r)
					}
				}
				return out
			}}
	case 1:
		f := g.number()
		return streamExpr{fmt.Sprintf("map values(%s, %s)", in.text, f.text),
			func(w world) *Stream[string, int64] { return MapValues(in.build(w), f.f) },
			func(log []logged) (out []kv) {
				for _, r := range in.eval(log) {
					out = append(out, kv{r.key, f.f(r.key, r.val), r.null})
				}
				return out
			}}
	case 2:
		k, f := g.newKey(), g.number()
		return streamExpr{fmt.Sprintf("map(%s, %s, %s)", in.text, k.text, f.text),
			func(w world) *Stream[string, int64] {
				return Map(in.build(w), codec.String, func(key string, v int64) (string, int64) { return k.f(key, v), f.f(key, v) })
			},
			func(log []logged) (out []kv) {
				for _, r := range in.eval(log) {
					out = append(out, kv{key: k.f(r.key, r.val), val: f.f(r.key, r.val)})
				}
				return out
			}}
	case 3:
		k, f := g.newKey(), g.number()
		return streamExpr{fmt.Sprintf("flat map(%s, %s, %s)", in.text, k.text, f.text),
			func(w world) *Stream[string, int64] {
				return FlatMap(in.build(w), codec.String, func(key string, v int64, emit func(string, int64)) {
					for i := range ((v % 3) + 3) % 3 {
						emit(k.f(key, v+i), f.f(key, v))
					}
				})
			},
			func(log []logged) (out []kv) {
				for _, r := range in.eval(log) {
					for i := range ((r.val % 3) + 3) % 3 {
						out = append(out, kv{key: k.f(r.key, r.val+i), val: f.f(r.key, r.val)})
					}
				}
				return out
			}}
	}
	other := g.stream(depth - 1)
	return streamExpr{fmt.Sprintf("merge(%s, %s)", in.text, other.text),
		func(w world) *Stream[string, int64] { return in.build(w).Merge(other.build(w)) },
		func(log []logged) []kv { return append(in.eval(log), other.eval(log)...) }}
}

func (g *gen) rows(depth int) rowsExpr {
	if g.IntN(2) == 0 {
		s := g.stream(depth)
		return rowsExpr{s.text, true, func(w world) Rows[string, int64] { return s.build(w) }, s.eval}
	}
	t := g.table(depth)
	k := g.newKey()
	return rowsExpr{fmt.Sprintf("group by(%s, %s)", t.text, k.text), false,
		func(w world) Rows[string, int64] { return GroupBy(t.build(w), codec.String, k.f) },
		func(log []logged) (out []kv) {
			for key, v := range t.eval(log) {
				out = append(out, kv{key: k.f(key, v), val: v})
			}
			return out
		}}
}

// perKey evaluates an aggregate: of the values of each key.
func perKey(in func([]logged) []kv, f func(vals []int64) int64) func([]logged) map[string]int64 {
	return func(log []logged) map[string]int64 {
		groups := map[string][]int64{}
		for _, r := range in(log) {
			if !r.null {
				groups[r.key] = append(groups[r.key], r.val)
			}
		}
		out := map[string]int64{}
		for k, vals := range groups {
			out[k] = f(vals)
		}
		return out
	}
}

func total64(vals []int64) (t int64) {
	for _, v := range vals {
		t += v
	}
	return t
}

// digest makes a number of a list: the order counts.
func digest(vals []int64) int64 {
	h := int64(len(vals))
	for _, v := range vals {
		h = h*31 + v
	}
	return h
}

func (g *gen) aggregate(depth int) tableExpr {
	in := g.rows(depth)
	n := g.IntN(3) + 1
	f := g.number()
	apply := func(vals []int64) []int64 { // f of each, which knows no key
		out := make([]int64, len(vals))
		for i, v := range vals {
			out[i] = f.f("", v)
		}
		return out
	}
	of := func(_ string, v int64) int64 { return f.f("", v) }
	table := func(text string, build func(Rows[string, int64]) *Table[string, int64], eval func([]int64) int64) tableExpr {
		return tableExpr{fmt.Sprintf("%s(%s)", text, in.text), func(w world) *Table[string, int64] { return build(in.build(w)) }, perKey(in.eval, eval)}
	}
	switch g.IntN(8) {
	case 0:
		return table("count", func(r Rows[string, int64]) *Table[string, int64] { return Count(r) }, func(v []int64) int64 { return int64(len(v)) })
	case 1:
		return table("sum "+f.text, func(r Rows[string, int64]) *Table[string, int64] { return Sum(r, of) }, func(v []int64) int64 { return total64(apply(v)) })
	case 2:
		return table("min "+f.text, func(r Rows[string, int64]) *Table[string, int64] { return Min(r, of) }, func(v []int64) int64 { return slices.Min(apply(v)) })
	case 3:
		return table("max "+f.text, func(r Rows[string, int64]) *Table[string, int64] { return Max(r, of) }, func(v []int64) int64 { return slices.Max(apply(v)) })
	case 4:
		return table(fmt.Sprintf("top %d by %s", n, f.text), func(r Rows[string, int64]) *Table[string, int64] {
			return MapTable(TopN(r, n, of), func(_ string, v []int64) int64 { return digest(v) })
		}, func(v []int64) int64 {
			slices.SortFunc(v, func(a, b int64) int {
				return cmp.Or(cmp.Compare(f.f("", b), f.f("", a)), cmp.Compare(uint64(a), uint64(b))) // of equals the smaller encoding
			})
			return digest(v[:min(n, len(v))])
		})
	case 5:
		return table("count distinct "+f.text, func(r Rows[string, int64]) *Table[string, int64] { return CountDistinct(r, codec.Int64, of) }, func(v []int64) int64 {
			v = apply(v)
			slices.Sort(v)
			return int64(len(slices.Compact(v)))
		})
	case 6:
		return table("average "+f.text, func(r Rows[string, int64]) *Table[string, int64] {
			return MapTable(Average(r, of), func(_ string, v float64) int64 { return int64(v * 1000) })
		}, func(v []int64) int64 { return int64(float64(total64(apply(v))) / float64(len(v)) * 1000) })
	}
	return table("fold "+f.text, func(r Rows[string, int64]) *Table[string, int64] {
		remove := func(acc int64, _ string, v int64) int64 { return acc - v*v }
		if in.appends && n == 1 {
			remove = nil
		}
		return Fold(r, codec.Int64, func(acc int64, _ string, v int64) int64 { return acc + v*v }, remove)
	}, func(v []int64) (t int64) {
		for _, v := range v {
			t += v * v
		}
		return t
	})
}

func (g *gen) table(depth int) tableExpr {
	g.size++
	if depth <= 0 || g.IntN(4) == 0 {
		name := g.source()
		return tableExpr{"table " + name,
			func(w world) *Table[string, int64] { return TableFrom(w.topic(name), codec.String, codec.Int64) },
			func(log []logged) map[string]int64 {
				out := map[string]int64{}
				for _, l := range log {
					if l.topic == name && !l.null {
						if delete(out, l.key); !l.tombstone {
							out[l.key] = l.val
						}
					}
				}
				return out
			}}
	}
	switch g.IntN(7) {
	case 0, 1:
		return g.aggregate(depth - 1)
	case 2:
		in, p := g.table(depth-1), g.predicate()
		return tableExpr{fmt.Sprintf("filter(%s, %s)", in.text, p.text),
			func(w world) *Table[string, int64] { return in.build(w).Filter(p.f) },
			func(log []logged) map[string]int64 {
				out := in.eval(log)
				maps.DeleteFunc(out, func(k string, v int64) bool { return !p.f(k, v) })
				return out
			}}
	case 3:
		in, f := g.table(depth-1), g.number()
		return tableExpr{fmt.Sprintf("map table(%s, %s)", in.text, f.text),
			func(w world) *Table[string, int64] { return MapTable(in.build(w), f.f) },
			func(log []logged) map[string]int64 {
				out := in.eval(log)
				for k, v := range out {
					out[k] = f.f(k, v)
				}
				return out
			}}
	case 4:
		a, b, k := g.table(depth-1), g.table(depth-1), g.newKey()
		return tableExpr{fmt.Sprintf("foreign join(%s, %s, %s)", a.text, b.text, k.text),
			func(w world) *Table[string, int64] {
				return ForeignJoin(a.build(w), b.build(w), k.f, func(key string, v, o int64) int64 { return digest([]int64{int64(len(key)), v, o}) % 1000 })
			},
			func(log []logged) map[string]int64 {
				out, other := map[string]int64{}, b.eval(log)
				for key, v := range a.eval(log) {
					if o, ok := other[k.f(key, v)]; ok {
						out[key] = digest([]int64{int64(len(key)), v, o}) % 1000
					}
				}
				return out
			}}
	}
	a, b := g.table(depth-1), g.table(depth-1)
	if g.IntN(4) == 0 {
		b = a // with itself, once by the same description and once by another one of the same kind
	}
	kind := pick(g, inner, left, outer)
	value := func(l, r *int64) int64 {
		d := []int64{0, 0, 0, 0}
		if l != nil {
			d[0], d[1] = 1, *l
		}
		if r != nil {
			d[2], d[3] = 1, *r
		}
		return digest(d) % 1000
	}
	return tableExpr{fmt.Sprintf("%v(%s, %s)", kind, a.text, b.text),
		func(w world) *Table[string, int64] {
			l := a.build(w)
			r := l
			if a.text != b.text || len(a.text)%2 == 0 {
				r = b.build(w)
			}
			return joined(kind, l, r, func(_ string, l, r *int64) int64 { return value(l, r) })
		},
		func(log []logged) map[string]int64 {
			out, ls, rs := map[string]int64{}, a.eval(log), b.eval(log)
			for k, l := range ls {
				if r, ok := rs[k]; ok {
					out[k] = value(&l, &r)
				} else if kind != inner {
					out[k] = value(&l, nil)
				}
			}
			if kind == outer {
				for k, r := range rs {
					if _, ok := ls[k]; !ok {
						out[k] = value(nil, &r)
					}
				}
			}
			return out
		}}
}

func TestOracle(t *testing.T) {
	if *oracleSeed != 0 {
		oracleCase(t, *oracleSeed)
		return
	}
	runs := *oracleRuns
	if runs == 0 {
		runs = testcount.N(150)
	}
	began := time.Now()
	for seed := *oracleFrom; seed < *oracleFrom+uint64(runs); seed++ {
		if oracleCase(t, seed); t.Failed() {
			t.Fatalf("case %d failed: go test -run TestOracle ./query -oracle.seed %d", seed, seed)
		}
	}
	t.Logf("%d cases from %d in %v", runs, *oracleFrom, time.Since(began).Round(time.Second))
}

// oracleCase runs a graph beside the evaluator.
func oracleCase(t *testing.T, seed uint64) {
	ctx := context.Background()
	r := rand.New(rand.NewPCG(seed, 7))
	g := &gen{Rand: r}
	var exprs []tableExpr
	for range r.IntN(3) + 1 {
		exprs = append(exprs, g.table(r.IntN(4)+1))
	}
	db := embedlogtest.Open(t, &embedlogtest.Options{Seed: seed})
	partitions := r.IntN(3) + 1
	stores := new(MemStores)
	interval := pick(g, time.Millisecond, 10*time.Millisecond, time.Hour)
	open := func() (w world, views []*View[string, int64]) {
		var err error
		if w.a, err = db.EnsureTopic(ctx, "a", &embedlog.TopicConfig{Partitions: partitions}); err != nil {
			t.Fatal(err)
		}
		if w.b, err = db.EnsureTopic(ctx, "b", &embedlog.TopicConfig{Partitions: partitions}); err != nil {
			t.Fatal(err)
		}
		o := &Options{CommitInterval: interval, CheckpointInterval: 1}
		if seed%3 == 0 { // on disk, and next to nothing is kept of it in memory
			o.Store, o.CacheBytes = stores, 1
		}
		graph := NewGraph(db.DB, "g", o)
		if seed%2 == 0 {
			graph.checkpointAfter = 1
		}
		for i, e := range exprs {
			views = append(views, Add(graph, fmt.Sprint("v", i), e.build(w)))
		}
		if err := graph.Start(ctx); err != nil {
			t.Fatalf("case %d: %v\n%s", seed, err, graph.Describe())
		}
		return w, views
	}
	w, views := open()
	var log []logged
	check := func() {
		s, err := views[0].Graph().Snapshot(ctx)
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
				var lines []string
				for _, l := range log {
					lines = append(lines, fmt.Sprint(l))
				}
				t.Fatalf("case %d, %d records, %d partitions:\n%s\n is %v\nnot %v\nlog %s", seed, len(log), partitions, e.text, got, want, strings.Join(lines, " "))
			}
		}
	}
	produce := func(n int, abort bool) {
		tx, err := db.Begin(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		var some []logged
		var recs []embedlog.Record
		for range n {
			l := logged{topic: g.source(), kv: kv{key: fmt.Sprint("k", r.IntN(6)), val: int64(r.IntN(21) - 10)}, tombstone: r.IntN(6) == 0}
			if l.null = r.IntN(25) == 0; l.null {
				l.key = ""
			}
			rec := embedlog.Record{Topic: l.topic}
			if !l.null {
				rec.Key = []byte(l.key)
			}
			if !l.tombstone {
				rec.Value, _ = codec.Int64.Append(nil, l.val)
			}
			recs, some = append(recs, rec), append(some, l)
		}
		if _, err := tx.Produce(ctx, recs...); err != nil {
			t.Fatal(err)
		}
		if abort {
			err = tx.Abort(ctx)
		} else {
			err = tx.Commit(ctx)
			log = append(log, some...)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for range r.IntN(12) + 3 {
		switch r.IntN(8) {
		case 0:
			produce(r.IntN(4)+1, true)
		case 1:
			if err := views[0].Close(); err != nil {
				t.Fatal(err)
			}
			w, views = open()
		case 2:
			if r.IntN(2) == 0 {
				db.Crash()
			} else {
				db.Kill()
			}
			stores.Forget(rand.New(rand.NewPCG(seed, uint64(len(log)))))
			w, views = open()
		case 3:
			check()
		default:
			produce(r.IntN(10)+1, false)
		}
	}
	check()
	_ = w
	if err := db.DB.Close(); err != nil {
		t.Fatal(err)
	}
}
