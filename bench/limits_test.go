package main

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// A limit that writes less than it is said to would make every target harder
// or easier without anyone noticing: what each wrote is read back and counted.
func TestLimitsWriteWhatTheyCount(t *testing.T) {
	for _, row := range []struct {
		name string
		side side
		rep  rep
	}{
		{"mapped", limitMapped(), rep{Level: "os", ValueBytes: 100, Batch: 1, Goroutines: 1, Records: 5003}},
		{"mapped, batches", limitMapped(), rep{Level: "os", ValueBytes: 1024, Batch: 100, Goroutines: 1, Records: 700}},
		{"pwrite", limitPwrite(), rep{Level: "interval", ValueBytes: 100, Batch: 1, Goroutines: 1, Records: 300}},
		{"durable", limitDurable(), rep{Level: "durable", ValueBytes: 100, Batch: 1, Goroutines: 1, Records: 20}},
		{"durable, 64 goroutines", limitDurable(), rep{Level: "durable", ValueBytes: 100, Batch: 1, Goroutines: 64, Records: 640}},
		{"durable, batches", limitDurable(), rep{Level: "durable", ValueBytes: 100, Batch: 10, Goroutines: 3, Records: 90}},
		{"wake", limitWake(), rep{Level: "os", ValueBytes: 100, Batch: 1, Goroutines: 1, Records: 500}},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := row.rep
			r.Dir, r.Bytes = t.TempDir(), 1<<20
			res, err := row.side.run(&r)
			if runtime.GOOS != "linux" && errors.Is(err, errors.ErrUnsupported) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(filepath.Join(r.Dir, "limit"))
			if err != nil {
				t.Fatal(err)
			}
			n, _, err := scanFrames(b)
			if err != nil || n != r.Records || res.Records != r.Records {
				t.Errorf("file holds %d records (error %v), result says %d, want %d", n, err, res.Records, r.Records)
			}
			if res.Elapsed <= 0 || res.Longest <= 0 || res.Longest > res.Elapsed {
				t.Errorf("elapsed %v, longest pause %v", res.Elapsed, res.Longest)
			}
		})
	}
}

// An append returns only after a sync that began when its frame was in the file,
// and a sync that failed is every caller's error.
func TestDurableLimitSyncsBeforeItReturns(t *testing.T) {
	r := rep{Dir: t.TempDir(), Bytes: 1 << 20, ValueBytes: 100, Batch: 1, Goroutines: 64, Records: 6400}
	l, err := newDurableLog(&r)
	if err != nil {
		t.Fatal(err)
	}
	defer l.file.Close()
	var durable, returned atomic.Int64 // records
	syncs := 0
	l.sync = func(f *os.File) error {
		syncs++
		b, err := os.ReadFile(f.Name())
		if err != nil {
			return err
		}
		n, _, err := scanFrames(b)
		durable.Store(n)
		return err
	}
	records := r.records()
	appendOne := func(i int64) error {
		err := l.append(records, i, 1)
		if n := returned.Add(1); n > durable.Load() {
			t.Errorf("%d appends returned, %d records were synced", n, durable.Load())
		}
		return err
	}
	if res, err := r.parallel(appendOne); err != nil || res.Records != r.Records || durable.Load() != r.Records {
		t.Errorf("%d appends, %d durable, error %v; want %d", res.Records, durable.Load(), err, r.Records)
	}
	if int64(syncs) == r.Records {
		t.Errorf("%d syncs for %d records of 64 goroutines: none was shared", syncs, r.Records)
	}
	broken := errors.New("broken")
	l.sync = func(*os.File) error { return broken }
	var failed atomic.Int64
	r.Records = 64
	_, err = r.parallel(func(i int64) error {
		if errors.Is(l.append(records, i, 1), broken) {
			failed.Add(1)
		}
		return nil
	})
	if err != nil || failed.Load() != r.Records {
		t.Errorf("the sync fails: %d of %d callers were told (error %v)", failed.Load(), r.Records, err)
	}
}

func TestLimitScanCountsAndChecks(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the mapping that is read is Linux's")
	}
	s := limitScan()
	r := rep{Dir: t.TempDir(), Bytes: 1 << 20, Records: 4321, ValueBytes: 100, Batch: 1}
	if err := s.prepare(&r); err != nil {
		t.Fatal(err)
	}
	res, err := s.run(&r)
	if err != nil || res.Records != r.Records {
		t.Fatalf("read %d records (error %v), want %d", res.Records, err, r.Records)
	}
	f, err := os.OpenFile(filepath.Join(r.Dir, "limit"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{'!', '!'}, 140*4000+70); err != nil {
		t.Fatal(err)
	}
	if _, err := s.run(&r); !errors.Is(err, errBadFrame) {
		t.Errorf("scan of a damaged file: %v, want %v", err, errBadFrame)
	}
}

// Every byte of a frame is under the checksum, its length or the checksum itself.
func TestScanFramesNoticesAnyFlip(t *testing.T) {
	good := make([]byte, 400)
	n := putFrame(good, 0, 1, bytes.Repeat([]byte("k"), keyBytes), []byte("one"))
	n += putFrame(good[n:], 1, 2, bytes.Repeat([]byte("l"), keyBytes), []byte("another"))
	n += putFrame(good[n:], 2, 3, bytes.Repeat([]byte("m"), keyBytes), nil)
	if records, _, err := scanFrames(good); records != 3 || err != nil {
		t.Fatalf("whole: %d records, error %v", records, err)
	}
	for i := range n * 8 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		if records, _, err := scanFrames(bad); records == 3 && err == nil {
			t.Errorf("bit %d of byte %d flipped: three good records", i%8, i/8)
		}
	}
	for cut := range n {
		if records, _, err := scanFrames(good[:cut]); records == 3 && err == nil {
			t.Errorf("cut to %d of %d bytes: three good records", cut, n)
		}
	}
}

func FuzzScanFrames(f *testing.F) {
	frame := make([]byte, 64)
	f.Add(frame[:putFrame(frame, 0, 1, make([]byte, keyBytes), []byte("value"))])
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, _, err := scanFrames(b)
		if max := int64(len(b) / (frameHeaderBytes + keyBytes)); records > max {
			t.Errorf("%d records in %d bytes (error %v)", records, len(b), err)
		}
	})
}

// The bounds of a repetition hold for every way to run it.
func TestLoopBounds(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		r := rep{Batch: 1 + rng.IntN(5), Goroutines: 1 + rng.IntN(4), Records: 1 + rng.Int64N(300)}
		if r.Batch > 1 {
			r.Goroutines = 1
		}
		var calls atomic.Int64
		res, err := r.parallel(func(int64) error { calls.Add(1); return nil })
		want := r.Records / int64(r.Goroutines) / int64(r.Batch) * int64(r.Batch) * int64(r.Goroutines)
		if err != nil || res.Records != want || calls.Load()*int64(r.Batch) != want {
			t.Fatalf("seed %d: %+v: %d records in %d calls (error %v), want %d", seed, r, res.Records, calls.Load(), err, want)
		}
	}
	broken := errors.New("broken")
	for _, goroutines := range []int{1, 3} {
		r := rep{Batch: 1, Goroutines: goroutines, Time: 50 * time.Millisecond}
		res, err := r.parallel(func(int64) error { return nil })
		if err != nil || res.Records == 0 || res.Elapsed < r.Time {
			t.Errorf("%d goroutines, bound by time: %+v, error %v", goroutines, res, err)
		}
		if _, err := r.parallel(func(int64) error { return broken }); !errors.Is(err, broken) {
			t.Errorf("%d goroutines: error %v, want %v", goroutines, err, broken)
		}
	}
}

func TestWakePassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	for name, failing := range map[string]bool{"append": true, "next": false} {
		r := rep{Records: 10}
		ready := make(chan struct{}, 10)
		_, err := r.wake(func(i int64) error {
			if failing && i == 3 {
				return broken
			}
			ready <- struct{}{}
			return nil
		}, func() error {
			<-ready
			if !failing {
				return broken
			}
			return nil
		})
		if !errors.Is(err, broken) {
			t.Errorf("%s fails: error %v, want %v", name, err, broken)
		}
	}
}
