package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/x/embedlog/internal/seed"
)

// durableMark is what a frame says of how far the log was durable when it was
// written: 0 nothing, otherwise all earlier segments and this file below it.
func (s *segment) durableMark() uint32 {
	if !s.earlierDurable.Load() {
		return 0
	}
	return uint32(max(s.durable.Load(), 1))
}

// Sync makes everything written so far durable and stores an end mark behind it.
// After an error nothing more can be written: see Err. Writer.
func (l *Log) Sync() error {
	if err := l.syncData(); err != nil {
		return err
	}
	l.mark()
	return nil
}

// Flush makes everything durable that was written before the call, without the
// writer's lock.
func (l *Log) Flush() error {
	if err := l.Err(); err != nil { // what failed first, if that is why it is closed
		return err
	}
	if err := l.syncData(); err != nil {
		return err
	}
	if l.TryLock() {
		if !l.closed.Load() { // the directory may be another's by now
			l.mark()
		}
		l.Unlock()
	}
	return nil
}

// syncData syncs every segment that holds unsynced frames, and the directory when
// it holds unsynced names.
func (l *Log) syncData() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	if f := l.failed.Load(); f != nil {
		return f.err
	}
	next := l.next.Load() // before the ends are looked at: what is below it lies below them
	segs := *l.segs.Load()
	first := len(segs) - 1
	for first > 0 && !segs[first].earlierDurable.Load() {
		first--
	}
	var ends [4]int64
	synced := ends[:0]
	for _, s := range segs[first:] {
		end := s.end.Load()
		synced = append(synced, end)
		if s.durable.Load() >= end {
			continue
		}
		err := l.datasync(s)
		if err != nil && seed.Is(seed.RetryFsync) {
			err = s.datasync()
		}
		if err != nil {
			if seed.Is(seed.IgnoreFsync) {
				return err
			}
			return l.fail("sync "+s.name, err)
		}
	}
	if l.namesDirty.Swap(false) && !seed.Is(seed.NoDirFsync) {
		// A new segment's name lives in the directory; without this a crash can forget
		// a file whose bytes are safe.
		if err := l.fs.SyncDir("."); err != nil {
			return l.fail("sync directory", err)
		}
	}
	for i, s := range segs[first:] {
		if i > 0 {
			s.earlierDurable.Store(true)
		}
		if synced[i] > s.durable.Load() {
			s.durable.Store(synced[i])
		}
	}
	last := len(segs) - 1
	l.mu.Lock()
	l.durable = durability{base: segs[last].baseOffset, pos: segs[last].durable.Load(), offset: max(l.durable.offset, next)}
	l.mu.Unlock()
	return nil
}

// mark stores an end mark behind the last frame when all before it is durable.
// The mark is evidence, not data: that it could not be stored loses nothing.
// Writer.
func (l *Log) mark() {
	w := &l.w
	if w.seg == nil || !w.seg.earlierDurable.Load() || w.seg.durable.Load() != w.pos || w.marked == w.pos || l.failed.Load() != nil {
		return
	}
	f, err := w.seg.handle.acquire()
	if err != nil {
		return
	}
	defer w.seg.handle.release()
	b := w.markBytes[:]
	l.putEndMark(b)
	if w.pos+markLen <= w.runway.ready.Load() {
		_, err = f.WriteAt(b, w.pos)
	} else if err = l.allow(markLen); err == nil {
		ready := w.runway.enter()
		_, err = f.WriteAt(b, w.pos)
		w.runway.leave(max(ready, w.pos+markLen))
	}
	if err == nil {
		w.marked = w.pos
	}
}

// remark stores the end mark again that a failed write took away, and has the idle
// log sync it: what was acknowledged before must go on being known as durable. Writer.
func (l *Log) remark() {
	l.mark()
	l.bg.arm()
}

// putEndMark encodes the mark that belongs behind the last frame.
func (l *Log) putEndMark(b []byte) {
	putMark(b, l.w.seg.tag, l.w.pos, l.w.at)
}

func putMark(b []byte, tag uint64, pos int64, at place) {
	binary.BigEndian.PutUint64(b[frameHeaderLen:], uint64(at.offset))
	putFrame(b, &frameHeader{
		kind: kindMark, length: markHeadLen, pos: uint32(pos), durable: uint32(pos),
		tag: tag, index: at.index - 1, epoch: at.epoch,
	})
}

// sealEnd leaves the active file so that the next open knows at once where it
// ends: a synced mark, and nothing behind it. Writer.
func (l *Log) sealEnd() error {
	w := &l.w
	w.marked = 0
	l.mark()
	if w.marked != w.pos {
		return nil // no room for a mark: the next open reads the tail
	}
	f, err := w.seg.handle.acquire()
	if err != nil {
		return err
	}
	defer w.seg.handle.release()
	w.runway.enter()
	defer w.runway.leave(w.pos + markLen)
	if err := errors.Join(f.Truncate(w.pos+markLen), f.Sync()); err != nil {
		return l.fail("sync "+w.seg.name, err)
	}
	return nil
}

// takeCheckpoint describes the log as it is now. Writer.
func (l *Log) takeCheckpoint() *checkpoint {
	c := &checkpoint{logID: l.logID, start: l.start.Load(), ran: l.ran()}
	l.mu.Lock()
	c.boundaryIndex, c.boundaryEpoch = l.boundary.Index, l.boundary.Epoch
	c.firstComplete = l.firstComplete
	c.durableBase, c.durablePos = l.durable.base, l.durable.pos
	l.mu.Unlock()
	if l.snapshot != nil {
		c.state = l.snapshot(nil)
	}
	if c.len() > maxCheckpoint {
		// The next open would refuse it, and the log with it.
		l.logger.Error("the owner's state is too large for a checkpoint and is left out", "bytes", len(c.state))
		c.state = nil
	}
	return c
}

// settleState makes durable what the owner's state is about to be of. A state that is
// ahead of what a power cut leaves says nothing about it, and what it was made of
// below the log start offset is gone. Writer, without syncing held.
func (l *Log) settleState() error {
	if l.snapshot == nil || l.DurableOffset() >= l.w.at.offset || seed.Is(seed.StateAhead) || seed.Is(seed.StartUnsynced) {
		return nil
	}
	return l.syncData()
}

// writeCheckpoint makes c the checkpoint. On a full disk it takes the reserve.
func (l *Log) writeCheckpoint(c *checkpoint) error {
	l.found.Store(nil)
	if err := l.withReserve(func() error { return writeCheckpoint(l.fs, c) }); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	l.checkpointBytes.Store(2 * int64(c.len()))
	return nil
}

// datasync makes a segment's records durable, and says how long that took to who
// wants to know.
func (l *Log) datasync(s *segment) error {
	if l.onSync == nil {
		return s.datasync()
	}
	began := time.Now()
	err := s.datasync()
	l.onSync(time.Since(began), err)
	return err
}
