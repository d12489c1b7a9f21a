package embedlog

import (
	"context"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Records of 16-byte keys and 100-byte values; one op is one record.
const (
	benchKeyBytes   = 16
	benchValueBytes = 100
)

// benchTopic holds total records in batches of so many.
func benchTopic(b *testing.B, total, batch int) (*DB, *Topic) {
	b.Helper()
	db, err := Open(b.TempDir(), &Options{Durability: OS})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	ctx := context.Background()
	t, err := db.CreateTopic(ctx, "t", nil)
	if err != nil {
		b.Fatal(err)
	}
	recs := make([]Record, batch)
	for i := range recs {
		recs[i] = Record{Key: make([]byte, benchKeyBytes), Value: make([]byte, benchValueBytes)}
	}
	for range total / batch {
		if _, err := t.ProduceTo(ctx, 0, recs...); err != nil {
			b.Fatal(err)
		}
	}
	return db, t
}

var touched int

// BenchmarkRead reads records through each layer. by=log is package log alone,
// decoding each record; what is held is valid for good, as with a consumer.
func BenchmarkRead(b *testing.B) {
	const total = 1 << 20
	for _, batch := range []int{1, 1000} {
		db, _ := benchTopic(b, total/batch*batch, batch)
		n := total / batch * batch
		et, err := db.Engine().Topic("t")
		if err != nil {
			b.Fatal(err)
		}
		p, _ := et.Partition(0)
		ctx := context.Background()
		consumer := func(b *testing.B) *Consumer {
			c, err := db.Consumer(&ConsumerConfig{Assign: []Position{{Topic: "t"}}})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { c.Close() })
			return c
		}
		run := func(name string, pass func(b *testing.B, left int) int) {
			b.Run(fmt.Sprintf("batch=%d/by=%s", batch, name), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(benchKeyBytes + benchValueBytes)
				for done := 0; done < b.N; {
					got := pass(b, b.N-done)
					if got == 0 {
						b.Fatal("nothing was read")
					}
					done += got
				}
			})
		}
		run("log", func(b *testing.B, left int) (got int) {
			r, err := p.Log().ReadFrom(0)
			if err != nil {
				b.Fatal(err)
			}
			var rr log.RecordReader
			for got < min(left, n) {
				f, err := r.Next()
				if err == io.EOF {
					break
				}
				if err == nil {
					err = rr.Reset(f.Payload, 0)
				}
				for err == nil && rr.Next() {
					rec := rr.Record()
					touched += len(rec.Key) + len(rec.Value)
					got++
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			return got
		})
		run("partition", func(b *testing.B, left int) (got int) {
			r, err := p.ReadFrom(0, &partition.ReaderOptions{Isolation: partition.ReadCommitted})
			if err != nil {
				b.Fatal(err)
			}
			var rr log.RecordReader
			for got < min(left, n) {
				batch, err := r.TryNext()
				if err == io.EOF {
					break
				}
				if err == nil {
					err = rr.Reset(batch, 0)
				}
				for err == nil && rr.Next() {
					rec := rr.Record()
					touched += len(rec.Key) + len(rec.Value)
					got++
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			return got
		})
		run("batches", func(b *testing.B, left int) (got int) {
			c := consumer(b)
			var rr log.RecordReader
			for batch, err := range c.Batches(ctx) {
				if err == nil {
					err = rr.Reset(batch.Bytes(), 0)
				}
				for err == nil && rr.Next() {
					rec := rr.Record()
					touched += len(rec.Key) + len(rec.Value)
					got++
				}
				if err != nil {
					b.Fatal(err)
				}
				if got >= min(left, n) {
					break
				}
			}
			c.Close()
			return got
		})
		run("batch.Records", func(b *testing.B, left int) (got int) {
			c := consumer(b)
			for batch, err := range c.Batches(ctx) {
				if err != nil {
					b.Fatal(err)
				}
				for rec, err := range batch.Records() {
					if err != nil {
						b.Fatal(err)
					}
					touched += len(rec.Key) + len(rec.Value)
					got++
				}
				if got >= min(left, n) {
					break
				}
			}
			c.Close()
			return got
		})
		run("records", func(b *testing.B, left int) (got int) {
			c := consumer(b)
			for rec, err := range c.Records(ctx) {
				if err != nil {
					b.Fatal(err)
				}
				touched += len(rec.Key) + len(rec.Value)
				if got++; got >= min(left, n) {
					break
				}
			}
			c.Close()
			return got
		})
	}
}

// BenchmarkLatency is from before Produce to when a consumer that waited has the
// record, one record in flight, at level OS. channel is half of a round trip of
// two goroutines over two channels.
func BenchmarkLatency(b *testing.B) {
	report := func(b *testing.B, took []time.Duration) {
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2]), "p50-ns")
		b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns")
	}
	b.Run("by=channel", func(b *testing.B) {
		there, back := make(chan struct{}), make(chan struct{})
		go func() {
			for range there {
				back <- struct{}{}
			}
		}()
		var took []time.Duration
		for b.Loop() {
			began := time.Now()
			there <- struct{}{}
			<-back
			took = append(took, time.Since(began))
		}
		close(there)
		report(b, took)
	})
	for _, group := range []string{"", "g"} {
		b.Run(fmt.Sprintf("by=consumer/group=%q", group), func(b *testing.B) {
			db, t := benchTopic(b, 0, 1)
			cfg := &ConsumerConfig{Group: group, Topics: []string{"t"}}
			c, err := db.Consumer(cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			back := make(chan time.Time)
			go func() {
				defer close(back)
				for _, err := range c.Records(ctx) {
					if err != nil {
						return
					}
					back <- time.Now()
				}
			}()
			rec := Record{Key: make([]byte, benchKeyBytes), Value: make([]byte, benchValueBytes), Timestamp: time.UnixMilli(1)}
			var took []time.Duration
			b.ReportAllocs()
			for b.Loop() {
				began := time.Now()
				if _, err := t.ProduceTo(ctx, 0, rec); err != nil {
					b.Fatal(err)
				}
				took = append(took, (<-back).Sub(began))
			}
			cancel()
			<-back
			report(b, took)
		})
	}
}
