package log

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/x/embedlog/internal/vfs"
)

// retain runs Retain as the writer.
func retain(t testing.TB, l *Log, p RetentionPolicy) int {
	t.Helper()
	l.Lock()
	defer l.Unlock()
	n, err := l.Retain(p)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// filled is a log of several segments.
func filled(t testing.TB, fs vfs.FS, cfg Config, n int) *Log {
	t.Helper()
	l := openTest(t, fs, cfg)
	for i := range n {
		appendTest(t, l, 1, fmt.Sprintf("v%d %060d", i, i))
	}
	return l
}

func TestRetainBySizeAndStart(t *testing.T) {
	fs := vfs.NewMem()
	l := filled(t, fs, Config{SegmentBytes: 1024}, 40)
	all := contents(t, l)
	segs := *l.segs.Load()
	if n := retain(t, l, RetentionPolicy{Bytes: 1}); n != 0 {
		t.Fatalf("without Upto %d segments went", n)
	}
	if n := retain(t, l, RetentionPolicy{Bytes: 1, Upto: segs[2].baseOffset}); n != 2 {
		t.Fatalf("up to offset %d: %d segments went, want 2", segs[2].baseOffset, n)
	}
	if got := l.StartOffset(); got != segs[2].baseOffset {
		t.Fatalf("log starts at %d, want %d", got, segs[2].baseOffset)
	}
	rest := int64(0)
	for _, s := range segs[4:] {
		rest += s.end.Load()
	}
	if n := retain(t, l, RetentionPolicy{Bytes: rest, Upto: l.EndOffset()}); n != 2 {
		t.Fatalf("by size %d segments went, want 2", n)
	}
	if n := retain(t, l, RetentionPolicy{Upto: l.EndOffset()}); n != 0 {
		t.Fatalf("without a reason %d segments went", n)
	}
	if n := retain(t, l, RetentionPolicy{Bytes: 1, Upto: l.EndOffset()}); n != len(segs)-5 {
		t.Fatalf("%d segments went, want all but the active of %d", n, len(segs)-4)
	}
	want := all[l.StartOffset():]
	if got := contents(t, l); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openTest(t, fs, Config{SegmentBytes: 1024})
	if got := contents(t, l); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("reopened: got %q, want %q", got, want)
	}
}

// TestRetainClock lets the wall clock jump by ten years: nothing goes before the
// log has been open for the retention time, over several runs.
func TestRetainClock(t *testing.T) {
	fs := vfs.NewMem()
	cfg := Config{SegmentBytes: 1024}
	l := filled(t, fs, cfg, 20)
	p := RetentionPolicy{Age: time.Hour, Now: time.Now().AddDate(10, 0, 0), Upto: l.EndOffset()}
	if n := retain(t, l, p); n != 0 {
		t.Fatalf("the clock jumped and %d segments went", n)
	}
	segs := len(*l.segs.Load())
	for run := range 4 {
		l.opened = l.opened.Add(-20 * time.Minute) // as if it had been open for that long
		n := retain(t, l, p)
		if want := segs - 1; run < 2 && n != 0 || run == 2 && n != want {
			t.Fatalf("after %d minutes of running %d of %d segments went", 20*(run+1), n, segs)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = openTest(t, fs, cfg)
	}
	// What is old by running time alone stays, too.
	l = filled(t, vfs.NewMem(), cfg, 20)
	l.opened = l.opened.Add(-2 * time.Hour)
	p.Now = time.UnixMilli(1100)
	if n := retain(t, l, p); n != 0 {
		t.Fatalf("young records: %d segments went", n)
	}
}

func TestRetainMakesRoom(t *testing.T) {
	cfg := Config{SegmentBytes: 8 << 10, CapBytes: 100 << 10, NoZeroing: true, Recycle: true}
	l := openTest(t, vfs.NewMem(), cfg)
	went := 0
	for i := range 400 {
		l.Lock()
		for try := 0; ; try++ {
			h := BatchHeader{ProducerID: -1, BaseSequence: -1, ProducerEpoch: -1}
			err := l.StageRecords(1, &h, []Record{{Key: []byte("k"), Value: fmt.Appendf(nil, "v%d %01000d", i, i)}})
			if err == nil {
				err = l.Write()
			}
			if err == nil {
				err = l.Sync()
			}
			if err == nil {
				break
			}
			if !errors.Is(err, ErrNoSpace) || try == 2 {
				t.Fatalf("append %d: %v", i, err)
			}
			n, err := l.Retain(RetentionPolicy{Room: 8 << 10, Upto: l.DurableOffset()})
			if err != nil {
				t.Fatal(err)
			}
			went += n
		}
		l.Unlock()
		if used := l.AllocatedBytes(); used > cfg.CapBytes {
			t.Fatalf("%d bytes of %d are taken", used, cfg.CapBytes)
		}
	}
	if went < 10 || l.StartOffset() == 0 {
		t.Fatalf("%d segments went", went)
	}
}

// TestMaintenanceCrash deletes from the start and rolls over a recycled file, with a
// crash at each operation: everything from the start that is found on is there.
func TestMaintenanceCrash(t *testing.T) {
	cfg := Config{SegmentBytes: 1024, Recycle: true}
	for n := 0; ; n++ {
		m := vfs.NewMem(vfs.CrashAt(n))
		acked, reused := int64(0), 0
		run := func() error {
			l, err := Open("", &Options{FS: m, Config: cfg})
			if err != nil {
				return err
			}
			l.Lock()
			for i := range 40 {
				h := BatchHeader{ProducerID: -1, BaseSequence: -1, ProducerEpoch: -1}
				spare := l.spareBytes.Load()
				if err = l.StageRecords(1, &h, []Record{{Key: []byte("k"), Value: fmt.Appendf(nil, "v%d %060d", i, i)}}); err == nil {
					err = l.Write()
				}
				if err == nil {
					err = l.Sync()
				}
				if err != nil {
					break
				}
				acked = l.EndOffset()
				if spare > 0 && l.spareBytes.Load() == 0 {
					reused++
				}
				if i%7 == 6 {
					if _, err = l.Retain(RetentionPolicy{Bytes: 1500, Upto: acked}); err != nil {
						break
					}
				}
			}
			l.Unlock()
			if err != nil {
				return err
			}
			return l.Close()
		}
		err := run()
		if err == nil && !m.Crashed() {
			if reused < 2 || n < 50 {
				t.Fatalf("%d segments were recycled in %d operations", reused, n)
			}
			return
		}
		for seed := range uint64(3) {
			after := m.AfterCrash(vfs.Random(seed + uint64(n)*10))
			if seed == 2 {
				after = m.AfterKill()
			}
			l, err := Open("", &Options{FS: after, Config: cfg})
			if err != nil {
				t.Fatalf("crash at %d, seed %d: %v", n, seed, err)
			}
			if err := l.Err(); err != nil {
				t.Fatalf("crash at %d, seed %d: %v", n, seed, err)
			}
			if l.EndOffset() < acked {
				t.Fatalf("crash at %d, seed %d: log ends at %d, %d was acknowledged", n, seed, l.EndOffset(), acked)
			}
			got := contents(t, l)
			for i, v := range got {
				if want := fmt.Sprintf("v%d %060d", l.StartOffset()+int64(i), l.StartOffset()+int64(i)); v != want {
					t.Fatalf("crash at %d, seed %d: got %q, want %q", n, seed, v, want)
				}
			}
			if int64(len(got)) != l.EndOffset()-l.StartOffset() {
				t.Fatalf("crash at %d, seed %d: %d records in [%d, %d)", n, seed, len(got), l.StartOffset(), l.EndOffset())
			}
			for range 30 {
				appendTest(t, l, 1, fmt.Sprintf("later %060d", 0))
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestRecyclePinned has a reader keep a file mapped: it is not written over.
func TestRecyclePinned(t *testing.T) {
	fs := vfs.NewMem()
	l := filled(t, fs, Config{SegmentBytes: 1024, Recycle: true}, 40)
	s := (*l.segs.Load())[0]
	err := l.Scan(0, 1, func(f *Frame) error {
		retain(t, l, RetentionPolicy{Bytes: 3000, Upto: l.EndOffset()})
		if s.pins.Load() == 0 {
			return errors.New("the file is mapped and not pinned")
		}
		if spare := l.spareBytes.Load(); spare == 0 {
			return errors.New("no other segment became the spare")
		}
		var h frameHeader
		c := cursor{seg: s, pos: segmentHeaderLen, limit: s.end.Load()}
		c.seg.handle.opens = func() (vfs.File, error) { return fs.Open(spareName) }
		if _, err := c.next(&h); err == nil {
			return errors.New("the spare is the mapped file")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.pins.Load() != 0 {
		t.Fatalf("%d pins are left", s.pins.Load())
	}
	if s.pin() {
		t.Fatal("a deleted segment can be pinned")
	}
}
