package query

import (
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/seed"
)

var (
	// ErrNoState says that a processor used a store, or timers, that Process was not given.
	ErrNoState = errors.New("query: the processor was not given this store")
	// ErrOutside says that a processor's context was used when its function did not run.
	ErrOutside = errors.New("query: a processor's context was used outside of its function")
)

// StateKeyError says that a processor of a graph with several tasks used a key that is another task's: what it keeps for a key, and the rows that
// ProcessValues makes, belong to the keys of its own records. Options.OneTask has one task for all keys.
type StateKeyError struct {
	Graph, State string // State is the name of the store, of the timers or of the processor
	Key          []byte
}

func (e *StateKeyError) Error() string {
	return fmt.Sprintf("%s of view graph %s: key %q belongs to another task: set Options.OneTask", e.State, e.Graph, e.Key)
}

// State is what a processor keeps: a *KeyValueStore or a *Timers. Both are descriptions, like streams.
type State interface {
	stateNode() *node
	// attach has a processor use it in a task.
	attach(b *builder, p *processing, processor *node) error
}

// KeyValueStore is what a processor keeps between records: rows by a key, in the task's memory and in the changelog
// <graph>-<name>-changelog. It changes with the graph's positions, in one transaction, so that a record counts in it once.
//
// Its methods are called with the context of a processor that was given it, inside its function. What they return is shared: it must not be
// changed. A store that several processors have been given sees their records one by one.
type KeyValueStore[K, V any] struct {
	n     *node
	key   Codec[K]
	value Codec[V]
}

// NewKeyValueStore describes a store. Its name is one in the graph.
func NewKeyValueStore[K, V any](name string, key Codec[K], value Codec[V]) *KeyValueStore[K, V] {
	s := &KeyValueStore[K, V]{&node{kind: "store", label: name}, key, value}
	s.n.named(name).needs("codec of keys", key != nil).needs("codec of values", value != nil)
	s.n.build = func(b *builder) any {
		b.names.take(s.n, name)
		kept := &stateRows[K, V]{k: &keyer[K]{codec: key}, s: newKept(b, name, plain(value))}
		b.task.keyers(&kept.k.err)
		return kept
	}
	return s
}

// stateRows is a store in a task.
type stateRows[K, V any] struct {
	s       *store[V]
	k       *keyer[K]
	users   int
	changes port[K, V] // of its table
	buf     []delta[K, V]
}

func (s *KeyValueStore[K, V]) stateNode() *node { return s.n }

func (s *KeyValueStore[K, V]) rows(b *builder) *stateRows[K, V] {
	p, ok := b.ports[s.n]
	if !ok {
		p = s.n.build(b)
		b.ports[s.n] = p
	}
	return p.(*stateRows[K, V])
}

func (s *KeyValueStore[K, V]) attach(b *builder, p *processing, _ *node) error {
	rows := s.rows(b)
	if rows.users++; rows.users > 1 {
		b.task.single = true // or it would depend on batches who comes first
	}
	p.states[s.n] = rows
	p.settle = append(p.settle, func() {
		rows.changes.emit(rows.buf)
		clear(rows.buf)
		rows.buf = rows.buf[:0]
	})
	return nil
}

// find is the store in the task of a processor, and a key's bytes, which are valid until the next call.
func (s *KeyValueStore[K, V]) find(c StateContext, key *K) (*stateRows[K, V], []byte) {
	p := c.processing()
	rows, _ := p.state(s.n).(*stateRows[K, V])
	if rows == nil || key == nil {
		return rows, nil
	}
	raw := keyOf(rows.k, &delta[K, V]{key: *key})
	if rows.k.err != nil || !p.owns(s.n.label, placeOf(s.key, raw)) {
		return nil, nil
	}
	return rows, raw
}

// Get is the row of a key.
func (s *KeyValueStore[K, V]) Get(c StateContext, key K) (value V, found bool) {
	if rows, raw := s.find(c, &key); rows != nil {
		return rows.s.get(raw)
	}
	return value, false
}

// Put sets the row of a key. The value is kept as it is, and must not be changed afterwards.
func (s *KeyValueStore[K, V]) Put(c StateContext, key K, value V) {
	rows, raw := s.find(c, &key)
	if rows == nil {
		return
	}
	rows.change(c.processing(), key, raw, &value)
	rows.s.put(raw, value)
}

// Delete deletes the row of a key, if there is one.
func (s *KeyValueStore[K, V]) Delete(c StateContext, key K) {
	rows, raw := s.find(c, &key)
	if rows == nil {
		return
	}
	if !seed.Is(seed.ViewStateTable) {
		rows.change(c.processing(), key, raw, nil)
	}
	rows.s.del(raw)
}

// change notes for the store's table what a row was and is.
func (r *stateRows[K, V]) change(p *processing, key K, raw []byte, value *V) {
	if len(r.changes.outs) == 0 {
		return
	}
	raw = slices.Clone(raw)
	if was, ok := r.s.get(raw); ok {
		r.buf = append(r.buf, delta[K, V]{key: key, val: was, raw: raw, time: p.now, weight: -1})
	}
	if value != nil {
		r.buf = append(r.buf, delta[K, V]{key: key, val: *value, raw: raw, time: p.now, weight: 1})
	}
}

// All walks the rows in the order of the bytes of their keys; of a graph with several tasks, those of the processor's own. Rows that are put or deleted
// meanwhile may be among them or not.
func (s *KeyValueStore[K, V]) All(c StateContext) iter.Seq2[K, V] { return s.walk(c, "", "") }

// Range is All for keys from the one to the other, which is not included, in the order of their bytes.
func (s *KeyValueStore[K, V]) Range(c StateContext, from, to K) iter.Seq2[K, V] {
	var a, b []byte
	var err error
	if a, err = s.key.Append(nil, from); err == nil {
		b, err = s.key.Append(nil, to)
	}
	if err != nil {
		c.processing().fail(fmt.Errorf("store %s: encode a key: %w", s.n.label, err))
	}
	if err != nil || len(b) == 0 {
		return func(func(K, V) bool) {}
	}
	return s.walk(c, string(a), string(b))
}

func (s *KeyValueStore[K, V]) walk(c StateContext, from, to string) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		rows, _ := s.find(c, nil)
		if rows == nil {
			return
		}
		reader := &storeRows[V, V]{rows.s, same[V]}
		var some []row[V]
		for next := &from; next != nil; {
			some, next = reader.page(some[:0], rows.s.c.version, *next, to, page)
			for _, r := range some {
				key, err := s.key.Decode([]byte(r.key))
				if err != nil {
					c.processing().fail(fmt.Errorf("store %s: decode a key: %w", s.n.label, err))
					return
				}
				if !yield(key, r.val) {
					return
				}
			}
		}
	}
}

// StateTable is the rows of a store as a table: to be kept as a view, or for others to be made of. Of is a stream that a processor makes that was given
// the store.
func StateTable[K, V, K2, V2 any](of *Stream[K2, V2], s *KeyValueStore[K, V]) *Table[K, V] {
	n := &node{kind: "store table", label: s.n.label, inputs: []*node{of.n, s.n}, timedBy: []*node{of.n}}
	if !slices.Contains(of.n.inputs, s.n) {
		n.err = fmt.Errorf("table of store %s: %w", s.n.label, ErrNoState)
	}
	n.build = func(b *builder) any {
		portOf[K2, V2](b, of.n)
		rows := s.rows(b)
		b.tables[n] = &storeRows[V, V]{rows.s, same[V]}
		return &rows.changes
	}
	return &Table[K, V]{n, s.key, s.value}
}

// owns says whether a key is the task's, and stops it where it is not.
func (p *processing) owns(state string, place []byte) bool {
	if p.t.stage.tasks <= 1 || int(embedlog.KeyPartition(place, p.t.stage.tasks)) == p.t.index {
		return true
	}
	p.fail(&StateKeyError{Graph: p.t.g.name, State: state, Key: slices.Clone(place)})
	return false
}
