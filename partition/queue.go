package partition

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/x/embedlog/log"
)

// request is one caller's append.
type request struct {
	recs   []log.Record
	batch  []byte          // an encoded batch instead of recs
	header log.BatchHeader // of batch, or what recs are encoded with
	marker *marker
	origin origin
	expect bool
	offset int64 // expected
	plain  bool  // nothing tells its records from a neighbour's
	// internal may use the reserve of a full disk.
	internal bool
	// verified, if not nil, must not have ended when the batch begins a transaction.
	verified *Verification
	// unsynced does not wait for a sync.
	unsynced bool
	// leaderEpoch, if not zero, is the only one in which it may be proposed.
	leaderEpoch int32
	placed      func() // see AppendOptions

	// line is what the request is appended in order with, and generation which time of it.
	line       *Line
	generation uint64

	result Result
	err    error

	taken atomic.Int32
	done  chan struct{} // holds one token when the outcome is there
}

// The states of a request in a queue.
const (
	queued    = 0
	isTaken   = 1 // the writer has it: cancelling comes too late
	cancelled = 2
	hasLeft   = 3 // its caller knows what he knows: it must not be tried again
)

func (r *request) reset(recs []log.Record, batch []byte, o *AppendOptions) {
	r.recs, r.batch, r.marker, r.origin, r.verified = recs, batch, nil, fromProducer, nil
	r.line, r.generation, r.leaderEpoch, r.placed = nil, 0, 0, nil
	r.expect, r.plain, r.internal, r.unsynced = false, true, false, false
	r.result, r.err = Result{AppendTime: -1}, nil
	r.header = log.BatchHeader{ProducerID: noProducer, ProducerEpoch: noProducerEpoch, BaseSequence: noSequence}
	if o == nil {
		return
	}
	r.leaderEpoch, r.placed = o.LeaderEpoch, o.Placed
	if o.Internal {
		r.internal, r.plain = true, false
	}
	if o.Unsynced {
		r.unsynced, r.plain = true, false
	}
	if o.Expect {
		r.expect, r.offset, r.plain = true, o.ExpectedOffset, false
	}
	if pr := o.Producer; pr != nil {
		r.plain, r.verified = false, pr.Verified
		r.header.ProducerID, r.header.ProducerEpoch, r.header.BaseSequence = pr.ID, pr.Epoch, pr.Sequence
		// The producer's state keeps it, and is made before the batch is encoded.
		for i := range recs {
			if ms := recs[i].Timestamp; i == 0 || ms > r.header.MaxTimestamp {
				r.header.MaxTimestamp = ms
			}
		}
		if pr.Transactional {
			r.header.Attributes |= log.Transactional
		}
		if pr.Coordinator {
			r.origin, r.header.BaseSequence = fromCoordinator, noSequence
		}
		if pr.TxnV2 {
			r.origin |= withTxnV2
		}
	}
}

// getRequest takes a request from the partition's own pool: one that others share
// could hand a channel of a synctest bubble to who is outside of it.
func (p *Partition) getRequest() *request {
	r, ok := p.requests.Get().(*request)
	if !ok {
		r = &request{done: make(chan struct{}, 1)}
	}
	r.taken.Store(queued)
	return r
}

// putRequest gives a request back whose outcome was seen.
func (p *Partition) putRequest(r *request) {
	r.recs, r.batch, r.marker, r.line, r.verified, r.placed = nil, nil, nil, nil, nil, nil
	p.requests.Put(r)
}

// queue holds the requests of the group that is open.
type queue struct {
	mu   sync.Mutex
	open []*request
	// waiting is how many are in open, to be looked at without the lock.
	waiting atomic.Int32
	spare   []*request // the memory of the group that was written last
	// staging is held while the writer reads the callers' bytes.
	staging sync.Mutex
	// lending is held from before staging is let go of until a group is written that has
	// records which lie with their callers (log.StageBatch).
	lending sync.Mutex
}

// join adds r to the open group and says whether it is the first.
func (q *queue) join(r *request) (first bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open = append(q.open, r)
	q.waiting.Store(int32(len(q.open)))
	return len(q.open) == 1
}

// take closes the open group and returns it.
func (q *queue) take() []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	group := q.open
	q.open, q.spare = q.spare[:0], nil
	q.waiting.Store(0)
	return group
}

// put gives a group's memory back.
func (q *queue) put(group []*request) {
	clear(group)
	q.mu.Lock()
	q.spare = group[:0]
	q.mu.Unlock()
}

// enqueue has r written with a group, by this caller or another, and waits for
// the outcome.
func (p *Partition) enqueue(ctx context.Context, r *request) (Result, error) {
	if err := ctx.Err(); err != nil {
		p.putRequest(r)
		return Result{}, err
	}
	if p.queue.join(r) {
		p.turn.Lock()
		if ctx.Err() != nil {
			r.taken.Store(cancelled) // nobody else takes it; the others' records are written all the same
		}
		group := p.queue.take()
		if p.replicator != nil {
			return p.replicate(ctx, group, r)
		}
		p.writeGroups(group)
		p.turn.Unlock()
		p.answer(group, r)
		return p.finish(ctx, r)
	}
	select {
	case <-r.done:
		return p.finish(ctx, r)
	case <-ctx.Done():
		return p.leave(ctx, r)
	}
}

// leave gives a request up whose context has ended, and says what is known of it.
func (p *Partition) leave(ctx context.Context, r *request) (Result, error) {
	if r.taken.CompareAndSwap(queued, cancelled) {
		return Result{}, ctx.Err() // the writer passes over it; it is not used again
	}
	// The writer may be reading our bytes: it must not find others there.
	p.queue.staging.Lock()
	if r.taken.CompareAndSwap(queued, cancelled) { // it did not fit and was put back
		p.queue.staging.Unlock()
		return Result{}, ctx.Err()
	}
	result, err := r.outcome(ctx.Err())
	r.taken.Store(hasLeft)
	p.queue.staging.Unlock()
	if r.batch != nil {
		// The same where he writes it from where it lies.
		p.queue.lending.Lock()
		defer p.queue.lending.Unlock()
	}
	select {
	case <-r.done:
		return p.finish(ctx, r)
	default:
		return result, err
	}
}

// outcome is what a caller is told who leaves, because of cause, before the writer
// is done: a refusal is final, anything else open. staging is held.
func (r *request) outcome(cause error) (Result, error) {
	if r.taken.Load() == cancelled {
		return Result{}, cause
	}
	if r.err != nil {
		return Result{}, r.err
	}
	return Result{}, &UnknownOutcomeError{BaseOffset: r.result.BaseOffset, LastOffset: r.result.LastOffset, Err: cause}
}

// answer wakes the callers of a group but for the one who wrote it.
func (p *Partition) answer(group []*request, own *request) {
	for _, r := range group {
		if r != own {
			r.done <- struct{}{}
		}
	}
	p.queue.put(group)
}

// finish returns the outcome of a request that nobody else holds any more.
func (p *Partition) finish(ctx context.Context, r *request) (Result, error) {
	result, err := r.result, r.err
	if r.taken.Load() == cancelled {
		result, err = Result{}, ctx.Err()
	}
	p.putRequest(r)
	if err != nil {
		err = p.judged(ctx, err)
	}
	return result, err
}

// judged is a refusal that rests on what the log has, once it is known that this node leads still: one
// that has been replaced and does not know it yet lacks what others have appended since, and a producer
// that is told that its sequence is wrong gives up.
func (p *Partition) judged(ctx context.Context, err error) error {
	c, ok := p.replicator.(Confirmer)
	if !ok {
		return err
	}
	for _, rests := range []error{ErrOutOfOrderSequence, ErrFenced, ErrInvalidTxnState, ErrUnexpectedOffset} {
		if errors.Is(err, rests) {
			if stale := c.Confirm(ctx); stale != nil {
				return fmt.Errorf("append: %w", stale)
			}
			return err
		}
	}
	return err
}
