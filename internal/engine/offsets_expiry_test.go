package engine

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// expiry is a database that keeps the offsets of unused groups for an hour, in runs
// one after another. The clock is the bubble's.
type expiry struct {
	*Engine
	t   *testing.T
	mem *vfs.Mem
	now func() time.Time // the wall clock; nil is the bubble's
}

const expiryRetention = time.Hour

func newExpiry(t *testing.T) *expiry {
	t.Helper()
	x := &expiry{t: t, mem: vfs.NewMem()}
	x.open()
	if _, err := x.CreateTopic(ctx, TopicSpec{Name: "orders"}); err != nil {
		t.Fatal(err)
	}
	return x
}

func (x *expiry) open() {
	x.t.Helper()
	e, err := Open("mem", &Options{FS: x.mem, Now: x.now, MaintenanceInterval: -1, OffsetsRetention: expiryRetention})
	if err != nil {
		x.t.Fatal(err)
	}
	x.Engine = e
}

// restart ends the run, by a close or a power cut, and begins another one after the
// machine was off for some time.
func (x *expiry) restart(kill bool, off time.Duration) {
	x.t.Helper()
	if kill {
		after := x.mem.AfterCrash(vfs.KeepNone)
		_ = x.Close()
		x.mem = after
	} else if err := x.Close(); err != nil {
		x.t.Fatal(err)
	}
	time.Sleep(off)
	x.open()
}

func (x *expiry) commit(group string) {
	x.t.Helper()
	if err := x.Groups().Commit(ctx, CommitRequest{Group: group, MemberEpoch: -1, Offsets: []OffsetCommit{at("orders", 0, 0)}}); err != nil {
		x.t.Fatal(err)
	}
}

// run lets the database run, with nobody asking for anything.
func (x *expiry) run(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// has says whether the group's offset is there, without asking for it, which is a use.
// It reads the log.
func (x *expiry) has(group string) (has bool) {
	x.t.Helper()
	topic, err := x.Topic(offsetsTopicName)
	if err != nil {
		x.t.Fatal(err)
	}
	p := topic.Partitions()[0]
	r, err := p.ReadFrom(p.LogStart(), nil)
	if err != nil {
		x.t.Fatal(err)
	}
	var records log.RecordReader
	for {
		batch, err := r.TryNext()
		if err != nil {
			return has
		}
		for err := records.Reset(batch, 0); err == nil && records.Next(); {
			rec := records.Record()
			if key, err := parseOffsetKey(rec.Key); err == nil && key.version == offsetKeyVersion && key.group == group {
				has = rec.Value != nil
			}
		}
	}
}

// forgottenAfter runs the database in runs of that length until the group is
// forgotten, and returns for how long it ran.
func (x *expiry) forgottenAfter(group string, run time.Duration, kill bool, off time.Duration) (ran time.Duration) {
	x.t.Helper()
	for ran < 4*expiryRetention {
		x.run(run)
		ran += run
		if !x.has(group) {
			return ran
		}
		x.restart(kill, off)
	}
	x.t.Fatalf("the offsets of %q are there after a running time of %v", group, ran)
	return 0
}

// What counts is for how long the database was open, all runs together, however
// they end and however long the machine is off; what a kill makes it forget makes it
// longer. Nobody asks for the group meanwhile.
func TestOffsetsExpireOverRestarts(t *testing.T) {
	for _, row := range []struct {
		name        string
		run         time.Duration
		kill        bool
		off         time.Duration
		least, most time.Duration
	}{
		{"one run", 2 * time.Minute, false, 0, time.Hour, 64 * time.Minute},
		{"runs of 20 minutes", 20 * time.Minute, false, 0, time.Hour, 80 * time.Minute},
		{"off for a month each time", 20 * time.Minute, false, 30 * 24 * time.Hour, time.Hour, 80 * time.Minute},
		{"killed after 20 minutes each time", 20 * time.Minute, true, 0, time.Hour, 100 * time.Minute},
		{"killed, and off for a month", 7 * time.Minute, true, 30 * 24 * time.Hour, time.Hour, 2 * time.Hour},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newExpiry(t)
				x.commit("g")
				if ran := x.forgottenAfter("g", row.run, row.kill, row.off); ran < row.least || ran > row.most {
					t.Errorf("forgotten after a running time of %v, want %v to %v", ran, row.least, row.most)
				}
				if groups := x.Groups().loadedShard("g").groups; len(groups) != 0 {
					t.Errorf("the group is there: %v", groups)
				}
				x.restart(true, 0)
				if x.has("g") {
					t.Error("it is there again after a power cut")
				}
				if err := x.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Whoever uses a group, in whatever way, begins its time anew, also for later runs.
func TestUseKeepsOffsets(t *testing.T) {
	member := func(x *expiry, stay time.Duration) {
		r, err := x.Groups().Heartbeat(ctx, HeartbeatRequest{Group: "g", Topics: []string{"orders"}, Local: true})
		if err != nil {
			x.t.Fatal(err)
		}
		x.run(stay)
		if _, err := x.Groups().Heartbeat(ctx, HeartbeatRequest{Group: "g", MemberID: r.MemberID, MemberEpoch: LeaveEpoch, Local: true}); err != nil {
			x.t.Fatal(err)
		}
	}
	for _, row := range []struct {
		name string
		use  func(*expiry)
	}{
		{"a commit", func(x *expiry) { x.commit("g") }},
		{"a member", func(x *expiry) { member(x, 0) }},
		{"a member for two hours", func(x *expiry) { member(x, 2*time.Hour) }},
		{"a question", func(x *expiry) {
			if _, err := x.Groups().Committed(ctx, "g", nil, false); err != nil {
				x.t.Fatal(err)
			}
			x.run(2 * time.Minute) // or a power cut forgets it
		}},
		{"a reset", func(x *expiry) {
			if _, err := x.Groups().Reset(ctx, "g", ResetRequest{Kind: ResetEarliest, Topics: []string{"orders"}}); err != nil {
				x.t.Fatal(err)
			}
		}},
	} {
		for _, kill := range []bool{false, true} {
			name := row.name + ", then a close"
			if kill {
				name = row.name + ", then a power cut"
			}
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					x := newExpiry(t)
					x.commit("g")
					for range 3 {
						x.run(50 * time.Minute)
						x.restart(false, 0)
						row.use(x)
						if !x.has("g") {
							t.Fatal("forgotten, though it was used")
						}
						x.restart(kill, 30*24*time.Hour) // by the wall clock it is long ago
					}
					if ran := x.forgottenAfter("g", 10*time.Minute, false, 0); ran < 50*time.Minute || ran > 80*time.Minute {
						t.Errorf("forgotten %v after the last use", ran)
					}
					if err := x.Close(); err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

// A clock that jumps forgets nothing, and a clock that was set back keeps what was
// committed later than it says now.
func TestOffsetsAndAClockThatJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newExpiry(t)
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
		var shift atomic.Int64
		shift.Store(int64(-50 * 365 * 24 * time.Hour)) // a device without a battery
		x.now = func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
		x.open()
		x.commit("g")
		x.run(10 * time.Minute)
		shift.Store(0) // the network told the time
		x.run(10 * time.Minute)
		x.restart(false, 0)
		x.run(10 * time.Minute)
		if !x.has("g") {
			t.Fatal("a clock that jumped made it forget")
		}
		x.commit("g")
		shift.Store(int64(-24 * time.Hour))
		x.run(2 * time.Hour)
		if !x.has("g") {
			t.Fatal("forgotten before it was committed, by the clock")
		}
		shift.Store(0)
		x.run(2 * time.Minute)
		if x.has("g") {
			t.Error("it is there after two hours")
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A group that is used rarely but again and again costs one record a use, and one
// that is not used one in all.
func TestUnusedGroupsAreNotedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newExpiry(t)
		x.commit("g")
		x.run(30 * time.Minute)
		topic, err := x.Topic(offsetsTopicName)
		if err != nil {
			t.Fatal(err)
		}
		if end := topic.Partitions()[0].LogEnd(); end != 2 {
			t.Errorf("%d records after half an hour, want the commit and a note", end)
		}
		if err := x.Groups().Commit(context.Background(), CommitRequest{Group: "other", MemberEpoch: -1, Offsets: []OffsetCommit{at("orders", 0, 0)}}); err != nil {
			t.Fatal(err)
		}
		if end := topic.Partitions()[0].LogEnd(); end != 3 {
			t.Errorf("%d records, want 3", end)
		}
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
}
