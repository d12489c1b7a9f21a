// Package codec has the codecs of typed keys and values that need nothing but the
// standard library:
//
//	String     the bytes of the string
//	Bytes      as they are
//	Int64      eight bytes, big-endian, so that byte order is the numbers' order for all that are not negative
//	JSON[T]{}  encoding/json
//
// A codec with another dependency lives outside of this module: two methods make
// one, see embedlog.Codec. Package embedlog does not import this package: a
// program without JSON does not carry it.
//
// Codecs have no state and may be used by any number of goroutines.
package codec

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
)

// ErrInvalid is matched by the errors of Decode: the bytes are not what the codec makes.
var ErrInvalid = errors.New("embedlog: invalid encoding")

// String keeps a string as its bytes.
var String stringCodec

type stringCodec struct{}

// Append appends the bytes of s. An empty string is empty bytes, not null.
func (stringCodec) Append(dst []byte, s string) ([]byte, error) {
	if dst == nil {
		dst = []byte{}
	}
	return append(dst, s...), nil
}

// Decode copies b. Null is the empty string.
func (stringCodec) Decode(b []byte) (string, error) { return string(b), nil }

// Bytes keeps bytes as they are; nil is null.
var Bytes bytesCodec

type bytesCodec struct{}

// Append appends v. Nil behind nil stays nil.
func (bytesCodec) Append(dst, v []byte) ([]byte, error) {
	if dst == nil && v != nil {
		dst = []byte{}
	}
	return append(dst, v...), nil
}

// Decode returns b itself.
func (bytesCodec) Decode(b []byte) ([]byte, error) { return b, nil }

// Int64 keeps a number as eight bytes, big-endian, two's complement: what Kafka's
// LongSerializer writes.
var Int64 int64Codec

type int64Codec struct{}

// Append appends eight bytes.
func (int64Codec) Append(dst []byte, v int64) ([]byte, error) {
	return binary.BigEndian.AppendUint64(dst, uint64(v)), nil
}

// Decode reads exactly eight bytes.
func (int64Codec) Decode(b []byte) (int64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("%w: an Int64 has 8 bytes, not %d", ErrInvalid, len(b))
	}
	return int64(binary.BigEndian.Uint64(b)), nil
}

// JSON keeps a value as encoding/json writes it.
type JSON[T any] struct{}

// Append appends the JSON of v.
func (JSON[T]) Append(dst []byte, v T) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return dst, err
	}
	if dst == nil {
		return b, nil
	}
	return append(dst, b...), nil
}

// Decode reads the JSON of one value. Null bytes are an error: a tombstone has no value.
func (JSON[T]) Decode(b []byte) (T, error) {
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return v, nil
}
