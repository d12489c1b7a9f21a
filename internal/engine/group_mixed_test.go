package engine

import (
	"context"
	"testing"
	"time"

	"github.com/x/embedlog/internal/vfs"
)

// A transaction may commit a group's offsets without naming a member, whoever assigns
// there; one that names a member is fenced by it, and so is a producer of this process.
func TestTxnCommitOfNobody(t *testing.T) {
	db := openGroupDB(t, vfs.NewMem(), nil)
	db.produce(db.topic("orders", 2), 9)
	m := db.beat(HeartbeatRequest{Group: "g", Topics: []string{"orders"}, SessionTimeout: time.Minute})
	for _, row := range []struct {
		name string
		req  CommitRequest
		want error
	}{
		{"nobody's", CommitRequest{MemberEpoch: -1}, nil},
		{"nobody's, of this process", CommitRequest{MemberEpoch: -1, Local: true}, ErrGroupNotEmpty},
		{"the member's", CommitRequest{MemberID: m.MemberID, MemberEpoch: m.MemberEpoch}, nil},
		{"the member's, with another epoch", CommitRequest{MemberID: m.MemberID, MemberEpoch: m.MemberEpoch + 1}, ErrRebalance},
		{"the member's, without an epoch", CommitRequest{MemberID: m.MemberID, MemberEpoch: -1}, ErrRebalance},
		{"a member's that there is not", CommitRequest{MemberID: "x", MemberEpoch: m.MemberEpoch}, ErrUnknownMember},
		{"an instance's", CommitRequest{InstanceID: "i", MemberEpoch: -1}, ErrGroupNotEmpty},
		{"with an epoch and no member", CommitRequest{MemberEpoch: m.MemberEpoch}, ErrUnknownMember},
	} {
		row.req.Group, row.req.Offsets = "g", []OffsetCommit{at("orders", 1, 5)}
		wantErr(t, row.name, db.Groups().TxnCommit(context.Background(), row.req, 4711, 0), row.want)
	}
	simple := CommitRequest{Group: "g", MemberEpoch: -1, Offsets: []OffsetCommit{at("orders", 1, 5)}}
	wantErr(t, "without a transaction", db.Groups().Commit(context.Background(), simple), ErrGroupNotEmpty)
	part, err := db.Groups().OffsetsPartition(context.Background(), "g")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.EndTransaction(context.Background(), 4711, 0, true, 0, false); err != nil {
		t.Fatal(err)
	}
	db.Txns().ended(part, 4711, true)
	db.wantCommitted("g", "orders/1@5")
}
