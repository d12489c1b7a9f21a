package query

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/x/embedlog/codec"
)

// topOfStream is TopN of rows that are not taken back: the n best ones are enough. A list is never written to again, because readers have it.
func topOfStream[K, V any, S cmp.Ordered](r Rows[K, V], n int, by func(key K, value V) S) *Table[K, []V] {
	_, _, value := r.rows()
	var a, b []byte
	// before says that x comes before y.
	before := func(k K, x V, sx S, y V) (bool, error) {
		if c := cmp.Compare(sx, by(k, y)); c != 0 {
			return c > 0, nil
		}
		var err error
		if a, err = value.Append(a[:0], x); err != nil {
			return false, err
		}
		if b, err = value.Append(b[:0], y); err != nil {
			return false, err
		}
		return bytes.Compare(a, b) < 0, nil
	}
	return aggregated(r, aggregator[K, V, []V, []V]{
		kind: "top n", acc: listOf(value), value: listOf(value),
		add: func(top []V, k K, v V) ([]V, error) {
			s := by(k, v)
			at := len(top)
			for at > 0 {
				better, err := before(k, v, s, top[at-1])
				if err != nil {
					return nil, err
				}
				if !better {
					break
				}
				at--
			}
			if at >= n {
				return top, nil
			}
			size := min(len(top)+1, n)
			list := make([]V, size)
			copy(list, top[:at])
			list[at] = v
			copy(list[at+1:], top[at:])
			return list, nil
		},
		result: func(_ int64, top []V) ([]V, error) { return top, nil },
		same:   func(a, b []V) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) },
	})
}

// listOf is the codec of a list of values: as JSON where they are, else one after another with their lengths, in which null is 0.
func listOf[V any](value Codec[V]) Codec[[]V] {
	if _, ok := value.(codec.JSON[V]); ok {
		return DefaultCodec[[]V]()
	}
	return listCodec[V]{value}
}

type listCodec[V any] struct{ value Codec[V] }

// Append implements Codec.
func (c listCodec[V]) Append(dst []byte, list []V) ([]byte, error) {
	if dst == nil {
		dst = []byte{}
	}
	for _, v := range list {
		from := len(dst)
		dst = append(dst, 0) // the length, where it is short
		b, err := c.value.Append(dst, v)
		if err != nil {
			return dst, err
		}
		n := len(b) - from - 1
		if n < 0x7f {
			if dst = b; n > 0 || !isNull(c.value, v) {
				dst[from] = byte(n + 1)
			}
			continue
		}
		dst = b
		head := binary.AppendUvarint(nil, uint64(n+1))
		dst = slices.Replace(dst, from, from+1, head...)
	}
	return dst, nil
}

// isNull says that a value's encoding is null. It is asked of those that have no bytes.
func isNull[V any](c Codec[V], v V) bool {
	b, err := c.Append(nil, v)
	return err == nil && b == nil
}

var errList = errors.New("query: invalid encoding of a list")

// Decode implements Codec.
func (c listCodec[V]) Decode(b []byte) (list []V, err error) {
	for len(b) > 0 {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size)+1 {
			return nil, errList
		}
		var part []byte
		if b = b[size:]; n > 0 {
			part, b = b[:n-1:n-1], b[n-1:]
		}
		v, err := c.value.Decode(part)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}
