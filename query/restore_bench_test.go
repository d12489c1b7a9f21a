package query

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
)

// BenchmarkRestore has a view of a million rows start again, from its checkpoint and from its changelog.
func BenchmarkRestore(b *testing.B) {
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
	open := func(interval time.Duration) (*Graph, *View[string, int64]) {
		g := NewGraph(db, "g", &Options{CheckpointInterval: interval})
		v := Add(g, "v", Sum(From(top, codec.String, codec.Int64), func(_ string, n int64) int64 { return n }))
		if err := g.Start(ctx); err != nil {
			b.Fatal(err)
		}
		return g, v
	}
	for i := 0; i < rows; i += 1000 {
		var recs []embedlog.Record
		for j := range 1000 {
			recs = append(recs, embedlog.Record{Key: fmt.Appendf(nil, "%016x", uint64(i+j)*0x9e3779b97f4a7c15), Value: mustInt(1)})
		}
		if _, err := top.Produce(ctx, recs...); err != nil {
			b.Fatal(err)
		}
	}
	run := func(name string, interval time.Duration) {
		b.Run("from="+name, func(b *testing.B) {
			for range b.N {
				began := time.Now()
				g, v := open(interval)
				if n, err := v.Len(ctx); err != nil || n != rows {
					b.Fatal(n, err)
				}
				b.ReportMetric(rows/time.Since(began).Seconds(), "rows/s")
				b.StopTimer()
				if err := g.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
	g, v := open(-1)
	if _, _, err := v.Get(ctx, ""); err != nil {
		b.Fatal(err)
	}
	if err := g.Close(); err != nil {
		b.Fatal(err)
	}
	run("changelog", -1)
	g, v = open(time.Hour)
	v.Len(ctx)
	began := time.Now()
	if err := g.Close(); err != nil {
		b.Fatal(err)
	}
	s := g.Stats()
	b.Logf("the checkpoint: %d bytes in %v, the task stopped for %v at once", s.CheckpointBytes, time.Since(began), s.CheckpointStop)
	run("checkpoint", time.Hour)
}
