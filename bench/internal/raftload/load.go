package raftload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Operations that every system has which can be loaded.
const (
	OpPrepare = "prepare" // Load: make a place for the records, on node 1
	OpLeads   = "leads"   // Load: bool, whether this node leads there and the others take part
	OpLoad    = "load"    // Load: Result, on the node that leads
)

// Kind is what a load does.
type Kind string

// The kinds of a load.
const (
	Single   Kind = "single"   // one record at a time, each waits until it is committed
	Pipeline Kind = "pipeline" // several producers keep a window of records outstanding
)

// Load is one repetition.
type Load struct {
	Kind      Kind
	Bytes     int // of a record's value; there is no key
	Producers int
	Window    int // records that are outstanding, of all producers together
	Time      time.Duration
}

// Name is key=value behind the kind.
func (l *Load) Name() string {
	size := fmt.Sprintf("%dB", l.Bytes)
	if l.Bytes%1024 == 0 {
		size = fmt.Sprintf("%dKiB", l.Bytes/1024)
	}
	return fmt.Sprintf("raft/%s/value=%s", l.Kind, size)
}

// Place is a name for where the records of a load go.
func (l *Load) Place() string { return fmt.Sprintf("%s-%d", l.Kind, l.Bytes) }

// producers is at least one.
func (l *Load) producers() int { return max(l.Producers, 1) }

// Result is what one repetition measured.
type Result struct {
	Records  int64
	Bytes    int64 // of values
	Elapsed  time.Duration
	P50, P99 time.Duration // of a record, from the call to the acknowledgement
	// Groups is how many writes of the leader's log the records went in, where that is known.
	Groups int64
	// CPU is what all nodes took of the processors, in the order of their numbers.
	CPU []time.Duration
}

// PerSecond is records a second.
func (r *Result) PerSecond() float64 { return float64(r.Records) / r.Elapsed.Seconds() }

// MBPerSecond is megabytes of values a second.
func (r *Result) MBPerSecond() float64 { return float64(r.Bytes) / 1e6 / r.Elapsed.Seconds() }

// Producer is how a load reaches a system in the process of its leader.
type Producer interface {
	// Produce returns when the record is committed.
	Produce(ctx context.Context, value []byte) error
	// Sender is what sends a record and has done called when it is committed. It may wait, and
	// copies nothing that it needs not: values stay as they are.
	Sender(done func(error)) (send func(value []byte) error)
	Close() error
}

// Run runs a load with producers of a system. It is called in the leader's process.
func (l *Load) Run(ctx context.Context, open func() (Producer, error)) (Result, error) {
	if l.Kind == Single {
		return l.single(ctx, open)
	}
	return l.pipeline(open)
}

// Values are so many different ones that a cache does not hold them.
func Values(size int) [][]byte {
	src := rand.NewChaCha8([32]byte{1})
	list := make([][]byte, 4096)
	all := make([]byte, len(list)*size)
	src.Read(all)
	for i := range list {
		list[i] = all[i*size:][:size:size]
	}
	return list
}

func (l *Load) single(ctx context.Context, open func() (Producer, error)) (res Result, err error) {
	p, err := open()
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	pool := Values(l.Bytes)
	for i := range 20 { // connections, buffers
		if err := p.Produce(ctx, pool[i]); err != nil {
			return res, err
		}
	}
	var all []time.Duration
	began := time.Now()
	for at := began; at.Sub(began) < l.Time; {
		if err := p.Produce(ctx, pool[len(all)%len(pool)]); err != nil {
			return res, err
		}
		now := time.Now()
		all = append(all, now.Sub(at))
		at = now
	}
	res = Result{Records: int64(len(all)), Bytes: int64(len(all) * l.Bytes), Elapsed: time.Since(began)}
	res.P50, res.P99 = percentiles(all)
	return res, nil
}

func percentiles(all []time.Duration) (p50, p99 time.Duration) {
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)*99/100]
}

func (l *Load) pipeline(open func() (Producer, error)) (res Result, err error) {
	producers := make([]Producer, l.producers())
	for i := range producers {
		if producers[i], err = open(); err != nil {
			return res, err
		}
		defer func() { err = errors.Join(err, producers[i].Close()) }()
	}
	pool := Values(l.Bytes)
	for i, p := range producers {
		if err := p.Produce(context.Background(), pool[i]); err != nil {
			return res, err
		}
	}
	var acked atomic.Int64
	errs := make([]error, len(producers))
	var all sync.WaitGroup
	began := time.Now()
	for i, p := range producers {
		all.Go(func() {
			n, err := l.pump(p, pool, i*len(pool)/len(producers))
			acked.Add(n)
			errs[i] = err
		})
	}
	all.Wait()
	n := acked.Load()
	return Result{Records: n, Bytes: n * int64(l.Bytes), Elapsed: time.Since(began)}, errors.Join(errs...)
}

// pump keeps a producer's part of the window outstanding until the time is over, and
// returns how many records were acknowledged.
func (l *Load) pump(p Producer, pool [][]byte, from int) (int64, error) {
	w := newWindow(max(l.Window/l.producers(), 1))
	send := p.Sender(w.release)
	var end error
	for i, began := 0, time.Now(); ; i++ {
		if i%64 == 0 && time.Since(began) > l.Time {
			break
		}
		if !w.acquire() {
			break // one has failed
		}
		if err := send(pool[(from+i)%len(pool)]); err != nil {
			w.release(err)
			end = err
			break
		}
	}
	acked, err := w.wait()
	return acked, errors.Join(end, err)
}

// window counts records that are outstanding. One goroutine acquires.
type window struct {
	room   chan struct{} // has room for one: woken when there is room again
	free   atomic.Int64
	acked  atomic.Int64
	size   int64
	failed atomic.Pointer[error]
}

func newWindow(n int) *window {
	w := &window{room: make(chan struct{}, 1), size: int64(n)}
	w.free.Store(int64(n))
	return w
}

// acquire waits for room, and says no when a record has failed.
func (w *window) acquire() bool {
	for w.free.Load() == 0 {
		<-w.room
	}
	w.free.Add(-1)
	return w.failed.Load() == nil
}

func (w *window) release(err error) {
	if err != nil {
		first := err // else every nil escapes, too
		w.failed.CompareAndSwap(nil, &first)
	} else {
		w.acked.Add(1)
	}
	w.free.Add(1)
	select {
	case w.room <- struct{}{}:
	default:
	}
}

// wait waits until nothing is outstanding; what was acquired and not released when acquire
// said no counts as released.
func (w *window) wait() (int64, error) {
	if w.failed.Load() != nil {
		return w.acked.Load(), *w.failed.Load()
	}
	for w.free.Load() < w.size {
		<-w.room
	}
	if err := w.failed.Load(); err != nil {
		return w.acked.Load(), *err
	}
	return w.acked.Load(), nil
}

// decode reads what an operation was given.
func decode[T any](in json.RawMessage) (v T, err error) { return v, json.Unmarshal(in, &v) }
