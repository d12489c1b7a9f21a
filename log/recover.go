package log

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/x/embedlog/internal/seed"
	"github.com/x/embedlog/internal/vfs"
)

// Recovery reads the part of the log that was not known to be durable, at most
// MaxUnsyncedBytes of it, and decides where the log ends. docs/format.md has the
// rules. It reads everything before it changes anything, so that a directory it
// cannot understand stays as it was.

// recovery is what was read so far.
type recovery struct {
	l       *Log
	ckpt    *checkpoint // nil: none
	segs    []*segment
	tails   []tail // of segs[from:]
	from    int
	remove  []string // names to remove: leftovers of what a crash interrupted
	report  Recovered
	highest mark
}

// mark is a place that something says was durable.
type mark struct {
	seg int // position in segs
	pos int64
}

func (m mark) below(n mark) bool { return m.seg < n.seg || m.seg == n.seg && m.pos < n.pos }

// tail is what a scan found at the end of one segment.
type tail struct {
	end          int64 // behind the last whole frame that follows the ones before
	at           place // there
	size         int64 // of the file
	durable      int64 // highest position that a frame or mark in it names, 0 for none
	marked       bool  // an end mark lies at end
	maxTimestamp int64
	reason       error // why it ends there; nil when the file just ends
}

func (l *Log) recover(mustExist bool) error {
	r := &recovery{l: l}
	if err := r.read(); err != nil {
		return err
	}
	if len(r.segs) == 0 {
		if mustExist && r.ckpt == nil {
			// A log that was ever opened has a checkpoint, durable before Open returned.
			return &CorruptionError{File: checkpointName, End: -1, FirstOffset: -1, EndOffset: -1,
				Cause: errors.New("checkpoint and segments are missing")}
		}
		return r.create()
	}
	all := r.segs
	err := r.scan()
	if err == nil {
		err = r.finish()
	}
	for i, s := range all {
		// What was only looked at must not stay open in a cache that logs share.
		if err != nil || i >= len(r.segs) {
			s.handle.shut()
		}
	}
	return err
}

// read lists the directory and reads what is needed to know what is there.
func (r *recovery) read() error {
	l := r.l
	infos, err := l.fs.List(".")
	if err != nil {
		return err
	}
	if slices.ContainsFunc(infos, func(i vfs.Info) bool { return partOfInstall(i.Name) }) {
		if err := finishInstall(l.fs); err != nil {
			return err
		}
		if infos, err = l.fs.List("."); err != nil {
			return err
		}
	}
	if r.ckpt, err = readCheckpoint(l.fs); err != nil {
		return err
	}
	if r.ckpt != nil {
		l.ranBefore(r.ckpt.ran)
	}
	for _, info := range infos {
		if info.Dir {
			continue
		}
		base, ok := parseSegmentName(info.Name)
		if !ok {
			if strings.HasSuffix(info.Name, tmpSuffix) {
				r.remove = append(r.remove, info.Name)
			}
			if info.Name == reserveName && info.Allocated >= l.cfg.Load().ReserveBytes {
				// A crash may have left the name and not the blocks: then it is laid again.
				l.reserveBytes.Store(info.Allocated)
				l.otherBytes.Add(info.Allocated)
				l.reserved.Store(true)
			}
			if info.Name == checkpointName {
				l.checkpointBytes.Store(info.Size)
			}
			if info.Name == spareName {
				l.keepSpare(info)
			}
			continue
		}
		s, err := r.openSegment(base, info)
		if err != nil {
			return err
		}
		r.segs = append(r.segs, s)
	}
	return r.dropLeftovers()
}

// openSegment reads a segment's header. A damaged one leaves a segment with tag 0.
func (r *recovery) openSegment(base int64, info vfs.Info) (*segment, error) {
	l := r.l
	f, err := l.fs.Open(info.Name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h, err := readSegmentHeader(f)
	switch {
	case errors.Is(err, errSegmentHeader):
		h = segmentHeader{baseOffset: base}
	case err != nil:
		return nil, err
	case h.baseOffset != base:
		h = segmentHeader{baseOffset: base} // renamed or copied: not what its name says
	}
	s := newSegment(l.fs, l.files, h)
	s.end.Store(info.Size)
	s.allocated.Store(info.Allocated)
	s.maxTimestamp.Store(unknownTimestamp)
	s.settled.Store(true)
	l.ranBefore(h.born)
	return s, s.index.load()
}

// dropLeftovers takes out the segments that a compaction, a truncation from the
// start or the creation of a segment left behind.
func (r *recovery) dropLeftovers() error {
	if r.ckpt != nil {
		r.l.logID = r.ckpt.logID
	} else {
		for _, s := range r.segs {
			if s.tag != 0 {
				r.l.logID = s.logID
				break
			}
		}
	}
	// A segment whose header never reached the disk: nothing in it was ever durable,
	// or a later sync would have written the header with it.
	if n := len(r.segs); n > 0 && r.segs[n-1].tag == 0 {
		last := r.segs[n-1]
		leftover, err := neverWritten(r.l.fs, last.name, last.end.Load(), last.baseOffset, r.ckpt)
		if err != nil {
			return err
		}
		if leftover {
			r.remove = append(r.remove, last.name)
			r.segs = r.segs[:n-1]
		}
	}
	var kept []*segment
	for i, s := range r.segs {
		if len(kept) > 0 && kept[len(kept)-1].compacted() && s.baseOffset < kept[len(kept)-1].endOffset {
			r.remove = append(r.remove, s.name)
			continue
		}
		if r.ckpt != nil && i+1 < len(r.segs) && r.segs[i+1].baseOffset <= r.ckpt.start && r.segs[i+1].tag != 0 &&
			r.segs[i+1].baseIndex <= r.ckpt.boundaryIndex+1 {
			r.remove = append(r.remove, s.name)
			continue
		}
		kept = append(kept, s)
	}
	r.segs = kept
	if n := len(kept); n > 0 && r.ckpt != nil && r.ckpt.cutTag != 0 && kept[n-1].tag == r.ckpt.cutTag {
		// A truncation came so far that only this file's tail was left to go: it counts
		// as gone. While later segments are there nothing of it is: a power cut must not
		// bring them back, which a process that was killed had removed and not synced.
		if err := r.l.fs.SyncDir("."); err != nil {
			return err
		}
		kept[n-1].end.Store(min(kept[n-1].end.Load(), r.ckpt.cutPos))
	}
	for _, s := range r.segs {
		if s.tag != 0 && s.logID != r.l.logID {
			return &CorruptionError{File: s.name, End: -1, FirstOffset: s.baseOffset, EndOffset: -1,
				Cause: fmt.Errorf("it belongs to log %016x, this is log %016x", s.logID, r.l.logID)}
		}
	}
	return nil
}

// neverWritten says whether the last segment, whose header is no header, is one that
// was being made: nothing says that any of it was durable. Open removes it.
func neverWritten(fsys vfs.FS, name string, size, base int64, ckpt *checkpoint) (bool, error) {
	if ckpt != nil && ckpt.durableBase >= base {
		return false, nil
	}
	held, err := holdsFrames(fsys, name, size)
	return !held && err == nil, err
}

// holdsFrames says whether a file without a header holds a mark or a frame that
// knew frames of it to be durable. Where nothing but the header was, nothing is lost
// with the file.
func holdsFrames(fsys vfs.FS, name string, size int64) (bool, error) {
	size = min(size, MaxUnsyncedBytes)
	b := make([]byte, size)
	f, err := fsys.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return false, err
	}
	for b = b[:n]; len(b) >= frameHeaderLen; b = b[1:] {
		pos := int64(n - len(b))
		if be32(b[4:])>>16 != frameMagic {
			continue
		}
		var h frameHeader
		tag := uint64(be32(b[24:]))<<32 | uint64(be32(b[28:]))
		if _, err := parseFrame(b, pos, tag, &h); err == nil && h.durable > segmentHeaderLen {
			return true, nil
		}
	}
	return false, nil
}

// create begins an empty log.
func (r *recovery) create() error {
	l := r.l
	at := place{index: 1}
	if r.ckpt != nil {
		// All segments are gone: either all was below the log start offset, or the
		// files of a log that was not empty were taken away.
		if !(&CheckpointInfo{StartOffset: r.ckpt.start, DurableSegment: r.ckpt.durableBase, DurablePosition: r.ckpt.durablePos}).Emptied() {
			return &CorruptionError{File: segmentName(r.ckpt.durableBase, logSuffix), End: -1,
				FirstOffset: r.ckpt.start, EndOffset: -1, Cause: errors.New("the segment is missing")}
		}
		at = place{offset: r.ckpt.start, index: r.ckpt.boundaryIndex + 1, epoch: r.ckpt.boundaryEpoch}
		r.report.State = r.ckpt.state
	} else {
		l.logID = newTag()
	}
	if err := r.clean(); err != nil {
		return err
	}
	none := []*segment{}
	l.segs.Store(&none)
	if err := l.allow(4096); err != nil {
		return err
	}
	seg, err := l.createSegment(segmentHeader{
		logID: l.logID, tag: newTag(), baseOffset: at.offset, baseIndex: at.index, prevEpoch: at.epoch,
		created: l.now().UnixMilli(),
	})
	if err != nil {
		return err
	}
	r.segs = []*segment{seg}
	l.start.Store(at.offset)
	l.boundary = Boundary{Index: at.index - 1, Epoch: at.epoch}
	l.firstComplete = at.index
	r.report.Clean = true
	r.publish(segmentHeaderLen, at, noTimestamp)
	seg.earlierDurable.Store(true)
	if err := l.syncData(); err != nil {
		return err
	}
	// The log id must be known before a segment can be said to be foreign. The owner
	// has no log yet to take a snapshot of: what it wanted back it gets again.
	c := l.takeCheckpoint()
	c.state = r.report.State
	return l.writeCheckpoint(c)
}

// clean removes what the crash left over.
func (r *recovery) clean() error {
	if len(r.remove) > 0 {
		// The process before may have been killed between the rename of the checkpoint that
		// says what goes and the sync of the directory. A power cut could then bring the old
		// one back, which begins with a segment that is gone.
		if err := r.l.fs.SyncDir("."); err != nil {
			return err
		}
	}
	for _, name := range r.remove {
		if err := r.l.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if base, ok := parseSegmentName(name); ok {
			for _, suffix := range []string{indexSuffix, timeIndexSuffix} {
				if err := r.l.fs.Remove(segmentName(base, suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
		}
	}
	if len(r.remove) > 0 {
		return r.l.fs.SyncDir(".")
	}
	return nil
}

// finish decides where the log ends, and leaves it so.
func (r *recovery) finish() error {
	l := r.l
	cut, intact := r.lastSegment()
	t := &r.tails[cut]
	if end := (mark{cut, t.end}); end.below(r.highest) && !seed.Is(seed.CutAtBadChecksum) || t.end < segmentHeaderLen {
		return r.corrupt(cut, t)
	}
	if e := r.missingStart(); e != nil {
		// Nothing is cut either: what is left goes to whoever repairs it.
		r.segs = r.segs[:cut+1]
		r.damaged(e, t.end, t.at)
		return nil
	}
	clean := intact && t.marked && t.size == t.end+markLen && len(r.remove) == 0
	if err := r.clean(); err != nil {
		return err
	}
	if !clean {
		if err := r.cutEnd(cut, t); err != nil {
			return err
		}
	} else if !seed.Is(seed.OpenNoDirFsync) {
		// The process before may have been killed between a rename of the checkpoint and
		// this: what we read could be gone after the next power cut.
		if err := l.fs.SyncDir("."); err != nil {
			return err
		}
	}
	r.report.Clean = clean
	r.segs = r.segs[:cut+1]
	r.settle()
	last := r.segs[cut]
	r.publish(t.end, t.at, t.maxTimestamp)
	for _, s := range r.segs {
		s.earlierDurable.Store(true)
		s.durable.Store(s.end.Load())
	}
	if t.marked {
		l.w.marked = t.end
		l.w.runway.set(t.end + markLen)
	}
	l.mu.Lock()
	l.durable = durability{base: last.baseOffset, pos: t.end, offset: t.at.offset}
	l.mu.Unlock()
	if !clean {
		l.w.marked = 0
		l.mark()
	} else if c := r.ckpt; c != nil && c.durableBase == last.baseOffset && c.durablePos == t.end {
		l.found.Store(&asFound{segs: l.segs.Load(), pos: t.end, start: l.start.Load(), state: crc32.Checksum(c.state, castagnoli)})
	}
	created := r.ckpt == nil && cut == 0 && t.end == segmentHeaderLen
	if created || r.ckpt != nil && (r.ckpt.cutTag != 0 || r.ckpt.start > t.at.offset) {
		// What the checkpoint says of where a segment ends, or of a start that the log
		// did not reach, must not be believed once there are appends behind it. And a log
		// has one before it takes any: who made this one came no further than the segment.
		c := l.takeCheckpoint()
		c.state = r.report.State
		if err := l.writeCheckpoint(c); err != nil {
			return err
		}
	}
	if err := l.keepReserve(); err != nil {
		l.logger.Warn("no reserve; appends wait for it", "error", err)
	}
	return nil
}

// lastSegment finds the first place where the frames do not go on: the end of the
// log, if nothing says that more was durable. intact says that all segments follow
// each other.
func (r *recovery) lastSegment() (cut int, intact bool) {
	cut, intact = r.from, true
	for i := r.from; i < len(r.segs); i++ {
		cut = i
		if i+1 < len(r.segs) {
			next := r.segs[i+1]
			t := &r.tails[i]
			if next.tag == 0 || next.baseIndex != t.at.index || next.baseOffset < t.at.offset ||
				next.baseOffset != t.at.offset && !r.segs[i].compacted() {
				if t.reason == nil {
					t.reason = fmt.Errorf("log ends at index %d, the next segment begins at %d", t.at.index, next.baseIndex)
				}
				intact = false
				break
			}
		}
	}
	return cut, intact
}

// cutEnd drops what lies behind the end, writes again what lies between the
// highest durable mark and the end, and makes both durable. The page cache may
// show bytes that a failed fsync never wrote: nothing is built on them.
func (r *recovery) cutEnd(cut int, t *tail) error {
	l := r.l
	s := r.segs[cut]
	// From the last one on, each with a directory sync: a gap would look like damage.
	for i := len(r.segs) - 1; i > cut; i-- {
		r.report.CutBytes += r.segs[i].end.Load()
		if err := removeSegment(l.fs, r.segs[i]); err != nil {
			return err
		}
		if err := l.fs.SyncDir("."); err != nil {
			return err
		}
	}
	if t.reason != nil || cut+1 < len(r.segs) {
		r.report.CutFile, r.report.CutPosition = s.name, t.end
		if t.reason != nil {
			r.report.CutBytes += t.size - t.end
			r.report.CutReason = t.reason.Error()
		}
		l.logger.Warn("log cut at the first frame that is not whole", "segment", s.name, "position", t.end,
			"bytes", r.report.CutBytes, "offset", t.at.offset, "reason", r.report.CutReason)
	}
	for i := r.from; i <= cut; i++ {
		if err := r.rewrite(i); err != nil {
			return err
		}
	}
	// The name of a segment may be as unsynced as its bytes.
	return l.fs.SyncDir(".")
}

// rewrite writes the frames of segment i again that nothing says were durable.
func (r *recovery) rewrite(i int) error {
	s, t := r.segs[i], &r.tails[i]
	f, err := s.handle.acquire()
	if err != nil {
		return err
	}
	defer s.handle.release()
	from := int64(0)
	if m := r.highest; i < m.seg {
		from = t.end
	} else if i == m.seg {
		from = min(m.pos, t.end)
	}
	if from <= 1 {
		from = 0 // the header, too
	}
	if seed.Is(seed.TrustCache) {
		from = t.end
	}
	b := make([]byte, min(t.end-from, maxChunk))
	for at := from; at < t.end; {
		n := min(int64(len(b)), t.end-at)
		if _, err := f.ReadAt(b[:n], at); err != nil {
			return err
		}
		if _, err := f.WriteAt(b[:n], at); err != nil {
			return err
		}
		at += n
	}
	r.report.RewrittenBytes += t.end - from
	if err := f.Truncate(t.end); err != nil {
		return err
	}
	return f.Sync()
}

// settle takes over what the checkpoint says.
func (r *recovery) settle() {
	l := r.l
	first := r.segs[0]
	l.mu.Lock() // readers may be there: see Install
	defer l.mu.Unlock()
	l.boundary = Boundary{Index: first.baseIndex - 1, Epoch: first.prevEpoch}
	l.firstComplete = first.baseIndex
	l.start.Store(first.baseOffset)
	if r.ckpt != nil {
		l.start.Store(max(first.baseOffset, r.ckpt.start))
		l.firstComplete = max(l.firstComplete, r.ckpt.firstComplete)
		r.report.State = r.ckpt.state
	}
}

// publish makes the segments what the log consists of, ending at pos of the last.
func (r *recovery) publish(pos int64, at place, maxTimestamp int64) {
	l := r.l
	segs := r.segs
	last := segs[len(segs)-1]
	last.end.Store(pos)
	last.maxTimestamp.Store(maxTimestamp)
	last.settled.Store(false)
	for i := r.from; i < len(segs)-1 && i < len(r.tails); i++ {
		segs[i].end.Store(r.tails[i].end)
		segs[i].settled.Store(false)
		segs[i].maxTimestamp.Store(r.tails[i].maxTimestamp)
	}
	last.before = -pos
	l.segs.Store(&segs)
	l.activate(last, pos, at, maxTimestamp)
	l.next.Store(at.offset)
	if l.start.Load() > at.offset {
		l.start.Store(at.offset)
	}
	r.report.LogEnd = at.offset
	l.mu.Lock()
	l.recovered = r.report
	l.mu.Unlock()
}

// removeSegment unlinks a segment's files, the data last: without its data an
// index would be taken for one of a later segment of the same name.
func removeSegment(fsys vfs.FS, s *segment) error {
	for _, suffix := range []string{indexSuffix, timeIndexSuffix, logSuffix} {
		if err := fsys.Remove(segmentName(s.baseOffset, suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	s.handle.forget()
	return nil
}
