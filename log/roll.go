package log

import (
	"errors"
	"fmt"
	"io/fs"
)

// Roll closes the active segment and begins the next one, unless the active one
// holds no offset yet: two segments cannot have one name. Nothing may be staged. Writer.
func (l *Log) Roll() error {
	if err := l.Err(); err != nil {
		return err
	}
	if l.w.at.offset == l.w.seg.baseOffset {
		return nil
	}
	return l.roll()
}

func (l *Log) roll() error {
	if err := l.allow(4096); err != nil {
		return fmt.Errorf("begin segment %d: %w", l.w.at.offset, err)
	}
	return l.begin()
}

// begin is roll that asks nobody for room.
func (l *Log) begin() error {
	w := &l.w
	seg, err := l.createSegment(segmentHeader{
		logID: l.logID, tag: newTag(), baseOffset: w.at.offset, baseIndex: w.at.index,
		prevEpoch: w.at.epoch, created: l.now().UnixMilli(), born: l.ran(),
	})
	if err != nil {
		return fmt.Errorf("begin segment %d: %w", w.at.offset, err)
	}
	seg.before = w.written - segmentHeaderLen
	segs := *l.segs.Load()
	segs = append(segs[:len(segs):len(segs)], seg)
	l.segs.Store(&segs)
	l.activate(seg, segmentHeaderLen, w.at, noTimestamp)
	return nil
}

// activate makes seg the one that is written to, from pos on. Writer.
func (l *Log) activate(seg *segment, pos int64, at place, maxTimestamp int64) {
	w := &l.w
	if w.runway != nil {
		w.runway.close()
	}
	cfg := l.cfg.Load()
	w.runway = newRunway(seg, max(pos, seg.recycled), cfg.SegmentBytes, cfg.NoZeroing, l.allow, &l.bg.running)
	seg.recycled = 0
	w.seg, w.pos, w.at, w.staged = seg, pos, at, at
	w.maxTimestamp, w.newest = maxTimestamp, maxTimestamp
	w.indexedPos, w.marked = seg.index.newest(), 0
}

// createSegment makes a segment's file with its header. Neither is durable before
// the next syncData; until then the name counts as unsynced.
func (l *Log) createSegment(h segmentHeader) (*segment, error) {
	s := newSegment(l.fs, l.files, h)
	if ok, err := l.useSpare(s); ok || err != nil {
		return s, err
	}
	f, err := l.fs.Create(s.name)
	if errors.Is(err, fs.ErrExist) {
		// The leftover of a creation that failed: no segment of ours has this offset.
		if err = l.fs.Remove(s.name); err == nil {
			f, err = l.fs.Create(s.name)
		}
	}
	if err != nil {
		return nil, err
	}
	l.namesDirty.Store(true)
	if _, err = f.WriteAt(h.encode(), 0); err != nil {
		return nil, errors.Join(err, f.Close(), l.fs.Remove(s.name))
	}
	if err := s.index.reset(); err != nil { // of an earlier segment with this name
		return nil, errors.Join(err, f.Close(), l.fs.Remove(s.name))
	}
	s.handle.adopt(f)
	s.handle.release()
	return s, nil
}

// allow says whether the files may grow by that much: below the byte cap, and only
// while the reserve is there. A disk filled without it could not even be emptied:
// deleting needs room for a checkpoint.
func (l *Log) allow(grow int64) error {
	if !l.spending.Load() {
		if err := l.keepReserve(); err != nil {
			return err
		}
	}
	if l.uncapped {
		return nil
	}
	return l.underCap(grow)
}

func (l *Log) underCap(grow int64) error {
	limit := l.cfg.Load().CapBytes
	if limit == 0 {
		return nil
	}
	if used := l.AllocatedBytes(); used+grow > limit {
		return &CapError{Limit: limit, Used: used, Wanted: grow}
	}
	return nil
}

// AllocatedBytes is what the log's files take on the disk: segments with what is
// laid ahead of the writer, indexes, checkpoint, reserve and spare segment.
func (l *Log) AllocatedBytes() int64 {
	used := l.otherBytes.Load() + l.checkpointBytes.Load()
	for _, s := range *l.segs.Load() {
		used += s.allocatedBytes()
	}
	return used
}

// allocatedBytes is what the segment's file and its indexes take on the disk.
func (s *segment) allocatedBytes() int64 {
	const block = 4096
	size := max(s.allocated.Load(), s.end.Load())
	return (size+block-1)&^(block-1) + s.index.bytes()
}
