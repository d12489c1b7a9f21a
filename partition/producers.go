package partition

import (
	"math"
	"time"

	"github.com/x/embedlog/log"
)

const (
	// keptBatches is how many batches of a producer are remembered, and so how many
	// it may have in flight: a retry of any of them is recognised. Kafka's number.
	keptBatches = 5
	// maxSequence is the last sequence; the next one is 0.
	maxSequence = math.MaxInt32

	noProducer         int64 = -1
	noProducerEpoch    int16 = -1
	noSequence         int32 = -1
	noCoordinatorEpoch int32 = -1
)

// origin is who made a batch, and with it what is checked.
type origin uint8

const (
	// fromProducer is a batch of a producer: sequence and epoch are checked.
	fromProducer origin = iota
	// fromCoordinator is a marker, or an offset commit within a transaction. Those
	// have no sequence; the epoch is checked.
	fromCoordinator

	// withTxnV2 is added when the producer follows the second transaction protocol
	// (KIP-890), where each transaction has an epoch of its own.
	withTxnV2 origin = 1 << 7
)

func (o origin) coordinator() bool { return o&^withTxnV2 == fromCoordinator }
func (o origin) txnV2() bool       { return o&withTxnV2 != 0 }

// sentBatch is what is remembered of a batch. First sequence and offset follow:
// a producer's batch has as many sequences as offsets.
type sentBatch struct {
	lastSequence int32
	offsetDelta  int32 // last offset less base offset
	lastOffset   int64
	timestamp    int64 // the batch's maximum timestamp, milliseconds
}

func (b *sentBatch) firstSequence() int32 { return addSequence(b.lastSequence, -b.offsetDelta) }
func (b *sentBatch) baseOffset() int64    { return b.lastOffset - int64(b.offsetDelta) }

// addSequence counts on from a sequence; behind maxSequence comes 0.
func addSequence(s, n int32) int32 { return int32((int64(s) + int64(n)) & maxSequence) }

// producer is what a partition knows of a producer id. The rules are those of
// Kafka's ProducerStateManager and ProducerAppendInfo.
//
// It is a plain value: a copy of it is a snapshot.
type producer struct {
	id               int64
	epoch            int16 // noProducerEpoch until something was applied
	coordinatorEpoch int32 // of the last marker; noCoordinatorEpoch before
	txnFirst         int64 // first offset of the open transaction; noOffset when there is none
	lastAppend       int64 // milliseconds of the partition's clock (see clock); never falls
	kept             int   // batches in use
	batches          [keptBatches]sentBatch
}

func newProducer(id int64) producer {
	return producer{
		id: id, epoch: noProducerEpoch, coordinatorEpoch: noCoordinatorEpoch,
		txnFirst: noOffset, lastAppend: math.MinInt64,
	}
}

// duplicate finds the batch that h repeats: same epoch, same first and last
// sequence, one of the last five. An older one is not known any more and is
// refused as out of order.
func (p *producer) duplicate(h *log.BatchHeader) *sentBatch {
	if h.ProducerEpoch != p.epoch {
		return nil
	}
	first, last := h.BaseSequence, h.LastSequence()
	for i := range p.batches[:p.kept] {
		if b := &p.batches[i]; b.lastSequence == last && b.firstSequence() == first {
			return b
		}
	}
	return nil
}

// checkData says whether a data batch may be appended next.
//
// A producer id that is not known may begin with any sequence, as in Kafka: its
// state may have expired, and a producer that lives on must not be locked out.
// (Kafka once answered UNKNOWN_PRODUCER_ID there; KIP-360 ended that.) The price
// is that a retry that is older than the expiry is not recognised. In the second
// transaction protocol every transaction has a new epoch, so there even an
// unknown producer has to begin with 0.
func (p *producer) checkData(h *log.BatchHeader, o origin) error {
	if h.ProducerEpoch < p.epoch {
		return &FencedError{ProducerID: p.id, Epoch: int32(h.ProducerEpoch), Current: int32(p.epoch)}
	}
	transactional := h.Attributes.Has(log.Transactional)
	if !o.coordinator() {
		want := h.BaseSequence
		switch {
		case p.epoch == noProducerEpoch:
			if o.txnV2() && transactional {
				want = 0
			}
		case h.ProducerEpoch > p.epoch, p.kept == 0: // a new epoch, or one that only a marker was seen of
			want = 0
		default:
			want = addSequence(p.batches[p.kept-1].lastSequence, 1)
		}
		if h.BaseSequence != want {
			return &OutOfOrderSequenceError{ProducerID: p.id, Epoch: h.ProducerEpoch, Sequence: h.BaseSequence, Expected: want}
		}
	}
	if p.txnFirst >= 0 && !transactional {
		return &InvalidTxnStateError{ProducerID: p.id, FirstOffset: p.txnFirst, Reason: "a batch that is not transactional while a transaction is open"}
	}
	return nil
}

// checkMarker says whether a marker may be appended next. A marker for a producer
// without a transaction here is allowed: coordinators repeat themselves.
//
// In the first transaction protocol a marker carries the epoch of the
// transaction, or a newer one. In the second one it carries an epoch that is
// newer than the transaction's, so that a late marker cannot end the transaction
// that follows; the same epoch is a repetition, allowed while nothing is open.
func (p *producer) checkMarker(h *log.BatchHeader, m *marker, o origin) error {
	fenced := h.ProducerEpoch < p.epoch
	if o.txnV2() && h.ProducerEpoch == p.epoch && p.txnFirst >= 0 {
		fenced = true
	}
	if fenced {
		return &FencedError{ProducerID: p.id, Epoch: int32(h.ProducerEpoch), Current: int32(p.epoch)}
	}
	if m.coordinatorEpoch < p.coordinatorEpoch {
		return &FencedError{ProducerID: p.id, Coordinator: true, Epoch: m.coordinatorEpoch, Current: p.coordinatorEpoch}
	}
	return nil
}

// applyData takes in a data batch that is in the log. It checks nothing: recovery
// shows it the same batches again, less those that compaction has removed, and
// comes to the same state.
func (p *producer) applyData(h *log.BatchHeader, now int64) (step txnStep) {
	p.seen(h.ProducerEpoch, now)
	// An older epoch is never written; if the log has one, the newer one keeps its sequences.
	if h.ProducerEpoch == p.epoch && h.BaseSequence >= 0 {
		if p.kept == keptBatches {
			copy(p.batches[:], p.batches[1:])
			p.kept--
		}
		p.batches[p.kept] = sentBatch{
			lastSequence: h.LastSequence(), offsetDelta: h.LastOffsetDelta,
			lastOffset: h.LastOffset(), timestamp: h.MaxTimestamp,
		}
		p.kept++
	}
	if h.Attributes.Has(log.Transactional) && p.txnFirst < 0 {
		p.txnFirst = h.BaseOffset
		return txnStep{kind: txnBegins, producerID: p.id, first: h.BaseOffset}
	}
	return txnStep{}
}

// applyMarker takes in a marker that is in the log.
func (p *producer) applyMarker(h *log.BatchHeader, m *marker, now int64) (step txnStep) {
	p.seen(h.ProducerEpoch, now)
	p.coordinatorEpoch = max(p.coordinatorEpoch, m.coordinatorEpoch)
	if p.txnFirst < 0 {
		return txnStep{} // nothing was open: nothing waits for it, nothing is hidden by it
	}
	step = txnStep{kind: txnAborts, producerID: p.id, first: p.txnFirst, marker: h.BaseOffset}
	if m.commit {
		step.kind = txnCommits
	}
	p.txnFirst = noOffset
	return step
}

// seen notes that the producer, or its coordinator, wrote with this epoch.
// Sequences begin again with each epoch.
func (p *producer) seen(epoch int16, now int64) {
	if epoch > p.epoch {
		p.epoch = epoch
		p.kept = 0
	}
	p.lastAppend = max(p.lastAppend, now)
}

// producers are the producer ids that a partition knows.
//
// Deleting records does not remove a producer, as in Kafka: only time does.
type producers map[int64]*producer

// expire forgets the producers that have not written for ttl, and returns how
// many. One with an open transaction stays: forgetting it would end the
// transaction for readers. Zero or less expires nobody.
//
// A now that lies before a producer's last append expires nothing.
func (ps producers) expire(now int64, ttl time.Duration) (n int) {
	idleSince := now - ttl.Milliseconds()
	if ttl <= 0 || idleSince > now { // off, or a clock so far back that there is no such time
		return 0
	}
	for id, p := range ps {
		if p.txnFirst < 0 && p.lastAppend <= idleSince {
			delete(ps, id)
			n++
		}
	}
	return n
}

// lastAppend is the newest append of any producer, for newClock.
func (ps producers) lastAppend() int64 {
	last := int64(math.MinInt64)
	for _, p := range ps {
		last = max(last, p.lastAppend)
	}
	return last
}

// clock is the time that producers expire by, in milliseconds since 1970: the
// wall clock when the partition was opened, then the machine's running time.
// Record timestamps do not count: a producer that sends last year's records is
// not idle.
//
// A wall clock that is set while we run changes nothing, in neither direction.
// One that was set back before we were opened, as on a device without a battery,
// is brought up to the newest append that the checkpoint knows, so that new
// appends do not look older than old ones.
type clock struct {
	base  int64
	start time.Time // with a monotonic reading
}

func newClock(newest int64) clock {
	now := time.Now()
	return clock{base: max(now.UnixMilli(), newest), start: now}
}

func (c clock) now() int64 { return c.base + time.Since(c.start).Milliseconds() }
