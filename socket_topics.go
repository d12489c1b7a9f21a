package embedlog

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/sock"
)

type none = struct{}

func (s *session) info(context.Context, none) (sock.Info, error) {
	i := s.db.engine.Info()
	info := sock.Info{
		Dir: i.Dir, ClusterID: i.ClusterID, DirectoryID: i.DirectoryID, NodeID: i.NodeID, Format: i.Format,
		PID: os.Getpid(), Topics: []sock.TopicBrief{},
	}
	for _, t := range s.db.engine.Topics() {
		info.Topics = append(info.Topics, briefTopic(t))
	}
	return info, nil
}

func (s *session) topics(ctx context.Context, q sock.TopicsRequest) ([]sock.Topic, error) {
	list := s.db.engine.Topics()
	if q.Topic != "" {
		t, err := s.db.engine.FindTopic(ctx, q.Topic)
		if err != nil {
			return nil, err
		}
		list = []*engine.Topic{t}
	}
	topics := []sock.Topic{}
	for _, t := range list {
		topics = append(topics, s.showTopic(ctx, t))
	}
	return topics, nil
}

func briefTopic(t *engine.Topic) sock.TopicBrief {
	b := sock.TopicBrief{Topic: t.Name(), ID: t.ID().String(), Internal: t.Internal(), Partitions: len(t.Partitions())}
	for _, p := range t.Partitions() {
		if p.Elsewhere() {
			b.Elsewhere++
			continue
		}
		b.Records += p.HighWatermark() - p.LogStart()
		b.Bytes += p.Log().AllocatedBytes()
		b.Damaged = b.Damaged || errors.Is(p.Err(), ErrCorrupt)
	}
	return b
}

// elsewherePatience is how long the leader of a partition that this node has no replica of may take to
// say where it begins and ends.
const elsewherePatience = time.Second

// showTopic describes a topic. In a cluster its partitions are as their leaders say.
func (s *session) showTopic(ctx context.Context, t *engine.Topic) sock.Topic {
	topic := sock.Topic{TopicBrief: briefTopic(t), Settings: []sock.Setting{}, PartitionList: []sock.Partition{}}
	explicit := t.Settings().Explicit()
	for _, name := range slices.Sorted(maps.Keys(explicit)) {
		topic.Settings = append(topic.Settings, sock.Setting{Name: name, Value: explicit[name]})
	}
	statuses := s.db.engine.AskStatus(ctx, t)
	for i, p := range t.Partitions() {
		part := sock.Partition{
			Partition: p.ID(), LogStart: p.LogStart(), LastStable: p.LastStable(),
			HighWatermark: p.HighWatermark(), LogEnd: p.LogEnd(), LeaderEpoch: p.LeaderEpoch(),
			Bytes: p.Log().AllocatedBytes(),
		}
		if err := p.Err(); err != nil && !p.Elsewhere() {
			part.Error = err.Error()
		}
		if p.Elsewhere() {
			// Its leader knows. Of who does not answer, the status says what is wrong.
			asked, cancel := context.WithTimeout(ctx, elsewherePatience)
			if b, err := p.View().Bounds(asked); err == nil {
				part.LogStart, part.LastStable, part.HighWatermark, part.LogEnd, part.LeaderEpoch = b.LogStart, b.LastStable, b.HighWatermark, b.LogEnd, b.LeaderEpoch
				topic.Records += b.HighWatermark - b.LogStart
				topic.Elsewhere--
			}
			cancel()
		}
		if part.Replicas = t.Replicas(p.ID()); part.Replicas != nil {
			st := statuses[i]
			part.Leader, part.InSync, part.Reason = st.Leader, st.InSync, st.Reason
		}
		topic.PartitionList = append(topic.PartitionList, part)
	}
	return topic
}

func (s *session) createTopic(ctx context.Context, q sock.CreateTopic) (sock.Topic, error) {
	t, err := s.db.engine.CreateTopic(ctx, engine.TopicSpec{Name: q.Topic, Partitions: q.Partitions, ReplicationFactor: q.ReplicationFactor, Settings: q.Settings})
	if q.IfNotExists && errors.Is(err, ErrTopicExists) {
		// It may be another topic whose name is too much alike.
		if old, e := s.db.engine.FindTopic(ctx, q.Topic); e == nil {
			shown := s.showTopic(ctx, old)
			shown.Existed = true
			return shown, nil
		}
	}
	if err != nil {
		return sock.Topic{}, err
	}
	return s.showTopic(ctx, t), nil
}

// changed answers a change with the topic as it is now.
func (s *session) changed(ctx context.Context, name string, err error) (sock.Topic, error) {
	if err != nil {
		return sock.Topic{}, err
	}
	t, err := s.db.engine.FindTopic(ctx, name)
	if err != nil {
		return sock.Topic{}, err
	}
	return s.showTopic(ctx, t), nil
}

func (s *session) alterTopic(ctx context.Context, q sock.AlterTopic) (sock.Topic, error) {
	return s.changed(ctx, q.Topic, s.db.engine.AlterTopic(ctx, q.Topic, q.Set, q.Unset))
}

func (s *session) addPartitions(ctx context.Context, q sock.AddPartitions) (sock.Topic, error) {
	return s.changed(ctx, q.Topic, s.db.engine.AddPartitions(ctx, q.Topic, q.Total))
}

func (s *session) deleteTopic(ctx context.Context, q sock.TopicName) (none, error) {
	return none{}, s.db.DeleteTopic(ctx, q.Topic)
}

func (s *session) trim(ctx context.Context, q sock.Trim) (sock.Trimmed, error) {
	t, err := s.db.Topic(q.Topic)
	if err != nil {
		return sock.Trimmed{}, err
	}
	start, err := t.DeleteRecords(ctx, q.Partition, q.Before)
	return sock.Trimmed{Topic: q.Topic, Partition: q.Partition, LogStart: start}, err
}

func (s *session) listOffsets(ctx context.Context, q sock.ListOffsets) ([]sock.Position, error) {
	t, err := s.db.engine.FindTopic(ctx, q.Topic)
	if err != nil {
		return nil, err
	}
	list := []sock.Position{}
	for _, p := range t.Partitions() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		bounds, err := p.View().Bounds(ctx)
		if err != nil {
			return nil, err
		}
		at := sock.Position{Topic: q.Topic, Partition: p.ID(), Offset: bounds.HighWatermark, Epoch: -1}
		switch q.At {
		case sock.AtStart:
			at.Offset = bounds.LogStart
		case sock.AtTime:
			found, ok, err := p.View().OffsetForTime(ctx, q.Time.UnixMilli())
			if err != nil {
				return nil, err
			}
			if ok {
				at.Offset = found.Offset
			}
		}
		list = append(list, at)
	}
	return list, nil
}
