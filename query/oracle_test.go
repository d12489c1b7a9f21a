package query

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/internal/testcount"
)

// The oracles: random graphs over random logs, in random circumstances, compared at random prefixes of the log with an evaluator that computes
// each view anew from all records, and with SQLite's answer to a SELECT that says the same.
//
//	go test ./query -run Oracle                                                            some cases
//	go test ./query -run 'TestOracle$' -oracle.seed 4711                                   one of them again
//	go test ./query -run 'TestOracle$' -timeout 0 -oracle.cases 100000 -oracle.state FILE  many; again to go on until there are so many
//	go test ./query -run TestOracleTotals -v -oracle.state FILE                            what they come to
//
//	oracle_test.go         a case of TestOracle      oracle_sql_test.go     SQLite
//	oracle_graphs_test.go  random graphs             oracle_totals_test.go  what many cases come to
//	oracle_more_test.go    and what else they have   window_oracle_test.go  windows, sessions, joins within a time
//	oracle_life_test.go    restarts, kills, crashes
//
// A case of TestOracle that fails is made smaller, if that is possible with one view and fewer steps: -oracle.view and -oracle.steps say so.
//
// A seed decides about a case; what goroutines do between two of its steps is the scheduler's choice, so that one that failed
// may have to run some times to fail again.
var (
	oracleSeed  = flag.Uint64("oracle.seed", 0, "run one case")
	oracleFrom  = flag.Uint64("oracle.from", 1, "the first case")
	oracleCases = flag.Int("oracle.cases", 0, "how many cases; 0 is some")
	oracleOnly  = flag.Int("oracle.view", -1, "of a case of TestOracle, this view alone")
	oracleSteps = flag.Int("oracle.steps", -1, "of a case of TestOracle, so many steps at most")
	oracleState = flag.String("oracle.state", "", "a file that keeps what was done: the cases in it are not run again")
)

// oracleRun runs a test's cases.
func oracleRun(t *testing.T, usual int, one func(t *testing.T, seed uint64, counts map[string]int64)) {
	if *oracleSeed != 0 {
		if one(t, *oracleSeed, map[string]int64{}); t.Failed() && *oracleSteps < 0 {
			t.Logf("smaller:%s", shrunk(t, *oracleSeed))
		}
		return
	}
	goroutines := runtime.NumGoroutine()
	from, cases := *oracleFrom, *oracleCases
	if cases == 0 {
		cases = testcount.N(usual)
	}
	if *oracleState != "" {
		_, done := readOracleState(t)
		from, cases = max(from, done.Next), cases-done.Cases
	}
	all := newOracleTotals(t, from)
	for seed := from; seed < from+uint64(max(cases, 0)); seed++ {
		ok := t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			counts := map[string]int64{}
			defer func() { all.add(seed, counts, t.Failed()) }()
			one(t, seed, counts)
		})
		if !ok {
			t.Errorf("case %d failed: go test -run '%s$' ./query -oracle.seed %d%s", seed, t.Name(), seed, shrunk(t, seed))
			if *oracleState == "" || len(all.Failed) == 10 {
				break
			}
		}
		if *oracleState != "" && all.Cases == 1000 {
			all.save(t)
			all = newOracleTotals(t, seed+1)
		}
	}
	all.save(t)
	t.Logf("%v", all)
	for deadline := time.Now().Add(10 * time.Second); !t.Failed() && runtime.NumGoroutine() > goroutines+3; time.Sleep(time.Millisecond) { // SQLite's may have come
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), goroutines, buf[:runtime.Stack(buf, true)])
		}
	}
}

func TestOracle(t *testing.T) { oracleRun(t, 150, oracleCase) }

// oracleGraph is the graph of a case.
type oracleGraph struct {
	gen
	views []oracleView
	sinks []streamExpr // to the topics out0 and so on
	turns *streamExpr  // to the topic loop
}

type oracleView struct {
	tableExpr
	naive bool // there is no SELECT
	index *oracleIndex

	view *View[string, int64]
	x    *Index[string, string, int64]
}

// oracleIndex is the keys of an index.
type oracleIndex struct {
	text string
	f    func(key string, v int64) []string
}

// newOracleGraph makes a random graph for some circumstances.
func newOracleGraph(r *rand.Rand, c *circumstances) *oracleGraph {
	o := &oracleGraph{gen: gen{Rand: r, sources: []string{"a", "b"}, parts: c.partitions, timers: c.oneTask || c.partitions == 1}}
	if r.IntN(2) == 0 {
		o.reps = r.IntN(3) + 1
	}
	o.global = r.IntN(3) == 0
	if r.IntN(6) == 0 {
		t := turning(pick(&o.gen, "a", "b"))
		o.turns = &t
		o.sources = append(o.sources, "loop")
	}
	for range r.IntN(3) + 1 {
		o.naive = false
		v := oracleView{tableExpr: o.table(r.IntN(4) + 1)}
		if v.naive = o.naive; r.IntN(3) == 0 {
			v.index = o.newIndex()
		}
		o.views = append(o.views, v)
	}
	if r.IntN(3) == 0 {
		for range r.IntN(2) + 1 {
			o.sinks = append(o.sinks, o.stream(r.IntN(3)))
		}
	}
	if *oracleOnly >= 0 && *oracleOnly < len(o.views) { // a smaller case
		o.views, o.sinks = o.views[*oracleOnly:*oracleOnly+1], nil
	}
	return o
}

func (g *gen) newIndex() *oracleIndex {
	n := int64(g.IntN(3) + 2)
	return pick(g,
		&oracleIndex{fmt.Sprintf("v%%%d", n), func(_ string, v int64) []string { return []string{fmt.Sprint(v % n)} }},
		&oracleIndex{"key and all", func(k string, _ int64) []string { return []string{k, "all"} }},
		&oracleIndex{fmt.Sprintf("some of v%%%d, twice", n), func(_ string, v int64) []string {
			if v%2 == 0 {
				return nil
			}
			return []string{fmt.Sprint(v % n), "odd\x00", fmt.Sprint(v % n)}
		}},
	)
}

// start makes the graph of a life, and starts it.
func (o *oracleGraph) start(l *life) (*Graph, error) {
	w := &world{topics: map[string]*embedlog.Topic{}}
	names := []string{"a", "b"}
	if o.turns != nil {
		names = append(names, "loop")
	}
	for i := range o.sinks {
		names = append(names, fmt.Sprint("out", i))
	}
	if o.global {
		names = append(names, "global")
	}
	for i, name := range names {
		c := &embedlog.TopicConfig{Partitions: l.partitions}
		if i < 2 {
			c.Durability = l.level
		}
		var err error
		if w.topics[name], err = l.db.EnsureTopic(l.ctx, name, c); err != nil {
			return nil, err
		}
	}
	if o.global {
		if err := l.fill("global"); err != nil {
			return nil, err
		}
	}
	g := l.graph(l.db, Options{})
	for i := range o.views {
		v := &o.views[i]
		v.view = Add(g, fmt.Sprint("v", i), v.build(w))
		if v.index != nil {
			v.x = AddIndex(v.view, "x", codec.String, v.index.f)
		}
	}
	for i, s := range o.sinks {
		To(g, s.build(w), w.topic(fmt.Sprint("out", i)))
	}
	if o.turns != nil {
		To(g, o.turns.build(w), w.topic("loop"))
	}
	return g, g.Start(l.ctx)
}

// oracleCase runs a graph beside both oracles.
func oracleCase(t *testing.T, seed uint64, counts map[string]int64) {
	r := rand.New(rand.NewPCG(seed, 7))
	c := choose(r)
	o := newOracleGraph(r, &c)
	looks := rand.New(rand.NewPCG(seed, 12))
	l := newLife(t, r, c, func(l *life) (*Graph, error) {
		if o.global && l.fixed == nil {
			for i := range 6 {
				rec := record{topic: "global", key: []string{"k0", "k1", "k2", "k1", "all", "k0k0"}[i], val: int64(i) + 1, ms: epoch}
				if rec.tombstone = i == 2 && seed%2 == 0; rec.tombstone {
					rec.val = 0
				}
				l.fixed = append(l.fixed, rec)
			}
		}
		l.loop = o.turns != nil
		return o.start(l)
	})
	defer func() { maps.Copy(counts, l.counts) }()
	lite := sqliteOf(t)
	check := func(all bool) {
		l.view(all, func(s *Snapshot, records []record) error {
			log := make([]logged, len(records))
			for i, r := range records {
				log[i] = logged{r.topic, kv{r.key, r.val, r.null}, r.tombstone, r.partition, r.ms}
				if r.bad {
					log[i].topic = badTopic + r.topic
				}
			}
			lite.load(t, sqlRows(records))
			fails := func(text, sql string, got, want any) error {
				return fmt.Errorf("%v, %d records:\n%s\n%s\n is %v\nnot %v\nlog %s\n%s\n%s", &l.circumstances, len(log), text, sql, got, want, logText(records), l.g.Describe(), strings.Join(l.steps, "\n"))
			}
			for i := range o.views {
				e := &o.views[i]
				got, want := map[string]int64{}, e.eval(log)
				for row, err := range e.view.In(s).All() {
					if err != nil {
						return err
					}
					if _, twice := got[row.Key]; twice {
						return fmt.Errorf("%s: two rows of key %q", e.text, row.Key)
					}
					got[row.Key] = row.Value
				}
				if l.counts["views compared"]++; len(want) > 0 {
					l.counts["of them with rows"]++
				}
				if !e.naive {
					if selected := lite.answer(t, e.sql); !maps.Equal(want, selected) {
						return fmt.Errorf("the oracles differ: %s\n%s\nSQLite  %v\nnaively %v\nlog %s", e.text, e.sql, selected, want, logText(records))
					}
				}
				if !maps.Equal(got, want) {
					return fails(e.text, e.sql, got, want)
				}
				if e.index != nil {
					l.counts["indexes compared"]++
					if got, want, err := e.compareIndex(s, want, looks); err != nil || got != want {
						return errors.Join(err, fails(e.text+" by "+e.index.text, e.sql, got, want))
					}
				}
				if all {
					key := fmt.Sprint("k", looks.IntN(6))
					v, found, err := e.view.Get(l.ctx, key)
					if err != nil {
						return err
					}
					if is, ok := want[key]; v != is || found != ok {
						return fails(e.text+", get "+key, e.sql, v, is)
					}
				}
			}
			if all {
				return o.compareTopics(l, lite, log, fails)
			}
			return nil
		})
	}
	clock := epoch
	some := func(n int) (recs []record) {
		for range n {
			clock += int64(r.IntN(3))
			rec := record{topic: pick(&o.gen, "a", "b"), key: fmt.Sprint("k", r.IntN(6)), val: int64(r.IntN(21) - 10), ms: clock}
			if rec.tombstone = r.IntN(6) == 0; rec.tombstone {
				rec.val = 0
			}
			if rec.null = r.IntN(25) == 0; rec.null {
				rec.key = ""
			}
			if rec.bad = r.IntN(40) == 0; rec.bad {
				rec.val, rec.tombstone = 0, false
			}
			recs = append(recs, rec)
		}
		return recs
	}
	steps := r.IntN(12) + 3
	if *oracleSteps >= 0 {
		steps = min(steps, *oracleSteps)
	}
	for range steps {
		switch r.IntN(9) {
		case 0:
			l.restart()
		case 1:
			l.again(r.IntN(2) == 0)
		case 2:
			check(true)
		case 3:
			check(false)
		default:
			l.produce(some(r.IntN(10) + 1))
		}
	}
	check(true)
	if !o.streams && o.turns == nil && r.IntN(2) == 0 {
		l.counts["all keys deleted"]++
		l.deleteAll(clock)
		check(true)
		l.nothingLeft(clock)
	}
	l.end(r.IntN(10) == 0)
}

// compareIndex is what an index has in a snapshot, and what it should have: all of it, or what one of its other reads finds.
func (e *oracleView) compareIndex(s *Snapshot, rows map[string]int64, r *rand.Rand) (got, want string, err error) {
	type found struct {
		index, key string
		v          int64
	}
	var list []found
	for key, v := range rows {
		keys := slices.Compact(slices.Sorted(slices.Values(e.index.f(key, v))))
		for _, k := range keys {
			list = append(list, found{k, key, v})
		}
	}
	slices.SortFunc(list, func(a, b found) int { return cmp.Or(strings.Compare(a.index, b.index), strings.Compare(a.key, b.key)) })
	x := e.x.In(s)
	one := []string{"0", "1", "k1", "all", "odd\x00", "odd", ""}[r.IntN(7)]
	seq, in := x.All(), func(string) bool { return true }
	switch r.IntN(6) {
	case 0:
		seq = func(yield func(IndexRow[string, string, int64], error) bool) {
			for row, err := range x.Get(one) {
				if !yield(IndexRow[string, string, int64]{one, row.Key, row.Value}, err) {
					return
				}
			}
		}
		in = func(k string) bool { return k == one }
	case 1:
		seq, in = x.Range("1", one), func(k string) bool { return k >= "1" && k < one }
	case 2:
		seq, in = x.Prefix([]byte(one)), func(k string) bool { return strings.HasPrefix(k, one) }
	}
	var is, should strings.Builder
	for row, rowErr := range seq {
		if rowErr != nil {
			err = rowErr
			break
		}
		fmt.Fprintf(&is, "%q %q=%d ", row.Index, row.Key, row.Value)
	}
	for _, f := range list {
		if in(f.index) {
			fmt.Fprintf(&should, "%q %q=%d ", f.index, f.key, f.v)
		}
	}
	return is.String(), should.String(), err
}

// compareTopics compares what the graph has appended to topics with what comes of all records: each row once, whatever happened in between.
func (o *oracleGraph) compareTopics(l *life, lite *sqlite, log []logged, fails func(text, sql string, got, want any) error) error {
	dead := map[string]int64{}
	for _, r := range l.log {
		if r.bad && l.g.sources[r.topic] != nil {
			dead[fmt.Sprintf("%s/%d@%d", r.topic, r.partition, r.offset)]++
		}
	}
	if len(o.sinks) == 0 && o.turns == nil && len(dead) == 0 {
		return nil
	}
	if err := l.rest(); err != nil {
		return err
	}
	got := map[string]int64{}
	if len(dead) > 0 {
		top, err := l.db.Topic(l.g.deadName())
		if err != nil {
			return err
		}
		for rec, err := range top.Scan(l.ctx, nil) {
			if err != nil {
				return err
			}
			h := func(name string) string { v, _ := rec.Header(name); return string(v) }
			if got[fmt.Sprintf("%s/%s@%s", h(HeaderTopic), h(HeaderPartition), h(HeaderOffset))]++; string(rec.Value) != "bad" {
				return fmt.Errorf("a dead letter is %q", rec.Value)
			}
		}
		if l.counts["dead letters"] += int64(len(dead)); !maps.Equal(got, dead) {
			return fails("dead letters", "", got, dead)
		}
	}
	compare := func(topic string, s streamExpr, naive bool) error {
		records, err := l.scanTopic(topic)
		if err != nil {
			return err
		}
		got, want := map[string]int64{}, map[string]int64{}
		for _, r := range records {
			got[rowText(kv{r.key, r.val, r.null})]++
		}
		for _, r := range s.eval(log) {
			want[rowText(r)]++
		}
		l.counts["sinks compared"]++
		l.counts["rows appended"] += int64(len(records))
		if !naive {
			if selected := lite.answer(l.T, fmt.Sprintf("SELECT coalesce('=' || k,'-') || ' ' || v,count(*) FROM (%s) GROUP BY 1", s.sql)); !maps.Equal(selected, want) {
				return fails("the oracles differ: "+s.text, s.sql, selected, want)
			}
		}
		if !maps.Equal(got, want) {
			return fails("topic "+topic+": "+s.text, s.sql, got, want)
		}
		return nil
	}
	for i, s := range o.sinks {
		if err := compare(fmt.Sprint("out", i), s, strings.Contains(s.text, "again true")); err != nil {
			return err
		}
	}
	if o.turns != nil {
		return compare("loop", *o.turns, false)
	}
	return nil
}

func rowText(r kv) string {
	if r.null {
		return fmt.Sprintf("- %d", r.val)
	}
	return fmt.Sprintf("=%s %d", r.key, r.val)
}

// fill has a topic that does not change have its records, all at once.
func (l *life) fill(name string) error {
	there, err := l.scanTopic(name)
	if err != nil || len(there) > 0 {
		return err
	}
	tx, err := l.db.Begin(l.ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Abort(context.WithoutCancel(l.ctx))
	for i := range l.fixed {
		if _, err := tx.Produce(l.ctx, l.fixed[i].record()); err != nil {
			return err
		}
	}
	return tx.Commit(l.ctx)
}

// deleteAll deletes the keys that are there, until they are: what deletes them may be aborted, or lost with the power.
func (l *life) deleteAll(ms int64) {
	for {
		last := map[[2]string]record{}
		for _, r := range l.log {
			if !r.null && !r.bad {
				last[[2]string{r.topic, r.key}] = r
			}
		}
		var recs []record
		for _, r := range last {
			if !r.tombstone {
				recs = append(recs, record{topic: r.topic, key: r.key, tombstone: true, ms: ms})
			}
		}
		if len(recs) == 0 {
			return
		}
		slices.SortFunc(recs, func(a, b record) int { return cmp.Or(strings.Compare(a.topic, b.topic), strings.Compare(a.key, b.key)) })
		l.produce(recs)
	}
}

// nothingLeft says whether a graph whose rows are all gone keeps anything of them: in its stores when it is started again, or in changelogs.
func (l *life) nothingLeft(ms int64) {
	l.Helper()
	for done := false; !done; {
		l.deleteAll(ms)
		done = l.try(func() error {
			if err := l.g.CatchUp(l.ctx); err != nil {
				return err
			}
			if err := l.g.Close(); err != nil {
				return err
			}
			g, err := l.start(l)
			if err != nil {
				return err
			}
			l.g = g
			tasks, err := l.g.all(l.ctx)
			if err != nil {
				return err
			}
			for _, task := range tasks {
				for _, s := range task.stores {
					task.clock.RLock()
					n := s.entries()
					task.clock.RUnlock()
					if n > 0 {
						return fmt.Errorf("all keys are deleted, and %d rows are left in %s\n%v\n%s\n%s", n, s.label(), &l.circumstances, l.g.Describe(), strings.Join(l.steps, "\n"))
					}
				}
				for _, x := range task.indexes {
					if n := len(x.(*store[struct{}]).rows); n > 0 {
						return fmt.Errorf("all keys are deleted, and an index has %d places\n%v\n%s", n, &l.circumstances, l.g.Describe())
					}
				}
			}
			var stores []kept
			for _, stage := range l.g.stages {
				stores = append(stores, tasks[stage.first].stores...)
			}
			for _, s := range stores {
				top, err := l.db.Topic(l.g.changelogName(s.label()))
				if err != nil {
					return err
				}
				rows := map[string]bool{}
				for rec, err := range top.Scan(l.ctx, nil) {
					if err != nil {
						return err
					}
					if rows[string(rec.Key)] = true; rec.Value == nil {
						delete(rows, string(rec.Key))
					}
				}
				if len(rows) > 0 {
					return fmt.Errorf("all keys are deleted, and %d rows are left in the changelog of %s\n%s", len(rows), s.label(), l.g.Describe())
				}
			}
			return nil
		})
	}
}

func logText(log []record) string {
	var b strings.Builder
	for _, r := range log {
		key, val := r.key, strconv.FormatInt(r.val, 10)
		if r.null {
			key = "-"
		}
		if r.bad {
			val = "bad"
		}
		if r.tombstone {
			val = ""
		}
		fmt.Fprintf(&b, "%s/%d@%d:%s=%s@%d ", r.topic, r.partition, r.offset, key, val, r.ms-epoch)
	}
	return b.String()
}
