package engine

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// classicWork is the life of a group of one member, stopped anywhere, and what the
// member was told.
type classicWork struct {
	e          *Engine
	fs         vfs.FS
	told       int32  // the highest generation
	id         string // the member, and its generation, that is known to be stable; empty: none is
	generation int32
	assignment []byte
	fenced     []ClassicHeartbeatRequest // who must not come back
	offset     int64                     // acknowledged
	trying     int64                     // perhaps committed
}

func (w *classicWork) open(fs vfs.FS) (err error) {
	w.fs = fs
	w.e, err = Open("db", &Options{FS: fs, MaintenanceInterval: -1, GroupInitialDelay: -1, Now: func() time.Time { return time.UnixMilli(1_700_000_000_000) }})
	return err
}

func (w *classicWork) join(id, instance string) (JoinResponse, error) {
	r, err := w.e.Groups().Join(ctx, JoinRequest{
		Group: "c", MemberID: id, InstanceID: instance, ClientID: "app", ProtocolType: "consumer", Protocols: rangeOver("orders"), SessionTimeout: time.Minute,
	})
	if err == nil {
		w.told = max(w.told, r.Generation)
	}
	return r, err
}

// generationOf joins and assigns.
func (w *classicWork) generationOf(id, instance string, partitions ...int32) error {
	assignment := appendConsumerAssignment(nil, 1, []namedParts{{"orders", partitions}})
	r, err := w.join(id, instance)
	if err != nil {
		return err
	}
	if w.id != "" { // from now on the generation before may be over, and it is not known whether this one is stored
		w.id = ""
	}
	if _, err = w.e.Groups().Sync(ctx, SyncRequest{
		Group: "c", MemberID: r.MemberID, InstanceID: instance, Generation: r.Generation, Assignments: []SyncAssignment{{r.MemberID, assignment}},
	}); err == nil {
		w.id, w.generation, w.assignment = r.MemberID, r.Generation, assignment
	}
	return err
}

func (w *classicWork) commit(id string, generation int32, offset int64) error {
	w.trying = offset
	err := w.e.Groups().Commit(ctx, CommitRequest{Group: "c", MemberID: id, MemberEpoch: generation, Offsets: []OffsetCommit{at("orders", 0, offset)}})
	if err == nil {
		w.offset = offset
	}
	return err
}

func (w *classicWork) fence(id string, generation int32) {
	w.fenced = append(w.fenced, ClassicHeartbeatRequest{Group: "c", MemberID: id, Generation: generation})
}

func (w *classicWork) steps() []func() error {
	return []func() error{
		func() error { return w.generationOf("", "i", 0) },
		func() error { return w.commit(w.id, w.generation, 1) },
		func() error { return w.generationOf(w.id, "i", 1) },
		func() error { return w.commit(w.id, w.generation, 2) },
		func() error { // the static member comes back under another id
			old, generation := w.id, w.generation
			w.id = ""
			r, err := w.join("", "i")
			if err != nil {
				return err
			}
			w.fence(old, generation)
			w.id = r.MemberID
			return nil
		},
		func() error { return w.commit(w.id, w.generation, 3) },
		func() error {
			if err := w.e.Close(); err != nil {
				return err
			}
			return w.open(w.fs)
		},
		func() error { return w.commit(w.id, w.generation, 4) },
		func() error { // it goes, and somebody commits by that
			old, generation := w.id, w.generation
			w.id = ""
			if _, err := w.e.Groups().Leave(ctx, LeaveRequest{Group: "c", Members: []LeavingMember{{MemberID: old}}}); err != nil {
				return err
			}
			if err := w.commit("", -1, 5); err != nil {
				return err
			}
			w.fence(old, generation)
			return nil
		},
		func() error { return w.generationOf("", "", 0, 1) },
		func() error { // a member with an epoch joins
			old, generation := w.id, w.generation
			w.id = ""
			r, err := w.e.Groups().Heartbeat(ctx, HeartbeatRequest{Group: "c", MemberID: "e", Topics: []string{"orders"}})
			if err != nil {
				return err
			}
			w.told = max(w.told, r.MemberEpoch)
			w.fence(old, generation)
			return nil
		},
	}
}

func (w *classicWork) run(fs vfs.FS) error {
	if err := w.open(fs); err != nil {
		return err
	}
	defer func() {
		if w.e != nil {
			w.e.Close()
		}
	}()
	for _, step := range w.steps() {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// check opens what is left: who was stable goes on with what it had, who was fenced
// stays so, and no generation is told again.
func (w *classicWork) check(fs vfs.FS) error {
	o := classicWork{}
	if err := o.open(fs); err != nil {
		return err
	}
	defer o.e.Close()
	for _, req := range w.fenced {
		if err := o.e.Groups().ClassicHeartbeat(ctx, req); err == nil {
			return fmt.Errorf("member %s of generation %d was fenced, and is let in", req.MemberID, req.Generation)
		}
	}
	if w.id != "" {
		r, err := o.e.Groups().Sync(ctx, SyncRequest{Group: "c", MemberID: w.id, Generation: w.generation})
		if err != nil || !bytes.Equal(r.Assignment, w.assignment) {
			return fmt.Errorf("member %s of generation %d was assigned %x, and is %x, %v", w.id, w.generation, w.assignment, r.Assignment, err)
		}
	}
	list, err := o.e.Groups().Committed(ctx, "c", nil, false)
	if err != nil {
		return err
	}
	got := int64(0)
	if len(list) > 0 {
		got = list[0].Offset
	}
	if got != w.offset && got != w.trying {
		return fmt.Errorf("committed %d, want %d or %d", got, w.offset, w.trying)
	}
	r, err := o.e.Groups().Heartbeat(ctx, HeartbeatRequest{Group: "c", MemberID: "new", Topics: []string{"orders"}})
	if err != nil || r.MemberEpoch <= w.told {
		return fmt.Errorf("a member is told epoch %d, %v; %d was told before", r.MemberEpoch, err, w.told)
	}
	return nil
}

// What a member of a classic group was told holds, wherever the power goes.
func TestClassicSurvivesCrashes(t *testing.T) {
	alone(t)
	base := groupWorkBase(t)
	for k := 0; ; k++ {
		mem := base.AfterKill(vfs.CrashAt(k), vfs.CrashByte(k*37%300))
		w := &classicWork{}
		err := w.run(mem)
		if err == nil && !mem.Crashed() {
			if k < 50 {
				t.Fatalf("the script needs %d operations only", k)
			}
			t.Logf("%d operations", k)
			return
		}
		if err != nil && !errors.Is(err, vfs.ErrCrashed) && !errors.Is(err, log.ErrClosed) {
			t.Fatalf("k=%d: %v", k, err)
		}
		left := []*vfs.Mem{mem.AfterCrash(vfs.KeepNone), mem.AfterCrash(vfs.KeepAll), mem.AfterKill()}
		for i := range testcount.N(2) {
			left = append(left, mem.AfterCrash(vfs.Random(uint64(k*100+i))))
		}
		for i, fs := range left {
			if err := w.check(fs); err != nil {
				t.Fatalf("k=%d, state %d: %v", k, i, err)
			}
		}
	}
}

// A write that fails is reported, and nobody is told what was not written.
func TestClassicSurvivesFailures(t *testing.T) {
	alone(t)
	base := groupWorkBase(t)
	for k := 0; ; k++ {
		mem := base.AfterKill()
		fault := vfs.NewFault(mem, vfs.Rule{Skip: k, Effect: vfs.Fail(errors.New("injected"))})
		w := &classicWork{}
		w.run(fault)
		if fault.Hits() == 0 {
			t.Logf("%d operations", k)
			return
		}
		if err := w.check(mem.AfterKill()); err != nil {
			t.Fatalf("k=%d: %v", k, err)
		}
		if err := w.check(mem.AfterCrash(vfs.Random(uint64(k)))); err != nil {
			t.Fatalf("k=%d, and the power goes: %v", k, err)
		}
	}
}
