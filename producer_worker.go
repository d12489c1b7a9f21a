package embedlog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/x/embedlog/partition"
)

// work takes one queue after the other and writes its next batch, until there is
// nothing to do.
func (p *Producer) work() {
	p.mu.Lock()
	for len(p.ready) > 0 {
		q := p.ready[0]
		p.ready[0] = nil
		p.ready = p.ready[1:]
		q.state = queueIdle
		b := p.nextLocked(q)
		if b == nil || !p.noRetry && !q.retryAt.IsZero() && q.retryAt.After(time.Now()) {
			p.scheduleLocked(q, true) // what was to go has been overtaken
			continue
		}
		q.state = queueBusy
		a := &attempt{behind: q.under > 0}
		if a.behind {
			before := q.batches[q.under-1]
			b.producer, b.numbered = before.producer, true
			b.producer.Sequence = nextSequence(before.producer.Sequence, len(before.recs))
		}
		b.sealed, b.attempt = true, a
		q.under++
		drop := p.drop
		p.mu.Unlock()
		p.deliver(q, b, a, drop)
		p.mu.Lock()
		if !a.placed {
			q.state = queueIdle
		}
		p.scheduleLocked(q, true)
	}
	p.workers--
	p.drainLocked()
	p.mu.Unlock()
}

// placed lets the next batch of the queue go while this one waits for a majority.
func (p *Producer) placed(q *producerQueue, a *attempt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a.placed || a.ended {
		return
	}
	a.placed = true
	q.state = queueIdle
	p.scheduleLocked(q, false)
}

// deliver makes one attempt to write a batch. Afterwards its records are answered,
// or it stays where it is to be tried again; or, when others are before it, its outcome waits for theirs.
func (p *Producer) deliver(q *producerQueue, b *producerBatch, a *attempt, drop bool) {
	var o *outcome
	if drop && b.uncertain == nil {
		p.answer(q, b, partition.Result{}, q.named(ErrClosed)) // nothing goes behind others any more: it is the first
		p.mu.Lock()
		b, o = q.endedLocked()
	} else {
		o = p.try(q, b, a)
		p.mu.Lock()
		a.ended = true
		if q.batches[0] != b {
			b.ended = o
			q.landLocked(b)
			o = nil
		}
	}
	for o != nil {
		p.mu.Unlock()
		left := p.settle(q, b, o)
		p.mu.Lock()
		if left {
			q.landLocked(b)
			b.ended = nil
		}
		b, o = q.endedLocked()
	}
	p.mu.Unlock()
}

// endedLocked is the queue's first batch when its attempt has ended behind others, with the outcome. While that
// stands there nobody else has the batch.
func (q *producerQueue) endedLocked() (*producerBatch, *outcome) {
	if len(q.batches) == 0 {
		return nil, nil
	}
	return q.batches[0], q.batches[0].ended
}

// try makes one attempt to write a batch.
func (p *Producer) try(q *producerQueue, b *producerBatch, a *attempt) *outcome {
	o, err := p.number(q, b)
	var res partition.Result
	if err == nil {
		o.Placed = func() { p.placed(q, a) }
		res, err = p.write(q.p, p.appends, b.recs, o)
	}
	if b.numbered && errors.Is(err, ErrUnknownOutcome) && errors.Is(err, context.Canceled) {
		// Abort came while another caller was writing it for us. The partition recognises
		// it, and answers when that is done.
		b.uncertain = err
		res, err = p.write(q.p, context.Background(), b.recs, o)
	}
	return &outcome{res, err, a.behind}
}

// settle answers the records of the queue's first batch, or leaves it to be tried again.
func (p *Producer) settle(q *producerQueue, b *producerBatch, o *outcome) (left bool) {
	err := o.err
	if err == nil {
		if b.numbered && b.producer.ID == q.producer.ID && b.producer.Epoch == q.producer.Epoch {
			q.producer.Sequence = nextSequence(b.producer.Sequence, len(b.recs))
		}
		q.backoff = 0
		p.answer(q, b, o.res, nil)
		return false
	}
	unknown := errors.Is(err, ErrUnknownOutcome)
	if o.behind && !unknown {
		// What became of the one before it may be the reason. Nothing of it is there.
		b.numbered = b.uncertain != nil
		return true
	}
	if !unknown && errors.Is(err, context.Canceled) { // Abort: it had not been taken
		err = q.named(ErrClosed)
	}
	if unknown {
		b.uncertain = err
	}
	switch {
	case b.uncertain == nil && p.split(q, b, err):
		return true
	case p.again(b, err, unknown) && p.retryLater(q, b, err):
		return true
	}
	if b.uncertain != nil && !unknown {
		err = q.named(&UnknownOutcomeError{BaseOffset: -1, LastOffset: -1, Err: fmt.Errorf("%w; then: %w", b.uncertain, err)})
	}
	// What comes next must not be taken for a repetition, nor for something that
	// misses its predecessor.
	if b.numbered && (b.uncertain != nil || errors.Is(err, ErrOutOfOrderSequence)) {
		p.nextEpoch(q)
	}
	if errors.Is(err, ErrFenced) {
		p.forgetID(&q.producer)
	}
	q.backoff = 0
	p.answer(q, b, partition.Result{}, err)
	return false
}

// named says what was tried and on what.
func (q *producerQueue) named(err error) error {
	return fmt.Errorf("produce to %s/%d: %w", q.topic, q.p.ID(), err)
}

// number gives the batch its producer id, epoch and sequence, at its first attempt.
func (p *Producer) number(q *producerQueue, b *producerBatch) (*partition.AppendOptions, error) {
	o := &partition.AppendOptions{Compression: p.cfg.Compression, CompressionLevel: p.cfg.CompressionLevel}
	if p.cfg.NoIdempotence {
		return o, nil
	}
	if !b.numbered {
		if q.producer.ID < 0 {
			id, err := p.producerID(p.appends)
			if err != nil {
				return nil, q.named(idError(err))
			}
			q.producer = partition.Producer{ID: id}
		}
		b.producer, b.numbered = q.producer, true
	}
	o.Producer = &b.producer
	return o, nil
}

// idError is the error of records for which there is no producer id. That it is not
// known whether an id was given does not make their outcome unknown: they were not
// written.
func idError(err error) error {
	if !errors.Is(err, ErrUnknownOutcome) {
		return fmt.Errorf("no producer id: %w", err)
	}
	cause := ErrClosed
	if errors.Is(err, ErrStorageFailed) {
		cause = ErrStorageFailed
	}
	return fmt.Errorf("no producer id: %w (%v)", cause, err)
}

// nextEpoch begins the sequence anew, under the next epoch of the producer id in
// this partition. Epochs of partitions need not be alike: each has its own state of
// the producer. When they are used up, the id is another.
func (p *Producer) nextEpoch(q *producerQueue) {
	q.producer.Sequence = 0
	if q.producer.Epoch == math.MaxInt16 {
		p.forgetID(&q.producer)
		return
	}
	q.producer.Epoch++
}

// forgetID gives up a producer id that somebody else has, or whose epochs are used up.
func (p *Producer) forgetID(used *partition.Producer) {
	p.idTurn <- struct{}{}
	if p.id == used.ID {
		p.id = -1
	}
	<-p.idTurn
	*used = partition.Producer{ID: -1}
}

// nextSequence counts on from a sequence; behind the largest one comes 0.
func nextSequence(s int32, n int) int32 { return int32((int64(s) + int64(n)) & math.MaxInt32) }

// again says whether a batch that failed may be tried once more.
func (p *Producer) again(b *producerBatch, err error, unknown bool) bool {
	if errors.Is(err, ErrStorageFailed) || errors.Is(err, ErrClosed) || errors.Is(err, ErrUnknownTopic) {
		return false // as it will be the next time
	}
	if unknown {
		return b.numbered // the partition recognises it
	}
	return IsRetriable(err)
}

// retryLater leaves the batch where it is, for some time. It is false when the
// batch is too old, or the producer has no time left. The first time it says so:
// whoever waits on a full disk wants to know what for.
func (p *Producer) retryLater(q *producerQueue, b *producerBatch, err error) bool {
	first := q.backoff == 0
	if !p.waitForAnother(q, b) {
		return false
	}
	if first {
		p.db.engine.Logger().Warn("producer tries again", "error", err)
	}
	return true
}

func (p *Producer) waitForAnother(q *producerQueue, b *producerBatch) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	q.backoff = min(max(2*q.backoff, firstBackoff), longestBackoff)
	q.retryAt = now.Add(q.backoff)
	if p.noRetry || p.cfg.DeliveryTimeout > 0 && q.retryAt.After(b.since.Add(p.cfg.DeliveryTimeout)) {
		q.retryAt = time.Time{}
		return false
	}
	return true
}

// split takes a batch apart that was refused for some of its records: the refused
// ones are answered, or each half is tried by itself. It is false when there is
// nothing to take apart.
func (p *Producer) split(q *producerQueue, b *producerBatch, err error) bool {
	if len(b.recs) == 1 {
		return false
	}
	if errors.Is(err, ErrRecordTooLarge) { // the topic's limit was lowered
		half := len(b.recs) / 2
		p.mu.Lock() // Flush may ask for the end of b at any time: the end is the rest's then
		defer p.mu.Unlock()
		rest := &producerBatch{
			recs: b.recs[half:], answers: b.answers[half:], since: b.since, sealed: true,
			size: b.size, limit: b.limit, held: b.held / 2, done: b.done,
		}
		b.recs, b.answers, b.done, b.numbered = b.recs[:half:half], b.answers[:half:half], nil, false
		b.held -= rest.held
		b.chunk = nil // both have records in it: neither may write there again
		q.batches = append(q.batches[:1], append([]*producerBatch{rest}, q.batches[1:]...)...)
		p.batches++
		return true
	}
	var invalid *InvalidRecordError
	if !errors.As(err, &invalid) {
		return false
	}
	bad := make(map[int]string)
	for _, r := range invalid.Records {
		if r.Index >= 0 && r.Index < len(b.recs) {
			bad[r.Index] = r.Reason
		}
	}
	if len(bad) == 0 || len(bad) == len(b.recs) {
		return false
	}
	var refused []answer
	var reasons []string
	recs, answers := b.recs[:0:0], b.answers[:0:0]
	for i := range b.recs {
		if reason, ok := bad[i]; ok {
			refused, reasons = append(refused, b.answers[i]), append(reasons, reason)
			continue
		}
		recs, answers = append(recs, b.recs[i]), append(answers, b.answers[i])
	}
	b.recs, b.answers, b.numbered = recs, answers, false // Flush does not look at these
	p.db.callOut(func() {
		for i, a := range refused {
			p.tell(a, noPosition, q.named(&InvalidRecordError{Records: []InvalidRecord{{Index: 0, Reason: reasons[i]}}}))
		}
	})
	return true
}

// answer says what became of the records of the queue's first batch, and takes it
// off. The room is given back first, so that a done function may send.
func (p *Producer) answer(q *producerQueue, b *producerBatch, res partition.Result, err error) {
	p.mu.Lock()
	p.giveRoomLocked(b.held)
	b.held = 0
	p.mu.Unlock()
	pos := noPosition
	if err == nil {
		pos = Position{Topic: q.topic, Partition: q.p.ID(), LeaderEpoch: q.p.LeaderEpoch()}
	}
	p.db.callOut(func() {
		for i := range b.answers {
			if err == nil {
				pos.Offset = res.BaseOffset + int64(i)
			}
			p.tell(b.answers[i], pos, err)
		}
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil && b.numbered {
		q.acked = b.producer
	}
	q.landLocked(b)
	q.batches[0] = nil
	q.batches = q.batches[1:]
	q.retryAt = time.Time{}
	if len(q.batches) == 0 {
		q.batches = nil
		delete(p.active, q)
	}
	if b.done != nil {
		close(b.done)
	}
	p.freeBatchLocked(b)
	p.batches--
}

// tell gives one record's outcome to whoever waits for it.
func (p *Producer) tell(a answer, pos Position, err error) {
	switch {
	case a.group != nil:
		a.group.answer(a.index, pos, err)
	case a.done != nil:
		a.done(pos, err)
	case err != nil:
		p.mu.Lock()
		if p.failed == nil {
			p.failed = err
		}
		p.mu.Unlock()
	}
}
