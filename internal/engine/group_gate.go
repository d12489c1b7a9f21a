package engine

import (
	"context"
	"sync"
)

// groupGate lets many in at once, or one alone: those who append to a group's
// records, and who must know that no append is under way. Unlike a sync.RWMutex
// it is waited for with a context.
type groupGate struct {
	mu      sync.Mutex
	shared  int
	alone   bool
	waiting int           // who wants to be alone; new ones stay out for them
	changed chan struct{} // closed when somebody leaves; nil while nobody waits
}

// share waits until nobody is alone. The caller calls leave.
func (g *groupGate) share(ctx context.Context) error {
	return g.enter(ctx, func() bool { return g.alone || g.waiting > 0 }, func() { g.shared++ })
}

// exclude waits until nobody is in. The caller calls leave.
func (g *groupGate) exclude(ctx context.Context) error {
	g.mu.Lock()
	g.waiting++
	g.mu.Unlock()
	err := g.enter(ctx, func() bool { return g.alone || g.shared > 0 }, func() { g.alone = true })
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting--; err != nil {
		g.wakeLocked()
	}
	return err
}

func (g *groupGate) enter(ctx context.Context, busy func() bool, take func()) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	for busy() {
		if g.changed == nil {
			g.changed = make(chan struct{})
		}
		changed := g.changed
		g.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		g.mu.Lock()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	take()
	return nil
}

func (g *groupGate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.alone {
		g.alone = false
	} else {
		g.shared--
	}
	g.wakeLocked()
}

func (g *groupGate) wakeLocked() {
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}
