package disk_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
	"github.com/x/embedlog/query/disk"
)

// BenchmarkGet reads single rows of a view of a million, of which next to none are in the graph's memory.
func BenchmarkGet(b *testing.B) {
	const rows = 1_000_000
	ctx := context.Background()
	db, err := embedlog.Open(b.TempDir(), &embedlog.Options{Durability: embedlog.OS})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	top, err := db.EnsureTopic(ctx, "t", nil)
	if err != nil {
		b.Fatal(err)
	}
	key := func(i int) string { return fmt.Sprintf("%016x", uint64(i)*0x9e3779b97f4a7c15) }
	value := make([]byte, 100)
	g := query.NewGraph(db, "g", &query.Options{Store: disk.New(&disk.Options{CacheBytes: 256 << 20}), CacheBytes: 1})
	v := query.Add(g, "v", query.TableFrom(top, codec.String, codec.Bytes))
	if err := g.Start(ctx); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	for i := 0; i < rows; i += 1000 {
		var recs []embedlog.Record
		for j := range 1000 {
			recs = append(recs, embedlog.Record{Key: []byte(key(i + j)), Value: value})
		}
		if _, err := top.Produce(ctx, recs...); err != nil {
			b.Fatal(err)
		}
	}
	if err := g.CatchUp(ctx); err != nil {
		b.Fatal(err)
	}
	b.Logf("%d rows in %v", rows, time.Since(began))
	b.ResetTimer()
	for range b.N {
		if _, found, err := v.GetNow(ctx, key(rand.IntN(rows))); !found || err != nil {
			b.Fatal(found, err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "gets/s")
	b.StopTimer()
	if err := g.Close(); err != nil {
		b.Fatal(err)
	}
	began = time.Now()
	again := query.NewGraph(db, "g", &query.Options{Store: disk.New(&disk.Options{CacheBytes: 256 << 20}), CacheBytes: 1})
	v = query.Add(again, "v", query.TableFrom(top, codec.String, codec.Bytes))
	if err := again.Start(ctx); err != nil {
		b.Fatal(err)
	}
	if n, err := v.Len(ctx); n != rows || err != nil {
		b.Fatal(n, err)
	}
	b.Logf("a restart took %v, %+v", time.Since(began), again.Stats())
	if err := again.Close(); err != nil {
		b.Fatal(err)
	}
}
