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
