package raftrepl

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// BenchmarkAppend is an append of 1 KiB that two of three replicas have, all in this
// process and in memory: what replication costs besides disks and networks.
func BenchmarkAppend(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d/replicas=3", callers), func(b *testing.B) {
			c := newTestCluster(b, 3)
			c.net.latency = 0
			c.cfg.Log = log.Config{Level: log.OS}
			for _, n := range c.nodes {
				n.fs = vfs.NewMem(vfs.Volatile())
				n.vfs = n.fs
			}
			c.start()
			defer c.stop()
			l := c.leader()
			value := string(make([]byte, 1024))
			b.SetBytes(1024)
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for k := range callers {
				wg.Go(func() {
					for i := k; i < b.N; i += callers {
						if _, err := l.p.Append(context.Background(), record(value), nil); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// BenchmarkVotes is a vote that is stored, by many groups of a node at once.
func BenchmarkVotes(b *testing.B) {
	for _, groups := range []int{1, 100} {
		b.Run(fmt.Sprintf("groups=%d", groups), func(b *testing.B) {
			v, err := OpenVotes(b.TempDir() + "/raft.db")
			if err != nil {
				b.Fatal(err)
			}
			defer v.Close()
			b.ResetTimer()
			began := time.Now()
			var wg sync.WaitGroup
			for k := range groups {
				id := testLog
				id.Partition = int32(k)
				wg.Go(func() {
					for i := k; i < b.N; i += groups {
						if err := v.change(id, func(g *vote) { g.term++ }); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(v.written)/time.Since(began).Seconds(), "commits/s")
		})
	}
}
