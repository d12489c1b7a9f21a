package main

import (
	"context"
	"errors"
	"sync"

	"github.com/x/embedlog/query"
)

// waitingView is a view with those who wait for its rows: any number for each key. One watch serves all of them.
type waitingView[V any] struct {
	v       *query.View[string, V]
	mu      sync.Mutex
	waiters map[string]map[chan struct{}]bool
}

// waitingOn watches a view until the shop is closed.
func waitingOn[V any](ctx context.Context, s *shop, v *query.View[string, V]) *waitingView[V] {
	w := &waitingView[V]{v: v, waiters: map[string]map[chan struct{}]bool{}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() {
		for {
			for change, err := range v.Watch(ctx) {
				if err != nil {
					if !errors.Is(err, query.ErrInterrupted) {
						return // closed, or stopped: reads say why
					}
					break
				}
				if change.Version == nil {
					w.wake(change.Key)
				}
			}
		}
	})
	s.closers = append(s.closers, func() error {
		cancel()
		running.Wait()
		return nil
	})
	return w
}

func (w *waitingView[V]) wake(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.waiters[key] {
		select {
		case c <- struct{}{}:
		default: // it is awake
		}
	}
}

// wait waits until the row of a key is as wanted.
func (w *waitingView[V]) wait(ctx context.Context, key string, done func(V) bool) (row V, err error) {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	if w.waiters[key] == nil {
		w.waiters[key] = map[chan struct{}]bool{}
	}
	w.waiters[key][c] = true
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if delete(w.waiters[key], c); len(w.waiters[key]) == 0 {
			delete(w.waiters, key)
		}
	}()
	for {
		row, found, err := w.v.Get(ctx, key)
		if errors.Is(err, query.ErrInterrupted) {
			continue
		}
		if err != nil || found && done(row) {
			return row, err
		}
		select {
		case <-c:
		case <-ctx.Done():
			return row, ctx.Err()
		}
	}
}
