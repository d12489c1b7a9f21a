package partition

import (
	"fmt"
	"sync"
)

// Verification is held by who asks a transaction's coordinator whether a producer may
// write here, from before it asks until its batch is appended:
//
//	BeginVerification -- ask: it is open -- AppendBatch -- Release
//	                                ^
//	                     a marker that lands here ends it, and with it what was answered
//
// Without it a batch could be appended behind the marker of the transaction that it was
// verified for, and begin one that no coordinator knows of. (KIP-890, part 1)
//
// It lives in memory only: nobody who asked outlives the partition. With a replicator it
// holds for the leader epoch in which it began.
type Verification struct {
	p     *Partition
	id    int64
	epoch int32 // in which this node led then; -1 when it did not, or is alone
	users int   // who holds it, under verifying.mu
	ended bool  // under verifying.mu
}

// verifying are the verifications under way, one for each producer id.
type verifying struct {
	mu  sync.Mutex
	ids map[int64]*Verification
}

// BeginVerification is called before the coordinator is asked about a producer id. The
// result goes into Producer.Verified of the append, and is released after it.
func (p *Partition) BeginVerification(producerID int64) *Verification {
	epoch := int32(-1)
	if p.replicator != nil {
		if e, err := p.replicator.LeaderEpoch(); err == nil {
			epoch = e
		}
	}
	p.verifying.mu.Lock()
	defer p.verifying.mu.Unlock()
	v := p.verifying.ids[producerID]
	if v != nil && v.epoch != epoch {
		v.ended = true // markers may have come here from another leader, which end none of ours
		v = nil
	}
	if v == nil {
		if p.verifying.ids == nil {
			p.verifying.ids = make(map[int64]*Verification)
		}
		v = &Verification{p: p, id: producerID, epoch: epoch}
		p.verifying.ids[producerID] = v
	}
	v.users++
	return v
}

// Release lets go of it. Of nil it does nothing.
func (v *Verification) Release() {
	if v == nil {
		return
	}
	v.p.verifying.mu.Lock()
	defer v.p.verifying.mu.Unlock()
	if v.users--; v.users == 0 && !v.ended {
		delete(v.p.verifying.ids, v.id)
	}
}

// end is called for each marker, when it gets its place before others.
func (g *verifying) end(producerID int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if v := g.ids[producerID]; v != nil {
		v.ended = true
		delete(g.ids, producerID) // who asks from now on has another one
	}
}

func (v *Verification) over() bool {
	v.p.verifying.mu.Lock()
	defer v.p.verifying.mu.Unlock()
	return v.ended
}

// stage stages one request. A batch that would begin a transaction whose verification
// has been ended is refused; one of a transaction that is open is not asked.
func (p *Partition) stage(r *request, staged *pending, now int64) (verdict, error) {
	mark := staged.mark()
	v, err := staged.stage(&r.header, r.marker, r.origin, now)
	switch {
	case err != nil, v.duplicate:
	case r.marker != nil:
		p.verifying.end(r.header.ProducerID)
	case r.verified != nil && len(staged.steps) > mark.steps && p.replicator != nil && r.verified.epoch != r.header.LeaderEpoch:
		// Markers may have come from another leader meanwhile, which end no verification here:
		// whoever sends it again has it verified again.
		staged.rollback(mark)
		return verdict{}, fmt.Errorf("verified in leader epoch %d: %w", r.verified.epoch, &NotLeaderError{Leader: -1, LeaderEpoch: r.header.LeaderEpoch})
	case r.verified != nil && len(staged.steps) > mark.steps && r.verified.over():
		staged.rollback(mark)
		return verdict{}, &InvalidTxnStateError{ProducerID: r.header.ProducerID, FirstOffset: -1, Reason: "it ended while a batch of it was on its way"}
	}
	return v, err
}
