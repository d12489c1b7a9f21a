package engine

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// groupClock is a clock that a test moves.
type groupClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *groupClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *groupClock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// groupDB is an engine in memory with a clock of its own.
type groupDB struct {
	*Engine
	t     *testing.T
	fs    vfs.FS
	clock *groupClock
}

func openGroupDB(t *testing.T, fs vfs.FS, edit func(*Options)) *groupDB {
	t.Helper()
	db := &groupDB{t: t, fs: fs, clock: &groupClock{now: time.UnixMilli(1_700_000_000_000)}}
	db.reopen(edit)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func (db *groupDB) reopen(edit func(*Options)) {
	db.t.Helper()
	o := &Options{FS: db.fs, Now: db.clock.Now, MaintenanceInterval: -1, InternalPartitions: 3}
	if edit != nil {
		edit(o)
	}
	if db.Engine != nil {
		if err := db.Close(); err != nil {
			db.t.Fatal(err)
		}
	}
	e, err := Open("mem", o)
	if err != nil {
		db.t.Fatal(err)
	}
	db.Engine = e
}

func (db *groupDB) topic(name string, partitions int) *Topic {
	db.t.Helper()
	t, err := db.CreateTopic(context.Background(), TopicSpec{Name: name, Partitions: partitions})
	if err != nil {
		db.t.Fatal(err)
	}
	return t
}

// produce appends n records to each partition, a second apart from 1970 on.
func (db *groupDB) produce(t *Topic, n int) {
	db.t.Helper()
	for _, p := range t.Partitions() {
		for i := range n {
			if _, err := p.Append(context.Background(), []log.Record{{Timestamp: int64(1000 * i), Value: []byte("v")}}, nil); err != nil {
				db.t.Fatal(err)
			}
		}
	}
}

func (db *groupDB) beat(req HeartbeatRequest) HeartbeatResponse {
	db.t.Helper()
	r, err := db.Groups().Heartbeat(context.Background(), req)
	if err != nil {
		db.t.Fatal(err)
	}
	return r
}

func (db *groupDB) commit(group string, offsets ...OffsetCommit) {
	db.t.Helper()
	if err := db.Groups().Commit(context.Background(), CommitRequest{Group: group, MemberEpoch: -1, Offsets: offsets}); err != nil {
		db.t.Fatal(err)
	}
}

// committed is what a group has committed, as "topic/partition@offset".
func (db *groupDB) committed(group string) []string {
	db.t.Helper()
	list, err := db.Groups().Committed(context.Background(), group, nil, false)
	if err != nil {
		db.t.Fatal(err)
	}
	var out []string
	for _, o := range list {
		out = append(out, fmt.Sprintf("%s/%d@%d", o.Topic, o.Partition, o.Offset))
	}
	return out
}

func (db *groupDB) wantCommitted(group string, want ...string) {
	db.t.Helper()
	if got := db.committed(group); !slices.Equal(got, want) {
		db.t.Fatalf("committed offsets of %q: got %q, want %q", group, got, want)
	}
}

func at(topic string, partition int32, offset int64) OffsetCommit {
	return OffsetCommit{Topic: topic, Partition: partition, Offset: offset, LeaderEpoch: -1}
}

func TestTwoMembersShare(t *testing.T) {
	db := openGroupDB(t, vfs.NewMem(), nil)
	orders := db.topic("orders", 4)
	db.produce(orders, 9)
	all := []TopicPartitions{{orders.ID(), []int32{0, 1, 2, 3}}}
	a := db.beat(HeartbeatRequest{Group: "g", Topics: []string{"orders"}, Local: true})
	if a.MemberEpoch != 1 || !reflect.DeepEqual(a.Assignment, all) || a.MemberID == "" || a.Interval != 0 {
		t.Fatalf("first member: %+v", a)
	}
	news := db.Groups().Changed("g", a.MemberID)
	b := db.beat(HeartbeatRequest{Group: "g", Topics: []string{"orders"}, Local: true})
	if b.MemberEpoch != 2 || len(b.Assignment) != 0 || b.Assignment == nil {
		t.Fatalf("second member: %+v", b)
	}
	newsB := db.Groups().Changed("g", b.MemberID)
	<-news
	a = db.beat(HeartbeatRequest{Group: "g", MemberID: a.MemberID, MemberEpoch: 1})
	half := []TopicPartitions{{orders.ID(), []int32{0, 1}}}
	if a.MemberEpoch != 1 || !reflect.DeepEqual(a.Assignment, half) {
		t.Fatalf("the first one is asked to give up: %+v", a)
	}
	select {
	case <-newsB:
		t.Fatal("news for the second member before the first one gave up")
	default:
	}
	if a = db.beat(HeartbeatRequest{Group: "g", MemberID: a.MemberID, MemberEpoch: 1, Owned: half}); a.MemberEpoch != 2 {
		t.Fatalf("the first one gave up: %+v", a)
	}
	<-newsB
	b = db.beat(HeartbeatRequest{Group: "g", MemberID: b.MemberID, MemberEpoch: 2})
	if want := []TopicPartitions{{orders.ID(), []int32{2, 3}}}; !reflect.DeepEqual(b.Assignment, want) {
		t.Fatalf("the second one: %+v", b)
	}
	// Fencing.
	commit := func(m HeartbeatResponse, epoch int32, o OffsetCommit) error {
		return db.Groups().Commit(context.Background(), CommitRequest{Group: "g", MemberID: m.MemberID, MemberEpoch: epoch, Offsets: []OffsetCommit{o}})
	}
	for _, row := range []struct {
		name string
		err  error
		want error
	}{
		{"own partition", commit(a, 2, at("orders", 0, 1)), nil},
		{"own partition, had before", commit(a, 1, at("orders", 1, 1)), nil},
		{"the other's partition", commit(a, 2, at("orders", 2, 1)), ErrRebalance},
		{"epoch from the future", commit(a, 3, at("orders", 0, 9)), ErrRebalance},
		{"epoch before it was given", commit(b, 1, at("orders", 2, 1)), ErrRebalance},
		{"unknown member", commit(HeartbeatResponse{MemberID: "x"}, 2, at("orders", 2, 1)), ErrUnknownMember},
		{"not a member", db.Groups().Commit(context.Background(), CommitRequest{Group: "g", MemberEpoch: -1, Offsets: []OffsetCommit{at("orders", 0, 9)}}), ErrGroupNotEmpty},
		{"unknown topic", commit(a, 2, at("nope", 0, 9)), ErrUnknownTopic},
		{"unknown partition", commit(a, 2, at("orders", 4, 9)), ErrUnknownPartition},
		{"negative offset", commit(a, 2, at("orders", 0, -1)), ErrInvalidCommit},
	} {
		if !errors.Is(row.err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, row.err, row.want)
		}
	}
	db.wantCommitted("g", "orders/0@1", "orders/1@1")
	// A new topic of a subscription is assigned without anybody asking.
	db.beat(HeartbeatRequest{Group: "g", MemberID: b.MemberID, MemberEpoch: 2, Topics: []string{"orders", "later"}})
	b = db.beat(HeartbeatRequest{Group: "g", MemberID: b.MemberID, MemberEpoch: 2})
	for len(newsB) > 0 {
		<-newsB
	}
	later := db.topic("later", 2)
	<-newsB
	b = db.beat(HeartbeatRequest{Group: "g", MemberID: b.MemberID, MemberEpoch: b.MemberEpoch})
	b = db.beat(HeartbeatRequest{Group: "g", MemberID: b.MemberID, MemberEpoch: b.MemberEpoch, Owned: b.Assignment}) // two of three: it gave one up
	if !newGroupParts(b.Assignment).has(topicPart{later.ID(), 0}) {
		t.Fatalf("a topic that was made later: %+v", b)
	}
	// The first one leaves.
	db.beat(HeartbeatRequest{Group: "g", MemberID: a.MemberID, MemberEpoch: LeaveEpoch})
	<-newsB
	b = db.beat(HeartbeatRequest{Group: "g", MemberID: b.MemberID, MemberEpoch: b.MemberEpoch})
	if n := newGroupParts(b.Assignment).count(); n != 6 {
		t.Fatalf("alone it has %d partitions: %+v", n, b)
	}
	select {
	case <-db.Groups().Changed("g", a.MemberID):
	default:
		t.Fatal("who left is not told")
	}
}

func TestEpochGrowsOverRestarts(t *testing.T) {
	db := openGroupDB(t, vfs.NewMem(), nil)
	db.topic("orders", 1)
	a := db.beat(HeartbeatRequest{Group: "g", MemberID: "a", Topics: []string{"orders"}})
	db.reopen(nil)
	_, err := db.Groups().Heartbeat(context.Background(), HeartbeatRequest{Group: "g", MemberID: "a", MemberEpoch: a.MemberEpoch})
	if !errors.Is(err, ErrUnknownMember) {
		t.Fatalf("a member of an earlier run: %v", err)
	}
	b := db.beat(HeartbeatRequest{Group: "g", MemberID: "a", Topics: []string{"orders"}})
	if b.MemberEpoch <= a.MemberEpoch {
		t.Fatalf("epoch %d, and in the run before it was %d", b.MemberEpoch, a.MemberEpoch)
	}
	err = db.Groups().Commit(context.Background(), CommitRequest{Group: "g", MemberID: "a", MemberEpoch: a.MemberEpoch, Offsets: []OffsetCommit{at("orders", 0, 7)}})
	if !errors.Is(err, ErrRebalance) {
		t.Fatalf("commit with the epoch of the run before: %v", err)
	}
}

func TestOffsetsSurvive(t *testing.T) {
	db := openGroupDB(t, vfs.NewMem(), nil)
	db.topic("orders", 2)
	for i := range 10 {
		db.commit(fmt.Sprintf("g%d", i), at("orders", 0, int64(i)), at("orders", 1, 5))
		db.commit(fmt.Sprintf("g%d", i), at("orders", 0, int64(100+i)))
	}
	check := func() {
		t.Helper()
		db.wantCommitted("nobody")
		for i := range 10 {
			list, err := db.Groups().Committed(context.Background(), fmt.Sprintf("g%d", i), nil, true)
			if err != nil || len(list) != 2 {
				t.Fatalf("g%d: %+v %v", i, list, err)
			}
		}
	}
	check()
	db.reopen(nil)
	check()
}

func TestDeletedTopicLeavesNoOffsets(t *testing.T) {
	ctx := context.Background()
	db := openGroupDB(t, vfs.NewMem(), nil)
	db.topic("orders", 1)
	db.topic("kept", 1)
	db.produce(groupTopic(db, "kept"), 5)
	db.commit("g", at("orders", 0, 0), at("kept", 0, 5))
	if err := db.DeleteTopic(ctx, "orders"); err != nil {
		t.Fatal(err)
	}
	again := db.topic("orders", 1)
	db.wantCommitted("g", "kept/0@5") // also before anything was cleaned
	db.Tick(ctx)
	db.produce(again, 1)
	db.commit("g", at("orders", 0, 1))
	db.Tick(ctx)
	db.wantCommitted("g", "kept/0@5", "orders/0@1")
	db.reopen(nil)
	db.wantCommitted("g", "kept/0@5", "orders/0@1")
	if err := db.DeleteTopic(ctx, "kept"); err != nil {
		t.Fatal(err)
	}
	db.Tick(ctx)
	x := db.Groups().loadedShard("g").groups["g"]
	if len(x.offsets) != 1 {
		t.Fatalf("offsets after cleaning: %+v", x.offsets)
	}
}

func groupTopic(db *groupDB, name string) *Topic {
	db.t.Helper()
	t, err := db.Topic(name)
	if err != nil {
		db.t.Fatal(err)
	}
	return t
}

func TestSessionsExpire(t *testing.T) {
	ctx := context.Background()
	db := openGroupDB(t, vfs.NewMem(), nil)
	db.topic("orders", 1)
	a := db.beat(HeartbeatRequest{Group: "g", Topics: []string{"orders"}, SessionTimeout: 10 * time.Second})
	db.clock.Add(9 * time.Second)
	db.Tick(ctx)
	a = db.beat(HeartbeatRequest{Group: "g", MemberID: a.MemberID, MemberEpoch: a.MemberEpoch})
	db.clock.Add(10 * time.Second)
	db.Tick(ctx)
	if _, err := db.Groups().Heartbeat(ctx, HeartbeatRequest{Group: "g", MemberID: a.MemberID, MemberEpoch: a.MemberEpoch}); !errors.Is(err, ErrUnknownMember) {
		t.Fatalf("a silent member: %v", err)
	}
}

func TestDeleteGroup(t *testing.T) {
	ctx := context.Background()
	db := openGroupDB(t, vfs.NewMem(), nil)
	db.topic("orders", 2)
	if err := db.Groups().Delete(ctx, "g"); !errors.Is(err, ErrUnknownGroup) {
		t.Fatalf("a group that never was: %v", err)
	}
	a := db.beat(HeartbeatRequest{Group: "g", Topics: []string{"orders"}})
	if err := db.Groups().Delete(ctx, "g"); !errors.Is(err, ErrGroupNotEmpty) {
		t.Fatalf("with a member: %v", err)
	}
	if err := db.Groups().DeleteOffsets(ctx, "g", []TopicPartitions{{groupTopic(db, "orders").ID(), []int32{0}}}); !errors.Is(err, ErrGroupNotEmpty) {
		t.Fatalf("offsets that a member works on: %v", err)
	}
	db.beat(HeartbeatRequest{Group: "g", MemberID: a.MemberID, MemberEpoch: LeaveEpoch})
	db.commit("g", at("orders", 0, 0), at("orders", 1, 0))
	if err := db.Groups().DeleteOffsets(ctx, "g", []TopicPartitions{{groupTopic(db, "orders").ID(), []int32{0}}}); err != nil {
		t.Fatal(err)
	}
	db.wantCommitted("g", "orders/1@0")
	db.reopen(nil)
	db.wantCommitted("g", "orders/1@0")
	if err := db.Groups().Delete(ctx, "g"); err != nil {
		t.Fatal(err)
	}
	db.wantCommitted("g")
	db.reopen(nil)
	db.wantCommitted("g")
	if err := db.Groups().Delete(ctx, "g"); !errors.Is(err, ErrUnknownGroup) {
		t.Fatalf("deleted before the restart: %v", err)
	}
}
