package query

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/seed"
)

// The rows of a group in an order: what minimum, maximum, top N and counts of distinct values need when rows are taken back. Each row
// is a row of a store, so that a group of a million rows is not written again when one of them changes:
//
//	length of group's key ++ group's key ++ order ++ identity   ->  value, how many of it
//
// Bytes compare as the rows do.
type ranked[V any] struct {
	val V
	n   int64
}

// rankedOp makes a table whose row of a key is what result says of the key's rows in their order.
type rankedOp[K, V, R any] struct {
	kind string
	// place appends what rows are ordered by, and what tells them apart.
	place  func(dst []byte, key K, value V) ([]byte, error)
	result func(g *rankedGroup[V]) R
	value  Codec[R]
}

// rankedGroup is a group's rows.
type rankedGroup[V any] struct {
	s      *store[ranked[V]]
	prefix string
}

// each walks the rows in order.
func (g *rankedGroup[V]) each(f func(v V, n int64) bool) {
	g.s.scan(g.prefix, "", func(key string, e *entry[ranked[V]]) bool {
		if len(key) < len(g.prefix) || key[:len(g.prefix)] != g.prefix {
			return false
		}
		return !e.is.there || f(e.is.val.val, e.is.val.n)
	})
}

// clear deletes the rows.
func (g *rankedGroup[V]) clear() {
	g.s.between(g.prefix, "", func(key string, e *entry[ranked[V]]) bool {
		if len(key) < len(g.prefix) || key[:len(g.prefix)] != g.prefix {
			return false
		}
		if e.is.there {
			g.s.write(e, ranked[V]{}, false)
		}
		return true
	})
}

func (g *rankedGroup[V]) empty() bool {
	empty := true
	g.each(func(V, int64) bool { empty = false; return false })
	return empty
}

const headerTimes = "embedlog.times"

func rankedCodec[V any](c Codec[V]) rowCodec[ranked[V]] {
	p := plain(c)
	return rowCodec[ranked[V]]{
		func(dst []byte, r ranked[V]) ([]byte, []embedlog.Header, error) {
			b, _, err := p.append(dst, r.val)
			return b, []embedlog.Header{{Key: headerTimes, Value: binary.AppendVarint(nil, r.n)}}, err
		},
		func(rec *embedlog.Record) (r ranked[V], err error) {
			h, _ := rec.Header(headerTimes)
			n, size := binary.Varint(h)
			if size <= 0 || n < 1 {
				return r, fmt.Errorf("header %s is %q", headerTimes, h)
			}
			r.n = n
			r.val, err = p.decode(rec)
			return r, err
		},
	}
}

func (o rankedOp[K, V, R]) table(r Rows[K, V]) *Table[K, R] {
	in, key, value := r.rows()
	n := &node{kind: o.kind, inputs: []*node{in}}
	n.build = func(b *builder) any {
		out := new(port[K, R])
		name := b.storeName(n)
		s := newKept(b, name+"-rows", rankedCodec(value))
		results := newKept(b, name, plain(o.value))
		b.tables[n] = &storeRows[R, R]{results, same[R]}
		k := &keyer[K]{codec: key}
		b.task.keyers(&k.err)
		var buf []delta[K, R]
		var place []byte
		over := expiring(b, n, results, func(key string) {
			g := &rankedGroup[V]{s, string(appendPrefix(nil, rawOf(key)))}
			g.clear()
		}, same[R], key, out)
		portOf[K, V](b, in).to(func(ds []delta[K, V]) {
			buf = buf[:0]
			for i := range ds {
				d := &ds[i]
				if d.null {
					b.task.noKey.Add(1)
					continue
				}
				raw := keyOf(k, d)
				place = appendPrefix(place[:0], raw)
				prefix := len(place)
				var err error
				if place, err = o.place(place, d.key, d.val); err == nil {
					e := s.entry(place)
					if times := e.is.val.n + d.weight; times < 0 {
						err = errTakenBack
					} else if times == 0 && !seed.Is(seed.ViewRanked) || times > 0 && d.weight < 0 && seed.Is(seed.ViewTimes) {
						s.write(e, ranked[V]{}, false)
					} else {
						s.write(e, ranked[V]{d.val, times}, true)
					}
				}
				if err != nil {
					b.task.fail(fmt.Errorf("%s of key %q: %w", o.kind, raw, err))
					return
				}
				e := results.entry(raw)
				if e.is.there && len(out.outs) > 0 {
					buf = append(buf, delta[K, R]{key: d.key, val: e.is.val, raw: rawOf(e.key), time: d.time, weight: -1})
				}
				g := &rankedGroup[V]{s, string(place[:prefix])}
				if g.empty() {
					var none R
					results.write(e, none, false)
					continue
				}
				over.add(e)
				results.write(e, o.result(g), true)
				if len(out.outs) > 0 {
					buf = append(buf, delta[K, R]{key: d.key, val: e.is.val, raw: rawOf(e.key), time: d.time, weight: 1})
				}
			}
			out.emit(buf)
		})
		return out
	}
	return &Table[K, R]{n, key, o.value}
}

// Min is the smallest of what f makes of each row. NaN is smaller than all others.
func Min[K, V any, S cmp.Ordered](r Rows[K, V], f func(key K, value V) S) *Table[K, S] {
	return extreme("min", r, f, false)
}

// Max is the largest of what f makes of each row. NaN is smaller than all others.
func Max[K, V any, S cmp.Ordered](r Rows[K, V], f func(key K, value V) S) *Table[K, S] {
	return extreme("max", r, f, true)
}

func extreme[K, V any, S cmp.Ordered](kind string, r Rows[K, V], f func(K, V) S, descending bool) *Table[K, S] {
	in, key, _ := r.rows()
	scores := &Grouped[K, S]{mapped(in, f), key, DefaultCodec[S]()}
	if in.appends { // nothing is taken back: the best one is enough
		t := aggregated(scores, aggregator[K, S, first[S], S]{
			kind: kind, acc: firstCodec[S]{DefaultCodec[S]()}, value: DefaultCodec[S](),
			add: func(acc first[S], _ K, s S) (first[S], error) {
				if !acc.some || cmp.Compare(s, acc.val) < 0 != descending && cmp.Compare(s, acc.val) != 0 {
					return first[S]{s, true}, nil
				}
				return acc, nil
			},
			result: func(_ int64, acc first[S]) (S, error) { return acc.val, nil },
		})
		t.n.needs("function", f != nil)
		return t
	}
	t := rankedOp[K, S, S]{
		kind: kind, value: DefaultCodec[S](),
		place: func(dst []byte, _ K, s S) ([]byte, error) { return appendOrdered(dst, s, descending), nil },
		result: func(g *rankedGroup[S]) (best S) {
			g.each(func(s S, _ int64) bool { best = s; return false })
			return best
		},
	}.table(scores)
	t.n.needs("function", f != nil)
	return t
}

// TopN is the n rows of each key for which by is largest, largest first; of equals, those whose encoding is smaller come first. Where
// rows are written as JSON, so is the list of them.
func TopN[K, V any, S cmp.Ordered](r Rows[K, V], n int, by func(key K, value V) S) *Table[K, []V] {
	in, _, value := r.rows()
	var t *Table[K, []V]
	if in.appends {
		t = topOfStream(r, n, by)
	} else {
		t = rankedOp[K, V, []V]{
			kind: "top n", value: listOf(value),
			place: func(dst []byte, k K, v V) ([]byte, error) {
				return value.Append(appendOrdered(dst, by(k, v), true), v)
			},
			result: func(g *rankedGroup[V]) []V {
				top := make([]V, 0, n)
				g.each(func(v V, times int64) bool {
					for ; times > 0 && len(top) < n; times-- {
						top = append(top, v)
					}
					return len(top) < n
				})
				return top
			},
		}.table(r)
	}
	if n < 1 {
		t.n.err = fmt.Errorf("top n: n is %d", n)
	}
	t.n.needs("function", by != nil)
	return t
}

// CountDistinct is how many different values f makes of each key's rows; values are told apart by their encoding.
func CountDistinct[K, V, D any](r Rows[K, V], value Codec[D], f func(key K, value V) D) *Table[K, int64] {
	in, key, _ := r.rows()
	t := rankedOp[K, D, int64]{
		kind: "count distinct", value: DefaultCodec[int64](),
		place: func(dst []byte, _ K, d D) ([]byte, error) { return value.Append(dst, d) },
		result: func(g *rankedGroup[D]) (n int64) {
			g.each(func(D, int64) bool { n++; return true })
			return n
		},
	}.table(&Grouped[K, D]{mapped(in, f), key, value})
	t.n.needs("codec", value != nil).needs("function", f != nil)
	return t
}

// appendOrdered appends a number or a string so that bytes compare as values do, the other way round where descending is set.
func appendOrdered[S cmp.Ordered](dst []byte, s S, descending bool) []byte {
	from := len(dst)
	switch v := reflect.ValueOf(s); v.Kind() {
	case reflect.String:
		dst = appendText(dst, v.String())
	case reflect.Float32, reflect.Float64:
		dst = binary.BigEndian.AppendUint64(dst, orderedBits(v.Float()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		dst = binary.BigEndian.AppendUint64(dst, v.Uint())
	default:
		dst = binary.BigEndian.AppendUint64(dst, uint64(v.Int())^1<<63)
	}
	if descending {
		for i := range dst[from:] {
			dst[from+i] ^= 0xff
		}
	}
	return dst
}

// appendText appends bytes of which none are the beginning of others: 0 is 0 255, and 0 1 is the end.
func appendText[B string | []byte](dst []byte, text B) []byte {
	for i := range len(text) {
		if dst = append(dst, text[i]); text[i] == 0 {
			dst = append(dst, 255)
		}
	}
	return append(dst, 0, 1)
}

// orderedBits are bits that compare as cmp.Compare does: all NaN are one, and less than the rest; 0 and -0 are one.
func orderedBits(f float64) uint64 {
	switch {
	case math.IsNaN(f):
		return 0
	case f == 0:
		f = 0
		return 1 << 63
	}
	b := math.Float64bits(f)
	if b>>63 != 0 {
		return ^b
	}
	return b | 1<<63
}
