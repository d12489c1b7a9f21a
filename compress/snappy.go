package compress

import (
	"encoding/binary"
	"slices"

	"github.com/klauspost/compress/s2"
)

// snappyHeader starts what snappy-java writes: a magic, the version of the
// framing and the lowest one that reads it. Chunks follow: four bytes of length,
// then a snappy block. Java writes nothing else and every client reads it; bare
// snappy, which some clients write, is read by most.
const snappyHeader = "\x82SNAPPY\x00" + "\x00\x00\x00\x01" + "\x00\x00\x00\x01"

const (
	snappyMagicLen = 8
	// snappyChunkBytes is snappy-java's own block size.
	snappyChunkBytes = 32 << 10
)

func encodeSnappy(dst, src []byte) ([]byte, error) {
	dst = append(dst, snappyHeader...)
	for {
		chunk := src[:min(len(src), snappyChunkBytes)]
		src = src[len(chunk):]
		room := s2.MaxEncodedLen(len(chunk))
		dst = slices.Grow(dst, 4+room)
		at := len(dst)
		block := s2.EncodeSnappy(dst[at+4:at+4+room], chunk)
		dst = dst[:at+4]
		binary.BigEndian.PutUint32(dst[at:], uint32(len(block)))
		dst = append(dst, block...) // onto itself: it was encoded in place
		if len(src) == 0 {
			return dst, nil
		}
	}
}

func decodeSnappy(dst, src []byte, limit int) ([]byte, error) {
	if len(src) < snappyMagicLen || string(src[:snappyMagicLen]) != snappyHeader[:snappyMagicLen] {
		n, err := snappyBlockLen(src)
		if err != nil {
			return dst, err
		}
		if n > int64(limit) {
			return dst, tooLarge(Snappy, limit)
		}
		return decodeSnappyBlock(slices.Grow(dst, int(n)), src, int(n))
	}
	// Measure all, take memory once, decode.
	var total int64
	err := snappyChunks(src, func(block []byte) error {
		n, err := snappyBlockLen(block)
		if total += n; err == nil && total > int64(limit) {
			err = tooLarge(Snappy, limit)
		}
		return err
	})
	if err != nil {
		return dst, err
	}
	dst = slices.Grow(dst, int(total))
	err = snappyChunks(src, func(block []byte) error {
		n, err := snappyBlockLen(block)
		if err == nil {
			dst, err = decodeSnappyBlock(dst, block, int(n))
		}
		return err
	})
	return dst, err
}

// snappyChunks calls f for each block of a framed stream.
func snappyChunks(src []byte, f func(block []byte) error) error {
	for len(src) > 0 {
		// Streams may be joined: then the header comes again, where its first bytes
		// would be a negative length.
		if len(src) >= snappyMagicLen && string(src[:snappyMagicLen]) == snappyHeader[:snappyMagicLen] {
			if len(src) < len(snappyHeader) {
				return corrupt(Snappy, "header is cut off")
			}
			if binary.BigEndian.Uint32(src[12:]) > 1 {
				return corrupt(Snappy, "framing of an unknown version")
			}
			src = src[len(snappyHeader):]
			continue
		}
		if len(src) < 4 {
			return corrupt(Snappy, "chunk length is cut off")
		}
		n := int64(binary.BigEndian.Uint32(src))
		src = src[4:]
		if n > int64(len(src)) {
			return corrupt(Snappy, "chunk is cut off")
		}
		if err := f(src[:n]); err != nil {
			return err
		}
		src = src[n:]
	}
	return nil
}

// snappyBlockLen measures what a block expands to by walking its elements, and
// compares that with what it claims. It also refuses s2's extension, a copy from
// distance 0, which our decoder would take and other clients' would not.
func snappyBlockLen(b []byte) (int64, error) {
	claim, i := binary.Uvarint(b)
	if i <= 0 || claim > 1<<32-1 {
		return 0, corrupt(Snappy, "length is not a varint of 32 bits")
	}
	var n uint64
	for i < len(b) {
		tag := b[i]
		i++
		left := len(b) - i
		switch tag & 3 {
		case 0: // literal: the length less one in the tag, or in 1 to 4 bytes behind it
			size := uint64(tag >> 2)
			if size >= 60 {
				bytes := int(size) - 59
				if left < bytes {
					return 0, corrupt(Snappy, "literal length is cut off")
				}
				size = 0
				for k := range bytes {
					size |= uint64(b[i+k]) << (8 * k)
				}
				i += bytes
			}
			size++
			if size > uint64(len(b)-i) {
				return 0, corrupt(Snappy, "literal is cut off")
			}
			i += int(size)
			n += size
		default:
			need := [4]int{0, 1, 2, 4}[tag&3]
			if left < need {
				return 0, corrupt(Snappy, "copy is cut off")
			}
			size, distance := uint64(tag>>2)+1, uint64(0)
			switch need {
			case 1:
				size, distance = uint64(tag>>2&7)+4, uint64(tag>>5)<<8|uint64(b[i])
			case 2:
				distance = uint64(binary.LittleEndian.Uint16(b[i:]))
			case 4:
				distance = uint64(binary.LittleEndian.Uint32(b[i:]))
			}
			if distance == 0 || distance > n {
				return 0, corrupt(Snappy, "copy from before the start")
			}
			i += need
			n += size
		}
		if n > claim {
			return 0, corrupt(Snappy, "block is longer than it says")
		}
	}
	if n != claim {
		return 0, corrupt(Snappy, "block is shorter than it says")
	}
	return int64(n), nil
}

// decodeSnappyBlock appends a measured block to dst, which has room for its n bytes.
func decodeSnappyBlock(dst, block []byte, n int) ([]byte, error) {
	at := len(dst)
	out, err := s2.Decode(dst[at:at+n:at+n], block)
	if err != nil {
		return dst, corrupt(Snappy, err.Error())
	}
	if len(out) != n {
		return dst, corrupt(Snappy, "block has another length than it says")
	}
	return dst[:at+n], nil
}
