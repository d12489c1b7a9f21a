package log

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
)

// watchedRename calls seen after a file got its name.
type watchedRename struct {
	vfs.FS
	seen func(name string)
}

func (w *watchedRename) Rename(oldName, newName string) error {
	err := w.FS.Rename(oldName, newName)
	if err == nil && w.seen != nil {
		w.seen(newName)
	}
	return err
}

// Below the first complete index entries cannot be read singly. It moves before a compacted segment takes its place: whoever reads meanwhile
// must not take what was joined for an entry, and neither must an open after a crash anywhere in between.
func TestFirstCompleteIndexMovesFirst(t *testing.T) {
	cfg := Config{SegmentBytes: 2048}
	base := vfs.NewMem()
	l, k := steps(t, base, cfg)
	policy := k.policy()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// endOf is up to where entries are joined in a file; 0 where it is not compacted.
	endOf := func(fsys vfs.FS, name string) uint64 {
		sc, err := ScanSegment(fsys, name)
		if err != nil {
			t.Fatal(err)
		}
		defer sc.Close()
		if info, err := sc.Header(); err == nil && info.Compacted {
			return info.EndIndex
		}
		return 0
	}
	watched := &watchedRename{FS: base.AfterKill()}
	l = openTest(t, watched, cfg)
	renamed := 0
	watched.seen = func(name string) {
		if !strings.HasSuffix(name, logSuffix) {
			return
		}
		renamed++
		if end, first := endOf(watched.FS, name), l.FirstCompleteIndex(); first < end {
			t.Errorf("%s has its place with entries joined below %d, and the first complete index is %d", name, end, first)
		}
	}
	if _, err := l.Compact(context.Background(), policy); err != nil || renamed == 0 {
		t.Fatalf("%d segments were replaced: %v", renamed, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// A few crashes in an ordinary run: enough to meet one that leaves a compacted segment.
	step := max(1, watched.FS.(*vfs.Mem).Ops()/max(testcount.N(30), 12))
	if os.Getenv("EMBEDLOG_FAULTS") == "all" {
		step = 1
	}
	joined := 0
	for at := 0; ; at += step {
		m := base.AfterKill(vfs.CrashAt(at))
		l, err := Open("", &Options{FS: m, Config: cfg})
		if err == nil {
			_, err = l.Compact(context.Background(), policy)
			l.Close()
		}
		if !m.Crashed() {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		for i, fsys := range []*vfs.Mem{m.AfterKill(), m.AfterCrash(vfs.KeepAll), m.AfterCrash(vfs.Random(uint64(at)))} {
			l, err := Open("", &Options{FS: fsys, Config: cfg})
			if err != nil {
				t.Fatalf("operation %d, state %d: %v", at, i, err)
			}
			first := l.FirstCompleteIndex()
			files, err := SegmentFiles(fsys)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				end := endOf(fsys, f.Name)
				if end > 0 {
					joined++
				}
				if first < end {
					t.Errorf("operation %d, state %d: entries below %d are joined in %s, the first complete index is %d", at, i, end, f.Name, first)
				}
			}
			l.Close()
		}
	}
	if joined == 0 {
		t.Error("no crash left a compacted segment")
	}
}
