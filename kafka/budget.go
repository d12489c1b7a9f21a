package kafka

import (
	"container/list"
	"context"
	"sync"
)

// budget is a number of bytes that many share. Who asks for more than is there
// waits, first come first served: a large request is not passed by small ones for
// ever.
type budget struct {
	mu   sync.Mutex
	size int64
	free int64     // negative when overdrawn: see take
	wait list.List // of *reservation
}

type reservation struct {
	n     int64
	ready chan struct{}
}

func newBudget(size int64) *budget { return &budget{size: size, free: size} }

// reserve takes n bytes, and waits for them. n is at most the budget's size.
func (b *budget) reserve(ctx context.Context, n int64) error {
	b.mu.Lock()
	if b.wait.Len() == 0 && b.free >= n {
		b.free -= n
		b.mu.Unlock()
		return nil
	}
	r := &reservation{n, make(chan struct{})}
	at := b.wait.PushBack(r)
	b.mu.Unlock()
	select {
	case <-r.ready:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-r.ready: // it came at the same moment
		b.free += n
	default:
		b.wait.Remove(at)
	}
	b.grantLocked() // who waits behind may fit now
	return ctx.Err()
}

// take takes as much as is there of n bytes, but at least floor, which may
// overdraw: for who holds a reservation already and must not wait, because the
// others may be waiting for him. It returns what it took.
func (b *budget) take(n, floor int64) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	n = max(min(n, b.free), floor, 0)
	b.free -= n
	return n
}

// release gives n bytes back.
func (b *budget) release(n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += n
	b.grantLocked()
}

func (b *budget) grantLocked() {
	for at := b.wait.Front(); at != nil; at = b.wait.Front() {
		r := at.Value.(*reservation)
		if b.free < r.n {
			return
		}
		b.free -= r.n
		b.wait.Remove(at)
		close(r.ready)
	}
}

// used is how many bytes are taken.
func (b *budget) used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size - b.free
}
