package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"time"

	"github.com/x/embedlog/log"
)

// load reads the coordinator's records and ends what the run before has left: see
// Txns for why that is safe. It is called once, when all partitions are open and
// before anybody else has the engine. What cannot be ended now, because a
// partition cannot be written, is tried again by tick.
func (t *Txns) load() {
	t.replay()
	for _, x := range t.all() {
		<-x.turn
		switch m := x.meta.Load(); {
		case m.state.prepared():
			x.left, x.again = m.sortedParts(), true
			t.mark(x)
		case m.local():
			retired := m.retired()
			x.meta.Store(&retired)
		}
		x.release()
	}
	t.sweep()
}

// replay reads __transaction_state.
func (t *Txns) replay() {
	topic, err := t.e.Topic(txnTopicName)
	if err != nil {
		return // no transaction was ever begun
	}
	for _, part := range topic.Partitions() {
		if err := t.replayPartition(part, nil, t.ids); err != nil {
			t.incomplete = true
			t.e.Logger().Error("records of the transaction coordinator cannot be read: transactions that nothing is known of stay open",
				slog.String("partition", part.String()), slog.Any("error", err))
		}
	}
}

// replayPartition reads one partition to its end, past what is damaged, into ids. It
// returns the first thing that was wrong.
func (t *Txns) replayPartition(part *Partition, s *txnShard, ids map[string]*txn) (bad error) {
	note := func(err error) {
		if bad == nil {
			bad = err
		}
	}
	r, err := part.ReadFrom(part.LogStart(), nil)
	if err != nil {
		return err
	}
	for {
		b, err := r.TryNext()
		var damage *log.CorruptionError
		switch {
		case err == io.EOF:
			return bad
		case errors.As(err, &damage):
			note(err)
			if _, err := r.Skip(); err != nil {
				return bad
			}
			continue
		case err != nil:
			return err
		}
		for rec, err := range b.Records(part.Config().MaxDecompressedBytes) {
			if err == nil {
				err = t.replayRecord(&rec, s, ids)
			}
			if err != nil {
				note(err)
			}
		}
	}
}

func (t *Txns) replayRecord(rec *log.Record, s *txnShard, ids map[string]*txn) error {
	id, err := parseTxnKey(rec.Key)
	if err != nil {
		return err
	}
	if rec.Value == nil {
		delete(ids, id)
		return nil
	}
	v, err := parseTxnValue(rec.Value)
	if err != nil {
		return err
	}
	m := newTxnMeta(id)
	m.producerID, m.previous, m.next, m.epoch = v.ProducerID, v.PreviousProducerID, v.NextProducerID, v.Epoch
	m.state, m.owner, m.version = v.State, v.Owner, v.ClientVersion
	if m.state == txnEpochFence { // Kafka's, in memory only
		m.state = txnOngoing
	}
	m.timeout = time.Duration(v.TimeoutMillis) * time.Millisecond
	m.updated = time.UnixMilli(v.UpdatedMillis)
	if v.StartedMillis >= 0 {
		// The clock that it was begun by may have been another node's, or have been set back
		// since: from now on the running time counts, and no more than the timeout of it.
		now := t.e.Now()
		m.started = now.Add(-max(now.Sub(time.UnixMilli(v.StartedMillis)), 0))
	}
	for _, topic := range v.Topics {
		named, err := t.e.Topic(topic.Topic)
		if err != nil {
			continue // deleted, with all that was written to it
		}
		if m.parts == nil {
			m.parts = make(map[txnPart]struct{})
		}
		for _, n := range topic.Partitions {
			if _, err := named.Partition(n); err == nil {
				m.parts[txnPart{named.ID(), n}] = struct{}{}
			}
		}
	}
	x := newTxn(s, m)
	x.logged, x.earlier = true, true
	ids[id] = x
	return nil
}

// sweep aborts the open transactions that no record of the coordinator covers. It returns why some
// could not be, though nothing is damaged.
func (t *Txns) sweep() (left []error) {
	byProducer := make(map[int64]*txnMeta)
	for _, x := range t.all() {
		m := x.meta.Load()
		byProducer[m.producerID] = m
	}
	for _, topic := range t.e.Topics() {
		for _, part := range topic.Partitions() {
			for _, s := range part.Producers() {
				if s.TxnFirstOffset < 0 {
					continue
				}
				m := byProducer[s.ProducerID]
				if m != nil && m.covers(txnPart{topic.ID(), part.ID()}, s.Epoch) {
					continue
				}
				if err := t.abortUncovered(part, s.ProducerID, s.Epoch); err != nil && holdsUp(err) {
					left = append(left, fmt.Errorf("%s: an open transaction cannot be ended: %w", part, err))
				}
			}
		}
	}
	return left
}

// covers says that the coordinator knows of the open transaction, so that it gets
// its end from it.
func (m *txnMeta) covers(p txnPart, epoch int16) bool {
	_, there := m.parts[p]
	switch {
	case !there:
		return false
	case m.state == txnOngoing:
		return m.epoch == epoch
	}
	if m.version >= txnV2 {
		return m.state.prepared() && epoch < m.epoch // the markers' epoch: the next transaction has it
	}
	return m.state.prepared() && epoch <= m.epoch
}

func (t *Txns) abortUncovered(part *Partition, producerID int64, epoch int16) error {
	attrs := []any{slog.String("partition", part.String()), slog.Int64("producer_id", producerID), slog.Int("epoch", int(epoch))}
	if t.incomplete {
		t.e.Logger().Error("an open transaction is left open: the record that decides it may be among the damaged ones", attrs...)
		return nil
	}
	// Above the transaction's epoch, so that nothing of it can follow the marker.
	marker := epoch + 1
	if epoch == math.MaxInt16 {
		marker = epoch
	}
	// The coordinator's epoch must not be below that of a marker before.
	s, _ := part.ProducerState(producerID)
	_, err := part.EndTransaction(context.Background(), producerID, marker, false, max(s.CoordinatorEpoch, 0), false)
	if err != nil {
		t.e.Logger().Warn("an open transaction of an earlier run could not be aborted: it holds readers of committed records back until the next open",
			append(attrs, slog.Any("error", err))...)
		return err
	}
	_ = t.ended(context.Background(), part, producerID, false) // it fails with the context only
	t.e.Logger().Info("an open transaction of an earlier run was aborted", attrs...)
	return nil
}
