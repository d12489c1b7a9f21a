package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// groupWork is a script of groups that is stopped anywhere, and what it was told.
type groupWork struct {
	e     *Engine
	fs    vfs.FS
	want  map[string]int64 // "group topic/partition": offset, of what was acknowledged
	next  map[string]int64 // the same if the step under way took effect; -1 is gone
	epoch int32            // the highest that a member was told
}

const groupWorkTxn = 4711

// groupSteps are the script: each says what it is about to change, then does it.
func groupSteps() []func(w *groupWork) error {
	simple := func(group string, offsets ...OffsetCommit) func(w *groupWork) error {
		return func(w *groupWork) error {
			for _, o := range offsets {
				w.next[fmt.Sprintf("%s %s/%d", group, o.Topic, o.Partition)] = o.Offset
			}
			return w.e.Groups().Commit(ctx, CommitRequest{Group: group, MemberEpoch: -1, Offsets: offsets})
		}
	}
	beat := func(epoch *int32, req HeartbeatRequest) func(w *groupWork) error {
		return func(w *groupWork) error {
			r, err := w.e.Groups().Heartbeat(ctx, req)
			if err == nil {
				*epoch = r.MemberEpoch
				w.epoch = max(w.epoch, r.MemberEpoch)
			}
			return err
		}
	}
	txn := func(epoch int16, offset int64, commit bool) func(w *groupWork) error {
		return func(w *groupWork) error {
			err := w.e.Groups().TxnCommit(ctx, CommitRequest{Group: "t", MemberEpoch: -1, Offsets: []OffsetCommit{at("orders", 0, offset)}}, groupWorkTxn, epoch)
			if err != nil {
				return err
			}
			p, err := w.e.Groups().OffsetsPartition(ctx, "t")
			if err != nil {
				return err
			}
			if commit {
				w.next["t orders/0"] = offset
			}
			if _, err = p.EndTransaction(ctx, groupWorkTxn, epoch, commit, 0, false); err == nil {
				w.e.Groups().txnEnded(context.Background(), p.ID(), groupWorkTxn, commit)
			}
			return err
		}
	}
	reopen := func(w *groupWork) error {
		if err := w.e.Close(); err != nil {
			return err
		}
		return w.open(w.fs)
	}
	var epoch int32
	return []func(w *groupWork) error{
		simple("g", at("orders", 0, 1)),
		simple("h", at("orders", 0, 2), at("orders", 1, 3)),
		simple("g", at("orders", 0, 2), at("orders", 1, 1)),
		txn(0, 5, true),
		txn(1, 6, false),
		beat(&epoch, HeartbeatRequest{Group: "m", MemberID: "a", Topics: []string{"orders"}}),
		func(w *groupWork) error {
			w.next["m orders/0"] = 7
			return w.e.Groups().Commit(ctx, CommitRequest{Group: "m", MemberID: "a", MemberEpoch: epoch, Offsets: []OffsetCommit{at("orders", 0, 7)}})
		},
		beat(&epoch, HeartbeatRequest{Group: "m", MemberID: "a", MemberEpoch: LeaveEpoch}),
		func(w *groupWork) error {
			w.next["h orders/0"], w.next["h orders/1"] = 0, 0
			_, err := w.e.Groups().Reset(ctx, "h", ResetRequest{Kind: ResetEarliest})
			return err
		},
		reopen,
		simple("g", at("orders", 0, 3)),
		func(w *groupWork) error {
			w.next["h orders/1"] = -1
			t, err := w.e.Topic("orders")
			if err != nil {
				return err
			}
			return w.e.Groups().DeleteOffsets(ctx, "h", []TopicPartitions{{t.ID(), []int32{1}}})
		},
		beat(&epoch, HeartbeatRequest{Group: "m", MemberID: "a", Topics: []string{"orders"}}),
		func(w *groupWork) error {
			w.next["h orders/0"] = -1
			return w.e.Groups().Delete(ctx, "h")
		},
		txn(2, 8, true),
		func(w *groupWork) error {
			for key := range w.want {
				w.next[key] = -1
			}
			return w.e.DeleteTopic(ctx, "orders")
		},
		reopen,
		func(w *groupWork) error { w.e.Tick(ctx); return nil },
	}
}

func (w *groupWork) open(fs vfs.FS) (err error) {
	w.fs = fs
	w.e, err = Open("db", &Options{FS: fs, MaintenanceInterval: -1, Now: func() time.Time { return time.UnixMilli(1_700_000_000_000) }})
	return err
}

// run does the steps up to the first that fails.
func (w *groupWork) run(fs vfs.FS) error {
	if err := w.open(fs); err != nil {
		return err
	}
	defer func() {
		if w.e != nil { // it may not have come up again
			w.e.Close()
		}
	}()
	for _, step := range groupSteps() {
		w.next = maps.Clone(w.want)
		if err := step(w); err != nil {
			return err
		}
		for key, offset := range w.next {
			if w.want[key] = offset; offset < 0 {
				delete(w.want, key)
			}
		}
	}
	return nil
}

// check opens what is left and compares. Each offset is as it was before the step
// that was interrupted or as after it; of one batch all are the same.
func (w *groupWork) check(fs vfs.FS) error {
	o := groupWork{want: map[string]int64{}}
	if err := o.open(fs); err != nil {
		return err
	}
	defer o.e.Close()
	got := map[string]int64{}
	for _, group := range []string{"g", "h", "t", "m"} {
		list, err := o.e.Groups().Committed(ctx, group, nil, false)
		if err != nil {
			return err
		}
		for _, c := range list {
			if c.Lost != nil {
				return c.Lost
			}
			got[fmt.Sprintf("%s %s/%d", group, c.Topic, c.Partition)] = c.Offset
		}
	}
	after := maps.Clone(w.next)
	maps.DeleteFunc(after, func(_ string, offset int64) bool { return offset < 0 })
	if !maps.Equal(got, w.want) && !maps.Equal(got, after) {
		return fmt.Errorf("got %v, want %v or %v", got, w.want, after)
	}
	r, err := o.e.Groups().Heartbeat(ctx, HeartbeatRequest{Group: "m", MemberID: "a", Topics: []string{"orders"}})
	if err != nil || r.MemberEpoch <= w.epoch {
		return fmt.Errorf("a member is told epoch %d, %v; one of the run before was told %d", r.MemberEpoch, err, w.epoch)
	}
	return nil
}

// groupWorkBase is a database with a topic, and everything synced.
func groupWorkBase(t *testing.T) *vfs.Mem {
	t.Helper()
	fs := vfs.NewMem()
	w := &groupWork{}
	if err := w.open(fs); err != nil {
		t.Fatal(err)
	}
	topic, err := w.e.CreateTopic(ctx, TopicSpec{Name: "orders", Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range topic.Partitions() {
		if _, err := p.Append(ctx, slices.Repeat([]log.Record{{Value: []byte("v")}}, 10), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.e.Close(); err != nil {
		t.Fatal(err)
	}
	return fs
}

// No commit that was acknowledged is forgotten, wherever the power goes.
func TestOffsetsSurviveCrashes(t *testing.T) {
	alone(t)
	base := groupWorkBase(t)
	for k := 0; ; k++ {
		mem := base.AfterKill(vfs.CrashAt(k), vfs.CrashByte(k*37%300))
		w := &groupWork{want: map[string]int64{}}
		err := w.run(mem)
		if err == nil && !mem.Crashed() {
			if k < 100 {
				t.Fatalf("the script needs %d operations only", k)
			}
			t.Logf("%d operations", k)
			return
		}
		if err != nil && !errors.Is(err, vfs.ErrCrashed) && !errors.Is(err, log.ErrClosed) {
			t.Fatalf("k=%d: %v", k, err)
		}
		left := []*vfs.Mem{mem.AfterCrash(vfs.KeepNone), mem.AfterCrash(vfs.KeepAll), mem.AfterKill()}
		for i := range testcount.N(3) {
			left = append(left, mem.AfterCrash(vfs.Random(uint64(k*100+i))))
		}
		for i, fs := range left {
			if err := w.check(fs); err != nil {
				t.Fatalf("k=%d, state %d: %v", k, i, err)
			}
		}
	}
}

// An operation that fails is no commit, or one: never half of it, and no other is
// touched.
func TestOffsetsSurviveFailures(t *testing.T) {
	alone(t)
	base := groupWorkBase(t)
	for k := 0; ; k++ {
		mem := base.AfterKill()
		fault := vfs.NewFault(mem, vfs.Rule{Skip: k, Effect: vfs.Fail(errors.New("injected"))})
		w := &groupWork{want: map[string]int64{}}
		err := w.run(fault)
		if fault.Hits() == 0 {
			t.Logf("%d operations", k)
			return
		}
		if err == nil {
			w.next = w.want // it was survived
		}
		if err := w.check(mem.AfterKill()); err != nil {
			t.Fatalf("k=%d: %v", k, err)
		}
		if err := w.check(mem.AfterCrash(vfs.Random(uint64(k)))); err != nil {
			t.Fatalf("k=%d, and the power goes: %v", k, err)
		}
	}
}
