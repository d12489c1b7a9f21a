package log

import (
	"errors"
	"io"

	"github.com/x/embedlog/internal/seed"
)

// How recovery finds where the frames of a log end, and the highest position that
// anything says was durable.

// scan reads segments from the last one backwards until one says that all before
// it was durable, and notes the highest place that anything names.
func (r *recovery) scan() error {
	r.tails = make([]tail, len(r.segs))
	known := -1
	if r.ckpt != nil {
		for i, s := range r.segs {
			if s.baseOffset == r.ckpt.durableBase {
				known = i
				r.raise(mark{i, r.ckpt.durablePos})
			}
		}
		if known < 0 && len(r.segs) > 0 && r.segs[len(r.segs)-1].baseOffset < r.ckpt.durableBase {
			// A segment that was durable is not there.
			r.raise(mark{len(r.segs), 1})
		}
	}
	r.from = len(r.segs)
	for i := len(r.segs) - 1; i >= 0; i-- {
		t, err := r.scanSegment(i)
		if err != nil {
			return err
		}
		r.tails[i], r.from = t, i
		if t.durable > 0 {
			r.raise(mark{i, t.durable})
		}
		if t.durable > 0 || i == known {
			break
		}
	}
	return nil
}

func (r *recovery) raise(m mark) {
	if r.highest.below(m) {
		r.highest = m
	}
}

// scanSegment finds the end of a segment's frames, and the highest durable
// position that anything in it names.
func (r *recovery) scanSegment(i int) (tail, error) {
	s := r.segs[i]
	t := tail{size: s.end.Load(), maxTimestamp: noTimestamp}
	if s.tag == 0 {
		t.end, t.at, t.reason = 0, place{offset: s.baseOffset}, errSegmentHeader
		held, err := holdsFrames(r.l.fs, s.name, t.size)
		if held {
			t.durable = 1 // the header was there when those were synced: it is damaged, not torn
		}
		return t, err
	}
	start := placeEntry{s.baseOffset, s.baseIndex, segmentHeaderLen}
	epoch := s.prevEpoch
	if s.index.places.inFile+s.index.times.inFile > 0 {
		e, newest, err := r.lastEntry(s)
		switch {
		case err == nil:
			start, epoch, t.maxTimestamp = e, 0, newest
		case !errors.Is(err, errIndex):
			return t, err
		default:
			// A cache that cannot be relied on: forget it, the scan makes it anew.
			if err := s.index.reset(); err != nil {
				return t, err
			}
		}
	}
	t.at = place{start.offset, start.index, epoch}
	if err := r.scanFrames(s, start.pos, &t); err != nil {
		return t, err
	}
	return t, nil
}

// lastEntry is the last place that the index knows, and the largest timestamp before
// it. errIndex says that there is none to rely on.
func (r *recovery) lastEntry(s *segment) (e placeEntry, newest int64, err error) {
	e, ok, err := s.index.floorPlace(func(placeEntry) bool { return false })
	if err != nil {
		return e, 0, err
	}
	if !ok || e.pos <= segmentHeaderLen || !seed.Is(seed.TrustIndex) && !r.leadsToFrame(s, e) {
		return e, 0, errIndex
	}
	last, err := s.index.cutTimes(e.offset)
	return e, last.timestamp, err
}

// leadsToFrame says whether an index entry is right.
func (r *recovery) leadsToFrame(s *segment, e placeEntry) bool {
	var h frameHeader
	c := cursor{seg: s, pos: e.pos, limit: s.end.Load()}
	frame, err := c.next(&h)
	return err == nil && h.kind != kindMark && h.firstIndex() == e.index && payloadOffset(frame[frameHeaderLen:]) == e.offset
}

// scanFrames walks the frames of s from pos on, where t.at is expected.
func (r *recovery) scanFrames(s *segment, pos int64, t *tail) error {
	c := cursor{seg: s, pos: pos, limit: t.size, reuse: true}
	every := int64(r.l.cfg.Load().IndexIntervalBytes)
	lastIndexed := s.index.newest()
	if lastIndexed == 0 && pos > segmentHeaderLen {
		lastIndexed = pos // the entry that led here lies in the file
		s.index.resume(pos, t.maxTimestamp)
	}
	t.end = pos
	for {
		var h frameHeader
		at := t.at
		frame, err := c.next(&h)
		if isReadError(err) {
			return err
		}
		if err == nil && h.kind == kindMark {
			if int64(h.durable) == t.end && h.index == t.at.index-1 {
				t.durable, t.marked = max(t.durable, t.end), true
			}
			t.reason = nil
			break
		}
		if err == nil {
			err = t.at.follows(&h, frame[frameHeaderLen:], s.compacted())
		}
		if err != nil {
			t.at = at
			if err != io.EOF && err != errNoFrame && err != errStaleFrame {
				t.reason = err
			}
			break
		}
		t.durable = max(t.durable, int64(h.durable))
		if h.kind == KindData {
			t.maxTimestamp = max(t.maxTimestamp, batchMaxTimestamp(frame[frameHeaderLen:]))
		}
		if lastIndexed == 0 || t.end-lastIndexed >= every {
			lastIndexed = t.end
			s.index.add(placeEntry{at.offset, h.firstIndex(), t.end}, t.maxTimestamp)
		}
		t.end = c.pos
	}
	r.report.ScannedBytes += t.end - pos
	return r.searchBehind(s, t)
}

// searchBehind looks behind the end of the frames for later ones: each says how
// far the segment was durable when it was written.
func (r *recovery) searchBehind(s *segment, t *tail) error {
	from := t.end
	if t.marked {
		from += markLen
	}
	// A frame lies at most as far behind as may be unsynced, and is at most so long.
	limit := min(t.size, from+MaxUnsyncedBytes+MaxGroupBytes)
	for from < limit {
		b := make([]byte, min(limit-from, 8<<20))
		n, err := s.readAt(b, from)
		if err != nil && err != io.EOF {
			return &readError{err}
		}
		b = b[:n]
		for at := 0; at < len(b); {
			var h frameHeader
			pos, ok := searchFrame(b[at:], from+int64(at), s.tag, &h)
			if !ok {
				break
			}
			if h.index >= t.at.index || h.kind == kindMark && int64(h.durable) > t.end {
				t.durable = max(t.durable, int64(h.durable))
			}
			at = int(pos-from) + 1
		}
		r.report.ScannedBytes += int64(n)
		if n < maxSearchOverlap || from+int64(n) >= limit {
			return nil
		}
		from += int64(n) - maxSearchOverlap
	}
	return nil
}

// maxSearchOverlap is how far two pieces of the search overlap: a frame larger
// than that, across the border of two pieces, can be missed, the next one not.
const maxSearchOverlap = 2 << 20
