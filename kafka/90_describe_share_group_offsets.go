package kafka

import (
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeShareGroupOffsets, versions 0 and 1: how far share groups are. 1 has the lag.
// (KIP-932, KIP-1226)

func init() { register(0, 1, describeShareGroupOffsets) }

func describeShareGroupOffsets(r *request, q *kmsg.DescribeShareGroupOffsetsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.DescribeShareGroupOffsetsResponse)
	for i := range q.Groups {
		g := kmsg.NewDescribeShareGroupOffsetsResponseGroup()
		g.GroupID = q.Groups[i].GroupID
		if g.ErrorCode = r.mayGroup(OpDescribe, g.GroupID); g.ErrorCode == codeNone {
			if err := r.describeShareOffsets(&q.Groups[i], &g); err != nil {
				return nil, err
			}
		}
		resp.Groups = append(resp.Groups, g)
	}
	return resp, nil
}

func (r *request) describeShareOffsets(q *kmsg.DescribeShareGroupOffsetsRequestGroup, g *kmsg.DescribeShareGroupOffsetsResponseGroup) error {
	var want []engine.TopicPartitions
	if q.Topics != nil {
		want = []engine.TopicPartitions{}
	}
	type refused struct {
		topic string
		parts []int32
		code  int16
	}
	var none []refused
	asked := 0
	for _, t := range q.Topics {
		asked += len(t.Partitions)
	}
	if err := r.grow(asked, explainedBytes); err != nil {
		return err
	}
	for _, t := range q.Topics {
		topic, code := r.topicFor(OpDescribe, t.Topic)
		if code != codeNone {
			none = append(none, refused{t.Topic, t.Partitions, code})
			continue
		}
		want = append(want, engine.TopicPartitions{Topic: topic.ID(), Partitions: t.Partitions})
	}
	list, err := r.engine.Shares().Offsets(r.ctx, g.GroupID, want)
	if err != nil {
		g.ErrorCode, g.ErrorMessage = coordinatorCodeOf(err), message(err)
		return nil
	}
	if q.Topics == nil {
		if err := r.grow(len(list), explainedBytes); err != nil {
			return err
		}
	}
	var topics shareTopics[kmsg.DescribeShareGroupOffsetsResponseGroupTopic]
	for i := range list {
		o := &list[i]
		name := o.Topic
		if name == "" { // the partition is none
			if t, err := r.engine.TopicByID(o.TopicID); err == nil {
				name = t.Name()
			}
		}
		if q.Topics == nil && (name == "" || !r.authorize(OpDescribe, ResourceTopic, name)) {
			continue // who may not know of it is not told
		}
		t := topics.topic(o.TopicID, func() kmsg.DescribeShareGroupOffsetsResponseGroupTopic {
			t := kmsg.NewDescribeShareGroupOffsetsResponseGroupTopic()
			t.Topic, t.TopicID = name, o.TopicID
			return t
		})
		p := kmsg.NewDescribeShareGroupOffsetsResponseGroupTopicPartition()
		p.Partition, p.StartOffset, p.LeaderEpoch, p.Lag = o.Partition, o.Start, o.LeaderEpoch, o.Lag
		p.ErrorCode, p.ErrorMessage = codeOf(o.Err), message(o.Err)
		t.Partitions = append(t.Partitions, p)
	}
	g.Topics = topics.list
	for _, x := range none {
		t := kmsg.NewDescribeShareGroupOffsetsResponseGroupTopic()
		t.Topic = x.topic
		for _, index := range x.parts {
			p := kmsg.NewDescribeShareGroupOffsetsResponseGroupTopicPartition()
			p.Partition, p.ErrorCode, p.StartOffset = index, x.code, -1
			t.Partitions = append(t.Partitions, p)
		}
		g.Topics = append(g.Topics, t)
	}
	return nil
}
