package query

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog/codec"
)

// The oracle of windows: random definitions over random logs, out of order and with wrong clocks, compared with an evaluator that walks each
// partition's records in their order and knows nothing of changes, batches, stores or restarts; and with SQLite, unless clocks may be wrong.

// timed is a record for the evaluator, which gives it the stream time of its partition.
type timed struct {
	record
	stream int64
}

// naiveTime is the stream time after some records of a partition. It is computed from all of them.
func naiveTime(times []int64, bound int64) int64 {
	if bound < 0 {
		return slices.Max(times)
	}
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
	slides   Windows
	sessions SessionWindows
	joins    JoinWindows
	rekey    bool // by a new key, which has one task
	single   bool // one task, for whatever reason
	bound    int64
	parts    int
}

const noBound = 1 << 40 // of a record before the others, but the first one alone is not believed

// chooseWindows makes a case.
func chooseWindows(r *rand.Rand, o *circumstances) *windowCase {
	length := func(least, most int) time.Duration { return time.Duration(r.IntN(most-least+1)+least) * ms }
	c := &windowCase{rekey: r.IntN(2) == 0, parts: o.partitions}
	c.single = c.rekey || o.oneTask || o.partitions == 1
	c.bound = []int64{-1, noBound, int64(r.IntN(80) + 20), int64(r.IntN(80) + 20)}[r.IntN(4)]
	c.windows = Tumbling(length(1, 30))
	if r.IntN(2) == 0 {
		c.windows = Hopping(c.windows.size, length(1, int(c.windows.size/ms)))
	}
	c.windows = c.windows.Grace(length(0, 30))
	c.slides = Sliding(length(0, 25)).Grace(length(0, 30))
	c.sessions, c.joins = Session(length(1, 15)), Within(length(0, 20))
	if r.IntN(2) == 0 {
		c.windows, c.sessions = c.windows.Retain(length(0, 100)), c.sessions.Retain(length(0, 100))
		c.slides = c.slides.Retain(length(0, 100))
	}
	if r.IntN(2) == 0 {
		c.sessions, c.joins = c.sessions.Grace(length(0, 30)), c.joins.Grace(length(0, 30)).Before(length(0, 10))
	}
	return c
}

func (c *windowCase) key(r timed) string {
	if c.rekey {
		return fmt.Sprint("v", r.val%2)
	}
	return r.key
}

// naive is what the views are after some records.
func (c *windowCase) naive(records []record) map[string]map[string]int64 {
	log := make([]timed, len(records))
	for i := range log {
		log[i].record = records[i]
	}
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
			if c.single || p == partition {
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
	for _, name := range []string{"counts", "folds", "finals", "all finals", "late", "sessions", "final sessions", "all sessions", "pairs", "every final", "every final session", "slides", "slide folds", "final slides", "late slides"} {
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
		if r.topic != "a" || r.tombstone || r.null && !c.rekey {
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
			out["every final"][name] = g.n
		}
	}
	c.naiveSlides(log, mark, out)
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
				out["every final session"][name] = int64(j - i)
			}
			i = j
		}
	}
	inTime := func(r timed, topic string) bool {
		return r.topic == topic && !r.tombstone && (!r.null || c.rekey) &&
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

// naiveSlides moves a window over all rows of a key, a millisecond at a time: whenever there are other rows in it than before, it is a window.
func (c *windowCase) naiveSlides(log []timed, mark func(string, int32) int64, out map[string]map[string]int64) {
	perKey := map[string][]timed{}
	for _, r := range log {
		switch key := c.key(r); {
		case r.topic != "a" || r.tombstone || r.null && !c.rekey:
		case r.stream != math.MinInt64 && r.ms+c.slides.grace.Milliseconds() < r.stream:
			out["late slides"][key]++
		default:
			perKey[key] = append(perKey[key], r)
		}
	}
	d := c.slides.size.Milliseconds()
	for key, rows := range perKey {
		first, last := int64(math.MaxInt64), int64(0)
		for _, r := range rows {
			first, last = min(first, r.ms), max(last, r.ms)
		}
		before := []int(nil)
		for start := first - d; start <= last; start++ {
			var in []int
			for i, r := range rows {
				if r.ms >= start && r.ms <= start+d {
					in = append(in, i)
				}
			}
			if changed := !slices.Equal(in, before); len(in) > 0 && changed {
				name, end := fmt.Sprintf("%s[%d,%d]", key, start-epoch, start+d-epoch), start+d
				if now := mark("a", rows[in[0]].partition); end+c.slides.kept().Milliseconds() >= now {
					fold := int64(0)
					for _, i := range in {
						fold = c.slideFold(fold, rows[i].val)
					}
					out["slides"][name], out["slide folds"][name] = int64(len(in)), fold
					if end+c.slides.grace.Milliseconds() < now {
						out["final slides"][name] = int64(len(in))
					}
				}
			}
			before = in
		}
	}
}

// slideFold depends on the order of rows where that is determined.
func (c *windowCase) slideFold(acc, val int64) int64 {
	if c.single && c.parts > 1 {
		return acc + val
	}
	return (acc*31 + val + 1) % 1_000_003
}

// sql is a SELECT of the same: the view's name, a row's and its number.
func (c *windowCase) sql() string {
	ms := func(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }
	key, stream, mark := "k", "max(ms) OVER p", "last"
	if c.rekey {
		key = "'v'||(v%2)"
	}
	if c.bound == noBound {
		stream = "CASE WHEN row_number() OVER p=1 THEN NULL ELSE max(ms) OVER p END"
	}
	if c.single {
		mark = fmt.Sprintf("(SELECT min(o.last) FROM lasts o WHERE o.topic=lasts.topic HAVING count(o.last)=%d)", c.parts)
	}
	return strings.NewReplacer("$key", key, "$stream", stream, "$mark", mark, "$size", ms(c.windows.size), "$advance", ms(c.windows.advance),
		"$grace", ms(c.windows.grace), "$kept", ms(c.windows.kept()), "$gap", ms(c.sessions.gap), "$slate", ms(c.sessions.late()), "$skept", ms(c.sessions.kept()),
		"$before", ms(c.joins.before), "$after", ms(c.joins.after), "$jlate", ms(c.joins.late()), "$0", fmt.Sprint(epoch)).Replace(`
WITH times AS MATERIALIZED (SELECT *,$stream AS stream FROM log WINDOW p AS (PARTITION BY topic,part ORDER BY seq)),
lasts AS MATERIALIZED (SELECT topic,part,max(stream) AS last FROM times GROUP BY topic,part),
marks AS MATERIALIZED (SELECT topic,part,$mark AS now FROM lasts),
rows AS MATERIALIZED (SELECT topic,part,seq,$key AS key,v,ms,stream FROM times WHERE v IS NOT NULL AND $key IS NOT NULL),
placed AS MATERIALIZED (SELECT rows.*,ms-ms%$advance-n*$advance AS start FROM rows JOIN numbers ON n*$advance<$size-ms%$advance WHERE topic='a'),
groups AS MATERIALIZED (SELECT key,start,count(*) AS n,sum(v) AS total,(SELECT now FROM marks WHERE topic='a' AND marks.part=placed.part) AS now
	FROM placed WHERE stream IS NULL OR start+$size+$grace>stream GROUP BY key,start),
shown AS MATERIALIZED (SELECT key||'['||(start-$0)||','||(start+$size-$0)||']' AS name,n,total,start+$size+$grace<=now AS over FROM groups WHERE now IS NULL OR start+$size+$kept>now),
joined AS (SELECT *,ms-lag(ms) OVER k<=$gap AS joins FROM rows WHERE topic='a' AND (stream IS NULL OR ms+$slate>=stream) WINDOW k AS (PARTITION BY key ORDER BY ms,seq)),
numbered AS (SELECT *,count(*) FILTER (WHERE NOT coalesce(joins,0)) OVER (PARTITION BY key ORDER BY ms,seq) AS number FROM joined),
sessions AS MATERIALIZED (SELECT key,min(ms) AS start,max(ms) AS end,count(*) AS n,(SELECT now FROM marks WHERE topic='a' AND marks.part=numbered.part) AS now FROM numbered GROUP BY key,number),
kept AS MATERIALIZED (SELECT key||'['||(start-$0)||','||(end-$0)||']' AS name,n,end+$gap+$slate<now AS over FROM sessions WHERE now IS NULL OR end+$skept>=now),
timely AS MATERIALIZED (SELECT * FROM rows WHERE stream IS NULL OR ms+$jlate>=stream),
pairs AS MATERIALIZED (SELECT l.key,l.v AS lv,r.v AS rv,l.ms,l.part FROM timely l LEFT JOIN timely r ON r.topic='b' AND r.key=l.key AND r.ms BETWEEN l.ms-$before AND l.ms+$after WHERE l.topic='a')
SELECT 'counts',name,n FROM shown
UNION ALL SELECT 'folds',name,total FROM shown
UNION ALL SELECT 'finals',name,n FROM shown WHERE over
UNION ALL SELECT 'all finals',key,count(*) FROM groups WHERE start+$size+$grace<=now GROUP BY key
UNION ALL SELECT 'late',key,count(DISTINCT seq) FROM placed WHERE start+$size+$grace<=stream GROUP BY key
UNION ALL SELECT 'sessions',name,n FROM kept
UNION ALL SELECT 'final sessions',name,n FROM kept WHERE over
UNION ALL SELECT 'all sessions',key,count(*) FROM sessions WHERE end+$gap+$slate<now GROUP BY key
UNION ALL SELECT 'pairs',key||' '||lv||' '||coalesce(rv,'-'),count(*) FROM pairs
	WHERE rv IS NOT NULL OR ms+$after+$jlate<(SELECT now FROM marks WHERE topic='b' AND marks.part=pairs.part) GROUP BY 2`)
}

// windowViews are the views of a case in a graph.
type windowViews struct {
	windowed map[string]*View[WindowKey[string], int64]
	plain    map[string]*View[string, int64]
}

// build adds a case's views to a graph.
func (c *windowCase) build(l *life, g *Graph) (v windowViews, err error) {
	var streams [2]*Stream[string, int64]
	for i, name := range []string{"a", "b"} {
		top, err := l.db.Topic(name)
		if err != nil {
			return v, err
		}
		s := From(top, codec.String, codec.Int64)
		if c.rekey {
			s = Rekey(s, codec.String, func(key string, v int64) string { return c.key(timed{record: record{key: key, val: v}}) })
		}
		streams[i] = s
	}
	a, b := streams[0], streams[1]
	counts := Count(Windowed(a, c.windows))
	finals := Final(counts)
	slides := Count(Windowed(a, c.slides))
	sessions := CountSessions(a, c.sessions)
	finalSessions := Final(sessions)
	v.windowed = map[string]*View[WindowKey[string], int64]{
		"counts": Add(g, "counts", counts),
		"folds":  Add(g, "folds", Sum(Windowed(a, c.windows), func(_ WindowKey[string], v int64) int64 { return v })),
		"finals": Add(g, "finals", finals), "sessions": Add(g, "sessions", sessions), "final sessions": Add(g, "final-sessions", finalSessions),
		"slides": Add(g, "slides", slides), "final slides": Add(g, "final-slides", Final(slides)),
		"slide folds": Add(g, "slide-folds", Fold(Windowed(a, c.slides), codec.Int64, func(acc int64, _ WindowKey[string], v int64) int64 { return c.slideFold(acc, v) }, nil)),
	}
	v.plain = map[string]*View[string, int64]{"late": Add(g, "late", Count(Late(a, c.windows))), "late slides": Add(g, "late-slides", Count(Late(a, c.slides)))}
	if c.rekey {
		// A row for each time that something of a key was final. They have new keys, which is for one task.
		perKey := func(t *Table[WindowKey[string], int64]) *Table[string, int64] {
			return Count(Rekey(t.Changes(), codec.String, func(w WindowKey[string], _ int64) string { return w.Key }))
		}
		v.plain["all finals"] = Add(g, "all-finals", perKey(finals))
		v.plain["all sessions"] = Add(g, "all-sessions", perKey(finalSessions))
	}
	pairs := LeftJoinStreams(a, b, c.joins, func(key string, v int64, w *int64) string {
		if w == nil {
			return fmt.Sprint(key, " ", v, " -")
		}
		return fmt.Sprint(key, " ", v, " ", *w)
	})
	v.plain["pairs"] = Add(g, "pairs", Count(&Grouped[string, string]{linear("texts", pairs.n, false, func(buf []delta[string, string], d *delta[string, string]) []delta[string, string] {
		return append(buf, delta[string, string]{key: d.val, time: d.time, weight: d.weight})
	}), codec.String, codec.String}))
	return v, nil
}

// rows are the views' in a snapshot.
func (v *windowViews) rows(s *Snapshot) (map[string]map[string]int64, error) {
	out := map[string]map[string]int64{}
	for name, view := range v.windowed {
		out[name] = map[string]int64{}
		for row, err := range view.In(s).All() {
			if err != nil {
				return nil, err
			}
			out[name][windowText(row.Key)] += row.Value
		}
	}
	for name, view := range v.plain {
		out[name] = map[string]int64{}
		for row, err := range view.In(s).All() {
			if err != nil {
				return nil, err
			}
			out[name][row.Key] += row.Value // a pair's text can be in several tasks
		}
	}
	return out, nil
}

// compare compares the views of a snapshot with both oracles.
func (c *windowCase) compare(l *life, v *windowViews, s *Snapshot, log []record) error {
	got, err := v.rows(s)
	if err != nil {
		return err
	}
	want := c.naive(log)
	if c.bound == -1 || c.bound == noBound {
		l.counts["views compared with SQLite"] += int64(len(got))
		lite := sqliteOf(l.T)
		lite.load(l.T, sqlRows(log))
		selected := lite.answers(l.T, c.sql())
		for name := range got {
			if slide := strings.Contains(name, "slide"); !slide && !maps.Equal(want[name], selected[name]) { // of sliding windows there is no SELECT
				return fmt.Errorf("the oracles differ: %s of %v\n%s\nSQLite  %v\nnaively %v\nlog %s", name, c, c.sql(), selected[name], want[name], logText(log))
			}
		}
	}
	for name := range got {
		if l.counts["views compared"]++; len(want[name]) > 0 {
			l.counts["of them with rows"]++
		}
		if !maps.Equal(got[name], want[name]) {
			return fmt.Errorf("%v\n%v\n%s\n is %v\nnot %v\nlog %s\n%s", &l.circumstances, c, name, got[name], want[name], logText(log), strings.Join(l.steps, "\n"))
		}
	}
	return nil
}

func (c *windowCase) String() string {
	return fmt.Sprintf("%v\n%v\n%v\n%v\nnew keys %v, one task %v, bound %d", c.windows, c.slides, c.sessions, c.joins, c.rekey, c.single, c.bound)
}

func TestWindowOracle(t *testing.T) { oracleRun(t, 100, windowOracleCase) }

func windowOracleCase(t *testing.T, seed uint64, counts map[string]int64) {
	r := rand.New(rand.NewPCG(seed, 8))
	o := choose(r)
	c := chooseWindows(r, &o)
	var views windowViews
	l := newLife(t, r, o, func(l *life) (*Graph, error) {
		g := l.graph(l.db, Options{MaxAhead: time.Duration(c.bound) * ms})
		var err error
		if views, err = c.build(l, g); err != nil {
			return nil, err
		}
		return g, g.Start(l.ctx)
	})
	defer func() { maps.Copy(counts, l.counts) }()
	check := func(all bool) {
		l.view(all, func(s *Snapshot, log []record) error { return c.compare(l, &views, s, log) })
	}
	clock := newWindowClock(r)
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
			l.produce(clock.records(r.IntN(12) + 1))
		}
	}
	check(true)
	l.end(r.IntN(10) == 0)
}

// windowClock makes records whose times are out of order, and some of which are of a wrong clock.
type windowClock struct {
	r                *rand.Rand
	now              int64
	keys, step, late int
}

func newWindowClock(r *rand.Rand) *windowClock {
	return &windowClock{r: r, now: 100, keys: r.IntN(4) + 1, step: []int{3, 8, 20}[r.IntN(3)], late: []int{20, 60}[r.IntN(2)]}
}

func (c *windowClock) records(n int) (recs []record) {
	r := c.r
	for range n {
		c.now += int64(r.IntN(c.step))
		rec := record{topic: "a", key: fmt.Sprint("k", r.IntN(c.keys)), val: int64(r.IntN(50)), null: r.IntN(20) == 0, tombstone: r.IntN(15) == 0}
		if r.IntN(3) == 0 {
			rec.topic = "b"
		}
		switch rec.ms = epoch + c.now; r.IntN(12) {
		case 0, 1, 2:
			rec.ms -= int64(r.IntN(c.late))
		case 3:
			rec.ms += int64(r.IntN(300)) // a wrong clock
		case 4:
			c.now += int64(r.IntN(40))
		}
		if rec.null {
			rec.key = ""
		}
		if rec.tombstone {
			rec.val = 0
		}
		recs = append(recs, rec)
	}
	return recs
}
