package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A rep is one repetition of one side of a row. It is handed to another process
// as JSON, so all it says is in exported fields.
type rep struct {
	Dir        string        // empty before the side's setup or prepare; removed afterwards
	Records    int64         // stop after so many records; 0 is no bound
	Time       time.Duration // stop after so long; 0 is no bound
	Bytes      int64         // room that the records take in the limit's frames, rounded up to a page
	ValueBytes int           // of each record
	Batch      int           // records of a call
	Goroutines int           // that append at once
	Count      int           // of what the row opens: partitions
	Level      string        // durability: os, interval, durable; empty where it does not matter
	Reuse      bool          // what is read is valid until the next read only
	Cores      int           // GOMAXPROCS of the process, where it is not the machine's
	Profile    string        // where a profile of the processor's time goes; empty is none
	OneKey     bool          // each goroutine has one key for all its records, so it stays with its partition
}

// A result is what one repetition measured.
type result struct {
	Records int64
	Elapsed time.Duration
	Longest time.Duration // the longest pause between two looks at the clock
	CPU     time.Duration // of the processors, in rows that have one core
	P50     time.Duration // of latencies, in rows that have them
	P99     time.Duration
	Value   float64 // in rows that measure an amount: milliseconds, MiB or MB
	Note    string  // why the repetition breaks a promise that is no number, else empty
}

// A subject is the measured part of a side.
type subject func(r *rep) (result, error)

// A side is one of the two things a row compares.
type side struct {
	setup   subject0 // once for all repetitions of a row, which then share Dir
	prepare subject0 // before each repetition, in the parent, not timed
	run     subject
	fresh   bool // run in a new process, so that nothing is open, mapped or in the heap
	// victim runs in a process of its own that prepare starts and kills (killVictim).
	victim subject0
}

// subject0 is a part of a side that measures nothing.
type subject0 func(r *rep) error

// poolRecords is how many different records a row appends: at 100 bytes of value
// about ten times an L1 cache.
const poolRecords = 4096

const keyBytes = 16

// A pool holds keys and values of random bytes, each as one run of memory.
type pool struct {
	keys, values []byte
	valueBytes   int
}

var pools sync.Map // value bytes to *pool; made once, outside what is timed

// records returns the pool of the repetition.
func (r *rep) records() *pool {
	if p, ok := pools.Load(r.ValueBytes); ok {
		return p.(*pool)
	}
	var seed [32]byte
	rng := rand.NewChaCha8(seed) // the same bytes in every run
	p := &pool{make([]byte, poolRecords*keyBytes), make([]byte, poolRecords*r.ValueBytes), r.ValueBytes}
	rng.Read(p.keys)
	rng.Read(p.values)
	pools.Store(r.ValueBytes, p)
	return p
}

// at returns the i-th record; the pool repeats.
func (p *pool) at(i int64) (key, value []byte) {
	n := int(i & (poolRecords - 1))
	return p.keys[n*keyBytes:][:keyBytes], p.values[n*p.valueBytes:][:p.valueBytes]
}

// A watch finds the longest pause of one goroutine. A look at the clock costs
// about half as much as the fastest call, so single calls in memory share one.
type watch struct {
	start, last time.Time
	longest     time.Duration
}

func newWatch() watch {
	now := time.Now()
	return watch{start: now, last: now}
}

func (w *watch) look() (sinceStart time.Duration) {
	now := time.Now()
	w.longest = max(w.longest, now.Sub(w.last))
	w.last = now
	return now.Sub(w.start)
}

// callsPerLook is how many calls share one look at the clock.
func (r *rep) callsPerLook() int64 {
	if r.Batch > 1 || r.Level == "durable" {
		return 1
	}
	return 16
}

// loop calls op until the repetition's bounds are reached, op with the number of
// its first record, counted from first. It is how both sides append.
func (r *rep) loop(first, records int64, op func(i int64) error) (result, error) {
	w, batch, every := newWatch(), int64(r.Batch), r.callsPerLook()
	var done int64
	for r.Records == 0 || done+batch <= records {
		n := every
		if r.Records > 0 {
			n = min(n, (records-done)/batch)
		}
		for range n {
			if err := op(first + done); err != nil {
				return result{}, err
			}
			done += batch
		}
		if elapsed := w.look(); r.Time > 0 && elapsed >= r.Time {
			break
		}
	}
	return result{Records: done, Elapsed: w.last.Sub(w.start), Longest: w.longest}, nil
}

// parallel runs loop in each of the repetition's goroutines, which share the
// records among them. op must be safe to call at once.
func (r *rep) parallel(op func(i int64) error) (result, error) {
	return r.parallelEach(func() func(int64) error { return op })
}

// parallelEach is parallel with an op for each goroutine, which may keep memory of
// its own between calls.
func (r *rep) parallelEach(makeOp func() func(i int64) error) (result, error) {
	if r.Goroutines <= 1 {
		return r.loop(0, r.Records, makeOp())
	}
	var (
		wg      sync.WaitGroup
		results = make([]result, r.Goroutines)
		errs    = make([]error, r.Goroutines)
		begin   = make(chan struct{})
		share   = r.Records / int64(r.Goroutines)
	)
	for g := range r.Goroutines {
		op := makeOp()
		wg.Go(func() {
			<-begin
			// Each starts elsewhere in the pool.
			results[g], errs[g] = r.loop(int64(g)*poolRecords/int64(r.Goroutines), share, op)
		})
	}
	start := time.Now()
	close(begin)
	wg.Wait()
	total := result{Elapsed: time.Since(start)}
	for g := range results {
		if errs[g] != nil {
			return result{}, errs[g]
		}
		total.Records += results[g].Records
		total.Longest = max(total.Longest, results[g].Longest)
	}
	return total, nil
}

// wake measures how long after a record was handed to append the reader, which
// already waited for it, has it: from before the append to after the wait. next
// waits for one record. Between two records the writer waits until the reader
// was told to go on, which is the same on both sides.
func (r *rep) wake(appendOne func(i int64) error, next func() error) (result, error) {
	return r.wakeLoop(appendOne, func(got func(error) bool) {
		for got(next()) {
		}
	})
}

// wakeLoop is wake for a reader that has a loop of its own: it calls got for each
// record, or for the error in its place, and ends when that is false.
func (r *rep) wakeLoop(appendOne func(i int64) error, loop func(got func(error) bool)) (result, error) {
	var (
		sent  atomic.Int64 // nanoseconds since start; atomic, because the reader may be one that synchronizes by less than the race detector knows
		start = time.Now()
		took  = make([]time.Duration, 0, r.Records)
		ack   = make(chan error)
		ended = make(chan struct{})
	)
	go func() {
		defer close(ended)
		loop(func(err error) bool {
			took = append(took, time.Since(start)-time.Duration(sent.Load()))
			more := err == nil && int64(len(took)) < r.Records
			ack <- err
			return more
		})
	}()
	for i := range r.Records {
		sent.Store(int64(time.Since(start)))
		if err := appendOne(i); err != nil {
			return result{}, err
		}
		select {
		case err := <-ack:
			if err != nil {
				return result{}, err
			}
		case <-ended:
			return result{}, fmt.Errorf("the reader ended after %d records", i)
		}
	}
	elapsed := time.Since(start)
	<-ended
	slices.Sort(took)
	return result{Records: r.Records, Elapsed: elapsed, P50: took[len(took)/2], P99: took[len(took)*99/100], Longest: took[len(took)-1]}, nil
}
