package embedlog

import (
	"context"
	"time"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// producerQueue is what a producer holds for one partition: batches that are
// written one after the other, the last of which may still grow.
type producerQueue struct {
	p     *engine.Partition
	topic string

	// Guarded by Producer.mu.
	batches []*producerBatch
	state   queueState
	due     time.Time // when state is queueWaiting
	retryAt time.Time // not before; zero after a batch that went through

	// What follows belongs to the worker that has the queue.
	backoff time.Duration
	// producer is how the next batch is numbered. Its ID is -1 before the first one.
	producer partition.Producer
}

type queueState uint8

const (
	queueIdle    queueState = iota // nothing to do, or nothing is known of it yet
	queueWaiting                   // for Linger or to try again: in Producer.waiting
	queueReady                     // in Producer.ready
	queueBusy                      // a worker has it
)

// producerBatch is records on their way. Once sealed it does not grow.
type producerBatch struct {
	recs    []log.Record // their bytes lie in chunk, or in ones before it
	answers []answer
	chunk   []byte
	size    int   // bound of the encoded size
	limit   int   // of size
	held    int64 // of BufferBytes
	since   time.Time
	sealed  bool
	done    chan struct{} // closed when all is answered; nil while nobody waits

	// What follows belongs to the worker that has the queue.
	numbered bool
	producer partition.Producer // when numbered
	// uncertain is an attempt whose outcome is not known: only the same batch with the
	// same sequence may follow it.
	uncertain error
}

// heldOverhead is what a record takes in a batch besides its bytes, about.
const heldOverhead = 128

// queueLocked is the queue of a partition, made at its first record.
func (t *producerTopic) queueLocked(id int32, part *engine.Partition) *producerQueue {
	for int(id) >= len(t.queues) {
		t.queues = append(t.queues, nil)
	}
	if t.queues[id] == nil {
		t.queues[id] = &producerQueue{p: part, topic: t.name, producer: partition.Producer{ID: -1}}
	}
	return t.queues[id]
}

// addLocked copies a record into the queue's open batch, or a new one.
func (p *Producer) addLocked(q *producerQueue, rec *Record, now int64, size int, held int64, a answer) {
	var b *producerBatch
	if n := len(q.batches); n > 0 && !q.batches[n-1].sealed {
		if b = q.batches[n-1]; b.size+size > b.limit {
			b.sealed = true
			b = nil
		}
	}
	if b == nil {
		b = p.newBatchLocked()
		b.size, b.limit = log.BatchHeaderLen, min(p.cfg.BatchBytes, q.p.Config().MaxBatchBytes)
		b.since = time.Now()
		if len(q.batches) == 0 {
			p.active[q] = struct{}{}
		}
		p.batches++
		q.batches = append(q.batches, b)
	}
	b.size += size
	b.held += held
	b.answers = append(b.answers, a)
	b.recs = append(b.recs, log.Record{})
	r := &b.recs[len(b.recs)-1]
	setProduced(r, rec, now)
	r.Key, r.Value = b.copy(r.Key), b.copy(r.Value)
	if len(r.Headers) > 0 {
		own := make([]Header, len(r.Headers))
		for i, h := range r.Headers {
			own[i] = Header{Key: h.Key, Value: b.copy(h.Value)}
		}
		r.Headers = own
	} else {
		r.Headers = nil
	}
}

// copy puts bytes into the batch's memory. Nil stays nil.
func (b *producerBatch) copy(v []byte) []byte {
	switch {
	case v == nil:
		return nil
	case len(v) == 0:
		return []byte{} // not null, and not a part of the sender's memory
	}
	if len(v) > cap(b.chunk)-len(b.chunk) {
		// Those before it live on in the records that point there.
		b.chunk = make([]byte, 0, max(len(v), min(max(2*b.size, smallestChunk), b.limit, largestChunk)))
	}
	start := len(b.chunk)
	b.chunk = append(b.chunk, v...)
	return b.chunk[start:len(b.chunk):len(b.chunk)]
}

const (
	smallestChunk = 512
	largestChunk  = 1 << 20 // a batch that is used again keeps its last one
	// keptBatches is how many a producer keeps for their memory.
	keptBatches = producerWorkers
)

func (p *Producer) newBatchLocked() *producerBatch {
	if n := len(p.free); n > 0 {
		b := p.free[n-1]
		p.free = p.free[:n-1]
		return b
	}
	return &producerBatch{}
}

// freeBatchLocked keeps a batch's memory for another.
func (p *Producer) freeBatchLocked(b *producerBatch) {
	if len(p.free) == keptBatches {
		return
	}
	clear(b.recs)
	clear(b.answers)
	*b = producerBatch{recs: b.recs[:0], answers: b.answers[:0], chunk: b.chunk[:0]}
	p.free = append(p.free, b)
}

// scheduleLocked puts the queue where its first batch has to go: to the workers,
// now, or among those that wait. byWorker says that a worker asks, who will look at
// p.ready next.
func (p *Producer) scheduleLocked(q *producerQueue, byWorker bool) {
	if q.state == queueReady || q.state == queueBusy || len(q.batches) == 0 {
		return
	}
	due := q.retryAt
	if head := q.batches[0]; p.cfg.Linger > 0 && !head.sealed && p.flushing == 0 && len(p.waiters) == 0 && !p.closed {
		if end := head.since.Add(p.cfg.Linger); end.After(due) {
			due = end
		}
	}
	if p.noRetry || due.IsZero() || !due.After(time.Now()) {
		delete(p.waiting, q)
		q.state = queueReady
		p.ready = append(p.ready, q)
		if p.workers < producerWorkers && (!byWorker || len(p.ready) > 1) {
			p.workers++
			go p.work()
		}
		return
	}
	q.state, q.due = queueWaiting, due
	p.waiting[q] = struct{}{}
	p.wakeAtLocked(due)
}

// wakeAtLocked sees to it that wake is called at t, or before.
func (p *Producer) wakeAtLocked(t time.Time) {
	if !p.timerAt.IsZero() && !t.Before(p.timerAt) {
		return
	}
	p.timerAt = t
	if p.timer == nil {
		p.timer = time.AfterFunc(time.Until(t), p.wake)
		return
	}
	p.timer.Reset(time.Until(t))
}

// wake hands the queues that are due to the workers.
func (p *Producer) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timerAt = time.Time{}
	now := time.Now()
	for q := range p.waiting {
		if q.due.After(now) {
			p.wakeAtLocked(q.due)
			continue
		}
		q.state = queueIdle
		p.scheduleLocked(q, false)
	}
}

// hurryLocked looks at those that wait again, because the reason may be gone.
func (p *Producer) hurryLocked() {
	for q := range p.waiting {
		q.state = queueIdle
		p.scheduleLocked(q, false)
	}
}

// producerID is the producer's id, for which the first to ask waits.
func (p *Producer) producerID(ctx context.Context) (int64, error) {
	select {
	case p.idTurn <- struct{}{}:
		defer func() { <-p.idTurn }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if p.id < 0 {
		id, err := p.db.engine.AllocateProducerID(ctx)
		if err != nil {
			return 0, err
		}
		p.id = id
	}
	return p.id, nil
}
