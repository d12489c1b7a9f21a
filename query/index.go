package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"
)

// Index finds the rows of a view by something else than their keys. It is a part of the graph: it has the rows of the view at each version, in
// snapshots too. It is kept in memory alone, and made again from the view's rows after a restart, so that it may be added to a
// graph that has run, and taken away.
type Index[IK, K, V any] struct {
	v    *View[K, V]
	name string
	key  Codec[IK]
	f    func(K, V) []IK
}

// IndexRow is a row that an index has found.
type IndexRow[IK, K, V any] struct {
	Index IK
	Key   K
	Value V
}

// AddIndex has a view's rows found by what f makes of them: nothing, one or several keys of the index. The name is one
// among the view's indexes. It is added before Start, and read afterwards. f depends on its arguments alone, and must not change them: it is
// called again when a row goes.
func AddIndex[IK, K, V any](v *View[K, V], name string, key Codec[IK], f func(key K, value V) []IK) *Index[IK, K, V] {
	x := &Index[IK, K, V]{v, name, key, f}
	o := &node{kind: "index", label: name}
	o.named(name).needs("codec", key != nil).needs("function", f != nil)
	v.g.add(output{"index", v.name + "." + name, v.t.n, x.build, o.err})
	v.g.servesIndex(v.name, x.title(), x.serve)
	return x
}

// Name is the index's name.
func (x *Index[IK, K, V]) Name() string { return x.name }

// View is what the index is of.
func (x *Index[IK, K, V]) View() *View[K, V] { return x.v }

// Get walks the rows with a key of the index, in the order of the bytes of their own keys, with every record that was acknowledged before the loop
// began. An error is the last pair's.
func (x *Index[IK, K, V]) Get(ctx context.Context, key IK) iter.Seq2[Row[K, V], error] {
	return func(yield func(Row[K, V], error) bool) {
		inSnapshot(ctx, x.v.g, func(s *Snapshot) iter.Seq2[Row[K, V], error] { return x.In(s).Get(key) })(yield)
	}
}

// All walks the rows in the order of the bytes of the index's keys, and then of their own. A row for which there are several is there
// several times.
func (x *Index[IK, K, V]) All(ctx context.Context) iter.Seq2[IndexRow[IK, K, V], error] {
	return inSnapshot(ctx, x.v.g, func(s *Snapshot) iter.Seq2[IndexRow[IK, K, V], error] { return x.In(s).All() })
}

// Range is All for keys of the index from the one to the other, which is not included, in the order of their bytes.
func (x *Index[IK, K, V]) Range(ctx context.Context, from, to IK) iter.Seq2[IndexRow[IK, K, V], error] {
	return inSnapshot(ctx, x.v.g, func(s *Snapshot) iter.Seq2[IndexRow[IK, K, V], error] { return x.In(s).Range(from, to) })
}

// Prefix is All for keys of the index whose bytes begin with prefix.
func (x *Index[IK, K, V]) Prefix(ctx context.Context, prefix []byte) iter.Seq2[IndexRow[IK, K, V], error] {
	return inSnapshot(ctx, x.v.g, func(s *Snapshot) iter.Seq2[IndexRow[IK, K, V], error] { return x.In(s).Prefix(prefix) })
}

// inSnapshot walks something in a snapshot of its own, and in another one when an owner is lost before it has found anything.
func inSnapshot[T any](ctx context.Context, g *Graph, walk func(*Snapshot) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for walkOnce(ctx, g, walk, yield) {
			select {
			case <-time.After(againPause):
			case <-ctx.Done():
				yield(*new(T), ctx.Err())
				return
			}
		}
	}
}

// walkOnce is inSnapshot, in one; again says that nothing was found because an owner was lost.
func walkOnce[T any](ctx context.Context, g *Graph, walk func(*Snapshot) iter.Seq2[T, error], yield func(T, error) bool) (again bool) {
	s, err := g.Snapshot(ctx)
	if err != nil {
		yield(*new(T), err)
		return false
	}
	defer s.Release()
	found := false
	for row, err := range walk(s) {
		if gone := ctx.Err(); gone != nil {
			err = gone
		} else if !found && err != nil && (errors.Is(err, ErrInterrupted) || elsewhere(err)) {
			return true
		}
		if found = true; !yield(row, err) || err != nil {
			return false
		}
	}
	return false
}

// SnapshotIndex is an index in a snapshot.
type SnapshotIndex[IK, K, V any] struct {
	x *Index[IK, K, V]
	r *SnapshotRows[K, V]
}

// In is an index of the snapshot's graph, as it is there.
func (x *Index[IK, K, V]) In(s *Snapshot) *SnapshotIndex[IK, K, V] {
	return &SnapshotIndex[IK, K, V]{x, x.v.In(s)}
}

// Get walks the rows with a key of the index, in the order of the bytes of their own keys. It can be repeated. An error is the last pair's.
func (s *SnapshotIndex[IK, K, V]) Get(key IK) iter.Seq2[Row[K, V], error] {
	return func(yield func(Row[K, V], error) bool) {
		place, err := s.x.place(key)
		if err != nil {
			yield(Row[K, V]{}, err)
			return
		}
		for row, err := range s.walk(string(place), endOfPrefix(place)) {
			if !yield(Row[K, V]{row.Key, row.Value}, err) {
				return
			}
		}
	}
}

// All walks the rows in the order of the bytes of the index's keys, and then of their own.
func (s *SnapshotIndex[IK, K, V]) All() iter.Seq2[IndexRow[IK, K, V], error] { return s.walk("", "") }

// Range is All for keys of the index from the one to the other, which is not included, in the order of their bytes.
func (s *SnapshotIndex[IK, K, V]) Range(from, to IK) iter.Seq2[IndexRow[IK, K, V], error] {
	return func(yield func(IndexRow[IK, K, V], error) bool) {
		a, err1 := s.x.place(from)
		b, err2 := s.x.place(to)
		if err := errors.Join(err1, err2); err != nil {
			yield(IndexRow[IK, K, V]{}, err)
			return
		}
		s.walk(string(a), string(b))(yield)
	}
}

// Prefix is All for keys of the index whose bytes begin with prefix.
func (s *SnapshotIndex[IK, K, V]) Prefix(prefix []byte) iter.Seq2[IndexRow[IK, K, V], error] {
	place := appendText(nil, prefix)
	place = place[:len(place)-2] // without the end
	return s.walk(string(place), endOfPrefix(place))
}

// place is where the rows with a key of the index begin.
func (x *Index[IK, K, V]) place(key IK) ([]byte, error) {
	raw, err := x.key.Append(nil, key)
	if err != nil {
		return nil, fmt.Errorf("index %s of view %s: encode the key: %w", x.name, x.v.name, err)
	}
	return appendText(nil, raw), nil
}

// endOfPrefix is the first string behind all that begin with a prefix; empty where there is none.
func endOfPrefix(prefix []byte) string {
	end := slices.Clone(prefix)
	for len(end) > 0 && end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	if len(end) > 0 {
		end[len(end)-1]++
	}
	return string(end)
}

// found is a row that is found: its place in the index, which is the two keys, and its value.
type found[V any] struct {
	place      string
	index, key []byte
	val        V
}

// walk merges what the tasks have.
func (s *SnapshotIndex[IK, K, V]) walk(from, to string) iter.Seq2[IndexRow[IK, K, V], error] {
	return func(yield func(IndexRow[IK, K, V], error) bool) {
		err := s.r.check()
		if err == nil {
			err = s.each(from, to, func(f found[V]) (bool, error) {
				row := IndexRow[IK, K, V]{Value: f.val}
				var err error
				if row.Index, err = s.x.key.Decode(f.index); err != nil {
					return false, fmt.Errorf("decode the index's key: %w", err)
				}
				if row.Key, err = s.x.v.t.key.Decode(f.key); err != nil {
					return false, fmt.Errorf("decode the key: %w", err)
				}
				return yield(row, nil), nil
			})
		}
		if err != nil {
			yield(IndexRow[IK, K, V]{}, fmt.Errorf("index %s of view %s: %w", s.x.name, s.x.v.name, err))
		}
	}
}

func (s *SnapshotIndex[IK, K, V]) each(from, to string, f func(found[V]) (bool, error)) error {
	type cursor struct {
		rows []found[V]
		next *string
	}
	cursors := make([]cursor, len(s.r.s.tasks))
	stage := s.r.v.g.stageOf(s.r.v.name)
	for i := stage.first; i < stage.first+stage.tasks; i++ {
		cursors[i].next = &from
	}
	for {
		least := -1
		for i := range cursors {
			c := &cursors[i]
			for len(c.rows) == 0 && c.next != nil {
				var err error
				if c.rows, c.next, err = s.page(i, c.rows[:0], *c.next, to); err != nil {
					return err
				}
			}
			if len(c.rows) > 0 && (least < 0 || c.rows[0].place < cursors[least].rows[0].place) {
				least = i
			}
		}
		if least < 0 {
			return nil
		}
		c := &cursors[least]
		if more, err := f(c.rows[0]); err != nil || !more {
			return err
		}
		c.rows = c.rows[1:]
	}
}

// page takes some rows of a task, here or at another node.
func (s *SnapshotIndex[IK, K, V]) page(i int, buf []found[V], from, to string) ([]found[V], *string, error) {
	t := s.r.s.tasks[i]
	if t == nil {
		return s.far(i, buf, from, to)
	}
	t.clock.RLock()
	defer t.clock.RUnlock()
	next, err := s.x.page(t, s.r.s.pins[i], from, to, func(f found[V]) (bool, error) {
		buf = append(buf, f)
		return true, nil
	})
	return buf, next, cmp.Or(err, s.r.s.held())
}

// page gives f some of a task's rows at a version, as long as it wants more: next is where the rest begins. The task's lock is held.
func (x *Index[IK, K, V]) page(t *task, version uint64, from, to string, f func(found[V]) (more bool, err error)) (next *string, err error) {
	places := &storeRows[struct{}, struct{}]{t.indexes[x].(*store[struct{}]), same[struct{}]}
	rows := t.tables[x.v.t.n].(rowReader[V])
	list, next := places.page(nil, version, from, to, page)
	for i, p := range list {
		index, key, err := cutText([]byte(p.key))
		if err != nil {
			return nil, err
		}
		val, ok := rows.getAt(key, version)
		if err := t.readErr(); err != nil {
			return nil, err
		}
		if !ok {
			return nil, errIndex
		}
		more, err := f(found[V]{p.key, index, key, val})
		if err != nil {
			return nil, err
		}
		if !more && i+1 < len(list) {
			return &list[i+1].key, nil
		}
	}
	return next, nil
}

// errIndex is a bug of ours, or of a function that does not depend on its arguments alone.
var errIndex = errors.New("query: the index has a row that the view has not: does its function depend on anything but its arguments?")
