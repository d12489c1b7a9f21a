package query

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/seed"
)

// ErrNotReversible says that an aggregate without an inverse was asked for of rows that are taken back: those of a table.
var ErrNotReversible = errors.New("query: the aggregate cannot take rows back")

// group is what an aggregate keeps for a key.
type group[A any] struct {
	n   int64 // rows in it
	acc A
}

// aggregator is how rows become a group's accumulator, and that a result.
type aggregator[K, V, A, R any] struct {
	kind   string
	add    func(acc A, key K, value V) (A, error)
	remove func(acc A, key K, value V) (A, error) // nil: rows cannot be taken back
	result func(n int64, acc A) (R, error)
	same   func(a, b A) bool // where it is set: nothing has changed, and nothing is written
	acc    Codec[A]
	value  Codec[R]
}

// headerRows says in a changelog how many rows a group has, where rows can be taken back.
const headerRows = "embedlog.rows"

func groupCodec[A any](c Codec[A], counted bool) rowCodec[group[A]] {
	p := plain(c)
	return rowCodec[group[A]]{
		func(dst []byte, g group[A]) ([]byte, []embedlog.Header, error) {
			b, _, err := p.append(dst, g.acc)
			if !counted {
				return b, nil, err
			}
			return b, []embedlog.Header{{Key: headerRows, Value: strconv.AppendInt(nil, g.n, 10)}}, err
		},
		func(rec *embedlog.Record) (g group[A], err error) {
			g.n = 1
			if n, ok := rec.Header(headerRows); ok {
				if g.n, err = strconv.ParseInt(string(n), 10, 64); err != nil || g.n < 1 {
					return g, fmt.Errorf("header %s is %q", headerRows, n)
				}
			}
			g.acc, err = p.decode(rec)
			return g, err
		},
	}
}

// aggregated is a table with a row for each key of what it is made of.
func aggregated[K, V, A, R any](r Rows[K, V], a aggregator[K, V, A, R]) *Table[K, R] {
	in, key, _ := r.rows()
	n := &node{kind: a.kind, inputs: []*node{in}}
	if a.remove == nil && !in.appends {
		n.err = fmt.Errorf("%s: %w", a.kind, ErrNotReversible)
	}
	n.build = func(b *builder) any {
		out := new(port[K, R])
		s := newKept(b, b.storeName(n), groupCodec(a.acc, !in.appends))
		result := func(g group[A]) R { v, _ := a.result(g.n, g.acc); return v }
		b.tables[n] = &storeRows[group[A], R]{s, result}
		over := expiring(b, n, s, nil, result, key, out)
		k := &keyer[K]{codec: key}
		b.task.keyers(&k.err)
		var buf []delta[K, R]
		portOf[K, V](b, in).to(func(ds []delta[K, V]) {
			buf = buf[:0]
			for i := range ds {
				d := &ds[i]
				if d.null {
					b.task.noKey.Add(1)
					continue
				}
				e := s.entry(keyOf(k, d))
				g, there := e.is.val, e.is.there
				was := g
				if err := a.apply(&g, d); err != nil {
					b.task.fail(fmt.Errorf("%s of key %q: %w", a.kind, e.key, err))
					return
				}
				if len(out.outs) > 0 {
					old, err1 := a.result(was.n, was.acc)
					now, err2 := a.result(g.n, g.acc)
					if err := cmp.Or(err1, err2); err != nil {
						b.task.fail(fmt.Errorf("%s of key %q: %w", a.kind, e.key, err))
						return
					}
					if there && !seed.Is(seed.ViewNoRetract) {
						buf = append(buf, delta[K, R]{key: d.key, val: old, raw: rawOf(e.key), time: d.time, weight: -1})
					}
					if g.n > 0 {
						buf = append(buf, delta[K, R]{key: d.key, val: now, raw: rawOf(e.key), time: d.time, weight: 1})
					}
				} else if _, err := a.result(g.n, g.acc); err != nil {
					b.task.fail(fmt.Errorf("%s of key %q: %w", a.kind, e.key, err))
					return
				}
				if there && a.same != nil && g.n > 0 && a.same(was.acc, g.acc) {
					continue
				}
				if g.n == 0 {
					g = group[A]{}
				}
				over.add(e)
				s.write(e, g, g.n > 0 || seed.Is(seed.ViewEmptyGroup))
			}
			out.emit(buf)
		})
		return out
	}
	return &Table[K, R]{n, key, a.value}
}

// errTakenBack is a bug of an operator, or of a function that does not depend on its arguments alone.
var errTakenBack = errors.New("query: a row was taken back that is not there: does a function of the view depend on anything but its arguments?")

func (a *aggregator[K, V, A, R]) apply(g *group[A], d *delta[K, V]) (err error) {
	f := a.add
	step := int64(1)
	times := d.weight
	if times < 0 {
		f, step, times = a.remove, -1, -times
	}
	for ; times > 0; times-- {
		if step < 0 && g.n == 0 {
			return errTakenBack
		}
		if g.acc, err = f(g.acc, d.key, d.val); err != nil {
			return err
		}
		g.n += step
	}
	return nil
}

// Aggregate starts a view: the rows of a stream folded by key, in their order. fold gets what the rows before came to, the zero
// value first, and returns a new value: it must not change what it was given. The view's state is kept in topics that begin with the
// name, and goes on where it was when a view of the name is started again. A is written with DefaultCodec; see Fold for others.
func Aggregate[K, V, A any](s *Stream[K, V], name string, fold func(acc A, key K, value V) A) (*View[K, A], error) {
	return Materialize(name, Fold(s, DefaultCodec[A](), fold, nil))
}

// Fold is a table of a function's making: add takes a row into what its key has so far, remove takes one out that was added before. The
// order in which rows are taken out is any. Without remove only streams can be folded, whose rows are not taken back. A key whose last row
// is taken out is not in the table.
func Fold[K, V, A any](r Rows[K, V], acc Codec[A], add, remove func(acc A, key K, value V) A) *Table[K, A] {
	a := aggregator[K, V, A, A]{
		kind: "fold", acc: acc, value: acc,
		add:    func(acc A, key K, value V) (A, error) { return add(acc, key, value), nil },
		result: func(_ int64, acc A) (A, error) { return acc, nil },
	}
	if remove != nil {
		a.remove = func(acc A, key K, value V) (A, error) { return remove(acc, key, value), nil }
	}
	t := aggregated(r, a)
	t.n.needs("codec", acc != nil).needs("function", add != nil)
	return t
}

// Reduce is Fold for values of one type: the first row of a key is what it has.
func Reduce[K, V any](s *Stream[K, V], f func(a, b V) V) *Table[K, V] {
	t := aggregated(s, aggregator[K, V, first[V], V]{
		kind: "reduce", acc: firstCodec[V]{s.value}, value: s.value,
		add: func(acc first[V], _ K, v V) (first[V], error) {
			if !acc.some {
				return first[V]{v, true}, nil
			}
			return first[V]{f(acc.val, v), true}, nil
		},
		result: func(_ int64, acc first[V]) (V, error) { return acc.val, nil },
	})
	t.n.needs("function", f != nil)
	return t
}

// first is a value, when there is one.
type first[V any] struct {
	val  V
	some bool
}

// firstCodec is a codec of those that there are.
type firstCodec[V any] struct{ c Codec[V] }

func (c firstCodec[V]) Append(dst []byte, v first[V]) ([]byte, error) { return c.c.Append(dst, v.val) }

func (c firstCodec[V]) Decode(b []byte) (first[V], error) {
	v, err := c.c.Decode(b)
	return first[V]{v, true}, err
}

// Count is how many rows each key has.
func Count[K, V any](r Rows[K, V]) *Table[K, int64] {
	return aggregated(r, aggregator[K, V, int64, int64]{
		kind: "count", acc: DefaultCodec[int64](), value: DefaultCodec[int64](),
		add:    func(acc int64, _ K, _ V) (int64, error) { return acc + 1, nil },
		remove: func(acc int64, _ K, _ V) (int64, error) { return acc - 1, nil },
		result: func(_, acc int64) (int64, error) { return acc, nil },
	})
}

// Sum is the sum of what f makes of each row. It is exact, also of floating-point numbers: it does not depend on the order of the
// rows, nor on rows that were taken out again, and is rounded once. A sum of integers that has no room in their type
// stops the view with an error that matches ErrOverflow.
func Sum[K, V any, N Number](r Rows[K, V], f func(key K, value V) N) *Table[K, N] {
	t := aggregated(r, aggregator[K, V, sum, N]{
		kind: "sum", acc: sumCodec{}, value: DefaultCodec[N](),
		add:    func(acc sum, k K, v V) (sum, error) { return plus(acc, f(k, v), false), nil },
		remove: func(acc sum, k K, v V) (sum, error) { return plus(acc, f(k, v), true), nil },
		result: func(_ int64, acc sum) (N, error) { return total[N](acc) },
	})
	t.n.needs("function", f != nil)
	return t
}

// Average is the mean of what f makes of each row: their exact sum, divided by their number.
func Average[K, V any, N Number](r Rows[K, V], f func(key K, value V) N) *Table[K, float64] {
	t := aggregated(r, aggregator[K, V, sum, float64]{
		kind: "average", acc: sumCodec{}, value: DefaultCodec[float64](),
		add:    func(acc sum, k K, v V) (sum, error) { return plus(counted(acc, 1), f(k, v), false), nil },
		remove: func(acc sum, k K, v V) (sum, error) { return plus(counted(acc, -1), f(k, v), true), nil },
		result: func(_ int64, acc sum) (float64, error) {
			if acc.n == 0 {
				return 0, nil
			}
			return acc.float() / float64(acc.n), nil
		},
	})
	t.n.needs("function", f != nil)
	return t
}

func counted(s sum, by int64) sum {
	s.n += by
	return s
}
