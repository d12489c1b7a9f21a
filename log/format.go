package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/x/embedlog/internal/seed"
)

// The numbers of docs/format.md. A change here is a change of the format: it
// needs a version, a reader for the old one and a fixture.
const (
	formatVersion = 1

	segmentMagic     = "embedlog"
	segmentHeaderLen = 128
	flagCompacted    = 1 << 0

	frameMagic     = 0xE10C
	frameVersion   = 1
	frameHeaderLen = 48

	// otherHeadLen is the head of a frame without offsets: the
	// next offset and the CRC of the rest of the payload.
	otherHeadLen = 12
	// markHeadLen is the head, and all, of an end mark: the next offset.
	markHeadLen = 8
	markLen     = frameHeaderLen + markHeadLen

	checkpointMagic  = "embedckp"
	checkpointHeader = 92

	logSuffix       = ".log"
	indexSuffix     = ".index"
	timeIndexSuffix = ".timeindex"
	tmpSuffix       = ".tmp"
	checkpointName  = "checkpoint"
	lockName        = "LOCK"
	spareName       = "spare"
	reserveName     = "reserve"

	// maxFrameBytes bounds what is believed of a length before its checksum was
	// seen to be right, and so what a damaged length can make us allocate.
	maxFrameBytes = 128 << 20
)

// Kind tells what a frame holds.
type Kind uint8

// The kinds of frames. Only data holds offsets; the others are Raft's and take
// an index each.
const (
	KindData          Kind = 1 // a record batch
	KindNoop          Kind = 2 // what a new leader commits first
	KindConfiguration Kind = 3 // a change of members
	KindBarrier       Kind = 4 // waits for all before it
	kindMark          Kind = 5 // an end mark: overwritten by the next frame, never read as an entry
	KindCommand       Kind = 6 // changes the log itself when it is committed: see package partition
)

func (k Kind) String() string {
	switch k {
	case KindData:
		return "data"
	case KindNoop:
		return "noop"
	case KindConfiguration:
		return "configuration"
	case KindBarrier:
		return "barrier"
	case kindMark:
		return "mark"
	case KindCommand:
		return "command"
	}
	return "kind " + strconv.Itoa(int(k))
}

// headLen is how much of the payload the frame's own CRC covers.
func (k Kind) headLen() int {
	switch k {
	case KindData:
		return BatchHeaderLen
	case kindMark:
		return markHeadLen
	default:
		return otherHeadLen
	}
}

// frameHeader is the fixed part of a frame, decoded.
type frameHeader struct {
	kind    Kind
	length  int // of the payload
	pos     uint32
	durable uint32
	span    uint32
	tag     uint64
	index   uint64
	epoch   uint64
}

func (h *frameHeader) size() int64 { return frameHeaderLen + int64(h.length) }

// firstIndex is the lowest log index that the frame stands for.
func (h *frameHeader) firstIndex() uint64 { return h.index - uint64(h.span) }

// putFrame writes h over b[:48] with the CRC of it and of the head of the
// payload, which must already lie behind it.
func putFrame(b []byte, h *frameHeader) {
	_ = b[frameHeaderLen-1]
	binary.BigEndian.PutUint16(b[4:], frameMagic)
	b[6] = frameVersion
	b[7] = byte(h.kind)
	binary.BigEndian.PutUint32(b[8:], uint32(h.length))
	binary.BigEndian.PutUint32(b[12:], h.pos)
	binary.BigEndian.PutUint32(b[16:], h.durable)
	binary.BigEndian.PutUint32(b[20:], h.span)
	binary.BigEndian.PutUint64(b[24:], h.tag)
	binary.BigEndian.PutUint64(b[32:], h.index)
	binary.BigEndian.PutUint64(b[40:], h.epoch)
	binary.BigEndian.PutUint32(b, crc32.Update(0, castagnoli, b[4:frameHeaderLen+h.kind.headLen()]))
}

// Why bytes are not a frame. errNoFrame is the ordinary end of a file: zeros, or
// the frame of another life of it.
var (
	errShortFrame = errors.New("the file ends inside the frame")
	errNoFrame    = errors.New("no frame here")
	errFrameCRC   = errors.New("frame header checksum is wrong")
	errBodyCRC    = errors.New("payload checksum is wrong")
	errStaleFrame = errors.New("a frame of another file or another life of this one")
	errMisplaced  = errors.New("the frame belongs to another position")
	errFrameLen   = errors.New("frame length is out of bounds")
)

// parseFrame decodes and checks the header of the frame at the start of b, which
// lies at position pos of the segment with this tag. It does not look at the
// body: checkBody does. errShortFrame asks for more bytes (need of them in all).
func parseFrame(b []byte, pos int64, tag uint64, h *frameHeader) (need int, err error) {
	if len(b) < frameHeaderLen {
		return frameHeaderLen + BatchHeaderLen, errShortFrame
	}
	if binary.BigEndian.Uint32(b[4:]) != frameMagic<<16|frameVersion<<8|uint32(b[7]) {
		return 0, errNoFrame
	}
	h.kind = Kind(b[7])
	h.length = int(binary.BigEndian.Uint32(b[8:]))
	head := h.kind.headLen()
	if h.kind < KindData || h.kind > KindCommand || h.length < head || h.length > maxFrameBytes {
		return 0, errFrameLen
	}
	if len(b) < frameHeaderLen+head {
		return frameHeaderLen + head, errShortFrame
	}
	if crc32.Update(0, castagnoli, b[4:frameHeaderLen+head]) != binary.BigEndian.Uint32(b) {
		return 0, errFrameCRC
	}
	h.pos = binary.BigEndian.Uint32(b[12:])
	h.durable = binary.BigEndian.Uint32(b[16:])
	h.span = binary.BigEndian.Uint32(b[20:])
	h.tag = binary.BigEndian.Uint64(b[24:])
	h.index = binary.BigEndian.Uint64(b[32:])
	h.epoch = binary.BigEndian.Uint64(b[40:])
	if h.tag != tag && !seed.Is(seed.StaleFrames) {
		return 0, errStaleFrame
	}
	if int64(h.pos) != pos {
		return 0, errMisplaced
	}
	return frameHeaderLen + h.length, nil
}

// checkBody checks what parseFrame did not: the payload behind its head. frame is
// the whole frame.
func checkBody(frame []byte, h *frameHeader) error {
	payload := frame[frameHeaderLen : frameHeaderLen+h.length]
	switch h.kind {
	case KindData:
		if int(binary.BigEndian.Uint32(payload[8:]))+12 != h.length || !VerifyBatchCRC(payload) {
			return errBodyCRC
		}
	case kindMark:
		if h.length != markHeadLen {
			return errFrameLen
		}
	default:
		if crc32c(payload[otherHeadLen:]) != binary.BigEndian.Uint32(payload[8:]) {
			return errBodyCRC
		}
	}
	return nil
}

// payloadOffset is the offset that a frame starts at.
func payloadOffset(payload []byte) int64 { return int64(binary.BigEndian.Uint64(payload)) }

// putOtherHead writes the head of a payload that is not a batch; the rest of the
// payload already lies behind it.
func putOtherHead(payload []byte, next int64) {
	binary.BigEndian.PutUint64(payload, uint64(next))
	binary.BigEndian.PutUint32(payload[8:], crc32c(payload[otherHeadLen:]))
}

// segmentHeader is the first 128 bytes of a segment's file.
type segmentHeader struct {
	flags      uint32
	logID      uint64
	tag        uint64
	baseOffset int64
	baseIndex  uint64
	prevEpoch  uint64
	created    int64  // milliseconds since 1970
	endOffset  int64  // compaction only
	endIndex   uint64 // compaction only
	cleaned    int64  // compaction only: below it nothing is left to compare
	born       int64  // running time of the log when it was created, milliseconds
}

func (h *segmentHeader) compacted() bool { return h.flags&flagCompacted != 0 }

func (h *segmentHeader) encode() []byte {
	b := make([]byte, segmentHeaderLen)
	copy(b, segmentMagic)
	binary.BigEndian.PutUint16(b[8:], formatVersion)
	binary.BigEndian.PutUint16(b[10:], segmentHeaderLen)
	binary.BigEndian.PutUint32(b[12:], h.flags)
	binary.BigEndian.PutUint64(b[16:], h.logID)
	binary.BigEndian.PutUint64(b[24:], h.tag)
	binary.BigEndian.PutUint64(b[32:], uint64(h.baseOffset))
	binary.BigEndian.PutUint64(b[40:], h.baseIndex)
	binary.BigEndian.PutUint64(b[48:], h.prevEpoch)
	binary.BigEndian.PutUint64(b[56:], uint64(h.created))
	binary.BigEndian.PutUint64(b[64:], uint64(h.endOffset))
	binary.BigEndian.PutUint64(b[72:], h.endIndex)
	binary.BigEndian.PutUint64(b[80:], uint64(h.cleaned))
	binary.BigEndian.PutUint64(b[88:], uint64(h.born))
	binary.BigEndian.PutUint32(b[124:], crc32.Checksum(b[:124], castagnoli))
	return b
}

var errSegmentHeader = fmt.Errorf("segment header is damaged: %w", ErrCorrupt)

func (h *segmentHeader) decode(b []byte) error {
	if len(b) < segmentHeaderLen || string(b[:8]) != segmentMagic ||
		crc32.Checksum(b[:124], castagnoli) != binary.BigEndian.Uint32(b[124:]) {
		return errSegmentHeader
	}
	if v := binary.BigEndian.Uint16(b[8:]); v > formatVersion {
		return fmt.Errorf("segment format %d, this version knows %d: %w", v, formatVersion, ErrNewerFormat)
	}
	h.flags = binary.BigEndian.Uint32(b[12:])
	h.logID = binary.BigEndian.Uint64(b[16:])
	h.tag = binary.BigEndian.Uint64(b[24:])
	h.baseOffset = int64(binary.BigEndian.Uint64(b[32:]))
	h.baseIndex = binary.BigEndian.Uint64(b[40:])
	h.prevEpoch = binary.BigEndian.Uint64(b[48:])
	h.created = int64(binary.BigEndian.Uint64(b[56:]))
	h.endOffset = int64(binary.BigEndian.Uint64(b[64:]))
	h.endIndex = binary.BigEndian.Uint64(b[72:])
	h.cleaned = int64(binary.BigEndian.Uint64(b[80:]))
	h.born = int64(binary.BigEndian.Uint64(b[88:]))
	return nil
}

// segmentName is the name of a segment's file with the given suffix.
func segmentName(base int64, suffix string) string {
	return fmt.Sprintf("%020d%s", base, suffix)
}

// parseSegmentName is the inverse for data files.
func parseSegmentName(name string) (base int64, ok bool) {
	digits, found := strings.CutSuffix(name, logSuffix)
	if !found || len(digits) != 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	return int64(n), err == nil && segmentName(int64(n), logSuffix) == name
}
