// Package storetest is what every store of views' rows has to hold: those of package query's tests and of query/disk run it.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/query"
)

// Run runs the suite. Open is called for each of its tests, with a directory that is removed afterwards. The databases are in memory: stores must
// say themselves where they are.
func Run(t *testing.T, open func(t *testing.T, dir string) query.Stores) {
	t.Run("rows", func(t *testing.T) {
		for seed := range uint64(testcount.N(5)) {
			rows(t, open(t, t.TempDir()), t.TempDir(), seed)
		}
	})
	t.Run("names", func(t *testing.T) { names(t, open(t, t.TempDir()), t.TempDir()) })
	t.Run("beside", func(t *testing.T) { beside(t, open(t, t.TempDir()), t.TempDir()) })
	t.Run("closed", func(t *testing.T) { closed(t, open(t, t.TempDir()), t.TempDir()) })
	t.Run("views", func(t *testing.T) {
		for seed := range uint64(testcount.N(12)) {
			views(t, open(t, t.TempDir()), seed)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rows does random things to a store and to a map.
func rows(t *testing.T, stores query.Stores, dir string, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 3))
	s, err := stores.OpenStore(dir, "s")
	must(t, err)
	defer func() { s.Close() }()
	model := map[string]string{}
	key := func() []byte { // short ones, so that they meet, of the bytes that are special
		k := make([]byte, r.IntN(4))
		for i := range k {
			k[i] = []byte{0, 1, 0x7f, 0xff}[r.IntN(4)]
		}
		return k
	}
	for step := range 100 {
		switch r.IntN(12) {
		default:
			var changes []query.RowChange
			for range r.IntN(20) {
				c := query.RowChange{Key: append([]byte{5}, key()...), Delete: r.IntN(3) == 0}
				if !c.Delete {
					c.Row = bytes.Repeat([]byte{byte(step)}, r.IntN(4)*r.IntN(100))
				}
				if delete(model, string(c.Key)); !c.Delete {
					model[string(c.Key)] = string(c.Row)
				}
				changes = append(changes, c)
			}
			must(t, s.Apply(changes))
			for _, c := range changes { // it is not the store's
				clear(c.Key)
				clear(c.Row)
			}
		case 0:
			must(t, s.Close())
			s, err = stores.OpenStore(dir, "s")
			must(t, err)
		case 1:
			if r.IntN(4) == 0 {
				must(t, s.Clear())
				clear(model)
			}
		}
		k := append([]byte{5}, key()...)
		got, found, err := s.Get([]byte("before"), k)
		want, there := model[string(k)]
		if err != nil || found != there || string(got) != "before"+want {
			t.Fatalf("seed %d, step %d: %q is %q, %v, %v; want %q, %v", seed, step, k, got, found, err, want, there)
		}
		from, to := append([]byte{5}, key()...), append([]byte{5}, key()...)
		if r.IntN(4) == 0 {
			to = []byte{6}
		}
		backwards, limit := r.IntN(2) == 0, r.IntN(30)+1
		var keys, wants []string
		must(t, s.Walk(from, to, backwards, func(key, row []byte) bool {
			if string(row) != model[string(key)] {
				t.Errorf("seed %d, step %d: walked by %q, %q; want %q", seed, step, key, row, model[string(key)])
			}
			keys = append(keys, string(key))
			return len(keys) < limit
		}))
		for _, key := range slices.Sorted(maps.Keys(model)) {
			if key >= string(from) && key < string(to) {
				wants = append(wants, key)
			}
		}
		if backwards {
			slices.Reverse(wants)
		}
		if wants = wants[:min(limit, len(wants))]; !slices.Equal(keys, wants) {
			t.Fatalf("seed %d, step %d: from %q to %q, backwards %v: %q, want %q", seed, step, from, to, backwards, keys, wants)
		}
	}
}

// names are of stores that have nothing in common.
func names(t *testing.T, stores query.Stores, dir string) {
	a, err := stores.OpenStore(dir, "a")
	must(t, err)
	b, err := stores.OpenStore(dir, "b")
	must(t, err)
	must(t, a.Apply([]query.RowChange{{Key: []byte("k"), Row: []byte("a")}}))
	if _, found, err := b.Get(nil, []byte("k")); found || err != nil {
		t.Errorf("a row of a is in b: %v, %v", found, err)
	}
	must(t, b.Clear())
	if _, found, err := a.Get(nil, []byte("k")); !found || err != nil {
		t.Errorf("clearing b has cleared a: %v, %v", found, err)
	}
	must(t, errors.Join(a.Close(), b.Close()))
}

// beside has readers see each batch whole, or not at all.
func beside(t *testing.T, stores query.Stores, dir string) {
	s, err := stores.OpenStore(dir, "s")
	must(t, err)
	set := func(n byte) {
		var changes []query.RowChange
		for k := range byte(50) {
			changes = append(changes, query.RowChange{Key: []byte{5, k}, Row: []byte{n}})
		}
		must(t, s.Apply(changes))
	}
	set(0)
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				seen, n := map[byte]bool{}, 0
				if err := s.Walk([]byte{5}, []byte{6}, false, func(_, row []byte) bool { seen[row[0]] = true; n++; return true }); err != nil || len(seen) != 1 || n != 50 {
					t.Errorf("%d rows of %d batches, %v", n, len(seen), err)
					return
				}
			}
		})
	}
	for n := range byte(100) {
		set(n)
	}
	close(done)
	readers.Wait()
	must(t, s.Close())
}

// closed stores fail, and do nothing else.
func closed(t *testing.T, stores query.Stores, dir string) {
	s, err := stores.OpenStore(dir, "s")
	must(t, err)
	must(t, s.Close())
	if _, _, err := s.Get(nil, []byte("k")); err == nil {
		t.Error("Get has no error")
	}
	if err := s.Walk(nil, []byte("k"), false, func(_, _ []byte) bool { return true }); err == nil {
		t.Error("Walk has no error")
	}
	if err := s.Apply([]query.RowChange{{Key: []byte("k")}}); err == nil {
		t.Error("Apply has no error")
	}
}

// views are the same in memory and in a store, whatever is computed, and however often they are started again.
func views(t *testing.T, stores query.Stores, seed uint64) {
	ctx := context.Background()
	r := rand.New(rand.NewPCG(seed, 4))
	db, err := embedlog.OpenMemory(nil)
	must(t, err)
	defer db.Close()
	var chosen []int
	for range r.IntN(3) + 1 {
		chosen = append(chosen, r.IntN(len(kinds)))
	}
	partitions := r.IntN(2) + 1
	var a, b *embedlog.Topic
	type pair struct{ memory, disk func() map[string]string }
	var pairs []pair
	var graphs [2]*query.Graph
	start := func() {
		a, err = db.EnsureTopic(ctx, "a", &embedlog.TopicConfig{Partitions: partitions})
		must(t, err)
		b, err = db.EnsureTopic(ctx, "b", &embedlog.TopicConfig{Partitions: partitions})
		must(t, err)
		pairs = make([]pair, len(chosen))
		for i, name := range []string{"memory", "disk"} {
			o := &query.Options{CommitInterval: time.Duration(r.IntN(20)+1) * time.Millisecond, OneTask: partitions > 1 && seed%2 == 0}
			if i == 1 {
				o.Store, o.CacheBytes = stores, 1
			}
			graphs[i] = query.NewGraph(db, name, o)
			for n, kind := range chosen {
				read := kinds[kind](graphs[i], fmt.Sprint("v", n), a, b)
				if i == 0 {
					pairs[n].memory = func() map[string]string { return read(t) }
				} else {
					pairs[n].disk = func() map[string]string { return read(t) }
				}
			}
			must(t, graphs[i].Start(ctx))
		}
	}
	start()
	check := func() {
		for i, p := range pairs {
			if m, d := p.memory(), p.disk(); !maps.Equal(m, d) {
				t.Fatalf("seed %d: a view of kind %d is %v in memory, and %v on disk", seed, chosen[i], m, d)
			}
		}
	}
	now := int64(1_700_000_000_000)
	for range r.IntN(8) + 4 {
		switch r.IntN(5) {
		case 0:
			must(t, errors.Join(graphs[0].Close(), graphs[1].Close()))
			start()
		case 1:
			check()
		default:
			for range r.IntN(60) {
				now += int64(r.IntN(5))
				rec := embedlog.Record{Key: fmt.Appendf(nil, "k%d", r.IntN(15)), Timestamp: time.UnixMilli(now - int64(r.IntN(10)))}
				if r.IntN(5) > 0 {
					rec.Value, err = codec.Int64.Append(nil, int64(r.IntN(100)))
					must(t, err)
				}
				top := a
				if r.IntN(2) == 0 {
					top = b
				}
				_, err = top.Produce(ctx, rec)
				must(t, err)
			}
		}
	}
	check()
	must(t, errors.Join(graphs[0].Close(), graphs[1].Close()))
}

// kinds are views of two topics, and how they are read.
var kinds = []func(g *query.Graph, name string, a, b *embedlog.Topic) func(t *testing.T) map[string]string{
	func(g *query.Graph, name string, a, _ *embedlog.Topic) func(*testing.T) map[string]string {
		return reader(query.Add(g, name, query.Sum(stream(a), func(_ string, n int64) int64 { return n })))
	},
	func(g *query.Graph, name string, a, b *embedlog.Topic) func(*testing.T) map[string]string {
		return reader(query.Add(g, name, query.TopN(stream(a).Merge(stream(b)), 3, func(_ string, n int64) int64 { return n % 10 })))
	},
	func(g *query.Graph, name string, a, _ *embedlog.Topic) func(*testing.T) map[string]string {
		return reader(query.Add(g, name, query.Min(query.GroupBy(table(a), codec.String, func(k string, n int64) string { return fmt.Sprint(k[:1], n%3) }), func(_ string, n int64) int64 { return n })))
	},
	func(g *query.Graph, name string, a, b *embedlog.Topic) func(*testing.T) map[string]string {
		return reader(query.Add(g, name, query.OuterJoin(table(a), table(b), func(k string, l, r *int64) string { return fmt.Sprint(k, value(l), value(r)) })))
	},
	func(g *query.Graph, name string, a, b *embedlog.Topic) func(*testing.T) map[string]string {
		return reader(query.Add(g, name, query.ForeignJoin(table(a), table(b), func(_ string, n int64) string { return fmt.Sprint("k", n%15) },
			func(k string, l, r int64) string { return fmt.Sprint(k, l, r) })))
	},
	func(g *query.Graph, name string, a, _ *embedlog.Topic) func(*testing.T) map[string]string {
		counts := query.Count(query.Windowed(stream(a), query.Tumbling(10*time.Millisecond).Retain(time.Second)))
		return reader(query.Add(g, name, query.Final(counts)))
	},
	func(g *query.Graph, name string, a, _ *embedlog.Topic) func(*testing.T) map[string]string {
		return reader(query.Add(g, name, query.CountSessions(stream(a), query.Session(8*time.Millisecond))))
	},
	func(g *query.Graph, name string, a, b *embedlog.Topic) func(*testing.T) map[string]string {
		pairs := query.LeftJoinStreams(stream(a), stream(b), query.Within(5*time.Millisecond), func(_ string, l int64, r *int64) int64 { return 1000*l + value(r) })
		return reader(query.Add(g, name, query.Sum(pairs, func(_ string, n int64) int64 { return n })))
	},
}

func stream(t *embedlog.Topic) *query.Stream[string, int64] {
	return query.From(t, codec.String, codec.Int64)
}

func table(t *embedlog.Topic) *query.Table[string, int64] {
	return query.TableFrom(t, codec.String, codec.Int64)
}

func value(n *int64) int64 {
	if n == nil {
		return -1
	}
	return *n
}

// reader reads a view's rows, and each of them once more by its key.
func reader[K, V any](v *query.View[K, V]) func(t *testing.T) map[string]string {
	return func(t *testing.T) map[string]string {
		t.Helper()
		ctx, got := context.Background(), map[string]string{}
		for row, err := range v.All(ctx) {
			must(t, err)
			got[fmt.Sprint(row.Key)] = fmt.Sprint(row.Value)
			if one, found, err := v.GetNow(ctx, row.Key); err != nil || !found || fmt.Sprint(one) != fmt.Sprint(row.Value) {
				t.Errorf("%v is %v, %v, %v; a walk says %v", row.Key, one, found, err, row.Value)
			}
		}
		if n, err := v.Len(ctx); err != nil || n != len(got) {
			t.Errorf("%d rows, %v; a walk has %d", n, err, len(got))
		}
		return got
	}
}
