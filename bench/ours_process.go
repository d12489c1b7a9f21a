package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Our side of the rows about what a process takes.

func init() {
	for _, r := range rows() {
		switch {
		case strings.HasPrefix(r.name, "idle/"):
			register(r.name, side{fresh: true, run: idleOurs})
		case r.name == "binary":
			register(r.name, side{run: binaryOurs})
		}
	}
}

// idleHeapBytes is the most that an idle partition may keep of the heap: its
// structures, and no buffer.
const idleHeapBytes = 8 << 10

// idleOurs opens partitions that share a file cache, appends a record to each at
// the default level, and waits until nothing goes on any more.
func idleOurs(r *rep) (result, error) {
	goroutines, heap := runtime.NumGoroutine(), heapBytes()
	files := log.NewFileCache(0)
	open := make([]*partition.Partition, r.Count)
	one := []log.Record{{Timestamp: time.Now().UnixMilli(), Key: make([]byte, keyBytes), Value: make([]byte, 1024)}}
	for i := range open {
		dir := filepath.Join(r.Dir, strconv.Itoa(i))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return result{}, err
		}
		p, err := partition.Open(dir, &partition.Options{Files: files})
		if err != nil {
			return result{}, err
		}
		open[i] = p
		if _, err := p.Append(context.Background(), one, nil); err != nil {
			return result{}, err
		}
	}
	// A partition settles when it was quiet for a second; its timer looks once a second.
	var res result
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > goroutines && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(3 * time.Second)
	if n := runtime.NumGoroutine() - goroutines; n > 0 {
		res.Note = fmt.Sprintf("%d goroutines", n)
	}
	grown := (heapBytes() - heap) / int64(r.Count)
	if grown > idleHeapBytes && res.Note == "" {
		res.Note = fmt.Sprintf("%d bytes of heap a partition", grown)
	}
	n, err := residentBytes()
	res.Value = float64(n) / (1 << 20)
	for _, p := range open {
		err = errors.Join(err, p.Close())
	}
	return res, err
}

// heapBytes is what is reachable.
func heapBytes() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// binaryOurs is the size of a program that appends and reads.
func binaryOurs(r *rep) (result, error) {
	return buildSize(".", "github.com/x/embedlog/bench/appendread", filepath.Join(r.Dir, "appendread"))
}
