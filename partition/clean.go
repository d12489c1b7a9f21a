package partition

import (
	"context"
	"fmt"
	"sort"

	"github.com/x/embedlog/internal/seed"
	"github.com/x/embedlog/log"
)

// Deletion and compaction are package log's. What only the partition knows is added
// here: how far they may go, which transactions were aborted, and which batches
// carry the state of a producer that may go on.

// Retain deletes the oldest segments that the policy lets go, and returns how many
// went and how much less the log then takes on the disk. Only what lies below the
// high watermark may go, whatever the policy says.
func (p *Partition) Retain(ctx context.Context, policy log.RetentionPolicy) (deleted int, freed int64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, 0, err
	}
	hw := p.highWatermark.Load()
	if policy.Upto <= 0 || policy.Upto > hw {
		policy.Upto = hw
	}
	policy.KeepIndex = p.keepIndex()
	if c := p.commander(); c != nil {
		if deleted, freed, err = p.retainReplicated(ctx, c, policy); err != nil {
			return deleted, freed, fmt.Errorf("retain: %w", err)
		}
		return deleted, freed, nil
	}
	p.log.Lock()
	defer p.log.Unlock()
	start, took := p.log.StartOffset(), p.log.AllocatedBytes()
	deleted, err = p.log.Retain(policy)
	if p.log.StartOffset() > start {
		p.movedStart()
	}
	if deleted > 0 {
		freed = max(took-p.log.AllocatedBytes(), 0) // zeros are laid ahead meanwhile
	}
	if err != nil {
		return deleted, freed, fmt.Errorf("retain: %w", err)
	}
	return deleted, freed, nil
}

// keepIndex is the first log index that a replicator may still take back, and 0
// without one. The high watermark does not say it: an entry without offsets may lie
// behind the last committed record, at the end of a segment that holds nothing else
// above it. After an open nothing is known to be committed until Commit says so.
func (p *Partition) keepIndex() uint64 {
	if p.replicator == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.base.group == nil {
		return 1
	}
	return p.base.group.Index + 1
}

// Roll closes the active segment, so that retention and compaction get at it, and
// makes what it holds durable. It does nothing while that holds no offset.
func (p *Partition) Roll(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p.log.Lock()
	defer p.log.Unlock()
	if err := p.log.Roll(); err != nil {
		return fmt.Errorf("roll: %w", err)
	}
	return p.log.Sync()
}

// CompactionState says how worthwhile a compaction would be.
func (p *Partition) CompactionState() (log.CompactionState, error) {
	return p.log.CompactionState(p.LastStable())
}

// Compact keeps the last record of each key, below the last stable offset: of an
// undecided transaction nothing is known yet. Of policy the partition sets what it
// knows itself: Upto (a lower one stays), Batch and the codec. It may take long;
// cancelling ctx ends it at the next frame.
func (p *Partition) Compact(ctx context.Context, policy log.CompactPolicy) (log.CompactReport, error) {
	stable := p.LastStable()
	if policy.Upto <= 0 || policy.Upto > stable {
		policy.Upto = stable
	}
	policy.KeepIndex = p.keepIndex()
	if seed.Is(seed.CompactAhead) {
		policy.Upto, policy.KeepIndex = p.LogEnd(), 0
	}
	cfg := p.cfg.Load()
	policy.Batch = p.verdict
	policy.Recompress, policy.Codec, policy.CodecLevel = cfg.Recompress, cfg.Compression, cfg.CompressionLevel
	if err := p.forgetAborted(); err != nil {
		return log.CompactReport{}, fmt.Errorf("compact: %w", err)
	}
	return p.log.Compact(ctx, policy)
}

// forgetAborted drops the aborted transactions that an earlier compaction has left
// nothing of. It happens at the next one and not at once, because a reader may have
// read the batches before they went; and not later, because a compaction drops the
// marker of a transaction at the earliest in the round after its batches: from then
// on a reader that was told of it would wait for a marker that does not come.
func (p *Partition) forgetAborted() error {
	st, err := p.log.CompactionState(0) // the cleaned offset is there whatever the bound
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.txns.trim(st.CleanedOffset)
	if p.base != nil {
		p.base.txns.trim(st.CleanedOffset)
	}
	return nil
}

// verdict tells compaction what a batch below the last stable offset is.
func (p *Partition) verdict(h *log.BatchHeader, _ []byte) log.BatchVerdict {
	if h.ProducerID < 0 {
		return log.BatchVerdict{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	control := h.Attributes.Has(log.Control)
	return log.BatchVerdict{
		Aborted: h.Attributes.Has(log.Transactional) && !control && p.state.txns.isAborted(h.ProducerID, h.BaseOffset),
		Pinned:  p.state.producers[h.ProducerID].endsWith(h, control),
	}
}

// isAborted says whether the producer's batch at offset belongs to an aborted
// transaction.
func (t *txns) isAborted(producerID, offset int64) bool {
	i := sort.Search(len(t.aborted), func(i int) bool { return t.aborted[i].marker >= offset })
	for ; i < len(t.aborted); i++ {
		a := &t.aborted[i]
		if a.producerID == producerID && a.first <= offset {
			return true
		}
		if a.lastStable > offset {
			return false // those with a later marker began behind the offset
		}
	}
	return false
}

// endsWith says whether the batch is the last one of the producer: its epoch and
// sequence are read from there when the checkpoint is lost. As in Kafka, a producer
// of which only a marker was seen keeps the markers of its epoch.
func (p *producer) endsWith(h *log.BatchHeader, control bool) bool {
	switch {
	case p == nil:
		return false // expired
	case p.kept > 0:
		return p.batches[p.kept-1].lastOffset == h.LastOffset()
	}
	return control && p.epoch == h.ProducerEpoch
}
