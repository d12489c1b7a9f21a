package engine

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/x/embedlog/log"
)

// fill makes topics of so many partitions in dir, with a few records in each.
func fill(b *testing.B, dir string, topics, partitions int) *Engine {
	b.Helper()
	e, err := Open(dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	for i := range topics {
		t, err := e.CreateTopic(ctx, TopicSpec{Name: fmt.Sprintf("topic-%d", i), Partitions: partitions,
			Settings: map[string]string{"embedlog.durability": "os"}})
		if err != nil {
			b.Fatal(err)
		}
		for _, p := range t.Partitions() {
			for range 10 {
				if _, err := p.Append(ctx, []log.Record{{Key: []byte("key"), Value: make([]byte, 100)}}, nil); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	return e
}

var shapes = []struct{ topics, partitions int }{{100, 10}, {1, 1000}}

// BenchmarkOpen opens 1,000 partitions after a clean close, and after a kill; the
// files are in the page cache.
func BenchmarkOpen(b *testing.B) {
	for _, s := range shapes {
		for _, end := range []string{"close", "kill"} {
			b.Run(fmt.Sprintf("topics=%d/partitions=%d/after=%s", s.topics, s.partitions, end), func(b *testing.B) {
				dir := b.TempDir()
				e := fill(b, dir, s.topics, s.partitions)
				copied := b.TempDir()
				if end == "close" {
					if err := e.Close(); err != nil {
						b.Fatal(err)
					}
				} else {
					// What a killed process leaves: the files as they are while it runs.
					if err := os.CopyFS(copied+"/db", os.DirFS(dir)); err != nil {
						b.Fatal(err)
					}
					if err := e.Close(); err != nil {
						b.Fatal(err)
					}
				}
				for b.Loop() {
					at := dir
					if end == "kill" {
						b.StopTimer()
						at = b.TempDir() + "/db"
						if err := os.CopyFS(at, os.DirFS(copied+"/db")); err != nil {
							b.Fatal(err)
						}
						b.StartTimer()
					}
					e, err := Open(at, nil)
					b.StopTimer()
					if err != nil {
						b.Fatal(err)
					}
					if err := e.Close(); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			})
		}
	}
}

// BenchmarkIdle says what 1,000 open partitions that nobody uses take.
func BenchmarkIdle(b *testing.B) {
	dir := b.TempDir()
	if err := fill(b, dir, 100, 10).Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		before := runtime.NumGoroutine()
		e, err := Open(dir, nil)
		if err != nil {
			b.Fatal(err)
		}
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc)/(1<<20), "MiB-heap")
		b.ReportMetric(float64(runtime.NumGoroutine()-before), "goroutines")
		if err := e.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreateTopic makes a topic, durable, and deletes it.
func BenchmarkCreateTopic(b *testing.B) {
	for _, partitions := range []int{1, 1000} {
		b.Run(fmt.Sprintf("partitions=%d", partitions), func(b *testing.B) {
			e, err := Open(b.TempDir(), nil)
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			for b.Loop() {
				if _, err := e.CreateTopic(ctx, TopicSpec{Name: "orders", Partitions: partitions}); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := e.DeleteTopic(ctx, "orders"); err != nil {
					b.Fatal(err)
				}
				e.removeDeleted(ctx)
				b.StartTimer()
			}
		})
	}
}

// BenchmarkAppend is what the engine's partition adds to package partition's.
func BenchmarkAppend(b *testing.B) {
	e, err := Open(b.TempDir(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	t, err := e.CreateTopic(ctx, TopicSpec{Name: "t", Settings: map[string]string{"embedlog.durability": "os", "retention.bytes": "1"}})
	if err != nil {
		b.Fatal(err)
	}
	p := t.Partitions()[0]
	recs := []log.Record{{Key: make([]byte, 16), Value: make([]byte, 100)}}
	b.Run("level=os/by=partition", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := p.Partition.Append(ctx, recs, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("level=os/by=engine", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := p.Append(ctx, recs, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}
