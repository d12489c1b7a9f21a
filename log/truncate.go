package log

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/x/embedlog/internal/seed"
)

// TruncateFrom removes the entry with this log index and all behind it, for ever:
// the next append gets this index again, in a file with a new tag, so that
// nothing of the removed tail can be taken for it. A crash on the way leaves the
// log as it was, or ending somewhere in between.
//
// The state that Options.Snapshot gives must already be the one of the shorter
// log. index must not lie inside an entry that compaction joined. Writer.
func (l *Log) TruncateFrom(index uint64) error {
	if err := l.Err(); err != nil {
		return err
	}
	l.Discard()
	if index >= l.w.at.index {
		return nil
	}
	if first := l.FirstCompleteIndex(); index < first {
		// The next open would take a segment that begins inside the range of a compacted
		// one for a leftover.
		return fmt.Errorf("truncate at log index %d: below %d entries were compacted", index, first)
	}
	r, err := l.ReadFromIndex(index)
	if err != nil {
		return fmt.Errorf("truncate: %w", err)
	}
	seg, pos, at := r.c.seg, r.c.pos, r.at
	if at.index != index {
		return fmt.Errorf("truncate at log index %d: it lies inside the entry %d", index, at.index)
	}
	if at.epoch, err = l.EpochOf(index - 1); err != nil {
		return fmt.Errorf("truncate: %w", err)
	}
	l.bg.quiesce()
	// What is kept is called durable in the end, and segments before the one that is
	// cut may not be yet.
	if err := l.syncData(); err != nil {
		return err
	}
	l.syncing.Lock()
	defer l.syncing.Unlock()
	begun, err := l.truncate(seg, pos, at)
	if err != nil && !begun {
		return fmt.Errorf("truncate: %w", err)
	}
	if err != nil {
		return l.fail("truncate", err)
	}
	return nil
}

// truncate is false with an error when there was no room even to begin: the log is
// as it was.
func (l *Log) truncate(seg *segment, pos int64, at place) (begun bool, err error) {
	segs := *l.segs.Load()
	i := 0
	for segs[i] != seg {
		i++
	}

	// First of all nothing may say any more that what is about to go was durable.
	c := l.takeCheckpoint()
	c.start = min(c.start, at.offset)
	lower := c.durableBase > seg.baseOffset || c.durableBase == seg.baseOffset && c.durablePos > pos
	if lower {
		c.durableBase, c.durablePos = seg.baseOffset, pos
	}
	if at.offset != seg.baseOffset && !seed.Is(seed.CutUnnamed) {
		// A power cut can leave the file with its old size and some sectors of its tail
		// gone already, and frames behind them that say they were durable.
		c.cutTag, c.cutPos = seg.tag, pos
	}
	if err := l.writeCheckpoint(c); err != nil {
		var untouched notReplacedError
		return !errors.Is(err, ErrNoSpace) || !errors.As(err, &untouched), err
	}
	l.w.runway.close()
	l.mu.Lock()
	if lower {
		l.durable = durability{base: seg.baseOffset, pos: pos, offset: at.offset}
	}
	l.mu.Unlock()
	l.start.Store(c.start)

	return true, l.cutTail(segs, i, pos, at)
}

// cutTail removes what lies behind pos of segment i, and all segments behind it.
func (l *Log) cutTail(segs []*segment, i int, pos int64, at place) error {
	w, seg := &l.w, segs[i]
	// Readers stop at the new end before the bytes go.
	l.next.Store(at.offset)
	seg.end.Store(pos)
	kept := append([]*segment(nil), segs[:i+1]...)
	shorter := slices.Clone(kept) // readers have it: replaceTail changes the other
	l.segs.Store(&shorter)
	for j := len(segs) - 1; j > i; j-- {
		if err := removeSegment(l.fs, segs[j]); err != nil {
			return err
		}
		if err := l.fs.SyncDir("."); err != nil {
			return err
		}
	}

	if at.offset == seg.baseOffset {
		return l.replaceTail(kept, pos, at)
	}
	f, err := seg.handle.acquire()
	if err != nil {
		return err
	}
	defer seg.handle.release()
	if err := errors.Join(f.Truncate(pos), f.Sync()); err != nil {
		return err
	}
	if err := seg.index.cut(pos); err != nil {
		return err
	}
	seg.allocated.Store(pos)
	seg.durable.Store(pos)
	seg.maxTimestamp.Store(unknownTimestamp)
	w.seg, w.pos, w.at = seg, pos, at
	if err := l.withReserve(l.begin); err != nil { // on a full disk, too, where what was cut may have freed no block
		return err
	}
	return l.syncCreated()
}

// replaceTail is the end of a truncation that leaves no offset in the last
// segment: a file with a new tag takes its place, holding the entries without
// offsets that are kept.
func (l *Log) replaceTail(kept []*segment, pos int64, at place) error {
	old := kept[len(kept)-1]
	// Between the rename and the new list a reader must find the old file open.
	if _, err := old.handle.acquire(); err != nil {
		return err
	}
	defer old.handle.release()
	h := old.segmentHeader
	h.tag, h.flags, h.endOffset, h.endIndex = newTag(), 0, 0, 0
	b := h.encode()
	c := cursor{seg: old, pos: segmentHeaderLen, limit: pos}
	for c.pos < pos {
		var fh frameHeader
		frame, err := c.next(&fh)
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%s at byte %d: %w", old.name, c.pos, err)
		}
		fh.pos, fh.tag, fh.durable = uint32(len(b)), h.tag, 1
		b = append(b, frame...)
		putFrame(b[fh.pos:], &fh)
	}
	if err := l.withReserve(func() error { return replaceFile(l.fs, old.name, b) }); err != nil {
		return err
	}
	old.handle.forget()
	s := newSegment(l.fs, l.files, h)
	if err := s.index.reset(); err != nil {
		return err
	}
	s.end.Store(int64(len(b)))
	s.before = l.w.written - int64(len(b))
	kept[len(kept)-1] = s
	l.segs.Store(&kept)
	l.activate(s, int64(len(b)), at, noTimestamp)
	return l.syncCreated()
}

// syncCreated makes the new active segment durable together with its name.
func (l *Log) syncCreated() error {
	s := l.w.seg
	if !seed.Is(seed.CutForgotten) {
		if err := s.datasync(); err != nil {
			return err
		}
		if err := l.fs.SyncDir("."); err != nil {
			return err
		}
	}
	l.namesDirty.Store(false)
	s.durable.Store(s.end.Load())
	s.earlierDurable.Store(true)
	l.mu.Lock()
	l.durable = durability{base: s.baseOffset, pos: s.end.Load(), offset: l.w.at.offset}
	l.mu.Unlock()
	return nil
}

// TruncateTo makes offset the log start offset: records below it are gone for
// readers at once, and for ever when it returns. Whole segments below it are
// deleted, never the active one. Writer.
func (l *Log) TruncateTo(offset int64) error { return l.TruncateToKeeping(offset, 0) }

// TruncateToKeeping is TruncateTo, and the segments that hold the entry with the log
// index keep, or one behind it, stay whatever their offsets: an entry without offsets
// at a segment's end may not be committed yet, and TruncateFrom has to find it. Zero
// keeps none. Writer.
func (l *Log) TruncateToKeeping(offset int64, keep uint64) error {
	if err := l.Err(); err != nil {
		return err
	}
	if offset <= l.start.Load() {
		return nil
	}
	if end := l.w.at.offset; offset > end {
		return fmt.Errorf("truncate to offset %d: the log ends at %d: %w", offset, end, ErrOffsetAhead)
	}
	l.bg.quiesce()
	segs := *l.segs.Load()
	first := max(segmentFor(segs, offset), 0)
	for first > 0 && !segs[first].begins(keep) {
		first--
	}
	return l.dropSegments(first, offset)
}

// dropSegments removes the first n segments and moves the log start offset. Writer.
func (l *Log) dropSegments(n int, start int64) error {
	segs := *l.segs.Load()
	head := segs[n]
	l.mu.Lock()
	unsynced := l.durable.base < head.baseOffset || l.durable.offset < start
	l.mu.Unlock()
	if unsynced && !seed.Is(seed.StartUnsynced) {
		// The checkpoint is about to say that the log begins with head: it must be there
		// after a power cut that brings one of the unlinked files back. And a log that
		// ended below its start would take appends that nobody can see.
		if err := l.syncData(); err != nil {
			return err
		}
	}
	if err := l.settleState(); err != nil {
		return err
	}
	c := l.takeCheckpoint()
	c.start = start
	c.boundaryIndex, c.boundaryEpoch = head.baseIndex-1, head.prevEpoch
	c.firstComplete = max(c.firstComplete, head.baseIndex)
	if c.durableBase < head.baseOffset {
		c.durableBase, c.durablePos = head.baseOffset, 1
	}
	// The checkpoint decides: what lies below its start is removed by the next open,
	// if we do not get to it.
	if err := l.writeCheckpoint(c); err != nil {
		return fmt.Errorf("move the log start offset to %d: %w", start, err)
	}
	l.mu.Lock()
	l.boundary = Boundary{Index: c.boundaryIndex, Epoch: c.boundaryEpoch}
	l.firstComplete = c.firstComplete
	l.mu.Unlock()
	l.start.Store(start)
	kept := append([]*segment(nil), segs[n:]...)
	l.segs.Store(&kept)
	for _, s := range segs[:n] {
		if err := l.freeSegment(s); err != nil {
			l.logger.Warn("segment not removed; the next open will", "segment", s.name, "error", err)
		}
	}
	return nil
}
