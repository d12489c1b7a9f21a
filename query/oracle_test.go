package query

import (
	"cmp"
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
//	oracle_life_test.go    restarts, kills, crashes  window_oracle_test.go  windows, sessions, joins within a time
//
// A seed decides about a case; what goroutines do between two of its steps is the scheduler's choice, so that one that failed
// may have to run some times to fail again.
var (
	oracleSeed  = flag.Uint64("oracle.seed", 0, "run one case")
	oracleFrom  = flag.Uint64("oracle.from", 1, "the first case")
	oracleCases = flag.Int("oracle.cases", 0, "how many cases; 0 is some")
	oracleState = flag.String("oracle.state", "", "a file that keeps what was done: the cases in it are not run again")
)

// oracleRun runs a test's cases.
func oracleRun(t *testing.T, usual int, one func(t *testing.T, seed uint64, counts map[string]int64)) {
	if *oracleSeed != 0 {
		one(t, *oracleSeed, map[string]int64{})
		return
	}
	goroutines := runtime.NumGoroutine()
	from, cases := *oracleFrom, *oracleCases
	if cases == 0 {
		cases = testcount.N(usual)
	}
	if *oracleState != "" {
		done := readOracleState(t)[t.Name()]
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
			t.Errorf("case %d failed: go test -run '%s$' ./query -oracle.seed %d", seed, t.Name(), seed)
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

// oracleCase runs a graph beside both oracles.
func oracleCase(t *testing.T, seed uint64, counts map[string]int64) {
	r := rand.New(rand.NewPCG(seed, 7))
	g := &gen{Rand: r}
	var exprs []tableExpr
	for range r.IntN(3) + 1 {
		exprs = append(exprs, g.table(r.IntN(4)+1))
	}
	var views []*View[string, int64]
	l := newLife(t, r, choose(r), func(l *life) (*Graph, error) {
		var w world
		var err error
		if w.a, err = l.db.Topic("a"); err != nil {
			return nil, err
		}
		if w.b, err = l.db.Topic("b"); err != nil {
			return nil, err
		}
		graph := l.graph(l.db, Options{})
		views = views[:0]
		for i, e := range exprs {
			views = append(views, Add(graph, fmt.Sprint("v", i), e.build(w)))
		}
		return graph, graph.Start(l.ctx)
	})
	defer func() { maps.Copy(counts, l.counts) }()
	lite := sqliteOf(t)
	check := func(all bool) {
		l.view(all, func(s *Snapshot, records []record) error {
			log := make([]logged, len(records))
			for i, r := range records {
				log[i] = logged{r.topic, kv{r.key, r.val, r.null}, r.tombstone}
			}
			lite.load(t, sqlRows(records))
			for i, e := range exprs {
				got, want, selected := map[string]int64{}, e.eval(log), lite.answer(t, e.sql)
				for row, err := range views[i].In(s).All() {
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
				if !maps.Equal(want, selected) {
					return fmt.Errorf("the oracles differ: %s\n%s\nSQLite  %v\nnaively %v\nlog %s", e.text, e.sql, selected, want, logText(records))
				}
				if !maps.Equal(got, want) {
					return fmt.Errorf("%v, %d records:\n%s\n%s\n is %v\nnot %v\nlog %s\n%s", &l.circumstances, len(log), e.text, e.sql, got, want, logText(records), strings.Join(l.steps, "\n"))
				}
			}
			return nil
		})
	}
	clock := epoch
	some := func(n int) (recs []record) {
		for range n {
			clock += int64(r.IntN(3))
			rec := record{topic: g.source(), key: fmt.Sprint("k", r.IntN(6)), val: int64(r.IntN(21) - 10), ms: clock}
			if rec.tombstone = r.IntN(6) == 0; rec.tombstone {
				rec.val = 0
			}
			if rec.null = r.IntN(25) == 0; rec.null {
				rec.key = ""
			}
			recs = append(recs, rec)
		}
		return recs
	}
	for range r.IntN(12) + 3 {
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
	if !g.streams && r.IntN(2) == 0 {
		l.counts["all keys deleted"]++
		l.deleteAll(clock)
		check(true)
		l.nothingLeft(clock)
	}
	l.end(r.IntN(10) == 0)
}

// deleteAll deletes the keys that are there, until they are: what deletes them may be aborted, or lost with the power.
func (l *life) deleteAll(ms int64) {
	for {
		last := map[[2]string]record{}
		for _, r := range l.log {
			if !r.null {
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
			}
			for _, s := range tasks[0].stores {
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
		if r.tombstone {
			val = ""
		}
		fmt.Fprintf(&b, "%s/%d@%d:%s=%s@%d ", r.topic, r.partition, r.offset, key, val, r.ms-epoch)
	}
	return b.String()
}
