package kafka

import "github.com/twmb/franz-go/pkg/kmsg"

// FindCoordinator, versions 0 to 6. Alone this node coordinates everything there is; in a
// cluster it is who leads the partition where the group's, or the id's, records are. From 4
// on the request has many keys.

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
		b, err := r.findCoordinator(kind, key)
		if c.ErrorCode = coordinatorCodeOf(err); err != nil {
			c.ErrorMessage = message(err)
			break
		}
		c.NodeID, c.Host, c.Port = b.id, b.host, b.port
	}
	return c
}

// findCoordinator is the node that coordinates a group or a transactional id.
func (r *request) findCoordinator(kind int8, key string) (broker, error) {
	if r.engine.Cluster() == nil {
		return broker{r.srv.nodeID, r.conn.listener.advertise}, nil
	}
	find := r.engine.Groups().Coordinator
	if kind == coordinatorTxn {
		find = r.engine.Txns().Coordinator
	}
	node, err := find(r.ctx, key)
	if err != nil {
		return broker{}, err
	}
	b, ok := r.brokerOf(node)
	if !ok {
		return b, refuse(codeCoordinatorNotAvailable, "the coordinator is not known, or takes no calls")
	}
	return b, nil
}
