package disk

import (
	"bytes"
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
	"github.com/x/embedlog/query"
)

var crashAll = flag.Bool("crash.all", false, "TestCrashesWithTheLog crashes at every operation, not at some")

// The process is killed, or the power fails, at some file operation of the log's or of the store's, while a graph computes views of two partitions
// and appends to a topic. When it goes on, with what is left of both, the views are what the records come to, and each record was appended once.
func TestCrashesWithTheLog(t *testing.T) {
	seed := rand.Uint64()
	var used crashUse
	for _, level := range []embedlog.Durability{embedlog.Durable, embedlog.OS} {
		for _, power := range []bool{true, false} {
			var ops int
			synctest.Test(t, func(t *testing.T) { ops = crashOnce(t, 1<<30, power, level, seed, &used) })
			n, r := testcount.N(10), rand.New(rand.NewPCG(seed, uint64(level)))
			k := func(int) int { return r.IntN(ops) }
			if *crashAll {
				n, k = ops, func(i int) int { return i }
			}
			for i := range n {
				at, seed := k(i), seed+uint64(i)
				synctest.Test(t, func(t *testing.T) { crashOnce(t, at, power, level, seed, &used) })
				if t.Failed() {
					t.Fatalf("seed %d, crash at operation %d, power cut %v, level %v", seed, at, power, level)
				}
			}
			t.Logf("level %v, power cut %v: %d crashes, in runs of %d operations", level, power, n, ops)
		}
	}
	t.Logf("%+v", used)
	if n := used.None + used.Whole + used.Older + used.Refused; n >= 40 && (used.Whole == 0 || used.Older == 0) {
		t.Errorf("no store was used after a crash: %+v", used)
	}
}

// crashUse is what tasks found in their stores after a crash: nothing, all, something older, or what could not be used.
type crashUse struct{ None, Whole, Older, Refused int }

func (u *crashUse) count(s query.Stats) {
	switch {
	case s.CheckpointsRefused > 0:
		u.Refused++
	case s.RestoredRows == 0:
		u.None++
	case s.RestoredRecords == 0:
		u.Whole++
	default:
		u.Older++
	}
}

// crashGraph has rows of some kilobytes, so that pebble writes files.
func crashGraph(ctx context.Context, db *embedlog.DB, fs vfs.FS, level embedlog.Durability) (g *query.Graph, orders, out *embedlog.Topic, sums *query.View[string, int64], last *query.View[string, []byte], err error) {
	if orders, err = db.EnsureTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 2, Durability: level}); err != nil {
		return
	}
	if out, err = db.EnsureTopic(ctx, "out", nil); err != nil {
		return
	}
	stores := New(&Options{Dir: "stores", WriteBytes: 1 << 16})
	stores.fs = logFS{fs}
	g = query.NewGraph(db, "g", &query.Options{CommitInterval: 5 * time.Millisecond, Store: stores, CacheBytes: 1})
	s := query.From(orders, codec.String, codec.Bytes)
	sums = query.Add(g, "sums", query.Sum(s, func(_ string, b []byte) int64 { return number(b) }))
	last = query.Add(g, "last", query.TableFrom(orders, codec.String, codec.Bytes))
	query.To(g, query.Map(s, codec.String, func(key string, b []byte) (string, string) { return "one", fmt.Sprint(key, "=", number(b)) }), out)
	return g, orders, out, sums, last, g.Start(ctx)
}

// order is a value of about four kilobytes that say which one it is.
func order(n int64) []byte { return bytes.Repeat(fmt.Appendf(nil, "%09d;", n), 400) }

func number(b []byte) (n int64) {
	fmt.Sscanf(string(b[:min(len(b), 9)]), "%d", &n)
	return n
}

// crashOnce says how many operations the run took.
func crashOnce(t *testing.T, k int, power bool, level embedlog.Durability, seed uint64, used *crashUse) (ops int) {
	ctx := context.Background()
	o := &embedlog.Options{MaintenanceInterval: -1}
	fs := vfs.NewMem(vfs.CrashAt(k))
	next := int64(0)
	record := func() embedlog.Record {
		next++
		rec := embedlog.Record{Key: fmt.Appendf(nil, "k%d", next%7), Value: order(next)}
		if next%9 == 0 {
			rec.Value = nil
		}
		return rec
	}
	use := func(db *embedlog.DB, n int) error {
		g, orders, _, _, _, err := crashGraph(ctx, db, fs, level)
		if err != nil {
			return err
		}
		defer g.Close()
		for i := range n {
			if _, err := orders.Produce(ctx, record()); err != nil {
				return err
			}
			if i%5 == 4 {
				time.Sleep(7 * time.Millisecond)
			}
		}
		return g.Close()
	}
	db, err := embedlog.OpenFS(fs, o)
	for range 3 {
		if err != nil {
			break
		}
		use(db, 25)
		db.Close()
		db, err = embedlog.OpenFS(fs, o)
	}
	if err == nil {
		db.Close()
	}
	ops = fs.Ops()
	after := fs.AfterKill()
	if power {
		after = fs.AfterCrash(vfs.Random(seed))
	}
	if db, err = embedlog.OpenFS(after, o); err != nil {
		t.Fatalf("open after the crash: %v", err)
	}
	defer db.Close()
	for round := range 2 {
		g, orders, out, sums, last, err := crashGraph(ctx, db, after, level)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for range 3 {
			if _, err := orders.Produce(ctx, record()); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.CatchUp(ctx); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if round == 0 && k < 1<<30 {
			used.count(g.Stats())
		}
		gotSums, gotLast := map[string]int64{}, map[string]int64{}
		for row, err := range sums.All(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			gotSums[row.Key] = row.Value
		}
		for row, err := range last.All(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(row.Value, order(number(row.Value))) {
				t.Errorf("round %d: the row of %s is of several: %q", round, row.Key, row.Value)
			}
			gotLast[row.Key] = number(row.Value)
		}
		if err := g.Close(); err != nil { // commits what was sent
			t.Fatal(err)
		}
		wantSums, wantLast, sent := map[string]int64{}, map[string]int64{}, map[string]int{}
		for rec, err := range orders.Scan(ctx, nil) {
			if err != nil {
				t.Fatal(err)
			}
			if rec.Value == nil {
				delete(wantLast, string(rec.Key))
				continue // is no row of a stream
			}
			n := number(rec.Value)
			wantSums[string(rec.Key)] += n
			wantLast[string(rec.Key)] = n
			sent[fmt.Sprintf("%s=%d", rec.Key, n)]++
		}
		if !maps.Equal(gotSums, wantSums) || !maps.Equal(gotLast, wantLast) {
			t.Errorf("round %d: the views are %v and %v, the records come to %v and %v (%+v)", round, gotSums, gotLast, wantSums, wantLast, g.Stats())
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
	return ops
}
