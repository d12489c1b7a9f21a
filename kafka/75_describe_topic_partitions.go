package kafka

import (
	"maps"
	"slices"

	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeTopicPartitions, version 0: topics in pages of so many partitions. The
// next page begins at the answer's cursor. (KIP-966)

func init() { register(0, 0, describeTopicPartitions) }

// maxPagePartitions bounds the partitions of one answer. (max.request.partition.size.limit)
const maxPagePartitions = 2000

func describeTopicPartitions(r *request, q *kmsg.DescribeTopicPartitionsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.DescribeTopicPartitionsResponse)
	if err := r.grow(len(q.Topics), explainedBytes); err != nil {
		return nil, err
	}
	resp.Topics = []kmsg.DescribeTopicPartitionsResponseTopic{}
	all := len(q.Topics) == 0
	names := make(map[string]bool)
	if all {
		r.knowOnce()
		for _, t := range r.engine.Topics() {
			names[t.Name()] = true
		}
	}
	for _, t := range q.Topics {
		names[t.Topic] = true
	}
	first, from := "", int32(0)
	if c := q.Cursor; c != nil {
		if c.Partition < 0 || !all && !names[c.Topic] {
			// There is no place for an error but each topic.
			for _, name := range slices.Sorted(maps.Keys(names)) {
				resp.Topics = append(resp.Topics, unknownPage(name, codeInvalidRequest))
			}
			return resp, nil
		}
		first, from = c.Topic, c.Partition
	}
	left := min(max(int(q.ResponsePartitionLimit), 1), maxPagePartitions)
	var denied []kmsg.DescribeTopicPartitionsResponseTopic
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if name < first {
			continue
		}
		if !r.authorize(OpDescribe, ResourceTopic, name) {
			if !all {
				denied = append(denied, unknownPage(name, codeTopicAuthorizationFailed))
			}
			continue
		}
		if resp.NextCursor != nil {
			continue // only to tell who may see which of the rest
		}
		if left == 0 {
			resp.NextCursor = pageCursor(name, 0)
			continue
		}
		t, err := r.topic(name)
		if err != nil {
			if bad := engine.CheckTopicName(name); bad != nil {
				err = bad
			}
			if !all {
				resp.Topics = append(resp.Topics, unknownPage(name, r.describedCode(err)))
			}
			continue
		}
		start := int32(0)
		if name == first {
			start = from
		}
		x, next := r.topicPage(t, start, left)
		resp.Topics = append(resp.Topics, x)
		left -= len(x.Partitions)
		if next >= 0 {
			resp.NextCursor = pageCursor(name, next)
		}
	}
	resp.Topics = append(resp.Topics, denied...)
	return resp, nil
}

func unknownPage(name string, code int16) kmsg.DescribeTopicPartitionsResponseTopic {
	x := kmsg.NewDescribeTopicPartitionsResponseTopic()
	x.Topic, x.ErrorCode = &name, code
	x.Partitions = []kmsg.DescribeTopicPartitionsResponseTopicPartition{}
	return x
}

func pageCursor(topic string, partition int32) *kmsg.DescribeTopicPartitionsResponseNextCursor {
	c := kmsg.NewDescribeTopicPartitionsResponseNextCursor()
	c.Topic, c.Partition = topic, partition
	return &c
}

// topicPage describes up to limit partitions of a topic, and returns the next one,
// or -1 when there is none.
func (r *request) topicPage(t *engine.Topic, from int32, limit int) (kmsg.DescribeTopicPartitionsResponseTopic, int32) {
	name := t.Name()
	x := kmsg.NewDescribeTopicPartitionsResponseTopic()
	x.Topic, x.TopicID, x.IsInternal = &name, t.ID(), t.Internal()
	x.AuthorizedOperations = r.operations(ResourceTopic, name, topicOperations...)
	x.Partitions = []kmsg.DescribeTopicPartitionsResponseTopicPartition{}
	parts := t.Partitions()
	end := min(int64(from)+int64(limit), int64(len(parts)))
	places, none := r.placements(), []int32{}
	for n := int64(from); n < end; n++ {
		p := parts[n]
		y := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
		at := places.of(t, p)
		y.ErrorCode, y.Partition, y.LeaderID, y.LeaderEpoch = at.code(), p.ID(), at.leader, at.epoch
		y.Replicas, y.ISR = at.replicas, at.isr
		// Clients take null for a list and fail.
		y.EligibleLeaderReplicas, y.LastKnownELR, y.OfflineReplicas = none, none, at.offline
		x.Partitions = append(x.Partitions, y)
	}
	if end < int64(len(parts)) {
		return x, int32(end)
	}
	return x, -1
}
