package engine

import (
	"errors"
	"testing"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// On a disk without a free block a topic can still be deleted, which is what makes
// room, and a topic that cannot be made leaves nothing.
func TestDeleteOnAFullDisk(t *testing.T) {
	fs := vfs.NewMem(vfs.Capacity(4 << 20))
	e := openEngine(t, fs)
	big, small := mustTopic(t, e, "big", 1), mustTopic(t, e, "small", 1)
	value := make([]byte, 64<<10)
	for size := len(value); size > 0; size /= 2 {
		for {
			if _, err := big.Partitions()[0].Append(ctx, []log.Record{{Value: value[:size]}}, nil); errors.Is(err, log.ErrNoSpace) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	f, err := fs.Create(".filler") // whatever is left
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		if _, err := f.Append(make([]byte, 4096)); err != nil {
			break
		}
	}
	if _, err := e.CreateTopic(ctx, TopicSpec{Name: "more", Partitions: 3}); !errors.Is(err, log.ErrNoSpace) {
		t.Fatal(err)
	}
	if err := checkDirs(e); err != nil {
		t.Error(err)
	}
	if err := e.DeleteTopic(ctx, "big"); err != nil {
		t.Fatal(err)
	}
	e.removeDeleted(ctx)
	mustAppend(t, small.Partitions()[0], "v")
	mustTopic(t, e, "more", 3)
	if err := checkDirs(e); err != nil || len(e.Info().Deleting) != 0 {
		t.Error(err, e.Info().Deleting)
	}
}
