package partition

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// An epoch that was begun is never given again, although all of its records are lost.
func TestBeginEpochSurvivesItsRecords(t *testing.T) {
	fs := vfs.NewMem()
	open := func() *Partition {
		t.Helper()
		p, err := Open("", &Options{FS: fs, Config: Config{Log: log.Config{Level: log.OS}}})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	add := func(p *Partition, n int) {
		t.Helper()
		for range n {
			if _, err := p.Append(context.Background(), []log.Record{{Value: []byte("v")}}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := open()
	add(p, 3)
	if err := p.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	for want := int32(1); want <= 3; want++ {
		add(p, 4) // lost
		next := fs.AfterCrash(vfs.KeepNone)
		p.Close()
		fs = next
		if p = open(); p.LogEnd() != 3 {
			t.Fatalf("log ends at %d, want 3", p.LogEnd())
		}
		if err := p.BeginEpoch(); err != nil || p.LeaderEpoch() != want {
			t.Fatalf("epoch %d, %v; want %d", p.LeaderEpoch(), err, want)
		}
	}
	add(p, 9)
	for epoch := range int32(3) {
		if _, end := p.EpochEnd(epoch); end != 3 {
			t.Errorf("epoch %d ends at %d, want 3", epoch, end)
		}
	}
	if found, end := p.EpochEnd(3); found != 3 || end != 12 {
		t.Errorf("epoch 3 is %d and ends at %d, want 12", found, end)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.BeginEpoch(); !errors.Is(err, log.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if p = open(); p.LeaderEpoch() != 3 || p.LogEnd() != 12 {
		t.Errorf("opened again: epoch %d, log end %d", p.LeaderEpoch(), p.LogEnd())
	}
	p.Close()
}

// On a full disk the reserve takes the entry, which needs another segment here.
// Without one the epoch is begun all the same, by the append that comes when there
// is room.
func TestBeginEpochOnAFullDisk(t *testing.T) {
	for _, reserve := range []int64{0, 64 << 10} {
		fs, now := vfs.NewMem(), time.Unix(1e9, 0)
		p, err := Open("", &Options{FS: fs, Now: func() time.Time { return now }, Config: Config{
			Log: log.Config{ReserveBytes: reserve, SegmentAge: time.Hour},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Append(context.Background(), record("a"), nil); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		now = now.Add(2 * time.Hour)
		if p, err = Open("", &Options{FS: fs, Now: func() time.Time { return now }, Config: p.Config()}); err != nil {
			t.Fatal(err)
		}
		files, err := fs.List(".")
		if err != nil {
			t.Fatal(err)
		}
		used := int64(0)
		for _, f := range files {
			used += f.Allocated
		}
		fs.SetCapacity(used)
		err = p.BeginEpoch()
		if reserve > 0 && err != nil || reserve == 0 && !errors.Is(err, log.ErrNoSpace) {
			t.Errorf("reserve %d: %v", reserve, err)
		}
		if got := p.LeaderEpoch(); got != 1 {
			t.Errorf("reserve %d: leader epoch %d", reserve, got)
		}
		fs.SetCapacity(-1)
		if _, err := p.Append(context.Background(), record("b"), nil); err != nil {
			t.Fatal(err)
		}
		if _, end := p.EpochEnd(0); end != 1 {
			t.Errorf("reserve %d: epoch 0 ends at %d, want 1", reserve, end)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
