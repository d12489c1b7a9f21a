package embedlog

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/vfs"
)

// A consumer that could not join, because the group's epoch could not be written, and
// gave up is no member: who comes later gets all partitions.
func TestFailedJoinLeavesNoMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults := vfs.NewFault(vfs.NewMem())
		db, err := OpenFS(faults, &Options{MaintenanceInterval: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		ctx := context.Background()
		top, err := db.CreateTopic(ctx, "t", &TopicConfig{Partitions: 2})
		if err != nil {
			t.Fatal(err)
		}
		for p := range int32(2) {
			if _, err := top.ProduceTo(ctx, p, Record{Value: []byte("v")}); err != nil {
				t.Fatal(err)
			}
		}
		// The offsets topic is there before the disk is full.
		if err := db.CommitPositions(ctx, "other", Position{Topic: "t"}); err != nil {
			t.Fatal(err)
		}
		for _, op := range []vfs.Op{vfs.OpWrite, vfs.OpAppend, vfs.OpZero} {
			faults.Add(vfs.Rule{Op: op, Count: -1, Effect: vfs.Fail(vfs.ErrNoSpace)})
		}
		poll := func(c *Consumer) (int, error) {
			short, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			n := 0
			for n < 2 {
				recs, err := c.Poll(short, 2)
				if err != nil {
					return n, err
				}
				n += len(recs)
			}
			return n, nil
		}
		first, err := db.Consumer(&ConsumerConfig{Group: "g", Topics: []string{"t"}})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := poll(first); !errors.Is(err, context.DeadlineExceeded) || n != 0 {
			t.Fatalf("on a full disk: %d records, %v", n, err)
		}
		// It tries every second: that is one member, not five.
		info, err := db.DescribeGroup(ctx, "g")
		if err != nil || len(info.Members) > 1 {
			t.Errorf("%d members while one tries to join, %v", len(info.Members), err)
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		faults.Clear()
		second, err := db.Consumer(&ConsumerConfig{Group: "g", Topics: []string{"t"}})
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		if n, err := poll(second); n != 2 {
			info, _ := db.DescribeGroup(ctx, "g")
			t.Errorf("with room again: %d of 2 records, %v; %d members", n, err, len(info.Members))
		}
	})
}
