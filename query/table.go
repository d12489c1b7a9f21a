package query

import (
	"slices"
	"unsafe"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/seed"
)

// Table is a description of rows of which each key has one at most, and which change. What is said of Stream holds for it as well.
type Table[K, V any] struct {
	n     *node
	key   Codec[K]
	value Codec[V]
}

func (t *Table[K, V]) rows() (*node, Codec[K], Codec[V]) { return t.n, t.key, t.value }

// rawOf is a row's key as the bytes of a delta, which nobody writes to.
func rawOf(key string) []byte { return unsafe.Slice(unsafe.StringData(key), len(key)) }

// TableFrom is the latest record of each key of a topic. A tombstone deletes the key; records without a key are left out.
func TableFrom[K, V any](t *embedlog.Topic, key Codec[K], value Codec[V]) *Table[K, V] {
	n := &node{kind: "table"}
	if n.of(t, key != nil, value != nil); n.err != nil {
		return &Table[K, V]{n, key, value}
	}
	n.source = newSource(t, key, value)
	n.build = func(b *builder) any {
		out := new(port[K, V])
		s := newKept(b, b.storeName(n), plain(value))
		b.tables[n] = &storeRows[V, V]{s, same[V]}
		k := &keyer[K]{codec: key}
		b.task.keyers(&k.err)
		var buf []delta[K, V]
		sourcePort(b, n.source, key, value).to(func(ds []delta[K, V]) {
			buf = buf[:0]
			for i := range ds {
				d := &ds[i]
				if d.null {
					b.task.noKey.Add(1)
					continue
				}
				raw := keyOf(k, d)
				if d.tombstone && (s.find(raw) == nil || seed.Is(seed.ViewTombstone)) {
					continue
				}
				e := s.entry(raw)
				if len(out.outs) > 0 {
					if e.is.there {
						buf = append(buf, delta[K, V]{key: d.key, val: e.is.val, raw: rawOf(e.key), time: d.time, weight: -1})
					}
					if !d.tombstone {
						buf = append(buf, delta[K, V]{key: d.key, val: d.val, raw: rawOf(e.key), time: d.time, weight: 1})
					}
				}
				s.write(e, d.val, !d.tombstone)
			}
			out.emit(buf)
		})
		return out
	}
	return &Table[K, V]{n, key, value}
}

func same[V any](v V) V { return v }

// Filter leaves out the rows that keep refuses.
func (t *Table[K, V]) Filter(keep func(key K, value V) bool) *Table[K, V] {
	return &Table[K, V]{filtered(t.n, keep).needs("function", keep != nil), t.key, t.value}
}

// MapTable gives rows other values, which are written with DefaultCodec where they are kept.
func MapTable[K, V, W any](t *Table[K, V], f func(key K, value V) W) *Table[K, W] {
	return &Table[K, W]{mapped(t.n, f).needs("function", f != nil), t.key, DefaultCodec[W]()}
}

// Changes are a table's rows as they come to be, one after another: what is taken away is not among them. (toStream)
func (t *Table[K, V]) Changes() *Stream[K, V] {
	n := linear("changes", t.n, false, func(buf []delta[K, V], d *delta[K, V]) []delta[K, V] {
		if d.weight > 0 {
			buf = append(buf, *d)
		}
		return buf
	})
	n.appends = true
	return &Stream[K, V]{n, t.key, t.value}
}

// WithCodec has the table's values written with another codec, where they are kept from here on.
func (t *Table[K, V]) WithCodec(value Codec[V]) *Table[K, V] {
	if value == nil {
		return &Table[K, V]{without(t.n), t.key, t.value}
	}
	return &Table[K, V]{t.n, t.key, value}
}

// tableRows is where a table's rows are in a task. A table that is computed from others, and not kept, is kept from now on.
func tableRows[K, V any](b *builder, t *Table[K, V], name string) rowReader[V] {
	portOf[K, V](b, t.n) // a table that is kept has its rows then
	if r, ok := b.tables[t.n]; ok {
		return r.(rowReader[V])
	}
	s := newKept(b, name, plain(t.value))
	r := &storeRows[V, V]{s, same[V]}
	b.tables[t.n] = r
	k := &keyer[K]{codec: t.key}
	b.task.keyers(&k.err)
	portOf[K, V](b, t.n).to(func(ds []delta[K, V]) {
		for i := range ds {
			if err := keep(s, k, &ds[i]); err != nil {
				b.task.fail(err)
				return
			}
		}
	})
	return r
}

// keep takes a change of a table into a store.
func keep[K, V any](s *store[V], k *keyer[K], d *delta[K, V]) error {
	e := s.entry(keyOf(k, d))
	switch {
	case d.weight > 0:
		s.write(e, d.val, true)
	case !e.is.there:
		return errTakenBack
	default:
		var none V
		s.write(e, none, false)
	}
	return nil
}

// rowReader is the rows of a table in a task. The task's lock is held.
type rowReader[V any] interface {
	get(key []byte) (V, bool)
	getAt(key []byte, version uint64) (V, bool)
	// page collects up to limit rows of a version with from <= key, and < to where that is not empty; more are left where next is not nil,
	// and begin there.
	page(buf []row[V], version uint64, from, to string, limit int) (rows []row[V], next *string)
	count() int
	// watch has keys that change put into a set, until cancel is called.
	watch(w *keySet) (cancel func())
	// observe has f called with rows as they are before they change: each before its first change in a chunk, at least.
	observe(f func(key string, v V, there bool))
}

type row[V any] struct {
	key string
	val V
}

// storeRows is a store read as a table's rows.
type storeRows[S, V any] struct {
	s    *store[S]
	conv func(S) V
}

func (r *storeRows[S, V]) get(key []byte) (v V, ok bool) {
	if s, ok := r.s.get(key); ok {
		return r.conv(s), true
	}
	return v, false
}

func (r *storeRows[S, V]) getAt(key []byte, version uint64) (v V, ok bool) {
	if s, ok := r.s.getAt(key, version); ok {
		return r.conv(s), true
	}
	return v, false
}

func (r *storeRows[S, V]) page(buf []row[V], version uint64, from, to string, limit int) ([]row[V], *string) {
	var next *string
	looked := 0
	r.s.scan(from, to, func(key string, e *entry[S]) bool {
		if looked++; looked > limit {
			next = &key
			return false
		}
		if s, ok := e.at(version); ok {
			buf = append(buf, row[V]{key, r.conv(s)})
		}
		return true
	})
	return buf, next
}

func (r *storeRows[S, V]) count() int { return r.s.live }

func (r *storeRows[S, V]) watch(w *keySet) (cancel func()) {
	r.s.watches = append(r.s.watches, w)
	return func() {
		r.s.watches = slices.DeleteFunc(r.s.watches, func(o *keySet) bool { return o == w })
	}
}

func (r *storeRows[S, V]) observe(f func(key string, v V, there bool)) {
	r.s.beforeWrite = append(r.s.beforeWrite, func(e *entry[S]) {
		switch {
		case !e.is.there:
			var none V
			f(e.key, none, false)
		case e.is.version != r.s.c.version:
			f(e.key, r.conv(e.is.val), true)
		}
	})
}
