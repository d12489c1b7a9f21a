package log

import (
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// A process is killed while it deletes segments, the next one while it opens the log,
// and then the power goes. What the first one's checkpoint had decided may be lost
// by then, but not together with the segments that it gave up.
func TestDeletionKilledTwice(t *testing.T) {
	cfg := Config{SegmentBytes: 1 << 10, SegmentAge: -1}
	lives := 0
	for k := 0; ; k++ {
		original := vfs.NewMem()
		l := openTest(t, original, cfg)
		for range 20 {
			appendTest(t, l, 1, "a value of some length, so that segments are closed soon enough")
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		m := original.AfterKill(vfs.CrashAt(k))
		deleted, err := Open("", &Options{FS: m, Config: cfg})
		if err == nil {
			deleted.Lock()
			err = deleted.TruncateTo(15)
			deleted.Unlock()
			deleted.Close()
		}
		if err == nil && !m.Crashed() {
			break
		}
		for j := range 12 {
			for seed := range uint64(6) {
				next := m.AfterKill(vfs.CrashAt(j))
				if second, err := Open("", &Options{FS: next, Config: cfg}); err == nil {
					second.Close()
				}
				last := next.AfterCrash(vfs.Random(seed))
				third, err := Open("", &Options{FS: last, Config: cfg})
				if err != nil {
					t.Fatalf("operation %d, then %d, choice %d: %v", k, j, seed, err)
				}
				if damage := third.Recovered().Corruption; damage != nil {
					t.Fatalf("operation %d, then %d, choice %d: %v", k, j, seed, damage)
				}
				third.Close()
				lives++
			}
		}
	}
	if lives < 200 {
		t.Fatalf("only %d lives", lives)
	}
}

// What one open has shown the next one shows, also when nothing was written between
// and the one that made it was killed before it had synced a name.
func TestOpenKeepsWhatItShows(t *testing.T) {
	cfg := Config{SegmentAge: -1}
	moved := 0
	for k := 0; ; k++ {
		original := vfs.NewMem()
		l := openTest(t, original, cfg)
		for range 20 {
			appendTest(t, l, 1, "v")
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		m := original.AfterKill(vfs.CrashAt(k))
		deleting, err := Open("", &Options{FS: m, Config: cfg})
		if err == nil {
			deleting.Lock()
			err = deleting.TruncateTo(15)
			deleting.Unlock()
		}
		done := err == nil && !m.Crashed()
		for seed := range uint64(8) {
			next := m.AfterKill()
			second := openTest(t, next, cfg)
			shown := second.StartOffset()
			third := openTest(t, next.AfterCrash(vfs.Random(seed)), cfg)
			if got := third.StartOffset(); got < shown {
				t.Fatalf("operation %d, choice %d: the log starts at %d, it was shown to start at %d", k, seed, got, shown)
			}
			if shown == 15 {
				moved++
			}
			third.Close()
			second.Close()
		}
		if deleting != nil {
			deleting.Close()
		}
		if done {
			break
		}
	}
	if moved == 0 {
		t.Fatal("the start never moved")
	}
}

// A frame that lies in a file from its earlier life, at the same place and whole, is
// told by its tag.
func TestFrameOfAnotherLife(t *testing.T) {
	h := frameHeader{kind: KindNoop, pos: segmentHeaderLen, tag: 7, index: 1, epoch: 1, length: KindNoop.headLen()}
	b := make([]byte, frameHeaderLen+h.length)
	putFrame(b, &h)
	for tag, want := range map[uint64]error{7: nil, 8: errStaleFrame} {
		var got frameHeader
		if _, err := parseFrame(b, segmentHeaderLen, tag, &got); err != want {
			t.Errorf("tag %d: %v, want %v", tag, err, want)
		}
	}
}
