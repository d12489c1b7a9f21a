package query

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/internal/testcount"
)

// words are the keys of the tests' indexes: the words of a value, "-" between them.
func words(_ string, v string) []string {
	return strings.FieldsFunc(v, func(r rune) bool { return r == '-' })
}

// A random table's index finds at each moment, and in each snapshot, what a look at all rows finds.
func TestIndexFindsWhatAScanFinds(t *testing.T) {
	for seed := range uint64(testcount.N(40)) {
		r := rand.New(rand.NewPCG(seed, 6))
		f := newFixture(t, 1+r.IntN(2))
		var g *Graph
		var v *View[string, string]
		var x *Index[string, string, string]
		start := func() {
			g = NewGraph(f.db.DB, "g", nil)
			v = Add(g, "v", f.table())
			x = AddIndex(v, "words", codec.String, words)
			if err := g.Start(f.ctx); err != nil {
				t.Fatal(err)
			}
		}
		start()
		type shot struct {
			*Snapshot
			want string
		}
		var shots []shot
		naive := func(rows *SnapshotRows[string, string]) string {
			var list []string
			for row, err := range rows.All() {
				if err != nil {
					t.Fatal(err)
				}
				for _, w := range slices.Compact(slices.Sorted(slices.Values(words("", row.Value)))) {
					list = append(list, fmt.Sprintf("%s:%s=%s", w, row.Key, row.Value))
				}
			}
			slices.SortStableFunc(list, func(a, b string) int {
				return strings.Compare(a[:strings.IndexByte(a, ':')], b[:strings.IndexByte(b, ':')])
			})
			return strings.Join(list, " ")
		}
		indexed := func(i *SnapshotIndex[string, string, string]) string {
			var list []string
			for row, err := range i.All() {
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, fmt.Sprintf("%s:%s=%s", row.Index, row.Key, row.Value))
			}
			return strings.Join(list, " ")
		}
		for range 12 {
			var recs []embedlog.Record
			for range r.IntN(20) {
				rec := embedlog.Record{Key: fmt.Appendf(nil, "k%d", r.IntN(8))}
				if r.IntN(4) > 0 {
					var ws []string
					for range r.IntN(4) {
						ws = append(ws, string(rune('a'+r.IntN(4)))+"\x00"[:r.IntN(2)])
					}
					rec.Value = []byte(strings.Join(ws, "-"))
				}
				recs = append(recs, rec)
			}
			if _, err := f.top.Produce(f.ctx, recs...); err != nil {
				t.Fatal(err)
			}
			s, err := g.Snapshot(f.ctx)
			if err != nil {
				t.Fatal(err)
			}
			shots = append(shots, shot{s, naive(v.In(s))})
			for _, s := range shots {
				if got := indexed(x.In(s.Snapshot)); got != s.want {
					t.Fatalf("seed %d: the index has %q, the view %q", seed, got, s.want)
				}
			}
			if r.IntN(3) == 0 {
				shots[0].Release()
				shots = shots[1:]
			}
			if r.IntN(6) == 0 { // another life
				for _, s := range shots {
					s.Release()
				}
				shots = nil
				if err := g.Close(); err != nil {
					t.Fatal(err)
				}
				start()
			}
		}
		for _, s := range shots {
			s.Release()
		}
		tasks, _ := g.all(f.ctx)
		for _, task := range tasks {
			places := task.indexes[x].(*store[struct{}])
			if len(places.rows) != places.live || len(places.old) > 0 || len(places.changed) > 0 {
				t.Errorf("seed %d: %d entries are left of %d places", seed, len(places.rows), places.live)
			}
		}
		f.db.Close()
	}
}

func TestIndexReads(t *testing.T) {
	f := newFixture(t, 2)
	g := NewGraph(f.db.DB, "g", nil)
	v := Add(g, "v", f.table())
	x := AddIndex(v, "words", codec.String, words)
	if err := g.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.put(f.top, "1=a-ab 2=b 3=a 4=c-ab 5=abc 6=")
	text := func(seq func(func(IndexRow[string, string, string], error) bool)) string {
		var list []string
		for row, err := range seq {
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, row.Index+":"+row.Key)
		}
		return strings.Join(list, " ")
	}
	var got []string
	for row, err := range x.Get(f.ctx, "a") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, row.Key+"="+row.Value)
	}
	f.want("get", strings.Join(got, " "), "1=a-ab 3=a")
	f.want("range", text(x.Range(f.ctx, "ab", "b")), "ab:1 ab:4 abc:5")
	f.want("prefix", text(x.Prefix(f.ctx, []byte("ab"))), "ab:1 ab:4 abc:5")
	f.want("all", text(x.All(f.ctx)), "a:1 a:3 ab:1 ab:4 abc:5 b:2 c:4")
	f.want("names", x.Name()+" "+x.View().Name(), "words v")
	// It is a part of what the graph is, not of what its rows are of.
	f.want("describe", g.Describe(), "1 table t\nview v <- 1\nindex v.words <- 1\n")
	f.want("definition", g.definition, "1 table t\nview v <- 1\n")
	AddIndex(v, "late", codec.String, words)
	if _, _, err := v.Get(f.ctx, "1"); !errors.Is(err, ErrStarted) {
		t.Errorf("an index that is added too late: %v", err)
	}
	twice := NewGraph(f.db.DB, "twice", nil)
	w := Add(twice, "v", f.table())
	AddIndex(w, "i", codec.String, words)
	AddIndex(w, "i", codec.String, words)
	if err := twice.Start(f.ctx); err == nil || !strings.Contains(err.Error(), "two indexes are named v.i") {
		t.Errorf("two indexes of one name: %v", err)
	}
}

// A function that panics stops the graph, also where the rows are restored.
func TestIndexPanics(t *testing.T) {
	f := newFixture(t, 1)
	start := func(bad bool) error {
		g := NewGraph(f.db.DB, "g", nil)
		v := Add(g, "v", f.table())
		AddIndex(v, "i", codec.String, func(_, v string) []string {
			if bad && v == "x" {
				panic("no")
			}
			return []string{v}
		})
		if err := g.Start(f.ctx); err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		_, _, err := v.Get(f.ctx, "a")
		return err
	}
	wants := func(what string, err error) {
		t.Helper()
		if p := (*PanicError)(nil); !errors.As(err, &p) || p.Value != "no" {
			t.Errorf("%s: %v", what, err)
		}
	}
	f.put(f.top, "a=x")
	wants("in a chunk", start(true))
	if err := start(false); err != nil {
		t.Fatal(err)
	}
	wants("when restored", start(true))
}

// An index of rows on disk that cannot be read says why, and not that somebody's function is wrong.
func TestIndexOfClosedStore(t *testing.T) {
	f := newFixture(t, 1)
	stores := &MemStores{}
	g := NewGraph(f.db.DB, "g", &Options{CommitInterval: ms, Store: stores, CacheBytes: 1})
	v := Add(g, "v", f.table())
	AddIndex(v, "words", codec.String, words)
	if err := g.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		f.put(f.top, fmt.Sprintf("k%d=a", i))
	}
	f.close(g)
	g = NewGraph(f.db.DB, "g", &Options{CommitInterval: ms, Store: stores, CacheBytes: 1}) // the rows are not in memory
	v = Add(g, "v", f.table())
	x := AddIndex(v, "words", codec.String, words)
	if err := g.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	s, err := g.Snapshot(f.ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	f.close(g)
	var want, got error
	for _, err := range v.In(s).All() {
		want = err
	}
	for _, err := range x.In(s).All() {
		got = err
	}
	if !errors.Is(want, ErrClosed) || !errors.Is(got, ErrClosed) || errors.Is(got, errIndex) {
		t.Errorf("the view says %v, the index %v", want, got)
	}
}
