package engine

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

func TestDescribeAndList(t *testing.T) {
	ctx := context.Background()
	db := openGroupDB(t, vfs.NewMem(), nil)
	if list, err := db.Groups().List(ctx); err != nil || len(list) != 0 {
		t.Fatalf("groups of an empty database: %v %v", list, err)
	}
	if _, err := db.Groups().Describe(ctx, "g"); !errors.Is(err, ErrUnknownGroup) {
		t.Fatalf("describe what is not there: %v", err)
	}
	orders := db.topic("orders", 2)
	db.produce(orders, 10)
	db.commit("other", at("orders", 0, 10))
	a := db.beat(HeartbeatRequest{Group: "g", MemberID: "a", InstanceID: "i", ClientID: "c", ClientHost: "h", RackID: "r", Topics: []string{"orders"}})
	if err := db.Groups().Commit(ctx, CommitRequest{Group: "g", MemberID: "a", MemberEpoch: a.MemberEpoch, Offsets: []OffsetCommit{at("orders", 1, 4)}}); err != nil {
		t.Fatal(err)
	}
	if _, err := orders.Partitions()[1].DeleteRecords(ctx, 6); err != nil {
		t.Fatal(err)
	}
	list, err := db.Groups().List(ctx)
	if want := []GroupListing{
		{Group: "g", Type: GroupTypeConsumer, ProtocolType: "consumer", State: GroupStable, Members: 1},
		{Group: "other", Type: GroupTypeClassic, State: GroupEmpty},
	}; err != nil || !reflect.DeepEqual(list, want) {
		t.Fatalf("list: %+v %v", list, err)
	}
	d, err := db.Groups().Describe(ctx, "g")
	if err != nil {
		t.Fatal(err)
	}
	all := []TopicPartitions{{orders.ID(), []int32{0, 1}}}
	off := func(p int32, offset int64) OffsetCommit {
		return OffsetCommit{Topic: "orders", TopicID: orders.ID(), Partition: p, Offset: offset, LeaderEpoch: -1}
	}
	want := GroupDescription{
		Group: "g", Type: GroupTypeConsumer, ProtocolType: "consumer", State: GroupStable, Epoch: 1, Assignor: "uniform",
		Members: []MemberDescription{{MemberID: "a", InstanceID: "i", RackID: "r", ClientID: "c", ClientHost: "h", Epoch: 1,
			Topics: []string{"orders"}, LastSeen: db.Now(), Assigned: all, Revoking: []TopicPartitions{}, Target: all}},
		Partitions: []PartitionLag{
			{CommittedOffset{OffsetCommit: off(0, -1)}, 0, 10, -1, "a"},
			{CommittedOffset{OffsetCommit: off(1, 4), CommitTime: db.Now()}, 6, 10, 4, "a"},
		},
	}
	if !reflect.DeepEqual(d, want) {
		t.Fatalf("got  %+v\nwant %+v", d, want)
	}
}

func TestReset(t *testing.T) {
	ctx := context.Background()
	db := openGroupDB(t, vfs.NewMem(), nil)
	orders := db.topic("orders", 2)
	db.produce(orders, 10)
	if _, err := orders.Partitions()[1].DeleteRecords(ctx, 3); err != nil {
		t.Fatal(err)
	}
	ago := func(ms int64) time.Duration { return db.Now().Sub(time.UnixMilli(ms)) }
	for _, row := range []struct {
		name string
		req  ResetRequest
		want [2]int64
		clip bool // of the first partition
	}{
		{"earliest", ResetRequest{Kind: ResetEarliest}, [2]int64{0, 3}, false},
		{"latest", ResetRequest{Kind: ResetLatest}, [2]int64{10, 10}, false},
		{"offset", ResetRequest{Kind: ResetOffset, Offset: 2}, [2]int64{2, 3}, false},
		{"offset past the end", ResetRequest{Kind: ResetOffset, Offset: 11}, [2]int64{10, 10}, true},
		{"shift", ResetRequest{Kind: ResetShift, Offset: 3}, [2]int64{8, 9}, false},
		{"shift back", ResetRequest{Kind: ResetShift, Offset: -100}, [2]int64{0, 3}, true},
		{"shift very far", ResetRequest{Kind: ResetShift, Offset: 1<<63 - 1}, [2]int64{10, 10}, true},
		{"time", ResetRequest{Kind: ResetTime, Time: time.UnixMilli(3500)}, [2]int64{4, 4}, false},
		{"time behind all", ResetRequest{Kind: ResetTime, Time: db.Now()}, [2]int64{10, 10}, false},
		{"duration", ResetRequest{Kind: ResetDuration, Duration: ago(7000)}, [2]int64{7, 7}, false},
		{"current", ResetRequest{Kind: ResetCurrent}, [2]int64{5, 6}, false},
		{"one topic", ResetRequest{Kind: ResetEarliest, Topics: []string{"orders"}}, [2]int64{0, 3}, false},
		{"one partition", ResetRequest{Kind: ResetEarliest, Partitions: []TopicPartitions{{orders.ID(), []int32{0}}}}, [2]int64{0, 6}, false},
	} {
		db.commit("g", at("orders", 0, 5), at("orders", 1, 6))
		row.req.DryRun = true
		plan, err := db.Groups().Reset(ctx, "g", row.req)
		if err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		db.wantCommitted("g", "orders/0@5", "orders/1@6")
		row.req.DryRun = false
		done, err := db.Groups().Reset(ctx, "g", row.req)
		if err != nil || !reflect.DeepEqual(plan, done) {
			t.Fatalf("%s: done %+v %v, planned %+v", row.name, done, err, plan)
		}
		if done[0].Before != 5 || done[0].Clamped() != row.clip || done[0].HighWatermark != 10 || done[len(done)-1].LogStart != int64(3*(len(done)-1)) {
			t.Errorf("%s: %+v", row.name, done)
		}
		want := []string{fmt.Sprintf("orders/0@%d", row.want[0]), fmt.Sprintf("orders/1@%d", row.want[1])}
		db.wantCommitted("g", want...)
	}
	db.reopen(nil)
	db.wantCommitted("g", "orders/0@0", "orders/1@6")

	a := db.beat(HeartbeatRequest{Group: "g", Topics: []string{"orders"}})
	for _, row := range []struct {
		name, group string
		req         ResetRequest
		want        error
	}{
		{"members", "g", ResetRequest{Kind: ResetEarliest}, ErrGroupNotEmpty},
		{"members, dry run", "g", ResetRequest{Kind: ResetEarliest, DryRun: true}, ErrGroupNotEmpty},
		{"nothing to reset", "new", ResetRequest{Kind: ResetEarliest}, ErrUnknownGroup},
		{"no kind", "g", ResetRequest{}, ErrInvalidReset},
		{"no time", "g", ResetRequest{Kind: ResetTime}, ErrInvalidReset},
		{"negative duration", "g", ResetRequest{Kind: ResetDuration, Duration: -1}, ErrInvalidReset},
		{"negative offset", "g", ResetRequest{Kind: ResetOffset, Offset: -1}, ErrInvalidReset},
		{"unknown topic", "new", ResetRequest{Kind: ResetEarliest, Topics: []string{"x"}}, ErrUnknownTopic},
		{"unknown partition", "new", ResetRequest{Kind: ResetEarliest, Partitions: []TopicPartitions{{db.topicID("orders"), []int32{2}}}}, ErrUnknownPartition},
		{"nothing to shift", "new", ResetRequest{Kind: ResetShift, Topics: []string{"orders"}}, ErrInvalidReset},
		{"no name", "", ResetRequest{Kind: ResetEarliest}, ErrInvalidGroup},
	} {
		if _, err := db.Groups().Reset(ctx, row.group, row.req); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
	db.beat(HeartbeatRequest{Group: "g", MemberID: a.MemberID, MemberEpoch: LeaveEpoch})
	if _, err := db.Groups().Reset(ctx, "new", ResetRequest{Kind: ResetLatest, Topics: []string{"orders"}}); err != nil {
		t.Fatalf("a group that there was not: %v", err)
	}
	db.wantCommitted("new", "orders/0@10", "orders/1@10")
}

func (db *groupDB) topicID(name string) TopicID { return groupTopic(db, name).ID() }

// Offsets of a transaction count when its marker is there, also when the partition
// is read in between.
func TestTxnCommit(t *testing.T) {
	ctx := context.Background()
	db := openGroupDB(t, vfs.NewMem(), nil)
	db.produce(db.topic("orders", 1), 9)
	db.commit("g", at("orders", 0, 1))
	pid := int64(77)
	begin := func(offset int64) {
		t.Helper()
		err := db.Groups().TxnCommit(ctx, CommitRequest{Group: "g", MemberEpoch: -1, Offsets: []OffsetCommit{at("orders", 0, offset)}}, pid, 0)
		if err != nil {
			t.Fatal(err)
		}
	}
	end := func(commit bool) {
		t.Helper()
		p, err := db.Groups().OffsetsPartition(ctx, "g")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.EndTransaction(ctx, pid, 0, commit, 0, false); err != nil {
			t.Fatal(err)
		}
		db.Groups().txnEnded(context.Background(), p.ID(), pid, commit)
		db.Groups().txnEnded(context.Background(), p.ID(), pid, commit) // it may be told twice
	}
	forget := func() { // as if nothing had been read yet
		db.Groups().mu.Lock()
		db.Groups().shards = nil
		db.Groups().mu.Unlock()
	}
	short := func() error {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		_, err := db.Groups().Committed(ctx, "g", nil, true)
		return err
	}
	for _, reread := range []bool{false, true} {
		again := func() {
			if reread {
				forget()
			}
		}
		begin(2)
		again()
		db.wantCommitted("g", "orders/0@1")
		end(false)
		again()
		db.wantCommitted("g", "orders/0@1")
		begin(3)
		again()
		end(true)
		again()
		db.wantCommitted("g", "orders/0@3")
		begin(4)
		db.commit("g", at("orders", 0, 1)) // behind it: it stays
		again()
		end(true)
		again()
		db.wantCommitted("g", "orders/0@1")
		begin(5)
		again()
		db.wantCommitted("g", "orders/0@1")
		ctx, cancel := context.WithCancel(ctx)
		var wait sync.WaitGroup
		var waited error
		wait.Go(func() { _, waited = db.Groups().Committed(ctx, "g", nil, true) })
		cancel()
		wait.Wait()
		if !errors.Is(waited, ErrUnstableOffset) && !errors.Is(waited, context.Canceled) {
			t.Fatalf("an undecided offset: %v", waited)
		}
		var got []CommittedOffset
		wait.Go(func() { got, waited = db.Groups().Committed(context.Background(), "g", nil, true) })
		end(true)
		wait.Wait()
		if waited != nil || len(got) != 1 || got[0].Offset != 5 {
			t.Fatalf("after it was decided: %+v %v", got, waited)
		}
		db.commit("g", at("orders", 0, 1))
	}
	if err := short(); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	// A group that is deleted takes what is pending with it.
	begin(6)
	if err := db.Groups().Delete(ctx, "g"); err != nil {
		t.Fatal(err)
	}
	end(true)
	db.wantCommitted("g")
	forget()
	db.wantCommitted("g")
}

// A position past the end of what was consumed is brought back, and reported.
func TestPositionLost(t *testing.T) {
	ctx := context.Background()
	db := openGroupDB(t, vfs.NewMem(), nil)
	orders := db.topic("orders", 1)
	p := orders.Partitions()[0]
	appendIn := func(epoch int32, n int) {
		t.Helper()
		if err := p.SetLeaderEpoch(epoch); err != nil {
			t.Fatal(err)
		}
		db.produce(orders, n)
	}
	appendIn(1, 5)  // 0 to 4
	appendIn(3, 10) // 5 to 14
	for _, row := range []struct {
		name   string
		offset int64
		epoch  int32
		want   int64
		in     int32
		lost   bool
	}{
		{"within its epoch", 3, 1, 3, 1, false},
		{"at the end of its epoch", 5, 1, 5, 1, false},
		{"past the end of its epoch", 8, 1, 5, 1, true},
		{"of an epoch of which nothing is left", 8, 2, 5, 1, true},
		{"of the newest", 15, 3, 15, 3, false},
		{"past the end of the log", 20, 3, 15, 3, true},
		{"of an epoch from the future", 20, 7, 15, 3, true},
		{"without an epoch", 12, -1, 12, -1, false},
		{"past the end without an epoch", 16, -1, 15, 3, true},
	} {
		o := at("orders", 0, row.offset)
		o.LeaderEpoch = row.epoch
		db.commit("g", o)
		list, err := db.Groups().Committed(ctx, "g", nil, false)
		if err != nil || len(list) != 1 {
			t.Fatalf("%s: %+v %v", row.name, list, err)
		}
		got := list[0]
		if got.Offset != row.want || got.LeaderEpoch != row.in || (got.Lost != nil) != row.lost {
			t.Errorf("%s: got %d in epoch %d, lost %v; want %d, %d, %t", row.name, got.Offset, got.LeaderEpoch, got.Lost, row.want, row.in, row.lost)
		}
		if got.Lost != nil && (got.Lost.Offset != row.offset || got.Lost.LeaderEpoch != row.epoch || got.Lost.End != row.want || !errors.Is(got.Lost, ErrPositionLost)) {
			t.Errorf("%s: %+v", row.name, got.Lost)
		}
	}
}

// The power goes, and takes records that were read and committed: at a weak level, or
// those of a local transaction, which are synced at its end. The log grows again past
// the position: it is nevertheless brought back.
func TestPositionLostWithThePower(t *testing.T) {
	for _, level := range []string{"os", "durable"} {
		t.Run(level, func(t *testing.T) { testPositionLost(t, level) })
	}
}

func testPositionLost(t *testing.T, level string) {
	mem := vfs.NewMem()
	o := &Options{FS: mem, MaintenanceInterval: -1}
	open := func() *Engine {
		t.Helper()
		e, err := Open("db", o)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	produce := func(p *Partition, n int) {
		t.Helper()
		for range n {
			if _, err := p.Append(ctx, []log.Record{{Value: []byte("v")}}, &partition.AppendOptions{Unsynced: true}); err != nil {
				t.Fatal(err)
			}
		}
	}
	commit := func(e *Engine, p *Partition) {
		t.Helper()
		offset := at("weak", 0, p.LogEnd())
		offset.LeaderEpoch, _ = p.EpochOf(p.LogEnd() - 1)
		if err := e.Groups().Commit(ctx, CommitRequest{Group: "g", MemberEpoch: -1, Offsets: []OffsetCommit{offset}}); err != nil {
			t.Fatal(err)
		}
	}
	e := open()
	weak, err := e.CreateTopic(ctx, TopicSpec{Name: "weak", Settings: map[string]string{settingDurability: level}})
	if err != nil {
		t.Fatal(err)
	}
	p := weak.Partitions()[0]
	produce(p, 5)
	if err := p.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		produce(p, 10)
		commit(e, p)
		after := mem.AfterCrash(vfs.KeepNone)
		e.Close()
		mem = after
		o.FS = mem
		e = open()
		again, err := e.Topic("weak")
		if err != nil {
			t.Fatal(err)
		}
		if p = again.Partitions()[0]; p.LogEnd() != 5 {
			t.Fatalf("round %d: the log ends at %d, want 5", round, p.LogEnd())
		}
		for _, n := range []int{0, 20} { // before and after others took the place of what was lost
			produce(p, n)
			list, err := e.Groups().Committed(ctx, "g", nil, false)
			if err != nil || len(list) != 1 {
				t.Fatalf("round %d: %+v %v", round, list, err)
			}
			if list[0].Offset != 5 || list[0].Lost == nil {
				t.Errorf("round %d, %d records later: %+v, want offset 5 and a report", round, n, list[0])
			}
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCommitRefuses(t *testing.T) {
	ctx := context.Background()
	db := openGroupDB(t, vfs.NewMem(), nil)
	orders := db.topic("orders", 1)
	db.produce(orders, 3)
	long := at("orders", 0, 2)
	long.Metadata = string(make([]byte, MaxOffsetMetadataBytes+1))
	bad := at("orders", 0, 2)
	bad.Metadata = "\xff"
	wrong := at("orders", 0, 2)
	wrong.TopicID = TopicID{1}
	unknown := OffsetCommit{TopicID: TopicID{1}}
	err := db.Groups().Commit(ctx, CommitRequest{Group: "g", MemberEpoch: -1, Offsets: []OffsetCommit{long, at("orders", 0, 1), bad, wrong, unknown}})
	var failed *CommitError
	if !errors.As(err, &failed) || len(failed.Failures) != 4 || !errors.Is(err, ErrInvalidCommit) || !errors.Is(err, ErrUnknownTopic) {
		t.Fatalf("got %v", err)
	}
	for i, index := range []int{0, 2, 3, 4} {
		if failed.Failures[i].Index != index {
			t.Errorf("failure %d is of offset %d, want %d", i, failed.Failures[i].Index, index)
		}
	}
	db.wantCommitted("g", "orders/0@1") // the good one is there
	byID := OffsetCommit{TopicID: orders.ID(), Offset: 2, LeaderEpoch: -1}
	db.commit("g", byID)
	db.wantCommitted("g", "orders/0@2")
	for _, name := range []string{"", "\xff", string(make([]byte, 40_000))} {
		if err := db.Groups().Commit(ctx, CommitRequest{Group: name, MemberEpoch: -1}); !errors.Is(err, ErrInvalidGroup) {
			t.Errorf("group %.10q: %v", name, err)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := db.Groups().Commit(cancelled, CommitRequest{Group: "g", MemberEpoch: -1, Offsets: []OffsetCommit{at("orders", 0, 0)}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	db.wantCommitted("g", "orders/0@2")
	db.Close()
	if err := db.Groups().Commit(ctx, CommitRequest{Group: "g", MemberEpoch: -1}); !errors.Is(err, log.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := db.Groups().Heartbeat(ctx, HeartbeatRequest{Group: "g", Topics: []string{"orders"}}); !errors.Is(err, log.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := db.Groups().Committed(ctx, "g", nil, false); !errors.Is(err, log.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
