package query

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

// The rows of a processor are appended once, its store is in its changelog, and goes on after a restart.
func TestProcess(t *testing.T) {
	f := newFixture(t, 2)
	out := f.topic("out", 1)
	seen := NewKeyValueStore("seen", codec.String, codec.Int64)
	var v *View[string, int64]
	var byCount *View[int64, int64]
	start := func() *Graph {
		return f.graphOf(atClose, func(g *Graph) {
			s := Process(f.stream(), "first-two", codec.String, func(c *Context[string, string], r Record[string, string]) error {
				n, _ := seen.Get(c, r.Key)
				if r.Value == "gone" {
					seen.Delete(c, r.Key)
					return nil
				}
				seen.Put(c, r.Key, n+1)
				if n < 2 {
					c.Forward(r.Value, r.Key)
					c.Forward(r.Value+r.Value, fmt.Sprint(n+1))
				}
				return nil
			}, seen)
			To(g, s, out)
			table := StateTable(s, seen)
			v = Add(g, "seen", table) // the name of the store, which it is
			byCount = Add(g, "by-count", Count(GroupBy(table, codec.Int64, func(_ string, n int64) int64 { return n })))
		})
	}
	g := start()
	f.put(f.top, "a=1 a=2 b=3 a=4 c=5 c=gone")
	f.want("store", rows(f, v), "a=3 b=1")
	f.want("by count", rows(f, byCount), "1=1 3=1")
	f.close(g)
	f.want("changelog", strings.ReplaceAll(f.records("g-seen-changelog"), "\x00", ""), "a=\x03 b=\x01 c")
	g = start()
	f.put(f.top, "a=6 b=7 b=8")
	f.want("store", rows(f, v), "a=4 b=3")
	f.want("by count", rows(f, byCount), "3=1 4=1")
	f.close(g)
	got := strings.Fields(f.records("out"))
	slices.Sort(got)
	f.want("rows", strings.Join(got, " "), "11=1 1=a 22=2 2=a 33=1 3=b 55=1 5=c 77=2 7=b")
}

// A processor's walks see its own changes, in the order of the keys.
func TestKeyValueStoreWalks(t *testing.T) {
	f := newFixture(t, 1)
	st := NewKeyValueStore("rows", codec.String, codec.String)
	s := Process(f.stream(), "walk", codec.String, func(c *Context[string, string], r Record[string, string]) error {
		st.Put(c, r.Key, r.Value)
		if r.Key != "end" {
			return nil
		}
		var all, some []string
		for k, v := range st.All(c) {
			all = append(all, k+v)
			st.Delete(c, k)
		}
		for k := range st.All(c) {
			t.Errorf("%s is left", k)
		}
		for i := range 1000 {
			st.Put(c, fmt.Sprintf("%03d", i), "")
		}
		for k := range st.Range(c, "255", "259") {
			some = append(some, k)
		}
		for range st.All(c) {
			some = append(some, "!")
			break
		}
		for range st.Range(c, "a", "") { // nothing is before the empty key
			t.Error("a row before the empty key")
		}
		c.Forward(strings.Join(all, " "), strings.Join(some, " "))
		return nil
	}, st)
	v := view(f, Reduce(s, func(a, b string) string { return a + b }))
	f.put(f.top, "b=2 a=1 a=0 end=3")
	f.want("rows", rows(f, v), "a0 b2 end3=255 256 257 258 !")
}

// An endless number of ways to use a processor wrongly.
func TestProcessMisuse(t *testing.T) {
	st, other := NewKeyValueStore("st", codec.String, codec.Int64), NewKeyValueStore("other", codec.String, codec.Int64)
	nothing := func(*Context[string, string], Record[string, string]) error { return nil }
	fire := func(*Context[string, string], string, time.Time) error { return nil }
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		tasks int
		add   func(f *fixture, g *Graph)
		start string // the error of Start
		is    error  // of a read, in the *StoppedError
		as    func(error) bool
	}{
		"store of a name": {1, func(f *fixture, g *Graph) {
			Add(g, "v", Count(Process(f.stream(), "p", codec.String, nothing, st, NewKeyValueStore("st", codec.String, codec.String))))
		}, "two stores are named st", nil, nil},
		"store named as a view": {1, func(f *fixture, g *Graph) {
			Add(g, "st", Count(Process(f.stream(), "p", codec.String, nothing, st)))
		}, "two stores are named st", nil, nil},
		"timers of two": {1, func(f *fixture, g *Graph) {
			tm := NewTimers("tm", codec.String, StreamTime, fire)
			a := Process(f.stream(), "p", codec.String, nothing, tm)
			b := Process(f.stream(), "q", codec.String, nothing, tm)
			Add(g, "v", Count(a.Merge(b)))
		}, "two processors", nil, nil},
		"timers of other rows": {1, func(f *fixture, g *Graph) {
			Add(g, "v", Count(Process(f.stream(), "p", codec.String, nothing, NewTimers("tm", codec.String, StreamTime, func(*Context[string, int64], string, time.Time) error { return nil }))))
		}, "their function has a", nil, nil},
		"timers of no type": {1, func(f *fixture, g *Graph) {
			Add(g, "v", Count(Process(f.stream(), "p", codec.String, nothing, NewTimers("tm", codec.String, 7, fire))))
		}, "type of punctuation", nil, nil},
		"a table": {1, func(f *fixture, g *Graph) {
			Add(g, "v", Count(Process(&Stream[string, string]{f.table().n, codec.String, codec.String}, "p", codec.String, nothing)))
		}, ErrNotReversible.Error(), nil, nil},
		"table of another's store": {1, func(f *fixture, g *Graph) {
			Add(g, "v", StateTable(Process(f.stream(), "p", codec.String, nothing, st), other))
		}, ErrNoState.Error(), nil, nil},
		"not given": {1, func(f *fixture, g *Graph) {
			Add(g, "v", Count(Process(f.stream(), "p", codec.String, func(c *Context[string, string], r Record[string, string]) error {
				other.Put(c, r.Key, 1)
				return nil
			}, st)))
		}, "", ErrNoState, nil},
		"timer not given": {1, func(f *fixture, g *Graph) {
			tm := NewTimers("tm", codec.String, StreamTime, fire)
			Add(g, "v", Count(Process(f.stream(), "p", codec.String, func(c *Context[string, string], r Record[string, string]) error {
				tm.Schedule(c, r.Key, r.Time)
				return nil
			}, st)))
		}, "", ErrNoState, nil},
		"an error": {1, func(f *fixture, g *Graph) {
			Add(g, "v", Count(Process(f.stream(), "p", codec.String, func(*Context[string, string], Record[string, string]) error { return boom })))
		}, "", boom, nil},
		"a panic": {1, func(f *fixture, g *Graph) {
			Add(g, "v", Count(Process(f.stream(), "p", codec.String, func(*Context[string, string], Record[string, string]) error { panic(boom) })))
		}, "", boom, func(err error) bool { p := (*PanicError)(nil); return errors.As(err, &p) }},
		"a timer's error": {1, func(f *fixture, g *Graph) {
			tm := NewTimers("tm", codec.String, StreamTime, func(*Context[string, string], string, time.Time) error { return boom })
			Add(g, "v", Count(Process(f.stream(), "p", codec.String, func(c *Context[string, string], r Record[string, string]) error {
				tm.Schedule(c, r.Key, r.Time.Add(-time.Hour))
				return nil
			}, tm)))
		}, "", boom, nil},
		"a timer for ever": {1, func(f *fixture, g *Graph) {
			var tm *Timers[string, string, string]
			tm = NewTimers("tm", codec.String, StreamTime, func(c *Context[string, string], key string, at time.Time) error {
				tm.Schedule(c, key+key, at)
				return nil
			})
			Add(g, "v", Count(Process(f.stream(), "p", codec.String, func(c *Context[string, string], r Record[string, string]) error {
				tm.Schedule(c, r.Key, r.Time.Add(-time.Hour))
				return nil
			}, tm)))
		}, "", ErrTimer, nil},
		"another task's key": {4, func(f *fixture, g *Graph) {
			Add(g, "v", Count(ProcessValues(f.stream(), "p", func(c *Context[string, string], r Record[string, string]) error {
				for i := range 9 {
					st.Put(c, fmt.Sprint(r.Key, i), 1)
				}
				return nil
			}, st)))
		}, "", nil, func(err error) bool {
			k := (*StateKeyError)(nil)
			return errors.As(err, &k) && k.State == "st" && k.Graph == "g"
		}},
		"a row of another task": {4, func(f *fixture, g *Graph) {
			Add(g, "v", Count(ProcessValues(f.stream(), "p", func(c *Context[string, string], r Record[string, string]) error {
				for i := range 9 {
					c.Forward(fmt.Sprint(r.Key, i), "")
				}
				return nil
			})))
		}, "", nil, func(err error) bool {
			k := (*StateKeyError)(nil)
			return errors.As(err, &k) && k.State == "process values p"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, c.tasks)
			g := NewGraph(f.db.DB, "g", atClose)
			c.add(f, g)
			err := g.Start(f.ctx)
			if c.start != "" {
				if err == nil || !strings.Contains(err.Error(), c.start) {
					t.Errorf("start: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			f.at(f.top, "a=1@0 a=1@1 a=1@2")
			err = g.CatchUp(f.ctx)
			stopped := (*StoppedError)(nil)
			if !errors.As(err, &stopped) || c.is != nil && !errors.Is(err, c.is) || c.as != nil && !c.as(err) {
				t.Errorf("read: %v", err)
			}
			g.Close()
		})
	}
}

// A context that outlives its function does nothing but stop the graph's reads.
func TestProcessOutside(t *testing.T) {
	f := newFixture(t, 1)
	st := NewKeyValueStore("st", codec.String, codec.Int64)
	var kept *Context[string, string]
	v := view(f, Count(Process(f.stream(), "p", codec.String, func(c *Context[string, string], r Record[string, string]) error {
		kept = c
		return nil
	}, st)))
	f.put(f.top, "a=1")
	f.want("rows", rows(f, v), "")
	st.Put(kept, "a", 1)
	kept.Forward("a", "b")
	if _, _, err := v.Get(f.ctx, "a"); !errors.Is(err, ErrOutside) {
		t.Errorf("a read afterwards: %v", err)
	}
}

// The program of the oracle of processors: totals by key, and a timer that some records set and others cancel.
type processTotals struct {
	totals *KeyValueStore[string, int64]
	timers *Timers[string, string, string]
}

func newProcessTotals() *processTotals {
	o := &processTotals{totals: NewKeyValueStore("totals", codec.String, codec.Int64)}
	o.timers = NewTimers("timers", codec.String, StreamTime, func(c *Context[string, string], key string, at time.Time) error {
		n, _ := o.totals.Get(c, key)
		c.Forward(key, fmt.Sprintf("(%d@%d)", n, at.UnixMilli()-epoch))
		if n%2 != 0 {
			o.timers.Schedule(c, key, at.Add(7*ms))
			o.totals.Put(c, key, n-1)
		} else {
			o.totals.Delete(c, key)
		}
		return nil
	})
	return o
}

func (o *processTotals) process(c *Context[string, string], r Record[string, int64]) error {
	if r.NoKey {
		return nil
	}
	n, _ := o.totals.Get(c, r.Key)
	o.totals.Put(c, r.Key, n+r.Value)
	switch r.Value % 4 {
	case 0:
		o.timers.Schedule(c, r.Key, r.Time.Add(time.Duration(r.Value)*ms))
	case 1:
		if at, ok := o.timers.Get(c, r.Key); ok {
			c.Forward(r.Key, fmt.Sprintf("-%d", at.UnixMilli()-epoch))
		}
		o.timers.Cancel(c, r.Key)
	}
	c.Forward(r.Key, fmt.Sprintf("[%d]", n+r.Value))
	return nil
}

// naiveTotals is what the program's rows are, by key, and what it keeps, when each record is processed before the next one of its partition.
func naiveTotals(log []timed, parts int, bound int64) (out map[string]string, totals map[string]int64) {
	out, totals = map[string]string{}, map[string]int64{}
	for p := range int32(parts) {
		timers := map[string]int64{}
		var times []int64
		for _, r := range log {
			if r.partition != p {
				continue
			}
			times = append(times, r.ms)
			if !r.null && !r.tombstone {
				totals[r.key] += r.val
				switch r.val % 4 {
				case 0:
					timers[r.key] = r.ms + r.val
				case 1:
					if at, ok := timers[r.key]; ok {
						out[r.key] += fmt.Sprintf("-%d", at-epoch)
					}
					delete(timers, r.key)
				}
				out[r.key] += fmt.Sprintf("[%d]", totals[r.key])
			}
			for now := naiveTime(times, bound); ; {
				key, first := "", int64(math.MaxInt64)
				for k, at := range timers {
					if at < first || at == first && k < key {
						key, first = k, at
					}
				}
				if first > now {
					break
				}
				n := totals[key]
				out[key] += fmt.Sprintf("(%d@%d)", n, first-epoch)
				if delete(timers, key); n%2 != 0 {
					timers[key], totals[key] = first+7, n-1
				} else {
					delete(totals, key)
				}
			}
		}
	}
	return out, totals
}

// Whatever the batches are, and however often it is closed, killed or loses its power: the processor's rows are those of the records one by one.
func TestProcessOracle(t *testing.T) {
	oracleRun(t, 40, func(t *testing.T, seed uint64, counts map[string]int64) { processOracleCase(t, seed) })
}

func processOracleCase(t *testing.T, seed uint64) {
	ctx := context.Background()
	r := rand.New(rand.NewPCG(seed, 9))
	parts, bound := r.IntN(3)+1, int64(r.IntN(80)+20)
	db := embedlogtest.Open(t, &embedlogtest.Options{Seed: seed})
	var g *Graph
	var v *View[string, string]
	var kept *View[string, int64]
	var top *embedlog.Topic
	open := func() {
		var err error
		if top, err = db.EnsureTopic(ctx, "t", &embedlog.TopicConfig{Partitions: parts}); err != nil {
			t.Fatal(err)
		}
		o := newProcessTotals()
		g = NewGraph(db.DB, "g", &Options{CommitInterval: []time.Duration{ms, 10 * ms, time.Hour}[r.IntN(3)], MaxAhead: time.Duration(bound) * ms})
		rows := ProcessValues(From(top, codec.String, codec.Int64), "totals", o.process, o.totals, o.timers)
		v = Add(g, "out", Reduce(rows, func(a, b string) string { return a + b }))
		kept = Add(g, "totals", StateTable(rows, o.totals))
		if err := g.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	open()
	var log []timed
	check := func() {
		s, err := g.Snapshot(ctx)
		if err != nil {
			t.Fatalf("case %d: %v", seed, err)
		}
		defer s.Release()
		got, totals := map[string]string{}, map[string]int64{}
		for row, err := range v.In(s).All() {
			if err != nil {
				t.Fatal(err)
			}
			got[row.Key] = row.Value
		}
		for row, err := range kept.In(s).All() {
			if err != nil {
				t.Fatal(err)
			}
			totals[row.Key] = row.Value
		}
		want, wantTotals := naiveTotals(log, parts, bound)
		if !maps.Equal(got, want) || !maps.Equal(totals, wantTotals) {
			t.Fatalf("case %d, %d records, %d partitions, bound %d\n is %v %v\nnot %v %v", seed, len(log), parts, bound, got, totals, want, wantTotals)
		}
	}
	clock := int64(100)
	for range r.IntN(12) + 3 {
		switch r.IntN(8) {
		case 0:
			if err := g.Close(); err != nil {
				t.Fatal(err)
			}
			open()
		case 1:
			if r.IntN(2) == 0 {
				db.Crash()
			} else {
				db.Kill()
			}
			open()
		case 2:
			check()
		default:
			var recs []embedlog.Record
			for range r.IntN(20) + 1 {
				clock += int64(r.IntN(8))
				at := timed{record: record{key: fmt.Sprint("k", r.IntN(4)), val: int64(r.IntN(50)), null: r.IntN(20) == 0, tombstone: r.IntN(15) == 0, ms: epoch + clock}}
				if r.IntN(4) == 0 {
					at.ms += int64(r.IntN(200)) - 60
				}
				rec := embedlog.Record{Timestamp: time.UnixMilli(at.ms)}
				if !at.null {
					rec.Key = []byte(at.key)
					at.partition = embedlog.KeyPartition(rec.Key, parts)
				}
				if !at.tombstone {
					rec.Value = mustInt(at.val)
				}
				if recs = append(recs, rec); at.null {
					rec.Partition = 0
				}
				log = append(log, at)
			}
			for p := range int32(parts) { // one batch for each partition
				var batch []embedlog.Record
				for i, rec := range recs {
					if log[len(log)-len(recs)+i].partition == p {
						batch = append(batch, rec)
					}
				}
				if _, err := top.ProduceTo(ctx, p, batch...); err != nil && len(batch) > 0 {
					t.Fatal(err)
				}
			}
		}
	}
	check()
	if err := db.DB.Close(); err != nil {
		t.Fatal(err)
	}
}

// Timers of the machine's clock fire when it says so, also those that were due while nothing ran, and count once.
func TestWallClockTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		fs := vfs.NewMem()
		var db *embedlog.DB
		var v, kept *View[string, string]
		open := func() {
			var err error
			if db, err = embedlog.OpenFS(fs, &embedlog.Options{MaintenanceInterval: -1}); err != nil {
				t.Fatal(err)
			}
			top, err := db.EnsureTopic(ctx, "t", nil)
			if err != nil {
				t.Fatal(err)
			}
			last := NewKeyValueStore("last", codec.String, codec.String)
			var alarms *Timers[string, string, string]
			alarms = NewTimers("alarms", codec.String, WallClockTime, func(c *Context[string, string], key string, at time.Time) error {
				value, _ := last.Get(c, key)
				c.Forward(key, fmt.Sprintf("%s@%d ", value, at.UnixMilli()-epochOf(t)))
				if value == "twice" {
					last.Put(c, key, "once")
					alarms.Schedule(c, key, at.Add(time.Minute))
				}
				return nil
			})
			g := NewGraph(db, "g", nil)
			s := Process(From(top, codec.String, codec.String), "alarm", codec.String, func(c *Context[string, string], r Record[string, string]) error {
				last.Put(c, r.Key, r.Value)
				alarms.Schedule(c, r.Key, time.Now().Add(time.Minute))
				return nil
			}, last, alarms)
			v = Add(g, "fired", Reduce(s, func(a, b string) string { return a + b }))
			kept = Add(g, "last", StateTable(s, last))
			if err := g.Start(ctx); err != nil {
				t.Fatal(err)
			}
		}
		want := func(what, key, fired string) {
			t.Helper()
			synctest.Wait()
			if got, _, err := v.GetNow(ctx, key); got != fired || err != nil {
				t.Errorf("%s: %q, %v, want %q", what, got, err, fired)
			}
		}
		open()
		top, _ := db.Topic("t")
		for _, kv := range []string{"a=x", "b=twice"} {
			key, value, _ := strings.Cut(kv, "=")
			if _, err := top.Produce(ctx, embedlog.Record{Key: []byte(key), Value: []byte(value)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := v.Graph().CatchUp(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Second)
		want("before", "a", "")
		time.Sleep(2 * time.Second)
		want("a minute later", "a", "x@60000 ")
		want("a minute later", "b", "twice@60000 ")
		if got, _, err := kept.GetNow(ctx, "b"); got != "once" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		open()
		time.Sleep(10 * ms)
		want("after a restart", "b", "twice@60000 once@120000 ")
		want("once", "a", "x@60000 ")
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// epochOf is when the bubble's clock began.
func epochOf(*testing.T) int64 { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli() }

// A processor with timers, and what it appends, at a crash in any place.
func TestProcessCrashes(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 3))
	for i := range testcount.N(30) {
		k, power := r.IntN(800), i%2 == 0
		synctest.Test(t, func(t *testing.T) { processCrash(t, k, power, seed+uint64(i)) })
		if t.Failed() {
			t.Fatalf("seed %d, crash at operation %d, power %v", seed+uint64(i), k, power)
		}
	}
}

func processCrash(t *testing.T, k int, power bool, seed uint64) {
	ctx := context.Background()
	o := &embedlog.Options{MaintenanceInterval: -1}
	start := func(db *embedlog.DB) (g *Graph, in, out *embedlog.Topic, err error) {
		if in, err = db.EnsureTopic(ctx, "in", &embedlog.TopicConfig{Partitions: 2}); err != nil {
			return
		}
		if out, err = db.EnsureTopic(ctx, "out", &embedlog.TopicConfig{Partitions: 2}); err != nil {
			return
		}
		g = NewGraph(db, "g", &Options{CommitInterval: 5 * ms})
		p := newProcessTotals()
		To(g, ProcessValues(From(in, codec.String, codec.Int64), "totals", p.process, p.totals, p.timers), out)
		return g, in, out, g.Start(ctx)
	}
	next := int64(0)
	use := func(db *embedlog.DB, n int) error {
		g, in, _, err := start(db)
		if err != nil {
			return err
		}
		defer g.Close()
		for range n {
			next++
			rec := embedlog.Record{Key: fmt.Appendf(nil, "k%d", next%5), Value: mustInt(next * 3 % 17), Timestamp: time.UnixMilli(epochOf(t) + next*3)}
			if _, err := in.Produce(ctx, rec); err != nil {
				return err
			}
			if next%4 == 0 {
				time.Sleep(7 * ms)
			}
		}
		return g.Close()
	}
	fs := vfs.NewMem(vfs.CrashAt(k))
	if db, err := embedlog.OpenFS(fs, o); err == nil {
		use(db, 14)
		db.Close()
		if db, err = embedlog.OpenFS(fs, o); err == nil {
			use(db, 8)
			db.Close()
		}
	}
	after := fs.AfterKill()
	if power {
		after = fs.AfterCrash(vfs.Random(seed))
	}
	db, err := embedlog.OpenFS(after, o)
	if err != nil {
		t.Fatalf("open after the crash: %v", err)
	}
	defer db.Close()
	if err := use(db, 6); err != nil {
		t.Fatal(err)
	}
	g, in, out, err := start(db)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	var log []timed
	for rec, err := range in.Scan(ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
		n, err := codec.Int64.Decode(rec.Value)
		if err != nil {
			t.Fatal(err)
		}
		log = append(log, timed{record: record{key: string(rec.Key), val: n, partition: rec.Partition, ms: rec.Timestamp.UnixMilli()}})
	}
	got := map[string]string{}
	for rec, err := range out.Scan(ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
		got[string(rec.Key)] += strings.Trim(string(rec.Value), `"`)
	}
	if want, _ := naiveTotals(log, 2, defaultMaxAhead.Milliseconds()); !maps.Equal(got, want) {
		t.Errorf("appended %v, want %v", got, want)
	}
}

// Rows that stay under the key of a window stay in it, and expire with it.
func TestProcessValuesKeepsWindows(t *testing.T) {
	f := newFixture(t, 1)
	var v *View[WindowKey[string], int64]
	g := f.graphOf(atClose, func(g *Graph) {
		counts := Count(Windowed(f.stream(), Tumbling(10*ms).Retain(20*ms)))
		twice := ProcessValues(counts.Changes(), "twice", func(c *Context[WindowKey[string], int64], r Record[WindowKey[string], int64]) error {
			c.Forward(r.Key, r.Value)
			c.Forward(r.Key, r.Value)
			return nil
		})
		v = Add(g, "v", Count(twice))
	})
	f.at(f.top, "a=1@0 a=2@5 a=3@15")
	f.want("rows", windows(f, v), "a[0,10]=4 a[10,20]=2")
	f.at(f.top, "a=4@30")
	f.want("rows", windows(f, v), "a[10,20]=2 a[30,40]=2")
	f.close(g)
}
