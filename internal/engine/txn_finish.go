package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// maxTxnSyncs bounds how many partitions of one transaction are synced, or get
// their markers, at the same time: each may keep a thread in the kernel.
const maxTxnSyncs = 16

// finish carries a decision out. The caller has the id's turn. It runs to its end:
// nobody's context stops it half-way.
//
//	sync the data -> PrepareCommit, durable -> markers -> Complete in memory
//
// An error means that nothing was decided and the transaction is open as before,
// unless it matches partition.ErrUnknownOutcome: then the next open finds out.
// Markers that could not be written are no error; tick and the next request try again.
func (t *Txns) finish(x *txn, next txnMeta) error {
	t.ends.RLock()
	defer t.ends.RUnlock()
	if next.state == txnPrepareCommit {
		if err := t.syncData(&next); err != nil {
			return err
		}
	}
	// What a local producer aborts is not recorded: see Txns.
	if !next.local() || next.state == txnPrepareCommit {
		if err := t.write(x, &next); err != nil {
			return err
		}
	}
	x.meta.Store(&next)
	x.left, x.again = next.sortedParts(), false
	x.number = t.number.Add(1)
	t.markHeld(x)
	return nil
}

// syncData makes what the transaction wrote durable. It costs nothing where all of
// the partition is.
func (t *Txns) syncData(m *txnMeta) error {
	failed, err := t.each(m.sortedParts(), func(p txnPart) error {
		return t.ask(p, markerQuestion{Op: askSync})
	})
	if len(failed) == 0 {
		return nil
	}
	if tryElsewhere(err) {
		// Who leads that partition is nothing that whoever asked us should take for an answer
		// about the coordinator. Nothing is decided, and syncing again does no harm.
		err = fmt.Errorf("%w: records of transactional id %q cannot be synced: %v", ErrCoordinatorLoading, m.id, err)
	}
	return err
}

// partition finds a partition by its topic's id. One that was deleted matches
// ErrUnknownTopic.
func (t *Txns) partition(p txnPart) (*Partition, error) {
	topic, err := t.e.TopicByID(p.topic)
	if err != nil {
		return nil, err
	}
	return topic.Partition(p.partition)
}

// each calls f for the partitions, several at a time. Those of topics that this node
// knows to be deleted count as done; that another one does not know the topic may mean that
// it has not heard of it since it began. It returns those for which f failed, and one of the errors.
func (t *Txns) each(parts []txnPart, f func(txnPart) error) (failed []txnPart, err error) {
	one := func(p txnPart) error {
		err := f(p)
		if errors.Is(err, ErrUnknownTopic) {
			if _, here := t.partition(p); errors.Is(here, ErrUnknownTopic) {
				return nil
			}
			return fmt.Errorf("%w: %v", ErrCoordinatorLoading, err)
		}
		return err
	}
	if len(parts) == 1 {
		if err := one(parts[0]); err != nil {
			return parts, err
		}
		return nil, nil
	}
	var mu sync.Mutex
	var calls sync.WaitGroup
	slots := make(chan struct{}, maxTxnSyncs)
	for _, p := range parts {
		slots <- struct{}{}
		calls.Go(func() {
			defer func() { <-slots }()
			if e := one(p); e != nil {
				mu.Lock()
				failed, err = append(failed, p), e
				mu.Unlock()
			}
		})
	}
	calls.Wait()
	return failed, err
}

// mark writes the markers that are left, and makes the state complete when none
// is. The caller has the id's turn.
func (t *Txns) mark(x *txn) {
	t.ends.RLock()
	defer t.ends.RUnlock()
	t.markHeld(x)
}

// markHeld is mark for who has t.ends already.
func (t *Txns) markHeld(x *txn) {
	if x.stuck != nil || x.tenure().ended() != nil {
		return
	}
	m := x.meta.Load()
	q := markerQuestion{
		Op: askMarker, ProducerID: m.producerID, Epoch: m.epoch, Commit: m.state == txnPrepareCommit, TxnV2: m.version >= txnV2,
		Coordinator: t.coordinatorEpoch(x), Number: x.number, Again: x.again,
	}
	failed, err := t.each(x.left, func(p txnPart) error { return t.ask(p, q) })
	x.left, x.again = failed, true
	if len(failed) > 0 {
		t.warn("a transaction is decided, and cannot be ended in every partition", m, err)
		return
	}
	done := m.complete(t.e.Now())
	if x.earlier && done.local() {
		done = done.retired()
	}
	x.meta.Store(&done)
	x.unwritten = x.logged
}

// coordinatorEpoch is what the markers of an id carry.
func (t *Txns) coordinatorEpoch(x *txn) int32 {
	if x.shard != nil {
		return x.shard.tenure.epoch.Load()
	}
	// A transaction that leaves no record, as a local abort, does not make the topic.
	if topic, err := t.e.Topic(txnTopicName); err == nil {
		if state, err := topic.Partition(offsetsPartitionOf(x.meta.Load().id, len(topic.Partitions()))); err == nil {
			return max(state.LeaderEpoch(), 0)
		}
	}
	return 0
}

// markOne writes a marker in a partition that this node leads. A commit's is made
// durable: Complete, or the transaction that follows, may replace Prepare after it. An
// abort's need not be: what is found open and undecided is aborted.
func (t *Txns) markOne(ctx context.Context, part *Partition, q *markerQuestion) error {
	there, leave, err := t.markers.enter(ctx, part, q)
	if err != nil {
		return err
	}
	defer leave()
	if there {
		return nil
	}
	// In a group a marker that lies in the log may be taken back, when another node comes to lead. So it is
	// written once more: when that one is committed, the first one is, or is not needed.
	if part.repl != nil || !q.Again || !marked(part, q) {
		_, err = part.endTransactionHere(ctx, &endTxnCall{ProducerID: q.ProducerID, Epoch: q.Epoch, Commit: q.Commit, CoordinatorEpoch: q.Coordinator, TxnV2: q.TxnV2})
		var fenced *partition.FencedError
		if errors.As(err, &fenced) && !fenced.Coordinator {
			// A newer epoch was seen there, so the transaction ended there before.
			t.e.Logger().Warn("a transaction's marker is late", slog.String("partition", part.String()), slog.Any("error", err))
			err = nil
		}
		if err != nil {
			return err
		}
	}
	if q.Commit && (q.Again || part.Config().Log.Level != log.Durable) {
		if err := part.Sync(ctx); err != nil {
			return err
		}
	}
	if err := t.ended(ctx, part, q.ProducerID, q.Commit); err != nil {
		return err
	}
	t.markers.written(part, q)
	return nil
}

// ended tells the groups of a marker that is in the log: offsets that the producer
// committed count now, or never did.
func (t *Txns) ended(ctx context.Context, part *Partition, producerID int64, commit bool) error {
	if part.Topic() == offsetsTopicName {
		return t.e.groups.txnEnded(ctx, part.ID(), producerID, commit)
	}
	return nil
}

// marked says that the partition, which is in no group, has the marker for certain: with the second
// protocol the epoch tells. Otherwise it is written once more, which does nothing where no
// transaction is open.
func marked(part *Partition, q *markerQuestion) bool {
	s, ok := part.ProducerState(q.ProducerID)
	return ok && (s.Epoch > q.Epoch || s.Epoch == q.Epoch && q.TxnV2)
}

// txnLog is where records of ids go.
type txnLog struct {
	part   *Partition
	tenure *tenure
}

// logOf is where the id's records are.
func (t *Txns) logOf(x *txn) (txnLog, error) {
	if x.shard != nil {
		return txnLog{x.shard.part, x.shard.tenure}, nil
	}
	id := x.meta.Load().id
	topic, err := t.e.Topic(txnTopicName)
	if err != nil {
		if topic, err = t.e.InternalTopic(t.e.life, txnTopicName, txnTopicSettings); err != nil {
			return txnLog{}, err
		}
	}
	part, err := topic.Partition(offsetsPartitionOf(id, len(topic.Partitions())))
	return txnLog{part: part}, err
}

// write appends the id's state and waits until it is durable. The caller has the
// id's turn. After an unknown outcome nothing more is done with the id.
func (t *Txns) write(x *txn, m *txnMeta) error {
	state, err := t.logOf(x)
	if err != nil {
		return err
	}
	if err := state.append([]log.Record{t.record(m)}); err != nil {
		if errors.Is(err, partition.ErrUnknownOutcome) {
			x.stuck = err
		}
		return fmt.Errorf("transactional id %q: %w", m.id, err)
	}
	x.logged, x.unwritten = true, false
	return nil
}

// append writes records of the coordinator. The disk is waited for.
func (l *txnLog) append(recs []log.Record) error {
	_, err := l.tenure.append(context.Background(), l.part, recs, partition.AppendOptions{Internal: true})
	return err
}

func (t *Txns) record(m *txnMeta) log.Record {
	v := txnValue{
		ProducerID: m.producerID, PreviousProducerID: m.previous, NextProducerID: m.next, Epoch: m.epoch,
		TimeoutMillis: int32(m.timeout.Milliseconds()), State: m.state, UpdatedMillis: m.updated.UnixMilli(),
		StartedMillis: -1, ClientVersion: m.version, Owner: m.owner,
	}
	if !m.started.IsZero() {
		v.StartedMillis = m.started.UnixMilli()
	}
	if m.state != txnEmpty {
		v.Topics = []txnTopic{}
	}
	var last TopicID
	for _, p := range m.sortedParts() {
		if n := len(v.Topics); n > 0 && p.topic == last {
			v.Topics[n-1].Partitions = append(v.Topics[n-1].Partitions, p.partition)
			continue
		}
		// A topic that was deleted meanwhile has nothing to be ended.
		if topic, err := t.e.TopicByID(p.topic); err == nil {
			v.Topics = append(v.Topics, txnTopic{topic.Name(), []int32{p.partition}})
			last = p.topic
		}
	}
	return log.Record{Timestamp: m.updated.UnixMilli(), Key: appendTxnKey(nil, m.id), Value: appendTxnValue(nil, &v)}
}

func (t *Txns) writeTombstone(x *txn) error {
	state, err := t.logOf(x)
	if err != nil {
		return err
	}
	return state.append([]log.Record{{Timestamp: t.e.Now().UnixMilli(), Key: appendTxnKey(nil, x.meta.Load().id)}})
}

// maxCompletes bounds the records of one append of writeCompletes.
const maxCompletes = 500

// writeCompletes writes what has been complete for a while; with a zero time all
// of it. An id whose turn somebody has is passed over: it gets a newer record, or its turn
// comes again. Each partition's are one append.
func (t *Txns) writeCompletes(now time.Time) {
	batches := make(map[txnLog][]*txn)
	flush := func(state txnLog) {
		list := batches[state]
		delete(batches, state)
		recs := make([]log.Record, len(list))
		for i, x := range list {
			recs[i] = t.record(x.meta.Load())
		}
		err := state.append(recs)
		for _, x := range list {
			if err == nil {
				x.unwritten = false
			} else if errors.Is(err, partition.ErrUnknownOutcome) {
				x.stuck = err
			}
			x.release()
		}
		if err != nil {
			t.e.Logger().Warn("the ends of transactions could not be noted: they are looked at again at the next open", slog.Any("error", err))
		}
	}
	for _, x := range t.all() {
		if !now.IsZero() && now.Sub(x.meta.Load().updated) < completeDelay {
			continue
		}
		select {
		case <-x.turn:
		default:
			continue
		}
		m := x.meta.Load()
		if !x.unwritten || x.dead || x.stuck != nil || !m.state.ended() || x.tenure().ended() != nil {
			x.release()
			continue
		}
		state, err := t.logOf(x)
		if err != nil {
			x.release()
			continue
		}
		if batches[state] = append(batches[state], x); len(batches[state]) == maxCompletes {
			flush(state)
		}
	}
	for state := range batches {
		flush(state)
	}
}
