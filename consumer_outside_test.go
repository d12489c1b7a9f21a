package embedlog

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/x/embedlog/internal/engine"
)

// A consumer that the group has left out hears of it once, as of any rebalance. What it marks
// after it has joined again is committed, and Commit says so.
func TestCommitAfterBeingLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, err := OpenMemory(&Options{MaintenanceInterval: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		ctx := context.Background()
		top, err := db.CreateTopic(ctx, "t", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := top.Produce(ctx, Record{Value: []byte("a")}, Record{Value: []byte("b")}); err != nil {
			t.Fatal(err)
		}
		c, err := db.Consumer(&ConsumerConfig{Group: "g", Topics: []string{"t"}, ManualCommit: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		mark := func() {
			t.Helper()
			recs, err := c.Poll(ctx, 1)
			if err != nil {
				t.Fatal(err)
			}
			c.Mark(recs[0])
		}
		mark()
		// The group lets go of it, as a coordinator does that has heard nothing for too long.
		if _, err := db.Engine().AnyGroups().Heartbeat(ctx, engine.HeartbeatRequest{
			Group: "g", MemberID: c.member.id, MemberEpoch: engine.LeaveEpoch, Local: true,
		}); err != nil {
			t.Fatal(err)
		}
		if err := c.Commit(ctx); !errors.Is(err, ErrRebalance) || !errors.Is(err, ErrUnknownMember) {
			t.Fatalf("left out: %v, want ErrRebalance and ErrUnknownMember", err)
		}
		for range 2 {
			mark()
			if err := c.Commit(ctx); err != nil {
				t.Fatalf("a member again: %v", err)
			}
		}
		if at, err := c.Committed(ctx); err != nil || len(at) != 1 || at[0].Offset != 2 {
			t.Fatalf("committed %v, %v", at, err)
		}
	})
}
