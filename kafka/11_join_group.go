package kafka

import (
	"errors"

	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// JoinGroup, versions 2 to 9; 0 and 1 are advertised and refused (see advertise). It is
// answered when the group's next generation begins, and holds back what its
// connection asks for meanwhile. From 4 on who joins first gets a member id to come
// again with (KIP-394), from 5 on there are static members (KIP-345), from 9 on a
// leader may be told that the assignment stands (KIP-814).

func init() { register(2, 9, joinGroup) }

func joinGroup(r *request, q *kmsg.JoinGroupRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.JoinGroupResponse)
	resp.MemberID, resp.Generation = q.MemberID, -1
	if q.Version < 7 { // where it must not be null
		resp.Protocol = kmsg.StringPtr("")
	}
	if resp.ErrorCode = r.mayGroup(OpRead, q.Group); resp.ErrorCode != codeNone {
		return resp, nil
	}
	req := engine.JoinRequest{
		Group: q.Group, MemberID: q.MemberID, InstanceID: orEmpty(q.InstanceID), ClientID: r.clientID, ClientHost: r.host,
		ProtocolType: q.ProtocolType, SessionTimeout: millis(q.SessionTimeoutMillis), RebalanceTimeout: millis(q.RebalanceTimeoutMillis),
		RequireMemberID: q.Version >= 4, SkipAssignment: q.Version >= 9, Reason: orEmpty(q.Reason), Waited: &r.idle,
	}
	for _, p := range q.Protocols {
		req.Protocols = append(req.Protocols, engine.GroupProtocol{Name: p.Name, Metadata: p.Metadata})
	}
	// With the connection's context: who has gone waits for nothing, and a server that
	// shuts down does not wait for a group.
	joined, err := r.engine.Groups().Join(r.ctx, req)
	if err != nil {
		resp.ErrorCode = coordinatorCodeOf(err)
		var required *engine.MemberIDRequiredError
		if errors.As(err, &required) {
			resp.MemberID = required.MemberID
		}
		return resp, nil
	}
	resp.MemberID, resp.Generation, resp.LeaderID, resp.SkipAssignment = joined.MemberID, joined.Generation, joined.Leader, joined.SkipAssignment
	resp.ProtocolType, resp.Protocol = &joined.ProtocolType, &joined.Protocol
	for _, m := range joined.Members {
		x := kmsg.NewJoinGroupResponseMember()
		x.MemberID, x.InstanceID, x.ProtocolMetadata = m.MemberID, orNull(m.InstanceID), m.Metadata
		resp.Members = append(resp.Members, x)
	}
	return resp, nil
}
