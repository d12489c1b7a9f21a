package kafka

import (
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Heartbeat, versions 0 to 4: a classic member is there, and hears whether it is to
// join again.

func init() { register(0, 4, heartbeat) }

func heartbeat(r *request, q *kmsg.HeartbeatRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.HeartbeatResponse)
	if resp.ErrorCode = r.mayGroup(OpRead, q.Group); resp.ErrorCode == codeNone {
		resp.ErrorCode = coordinatorCodeOf(r.engine.Groups().ClassicHeartbeat(r.life, engine.ClassicHeartbeatRequest{
			Group: q.Group, MemberID: q.MemberID, InstanceID: orEmpty(q.InstanceID), Generation: q.Generation,
		}))
	}
	return resp, nil
}
