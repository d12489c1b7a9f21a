package engine

import (
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

// shareWork is a script of a share group that is stopped anywhere, and what its member was told.
type shareWork struct {
	e     *Engine
	topic TopicID
	epoch int32
	done  map[int64]bool // of which it was told that they are done
	next  map[int64]bool // the same if the step under way took effect
}

const shareWorkRecords = 12

func (w *shareWork) open(fs vfs.FS) (err error) {
	now := time.UnixMilli(1_700_000_000_000)
	if w.e, err = Open("db", &Options{FS: fs, MaintenanceInterval: -1, Now: func() time.Time { return now }}); err != nil {
		return err
	}
	t, err := w.e.Topic("orders")
	if err == nil {
		w.topic = t.ID()
	}
	return err
}

func (w *shareWork) earliest() error {
	return w.e.Shares().AlterSettings(ctx, shareGroupName, false, func(set map[string]string) (map[string]string, error) {
		set[shareSettingReset] = "earliest"
		return set, nil
	})
}

func (w *shareWork) join() error {
	r, err := w.e.Groups().ShareHeartbeat(ctx, ShareHeartbeatRequest{Group: shareGroupName, MemberID: "a", Topics: []string{"orders"}})
	if err == nil && r.MemberEpoch <= w.epoch {
		return fmt.Errorf("a member is told epoch %d after %d", r.MemberEpoch, w.epoch)
	}
	w.epoch = max(w.epoch, r.MemberEpoch)
	return err
}

func (w *shareWork) leave() error {
	_, err := w.e.Groups().ShareHeartbeat(ctx, ShareHeartbeatRequest{Group: shareGroupName, MemberID: "a", MemberEpoch: LeaveEpoch})
	return err
}

// acquire gives the member all that there is, and returns it.
func (w *shareWork) acquire() (got []int64, err error) {
	for {
		res, err := w.e.Shares().Acquire(ctx, ShareRequest{Group: shareGroupName, MemberID: "a", Topic: w.topic, MaxRecords: 5, Strict: true})
		if err != nil || len(res.Acquired) == 0 {
			return got, err
		}
		for _, a := range res.Acquired {
			for o := a.First; o <= a.Last; o++ {
				got = append(got, o)
			}
		}
	}
}

// shareSteps are the script: each says what it is about to change, then does it.
func shareSteps(fs vfs.FS) []func(w *shareWork) error {
	says := func(first, last int64, types ...AckType) func(w *shareWork) error {
		return func(w *shareWork) error {
			for o := first; o <= last; o++ {
				t := types[0]
				if len(types) > 1 {
					t = types[o-first]
				}
				if t == AckAccept || t == AckReject {
					w.next[o] = true
				}
			}
			return w.e.Shares().Acknowledge(ctx, AckRequest{Group: shareGroupName, MemberID: "a", Topic: w.topic, Acks: []Ack{{first, last, types}}})
		}
	}
	acquire := func(w *shareWork) error { _, err := w.acquire(); return err }
	reopen := func(w *shareWork) error {
		if err := w.e.Close(); err != nil {
			return err
		}
		return w.open(fs)
	}
	anew := func(start int64, do func(w *shareWork) error) func(w *shareWork) error {
		return func(w *shareWork) error {
			w.next = map[int64]bool{}
			for o := range start {
				w.next[o] = true
			}
			return do(w)
		}
	}
	return []func(w *shareWork) error{
		(*shareWork).earliest, (*shareWork).join, acquire,
		says(0, 1, AckAccept),
		says(3, 5, AckAccept, AckRelease, AckReject),
		acquire,
		func(w *shareWork) error { w.e.Tick(ctx); return nil },
		says(6, 6, AckRenew),
		reopen, (*shareWork).join, acquire,
		says(2, 2, AckAccept),
		(*shareWork).leave,
		anew(1, func(w *shareWork) error { return w.e.Shares().SetOffset(ctx, shareGroupName, w.topic, 0, 1) }),
		(*shareWork).join, acquire,
		says(1, 2, AckAccept), says(4, 8, AckAccept),
		(*shareWork).leave, reopen,
		anew(0, func(w *shareWork) error { return w.e.Shares().DeleteOffsets(ctx, shareGroupName, w.topic) }),
		(*shareWork).join, acquire,
		says(0, 0, AckAccept), says(10, 11, AckReject),
		(*shareWork).leave,
		anew(0, func(w *shareWork) error {
			w.epoch = 0
			return w.e.Groups().Delete(ctx, shareGroupName)
		}),
		(*shareWork).join, acquire,
		says(2, 3, AckAccept),
		reopen,
	}
}

// run does the steps up to the first that fails.
func (w *shareWork) run(fs vfs.FS) error {
	if err := w.open(fs); err != nil {
		return err
	}
	defer func() {
		if w.e != nil { // it may not have come up again
			w.e.Close()
		}
	}()
	for _, step := range shareSteps(fs) {
		w.next = maps.Clone(w.done)
		if err := step(w); err != nil {
			return err
		}
		w.done = w.next
	}
	return nil
}

// check opens what is left. What is delivered is all that is not done, by what was before the step
// that was interrupted or by what is after it.
func (w *shareWork) check(fs vfs.FS) error {
	o := shareWork{epoch: w.epoch}
	if err := o.open(fs); err != nil {
		return err
	}
	defer o.e.Close()
	for _, do := range []func() error{o.earliest, o.join} {
		if err := do(); err != nil {
			return err
		}
	}
	got, err := o.acquire()
	if err != nil {
		return err
	}
	slices.Sort(got)
	var wants [2][]int64
	for i, done := range []map[int64]bool{w.done, w.next} {
		for offset := range int64(shareWorkRecords) {
			if !done[offset] {
				wants[i] = append(wants[i], offset)
			}
		}
	}
	if !slices.Equal(got, wants[0]) && !slices.Equal(got, wants[1]) {
		return fmt.Errorf("delivered are %v, want %v or %v", got, wants[0], wants[1])
	}
	return nil
}

// shareWorkBase is a database with a topic, and everything synced.
func shareWorkBase(t *testing.T) *vfs.Mem {
	t.Helper()
	fs := vfs.NewMem()
	e, err := Open("db", &Options{FS: fs, MaintenanceInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	topic, err := e.CreateTopic(ctx, TopicSpec{Name: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	p, _ := topic.Partition(0)
	if _, err := p.Append(ctx, slices.Repeat([]log.Record{{Value: []byte("v")}}, shareWorkRecords), nil); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return fs
}

// shareStride is from which operation to which one goes: from one to the next, but where counts are
// divided.
func shareStride() int { return 4 / testcount.N(4) }

// No acknowledgement that was answered is forgotten, and nothing else is lost, wherever the power goes.
func TestSharesSurviveCrashes(t *testing.T) {
	alone(t)
	base := shareWorkBase(t)
	for k := 0; ; k += shareStride() {
		mem := base.AfterKill(vfs.CrashAt(k), vfs.CrashByte(k*37%300))
		w := &shareWork{done: map[int64]bool{}, next: map[int64]bool{}}
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

// An operation that fails is no acknowledgement, or one: never half of it.
func TestSharesSurviveFailures(t *testing.T) {
	alone(t)
	base := shareWorkBase(t)
	for k := 0; ; k += shareStride() {
		mem := base.AfterKill()
		fault := vfs.NewFault(mem, vfs.Rule{Skip: k, Effect: vfs.Fail(errors.New("injected"))})
		w := &shareWork{done: map[int64]bool{}, next: map[int64]bool{}}
		err := w.run(fault)
		if fault.Hits() == 0 {
			t.Logf("%d operations", k)
			return
		}
		if err == nil {
			w.next = w.done // it was survived
		}
		if err := w.check(mem.AfterKill()); err != nil {
			t.Fatalf("k=%d: %v", k, err)
		}
		if err := w.check(mem.AfterCrash(vfs.Random(uint64(k)))); err != nil {
			t.Fatalf("k=%d, and the power goes: %v", k, err)
		}
	}
}
