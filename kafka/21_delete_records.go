package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteRecords, versions 0 to 2: moves log start offsets.

func init() { register(0, 2, deleteRecords) }

// noWatermark stands for the log start offset where there is an error.
const noWatermark = -1

func deleteRecords(r *request, q *kmsg.DeleteRecordsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.DeleteRecordsResponse)
	parts := 0
	for i := range q.Topics {
		parts += 1 + len(q.Topics[i].Partitions)
	}
	if err := r.grow(parts, plainBytes); err != nil {
		return nil, err
	}
	ctx, cancel := r.within(q.TimeoutMillis)
	defer cancel()
	for _, asked := range q.Topics {
		answer := kmsg.NewDeleteRecordsResponseTopic()
		answer.Topic = asked.Topic
		allowed := r.authorize(OpDelete, ResourceTopic, asked.Topic)
		for _, p := range asked.Partitions {
			x := kmsg.NewDeleteRecordsResponseTopicPartition()
			x.Partition, x.LowWatermark = p.Partition, noWatermark
			err := errTopicDenied
			if allowed {
				var start int64
				if start, err = r.deleteRecords(ctx, asked.Topic, p.Partition, p.Offset); err == nil {
					x.LowWatermark = start
				}
			}
			if x.ErrorCode, _ = answerTo(err); x.ErrorCode == codeNotController {
				x.ErrorCode = codeNotLeaderOrFollower
			}
			answer.Partitions = append(answer.Partitions, x)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp, nil
}

// deleteRecords deletes the records below an offset, -1 all that there are.
func (r *request) deleteRecords(ctx context.Context, topic string, partition int32, offset int64) (logStart int64, err error) {
	t, err := r.topic(topic)
	if err != nil {
		return 0, err
	}
	p, err := r.partition(t, partition)
	if err != nil {
		return 0, err
	}
	if t.Internal() {
		// One record of the engine's own that is missing there would change what it knows.
		return 0, refuse(codeInvalidTopicException, "%s is internal", topic)
	}
	if err := r.mustLead(p); err != nil {
		return 0, err // clients ask the leader, and look for it again
	}
	return p.DeleteRecords(ctx, offset)
}
