package compress

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	// zstdMaxWindow is the largest window that the Java client's library reads. It
	// bounds what is accepted, not memory: the window is the output itself.
	zstdMaxWindow = 128 << 20
	// zstdWindowBytes is the window of what is written: most batches are smaller.
	zstdWindowBytes = 1 << 20
	// zstdBlockBytes is the most that one block holds.
	zstdBlockBytes = 128 << 10
	// zstdSlack behind the output lets the decoder copy in words.
	zstdSlack = 32
	// zstdScratchBytes is the largest scratch that is kept in the pool.
	zstdScratchBytes = 512 << 10
)

// A channel that is made within a testing/synctest bubble may not be touched from
// outside of it, so nothing that holds one may be made in a call and used by a later
// one: two tests of a user's, each a bubble, would end the process. Encoders make one
// for EncodeAll only, so theirs are used as streams. Decoders always have one, so there
// is one decoder, made as the program starts.

// zstdWriters are pools by the library's level: an encoder is 1 MiB and more.
var zstdWriters [zstd.SpeedBestCompression + 1]sync.Pool // of *zstdWriter

// zstdWriter is an encoder and what it has written.
type zstdWriter struct {
	enc *zstd.Encoder
	out []byte
}

// Write takes what the encoder gives.
func (w *zstdWriter) Write(p []byte) (int, error) {
	w.out = append(w.out, p...)
	return len(p), nil
}

func encodeZstd(dst, src []byte, level int) ([]byte, error) {
	speed := zstd.SpeedDefault
	if level != 0 {
		speed = zstd.EncoderLevelFromZstd(level)
	}
	w, ok := zstdWriters[speed].Get().(*zstdWriter)
	if !ok {
		enc, err := zstd.NewWriter(nil,
			zstd.WithEncoderLevel(speed),
			zstd.WithEncoderConcurrency(1), // works in the caller's goroutine
			zstd.WithLowerEncoderMem(true),
			zstd.WithWindowSize(zstdWindowBytes),
			zstd.WithEncoderCRC(false), // the batch has one
			zstd.WithZeroFrames(true))  // so that nothing, too, is a frame
		if err != nil {
			return dst, fmt.Errorf("zstd: %w", err)
		}
		w = &zstdWriter{enc: enc}
	}
	w.out = dst
	w.enc.ResetContentSize(w, int64(len(src))) // the frame says its size
	_, err := w.enc.Write(src)
	err = errors.Join(err, w.enc.Close())
	out := w.out
	w.out = nil
	if err != nil {
		return dst, fmt.Errorf("zstd: %w", err) // and the encoder is not used again
	}
	zstdWriters[speed].Put(w)
	return out, nil
}

// zstdReader decodes for as many callers at a time as there are CPUs, each in its own
// goroutine; others wait. What each of them needs beside the output stays allocated.
var zstdReader, errZstdReader = zstd.NewReader(nil,
	zstd.WithDecoderConcurrency(0),
	zstd.WithDecoderLowmem(true),
	zstd.WithDecoderMaxWindow(zstdMaxWindow),
	zstd.WithDecodeAllCapLimit(true)) // stays within the memory that it is given

// zstdScratch is memory for output whose size is not known.
var zstdScratch sync.Pool // of *[]byte

func decodeZstd(dst, src []byte, limit int) ([]byte, error) {
	least, most, err := measureZstd(src)
	if err != nil {
		return dst, err
	}
	if least > int64(limit) {
		return dst, tooLarge(Zstd, limit)
	}
	if errZstdReader != nil {
		return dst, fmt.Errorf("zstd: %w", errZstdReader)
	}

	// Room for one block more than the limit: so the limit is passed at the end of
	// a block, where it can be told from damage.
	room := int(min(most, int64(limit)+zstdBlockBytes)) + zstdSlack
	start := len(dst)
	if least < most && room <= zstdScratchBytes {
		// The size is not known, as in everything that Java writes. A bound of 128 KiB
		// for a batch of 300 bytes should not become memory that its records pin.
		scratch, ok := zstdScratch.Get().(*[]byte)
		if !ok {
			scratch = new([]byte)
		}
		defer zstdScratch.Put(scratch)
		*scratch = slices.Grow((*scratch)[:0], room)
		out, err := zstdReader.DecodeAll(src, (*scratch)[:0:room])
		if err := zstdResult(len(out), limit, err); err != nil {
			return dst, err
		}
		return append(dst, out...), nil
	}
	grown := slices.Grow(dst, room)
	out, err := zstdReader.DecodeAll(src, grown[start:start:start+room])
	if err := zstdResult(len(out), limit, err); err != nil {
		return dst, err
	}
	return grown[:start+len(out)], nil
}

func zstdResult(n, limit int, err error) error {
	if n > limit {
		return tooLarge(Zstd, limit)
	}
	if err != nil {
		return corrupt(Zstd, err.Error())
	}
	return nil
}

// measureZstd walks the frames and blocks of src without decoding them, and adds
// up the least and the most that they can expand to. They are equal when every
// frame says its size, as those of encoders do that see all the data at once;
// those of encoders that stream, such as Java's, do not.
func measureZstd(src []byte) (least, most int64, err error) {
	var h zstd.Header
	for len(src) > 0 {
		if err := h.Decode(src); err != nil {
			return 0, 0, corrupt(Zstd, err.Error())
		}
		if h.HeaderSize > len(src) {
			return 0, 0, corrupt(Zstd, "frame header is cut off")
		}
		src = src[h.HeaderSize:]
		if h.Skippable {
			if int64(h.SkippableSize) > int64(len(src)) {
				return 0, 0, corrupt(Zstd, "skippable frame is cut off")
			}
			src = src[h.SkippableSize:]
			continue
		}
		if h.DictionaryID != 0 {
			return 0, 0, corrupt(Zstd, "frame needs a dictionary")
		}
		if h.WindowSize > zstdMaxWindow && !h.SingleSegment {
			return 0, 0, corrupt(Zstd, "window is larger than 128 MiB")
		}
		var low, high int64
		if low, high, src, err = measureZstdBlocks(src); err != nil {
			return 0, 0, err
		}
		if h.HasCheckSum {
			if len(src) < 4 {
				return 0, 0, corrupt(Zstd, "checksum is cut off")
			}
			src = src[4:]
		}
		if h.HasFCS {
			if h.FrameContentSize > uint64(high) || h.FrameContentSize < uint64(low) {
				return 0, 0, corrupt(Zstd, "blocks cannot have the size that the frame says")
			}
			low, high = int64(h.FrameContentSize), int64(h.FrameContentSize)
		}
		least += low
		most += high
	}
	return least, most, nil
}

// measureZstdBlocks walks blocks up to a frame's last one: three bytes of last,
// type and size, then the block.
func measureZstdBlocks(src []byte) (least, most int64, rest []byte, err error) {
	for last := false; !last; {
		if len(src) < 3 {
			return 0, 0, nil, corrupt(Zstd, "frame has no last block")
		}
		word := uint32(src[0]) | uint32(src[1])<<8 | uint32(src[2])<<16
		src = src[3:]
		last = word&1 != 0
		size := int64(word >> 3)
		if size > zstdBlockBytes {
			return 0, 0, nil, corrupt(Zstd, "block is larger than 128 KiB")
		}
		stored := size
		switch word >> 1 & 3 {
		case 0: // as it is
			least += size
			most += size
		case 1: // one byte, repeated
			stored = 1
			least += size
			most += size
		case 2:
			most += zstdBlockBytes
		default:
			return 0, 0, nil, corrupt(Zstd, "block of an unknown type")
		}
		if stored > int64(len(src)) {
			return 0, 0, nil, corrupt(Zstd, "block is cut off")
		}
		src = src[stored:]
	}
	return least, most, src, nil
}
