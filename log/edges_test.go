package log

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"
	"time"

	"github.com/x/embedlog/internal/vfs"
)

// A reader that stands behind what a truncation took away is told so. It has seen no
// damage.
func TestReaderBehindTruncation(t *testing.T) {
	for _, segment := range []int64{1 << 20, 2048} {
		l := openTest(t, vfs.NewMem(), Config{SegmentBytes: segment})
		for i := range 60 {
			appendTest(t, l, 1, fmt.Sprint("v", i))
		}
		r, err := l.ReadFrom(50)
		if err == nil {
			_, err = r.Next()
		}
		if err != nil {
			t.Fatal(err)
		}
		l.Lock()
		err = l.TruncateFrom(31)
		l.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if _, err := r.Next(); !errors.Is(err, ErrOffsetAhead) {
				t.Fatalf("segments of %d bytes, %d records later: read at 51 of a log that ends at %d: %v", segment, i, l.EndOffset(), err)
			}
			appendTest(t, l, 2, fmt.Sprint("w", i))
		}
	}
}

// Readers that come while a truncation takes files away see the longer or the
// shorter log, never a missing file or damage.
func TestReadDuringTruncation(t *testing.T) {
	for _, keep := range []uint64{2, 3, 11, 31, 41} {
		fault := vfs.NewFault(vfs.NewMem())
		l, err := Open("", &Options{FS: fault, Files: NewFileCache(1), Config: Config{SegmentBytes: 1024}})
		if err != nil {
			t.Fatal(err)
		}
		l.Lock()
		err = errors.Join(l.StageEntry(KindNoop, 0, 1, []byte("first")), l.Write())
		l.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		for i := range 60 {
			appendTest(t, l, 1, fmt.Sprint("v", i))
		}
		var readers []*Reader
		for from := int64(0); from < 60; from += 3 {
			r, err := l.ReadFrom(from)
			if err != nil {
				t.Fatal(err)
			}
			r.Bound(4096)
			readers = append(readers, r)
		}
		var failed error
		inside := false
		fault.OnOp(func(op vfs.Op, name string) {
			if inside || op != vfs.OpSyncDir && op != vfs.OpTruncate && op != vfs.OpSync && op != vfs.OpDatasync {
				return
			}
			inside = true
			defer func() { inside = false }()
			for _, r := range readers {
				at := r.Offset()
				if f, err := r.Next(); err != nil && err != io.EOF && !errors.Is(err, ErrOffsetAhead) && failed == nil {
					failed = fmt.Errorf("at %v of %s: read at %d: %+v, %w", op, name, at, f, err)
				}
			}
		})
		l.Lock()
		err = l.TruncateFrom(keep)
		l.Unlock()
		fault.OnOp(nil)
		if err != nil {
			t.Fatal(err)
		}
		if failed != nil {
			t.Errorf("truncate from %d: %v", keep, failed)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A segment that is gone from the middle is damage with a name and offsets, and all
// that lies behind it can be read.
func TestSkipMissingSegment(t *testing.T) {
	mem := vfs.NewMem()
	l := filled(t, mem, Config{SegmentBytes: 1024}, 60)
	segs := *l.segs.Load()
	if len(segs) < 5 {
		t.Fatalf("%d segments", len(segs))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := mem.Remove(segs[2].name); err != nil {
		t.Fatal(err)
	}
	l = openTest(t, mem, Config{SegmentBytes: 1024})
	r, err := l.ReadFrom(0)
	if err != nil {
		t.Fatal(err)
	}
	for range segs[2].baseOffset {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	var damage *CorruptionError
	if _, err := r.Next(); !errors.As(err, &damage) {
		t.Fatalf("at the gap: %v", err)
	}
	if damage.FirstOffset != segs[2].baseOffset || damage.EndOffset != segs[3].baseOffset {
		t.Fatalf("damage %+v, offsets %d to %d are missing", damage, segs[2].baseOffset, segs[3].baseOffset)
	}
	if at, err := r.Skip(); err != nil || at != segs[3].baseOffset {
		t.Fatalf("skip to %d, %v; want %d", at, err, segs[3].baseOffset)
	}
	n := int64(0)
	for ; ; n++ {
		if _, err := r.Next(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if want := l.EndOffset() - segs[3].baseOffset; n != want {
		t.Fatalf("%d records behind the gap, want %d", n, want)
	}
}

// A write that fails takes the end mark with it. The mark says that what was
// acknowledged before is durable, so it has to be there again.
func TestFailedWriteKeepsTheEndMark(t *testing.T) {
	for _, effect := range []vfs.Effect{vfs.Full(0), vfs.Full(100), vfs.Fail(nil)} {
		mem := vfs.NewMem()
		fault := vfs.NewFault(mem)
		l := openTest(t, fault, Config{})
		appendTest(t, l, 1, "v0")
		fault.Add(vfs.Rule{Op: vfs.OpWrite, Glob: "*.log", Effect: effect})
		l.Lock()
		h := BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
		err := errors.Join(l.StageRecords(1, &h, []Record{{Value: []byte("fails")}}), l.Write())
		pos, end := l.w.seg.name, l.w.pos
		l.Unlock()
		if err == nil {
			t.Fatal("the write did not fail")
		}
		f, err := mem.Open(pos)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, markLen)
		var fh frameHeader
		if n, _ := f.ReadAt(b, end); n < markLen {
			t.Errorf("the file ends without a mark: %d bytes behind the last frame", n)
		} else if _, err := parseFrame(b, end, l.w.seg.tag, &fh); err != nil || fh.kind != kindMark {
			t.Errorf("behind the last frame stands %v, %v", fh.kind, err)
		}
		f.Close()
	}
}

// A reserve that cannot be laid for another reason than a full disk is not a full disk.
func TestReserveFailsWithItsCause(t *testing.T) {
	fault := vfs.NewFault(vfs.NewMem())
	l := openTest(t, fault, Config{})
	if err := l.SetConfig(Config{ReserveBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	fault.Add(vfs.Rule{Op: vfs.OpCreate, Glob: reserveName, Count: -1, Effect: vfs.Fail(fs.ErrPermission)})
	l.Lock()
	defer l.Unlock()
	h := BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
	err := errors.Join(l.StageRecords(1, &h, []Record{{Value: make([]byte, 1<<20)}}), l.Write())
	if !errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrNoSpace) {
		t.Fatalf("append: %v", err)
	}
	fault.Clear()
	if err := errors.Join(l.StageRecords(1, &h, []Record{{Value: make([]byte, 1<<20)}}), l.Write()); err != nil {
		t.Fatalf("append when it can be laid: %v", err)
	}
}

// Settings that change while the timer's work runs, at the interval's end and before.
func TestRetimeWhileTicking(t *testing.T) {
	l := openTest(t, vfs.NewMem(), Config{Level: Interval, SyncInterval: time.Millisecond})
	for i := range 200 {
		appendTest(t, l, 1, "v")
		if err := l.SetConfig(Config{Level: Interval, SyncInterval: time.Duration(1 + i%3)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// A truncation on a full disk has the reserve for its checkpoint, and what it frees
// for the rest.
func TestTruncateFromOnFullDisk(t *testing.T) {
	fault := vfs.NewFault(vfs.NewMem())
	cfg := Config{SegmentBytes: 1024, ReserveBytes: 64 << 10}
	l := openTest(t, fault, cfg)
	for i := range 60 {
		appendTest(t, l, 1, fmt.Sprint("v", i))
	}
	l.Lock()
	defer l.Unlock()
	// Nothing as large as the reserve finds room, and the first checkpoint does not either.
	fault.Add(vfs.Rule{Op: vfs.OpAllocate, Glob: reserveName, Count: -1, Effect: vfs.Full(0)})
	fault.Add(vfs.Rule{Op: vfs.OpWrite, Glob: "checkpoint.tmp", Count: 1, Effect: vfs.Full(0)})
	if err := l.TruncateFrom(31); err != nil {
		t.Fatal(err)
	}
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
	if l.EndOffset() != 30 {
		t.Fatalf("log ends at %d", l.EndOffset())
	}
}
