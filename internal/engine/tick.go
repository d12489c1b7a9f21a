package engine

import (
	"context"
	"sync"
	"time"
)

// ticker does what is due: one goroutine for the whole engine, which sleeps for a
// second at a time.
type ticker struct {
	mu      sync.Mutex // held while a tick runs
	woken   chan struct{}
	running sync.WaitGroup
	// maintained is when retention and the like were last looked at, by the engine's clock.
	maintained time.Time
}

const (
	tickInterval               = time.Second
	defaultMaintenanceInterval = 30 * time.Second
)

func (t *ticker) start(e *Engine) {
	t.woken = make(chan struct{}, 1)
	t.maintained = e.now()
	t.running.Go(func() {
		timer := time.NewTicker(tickInterval)
		defer timer.Stop()
		if e.hasDeletions() {
			e.wake()
		}
		for {
			select {
			case <-timer.C:
				if e.tick(e.life) {
					signal(e.cleaner.due)
				}
			case <-t.woken:
				e.removeDeleted(e.life)
			case <-e.life.Done():
				return
			}
		}
	})
}

// stop waits until the goroutine has ended; the engine's life is over.
func (t *ticker) stop() { t.running.Wait() }

// wake makes the goroutine look for deleted topics now.
func (e *Engine) wake() {
	select {
	case e.ticker.woken <- struct{}{}:
	default:
	}
}

// Tick does everything that is due now by the engine's clock, and returns when it is
// done: sessions and offsets of groups that expire, transactions that time out,
// retention, compaction, the disk cap, files of deleted topics. A test with a clock
// of its own calls it. With a negative Options.MaintenanceInterval each call looks
// at retention, compaction and the disk cap.
func (e *Engine) Tick(ctx context.Context) {
	if e.tick(ctx) || e.options.MaintenanceInterval < 0 {
		e.cleaner.round(ctx)
	} else if _, done, err := e.cleaner.take(ctx); err == nil {
		done() // a round that the goroutine began has ended
	}
}

// tick does what is short, and says whether retention and the like are due.
func (e *Engine) tick(ctx context.Context) (maintain bool) {
	t := &e.ticker
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.closed.Load() {
		return false
	}
	now := e.now()
	e.coordinators.look()
	e.groups.tick(now)
	e.shares.tick(now)
	e.txns.tick(now)
	e.removeDeletedLocked(ctx)
	interval := e.options.MaintenanceInterval
	if interval == 0 {
		interval = defaultMaintenanceInterval
	}
	if since := now.Sub(t.maintained); interval > 0 && (since >= interval || since < 0) {
		t.maintained = now
		return true
	}
	return false
}

func (e *Engine) removeDeleted(ctx context.Context) {
	e.ticker.mu.Lock()
	defer e.ticker.mu.Unlock()
	e.removeDeletedLocked(ctx)
}

func (e *Engine) hasDeletions() (has bool) {
	e.meta.view(func(m *metadata) { has = len(m.deleting) > 0 })
	return has
}

// removeDeletedLocked removes the files of deleted topics. What fails is tried again
// at the next tick.
func (e *Engine) removeDeletedLocked(ctx context.Context) {
	if e.cluster != nil {
		e.replicas.look() // it takes a leader to say that they are gone
		return
	}
	var list []*topicMeta
	e.meta.view(func(m *metadata) {
		if len(m.deleting) > 0 {
			list = inOrder(m.deleting)
		}
	})
	for _, t := range list {
		if _, busy := e.retiring.Load(t.id); busy {
			continue // who deletes it wakes us
		}
		err := removeTopicDir(ctx, e.fs, t.id)
		if err == nil {
			// Its files cannot come back: the list needs it no longer.
			_, err = e.meta.do(ctx, &command{kind: topicDeletedCommand, topic: topicMeta{id: t.id}})
		}
		if ctx.Err() != nil || e.closed.Load() {
			return
		}
		if err != nil {
			e.logger.Warn("files of a deleted topic are still there", "topic", t.name, "id", t.id.String(), "error", err)
		}
	}
}
