package embedlog

import (
	"context"
	"fmt"
	"slices"
)

// handle does what has come up besides reading: Close, a context that ended,
// partitions that were paused, moved, given or taken away. The goroutine that
// reads calls it between two records.
func (c *Consumer) handle(ctx context.Context) error {
	if !c.events.Swap(false) {
		return ctx.Err()
	}
	c.mu.Lock()
	switch {
	case c.closing:
		c.mu.Unlock()
		c.events.Store(true)
		return ErrClosed
	case c.fatal != nil:
		defer c.mu.Unlock()
		c.events.Store(true)
		return c.fatal
	case ctx.Err() != nil:
		defer c.mu.Unlock()
		c.events.Store(true) // the rest is for the next loop
		return ctx.Err()
	}
	c.applyChangedLocked()
	lost := c.lost
	tell := c.untold
	c.untold = nil
	c.mu.Unlock()
	for _, r := range tell {
		c.tell(ctx, r)
	}
	if lost {
		c.handleLost(ctx)
	}
	c.handleGoing(ctx)
	if err := c.handleComing(ctx); err != nil {
		return err
	}
	if c.topics.Swap(false) {
		if err := c.resync(false); err != nil {
			c.topics.Store(true)
			c.events.Store(true)
			return err
		}
	}
	return nil
}

// applyChangedLocked makes the queue follow Pause, Resume and Seek.
func (c *Consumer) applyChangedLocked() {
	r := &c.front
	list := c.changed
	c.changed = nil
	for _, s := range list {
		if s.gone {
			continue
		}
		if c.cur == s {
			c.putDownLocked()
		}
		if r.src == s {
			r.src, r.batch, r.given = nil, nil, -1
		}
		s.dropReader()
		s.out = s.paused
		s.wait.Disarm()
		c.enqueue(s)
	}
}

// handleLost gives up everything at once.
func (c *Consumer) handleLost(ctx context.Context) {
	c.mu.Lock()
	mine := c.positionsLocked()
	if c.auto && c.cur != nil && len(c.dueLocked()) > 0 { // what was read since loseLocked; marks by hand are refused since
		c.dropLocked(ErrRebalance)
	}
	for _, s := range c.sources {
		c.removeLocked(s)
	}
	c.mu.Unlock()
	if c.cfg.OnLost != nil {
		c.db.callOut(func() { c.cfg.OnLost(ctx, c, mine) })
	}
	c.mu.Lock()
	c.lost = false
	c.mu.Unlock()
	c.prod() // join again
}

// handleGoing hands over what the group asks back.
func (c *Consumer) handleGoing(ctx context.Context) {
	c.mu.Lock()
	going := slices.DeleteFunc(c.going, func(s *source) bool { return s.gone })
	c.going = nil
	var list []Position
	for _, s := range going {
		list = append(list, c.positionLocked(s))
		s.told = true
	}
	c.mu.Unlock()
	if len(going) == 0 {
		return
	}
	if c.cfg.OnRevoked != nil {
		c.db.callOut(func() { c.cfg.OnRevoked(ctx, c, sortPositions(list)) })
	}
	c.mu.Lock()
	for _, s := range going {
		if s.gone || c.lost {
			continue
		}
		c.removeLocked(s)
		c.leaving = append(c.leaving, s)
	}
	c.mu.Unlock()
	c.prod()
}

// handleComing takes over what the group gave us.
func (c *Consumer) handleComing(ctx context.Context) error {
	c.mu.Lock()
	coming := slices.Clone(c.coming)
	c.mu.Unlock()
	if len(coming) == 0 {
		return nil
	}
	var list []Position
	var resets []*Reset
	for _, s := range coming {
		start := c.cfg.Start
		if s.late {
			start = Earliest // it was made while we were there: nothing of it is old
		}
		at, reset, err := c.settle(ctx, s, s.want, start)
		if err != nil {
			c.events.Store(true)
			return fmt.Errorf("find where to begin in %s/%d: %w", s.name, s.partition, err)
		}
		if s.lost != nil {
			reset = s.lost
		}
		resets = append(resets, reset)
		s.done, s.doneEpoch, s.moved = at.Offset, at.LeaderEpoch, true
		s.base = Position{Offset: at.Offset, LeaderEpoch: at.LeaderEpoch}
		if c.auto && (reset != nil || s.committed == unmarked && start != Earliest && start != (OffsetSpec{})) {
			// Where it begins counts from now on: what comes behind is not to be skipped.
			s.mark, s.markEpoch = at.Offset, at.LeaderEpoch
		}
	}
	c.mu.Lock()
	for i, s := range coming {
		if !slices.Contains(c.coming, s) {
			coming[i], resets[i] = nil, nil // taken away again meanwhile
			continue
		}
		c.sources[s.place] = s
		list = append(list, c.positionLocked(s))
	}
	coming = slices.DeleteFunc(coming, func(s *source) bool { return s == nil })
	c.coming = slices.DeleteFunc(c.coming, func(s *source) bool { return slices.Contains(coming, s) })
	c.busyLocked()
	c.mu.Unlock()
	for _, r := range resets {
		c.tell(ctx, r)
	}
	if len(list) > 0 && c.cfg.OnAssigned != nil {
		c.db.callOut(func() { c.cfg.OnAssigned(ctx, c, sortPositions(list)) })
	}
	c.enqueueAll(coming)
	return nil
}
