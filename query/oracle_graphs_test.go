package query

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
)

// Random graphs. Each expression says what it is three times: as a description of this package, as a function that computes it anew from all
// records, and as a SELECT with the columns k and v. The latter two know nothing of changes, weights, batches, tasks or restarts.

// kv is a row of a stream for the evaluator.
type kv struct {
	key  string
	val  int64
	null bool
}

// logged is a record of a log, as it was acknowledged. The SELECTs find it in the table log(seq, topic, k, v).
type logged struct {
	topic string
	kv
	tombstone bool
	partition int32
	ms        int64
}

// world is the topics that a case has: a and b have its records, loop what the graph appends to it itself, global is constant.
type world struct {
	topics map[string]*embedlog.Topic
	named  int // what has a name of its own in a graph
}

func (w *world) topic(name string) *embedlog.Topic { return w.topics[name] }

func (w *world) name(kind string) string {
	w.named++
	return fmt.Sprint(kind, w.named)
}

type streamExpr struct {
	text  string
	build func(w *world) *Stream[string, int64]
	eval  func(log []logged) []kv
	sql   string
}

type tableExpr struct {
	text  string
	build func(w *world) *Table[string, int64]
	eval  func(log []logged) map[string]int64
	sql   string
}

// rowsExpr is what can be aggregated.
type rowsExpr struct {
	text    string
	appends bool
	build   func(w *world) Rows[string, int64]
	eval    func(log []logged) []kv
	sql     string
}

// gen makes expressions.
type gen struct {
	*rand.Rand
	streams bool // there is one: not all rows go when the keys are deleted
	sources []string
	parts   int
	reps    int  // repartitions that may come yet
	timers  bool // one task reads all that timers go by
	global  bool // there is a global table
	naive   bool // there is no SELECT
}

func pick[T any](g *gen, list ...T) T { return list[g.IntN(len(list))] }

func (g *gen) source() string { return pick(g, g.sources...) }

// fn is a function of a row; its text says what it is, and is SQL of the columns k and v.
type fn[T any] struct {
	text string
	f    func(key string, val int64) T
}

// A stream's row without a key has the empty one for functions.
const sqlKey = "coalesce(k,'')"

func (g *gen) predicate() fn[bool] {
	n := int64(g.IntN(5) + 2)
	return pick(g,
		fn[bool]{fmt.Sprintf("v%%%d<>0", n), func(_ string, v int64) bool { return v%n != 0 }},
		fn[bool]{fmt.Sprintf("v<%d", n), func(_ string, v int64) bool { return v < n }},
		fn[bool]{sqlKey + "<>'k1'", func(k string, _ int64) bool { return k != "k1" }},
	)
}

func (g *gen) number() fn[int64] {
	n := int64(g.IntN(5) + 2)
	return pick(g,
		fn[int64]{fmt.Sprintf("v*%d", n), func(_ string, v int64) int64 { return v * n }},
		fn[int64]{fmt.Sprintf("v%%%d", n), func(_ string, v int64) int64 { return v % n }},
		fn[int64]{"length(" + sqlKey + ")-v", func(k string, v int64) int64 { return int64(len(k)) - v }},
		fn[int64]{"7", func(string, int64) int64 { return 7 }},
	)
}

// ofValue is a number of the value alone, not so large that graphs of several sums had no room.
func (g *gen) ofValue() fn[int64] {
	n := int64(g.IntN(5) + 2)
	return pick(g,
		fn[int64]{fmt.Sprintf("v*%d%%1000000", n), func(_ string, v int64) int64 { return v * n % 1000000 }},
		fn[int64]{fmt.Sprintf("v%%%d", n), func(_ string, v int64) int64 { return v % n }},
		fn[int64]{"-(v%1000000)", func(_ string, v int64) int64 { return -(v % 1000000) }},
		fn[int64]{"7", func(string, int64) int64 { return 7 }},
	)
}

func (g *gen) newKey() fn[string] {
	n := int64(g.IntN(3) + 2)
	return pick(g,
		fn[string]{fmt.Sprintf("'k'||(v%%%d)", n), func(_ string, v int64) string { return fmt.Sprint("k", v%n) }},
		fn[string]{sqlKey + "||" + sqlKey, func(k string, _ int64) string { return k + k }},
		fn[string]{"'all'", func(string, int64) string { return "all" }},
		fn[string]{"''", func(string, int64) string { return "" }},
	)
}

func (g *gen) sourceStream() streamExpr {
	name := g.source()
	g.streams = true
	return streamExpr{"stream " + name,
		func(w *world) *Stream[string, int64] { return From(w.topic(name), codec.String, codec.Int64) },
		func(log []logged) (out []kv) {
			for _, l := range log {
				if l.topic == name && !l.tombstone {
					out = append(out, l.kv)
				}
			}
			return out
		},
		fmt.Sprintf("SELECT k,v FROM log WHERE topic='%s' AND v IS NOT NULL", name),
	}
}

func (g *gen) stream(depth int) streamExpr {
	s := g.newStream(depth)
	if n, ok := g.repartition(); ok {
		return s.through(n)
	}
	return s
}

func (g *gen) newStream(depth int) streamExpr {
	if depth <= 0 || g.IntN(4) == 0 {
		return g.sourceStream()
	}
	switch g.IntN(16) {
	case 0:
		return filterStream(g.stream(depth-1), g.predicate())
	case 1:
		return mapStream(g.stream(depth-1), g.number())
	case 2:
		in, k, f := g.stream(depth-1), g.newKey(), g.number()
		return streamExpr{fmt.Sprintf("map(%s, %s, %s)", in.text, k.text, f.text),
			func(w *world) *Stream[string, int64] {
				return Map(in.build(w), codec.String, func(key string, v int64) (string, int64) { return k.f(key, v), f.f(key, v) })
			},
			func(log []logged) (out []kv) {
				for _, r := range in.eval(log) {
					out = append(out, kv{key: k.f(r.key, r.val), val: f.f(r.key, r.val)})
				}
				return out
			},
			fmt.Sprintf("SELECT %s AS k,%s AS v FROM (%s)", k.text, f.text, in.sql)}
	case 3:
		return g.flatMap(g.stream(depth - 1))
	case 4:
		in := g.stream(depth - 1)
		return streamExpr{fmt.Sprintf("flat map values(%s)", in.text),
			func(w *world) *Stream[string, int64] {
				return FlatMapValues(in.build(w), func(_ string, v int64) []int64 { return []int64{v, v % 3}[:((v%3)+3)%3] })
			},
			func(log []logged) (out []kv) {
				for _, r := range in.eval(log) {
					for i := range ((r.val % 3) + 3) % 3 {
						out = append(out, kv{r.key, []int64{r.val, r.val % 3}[i], r.null})
					}
				}
				return out
			},
			fmt.Sprintf("SELECT k,CASE i WHEN 0 THEN v ELSE v%%3 END AS v FROM (%s) JOIN (SELECT 0 AS i UNION ALL SELECT 1) ON i<((v%%3)+3)%%3", in.sql)}
	case 5:
		in, k := g.stream(depth-1), g.newKey()
		return streamExpr{fmt.Sprintf("rekey(%s, %s)", in.text, k.text),
			func(w *world) *Stream[string, int64] { return Rekey(in.build(w), codec.String, k.f) },
			func(log []logged) (out []kv) {
				for _, r := range in.eval(log) {
					out = append(out, kv{key: k.f(r.key, r.val), val: r.val})
				}
				return out
			},
			fmt.Sprintf("SELECT %s AS k,v FROM (%s)", k.text, in.sql)}
	case 6:
		return g.branch(g.stream(depth - 1))
	case 7:
		return g.changesOfTable()
	case 8:
		return changesOfCount(g.stream(depth - 1))
	case 9:
		return g.enriched()
	case 10:
		return g.counting(g.stream(depth - 1)).rows
	case 11:
		return g.folding().rows
	case 12:
		if g.timers {
			return g.timed()
		}
	case 13:
		if g.global {
			return g.joinedGlobal(g.stream(depth - 1))
		}
	}
	a, b := g.stream(depth-1), g.stream(depth-1)
	return streamExpr{fmt.Sprintf("merge(%s, %s)", a.text, b.text),
		func(w *world) *Stream[string, int64] { return a.build(w).Merge(b.build(w)) },
		func(log []logged) []kv { return append(a.eval(log), b.eval(log)...) },
		fmt.Sprintf("SELECT k,v FROM (%s) UNION ALL SELECT k,v FROM (%s)", a.sql, b.sql)}
}

func filterStream(in streamExpr, p fn[bool]) streamExpr {
	return streamExpr{fmt.Sprintf("filter(%s, %s)", in.text, p.text),
		func(w *world) *Stream[string, int64] { return in.build(w).Filter(p.f) },
		func(log []logged) (out []kv) {
			for _, r := range in.eval(log) {
				if p.f(r.key, r.val) {
					out = append(out, r)
				}
			}
			return out
		},
		fmt.Sprintf("SELECT k,v FROM (%s) WHERE %s", in.sql, p.text)}
}

func mapStream(in streamExpr, f fn[int64]) streamExpr {
	return streamExpr{fmt.Sprintf("map values(%s, %s)", in.text, f.text),
		func(w *world) *Stream[string, int64] { return MapValues(in.build(w), f.f) },
		func(log []logged) (out []kv) {
			for _, r := range in.eval(log) {
				out = append(out, kv{r.key, f.f(r.key, r.val), r.null})
			}
			return out
		},
		fmt.Sprintf("SELECT k,%s AS v FROM (%s)", f.text, in.sql)}
}

func (g *gen) flatMap(in streamExpr) streamExpr {
	k, f := g.newKey(), g.number()
	return streamExpr{fmt.Sprintf("flat map(%s, %s, %s)", in.text, k.text, f.text),
		func(w *world) *Stream[string, int64] {
			return FlatMap(in.build(w), codec.String, func(key string, v int64, emit func(string, int64)) {
				for i := range ((v % 3) + 3) % 3 {
					emit(k.f(key, v+i), f.f(key, v+i))
				}
			})
		},
		func(log []logged) (out []kv) {
			for _, r := range in.eval(log) {
				for i := range ((r.val % 3) + 3) % 3 {
					out = append(out, kv{key: k.f(r.key, r.val+i), val: f.f(r.key, r.val+i)})
				}
			}
			return out
		},
		fmt.Sprintf("SELECT %s AS k,%s AS v FROM (SELECT k,v+i AS v FROM (%s) JOIN (SELECT 0 AS i UNION ALL SELECT 1) ON i<((v%%3)+3)%%3)", k.text, f.text, in.sql)}
}

// branch is a stream divided in three, of which two are merged again, the latter with other values.
func (g *gen) branch(in streamExpr) streamExpr {
	p, q, f, one, two := g.predicate(), g.predicate(), g.number(), g.IntN(3), g.IntN(3)
	branchOf := func(r kv) int {
		if p.f(r.key, r.val) {
			return 0
		} else if q.f(r.key, r.val) {
			return 1
		}
		return 2
	}
	where := []string{p.text, fmt.Sprintf("NOT (%s) AND (%s)", p.text, q.text), fmt.Sprintf("NOT (%s) AND NOT (%s)", p.text, q.text)}
	return streamExpr{fmt.Sprintf("branches %d and %d(%s, %s, %s, %s)", one, two, in.text, p.text, q.text, f.text),
		func(w *world) *Stream[string, int64] {
			list := in.build(w).Branch(p.f, q.f)
			return list[one].Merge(MapValues(list[two], f.f))
		},
		func(log []logged) (out []kv) {
			for _, r := range in.eval(log) {
				if branchOf(r) == one {
					out = append(out, r)
				}
				if branchOf(r) == two {
					out = append(out, kv{r.key, f.f(r.key, r.val), r.null})
				}
			}
			return out
		},
		fmt.Sprintf("SELECT k,v FROM (%s) WHERE %s UNION ALL SELECT k,%s FROM (%s) WHERE %s", in.sql, where[one], f.text, in.sql, where[two])}
}

// changesOfTable is a stream of what a topic's table comes to be, once for each record that is no tombstone.
func (g *gen) changesOfTable() streamExpr {
	name, p, f := g.source(), g.predicate(), g.number()
	g.streams = true
	return streamExpr{fmt.Sprintf("changes(filter(map table(table %s, %s), %s))", name, f.text, p.text),
		func(w *world) *Stream[string, int64] {
			return MapTable(TableFrom(w.topic(name), codec.String, codec.Int64), f.f).Filter(p.f).Changes()
		},
		func(log []logged) (out []kv) {
			for _, l := range log {
				if l.topic == name && !l.tombstone && !l.null {
					if v := f.f(l.key, l.val); p.f(l.key, v) {
						out = append(out, kv{key: l.key, val: v})
					}
				}
			}
			return out
		},
		fmt.Sprintf("SELECT k,v FROM (SELECT k,%s AS v FROM log WHERE topic='%s' AND v IS NOT NULL AND k IS NOT NULL) WHERE %s", f.text, name, p.text)}
}

// changesOfCount is a stream of what the counts of a stream's keys come to be: 1, 2, 3, whatever the order of the rows.
func changesOfCount(in streamExpr) streamExpr {
	return streamExpr{fmt.Sprintf("changes(count(%s))", in.text),
		func(w *world) *Stream[string, int64] { return Count(in.build(w)).Changes() },
		func(log []logged) (out []kv) {
			n := map[string]int64{}
			for _, r := range in.eval(log) {
				if !r.null {
					n[r.key]++
					out = append(out, kv{key: r.key, val: n[r.key]})
				}
			}
			return out
		},
		fmt.Sprintf("SELECT k,row_number() OVER (PARTITION BY k) AS v FROM (%s) WHERE k IS NOT NULL", in.sql)}
}

// enriched is a topic's rows with how many of them there were of their key, of some, when they came.
func (g *gen) enriched() streamExpr {
	name, p := g.source(), g.predicate()
	g.streams = true
	kind := pick(g, inner, left)
	value := func(v int64, n *int64) int64 {
		if n == nil {
			return -v
		}
		return v + *n*100
	}
	where := ""
	if kind == inner {
		where = " WHERE n>0"
	}
	return streamExpr{fmt.Sprintf("%v table(stream %s, count(filter(stream %s, %s)))", kind, name, name, p.text),
		func(w *world) *Stream[string, int64] {
			s := From(w.topic(name), codec.String, codec.Int64)
			counts := Count(s.Filter(p.f))
			if kind == inner {
				return JoinTable(s, counts, func(_ string, v, n int64) int64 { return value(v, &n) })
			}
			return LeftJoinTable(s, counts, func(_ string, v int64, n *int64) int64 { return value(v, n) })
		},
		func(log []logged) (out []kv) {
			counts := map[string]int64{}
			for _, l := range log {
				if l.topic != name || l.tombstone {
					continue
				}
				if !l.null && p.f(l.key, l.val) {
					counts[l.key]++
				}
				if n, ok := counts[l.key]; ok && !l.null {
					out = append(out, kv{key: l.key, val: value(l.val, &n)})
				} else if kind == left {
					out = append(out, kv{l.key, value(l.val, nil), l.null})
				}
			}
			return out
		},
		fmt.Sprintf(`SELECT k,CASE WHEN n>0 THEN v+n*100 ELSE -v END AS v FROM (
SELECT k,v,CASE WHEN k IS NULL THEN 0 ELSE count(*) FILTER (WHERE %s) OVER (PARTITION BY k ORDER BY seq) END AS n FROM log WHERE topic='%s' AND v IS NOT NULL)%s`, p.text, name, where)}
}

func (g *gen) rows(depth int) rowsExpr {
	k := g.newKey()
	switch g.IntN(5) {
	case 0, 1:
		s := g.stream(depth)
		return rowsExpr{s.text, true, func(w *world) Rows[string, int64] { return s.build(w) }, s.eval, s.sql}
	case 2:
		s := g.stream(depth)
		rep, through := g.repartition()
		return rowsExpr{fmt.Sprintf("group by(%s, %s)%s", s.text, k.text, rep), true,
			func(w *world) Rows[string, int64] {
				return grouped(w, GroupBy(s.build(w), codec.String, k.f), rep, through)
			},
			func(log []logged) (out []kv) {
				for _, r := range s.eval(log) {
					out = append(out, kv{key: k.f(r.key, r.val), val: r.val})
				}
				return out
			}, fmt.Sprintf("SELECT %s AS k,v FROM (%s)", k.text, s.sql)}
	}
	t := g.table(depth)
	rep, through := g.repartition()
	return rowsExpr{fmt.Sprintf("group by(%s, %s)%s", t.text, k.text, rep), false,
		func(w *world) Rows[string, int64] {
			return grouped(w, GroupBy(t.build(w), codec.String, k.f), rep, through)
		},
		func(log []logged) (out []kv) {
			for key, v := range t.eval(log) {
				out = append(out, kv{key: k.f(key, v), val: v})
			}
			return out
		}, fmt.Sprintf("SELECT %s AS k,v FROM (%s)", k.text, t.sql)}
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
	return h % 1000003
}

// sqlTop is the digest of the n values, at most, that come first.
const sqlTop = `SELECT k,(sum(v*CASE n-r WHEN 0 THEN 1 WHEN 1 THEN 31 ELSE 961 END)+max(n*CASE n WHEN 1 THEN 31 WHEN 2 THEN 961 ELSE 29791 END))%%1000003 AS v FROM (
SELECT k,v,row_number() OVER (PARTITION BY k ORDER BY %s DESC,v<0,v) AS r,min(%d,count(*) OVER (PARTITION BY k)) AS n FROM (%s) WHERE k IS NOT NULL) WHERE r<=n GROUP BY k`

func (g *gen) aggregate(depth int) tableExpr {
	in := g.rows(depth)
	n := g.IntN(3) + 1
	f := g.ofValue()
	apply := func(vals []int64) []int64 {
		out := make([]int64, len(vals))
		for i, v := range vals {
			out[i] = f.f("", v)
		}
		return out
	}
	table := func(text, sql string, build func(Rows[string, int64]) *Table[string, int64], eval func([]int64) int64) tableExpr {
		return tableExpr{fmt.Sprintf("%s(%s)", text, in.text),
			func(w *world) *Table[string, int64] { return build(in.build(w)) },
			perKey(in.eval, eval),
			fmt.Sprintf("SELECT k,%s AS v FROM (%s) WHERE k IS NOT NULL GROUP BY k", sql, in.sql)}
	}
	switch g.IntN(9) {
	case 0:
		return table("count", "count(*)", func(r Rows[string, int64]) *Table[string, int64] { return Count(r) }, func(v []int64) int64 { return int64(len(v)) })
	case 1:
		return table("sum "+f.text, fmt.Sprintf("sum(%s)", f.text),
			func(r Rows[string, int64]) *Table[string, int64] { return Sum(r, f.f) }, func(v []int64) int64 { return total64(apply(v)) })
	case 2:
		return table("min "+f.text, fmt.Sprintf("min(%s)", f.text),
			func(r Rows[string, int64]) *Table[string, int64] { return Min(r, f.f) }, func(v []int64) int64 { return slices.Min(apply(v)) })
	case 3:
		return table("max "+f.text, fmt.Sprintf("max(%s)", f.text),
			func(r Rows[string, int64]) *Table[string, int64] { return Max(r, f.f) }, func(v []int64) int64 { return slices.Max(apply(v)) })
	case 4:
		t := table(fmt.Sprintf("top %d by %s", n, f.text), "", func(r Rows[string, int64]) *Table[string, int64] {
			return MapTable(TopN(r, n, f.f), func(_ string, v []int64) int64 { return digest(v) })
		}, func(v []int64) int64 {
			slices.SortFunc(v, func(a, b int64) int {
				return cmp.Or(cmp.Compare(f.f("", b), f.f("", a)), cmp.Compare(uint64(a), uint64(b))) // of equals the smaller encoding
			})
			return digest(v[:min(n, len(v))])
		})
		t.sql = fmt.Sprintf(sqlTop, f.text, n, in.sql)
		return t
	case 5:
		return table("count distinct "+f.text, fmt.Sprintf("count(DISTINCT %s)", f.text),
			func(r Rows[string, int64]) *Table[string, int64] { return CountDistinct(r, codec.Int64, f.f) }, func(v []int64) int64 {
				v = apply(v)
				slices.Sort(v)
				return int64(len(slices.Compact(v)))
			})
	case 6:
		return table("average "+f.text, fmt.Sprintf("CAST(avg(%s)*1000 AS INTEGER)", f.text), func(r Rows[string, int64]) *Table[string, int64] {
			return MapTable(Average(r, f.f), func(_ string, v float64) int64 { return int64(v * 1000) })
		}, func(v []int64) int64 { return int64(float64(total64(apply(v))) / float64(len(v)) * 1000) })
	case 7:
		if in.appends {
			s := g.stream(depth) // a grouping has no Reduce
			return tableExpr{fmt.Sprintf("reduce max(%s)", s.text),
				func(w *world) *Table[string, int64] {
					return Reduce(s.build(w), func(a, b int64) int64 { return max(a, b) })
				},
				perKey(s.eval, slices.Max[[]int64]),
				fmt.Sprintf("SELECT k,max(v) AS v FROM (%s) WHERE k IS NOT NULL GROUP BY k", s.sql)}
		}
	}
	square := func(v int64) int64 { return (v % 1000) * (v % 1000) }
	return table("fold", "sum((v%1000)*(v%1000))", func(r Rows[string, int64]) *Table[string, int64] {
		remove := func(acc int64, _ string, v int64) int64 { return acc - square(v) }
		if in.appends && n == 1 {
			remove = nil
		}
		return Fold(r, codec.Int64, func(acc int64, _ string, v int64) int64 { return acc + square(v) }, remove)
	}, func(v []int64) (t int64) {
		for _, v := range v {
			t += square(v)
		}
		return t
	})
}

func (g *gen) table(depth int) tableExpr {
	t := g.newTable(depth)
	if n, ok := g.repartition(); ok {
		return t.through(n)
	}
	return t
}

func (g *gen) newTable(depth int) tableExpr {
	if depth <= 0 || g.IntN(4) == 0 {
		name := g.source()
		return tableExpr{"table " + name,
			func(w *world) *Table[string, int64] { return TableFrom(w.topic(name), codec.String, codec.Int64) },
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
			},
			fmt.Sprintf("SELECT k,v FROM (SELECT k,v,row_number() OVER (PARTITION BY k ORDER BY seq DESC) AS r FROM log WHERE topic='%s' AND k IS NOT NULL) WHERE r=1 AND v IS NOT NULL", name)}
	}
	switch g.IntN(8) {
	case 0, 1:
		return g.aggregate(depth - 1)
	case 7:
		return g.stateTable(depth)
	case 2:
		in, p := g.table(depth-1), g.predicate()
		return tableExpr{fmt.Sprintf("filter(%s, %s)", in.text, p.text),
			func(w *world) *Table[string, int64] { return in.build(w).Filter(p.f) },
			func(log []logged) map[string]int64 {
				out := in.eval(log)
				maps.DeleteFunc(out, func(k string, v int64) bool { return !p.f(k, v) })
				return out
			},
			fmt.Sprintf("SELECT k,v FROM (%s) WHERE %s", in.sql, p.text)}
	case 3:
		in, f := g.table(depth-1), g.number()
		return tableExpr{fmt.Sprintf("map table(%s, %s)", in.text, f.text),
			func(w *world) *Table[string, int64] { return MapTable(in.build(w), f.f) },
			func(log []logged) map[string]int64 {
				out := in.eval(log)
				for k, v := range out {
					out[k] = f.f(k, v)
				}
				return out
			},
			fmt.Sprintf("SELECT k,%s AS v FROM (%s)", f.text, in.sql)}
	case 4:
		return g.foreignJoin(g.table(depth-1), g.table(depth-1))
	}
	a, b := g.table(depth-1), g.table(depth-1)
	if g.IntN(4) == 0 {
		b = a // with itself, once by the same description and once by another one of the same kind
	}
	return g.join(a, b)
}

func (g *gen) foreignJoin(a, b tableExpr) tableExpr {
	k := g.newKey()
	value := func(key string, v, o int64) int64 {
		return digest([]int64{int64(len(key)), v % 1000, o % 1000})
	}
	return tableExpr{fmt.Sprintf("foreign join(%s, %s, %s)", a.text, b.text, k.text),
		func(w *world) *Table[string, int64] { return ForeignJoin(a.build(w), b.build(w), k.f, value) },
		func(log []logged) map[string]int64 {
			out, other := map[string]int64{}, b.eval(log)
			for key, v := range a.eval(log) {
				if o, ok := other[k.f(key, v)]; ok {
					out[key] = value(key, v, o)
				}
			}
			return out
		},
		fmt.Sprintf("SELECT k,(89373+length(k)*961+v%%1000*31+w%%1000)%%1000003 AS v FROM (SELECT k,v,%s AS f FROM (%s)) JOIN (SELECT k AS o,v AS w FROM (%s)) ON f=o", k.text, a.sql, b.sql)}
}

func (g *gen) join(a, b tableExpr) tableExpr {
	kind := pick(g, inner, left, outer)
	value := func(l, r *int64) int64 {
		d := []int64{0, 0, 0, 0}
		if l != nil {
			d[0], d[1] = 1, *l%1000
		}
		if r != nil {
			d[2], d[3] = 1, *r%1000
		}
		return digest(d)
	}
	return tableExpr{fmt.Sprintf("%v(%s, %s)", kind, a.text, b.text),
		func(w *world) *Table[string, int64] {
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
		},
		fmt.Sprintf("SELECT coalesce(k,o) AS k,(3694084+(k IS NOT NULL)*29791+coalesce(v%%1000,0)*961+(o IS NOT NULL)*31+coalesce(w%%1000,0))%%1000003 AS v FROM (%s) %s (SELECT k AS o,v AS w FROM (%s)) ON k=o",
			a.sql, map[joinKind]string{inner: "JOIN", left: "LEFT JOIN", outer: "FULL JOIN"}[kind], b.sql)}
}
