package log

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// Whoever still has a log after Close gets ErrClosed, and opens no file again.
func TestNothingIsOpenedAfterClose(t *testing.T) {
	fs := osFS(t)
	cache := NewFileCache(10)
	l, err := Open("", &Options{FS: fs, Files: cache, Config: Config{SegmentBytes: 1024}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		appendTest(t, l, 1, fmt.Sprint("v", i))
	}
	r, err := l.ReadFrom(0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.ReadBefore(30)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		do   func() error
	}{
		{"Reader.Next", func() error { _, err := r.Next(); return err }},
		{"Backward.Next", func() error { _, err := b.Next(); return err }},
		{"ReadFrom", func() error { _, err := l.ReadFrom(3); return err }},
		{"ReadFromIndex", func() error { _, err := l.ReadFromIndex(3); return err }},
		{"Scan", func() error { return l.Scan(0, 30, func(*Frame) error { return nil }) }},
		{"Flush", l.Flush},
		{"OffsetForTime", func() error { _, _, err := l.OffsetForTime(1005); return err }},
		{"Verify", func() error { _, err := l.Verify(t.Context()); return err }},
		{"Compact", func() error { _, err := l.Compact(t.Context(), CompactPolicy{Upto: 30}); return err }},
	} {
		if err := c.do(); !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v", c.name, err)
		}
		if n := cache.Open(); n != 0 {
			t.Fatalf("%s left %d files open", c.name, n)
		}
	}
}

// An open that fails late leaves no file open in the cache that logs share.
func TestFailedOpenLeavesNothingOpen(t *testing.T) {
	mem := vfs.NewMem()
	l := openTest(t, mem, Config{Level: OS, SegmentBytes: 1024})
	for i := range 30 {
		appendTest(t, l, 1, fmt.Sprint("v", i))
	}
	killed := mem.AfterKill()
	failures := 0
	for skip := range 60 {
		fault := vfs.NewFault(killed.AfterKill(), vfs.Rule{Op: vfs.OpAny, Skip: skip, Effect: vfs.Fail(os.ErrPermission)})
		cache := NewFileCache(10)
		l, err := Open("", &Options{FS: fault, Files: cache, Config: Config{SegmentBytes: 1024}})
		if err == nil {
			l.Close()
		} else {
			failures++
		}
		if n := cache.Open(); n != 0 {
			t.Fatalf("failure of operation %d: %d files are open (open says %v)", skip, n, err)
		}
	}
	if failures < 30 {
		t.Fatalf("only %d opens failed", failures)
	}
}

// What counts against CapBytes is what the files take.
func TestAllocatedBytesFollowTheFiles(t *testing.T) {
	for _, level := range []Level{Durable, OS} {
		mem := vfs.NewMem()
		cfg := Config{Level: level, SegmentBytes: 64 << 10, IndexIntervalBytes: 1024, ReserveBytes: 32 << 10, Recycle: true}
		open := func() *Log {
			l, err := Open("", &Options{FS: mem, Config: cfg, Snapshot: func(b []byte) []byte { return append(b, make([]byte, 100_000)...) }})
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		l := open()
		for step := range 6 {
			for i := range 60 {
				appendTest(t, l, 1, fmt.Sprintf("v%d %04000d", i, i))
			}
			switch step {
			case 2:
				retain(t, l, RetentionPolicy{Bytes: 100 << 10, Upto: l.EndOffset()})
			case 3:
				if _, err := l.Compact(t.Context(), CompactPolicy{Upto: l.EndOffset()}); err != nil {
					t.Fatal(err)
				}
			case 4:
				l.Lock()
				err := l.TruncateFrom(l.NextIndex() - 30)
				l.Unlock()
				if err != nil {
					t.Fatal(err)
				}
			case 5:
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				l = open()
			}
			infos, err := mem.List(".")
			if err != nil {
				t.Fatal(err)
			}
			files := int64(0)
			for _, info := range infos {
				if info.Name != lockName {
					files += info.Allocated
				}
			}
			// Blocks of small files, and what is laid ahead of the writer meanwhile.
			if got, slack := l.AllocatedBytes(), int64(24<<10+len(infos)*4096); got < files-slack || got > files+slack {
				t.Errorf("level %v, step %d: %d bytes are counted, the files take %d", level, step, got, files)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
