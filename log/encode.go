package log

import (
	"math"
	"slices"

	"github.com/x/embedlog/compress"
)

// AppendBatch encodes recs as one uncompressed batch behind dst, which grows at
// most once. Record i gets offset h.BaseOffset+i. It fills h's Length, CRC,
// LastOffsetDelta, BaseTimestamp, MaxTimestamp and Count and clears its codec;
// with AppendTime set, MaxTimestamp stays, and with DeleteHorizon, BaseTimestamp.
// On an error dst is returned as it was.
func AppendBatch(dst []byte, h *BatchHeader, recs []Record) ([]byte, error) {
	if len(recs) == 0 {
		return dst, &BadBatchError{BaseOffset: h.BaseOffset, LastOffset: -1, Position: posCount, Reason: "no records"}
	}
	if len(recs) > maxBatchBytes/minRecordBytes {
		return dst, errBatchTooLarge(h)
	}
	h.LastOffsetDelta = int32(len(recs) - 1)
	return appendBatch(dst, h, recs, false)
}

// AppendBatchAt is AppendBatch for what compaction leaves of a batch: records keep
// their Offset and h its LastOffsetDelta, so that offsets and sequences stay taken.
// With no record left it is a bare header that keeps its timestamps.
func AppendBatchAt(dst []byte, h *BatchHeader, recs []Record) ([]byte, error) {
	end := int64(-1) // delta of the record before
	for i := range recs {
		delta := recs[i].Offset - h.BaseOffset
		if delta <= end || delta > int64(h.LastOffsetDelta) {
			return dst, h.fail(posLastOffsetDelta, "record offsets do not grow within the batch", nil)
		}
		end = delta
	}
	return appendBatch(dst, h, recs, true)
}

// EncodedLen is the size of the uncompressed batch that AppendBatch makes.
func EncodedLen(h *BatchHeader, recs []Record) int {
	return int(min(BatchHeaderLen+recordsLen(0, h.baseTimestamp(recs), h.BaseOffset, recs, false), math.MaxInt))
}

// baseTimestamp is what the records' timestamps will be relative to.
func (h *BatchHeader) baseTimestamp(recs []Record) int64 {
	if len(recs) == 0 || h.Attributes.Has(DeleteHorizon) {
		return h.BaseTimestamp
	}
	return recs[0].Timestamp
}

func errBatchTooLarge(h *BatchHeader) error {
	return &BadBatchError{BaseOffset: h.BaseOffset, LastOffset: -1, Position: posLength, Reason: "larger than 2^31-1 bytes"}
}

// recordsLen is the encoded size of recs, of which the first has the given number
// in its batch. It is computed in 64 bits so that it cannot overflow.
func recordsLen(number int, base, baseOffset int64, recs []Record, at bool) int64 {
	var n int64
	for i := range recs {
		r := &recs[i]
		delta := int64(number + i)
		if at {
			delta = r.Offset - baseOffset
		}
		body := bodyLen(r, zigzag(r.Timestamp-base), zigzag(delta))
		n += body + int64(uvarintLen(uint64(body)<<1))
	}
	return n
}

// bodyLen is the size of a record behind its length field.
func bodyLen(r *Record, timestamp, delta uint64) int64 {
	n := int64(1 + uvarintLen(timestamp) + uvarintLen(delta) + fieldLen(r.Key) + fieldLen(r.Value))
	n += int64(len(r.Key)) + int64(len(r.Value))
	if len(r.Headers) == 0 {
		return n + 1
	}
	return n + headersLen(r.Headers)
}

// headersLen is the size of the header count and the headers.
func headersLen(headers []Header) int64 {
	n := int64(uvarintLen(uint64(len(headers)) << 1))
	for i := range headers {
		n += int64(uvarintLen(uint64(len(headers[i].Key))<<1)) + int64(len(headers[i].Key))
		n += int64(fieldLen(headers[i].Value)) + int64(len(headers[i].Value))
	}
	return n
}

// fieldLen is the size of the length before a field; null is length -1, one byte
// like every length below 64.
func fieldLen(b []byte) int { return uvarintLen(uint64(len(b)) << 1) }

// appendBatch is one pass: each record's size is known before its bytes are
// written, so the buffer is checked, and at most once grown, record by record.
func appendBatch(dst []byte, h *BatchHeader, recs []Record, at bool) ([]byte, error) {
	start := len(dst)
	base := h.baseTimestamp(recs)
	baseOffset := h.BaseOffset
	newest := h.MaxTimestamp
	if len(recs) > 0 {
		newest = recs[0].Timestamp
	}
	if cap(dst)-start < BatchHeaderLen {
		var err error
		if dst, err = growFor(dst, start, base, h, recs, 0, at); err != nil {
			return dst[:start], err
		}
	}
	b := dst[:cap(dst)]
	p := start + BatchHeaderLen
	for i := range recs {
		r := &recs[i]
		if r.Timestamp > newest {
			newest = r.Timestamp
		}
		number := int64(i)
		if at {
			number = r.Offset - baseOffset
		}
		timestamp, delta := zigzag(r.Timestamp-base), zigzag(number)
		body := bodyLen(r, timestamp, delta)
		length := uint64(body) << 1
		if body+int64(uvarintLen(length)) > int64(len(b)-p) {
			grown, err := growFor(b[:p], start, base, h, recs[i:], i, at)
			if err != nil {
				return dst[:start], err
			}
			b = grown[:cap(grown)]
		}
		p = putRecord(b, p, length, timestamp, delta, r)
	}
	if int64(p)-int64(start) > maxBatchBytes {
		return dst[:start], errBatchTooLarge(h)
	}
	h.Attributes &^= CodecMask
	h.Length = int32(p - start - batchOverhead)
	h.BaseTimestamp = base
	if !h.Attributes.Has(AppendTime) {
		h.MaxTimestamp = newest
	}
	h.Count = int32(len(recs))
	h.CRC = 0
	h.Put(b[start:p])
	h.CRC = crc32cHot(b[start+posAttributes : p])
	putCRC(b[start:p], h.CRC)
	return b[:p], nil
}

func putCRC(b []byte, crc uint32) {
	b[posCRC], b[posCRC+1], b[posCRC+2], b[posCRC+3] = byte(crc>>24), byte(crc>>16), byte(crc>>8), byte(crc)
}

// growFor makes room behind b for the rest of the batch, which starts at start;
// number is the number of recs' first in the batch.
func growFor(b []byte, start int, base int64, h *BatchHeader, recs []Record, number int, at bool) ([]byte, error) {
	need := recordsLen(number, base, h.BaseOffset, recs, at)
	if number == 0 && len(b) == start {
		need += BatchHeaderLen
	}
	if int64(len(b)-start)+need > maxBatchBytes {
		return b, errBatchTooLarge(h)
	}
	return slices.Grow(b, int(need)), nil
}

// putRecord writes a record at b[p], where there is room for it, and returns the
// place behind it. Nearly all varints have one or two bytes: those are inline.
func putRecord(b []byte, p int, length, timestamp, delta uint64, r *Record) int {
	if length < 0x80 {
		b[p] = byte(length)
		p++
	} else {
		p = putUvarint(b, p, length)
	}
	b[p] = 0 // attributes: none are defined
	p++
	if timestamp < 0x80 {
		b[p] = byte(timestamp)
		p++
	} else {
		p = putUvarint(b, p, timestamp)
	}
	if delta < 0x80 {
		b[p] = byte(delta)
		p++
	} else {
		p = putUvarint(b, p, delta)
	}
	p = putField(b, p, r.Key)
	p = putField(b, p, r.Value)
	if len(r.Headers) == 0 {
		b[p] = 0
		return p + 1
	}
	p = putUvarint(b, p, uint64(len(r.Headers))<<1)
	for i := range r.Headers {
		p = putUvarint(b, p, uint64(len(r.Headers[i].Key))<<1)
		p += copy(b[p:], r.Headers[i].Key)
		p = putField(b, p, r.Headers[i].Value)
	}
	return p
}

// putField writes a length and the bytes; null is length -1.
func putField(b []byte, p int, f []byte) int {
	if f == nil {
		b[p] = 1
		return p + 1
	}
	n := uint64(len(f)) << 1
	if n < 0x80 {
		b[p] = byte(n)
		p++
	} else {
		p = putUvarint(b, p, n)
	}
	return p + copy(b[p:], f)
}

// CompressBatch encodes the records of batch, exactly one, with another codec
// behind dst. Level is the codec's own, 0 its default. Records that do not get
// smaller stay uncompressed. Everything else about the batch stays as it is; dst
// must not overlap it. Records that are compressed already may expand to
// DefaultMaxDecompressedBytes.
func CompressBatch(dst, batch []byte, codec compress.Codec, level int) ([]byte, error) {
	var h BatchHeader
	err := h.parseWhole(batch)
	if err != nil {
		return dst, err
	}
	records := batch[BatchHeaderLen:]
	if old := h.Attributes.Codec(); old != compress.None && len(records) > 0 {
		scratch := getScratch()
		defer scratch.put()
		scratch.b, err = compress.Decode(scratch.b[:0], records, old, DefaultMaxDecompressedBytes)
		if err != nil {
			return dst, h.fail(BatchHeaderLen, "cannot be decompressed", err)
		}
		records = scratch.b
	}
	start := len(dst)
	dst = append(dst, batch[:BatchHeaderLen]...)
	h.Attributes &^= CodecMask
	if codec != compress.None && len(records) > 0 {
		out, err := compress.Encode(dst, records, codec, level)
		if err != nil {
			return dst[:start], h.fail(BatchHeaderLen, "cannot be compressed", err)
		}
		dst = out[:start+BatchHeaderLen]
		if n := len(out) - len(dst); n < len(records) {
			dst = out
			h.Attributes |= Attributes(codec) & CodecMask
		}
	}
	if h.Attributes&CodecMask == 0 {
		dst = append(dst, records...)
	}
	if int64(len(dst))-int64(start) > maxBatchBytes {
		return dst[:start], errBatchTooLarge(&h)
	}
	h.Length = int32(len(dst) - start - batchOverhead)
	h.Put(dst[start:])
	putCRC(dst[start:], crc32cHot(dst[start+posAttributes:]))
	return dst, nil
}
