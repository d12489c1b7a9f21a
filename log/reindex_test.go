package log

import (
	"context"
	"errors"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// TestReindex takes the indexes of compacted segments away, or puts others in
// their place: reading goes on, and the next compaction writes them.
func TestReindex(t *testing.T) {
	for _, missing := range []bool{true, false} {
		fs := vfs.NewMem()
		cfg := Config{SegmentBytes: 4096, IndexIntervalBytes: 200}
		l, k := steps(t, fs, cfg)
		report, err := l.Compact(context.Background(), k.policy())
		if err != nil {
			t.Fatal(err)
		}
		segs := *l.segs.Load()
		for _, s := range segs[:len(segs)-1] {
			if !s.compacted() {
				continue
			}
			if err := errors.Join(fs.Remove(s.index.places.name), fs.Remove(s.index.times.name)); err != nil {
				t.Fatal(err)
			}
			if !missing {
				if err := writeNew(fs, s.index.places.name, make([]byte, 3*indexEntryLen)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = openTest(t, fs, cfg)
		if err := k.checkClean(l, report.CleanedOffset); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Compact(context.Background(), k.policy()); err != nil {
			t.Fatal(err)
		}
		for _, s := range (*l.segs.Load())[:len(segs)-1] {
			if _, ok, err := s.index.floorPlace(func(placeEntry) bool { return false }); !ok || err != nil {
				t.Fatalf("%s has no index: %v", s.name, err)
			}
		}
		wantVerified(t, l)
		for offset := int64(0); offset < l.EndOffset(); offset += 3 {
			wantSeek(t, l, offset)
		}
		if got := leftovers(t, fs); len(got) > 0 {
			t.Errorf("left over: %v", got)
		}
	}
}
