package engine

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// txnState is where a transactional id stands. The numbers are Kafka's.
//
//	         AddPartitions            End              all markers written
//	Empty ----------------> Ongoing -------> Prepare* --------------------> Complete*
//	  ^                        |  timeout, InitProducer: as End, abort          |
//	  |                        v                                                |
//	  +---- InitProducer --- Prepare Abort ...        Ongoing <-- AddPartitions-+
type txnState int8

const (
	txnEmpty          txnState = 0
	txnOngoing        txnState = 1
	txnPrepareCommit  txnState = 2
	txnPrepareAbort   txnState = 3
	txnCompleteCommit txnState = 4
	txnCompleteAbort  txnState = 5
	txnDead           txnState = 6 // Kafka's, of an id that is being expired; here a tombstone is written at once
	txnEpochFence     txnState = 7 // Kafka's, never written to its log
)

var txnStateNames = [...]string{"Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead", "PrepareEpochFence"}

func (s txnState) known() bool { return s >= 0 && int(s) < len(txnStateNames) }

// String is Kafka's name of the state.
func (s txnState) String() string {
	if !s.known() {
		return fmt.Sprintf("state %d", int8(s))
	}
	return txnStateNames[s]
}

func (s txnState) prepared() bool { return s == txnPrepareCommit || s == txnPrepareAbort }
func (s txnState) ended() bool {
	return s == txnCompleteCommit || s == txnCompleteAbort || s == txnEmpty || s == txnDead
}

// decided is what an end goes through.
func decided(commit bool) (prepare, complete txnState) {
	if commit {
		return txnPrepareCommit, txnCompleteCommit
	}
	return txnPrepareAbort, txnCompleteAbort
}

// The client's transaction protocol, as its records have it.
const (
	txnV1 int16 = 0 // one epoch for many transactions (KIP-98). Kafka's 0 and 1 differ in the log's encoding only
	txnV2 int16 = 2 // each transaction has an epoch of its own (KIP-890)
)

// lastTxnEpoch is the last epoch that a transaction may have: its markers get the
// one above. Then the id gets another producer id, which begins with epoch 0.
const lastTxnEpoch = math.MaxInt16 - 1

// txnPart is a partition that a transaction writes to. The id tells a topic from
// one that had its name before.
type txnPart struct {
	topic     TopicID
	partition int32
}

func compareTxnParts(a, b txnPart) int {
	return cmp.Or(slices.Compare(a.topic[:], b.topic[:]), cmp.Compare(a.partition, b.partition))
}

// txnFence is why the last transaction was aborted, if not by its producer, who is
// told so. It lives in memory only: later the producer is just fenced.
type txnFence uint8

const (
	notFenced txnFence = iota
	fenceTimeout
	fenceTakeover
)

// txnMeta is what is known of a transactional id. It is a value: a transition
// makes another one, which takes the place of this one when it is on disk.
//
// The functions below are the whole of the protocol's rules: no clock, no I/O, no
// lock. Who calls them sees to it that one transition of an id is under way at a time.
type txnMeta struct {
	id         string
	producerID int64 // -1: the next InitProducer allocates one
	// previous is the producer id before this one; -1 when there was none. A client
	// that did not hear of the change says it.
	previous int64
	// next is set while an end that uses up the last epoch is prepared: the next transaction's
	// producer id. -1 otherwise.
	next  int64
	epoch int16 // of the open transaction, or of the next one; of the markers while prepared
	// lastEpoch is the epoch before the last one of the same producer id; -1 when it
	// is not known. It lives in memory only: it recognises a repeated InitProducer.
	lastEpoch        int16
	version          int16 // txnV1 or txnV2, of the transaction that is open or ended last
	owner            txnOwner
	state            txnState
	timeout          time.Duration
	fenced           txnFence
	parts            map[txnPart]struct{} // never changed once the value is in use
	started, updated time.Time            // with monotonic readings, where they were not read from disk
}

func newTxnMeta(id string) txnMeta {
	return txnMeta{id: id, producerID: -1, previous: -1, next: -1, epoch: -1, lastEpoch: -1}
}

func (m *txnMeta) sortedParts() []txnPart {
	return slices.SortedFunc(maps.Keys(m.parts), compareTxnParts)
}

// local says that the id's producer lives in this process.
func (m *txnMeta) local() bool { return m.owner != ownerClient }

// concurrent is the answer while the id's transaction is being ended.
func (m *txnMeta) concurrent() error {
	return &ConcurrentTransactionsError{TransactionalID: m.id, State: m.state.String()}
}

func (m *txnMeta) invalid(what string) error {
	return &TxnStateError{TransactionalID: m.id, State: m.state.String(), Request: what}
}

// checkProducer says whether producer id and epoch are those of the id now.
func (m *txnMeta) checkProducer(producerID int64, epoch int16) error {
	switch {
	case producerID < 0:
	case producerID == m.producerID && epoch == m.epoch:
		return nil
	case m.fenced == fenceTimeout && m.repeats(producerID, epoch):
		return &TxnAbortedError{TransactionalID: m.id, Timeout: m.timeout}
	case producerID == m.producerID, producerID == m.previous:
		return &TxnFencedError{TransactionalID: m.id, ProducerID: producerID, Epoch: epoch, CurrentID: m.producerID, Current: m.epoch}
	}
	return &ProducerMappingError{TransactionalID: m.id, ProducerID: producerID}
}

// repeats says that producer id and epoch are those that the last end took away:
// the epoch below, or the last one of the producer id before.
func (m *txnMeta) repeats(producerID int64, epoch int16) bool {
	if producerID == m.producerID && producerID >= 0 {
		return m.epoch > 0 && epoch == m.epoch-1
	}
	return producerID == m.previous && producerID >= 0 && epoch == lastTxnEpoch && m.epoch == 0
}

// txnInit is what InitProducer asks of an id. ProducerID and Epoch are -1 when the
// caller does not know of any: it takes the id over, whoever has it.
type txnInit struct {
	producerID int64
	epoch      int16
	timeout    time.Duration
	owner      txnOwner
	now        time.Time
}

// initStep is what is to be done for an InitProducer.
type initStep uint8

const (
	initBump     initStep = iota // the new state has the epoch
	initAllocate                 // with a new producer id: see withProducer
	initRepeated                 // answered before: the state stays
	initAbort                    // abort what is open first, then ask again
)

// init gives the id to a producer: with an epoch above all that were given before.
func (m *txnMeta) init(r *txnInit) (next txnMeta, step initStep, err error) {
	expects := r.producerID >= 0
	if expects {
		switch {
		case m.producerID < 0:
			// Expired and forgotten, or of an earlier run: it may begin anew.
		case r.producerID == m.producerID && (r.epoch == m.epoch || r.epoch == m.lastEpoch):
		case m.fenced == fenceTimeout && m.repeats(r.producerID, r.epoch):
			// A client whose transaction timed out comes back (KIP-588).
		default:
			return *m, 0, &TxnFencedError{TransactionalID: m.id, ProducerID: r.producerID, Epoch: r.epoch, CurrentID: m.producerID, Current: m.epoch}
		}
	}
	switch {
	case m.state.prepared():
		return *m, 0, m.concurrent()
	case m.state == txnOngoing:
		return *m, initAbort, nil
	case expects && r.producerID == m.producerID && r.epoch == m.lastEpoch && r.epoch != m.epoch:
		return *m, initRepeated, nil
	}
	next = *m
	next.state, next.parts = txnEmpty, nil
	next.timeout, next.owner, next.updated, next.started = r.timeout, r.owner, r.now, time.Time{}
	next.fenced = notFenced
	if m.producerID < 0 || m.epoch >= lastTxnEpoch {
		return next, initAllocate, nil
	}
	next.epoch, next.lastEpoch = m.epoch+1, -1
	if expects {
		next.lastEpoch = m.epoch
	}
	return next, initBump, nil
}

// withProducer gives the id another producer id, which begins with epoch 0.
func (m txnMeta) withProducer(producerID int64) txnMeta {
	m.previous, m.producerID = m.producerID, producerID
	m.epoch, m.lastEpoch = 0, -1
	return m
}

// add makes the partitions part of the transaction, and begins one if none is
// open. changed is false when all of them were part of it already.
func (m *txnMeta) add(producerID int64, epoch int16, parts []txnPart, now time.Time) (next txnMeta, changed bool, err error) {
	if err := m.checkProducer(producerID, epoch); err != nil {
		return *m, false, err
	}
	if m.state.prepared() {
		return *m, false, m.concurrent()
	}
	next = *m
	if m.state != txnOngoing {
		next.state, next.started, next.parts, next.fenced = txnOngoing, now, nil, notFenced
	}
	for _, p := range parts {
		if _, there := next.parts[p]; there {
			continue
		}
		if !changed {
			grown := make(map[txnPart]struct{}, len(next.parts)+len(parts))
			maps.Copy(grown, next.parts)
			next.parts, changed = grown, true
		}
		next.parts[p] = struct{}{}
	}
	if changed {
		next.updated = now
	}
	return next, changed, nil
}

// end decides the transaction. repeated says that this very end was answered
// before: the answer is the id's producer id and epoch. A state that is prepared
// is to be written, then the markers, then completed.
//
// With the second protocol a client may abort what it never began: whether its
// last request arrived is what it does not know. It gets a new epoch.
func (m *txnMeta) end(producerID int64, epoch int16, commit bool, version int16, now time.Time) (next txnMeta, repeated bool, err error) {
	request := "abort"
	if commit {
		request = "commit"
	}
	_, complete := decided(commit)
	repeats := version >= txnV2 && m.version >= txnV2 && m.repeats(producerID, epoch)
	// While it is prepared, the epoch is that of the markers already.
	if m.state.prepared() {
		prepare, _ := decided(commit)
		bumped := m.version >= txnV2 && producerID == m.producerID && m.epoch > 0 && epoch == m.epoch-1
		if !bumped {
			if err := m.checkProducer(producerID, epoch); err != nil {
				return *m, false, err
			}
		}
		if m.fenced == fenceTimeout {
			return *m, false, &TxnAbortedError{TransactionalID: m.id, Timeout: m.timeout}
		}
		if m.state != prepare {
			return *m, false, m.invalid(request)
		}
		return *m, false, m.concurrent()
	}
	if repeats && m.fenced == notFenced {
		switch m.state {
		case complete:
			return *m, true, nil
		case txnOngoing, txnEmpty:
			return *m, false, &TxnFencedError{TransactionalID: m.id, ProducerID: producerID, Epoch: epoch, CurrentID: m.producerID, Current: m.epoch}
		default:
			return *m, false, m.invalid(request)
		}
	}
	if err := m.checkProducer(producerID, epoch); err != nil {
		return *m, false, err
	}
	switch {
	case m.state == txnOngoing:
	case version < txnV2 && m.state == complete && m.version < txnV2:
		return *m, true, nil
	case version >= txnV2 && !commit && m.state.ended():
	default:
		return *m, false, m.invalid(request)
	}
	return m.prepare(commit, version, notFenced, now), false, nil
}

// prepare is the state that decides. The markers' epoch is above the
// transaction's with the second protocol, and when the coordinator ends it itself.
func (m *txnMeta) prepare(commit bool, version int16, fence txnFence, now time.Time) txnMeta {
	next := *m
	next.state, _ = decided(commit)
	next.version, next.updated, next.fenced = version, now, fence
	if m.state != txnOngoing {
		next.started, next.parts = now, nil
	}
	if version >= txnV2 || fence != notFenced {
		next.epoch, next.lastEpoch = m.epoch+1, m.epoch
	}
	if fence != notFenced {
		next.lastEpoch = -1
	}
	return next
}

// exhausted says that the end of the transaction uses up the last epoch, so that a
// producer id for the next one is to be allocated before it is prepared.
func (m *txnMeta) exhausted() bool { return m.epoch >= lastTxnEpoch }

// expired says that the time of the open transaction is over.
func (m *txnMeta) expired(now time.Time) bool {
	return m.state == txnOngoing && now.Sub(m.started) >= m.timeout
}

// complete is the state once all markers are written.
func (m *txnMeta) complete(now time.Time) txnMeta {
	next := *m
	_, next.state = decided(m.state == txnPrepareCommit)
	next.parts = nil
	next.updated = now
	if m.next >= 0 {
		next = next.withProducer(m.next)
		next.next = -1
	}
	return next
}

// retired is the state of an id whose owner was in an earlier run of this process.
// What of it was only in memory is lost, the newest epochs among it: so it gets
// another producer id when it is used again, and no epoch is ever given twice.
func (m *txnMeta) retired() txnMeta {
	next := *m
	next.previous, next.producerID = -1, -1
	next.epoch, next.lastEpoch = -1, -1
	return next
}

// answer is the producer id and epoch for the next transaction.
func (m *txnMeta) answer() (producerID int64, epoch int16) {
	if m.next >= 0 {
		return m.next, 0
	}
	return m.producerID, m.epoch
}
