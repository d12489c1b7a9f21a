package log

import (
	"encoding/binary"
	"iter"

	"github.com/x/embedlog/compress"
)

// DefaultMaxDecompressedBytes bounds what the records of one batch may expand to
// where nothing else is said.
const DefaultMaxDecompressedBytes = 64 << 20

// Header is one name and value of a record. Names may repeat.
type Header struct {
	Key   string
	Value []byte // nil is null
}

// Record is one record of a batch.
type Record struct {
	Offset    int64  // set by readers; AppendBatch gives offsets itself
	Timestamp int64  // milliseconds since 1970, as encoded; -1: none
	Key       []byte // nil is null
	Value     []byte // nil is null: a tombstone in a compacted topic
	Headers   []Header
}

// Batch is the bytes of exactly one record batch.
type Batch []byte

// BaseOffset and LeaderEpoch are two fields of the header of a batch that a reader
// returned; of other bytes they may be anything, and panic when there are too few.
func (b Batch) BaseOffset() int64  { return int64(binary.BigEndian.Uint64(b[posBaseOffset:])) }
func (b Batch) LeaderEpoch() int32 { return int32(binary.BigEndian.Uint32(b[posLeaderEpoch:])) }

// Header reads the batch's header.
func (b Batch) Header() (BatchHeader, error) { return ParseBatchHeader(b) }

// Records walks the batch's records; it can be repeated. Keys and values alias
// the batch, or what it was decompressed into, and stay valid as long as it does;
// Headers are reused by the next record. An error is the last pair. Records
// expand to at most maxDecompressed bytes, 0 meaning DefaultMaxDecompressedBytes.
func (b Batch) Records(maxDecompressed int) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) { b.walk(maxDecompressed, yield) }
}

func (b Batch) walk(maxDecompressed int, yield func(Record, error) bool) {
	var r RecordReader
	if err := r.Reset(b, maxDecompressed); err != nil {
		yield(Record{}, err)
		return
	}
	for r.Next() {
		if !yield(r.rec, nil) {
			return
		}
	}
	if r.err != nil {
		yield(Record{}, r.err)
	}
}

// RecordReader walks the records of batches, one batch after another:
//
//	for err = r.Reset(batch, 0); err == nil && r.Next(); {
//		use(r.Record())
//	}
//	// r.Err()
//
// The zero value is ready. It allocates nothing for an uncompressed batch, except
// for headers: their slice is reused, and grows to at most 20 bytes for each byte
// of the batch. A compressed batch is decompressed into a buffer of its own, so
// that records stay valid when the reader goes on.
type RecordReader struct {
	records    []byte // uncompressed
	pos        int    // of the next record
	left       int32  // records not read yet
	nextDelta  int64  // the smallest offset delta that the next record may have
	appendTime bool
	fields     fields
	rec        Record
	slots      []Header // what rec.Headers is a part of
	header     BatchHeader
	err        error
}

// Reset starts to read another batch. The checksum is not verified.
func (r *RecordReader) Reset(batch []byte, maxDecompressed int) error {
	r.records, r.pos, r.left, r.nextDelta = nil, 0, 0, 0
	if r.err = r.header.parseWhole(batch); r.err != nil {
		return r.err
	}
	r.records = batch[BatchHeaderLen:len(batch):len(batch)]
	if codec := r.header.Attributes.Codec(); codec != compress.None && !(r.header.Count == 0 && len(r.records) == 0) {
		if maxDecompressed <= 0 {
			maxDecompressed = DefaultMaxDecompressedBytes
		}
		plain, err := compress.Decode(nil, r.records, codec, maxDecompressed)
		if err != nil {
			r.records = nil
			r.err = r.header.fail(BatchHeaderLen, "cannot be decompressed", err)
			return r.err
		}
		r.records = plain
	}
	r.left = r.header.Count
	r.appendTime = r.header.Attributes.Has(AppendTime)
	if r.left == 0 && len(r.records) > 0 {
		r.err = r.header.fail(BatchHeaderLen, "bytes behind the last record", nil)
	}
	return r.err
}

// Header is the header of the batch. It stays valid until Reset.
func (r *RecordReader) Header() *BatchHeader { return &r.header }

// Record is the record that Next moved to. The pointer and its Headers are good
// until the next call of Next; its Key and Value as long as the batch.
func (r *RecordReader) Record() *Record { return &r.rec }

// Err is what ended the walk before the last record, if anything did.
func (r *RecordReader) Err() error { return r.err }

// Next moves to the next record. It is false at the end and at the first byte
// that cannot be a record's: see Err.
func (r *RecordReader) Next() bool {
	if r.left <= 0 || r.err != nil {
		return false
	}
	f := &r.fields
	if reason := f.parse(r.records, r.pos); reason != "" {
		return r.stop(r.pos, reason)
	}
	if f.delta < r.nextDelta || f.delta > int64(r.header.LastOffsetDelta) {
		return r.stop(r.pos, "offset delta is out of order")
	}
	r.nextDelta = f.delta + 1
	rec := &r.rec
	rec.Offset = r.header.BaseOffset + f.delta
	rec.Timestamp = r.header.BaseTimestamp + f.timestamp
	if r.appendTime {
		rec.Timestamp = r.header.MaxTimestamp
	}
	rec.Key = field(r.records, f.key, f.keyEnd)
	rec.Value = field(r.records, f.value, f.valueEnd)
	rec.Headers = nil
	if f.headers > 0 {
		if end, reason := r.readHeaders(f); reason != "" {
			return r.stop(end, reason)
		}
	}
	r.pos = f.end
	if r.left--; r.left == 0 && r.pos != len(r.records) {
		// The record itself is whole; whoever asks for the next one learns of the rest.
		r.err = r.header.fail(r.header.place(r.pos), "bytes behind the last record", nil)
	}
	return true
}

func (r *RecordReader) stop(pos int, reason string) bool {
	r.err = r.header.fail(r.header.place(pos), reason, nil)
	return false
}

// place turns a position among the records into one that an error names: within
// the batch, or, if it was compressed, within what it was decompressed to.
func (h *BatchHeader) place(pos int) int {
	if h.Attributes&CodecMask == 0 {
		return pos + BatchHeaderLen
	}
	return pos
}

// readHeaders fills rec.Headers. A key that stands where the record before had
// the same one is not allocated again: most producers name the same few headers.
func (r *RecordReader) readHeaders(f *fields) (pos int, reason string) {
	i := f.headersStart
	slots := r.slots[:0]
	var h fields
	for range f.headers {
		next, reason := h.parseHeader(r.records[:f.end], i)
		if reason != "" {
			return i, reason
		}
		i = next
		key := r.records[h.key:h.keyEnd]
		if len(slots) < cap(slots) {
			slots = slots[:len(slots)+1]
		} else {
			slots = append(slots, Header{})
		}
		s := &slots[len(slots)-1]
		if s.Key != string(key) {
			s.Key = string(key)
		}
		s.Value = field(r.records, h.value, h.valueEnd)
	}
	r.slots = slots
	if i != f.end {
		return i, "record is longer than its fields"
	}
	r.rec.Headers = slots
	return i, ""
}

// field is b[start:end], nil where end says null. An empty one is not nil.
func field(b []byte, start, end int) []byte {
	if end < start {
		return nil
	}
	return b[start:end:end]
}
