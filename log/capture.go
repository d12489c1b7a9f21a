package log

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
)

// ErrHeld says that a compaction cannot go on while the log is being copied. It is
// no failure: the next one does the work.
var ErrHeld = errors.New("embedlog: held while the log is being copied")

// ErrGone says that retention has deleted a captured segment.
var ErrGone = errors.New("embedlog: the segment was deleted meanwhile")

// Hold keeps compaction away until release is called, which may be called again.
// A compaction that runs ends with ErrHeld at its next frame, and replaces nothing
// from the return of the next Capture on. Retention goes on: it frees the disk.
func (l *Log) Hold() (release func()) {
	l.held.Add(1)
	var once sync.Once
	return func() { once.Do(func() { l.held.Add(-1) }) }
}

// CapturedSegment is one data file of a Capture.
type CapturedSegment struct {
	Name       string
	BaseOffset int64
	Tag        uint64 // random: another file under this name has another
	Bytes      int64  // what CopySegment writes
}

// Capture is a log as it was at one moment: what has to be copied for another
// directory to hold the same log. It takes no bytes of the log into memory.
type Capture struct {
	Start, End int64 // log start and log end offset
	LogID      uint64
	Segments   []CapturedSegment

	l    *Log
	segs []*segment
	mark []byte // behind the last segment's frames
	next place  // where the log ended
	ckpt *checkpoint
}

// Capture makes what was written durable and describes the log as it is then. The
// caller has called Hold, and holds on to it while it copies. It takes the writer's
// lock for as long as the sync takes. Nothing of it can be taken back by a power cut,
// so two captures never disagree about the same segment, tag and length.
func (l *Log) Capture() (*Capture, error) {
	l.Lock()
	defer l.Unlock()
	if err := l.Err(); err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	if err := l.Sync(); err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	c := &Capture{Start: l.start.Load(), End: l.w.at.offset, LogID: l.logID, l: l, segs: slices.Clone(*l.segs.Load()), next: l.w.at, ckpt: l.takeCheckpoint()}
	c.ckpt.cutTag, c.ckpt.cutPos = 0, 0
	for _, s := range c.segs {
		c.Segments = append(c.Segments, CapturedSegment{Name: s.name, BaseOffset: s.baseOffset, Tag: s.tag, Bytes: s.end.Load()})
	}
	last := &c.Segments[len(c.Segments)-1]
	last.Bytes = l.w.pos + markLen
	c.mark = make([]byte, markLen)
	l.putEndMark(c.mark)
	return c, nil
}

// Checkpoint is the content of the checkpoint file that belongs to the segments.
func (c *Capture) Checkpoint() []byte { return c.ckpt.encode() }

// Drop takes out the segments up to and with Segments[i], which retention deleted:
// the copy is then of a log that starts behind them.
func (c *Capture) Drop(i int) {
	c.segs, c.Segments = c.segs[i+1:], c.Segments[i+1:]
	k := c.ckpt
	if len(c.segs) == 0 {
		// The log goes on where it ended; its checkpoint alone says where that is.
		k.start, k.boundaryIndex, k.boundaryEpoch = c.next.offset, c.next.index-1, c.next.epoch
		k.durableBase, k.durablePos = c.next.offset, 1
	} else {
		first := c.segs[0]
		k.start = max(k.start, first.baseOffset)
		k.boundaryIndex, k.boundaryEpoch = first.baseIndex-1, first.prevEpoch
	}
	k.firstComplete = max(k.firstComplete, k.boundaryIndex+1)
	c.Start = k.start
}

// CheckSegment reads all frames of Segments[i], as CopySegment will, and says where they are damaged: a *CorruptionError.
// A copy of damage would be damaged, too. It fails with ErrGone when retention has deleted the segment.
func (c *Capture) CheckSegment(ctx context.Context, i int) error {
	s := c.segs[i]
	if !s.pin() {
		return fmt.Errorf("%s: %w", s.name, ErrGone)
	}
	defer s.unpin()
	bad := func(pos, offset int64, cause error) error {
		return &CorruptionError{File: s.name, Position: pos, End: -1, FirstOffset: offset, EndOffset: -1, Cause: cause}
	}
	f, err := s.handle.acquire()
	if (errors.Is(err, fs.ErrNotExist) || errors.Is(err, errReplaced)) && !c.l.has(s) {
		return fmt.Errorf("%s: %w", s.name, ErrGone)
	}
	if errors.Is(err, fs.ErrNotExist) && !c.l.closed.Load() {
		return bad(0, s.baseOffset, errSegmentLost)
	}
	if err != nil {
		return err
	}
	h, err := readSegmentHeader(f)
	s.handle.release()
	if errors.Is(err, errSegmentHeader) || err == nil && h != s.segmentHeader {
		return bad(0, s.baseOffset, errSegmentHeader)
	}
	if err != nil {
		return err
	}
	end, next := c.Segments[i].Bytes, c.next
	if i+1 < len(c.segs) {
		next = place{c.segs[i+1].baseOffset, c.segs[i+1].baseIndex, 0}
	} else {
		end -= int64(len(c.mark))
	}
	cur := cursor{seg: s, pos: segmentHeaderLen, limit: end, reuse: true}
	at := place{s.baseOffset, s.baseIndex, s.prevEpoch}
	for at.index < next.index {
		if err := ctx.Err(); err != nil {
			return err
		}
		if c.l.closed.Load() {
			return ErrClosed
		}
		var h frameHeader
		from, was := cur.pos, at
		frame, err := cur.next(&h)
		if isReadError(err) {
			return fmt.Errorf("%s at byte %d: %w", s.name, from, err)
		}
		if err == nil && h.kind == kindMark {
			err = errNoFrame
		}
		if err == nil {
			err = at.follows(&h, frame[frameHeaderLen:], s.compacted())
		}
		if err != nil {
			return bad(from, was.offset, err)
		}
	}
	if at.index != next.index || at.offset != next.offset {
		return bad(cur.pos, at.offset, fmt.Errorf("it ends at offset %d and log index %d, want %d and %d", at.offset, at.index, next.offset, next.index))
	}
	return nil
}

// CopySegment writes Segments[i] to w: as many bytes as it says. It fails with
// ErrGone when retention has deleted it, and all before it.
func (c *Capture) CopySegment(ctx context.Context, i int, w io.Writer) error {
	s := c.segs[i]
	if !s.pin() {
		return fmt.Errorf("%s: %w", s.name, ErrGone)
	}
	defer s.unpin()
	f, err := s.handle.acquire()
	if (errors.Is(err, fs.ErrNotExist) || errors.Is(err, errReplaced)) && !c.l.has(s) {
		return fmt.Errorf("%s: %w", s.name, ErrGone)
	}
	if err != nil && c.l.closed.Load() {
		return fmt.Errorf("%s: %w", s.name, ErrClosed) // its owner may have removed the files
	}
	if err != nil {
		return err
	}
	defer s.handle.release()
	end, mark := c.Segments[i].Bytes, []byte(nil)
	if i == len(c.segs)-1 {
		mark = c.mark
		end -= int64(len(mark))
	}
	b := make([]byte, min(end, maxChunk))
	for at := int64(0); at < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		if c.l.closed.Load() {
			return ErrClosed
		}
		n, err := f.ReadAt(b[:min(int64(len(b)), end-at)], at)
		if err == io.EOF && n == 0 && i < len(c.segs)-1 {
			clear(b) // zeros behind the frames that were cut off since: they count for nothing
			n, err = int(min(int64(len(b)), end-at)), nil
		}
		if n == 0 && err != nil {
			return fmt.Errorf("%s at byte %d: %w", s.name, at, err)
		}
		if _, err := w.Write(b[:n]); err != nil {
			return err
		}
		at += int64(n)
	}
	_, err = w.Write(mark)
	return err
}
