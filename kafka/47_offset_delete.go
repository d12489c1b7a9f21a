package kafka

import (
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// OffsetDelete, version 0: a group's offsets of topics that none of its members
// subscribes to. (KIP-496)

func init() { register(0, 0, offsetDelete) }

func offsetDelete(r *request, q *kmsg.OffsetDeleteRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.OffsetDeleteResponse)
	if resp.ErrorCode = r.mayGroup(OpDelete, q.Group); resp.ErrorCode != codeNone {
		return resp, nil
	}
	// Whether there is such a group is one answer for all of it.
	if err := r.engine.Groups().DeleteOffsets(r.life, q.Group, nil); err != nil {
		resp.ErrorCode = coordinatorCodeOf(err)
		return resp, nil
	}
	for i := range q.Topics {
		asked := &q.Topics[i]
		t := kmsg.NewOffsetDeleteResponseTopic()
		t.Topic = asked.Topic
		topic, code := r.topicFor(OpRead, asked.Topic)
		parts := make([]int32, 0, len(asked.Partitions))
		for j := range asked.Partitions {
			p := kmsg.NewOffsetDeleteResponseTopicPartition()
			p.Partition, p.ErrorCode = asked.Partitions[j].Partition, code
			if code == codeNone {
				_, err := r.partition(topic, p.Partition)
				if p.ErrorCode = codeOf(err); err == nil {
					parts = append(parts, p.Partition)
				}
			}
			t.Partitions = append(t.Partitions, p)
		}
		if len(parts) > 0 {
			err := r.engine.Groups().DeleteOffsets(r.life, q.Group, []engine.TopicPartitions{{Topic: topic.ID(), Partitions: parts}})
			if code = coordinatorCodeOf(err); code == codeNonEmptyGroup {
				code = codeGroupSubscribedToTopic
			}
			for j := range t.Partitions {
				if t.Partitions[j].ErrorCode == codeNone {
					t.Partitions[j].ErrorCode = code
				}
			}
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp, nil
}
