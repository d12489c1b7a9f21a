package query

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/seed"
)

// A snapshot of a graph with several stages is one cut: all tasks have the same records, also where a topic is read by several of them, and
// through repartitions as well.
//
//	close  each partition of a source gets a limit: what the task has taken that is furthest in it. What lies behind waits
//	flow   stage by stage: each task reads up to its limits, applies what those before have committed, and commits
//	pin    nothing flows any more: the rows of now are of the limits, everywhere
//	open   what waited is taken
//
// A batch that a limit divides is taken, because another task has begun behind it, or stopped before it: the limit is the batch's end then, and those
// that had come so far go on.
type gate struct {
	turn   chan struct{} // of snapshots: one at a time
	mu     sync.Mutex
	limits map[place]int64 // nil: it is open
	raised int             // how often a limit was
	opened chan struct{}   // closed when it is open again, or a limit is another
	taking map[*task]taking
}

// taking is a batch that a task takes now.
type taking struct {
	at  place
	end int64
}

func newGate() *gate { return &gate{turn: make(chan struct{}, 1), taking: map[*task]taking{}} }

// enter says whether a task may take a batch of a source. If not, it may when opened is closed.
func (g *gate) enter(t *task, b *embedlog.Batch) (ok bool, opened <-chan struct{}) {
	at, end := place{b.Topic, b.Partition}, b.LastOffset+1
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limits != nil && end > g.limits[at] {
		if b.FirstOffset >= g.limits[at] {
			return false, g.opened
		}
		g.limits[at] = end
		g.raised++
		close(g.opened) // others may go on
		g.opened = make(chan struct{})
	}
	g.taking[t] = taking{at, end}
	return true, nil
}

func (g *gate) leave(t *task) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.taking, t)
}

// close sets the limits for some tasks, which are all that there are.
func (g *gate) close(tasks []*task) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits, g.opened = map[place]int64{}, make(chan struct{})
	for _, t := range tasks {
		t.clock.RLock()
		for at, pos := range t.positions {
			if t.rep(at.topic) == nil {
				g.limits[at] = max(g.limits[at], pos)
			}
		}
		t.clock.RUnlock()
		if b, ok := g.taking[t]; ok {
			g.limits[b.at] = max(g.limits[b.at], b.end)
		}
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits = nil
	close(g.opened)
}

func (g *gate) limit(at place) (offset int64, raised int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limits[at], g.raised
}

// cut has all tasks of the graph come to one cut, and stay there until release is called. With a graph of one stage there is nothing to do, and a
// graph whose tasks are at several nodes has none: then there are no tasks.
func (g *Graph) cut(ctx context.Context) (tasks []*task, release func(), err error) {
	nothing := func() {}
	if len(g.stages) == 1 || seed.Is(seed.ViewCut) {
		return nil, nothing, nil
	}
	select {
	case g.gate.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	if tasks, err = g.all(ctx); err != nil {
		<-g.gate.turn
		if errors.Is(err, ErrOtherNode) {
			return nil, nothing, nil
		}
		return nil, nil, err
	}
	g.gate.close(tasks)
	release = func() {
		g.gate.open()
		<-g.gate.turn
	}
	for before, now := -1, 0; before != now; { // a limit may have been raised after a task had come there
		before = now
		if err := g.flow(ctx, tasks); err != nil {
			release()
			return nil, nil, err
		}
		_, now = g.gate.limit(place{})
	}
	return tasks, release, nil
}

// flow has each task of a graph read up to its limits and commit, stage by stage.
func (g *Graph) flow(ctx context.Context, tasks []*task) error {
	commits := make([]int64, len(tasks))
	for _, s := range g.stages {
		for slot := s.first; slot < s.first+s.tasks; slot++ {
			t := tasks[slot]
			if err := t.comesTo(ctx); err != nil {
				return err
			}
			for _, rep := range s.reads {
				err := t.follow(ctx, rep, func(_ context.Context, before int) (int64, error) { return commits[before], nil })
				if err != nil {
					return err
				}
			}
		}
		if len(s.writes) == 0 {
			continue
		}
		done := make(chan error, s.tasks)
		for slot := s.first; slot < s.first+s.tasks; slot++ {
			go func() {
				var err error
				commits[slot], err = tasks[slot].settleCommit(ctx)
				done <- err
			}()
		}
		var err error
		for range s.tasks {
			err = errors.Join(err, <-done)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// comesTo waits until a task has read its sources up to their limits.
func (t *task) comesTo(ctx context.Context) error {
	t.clock.RLock()
	var list []place
	for at := range t.positions {
		if t.rep(at.topic) == nil {
			list = append(list, at)
		}
	}
	t.clock.RUnlock()
	for _, at := range list {
		pause := firstWait
		for {
			end, _ := t.g.gate.limit(at)
			t.clock.RLock()
			pos, moved := t.positions[at], t.moved
			t.clock.RUnlock()
			if pos >= end || t.readTo(at, end) {
				break
			}
			if err := t.await(ctx, moved, &pause); err != nil {
				return err
			}
		}
	}
	return nil
}

// readTo is passed for a limit: what waits lies behind it.
func (t *task) readTo(at place, end int64) bool {
	read, ok := t.consumer.Position(at.topic, at.partition)
	if !ok || read.Offset < end {
		return false
	}
	t.g.gate.mu.Lock()
	defer t.g.gate.mu.Unlock()
	for _, b := range t.aside { // from the last snapshot
		if at == (place{b.Topic, b.Partition}) && b.FirstOffset < end {
			return false
		}
	}
	return t.fetched.Load() == t.applied.Load()+int64(len(t.aside))
}

// wait sets the batches that wait.
func (g *gate) wait(t *task, list []*embedlog.Batch) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t.aside = list
}

// waits says whether a batch of a partition waits.
func waits(list []*embedlog.Batch, at place) bool {
	return slices.ContainsFunc(list, func(b *embedlog.Batch) bool { return at == place{b.Topic, b.Partition} })
}

// takeNext takes a batch, or has it wait until the gate is open.
func (t *task) takeNext(ctx context.Context, b *embedlog.Batch) error {
	if len(t.g.stages) == 1 || t.rep(b.Topic) != nil {
		return t.taken(t.take(ctx, b))
	}
	at := place{b.Topic, b.Partition}
	if !waits(t.aside, at) { // what waits of other partitions does not count: the limits of this one may be further
		ok, opened := t.g.gate.enter(t, b)
		if ok {
			defer t.g.gate.leave(t)
			return t.taken(t.take(ctx, b))
		}
		if t.opened == nil { // or what waits may be taken already
			t.opened = opened
		}
	}
	t.g.gate.wait(t, append(t.aside, b))
	return t.consumer.Pause(b.Topic, b.Partition) // some have been read already
}

// takeAside takes the batches that have waited, as far as they may be taken now.
func (t *task) takeAside(ctx context.Context) error {
	t.opened = nil
	stays := map[place]bool{}
	for i := 0; i < len(t.aside); {
		b := t.aside[i]
		at := place{b.Topic, b.Partition}
		ok := false
		if !stays[at] {
			var opened <-chan struct{}
			if ok, opened = t.g.gate.enter(t, b); !ok {
				t.opened, stays[at] = opened, true
			}
		}
		if !ok {
			i++
			continue
		}
		err := t.taken(t.take(ctx, b))
		if t.g.gate.leave(t); err != nil {
			return err
		}
		t.g.gate.wait(t, slices.Concat(t.aside[:i], t.aside[i+1:]))
		if !waits(t.aside, at) {
			if err := t.consumer.Resume(b.Topic, b.Partition); err != nil {
				return err
			}
		}
	}
	return nil
}

// taken says that a batch is in the rows, unless something went wrong: then who waits for it would believe that it is there.
func (t *task) taken(err error) error {
	if err == nil {
		t.applied.Add(1)
		t.publish()
	}
	if err == errHeld { // what was taken of it is in the rows
		t.publish()
		return nil
	}
	return err
}
