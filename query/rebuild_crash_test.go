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
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

// rebuiltGraph is a definition of a graph whose rows go through a repartition, or do not: sums, and a sink of the rows.
func rebuiltGraph(ctx context.Context, db *embedlog.DB, by int64, stages bool) (orders, out *embedlog.Topic, g *Graph, v *View[string, int64], err error) {
	if orders, err = db.EnsureTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 2}); err != nil {
		return
	}
	if out, err = db.EnsureTopic(ctx, "out", nil); err != nil {
		return
	}
	g = NewGraph(db, "g", &Options{CommitInterval: 5 * time.Millisecond, Rebuild: true})
	s := From(orders, codec.String, codec.Int64)
	for range by { // each is another operator
		s = s.Filter(func(string, int64) bool { return true })
	}
	if stages {
		s = Rekey(s, codec.String, func(_ string, n int64) string { return fmt.Sprint("g", n%7) }).Repartition("r", 2)
	}
	v = Add(g, fmt.Sprint("sums-", by), Sum(s, func(_ string, n int64) int64 { return n * by }))
	To(g, MapValues(s, func(_ string, n int64) string { return fmt.Sprint(n) }), out)
	return orders, out, g, v, g.Start(ctx)
}

// The process is killed, or the power fails, at some file operation while a graph that runs is rebuilt, gets another definition, and is rebuilt again:
// with a repartition before its sink, too. Views are what their records come to, and each record was appended once.
func TestRebuildRunningCrashes(t *testing.T) {
	seed := rand.Uint64()
	for _, stages := range []bool{false, true} {
		for _, power := range []bool{true, false} {
			runs, k := 1<<30, func(i int) int { return i }
			if !*crashAll {
				r := rand.New(rand.NewPCG(seed, 8))
				runs, k = testcount.N(12), func(int) int { return r.IntN(2200) }
			}
			done, refused := 0, 0
			for i := range runs {
				through, at := false, k(i)
				synctest.Test(t, func(t *testing.T) { through = rebuildRunningCrash(t, at, power, stages, seed+uint64(i), &refused) })
				if t.Failed() {
					t.Fatalf("seed %d, crash at operation %d, power %v, stages %v", seed+uint64(i), at, power, stages)
				}
				if done++; through && *crashAll {
					break
				}
			}
			t.Logf("stages %v, power cut %v: %d crashes; the old definition had to be started again after %d", stages, power, done, refused)
		}
	}
}

func rebuildRunningCrash(t *testing.T, k int, power, stages bool, seed uint64, refused *int) (through bool) {
	ctx := context.Background()
	o := &embedlog.Options{MaintenanceInterval: -1}
	fs := vfs.NewMem(vfs.CrashAt(k))
	next := int64(0)
	put := func(orders *embedlog.Topic, n int) error {
		for range n {
			next++
			if _, err := orders.Produce(ctx, embedlog.Record{Key: fmt.Appendf(nil, "k%d", next%5), Value: mustInt(next)}); err != nil {
				return err
			}
			if next%4 == 0 {
				time.Sleep(7 * time.Millisecond)
			}
		}
		return nil
	}
	use := func(db *embedlog.DB, by int64, n int, again bool) error {
		orders, _, g, v, err := rebuiltGraph(ctx, db, by, stages)
		if err != nil {
			return err
		}
		defer g.Close()
		if err := put(orders, n); err != nil {
			return err
		}
		if again {
			limited, cancel := context.WithTimeout(ctx, time.Minute) // a file system that has crashed does not come back
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- g.Rebuild(limited) }()
			err := put(orders, n)
			if err != nil {
				cancel()
			}
			if err = errors.Join(err, <-done); err != nil {
				return err
			}
		}
		if _, err := v.Len(ctx); err != nil {
			return err
		}
		return g.Close()
	}
	db, err := embedlog.OpenFS(fs, o)
	if err == nil {
		err = use(db, 1, 8, true)
		if err == nil {
			err = use(db, 2, 6, false)
		}
		if err == nil {
			err = use(db, 2, 3, true)
		}
		db.Close()
	}
	if through = !fs.Crashed(); through && err != nil {
		t.Fatalf("nothing has crashed: %v", err)
	}
	after := fs.AfterKill()
	if power {
		after = fs.AfterCrash(vfs.Random(seed))
	}
	if db, err = embedlog.OpenFS(after, o); err != nil {
		t.Fatalf("open after the crash: %v", err)
	}
	defer db.Close()
	orders, out, g, v, err := rebuiltGraph(ctx, db, 2, stages)
	if errors.Is(err, ErrSink) && stages { // rows were on their way: the old definition brings them there
		*refused++
		var old *Graph
		if _, _, old, _, err = rebuiltGraph(ctx, db, 1, stages); err != nil {
			t.Fatalf("start the old definition: %v", err)
		}
		if err := old.CatchUp(ctx); err != nil {
			t.Fatal(err)
		}
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}
		orders, out, g, v, err = rebuiltGraph(ctx, db, 2, stages)
	}
	if err != nil {
		t.Fatalf("start after the crash: %v", err)
	}
	check := func(when string) {
		got, want, sent, seen := map[string]int64{}, map[string]int64{}, map[string]int{}, map[string]int{}
		for row, err := range v.All(ctx) {
			if err != nil {
				t.Fatal(when, ": ", err)
			}
			got[row.Key] = row.Value
		}
		for i := range g.slots { // what sinks have is committed
			if err := g.retried(ctx, func(g *Graph) error { _, err := g.settle(ctx, i, true); return err }); err != nil {
				t.Fatal(when, ": ", err)
			}
		}
		for rec, err := range orders.Scan(ctx, nil) {
			if err != nil {
				t.Fatal(err)
			}
			n, err := codec.Int64.Decode(rec.Value)
			if err != nil {
				t.Fatal(err)
			}
			key := string(rec.Key)
			if stages {
				key = fmt.Sprint("g", n%7)
			}
			want[key] += 2 * n
			sent[fmt.Sprint(n)]++
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: the view is %v, its records come to %v", when, got, want)
		}
		for rec, err := range out.Scan(ctx, nil) {
			if err != nil {
				t.Fatal(err)
			}
			seen[string(rec.Value)]++
		}
		if !maps.Equal(seen, sent) {
			t.Errorf("%s: appended %v, want %v", when, seen, sent)
		}
	}
	if err := put(orders, 3); err != nil {
		t.Fatal(err)
	}
	check("started again")
	for { // what was under way comes to its end
		s, err := g.generations(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if s.Building == nil && s.Obsolete == nil && g.serving().number == s.Serving.Number {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err := put(orders, 3); err != nil {
		t.Fatal(err)
	}
	check("when the rebuild has ended")
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	for _, info := range db.Topics() {
		if strings.HasPrefix(info.Name, "g") && info.Name != "g-generation" && !strings.HasPrefix(info.Name, g.serving().kept+"-") {
			t.Errorf("topic %s is left", info.Name)
		}
	}
	return through
}
