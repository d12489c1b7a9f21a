package kafka

import (
	"context"
	"fmt"

	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ConsumerGroupHeartbeat, versions 0 and 1: the only call of a member of a group that
// the server assigns (KIP-848). From 1 on members choose their ids, and may subscribe
// by a pattern, in the syntax of RE2, which is that of Go's regexp and of Kafka's RE2/J.

func init() { register(0, 1, consumerGroupHeartbeat) }

func consumerGroupHeartbeat(r *request, q *kmsg.ConsumerGroupHeartbeatRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.ConsumerGroupHeartbeatResponse)
	if resp.ErrorCode = r.mayGroup(OpRead, q.Group); resp.ErrorCode != codeNone {
		return resp, nil
	}
	if why := badHeartbeat(q); why != "" {
		resp.ErrorCode, resp.ErrorMessage = codeInvalidRequest, &why
		return resp, nil
	}
	for _, name := range q.SubscribedTopicNames {
		if !r.authorize(OpDescribe, ResourceTopic, name) {
			resp.ErrorCode = codeTopicAuthorizationFailed
			return resp, nil
		}
	}
	req := engine.HeartbeatRequest{
		Group: q.Group, MemberID: q.MemberID, MemberEpoch: q.MemberEpoch, InstanceID: orEmpty(q.InstanceID), RackID: orEmpty(q.RackID),
		ClientID: r.clientID, ClientHost: r.host, RebalanceTimeout: millis(q.RebalanceTimeoutMillis),
		Topics: q.SubscribedTopicNames, Assignor: orEmpty(q.ServerAssignor),
	}
	if q.SubscribedTopicRegex != nil {
		req.Regex, req.NoRegex = *q.SubscribedTopicRegex, *q.SubscribedTopicRegex == ""
		req.MaySee = r.maySee()
	}
	if q.Topics != nil {
		req.Owned = make([]engine.TopicPartitions, len(q.Topics))
		for i := range q.Topics {
			req.Owned[i] = engine.TopicPartitions{Topic: q.Topics[i].TopicID, Partitions: q.Topics[i].Partitions}
		}
	}
	answer, err := r.engine.Groups().Heartbeat(r.life, req)
	if err != nil {
		resp.ErrorCode, resp.ErrorMessage = coordinatorCodeOf(err), message(err)
		return resp, nil
	}
	resp.MemberID, resp.MemberEpoch, resp.HeartbeatIntervalMillis = &answer.MemberID, answer.MemberEpoch, int32(answer.Interval.Milliseconds())
	if answer.Assignment != nil {
		a := kmsg.NewConsumerGroupHeartbeatResponseAssignment()
		for _, t := range answer.Assignment {
			x := kmsg.NewConsumerGroupHeartbeatResponseAssignmentTopic()
			x.TopicID, x.Partitions = t.Topic, t.Partitions
			a.Topics = append(a.Topics, x)
		}
		resp.Assignment = &a
	}
	return resp, nil
}

// badHeartbeat says what no member sends; the engine looks at the rest.
func badHeartbeat(q *kmsg.ConsumerGroupHeartbeatRequest) string {
	empty := func(s *string) bool { return s != nil && *s == "" }
	joins := q.MemberEpoch == engine.JoinEpoch
	switch {
	case q.Group == "":
		return "the group id is empty"
	case q.MemberID == "" && (q.Version >= 1 || !joins):
		return "the member id is empty"
	case empty(q.InstanceID):
		return "the instance id is empty"
	case empty(q.RackID):
		return "the rack id is empty"
	case empty(q.ServerAssignor):
		return "the assignor is empty"
	case joins && q.RebalanceTimeoutMillis <= 0:
		return fmt.Sprintf("a member joins with a rebalance timeout of %d ms", q.RebalanceTimeoutMillis)
	case joins && q.Topics == nil:
		return "a member joins without saying that it has no partitions"
	}
	return ""
}

// maySee says of topics whether whoever sent the request may know that they are there,
// for as long as he is a member. It outlives the request.
func (r *request) maySee() func(topic string) bool {
	a, principal, host := r.srv.authorizer, r.principal, r.host
	if a == nil {
		return func(string) bool { return true }
	}
	return func(topic string) bool {
		return a.Authorize(context.Background(), principal, host, OpDescribe, ResourceTopic, topic)
	}
}
