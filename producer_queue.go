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
//
// Where a partition is replicated, the next one may go when the log of this node has the
// one before it, and no majority does yet:
//
//	answered | under way, in the log | under way, not yet | the rest
//	           batches[0]              batches[1]           batches[2:]
//
// Whatever becomes of them, they are answered in order, and tried again in order, one alone:
// what has failed behind another waits until that one is answered.
type producerQueue struct {
	p     *engine.Partition
	topic string

	// Guarded by Producer.mu.
	batches []*producerBatch
	under   int                // attempts under way
	acked   partition.Producer // of the last batch that went through; its ID is -1 before the first one
	state   queueState
	due     time.Time // when state is queueWaiting
	retryAt time.Time // not before; zero after a batch that went through

	// What follows belongs to the worker that has the first batch.
	backoff time.Duration
	// producer is how the next batch is numbered. Its ID is -1 before the first one.
	producer partition.Producer
}

type queueState uint8

const (
	queueIdle    queueState = iota // nothing to do, or nothing is known of it yet
	queueWaiting                   // for Linger or to try again: in Producer.waiting
	queueReady                     // in Producer.ready
	queueBusy                      // a worker has a batch of it that is not in the log yet
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
	attempt *attempt      // that is under way
	ended   *outcome      // of one that waits for the batches before this one to be answered

	// What follows belongs to the worker that has the batch.
	numbered bool
	producer partition.Producer // when numbered
	// uncertain is an attempt whose outcome is not known: only the same batch with the
	// same sequence may follow it.
	uncertain error
}

// attempt is one to write a batch. Guarded by Producer.mu.
type attempt struct {
	behind bool // another batch, which was under way when it began
	placed bool // the log of this node has it
	ended  bool
}

// outcome is what an attempt came to.
type outcome struct {
	res    partition.Result
	err    error
	behind bool
}

// heldOverhead is what a record takes in a batch besides its bytes, about.
const heldOverhead = 128

// queueLocked is the queue of a partition, made at its first record.
func (t *producerTopic) queueLocked(id int32, part *engine.Partition) *producerQueue {
	for int(id) >= len(t.queues) {
		t.queues = append(t.queues, nil)
	}
	if t.queues[id] == nil {
		t.queues[id] = &producerQueue{p: part, topic: t.name, producer: partition.Producer{ID: -1}, acked: partition.Producer{ID: -1}}
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

const (
	// mostUnder is how many batches of a partition may be under way. A partition remembers more.
	mostUnder = 3
	// worthBytes is the least for which a batch goes while another one of its partition is under way: what is
	// less costs more by itself than as a part of what comes meanwhile.
	worthBytes = 64 << 10
)

// nextLocked is the batch that may be tried now, nil if none may.
//
// One goes behind another only when the producer has had a batch acknowledged under the same id and epoch:
// then no leader takes it if it does not have the one before it.
func (p *Producer) nextLocked(q *producerQueue) *producerBatch {
	n := q.under
	if n >= len(q.batches) || q.batches[n].ended != nil {
		return nil
	}
	next := q.batches[n]
	if n == 0 {
		return next
	}
	if n == mostUnder || p.drop {
		return nil
	}
	for _, b := range q.batches[:n] {
		if a := b.attempt; a == nil || !a.placed || a.ended {
			return nil
		}
		if !b.numbered || b.uncertain != nil || b.producer.ID != q.acked.ID || b.producer.Epoch != q.acked.Epoch {
			return nil
		}
	}
	if !next.sealed && next.size < max(worthBytes, q.batches[n-1].size) {
		return nil
	}
	return next
}

// landLocked ends a batch's attempt.
func (q *producerQueue) landLocked(b *producerBatch) {
	if b.attempt != nil {
		b.attempt = nil
		q.under--
	}
}

// scheduleLocked puts the queue where its next batch has to go: to the workers,
// now, or among those that wait. byWorker says that a worker asks, who will look at
// p.ready next.
func (p *Producer) scheduleLocked(q *producerQueue, byWorker bool) {
	if q.state == queueReady || q.state == queueBusy {
		return
	}
	next := p.nextLocked(q)
	if next == nil || q.under > 0 && p.workers == producerWorkers {
		return
	}
	due := q.retryAt
	if p.cfg.Linger > 0 && !next.sealed && p.flushing == 0 && len(p.waiters) == 0 && !p.closed {
		if end := next.since.Add(p.cfg.Linger); end.After(due) {
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
