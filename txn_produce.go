package embedlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Produce appends records, which name their topics, as a part of the transaction:
// each to the partition that Topic.Produce would choose. It returns where they
// are. They are made durable by Commit, and not before.
//
// After an error the transaction can only be aborted.
func (t *Txn) Produce(ctx context.Context, recs ...Record) ([]Position, error) {
	return t.produce(ctx, recs, func(r *Record, top *Topic, partitions int) int32 {
		return top.partitionOf(r, partitions)
	})
}

// ProduceTo is Produce to the partition that each record names.
func (t *Txn) ProduceTo(ctx context.Context, recs ...Record) ([]Position, error) {
	return t.produce(ctx, recs, func(r *Record, _ *Topic, _ int) int32 { return r.Partition })
}

// txnShare is what one partition gets of a call.
type txnShare struct {
	p     *engine.Partition
	part  *txnPart
	topic string
	recs  []log.Record
	index []int // the caller's, of each
	bases []int64
}

func (t *Txn) produce(ctx context.Context, recs []Record, choose func(*Record, *Topic, int) int32) ([]Position, error) {
	if err := t.begin(ctx); err != nil {
		return nil, fmt.Errorf("produce: %w", err)
	}
	defer t.release()
	if t.failed != nil {
		return nil, fmt.Errorf("produce: a part of the transaction failed: %w", t.failed)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	shares, err := t.shares(ctx, recs, choose)
	if err == nil {
		err = t.register(ctx, shares)
	}
	if err != nil {
		return nil, t.fail(err)
	}
	out := make([]Position, len(recs))
	for _, s := range shares {
		if err := s.append(ctx, t.session); err != nil {
			return nil, t.fail(err)
		}
		for i, at := range s.index {
			out[at] = Position{Topic: s.topic, Partition: s.p.ID(), LeaderEpoch: s.p.LeaderEpoch(), Offset: s.bases[i]}
		}
	}
	return out, nil
}

// shares sorts the records by partition, in the order given.
func (t *Txn) shares(ctx context.Context, recs []Record, choose func(*Record, *Topic, int) int32) (shares []*txnShare, err error) {
	of := make(map[place]*txnShare, 1)
	now := t.db.nowMillis()
	var handle *Topic
	var top *engine.Topic
	var s *txnShare
	for i := range recs {
		r := &recs[i]
		if i == 0 || r.Topic != recs[i-1].Topic {
			if handle, top, err = t.topic(ctx, r.Topic); err != nil {
				return nil, fmt.Errorf("produce to %s: %w", r.Topic, err)
			}
		}
		p, err := top.Partition(choose(r, handle, len(top.Partitions())))
		if err != nil {
			return nil, fmt.Errorf("produce to %s: %w", r.Topic, err)
		}
		if s == nil || s.p != p {
			if s = of[placeOf(p)]; s == nil {
				s = &txnShare{p: p, topic: r.Topic}
				if len(shares) == 0 { // mostly they all go to one
					s.recs, s.index = make([]log.Record, 0, len(recs)), make([]int, 0, len(recs))
				}
				of[placeOf(p)] = s
				shares = append(shares, s)
			}
		}
		s.recs, s.index = append(s.recs, log.Record{}), append(s.index, i)
		setProduced(&s.recs[len(s.recs)-1], r, now)
	}
	return shares, nil
}

// topic is the session's handle of a topic: what it remembers is where records
// without a key go next.
func (t *Txn) topic(ctx context.Context, name string) (*Topic, *engine.Topic, error) {
	if handle := t.session.topics[name]; handle != nil {
		if top, err := handle.current(); err == nil {
			return handle, top, nil
		}
	}
	top, err := t.db.topic(ctx, name)
	if err == nil {
		err = checkWritable(top)
	}
	if err != nil {
		return nil, nil, err
	}
	handle := t.db.handle(top)
	t.session.topics[name] = handle
	return handle, top, nil
}

// register tells the coordinator of partitions that are new in the transaction.
func (t *Txn) register(ctx context.Context, shares []*txnShare) error {
	var fresh []engine.TopicPartitions
	for _, s := range shares {
		if t.parts[placeOf(s.p)] == nil {
			fresh = append(fresh, engine.TopicPartitions{Topic: s.p.TopicID(), Partitions: []int32{s.p.ID()}})
		}
	}
	if len(fresh) > 0 {
		err := t.atFirst(ctx, func(s *txnSession) error {
			return t.db.engine.AnyTxns().AddPartitions(ctx, s.id, s.producerID, s.epoch, fresh)
		})
		if err != nil {
			return err
		}
	}
	for _, s := range shares {
		if s.part = t.parts[placeOf(s.p)]; s.part == nil {
			s.part = &txnPart{}
			t.parts[placeOf(s.p)] = s.part
		}
	}
	return nil
}

// atFirst calls f, which adds to the transaction. A session without a name that
// cannot be used any more, because it was not for a week or its last transaction
// waits for a partition, is replaced as long as nothing is in the transaction.
func (t *Txn) atFirst(ctx context.Context, f func(*txnSession) error) error {
	for {
		err := f(t.session)
		if len(t.parts) > 0 || t.session.named || !errors.Is(err, engine.ErrProducerMapping) && !errors.Is(err, ErrConcurrentTransactions) {
			return err
		}
		// The next one may wait for a partition as well; those that do are not kept, and
		// one that is made anew does not.
		old := t.session
		s, err := t.db.session(ctx, TxnOptions{Timeout: old.timeout})
		if err != nil {
			return err
		}
		s.topics, t.session = old.topics, s
	}
}

// append appends the share in as few batches as the topic allows.
func (s *txnShare) append(ctx context.Context, session *txnSession) error {
	s.bases = make([]int64, 0, len(s.recs))
	limit := s.p.Config().MaxBatchBytes
	for from := 0; from < len(s.recs); {
		to := cutBatch(s.recs, from, len(s.recs), limit)
		res, err := s.p.Append(ctx, s.recs[from:to], &partition.AppendOptions{Producer: &partition.Producer{
			ID: session.producerID, Epoch: session.epoch, Sequence: s.part.sequence, Transactional: true, TxnV2: true,
		}, Unsynced: true})
		if err != nil {
			return err
		}
		n := to - from
		s.part.sequence = int32((int64(s.part.sequence) + int64(n)) & maxSequence)
		for i := range n {
			s.bases = append(s.bases, res.BaseOffset+int64(i))
		}
		from = to
	}
	return nil
}

// maxSequence is the last sequence of a producer; the next one is 0.
const maxSequence = 1<<31 - 1
