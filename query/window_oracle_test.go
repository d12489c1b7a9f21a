package query

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
	"github.com/x/embedlog/internal/testcount"
)

// The oracle of windows: random definitions over random logs, out of order and with wrong clocks, compared with an evaluator that walks each
// partition's records in their order and knows nothing of changes, batches, stores or restarts.

// timed is a record as it was acknowledged. The evaluator gives it the stream time of its partition.
type timed struct {
	topic     string
	partition int32
	key       string
	val       int64
	null      bool
	tombstone bool
	ms        int64
	stream    int64
}

// naiveTime is the stream time after some records of a partition. It is computed from all of them.
func naiveTime(times []int64, bound int64) int64 {
	now, first, run := int64(math.MinInt64), int64(math.MinInt64), []int64(nil)
	for _, x := range times {
		base := now
		if base == math.MinInt64 {
			base = first
		}
		switch {
		case base == math.MinInt64:
			first = x
		case x-base > bound:
			run = append(run, x)
			if len(run) == 10 {
				now = slices.Min(run)
				for moved := true; moved; {
					moved = false
					for _, y := range run {
						if y > now && y-now <= bound {
							now, moved = y, true
						}
					}
				}
				run = slices.DeleteFunc(slices.Clone(run), func(y int64) bool { return y <= now })
			}
			continue
		case now != math.MinInt64:
			now = max(now, x)
		case first-x > bound:
			first = x
		default:
			now = max(first, x)
		}
		run = nil
	}
	return now
}

// windowCase is a case of the oracle: what is computed of two topics.
type windowCase struct {
	windows  Windows
	sessions SessionWindows
	joins    JoinWindows
	oneTask  bool // by a new key, of all partitions
	bound    int64
	parts    int
}

func (c *windowCase) key(r timed) string {
	if c.oneTask {
		return fmt.Sprint("v", r.val%2)
	}
	return r.key
}

// naive is what the views are after some records.
func (c *windowCase) naive(log []timed) map[string]map[string]int64 {
	type place struct {
		topic     string
		partition int32
	}
	seen := map[place][]int64{}
	streams := map[place]int64{}
	for i := range log {
		at := place{log[i].topic, log[i].partition}
		seen[at] = append(seen[at], log[i].ms)
		log[i].stream = naiveTime(seen[at], c.bound)
		streams[at] = log[i].stream
	}
	// mark is how far the task of a partition is with a topic.
	mark := func(topic string, partition int32) int64 {
		least := int64(math.MaxInt64)
		for p := range int32(c.parts) {
			if c.oneTask || p == partition {
				now, ok := streams[place{topic, p}]
				if !ok {
					now = math.MinInt64
				}
				least = min(least, now)
			}
		}
		return least
	}
	out := map[string]map[string]int64{}
	for _, name := range []string{"counts", "folds", "finals", "all finals", "late", "sessions", "final sessions", "all sessions", "pairs"} {
		out[name] = map[string]int64{}
	}
	size, advance := c.windows.size.Milliseconds(), c.windows.advance.Milliseconds()
	grace, kept := c.windows.grace.Milliseconds(), c.windows.kept().Milliseconds()
	type group struct {
		key        string
		start, end int64
		part       int32
		n, sum     int64
	}
	groups := map[string]*group{}
	perKey := map[string][]timed{} // accepted for sessions
	for _, r := range log {
		if r.topic != "a" || r.tombstone || r.null && !c.oneTask {
			continue
		}
		key := c.key(r)
		late := false
		for start := r.ms - r.ms%advance; start > r.ms-size; start -= advance {
			if r.stream != math.MinInt64 && start+size+grace <= r.stream {
				late = true
				continue
			}
			name := fmt.Sprintf("%s[%d,%d]", key, start-epoch, start+size-epoch)
			if groups[name] == nil {
				groups[name] = &group{key: key, start: start, end: start + size, part: r.partition}
			}
			groups[name].n++
			groups[name].sum = groups[name].sum + r.val
		}
		if late {
			out["late"][key]++
		}
		if r.stream == math.MinInt64 || r.ms+c.sessions.late().Milliseconds() >= r.stream {
			perKey[key] = append(perKey[key], r)
		}
	}
	for name, g := range groups {
		now := mark("a", g.part)
		if g.end+kept > now {
			out["counts"][name] = g.n
			out["folds"][name] = g.sum
			if g.end+grace <= now {
				out["finals"][name] = g.n
			}
		}
		if g.end+grace <= now {
			out["all finals"][g.key]++
		}
	}
	gap := c.sessions.gap.Milliseconds()
	for key, rows := range perKey {
		slices.SortStableFunc(rows, func(a, b timed) int { return int(a.ms - b.ms) })
		for i := 0; i < len(rows); {
			j := i + 1
			for j < len(rows) && rows[j].ms-rows[j-1].ms <= gap {
				j++
			}
			now, end := mark("a", rows[i].partition), rows[j-1].ms
			name := fmt.Sprintf("%s[%d,%d]", key, rows[i].ms-epoch, end-epoch)
			over := end+gap+c.sessions.late().Milliseconds() < now
			if end+c.sessions.kept().Milliseconds() >= now {
				out["sessions"][name] = int64(j - i)
				if over {
					out["final sessions"][name] = int64(j - i)
				}
			}
			if over {
				out["all sessions"][key]++
			}
			i = j
		}
	}
	inTime := func(r timed, topic string) bool {
		return r.topic == topic && !r.tombstone && (!r.null || c.oneTask) &&
			(r.stream == math.MinInt64 || r.ms+c.joins.late().Milliseconds() >= r.stream)
	}
	for _, l := range log {
		if !inTime(l, "a") {
			continue
		}
		matched := false
		for _, r := range log {
			if inTime(r, "b") && c.key(l) == c.key(r) && r.ms >= l.ms-c.joins.before.Milliseconds() && r.ms <= l.ms+c.joins.after.Milliseconds() {
				matched = true
				out["pairs"][fmt.Sprint(c.key(l), " ", l.val, " ", r.val)]++
			}
		}
		if !matched && l.ms+(c.joins.after+c.joins.late()).Milliseconds() < mark("b", l.partition) {
			out["pairs"][fmt.Sprint(c.key(l), " ", l.val, " -")]++
		}
	}
	return out
}

func TestWindowOracle(t *testing.T) {
	if *oracleSeed != 0 {
		windowOracleCase(t, *oracleSeed)
		return
	}
	runs := *oracleRuns
	if runs == 0 {
		runs = testcount.N(60)
	}
	for seed := *oracleFrom; seed < *oracleFrom+uint64(runs); seed++ {
		if windowOracleCase(t, seed); t.Failed() {
			t.Fatalf("case %d failed: go test -run TestWindowOracle ./query -oracle.seed %d", seed, seed)
		}
	}
}

func windowOracleCase(t *testing.T, seed uint64) {
	ctx := context.Background()
	r := rand.New(rand.NewPCG(seed, 8))
	length := func(least, most int) time.Duration { return time.Duration(r.IntN(most-least+1)+least) * ms }
	c := &windowCase{oneTask: r.IntN(3) == 0, parts: r.IntN(3) + 1, bound: int64(r.IntN(80) + 20)}
	if r.IntN(2) == 0 {
		c.bound = 1 << 40
	}
	c.windows = Tumbling(length(1, 30))
	if r.IntN(2) == 0 {
		c.windows = Hopping(c.windows.size, length(1, int(c.windows.size/ms)))
	}
	c.windows = c.windows.Grace(length(0, 30))
	c.sessions, c.joins = Session(length(1, 15)), Within(length(0, 20))
	if r.IntN(2) == 0 {
		c.windows, c.sessions = c.windows.Retain(length(0, 100)), c.sessions.Retain(length(0, 100))
	}
	if r.IntN(2) == 0 {
		c.sessions, c.joins = c.sessions.Grace(length(0, 30)), c.joins.Grace(length(0, 30)).Before(length(0, 10))
	}
	db := embedlogtest.Open(t, &embedlogtest.Options{Seed: seed})
	stores := new(MemStores)
	intervals := []time.Duration{ms, 10 * ms, time.Hour}
	var g *Graph
	windowed := map[string]*View[WindowKey[string], int64]{}
	plain := map[string]*View[string, int64]{}
	open := func() {
		topic := func(name string) *embedlog.Topic {
			top, err := db.EnsureTopic(ctx, name, &embedlog.TopicConfig{Partitions: c.parts})
			if err != nil {
				t.Fatal(err)
			}
			return top
		}
		stream := func(name string) *Stream[string, int64] {
			s := From(topic(name), codec.String, codec.Int64)
			if c.oneTask {
				s = Rekey(s, codec.String, func(key string, v int64) string { return c.key(timed{key: key, val: v}) })
			}
			return s
		}
		o := &Options{CommitInterval: intervals[r.IntN(3)], MaxAhead: time.Duration(c.bound) * ms, CheckpointInterval: 1}
		if seed%3 == 0 {
			o.Store, o.CacheBytes = stores, 1
		}
		g = NewGraph(db.DB, "g", o)
		if seed%2 == 0 {
			g.checkpointAfter = 1
		}
		a, b := stream("a"), stream("b")
		// A row for each time that something of a key was final. They have new keys, which is for one task.
		perKey := func(t *Table[WindowKey[string], int64]) *Table[string, int64] {
			return Count(Rekey(t.Changes(), codec.String, func(w WindowKey[string], _ int64) string { return w.Key }))
		}
		counts := Count(Windowed(a, c.windows))
		folds := Sum(Windowed(a, c.windows), func(_ WindowKey[string], v int64) int64 { return v })
		sessions := CountSessions(a, c.sessions)
		for name, table := range map[string]*Table[WindowKey[string], int64]{"counts": counts, "folds": folds, "finals": Final(counts),
			"sessions": sessions, "final sessions": Final(sessions)} {
			windowed[name] = &View[WindowKey[string], int64]{t: table}
		}
		for _, name := range slices.Sorted(maps.Keys(windowed)) {
			windowed[name] = Add(g, dashed(name), windowed[name].t)
		}
		if c.oneTask {
			plain["all finals"] = Add(g, "all-finals", perKey(windowed["finals"].t))
			plain["all sessions"] = Add(g, "all-sessions", perKey(windowed["final sessions"].t))
		}
		plain["late"] = Add(g, "late", Count(Late(a, c.windows)))
		pairs := LeftJoinStreams(a, b, c.joins, func(key string, v int64, w *int64) string {
			if w == nil {
				return fmt.Sprint(key, " ", v, " -")
			}
			return fmt.Sprint(key, " ", v, " ", *w)
		})
		plain["pairs"] = Add(g, "pairs", Count(&Grouped[string, string]{linear("texts", pairs.n, false, func(buf []delta[string, string], d *delta[string, string]) []delta[string, string] {
			return append(buf, delta[string, string]{key: d.val, time: d.time, weight: d.weight})
		}), codec.String, codec.String}))
		if err := g.Start(ctx); err != nil {
			t.Fatalf("case %d: %v\n%s", seed, err, g.Describe())
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
		want := c.naive(log)
		for name, want := range want {
			got := map[string]int64{}
			if v := windowed[name]; v != nil {
				for row, err := range v.In(s).All() {
					if err != nil {
						t.Fatal(err)
					}
					got[windowText(row.Key)] += row.Value
				}
			} else if plain[name] == nil {
				continue
			} else {
				for row, err := range plain[name].In(s).All() {
					if err != nil {
						t.Fatal(err)
					}
					got[row.Key] += row.Value // a pair's text can be in several tasks
				}
			}
			if !maps.Equal(got, want) {
				for i := range log {
					log[i].ms -= epoch
					log[i].stream -= epoch
				}
				t.Fatalf("case %d, %d records, %d partitions, one task %v, bound %d\n%v\n%v\n%v\n%s\n is %v\nnot %v\nlog %+v", seed, len(log), c.parts, c.oneTask, c.bound, c.windows, c.sessions, c.joins, name, got, want, log)
			}
		}
	}
	clock := int64(100)
	produce := func(n int) {
		for range n {
			clock += int64(r.IntN(8))
			at := timed{topic: "a", key: fmt.Sprint("k", r.IntN(4)), val: int64(r.IntN(50)), null: r.IntN(20) == 0, tombstone: r.IntN(15) == 0}
			if r.IntN(3) == 0 {
				at.topic = "b"
			}
			switch at.ms = epoch + clock; r.IntN(12) {
			case 0, 1, 2:
				at.ms -= int64(r.IntN(60))
			case 3:
				at.ms += int64(r.IntN(300)) // a wrong clock
			case 4:
				clock += int64(r.IntN(40))
			}
			rec := embedlog.Record{Timestamp: time.UnixMilli(at.ms), Topic: at.topic}
			if !at.null {
				rec.Key = []byte(at.key)
			}
			if !at.tombstone {
				rec.Value = mustInt(at.val)
			}
			top, err := db.Topic(at.topic)
			if err != nil {
				t.Fatal(err)
			}
			pos, err := top.Produce(ctx, rec)
			if err != nil {
				t.Fatal(err)
			}
			at.partition = pos[0].Partition
			log = append(log, at)
		}
	}
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
			stores.Forget(rand.New(rand.NewPCG(seed, uint64(len(log)))))
			open()
		case 2:
			check()
		default:
			produce(r.IntN(12) + 1)
		}
	}
	check()
	if err := db.DB.Close(); err != nil {
		t.Fatal(err)
	}
}

// dashed is a name as topics may have it.
func dashed(name string) string {
	b := []byte(name)
	for i := range b {
		if b[i] == ' ' {
			b[i] = '-'
		}
	}
	return string(b)
}
