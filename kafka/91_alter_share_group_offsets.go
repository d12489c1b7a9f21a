package kafka

import "github.com/twmb/franz-go/pkg/kmsg"

// AlterShareGroupOffsets, version 0: where a share group without members goes on. A
// group that is not there is made. (KIP-932)

func init() { register(0, 0, alterShareGroupOffsets) }

func alterShareGroupOffsets(r *request, q *kmsg.AlterShareGroupOffsetsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.AlterShareGroupOffsetsResponse)
	if resp.ErrorCode = r.mayGroup(OpRead, q.GroupID); resp.ErrorCode != codeNone {
		return resp, nil
	}
	for i := range q.Topics {
		asked := &q.Topics[i]
		t := kmsg.NewAlterShareGroupOffsetsResponseTopic()
		t.Topic = asked.Topic
		topic, code := r.topicFor(OpRead, asked.Topic)
		if code == codeNone {
			t.TopicID = topic.ID()
		}
		for j := range asked.Partitions {
			p := kmsg.NewAlterShareGroupOffsetsResponseTopicPartition()
			p.Partition, p.ErrorCode = asked.Partitions[j].Partition, code
			if code == codeNone {
				err := r.engine.Shares().SetOffset(r.life, q.GroupID, topic.ID(), p.Partition, asked.Partitions[j].StartOffset)
				p.ErrorCode, p.ErrorMessage = coordinatorCodeOf(err), message(err)
				switch p.ErrorCode {
				case codeNonEmptyGroup, codeGroupIDNotFound, codeInvalidGroupID, codeNotCoordinator, codeCoordinatorNotAvailable, codeCoordinatorLoadInProgress:
					// It is about the group, and so the answer to all of it.
					resp.ErrorCode, resp.ErrorMessage, resp.Topics = p.ErrorCode, p.ErrorMessage, nil
					return resp, nil
				}
			}
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp, nil
}
