package kafka

import (
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ShareGroupHeartbeat, version 1: a member of a share group joins, is there, and goes.
// (KIP-932; version 0 was of a preview)

func init() { register(1, 1, shareGroupHeartbeat) }

func shareGroupHeartbeat(r *request, q *kmsg.ShareGroupHeartbeatRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.ShareGroupHeartbeatResponse)
	if resp.ErrorCode = r.mayGroup(OpRead, q.GroupID); resp.ErrorCode != codeNone {
		return resp, nil
	}
	if why := badShareHeartbeat(q); why != "" {
		resp.ErrorCode, resp.ErrorMessage = codeInvalidRequest, &why
		return resp, nil
	}
	for _, name := range q.SubscribedTopicNames {
		if !r.authorize(OpDescribe, ResourceTopic, name) {
			resp.ErrorCode = codeTopicAuthorizationFailed
			return resp, nil
		}
	}
	answer, err := r.engine.Groups().ShareHeartbeat(r.life, engine.ShareHeartbeatRequest{
		Group: q.GroupID, MemberID: q.MemberID, MemberEpoch: q.MemberEpoch, RackID: orEmpty(q.RackID),
		ClientID: r.clientID, ClientHost: r.host, Topics: q.SubscribedTopicNames,
	})
	if err != nil {
		resp.ErrorCode, resp.ErrorMessage = coordinatorCodeOf(err), message(err)
		return resp, nil
	}
	resp.MemberID, resp.MemberEpoch, resp.HeartbeatIntervalMillis = &answer.MemberID, answer.MemberEpoch, int32(answer.Interval.Milliseconds())
	if answer.Assignment != nil {
		a := kmsg.NewShareGroupHeartbeatResponseAssignment()
		for _, t := range answer.Assignment {
			x := kmsg.NewShareGroupHeartbeatResponseAssignmentTopicPartition()
			x.TopicID, x.Partitions = t.Topic, t.Partitions
			a.TopicPartitions = append(a.TopicPartitions, x)
		}
		resp.Assignment = &a
	}
	return resp, nil
}

// badShareHeartbeat says what no member sends; the engine looks at the rest.
func badShareHeartbeat(q *kmsg.ShareGroupHeartbeatRequest) string {
	switch {
	case q.GroupID == "":
		return "the group id is empty"
	case q.MemberID == "":
		return "the member id is empty"
	case q.RackID != nil && *q.RackID == "":
		return "the rack id is empty"
	}
	return ""
}
