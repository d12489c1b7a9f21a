package log

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// A segment whose header is damaged is lost to readers, and no other: they are
// told once, go behind it, and come to an end.
func TestReadAroundADamagedHeader(t *testing.T) {
	for _, late := range []bool{false, true} { // damaged before the open, or after it
		mem := vfs.NewMem()
		cfg := Config{SegmentBytes: 2048, IndexIntervalBytes: 256}
		l := openTest(t, mem, cfg)
		const n = 60
		for i := range n {
			appendTest(t, l, 1, fmt.Sprint("v", i))
		}
		segs := *l.segs.Load()
		if len(segs) < 4 {
			t.Fatalf("%d segments", len(segs))
		}
		bad, from, to := segs[1].name, segs[1].baseOffset, segs[2].baseOffset
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		fs := mem.AfterKill()
		flip := func() {
			f, err := fs.Open(bad)
			if err == nil {
				_, err = f.WriteAt([]byte{0xff}, 20)
			}
			if err = errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}
		if !late {
			flip()
		}
		l = openTest(t, fs, cfg)
		if late {
			flip()
		}
		for _, start := range []int64{0, from - 1, from, from + 1, to} {
			r, err := l.ReadFrom(start)
			if err != nil {
				t.Fatalf("late %t: read from %d: %v", late, start, err)
			}
			next, told := start, 0
			for {
				f, err := r.Next()
				if err == io.EOF {
					break
				}
				var c *CorruptionError
				if errors.As(err, &c) {
					if told++; told > 1 || c.File != bad || c.EndOffset != to {
						t.Fatalf("late %t: from %d: told %d times: %v", late, start, told, c)
					}
					if next, err = r.Skip(); err != nil {
						t.Fatalf("late %t: skip: %v", late, err)
					}
					continue
				}
				if err != nil {
					t.Fatalf("late %t: from %d: %v", late, start, err)
				}
				if f.Offset != next {
					t.Fatalf("late %t: from %d: got offset %d, want %d", late, start, f.Offset, next)
				}
				next = f.NextOffset
			}
			if next != n || (told == 1) != (start < to) {
				t.Fatalf("late %t: from %d: ended at %d, told %d times", late, start, next, told)
			}
		}
	}
}
