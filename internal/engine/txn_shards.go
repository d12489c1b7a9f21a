package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
)

// txnShard is the ids whose records lie in one partition of __transaction_state, for
// the tenure in which this node leads it. When that is over another shard takes its
// place, and its ids are no longer in Txns.ids. Alone there are none.
type txnShard struct {
	part   *Partition
	index  int
	tenure *tenure
	turn   chan struct{} // holds a token while nobody loads it
	loaded atomic.Bool
}

func newTxnShard(index int, p *Partition) *txnShard {
	s := &txnShard{part: p, index: index, tenure: newTenure(p), turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

// tenure is for which the id is in memory.
func (x *txn) tenure() *tenure {
	if x.shard == nil {
		return nil
	}
	return x.shard.tenure
}

// allShards are those of now.
func (t *Txns) allShards() []*txnShard {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shards
}

// ownsLocked says whether ids of the shard belong into Txns.ids.
func (t *Txns) ownsLocked(s *txnShard) bool { return s == nil || t.shards[s.index] == s }

// prepare finds or makes the shards. They are nil when there is no __transaction_state
// and create is false.
func (t *Txns) prepare(ctx context.Context, create bool) ([]*txnShard, error) {
	if err := t.e.closedError(); err != nil {
		return nil, err
	}
	if shards := t.allShards(); shards != nil {
		return shards, nil
	}
	topic, err := t.e.Topic(txnTopicName)
	if errors.Is(err, ErrUnknownTopic) {
		if !create {
			return nil, nil
		}
		topic, err = t.e.coordinatorTopic(ctx, txnTopicName)
	}
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shards == nil {
		for i, p := range topic.Partitions() {
			t.shards = append(t.shards, newTxnShard(i, p))
			t.e.coordinators.follow(p)
		}
	}
	return t.shards, nil
}

// shardOf returns the shard of an id, loaded: nil when alone, and when create is false
// and there are no transactions. It fails with a *partition.NotLeaderError where this
// node does not coordinate the id.
func (t *Txns) shardOf(ctx context.Context, id string, create bool) (*txnShard, error) {
	if t.e.options.Cluster == nil {
		return nil, nil
	}
	shards, err := t.prepare(ctx, create)
	if err == nil && shards == nil {
		shards, err = t.prepareKnowing(ctx)
	}
	if err != nil || shards == nil {
		return nil, err
	}
	i := offsetsPartitionOf(id, len(shards))
	for {
		s := t.allShards()[i]
		patient, stop := s.tenure.patience(ctx)
		err := s.load(patient, t)
		stop()
		if err == nil {
			return s, nil
		}
		if t.replace(s) {
			continue
		}
		return nil, s.tenure.loading(ctx, err)
	}
}

// replace lets go of a shard whose tenure is over. It reports whether it is.
func (t *Txns) replace(old *txnShard) bool {
	now, stale := old.tenure.stale(txnTopicName)
	if !stale {
		return false
	}
	if now != old.part {
		t.e.coordinators.follow(now)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shards[old.index] != old {
		return true
	}
	t.shards = slices.Clone(t.shards) // allShards was given to others
	t.shards[old.index] = newTxnShard(old.index, now)
	for id, x := range t.ids {
		if x.shard == old {
			delete(t.ids, id)
		}
	}
	return true
}

// follow keeps step with who leads: see Groups.follow.
func (t *Txns) follow(ctx context.Context) {
	shards, err := t.prepare(ctx, false)
	if err != nil {
		return
	}
	for _, s := range shards {
		t.replace(s)
		if s = t.allShards()[s.index]; !s.loaded.Load() && s.tenure.leads() {
			t.e.coordinators.background("read its log", s.part, func() error { return s.load(ctx, t) })
		}
	}
}

// load reads the partition, unless that was done. What is decided in it is carried out
// in the background.
func (s *txnShard) load(ctx context.Context, t *Txns) error {
	if s.loaded.Load() {
		return s.tenure.ended()
	}
	if err := take(ctx, s.turn); err != nil {
		return err
	}
	defer func() { s.turn <- struct{}{} }()
	if s.loaded.Load() {
		return s.tenure.ended()
	}
	if err := s.tenure.begin(ctx); err != nil {
		return err
	}
	ids := make(map[string]*txn)
	err := t.replayPartition(s.part, s, ids)
	if err == nil {
		err = s.tenure.ended()
	}
	if err != nil {
		// With records that are not known nothing can be decided.
		s.tenure.reset()
		return fmt.Errorf("read %s: %w", s.part, err)
	}
	var prepared []*txn
	for _, x := range ids {
		switch m := x.meta.Load(); {
		case m.state.prepared():
			x.left, x.again, x.number = m.sortedParts(), true, t.number.Add(1)
			prepared = append(prepared, x)
		case m.local(): // of the time when its node was alone
			retired := m.retired()
			x.meta.Store(&retired)
		}
	}
	t.mu.Lock()
	owns := t.ownsLocked(s)
	for id, x := range ids {
		if owns {
			t.ids[id] = x
		}
	}
	s.loaded.Store(owns)
	t.mu.Unlock()
	if !owns {
		return s.part.lostLead(s.tenure.epoch.Load())
	}
	for _, x := range prepared {
		if t.begin() != nil {
			break
		}
		go func() {
			defer t.running.Done()
			<-x.turn
			defer x.release()
			if x.meta.Load().state.prepared() && !x.dead {
				t.mark(x)
			}
		}()
	}
	return nil
}
