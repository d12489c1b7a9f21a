package log

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/x/embedlog/compress"
)

// Compaction keeps the last record of each key. It works in rounds:
//
//	offset  0        cleaned          X          Upto       log end
//	        |-- clean --|---- dirty ---|-- dirty --|-- not touched --|
//	                    |  last offset |
//	                    |  of each key | as much as fits in memory
//	        |<-------- rewritten ----->|
//
// First the dirty part is read into a map from key to last offset. Then all
// segments below X are rewritten, the oldest first, without the records that the
// map knows a later one of. Neighbouring segments that have become small become
// one. A new segment is written beside the old ones and takes their place by one
// rename; each segment says in its header how far it was cleaned, and the first
// that was not cleaned to its end is where the next round starts, also after a
// crash.
//
// A tombstone has to outlive the records before it: the first round that has seen
// it among the dirty ones gives its batch a delete horizon, and a later round, once
// that is past, drops it. Older segments are rewritten first, so when a tombstone
// gets its horizon nothing older of its key is left. Transaction markers go the
// same way once no batch of their transaction is left.
//
// The long work is done without the writer's lock. See swap for how readers go on.

// CompactPolicy says what compaction may touch and what only the owner knows.
type CompactPolicy struct {
	// Upto is the first offset that may not be cleaned: the owner's last stable
	// offset, or lower. Only whole, closed, durable segments below it are touched.
	Upto int64
	// KeepIndex is the log index of the first entry that may not be touched, whatever
	// its offsets: TruncateFrom cannot take back what was joined. Zero is none.
	KeepIndex uint64
	// Now is the wall clock; zero is Options.Now.
	Now time.Time
	// MinAge keeps segments dirty that hold a younger timestamp. (min.compaction.lag.ms)
	MinAge time.Duration
	// DeleteRetention is how long tombstones and transaction markers stay after the
	// round that first saw them. Zero means 24 h, negative none. (delete.retention.ms)
	DeleteRetention time.Duration
	// Batch judges a batch below Upto; nil keeps all. It must give the same answer
	// each time. It may be called from the goroutine of Compact only, without any lock
	// of the log; batch is good until it returns.
	Batch func(h *BatchHeader, batch []byte) BatchVerdict
	// Recompress encodes records with Codec and CodecLevel; otherwise each batch
	// keeps its codec.
	Recompress bool
	Codec      compress.Codec
	CodecLevel int
	// MergeBytes is up to what size neighbouring batches become one, uncompressed.
	// Batches with a producer id stay apart, for their sequences. Zero means 64 KiB,
	// negative is off.
	MergeBytes int
	// SegmentBytes bounds the segments that small ones are joined to. Zero means
	// Config.SegmentBytes.
	SegmentBytes int64
	// MapBytes bounds the memory for keys. Zero means 16 MiB.
	MapBytes int
	// Again cleans although nothing is dirty, for the sake of tombstones whose
	// horizon is past: see CompactReport.NextHorizon.
	Again bool
}

// BatchVerdict is what the owner knows of a batch.
type BatchVerdict struct {
	// Aborted says that the transaction it belongs to was aborted: no record counts
	// and none stays.
	Aborted bool
	// Pinned keeps the batch, empty if need be: it is the last one of a producer that
	// may go on, whose epoch and sequence are read from it.
	Pinned bool
}

// CompactReport says what a compaction did. After an error it holds what was done
// before.
type CompactReport struct {
	CleanedOffset               int64 // all below was cleaned
	Rounds                      int
	SegmentsBefore, SegmentsNow int   // of those rewritten
	BytesBefore, BytesNow       int64 // of those rewritten
	RecordsRead, RecordsKept    int64
	BadBatches                  int64 // that do not parse, and were kept as they are
	// NextHorizon is when the next tombstone or marker may go, in milliseconds; 0 is
	// never. It covers what this compaction rewrote.
	NextHorizon int64
}

// CompactionState says how worthwhile a compaction would be.
type CompactionState struct {
	CleanedOffset int64 // all below was cleaned
	CleanBytes    int64 // of closed segments that were cleaned
	DirtyBytes    int64 // of closed segments below upto that were not
	// OldestDirty is the timestamp of the first batch that is dirty; -1 is none.
	OldestDirty int64
}

func (p CompactPolicy) withDefaults(l *Log) CompactPolicy {
	if p.Now.IsZero() {
		p.Now = l.now()
	}
	switch {
	case p.DeleteRetention == 0:
		p.DeleteRetention = 24 * time.Hour
	case p.DeleteRetention < 0:
		p.DeleteRetention = 0
	}
	if p.Batch == nil {
		p.Batch = func(*BatchHeader, []byte) BatchVerdict { return BatchVerdict{} }
	}
	if p.MergeBytes == 0 {
		p.MergeBytes = 64 << 10
	}
	if p.SegmentBytes == 0 {
		p.SegmentBytes = l.cfg.Load().SegmentBytes
	}
	if p.MapBytes == 0 {
		p.MapBytes = 16 << 20
	}
	return p
}

// cleanedTo is the offset below which segs were cleaned.
func cleanedTo(segs []*segment) int64 {
	for i, s := range segs {
		end := int64(math.MaxInt64)
		if i+1 < len(segs) {
			end = segs[i+1].baseOffset
		}
		if !s.compacted() || s.cleaned < end {
			return max(s.baseOffset, s.cleaned)
		}
	}
	return 0
}

// cleanable counts the segments at the front that compaction may touch: below the
// offset upto, and below the log index keep unless that is zero.
func (l *Log) cleanable(segs []*segment, upto int64, keep uint64) (n int) {
	l.mu.Lock()
	durable := l.durable.base // all segments before this one are
	l.mu.Unlock()
	for n+1 < len(segs) && segs[n+1].baseOffset <= upto && segs[n+1].begins(keep) && segs[n].baseOffset < durable && segs[n].tag != 0 {
		n++
	}
	return n
}

// CompactionState looks at how much is dirty below upto.
func (l *Log) CompactionState(upto int64) (CompactionState, error) {
	segs := *l.segs.Load()
	st := CompactionState{CleanedOffset: cleanedTo(segs), OldestDirty: noTimestamp}
	for i, s := range segs[:l.cleanable(segs, upto, 0)] {
		if segs[i+1].baseOffset <= st.CleanedOffset {
			st.CleanBytes += s.end.Load()
		} else {
			st.DirtyBytes += s.end.Load()
		}
	}
	if st.DirtyBytes == 0 {
		return st, nil
	}
	r, err := l.ReadFrom(max(st.CleanedOffset, l.start.Load()))
	if err != nil {
		return st, err
	}
	r.Reuse()
	for {
		f, err := r.Next()
		if err == io.EOF || err == nil && f.Offset >= upto {
			return st, nil
		}
		if err != nil {
			return st, err
		}
		if f.Kind == KindData {
			st.OldestDirty = batchMaxTimestamp(f.Payload)
			return st, nil
		}
	}
}

// Compact cleans the log as far as the policy and its segments allow. It takes the
// writer's lock for moments only, so the caller must not hold it. Cancelling ctx
// stops it between two frames and leaves no trace but the segments already
// replaced. Damage is a *CorruptionError, and what lies in its segment stays. While
// somebody copies the log it ends with ErrHeld.
func (l *Log) Compact(ctx context.Context, p CompactPolicy) (report CompactReport, err error) {
	l.maint.Lock()
	defer l.maint.Unlock()
	if err := l.Err(); err != nil {
		return report, fmt.Errorf("compact: %w", err)
	}
	if l.held.Load() > 0 {
		return report, fmt.Errorf("compact: %w", ErrHeld)
	}
	p = p.withDefaults(l)
	if err := l.reindex(ctx, l.cleanable(*l.segs.Load(), p.Upto, p.KeepIndex)); err != nil {
		return report, fmt.Errorf("compact: %w", err)
	}
	again := p.Again
	keys := newKeyMap(p.MapBytes)
	for {
		more, err := l.compactRound(ctx, &p, keys, &report, again)
		report.CleanedOffset = cleanedTo(*l.segs.Load())
		if err != nil {
			return report, fmt.Errorf("compact: %w", err)
		}
		if !more {
			return report, nil
		}
		again = false
	}
}

// compactRound is one pass. more says that the map did not hold all keys.
func (l *Log) compactRound(ctx context.Context, p *CompactPolicy, keys *keyMap, report *CompactReport, again bool) (more bool, err error) {
	segs := *l.segs.Load()
	n := l.cleanable(segs, p.Upto, p.KeepIndex)
	cleaned := cleanedTo(segs)
	youngest := p.Now.UnixMilli() - p.MinAge.Milliseconds()
	for i := range n {
		if segs[i+1].baseOffset <= cleaned || p.MinAge <= 0 {
			continue
		}
		if newest, err := l.segmentMaxTimestamp(i, segs); err != nil {
			return false, err
		} else if newest > youngest {
			n = i
			break
		}
	}
	if n == 0 || segs[n].baseOffset <= cleaned && !again {
		return false, nil
	}
	report.Rounds++
	report.NextHorizon = 0
	c := &cleaner{
		l: l, p: p, ctx: ctx, keys: keys, report: report, now: p.Now.UnixMilli(),
		upto: segs[n].baseOffset, open: make(map[int64]bool),
	}
	keys.clear()
	if err := c.readKeys(segs[:n+1], max(cleaned, l.start.Load())); err != nil {
		return false, err
	}
	for n > 0 && segs[n-1].baseOffset >= c.upto {
		n--
	}
	for from := 0; from < n; {
		to := groupEnd(segs[:n+1], from, p.SegmentBytes)
		ok, err := c.rewrite(segs[from:to], segs[to])
		if err != nil || !ok {
			return false, err
		}
		from = to
	}
	return c.full, nil
}

// groupEnd says up to where segments become one, beginning with segs[from]. The
// last of segs is only there to say where the one before it ends.
func groupEnd(segs []*segment, from int, limit int64) (to int) {
	first := segs[from]
	size := first.end.Load()
	for to = from + 1; to+1 < len(segs); to++ {
		size += segs[to].end.Load() - segmentHeaderLen
		next := segs[to+1]
		if size > limit || next.baseOffset-first.baseOffset > math.MaxInt32 || next.baseIndex-first.baseIndex > math.MaxInt32 {
			break
		}
	}
	return to
}

// cleaner is one round.
type cleaner struct {
	l      *Log
	p      *CompactPolicy
	ctx    context.Context
	report *CompactReport
	keys   *keyMap
	now    int64
	upto   int64 // the map knows all keys below
	full   bool  // and no more, for want of room
	// open holds the producers of which a transactional batch was read and no marker yet.
	open map[int64]bool

	records RecordReader
	out     *segmentWriter
	end     int64   // next offset behind the group that is rewritten
	limit   int64   // size at which recompressing stops
	pending pending // batches that will become one
}

// eachFrame walks the frames of a segment that ends at the log index end. Payloads
// stay valid as long as they are held.
func (c *cleaner) eachFrame(s *segment, end uint64, f func(h *frameHeader, payload []byte) error) error {
	cur := cursor{seg: s, pos: segmentHeaderLen, limit: s.end.Load()}
	at := place{s.baseOffset, s.baseIndex, s.prevEpoch}
	for at.index < end {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if c.l.closed.Load() {
			return ErrClosed
		}
		if c.l.held.Load() > 0 {
			return ErrHeld
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
			return &CorruptionError{File: s.name, Position: from, End: -1, FirstOffset: was.offset, EndOffset: -1, Cause: err}
		}
		if err := f(&h, frame[frameHeaderLen:]); err != nil {
			return err
		}
	}
	return nil
}

// errFull stops the reading of keys.
var errFull = errors.New("the map of keys is full")

// readKeys fills the map from offset from on. The last of segs is only there to
// say where the one before it ends.
func (c *cleaner) readKeys(segs []*segment, from int64) error {
	for i, s := range segs[:len(segs)-1] {
		if segs[i+1].baseOffset <= from {
			continue
		}
		err := c.eachFrame(s, segs[i+1].baseIndex, func(h *frameHeader, payload []byte) error {
			if h.kind != KindData {
				return nil
			}
			return c.readBatchKeys(payload, from)
		})
		if err == errFull {
			c.full = true
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *cleaner) readBatchKeys(batch []byte, from int64) error {
	h, err := ParseBatchHeader(batch)
	if err != nil || h.LastOffset() < from || h.Attributes.Has(Control) || h.Count == 0 {
		return nil // what does not parse is kept as it is
	}
	if c.p.Batch(&h, batch).Aborted || c.check(batch) != nil {
		return nil
	}
	if err := c.records.Reset(batch, maxDecompressed); err != nil {
		return nil
	}
	for c.records.Next() {
		rec := c.records.Record()
		if rec.Key == nil || rec.Offset < from {
			continue
		}
		if !c.keys.put(rec.Key, rec.Offset) {
			c.upto = rec.Offset
			return errFull
		}
	}
	return nil
}

// check says whether a stored batch is what it claims. One that is not keeps all
// its bytes and removes nothing: half of it would otherwise count.
func (c *cleaner) check(batch []byte) error {
	_, err := CheckBatch(batch, Limits{MaxBatchBytes: -1, MaxDecompressedBytes: maxDecompressed, AllowControl: true, Stored: true})
	return err
}

// rewrite replaces the segments of a group by one. ok is false when they were
// deleted meanwhile.
func (c *cleaner) rewrite(group []*segment, next *segment) (ok bool, err error) {
	first := group[0]
	h := segmentHeader{
		flags: flagCompacted, logID: first.logID, tag: newTag(), baseOffset: first.baseOffset, baseIndex: first.baseIndex,
		prevEpoch: first.prevEpoch, created: first.created, born: first.born,
		endOffset: next.baseOffset, endIndex: next.baseIndex, cleaned: min(c.upto, next.baseOffset),
	}
	before := int64(0)
	for _, s := range group {
		before += s.end.Load()
	}
	c.end, c.limit = next.baseOffset, max(before, c.p.SegmentBytes)
	if c.out, err = c.l.writeSegment(h); err != nil {
		return false, err
	}
	defer c.out.abort()
	for i, s := range group {
		end := next.baseIndex
		if i+1 < len(group) {
			end = group[i+1].baseIndex
		}
		if err := c.eachFrame(s, end, func(h *frameHeader, payload []byte) error {
			return c.frame(h, payload, h.index+1 == next.baseIndex)
		}); err != nil {
			return false, err
		}
	}
	if err := c.flush(); err != nil {
		return false, err
	}
	if c.out.at.index != next.baseIndex || c.out.at.offset != next.baseOffset {
		return false, fmt.Errorf("%s would end at %+v, the next segment begins at offset %d, log index %d", first.name, c.out.at, next.baseOffset, next.baseIndex)
	}
	if err := c.out.finish(); err != nil {
		return false, err
	}
	if err := c.ctx.Err(); err != nil {
		return false, err
	}
	ok, err = c.l.swap(c.out, group)
	if ok {
		c.report.SegmentsBefore += len(group)
		c.report.SegmentsNow++
		c.report.BytesBefore += before
		c.report.BytesNow += c.out.seg.end.Load()
	}
	return ok, err
}

// frame takes over what stays of a frame. last says that the group ends with it.
func (c *cleaner) frame(h *frameHeader, payload []byte, last bool) error {
	if h.kind != KindData {
		// A noop or barrier says nothing to anyone once it is behind a snapshot.
		if h.kind != KindConfiguration && !last {
			return nil
		}
		if err := c.flush(); err != nil {
			return err
		}
		return c.out.add(h.kind, h.index, h.epoch, payload)
	}
	bh, err := ParseBatchHeader(payload)
	if err == nil {
		err = c.check(payload)
	}
	if err != nil {
		c.report.BadBatches++
		return c.keep(h, payload)
	}
	verdict := c.p.Batch(&bh, payload)
	// The last offsets of the group must be taken up by something: the next segment
	// goes on there.
	must := verdict.Pinned || bh.LastOffset()+1 == c.end
	if bh.Attributes.Has(Control) {
		return c.marker(h, &bh, payload, must)
	}
	if bh.Attributes.Has(Transactional) {
		c.open[bh.ProducerID] = true
	}
	return c.batch(h, &bh, payload, verdict.Aborted, must)
}

// keep takes a batch over as it is.
func (c *cleaner) keep(h *frameHeader, batch []byte) error {
	if err := c.flush(); err != nil {
		return err
	}
	return c.out.add(KindData, h.index, h.epoch, batch)
}

// marker decides on a control batch.
func (c *cleaner) marker(h *frameHeader, bh *BatchHeader, batch []byte, must bool) error {
	spent := !c.open[bh.ProducerID] // none of its transaction is left but the marker
	if bh.LastOffset() < c.upto {
		delete(c.open, bh.ProducerID)
	}
	if !bh.Attributes.Has(Transactional) || bh.LastOffset() >= c.upto || !spent {
		return c.keep(h, batch)
	}
	horizon, ok := bh.DeleteHorizon()
	if ok && c.now >= horizon && !must {
		return nil
	}
	if !ok {
		recs, err := c.decode(batch)
		if err != nil {
			return err
		}
		horizon = c.now + c.p.DeleteRetention.Milliseconds()
		bh.Attributes |= DeleteHorizon
		bh.BaseTimestamp = horizon
		if batch, err = AppendBatchAt(nil, bh, recs); err != nil {
			return err
		}
	}
	c.sees(horizon)
	return c.keep(h, batch)
}

// sees notes the next time at which there will be something to drop.
func (c *cleaner) sees(horizon int64) {
	if c.report.NextHorizon == 0 || horizon < c.report.NextHorizon {
		c.report.NextHorizon = horizon
	}
}

// decode reads all records of a batch that was checked.
func (c *cleaner) decode(batch []byte) (recs []Record, err error) {
	if err := c.records.Reset(batch, maxDecompressed); err != nil {
		return nil, err
	}
	recs = make([]Record, 0, c.records.Header().Count)
	for c.records.Next() {
		r := *c.records.Record()
		r.Headers = slices.Clone(r.Headers) // the reader uses its slice again
		recs = append(recs, r)
	}
	return recs, c.records.Err()
}

// batch takes over what stays of a batch of data.
func (c *cleaner) batch(h *frameHeader, bh *BatchHeader, batch []byte, aborted, must bool) error {
	recs, err := c.decode(batch)
	if err != nil {
		return err
	}
	c.report.RecordsRead += int64(len(recs))
	horizon, hasHorizon := bh.DeleteHorizon()
	past := hasHorizon && c.now >= horizon
	tombstones := false
	kept := recs[:0]
	for _, r := range recs {
		if r.Offset < c.upto {
			if aborted || r.Key == nil {
				continue
			}
			if last, ok := c.keys.get(r.Key); ok && last > r.Offset {
				continue
			}
			if r.Value == nil {
				if past {
					continue
				}
				tombstones = true
			}
		}
		kept = append(kept, r)
	}
	c.report.RecordsKept += int64(len(kept))
	if len(kept) == 0 && !must {
		return nil
	}
	changed := len(kept) < int(bh.Count)
	switch {
	case tombstones && !hasHorizon && bh.LastOffset() < c.upto:
		bh.Attributes |= DeleteHorizon
		bh.BaseTimestamp = c.now + c.p.DeleteRetention.Milliseconds()
		c.sees(bh.BaseTimestamp)
		changed = true
	case tombstones && hasHorizon:
		c.sees(horizon)
	case hasHorizon && bh.LastOffset() < c.upto:
		// No tombstone is left that it would be for.
		bh.Attributes &^= DeleteHorizon
		bh.BaseTimestamp = bh.MaxTimestamp
		changed = true
	}
	return c.pend(h, bh, batch, kept, changed)
}
