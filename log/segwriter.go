package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"

	"github.com/x/embedlog/internal/invariant"
	"github.com/x/embedlog/internal/vfs"
)

// segmentWriter writes a segment that will take the place of others: its data and
// indexes into files beside theirs, which open removes as long as they are called
// .tmp. Whoever has one ends it with commit or abort.
//
// Frames may be left out: the next one stands for their indexes. Whatever replaces
// a range has to end with its last index, so the last entry is always written.
type segmentWriter struct {
	l   *Log
	seg *segment // as it will be
	f   vfs.File

	buf          []byte // frames not written yet
	pos          int64  // where buf goes
	at           place  // behind the last frame
	maxTimestamp int64
	every        int64 // distance of index entries
	indexed      int64 // position of the last one, 0 for none
	counted      int64 // bytes added to l.otherBytes
	committed    bool
}

// segmentWriterBuffer is how much is written at once.
const segmentWriterBuffer = 1 << 20

// maxPosition is the largest position that a frame's header can hold.
const maxPosition = math.MaxUint32

// writeSegment begins a segment beside the ones that it will replace.
func (l *Log) writeSegment(h segmentHeader) (*segmentWriter, error) {
	w := &segmentWriter{
		l: l, seg: newSegment(l.fs, l.files, h), maxTimestamp: noTimestamp,
		at:    place{offset: h.baseOffset, index: h.baseIndex, epoch: h.prevEpoch},
		every: int64(l.cfg.Load().IndexIntervalBytes),
		buf:   h.encode(),
	}
	w.removeTemporary() // of one that was not finished
	f, err := l.fs.Create(w.temporary(logSuffix))
	if err != nil {
		return nil, err
	}
	w.f = f
	return w, nil
}

func (w *segmentWriter) temporary(suffix string) string {
	return segmentName(w.seg.baseOffset, suffix) + tmpSuffix
}

// size is how long the file is so far.
func (w *segmentWriter) size() int64 { return w.pos + int64(len(w.buf)) }

// add appends an entry. payload is as it lies in a frame: a record batch, or the
// head of another kind with what it carries. index is its own log index; it stands
// for all before it that were not added.
func (w *segmentWriter) add(kind Kind, index, epoch uint64, payload []byte) error {
	invariant.True(index >= w.at.index && epoch >= w.at.epoch, "segment writer goes back: index %d epoch %d at %+v", index, epoch, w.at)
	span, pos := index-w.at.index, w.size()
	if span > math.MaxUint32 || pos+frameHeaderLen+int64(len(payload)) > maxPosition {
		return fmt.Errorf("write %s: %d bytes with %d left out entries do not fit a segment", w.seg.name, pos, span)
	}
	if len(payload) > maxFrameBytes {
		return fmt.Errorf("write %s: %d bytes are more than a frame may hold", w.seg.name, len(payload))
	}
	if len(w.buf) > 0 && len(w.buf)+frameHeaderLen+len(payload) > segmentWriterBuffer {
		if err := w.flush(); err != nil {
			return err
		}
	}
	at := len(w.buf)
	w.buf = append(slices.Grow(w.buf, frameHeaderLen+len(payload))[:at+frameHeaderLen], payload...)
	h := frameHeader{
		kind: kind, length: len(payload), pos: uint32(pos), span: uint32(span), tag: w.seg.tag, index: index, epoch: epoch,
		// The file gets its name when it is synced, and all before it was: nobody sees
		// this frame before that is true.
		durable: uint32(pos),
	}
	putFrame(w.buf[at:], &h)
	p := w.at
	if err := p.follows(&h, payload, w.seg.compacted()); err != nil {
		w.buf = w.buf[:at]
		return fmt.Errorf("write %s: %w", w.seg.name, err)
	}
	if kind == KindData {
		w.maxTimestamp = max(w.maxTimestamp, batchMaxTimestamp(payload))
	}
	if w.indexed == 0 || pos-w.indexed >= w.every {
		w.indexed = pos
		w.seg.index.add(placeEntry{payloadOffset(payload), h.firstIndex(), pos}, w.maxTimestamp)
	}
	w.at = p
	return nil
}

func (w *segmentWriter) flush() error {
	n := int64(len(w.buf))
	if err := w.l.allow(n); err != nil {
		return err
	}
	if _, err := w.f.WriteAt(w.buf, w.pos); err != nil {
		return err
	}
	w.count(n)
	w.pos += n
	w.buf = w.buf[:0]
	return nil
}

func (w *segmentWriter) count(n int64) {
	w.counted += n
	w.l.otherBytes.Add(n)
}

// finish makes the data and the indexes durable under their temporary names.
func (w *segmentWriter) finish() error {
	if err := w.flush(); err != nil {
		return err
	}
	w.buf = nil
	if err := w.f.Sync(); err != nil {
		return err
	}
	s := w.seg
	s.end.Store(w.pos)
	s.durable.Store(w.pos)
	s.earlierDurable.Store(true)
	s.settled.Store(true)
	s.maxTimestamp.Store(w.maxTimestamp)
	s.allocated.Store(w.pos)
	if info, err := w.f.Info(); err == nil {
		s.allocated.Store(max(info.Allocated, w.pos))
	}
	places, times := s.index.encode()
	w.count(int64(len(places) + len(times)))
	return errors.Join(writeNew(w.l.fs, w.temporary(indexSuffix), places), writeNew(w.l.fs, w.temporary(timeIndexSuffix), times))
}

// writeNew makes a file with b in it, durable but for its name.
func writeNew(fsys vfs.FS, name string, b []byte) error {
	f, err := fsys.Create(name)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// encode returns what the index files hold when all entries are still in memory.
func (x *sparseIndex) encode() (places, times []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	places = make([]byte, len(x.places.memory)*indexEntryLen)
	for i, e := range x.places.memory {
		x.putPlace(places[i*indexEntryLen:], e)
	}
	times = make([]byte, len(x.times.memory)*indexEntryLen)
	for i, e := range x.times.memory {
		x.putTime(times[i*indexEntryLen:], e)
	}
	return places, times
}

// written says that the entries in memory lie in the files.
func (x *sparseIndex) written() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.places.inFile, x.places.memory = len(x.places.memory), nil
	x.times.inFile, x.times.memory = len(x.times.memory), nil
}

// rename gives the finished data file the name of the first segment that it
// replaces. Their indexes go first: an index of other data would have to be
// recognized for ever, none at all is only slow. When rename returns nil the new
// segment is there for good; what it replaces may still be there, too, and the end
// offset in the header tells open so.
func (w *segmentWriter) rename() error {
	fsys := w.l.fs
	for _, suffix := range []string{indexSuffix, timeIndexSuffix} {
		if err := fsys.Remove(segmentName(w.seg.baseOffset, suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := fsys.SyncDir("."); err != nil {
		return err
	}
	if err := fsys.Rename(w.temporary(logSuffix), w.seg.name); err != nil {
		return err
	}
	w.committed = true
	return fsys.SyncDir(".")
}

// renameIndexes is the end of rename. A failure costs only the index.
func (w *segmentWriter) renameIndexes() error {
	for _, suffix := range []string{timeIndexSuffix, indexSuffix} { // as flush does: what is found by place relies on the times
		if err := w.l.fs.Rename(w.temporary(suffix), segmentName(w.seg.baseOffset, suffix)); err != nil {
			return err
		}
	}
	w.seg.index.written()
	return nil
}

// abort removes what was written, unless it was committed.
func (w *segmentWriter) abort() {
	w.l.otherBytes.Add(-w.counted)
	w.counted = 0
	if w.f != nil {
		w.f.Close() // nothing in it is wanted
		w.f = nil
	}
	if !w.committed {
		w.removeTemporary()
	}
}

func (w *segmentWriter) removeTemporary() {
	for _, suffix := range []string{logSuffix, indexSuffix, timeIndexSuffix} {
		w.l.fs.Remove(w.temporary(suffix)) // the next open does, if we cannot
	}
}

// emptyBatch is a batch without records that takes up the offsets [base, end): it
// stands where records are gone.
func emptyBatch(base, end int64, epoch uint64) []byte {
	h := BatchHeader{
		BaseOffset: base, Length: BatchHeaderLen - batchOverhead, LeaderEpoch: int32(min(epoch, math.MaxInt32)),
		LastOffsetDelta: int32(end - base - 1), BaseTimestamp: noTimestamp, MaxTimestamp: noTimestamp,
		ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1,
	}
	b := make([]byte, BatchHeaderLen)
	h.Put(b)
	binary.BigEndian.PutUint32(b[posCRC:], crc32c(b[posAttributes:]))
	return b
}

// swap makes the finished segment take the place of old in the log that is open.
// ok is false when retention or truncation was there first; then nothing changed.
//
// Readers go on with the old files, which they have open, until they see the new
// list; from then on they look their place up again.
func (l *Log) swap(w *segmentWriter, old []*segment) (ok bool, err error) {
	l.Lock()
	defer l.Unlock()
	if err := l.Err(); err != nil {
		return false, err
	}
	if l.held.Load() > 0 { // whoever captures the log does it under this lock
		return false, ErrHeld
	}
	l.bg.quiesce() // a job could be about to write the index of one that goes
	segs := *l.segs.Load()
	i := slices.Index(segs, old[0])
	if i < 0 || i+len(old) >= len(segs) || !slices.Equal(segs[i:i+len(old)], old) {
		return false, nil
	}

	if err := l.settleState(); err != nil {
		return false, err
	}
	// From the rename on, entries below the end cannot be read singly. Whoever opens
	// the log must know that before it is so.
	c := l.takeCheckpoint()
	c.firstComplete = max(c.firstComplete, w.seg.endIndex)
	if err := l.writeCheckpoint(c); err != nil {
		return false, err
	}
	l.mu.Lock()
	l.firstComplete = c.firstComplete
	l.mu.Unlock()

	// Between the rename and the new list a reader must find the old file open.
	for n, s := range old {
		if _, err := s.handle.acquire(); err != nil {
			for _, s := range old[:n] {
				s.handle.release()
			}
			return false, err
		}
	}
	defer func() {
		for _, s := range old {
			if ok {
				s.handle.forget()
			}
			s.handle.release()
		}
	}()
	renamed := w.rename()
	if renamed != nil && !w.committed {
		return false, renamed
	}
	w.seg.handle.adopt(w.f)
	w.seg.handle.release()
	w.f = nil
	list := slices.Concat(segs[:i], []*segment{w.seg}, segs[i+len(old):])
	l.segs.Store(&list)
	if renamed != nil {
		// Which of the files has the name after a power cut is unknown. Either will do,
		// as long as nothing that goes with the old one is taken away.
		return true, l.fail("replace "+w.seg.name, renamed)
	}
	for _, s := range old[1:] {
		if err := removeSegment(l.fs, s); err != nil {
			l.logger.Warn("compacted segment not removed; the next open will", "segment", s.name, "error", err)
		}
	}
	if err := w.renameIndexes(); err != nil {
		l.logger.Warn("index of a compacted segment is missing", "segment", w.seg.name, "error", err)
	}
	l.namesDirty.Store(true)
	return true, nil
}
