package embedlog

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkTxn is consume-transform-produce without the reading: one record to one
// partition and one committed offset, durable. Syncs are counted for all partitions:
// alone, a transaction takes three of them one after another, the first and the
// last for two files at once.
func BenchmarkTxn(b *testing.B) {
	for _, parallel := range []int{1, 16} {
		b.Run(fmt.Sprintf("durability=durable/parallel=%d", parallel), func(b *testing.B) {
			ctx := context.Background()
			var syncs atomic.Int64
			db, err := Open(b.TempDir(), &Options{Hooks: &Hooks{OnFsync: func(string, int32, time.Duration, error) { syncs.Add(1) }}})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			makeTopic(b, db, "t", nil)
			value := make([]byte, 100)
			one := func(i int) error {
				return db.Update(ctx, func(tx *Txn) error {
					at, err := tx.Produce(ctx, Record{Topic: "t", Value: value})
					if err != nil {
						return err
					}
					return tx.CommitPositions(ctx, fmt.Sprint("g", i), at...)
				})
			}
			for i := range parallel {
				if err := one(i); err != nil {
					b.Fatal(err)
				}
			}
			var next atomic.Int64
			var running sync.WaitGroup
			syncs.Store(0)
			b.ResetTimer()
			for i := range parallel {
				running.Go(func() {
					for next.Add(1) <= int64(b.N) {
						if err := one(i); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			running.Wait()
			b.ReportMetric(float64(syncs.Load())/float64(b.N), "syncs/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "txns/s")
		})
	}
}
