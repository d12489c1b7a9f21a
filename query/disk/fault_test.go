package disk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/query"
)

// An operation on the store's files fails, or all from one on. Without room the graph goes on by itself when there is room again; otherwise it may stop, and
// says why, and goes on when it is started again. In the end its views are what the records come to.
func TestFaultsOfTheStore(t *testing.T) {
	seed := rand.Uint64()
	for name, effect := range map[string]vfs.Effect{"input or output error": vfs.Fail(syscall.EIO), "no room": vfs.Fail(syscall.ENOSPC)} {
		for _, lasting := range []bool{false, true} {
			run := func(k int) (r faultRun) {
				synctest.Test(t, func(t *testing.T) { r = faultOnce(t, k, effect, lasting) })
				if t.Failed() {
					t.Fatalf("%s at operation %d, lasting %v", name, k, lasting)
				}
				return r
			}
			ops := run(1 << 30).ops
			n, r := testcount.N(10), rand.New(rand.NewPCG(seed, 1))
			k := func(int) int { return r.IntN(ops) }
			if *crashAll {
				n, k = ops, func(i int) int { return i }
			}
			var all faultRun
			for i := range n {
				one := run(k(i))
				all.stopped += one.stopped
				all.waited += one.waited
				all.unharmed += one.unharmed
			}
			t.Logf("%s, lasting %v: of %d faults, in runs of %d operations, %d stopped the graph, %d had it wait, %d did neither", name, lasting, n, ops, all.stopped, all.waited, all.unharmed)
		}
	}
}

type faultRun struct{ ops, stopped, waited, unharmed int }

func faultOnce(t *testing.T, k int, effect vfs.Effect, lasting bool) (res faultRun) {
	ctx := context.Background()
	mem := vfs.NewMem()
	fault := vfs.NewFault(mem)
	var ops atomic.Int64
	fault.OnOp(func(vfs.Op, string) { ops.Add(1) })
	defer func() { res.ops = int(ops.Load()) }()
	db, err := embedlog.OpenFS(mem, &embedlog.Options{MaintenanceInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	count := 1
	if lasting {
		count = -1
	}
	fault.Add(vfs.Rule{Op: vfs.OpAny, Skip: k, Count: count, Effect: effect})
	next, want := int64(0), map[string]int64{}
	for range 3 {
		g, orders, _, _, last, err := crashGraph(ctx, db, fault, embedlog.Durable)
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			for range 5 {
				next++
				rec := embedlog.Record{Key: fmt.Appendf(nil, "k%d", next%7), Value: order(next)}
				if want[string(rec.Key)] = next; next%9 == 0 {
					rec.Value = nil
					delete(want, string(rec.Key))
				}
				if _, err := orders.Produce(ctx, rec); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(7 * time.Millisecond)
			got, err := map[string]int64(nil), query.ErrInterrupted
			for errors.Is(err, query.ErrInterrupted) {
				got, err = readLast(ctx, last)
			}
			if stopped := (*query.StoppedError)(nil); err != nil && !errors.As(err, &stopped) { // one read has met it first
				failed := (*StoreError)(nil)
				if !errors.As(err, &failed) && !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("a read fails with %v", err)
				}
				time.Sleep(time.Second)
				got, err = readLast(ctx, last)
			}
			if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, embedlog.ErrNoSpace) || errors.Is(err, query.ErrInterrupted) {
				res.waited++
				fault.Clear()
				got, err = readLast(ctx, last)
				for errors.Is(err, query.ErrInterrupted) {
					got, err = readLast(ctx, last)
				}
			}
			if stopped := (*query.StoppedError)(nil); errors.As(err, &stopped) {
				failed := (*StoreError)(nil)
				if !errors.As(err, &failed) || !errors.Is(err, embedlog.ErrStorageFailed) && !errors.Is(err, embedlog.ErrCorrupt) {
					t.Fatalf("the graph has stopped: %v", err)
				}
				res.stopped++
				fault.Clear()
				g.Close()
				if g, orders, _, _, last, err = crashGraph(ctx, db, fault, embedlog.Durable); err != nil {
					t.Fatal(err)
				}
				got, err = readLast(ctx, last)
			}
			if err != nil || !maps.Equal(got, want) {
				t.Fatalf("after %d records the view is %v, %v; want %v", next, got, err, want)
			}
		}
		if failed := (*StoreError)(nil); errors.As(g.Close(), &failed) {
			fault.Clear()
		}
	}
	if res.stopped+res.waited == 0 {
		res.unharmed = 1
	}
	return res
}

// readLast reads with a deadline.
func readLast(ctx context.Context, v *query.View[string, []byte]) (map[string]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	got := map[string]int64{}
	for row, err := range v.All(ctx) {
		if err != nil {
			return nil, err
		}
		got[row.Key] = number(row.Value)
	}
	return got, nil
}
