package partition

import (
	"context"
	"errors"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// An unsynced append syncs nothing; Sync, or whoever appends next and waits for his
// own, makes it durable.
func TestUnsyncedAppend(t *testing.T) {
	ctx := context.Background()
	producer := func(seq int32) *AppendOptions {
		return &AppendOptions{Producer: &Producer{ID: 1, Sequence: seq, Transactional: true}, Unsynced: true}
	}
	for name, settle := range map[string]func(*Partition) error{
		"sync":   func(p *Partition) error { return p.Sync(ctx) },
		"append": func(p *Partition) error { _, err := p.Append(ctx, record("b"), nil); return err },
		"marker": func(p *Partition) error { _, err := p.EndTransaction(ctx, 1, 1, true, 0, false); return err },
		"nobody": nil,
	} {
		mem := vfs.NewMem()
		p := openTest(t, mem, Config{})
		for i := range int32(3) {
			if _, err := p.Append(ctx, record("a"), producer(i)); err != nil {
				t.Fatal(err)
			}
		}
		if got := p.HighWatermark(); got != 3 {
			t.Errorf("%s: high watermark %d", name, got)
		}
		if got := p.Log().DurableOffset(); got != 0 {
			t.Errorf("%s: durable below %d before", name, got)
		}
		want := int64(0)
		if settle != nil {
			if err := settle(p); err != nil {
				t.Fatal(err)
			}
			want = p.LogEnd()
		}
		if got := p.Log().DurableOffset(); got != want {
			t.Errorf("%s: durable below %d, want %d", name, got, want)
		}
		after, err := Open("", &Options{FS: mem.AfterCrash(vfs.KeepNone)})
		if err != nil {
			t.Fatal(err)
		}
		if got := after.LogEnd(); got != want {
			t.Errorf("%s: after a power cut the log ends at %d, want %d", name, got, want)
		}
		if err := after.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Who sends an unsynced batch again and waits for the disk is not told that it is
// there before it is durable. A refusal syncs nothing.
func TestUnsyncedRepeated(t *testing.T) {
	ctx := context.Background()
	producer := &Producer{ID: 1, Sequence: 0}
	for name, row := range map[string]struct {
		o    AppendOptions
		want int64 // durable below
		err  bool
	}{
		"unsynced":                 {AppendOptions{Producer: producer, Unsynced: true}, 0, false},
		"waits":                    {AppendOptions{Producer: producer}, 1, false},
		"waits, and it is refused": {AppendOptions{Producer: &Producer{ID: 1, Sequence: 7}}, 0, true},
	} {
		mem := vfs.NewMem()
		f := vfs.NewFault(mem)
		p := openTest(t, f, Config{})
		if _, err := p.Append(ctx, record("a"), &AppendOptions{Producer: producer, Unsynced: true}); err != nil {
			t.Fatal(err)
		}
		res, err := p.Append(ctx, record("a"), &row.o)
		if (err != nil) != row.err || err == nil && (!res.Duplicate || res.BaseOffset != 0) {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
		if got := p.Log().DurableOffset(); got != row.want {
			t.Errorf("%s: durable below %d, want %d", name, got, row.want)
		}
	}
	// When it cannot be made durable, nobody knows.
	f := vfs.NewFault(vfs.NewMem())
	p := openTest(t, f, Config{})
	if _, err := p.Append(ctx, record("a"), &AppendOptions{Producer: producer, Unsynced: true}); err != nil {
		t.Fatal(err)
	}
	f.Add(vfs.Rule{Op: vfs.OpDatasync, Effect: vfs.FailSync()})
	if _, err := p.Append(ctx, record("a"), &AppendOptions{Producer: producer}); !errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("the sync failed: %v", err)
	}
}
