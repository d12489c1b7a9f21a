package log

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// Problem is one thing that Verify found wrong.
type Problem struct {
	File     string // name within the log's directory
	Position int64  // byte in the file
	// Cache says that the file is an index: it is slow to do without, nothing is lost.
	Cache bool
	// Err is a *CorruptionError for damaged frames and headers, a *BadBatchError for
	// a batch that is whole and does not hold what it claims.
	Err error
}

func (p *Problem) Error() string { return fmt.Sprintf("%s at byte %d: %v", p.File, p.Position, p.Err) }

// Unwrap returns Err.
func (p *Problem) Unwrap() error { return p.Err }

// VerifyReport says what was read and what is wrong with it.
type VerifyReport struct {
	Segments                        int
	Bytes, Frames, Batches, Records int64
	Problems                        []*Problem
	More                            bool // there are more problems than are listed
}

// maxProblems bounds the list.
const maxProblems = 1000

func (r *VerifyReport) add(file string, pos int64, cache bool, err error) {
	if len(r.Problems) >= maxProblems {
		r.More = true
		return
	}
	r.Problems = append(r.Problems, &Problem{file, pos, cache, err})
}

// Verify reads the whole log and everything beside it and lists what is wrong:
// checksums of frames and batches, that each batch holds the records it claims,
// that log indexes are contiguous and offsets and epochs in order, that the indexes
// lead where they should, that the checkpoint fits. It writes nothing. Appends and
// retention may go on meanwhile; a compaction waits. The error says why it could
// not be done, not what was found.
func (l *Log) Verify(ctx context.Context) (VerifyReport, error) {
	l.maint.Lock()
	defer l.maint.Unlock()
	var r VerifyReport
	segs := *l.segs.Load()
	for i, s := range segs {
		v := &verifier{ctx: ctx, l: l, s: s, report: &r}
		if i+1 < len(segs) {
			v.next = segs[i+1]
		}
		err := v.segment()
		if (errors.Is(err, fs.ErrNotExist) || errors.Is(err, errReplaced)) && !l.has(s) {
			continue // deleted while we were reading
		}
		if l.closed.Load() {
			return r, ErrClosed
		}
		if errors.Is(err, fs.ErrNotExist) {
			r.add(s.name, 0, false, &CorruptionError{File: s.name, End: -1, FirstOffset: s.baseOffset, EndOffset: -1, Cause: errSegmentLost})
			continue
		}
		if err != nil {
			return r, fmt.Errorf("verify %s: %w", s.name, err)
		}
		r.Segments++
	}
	return r, l.verifyCheckpoint(&r)
}

func (l *Log) has(s *segment) bool {
	for _, other := range *l.segs.Load() {
		if other == s {
			return true
		}
	}
	return false
}

func (l *Log) verifyCheckpoint(r *VerifyReport) error {
	c, err := readCheckpoint(l.fs)
	if errors.Is(err, ErrCorrupt) {
		r.add(checkpointName, 0, false, err)
		return nil
	}
	if err != nil {
		return err
	}
	wrong := func(format string, args ...any) {
		r.add(checkpointName, 0, false, &CorruptionError{File: checkpointName, End: -1, FirstOffset: -1, EndOffset: -1, Cause: fmt.Errorf(format, args...)})
	}
	switch {
	case c == nil:
		wrong("it is missing")
	case c.logID != l.logID:
		wrong("it belongs to log %016x, this is log %016x", c.logID, l.logID)
	case c.start > l.EndOffset():
		wrong("log start offset %d, the log ends at %d", c.start, l.EndOffset())
	}
	return nil
}

// verifier reads one segment.
type verifier struct {
	ctx    context.Context
	l      *Log
	s      *segment
	next   *segment // nil: s is the active one
	report *VerifyReport

	places []placeEntry // of the index file, those that are not passed yet
	times  []timeEntry
	newest int64 // largest timestamp so far
}

func (v *verifier) segment() error {
	s := v.s
	end := s.end.Load() // before the indexes: what they lead to lies below it
	f, err := s.handle.acquire()
	if err != nil {
		return err
	}
	h, err := readSegmentHeader(f)
	s.handle.release()
	if errors.Is(err, errSegmentHeader) || err == nil && h != s.segmentHeader {
		v.report.add(s.name, 0, false, &CorruptionError{File: s.name, End: -1, FirstOffset: s.baseOffset, EndOffset: -1, Cause: errSegmentHeader})
	} else if err != nil {
		return err
	}
	if v.places, err = verifyEntries(v, s.index.places.name, s.index.getPlace, func(a, b placeEntry) bool {
		return a.pos < b.pos && a.offset <= b.offset && a.index < b.index
	}); err != nil {
		return err
	}
	if v.times, err = verifyEntries(v, s.index.times.name, s.index.getTime, func(a, b timeEntry) bool {
		return a.timestamp < b.timestamp && a.offset <= b.offset
	}); err != nil {
		return err
	}
	v.newest = noTimestamp
	if err := v.frames(end); err != nil {
		return err
	}
	for _, e := range v.places {
		v.report.add(s.index.places.name, 0, true, fmt.Errorf("the entry for offset %d leads to byte %d, where no frame is: %w", e.offset, e.pos, errIndex))
	}
	return nil
}

// verifyEntries reads an index file.
func verifyEntries[E any](v *verifier, name string, get func([]byte) (E, error), ordered func(a, b E) bool) (entries []E, err error) {
	f, err := v.l.fs.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Info()
	if err != nil {
		return nil, err
	}
	// No frame is shorter than its header: more entries cannot be right.
	size := min(info.Size, v.s.end.Load()/frameHeaderLen*indexEntryLen)
	b := make([]byte, size/indexEntryLen*indexEntryLen)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	for at := 0; at+indexEntryLen <= n; at += indexEntryLen {
		e, err := get(b[at:])
		if err == nil && len(entries) > 0 && !ordered(entries[len(entries)-1], e) {
			err = fmt.Errorf("out of order: %w", errIndex)
		}
		if err != nil {
			v.report.add(name, int64(at), true, err)
			return entries, nil
		}
		entries = append(entries, e)
	}
	if info.Size != int64(n) {
		v.report.add(name, int64(n), true, fmt.Errorf("%d bytes behind the last entry: %w", info.Size-int64(n), errIndex))
	}
	return entries, nil
}

// frames walks the frames up to end, or to where the next segment begins.
func (v *verifier) frames(end int64) error {
	s := v.s
	cur := cursor{seg: s, pos: segmentHeaderLen, limit: end, reuse: true}
	at := place{s.baseOffset, s.baseIndex, s.prevEpoch}
	for v.next == nil && cur.pos < end || v.next != nil && at.index < v.next.baseIndex {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		if v.l.closed.Load() { // Close waits for us
			return ErrClosed
		}
		var h frameHeader
		from, was := cur.pos, at
		frame, err := cur.next(&h)
		if isReadError(err) {
			return err
		}
		if err == nil && h.kind == kindMark {
			err = errors.New("an end mark, but the log goes on")
		}
		if err == nil {
			err = at.follows(&h, frame[frameHeaderLen:], s.compacted())
		}
		if err == nil {
			v.frame(&h, frame[frameHeaderLen:], from, was)
			continue
		}
		c := &CorruptionError{File: s.name, Position: from, End: -1, FirstOffset: was.offset, EndOffset: -1, Cause: err}
		v.report.add(s.name, from, false, c)
		pos, frame, err := nextWhole(s, from+1, end, &h)
		if isReadError(err) {
			return err
		}
		if err != nil || h.kind == kindMark {
			return nil
		}
		c.End, c.EndOffset = pos, payloadOffset(frame[frameHeaderLen:])
		cur.pos, cur.buf = pos, nil
		at = place{c.EndOffset, h.firstIndex(), h.epoch}
	}
	v.report.Bytes += cur.pos
	if v.next != nil && (at.index != v.next.baseIndex || at.offset != v.next.baseOffset) {
		v.report.add(s.name, cur.pos, false, &CorruptionError{File: s.name, Position: cur.pos, End: -1, FirstOffset: at.offset, EndOffset: v.next.baseOffset,
			Cause: fmt.Errorf("it ends at offset %d and log index %d, the next segment begins at %d and %d", at.offset, at.index, v.next.baseOffset, v.next.baseIndex)})
	}
	return nil
}

// frame looks into a frame that is whole and in its place, and at the index
// entries that lead to it.
func (v *verifier) frame(h *frameHeader, payload []byte, pos int64, was place) {
	s, r := v.s, v.report
	r.Frames++
	offset := payloadOffset(payload)
	if h.kind == KindData {
		r.Batches++
		bh, err := CheckBatch(payload, Limits{MaxBatchBytes: -1, MaxDecompressedBytes: maxDecompressed, AllowControl: true, Stored: true})
		if err == nil && int64(bh.LeaderEpoch) != int64(h.epoch) {
			err = bh.fail(posLeaderEpoch, fmt.Sprintf("leader epoch is %d, the frame's %d", bh.LeaderEpoch, h.epoch), nil)
		}
		if err != nil {
			r.add(s.name, pos, false, err)
		}
		r.Records += int64(bh.Count)
		v.newest = max(v.newest, batchMaxTimestamp(payload))
	}
	for len(v.places) > 0 && v.places[0].pos <= pos {
		e := v.places[0]
		v.places = v.places[1:]
		if e.pos != pos {
			r.add(s.index.places.name, 0, true, fmt.Errorf("the entry for offset %d leads to byte %d, where no frame is: %w", e.offset, e.pos, errIndex))
		} else if e.index != h.firstIndex() || e.offset > offset || e.offset < was.offset {
			r.add(s.index.places.name, 0, true, fmt.Errorf("the entry for offset %d, log index %d leads to byte %d, where offset %d, log index %d is: %w",
				e.offset, e.index, e.pos, offset, h.firstIndex(), errIndex))
		}
	}
	for len(v.times) > 0 && v.times[0].offset <= offset {
		e := v.times[0]
		v.times = v.times[1:]
		if v.newest > e.timestamp {
			r.add(s.index.times.name, 0, true, fmt.Errorf("the entry for offset %d says that nothing up to it is younger than %d, but %d was there: %w",
				e.offset, e.timestamp, v.newest, errIndex))
		}
	}
}
