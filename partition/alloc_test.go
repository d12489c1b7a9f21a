package partition

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/x/embedlog/internal/invariant"
	"github.com/x/embedlog/log"
)

func allocRecords(n int) []log.Record {
	recs := make([]log.Record, n)
	for i := range recs {
		recs[i] = log.Record{Key: []byte("key-0000"), Value: make([]byte, 100), Timestamp: 1_700_000_000_000}
	}
	return recs
}

// wantAllocs measures f in steady state: what is needed once, a segment or a
// longer runway, averages to less than one over the runs.
func wantAllocs(t *testing.T, most float64, f func()) {
	t.Helper()
	if invariant.On {
		f() // the checks and the race detector allocate on their own account
		return
	}
	for range 50 {
		f()
	}
	if got := testing.AllocsPerRun(200, f); got > most {
		t.Errorf("%v allocations a call, want %v at most", got, most)
	}
}

func openDisk(t testing.TB, cfg Config) *Partition {
	t.Helper()
	p, err := Open(t.TempDir(), &Options{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// An append that is not synced allocates nothing, whatever its size; one that is
// pays for the mark behind its sync, not for its records.
func TestAppendAllocs(t *testing.T) {
	ctx := context.Background()
	for _, level := range []log.Level{log.OS, log.Durable} {
		most := 0.0
		if level == log.Durable {
			most = 3
		}
		for _, n := range []int{1, 1000} {
			cfg := Config{Log: log.Config{Level: level, SegmentBytes: 256 << 20}}
			t.Run(fmt.Sprintf("level=%v/records=%d/append", level, n), func(t *testing.T) {
				p, recs := openDisk(t, cfg), allocRecords(n)
				wantAllocs(t, most, func() {
					if _, err := p.Append(ctx, recs, nil); err != nil {
						t.Fatal(err)
					}
				})
			})
			t.Run(fmt.Sprintf("level=%v/records=%d/batch", level, n), func(t *testing.T) {
				p := openDisk(t, cfg)
				h := log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
				b, err := log.AppendBatch(nil, &h, allocRecords(n))
				if err != nil {
					t.Fatal(err)
				}
				wantAllocs(t, most, func() {
					if _, err := p.AppendBatch(ctx, b, nil); err != nil {
						t.Fatal(err)
					}
				})
			})
		}
	}
	t.Run("idempotent", func(t *testing.T) {
		p, recs := openDisk(t, Config{Log: log.Config{Level: log.OS}}), allocRecords(10)
		o := &AppendOptions{Producer: &Producer{ID: 1}}
		wantAllocs(t, 0, func() {
			if _, err := p.Append(ctx, recs, o); err != nil {
				t.Fatal(err)
			}
			o.Producer.Sequence += 10
		})
	})
}

// A reader that reuses its memory allocates nothing for a batch, and a scan nothing
// for a record.
func TestReadAllocs(t *testing.T) {
	dir := t.TempDir()
	open := func() *Partition {
		p, err := Open(dir, &Options{Config: Config{Log: log.Config{Level: log.OS}}})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := open()
	recs := allocRecords(1000)
	for range 300 {
		if _, err := p.Append(context.Background(), recs, nil); err != nil {
			t.Fatal(err)
		}
	}
	// What syncs behind the writer allocates, too, and ends with it.
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p = open()
	defer p.Close()
	t.Run("reader", func(t *testing.T) {
		r, err := p.ReadFrom(0, &ReaderOptions{Reuse: true})
		if err != nil {
			t.Fatal(err)
		}
		var records log.RecordReader
		wantAllocs(t, 0, func() {
			b, err := r.TryNext()
			if err == io.EOF {
				t.Fatal("not enough batches for the test")
			}
			if err == nil {
				err = records.Reset(b, 0)
			}
			n := 0
			for err == nil && records.Next() {
				n++
			}
			if err != nil || n != 1000 {
				t.Fatalf("%d records, %v", n, err)
			}
		})
	})
	t.Run("scan", func(t *testing.T) {
		var records log.RecordReader
		n := 0
		each := func(f *log.Frame) error {
			err := records.Reset(f.Payload, 0)
			for err == nil && records.Next() {
				n++
			}
			return err
		}
		if invariant.On {
			return
		}
		per := testing.AllocsPerRun(5, func() {
			n = 0
			if err := p.log.Scan(0, 100_000, each); err != nil {
				t.Fatal(err)
			}
		})
		if n != 100_000 || per > 50 {
			t.Errorf("%v allocations in a scan of %d records, want at most 50 in one of 100000", per, n)
		}
	})
}
