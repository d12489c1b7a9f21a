package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// fetched is what FetchOffsets answers, as "topic/partition@offset", "?" when it is
// not decided, and sorted.
func (db *groupDB) fetched(req FetchRequest) (out []string) {
	db.t.Helper()
	list, err := db.Groups().FetchOffsets(context.Background(), req)
	if err != nil {
		db.t.Fatal(err)
	}
	for _, o := range list {
		s := fmt.Sprintf("%s/%d@%d", o.Topic, o.Partition, o.Offset)
		if o.Undecided {
			s += "?"
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

func TestFetchOffsetsOfOpenTransactions(t *testing.T) {
	ctx := context.Background()
	db := openGroupDB(t, vfs.NewMem(), nil)
	orders := db.topic("orders", 3)
	db.produce(orders, 9)
	db.commit("g", at("orders", 0, 1), at("orders", 1, 1))
	const pid = int64(77)
	if err := db.Groups().TxnCommit(ctx, CommitRequest{Group: "g", MemberEpoch: -1, Offsets: []OffsetCommit{at("orders", 1, 5), at("orders", 2, 5)}}, pid, 0); err != nil {
		t.Fatal(err)
	}
	parts := func(numbers ...int32) []TopicPartitions { return []TopicPartitions{{orders.ID(), numbers}} }
	for _, row := range []struct {
		name string
		req  FetchRequest
		want string
	}{
		{"all", FetchRequest{}, "[orders/0@1 orders/1@1]"},
		{"all, stable", FetchRequest{Stable: true}, "[orders/0@1 orders/1@-1? orders/2@-1?]"},
		{"others than the transaction's", FetchRequest{Stable: true, Partitions: parts(0)}, "[orders/0@1]"},
		{"of the transaction", FetchRequest{Stable: true, Partitions: parts(2)}, "[orders/2@-1?]"},
		{"none", FetchRequest{Stable: true, Partitions: []TopicPartitions{}}, "[]"},
	} {
		row.req.Group, row.req.MemberEpoch = "g", -1
		if got := fmt.Sprint(db.fetched(row.req)); got != row.want {
			t.Errorf("%s: got %s, want %s", row.name, got, row.want)
		}
	}
	p, err := db.Groups().OffsetsPartition(ctx, "g")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.EndTransaction(ctx, pid, 0, true, 0, false); err != nil {
		t.Fatal(err)
	}
	db.Groups().txnEnded(context.Background(), p.ID(), pid, true)
	if got := fmt.Sprint(db.fetched(FetchRequest{Group: "g", MemberEpoch: -1, Stable: true})); got != "[orders/0@1 orders/1@5 orders/2@5]" {
		t.Errorf("after the transaction's end: %s", got)
	}
}

func TestFetchOffsetsAsAMember(t *testing.T) {
	db := openGroupDB(t, vfs.NewMem(), nil)
	db.topic("orders", 1)
	db.commit("g", at("orders", 0, 0))
	db.commit("simple", at("orders", 0, 0))
	a := db.beat(HeartbeatRequest{Group: "g", MemberID: "a", Topics: []string{"orders"}})
	for _, row := range []struct {
		name, group, member string
		epoch               int32
		want                error
	}{
		{"nobody", "g", "", -1, nil},
		{"the member", "g", "a", a.MemberEpoch, nil},
		{"an older epoch", "g", "a", a.MemberEpoch - 1, ErrRebalance},
		{"another member", "g", "b", a.MemberEpoch, ErrUnknownMember},
		{"a member of a group without members", "simple", "a", 1, nil},
		{"a member of a group that there is not", "none", "a", 1, nil},
	} {
		_, err := db.Groups().FetchOffsets(context.Background(), FetchRequest{Group: row.group, MemberID: row.member, MemberEpoch: row.epoch})
		if !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
	db.beat(HeartbeatRequest{Group: "g", MemberID: "a", MemberEpoch: LeaveEpoch})
	if _, err := db.Groups().FetchOffsets(context.Background(), FetchRequest{Group: "g", MemberID: "a", MemberEpoch: 1}); !errors.Is(err, ErrUnknownMember) {
		t.Errorf("a member that left: %v", err)
	}
}

// A place that is taken away is not there, now or after a restart.
func TestForgetOffsets(t *testing.T) {
	db := openGroupDB(t, vfs.NewMem(), nil)
	db.produce(db.topic("orders", 2), 9)
	db.commit("g", at("orders", 0, 7), at("orders", 1, 8))
	forget := CommitRequest{Group: "g", MemberEpoch: -1, Offsets: []OffsetCommit{at("orders", 0, NoOffset)}}
	if err := db.Groups().Commit(context.Background(), forget); !errors.Is(err, ErrInvalidCommit) {
		t.Fatalf("without being asked for: %v", err)
	}
	forget.Forget = true
	if err := db.Groups().Commit(context.Background(), forget); err != nil {
		t.Fatal(err)
	}
	db.wantCommitted("g", "orders/1@8")
	db.reopen(nil)
	db.wantCommitted("g", "orders/1@8")
	db.commit("g", at("orders", 0, 3))
	db.wantCommitted("g", "orders/0@3", "orders/1@8")
	forget.Offsets[0].Offset = -2
	if err := db.Groups().Commit(context.Background(), forget); !errors.Is(err, ErrInvalidCommit) {
		t.Fatalf("an offset that means nothing: %v", err)
	}
}
