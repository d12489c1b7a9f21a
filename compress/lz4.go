package compress

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/pierrec/lz4/v4"
)

// An LZ4 frame (https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md), all
// little-endian:
//
//	0  4  magic
//	4  1  flags: version 1 in bits 6 and 7, then see below
//	5  1  largest size of a block: 64 KiB << 2*(bits 4 to 6, less 4)
//	   8  size of the content, if flagged
//	   4  dictionary, if flagged: not supported, Kafka has none
//	   1  second byte of the xxHash-32 of the bytes after the magic
//	      blocks: length of 4 bytes, its top bit set if the block is stored as it
//	      is; the block; its xxHash-32 if flagged
//	   4  zero: the end
//	   4  xxHash-32 of the content, if flagged
//
// The frame is read and written here rather than by the library: its reader takes
// memory for the block size that the frame claims, up to 4 MiB, and copies twice.
const (
	lz4Magic           = 0x184D2204
	lz4Version         = 1 << 6
	lz4Independent     = 1 << 5 // blocks do not refer to the ones before
	lz4BlockChecksum   = 1 << 4
	lz4ContentSize     = 1 << 3
	lz4ContentChecksum = 1 << 2
	lz4Dictionary      = 1 << 0
	lz4Stored          = 1 << 31

	// lz4WindowBytes is how far back a block may refer.
	lz4WindowBytes = 64 << 10
)

var (
	lz4Fast = sync.Pool{New: func() any { return new(lz4.Compressor) }}
	lz4High = sync.Pool{New: func() any { return new(lz4.CompressorHC) }}
)

// encodeLZ4 writes independent blocks, the only kind Java reads. Those of 64 KiB
// are Java's own; large batches get 256 KiB for a better ratio.
func encodeLZ4(dst, src []byte, level int) ([]byte, error) {
	start := len(dst)
	blockBytes, sizeCode := 64<<10, byte(4)
	if len(src) > 128<<10 {
		blockBytes, sizeCode = 256<<10, 5
	}
	dst = binary.LittleEndian.AppendUint32(dst, lz4Magic)
	dst = append(dst, lz4Version|lz4Independent, sizeCode<<4)
	dst = append(dst, byte(xxHash32(dst[start+4:])>>8))
	for len(src) > 0 {
		chunk := src[:min(len(src), blockBytes)]
		src = src[len(chunk):]
		dst = slices.Grow(dst, 4+len(chunk))
		at := len(dst) + 4
		n, err := lz4Block(dst[at:at+len(chunk)-1], chunk, level)
		if err != nil {
			return dst[:start], fmt.Errorf("lz4: %w", err)
		}
		if n == 0 { // it does not get smaller
			dst = binary.LittleEndian.AppendUint32(dst, uint32(len(chunk))|lz4Stored)
			dst = append(dst, chunk...)
			continue
		}
		dst = binary.LittleEndian.AppendUint32(dst, uint32(n))[:at+n]
	}
	return binary.LittleEndian.AppendUint32(dst, 0), nil
}

// lz4Block compresses a block into dst. 0 means that it does not fit.
func lz4Block(dst, src []byte, level int) (int, error) {
	if level < 2 {
		c := lz4Fast.Get().(*lz4.Compressor)
		defer lz4Fast.Put(c)
		return noRoom(c.CompressBlock(src, dst))
	}
	c := lz4High.Get().(*lz4.CompressorHC)
	defer lz4High.Put(c)
	c.Level = lz4.Level1 << (min(level, 10) - 2) // level 2 of Kafka's scale is the library's first
	if c.Level > lz4.Level9 {
		c.Level = lz4.Level9
	}
	return noRoom(c.CompressBlock(src, dst))
}

// noRoom makes the two ways of saying "it does not get smaller" one.
func noRoom(n int, err error) (int, error) {
	if err == lz4.ErrInvalidSourceShortBuffer {
		return 0, nil
	}
	return n, err
}

// lz4Frame is a frame whose header has been read.
type lz4Frame struct {
	flags       byte
	blockBytes  int64
	contentSize uint64 // if flagged
	body        []byte // the blocks and what follows
}

func decodeLZ4(dst, src []byte, limit int) ([]byte, error) {
	f, err := readLZ4Header(src)
	if err != nil {
		return dst, err
	}
	// Measure all, take memory once, decode.
	var total int64
	rest, err := f.blocks(func(block []byte, stored bool) error {
		n := int64(len(block))
		if !stored {
			if n = lz4BlockLen(block); n < 0 {
				return corrupt(LZ4, "block is cut off")
			}
		}
		if n > f.blockBytes {
			return corrupt(LZ4, "block is larger than the frame allows")
		}
		if total += n; total > int64(limit) {
			return tooLarge(LZ4, limit)
		}
		return nil
	})
	if err != nil {
		return dst, err
	}
	if f.flags&lz4ContentSize != 0 && f.contentSize != uint64(total) {
		return dst, corrupt(LZ4, "content has another size than the frame says")
	}
	start := len(dst)
	dst = slices.Grow(dst, int(total))
	_, err = f.blocks(func(block []byte, stored bool) error {
		if stored {
			dst = append(dst, block...)
			return nil
		}
		out := dst[len(dst):cap(dst)]
		out = out[:min(int64(len(out)), lz4BlockLen(block))]
		var window []byte
		if f.flags&lz4Independent == 0 {
			window = dst[max(start, len(dst)-lz4WindowBytes):len(dst):len(dst)]
		}
		n, err := lz4.UncompressBlockWithDict(block, out, window)
		if err != nil {
			return corrupt(LZ4, err.Error())
		}
		if n != len(out) {
			return corrupt(LZ4, "block has another length than measured")
		}
		dst = dst[:len(dst)+n]
		return nil
	})
	if err != nil {
		return dst, err
	}
	if f.flags&lz4ContentChecksum != 0 {
		if len(rest) < 4 || binary.LittleEndian.Uint32(rest) != xxHash32(dst[start:]) {
			return dst, corrupt(LZ4, "checksum of the content is wrong")
		}
		rest = rest[4:]
	}
	if len(rest) > 0 {
		return dst, corrupt(LZ4, "bytes behind the frame")
	}
	return dst, nil
}

func readLZ4Header(src []byte) (lz4Frame, error) {
	var f lz4Frame
	if len(src) < 7 || binary.LittleEndian.Uint32(src) != lz4Magic {
		return f, corrupt(LZ4, "no frame")
	}
	f.flags = src[4]
	size := src[5] >> 4
	n := 6
	switch {
	case f.flags&(3<<6) != lz4Version:
		return f, corrupt(LZ4, "frame of an unknown version")
	case f.flags&lz4Dictionary != 0:
		return f, corrupt(LZ4, "frame needs a dictionary")
	case f.flags&2 != 0 || src[5]&0x8f != 0:
		return f, corrupt(LZ4, "reserved bits are set")
	case size < 4:
		return f, corrupt(LZ4, "unknown block size")
	}
	f.blockBytes = 64 << 10 << (2 * (size - 4))
	if f.flags&lz4ContentSize != 0 {
		if len(src) < 15 {
			return f, corrupt(LZ4, "frame header is cut off")
		}
		f.contentSize = binary.LittleEndian.Uint64(src[6:])
		n = 14
	}
	if byte(xxHash32(src[4:n])>>8) != src[n] {
		return f, corrupt(LZ4, "checksum of the frame header is wrong")
	}
	f.body = src[n+1:]
	return f, nil
}

// blocks calls visit for each block and returns what lies behind the end mark.
func (f *lz4Frame) blocks(visit func(block []byte, stored bool) error) (rest []byte, err error) {
	b := f.body
	for {
		if len(b) < 4 {
			return nil, corrupt(LZ4, "frame has no end")
		}
		word := binary.LittleEndian.Uint32(b)
		b = b[4:]
		if word == 0 {
			return b, nil
		}
		n := int64(word &^ lz4Stored)
		if n > f.blockBytes || n > int64(len(b)) {
			return nil, corrupt(LZ4, "block length is out of bounds")
		}
		block := b[:n]
		b = b[n:]
		if f.flags&lz4BlockChecksum != 0 {
			if len(b) < 4 || binary.LittleEndian.Uint32(b) != xxHash32(block) {
				return nil, corrupt(LZ4, "checksum of a block is wrong")
			}
			b = b[4:]
		}
		if err := visit(block, word&lz4Stored != 0); err != nil {
			return nil, err
		}
	}
}

// lz4BlockLen measures what a block expands to by walking its sequences: a token
// with two lengths, more length bytes where a half is full, literals, a distance.
// The last sequence has literals only. Negative means that the block is cut off.
func lz4BlockLen(b []byte) int64 {
	var n int64
	more := func(i int, length int64) (int, int64) {
		for length += 15; i < len(b); {
			c := b[i]
			i++
			length += int64(c)
			if c != 255 {
				return i, length
			}
		}
		return len(b) + 1, length
	}
	for i := 0; i < len(b); {
		token := b[i]
		i++
		literals, match := int64(token>>4), int64(token&15)
		if literals == 15 {
			i, literals = more(i, 0)
		}
		if literals > int64(len(b)-i) {
			return -1
		}
		i += int(literals)
		n += literals
		if i == len(b) {
			return n
		}
		i += 2
		if match == 15 {
			i, match = more(i, 0)
		}
		if i > len(b) {
			return -1
		}
		n += match + 4
	}
	return -1 // ends with a match, or is empty
}
