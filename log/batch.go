package log

import (
	"encoding/binary"
	"math"

	"github.com/x/embedlog/compress"
)

// A record batch is Kafka's RecordBatch, version 2, byte for byte as on the wire
// (https://kafka.apache.org/documentation/#recordbatch). Integers are big-endian.
//
//	 0  8  base offset                 35  8  maximum timestamp
//	 8  4  length after this field     43  8  producer id
//	12  4  leader epoch                51  2  producer epoch
//	16  1  magic: 2                    53  4  base sequence
//	17  4  CRC-32C of bytes 21 on      57  4  number of records
//	21  2  attributes                  61     records
//	23  4  last offset delta
//	27  8  base timestamp
//
// Base offset and leader epoch lie outside the checksum: whoever gives a batch
// its place in a log need not read the rest of it.
const (
	posBaseOffset      = 0
	posLength          = 8
	posLeaderEpoch     = 12
	posMagic           = 16
	posCRC             = 17
	posAttributes      = 21
	posLastOffsetDelta = 23
	posBaseTimestamp   = 27
	posMaxTimestamp    = 35
	posProducerID      = 43
	posProducerEpoch   = 51
	posBaseSequence    = 53
	posCount           = 57

	// BatchHeaderLen is where a batch's records start.
	BatchHeaderLen = 61
	// batchOverhead is the part of a batch that its length field does not count.
	batchOverhead = 12
	batchMagic    = 2

	// maxBatchBytes is the largest batch whose size fits an int on every platform.
	maxBatchBytes = math.MaxInt32
	// minRecordBytes is the smallest record: length, attributes, two deltas, null
	// key, null value, no headers, one byte each.
	minRecordBytes = 7
)

// Attributes are a batch's flags.
type Attributes uint16

const (
	// CodecMask covers the bits that hold the compress.Codec.
	CodecMask Attributes = 7
	// AppendTime says that every record's timestamp is the batch's maximum
	// timestamp, given by the log; otherwise each record has its own.
	AppendTime Attributes = 1 << 3
	// Transactional says that the records count only if a commit marker follows.
	Transactional Attributes = 1 << 4
	// Control says that the batch holds a marker for readers, not data.
	Control Attributes = 1 << 5
	// DeleteHorizon says that the base timestamp is the time after which
	// compaction may drop the batch's tombstones and markers.
	DeleteHorizon Attributes = 1 << 6

	knownAttributes = CodecMask | AppendTime | Transactional | Control | DeleteHorizon
)

// Codec is how the records are compressed. It may be one that does not exist.
func (a Attributes) Codec() compress.Codec { return compress.Codec(a & CodecMask) }

// Has reports whether all bits of flag are set.
func (a Attributes) Has(flag Attributes) bool { return a&flag == flag }

// BatchHeader is the fixed part of a record batch.
type BatchHeader struct {
	BaseOffset      int64
	Length          int32 // bytes after the length field: the batch's size less 12
	LeaderEpoch     int32
	CRC             uint32
	Attributes      Attributes
	LastOffsetDelta int32 // last offset of the range less BaseOffset, also where compaction took that record
	BaseTimestamp   int64 // milliseconds; what the records' timestamps are relative to, also when it is a delete horizon
	MaxTimestamp    int64 // milliseconds
	ProducerID      int64 // -1: none
	ProducerEpoch   int16
	BaseSequence    int32 // -1: none
	Count           int32 // records that are there
}

// LastOffset is the last offset that the batch takes up.
func (h *BatchHeader) LastOffset() int64 { return h.BaseOffset + int64(h.LastOffsetDelta) }

// LastSequence is the sequence of the last record. Sequences go from 2^31-1 to 0,
// as in Kafka. -1 when the batch has none.
func (h *BatchHeader) LastSequence() int32 {
	if h.BaseSequence < 0 {
		return -1
	}
	return int32((int64(h.BaseSequence) + int64(h.LastOffsetDelta)) & math.MaxInt32)
}

// Size is the batch's size in bytes.
func (h *BatchHeader) Size() int { return batchOverhead + int(h.Length) }

// DeleteHorizon is the time in milliseconds after which compaction may drop the
// batch's tombstones, if it has been set.
func (h *BatchHeader) DeleteHorizon() (ms int64, ok bool) {
	return h.BaseTimestamp, h.Attributes.Has(DeleteHorizon)
}

// Put encodes the header into the first 61 bytes of b.
func (h *BatchHeader) Put(b []byte) {
	_ = b[BatchHeaderLen-1]
	be := binary.BigEndian
	be.PutUint64(b[posBaseOffset:], uint64(h.BaseOffset))
	be.PutUint32(b[posLength:], uint32(h.Length))
	be.PutUint32(b[posLeaderEpoch:], uint32(h.LeaderEpoch))
	b[posMagic] = batchMagic
	be.PutUint32(b[posCRC:], h.CRC)
	be.PutUint16(b[posAttributes:], uint16(h.Attributes))
	be.PutUint32(b[posLastOffsetDelta:], uint32(h.LastOffsetDelta))
	be.PutUint64(b[posBaseTimestamp:], uint64(h.BaseTimestamp))
	be.PutUint64(b[posMaxTimestamp:], uint64(h.MaxTimestamp))
	be.PutUint64(b[posProducerID:], uint64(h.ProducerID))
	be.PutUint16(b[posProducerEpoch:], uint16(h.ProducerEpoch))
	be.PutUint32(b[posBaseSequence:], uint32(h.BaseSequence))
	be.PutUint32(b[posCount:], uint32(h.Count))
}

// decode reads the fields of b, which holds at least 61 bytes, and judges nothing.
func (h *BatchHeader) decode(b []byte) {
	_ = b[BatchHeaderLen-1]
	be := binary.BigEndian
	h.BaseOffset = int64(be.Uint64(b[posBaseOffset:]))
	h.Length = int32(be.Uint32(b[posLength:]))
	h.LeaderEpoch = int32(be.Uint32(b[posLeaderEpoch:]))
	h.CRC = be.Uint32(b[posCRC:])
	h.Attributes = Attributes(be.Uint16(b[posAttributes:]))
	h.LastOffsetDelta = int32(be.Uint32(b[posLastOffsetDelta:]))
	h.BaseTimestamp = int64(be.Uint64(b[posBaseTimestamp:]))
	h.MaxTimestamp = int64(be.Uint64(b[posMaxTimestamp:]))
	h.ProducerID = int64(be.Uint64(b[posProducerID:]))
	h.ProducerEpoch = int16(be.Uint16(b[posProducerEpoch:]))
	h.BaseSequence = int32(be.Uint32(b[posBaseSequence:]))
	h.Count = int32(be.Uint32(b[posCount:]))
}

// ParseBatchHeader reads the header at the start of b, which may be cut off or go
// on behind the batch. It checks that sizes and counts can be true together; the
// checksum and the records are not looked at.
func ParseBatchHeader(b []byte) (BatchHeader, error) {
	var h BatchHeader
	err := h.parse(b)
	return h, err
}

func (h *BatchHeader) parse(b []byte) error {
	if len(b) < BatchHeaderLen {
		*h = BatchHeader{}
		return &BadBatchError{BaseOffset: -1, LastOffset: -1, Position: len(b), Reason: "ends within the header"}
	}
	h.decode(b)
	if pos, reason := h.fault(b[posMagic]); reason != "" {
		return &BadBatchError{BaseOffset: h.BaseOffset, LastOffset: -1, Position: pos, Reason: reason}
	}
	return nil
}

// parseWhole is parse for bytes that must be exactly one batch.
func (h *BatchHeader) parseWhole(b []byte) error {
	if err := h.parse(b); err != nil {
		return err
	}
	if len(b) != h.Size() {
		return h.fail(posLength, "length differs from the bytes that are there", nil)
	}
	return nil
}

// fault says what cannot be true in the header, and at which byte.
func (h *BatchHeader) fault(magic byte) (pos int, reason string) {
	switch {
	case magic != batchMagic:
		return posMagic, "magic is not 2"
	case h.BaseOffset < 0:
		return posBaseOffset, "base offset is negative"
	case h.Length < BatchHeaderLen-batchOverhead:
		return posLength, "length is smaller than the header"
	case h.Length > maxBatchBytes-batchOverhead:
		return posLength, "length is too large"
	case h.LastOffsetDelta < 0:
		return posLastOffsetDelta, "last offset delta is negative"
	case h.BaseOffset > math.MaxInt64-1-int64(h.LastOffsetDelta):
		return posBaseOffset, "offsets go past 2^63-1"
	case h.Count < 0:
		return posCount, "number of records is negative"
	case int64(h.Count) > int64(h.LastOffsetDelta)+1:
		return posCount, "more records than offsets"
	case h.Attributes&CodecMask == 0 && int64(h.Count)*minRecordBytes > int64(h.Length)-(BatchHeaderLen-batchOverhead):
		return posCount, "more records than bytes for them"
	case h.ProducerID < -1:
		return posProducerID, "producer id is below -1"
	}
	return 0, ""
}

// fail makes the error for this batch; pos is a byte of it.
func (h *BatchHeader) fail(pos int, reason string, cause error) error {
	return &BadBatchError{BaseOffset: h.BaseOffset, LastOffset: h.LastOffset(), Position: pos, Reason: reason, Cause: cause}
}

// VerifyBatchCRC reports whether b, exactly one batch, has the checksum it carries.
func VerifyBatchCRC(b []byte) bool {
	return len(b) >= BatchHeaderLen && crc32c(b[posAttributes:]) == binary.BigEndian.Uint32(b[posCRC:])
}

// SetBatchOffset gives the batch its place in a log. The checksum stays right.
func SetBatchOffset(b []byte, base int64, epoch int32) {
	binary.BigEndian.PutUint64(b[posBaseOffset:], uint64(base))
	binary.BigEndian.PutUint32(b[posLeaderEpoch:], uint32(epoch))
}

// SetAppendTime makes ms the timestamp of every record of b, exactly one batch,
// without touching the records, and puts the checksum right.
func SetAppendTime(b []byte, ms int64) { setAppendTime(b[:BatchHeaderLen], b[BatchHeaderLen:], ms) }

// setAppendTime is SetAppendTime of a batch whose header lies apart from its records.
func setAppendTime(head, records []byte, ms int64) {
	attributes := binary.BigEndian.Uint16(head[posAttributes:]) | uint16(AppendTime)
	binary.BigEndian.PutUint16(head[posAttributes:], attributes)
	setMaxTimestamp(head, records, ms)
}

func setMaxTimestamp(head, records []byte, ms int64) {
	binary.BigEndian.PutUint64(head[posMaxTimestamp:], uint64(ms))
	binary.BigEndian.PutUint32(head[posCRC:], crc32cUpdate(crc32c(head[posAttributes:]), records))
}
