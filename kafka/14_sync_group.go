package kafka

import (
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// SyncGroup, versions 0 to 5: the leader brings the assignments, the others wait for
// theirs. From 5 on it says which protocol it believes in (KIP-559).

func init() { register(0, 5, syncGroup) }

func syncGroup(r *request, q *kmsg.SyncGroupRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.SyncGroupResponse)
	if resp.ErrorCode = r.mayGroup(OpRead, q.Group); resp.ErrorCode != codeNone {
		return resp, nil
	}
	if q.Version >= 5 && (q.ProtocolType == nil || q.Protocol == nil) {
		resp.ErrorCode = codeInconsistentGroupProtocol
		return resp, nil
	}
	req := engine.SyncRequest{
		Group: q.Group, MemberID: q.MemberID, InstanceID: orEmpty(q.InstanceID), Generation: q.Generation,
		ProtocolType: orEmpty(q.ProtocolType), Protocol: orEmpty(q.Protocol), Waited: &r.idle,
	}
	for _, a := range q.GroupAssignment {
		req.Assignments = append(req.Assignments, engine.SyncAssignment{MemberID: a.MemberID, Assignment: a.MemberAssignment})
	}
	synced, err := r.engine.Groups().Sync(r.ctx, req) // as in joinGroup
	if resp.ErrorCode = coordinatorCodeOf(err); err != nil {
		return resp, nil
	}
	resp.ProtocolType, resp.Protocol, resp.MemberAssignment = &synced.ProtocolType, &synced.Protocol, synced.Assignment
	return resp, nil
}
