//go:build unix

package disk_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
	"github.com/x/embedlog/query/disk"
)

const (
	benchRows  = 1_000_000
	benchValue = 100 // bytes; keys have 16
)

// BenchmarkRows is of a view of a million rows, none of which is in the graph's memory: what it takes to have them, to begin again with them, and to
// read single ones. Cache says how much of the store's files is in memory; the rest is in the system's page cache, unless the machine has
// other uses for its memory.
//
//	go test -run '^$' -bench . ./...
func BenchmarkRows(b *testing.B) {
	ctx, dir := context.Background(), b.TempDir()
	db, err := embedlog.Open(dir, &embedlog.Options{Durability: embedlog.OS})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	top, err := db.EnsureTopic(ctx, "t", nil)
	if err != nil {
		b.Fatal(err)
	}
	value := make([]byte, benchValue)
	r := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < benchRows; i += 1000 {
		var recs []embedlog.Record
		for j := range 1000 {
			for n := range value {
				value[n] = byte(r.Uint32())
			}
			recs = append(recs, embedlog.Record{Key: []byte(benchKey(i + j)), Value: append([]byte(nil), value...)})
		}
		if _, err := top.Produce(ctx, recs...); err != nil {
			b.Fatal(err)
		}
	}
	start := func(b *testing.B, name string, cache int64) (*query.Graph, *query.View[string, []byte]) {
		b.Helper()
		g := query.NewGraph(db, name, &query.Options{Store: disk.New(&disk.Options{Dir: filepath.Join(dir, "stores"), CacheBytes: cache}), CacheBytes: 1})
		v := query.Add(g, "v", query.TableFrom(top, codec.String, codec.Bytes))
		if err := g.Start(ctx); err != nil {
			b.Fatal(err)
		}
		return g, v
	}
	fills := 0
	fill := func(b *testing.B) {
		fills++
		g, _ := start(b, fmt.Sprint("g", fills), 0)
		if err := g.CatchUp(ctx); err != nil {
			b.Fatal(err)
		}
		if err := g.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("fill", func(b *testing.B) {
		taken := processorTime()
		for b.Loop() {
			fill(b)
		}
		b.ReportMetric(benchRows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		b.ReportMetric(float64((processorTime()-taken).Nanoseconds())/float64(benchRows*b.N), "cpu-ns/row")
	})
	if fills == 0 {
		fill(b)
	}
	name := fmt.Sprint("g", fills)
	b.Run("restart", func(b *testing.B) {
		for b.Loop() {
			g, v := start(b, name, 0)
			if n, err := v.Len(ctx); n != benchRows || err != nil || g.Stats().RestoredRows != benchRows || g.Stats().RestoredRecords != 0 {
				b.Fatal(n, err, g.Stats())
			}
			b.StopTimer()
			if err := g.Close(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	for _, cache := range []struct {
		name  string
		bytes int64
	}{{"default", 0}, {"all", 512 << 20}, {"tenth", 12 << 20}} {
		for _, goroutines := range []int{1, 2} {
			for _, absent := range []bool{false, true} {
				b.Run(fmt.Sprintf("get/cache=%s/goroutines=%d/absent=%t", cache.name, goroutines, absent), func(b *testing.B) {
					g, v := start(b, name, cache.bytes)
					if _, err := v.Len(ctx); err != nil {
						b.Fatal(err)
					}
					if cache.name != "tenth" { // as it is after a while
						for range v.All(ctx) {
						}
					}
					each := max(b.N/goroutines, 1)
					b.ReportAllocs()
					b.ResetTimer()
					began, taken := time.Now(), processorTime()
					var readers sync.WaitGroup
					for n := range goroutines {
						readers.Go(func() {
							r := rand.New(rand.NewPCG(uint64(n), 3))
							for range each {
								key := benchKey(r.IntN(benchRows))
								if absent {
									key = key[:15] + "x"
								}
								if _, found, err := v.GetNow(ctx, key); found == absent || err != nil {
									b.Error(found, err)
									return
								}
							}
						})
					}
					readers.Wait()
					gets := float64(each * goroutines)
					b.ReportMetric(gets/time.Since(began).Seconds(), "gets/s")
					b.ReportMetric(float64((processorTime()-taken).Nanoseconds())/gets, "cpu-ns/get")
					b.StopTimer()
					if err := g.Close(); err != nil {
						b.Fatal(err)
					}
				})
			}
		}
	}
}

// benchKey is one of the keys, which are in no order.
func benchKey(i int) string { return fmt.Sprintf("%016x", uint64(i)*0x9e3779b97f4a7c15) }

// processorTime is what the process has had of the processors: where others have the machine, too, it says what the clock cannot.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
