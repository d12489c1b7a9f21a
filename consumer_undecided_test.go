package embedlog

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/vfs"
)

// A transaction whose offsets can never be decided, because their partition has
// failed or nobody ends it, keeps no consumer from committing and closing, nor the
// database.
func TestCloseWhileOffsetsAreUndecided(t *testing.T) {
	for _, fails := range []bool{false, true} {
		for _, close := range []string{"consumer", "database"} {
			name := close
			if fails {
				name += " of a failed partition"
			}
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { closeWhileUndecided(t, fails, close == "database") })
			})
		}
	}
}

func closeWhileUndecided(t *testing.T, fails, whole bool) {
	ctx := context.Background()
	faults := vfs.NewFault(vfs.NewMem())
	db, err := OpenFS(faults, &Options{MaintenanceInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	top, err := db.CreateTopic(ctx, "t", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := top.Produce(ctx, Record{Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	txn, err := db.Begin(ctx, &TxnOptions{Timeout: 15 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if err := txn.CommitPositions(ctx, "g", Position{Topic: "t", Offset: 1}); err != nil {
		t.Fatal(err)
	}
	if fails {
		faults.Add(vfs.Rule{Op: vfs.OpDatasync, Count: -1, Effect: vfs.FailSync()})
		faults.Add(vfs.Rule{Op: vfs.OpSync, Count: -1, Effect: vfs.FailSync()})
		if err := txn.Commit(ctx); !errors.Is(err, ErrStorageFailed) {
			t.Fatalf("commit: %v", err)
		}
		faults.Clear()
	}
	c, err := db.Consumer(&ConsumerConfig{Group: "g", Topics: []string{"t"}, SessionTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if recs, err := c.Poll(short, 1); len(recs) > 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("read %v, %v where it is not decided where the group goes on", recs, err)
	}
	// Meanwhile it stays a member, and commits what it has.
	if info, err := db.DescribeGroup(ctx, "g"); err != nil || len(info.Members) != 1 {
		t.Errorf("%d members: %v", len(info.Members), err)
	}
	short, cancel = context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := c.Commit(short); err != nil {
		t.Errorf("commit: %v", err)
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if whole {
			db.Close()
		} else {
			c.Close()
		}
	}()
	select {
	case <-closed:
	case <-time.After(time.Minute): // of the bubble's clock
		t.Fatal("it does not close")
	}
}
