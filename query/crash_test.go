package query

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

var crashAll = flag.Bool("crash.all", false, "TestCrashes crashes at every operation, not at some")

// The process is killed, or the power fails, at some file operation while a graph computes a view of two partitions and appends to a topic. When it
// goes on, the view is what its records come to, and each record was appended once.
func TestCrashes(t *testing.T) {
	seed := rand.Uint64()
	for _, level := range []embedlog.Durability{embedlog.Durable, embedlog.OS} {
		for _, power := range []bool{true, false} {
			k := func(i int) int { return i }
			runs := 1 << 30
			if !*crashAll {
				r := rand.New(rand.NewPCG(seed, uint64(level)))
				runs = testcount.N(25)
				k = func(int) int { return r.IntN(900) }
			}
			done := 0
			for i := range runs {
				through := false
				synctest.Test(t, func(t *testing.T) { through = crashOnce(t, k(i), power, level, seed+uint64(i)) })
				if t.Failed() {
					t.Fatalf("seed %d, crash at operation %d, power %v, level %v", seed+uint64(i), k(i), power, level)
				}
				if done++; through && *crashAll {
					break
				}
			}
			t.Logf("level %v, power cut %v: %d crashes", level, power, done)
		}
	}
}

// crashGraph is the view and the sink.
func crashGraph(ctx context.Context, db *embedlog.DB, level embedlog.Durability) (orders, out *embedlog.Topic, v *View[string, int64], err error) {
	if orders, err = db.EnsureTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 2, Durability: level}); err != nil {
		return
	}
	if out, err = db.EnsureTopic(ctx, "out", nil); err != nil {
		return
	}
	g := NewGraph(db, "g", &Options{CommitInterval: 5 * time.Millisecond, CheckpointInterval: 1})
	g.checkpointAfter = 1
	s := From(orders, codec.String, codec.Int64)
	v = Add(g, "spent", Sum(s, func(_ string, n int64) int64 { return n }))
	To(g, Map(s, codec.String, func(key string, n int64) (string, string) { return "one", fmt.Sprint(key, "=", n) }), out)
	return orders, out, v, g.Start(ctx)
}

// crashOnce says whether the run came to its end before the crash.
func crashOnce(t *testing.T, k int, power bool, level embedlog.Durability, seed uint64) (through bool) {
	ctx := context.Background()
	o := &embedlog.Options{MaintenanceInterval: -1}
	fs := vfs.NewMem(vfs.CrashAt(k))
	next := int64(0)
	use := func(db *embedlog.DB, n int) error {
		orders, _, v, err := crashGraph(ctx, db, level)
		if err != nil {
			return err
		}
		defer v.Close()
		for range n {
			next++
			if _, err := orders.Produce(ctx, embedlog.Record{Key: fmt.Appendf(nil, "k%d", next%5), Value: mustInt(next)}); err != nil {
				return err
			}
			if next%4 == 0 {
				time.Sleep(7 * time.Millisecond)
			}
		}
		return v.Close()
	}
	db, err := embedlog.OpenFS(fs, o)
	if err == nil {
		use(db, 12)
		db.Close()
		if db, err = embedlog.OpenFS(fs, o); err == nil {
			use(db, 8)
			db.Close()
		}
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
	for round := range 2 {
		orders, out, v, err := crashGraph(ctx, db, level)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for range 3 {
			next++
			if _, err := orders.Produce(ctx, embedlog.Record{Key: fmt.Appendf(nil, "k%d", next%5), Value: mustInt(next)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := v.Graph().CatchUp(ctx); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		got := map[string]int64{}
		for row, err := range v.All(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			got[row.Key] = row.Value
		}
		if err := v.Close(); err != nil { // commits what was sent
			t.Fatal(err)
		}
		want, sent := map[string]int64{}, map[string]int{}
		for rec, err := range orders.Scan(ctx, nil) {
			if err != nil {
				t.Fatal(err)
			}
			n, err := codec.Int64.Decode(rec.Value)
			if err != nil {
				t.Fatal(err)
			}
			want[string(rec.Key)] += n
			sent[fmt.Sprintf("%s=%d", rec.Key, n)]++
		}
		if !maps.Equal(got, want) {
			t.Errorf("round %d: the view is %v, its records come to %v", round, got, want)
		}
		seen := map[string]int{}
		for rec, err := range out.Scan(ctx, nil) {
			if err != nil {
				t.Fatal(err)
			}
			seen[string(rec.Value)]++
		}
		if !maps.Equal(seen, sent) {
			t.Errorf("round %d: appended %v, want %v", round, seen, sent)
		}
	}
	return through
}

func mustInt(n int64) []byte {
	b, err := codec.Int64.Append(nil, n)
	if err != nil {
		panic(err)
	}
	return b
}
