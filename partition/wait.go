package partition

import (
	"context"
	"sync"
	"sync/atomic"
)

// waiters are those who wait for an offset to become readable. Whoever moves the
// high watermark wakes them directly; while nobody waits that is one atomic load.
type waiters struct {
	waiting atomic.Int32
	pool    sync.Pool // of *lone, the partition's own: see getRequest

	mu     sync.Mutex
	list   []*Wait
	closed bool
}

// lone waits for one partition.
type lone struct {
	Wait
	Waiter
}

// bound is the offset below which a reader may read.
func (p *Partition) bound(i Isolation) int64 {
	if i == ReadCommitted {
		return p.LastStable()
	}
	return p.highWatermark.Load()
}

// wake wakes those whose offset became readable. A log start that moved wakes,
// too: it lies below the bound, so who waits below it waits below the bound.
func (w *waiters) wake(p *Partition) {
	if w.waiting.Load() == 0 {
		return
	}
	w.mu.Lock()
	for i := 0; i < len(w.list); {
		if x := w.list[i]; x.offset < p.bound(x.isolation) {
			w.removeLocked(i)
			x.w.push(x)
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
		x.w.push(x)
	}
	w.mu.Unlock()
}

func (w *waiters) removeLocked(i int) {
	last := len(w.list) - 1
	w.list[i].at = -1
	if i != last {
		w.list[i] = w.list[last]
		w.list[i].at = i
	}
	w.list[last] = nil
	w.list = w.list[:last]
	w.waiting.Add(-1)
}

// waitFor waits until everything below end is readable. It fails with the
// context's error, and with log.ErrClosed when the partition closes.
func (p *Partition) waitFor(ctx context.Context, end int64, i Isolation) error {
	if p.bound(i) >= end {
		return nil
	}
	x, ok := p.waiters.pool.Get().(*lone)
	if !ok {
		x = &lone{Waiter: Waiter{c: make(chan struct{}, 1)}}
	}
	defer p.waiters.pool.Put(x)
	for x.Arm(&x.Waiter, p, end-1, i) {
		for x.armed {
			select {
			case <-x.c:
				x.Waiter.Next()
			case <-ctx.Done():
				x.Disarm()
				return ctx.Err()
			}
		}
	}
	if p.bound(i) < end {
		return p.closedError()
	}
	return nil
}
