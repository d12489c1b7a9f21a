package query

import (
	"context"
	"errors"

	"github.com/x/embedlog"
)

// bound is what a generation that does not serve yet may do: how far it reads, and which records' rows sinks leave out, because an older
// generation has appended them. It is never written after it was set; another one takes its place. A nil one allows everything.
type bound struct {
	// limits are how far the sources are read, where there are any: by the stage that reads them, or by anyStage. What is not among them is not read.
	limits map[stagePlace]int64
	// mute is where older generations ended; all says that sinks append nothing.
	mute    map[place]int64
	all     bool
	changed chan struct{} // closed when another one has taken its place
}

// anyStage is in the place of a stage's number where all stages stop at the same records.
const anyStage = -1

// boundOf is what a generation may do whose predecessors have ended.
func boundOf(b *building) *bound {
	if b.Whole {
		next := &bound{all: true, limits: map[stagePlace]int64{}}
		for _, e := range b.Ends {
			next.limits[stagePlace{e.Stage, place{e.Topic, e.Partition}}] = e.Offset
		}
		return next
	}
	next := &bound{mute: map[place]int64{}}
	for _, e := range b.Ends {
		at := place{e.Topic, e.Partition}
		next.mute[at] = max(next.mute[at], e.Offset)
	}
	return next
}

// setBound sets what the tasks may do.
func (g *Graph) setBound(b *bound) {
	if b != nil {
		b.changed = make(chan struct{})
	}
	if was := g.bound.Swap(b); was != nil {
		close(was.changed)
	}
}

// limit is the first offset that a task may not read.
func (b *bound) limit(t *task, at place) (offset int64, ok bool) {
	if b == nil || b.limits == nil {
		return 0, false
	}
	if offset, ok := b.limits[stagePlace{anyStage, at}]; ok {
		return offset, true
	}
	return b.limits[stagePlace{t.stage.index, at}], true
}

// mutes says whether what comes of a record is left out by sinks that an older generation has, too.
func (b *bound) mutes(at place, offset int64) bool {
	return b != nil && (b.all || offset < b.mute[at])
}

// mutedNow says whether such sinks leave out what comes to them.
func (t *task) mutedNow() bool {
	b := t.g.bound.Load()
	return b != nil && (b.all || t.muted)
}

// errHeld says that a batch, or the rest of it, is beyond the bound.
var errHeld = errors.New("query: the generation may not read that yet")

// take takes a batch, or as much of it as the task may read. The rest is held, and the partition paused, until it may.
func (t *task) take(ctx context.Context, b *embedlog.Batch) error {
	at := place{b.Topic, b.Partition}
	if len(t.held[at]) > 0 {
		t.held[at] = append(t.held[at], b)
		return errHeld
	}
	held, err := t.takeSome(ctx, b)
	if err != nil || !held {
		return err
	}
	t.held[at] = []*embedlog.Batch{b}
	if err := t.consumer.Pause(at.topic, at.partition); err != nil {
		return err
	}
	return errHeld
}

// unbound is closed when what is held may be read; nil where nothing is held.
func (t *task) unbound() <-chan struct{} {
	if t.bounded == nil {
		return nil
	}
	return t.bounded.changed
}

// takeHeld goes on with what is held.
func (t *task) takeHeld(ctx context.Context) error {
	all := t.held
	t.held, t.bounded = map[place][]*embedlog.Batch{}, nil
	for at, list := range all {
		for _, b := range list {
			if err := t.takeNext(ctx, b); err != nil {
				return err
			}
		}
		if len(t.held[at]) > 0 {
			continue
		}
		if err := t.consumer.Resume(at.topic, at.partition); err != nil {
			return err
		}
	}
	return nil
}
