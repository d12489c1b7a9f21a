package partition

import (
	"context"
	"fmt"
	"testing"

	"github.com/x/embedlog/log"
)

// The benchmarks beside the physical limits are in bench/. These are for a quick
// look at the time and the allocations of one call.

func benchPartition(b *testing.B, level log.Level) *Partition {
	p, err := Open(b.TempDir(), &Options{Config: Config{MaxBatchBytes: 4 << 20, Log: log.Config{Level: level, SegmentBytes: 256 << 20}}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.Close() })
	return p
}

func BenchmarkAppend(b *testing.B) {
	for _, level := range []log.Level{log.OS, log.Durable} {
		for _, size := range []int{100, 1024} {
			for _, batch := range []int{1, 1000} {
				b.Run(fmt.Sprintf("level=%v/size=%d/batch=%d", level, size, batch), func(b *testing.B) {
					p := benchPartition(b, level)
					recs := make([]log.Record, batch)
					for i := range recs {
						recs[i] = log.Record{Key: make([]byte, 16), Value: make([]byte, size), Timestamp: 1_700_000_000_000}
					}
					ctx := context.Background()
					b.SetBytes(int64(batch * (size + 16)))
					b.ReportAllocs()
					for b.Loop() {
						if _, err := p.Append(ctx, recs, nil); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}

// BenchmarkAppendBatch is a batch that somebody else encoded, checked and appended, as
// the Kafka listener does.
func BenchmarkAppendBatch(b *testing.B) {
	for _, level := range []log.Level{log.OS, log.Durable} {
		for _, size := range []int{1 << 10, 16 << 10, 64 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("level=%v/batch=%dKiB", level, size>>10), func(b *testing.B) {
				p := benchPartition(b, level)
				h := log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
				requests := make([][]byte, 8<<20/size) // out of the last level cache
				for i := range requests {
					var err error
					if requests[i], err = log.AppendBatch(nil, &h, []log.Record{{Value: make([]byte, size-80)}}); err != nil {
						b.Fatal(err)
					}
				}
				next := 0
				ctx := context.Background()
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for written := 0; b.Loop(); written += size {
					if written >= 512<<20 { // what is deleted need not get to the disk
						b.StopTimer()
						if _, err := p.DeleteRecords(ctx, p.LogEnd()); err != nil {
							b.Fatal(err)
						}
						written = 0
						b.StartTimer()
					}
					if _, err := p.AppendBatch(ctx, requests[next%len(requests)], nil); err != nil {
						b.Fatal(err)
					}
					next++
				}
			})
		}
	}
}
