package query

import (
	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
)

// Codec is embedlog.Codec.
type Codec[T any] = embedlog.Codec[T]

// DefaultCodec is what keys and values are kept with where nothing is said: codec.String, codec.Bytes and codec.Int64 for
// those types, codec.JSON for all others.
func DefaultCodec[T any]() Codec[T] {
	var c any
	switch any(*new(T)).(type) {
	case string:
		c = codec.String
	case []byte:
		c = codec.Bytes
	case int64:
		c = codec.Int64
	default:
		c = codec.JSON[T]{}
	}
	return c.(Codec[T])
}

// canonical says that a codec has one encoding for each value, which is the one that it decodes.
func canonical[T any](c Codec[T]) bool {
	return equal(c, codec.String) || equal(c, codec.Bytes) || equal(c, codec.Int64)
}
