package vfs_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// TestCrashUnderWriters crashes while several goroutines append, store and sync.
// What any of them was told is durable is there, and nothing else than what was
// written; the frozen file system does not change any more while late writers
// still come.
func TestCrashUnderWriters(t *testing.T) {
	const writers, piece = 4, 100
	for k := 20; k < 400; k += 37 {
		m := vfs.NewMem(vfs.CrashAt(k), vfs.CrashCut(func(n int) int { return n / 2 }))
		var synced [writers]atomic.Int64
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				err := writeUntilCrash(m, w, piece, &synced[w])
				if !errors.Is(err, vfs.ErrCrashed) {
					t.Errorf("k=%d: writer %d stopped with %v", k, w, err)
				}
			})
		}
		for !m.Crashed() {
			m.Stat(".") // a reader in between
		}
		early := show(t, m.AfterKill()) // others may not have noticed yet
		wg.Wait()
		if late := show(t, m.AfterKill()); late != early {
			t.Fatalf("k=%d: the frozen file system changed from\n%s\nto\n%s", k, early, late)
		}
		for _, c := range []vfs.Choice{vfs.KeepNone, vfs.KeepAll, vfs.Random(uint64(k))} {
			after := m.AfterCrash(c)
			for w := range writers {
				want := synced[w].Load()
				if want == 0 {
					continue // its name may be gone
				}
				got := content(t, after, fmt.Sprint("f", w))
				if durable := strings.Repeat(string(rune('a'+w)), int(want)); !strings.HasPrefix(got, durable) {
					t.Fatalf("k=%d: writer %d synced %d bytes, the file holds %d: %.40q", k, w, want, len(got), got)
				}
			}
		}
	}
}

func writeUntilCrash(m *vfs.Mem, w, piece int, synced *atomic.Int64) error {
	f, err := m.Create(fmt.Sprint("f", w))
	if err != nil {
		return err
	}
	if err := m.SyncDir("."); err != nil {
		return err
	}
	view, err := f.Map(0, 1<<20)
	if err != nil {
		return err
	}
	data := []byte(strings.Repeat(string(rune('a'+w)), piece))
	for at := 0; ; {
		if _, err := f.Append(data); err != nil {
			return err
		}
		at += piece
		if err := f.Truncate(int64(at + piece)); err != nil {
			return err
		}
		if err := view.Store(at, data); err != nil {
			return err
		}
		at += piece
		if err := f.Datasync(); err != nil {
			return err
		}
		synced.Store(int64(at))
	}
}
