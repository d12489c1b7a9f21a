package log

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

func wantVerified(t *testing.T, l *Log) {
	t.Helper()
	r, err := l.Verify(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Problems {
		t.Errorf("verify: %v", p)
	}
	if r.Segments != len(*l.segs.Load()) || r.Frames == 0 && l.EndOffset() > l.StartOffset() {
		t.Errorf("verify read %+v", r)
	}
}

// flip changes one byte of a file.
func flip(t *testing.T, fs vfs.FS, name string, pos int64) {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], pos); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], pos); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// TestVerifyFinds damages one byte of each file after another, at every 7th byte
// that counts, and wants each to be found in that file.
func TestVerifyFinds(t *testing.T) {
	fs := vfs.NewMem()
	l := openTest(t, fs, Config{SegmentBytes: 1500, IndexIntervalBytes: 300})
	for i := range 30 {
		appendTest(t, l, 1, fmt.Sprintf("value %d %050d", i, i))
	}
	if err := l.catchUp(l.takeCheckpoint()); err != nil {
		t.Fatal(err)
	}
	wantVerified(t, l)
	segs := *l.segs.Load()
	for _, s := range segs {
		files := map[string]int64{s.name: s.end.Load(), s.index.places.name: int64(s.index.places.inFile) * indexEntryLen, s.index.times.name: int64(s.index.times.inFile) * indexEntryLen}
		for name, size := range files {
			for pos := int64(0); pos < size; pos += 7 {
				flip(t, fs, name, pos)
				r, err := l.Verify(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				if len(r.Problems) == 0 || r.Problems[0].File != name {
					t.Fatalf("%s: byte %d is damaged, found %v", name, pos, r.Problems)
				}
				p := r.Problems[0]
				if name == s.name && (!errors.Is(p, ErrCorrupt) || p.Cache || p.Position > pos || pos-p.Position > 256) {
					t.Fatalf("%s: byte %d is damaged, found %v", name, pos, p)
				}
				if name != s.name && !p.Cache {
					t.Fatalf("%s: byte %d is damaged, found %v", name, pos, p)
				}
				flip(t, fs, name, pos)
			}
		}
	}
	flip(t, fs, checkpointName, 100)
	wantVerified(t, l) // there are two copies
	info, err := fs.Stat(checkpointName)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, fs, checkpointName, info.Size/2+100)
	if r, err := l.Verify(context.Background()); err != nil || len(r.Problems) != 1 || r.Problems[0].File != checkpointName {
		t.Fatalf("both copies of the checkpoint are damaged, found %v, %v", r.Problems, err)
	}
}

// A log whose maker was killed at any operation is whole when it is opened again: it has a checkpoint, as each log that was ever opened.
func TestKilledWhileCreating(t *testing.T) {
	for k := 0; ; k++ {
		fs := vfs.NewMem(vfs.CrashAt(k))
		if l, err := Open("", &Options{FS: fs}); err == nil {
			l.Close()
		}
		if !fs.Crashed() {
			return
		}
		l := openTest(t, fs.AfterKill(), Config{})
		wantVerified(t, l)
		if t.Failed() {
			t.Fatalf("killed at operation %d", k)
		}
	}
}
