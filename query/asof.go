package query

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/x/embedlog"
)

// Retention is how much of a view's past can be read: see View.Retain.
type Retention struct {
	// For is how long a version can be read at least after it was replaced. Zero is no bound: Versions alone counts.
	For time.Duration
	// Versions is how many can be read, of each task. With For they are at least For/Versions apart in time: those in between are not kept, so that what a
	// row's past takes in memory is at most so many values. Zero means 1,000.
	Versions int
}

const defaultVersions = 1000

// Retain has a view keep its past, in memory, for Graph.SnapshotAt, and returns the view. It is called before Start. All views of a graph
// that have a past have the same retention. After a restart the past begins anew. With
// Options.Store Start fails with ErrRetainOnDisk, and in a graph with repartitions with another error.
func (v *View[K, V]) Retain(r Retention) *View[K, V] {
	v.g.retain(v.t.n, v.name, r)
	return v
}

func (g *Graph) retain(n *node, name string, r Retention) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.Versions == 0 {
		r.Versions = defaultVersions
	}
	switch {
	case g.started:
		g.misuse = fmt.Errorf("%w: view %s was to keep its past afterwards", ErrStarted, name)
		return
	case r.Versions < 0 || r.For < 0:
		g.retainErr = fmt.Errorf("view %s: a retention of %v and %d versions", name, r.For, r.Versions)
	case len(g.retained) > 0 && g.retention != r:
		g.retainErr = fmt.Errorf("view %s is to keep its past for %v and %d versions, another view for %v and %d: all of a graph have the same",
			name, r.For, r.Versions, g.retention.For, g.retention.Versions)
	}
	g.retention = r
	g.retained[n] = true
}

// keepPast gives a task a history, where a view keeps its past. What is there before the first record is a version, too.
func (g *Graph) keepPast(t *task) {
	if len(g.retained) > 0 {
		t.hist, t.since = &history{r: g.retention}, time.Now()
	}
}

// history is the versions of a task that can be read. The task's lock is held.
type history struct {
	r      Retention
	points []point // ascending
	trims  []func(oldest uint64)
}

// point is a version, and what it is of.
type point struct {
	version uint64
	at      map[place]int64
	when    time.Time // when it was published
}

// keep is told of the version that is about to be replaced: it can be read from now on, unless it follows too closely.
func (h *history) keep(c *clock, at map[place]int64, when, now time.Time) {
	if len(h.points) == 0 || h.r.For == 0 || when.Sub(h.points[len(h.points)-1].when) >= h.r.For/time.Duration(h.r.Versions) {
		h.points = append(h.points, point{c.version, maps.Clone(at), when})
	}
	gone := 0
	if h.r.For == 0 {
		gone = max(len(h.points)-h.r.Versions, 0)
	} else {
		// One that was the latest at the horizon is the answer to whoever asks for what was then.
		for gone+1 < len(h.points) && now.Sub(h.points[gone+1].when) >= h.r.For {
			gone++
		}
	}
	if gone > 0 {
		clear(h.points[:gone])
		h.points = h.points[gone:]
		h.trim(c)
	}
}

// oldest is the oldest version that somebody may read.
func (h *history) oldest(c *clock) uint64 {
	oldest := c.version
	if len(h.points) > 0 {
		oldest = h.points[0].version
	}
	if len(c.pins) > 0 {
		oldest = min(oldest, c.pins[0])
	}
	return oldest
}

func (h *history) trim(c *clock) {
	oldest := h.oldest(c)
	for _, f := range h.trims {
		f(oldest)
	}
}

// wants says whether a value that was written at from, and is replaced now, is a part of the past.
func (h *history) wants(from uint64) bool {
	return h != nil && len(h.points) > 0 && h.points[len(h.points)-1].version >= from
}

// outdated is a value of the past: until says when it was replaced.
type outdated[V any] struct {
	e     *entry[V]
	until uint64
}

// keepPast has a store keep the versions of a history.
func (s *store[V]) keepPast(h *history) {
	if s.hist == nil {
		s.hist = h
		h.trims = append(h.trims, s.trim)
	}
}

func (r *storeRows[S, V]) keepPast(h *history) { r.s.keepPast(h) }

// trim drops the values that nobody sees at the oldest version and later.
func (s *store[V]) trim(oldest uint64) {
	for len(s.past) > 0 && s.past[0].until <= oldest {
		e := s.past[0].e
		s.past[0] = outdated[V]{}
		s.past = s.past[1:]
		if e.is.version <= oldest {
			e.older, e.kept = nil, false
			s.tidy(e)
			continue
		}
		for p := e.older; p != nil; p = p.older {
			if p.version <= oldest {
				p.older = nil
			}
		}
	}
}

// ErrRetainOnDisk says that a view was to keep its past in a graph with Options.Store: a past is in memory, and so are the rows that have one.
var ErrRetainOnDisk = errors.New("query: a view that keeps its past has its rows in memory: Options.Store is for graphs without")

// ErrNotRetained is matched by *NotRetainedError.
var ErrNotRetained = errors.New("query: the version is not kept")

// NotRetainedError says that a version was asked for that is not kept any more, or of a view that keeps no past.
type NotRetainedError struct {
	Graph string
	View  string // that keeps no past, if that is the reason
	// Asked is what was asked for, Oldest the oldest version that there is.
	Asked, Oldest Version
}

func (e *NotRetainedError) Error() string {
	if e.View != "" {
		return fmt.Sprintf("view %s of graph %s keeps no past: View.Retain has it keep some", e.View, e.Graph)
	}
	return fmt.Sprintf("graph %s as of %v: the oldest version that is kept is %v", e.Graph, e.Asked, e.Oldest)
}

// Is matches ErrNotRetained.
func (e *NotRetainedError) Is(target error) bool { return target == ErrNotRetained }

// SnapshotAt takes a snapshot of the graph as it was at the latest version that is kept of which no position is behind the one that
// asked names; partitions that it does not name may be anywhere. Snapshot.Version says which it is, of each task its own. Views that have Retain can be read in it; all can where
// it is the version of now. It waits for nothing but the graph's rows: a version that is not there yet is the one of now, see Wait.
// It fails with a *NotRetainedError when no version is old enough.
func (g *Graph) SnapshotAt(ctx context.Context, asked Version) (*Snapshot, error) {
	if err := g.ready(); err != nil {
		return nil, fmt.Errorf("snapshot of %s: %w", g.name, err)
	}
	var s *Snapshot
	err := g.retried(ctx, func(g *Graph) (err error) { s, err = g.snapshotAt(ctx, asked); return err })
	return s, err
}

func (g *Graph) snapshotAt(ctx context.Context, asked Version) (*Snapshot, error) {
	tasks, err := g.all(ctx)
	if err != nil {
		return nil, fmt.Errorf("snapshot of %s: %w", g.name, err)
	}
	want := make(map[place]int64, len(asked))
	for _, p := range asked {
		want[place{p.Topic, p.Partition}] = p.Offset
	}
	s := &Snapshot{g: g, tasks: tasks, pins: make([]uint64, len(tasks)), released: make([]bool, len(tasks))}
	var oldest Version
	missing := false
	for i, t := range tasks {
		at, first, ok := t.pinAt(want, &s.pins[i], &s.past)
		s.released[i] = !ok
		missing = missing || !ok
		s.version = versionOf(s.version, at)
		oldest = versionOf(oldest, first)
	}
	s.version.sort()
	oldest.sort()
	if missing {
		s.Release()
		return nil, &NotRetainedError{Graph: g.name, Asked: slices.Clone(asked), Oldest: oldest}
	}
	return s, nil
}

// pinAt pins the latest version that is not behind what is wanted.
func (t *task) pinAt(want map[place]int64, pin *uint64, past *bool) (at, oldest map[place]int64, ok bool) {
	t.clock.Lock()
	defer t.clock.Unlock()
	now := maps.Clone(t.positions)
	oldest = now
	if t.hist != nil && len(t.hist.points) > 0 {
		oldest = t.hist.points[0].at
	}
	if !behind(now, want) {
		*pin = t.clock.pin()
		return now, oldest, true
	}
	if t.hist == nil {
		return nil, oldest, false
	}
	for i := len(t.hist.points) - 1; i >= 0; i-- {
		if p := &t.hist.points[i]; !behind(p.at, want) {
			*pin, *past = p.version, true
			t.clock.pinOld(p.version)
			return p.at, oldest, true
		}
	}
	return nil, oldest, false
}

// behind says that a version has a record that is behind what is wanted.
func behind(at, want map[place]int64) bool {
	for p, offset := range want {
		if pos, ok := at[p]; ok && pos > offset {
			return true
		}
	}
	return false
}

// pinOld keeps the rows of a version that is kept.
func (c *clock) pinOld(version uint64) {
	i, _ := slices.BinarySearch(c.pins, version)
	c.pins = slices.Insert(c.pins, i, version)
}

func versionOf(v Version, at map[place]int64) Version {
	for p, offset := range at {
		v = append(v, embedlog.Position{Topic: p.topic, Partition: p.partition, LeaderEpoch: -1, Offset: offset})
	}
	return v
}
