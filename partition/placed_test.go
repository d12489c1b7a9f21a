package partition

import (
	"context"
	"errors"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// Who appends is told when the records have their place, before anybody waits for a majority; and
// not of what was refused, nor without a replicator.
func TestPlaced(t *testing.T) {
	h := &held{goOn: make(chan struct{})}
	p, err := Open("", &Options{FS: vfs.NewMem(), Replicator: h})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	h.p = p
	ctx := context.Background()
	never := func() { t.Error("told of what has no place") }
	if _, err := p.Append(ctx, record("a"), &AppendOptions{LeaderEpoch: 7, Placed: never}); !errors.Is(err, ErrNotLeader) {
		t.Fatal(err)
	}
	told := 0
	_, err = p.Append(ctx, record("a"), &AppendOptions{Placed: func() {
		if told++; p.LogEnd() != 1 || p.HighWatermark() != 0 {
			t.Errorf("told when the log ends at %d and the high watermark is %d", p.LogEnd(), p.HighWatermark())
		}
		close(h.goOn)
	}})
	if err != nil || told != 1 || p.HighWatermark() != 1 {
		t.Errorf("told %d times; %v, high watermark %d", told, err, p.HighWatermark())
	}
	if _, err := openTest(t, vfs.NewMem(), Config{}).Append(ctx, record("a"), &AppendOptions{Placed: never}); err != nil {
		t.Fatal(err)
	}
}
