package kafka

import "github.com/twmb/franz-go/pkg/kmsg"

// DeleteShareGroupOffsets, version 0: a share group without members forgets topics.
// (KIP-932)

func init() { register(0, 0, deleteShareGroupOffsets) }

func deleteShareGroupOffsets(r *request, q *kmsg.DeleteShareGroupOffsetsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.DeleteShareGroupOffsetsResponse)
	if resp.ErrorCode = r.mayGroup(OpDelete, q.GroupID); resp.ErrorCode != codeNone {
		return resp, nil
	}
	for i := range q.Topics {
		t := kmsg.NewDeleteShareGroupOffsetsResponseTopic()
		t.Topic = q.Topics[i].Topic
		topic, code := r.topicFor(OpRead, t.Topic)
		if t.ErrorCode = code; code == codeNone {
			t.TopicID = topic.ID()
			err := r.engine.Shares().DeleteOffsets(r.life, q.GroupID, topic.ID())
			t.ErrorCode, t.ErrorMessage = coordinatorCodeOf(err), message(err)
			switch t.ErrorCode {
			case codeNonEmptyGroup, codeGroupIDNotFound, codeInvalidGroupID, codeNotCoordinator, codeCoordinatorNotAvailable, codeCoordinatorLoadInProgress:
				resp.ErrorCode, resp.ErrorMessage, resp.Topics = t.ErrorCode, t.ErrorMessage, nil
				return resp, nil
			}
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp, nil
}
