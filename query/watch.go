package query

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
)

// Change is what has become of a row, or a mark of progress.
type Change[K, V any] struct {
	Key K
	// Value is the row of now; the zero value where it was deleted.
	Value   V
	Deleted bool
	// Version, where it is set, says that all changes up to it were given: this Change has no row.
	Version Version
}

// Watch walks the rows that there are, and then, for as long as ctx allows, those that change. It does not hold the view up: of a row that has changed
// several times since it was asked for the next, the last is given, so that what waits is bounded by the number of rows. After the rows of
// a version comes a Change that has the Version alone. An error is the last pair's: the context's, or one that matches ErrInterrupted when the view was restored
// from its last commit meanwhile, after which another Watch begins anew.
func (v *View[K, V]) Watch(ctx context.Context) iter.Seq2[Change[K, V], error] {
	return func(yield func(Change[K, V], error) bool) {
		g := v.g.serving()
		err := v.watch(ctx, yield)
		if err != nil && v.g.replacedRun(ctx, g, err) {
			err = ErrInterrupted
		}
		if err != nil {
			yield(Change[K, V]{}, fmt.Errorf("watch %s: %w", v.name, err))
		}
	}
}

func (v *View[K, V]) watch(ctx context.Context, yield func(Change[K, V], error) bool) error {
	tasks, err := v.running(ctx)
	if err != nil {
		return err
	}
	sets := make([]*keySet, len(tasks))
	for i, t := range tasks {
		sets[i] = &keySet{keys: map[string]struct{}{}}
		t.clock.Lock()
		rows := t.tables[v.t.n].(rowReader[V])
		cancel := rows.watch(sets[i])
		for from := new(string); from != nil; {
			var some []row[V]
			some, from = rows.page(nil, t.clock.version, *from, "", page)
			for _, r := range some {
				sets[i].keys[r.key] = struct{}{}
			}
		}
		t.clock.Unlock()
		defer func() {
			t.clock.Lock()
			defer t.clock.Unlock()
			cancel()
		}()
		if err := t.readErr(); err != nil {
			return err
		}
	}
	for first := true; ; first = false {
		var version Version
		any := first
		for i, t := range tasks {
			keys, changes, err := v.drain(t, sets[i], &version)
			if err != nil {
				return err
			}
			for k := range keys {
				any = true
				if !yield(changes[k], nil) {
					return nil
				}
			}
		}
		if version.sort(); any && !yield(Change[K, V]{Version: version}, nil) {
			return nil
		}
		if err := tasks[0].g.moved(ctx, tasks, sets); err != nil {
			return err
		}
	}
}

// drain takes the rows of a set, as they are now.
func (v *View[K, V]) drain(t *task, w *keySet, version *Version) (keys []string, changes []Change[K, V], err error) {
	rows := t.tables[v.t.n].(rowReader[V])
	t.clock.Lock()
	defer t.clock.Unlock()
	keys = slices.Sorted(maps.Keys(w.keys))
	clear(w.keys)
	changes = make([]Change[K, V], len(keys))
	for i, key := range keys {
		c := &changes[i]
		if c.Key, err = v.t.key.Decode([]byte(key)); err != nil {
			return nil, nil, fmt.Errorf("decode the key: %w", err)
		}
		value, found := rows.get([]byte(key))
		c.Value, c.Deleted = value, !found
	}
	if err := t.readErr(); err != nil {
		return nil, nil, err
	}
	*version = t.versionLocked(*version)
	return keys, changes, nil
}

// moved waits until a task has moved and a set has keys.
func (g *Graph) moved(ctx context.Context, tasks []*task, sets []*keySet) error {
	for {
		signals := make([]<-chan struct{}, len(tasks))
		for i, t := range tasks {
			t.clock.RLock()
			signals[i] = t.moved
			some := len(sets[i].keys) > 0
			t.clock.RUnlock()
			if some {
				return nil
			}
			if err := g.replaced(t); err != nil {
				return err
			}
		}
		if err := anyOf(ctx, signals); err != nil {
			return err
		}
	}
}

// anyOf waits until one of some channels is closed.
func anyOf(ctx context.Context, signals []<-chan struct{}) error {
	if len(signals) == 1 {
		select {
		case <-signals[0]:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	done := make(chan struct{})
	defer close(done)
	one := make(chan struct{}, len(signals))
	for _, s := range signals {
		go func() {
			select {
			case <-s:
				one <- struct{}{}
			case <-done:
			}
		}()
	}
	select {
	case <-one:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
