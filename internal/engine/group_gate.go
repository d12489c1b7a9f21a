package engine

import (
	"context"
	"sync"
)

// groupGate lets many in at once, or one alone: those who append to a group's
// records, and who must know that no append is under way. They are let in in the
// order in which they came, so that neither kind keeps the other out. Unlike a
// sync.RWMutex it is waited for with a context.
type groupGate struct {
	mu     sync.Mutex
	shared int
	alone  bool
	queue  []*gateWaiter
}

// gateWaiter is somebody who waits in front of the gate.
type gateWaiter struct {
	alone bool
	in    chan struct{} // closed when he is let in
}

// share waits until nobody is alone. The caller calls leave.
func (g *groupGate) share(ctx context.Context) error { return g.enter(ctx, false) }

// exclude waits until nobody is in. The caller calls leave.
func (g *groupGate) exclude(ctx context.Context) error { return g.enter(ctx, true) }

func (g *groupGate) enter(ctx context.Context, alone bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	w := &gateWaiter{alone: alone}
	if len(g.queue) == 0 && g.admitLocked(w) {
		return nil
	}
	w.in = make(chan struct{})
	g.queue = append(g.queue, w)
	g.mu.Unlock()
	select {
	case <-w.in:
	case <-ctx.Done():
	}
	g.mu.Lock()
	err := ctx.Err()
	if err == nil {
		return nil
	}
	for i := range g.queue {
		if g.queue[i] == w {
			g.queue = append(g.queue[:i], g.queue[i+1:]...)
			g.letInLocked() // others may have waited for him only
			return err
		}
	}
	g.leaveLocked() // he was let in at the same moment
	return err
}

// admitLocked lets w in if who is in allows it.
func (g *groupGate) admitLocked(w *gateWaiter) bool {
	if g.alone || w.alone && g.shared > 0 {
		return false
	}
	if w.alone {
		g.alone = true
	} else {
		g.shared++
	}
	return true
}

func (g *groupGate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leaveLocked()
}

func (g *groupGate) leaveLocked() {
	if g.alone {
		g.alone = false
	} else {
		g.shared--
	}
	g.letInLocked()
}

// letInLocked lets in who may enter now, in their order.
func (g *groupGate) letInLocked() {
	for len(g.queue) > 0 && g.admitLocked(g.queue[0]) {
		close(g.queue[0].in)
		g.queue[0] = nil
		g.queue = g.queue[1:]
	}
}
