package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog"
)

// View is a table that is kept up to date. Reading it never stops that.
//
// Its methods may be called from several goroutines. What they return is shared with the view: it must not be changed. They fail with
// the context's error, or with a *StoppedError when the graph is closed or has stopped, which says why.
type View[K, V any] struct {
	g    *Graph
	name string
	t    *Table[K, V]
}

// Name is the view's name.
func (v *View[K, V]) Name() string { return v.name }

// Graph is what the view is a part of.
func (v *View[K, V]) Graph() *Graph { return v.g }

// Table is the view's description, for others to be made of.
func (v *View[K, V]) Table() *Table[K, V] { return v.t }

// Close closes the view's graph.
func (v *View[K, V]) Close() error { return v.g.Close() }

// Get is the row of a key as it is with every record that was acknowledged before the call: one that was produced in an open transaction is not.
func (v *View[K, V]) Get(ctx context.Context, key K) (value V, found bool, err error) {
	return v.get(ctx, key, true)
}

// GetNow is the row of a key as it is now. It waits only while the view is being restored.
func (v *View[K, V]) GetNow(ctx context.Context, key K) (value V, found bool, err error) {
	return v.get(ctx, key, false)
}

func (v *View[K, V]) get(ctx context.Context, key K, fresh bool) (value V, found bool, err error) {
	var buf [64]byte
	raw, err := v.t.key.Append(buf[:0], key)
	if err != nil {
		return value, false, fmt.Errorf("view %s: encode the key: %w", v.name, err)
	}
	if err := v.g.ready(); err != nil {
		return value, false, fmt.Errorf("view %s: %w", v.name, err)
	}
	slot := v.g.stageOf(v.name).slotOf(placeOf(v.t.key, raw))
	for {
		g := v.g.serving()
		value, found, err = v.getOf(ctx, g, slot, raw, fresh)
		if err == nil {
			return value, found, nil
		}
		if !v.g.replacedRun(ctx, g, err) {
			return value, false, fmt.Errorf("view %s: %w", v.name, err)
		}
	}
}

// getOf is get from a run of the graph.
func (v *View[K, V]) getOf(ctx context.Context, g *Graph, slot int, raw []byte, fresh bool) (value V, found bool, err error) {
	err = g.at(ctx, slot, func(t *task) error {
		if fresh {
			if err := t.catchUp(ctx); err != nil {
				return err
			}
		}
		rows := t.tables[v.t.n].(rowReader[V])
		t.clock.RLock()
		defer t.clock.RUnlock()
		value, found = rows.get(raw)
		return t.readErr()
	}, request{Op: opGet, View: v.name, Key: raw, Fresh: fresh}, func(_ int32, a *reply) (err error) {
		if found = a.Found; found {
			value, err = v.t.value.Decode(a.Value)
		}
		return err
	})
	return value, found, err
}

// ready says whether the graph was started.
func (g *Graph) ready() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.started {
		return ErrNotStarted
	}
	return g.misuse
}

// running are the tasks that have the view's rows, when they do.
func (v *View[K, V]) running(ctx context.Context) ([]*task, error) {
	if err := v.g.ready(); err != nil {
		return nil, err
	}
	return v.g.serving().stageOf(v.name).running(ctx)
}

// all are the tasks of a graph, when each has its rows.
func (g *Graph) all(ctx context.Context) ([]*task, error) {
	if err := g.ready(); err != nil {
		return nil, err
	}
	list := make([]*task, len(g.slots))
	for i := range g.slots {
		var err error
		if list[i], err = g.local(ctx, i); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// catchUp waits until a task has every record that is acknowledged now.
func (t *task) catchUp(ctx context.Context) error {
	for _, name := range t.stage.topics {
		ends, err := t.g.sources[name].ListOffsets(ctx, embedlog.LastStable)
		if err != nil {
			return err
		}
		for _, end := range ends {
			if t.stage.tasks > 1 && int(end.Partition) != t.index {
				continue
			}
			if err := t.reach(ctx, place{name, end.Partition}, end.Offset); err != nil {
				return err
			}
		}
	}
	for _, rep := range t.stage.reads {
		err := t.follow(ctx, rep, func(ctx context.Context, slot int) (int64, error) { return t.g.settle(ctx, slot, true) })
		if err != nil {
			return err
		}
	}
	return nil
}

// reach waits until a task has read a partition up to an offset.
func (t *task) reach(ctx context.Context, at place, end int64) error {
	pause := 50 * time.Microsecond
	for {
		t.clock.RLock()
		pos, moved := t.positions[at], t.moved
		t.clock.RUnlock()
		if pos >= end {
			return nil
		}
		if t.passed(at, end) {
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-moved:
			pause = 50 * time.Microsecond
		case <-timer.C:
			pause = min(2*pause, 10*time.Millisecond)
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		timer.Stop()
		if err := t.g.replaced(t); err != nil {
			return err
		}
	}
}

// replaced says that a task is not the one that runs any more.
func (g *Graph) replaced(t *task) error {
	s := &g.slots[t.stage.first+t.index]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if s.task != t {
		return ErrInterrupted
	}
	return nil
}

// Version is how far a graph's sources have been read: a position for each of their partitions, by topic and partition. Everything below is in
// the rows, nothing above.
type Version []embedlog.Position

// String is topic/partition@offset for each, with spaces between.
func (v Version) String() string {
	var b strings.Builder
	for i, p := range v {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s/%d@%d", p.Topic, p.Partition, p.Offset)
	}
	return b.String()
}

// versionLocked adds a task's positions in the sources: of what comes through repartitions, those that the tasks before had.
func (t *task) versionLocked(v Version) Version {
	var own Version
	for at, pos := range t.positions {
		r := t.rep(at.topic)
		if r == nil {
			own = append(own, embedlog.Position{Topic: at.topic, Partition: at.partition, LeaderEpoch: -1, Offset: pos})
			continue
		}
		for i, u := range t.part(r, at.partition).from {
			if u.Mark < 0 {
				own = t.g.writer(r.node).origins(i, own)
			}
			own = own.merged(u.Version)
		}
	}
	if len(v) == 0 {
		return own
	}
	return v.merged(own)
}

func (v Version) sort() {
	slices.SortFunc(v, func(a, b embedlog.Position) int {
		if c := strings.Compare(a.Topic, b.Topic); c != 0 {
			return c
		}
		return int(a.Partition - b.Partition)
	})
}

// Version is how far the graph's tasks are, each at its own moment.
func (g *Graph) Version(ctx context.Context) (Version, error) {
	if err := g.ready(); err != nil {
		return nil, err
	}
	var v Version
	err := g.retried(ctx, func(g *Graph) error {
		v = nil
		for i := range g.slots {
			err := g.at(ctx, i, func(t *task) error {
				t.clock.RLock()
				defer t.clock.RUnlock()
				v = t.versionLocked(v)
				return nil
			}, request{Op: opVersion}, func(_ int32, a *reply) error { v = v.merged(a.Version); return nil })
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	v.sort()
	return v, nil
}

// Wait waits until the views have the records at some positions, such as Produce returns: reads see them then. Positions of other
// topics do not count.
func (g *Graph) Wait(ctx context.Context, records ...embedlog.Position) error {
	if err := g.ready(); err != nil {
		return err
	}
	return g.retried(ctx, func(g *Graph) error { return g.wait(ctx, records) })
}

func (g *Graph) wait(ctx context.Context, records []embedlog.Position) error {
	touched := make([]bool, len(g.slots))
	for _, stage := range g.stages {
		for index := range stage.tasks {
			slot := stage.first + index
			for _, p := range records {
				if !slices.Contains(stage.topics, p.Topic) || stage.tasks > 1 && int(p.Partition) < stage.tasks && int(p.Partition) != index {
					continue
				}
				if stage.tasks > 1 && int(p.Partition) != index {
					return fmt.Errorf("wait for %s/%d@%d: the graph has %d tasks", p.Topic, p.Partition, p.Offset, stage.tasks)
				}
				touched[slot] = true
				err := g.at(ctx, slot, func(t *task) error {
					return t.reach(ctx, place{p.Topic, p.Partition}, p.Offset+1)
				}, request{Op: opReach, Topic: p.Topic, Part: p.Partition, Offset: p.Offset + 1}, nothing)
				if err != nil {
					return fmt.Errorf("wait for %s/%d@%d: %w", p.Topic, p.Partition, p.Offset, err)
				}
			}
			for _, rep := range stage.reads {
				err := g.at(ctx, slot, func(t *task) error {
					return t.follow(ctx, rep, func(ctx context.Context, before int) (int64, error) {
						if !touched[before] {
							return 0, nil
						}
						return g.settle(ctx, before, false)
					})
				}, request{Op: opCatchUp}, nothing)
				if err != nil {
					return fmt.Errorf("wait for records behind repartition %s: %w", rep.rep.name, err)
				}
				touched[slot] = true
			}
		}
	}
	return nil
}

// CatchUp waits until the views have every record that was acknowledged before the call.
func (g *Graph) CatchUp(ctx context.Context) error {
	_, err := g.caughtUp(ctx)
	return err
}

// caughtUp is CatchUp. It says which lives of the tasks have caught up: one that begins again after that may be behind.
func (g *Graph) caughtUp(ctx context.Context) (lives []uint64, err error) {
	if err := g.ready(); err != nil {
		return nil, err
	}
	err = g.retried(ctx, func(g *Graph) error {
		lives = make([]uint64, len(g.slots))
		for i := range g.slots {
			err := g.at(ctx, i, func(t *task) error {
				lives[i] = t.life
				return t.catchUp(ctx)
			}, request{Op: opCatchUp}, func(_ int32, a *reply) error { lives[i] = a.Life; return nil })
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return lives, nil
}

// Snapshot is a graph's views as they are at one version, for as long as it is held: see In. It must be released; what
// it keeps in memory is what changes meanwhile. Its methods, and reads of it, may be called from several goroutines.
type Snapshot struct {
	g        *Graph
	tasks    []*task // nil of those that other nodes have
	far      []far
	pins     []uint64
	released []bool
	lives    []uint64 // of the tasks
	version  Version
	past     bool        // some pins are of the past
	over     atomic.Bool // it was released
	mu       sync.Mutex  // of released
}

// held says whether the snapshot has its rows still. It is asked when rows have been read: Release ends what was read meanwhile.
func (s *Snapshot) held() error {
	if s.over.Load() {
		return fmt.Errorf("the snapshot was released: %w", ErrClosed)
	}
	return nil
}

// Snapshot takes a snapshot of all views of the graph, with every record that was acknowledged before the call. Each task has its own
// partitions, and all views have the same.
func (g *Graph) Snapshot(ctx context.Context) (*Snapshot, error) { return g.snapshot(ctx, g.caughtUp) }

// SnapshotNow is Snapshot of what there is now.
func (g *Graph) SnapshotNow(ctx context.Context) (*Snapshot, error) {
	return g.snapshot(ctx, func(context.Context) ([]uint64, error) { return nil, g.ready() })
}

// snapshot takes one of what there is behind before, which says which lives of the tasks it has to be of, or nothing. It begins again when a task does.
func (g *Graph) snapshot(ctx context.Context, before func(context.Context) (lives []uint64, err error)) (*Snapshot, error) {
	for {
		lives, err := before(ctx)
		var s *Snapshot
		if err == nil {
			err = g.retried(ctx, func(g *Graph) (err error) { s, err = g.pinAll(ctx); return err })
		}
		switch {
		case err == nil && (lives == nil || slices.Equal(s.lives, lives)):
			return s, nil
		case err == nil:
			s.Release() // a task began again from its last commit in between
		case !errors.Is(err, ErrInterrupted):
			return nil, fmt.Errorf("snapshot of %s: %w", g.name, err)
		}
		select {
		case <-time.After(againPause):
		case <-ctx.Done():
			return nil, fmt.Errorf("snapshot of %s: %w", g.name, ctx.Err())
		}
	}
}

func (g *Graph) pinAll(ctx context.Context) (*Snapshot, error) {
	n := len(g.slots)
	s := &Snapshot{g: g, tasks: make([]*task, n), far: make([]far, n), pins: make([]uint64, n), lives: make([]uint64, n), released: make([]bool, n)}
	cut, release, err := g.cut(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	for i := range g.slots {
		var v Version
		err := g.at(ctx, i, func(t *task) error {
			if cut != nil && cut[i] != t {
				return ErrInterrupted
			}
			s.tasks[i], s.lives[i] = t, t.life
			s.pins[i], v = t.pin()
			return nil
		}, request{Op: opPin}, func(node int32, a *reply) error {
			s.tasks[i], s.lives[i] = nil, a.Life
			s.far[i], v = far{node, a.Pin}, a.Version
			return nil
		})
		if err != nil {
			for ; i < n; i++ {
				s.released[i] = true
			}
			s.Release()
			return nil, err
		}
		s.version = s.version.merged(v)
	}
	s.version.sort()
	return s, nil
}

// Version is what the snapshot's rows are of.
func (s *Snapshot) Version() Version { return s.version }

// Release ends the snapshot: reads of it fail with an error that matches ErrClosed. Calls after the first do nothing.
func (s *Snapshot) Release() {
	s.over.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, t := range s.tasks {
		if s.released[i] {
			continue
		}
		s.released[i] = true
		if t != nil {
			t.clock.release(s.pins[i])
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, _ = s.read(ctx, i, request{Op: opUnpin}) // otherwise it ends by itself
		cancel()
	}
}

// Rows of a view in a snapshot.
type SnapshotRows[K, V any] struct {
	s *Snapshot
	v *View[K, V]
}

// In is a view of the snapshot's graph, as it is there.
func (v *View[K, V]) In(s *Snapshot) *SnapshotRows[K, V] { return &SnapshotRows[K, V]{s, v} }

// check says whether the snapshot has the view.
func (r *SnapshotRows[K, V]) check() error {
	if r.s == nil {
		return fmt.Errorf("view %s: the snapshot is nil: %w", r.v.name, ErrOtherGraph)
	}
	if r.s.g.program() != r.v.g {
		return fmt.Errorf("view %s: %w", r.v.name, ErrOtherGraph)
	}
	if r.s.past && !r.v.g.retained[r.v.t.n] {
		return &NotRetainedError{Graph: r.v.g.name, View: r.v.name}
	}
	if err := cmp.Or(r.v.g.ready(), r.s.held()); err != nil {
		return fmt.Errorf("view %s: %w", r.v.name, err)
	}
	return nil
}

// Get is the row of a key.
func (r *SnapshotRows[K, V]) Get(key K) (value V, found bool, err error) {
	raw, err := r.v.t.key.Append(nil, key)
	if err != nil {
		return value, false, fmt.Errorf("view %s: encode the key: %w", r.v.name, err)
	}
	if err := r.check(); err != nil {
		return value, false, err
	}
	stage := r.v.g.stageOf(r.v.name)
	i := stage.slotOf(placeOf(r.v.t.key, raw))
	t := r.s.tasks[i]
	if t == nil {
		ctx, cancel := context.WithTimeout(context.Background(), farPatience)
		a, err := r.s.read(ctx, i, request{Op: opGet, View: r.v.name, Key: raw})
		if cancel(); err == nil && a.Found {
			value, err = r.v.t.value.Decode(a.Value)
		}
		if err != nil {
			return value, false, fmt.Errorf("view %s: %w", r.v.name, err)
		}
		return value, a.Found, nil
	}
	rows := t.tables[r.v.t.n].(rowReader[V])
	t.clock.RLock()
	v, found := rows.getAt(raw, r.s.pins[i])
	t.clock.RUnlock()
	if err := cmp.Or(t.readErr(), r.s.held()); err != nil {
		return value, false, fmt.Errorf("view %s: %w", r.v.name, err)
	}
	value = v
	return value, found, nil
}

// All walks the rows in the order of the bytes of their keys. It can be repeated. An error, of a key that cannot be decoded, is the last pair's.
func (r *SnapshotRows[K, V]) All() iter.Seq2[Row[K, V], error] { return r.walk("", "") }

// Range is All for keys from the one to the other, which is not included, in the order of their bytes.
func (r *SnapshotRows[K, V]) Range(from, to K) iter.Seq2[Row[K, V], error] {
	return func(yield func(Row[K, V], error) bool) {
		a, err := r.v.t.key.Append(nil, from)
		var b []byte
		if err == nil {
			b, err = r.v.t.key.Append(nil, to)
		}
		if err != nil {
			yield(Row[K, V]{}, fmt.Errorf("view %s: encode the key: %w", r.v.name, err))
			return
		}
		if len(b) > 0 {
			r.walk(string(a), string(b))(yield)
		}
	}
}

// Prefix is All for keys whose bytes begin with prefix.
func (r *SnapshotRows[K, V]) Prefix(prefix []byte) iter.Seq2[Row[K, V], error] {
	end := slices.Clone(prefix)
	for len(end) > 0 && end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	if len(end) > 0 {
		end[len(end)-1]++
	}
	return r.walk(string(prefix), string(end))
}

// Row is a row of a view.
type Row[K, V any] struct {
	Key   K
	Value V
}

// page is how many rows a walk takes at a time: the task waits as long as that takes.
const page = 256

// walk merges the tasks' rows.
func (r *SnapshotRows[K, V]) walk(from, to string) iter.Seq2[Row[K, V], error] {
	return func(yield func(Row[K, V], error) bool) {
		if err := r.check(); err != nil {
			yield(Row[K, V]{}, err)
			return
		}
		type cursor struct {
			rows []row[V]
			next *string
		}
		cursors := make([]cursor, len(r.s.tasks))
		fill := func(i int) (err error) {
			c, t := &cursors[i], r.s.tasks[i]
			for len(c.rows) == 0 && c.next != nil {
				if t == nil {
					if c.rows, c.next, err = r.far(i, *c.next, to); err != nil {
						return fmt.Errorf("view %s: %w", r.v.name, err)
					}
					continue
				}
				t.clock.RLock()
				c.rows, c.next = t.tables[r.v.t.n].(rowReader[V]).page(c.rows[:0], r.s.pins[i], *c.next, to, page)
				t.clock.RUnlock()
				if err := t.readErr(); err != nil {
					return fmt.Errorf("view %s: %w", r.v.name, err)
				}
			}
			if err := r.s.held(); err != nil {
				return fmt.Errorf("view %s: %w", r.v.name, err)
			}
			return nil
		}
		stage := r.v.g.stageOf(r.v.name)
		for i := stage.first; i < stage.first+stage.tasks; i++ {
			cursors[i].next = &from
			if err := fill(i); err != nil {
				yield(Row[K, V]{}, err)
				return
			}
		}
		for {
			least := -1
			for i := range cursors {
				if len(cursors[i].rows) > 0 && (least < 0 || cursors[i].rows[0].key < cursors[least].rows[0].key) {
					least = i
				}
			}
			if least < 0 {
				return
			}
			c := &cursors[least]
			key, err := r.v.t.key.Decode([]byte(c.rows[0].key))
			if err != nil {
				yield(Row[K, V]{}, fmt.Errorf("view %s: decode the key: %w", r.v.name, err))
				return
			}
			if !yield(Row[K, V]{key, c.rows[0].val}, nil) {
				return
			}
			if c.rows = c.rows[1:]; len(c.rows) == 0 {
				if err := fill(least); err != nil {
					yield(Row[K, V]{}, err)
					return
				}
			}
		}
	}
}

// far is a page of what another node has.
func (r *SnapshotRows[K, V]) far(i int, from, to string) (rows []row[V], next *string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), farPatience)
	defer cancel()
	a, err := r.s.read(ctx, i, request{Op: opPage, View: r.v.name, From: []byte(from), To: []byte(to)})
	if err != nil {
		return nil, nil, err
	}
	for _, o := range a.Rows {
		v, err := r.v.t.value.Decode(o.Value)
		if err != nil {
			return nil, nil, err
		}
		rows = append(rows, row[V]{string(o.Key), v})
	}
	next, err = a.next(from)
	return rows, next, err
}

// All walks the view's rows as they are with every record that was acknowledged before the loop began. An error is the last pair's.
func (v *View[K, V]) All(ctx context.Context) iter.Seq2[Row[K, V], error] {
	return v.inSnapshot(ctx, func(r *SnapshotRows[K, V]) iter.Seq2[Row[K, V], error] { return r.All() })
}

// Range is All for keys from the one to the other, which is not included, in the order of their bytes.
func (v *View[K, V]) Range(ctx context.Context, from, to K) iter.Seq2[Row[K, V], error] {
	return v.inSnapshot(ctx, func(r *SnapshotRows[K, V]) iter.Seq2[Row[K, V], error] { return r.Range(from, to) })
}

// Prefix is All for keys whose bytes begin with prefix.
func (v *View[K, V]) Prefix(ctx context.Context, prefix []byte) iter.Seq2[Row[K, V], error] {
	return v.inSnapshot(ctx, func(r *SnapshotRows[K, V]) iter.Seq2[Row[K, V], error] { return r.Prefix(prefix) })
}

func (v *View[K, V]) inSnapshot(ctx context.Context, walk func(*SnapshotRows[K, V]) iter.Seq2[Row[K, V], error]) iter.Seq2[Row[K, V], error] {
	return inSnapshot(ctx, v.g, func(s *Snapshot) iter.Seq2[Row[K, V], error] { return walk(v.In(s)) })
}

// Len is how many rows the view has now.
func (v *View[K, V]) Len(ctx context.Context) (n int, err error) {
	if err := v.g.ready(); err != nil {
		return 0, fmt.Errorf("view %s: %w", v.name, err)
	}
	s := v.g.stageOf(v.name)
	err = v.g.retried(ctx, func(g *Graph) error {
		n = 0
		for i := range s.tasks {
			err := g.at(ctx, s.first+i, func(t *task) error {
				t.clock.RLock()
				defer t.clock.RUnlock()
				n += t.tables[v.t.n].(rowReader[V]).count()
				return nil
			}, request{Op: opLen, View: v.name}, func(_ int32, a *reply) error { n += a.N; return nil })
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("view %s: %w", v.name, err)
	}
	return n, nil
}
