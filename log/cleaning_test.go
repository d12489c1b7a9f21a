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
