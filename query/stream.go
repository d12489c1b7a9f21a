package query

import (
	"fmt"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/seed"
)

// node is an operator in a description. Streams and tables are typed handles of nodes.
type node struct {
	kind   string // "filter", as Describe prints it
	label  string // a topic's or a store's name
	inputs []*node
	source *source // of a topic
	global *global // a topic that all tasks read
	// appends says that rows are never taken back: a stream of a topic, and what linear operators make of it.
	appends bool
	// rekeys says that rows leave under another key than they came with.
	rekeys bool
	// stateless says that it looks at each row alone, wherever its key belongs.
	stateless bool
	rep       *repartition // rows go through the log here
	// windows says that its keys are of windows, and when those are over.
	windows *windowTimes
	// timedBy are the inputs whose records its rows have their times of; nil is all inputs.
	timedBy []*node
	err     error // what is wrong with it, said when it is started
	// build makes the operator for a task: a *port of the node's types.
	build func(b *builder) any
}

// builder makes the operators of one task, each node's once.
type builder struct {
	task   *task
	stage  *stage
	ports  map[*node]any
	tables map[*node]any // rowReaders of the tables that are kept
	names  *storeNames
}

func portOf[K, V any](b *builder, n *node) *port[K, V] {
	p, ok := b.ports[n]
	if !ok {
		p = n.build(b)
		b.ports[n] = p
	}
	return p.(*port[K, V])
}

// Rows are what the functions of this package take where both streams and tables will do. Its implementations are
// *Stream, *Table and *Grouped.
type Rows[K, V any] interface {
	rows() (n *node, key Codec[K], value Codec[V])
}

// Stream is a description of records that follow each other. It runs nothing: see Graph. Its methods and the functions that take it
// return other descriptions, and may be called by several goroutines.
//
// The functions that are given to them are called by the tasks, by one goroutine for each, and must depend on nothing but
// their arguments: after a restart they see records again. What they are given, and return, is not to be changed afterwards.
type Stream[K, V any] struct {
	n     *node
	key   Codec[K]
	value Codec[V]
}

func (s *Stream[K, V]) rows() (*node, Codec[K], Codec[V]) { return s.n, s.key, s.value }

// From is a stream of a topic's records, of those that are there and those to come. Tombstones are left out: they have no
// value. A record that cannot be decoded goes to the graph's dead-letter topic.
func From[K, V any](t *embedlog.Topic, key Codec[K], value Codec[V]) *Stream[K, V] {
	s := &Stream[K, V]{key: key, value: value}
	s.n = &node{kind: "stream", appends: true, stateless: true}
	if s.n.of(t, key != nil, value != nil); s.n.err != nil {
		return s
	}
	s.n.source = newSource(t, key, value)
	s.n.build = func(b *builder) any {
		in := sourcePort(b, s.n.source, key, value)
		out := new(port[K, V])
		var buf []delta[K, V]
		in.to(func(ds []delta[K, V]) {
			n := 0 // without a tombstone before them
			for n < len(ds) && !ds[n].tombstone {
				n++
			}
			if n == len(ds) {
				out.emit(ds)
				return
			}
			buf = append(buf[:0], ds[:n]...)
			for i := range ds[n:] {
				if d := &ds[n+i]; !d.tombstone {
					buf = append(buf, *d)
				}
			}
			out.emit(buf)
		})
		return out
	}
	return s
}

// linear is an operator that looks at each row alone: f appends what becomes of it.
func linear[K, V, K2, V2 any](kind string, in *node, rekeys bool, f func(buf []delta[K2, V2], d *delta[K, V]) []delta[K2, V2]) *node {
	n := &node{kind: kind, inputs: []*node{in}, appends: in.appends, rekeys: rekeys, stateless: true}
	n.build = func(b *builder) any {
		out := new(port[K2, V2])
		var buf []delta[K2, V2]
		portOf[K, V](b, in).to(func(ds []delta[K, V]) {
			buf = buf[:0]
			for i := range ds {
				buf = f(buf, &ds[i])
			}
			out.emit(buf)
		})
		return out
	}
	return n
}

func filtered[K, V any](in *node, keep func(K, V) bool) *node {
	return linear("filter", in, false, func(buf []delta[K, V], d *delta[K, V]) []delta[K, V] {
		if keep(d.key, d.val) && (d.weight > 0 || !seed.Is(seed.ViewFilter)) {
			buf = append(buf, *d)
		}
		return buf
	})
}

func mapped[K, V, W any](in *node, f func(K, V) W) *node {
	return linear("map values", in, false, func(buf []delta[K, W], d *delta[K, V]) []delta[K, W] {
		return append(buf, delta[K, W]{key: d.key, val: f(d.key, d.val), raw: d.raw, time: d.time, weight: d.weight, null: d.null})
	})
}

// Filter leaves out the rows that keep refuses.
func (s *Stream[K, V]) Filter(keep func(key K, value V) bool) *Stream[K, V] {
	return &Stream[K, V]{filtered(s.n, keep).needs("function", keep != nil), s.key, s.value}
}

// WithCodec has the stream's values written with another codec where they are kept from here on, or appended to a topic.
func (s *Stream[K, V]) WithCodec(value Codec[V]) *Stream[K, V] {
	if value == nil {
		return &Stream[K, V]{without(s.n), s.key, s.value}
	}
	return &Stream[K, V]{s.n, s.key, value}
}

// Branch divides a stream: each row goes to the first of the streams whose function takes it, or to the last one, which is for the
// rest.
func (s *Stream[K, V]) Branch(take ...func(key K, value V) bool) []*Stream[K, V] {
	list := make([]*Stream[K, V], 0, len(take)+1)
	for i := range len(take) + 1 {
		list = append(list, s.Filter(func(key K, value V) bool {
			for _, earlier := range take[:i] {
				if earlier(key, value) {
					return false
				}
			}
			return i == len(take) || take[i](key, value)
		}))
		list[i].n.needs("function", i == len(take) || take[i] != nil)
	}
	return list
}

// Merge is the rows of several streams, each in its own order.
func (s *Stream[K, V]) Merge(others ...*Stream[K, V]) *Stream[K, V] {
	n := &node{kind: "merge", inputs: []*node{s.n}, appends: s.n.appends, stateless: true}
	for _, o := range others {
		n.inputs = append(n.inputs, o.n)
		n.appends = n.appends && o.n.appends
		if !equal(o.key, s.key) {
			n.err = fmt.Errorf("merge: the streams' keys have codecs %T and %T", s.key, o.key)
		}
	}
	n.build = func(b *builder) any {
		out := new(port[K, V])
		for _, in := range n.inputs {
			portOf[K, V](b, in).to(out.emit)
		}
		return out
	}
	return &Stream[K, V]{n, s.key, s.value}
}

// MapValues gives rows other values.
func MapValues[K, V, W any](s *Stream[K, V], f func(key K, value V) W) *Stream[K, W] {
	return &Stream[K, W]{mapped(s.n, f).needs("function", f != nil), s.key, DefaultCodec[W]()}
}

// FlatMapValues has a number of rows in the place of each, under its key.
func FlatMapValues[K, V, W any](s *Stream[K, V], f func(key K, value V) []W) *Stream[K, W] {
	n := linear("flat map values", s.n, false, func(buf []delta[K, W], d *delta[K, V]) []delta[K, W] {
		for _, w := range f(d.key, d.val) {
			buf = append(buf, delta[K, W]{key: d.key, val: w, raw: d.raw, time: d.time, weight: d.weight, null: d.null})
		}
		return buf
	})
	return &Stream[K, W]{n.needs("function", f != nil), s.key, DefaultCodec[W]()}
}

// Map gives rows other keys and values.
func Map[K, V, K2, V2 any](s *Stream[K, V], key Codec[K2], f func(key K, value V) (K2, V2)) *Stream[K2, V2] {
	n := linear("map", s.n, true, func(buf []delta[K2, V2], d *delta[K, V]) []delta[K2, V2] {
		k, v := f(d.key, d.val)
		return append(buf, delta[K2, V2]{key: k, val: v, time: d.time, weight: d.weight})
	})
	n.needs("codec", key != nil).needs("function", f != nil)
	return &Stream[K2, V2]{n, key, DefaultCodec[V2]()}
}

// FlatMap has a number of rows in the place of each: f calls emit for them.
func FlatMap[K, V, K2, V2 any](s *Stream[K, V], key Codec[K2], f func(key K, value V, emit func(K2, V2))) *Stream[K2, V2] {
	n := linear("flat map", s.n, true, func(buf []delta[K2, V2], d *delta[K, V]) []delta[K2, V2] {
		f(d.key, d.val, func(k K2, v V2) {
			buf = append(buf, delta[K2, V2]{key: k, val: v, time: d.time, weight: d.weight})
		})
		return buf
	})
	n.needs("codec", key != nil).needs("function", f != nil)
	return &Stream[K2, V2]{n, key, DefaultCodec[V2]()}
}

// Rekey gives rows other keys. (selectKey)
func Rekey[K, V, K2 any](s *Stream[K, V], key Codec[K2], f func(key K, value V) K2) *Stream[K2, V] {
	n := rekeyed("rekey", s.n, f).needs("codec", key != nil).needs("function", f != nil)
	return &Stream[K2, V]{n, key, s.value}
}

func rekeyed[K, V, K2 any](kind string, in *node, f func(K, V) K2) *node {
	return linear(kind, in, true, func(buf []delta[K2, V], d *delta[K, V]) []delta[K2, V] {
		return append(buf, delta[K2, V]{key: f(d.key, d.val), val: d.val, time: d.time, weight: d.weight})
	})
}

// Grouped is rows under the keys that they are to be aggregated by.
type Grouped[K, V any] struct {
	n     *node
	key   Codec[K]
	value Codec[V]
}

func (g *Grouped[K, V]) rows() (*node, Codec[K], Codec[V]) { return g.n, g.key, g.value }

// GroupBy groups a stream or a table by what f makes of each row. When a row of the table changes, it leaves its group and
// enters the one that it belongs to then.
func GroupBy[K, V, K2 any](r Rows[K, V], key Codec[K2], f func(key K, value V) K2) *Grouped[K2, V] {
	in, _, value := r.rows()
	n := rekeyed("group by", in, f).needs("codec", key != nil).needs("function", f != nil)
	return &Grouped[K2, V]{n, key, value}
}
