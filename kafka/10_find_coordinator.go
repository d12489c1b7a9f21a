package kafka

import "github.com/twmb/franz-go/pkg/kmsg"

// FindCoordinator, versions 0 to 6: this node coordinates everything there is. From
// 4 on the request has many keys.

func init() { register(0, 6, findCoordinator) }

// Kinds of coordinators.
const (
	coordinatorGroup = 0
	coordinatorTxn   = 1
)

func findCoordinator(r *request, q *kmsg.FindCoordinatorRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.FindCoordinatorResponse)
	if q.Version < 4 {
		c := r.coordinator(q.CoordinatorType, q.CoordinatorKey)
		resp.NodeID, resp.Host, resp.Port, resp.ErrorCode, resp.ErrorMessage = c.NodeID, c.Host, c.Port, c.ErrorCode, c.ErrorMessage
		return resp, nil
	}
	for _, key := range q.CoordinatorKeys {
		resp.Coordinators = append(resp.Coordinators, r.coordinator(q.CoordinatorType, key))
	}
	return resp, nil
}

func (r *request) coordinator(kind int8, key string) kmsg.FindCoordinatorResponseCoordinator {
	c := kmsg.NewFindCoordinatorResponseCoordinator()
	c.Key, c.NodeID, c.Port = key, -1, -1
	switch {
	case kind == coordinatorGroup && !r.authorize(OpDescribe, ResourceGroup, key):
		c.ErrorCode = codeGroupAuthorizationFailed
	case kind == coordinatorTxn && !r.authorize(OpDescribe, ResourceTransactionalID, key):
		c.ErrorCode = codeTransactionalIDAuthorizationFailed
	case kind != coordinatorGroup && kind != coordinatorTxn:
		c.ErrorCode = codeInvalidRequest
		c.ErrorMessage = kmsg.StringPtr("there are coordinators of groups and of transactions")
	default:
		at := r.conn.listener.advertise
		c.NodeID, c.Host, c.Port = r.srv.nodeID, at.host, at.port
	}
	return c
}
