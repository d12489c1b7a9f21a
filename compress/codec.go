package compress

import (
	"errors"
	"fmt"
	"strings"
)

// Codec is a compression method by its number in Kafka's formats.
type Codec int8

// The codecs. Their numbers are bits 0 to 2 of a record batch's attributes.
const (
	None   Codec = 0
	Gzip   Codec = 1
	Snappy Codec = 2
	LZ4    Codec = 3
	Zstd   Codec = 4
)

var names = [...]string{None: "none", Gzip: "gzip", Snappy: "snappy", LZ4: "lz4", Zstd: "zstd"}

// What a caller branches on. Errors match them with errors.Is.
var (
	// ErrUnknownCodec says that there is no codec of that number or name.
	ErrUnknownCodec = errors.New("embedlog: unknown compression codec")
	// ErrCorrupt says that bytes are not what the codec makes.
	ErrCorrupt = errors.New("embedlog: corrupt compressed data")
	// ErrTooLarge says that the data would expand past the bound.
	ErrTooLarge = errors.New("embedlog: compressed data expands past its bound")
)

// Valid reports whether the codec exists.
func (c Codec) Valid() bool { return c >= None && c <= Zstd }

// String is Kafka's name of the codec, as in compression.type.
func (c Codec) String() string {
	if !c.Valid() {
		return fmt.Sprintf("codec(%d)", int8(c))
	}
	return names[c]
}

// Parse finds a codec by Kafka's name, in lower or upper case.
func Parse(name string) (Codec, error) {
	for c, n := range names {
		if strings.EqualFold(n, name) {
			return Codec(c), nil
		}
	}
	return None, fmt.Errorf("%w: %q", ErrUnknownCodec, name)
}

// Encode appends src, compressed, to dst. Level is the codec's own scale; 0 is its
// default, a number off the scale its nearest end, and None and Snappy have none:
// gzip 1 to 9, lz4 1 to 12 (2 and more search longer), zstd 1 to 22. On an error dst is returned as
// it was. The two must not overlap.
func Encode(dst, src []byte, c Codec, level int) ([]byte, error) {
	switch c {
	case None:
		return append(dst, src...), nil
	case Gzip:
		return encodeGzip(dst, src, level)
	case Snappy:
		return encodeSnappy(dst, src)
	case LZ4:
		return encodeLZ4(dst, src, level)
	case Zstd:
		return encodeZstd(dst, src, level)
	}
	return dst, fmt.Errorf("%w: %v", ErrUnknownCodec, c)
}

// Decode appends src, decompressed, to dst: at most limit bytes, or ErrTooLarge.
// All of src must be used up. On an error dst is returned as it was. The two must
// not overlap.
//
// Whatever src claims, no more than 2*limit+64 KiB is held at any moment besides dst
// and the codec's tables (at most 1 MiB, pooled).
func Decode(dst, src []byte, c Codec, limit int) ([]byte, error) {
	if !c.Valid() {
		return dst, fmt.Errorf("%w: %v", ErrUnknownCodec, c)
	}
	if limit < 0 {
		limit = 0
	}
	if c == None {
		if len(src) > limit {
			return dst, tooLarge(c, limit)
		}
		return append(dst, src...), nil
	}
	if len(src) == 0 {
		return dst, corrupt(c, "no bytes at all")
	}
	var out []byte
	var err error
	switch c {
	case Gzip:
		out, err = decodeGzip(dst, src, limit)
	case Snappy:
		out, err = decodeSnappy(dst, src, limit)
	case LZ4:
		out, err = decodeLZ4(dst, src, limit)
	case Zstd:
		out, err = decodeZstd(dst, src, limit)
	}
	if err != nil {
		return dst, err
	}
	return out, nil
}

func tooLarge(c Codec, limit int) error {
	return fmt.Errorf("%v: %w of %d bytes", c, ErrTooLarge, limit)
}

func corrupt(c Codec, reason string) error {
	return fmt.Errorf("%v: %w: %s", c, ErrCorrupt, reason)
}
