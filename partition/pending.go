package partition

import (
	"slices"

	"github.com/x/embedlog/log"
)

// pending is what the batches of a group will have done to the state once they
// are in the log. Each batch is checked against the state and the batches staged
// before it, so several batches of one producer can go into one write:
//
//	p := s.begin()
//	for each batch: v, err := p.stage(...)   // refused and repeated ones change nothing
//	write the group
//	p.commit() or p.discard()
//
// One pending is under way at a time, by the one who writes. Until commit nobody
// else sees a difference, and meanwhile nothing else may be applied to the state.
// Its memory is used again by the next group; batches without a producer id cost
// two comparisons.
type pending struct {
	s      *state
	staged []producer    // copies of the producers that changed, as they will be
	index  map[int64]int // producer id to staged, from linearStaged on
	undo   []undoStep    // what each staged batch replaced
	steps  []txnStep
	epochs []leaderEpoch
	latest int32 // newest leader epoch, staged ones included
	// appendTime is the newest append time, staged ones included.
	appendTime int64
	end        int64
}

const (
	// linearStaged is how many staged producers are looked through before a map pays.
	linearStaged = 8
	// maxKeptStaged is how many staged batches of producers a group may leave memory for.
	maxKeptStaged = 1024
)

// undoStep puts one staged producer back.
type undoStep struct {
	at     int
	before producer
}

// verdict is what staging a batch came to. When it is a duplicate nothing is to
// be appended: the caller is answered with the offsets of the original. That one
// may be of this very group, or not yet durable or visible: the answer waits for
// it like the original's own, and fails with it.
type verdict struct {
	duplicate              bool
	baseOffset, lastOffset int64
	timestamp              int64 // the original's maximum timestamp
}

// begin starts a group.
func (s *state) begin() *pending {
	p := &s.pending
	p.s = s
	p.reset()
	return p
}

func (p *pending) reset() {
	switch {
	case cap(p.undo) > maxKeptStaged:
		p.staged, p.index, p.undo, p.steps = nil, nil, nil, nil
	case len(p.staged) >= linearStaged:
		clear(p.index)
	}
	p.staged, p.undo, p.steps, p.epochs = p.staged[:0], p.undo[:0], p.steps[:0], p.epochs[:0]
	p.latest, p.end, p.appendTime = p.s.epochs.latest(), p.s.end, p.s.appendTime
}

// stage checks the batch h, whose base offset and leader epoch are the ones it
// would get, and notes what it does. m is its marker, nil for data and for
// control batches that end no transaction. now is of the partition's clock.
//
// After an error or a duplicate the pending is as it was.
func (p *pending) stage(h *log.BatchHeader, m *marker, o origin, now int64) (verdict, error) {
	if h.ProducerID >= 0 {
		if v, err := p.stageProducer(h, m, o, now); err != nil || v.duplicate {
			return v, err
		}
	}
	if h.LeaderEpoch > p.latest {
		p.latest = h.LeaderEpoch
		p.epochs = append(p.epochs, leaderEpoch{h.LeaderEpoch, h.BaseOffset})
	}
	if h.Attributes.Has(log.AppendTime) {
		p.appendTime = max(p.appendTime, h.MaxTimestamp)
	}
	p.end = h.LastOffset() + 1
	return verdict{baseOffset: h.BaseOffset, lastOffset: h.LastOffset(), timestamp: h.MaxTimestamp}, nil
}

func (p *pending) stageProducer(h *log.BatchHeader, m *marker, o origin, now int64) (verdict, error) {
	control := h.Attributes.Has(log.Control)
	if reason := malformed(h, o, control); reason != "" {
		return verdict{}, &InvalidRecordError{Records: []InvalidRecord{{Index: -1, Reason: reason}}}
	}
	if control && m == nil {
		return verdict{}, nil
	}
	at := p.find(h.ProducerID)
	var was producer
	switch {
	case at >= 0:
		was = p.staged[at]
	case p.s.producers[h.ProducerID] != nil:
		was = *p.s.producers[h.ProducerID]
	default:
		was = newProducer(h.ProducerID)
	}
	is := was
	var step txnStep
	if control {
		if err := was.checkMarker(h, m, o); err != nil {
			return verdict{}, err
		}
		step = is.applyMarker(h, m, now)
	} else {
		if !o.coordinator() {
			if d := was.duplicate(h); d != nil {
				return verdict{duplicate: true, baseOffset: d.baseOffset(), lastOffset: d.lastOffset, timestamp: d.timestamp}, nil
			}
		}
		if err := was.checkData(h, o); err != nil {
			return verdict{}, err
		}
		step = is.applyData(h, now)
	}
	if at < 0 {
		at = p.add(h.ProducerID)
	}
	p.undo = append(p.undo, undoStep{at, was})
	p.staged[at] = is
	if step.kind != txnUnchanged {
		p.steps = append(p.steps, step)
	}
	return verdict{}, nil
}

// malformed says what a batch with a producer id must not be.
func malformed(h *log.BatchHeader, o origin, control bool) string {
	switch {
	case h.ProducerEpoch < 0:
		return "a producer id without a producer epoch"
	case control && !o.coordinator():
		return "a control batch from a producer"
	case !control && !o.coordinator() && h.BaseSequence < 0:
		return "a producer id without a sequence"
	}
	return ""
}

// find is the place of a staged producer, -1 when it is not staged.
func (p *pending) find(id int64) int {
	if len(p.staged) >= linearStaged {
		if at, ok := p.index[id]; ok {
			return at
		}
		return -1
	}
	for i := range p.staged {
		if p.staged[i].id == id {
			return i
		}
	}
	return -1
}

// add makes a place for a producer that is not staged.
func (p *pending) add(id int64) int {
	at := len(p.staged)
	p.staged = append(p.staged, producer{id: id})
	switch {
	case at+1 > linearStaged:
		p.index[id] = at
	case at+1 == linearStaged:
		if p.index == nil {
			p.index = make(map[int64]int)
		}
		for i := range p.staged {
			p.index[p.staged[i].id] = i
		}
	}
	return at
}

// pendingMark is a point to go back to.
type pendingMark struct {
	staged, undo, steps, epochs int
	latest                      int32
	end, appendTime             int64
}

// mark names the point before the next batch, for rollback: an append of several
// batches is staged whole or not at all, and a batch may not fit after all.
func (p *pending) mark() pendingMark {
	return pendingMark{len(p.staged), len(p.undo), len(p.steps), len(p.epochs), p.latest, p.end, p.appendTime}
}

// rollback takes back what was staged since m.
func (p *pending) rollback(m pendingMark) {
	for _, u := range slices.Backward(p.undo[m.undo:]) {
		p.staged[u.at] = u.before
	}
	if len(p.staged) >= linearStaged {
		if m.staged < linearStaged {
			clear(p.index) // below that many it is not read, and has to be empty when it is filled
		} else {
			for i := range p.staged[m.staged:] {
				delete(p.index, p.staged[m.staged+i].id)
			}
		}
	}
	p.staged, p.undo, p.steps, p.epochs = p.staged[:m.staged], p.undo[:m.undo], p.steps[:m.steps], p.epochs[:m.epochs]
	p.latest, p.end, p.appendTime = m.latest, m.end, m.appendTime
}

// plain says that the staged batches change nothing but the state's end.
func (p *pending) plain() bool {
	return len(p.staged) == 0 && len(p.steps) == 0 && len(p.epochs) == 0 && p.appendTime == p.s.appendTime
}

// commit makes the staged batches part of the state: they are in the log.
func (p *pending) commit() {
	s := p.s
	for i := range p.staged {
		if have := s.producers[p.staged[i].id]; have != nil {
			*have = p.staged[i]
			continue
		}
		is := p.staged[i]
		s.producers[is.id] = &is
	}
	for _, step := range p.steps {
		s.txns.apply(step)
	}
	for _, e := range p.epochs {
		s.epochs.assign(e.epoch, e.start)
	}
	s.end, s.appendTime = p.end, p.appendTime
	p.reset()
}

// discard forgets the staged batches: they are not in the log.
func (p *pending) discard() { p.reset() }
