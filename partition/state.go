package partition

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/x/embedlog/internal/seed"
	"github.com/x/embedlog/log"
)

// state is what a partition has learned from its batches: who may append what
// next, which transactions are open or aborted, which leader epoch wrote what.
//
// It is a function of the batches below end and of the times they were applied
// at, so there are two ways to it, with the same result: staging and committing
// each group as it is written, or decoding a checkpoint's snapshot and replaying
// the batches behind it. Going back is done the second way.
//
// It has no lock; the partition's covers it.
type state struct {
	end int64 // every batch below this offset has been applied
	// appendTime is the newest time that the log gave a batch: the next one is not older.
	appendTime int64
	producers  producers
	txns       txns
	epochs     leaderEpochs
	group      *GroupState // of the committed state of a replicated log; nil otherwise
	pending    pending     // of the group being written; no part of the state
}

// newState is the state of an empty log that starts at offset end.
func newState(end int64) *state {
	return &state{end: end, producers: make(producers), txns: newTxns()}
}

// replay takes in a batch that is in the log. Recovery, and a replica that gets
// batches its leader has checked, call it for each batch in order. Nothing is
// checked: see producer.applyData. A batch below end is in the state already and
// is passed over, so that a scan may begin anywhere below the snapshot's end.
//
// control is asked for the marker of control batches only; ok is false for a
// control record that ends no transaction. now is of the partition's clock: the
// log does not tell when a batch was appended, so a replayed producer counts as
// active now and expires late rather than early.
func (s *state) replay(h *log.BatchHeader, now int64, control func() (m marker, ok bool, err error)) error {
	if h.LastOffset() < s.end {
		return nil
	}
	if h.ProducerID >= 0 && h.ProducerEpoch >= 0 && !seed.Is(seed.ForgetProducers) {
		// A snapshot ends between two batches, and compaction joins no batches of producers.
		if h.BaseOffset < s.end {
			return &log.BadBatchError{BaseOffset: h.BaseOffset, LastOffset: h.LastOffset(), Reason: fmt.Sprintf("a producer's batch lies across offset %d, where another ended", s.end)}
		}
		var m marker
		ok := true
		isControl := h.Attributes.Has(log.Control)
		if isControl {
			// Compaction leaves a bare header of a marker when nothing of the transaction is left.
			if ok = h.Count > 0; ok {
				var err error
				if m, ok, err = control(); err != nil {
					return err
				}
			}
		}
		if ok {
			p := s.producers[h.ProducerID]
			if p == nil {
				fresh := newProducer(h.ProducerID)
				p = &fresh
				s.producers[h.ProducerID] = p
			}
			if isControl {
				s.txns.apply(p.applyMarker(h, &m, now))
			} else {
				s.txns.apply(p.applyData(h, now))
			}
		}
	}
	if h.Attributes.Has(log.AppendTime) {
		s.appendTime = max(s.appendTime, h.MaxTimestamp)
	}
	if !seed.Is(seed.ForgetEpochs) {
		s.epochs.assign(h.LeaderEpoch, h.BaseOffset)
	}
	s.end = h.LastOffset() + 1
	return nil
}

// deletedTo follows the log start offset. Producers and open transactions stay:
// a producer goes on where it was, and its transaction still gets its end.
func (s *state) deletedTo(logStart int64) {
	s.txns.trim(logStart)
	s.epochs.truncateFromStart(logStart)
	s.end = max(s.end, logStart)
}

// clone is an independent copy of the committed state.
func (s *state) clone() *state {
	c := newState(s.end)
	c.appendTime = s.appendTime
	for id, p := range s.producers {
		copied := *p
		c.producers[id] = &copied
	}
	c.txns = txns{
		open: slices.Clone(s.txns.open), ended: slices.Clone(s.txns.ended),
		aborted: slices.Clone(s.txns.aborted), unstable: s.txns.unstable,
	}
	c.epochs.list = slices.Clone(s.epochs.list)
	if s.group != nil {
		g := *s.group
		c.group = &g // Members is replaced, never changed
	}
	return c
}

// restore makes the state a copy of from. A group under way is discarded.
func (s *state) restore(from *state) {
	c := from.clone()
	s.end, s.appendTime, s.producers, s.txns, s.epochs, s.group = c.end, c.appendTime, c.producers, c.txns, c.epochs, c.group
	if s.pending.s != nil {
		s.pending.reset()
	}
}

// ProducerState is what a partition knows of one producer id.
type ProducerState struct {
	ProducerID       int64
	Epoch            int16
	LastSequence     int32 // -1 when none is known in this epoch
	LastOffset       int64 // of the last batch with a sequence in this epoch; -1 when there is none
	LastTimestamp    int64 // that batch's maximum timestamp in milliseconds; -1 when there is none
	CoordinatorEpoch int32 // of the last marker; -1 when there was none
	TxnFirstOffset   int64 // of the open transaction; -1 when there is none
}

func (p *producer) describe() ProducerState {
	d := ProducerState{
		ProducerID: p.id, Epoch: p.epoch, LastSequence: noSequence, LastOffset: noOffset, LastTimestamp: -1,
		CoordinatorEpoch: p.coordinatorEpoch, TxnFirstOffset: p.txnFirst,
	}
	if p.kept > 0 {
		b := &p.batches[p.kept-1]
		d.LastSequence, d.LastOffset, d.LastTimestamp = b.lastSequence, b.lastOffset, b.timestamp
	}
	return d
}

// producerStates lists the producers by id.
func (s *state) producerStates() []ProducerState {
	list := make([]ProducerState, 0, len(s.producers))
	for _, p := range s.producers {
		list = append(list, p.describe())
	}
	slices.SortFunc(list, func(a, b ProducerState) int { return cmp.Compare(a.ProducerID, b.ProducerID) })
	return list
}

// sortedProducers is in the order of ids, so that equal states encode to equal bytes.
func (s *state) sortedProducers() []*producer {
	return slices.SortedFunc(maps.Values(s.producers), func(a, b *producer) int { return cmp.Compare(a.id, b.id) })
}
