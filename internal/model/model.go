package model

import (
	"bytes"
	"fmt"
	"slices"
)

// Kind tells data from the markers that end transactions.
type Kind uint8

const (
	Data Kind = iota
	Commit
	Abort
)

// Header is a record's header; a nil Value is null.
type Header struct {
	Key   string
	Value []byte
}

// Record is one offset of the log.
type Record struct {
	Offset     int64
	Timestamp  int64  // milliseconds
	Key, Value []byte // nil is null
	Headers    []Header
	Kind       Kind
}

// Same reports whether two records hold the same, null told from empty.
func (r Record) Same(o Record) bool {
	sameBytes := func(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }
	return r.Offset == o.Offset && r.Timestamp == o.Timestamp && r.Kind == o.Kind &&
		sameBytes(r.Key, o.Key) && sameBytes(r.Value, o.Value) &&
		slices.EqualFunc(r.Headers, o.Headers, func(a, b Header) bool { return a.Key == b.Key && sameBytes(a.Value, b.Value) })
}

// String shows a record in a failed test.
func (r Record) String() string {
	if r.Kind != Data {
		return fmt.Sprintf("%d:marker(kind %d)", r.Offset, r.Kind)
	}
	value := "null"
	if r.Value != nil {
		value = fmt.Sprintf("%q", r.Value)
	}
	return fmt.Sprintf("%d:%q=%s@%d", r.Offset, r.Key, value, r.Timestamp)
}

// Batch is what one append brings. Offsets of its records are ignored.
type Batch struct {
	ProducerID    int64 // -1: none
	ProducerEpoch int16
	BaseSequence  int32 // -1: none, then sequences are not checked
	Transactional bool
	TxnV2         bool // the producer has a new epoch for each transaction
	LeaderEpoch   int32
	Records       []Record // at least one
}

// Marker ends the transaction of a producer.
type Marker struct {
	Commit           bool
	ProducerID       int64
	ProducerEpoch    int16
	CoordinatorEpoch int32
	TxnV2            bool // the marker has an epoch above its transaction's
	LeaderEpoch      int32
	Timestamp        int64
}

// Outcome is what became of an append.
type Outcome uint8

const (
	Appended          Outcome = iota
	Duplicate                 // the offsets are those of the original
	Fenced                    // the producer's epoch is old
	FencedCoordinator         // the coordinator's epoch is old
	OutOfOrder                // the sequence is not the next one
	InvalidTxn                // not transactional while a transaction is open
	Unexpected                // the log does not end where the caller said
)

// Log is the whole log, deleted records included.
type Log struct {
	first   int64   // offset of entries[0]
	start   int64   // log start offset
	entries []entry // one for each offset
	batches []batch // in the order of offsets
	// forgotten holds, for a producer, how many batches its state no longer counts.
	forgotten map[int64]int
}

// entry is a record with what the log was told about it.
type entry struct {
	Record
	producerID    int64
	transactional bool
	leaderEpoch   int32
}

// batch is one append.
type batch struct {
	base, last       int64
	producerID       int64
	producerEpoch    int16
	firstSequence    int32 // -1: none
	transactional    bool
	kind             Kind
	coordinatorEpoch int32
}

// New returns an empty log whose first record will have the offset given.
func New(start int64) *Log {
	return &Log{first: start, start: start, forgotten: make(map[int64]int)}
}

// Start is the log start offset.
func (l *Log) Start() int64 { return l.start }

// End is the offset that the next record gets.
func (l *Log) End() int64 { return l.first + int64(len(l.entries)) }

// AppendAt is Append when the log ends at the offset expected, else it is refused.
func (l *Log) AppendAt(expected int64, b Batch) (base, last int64, o Outcome) {
	if expected != l.End() {
		return -1, -1, Unexpected
	}
	return l.Append(b)
}

// Append adds a batch, unless the rules of its producer are against it. The
// offsets are those of the batch, or of the one it repeats; -1 when it is refused.
func (l *Log) Append(b Batch) (base, last int64, o Outcome) {
	if b.ProducerID >= 0 {
		if base, last, o = l.judge(b); o != Appended {
			return base, last, o
		}
	}
	base = l.End()
	for _, r := range b.Records {
		r.Offset, r.Kind = l.End(), Data
		l.entries = append(l.entries, entry{r, b.ProducerID, b.Transactional, b.LeaderEpoch})
	}
	l.batches = append(l.batches, batch{
		base: base, last: l.End() - 1, producerID: b.ProducerID, producerEpoch: b.ProducerEpoch,
		firstSequence: b.BaseSequence, transactional: b.Transactional, kind: Data, coordinatorEpoch: -1,
	})
	return base, l.End() - 1, Appended
}

// EndTxn adds a marker.
func (l *Log) EndTxn(m Marker) (offset int64, o Outcome) {
	epoch, coordinator := int16(-1), int32(-1)
	for _, b := range l.of(m.ProducerID) {
		epoch, coordinator = max(epoch, b.producerEpoch), max(coordinator, b.coordinatorEpoch)
	}
	_, open := l.openSince(m.ProducerID)
	switch {
	case m.ProducerEpoch < epoch, m.TxnV2 && open && m.ProducerEpoch == epoch:
		return -1, Fenced
	case m.CoordinatorEpoch < coordinator:
		return -1, FencedCoordinator
	}
	kind := Abort
	if m.Commit {
		kind = Commit
	}
	offset = l.End()
	l.entries = append(l.entries, entry{Record{Offset: offset, Timestamp: m.Timestamp, Kind: kind}, m.ProducerID, true, m.LeaderEpoch})
	l.batches = append(l.batches, batch{
		base: offset, last: offset, producerID: m.ProducerID, producerEpoch: m.ProducerEpoch,
		firstSequence: -1, transactional: true, kind: kind, coordinatorEpoch: m.CoordinatorEpoch,
	})
	return offset, Appended
}

// of lists the batches and markers of a producer that it is still known by.
func (l *Log) of(producerID int64) (list []batch) {
	for i, b := range l.batches {
		if b.producerID == producerID && i >= l.forgotten[producerID] {
			list = append(list, b)
		}
	}
	return list
}

// Forget makes the producer one that was never heard of, as expiry does.
func (l *Log) Forget(producerID int64) { l.forgotten[producerID] = len(l.batches) }

// judge says what the producer's earlier batches make of a new one.
func (l *Log) judge(b Batch) (base, last int64, o Outcome) {
	known := l.of(b.ProducerID)
	epoch := int16(-1)
	for _, k := range known {
		epoch = max(epoch, k.producerEpoch)
	}
	// Those with sequences, of the newest epoch; the last five of them are remembered.
	var recent []batch
	for _, k := range known {
		if k.producerEpoch == epoch && k.kind == Data && k.firstSequence >= 0 {
			recent = append(recent, k)
		}
	}
	recent = recent[max(0, len(recent)-5):]

	if b.BaseSequence >= 0 {
		for _, k := range recent {
			if k.producerEpoch == b.ProducerEpoch && k.firstSequence == b.BaseSequence && k.last-k.base+1 == int64(len(b.Records)) {
				return k.base, k.last, Duplicate
			}
		}
	}
	if b.ProducerEpoch < epoch {
		return -1, -1, Fenced
	}
	if b.BaseSequence >= 0 {
		next := int64(0)
		if b.ProducerEpoch == epoch && len(recent) > 0 {
			newest := recent[len(recent)-1]
			next = (int64(newest.firstSequence) + newest.last - newest.base + 1) % (1 << 31)
		}
		anything := len(known) == 0 && !(b.TxnV2 && b.Transactional)
		if !anything && int64(b.BaseSequence) != next {
			return -1, -1, OutOfOrder
		}
	}
	if _, open := l.openSince(b.ProducerID); open && !b.Transactional {
		return -1, -1, InvalidTxn
	}
	return -1, -1, Appended
}

// openSince returns the first offset of the producer's open transaction.
func (l *Log) openSince(producerID int64) (first int64, open bool) {
	for _, t := range l.txns() {
		if t.producerID == producerID && t.marker < 0 {
			return t.first, true
		}
	}
	return -1, false
}

// Read returns the records in [from, to), markers included.
func (l *Log) Read(from, to int64) (list []Record) {
	for _, e := range l.entries {
		if e.Offset >= max(from, l.start) && e.Offset < to {
			list = append(list, e.Record)
		}
	}
	return list
}

// DeleteTo moves the log start offset up.
func (l *Log) DeleteTo(offset int64) { l.start = max(l.start, min(offset, l.End())) }

// Truncate cuts the log off: end becomes its end. It has to lie between batches.
func (l *Log) Truncate(end int64) {
	if end >= l.End() {
		return
	}
	l.entries = l.entries[:max(0, end-l.first)]
	l.batches = slices.DeleteFunc(l.batches, func(b batch) bool { return b.last >= end })
	for id, n := range l.forgotten {
		l.forgotten[id] = min(n, len(l.batches))
	}
}

// OffsetForTime returns the first record in [log start, bound) that is as young
// as timestamp or younger.
func (l *Log) OffsetForTime(timestamp, bound int64) (r Record, ok bool) {
	for _, r := range l.Read(l.start, bound) {
		if r.Timestamp >= timestamp {
			return r, true
		}
	}
	return Record{}, false
}

// EpochAt returns the leader epoch that wrote the record at offset, which has to
// lie in the log.
func (l *Log) EpochAt(offset int64) int32 { return l.entries[offset-l.first].leaderEpoch }

// EndOfEpoch answers Kafka's OffsetForLeaderEpoch from the records alone: the
// largest epoch up to the one asked for and where it ends; -1, -1 when the epoch
// is newer than all. Deleted records count with the epoch of the log start only.
func (l *Log) EndOfEpoch(epoch int32) (found int32, end int64) {
	if len(l.entries) == 0 || epoch < 0 || epoch > l.entries[len(l.entries)-1].leaderEpoch {
		return -1, -1
	}
	if epoch == l.entries[len(l.entries)-1].leaderEpoch {
		return epoch, l.End()
	}
	found = epoch
	for _, e := range l.entries {
		// The record before the log start says which epoch the log start fell into
		// when nothing is left behind it.
		if e.Offset < l.start && l.start < l.End() || e.Offset < l.start-1 {
			continue
		}
		if e.leaderEpoch > epoch {
			return found, max(e.Offset, l.start)
		}
		found = e.leaderEpoch
	}
	return -1, -1
}
