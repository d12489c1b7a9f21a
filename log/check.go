package log

import (
	"fmt"
	"sync"

	"github.com/x/embedlog/compress"
)

// Limits say what a batch from outside may be. The zero value is what a client
// may send to a topic without compaction.
type Limits struct {
	// MaxBatchBytes bounds the batch as it came. Zero means 1 MiB and 12 bytes, as
	// in Kafka; negative means no bound. (max.message.bytes)
	MaxBatchBytes int
	// MaxDecompressedBytes bounds what its records expand to. Zero means
	// DefaultMaxDecompressedBytes, and no more can be read back without saying so.
	MaxDecompressedBytes int
	// MaxHeaders bounds the headers of one record. Zero means no bound but the
	// batch's size.
	MaxHeaders int
	// RequireKeys refuses records without a key: a compacted topic cannot keep them.
	RequireKeys bool
	// AllowControl lets control batches in. Clients may not send them.
	AllowControl bool
	// Stored is for a batch that a log wrote: offsets may have gaps or no record at
	// all be left, timestamps may be append times, a delete horizon may be set.
	Stored bool
	// FixMaxTimestamp puts a wrong maximum timestamp right in the batch's bytes, and
	// the checksum with it, as Kafka's broker does. Otherwise it is refused.
	FixMaxTimestamp bool
}

const defaultMaxBatchBytes = 1<<20 + batchOverhead

func (l *Limits) maxDecompressed() int {
	if l.MaxDecompressedBytes <= 0 {
		return DefaultMaxDecompressedBytes
	}
	return l.MaxDecompressedBytes
}

// BadRecordsError says that a batch is whole, but that some of its records may
// not be appended. It matches ErrBadBatch.
type BadRecordsError struct {
	Indexes []int  // of the records within the batch, growing; the first 1,000 of them
	Reason  string // what is wrong with each
}

// maxBadIndexes bounds what an error takes: a batch can hold millions of records.
const maxBadIndexes = 1000

func (e *BadRecordsError) Error() string {
	return fmt.Sprintf("records refused, at indexes %d: %s", e.Indexes[:min(len(e.Indexes), 10)], e.Reason)
}

// Is matches ErrBadBatch.
func (e *BadRecordsError) Is(target error) bool { return target == ErrBadBatch }

// CheckBatch reads b, which somebody else made and which must be exactly one
// batch, to its last byte: a right checksum over lying records would poison every
// reader. It allocates nothing but an error; compressed records are expanded into
// pooled memory within the bounds. Apart from FixMaxTimestamp, b is not changed.
//
// Base offset and leader epoch are not judged beyond their sign: whoever appends
// the batch sets them.
func CheckBatch(b []byte, lim Limits) (BatchHeader, error) {
	h, err := checkHeader(b, &lim)
	if err != nil {
		return h, err
	}
	records := b[BatchHeaderLen:]
	if codec := h.Attributes.Codec(); codec != compress.None && (h.Count > 0 || len(records) > 0) {
		s := getScratch()
		defer s.put()
		s.b, err = compress.Decode(s.b[:0], records, codec, lim.maxDecompressed())
		if err != nil {
			return h, h.fail(BatchHeaderLen, "cannot be decompressed", err)
		}
		records = s.b
	} else if len(records) > lim.maxDecompressed() {
		return h, h.fail(posLength, "more bytes of records than the limit", nil)
	}
	newest, err := checkRecords(&h, records, &lim)
	if err != nil {
		return h, err
	}
	if h.Attributes.Has(AppendTime) || h.Count == 0 || newest == h.MaxTimestamp {
		return h, nil
	}
	if !lim.FixMaxTimestamp {
		return h, h.fail(posMaxTimestamp, "maximum timestamp is not that of the records", nil)
	}
	setMaxTimestamp(b[:BatchHeaderLen], b[BatchHeaderLen:], newest)
	h.decode(b)
	return h, nil
}

// checkHeader judges everything that can be judged without the records.
func checkHeader(b []byte, lim *Limits) (BatchHeader, error) {
	var h BatchHeader
	if err := h.parseWhole(b); err != nil {
		return h, err
	}
	limit := lim.MaxBatchBytes
	if limit == 0 {
		limit = defaultMaxBatchBytes
	}
	a := h.Attributes
	if limit > 0 && len(b) > limit {
		return h, h.fail(posLength, "larger than the limit", nil)
	}
	if !VerifyBatchCRC(b) {
		return h, h.fail(posCRC, "checksum is wrong", nil)
	}
	if pos, reason := h.producerFault(lim.Stored); reason != "" {
		return h, h.fail(pos, reason, nil)
	}
	switch {
	case a&^knownAttributes != 0:
		return h, h.fail(posAttributes, "attributes that are not known", nil)
	case !a.Codec().Valid():
		return h, h.fail(posAttributes, "codec that is not known", nil)
	case a.Has(Control) && !lim.AllowControl:
		return h, h.fail(posAttributes, "control batch", nil)
	case a.Has(Control) && a.Codec() != compress.None:
		return h, h.fail(posAttributes, "control batch is compressed", nil)
	case lim.Stored:
		return h, nil
	case a.Has(AppendTime):
		return h, h.fail(posAttributes, "append time from outside", nil)
	case a.Has(DeleteHorizon):
		return h, h.fail(posAttributes, "delete horizon from outside", nil)
	case h.Count == 0:
		return h, h.fail(posCount, "no records", nil)
	case int64(h.LastOffsetDelta) != int64(h.Count)-1:
		return h, h.fail(posLastOffsetDelta, "last offset delta does not fit the number of records", nil)
	}
	return h, nil
}

// producerFault judges producer id, epoch and sequence together. Without an id,
// clients put various things into the other two; nobody looks at them. What is
// stored may be transactional without a sequence: the coordinator of a group writes
// the offsets of a transaction so, as Kafka's does, in the name of its producer.
func (h *BatchHeader) producerFault(stored bool) (pos int, reason string) {
	control := h.Attributes.Has(Control)
	switch {
	case h.ProducerID < 0 && h.Attributes.Has(Transactional):
		return posProducerID, "transactional without a producer id"
	case h.ProducerID < 0:
		return 0, ""
	case h.ProducerEpoch < 0:
		return posProducerEpoch, "producer epoch is negative"
	case control && h.BaseSequence != -1:
		return posBaseSequence, "control batch has a sequence"
	case stored && h.BaseSequence == -1 && h.Attributes.Has(Transactional):
	case !control && h.BaseSequence < 0:
		return posBaseSequence, "base sequence is negative"
	}
	return 0, ""
}

// checkRecords walks the uncompressed records and returns the largest timestamp.
func checkRecords(h *BatchHeader, b []byte, lim *Limits) (newest int64, err error) {
	var f, header fields
	var keyless []int
	pos, next := 0, int64(0)
	for i := range int(h.Count) {
		if reason := f.parse(b, pos); reason != "" {
			return 0, h.fail(h.place(pos), reason, nil)
		}
		if !lim.Stored && f.delta != int64(i) || f.delta < next || f.delta > int64(h.LastOffsetDelta) {
			return 0, h.fail(h.place(pos), "offset delta is out of order", nil)
		}
		next = f.delta + 1
		if lim.MaxHeaders > 0 && f.headers > int64(lim.MaxHeaders) {
			return 0, h.fail(h.place(pos), "more headers than the limit", nil)
		}
		at := f.headersStart
		for range f.headers {
			var reason string
			if at, reason = header.parseHeader(b[:f.end], at); reason != "" {
				return 0, h.fail(h.place(pos), reason, nil)
			}
		}
		if at != f.end {
			return 0, h.fail(h.place(pos), "record is longer than its fields", nil)
		}
		if timestamp := h.BaseTimestamp + f.timestamp; i == 0 || timestamp > newest {
			newest = timestamp
		}
		if f.keyEnd < f.key && lim.RequireKeys && len(keyless) < maxBadIndexes {
			keyless = append(keyless, i)
		}
		if h.Attributes.Has(Control) {
			if _, _, err := ParseControl(&Record{Key: field(b, f.key, f.keyEnd), Value: field(b, f.value, f.valueEnd)}); err != nil {
				return 0, h.fail(h.place(pos), err.Error(), nil)
			}
		}
		pos = f.end
	}
	if pos != len(b) {
		return 0, h.fail(h.place(pos), "bytes behind the last record", nil)
	}
	if len(keyless) > 0 {
		return 0, &BadRecordsError{Indexes: keyless, Reason: "no key, and the topic is compacted"}
	}
	return newest, nil
}

// scratch is memory for decompressed records that nobody keeps.
type scratch struct{ b []byte }

// maxPooledBytes is the largest scratch that is kept for the next batch.
const maxPooledBytes = 1 << 20

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func getScratch() *scratch { return scratches.Get().(*scratch) }

func (s *scratch) put() {
	if cap(s.b) > maxPooledBytes {
		s.b = nil
	}
	scratches.Put(s)
}
