package log

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// A quick look at reading. The benchmarks beside the physical limits are in bench/.

func BenchmarkScan(b *testing.B) {
	for _, batch := range []int{1, 1000} {
		fs, err := vfs.OS(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		defer fs.Close()
		l := openTest(b, fs, Config{Level: OS})
		recs := make([]Record, batch)
		for i := range recs {
			recs[i] = Record{Key: make([]byte, 16), Value: make([]byte, 100), Timestamp: 1_700_000_000_000}
		}
		l.Lock()
		for range 100_000 / batch {
			h := BatchHeader{ProducerID: -1, BaseSequence: -1, ProducerEpoch: -1}
			if err := l.StageRecords(1, &h, recs); err != nil {
				b.Fatal(err)
			}
			if err := l.Write(); err != nil {
				b.Fatal(err)
			}
		}
		l.Unlock()
		n := 0
		var r RecordReader
		visit := func(f *Frame) error {
			if err := r.Reset(f.Payload, 0); err != nil {
				return err
			}
			for r.Next() {
				n++
			}
			return r.Err()
		}
		for _, mapped := range []bool{true, false} {
			b.Run(fmt.Sprintf("batch=%d/mapped=%t", batch, mapped), func(b *testing.B) {
				n = 0
				b.ReportAllocs()
				for b.Loop() {
					if mapped {
						if err := l.Scan(0, l.EndOffset(), visit); err != nil {
							b.Fatal(err)
						}
						continue
					}
					rd, err := l.ReadFrom(0)
					if err != nil {
						b.Fatal(err)
					}
					rd.Reuse()
					for {
						f, err := rd.Next()
						if err == io.EOF {
							break
						}
						if err == nil {
							err = visit(f)
						}
						if err != nil {
							b.Fatal(err)
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/record")
			})
		}
	}
}

// BenchmarkWrite is one batch from a request's bytes into the log: staged, written
// and, at Durable, synced. Several batches of one group are several callers'. Requests
// come out of the last level cache, as if a socket just had them.
func BenchmarkWrite(b *testing.B) {
	for _, level := range []Level{OS, Durable} {
		for _, c := range []struct{ bytes, batches int }{
			{1 << 10, 1}, {8 << 10, 1}, {16 << 10, 1}, {32 << 10, 1}, {64 << 10, 1}, {1 << 20, 1},
			{8 << 10, 10}, {16 << 10, 10}, {32 << 10, 10}, {64 << 10, 10},
		} {
			b.Run(fmt.Sprintf("level=%v/batch=%dKiB/batches=%d", level, c.bytes>>10, c.batches), func(b *testing.B) {
				fs, err := vfs.OS(b.TempDir())
				if err != nil {
					b.Fatal(err)
				}
				defer fs.Close()
				l := openTest(b, fs, Config{Level: level, SegmentBytes: 128 << 20})
				l.Lock()
				defer l.Unlock()
				requests := make([][]byte, max(c.batches, 8<<20/c.bytes))
				for i := range requests {
					h := BatchHeader{ProducerID: -1, BaseSequence: -1, ProducerEpoch: -1}
					if requests[i], err = AppendBatch(nil, &h, []Record{{Value: make([]byte, c.bytes-80)}}); err != nil {
						b.Fatal(err)
					}
				}
				next := 0
				b.SetBytes(int64(c.batches * c.bytes))
				b.ReportAllocs()
				for written := 0; b.Loop(); written += c.batches * c.bytes {
					if written >= 256<<20 { // what is deleted need not get to the disk
						b.StopTimer()
						if err := errors.Join(l.Roll(), l.TruncateTo(l.EndOffset())); err != nil {
							b.Fatal(err)
						}
						written = 0
						b.StartTimer()
					}
					for range c.batches {
						batch := requests[next%len(requests)]
						next++
						err := l.StageBatch(0, 1, batch, -1)
						if errors.Is(err, ErrGroupFull) { // once a segment
							err = errors.Join(l.Write(), l.StageBatch(0, 1, batch, -1))
						}
						if err != nil {
							b.Fatal(err)
						}
					}
					if err := l.Write(); err != nil {
						b.Fatal(err)
					}
					if level == Durable {
						if err := l.Sync(); err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}
