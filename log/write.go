package log

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/x/embedlog/internal/invariant"
	"github.com/x/embedlog/internal/seed"
	"github.com/x/embedlog/internal/vfs"
)

// Writing goes in groups. Stage… collects frames and gives them their offsets, Write
// puts the whole group behind the log's end through a mapping or with one system call,
// Sync makes it durable with one fdatasync. A group never spans two segments. Until Write returns nil nothing of the group is there; when it fails,
// all of it is gone, or the log is (ErrStorageFailed).

// ErrGroupFull says that the entry belongs into the next group: Write what is
// staged and stage it again.
var ErrGroupFull = errors.New("embedlog: group of frames is full")

// MaxGroupBytes is how much one group may hold. A single larger frame makes a
// group of its own.
const MaxGroupBytes = 4 << 20

// writerState belongs to whoever holds the writer's lock.
type writerState struct {
	seg *segment // the active one
	pos int64    // where the next group goes
	// written are the bytes of frames since open; see Log.written.
	written int64
	at      place // behind the last frame written

	group  group // staged frames
	staged place // behind the last frame staged
	marks  []stagedMark
	newest int64 // largest timestamp of the staged batches

	maxTimestamp int64 // of the active segment, and its index's view
	indexedPos   int64 // position of the newest index entry, staged ones included
	runway       *runway
	markBytes    [markLen]byte
	marked       int64 // where the end mark lies, if it lies behind the last frame
}

// stagedMark is an index entry that waits for its frame to be written.
type stagedMark struct {
	place        placeEntry
	maxTimestamp int64
}

// StageRecords stages recs as one data frame, encoded with h, at the log's end.
// h's base offset and epoch are set here; epoch must not fall along the log. The
// records are copied before it returns. Writer.
func (l *Log) StageRecords(epoch uint64, h *BatchHeader, recs []Record) error {
	w := &l.w
	if err := l.mayStage(KindData, 0, epoch); err != nil {
		return err
	}
	h.BaseOffset, h.LeaderEpoch = w.staged.offset, int32(epoch)
	at := len(w.group.own)
	own, err := AppendBatch(slices.Grow(w.group.own, frameHeaderLen)[:at+frameHeaderLen], h, recs)
	if err != nil {
		return err
	}
	if len(own)-at-frameHeaderLen > maxFrameBytes {
		return h.fail(posLength, "batch is larger than a frame may be", nil)
	}
	return l.stage(KindData, 0, epoch, own, nil)
}

// StageBatch stages an encoded record batch as one data frame at the log's end.
// Base offset and leader epoch are set in what is written, and appendTime, in
// milliseconds since 1970, as SetAppendTime does; negative leaves the records' times.
// The caller has checked the batch (CheckBatch). index is the log index that it must
// get, 0 for any.
//
// batch is not changed. Its records may be written from where they lie: until Write or
// Discard has returned nobody may change them, unless StageBatch fails. Writer.
func (l *Log) StageBatch(index, epoch uint64, batch []byte, appendTime int64) error {
	w := &l.w
	if err := l.mayStage(KindData, index, epoch); err != nil {
		return err
	}
	h, err := ParseBatchHeader(batch)
	if err != nil {
		return err
	}
	if h.Size() != len(batch) {
		return h.fail(posLength, fmt.Sprintf("length says %d bytes, there are %d", h.Size(), len(batch)), nil)
	}
	if int64(len(batch)) > maxFrameBytes {
		return h.fail(posLength, "batch is larger than a frame may be", nil)
	}
	records, lent := batch[BatchHeaderLen:], []byte(nil)
	if len(records) >= lendBytes {
		batch, lent = batch[:BatchHeaderLen], records
	}
	at := len(w.group.own) + frameHeaderLen
	own := append(slices.Grow(w.group.own, frameHeaderLen+len(batch))[:at], batch...)
	SetBatchOffset(own[at:], w.staged.offset, int32(epoch))
	if appendTime >= 0 {
		setAppendTime(own[at:at+BatchHeaderLen], records, appendTime)
	}
	return l.stage(KindData, 0, epoch, own, lent)
}

// StageEntry stages a frame that holds no offset. data is copied. Writer.
func (l *Log) StageEntry(kind Kind, index, epoch uint64, data []byte) error {
	w := &l.w
	if kind == KindData || kind == kindMark || kind < KindData || kind > KindCommand {
		return fmt.Errorf("stage: %v is not a kind of entry", kind)
	}
	if err := l.mayStage(kind, index, epoch); err != nil {
		return err
	}
	if len(data) > maxFrameBytes-otherHeadLen {
		return fmt.Errorf("stage: entry of %d bytes is larger than a frame may be", len(data))
	}
	at := len(w.group.own) + frameHeaderLen
	own := append(slices.Grow(w.group.own, frameHeaderLen+otherHeadLen+len(data))[:at+otherHeadLen], data...)
	putOtherHead(own[at:], w.staged.offset)
	return l.stage(kind, 0, epoch, own, nil)
}

// mayStage checks what can be checked before a frame is encoded.
func (l *Log) mayStage(kind Kind, index, epoch uint64) error {
	if err := l.Err(); err != nil {
		return err
	}
	w := &l.w
	if w.group.size == 0 {
		w.staged, w.newest = w.at, w.maxTimestamp
	} else if w.group.size >= MaxGroupBytes {
		return ErrGroupFull
	}
	if index != 0 && index != w.staged.index {
		return fmt.Errorf("stage: log index %d, the next one is %d", index, w.staged.index)
	}
	if epoch < w.staged.epoch || epoch > math.MaxInt32 && kind == KindData {
		return fmt.Errorf("stage: epoch %d behind epoch %d", epoch, w.staged.epoch)
	}
	return nil
}

// stage finishes the frame that own holds behind what is staged, and whose payload ends
// with what is lent. After an error it is not part of the group.
func (l *Log) stage(kind Kind, span uint32, epoch uint64, own, lent []byte) error {
	w := &l.w
	frame := own[len(w.group.own):]
	payload := frame[frameHeaderLen:]
	length := len(payload) + len(lent)
	start, end := w.group.size, w.group.size+frameHeaderLen+length
	offsets := int64(0)
	if kind == KindData {
		offsets = int64(be32(payload[posLastOffsetDelta:])) + 1
	}
	if offsets > math.MaxInt64-w.staged.offset {
		return fmt.Errorf("stage: %d records at offset %d: offsets end at 2^63-1", offsets, w.staged.offset)
	}
	if l.wantsRoll(start, int64(end), offsets) {
		if start > 0 {
			w.group.own = own[:len(w.group.own)]
			return ErrGroupFull
		}
		if err := l.roll(); err != nil {
			return err
		}
		w.staged, w.newest = w.at, noTimestamp
	}
	pos := w.pos + int64(start)
	if w.pos+int64(end) > maxPosition {
		// Only entries without offsets come that far: they cannot begin a segment.
		return fmt.Errorf("stage: %s is full of entries without offsets", w.seg.name)
	}
	h := frameHeader{
		kind: kind, length: length, pos: uint32(pos), durable: w.seg.durableMark(), span: span,
		tag: w.seg.tag, index: w.staged.index + uint64(span), epoch: epoch,
	}
	putFrame(frame, &h)
	if kind == KindData {
		if ts := batchMaxTimestamp(payload); ts > w.newest {
			w.newest = ts
		}
	}
	if pos-w.indexedPos >= int64(l.cfg.Load().IndexIntervalBytes) || w.indexedPos == 0 {
		w.indexedPos = pos
		w.marks = append(w.marks, stagedMark{placeEntry{w.staged.offset, w.staged.index, pos}, w.newest})
	}
	w.staged = place{offset: w.staged.offset + offsets, index: h.index + 1, epoch: epoch}
	w.group.add(own, lent)
	return nil
}

func be32(b []byte) uint32 {
	return uint32(b[3]) | uint32(b[2])<<8 | uint32(b[1])<<16 | uint32(b[0])<<24
}

// wantsRoll says whether the group, with a frame that has this many offsets, has
// to begin a new segment. at is 0 for the group's first frame: only then is the
// clock asked, once for each group.
func (l *Log) wantsRoll(at int, groupLen, offsets int64) bool {
	w := &l.w
	if w.at.offset == w.seg.baseOffset && (at == 0 || w.staged.offset == w.seg.baseOffset) {
		// Nothing in it yet that has an offset: a new one would have the same name.
		return false
	}
	cfg := l.cfg.Load()
	end := w.pos + groupLen
	return end > cfg.SegmentBytes ||
		w.staged.offset+offsets-w.seg.baseOffset > math.MaxInt32 ||
		w.staged.index-w.seg.baseIndex >= math.MaxInt32 ||
		at == 0 && l.expired(cfg)
}

// StagedOffset is the offset that the next staged record gets. Writer.
func (l *Log) StagedOffset() int64 {
	if l.w.group.size == 0 {
		return l.w.at.offset
	}
	return l.w.staged.offset
}

// StagedIndex is the log index that the next staged frame gets. Writer.
func (l *Log) StagedIndex() uint64 {
	if l.w.group.size == 0 {
		return l.w.at.index
	}
	return l.w.staged.index
}

// StagedBytes is the size of the group so far. Writer.
func (l *Log) StagedBytes() int { return l.w.group.size }

// Lends says that the group has records that lie with who staged them: see StageBatch.
// Writer.
func (l *Log) Lends() bool { return len(l.w.group.lent) > 0 }

// Discard takes back what was staged and not written. Writer.
func (l *Log) Discard() {
	w := &l.w
	if w.group.size == 0 {
		return
	}
	if len(w.marks) > 0 {
		w.indexedPos = w.seg.index.newest()
	}
	w.group.reset()
	w.marks = w.marks[:0]
}

// Write puts the staged group behind the log's end, where readers see it at once.
// On an error that does not match ErrStorageFailed nothing of the group is there
// and the log can go on. Writer.
func (l *Log) Write() error {
	w := &l.w
	if w.group.size == 0 {
		return nil
	}
	n := int64(w.group.size)
	err := l.Err()
	if err == nil {
		err = l.makeRoom(n)
	}
	if err == nil {
		if l.found.Load() != nil {
			l.found.Store(nil) // a group that does not arrive may take the end mark with it
		}
		err = l.put()
	}
	if err != nil {
		l.Discard()
		if w.marked == 0 {
			l.remark()
		}
		return err
	}
	invariant.True(w.staged.offset >= w.at.offset && w.staged.index > w.at.index, "log goes back: %+v to %+v", w.at, w.staged)
	w.pos += n
	w.written += n
	w.at = w.staged
	if w.newest > w.maxTimestamp {
		w.maxTimestamp = w.newest
		w.seg.maxTimestamp.Store(w.newest)
	}
	if len(w.marks) > 0 {
		for _, m := range w.marks {
			w.seg.index.add(m.place, m.maxTimestamp)
		}
		w.marks = w.marks[:0]
	}
	w.group.reset()
	w.seg.end.Store(w.pos) // from here on readers look at the bytes
	l.next.Store(w.at.offset)
	l.bg.wrote()
	return nil
}

// put stores the group at the end, by the way that is fastest for the level.
func (l *Log) put() error {
	w := &l.w
	r := w.runway
	cfg := l.cfg.Load()
	size := w.group.size
	need := w.pos + int64(size)
	if cfg.Level != Durable && size <= maxMappedGroup && r.cover(w.pos, need) {
		err := r.reach(need, cfg.SegmentBytes)
		if err == nil {
			return l.store(need)
		}
		if !errors.Is(err, ErrNoSpace) {
			return fmt.Errorf("append to %s: %w", w.seg.name, err)
		}
		// There is no room for zeros. There may be for the group, which is written then.
	}
	if need > r.ready.Load() && size <= maxZeroedGroup && !cfg.NoZeroing {
		// A larger group would only be written twice. On a full disk, or at the end of
		// the segment, the write itself finds out how much room there is.
		if to := min(need+r.amount.Load(), max(cfg.SegmentBytes, need)); to > need && r.reach(to, to) == nil {
			r.amount.Store(min(r.amount.Load(), maxZeroed))
		}
	}
	f, err := w.seg.handle.acquire()
	if err != nil {
		return fmt.Errorf("append to %s: %w", w.seg.name, err)
	}
	defer w.seg.handle.release()
	if need <= r.ready.Load() {
		n, err := f.WritevAt(w.group.pieces(), w.pos)
		if err == nil {
			return nil
		}
		r.enter()
		defer r.leave(w.pos)
		return l.undoWrite(f, n, err)
	}
	ready := r.enter()
	defer func() { r.leave(ready) }()
	if need > ready {
		if err := l.allow(need - ready); err != nil {
			return fmt.Errorf("append to %s: %w", w.seg.name, err)
		}
	}
	if n, err := f.WritevAt(w.group.pieces(), w.pos); err != nil {
		ready = w.pos
		return l.undoWrite(f, n, err)
	}
	ready = max(ready, need)
	return nil
}

// store puts the group through the window, which covers it up to need.
func (l *Log) store(need int64) error {
	w, r := &l.w, l.w.runway
	at := int(w.pos - r.window.at)
	for _, p := range w.group.pieces() {
		if err := r.window.Store(at, p); err != nil {
			// Somebody truncated the file below us, or the disk is gone. How much of
			// the group arrived is unknown.
			return l.fail("append to "+w.seg.name, err)
		}
		at += len(p)
	}
	if r.ready.Load()-need < r.amount.Load()/2 {
		r.more(need, max(l.cfg.Load().SegmentBytes, need))
	}
	return nil
}

// maxZeroedGroup is the largest write that zeros are laid ahead of, maxZeroed how
// far ahead: they are synced together with the group that comes next. What a file's
// growth adds to a sync is shared by more bytes the larger the group.
const (
	maxZeroedGroup = 32 << 10
	maxZeroed      = 1 << 20
)

// undoWrite takes a write back that stopped after n bytes, so that its frames
// cannot come to life after a crash: the caller says that nothing was written.
func (l *Log) undoWrite(f vfs.File, n int, cause error) error {
	w := &l.w
	if seed.Is(seed.FailedWriteStays) {
		return cause
	}
	w.marked = 0 // it goes with the rest
	if err := f.Truncate(w.pos); err != nil {
		return l.fail("append to "+w.seg.name, errors.Join(cause, err))
	}
	if n > 0 || !errors.Is(cause, ErrNoSpace) {
		// What arrived may hold whole frames, and the disk may have them already.
		if err := f.Sync(); err != nil {
			return l.fail("append to "+w.seg.name, errors.Join(cause, err))
		}
	}
	return fmt.Errorf("append to %s: %w", w.seg.name, cause)
}

// expired says whether the active segment is older than it may become.
func (l *Log) expired(cfg *Config) bool {
	if cfg.SegmentAge < 0 {
		return false
	}
	return l.bg.now()-l.w.seg.created >= cfg.SegmentAge.Milliseconds()
}
