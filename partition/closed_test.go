package partition

import (
	"context"
	"errors"
	"testing"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// Whoever waits learns why the partition went away.
func TestCloseForTellsReadersWhy(t *testing.T) {
	p := openTest(t, vfs.NewMem(), Config{})
	why := errors.New("the topic was deleted")
	r, err := p.ReadFrom(0, nil)
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := r.Next(context.Background())
		read <- err
	}()
	if err := p.CloseFor(why); err != nil {
		t.Fatal(err)
	}
	_, fetchErr := p.Fetch(context.Background(), FetchRequest{})
	_, readErr := p.ReadFrom(0, nil)
	_, _, timeErr := p.OffsetForTime(0)
	for what, err := range map[string]error{"waiting": <-read, "fetch": fetchErr, "read": readErr, "time": timeErr} {
		if !errors.Is(err, why) || !errors.Is(err, log.ErrClosed) {
			t.Errorf("%s: got %v, want the reason and log.ErrClosed", what, err)
		}
	}
	if err := p.CloseFor(errors.New("another")); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Fetch(context.Background(), FetchRequest{}); !errors.Is(err, why) {
		t.Errorf("after a second close: %v", err)
	}
}

// A partition that stands for one that could not be opened answers everything with
// the reason and can be asked everything.
func TestFailed(t *testing.T) {
	why := &log.CorruptionError{File: "checkpoint", Position: 3, End: -1, FirstOffset: -1, EndOffset: -1, Cause: errors.New("gone")}
	p := Failed(why)
	ctx := context.Background()
	_, appendErr := p.Append(ctx, record("a"), nil)
	_, fetchErr := p.Fetch(ctx, FetchRequest{MinBytes: 1, MaxWait: 1 << 40})
	_, readErr := p.ReadFrom(0, nil)
	_, _, timeErr := p.OffsetForTime(0)
	_, endErr := p.EndTransaction(ctx, 1, 1, true, 0, false)
	for what, err := range map[string]error{"append": appendErr, "fetch": fetchErr, "read": readErr, "time": timeErr, "end": endErr, "err": p.Err()} {
		var got *log.CorruptionError
		if !errors.As(err, &got) || got != why {
			t.Errorf("%s: got %v, want %v", what, err, why)
		}
	}
	if p.LogStart() != 0 || p.LogEnd() != 0 || p.HighWatermark() != 0 || p.LastStable() != 0 || len(p.Producers()) != 0 || p.ExpireProducers() != 0 {
		t.Error("it holds something")
	}
	if err := errors.Join(p.SetConfig(Config{}), p.Close(), p.Close()); err != nil {
		t.Error(err)
	}
}
