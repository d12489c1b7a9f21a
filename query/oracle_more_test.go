package query

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/x/embedlog/codec"
)

// What random graphs have beside operators of rows: repartitions, processors, timers, global tables. See oracle_graphs_test.go.

// repWidth is into how many partitions rows go.
type repWidth int

func (n repWidth) String() string {
	if n < 0 {
		return ""
	}
	return fmt.Sprintf(" through %d", int(n))
}

// repartition says whether rows go through the log. They are what they were.
func (g *gen) repartition() (n repWidth, ok bool) {
	if g.reps == 0 || g.IntN(4) > 0 {
		return -1, false
	}
	g.reps--
	return repWidth(g.IntN(4)), true
}

func (s streamExpr) through(n repWidth) streamExpr {
	build := s.build
	s.text = fmt.Sprintf("(%s%v)", s.text, n)
	s.build = func(w *world) *Stream[string, int64] { return build(w).Repartition(w.name("r"), int(n)) }
	return s
}

func (t tableExpr) through(n repWidth) tableExpr {
	build := t.build
	t.text = fmt.Sprintf("(%s%v)", t.text, n)
	t.build = func(w *world) *Table[string, int64] { return build(w).Repartition(w.name("r"), int(n)) }
	return t
}

func grouped(w *world, rows *Grouped[string, int64], n repWidth, through bool) *Grouped[string, int64] {
	if through {
		return rows.Repartition(w.name("r"), int(n))
	}
	return rows
}

// processor is what a processor makes, and what its store has then.
type processor struct {
	rows  streamExpr
	store tableExpr
}

// processedBy describes a processor: what it makes of each row with a key, and of what its store has for that.
func processedBy(text string, in streamExpr, rekeys *fn[string], f func(kept *int64, v int64) (made int64, keep *int64), rows, state string) processor {
	build := func(w *world) (*Stream[string, int64], *KeyValueStore[string, int64]) {
		store := NewKeyValueStore(w.name("kept"), codec.String, codec.Int64)
		step := func(c *Context[string, int64], r Record[string, int64]) error {
			if r.NoKey {
				return nil
			}
			var kept *int64
			if n, ok := store.Get(c, r.Key); ok {
				kept = &n
			}
			made, keep := f(kept, r.Value)
			if keep != nil {
				store.Put(c, r.Key, *keep)
			} else {
				store.Delete(c, r.Key)
			}
			key := r.Key
			if rekeys != nil {
				key = rekeys.f(key, made)
			}
			c.Forward(key, made)
			return nil
		}
		if rekeys != nil {
			return Process(in.build(w), w.name("process"), codec.String, step, store), store
		}
		return ProcessValues(in.build(w), w.name("process"), step, store), store
	}
	walk := func(log []logged) (out []kv, kept map[string]int64) {
		kept = map[string]int64{}
		for _, r := range in.eval(log) {
			if r.null {
				continue
			}
			var was *int64
			if n, ok := kept[r.key]; ok {
				was = &n
			}
			made, keep := f(was, r.val)
			if delete(kept, r.key); keep != nil {
				kept[r.key] = *keep
			}
			key := r.key
			if rekeys != nil {
				key = rekeys.f(key, made)
			}
			out = append(out, kv{key: key, val: made})
		}
		return out, kept
	}
	if rekeys != nil {
		text = fmt.Sprintf("%s for %s", text, rekeys.text)
		rows = fmt.Sprintf("SELECT %s AS k,v FROM (%s)", rekeys.text, rows)
	}
	return processor{
		streamExpr{text, func(w *world) *Stream[string, int64] { s, _ := build(w); return s }, func(log []logged) []kv { out, _ := walk(log); return out }, rows},
		tableExpr{"store of " + text, func(w *world) *Table[string, int64] { return StateTable(build(w)) }, func(log []logged) map[string]int64 { _, kept := walk(log); return kept }, state},
	}
}

// rekeys are other keys for what a processor makes, or nil.
func (g *gen) rekeys() *fn[string] {
	if g.IntN(3) > 0 {
		return nil
	}
	k := g.newKey()
	return &k
}

// counting is a processor that counts each key's rows up to a number, and begins again: in whatever order they come.
func (g *gen) counting(in streamExpr) processor {
	most := int64(g.IntN(4) + 2)
	return processedBy(fmt.Sprintf("count to %d(%s)", most, in.text), in, g.rekeys(), func(kept *int64, _ int64) (int64, *int64) {
		n := int64(1)
		if kept != nil {
			n += *kept
		}
		if n == most {
			return 0, nil
		}
		return n, &n
	},
		fmt.Sprintf("SELECT k,row_number() OVER (PARTITION BY k)%%%d AS v FROM (%s) WHERE k IS NOT NULL", most, in.sql),
		fmt.Sprintf("SELECT k,count(*)%%%d AS v FROM (%s) WHERE k IS NOT NULL GROUP BY k HAVING count(*)%%%d<>0", most, in.sql, most))
}

// folding is a processor of a topic's records whose result depends on their order.
func (g *gen) folding() processor {
	name := g.source()
	in := streamExpr{text: "stream " + name, build: func(w *world) *Stream[string, int64] { return From(w.topic(name), codec.String, codec.Int64) }, eval: sourceRows(name)}
	g.streams = true
	if n, ok := g.repartition(); ok {
		in = in.through(n)
	}
	const walk = `WITH RECURSIVE n AS (SELECT k,v,row_number() OVER (PARTITION BY k ORDER BY seq) AS i FROM log WHERE topic='%s' AND v IS NOT NULL AND k IS NOT NULL),
w AS (SELECT k,v,i,v%%1000003 AS acc FROM n WHERE i=1 UNION ALL
SELECT n.k,n.v,n.i,(CASE WHEN w.v%%5=0 THEN 0 ELSE w.acc END*31+n.v)%%1000003 FROM w JOIN n ON n.k=w.k AND n.i=w.i+1) `
	rows := fmt.Sprintf(walk+"SELECT k,CASE WHEN v%%5=0 THEN -acc ELSE acc END AS v FROM w", name)
	state := fmt.Sprintf(walk+"SELECT k,acc AS v FROM (SELECT k,v,acc,max(i) FROM w GROUP BY k) WHERE v%%5<>0", name)
	return processedBy(fmt.Sprintf("fold(%s)", in.text), in, g.rekeys(), func(kept *int64, v int64) (int64, *int64) {
		acc := v
		if kept != nil {
			acc += *kept * 31
		}
		acc %= 1000003
		if v%5 == 0 {
			return -acc, nil
		}
		return acc, &acc
	}, rows, state)
}

func sourceRows(name string) func(log []logged) []kv {
	return func(log []logged) (out []kv) {
		for _, l := range log {
			if l.topic == name && !l.tombstone {
				out = append(out, l.kv)
			}
		}
		return out
	}
}

func (g *gen) stateTable(depth int) tableExpr {
	if g.IntN(2) == 0 {
		return g.folding().store
	}
	return g.counting(g.stream(depth - 1)).store
}

// timeOf is how far event time has come in a partition, for evaluators: not before its second record. All clocks are right here.
func timeOf(times []int64) int64 {
	now := int64(math.MinInt64)
	if len(times) > 1 {
		for _, ms := range times {
			now = max(now, ms)
		}
	}
	return now
}

// badTopic is the name under which evaluators find a topic's records that cannot be decoded: they count for time alone.
const badTopic = "bad "

// timed is a topic's keys with the time of a timer that their first record sets, when it has fired; where there is one partition the next record
// after that sets it again.
func (g *gen) timed() streamExpr {
	name, wait, parts := g.source(), int64(g.IntN(40)), g.parts
	g.streams = true
	again := parts == 1 && g.IntN(2) == 0
	if again {
		g.naive = true
	}
	return streamExpr{fmt.Sprintf("timers(stream %s, %d, again %v)", name, wait, again),
		func(w *world) *Stream[string, int64] {
			set := NewKeyValueStore(w.name("kept"), codec.String, codec.Int64)
			timers := NewTimers(w.name("timers"), codec.String, StreamTime, func(c *Context[string, int64], key string, at time.Time) error {
				if again {
					set.Delete(c, key)
				}
				c.Forward(key, at.UnixMilli()-epoch)
				return nil
			})
			return ProcessValues(From(w.topic(name), codec.String, codec.Int64), w.name("process"), func(c *Context[string, int64], r Record[string, int64]) error {
				if r.NoKey {
					return nil
				}
				if _, ok := set.Get(c, r.Key); !ok {
					set.Put(c, r.Key, 1)
					timers.Schedule(c, r.Key, r.Time.Add(time.Duration(wait)*ms))
				}
				return nil
			}, set, timers)
		},
		func(log []logged) (out []kv) {
			set := map[string]int64{}
			times := map[int32][]int64{}
			fire := func() {
				now := int64(math.MaxInt64)
				for p := range int32(parts) {
					now = min(now, timeOf(times[p]))
				}
				for key, at := range set {
					if at <= now {
						out = append(out, kv{key: key, val: at - epoch})
						if set[key] = math.MaxInt64; again {
							delete(set, key)
						}
					}
				}
			}
			for _, l := range log {
				if strings.TrimPrefix(l.topic, badTopic) != name {
					continue
				}
				times[l.partition] = append(times[l.partition], l.ms)
				if _, ok := set[l.key]; !ok && !l.null && !l.tombstone && l.topic == name {
					set[l.key] = l.ms + wait
				}
				if again {
					fire()
				}
			}
			fire()
			return out
		},
		fmt.Sprintf(`SELECT k,at-%d AS v FROM (SELECT k,min(seq),ms+%d AS at FROM log WHERE topic='%s' AND k IS NOT NULL AND v IS NOT NULL GROUP BY k) WHERE at<=(
SELECT min(now) FROM (SELECT max(ms) AS now FROM log WHERE topic IN ('%s','%s%s') GROUP BY part HAVING count(*)>1) HAVING count(*)=%d)`, epoch, wait, name, name, badTopic, name, parts),
	}
}

// joinedGlobal is rows with what the global table has for a key that is found in them.
func (g *gen) joinedGlobal(in streamExpr) streamExpr {
	kind, k := pick(g, inner, left), g.newKey()
	value := func(v int64, w *int64) int64 {
		if w == nil {
			return -v
		}
		return v + *w*1000
	}
	join := "JOIN"
	if kind == left {
		join = "LEFT JOIN"
	}
	return streamExpr{fmt.Sprintf("%v global(%s, %s)", kind, in.text, k.text),
		func(w *world) *Stream[string, int64] {
			table := GlobalTable(w.topic("global"), codec.String, codec.Int64)
			if kind == inner {
				return JoinGlobal(in.build(w), table, k.f, func(_ string, v, w int64) int64 { return value(v, &w) })
			}
			return LeftJoinGlobal(in.build(w), table, k.f, func(_ string, v int64, w *int64) int64 { return value(v, w) })
		},
		func(log []logged) (out []kv) {
			table := map[string]int64{}
			for _, l := range log {
				if l.topic == "global" {
					if delete(table, l.key); !l.tombstone {
						table[l.key] = l.val
					}
				}
			}
			for _, r := range in.eval(log) {
				if w, ok := table[k.f(r.key, r.val)]; ok {
					out = append(out, kv{r.key, value(r.val, &w), r.null})
				} else if kind == left {
					out = append(out, kv{r.key, value(r.val, nil), r.null})
				}
			}
			return out
		},
		fmt.Sprintf(`SELECT k,CASE WHEN w IS NULL THEN -v ELSE v+w*1000 END AS v FROM (SELECT k,v,%s AS f FROM (%s)) %s
(SELECT o,w FROM (SELECT k AS o,v AS w,row_number() OVER (PARTITION BY k ORDER BY seq DESC) AS r FROM log WHERE topic='global') WHERE r=1 AND w IS NOT NULL) ON f=o`, k.text, in.sql, join)}
}

// turning is what a graph appends to the topic that it reads itself: some of a topic's rows, and each that it has appended with one less.
func turning(name string) (s streamExpr) {
	start := func(_ string, v int64) bool { return v%3 == 0 }
	first := func(_ string, v int64) int64 { return max(v, -v) % 4 }
	above := func(_ string, v int64) bool { return v > 0 }
	less := func(_ string, v int64) int64 { return v - 1 }
	s.text = fmt.Sprintf("turns of %s", name)
	s.build = func(w *world) *Stream[string, int64] {
		begin := MapValues(From(w.topic(name), codec.String, codec.Int64).Filter(start), first)
		return begin.Merge(MapValues(From(w.topic("loop"), codec.String, codec.Int64).Filter(above), less))
	}
	s.eval = func(log []logged) (out []kv) {
		for _, r := range sourceRows(name)(log) {
			if start(r.key, r.val) {
				out = append(out, kv{r.key, first(r.key, r.val), r.null})
			}
		}
		for _, r := range sourceRows("loop")(log) {
			if above(r.key, r.val) {
				out = append(out, kv{r.key, less(r.key, r.val), r.null})
			}
		}
		return out
	}
	s.sql = fmt.Sprintf("SELECT k,abs(v)%%4 AS v FROM log WHERE topic='%s' AND v IS NOT NULL AND v%%3=0 UNION ALL SELECT k,v-1 FROM log WHERE topic='loop' AND v>0", name)
	return s
}
