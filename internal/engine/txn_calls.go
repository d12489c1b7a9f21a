package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/x/embedlog/log"
)

// What peers ask of each other about transactions.
const (
	askAdd    = 1 // add the partitions to the transaction
	askVerify = 2 // say whether they are part of it
	askMarker = 3 // write the marker
	askSync   = 4 // make what was acknowledged durable
)

// txnQuestion is about a transaction, to its coordinator.
type txnQuestion struct {
	Op         int
	ID         string
	ProducerID int64
	Epoch      int16
	Parts      []TopicPartitions
}

// markerQuestion is about a partition that a transaction wrote to, to its leader.
type markerQuestion struct {
	Op         int
	Topic      TopicID
	Partition  int32
	ProducerID int64
	Epoch      int16
	Commit     bool
	TxnV2      bool
	// Coordinator is the coordinator's epoch.
	Coordinator int32
	// Number grows with the ends that a coordinator has under way: with it, a request
	// that was on its way for long is told from that of the next transaction.
	Number int64
	// Again says that it may have been written before.
	Again bool
}

// markerPatience is how long a coordinator waits for one partition's marker before it
// tries again later.
const markerPatience = 10 * time.Second

func txnPartsList(parts []txnPart) (list []TopicPartitions) {
	for _, p := range parts {
		if n := len(list); n == 0 || list[n-1].Topic != p.topic {
			list = append(list, TopicPartitions{Topic: p.topic})
		}
		last := &list[len(list)-1]
		last.Partitions = append(last.Partitions, p.partition)
	}
	return list
}

// atCoordinator has an id's coordinator answer, wherever it is. Where it cannot be
// found the error matches ErrCoordinatorLoading: not that this node does not lead, which
// whoever asks would take for something about his own partition.
func (t *Txns) atCoordinator(ctx context.Context, q txnQuestion) error {
	if t.e.options.Cluster == nil {
		return t.answer(ctx, &q)
	}
	shards, err := t.prepare(ctx, false)
	if err == nil && shards == nil {
		shards, err = t.prepareKnowing(ctx)
	}
	if err == nil && shards == nil {
		err = &ProducerMappingError{TransactionalID: q.ID, ProducerID: q.ProducerID}
	}
	if err != nil {
		return err
	}
	part := shards[offsetsPartitionOf(q.ID, len(shards))].part
	_, err = t.e.askTxn().atLeader(ctx, part, &q)
	if tryElsewhere(err) && ctx.Err() == nil { // asked again it does nothing twice
		err = fmt.Errorf("%w: transactional id %q: %v", ErrCoordinatorLoading, q.ID, err)
	}
	return err
}

// prepareKnowing is prepare, without making the topic, on a node that may not have heard of it yet: to
// a producer it is final that nobody knows its id.
func (t *Txns) prepareKnowing(ctx context.Context) ([]*txnShard, error) {
	if topic, err := t.e.internalTopic(ctx, txnTopicName); topic == nil {
		return nil, err
	}
	return t.prepare(ctx, false)
}

// answer answers a txnQuestion as the coordinator.
func (t *Txns) answer(ctx context.Context, q *txnQuestion) error {
	var parts []txnPart
	for _, p := range q.Parts {
		for _, n := range p.Partitions {
			parts = append(parts, txnPart{p.Topic, n})
		}
	}
	switch q.Op {
	case askAdd:
		return t.addHere(ctx, q.ID, q.ProducerID, q.Epoch, parts)
	case askVerify:
		return t.verifyHere(ctx, q.ID, q.ProducerID, q.Epoch, parts)
	}
	return fmt.Errorf("a question of kind %d about a transaction", q.Op)
}

// ask has the leader of a partition answer.
func (t *Txns) ask(p txnPart, q markerQuestion) error {
	q.Topic, q.Partition = p.topic, p.partition
	if t.e.options.Cluster == nil {
		return t.answerMarker(context.Background(), &q)
	}
	part, err := t.partition(p)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.e.life, markerPatience)
	defer cancel()
	_, err = t.e.askMarker().atLeader(ctx, part, &q)
	return err
}

// answerMarker answers a markerQuestion as the leader of the partition.
func (t *Txns) answerMarker(ctx context.Context, q *markerQuestion) error {
	part, err := t.partition(txnPart{q.Topic, q.Partition})
	if err != nil {
		return err
	}
	switch q.Op {
	case askMarker:
		return t.markOne(ctx, part, q)
	case askSync:
		if part.repl != nil && part.Config().Log.Level == log.Durable {
			return nil
		}
		return part.Sync(ctx)
	}
	return fmt.Errorf("a question of kind %d about a partition in a transaction", q.Op)
}

// markerMemory keeps a marker from being written twice for a client of KIP-98, whose
// next transaction has the same epoch: a request that its coordinator gave up and sent
// again could land in it. It remembers of each producer the last one that was written
// here. Where the partition has moved meanwhile the late one is refused, as this node
// does not lead it; where the coordinator has, by its epoch.
type markerMemory struct {
	mu   sync.Mutex
	last map[markerPlace]*markerMark
}

type markerPlace struct {
	part     *Partition
	producer int64
}

type markerMark struct {
	busy        chan struct{} // holds a token while nobody writes one
	users       int
	coordinator int32
	number      int64
}

// maxMarkerMarks bounds the memory.
const maxMarkerMarks = 50_000

// enter waits for the producer's turn, until leave. written says that the marker is there.
func (m *markerMemory) enter(ctx context.Context, part *Partition, q *markerQuestion) (written bool, leave func(), err error) {
	if part.repl == nil || q.TxnV2 {
		return false, func() {}, nil
	}
	at := markerPlace{part, q.ProducerID}
	m.mu.Lock()
	if m.last == nil {
		m.last = make(map[markerPlace]*markerMark)
	}
	mark := m.last[at]
	if mark == nil {
		if len(m.last) >= maxMarkerMarks {
			m.makeRoomLocked()
		}
		mark = &markerMark{busy: make(chan struct{}, 1), coordinator: -1}
		mark.busy <- struct{}{}
		m.last[at] = mark
	}
	mark.users++
	m.mu.Unlock()
	out := func() {
		m.mu.Lock()
		mark.users--
		m.mu.Unlock()
	}
	if err := take(ctx, mark.busy); err != nil {
		out()
		return false, nil, err
	}
	leave = func() {
		mark.busy <- struct{}{}
		out()
	}
	return mark.coordinator == q.Coordinator && mark.number >= q.Number, leave, nil
}

// makeRoomLocked forgets some that nobody waits for.
func (m *markerMemory) makeRoomLocked() {
	n := 0
	for at, mark := range m.last {
		if mark.users == 0 {
			delete(m.last, at)
			n++
		}
		if n >= maxMarkerMarks/10 {
			return
		}
	}
}

// written notes a marker. The caller has entered.
func (m *markerMemory) written(part *Partition, q *markerQuestion) {
	if part.repl == nil || q.TxnV2 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	mark := m.last[markerPlace{part, q.ProducerID}]
	mark.coordinator, mark.number = q.Coordinator, q.Number
}
