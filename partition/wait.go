package partition

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/x/embedlog/log"
)

// waiters are the readers that wait for an offset to become readable. Whoever
// moves the high watermark wakes them directly; while nobody waits that is one
// atomic load.
type waiters struct {
	waiting atomic.Int32
	pool    sync.Pool // of *waiter, the partition's own: see getRequest

	mu     sync.Mutex
	list   []*waiter
	closed bool
}

type waiter struct {
	offset    int64 // wakes when it lies below the bound
	isolation Isolation
	wake      chan struct{} // holds one token
}

// bound is the offset below which a reader may read.
func (p *Partition) bound(i Isolation) int64 {
	if i == ReadCommitted {
		return p.LastStable()
	}
	return p.highWatermark.Load()
}

// wake wakes those whose offset became readable.
func (w *waiters) wake(p *Partition) {
	if w.waiting.Load() == 0 {
		return
	}
	w.mu.Lock()
	for i := 0; i < len(w.list); {
		if x := w.list[i]; x.offset < p.bound(x.isolation) {
			w.removeLocked(i)
			x.wake <- struct{}{}
			continue
		}
		i++
	}
	w.mu.Unlock()
}

// wakeAll wakes everybody: the partition closes.
func (w *waiters) wakeAll() {
	w.mu.Lock()
	w.closed = true
	for len(w.list) > 0 {
		x := w.list[0]
		w.removeLocked(0)
		x.wake <- struct{}{}
	}
	w.mu.Unlock()
}

func (w *waiters) removeLocked(i int) {
	last := len(w.list) - 1
	w.list[i] = w.list[last]
	w.list[last] = nil
	w.list = w.list[:last]
	w.waiting.Add(-1)
}

// waitFor waits until everything below end is readable. It fails with the
// context's error, and with log.ErrClosed when the partition closes.
func (p *Partition) waitFor(ctx context.Context, end int64, i Isolation) error {
	for p.bound(i) < end {
		w := &p.waiters
		x, ok := w.pool.Get().(*waiter)
		if !ok {
			x = &waiter{wake: make(chan struct{}, 1)}
		}
		x.offset, x.isolation = end-1, i
		w.mu.Lock()
		if w.closed {
			w.mu.Unlock()
			return log.ErrClosed
		}
		w.list = append(w.list, x)
		w.waiting.Add(1)
		w.mu.Unlock()
		// The bound may have moved before we were in the list.
		if p.bound(i) >= end {
			w.leave(x)
			return nil
		}
		select {
		case <-x.wake:
			w.pool.Put(x)
			if p.closed.Load() && p.bound(i) < end {
				return log.ErrClosed
			}
		case <-ctx.Done():
			w.leave(x)
			return ctx.Err()
		}
	}
	return nil
}

// leave takes a waiter out that need not be woken any more.
func (w *waiters) leave(x *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.list {
		if w.list[i] == x {
			w.removeLocked(i)
			w.pool.Put(x)
			return
		}
	}
	<-x.wake // it was woken meanwhile
	w.pool.Put(x)
}
