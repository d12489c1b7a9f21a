package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// What coordinators ask of those who lead other logs, besides what is about transactions.

// metadataNow returns when this node has applied all of the metadata that was committed
// before the call. Where nobody can say how much that is, the error matches
// ErrCoordinatorLoading.
func (e *Engine) metadataNow(ctx context.Context) error {
	err := e.currentMeta(ctx)
	if errors.Is(err, partition.ErrNotLeader) || errors.Is(err, ErrPeerUnreachable) || errors.Is(err, log.ErrClosed) && e.life.Err() == nil {
		err = fmt.Errorf("%w: the metadata: %v", ErrCoordinatorLoading, err)
	}
	return err
}

// offsetsQuestion asks the leader of a partition for its offsets.
type offsetsQuestion struct {
	Topic     TopicID
	Partition int32
	// ByTime asks for the first record from Millis on.
	ByTime bool
	Millis int64
	// ByEpoch asks for the leader epoch of what lies before the offset, or before the high
	// watermark where that is less.
	ByEpoch bool
	Offset  int64
}

// offsetsAnswer is where a partition begins and ends.
type offsetsAnswer struct {
	LogStart, HighWatermark int64
	Found                   bool // by time
	FoundOffset             int64
	Epoch                   int32 // -1: not known
}

func (e *Engine) askOffsets() *service[offsetsQuestion, offsetsAnswer] {
	return &service[offsetsQuestion, offsetsAnswer]{"offsets", func(ctx context.Context, q *offsetsQuestion) (offsetsAnswer, error) {
		_, err := e.partitionAsked(ctx, q.Topic, q.Partition)
		var p *Partition
		if err == nil {
			p, err = e.groups.partition(topicPart{q.Topic, q.Partition})
		}
		if err == nil && !p.Leads() {
			err = p.notLeader(partition.ErrNotLeader)
		}
		if err != nil {
			return offsetsAnswer{}, err
		}
		return p.offsets(q)
	}}
}

// offsets answers an offsetsQuestion with what is here.
func (p *Partition) offsets(q *offsetsQuestion) (a offsetsAnswer, err error) {
	a = offsetsAnswer{LogStart: p.LogStart(), HighWatermark: p.HighWatermark(), Epoch: -1}
	if q.ByTime {
		found, ok, err := p.OffsetForTime(q.Millis)
		if err != nil {
			return a, err
		}
		a.Found, a.FoundOffset = ok, found.Offset
	}
	if q.ByEpoch {
		at := max(min(q.Offset, a.HighWatermark), a.LogStart)
		if epoch, ok := p.EpochOf(at - 1); ok {
			a.Epoch = epoch
		}
	}
	return a, nil
}

// offsetsOf are the offsets of a partition, as its leader has them.
func (e *Engine) offsetsOf(ctx context.Context, p *Partition, q offsetsQuestion) (offsetsAnswer, error) {
	if e.cluster == nil {
		return p.offsets(&q)
	}
	q.Topic, q.Partition = p.topicID, p.id
	a, err := e.askOffsets().atLeader(ctx, p, &q)
	if tryElsewhere(err) && ctx.Err() == nil {
		// Not as one of the partition that the caller asked this node for.
		err = fmt.Errorf("%w: offsets of %s: %v", ErrCoordinatorLoading, p, err)
	}
	return a, err
}

// find returns a partition, which in a cluster may be elsewhere.
func (g *Groups) find(at topicPart) (*Partition, error) {
	if g.engine.cluster == nil {
		return g.partition(at)
	}
	t, err := g.engine.TopicByID(at.topic)
	if err != nil {
		return nil, err
	}
	return t.Partition(at.partition)
}

// coordinatorTopics are the settings of the topics that coordinators keep their state in.
var coordinatorTopics = map[string]map[string]string{
	offsetsTopicName: offsetsTopicSettings, shareTopicName: shareTopicSettings, txnTopicName: txnTopicSettings,
}

// metaAsk asks the leader of the metadata for what coordinators on any node need.
type metaAsk struct {
	Topic string // make this internal topic
	IDs   int    // allocate so many producer ids
}

type metaGiven struct{ FirstID int64 }

func (e *Engine) askMeta() *service[metaAsk, metaGiven] {
	return &service[metaAsk, metaGiven]{"meta.ask", func(ctx context.Context, q *metaAsk) (a metaGiven, err error) {
		if q.Topic != "" {
			settings, ok := coordinatorTopics[q.Topic]
			if !ok {
				return a, &InvalidTopicError{Name: q.Topic, Reason: "no coordinator needs it"}
			}
			_, err = e.InternalTopic(ctx, q.Topic, settings)
			return a, err
		}
		if q.IDs < 1 || q.IDs > producerIDBlock {
			return a, fmt.Errorf("%d producer ids are asked for", q.IDs)
		}
		a.FirstID, err = e.meta.do(ctx, &command{kind: allocateIDsCommand, count: q.IDs})
		return a, err
	}}
}

// atMeta has the leader of the metadata answer. Where it cannot be found the error matches
// ErrCoordinatorLoading: that this node does not lead the metadata is nothing that a
// caller should take for an answer about his own question.
func (e *Engine) atMeta(ctx context.Context, q metaAsk) (a metaGiven, err error) {
	leader, _ := e.MetaLeader()
	if leader >= 0 {
		a, err = e.askMeta().atNode(ctx, e, leader, &q)
	}
	if removed := e.Removed(); removed != nil {
		return a, removed
	}
	if leader < 0 {
		return a, fmt.Errorf("%w: the metadata: nobody is known to lead it", ErrCoordinatorLoading)
	}
	if tryElsewhere(err) && ctx.Err() == nil {
		err = fmt.Errorf("%w: the metadata: node %d was asked: %v", ErrCoordinatorLoading, leader, err)
	}
	return a, err
}

// coordinatorTopic returns an internal topic, and has it made if there is none.
func (e *Engine) coordinatorTopic(ctx context.Context, name string) (*Topic, error) {
	if e.cluster == nil {
		return e.InternalTopic(ctx, name, coordinatorTopics[name])
	}
	if t, err := e.Topic(name); err == nil {
		return t, nil
	}
	if _, err := e.atMeta(ctx, metaAsk{Topic: name}); err != nil {
		return nil, fmt.Errorf("create topic %s: %w", name, err)
	}
	if err := e.metadataNow(ctx); err != nil {
		return nil, err
	}
	return e.Topic(name)
}
