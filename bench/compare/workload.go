package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// guarantee is what a record that was acknowledged survives.
type guarantee int

const (
	process guarantee = iota // kill -9 of the process
	machine                  // a power cut, as far as the disk tells the truth
)

// record is what is stored: the systems without keys get both in one piece.
type record struct{ key, value []byte }

const keyBytes = 16

// store is a system as a workload sees it.
type store interface {
	// Append stores the records in one call and returns when they are as safe as the
	// guarantee says. It may be called from several goroutines.
	Append(ctx context.Context, recs []record) error
	// ReadAll reads everything from the beginning, touches each value, and returns how many
	// records there were.
	ReadAll(ctx context.Context) (int, error)
	Close() error
}

// follower is a store whose records somebody waits for.
type follower interface {
	// Follow calls f for each record that is appended from now on, until stop.
	Follow(ctx context.Context, f func(value []byte)) (stop func() error, err error)
}

// system is one of those compared.
type system struct {
	name string
	note string // how it is set up
	open func(dir string, g guarantee) (store, error)
	// cannot says why the system does not run a workload, or nothing.
	cannot func(w *workload) string
}

// workload is one row of the table.
type workload struct {
	name, what string
	guarantee  guarantee
	batch      int // records a call
	callers    int
	kind       kind
}

type kind int

const (
	appending kind = iota
	reading
	following
	opening
)

var workloads = []*workload{
	{name: "append/one", what: "one record a call, survives a kill", batch: 1, callers: 1},
	{name: "append/1000", what: "1,000 records a call, survives a kill", batch: 1000, callers: 1},
	{name: "durable/one", what: "one record a call, survives a power cut", guarantee: machine, batch: 1, callers: 1},
	{name: "durable/64", what: "64 goroutines, one record a call, survives a power cut", guarantee: machine, batch: 1, callers: 64},
	{name: "durable/1000", what: "1,000 records a call, survives a power cut", guarantee: machine, batch: 1000, callers: 1},
	{name: "read", what: "read everything after opening, page cache warm", kind: reading},
	{name: "latency", what: "from the call that appends to the reader that waits, one record in flight", kind: following, batch: 1},
	{name: "open", what: "open a store of 256 MiB", kind: opening},
}

// result is what one repetition measured.
type result struct {
	PerSecond float64 // records
	P50, P99  time.Duration
	Took      time.Duration // opening
}

// maxBytes bounds what one repetition writes.
const maxBytes = 1 << 30

// runChild runs one cell and prints its result.
func runChild(ctx context.Context, o options) error {
	name, load, _ := strings.Cut(o.child, "/")
	var s *system
	for _, x := range systems {
		if x.name == name {
			s = x
		}
	}
	var w *workload
	for _, x := range workloads {
		if x.name == load {
			w = x
		}
	}
	if s == nil || w == nil {
		return fmt.Errorf("no cell %q", o.child)
	}
	d := time.Duration(o.Seconds * float64(time.Second))
	var res result
	var err error
	if o.childFill {
		return fill(ctx, s, o.childDir, o.childSize, fillBytes[w.kind])
	}
	switch w.kind {
	case appending:
		res, err = runAppend(ctx, s, w, o.childDir, o.childSize, d)
	case reading:
		res, err = runRead(ctx, s, o.childDir, o.childSize, d)
	case following:
		res, err = runFollow(ctx, s, o.childDir, o.childSize, d)
	case opening:
		res, err = runOpen(s, o.childDir)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(res)
}

// makeRecords makes n records of random bytes, which no compression makes smaller.
func makeRecords(n, size int) []record {
	src := rand.NewChaCha8([32]byte{1})
	recs := make([]record, n)
	for i := range recs {
		b := make([]byte, keyBytes+size)
		src.Read(b)
		recs[i] = record{b[:keyBytes], b[keyBytes:]}
	}
	return recs
}

func runAppend(ctx context.Context, s *system, w *workload, dir string, size int, d time.Duration) (result, error) {
	st, err := s.open(dir, w.guarantee)
	if err != nil {
		return result{}, err
	}
	pool := makeRecords(max(w.batch*2, 4096), size)
	limit := int64(maxBytes / (keyBytes + size))
	var written atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, w.callers)
	start := time.Now()
	for c := range w.callers {
		wg.Go(func() {
			at := c
			for time.Since(start) < d && written.Load() < limit {
				if at+w.batch > len(pool) {
					at = 0
				}
				if err := st.Append(ctx, pool[at:at+w.batch]); err != nil {
					errs <- err
					return
				}
				at += w.batch
				written.Add(int64(w.batch))
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	select {
	case err := <-errs:
		return result{}, err
	default:
	}
	return result{PerSecond: float64(written.Load()) / took.Seconds()}, st.Close()
}

// fill writes bytes of records in batches, the fastest way there is.
func fill(ctx context.Context, s *system, dir string, size int, bytes int64) error {
	st, err := s.open(dir, process)
	if err != nil {
		return err
	}
	pool := makeRecords(4000, size)
	n := filled(size, bytes)
	for i := 0; i < n; {
		at := i % len(pool)
		k := min(1000, len(pool)-at, n-i)
		if err := st.Append(ctx, pool[at:at+k]); err != nil {
			return err
		}
		i += k
	}
	return st.Close()
}

// fillBytes is how much there is to read or to open.
var fillBytes = map[kind]int64{reading: 64 << 20, opening: 256 << 20}

// filled is how many records that is.
func filled(size int, bytes int64) int { return int(bytes / int64(keyBytes+size)) }

func runRead(ctx context.Context, s *system, dir string, size int, d time.Duration) (result, error) {
	n := filled(size, fillBytes[reading])
	st, err := s.open(dir, process)
	if err != nil {
		return result{}, err
	}
	total, start := 0, time.Now()
	for time.Since(start) < d {
		got, err := st.ReadAll(ctx)
		if err != nil {
			return result{}, err
		}
		if got != n {
			return result{}, fmt.Errorf("read %d records, wrote %d", got, n)
		}
		total += got
	}
	return result{PerSecond: float64(total) / time.Since(start).Seconds()}, st.Close()
}

func runFollow(ctx context.Context, s *system, dir string, size int, d time.Duration) (result, error) {
	st, err := s.open(dir, process)
	if err != nil {
		return result{}, err
	}
	seen := make(chan time.Time, 1)
	stop, err := st.(follower).Follow(ctx, func([]byte) { seen <- time.Now() })
	if err != nil {
		return result{}, err
	}
	pool := makeRecords(1024, size)
	var times []time.Duration
	const warm = 1000
	for begin, i := time.Now(), 0; i < warm+100 || time.Since(begin) < d; i++ {
		k := i % len(pool)
		at := time.Now()
		if err := st.Append(ctx, pool[k:k+1]); err != nil {
			return result{}, err
		}
		got := (<-seen).Sub(at)
		if i >= warm {
			times = append(times, got)
		}
	}
	if err := stop(); err != nil {
		return result{}, err
	}
	slices.Sort(times)
	return result{P50: times[len(times)/2], P99: times[len(times)*99/100]}, st.Close()
}

func runOpen(s *system, dir string) (result, error) {
	start := time.Now()
	st, err := s.open(dir, machine)
	if err != nil {
		return result{}, err
	}
	took := time.Since(start)
	return result{Took: took}, st.Close()
}
