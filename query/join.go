package query

import (
	"fmt"

	"github.com/x/embedlog/internal/seed"
)

// A join keeps the rows of its tables in stores of its own and takes their changes one by one: a change meets what the other side had
// when it came, and is then kept. So each pair of rows meets once, also when both sides are made of the same records.

// side is a table's rows as a join keeps them.
type side[K, V any] struct {
	*store[V]
	k *keyer[K]
}

func newSide[K, V any](b *builder, name string, key Codec[K], value Codec[V]) *side[K, V] {
	s := &side[K, V]{newKept(b, name, plain(value)), &keyer[K]{codec: key}}
	b.task.keyers(&s.k.err)
	return s
}

// take keeps a change of the side. It returns the key's bytes, as the store has them.
func (s *side[K, V]) take(d *delta[K, V]) ([]byte, error) {
	e := s.entry(keyOf(s.k, d))
	if d.weight > 0 {
		s.write(e, d.val, true)
		return rawOf(e.key), nil
	}
	if !e.is.there {
		return rawOf(e.key), errTakenBack
	}
	var none V
	s.write(e, none, false)
	return rawOf(e.key), nil
}

// joinKind says which rows have a partner.
type joinKind uint8

const (
	inner joinKind = iota
	left
	outer
)

func (k joinKind) String() string { return [...]string{"join", "left join", "outer join"}[k] }

// Join is the rows of two tables that have the same key. It changes with either.
func Join[K, V, W, R any](a *Table[K, V], b *Table[K, W], f func(key K, left V, right W) R) *Table[K, R] {
	t := joined(inner, a, b, func(k K, l *V, r *W) R { return f(k, *l, *r) })
	t.n.needs("function", f != nil)
	return t
}

// LeftJoin is the rows of a table with those of another one that have the same key, where there are any: right is nil otherwise.
func LeftJoin[K, V, W, R any](a *Table[K, V], b *Table[K, W], f func(key K, left V, right *W) R) *Table[K, R] {
	t := joined(left, a, b, func(k K, l *V, r *W) R { return f(k, *l, r) })
	t.n.needs("function", f != nil)
	return t
}

// OuterJoin is the rows of two tables by their keys: the one that a key lacks is nil.
func OuterJoin[K, V, W, R any](a *Table[K, V], b *Table[K, W], f func(key K, left *V, right *W) R) *Table[K, R] {
	t := joined(outer, a, b, f)
	t.n.needs("function", f != nil)
	return t
}

func joined[K, V, W, R any](kind joinKind, a *Table[K, V], b *Table[K, W], f func(K, *V, *W) R) *Table[K, R] {
	n := &node{kind: kind.String(), inputs: []*node{a.n, b.n}}
	if !equal(a.key, b.key) {
		n.err = fmt.Errorf("%v: the tables' keys have codecs %T and %T", kind, a.key, b.key)
	}
	n.build = func(bu *builder) any {
		out := new(port[K, R])
		name := bu.storeName(n)
		l, r := newSide(bu, name+"-left", a.key, a.value), newSide(bu, name+"-right", b.key, b.value)
		// show is the joined row of what the two sides have, if there is one.
		show := func(buf []delta[K, R], k K, raw []byte, v *V, w *W, time moment, weight int64) []delta[K, R] {
			if seed.Is(seed.ViewPadding) && weight < 0 && w == nil {
				return buf
			}
			if v == nil && w == nil || v == nil && kind != outer || w == nil && kind == inner {
				return buf
			}
			return append(buf, delta[K, R]{key: k, val: f(k, v, w), raw: raw, time: time, weight: weight})
		}
		var fromLeft, fromRight []delta[K, R]
		portOf[K, V](bu, a.n).to(func(ds []delta[K, V]) {
			buf := fromLeft[:0]
			for i := range ds {
				d := &ds[i]
				raw, err := l.take(d)
				if err != nil {
					bu.task.fail(fmt.Errorf("%v of key %q: %w", kind, raw, err))
					return
				}
				other := r.partner(raw)
				if d.weight > 0 {
					buf = show(buf, d.key, raw, nil, other, d.time, -1)
					buf = show(buf, d.key, raw, &d.val, other, d.time, 1)
				} else {
					buf = show(buf, d.key, raw, &d.val, other, d.time, -1)
					buf = show(buf, d.key, raw, nil, other, d.time, 1)
				}
			}
			out.emit(buf)
			clear(buf)
			fromLeft = buf
		})
		portOf[K, W](bu, b.n).to(func(ds []delta[K, W]) {
			buf := fromRight[:0]
			for i := range ds {
				d := &ds[i]
				raw, err := r.take(d)
				if err != nil {
					bu.task.fail(fmt.Errorf("%v of key %q: %w", kind, raw, err))
					return
				}
				other := l.partner(raw)
				if d.weight > 0 {
					buf = show(buf, d.key, raw, other, nil, d.time, -1)
					buf = show(buf, d.key, raw, other, &d.val, d.time, 1)
				} else {
					buf = show(buf, d.key, raw, other, &d.val, d.time, -1)
					buf = show(buf, d.key, raw, other, nil, d.time, 1)
				}
			}
			out.emit(buf)
			clear(buf)
			fromRight = buf
		})
		return out
	}
	return &Table[K, R]{n, a.key, DefaultCodec[R]()}
}

// partner is the row of a key; nil where there is none.
func (s *side[K, V]) partner(key []byte) *V {
	if e := s.find(key); e != nil && e.is.there {
		v := e.is.val
		return &v
	}
	return nil
}

// JoinTable gives each row of a stream the row that a table has for its key when it comes. Rows whose key the table does not have are left
// out. What changes in the table later changes nothing.
func JoinTable[K, V, W, R any](s *Stream[K, V], t *Table[K, W], f func(key K, value V, row W) R) *Stream[K, R] {
	rows := enriched("join table", false, s, t, func(k K, v V, w *W) (r R, ok bool) {
		if w == nil {
			return r, false
		}
		return f(k, v, *w), true
	})
	rows.n.needs("function", f != nil)
	return rows
}

// LeftJoinTable is JoinTable with the rows whose key the table does not have: row is nil for them.
func LeftJoinTable[K, V, W, R any](s *Stream[K, V], t *Table[K, W], f func(key K, value V, row *W) R) *Stream[K, R] {
	rows := enriched("left join table", true, s, t, func(k K, v V, w *W) (R, bool) { return f(k, v, w), true })
	rows.n.needs("function", f != nil)
	return rows
}

// enriched is both. held says that f may keep the row that it is given a pointer to.
func enriched[K, V, W, R any](kind string, held bool, s *Stream[K, V], t *Table[K, W], f func(K, V, *W) (R, bool)) *Stream[K, R] {
	n := &node{kind: kind, inputs: []*node{t.n, s.n}, timedBy: []*node{s.n}, appends: s.n.appends}
	if !equal(s.key, t.key) {
		n.err = fmt.Errorf("%s: the keys of the stream and of the table have codecs %T and %T", kind, s.key, t.key)
	}
	if !s.n.appends {
		n.err = fmt.Errorf("%s: %w", kind, ErrNotReversible)
	}
	n.build = func(b *builder) any {
		out := new(port[K, R])
		rows := tableRows(b, t, b.storeName(n))
		k := &keyer[K]{codec: s.key}
		b.task.keyers(&k.err)
		if shareSource(t.n, s.n) {
			b.task.single = true // or it would depend on the batches what a row meets
		}
		var waiting []delta[K, V]
		var keys []byte // of waiting, where they are known
		var buf []delta[K, R]
		found := new(W)
		// The rows wait until the table has what the same records have changed there.
		op := b.task.deferTo(n.rank(), func() {
			buf = buf[:0]
			for i := range waiting {
				d := &waiting[i]
				var row *W
				if !d.null {
					if w, ok := rows.get(keyOf(k, d)); ok {
						if held {
							found = new(W)
						}
						*found = w
						row = found
					}
				}
				if r, ok := f(d.key, d.val, row); ok {
					buf = append(buf, delta[K, R]{key: d.key, val: r, raw: d.raw, time: d.time, weight: d.weight, null: d.null})
				}
			}
			out.emit(buf)
			clear(waiting)
			waiting, keys = waiting[:0], keys[:0]
		})
		portOf[K, V](b, s.n).to(func(ds []delta[K, V]) {
			for i := range ds {
				d := ds[i]
				if d.raw != nil { // it may be a part of what the next batch of this chunk is written over
					from := len(keys)
					keys = append(keys, d.raw...)
					d.raw = keys[from:len(keys):len(keys)]
				}
				waiting = append(waiting, d)
			}
			op.due = true
		})
		return out
	}
	return &Stream[K, R]{n, s.key, DefaultCodec[R]()}
}

// rank is how many operators a node has before it in a row, at most.
func (n *node) rank() int {
	ranks := map[*node]int{}
	n.walk(func(n *node) {
		for _, in := range n.inputs {
			ranks[n] = max(ranks[n], ranks[in]+1)
		}
	})
	return ranks[n]
}

func shareSource(a, b *node) (shared bool) {
	topics := map[string]bool{}
	a.walk(func(n *node) {
		if n.source != nil {
			topics[n.label] = true
		}
	})
	b.walk(func(n *node) { shared = shared || n.source != nil && topics[n.label] })
	return shared
}

// ForeignJoin is the rows of a table with the row of another one whose key a function finds in them: orders with their customer. It
// changes with either; rows without a partner are left out.
func ForeignJoin[K, V, K2, W, R any](a *Table[K, V], b *Table[K2, W], foreign func(key K, value V) K2, f func(key K, value V, row W) R) *Table[K, R] {
	n := &node{kind: "foreign join", inputs: []*node{a.n, b.n}, rekeys: true}
	n.needs("function of foreign keys", foreign != nil).needs("function", f != nil)
	n.build = func(bu *builder) any {
		out := new(port[K, R])
		name := bu.storeName(n)
		// The left rows, by the foreign key and their own.
		l := newKept(bu, name+"-left", keyedCodec(a.key, a.value))
		r := newSide(bu, name+"-right", b.key, b.value)
		own, fk := &keyer[K]{codec: a.key}, &keyer[K2]{codec: b.key}
		bu.task.keyers(&own.err)
		bu.task.keyers(&fk.err)
		var place []byte
		portOf[K, V](bu, a.n).to(func(ds []delta[K, V]) {
			var buf []delta[K, R]
			for i := range ds {
				d := &ds[i]
				ref := keyOf(fk, &delta[K2, W]{key: foreign(d.key, d.val)})
				raw := keyOf(own, d)
				place = append(appendPrefix(place[:0], ref), raw...)
				e := l.entry(place)
				switch {
				case d.weight > 0:
					l.write(e, keyed[K, V]{d.key, d.val}, true)
				case !e.is.there:
					bu.task.fail(fmt.Errorf("foreign join of key %q: %w", raw, errTakenBack))
					return
				default:
					l.write(e, keyed[K, V]{}, false)
				}
				if w := r.partner(ref); w != nil {
					buf = append(buf, delta[K, R]{key: d.key, val: f(d.key, d.val, *w), time: d.time, weight: d.weight})
				}
			}
			out.emit(buf)
		})
		portOf[K2, W](bu, b.n).to(func(ds []delta[K2, W]) {
			var buf []delta[K, R]
			for i := range ds {
				d := &ds[i]
				raw, err := r.take(d)
				if err != nil {
					bu.task.fail(fmt.Errorf("foreign join of key %q: %w", raw, err))
					return
				}
				if seed.Is(seed.ViewForeign) {
					continue
				}
				prefix := string(appendPrefix(nil, raw))
				l.scan(prefix, "", func(key string, e *entry[keyed[K, V]]) bool {
					if len(key) < len(prefix) || key[:len(prefix)] != prefix {
						return false
					}
					if e.is.there {
						k, v := e.is.val.key, e.is.val.val
						buf = append(buf, delta[K, R]{key: k, val: f(k, v, d.val), time: d.time, weight: d.weight})
					}
					return true
				})
				if len(buf) >= chunk { // a row may have a million partners
					out.emit(buf)
					buf = buf[:0]
				}
			}
			out.emit(buf)
		})
		return out
	}
	return &Table[K, R]{n, a.key, DefaultCodec[R]()}
}
