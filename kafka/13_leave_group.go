package kafka

import (
	"errors"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// LeaveGroup, versions 0 to 5: members go. From 3 on there may be several, and static
// ones that somebody else takes out by their instance id (KIP-345).

func init() { register(0, 5, leaveGroup) }

func leaveGroup(r *request, q *kmsg.LeaveGroupRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.LeaveGroupResponse)
	if resp.ErrorCode = r.mayGroup(OpRead, q.Group); resp.ErrorCode != codeNone {
		return resp, nil
	}
	req := engine.LeaveRequest{Group: q.Group}
	if q.Version < 3 {
		req.Members = []engine.LeavingMember{{MemberID: q.MemberID}}
	}
	for _, m := range q.Members {
		req.Members = append(req.Members, engine.LeavingMember{MemberID: m.MemberID, InstanceID: orEmpty(m.InstanceID), Reason: orEmpty(m.Reason)})
	}
	failures, err := r.engine.Groups().Leave(r.life, req)
	if errors.Is(err, embedlog.ErrUnknownMember) { // there is no such group
		failures = make([]error, len(req.Members))
		for i := range failures {
			failures[i] = err
		}
		err = nil
	}
	if resp.ErrorCode = coordinatorCodeOf(err); err != nil {
		return resp, nil
	}
	if q.Version < 3 {
		resp.ErrorCode = coordinatorCodeOf(failures[0])
		return resp, nil
	}
	for i, m := range q.Members {
		x := kmsg.NewLeaveGroupResponseMember()
		x.MemberID, x.InstanceID, x.ErrorCode = m.MemberID, m.InstanceID, coordinatorCodeOf(failures[i])
		resp.Members = append(resp.Members, x)
	}
	return resp, nil
}
