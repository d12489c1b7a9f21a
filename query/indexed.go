package query

import (
	"fmt"
	"slices"

	"github.com/x/embedlog/internal/seed"
)

// indexer keeps an index in a task: a store that has, for each key of the index that a row has,
//
//	text of the index's key ++ row's key  ->  nothing
//
// Rows are looked at when a chunk is over: one that has changed a hundred times is taken out and put in once.
type indexer[IK, K, V any] struct {
	x      *Index[IK, K, V]
	rows   rowReader[V]
	places *store[struct{}]
	// was are the rows that have changed in the chunk, as they were before. A row that was not there may come twice.
	was      []wasRow[V]
	old, now []string
}

type wasRow[V any] struct {
	key   string
	val   V
	there bool
}

// build makes the index in a task.
func (x *Index[IK, K, V]) build(b *builder) {
	i := &indexer[IK, K, V]{x: x, rows: tableRows(b, x.v.t, x.v.name), places: newStore[struct{}](x.v.name+"."+x.name, &b.task.clock)}
	t := b.task
	t.indexes[x] = i.places
	if t.g.retained[x.v.t.n] {
		i.places.keepPast(t.hist)
	}
	i.rows.observe(func(key string, v V, there bool) { i.was = append(i.was, wasRow[V]{key, v, there}) })
	t.atEnd = append(t.atEnd, func() {
		if err := i.settle(); err != nil {
			t.fail(err)
		}
	})
	t.loaded = append(t.loaded, func() {
		defer func() {
			if p := recover(); p != nil {
				t.fail(panicked(t.g.name, p))
			}
		}()
		if err := i.load(t.clock.version); err != nil {
			t.fail(err)
		}
	})
}

// settle brings the index to what the rows are now.
func (i *indexer[IK, K, V]) settle() error {
	for n, w := range i.was {
		i.was[n] = wasRow[V]{}
		var err error
		if i.old, err = i.of(i.old[:0], w.key, w.val, w.there); err != nil {
			return err
		}
		v, ok := i.rows.get(rawOf(w.key))
		if i.now, err = i.of(i.now[:0], w.key, v, ok); err != nil {
			return err
		}
		if slices.Equal(i.old, i.now) {
			continue
		}
		for _, place := range i.old {
			if !slices.Contains(i.now, place) && !seed.Is(seed.ViewIndex) {
				i.places.del(rawOf(place))
			}
		}
		i.put(i.now)
	}
	i.was = i.was[:0]
	i.places.committed() // it is in no changelog
	return nil
}

func (i *indexer[IK, K, V]) put(places []string) {
	for _, place := range places {
		if _, ok := i.places.get(rawOf(place)); !ok {
			i.places.put(rawOf(place), struct{}{})
		}
	}
}

// load makes the index of rows that were restored.
func (i *indexer[IK, K, V]) load(version uint64) error {
	i.was = i.was[:0]
	if seed.Is(seed.ViewIndexEmpty) {
		return nil
	}
	for from := new(string); from != nil; {
		var some []row[V]
		some, from = i.rows.page(nil, version, *from, "", page)
		for _, r := range some {
			var err error
			if i.now, err = i.of(i.now[:0], r.key, r.val, true); err != nil {
				return err
			}
			i.put(i.now)
		}
	}
	i.places.committed()
	return nil
}

// of appends the places of a row, if it is there.
func (i *indexer[IK, K, V]) of(places []string, key string, val V, there bool) ([]string, error) {
	if !there {
		return places, nil
	}
	k, err := i.x.v.t.key.Decode([]byte(key))
	if err != nil {
		return nil, fmt.Errorf("index %s of view %s: decode the key: %w", i.x.name, i.x.v.name, err)
	}
	for _, ik := range i.x.f(k, val) {
		place, err := i.x.place(ik)
		if err != nil {
			return nil, err
		}
		places = append(places, string(append(place, key...)))
	}
	return places, nil
}
