package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// capture takes a capture with a hold that ends with the test.
func capture(t testing.TB, l *Log) *Capture {
	t.Helper()
	t.Cleanup(l.Hold())
	c, err := l.Capture()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// copyOf writes what c describes into a file system of its own.
func copyOf(t testing.TB, c *Capture) *vfs.Mem {
	t.Helper()
	fs := vfs.NewMem()
	write := func(name string, b []byte) {
		f, err := fs.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i < len(c.Segments); {
		var b bytes.Buffer
		err := c.CopySegment(context.Background(), i, &b)
		if errors.Is(err, ErrGone) {
			c.Drop(i)
			fs, i = vfs.NewMem(), 0
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if int64(b.Len()) != c.Segments[i].Bytes {
			t.Fatalf("%s: %d bytes, want %d", c.Segments[i].Name, b.Len(), c.Segments[i].Bytes)
		}
		write(c.Segments[i].Name, b.Bytes())
		i++
	}
	write(checkpointName, c.Checkpoint())
	return fs
}

// same opens a copy and compares it with what it should hold.
func same(t testing.TB, c *Capture, fs vfs.FS, want []string) {
	t.Helper()
	l, err := Open("", &Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if r := l.Recovered(); !r.Clean && len(c.Segments) > 0 || r.Corruption != nil || r.RewrittenBytes != 0 {
		t.Errorf("recovered: %+v", r)
	}
	if l.StartOffset() != c.Start || l.EndOffset() != c.End {
		t.Errorf("offsets %d to %d, want %d to %d", l.StartOffset(), l.EndOffset(), c.Start, c.End)
	}
	if got := contents(t, l); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	v, err := l.Verify(context.Background())
	if err != nil || len(v.Problems) > 0 {
		t.Errorf("verify: %v, %v", v.Problems, err)
	}
	appendTest(t, l, 1, "more") // it goes on from there
	if l.EndOffset() != c.End+1 {
		t.Errorf("goes on to %d, want %d", l.EndOffset(), c.End+1)
	}
}

func TestCaptureIsTheLogAtThatMoment(t *testing.T) {
	for _, level := range []Level{Durable, OS} {
		t.Run(level.String(), func(t *testing.T) {
			l := filled(t, vfs.NewMem(), Config{SegmentBytes: 1024, Level: level}, 40)
			want := contents(t, l)
			c := capture(t, l)
			if l.DurableOffset() != c.End {
				t.Errorf("durable to %d, captured to %d", l.DurableOffset(), c.End)
			}
			for i := range 30 {
				appendTest(t, l, 2, fmt.Sprintf("later %d %060d", i, i))
			}
			same(t, c, copyOf(t, c), want)
		})
	}
}

func TestCaptureOfAnEmptyLog(t *testing.T) {
	l := openTest(t, vfs.NewMem(), Config{})
	c := capture(t, l)
	same(t, c, copyOf(t, c), nil)
}

// Retention goes on: what it takes is not in the copy, which starts later.
func TestRetentionDuringACopy(t *testing.T) {
	for _, recycle := range []bool{false, true} {
		for gone := 1; gone <= 3; gone++ {
			t.Run(fmt.Sprintf("recycle=%t/gone=%d", recycle, gone), func(t *testing.T) {
				l := filled(t, vfs.NewMem(), Config{SegmentBytes: 1024, Recycle: recycle}, 20)
				want := contents(t, l)
				c := capture(t, l)
				n := len(c.Segments)
				for i := range 30 {
					appendTest(t, l, 2, fmt.Sprintf("later %d %060d", i, i))
				}
				upto := l.EndOffset() // all that was captured goes, the last one too
				if gone < 3 {
					upto = c.Segments[gone].BaseOffset
				}
				retain(t, l, RetentionPolicy{Bytes: 1, Upto: upto})
				for i := range 30 { // recycled files are written over
					appendTest(t, l, 2, fmt.Sprintf("later %d %060d", i, i))
				}
				fs := copyOf(t, c)
				if gone == 3 && len(c.Segments) != 0 || gone < 3 && len(c.Segments) != n-gone {
					t.Fatalf("%d of %d segments left", len(c.Segments), n)
				}
				same(t, c, fs, want[c.Start:])
			})
		}
	}
}

func TestCompactionWaitsForACopy(t *testing.T) {
	l := filled(t, vfs.NewMem(), Config{SegmentBytes: 1024}, 40)
	want := contents(t, l)
	release := l.Hold()
	c, err := l.Capture()
	if err != nil {
		t.Fatal(err)
	}
	policy := CompactPolicy{Upto: l.EndOffset()}
	if _, err := l.Compact(context.Background(), policy); !errors.Is(err, ErrHeld) {
		t.Fatalf("compaction while held: %v", err)
	}
	same(t, c, copyOf(t, c), want)
	release()
	release() // a second time is nothing
	if r, err := l.Compact(context.Background(), policy); err != nil || r.SegmentsBefore == 0 {
		t.Fatalf("compaction afterwards: %+v, %v", r, err)
	}
	c = capture(t, l)
	same(t, c, copyOf(t, c), contents(t, l))
}

// A hold that comes while a compaction runs ends it before it replaces anything.
func TestHoldEndsACompaction(t *testing.T) {
	l := filled(t, vfs.NewMem(), Config{SegmentBytes: 1024}, 40)
	want := contents(t, l)
	var c *Capture
	policy := CompactPolicy{Upto: l.EndOffset(), Batch: func(h *BatchHeader, _ []byte) BatchVerdict {
		if c == nil && h.BaseOffset > 5 {
			c = capture(t, l)
		}
		return BatchVerdict{}
	}}
	if _, err := l.Compact(context.Background(), policy); !errors.Is(err, ErrHeld) {
		t.Fatal(err)
	}
	same(t, c, copyOf(t, c), want)
}

func TestCaptureOfALogThatFailed(t *testing.T) {
	l := openTest(t, vfs.NewMem(), Config{})
	l.Close()
	if _, err := l.Capture(); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
