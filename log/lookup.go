package log

import (
	"errors"
	"fmt"
	"io"
)

// TimePosition is a record found by its timestamp.
type TimePosition struct {
	Offset    int64
	Timestamp int64 // milliseconds since 1970
	Epoch     uint64
}

// OffsetForTime returns the first record, in offset order, whose timestamp is ms
// or later. ok is false when there is none. Records below the log start offset do
// not count. (ListOffsets in Kafka's protocol.)
func (l *Log) OffsetForTime(ms int64) (found TimePosition, ok bool, err error) {
	segs := *l.segs.Load()
	start := l.start.Load()
	for i, s := range segs {
		if i+1 < len(segs) && segs[i+1].baseOffset <= start {
			continue
		}
		newest, err := l.segmentMaxTimestamp(i, segs)
		if err != nil {
			return found, false, err
		}
		if newest < ms {
			continue
		}
		from := max(s.baseOffset, start)
		// All frames up to and with the one at the entry are older.
		if e, ok, err := s.index.floorTime(func(e timeEntry) bool { return e.timestamp >= ms }); err == nil && ok {
			from = max(from, e.offset)
		} else if err != nil && !errors.Is(err, errIndex) {
			return found, false, err
		}
		found, ok, err := l.firstAtOrAfter(ms, from)
		if ok || err != nil {
			return found, ok, err
		}
	}
	return found, false, nil
}

func (l *Log) firstAtOrAfter(ms, from int64) (found TimePosition, ok bool, err error) {
	r, err := l.ReadFrom(from)
	if err != nil {
		return found, false, err
	}
	r.Reuse()
	var records RecordReader
	for {
		f, err := r.Next()
		if err == io.EOF {
			return found, false, nil
		}
		if err != nil {
			return found, false, err
		}
		if f.Kind != KindData || batchMaxTimestamp(f.Payload) < ms {
			continue
		}
		if err := records.Reset(f.Payload, maxDecompressed); err != nil {
			return found, false, err
		}
		if records.Header().Attributes.Has(Control) {
			continue
		}
		for records.Next() {
			rec := records.Record()
			if rec.Timestamp >= ms && rec.Offset >= from {
				return TimePosition{rec.Offset, rec.Timestamp, f.Epoch}, true, nil
			}
		}
		if err := records.Err(); err != nil {
			return found, false, err
		}
	}
}

// maxDecompressed bounds what a stored batch may expand to when the log itself
// has to look into it.
const maxDecompressed = 256 << 20

// MaxTimestamp returns the record with the largest timestamp, the first of them.
// ok is false in a log without records.
func (l *Log) MaxTimestamp() (found TimePosition, ok bool, err error) {
	segs := *l.segs.Load()
	start := l.start.Load()
	newest, first := int64(noTimestamp), int64(noTimestamp)
	end := start // of the segment in whose middle the log starts
	for i, s := range segs {
		if i+1 < len(segs) && segs[i+1].baseOffset <= start {
			continue
		}
		ts, err := l.segmentMaxTimestamp(i, segs)
		if err != nil {
			return found, false, err
		}
		if s.baseOffset >= start {
			newest = max(newest, ts)
			continue
		}
		first, end = ts, l.next.Load()
		if i+1 < len(segs) {
			end = segs[i+1].baseOffset
		}
	}
	if first > newest {
		// The record that has it may lie below the log start offset.
		if first, err = l.newestIn(start, end); err != nil {
			return found, false, err
		}
		newest = max(newest, first)
	}
	if newest == noTimestamp {
		return found, false, nil
	}
	if found, ok, err = l.OffsetForTime(newest); ok || err != nil {
		return found, ok, err
	}
	// An index by time that is left over from before a truncation knows of records that
	// are gone. The records themselves know better.
	if newest, err = l.newestIn(start, l.next.Load()); err != nil || newest == noTimestamp {
		return found, false, err
	}
	return l.OffsetForTime(newest)
}

// newestIn is the largest timestamp of the records of [start, end).
func (l *Log) newestIn(start, end int64) (newest int64, err error) {
	newest = noTimestamp
	r, err := l.ReadFrom(start)
	if err != nil {
		return newest, err
	}
	r.Reuse()
	var records RecordReader
	for {
		f, err := r.Next()
		if err == io.EOF || err == nil && f.Offset >= end {
			return newest, nil
		}
		if err != nil {
			return newest, err
		}
		if f.Kind != KindData || batchMaxTimestamp(f.Payload) <= newest {
			continue
		}
		if f.Offset >= start {
			newest = batchMaxTimestamp(f.Payload)
			continue
		}
		if err := records.Reset(f.Payload, maxDecompressed); err != nil {
			return newest, err
		}
		for records.Next() {
			if rec := records.Record(); rec.Offset >= start {
				newest = max(newest, rec.Timestamp)
			}
		}
		if err := records.Err(); err != nil {
			return newest, err
		}
	}
}

// segmentMaxTimestamp is the largest timestamp in segment i, read from its last
// index entry on if nobody knows it yet.
func (l *Log) segmentMaxTimestamp(i int, segs []*segment) (int64, error) {
	s := segs[i]
	if ts := s.maxTimestamp.Load(); ts != unknownTimestamp {
		return ts, nil
	}
	newest, from := int64(noTimestamp), placeEntry{s.baseOffset, s.baseIndex, segmentHeaderLen}
	// What a truncation left in the index behind the end does not count.
	last, ok, err := s.index.floorTime(func(e timeEntry) bool { return i+1 < len(segs) && e.offset >= segs[i+1].baseOffset })
	if err == nil && ok {
		// Frames behind the entry may hold a larger one that was not worth an entry of
		// its own place: they are read.
		if e, found, err := s.index.floorPlace(func(e placeEntry) bool { return e.offset > last.offset }); err == nil && found {
			newest, from = last.timestamp, e
		}
	} else if err != nil && !errors.Is(err, errIndex) {
		return 0, err
	}
	c := cursor{seg: s, pos: from.pos, limit: s.end.Load(), reuse: true}
	at := place{from.offset, from.index, 0}
	for i+1 == len(segs) || at.index < segs[i+1].baseIndex {
		var h frameHeader
		frame, err := c.next(&h)
		if isReadError(err) {
			return 0, err
		}
		if err != nil || h.kind == kindMark || at.follows(&h, frame[frameHeaderLen:], s.compacted()) != nil {
			if from.pos > segmentHeaderLen && i+1 < len(segs) {
				// The index is a cache, and a power cut can bring back what a truncation took out
				// of it: it may have led astray.
				newest, from = noTimestamp, placeEntry{s.baseOffset, s.baseIndex, segmentHeaderLen}
				c.pos, at = from.pos, place{from.offset, from.index, 0}
				continue
			}
			// The end, or damage, which whoever reads there is told of. What is unknown
			// counts as new, so that retention by time does not delete it.
			if i+1 < len(segs) {
				return l.now().UnixMilli(), nil
			}
			break
		}
		if h.kind == KindData {
			newest = max(newest, batchMaxTimestamp(frame[frameHeaderLen:]))
		}
	}
	if i+1 < len(segs) {
		s.maxTimestamp.CompareAndSwap(unknownTimestamp, newest)
	}
	return newest, nil
}

// EpochOf returns the epoch of the entry with this log index: of the boundary,
// too. It fails with ErrOffsetGone below it.
func (l *Log) EpochOf(index uint64) (uint64, error) {
	if b := l.Boundary(); index == b.Index {
		return b.Epoch, nil
	}
	f, err := l.Entry(index)
	if err != nil {
		return 0, err
	}
	return f.Epoch, nil
}

// Entry reads the frame that stands for a log index.
func (l *Log) Entry(index uint64) (*Frame, error) {
	r, err := l.ReadFromIndex(index)
	if err != nil {
		return nil, err
	}
	f, err := r.Next()
	if err == io.EOF {
		return nil, fmt.Errorf("log index %d is the next one: %w", index, ErrOffsetAhead)
	}
	return f, err
}

// Backward walks the log from its end, or from any offset, to its beginning. One
// goroutine at a time.
type Backward struct {
	l      *Log
	before int64 // frames from this offset on have been returned
	stack  []Frame
}

// ReadBefore returns a walk over the frames of data that lie wholly below offset,
// the last one first.
func (l *Log) ReadBefore(offset int64) (*Backward, error) {
	if end := l.next.Load(); offset > end {
		return nil, fmt.Errorf("offset %d: the log ends at %d: %w", offset, end, ErrOffsetAhead)
	}
	if start := l.start.Load(); offset < start {
		return nil, fmt.Errorf("offset %d: the log starts at %d: %w", offset, start, ErrOffsetGone)
	}
	return &Backward{l: l, before: offset}, nil
}

// Next returns the frame before the last one. io.EOF says that the log start
// offset is reached. The payload stays valid as long as it is held.
func (b *Backward) Next() (*Frame, error) {
	if b.l.closed.Load() {
		return nil, ErrClosed
	}
	for len(b.stack) == 0 {
		start := b.l.start.Load()
		if b.before <= start {
			return nil, io.EOF
		}
		if err := b.fill(max(b.entryBefore(), start)); err != nil {
			return nil, err
		}
	}
	f := b.stack[len(b.stack)-1]
	b.stack = b.stack[:len(b.stack)-1]
	b.before = f.Offset
	return &f, nil
}

// entryBefore is the offset of the last index entry that lies below b.before, or
// the base of the segment in which b.before-1 lies.
func (b *Backward) entryBefore() int64 {
	segs := *b.l.segs.Load()
	s := segs[max(segmentFor(segs, b.before-1), 0)]
	e, ok, err := s.index.floorPlace(func(e placeEntry) bool { return e.offset >= b.before })
	if err != nil || !ok {
		return s.baseOffset
	}
	return e.offset
}

// fill puts the frames of data from offset from up to b.before on the stack.
func (b *Backward) fill(from int64) error {
	r, err := b.l.ReadFrom(from)
	if err != nil {
		return err
	}
	for {
		f, err := r.Next()
		if err == io.EOF || err == nil && f.NextOffset > b.before {
			break
		}
		if err != nil {
			return err
		}
		if f.Kind == KindData {
			b.stack = append(b.stack, *f)
		}
	}
	if len(b.stack) == 0 {
		b.before = from // nothing but gaps there
	}
	return nil
}
