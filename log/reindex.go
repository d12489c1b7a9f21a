package log

import (
	"context"
	"errors"
	"io/fs"
)

// reindex writes the indexes of closed segments that have none, or those of another
// file: a crash between the renames of a compaction leaves that. Reading there is
// right without them, only slow, so it is done when compaction comes by.
func (l *Log) reindex(ctx context.Context, n int) error {
	for _, s := range (*l.segs.Load())[:n] {
		if err := ctx.Err(); err != nil {
			return err
		}
		if l.closed.Load() {
			return ErrClosed
		}
		_, ok, err := s.index.floorPlace(func(placeEntry) bool { return false })
		if err != nil && !errors.Is(err, errIndex) {
			return err
		}
		if err == nil && ok || !s.settled.Load() {
			continue
		}
		if err := l.reindexSegment(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) reindexSegment(ctx context.Context, s *segment) error {
	var x sparseIndex
	x.init(s.fs, s.baseOffset, s.baseIndex, s.tag)
	c := cursor{seg: s, pos: segmentHeaderLen, limit: s.end.Load(), reuse: true}
	at := place{s.baseOffset, s.baseIndex, s.prevEpoch}
	newest, indexed, every := int64(noTimestamp), int64(0), int64(l.cfg.Load().IndexIntervalBytes)
	for ctx.Err() == nil {
		if l.closed.Load() { // Close waits for us
			return ErrClosed
		}
		var h frameHeader
		pos := c.pos
		frame, err := c.next(&h)
		if isReadError(err) {
			return err
		}
		if err != nil || h.kind == kindMark || at.follows(&h, frame[frameHeaderLen:], s.compacted()) != nil {
			break // the end, or damage, which whoever reads there is told of
		}
		payload := frame[frameHeaderLen:]
		if h.kind == KindData {
			newest = max(newest, batchMaxTimestamp(payload))
		}
		if indexed == 0 || pos-indexed >= every {
			indexed = pos
			x.add(placeEntry{payloadOffset(payload), h.firstIndex(), pos}, newest)
		}
	}
	if err := ctx.Err(); err != nil || x.empty() {
		return err
	}
	places, times := x.encode()
	w := segmentWriter{l: l, seg: s}
	w.removeTemporary()
	if err := errors.Join(writeNew(l.fs, w.temporary(indexSuffix), places), writeNew(l.fs, w.temporary(timeIndexSuffix), times)); err != nil {
		w.removeTemporary()
		return err
	}
	l.Lock()
	defer l.Unlock()
	l.bg.quiesce()
	if !l.has(s) {
		w.removeTemporary()
		return nil
	}
	// Two files cannot be renamed at once. In between, an index by place without the
	// times that belong to it must not be seen.
	if err := l.fs.Remove(x.places.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.removeTemporary()
		return err
	}
	for _, suffix := range []string{timeIndexSuffix, indexSuffix} {
		if err := l.fs.Rename(w.temporary(suffix), segmentName(s.baseOffset, suffix)); err != nil {
			w.removeTemporary()
			return err
		}
	}
	l.namesDirty.Store(true)
	x.written()
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	s.index.places, s.index.times = x.places, x.times
	return nil
}
