package embedlog

import (
	"context"
	"fmt"
	"runtime"
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

// reader is a way to read all records of a topic of one partition; it returns how
// many there were.
type reader struct {
	name string
	read func() (int, error)
}

// readers are the layers, from package log up. What is held stays valid with each.
func readers(b *testing.B, db *DB, total int) []reader {
	et, err := db.Engine().Topic("t")
	if err != nil {
		b.Fatal(err)
	}
	p, err := et.Partition(0)
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	decode := func(rr *log.RecordReader, batch []byte) (n int, err error) {
		for err = rr.Reset(batch, 0); err == nil && rr.Next(); n++ {
			rec := rr.Record()
			touched += len(rec.Key) + len(rec.Value)
		}
		return n, rr.Err()
	}
	consumer := func(read func(c *Consumer) (int, error)) func() (int, error) {
		return func() (int, error) {
			c, err := db.Consumer(&ConsumerConfig{Assign: []Position{{Topic: "t"}}})
			if err != nil {
				return 0, err
			}
			defer c.Close()
			return read(c)
		}
	}
	return []reader{
		{"log", func() (got int, err error) {
			r, err := p.Log().ReadFrom(0)
			var rr log.RecordReader
			for err == nil && got < total {
				var f *log.Frame
				if f, err = r.Next(); err == nil {
					var n int
					n, err = decode(&rr, f.Payload)
					got += n
				}
			}
			return got, err
		}},
		{"partition", func() (got int, err error) {
			r, err := p.ReadFrom(0, &partition.ReaderOptions{Isolation: partition.ReadCommitted})
			var rr log.RecordReader
			for err == nil && got < total {
				var batch log.Batch
				if batch, err = r.TryNext(); err == nil {
					var n int
					n, err = decode(&rr, batch)
					got += n
				}
			}
			return got, err
		}},
		{"batches", consumer(func(c *Consumer) (got int, err error) {
			var rr log.RecordReader
			for batch, err := range c.Batches(ctx) {
				if err != nil {
					return got, err
				}
				n, err := decode(&rr, batch.Bytes())
				if got += n; err != nil || got >= total {
					return got, err
				}
			}
			return got, nil
		})},
		{"batch.Records", consumer(func(c *Consumer) (got int, err error) {
			for batch, err := range c.Batches(ctx) {
				if err != nil {
					return got, err
				}
				for rec, err := range batch.Records() {
					if err != nil {
						return got, err
					}
					touched += len(rec.Key) + len(rec.Value)
					got++
				}
				if got >= total {
					break
				}
			}
			return got, nil
		})},
		{"records", consumer(func(c *Consumer) (got int, err error) {
			for rec, err := range c.Records(ctx) {
				if err != nil {
					return got, err
				}
				touched += len(rec.Key) + len(rec.Value)
				if got++; got >= total {
					break
				}
			}
			return got, nil
		})},
	}
}

var touched int

// BenchmarkRead reads records through each layer in turn, so that noise hits them
// alike. The metrics are nanoseconds a record, and the time of package log over
// theirs: what share of its speed they reach.
func BenchmarkRead(b *testing.B) {
	for _, batch := range []int{1, 1000} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			total := 400_000
			db, _ := benchTopic(b, total, batch)
			list := readers(b, db, total)
			times := make([][]float64, len(list))
			for b.Loop() {
				for i, r := range list {
					runtime.GC() // one's garbage is not another's work
					began := time.Now()
					n, err := r.read()
					if err != nil || n != total {
						b.Fatalf("%s: %d records, %v", r.name, n, err)
					}
					times[i] = append(times[i], float64(time.Since(began).Nanoseconds())/float64(n))
				}
			}
			for i, r := range list {
				b.ReportMetric(median(times[i]), r.name+"-ns")
				ratios := make([]float64, len(times[i]))
				for k := range ratios {
					ratios[k] = times[0][k] / times[i][k]
				}
				b.ReportMetric(median(ratios), "log/"+r.name)
			}
		})
	}
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
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
