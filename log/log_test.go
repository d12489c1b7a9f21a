package log

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// openTest opens a log on fs that closes when the test ends.
func openTest(t testing.TB, fs vfs.FS, cfg Config) *Log {
	t.Helper()
	l, err := Open("", &Options{FS: fs, Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// appendTest appends one batch of one record a value, in one group.
func appendTest(t testing.TB, l *Log, epoch uint64, values ...string) {
	t.Helper()
	l.Lock()
	defer l.Unlock()
	for _, v := range values {
		h := BatchHeader{ProducerID: -1, BaseSequence: -1, ProducerEpoch: -1}
		if err := l.StageRecords(epoch, &h, []Record{{Key: []byte("k"), Value: []byte(v), Timestamp: 1000 + l.StagedOffset()}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Write(); err != nil {
		t.Fatal(err)
	}
	if l.Config().Level == Durable {
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
	}
}

// contents reads all values from the log start offset on.
func contents(t testing.TB, l *Log) []string {
	t.Helper()
	r, err := l.ReadFrom(l.StartOffset())
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for {
		f, err := r.Next()
		if err == io.EOF {
			return values
		}
		if err != nil {
			for _, s := range *l.segs.Load() {
				t.Logf("segment %d index %d ends at %d", s.baseOffset, s.baseIndex, s.end.Load())
			}
			t.Fatal(err)
		}
		if f.Kind != KindData {
			continue
		}
		for rec, err := range Batch(f.Payload).Records(1 << 20) {
			if err != nil {
				t.Fatal(err)
			}
			if want := f.Offset; rec.Offset < want {
				t.Fatalf("record offset %d in frame at %d", rec.Offset, want)
			}
			values = append(values, string(rec.Value))
		}
	}
}

func wantContents(t testing.TB, l *Log, from, to int) {
	t.Helper()
	got := contents(t, l)
	for i := from; i < to; i++ {
		if i-from >= len(got) || got[i-from] != fmt.Sprint("v", i) {
			t.Fatalf("record %d of %d..%d is wrong or missing: got %d records, %q ...", i, from, to, len(got), got[:min(3, len(got))])
		}
	}
	if len(got) != to-from {
		t.Fatalf("got %d records, want %d", len(got), to-from)
	}
}

func TestAppendReopen(t *testing.T) {
	for _, level := range []Level{Durable, Interval, OS} {
		t.Run(level.String(), func(t *testing.T) {
			fs := vfs.NewMem()
			cfg := Config{Level: level, SegmentBytes: 4096, IndexIntervalBytes: 256}
			n := 0
			for round := range 5 {
				l := openTest(t, fs, cfg)
				if rec := l.Recovered(); !rec.Clean || rec.CutBytes != 0 {
					t.Fatalf("round %d: recovered %+v", round, rec)
				}
				wantContents(t, l, 0, n)
				for range 50 {
					appendTest(t, l, 1, fmt.Sprint("v", n))
					n++
				}
				wantContents(t, l, 0, n)
				for off := range int64(n) {
					r, err := l.ReadFrom(off)
					if err != nil {
						t.Fatal(err)
					}
					f, err := r.Next()
					if err != nil || f.Offset != off || f.Index != uint64(off)+1 {
						t.Fatalf("read from %d: got %+v, %v", off, f, err)
					}
				}
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestKillReopen(t *testing.T) {
	for _, level := range []Level{Durable, Interval, OS} {
		t.Run(level.String(), func(t *testing.T) {
			fs := vfs.NewMem()
			cfg := Config{Level: level, SegmentBytes: 4096, IndexIntervalBytes: 256}
			n := 0
			for range 5 {
				l := openTest(t, fs, cfg)
				wantContents(t, l, 0, n)
				for range 37 {
					appendTest(t, l, 1, fmt.Sprint("v", n))
					n++
				}
				fs = fs.AfterKill()
			}
		})
	}
}

func TestTruncateFrom(t *testing.T) {
	for _, level := range []Level{Durable, OS} {
		for keep := 0; keep <= 100; keep += 7 {
			fs := vfs.NewMem()
			cfg := Config{Level: level, SegmentBytes: 2048, IndexIntervalBytes: 256}
			l := openTest(t, fs, cfg)
			for i := range 100 {
				appendTest(t, l, 1, fmt.Sprint("v", i))
			}
			l.Lock()
			err := l.TruncateFrom(uint64(keep) + 1)
			l.Unlock()
			if err != nil {
				t.Fatalf("keep %d: %v", keep, err)
			}
			wantContents(t, l, 0, keep)
			appendTest(t, l, 2, fmt.Sprint("v", keep))
			wantContents(t, l, 0, keep+1)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = openTest(t, fs, cfg)
			wantContents(t, l, 0, keep+1)
			l.Lock()
			err = l.TruncateTo(int64(keep))
			l.Unlock()
			if err != nil {
				t.Fatal(err)
			}
			wantContents(t, l, keep, keep+1)
			if keep > 0 {
				if _, err := l.ReadFrom(int64(keep) - 1); !errors.Is(err, ErrOffsetGone) {
					t.Fatalf("read below the start: %v", err)
				}
			}
			l.Close()
			l = openTest(t, fs, cfg)
			wantContents(t, l, keep, keep+1)
		}
	}
}

func TestScanBackwardTime(t *testing.T) {
	for _, fs := range map[string]vfs.FS{"mem": vfs.NewMem(), "os": osFS(t)} {
		l := openTest(t, fs, Config{Level: OS, SegmentBytes: 4096, IndexIntervalBytes: 256})
		const n = 200
		for i := range n {
			appendTest(t, l, 1, fmt.Sprint("v", i))
		}
		next := int64(10)
		if err := l.Scan(10, n-5, func(f *Frame) error {
			if f.Offset != next {
				return fmt.Errorf("got offset %d, want %d", f.Offset, next)
			}
			next++
			return nil
		}); err != nil || next != n-5 {
			t.Fatalf("scan ended at %d: %v", next, err)
		}
		b, err := l.ReadBefore(n)
		if err != nil {
			t.Fatal(err)
		}
		for want := int64(n - 1); want >= 0; want-- {
			f, err := b.Next()
			if err != nil || f.Offset != want {
				t.Fatalf("backward: got %+v, %v; want offset %d", f, err, want)
			}
		}
		if _, err := b.Next(); err != io.EOF {
			t.Fatalf("backward at the start: %v", err)
		}
		for _, ms := range []int64{0, 1000, 1001, 1100, 1199} {
			p, ok, err := l.OffsetForTime(ms)
			if want := max(ms-1000, 0); err != nil || !ok || p.Offset != want {
				t.Fatalf("time %d: got %+v %t %v, want offset %d", ms, p, ok, err, want)
			}
		}
		if _, ok, err := l.OffsetForTime(1200); ok || err != nil {
			t.Fatalf("time past the end: %t %v", ok, err)
		}
		l.Close()
	}
}

func osFS(t testing.TB) vfs.FS {
	fs, err := vfs.OS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	return fs
}
