package partition

import (
	"errors"
	"fmt"

	"github.com/x/embedlog/internal/seed"
	"github.com/x/embedlog/log"
)

// groupWriter is what the one who writes needs.
type groupWriter struct {
	own     request
	header  log.BatchHeader // of a lone append
	group   []*request
	merged  []log.Record
	pending *pending
	sync    bool // one of the group is to be durable before it is acknowledged
}

// writeGroups writes all requests, in as many groups as it takes. The caller
// holds the log's writer lock.
func (p *Partition) writeGroups(requests []*request) {
	for len(requests) > 0 {
		n := p.writeGroup(requests)
		p.spendReserve(requests[:n])
		requests = requests[n:]
	}
}

// spendReserve tries those again, each by itself, that found the disk full and may
// use the reserve.
func (p *Partition) spendReserve(requests []*request) {
	for i, r := range requests {
		if !r.internal || !errors.Is(r.err, log.ErrNoSpace) || !p.log.SpendReserve() {
			continue
		}
		p.queue.staging.Lock() // a caller that leaves reads it
		again := r.taken.Load() != hasLeft
		if again {
			r.err = nil
			r.taken.Store(queued)
		}
		p.queue.staging.Unlock()
		if again {
			p.writeGroup(requests[i : i+1])
		}
		p.log.SaveReserve()
	}
}

// writeGroup stages as many of the requests as fit one group, writes them, and
// makes them durable if the level says so. It returns how many it dealt with.
func (p *Partition) writeGroup(requests []*request) (n int) {
	w := &p.writer
	if err := p.Err(); err != nil {
		return p.failAll(requests, fmt.Errorf("append: %w", err))
	}
	now, lends := int64(0), false
	w.pending, w.sync = p.state.begin(), false
	if requests[0] == &w.own {
		n = p.stageGroup(requests, now) // the only reader of these bytes is their owner
	} else {
		p.queue.staging.Lock()
		n = p.stageGroup(requests, now)
		if lends = p.log.Lends(); lends {
			p.queue.lending.Lock() // before one of its callers can leave
		}
		p.queue.staging.Unlock()
	}
	staged := requests[:n]
	base := p.log.EndOffset()
	if p.log.StagedOffset() == base {
		w.pending.discard()
		return n // all refused or repeated
	}
	err := p.log.Write()
	if lends {
		p.queue.lending.Unlock()
	}
	if err != nil {
		w.pending.discard()
		p.failStaged(staged, base, err)
		return n
	}
	if w.sync && p.log.Level() == log.Durable && !seed.Is(seed.AckBeforeFsync) {
		if err := p.log.Sync(); err != nil {
			// The records are in the log and may be on the disk, now or after a restart.
			w.pending.discard()
			p.failStaged(staged, base, err)
			return n
		}
	}
	if end := p.log.EndOffset(); w.pending.plain() && len(p.state.txns.ended) == 0 {
		// Nothing changes that others look at under mu: end belongs to the writer, and so
		// does the decision that no transaction waits to become visible.
		p.state.end = end
		p.highWatermark.Store(end)
	} else {
		p.mu.Lock()
		w.pending.commit()
		p.advanceLocked(end)
		p.mu.Unlock()
	}
	p.waiters.wake(p)
	return n
}

// failAll answers all requests with err: none was taken.
func (p *Partition) failAll(requests []*request, err error) int {
	p.queue.staging.Lock() // a caller that leaves reads its result
	defer p.queue.staging.Unlock()
	for _, r := range requests {
		// The partition's own request is in no queue: nobody has set its state.
		if r == &p.writer.own || r.taken.CompareAndSwap(queued, isTaken) {
			r.fail(err)
		}
	}
	return len(requests)
}

// failStaged answers the requests of a group that could not be written.
func (p *Partition) failStaged(requests []*request, base int64, err error) {
	p.queue.staging.Lock() // a caller that leaves reads its result
	defer p.queue.staging.Unlock()
	for _, r := range requests {
		if r.err != nil || r.taken.Load() == cancelled || r.result.Duplicate && r.result.LastOffset < base {
			continue
		}
		r.fail(r.result.failed(err))
	}
}

// fail sets the outcome. What was begun behind it in its line does not take effect.
func (r *request) fail(err error) {
	r.err, r.result = err, Result{}
	if r.line != nil {
		r.line.broken.Store(r.generation)
	}
}

// stageGroup stages requests until the group is full, and returns how many were
// dealt with: staged, refused, found to be repetitions, or cancelled.
func (p *Partition) stageGroup(requests []*request, now int64) (n int) {
	cfg := p.cfg.Load()
	w := &p.writer
	start := p.log.StartOffset()
	for n < len(requests) {
		r := requests[n]
		if r != &w.own && !r.taken.CompareAndSwap(queued, isTaken) && r.taken.Load() == cancelled {
			n++
			continue
		}
		run := p.mergeable(requests[n:], cfg)
		err := p.stageRun(requests[n:n+run], cfg, &now)
		if errors.Is(err, log.ErrGroupFull) {
			for _, m := range requests[n : n+run] {
				m.taken.Store(queued) // the next group begins with them
			}
			break
		}
		for _, m := range requests[n : n+run] {
			if err != nil {
				m.fail(err)
			}
			m.result.LogStart = start
			w.sync = w.sync || !m.unsynced && m.err == nil
		}
		n += run
	}
	if len(w.merged) > 0 {
		clear(w.merged) // they would keep the callers' bytes alive
		w.merged = w.merged[:0]
	}
	return n
}

// mergeable takes the requests whose records can share a batch with the first
// one's, and returns how many those are, the first included.
func (p *Partition) mergeable(requests []*request, cfg *Config) int {
	first := requests[0]
	if !first.plain || len(requests) == 1 || !requests[1].plain {
		return 1
	}
	w := &p.writer
	size, limit := batchBytes(first.recs), min(cfg.MaxBatchBytes, maxMergedBytes)
	if size > limit {
		return 1
	}
	clear(w.merged)
	w.merged = append(w.merged[:0], first.recs...)
	n := 1
	for ; n < len(requests); n++ {
		r := requests[n]
		// Until it is taken its caller may leave at any time, and change its records.
		if !r.plain || !r.taken.CompareAndSwap(queued, isTaken) {
			break
		}
		more := batchBytes(r.recs)
		if size+more > limit {
			r.taken.Store(queued) // the next batch begins with it
			break
		}
		size += more
		w.merged = append(w.merged, r.recs...)
	}
	return n
}

// maxMergedBytes bounds a batch of several callers: who reads one record of it
// reads it whole.
const maxMergedBytes = 64 << 10

// batchBytes is an upper bound of what the records take in a batch.
func batchBytes(recs []log.Record) int {
	n := 0
	for i := range recs {
		r := &recs[i]
		n += maxRecordOverhead/2 + len(r.Key) + len(r.Value)
		for j := range r.Headers {
			n += maxHeaderOverhead + len(r.Headers[j].Key) + len(r.Headers[j].Value)
		}
	}
	return n
}

// syncRepeated makes records durable that were appended Unsynced and are sent again
// by somebody who waits for that. Those of this group are synced with it.
func (p *Partition) syncRepeated(r *request) error {
	last := r.result.LastOffset
	if r.unsynced || p.replicator != nil || p.log.Level() != log.Durable || last >= p.log.EndOffset() || last < p.log.DurableOffset() {
		return nil
	}
	if err := p.log.Sync(); err != nil {
		return r.result.failed(err)
	}
	return nil
}

// stageRun stages the requests as one batch. Their results say where they will be.
func (p *Partition) stageRun(run []*request, cfg *Config, now *int64) error {
	w := &p.writer
	first := run[0]
	if first.line != nil && first.line.broken.Load() == first.generation {
		return ErrLineBroken
	}
	recs := first.recs
	if len(run) > 1 {
		recs = w.merged
	}
	h := &first.header
	base := p.log.StagedOffset()
	h.BaseOffset, h.LeaderEpoch = base, int32(p.epoch.Load())
	if first.batch == nil {
		h.LastOffsetDelta = int32(len(recs) - 1)
	}
	if first.expect && first.offset != base {
		return &UnexpectedOffsetError{Expected: first.offset, LogEnd: base}
	}
	appendTime := int64(-1)
	if cfg.AppendTime && h.Attributes&log.Control == 0 {
		// The clock may have been set back, since the log was last open or since the last
		// append: the append time stays where it was.
		appendTime = max(p.wall(), w.pending.appendTime)
		h.Attributes |= log.AppendTime
		h.MaxTimestamp = appendTime
	}
	mark := w.pending.mark()
	if h.ProducerID >= 0 {
		if *now == 0 {
			*now = p.clock.now()
		}
	}
	v, err := p.stage(first, w.pending, *now)
	if err != nil {
		return err
	}
	if v.duplicate {
		first.result = Result{BaseOffset: v.baseOffset, LastOffset: v.lastOffset, AppendTime: appendTime, Duplicate: true}
		if cfg.AppendTime {
			first.result.AppendTime = v.timestamp
		}
		return p.syncRepeated(first)
	}
	epoch := uint64(h.LeaderEpoch)
	if first.batch == nil {
		err = p.log.StageRecords(epoch, h, recs)
	} else {
		err = p.log.StageBatch(0, epoch, first.batch, appendTime)
	}
	if err != nil {
		w.pending.rollback(mark)
		return err
	}
	for _, r := range run {
		count := int64(len(r.recs))
		if r.batch != nil {
			count = int64(h.LastOffsetDelta) + 1
		}
		r.result = Result{BaseOffset: base, LastOffset: base + count - 1, AppendTime: appendTime}
		base += count
	}
	return nil
}
