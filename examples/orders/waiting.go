package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/query"
)

// waitingView is a view with those who wait for its rows: any number for each key. Another instance may have the rows, so that it is the topic they are made of
// that is watched here, by one consumer for all: whoever waits is woken by a record of his key, and asks the view, which has it.
type waitingView[V any] struct {
	v       *query.View[string, V]
	mu      sync.Mutex
	waiters map[string]map[chan struct{}]bool
}

// waitingOn has a view waited on until the shop is closed.
func waitingOn[V any](ctx context.Context, s *shop, topic *embedlog.Topic, v *query.View[string, V]) (*waitingView[V], error) {
	ends, err := topic.ListOffsets(ctx, embedlog.Latest)
	if err != nil {
		return nil, err
	}
	c, err := s.db.Consumer(&embedlog.ConsumerConfig{Assign: ends})
	if err != nil {
		return nil, err
	}
	w := &waitingView[V]{v: v, waiters: map[string]map[chan struct{}]bool{}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() {
		for rec, err := range c.Records(ctx) {
			if err != nil {
				if ctx.Err() == nil && !errors.Is(err, embedlog.ErrClosed) {
					s.failed <- fmt.Errorf("wait for %s: %w", topic.Name(), err)
				}
				return
			}
			w.wake(string(rec.Key))
		}
	})
	s.closers = append(s.closers, func() error {
		cancel()
		running.Wait()
		return c.Close()
	})
	return w, nil
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

// errPatience says that the row did not come in time.
var errPatience = errors.New("it is not there, or not so far")

// wait waits until the row of a key is as wanted.
func (w *waitingView[V]) wait(ctx context.Context, key string, done func(V) bool) (row V, err error) {
	return w.waitUntil(ctx, nil, key, done)
}

// waitUntil is wait until a time is over. It looks once in any case.
func (w *waitingView[V]) waitUntil(ctx context.Context, over <-chan time.Time, key string, done func(V) bool) (row V, err error) {
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
		case <-over:
			return row, errPatience
		case <-ctx.Done():
			return row, ctx.Err()
		}
	}
}
