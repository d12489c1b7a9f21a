package query

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
)

// The traps that incremental engines are known to fall into, one by one. Records are "key=value@ms", without a value a tombstone; what stands
// between two bars is one call, so that it is one batch of each partition.
func TestTraps(t *testing.T) {
	number := func(_, v string) int64 { n, _ := strconv.ParseInt(v, 10, 64); return n }
	float := func(_, v string) float64 { x, _ := strconv.ParseFloat(v, 64); return x }
	both := func(_, a, b string) string { return a + b }
	byValue := func(_, v string) string { return v }
	text := func(_ string, v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
	for _, c := range []struct {
		name    string
		records string
		view    func(f *fixture) *Table[string, string]
		want    string
		stops   error // the graph stops with it
	}{
		{name: "float sums: what is taken out leaves nothing", records: "a=1e100@1 b=1@1 c=0.1@1 | a@2 | c@3",
			view: func(f *fixture) *Table[string, string] {
				return MapTable(Sum(GroupBy(f.table(), codec.String, func(string, string) string { return "all" }), float), text)
			}, want: "all=1"},
		{name: "float sums: in another order", records: "a=0.1@1 a=0.2@1 a=0.3@1 b=0.3@1 b=0.2@1 b=0.1@1",
			view: func(f *fixture) *Table[string, string] { return MapTable(Sum(f.stream(), float), text) }, want: "a=0.6 b=0.6"},
		{name: "float sums: averages", records: "a=1e308@1 a=1e308@1 a=-1e308@1",
			view: func(f *fixture) *Table[string, string] {
				return MapTable(Average(GroupBy(f.stream(), codec.String, func(k, _ string) string { return k }), float), text)
			}, want: "a=3.333333333333333e+307"},
		{name: "float sums: not a number goes again", records: "a=NaN@1 b=2@1 | a@2",
			view: func(f *fixture) *Table[string, string] {
				return MapTable(Sum(GroupBy(f.table(), codec.String, func(string, string) string { return "all" }), float), text)
			}, want: "all=2"},
		{name: "integer overflow", records: fmt.Sprintf("a=%d@1 b=1@1 | a=1@2", int64(math.MaxInt64)),
			view:  func(f *fixture) *Table[string, string] { return MapTable(Sum(f.stream(), number), decimal) },
			stops: ErrOverflow},
		{name: "integer overflow: on the way alone is none", records: fmt.Sprintf("a=%d@1 b=%d@1 c=1@1 | b@2 | c=2@2", int64(math.MaxInt64), -5),
			view: func(f *fixture) *Table[string, string] {
				return MapTable(Sum(GroupBy(f.table(), codec.String, func(k, _ string) string { return map[string]string{"c": "small"}[k] }), number), decimal)
			}, want: fmt.Sprintf("=%d small=2", int64(math.MaxInt64))},
		{name: "self-joins inside one batch", records: "a=1@1 a=2@1 b=3@1 a=4@1 b@1 c=5@1",
			view: func(f *fixture) *Table[string, string] { return Join(f.table(), f.table(), both) }, want: "a=44 c=55"},
		{name: "self-joins inside one batch: of one description", records: "a=1@1 a=2@1 b=3@1 a=4@1 b@1 c=5@1",
			view: func(f *fixture) *Table[string, string] { t := f.table(); return Join(t, t, both) }, want: "a=44 c=55"},
		{name: "self-joins inside one batch: by a foreign key", records: "a=b@1 b=a@1 a=a@1 b@1 b=a@1",
			view: func(f *fixture) *Table[string, string] { return ForeignJoin(f.table(), f.table(), byValue, both) }, want: "a=aa b=aa"},
		{name: "self-joins inside one batch: with its own count", records: "a=x@1 b=x@1 a=y@1 b@1 c=x@1",
			view: func(f *fixture) *Table[string, string] {
				counts := MapTable(Count(GroupBy(f.table(), codec.String, byValue)), decimal)
				return ForeignJoin(f.table(), counts, byValue, both)
			}, want: "a=y1 c=x1"},
		{name: "self-joins inside one batch: of streams", records: "a=1@1 a=2@1 b=3@1",
			view: func(f *fixture) *Table[string, string] {
				return MapTable(Count(JoinStreams(f.stream(), f.stream(), Within(0), both)), decimal)
			}, want: "a=4 b=1"},
		{name: "add-then-delete leaves nothing", records: "a=1@1 b=2@1 | a@2 b@2",
			view: func(f *fixture) *Table[string, string] {
				return MapTable(Count(GroupBy(OuterJoin(f.table(), f.table(), func(string, *string, *string) string { return "x" }), codec.String, byValue)), decimal)
			}, want: ""},
		{name: "add-then-delete in one batch", records: "a=1@1 a@1 a=2@1 a@1 b=3@1",
			view: func(f *fixture) *Table[string, string] {
				return MapTable(Min(GroupBy(f.table(), codec.String, func(string, string) string { return "all" }), number), decimal)
			}, want: "all=3"},
		{name: "the same again changes nothing", records: "a=1@1 a=1@1 | a=1@2",
			view: func(f *fixture) *Table[string, string] {
				return MapTable(CountDistinct(GroupBy(f.table(), codec.String, func(string, string) string { return "all" }), codec.String, byValue), decimal)
			}, want: "all=1"},
		{name: "late data", records: "a=1@10 a=2@21 | a=3@9 a=4@11 | a=5@10 a=6@31 | a=7@19",
			view: func(f *fixture) *Table[string, string] {
				return windowCounts(f, Tumbling(10*ms).Grace(5*ms).Retain(time.Hour))
			},
			want: "a[10,20]=3 a[20,30]=1 a[30,40]=1"},
		{name: "late data: exactly at the grace", records: "a=1@5 a=2@14 a=3@9 | a=4@15 a=5@9",
			view: func(f *fixture) *Table[string, string] {
				return windowCounts(f, Tumbling(10*ms).Grace(5*ms).Retain(time.Hour))
			},
			want: "a[0,10]=2 a[10,20]=2"},
		{name: "out-of-order timestamps: tables take the last record", records: "a=new@20 | a=old@10",
			view: func(f *fixture) *Table[string, string] { return f.table() }, want: "a=old"},
		{name: "out-of-order timestamps: sessions", records: "a=1@30 a=2@10 | a=3@20 b=1@31",
			view: func(f *fixture) *Table[string, string] {
				return namedByWindow(CountSessions(f.stream(), Session(10*ms).Grace(100*ms)))
			}, want: "a[10,30]=3 b[31,31]=1"},
		{name: "out-of-order timestamps: a join within a time", records: "a=1@30 a=2@10 | a=3@20",
			view: func(f *fixture) *Table[string, string] {
				return MapTable(Count(JoinStreams(f.stream(), f.stream(), Within(10*ms).Grace(100*ms), both)), decimal)
			}, want: "a=7"}, // three with themselves, two pairs in both ways
		{name: "null keys", records: "-=1@1 a=2@1 =3@1 | -@2 -=4@2",
			view: func(f *fixture) *Table[string, string] { return MapTable(Count(f.stream()), decimal) }, want: "=1 a=1"},
		{name: "null keys: not in tables, nor in joins", records: "-=1@1 a=2@1",
			view: func(f *fixture) *Table[string, string] {
				return OuterJoin(f.table(), f.table(), func(string, *string, *string) string { return "x" })
			}, want: "a=x"},
		{name: "null keys: grouped by something else", records: "-=1@1 a=1@1 -=2@1 | -@2",
			view: func(f *fixture) *Table[string, string] {
				return MapTable(Count(GroupBy(f.stream(), codec.String, byValue)), decimal)
			},
			want: "1=2 2=1"},
		{name: "equal timestamps: in the order of the log", records: "a=1@5 a=2@5 a=3@5 | a=4@5",
			view: func(f *fixture) *Table[string, string] {
				return Fold(f.stream(), codec.String, func(acc, _, v string) string { return acc + v }, nil)
			}, want: "a=1234"},
		{name: "equal timestamps: each row once", records: "a=1@5 a=1@5 | a=1@5",
			view: func(f *fixture) *Table[string, string] {
				return MapTable(Count(JoinStreams(f.stream(), f.stream(), Within(0), both)), decimal)
			}, want: "a=9"},
		{name: "equal rows: the best two", records: "a=5@1 b=5@1 c=4@1 | a@2",
			view: func(f *fixture) *Table[string, string] {
				return MapTable(TopN(GroupBy(f.table(), codec.String, func(string, string) string { return "all" }), 2, number),
					func(_ string, v []string) string { return strings.Join(v, ",") })
			}, want: "all=5,4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, way := range []string{"one batch after another", "restarts between", "all at once"} {
				f := newFixture(t, 1)
				start := func() (*Graph, *View[string, string]) {
					var v *View[string, string]
					g := f.graphOf(&Options{CommitInterval: time.Hour}, func(g *Graph) { v = Add(g, "v", c.view(f)) })
					return g, v
				}
				batches := strings.Split(c.records, "|")
				if way == "all at once" {
					batches = []string{strings.ReplaceAll(c.records, "|", " ")}
				}
				g, v := start()
				for i, batch := range batches {
					if i > 0 && way == "restarts between" {
						f.close(g)
						g, v = start()
					}
					f.batch(batch)
					if err := g.CatchUp(f.ctx); err != nil && c.stops == nil {
						t.Fatal(err)
					}
				}
				if c.stops != nil {
					if _, _, err := v.Get(f.ctx, "a"); !errors.Is(err, c.stops) {
						t.Errorf("%s: %v, want %v", way, err, c.stops)
					}
					continue
				}
				f.want(way, rows(f, v), c.want)
				f.close(g)
				g, v = start()
				f.want(way+", and a restart", rows(f, v), c.want)
				f.close(g)
			}
		})
	}
}

func decimal(_ string, n int64) string { return strconv.FormatInt(n, 10) }

// batch appends records in one call.
func (f *fixture) batch(text string) {
	f.Helper()
	var recs []embedlog.Record
	for _, row := range strings.Fields(text) {
		row, at, _ := strings.Cut(row, "@")
		key, value, ok := strings.Cut(row, "=")
		rec := embedlog.Record{Timestamp: time.UnixMilli(epoch + f.int(at))}
		if key != "-" {
			rec.Key = []byte(key)
		}
		if ok {
			rec.Value = []byte(value)
		}
		recs = append(recs, rec)
	}
	if _, err := f.top.Produce(f.ctx, recs...); err != nil {
		f.Fatal(err)
	}
}

// windowCounts are the counts of windows by their names.
func windowCounts(f *fixture, w Windows) *Table[string, string] {
	return namedByWindow(Count(Windowed(f.stream(), w)))
}

// namedByWindow is the rows of a table of windows by their names.
func namedByWindow(t *Table[WindowKey[string], int64]) *Table[string, string] {
	n := linear("text", t.n, true, func(buf []delta[string, string], d *delta[WindowKey[string], int64]) []delta[string, string] {
		return append(buf, delta[string, string]{key: windowText(d.key), val: fmt.Sprint(d.val), time: d.time, weight: d.weight})
	})
	return &Table[string, string]{n, codec.String, codec.String}
}
