package query

import (
	"context"
	"errors"
	"fmt"
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

// Four tasks join their orders with all customers, whose topic has three partitions, by a key that orders name.
func TestGlobalTable(t *testing.T) {
	f := newFixture(t, 4)
	customers := f.topic("customers", 3)
	var inner, all *View[string, string]
	start := func() *Graph {
		return f.graphOf(atClose, func(g *Graph) {
			table := GlobalTable(customers, codec.String, codec.String)
			by := func(_, customer string) string { return customer }
			inner = Add(g, "inner", Reduce(JoinGlobal(f.stream(), table, by, func(_, customer, name string) string { return customer + ":" + name + " " }),
				func(a, b string) string { return a + b }))
			all = Add(g, "all", Reduce(LeftJoinGlobal(f.stream(), GlobalTable(customers, codec.String, codec.String), by, func(_, _ string, name *string) string {
				if name == nil {
					return "- "
				}
				return *name + " "
			}), func(a, b string) string { return a + b }))
		})
	}
	g := start()
	if n := len(g.globals); n != 1 {
		t.Errorf("the table is there %d times", n)
	}
	if s := g.Stats(); s.Tasks != 4 {
		t.Errorf("%d tasks", s.Tasks)
	}
	f.put(customers, "ann=Ann bob=Bob")
	f.put(f.top, "1=ann 2=bob 3=eve 4=ann 5=bob")
	f.want("inner", rows(f, inner), "1=ann:Ann  2=bob:Bob  4=ann:Ann  5=bob:Bob ")
	f.put(customers, "ann=Anna bob eve=Eve")
	f.put(f.top, "1=ann 2=bob 3=eve")
	f.want("inner", rows(f, inner), "1=ann:Ann ann:Anna  2=bob:Bob  3=eve:Eve  4=ann:Ann  5=bob:Bob ")
	f.close(g)
	f.put(customers, "eve")
	g = start()
	f.put(f.top, "1=ann 2=eve")
	f.want("all", rows(f, all), "1=Ann Anna Anna  2=Bob - -  3=- Eve  4=Ann  5=Bob ")
	f.close(g)
	for _, top := range f.db.Topics() {
		if strings.Contains(top.Name, "customers") && top.Name != "customers" {
			t.Errorf("topic %s", top.Name)
		}
	}
}

// Windows of a stream that was joined are windows yet.
func TestGlobalKeepsWindows(t *testing.T) {
	f := newFixture(t, 1)
	table := GlobalTable(f.topic("names", 1), codec.String, codec.String)
	sessions := CountSessions(f.stream(), Session(10*ms)).Changes()
	if w := windowsOf(JoinGlobal(sessions, table, func(w WindowKey[string], _ int64) string { return w.Key }, func(_ WindowKey[string], n int64, _ string) int64 { return n }).n); w == nil {
		t.Error("no windows")
	}
}

func TestGlobalTableMisuse(t *testing.T) {
	f, other := newFixture(t, 1), newFixture(t, 1)
	by := func(_, v string) string { return v }
	join := func(_, _, w string) string { return w }
	start := func(s *Stream[string, string], table *Global[string, string]) (*View[string, int64], error) {
		g := NewGraph(f.db.DB, "g", atClose)
		v := Add(g, "v", Count(JoinGlobal(s, table, by, join)))
		return v, g.Start(f.ctx)
	}
	if _, err := start(f.stream(), GlobalTable(other.top, codec.String, codec.String)); err == nil || !strings.Contains(err.Error(), "another database") {
		t.Errorf("another database: %v", err)
	}
	names := f.topic("names", 2)
	table := GlobalTable(names, codec.String, codec.String)
	if _, err := start(&Stream[string, string]{f.table().n, codec.String, codec.String}, table); !errors.Is(err, ErrNotReversible) {
		t.Errorf("a table: %v", err)
	}
	// What cannot be decoded is counted, and hides nothing.
	g := NewGraph(f.db.DB, "g", atClose)
	v := Add(g, "v", Count(JoinGlobal(f.stream(), GlobalTable(names, codec.String, codec.JSON[int]{}), by, func(string, string, int) string { return "" })))
	if err := g.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.put(names, "a=1 a=x b=x")
	f.put(f.top, "1=a 2=b")
	f.want("rows", rows(f, v), "1=1")
	if s := g.Stats(); s.DeadLetters != 2 {
		t.Errorf("%d dead letters", s.DeadLetters)
	}
	f.close(g)
}

// A table that cannot be read on stops the graph for good, without another record.
func TestGlobalTableStops(t *testing.T) {
	f := newFixture(t, 1)
	names := f.topic("names", 1)
	g := NewGraph(f.db.DB, "g", atClose)
	v := Add(g, "v", Count(JoinGlobal(f.stream(), GlobalTable(names, codec.String, codec.String), func(_, v string) string { return v }, func(_, _, w string) string { return w })))
	if err := g.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.put(names, "a=1")
	f.put(f.top, "1=a")
	f.want("rows", rows(f, v), "1=1")
	lost := errors.New("lost")
	g.stop(&GapError{Graph: "g", Reset: embedlog.Reset{Topic: "names", Cause: lost}})
	if _, _, err := v.Get(f.ctx, "1"); !errors.Is(err, ErrGap) {
		t.Errorf("get: %v", err)
	}
	f.close(g)
}

// However a graph is restarted: each row meets what was acknowledged before it, and each is joined once.
func TestGlobalOracle(t *testing.T) {
	for seed := *oracleFrom; seed < *oracleFrom+uint64(testcount.N(20)); seed++ {
		if globalCase(t, seed); t.Failed() {
			t.Fatalf("case %d failed", seed)
		}
	}
}

func globalCase(t *testing.T, seed uint64) {
	ctx := context.Background()
	r := rand.New(rand.NewPCG(seed, 10))
	db := embedlogtest.Open(t, &embedlogtest.Options{Seed: seed})
	parts := r.IntN(3) + 1
	var g *Graph
	var v *View[string, []int64]
	var in, names *embedlog.Topic
	open := func() {
		for name, p := range map[string]**embedlog.Topic{"in": &in, "names": &names} {
			var err error
			if *p, err = db.EnsureTopic(ctx, name, &embedlog.TopicConfig{Partitions: parts + len(name)%3}); err != nil {
				t.Fatal(err)
			}
		}
		g = NewGraph(db.DB, "g", &Options{CommitInterval: []time.Duration{ms, 10 * ms, time.Hour}[r.IntN(3)]})
		joined := LeftJoinGlobal(From(in, codec.String, codec.Int64), GlobalTable(names, codec.Int64, codec.Int64), func(_ string, n int64) int64 { return n },
			func(_ string, n int64, name *int64) []int64 {
				if name == nil {
					return []int64{n, 0}
				}
				return []int64{n, *name}
			})
		v = Add(g, "v", Reduce(joined, func(a, b []int64) []int64 { return slices.Concat(a, b) }))
		if err := g.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	open()
	latest := map[int64]int64{}
	type sent struct{ n, least int64 }
	want := map[string][]sent{}
	next := int64(0)
	for range r.IntN(40) + 10 {
		switch r.IntN(12) {
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
		case 2, 3, 4:
			next++
			n := int64(r.IntN(3))
			if _, err := embedlog.Typed(names, codec.Int64, codec.Int64).Produce(ctx, n, next); err != nil {
				t.Fatal(err)
			}
			latest[n] = next
		default:
			key, n := fmt.Sprint("k", r.IntN(5)), int64(r.IntN(3))
			if _, err := embedlog.Typed(in, codec.String, codec.Int64).Produce(ctx, key, n); err != nil {
				t.Fatal(err)
			}
			want[key] = append(want[key], sent{n, latest[n]})
		}
	}
	for key, rows := range want {
		got, _, err := v.Get(ctx, key)
		if err != nil || len(got) != 2*len(rows) {
			t.Fatalf("%s: %v, %v, want %v", key, got, err, rows)
		}
		for i, row := range rows {
			if got[2*i] != row.n || got[2*i+1] < row.least || got[2*i+1] > latest[row.n] {
				t.Errorf("%s: row %d is %v, want %v at least", key, i, got[2*i:2*i+2], row)
			}
		}
	}
	if err := db.DB.Close(); err != nil {
		t.Fatal(err)
	}
}
