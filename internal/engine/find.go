package engine

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A node hears of a change of the metadata a moment after it was acknowledged, and one that has just
// started knows what its last checkpoint knew. So that there is no such topic, or no such partition, is said
// when this node has all of the metadata that was committed before the question, and not before: to
// many who ask, that answer is final.
//
//	look -> it is here, or this node is alone
//	     -> unknown -> the leader of the metadata, which a majority confirms, says how far it goes
//	                -> applied here up to there -> look again
//	                -> no leader -> an error that can be tried again

// surely looks something up of which the metadata decides whether it is there. Where that cannot be found out the
// error says why, and does not match ErrUnknownTopic or ErrUnknownPartition: the context's, or one that
// embedlog.IsRetriable knows.
func surely[T any](ctx context.Context, e *Engine, look func() (T, error)) (found T, err error) {
	found, err = look()
	if e.cluster == nil || !errors.Is(err, ErrUnknownTopic) && !errors.Is(err, ErrUnknownPartition) {
		return found, err
	}
	if lost := e.KnowMetadata(ctx); lost != nil {
		var none T
		return none, fmt.Errorf("%v, as far as this node knows: %w", err, lost)
	}
	return look()
}

// KnowMetadata returns when this node has applied all changes of the metadata that were acknowledged before the
// call, on whatever node. It waits for a leader of the metadata, 30 seconds at most, and fails with an
// error that matches partition.ErrNotLeader then. Alone it is always so.
func (e *Engine) KnowMetadata(ctx context.Context) error {
	if e.cluster == nil {
		return e.closedError()
	}
	return e.knowMeta(ctx)
}

// FindTopic is Topic that does not miss a topic which another node has made.
func (e *Engine) FindTopic(ctx context.Context, name string) (*Topic, error) {
	return surely(ctx, e, func() (*Topic, error) { return e.Topic(name) })
}

// FindPartition is FindTopic and Topic.Partition, which does not miss one that another node has added.
func (e *Engine) FindPartition(ctx context.Context, topic string, n int32) (t *Topic, p *Partition, err error) {
	p, err = surely(ctx, e, func() (*Partition, error) {
		if t, err = e.Topic(topic); err != nil {
			return nil, err
		}
		return t.Partition(n)
	})
	return t, p, err
}

// metaAsked is how long a node that a peer asks may take to find out that it does not know a topic. Who asks
// tries again.
const metaAsked = 5 * time.Second

// partitionAsked is partition for a peer's question. It fails with an error that matches
// ErrCoordinatorLoading where it is not known whether there is such a partition.
func (e *Engine) partitionAsked(ctx context.Context, topic TopicID, id int32) (*Partition, error) {
	p, err := e.partition(topic, id)
	if err == nil || !errors.Is(err, ErrUnknownTopic) && !errors.Is(err, ErrUnknownPartition) {
		return p, err
	}
	ctx, cancel := context.WithTimeout(ctx, metaAsked)
	defer cancel()
	if lost := e.KnowMetadata(ctx); lost != nil {
		return nil, fmt.Errorf("%w: %v, as far as this node knows: %v", ErrCoordinatorLoading, err, lost)
	}
	return e.partition(topic, id)
}

// internalTopic returns an internal topic, nil when it is sure that nobody has needed it yet. Where that is
// not known the error matches ErrCoordinatorLoading.
func (e *Engine) internalTopic(ctx context.Context, name string) (*Topic, error) {
	t, err := e.Topic(name)
	if errors.Is(err, ErrUnknownTopic) && e.cluster != nil {
		ctx, cancel := context.WithTimeout(ctx, metaAsked)
		defer cancel()
		if lost := e.KnowMetadata(ctx); lost != nil {
			return nil, fmt.Errorf("%w: whether there is %s: %v", ErrCoordinatorLoading, name, lost)
		}
		t, err = e.Topic(name)
	}
	if errors.Is(err, ErrUnknownTopic) {
		return nil, nil
	}
	return t, err
}
