package query

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
)

// epoch is when the times of the tests begin: a multiple of all their windows. It is today, because old records are deleted.
var epoch = time.Now().Truncate(time.Hour).UnixMilli()

// at produces "key=value@ms" in the partition of the key, or "p:key=value@ms" in partition p; the key - is none.
func (f *fixture) at(top *embedlog.Topic, rows string) {
	f.Helper()
	for _, row := range strings.Fields(rows) {
		part, rest, placed := strings.Cut(row, ":")
		if !placed {
			rest = part
		}
		rest, ms, _ := strings.Cut(rest, "@")
		key, value, ok := strings.Cut(rest, "=")
		rec := embedlog.Record{Timestamp: time.UnixMilli(epoch + f.int(ms))}
		if key != "-" {
			rec.Key = []byte(key)
		}
		if ok {
			rec.Value = []byte(value)
		}
		var err error
		if placed {
			_, err = top.ProduceTo(f.ctx, int32(f.int(part)), rec)
		} else {
			_, err = top.Produce(f.ctx, rec)
		}
		if err != nil {
			f.Fatal(err)
		}
	}
}

func (f *fixture) int(text string) int64 {
	f.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		f.Fatal(err)
	}
	return n
}

// windows are a view's rows as "key[start,end]=value", in milliseconds.
func windows[K, V any](f *fixture, v *View[WindowKey[K], V]) string {
	f.Helper()
	var list []string
	for row, err := range v.All(f.ctx) {
		if err != nil {
			f.Fatal(err)
		}
		list = append(list, fmt.Sprintf("%s=%v", windowText(row.Key), row.Value))
	}
	return strings.Join(list, " ")
}

func windowText[K any](w WindowKey[K]) string {
	return fmt.Sprintf("%v[%d,%d]", w.Key, w.Start.UnixMilli()-epoch, w.End.UnixMilli()-epoch)
}

const ms = time.Millisecond

// graphOf starts a graph; add gives it what it is to compute.
func (f *fixture) graphOf(o *Options, add func(g *Graph)) *Graph {
	f.Helper()
	g := NewGraph(f.db.DB, "g", o)
	add(g)
	if err := g.Start(f.ctx); err != nil {
		f.Fatal(err)
	}
	return g
}

func (f *fixture) close(g *Graph) {
	f.Helper()
	if err := g.Close(); err != nil {
		f.Fatal(err)
	}
}

func TestTumbling(t *testing.T) {
	f := newFixture(t, 1)
	def := Tumbling(10 * ms).Grace(5 * ms).Retain(30 * ms)
	var counts, finals *View[WindowKey[string], int64]
	g := f.graphOf(atClose, func(g *Graph) {
		table := Count(Windowed(f.stream(), def))
		counts, finals = Add(g, "counts", table), Add(g, "finals", Final(table))
		To(g, Late(f.stream(), def), f.topic("late", 1))
	})
	defer f.close(g)
	f.at(f.top, "a=1@0 a=2@9 b=3@10 -=0@11 a=4@9") // 9 after 11 is in its window still
	f.want("counts", windows(f, counts), "a[0,10]=3 b[10,20]=1")
	f.want("finals", windows(f, finals), "")
	f.at(f.top, "b=5@14 a=6@3") // 14 is not past 10+5
	f.want("finals", windows(f, finals), "")
	f.at(f.top, "b=7@15 a=8@9 a=9@9") // now it is, and what belongs there is late
	f.want("counts", windows(f, counts), "a[0,10]=4 b[10,20]=3")
	f.want("finals", windows(f, finals), "a[0,10]=4")
	if v, ok, err := finals.Get(f.ctx, WindowKey[string]{"a", time.UnixMilli(epoch), time.UnixMilli(epoch + 10)}); v != 4 || !ok || err != nil {
		t.Errorf("get: %d, %v, %v", v, ok, err)
	}
	f.at(f.top, "b=0@39")
	f.want("counts", windows(f, counts), "a[0,10]=4 b[10,20]=3 b[30,40]=1")
	f.at(f.top, "b=0@40") // 10+30
	f.want("counts", windows(f, counts), "b[10,20]=3 b[30,40]=1 b[40,50]=1")
	f.want("finals", windows(f, finals), "b[10,20]=3")
	if s := g.Stats(); s.Late != 2 || s.NoKey != 1 {
		t.Errorf("late %d, without a key %d", s.Late, s.NoKey)
	}
	f.close(g)
	f.want("late rows", f.records("late"), "a=8 a=9")
}

func TestHopping(t *testing.T) {
	f := newFixture(t, 1)
	var v *View[WindowKey[string], int64]
	g := f.graphOf(nil, func(g *Graph) { v = Add(g, "v", Count(Windowed(f.stream(), Hopping(10*ms, 4*ms)))) })
	defer f.close(g)
	f.at(f.top, "a=1@0 a=2@9 a=3@8")
	f.want("rows", windows(f, v), "a[-8,2]=1 a[-4,6]=1 a[0,10]=3 a[4,14]=2 a[8,18]=2")
	f.at(f.top, "a=4@10 a=5@9") // 9 is late for [0,10) only
	f.want("rows", windows(f, v), "a[-8,2]=1 a[-4,6]=1 a[0,10]=3 a[4,14]=4 a[8,18]=4")
	if n := g.Stats().Late; n != 1 {
		t.Errorf("late: %d", n)
	}
}

// Every aggregate has windows, and none leaves anything behind.
func TestWindowsExpire(t *testing.T) {
	for _, partitions := range []int{1, 3} {
		f := newFixture(t, partitions)
		number := func(_ string, v string) int64 { return f.int(v) }
		windowed := Windowed(MapValues(f.stream(), number), Tumbling(10*ms).Grace(5*ms))
		value := func(_ WindowKey[string], n int64) int64 { return n }
		add := func(acc int64, _ WindowKey[string], n int64) int64 { return acc*10 + n }
		fold := Fold(windowed, codec.Int64, add, nil)
		tables := map[string]*Table[WindowKey[string], int64]{
			"sum": Sum(windowed, value), "min": Min(windowed, value), "max": Max(windowed, value), "fold": fold, "final": Final(fold),
			"distinct": CountDistinct(windowed, codec.Int64, value),
			"top":      MapTable(TopN(windowed, 2, value), func(_ WindowKey[string], top []int64) int64 { return top[0]*10 + top[len(top)-1] }),
			"join":     Join(fold, Count(windowed), func(_ WindowKey[string], a, b int64) int64 { return a*10 + b }),
			"of table": Count(fold),
		}
		views := map[string]*View[WindowKey[string], int64]{}
		g := f.graphOf(&Options{CommitInterval: ms}, func(g *Graph) {
			for _, name := range slices.Sorted(slices.Values([]string{"sum", "min", "max", "fold", "final", "distinct", "top", "join", "of table"})) {
				views[name] = Add(g, strings.ReplaceAll(name, " ", "-"), tables[name])
			}
			Add(g, "keys", Count(GroupBy(fold, codec.String, func(w WindowKey[string], _ int64) string { return w.Key })))
		})
		f.at(f.top, "a=3@1 a=1@2 a=3@3 a=2@4")
		for name, want := range map[string]string{"sum": "9", "min": "1", "max": "3", "fold": "3132", "final": "", "distinct": "3", "top": "33", "join": "31324", "of table": "1"} {
			if want != "" {
				want = "a[0,10]=" + want
			}
			f.want(name, windows(f, views[name]), want)
		}
		// The time goes on in all partitions, with records that are in no window.
		for p := range partitions {
			for range 2 {
				f.at(f.top, fmt.Sprintf("%d:-=0@%d", p, 100))
			}
		}
		if err := g.CatchUp(f.ctx); err != nil {
			t.Fatal(err)
		}
		f.empty(g)
		f.close(g)
	}
}

// atClose has a graph commit when it is closed, and not before: what tests look at then is there.
var atClose = &Options{CommitInterval: time.Hour}

// soon waits until a topic has some records.
func (f *fixture) soon(what, topic, want string) {
	f.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		got := f.records(topic)
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			f.Fatalf("%s: %q, want %q", what, got, want)
		}
	}
}

// empty waits until a graph has neither rows nor entries in its stores, nor rows in its changelogs.
func (f *fixture) empty(g *Graph) {
	f.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		tasks, err := g.all(f.ctx)
		if err != nil {
			f.Fatal(err)
		}
		entries, rows := 0, 0
		for _, task := range tasks {
			task.clock.RLock()
			for _, s := range task.stores {
				entries += s.entries()
			}
			task.clock.RUnlock()
		}
		if entries == 0 { // what is committed is on its way to the changelogs at least
			for _, s := range tasks[0].stores {
				rows += f.changelogRows(g.changelogName(s.label()))
			}
			if rows == 0 {
				return
			}
		}
		if time.Now().After(deadline) {
			f.Fatalf("%d entries and %d rows of changelogs are left", entries, rows)
		}
	}
}

func (f *fixture) changelogRows(name string) int {
	f.Helper()
	top, err := f.db.Topic(name)
	if err != nil {
		f.Fatal(err)
	}
	rows := map[string]bool{}
	for rec, err := range top.Scan(f.ctx, nil) {
		if err != nil {
			f.Fatal(err)
		}
		if rows[string(rec.Key)] = true; rec.Value == nil {
			delete(rows, string(rec.Key))
		}
	}
	return len(rows)
}

// What was late stays late after a restart, and what was final is not final again.
func TestWindowsAfterRestart(t *testing.T) {
	f := newFixture(t, 1)
	sink := f.topic("out", 1)
	var v *View[WindowKey[string], int64]
	start := func() *Graph {
		return f.graphOf(atClose, func(g *Graph) {
			table := Count(Windowed(f.stream(), Tumbling(10*ms).Retain(100*ms)))
			v = Add(g, "v", table)
			To(g, Map(Final(table).Changes(), codec.String, func(w WindowKey[string], n int64) (string, string) {
				return w.Key, fmt.Sprint(n, "@", w.End.UnixMilli()-epoch)
			}), sink)
		})
	}
	g := start()
	f.at(f.top, "a=1@1 a=2@2 b=3@12")
	f.want("rows", windows(f, v), "a[0,10]=2 b[10,20]=1")
	f.close(g)
	g = start()
	f.at(f.top, "a=4@3 a=5@13")
	f.want("rows", windows(f, v), "a[0,10]=2 a[10,20]=1 b[10,20]=1")
	f.close(g)
	g = start()
	f.at(f.top, "a=6@22")
	f.want("rows", windows(f, v), "a[0,10]=2 a[10,20]=1 a[20,30]=1 b[10,20]=1")
	if n := g.Stats().Late; n != 0 {
		t.Errorf("late since the start: %d", n)
	}
	f.close(g)
	f.want("finals", f.records("out"), "a=2@10 a=1@20 b=1@20")
}

// Of several partitions each has its own time, and what is over is over in all.
func TestPartitionsHaveTheirTimes(t *testing.T) {
	f := newFixture(t, 2)
	var v, final *View[WindowKey[string], int64]
	g := f.graphOf(nil, func(g *Graph) {
		one := GroupBy(f.stream(), codec.String, func(string, string) string { return "all" })
		table := Count(Windowed(one, Tumbling(10*ms).Retain(100*ms)))
		v, final = Add(g, "v", table), Add(g, "final", Final(table))
	})
	defer f.close(g)
	f.at(f.top, "0:a=1@1 0:a=1@50 1:a=1@2 1:a=1@3") // late in partition 0 only
	f.want("rows", windows(f, v), "all[0,10]=3 all[50,60]=1")
	f.want("final", windows(f, final), "")
	f.at(f.top, "0:a=1@4 1:a=1@12")
	f.want("rows", windows(f, v), "all[0,10]=3 all[10,20]=1 all[50,60]=1")
	f.want("final", windows(f, final), "all[0,10]=3")
}

func TestFarAhead(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"nothing", "", "?"},
		{"the first alone", "5", "?"},
		{"two", "5 6", "6"},
		{"back", "6 5", "6"},
		{"within the bound", "5 105", "105"},
		{"ahead", "5 6 107", "6"},
		{"ahead again and again, but not in a row", "5 6 200 6 200 6 200 6 200 6 200 6 200 6 200 6 200 6 200 6 200", "6"},
		{"ten in a row", "5 6 200 201 202 203 204 205 206 207 208 209", "209"},
		{"ten in a row, of which some are further ahead", "5 6 200 201 1000 203 204 205 206 207 208 209 1001 1002 1003 1004 1005 1006 1007 1008 1009", "1009"},
		{"each far ahead of the last", "0 1 200 400 600 800 1000 1200 1400 1600 1800 2000 2200", "400"},
		{"the first is wrong, ahead", "9000 5 6", "6"},
		{"the first is wrong, behind", "1 900 901 902 903 904 905 906 907 908 909", "909"},
		{"no time", "5 6 -1 7", "7"},
		{"the last of times", "5 6 9223372036854775807 8", "8"},
	} {
		s := newStreamTime()
		for _, text := range strings.Fields(c.in) {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			s.see(n, 100)
		}
		got := fmt.Sprint(s.Time)
		if s.Time == unknownTime {
			got = "?"
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	s := newStreamTime()
	if s.see(math.MaxInt64, -1); s.Time != math.MaxInt64 {
		t.Error("without a bound:", s.Time)
	}
}

// A clock that is a year ahead closes nothing.
func TestWrongClock(t *testing.T) {
	f := newFixture(t, 1)
	var v *View[WindowKey[string], int64]
	g := f.graphOf(&Options{CommitInterval: time.Hour}, func(g *Graph) {
		v = Add(g, "v", Count(Windowed(f.stream(), Tumbling(10*ms))))
	})
	defer f.close(g)
	f.at(f.top, "a=1@1 a=1@2 a=1@31536000000 a=1@3 a=1@4")
	f.want("rows", windows(f, v), "a[0,10]=4 a[31536000000,31536000010]=1")
}

func TestWrongWindows(t *testing.T) {
	f := newFixture(t, 1)
	for name, table := range map[string]*Table[WindowKey[string], int64]{
		"size is 0s":         Count(Windowed(f.stream(), Tumbling(0))),
		"size is 1.5ms":      Count(Windowed(f.stream(), Tumbling(1500*time.Microsecond))),
		"advance is 2ms":     Count(Windowed(f.stream(), Hopping(ms, 2*ms))),
		"advance is 1ms for": Count(Windowed(f.stream(), Hopping(time.Minute, ms))),
		"grace is -1ms":      Count(Windowed(f.stream(), Tumbling(ms).Grace(-ms))),
		ErrNotStream.Error(): Count(Windowed(f.table(), Tumbling(ms))),
		errNoWindows.Error(): Final(MapTable(TableFrom(f.top, WindowCodec[string]{codec.String}, codec.String), func(WindowKey[string], string) int64 { return 0 })),
		"late: " + ErrNotStream.Error(): func() *Table[WindowKey[string], int64] {
			return Count(Windowed(Late(f.table(), Tumbling(ms)), Tumbling(ms)))
		}(),
	} {
		g := NewGraph(f.db.DB, "g", nil)
		Add(g, "v", table)
		if err := g.Start(f.ctx); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := errors.Join(Tumbling(ms).check(), Hopping(10*time.Second, ms).check()); err != nil {
		t.Error(err)
	}
}

// The bytes of windows' keys are in the order of the keys', of the starts and of the ends; and nothing but them is decoded.
func TestWindowCodec(t *testing.T) {
	c := WindowCodec[[]byte]{codec.Bytes}
	r := rand.New(rand.NewPCG(1, 2))
	type part struct {
		key        []byte
		start, end int64
	}
	var list []part
	for range 60 {
		p := part{make([]byte, r.IntN(4)), r.Int64N(5) - 2, r.Int64N(5) - 2}
		for i := range p.key {
			p.key[i] = []byte{0, 1, 254, 255}[r.IntN(4)]
		}
		list = append(list, p)
	}
	encode := func(p part) []byte {
		b, err := c.Append(nil, WindowKey[[]byte]{p.key, time.UnixMilli(p.start), time.UnixMilli(p.end)})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, a := range list {
		b := encode(a)
		w, err := c.Decode(b)
		if err != nil || !bytes.Equal(w.Key, a.key) || w.Start.UnixMilli() != a.start || w.End.UnixMilli() != a.end {
			t.Errorf("%v is decoded as %v: %v", a, w, err)
		}
		if got := c.place(b); !bytes.Equal(got, a.key) {
			t.Errorf("%v has its place by %v", a, got)
		}
		for _, o := range list {
			want := bytes.Compare(a.key, o.key)
			for _, p := range [][2]int64{{a.start, o.start}, {a.end, o.end}} {
				if want == 0 && p[0] != p[1] {
					if want = 1; p[0] < p[1] {
						want = -1
					}
				}
			}
			if got := bytes.Compare(b, encode(o)); got != want {
				t.Errorf("%v and %v compare as %d, want %d", a, o, got, want)
			}
			prefix, err := c.Prefix(nil, o.key)
			if got := bytes.HasPrefix(b, prefix); err != nil || got != bytes.Equal(a.key, o.key) {
				t.Errorf("the prefix of %v is one of %v: %v", o.key, a, got)
			}
		}
	}
}

func FuzzWindowKey(f *testing.F) {
	f.Add([]byte("a\x00\x01\x80\x00\x00\x00\x00\x00\x00\x01\x80\x00\x00\x00\x00\x00\x00\x02"))
	f.Add([]byte("\x00\xff\x00\x01\x80\x00\x00\x00\x00\x00\x00\x01\x80\x00\x00\x00\x00\x00\x00\x02"))
	c := WindowCodec[[]byte]{codec.Bytes}
	f.Fuzz(func(t *testing.T, b []byte) {
		key, start, end, err := splitWindow(b)
		if err != nil {
			return
		}
		if again := appendSpan(appendText(nil, key), start, end); !bytes.Equal(again, b) {
			t.Errorf("%x is %x when it is encoded again", b, again)
		}
		if _, err := c.Decode(b); err != nil {
			t.Error(err)
		}
		c.place(b)
	})
}

func TestEachWindow(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		size := r.Int64N(12) + 1
		advance := r.Int64N(size) + 1
		at := r.Int64N(60) - 30
		var got, want []int64
		Hopping(time.Duration(size)*ms, time.Duration(advance)*ms).each(at, func(start, end int64) {
			if got = append(got, start); end != start+size {
				t.Errorf("[%d,%d) of size %d", start, end, size)
			}
		})
		for start := -50 * advance; start <= at; start += advance {
			if at < start+size {
				want = append(want, start)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("size %d by %d, time %d: %v, want %v", size, advance, at, got, want)
		}
	}
}

// fuzzRow decodes a row of a changelog; what is one is encoded to what is decoded again.
func fuzzRow[V any](t *testing.T, c rowCodec[V], b []byte) {
	v, err := c.decode(&embedlog.Record{Value: b})
	if err != nil {
		return
	}
	value, headers, err := c.append(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.decode(&embedlog.Record{Value: value, Headers: headers})
	if err != nil || !reflect.DeepEqual(v, again) {
		t.Errorf("%v is %v when it is decoded again: %v", v, again, err)
	}
}
