// Package compress
package compress

import "errors"

// Codec is a compression method by its number in Kafka's formats.
type Codec int8

const (
	None   Codec = 0
	Gzip   Codec = 1
	Snappy Codec = 2
	LZ4    Codec = 3
	Zstd   Codec = 4
)

var ErrUnknownCodec = errors.New("embedlog: unknown codec")

func Encode(dst, src []byte, c Codec, level int) ([]byte, error) { return dst, ErrUnknownCodec }
func Decode(dst, src []byte, c Codec, max int) ([]byte, error)   { return dst, ErrUnknownCodec }
