package query

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
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

// generationGraph is a definition of a graph: sums of values that it multiplies, and a sink of them.
func generationGraph(ctx context.Context, db *embedlog.DB, by int64, o *Options) (orders, out *embedlog.Topic, g *Graph, v *View[string, int64], err error) {
	if orders, err = db.EnsureTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 2}); err != nil {
		return
	}
	if out, err = db.EnsureTopic(ctx, "out", nil); err != nil {
		return
	}
	g = NewGraph(db, "g", o)
	s := From(orders, codec.String, codec.Int64)
	for range by { // each is another operator
		s = s.Filter(func(string, int64) bool { return true })
	}
	v = Add(g, fmt.Sprint("sums-", by), Sum(s, func(_ string, n int64) int64 { return n * by }))
	To(g, MapValues(s, func(_ string, n int64) string { return fmt.Sprint(n, " by ", by) }), out)
	return orders, out, g, v, g.Start(ctx)
}

func TestRebuild(t *testing.T) {
	ctx, db := t.Context(), embedlogtest.Open(t, nil)
	sum := int64(0)
	put := func(orders *embedlog.Topic, n int) {
		t.Helper()
		for range n {
			sum++
			if _, err := orders.Produce(ctx, embedlog.Record{Key: []byte("k"), Value: mustInt(1)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	topics := func() (names []string) {
		for _, info := range db.Topics() {
			if strings.HasPrefix(info.Name, "g") {
				names = append(names, info.Name)
			}
		}
		return names
	}
	orders, _, g, v, err := generationGraph(ctx, db.DB, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	put(orders, 10)
	if got, _, err := v.Get(ctx, "k"); got != sum || err != nil {
		t.Fatalf("%d, %v", got, err)
	}
	// While it runs it is not touched.
	if _, _, _, _, err := generationGraph(ctx, db.DB, 2, &Options{Rebuild: true}); !errors.Is(err, ErrRunning) {
		t.Fatalf("beside one that runs: %v", err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, _, _, err := generationGraph(ctx, db.DB, 2, nil); !errors.Is(err, ErrDefinition) {
		t.Fatalf("without Rebuild: %v", err)
	}
	put(orders, 5)
	_, _, g, v, err = generationGraph(ctx, db.DB, 2, &Options{Rebuild: true})
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := v.GetNow(ctx, "k"); got != 2*sum || err != nil {
		t.Fatalf("rebuilt: %d, %v; want %d", got, err, 2*sum)
	}
	put(orders, 5)
	if got, _, err := v.Get(ctx, "k"); got != 2*sum || err != nil {
		t.Fatalf("rebuilt: %d, %v; want %d", got, err, 2*sum)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(topics()); got != "[g-generation g.gen2-progress g.gen2-sums-2-changelog]" {
		t.Errorf("topics %v", got)
	}
	// It is what is started from now on.
	_, out, g, v, err := generationGraph(ctx, db.DB, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := v.Get(ctx, "k"); got != 2*sum || err != nil {
		t.Fatalf("started again: %d, %v; want %d", got, err, 2*sum)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, _, _, err := generationGraph(ctx, db.DB, 1, nil); !errors.Is(err, ErrDefinition) {
		t.Errorf("the first one again: %v", err)
	}
	seen := map[string]int{}
	for rec, err := range out.Scan(ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
		seen[string(rec.Value)]++
	}
	if want := map[string]int{"1 by 1": 10, "1 by 2": 10}; !maps.Equal(seen, want) {
		t.Errorf("appended %v, want %v", seen, want)
	}
}

// The process is killed, or the power fails, at some file operation while definitions follow each other: views are what their records come to, and
// each record is appended once, by one of the definitions.
func TestRebuildCrashes(t *testing.T) {
	seed := rand.Uint64()
	for _, power := range []bool{true, false} {
		runs, k := 1<<30, func(i int) int { return i }
		if !*crashAll {
			r := rand.New(rand.NewPCG(seed, 6))
			runs, k = testcount.N(20), func(int) int { return r.IntN(1400) }
		}
		done := 0
		for i := range runs {
			through, at := false, k(i)
			synctest.Test(t, func(t *testing.T) { through = rebuildCrash(t, at, power, seed+uint64(i)) })
			if t.Failed() {
				t.Fatalf("seed %d, crash at operation %d, power %v", seed+uint64(i), at, power)
			}
			if done++; through && *crashAll {
				break
			}
		}
		t.Logf("power cut %v: %d crashes", power, done)
	}
}

func rebuildCrash(t *testing.T, k int, power bool, seed uint64) (through bool) {
	ctx := context.Background()
	o := &embedlog.Options{MaintenanceInterval: -1}
	fs := vfs.NewMem(vfs.CrashAt(k))
	next := int64(0)
	use := func(db *embedlog.DB, by int64, n int, wait bool) error {
		orders, _, g, v, err := generationGraph(ctx, db, by, &Options{CommitInterval: 5 * time.Millisecond, Rebuild: true})
		if err != nil {
			return err
		}
		defer g.Close()
		for range n {
			next++
			if _, err := orders.Produce(ctx, embedlog.Record{Key: fmt.Appendf(nil, "k%d", next%5), Value: mustInt(next)}); err != nil {
				return err
			}
			if next%4 == 0 {
				time.Sleep(7 * time.Millisecond)
			}
		}
		if wait {
			if _, err := v.Len(ctx); err != nil {
				return err
			}
		}
		return g.Close()
	}
	db, err := embedlog.OpenFS(fs, o)
	if err == nil {
		use(db, 1, 10, true)
		use(db, 2, 6, false) // it may not have switched when it is closed
		use(db, 3, 6, true)
		db.Close()
	}
	through = !fs.Crashed()
	after := fs.AfterKill()
	if power {
		after = fs.AfterCrash(vfs.Random(seed))
	}
	if db, err = embedlog.OpenFS(after, o); err != nil {
		t.Fatalf("open after the crash: %v", err)
	}
	defer db.Close()
	orders, out, g, v, err := generationGraph(ctx, db, 3, &Options{CommitInterval: 5 * time.Millisecond, Rebuild: true})
	if err != nil {
		t.Fatalf("start after the crash: %v", err)
	}
	for range 3 {
		next++
		if _, err := orders.Produce(ctx, embedlog.Record{Key: fmt.Appendf(nil, "k%d", next%5), Value: mustInt(next)}); err != nil {
			t.Fatal(err)
		}
	}
	got, want, sent, seen := map[string]int64{}, map[string]int64{}, map[string]int{}, map[string]int{}
	for row, err := range v.All(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		got[row.Key] = row.Value
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	for rec, err := range orders.Scan(ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
		n, err := codec.Int64.Decode(rec.Value)
		if err != nil {
			t.Fatal(err)
		}
		want[string(rec.Key)] += 3 * n
		sent[fmt.Sprint(n)]++
	}
	if !maps.Equal(got, want) {
		t.Errorf("the view is %v, its records come to %v", got, want)
	}
	for rec, err := range out.Scan(ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
		n, _, _ := strings.Cut(string(rec.Value), " ")
		seen[n]++
	}
	if !maps.Equal(seen, sent) {
		t.Errorf("appended %v, want %v", seen, sent)
	}
	return through
}
