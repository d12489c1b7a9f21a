package engine

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Who shares the gate is let in in turn with those who want to be alone, however many
// of those there are: readers of offsets must not keep heartbeats and commits out.
func TestGateStarvesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g groupGate
		stop := make(chan struct{})
		var running sync.WaitGroup
		var alone atomic.Int64
		for range 3 { // one of them always waits while another one is in
			running.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if err := g.exclude(ctx); err != nil {
						t.Error(err)
					}
					alone.Add(1)
					time.Sleep(time.Millisecond)
					g.leave()
				}
			})
		}
		time.Sleep(10 * time.Millisecond)
		before := alone.Load()
		short, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := g.share(short); err != nil {
			t.Errorf("not let in while %d others were: %v", alone.Load()-before, err)
		} else {
			if passed := alone.Load() - before; passed > 3 {
				t.Errorf("%d who came later were let in before", passed)
			}
			g.leave()
		}
		close(stop)
		running.Wait()
	})
}

// Who gives up leaves nothing behind, and lets in who waited for him only.
func TestGateCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g groupGate
		if err := g.share(ctx); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		gaveUp := make(chan error, 1)
		go func() { gaveUp <- g.exclude(short) }()
		synctest.Wait()
		if err := g.share(ctx); err != nil { // behind the one who wants to be alone, until he gives up
			t.Fatal(err)
		}
		if err := <-gaveUp; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		g.leave()
		g.leave()
		if err := g.exclude(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a context that has ended: %v", err)
		}
		if err := g.exclude(ctx); err != nil {
			t.Fatal(err)
		}
		g.leave()
	})
}

// Random callers, some of whom give up: nobody is in beside who is alone, and nobody
// is left waiting.
func TestGateAtRandom(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			var g groupGate
			var mu sync.Mutex
			shared, alone := 0, 0
			var running sync.WaitGroup
			for i := range uint64(8) {
				running.Go(func() {
					rng := rand.New(rand.NewPCG(seed, i))
					for range 30 {
						c, cancel := context.WithTimeout(ctx, time.Duration(rng.IntN(6))*time.Millisecond+1)
						enter, count := g.share, &shared
						if rng.IntN(3) == 0 {
							enter, count = g.exclude, &alone
						}
						err := enter(c)
						cancel()
						if err != nil {
							continue
						}
						mu.Lock()
						*count++
						if alone > 1 || alone == 1 && shared > 0 {
							t.Errorf("seed %d: %d alone, %d shared", seed, alone, shared)
						}
						mu.Unlock()
						time.Sleep(time.Duration(rng.IntN(3)) * time.Millisecond)
						mu.Lock()
						*count--
						mu.Unlock()
						g.leave()
					}
				})
			}
			running.Wait()
			if err := g.exclude(ctx); err != nil { // or the bubble ends as a deadlock
				t.Error(err)
			}
			g.leave()
		})
	}
}
