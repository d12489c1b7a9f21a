package log

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// A segment that is gone from the disk while the log is open is damage, and not an error of the disk: a reader is told what it held
// and goes on behind it, Verify lists it, and it is not copied.
func TestSegmentGoesMissing(t *testing.T) {
	fs := vfs.NewMem()
	l, err := Open("", &Options{FS: fs, Files: NewFileCache(1), Config: installConfig})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fillTest(t, l, 3, 40, "x")
	segs := *l.segs.Load()
	if len(segs) < 4 {
		t.Fatalf("%d segments", len(segs))
	}
	lost := segs[1]
	if err := fs.Remove(lost.name); err != nil {
		t.Fatal(err)
	}
	r, err := l.ReadFrom(0)
	if err != nil {
		t.Fatal(err)
	}
	frames, bad := 0, 0
	for {
		_, err := r.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			frames++
			continue
		}
		var c *CorruptionError
		if !errors.As(err, &c) || c.File != lost.name || c.FirstOffset != lost.baseOffset || c.EndOffset != segs[2].baseOffset {
			t.Fatalf("in a segment that is gone: %v", err)
		}
		bad++
		if at, err := r.Skip(); err != nil || at != segs[2].baseOffset {
			t.Fatalf("behind it: offset %d, %v", at, err)
		}
	}
	if bad != 1 || frames == 0 {
		t.Errorf("%d frames, %d times damage", frames, bad)
	}
	if _, err := l.ReadFrom(lost.baseOffset + 1); err != nil && !errors.Is(err, ErrCorrupt) {
		t.Errorf("read from within it: %v", err)
	}
	report, err := l.Verify(context.Background())
	if err != nil || len(report.Problems) != 1 || report.Problems[0].File != lost.name || !errors.Is(report.Problems[0], ErrCorrupt) {
		t.Errorf("Verify finds %v, %v", report.Problems, err)
	}
	defer l.Hold()()
	c, err := l.Capture()
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.Segments {
		if err := c.CheckSegment(context.Background(), i); errors.Is(err, ErrCorrupt) != (i == 1) {
			t.Errorf("segment %d is to be copied: %v", i, err)
		}
	}
}

// What CheckSegment lets through is whole: each bit of a segment that is captured is looked at.
func TestCheckSegmentFindsDamage(t *testing.T) {
	fs := vfs.NewMem()
	l := openTest(t, fs, installConfig)
	defer l.Close()
	fillTest(t, l, 3, 30, "x")
	c := captureAtTest(t, l, 23)
	ctx := context.Background()
	found := 0
	for i, s := range c.Segments {
		if err := c.CheckSegment(ctx, i); err != nil {
			t.Fatalf("segment %d: %v", i, err)
		}
		f, err := fs.Open(s.Name)
		if err != nil {
			t.Fatal(err)
		}
		end := s.Bytes
		if i == len(c.Segments)-1 {
			end -= markLen
		}
		for at := int64(0); at < end; at += 7 {
			var b, was [1]byte
			if _, err := f.ReadAt(was[:], at); err != nil {
				t.Fatal(err)
			}
			b[0] = was[0] ^ 1<<(at%8)
			if _, err := f.WriteAt(b[:], at); err != nil {
				t.Fatal(err)
			}
			if err := c.CheckSegment(ctx, i); errors.Is(err, ErrCorrupt) {
				found++
			} else if err != nil || at < int64(segmentHeaderLen) || i+1 == len(c.Segments) || at < lastFrameEnd(t, c, i) {
				t.Errorf("%s: a bit of byte %d of %d: %v", s.Name, at, end, err)
			}
			if _, err := f.WriteAt(was[:], at); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
	}
	if found < 100 {
		t.Errorf("%d damages found", found)
	}
}

// lastFrameEnd is where the frames of a captured segment end: what lies behind them counts for nothing.
func lastFrameEnd(t *testing.T, c *Capture, i int) (pos int64) {
	t.Helper()
	sc, err := ScanSegment(c.l.fs, c.segs[i].name)
	if err != nil {
		t.Fatal(err)
	}
	defer sc.Close()
	for {
		f, err := sc.Next()
		if err != nil {
			return pos
		}
		if f.Kind != kindMark && f.Kind != 0 {
			pos = f.End
		}
	}
}
