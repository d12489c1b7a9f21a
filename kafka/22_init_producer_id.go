package kafka

import (
	"time"

	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// InitProducerId, versions 0 to 5: the id and epoch of a producer. From 3 on it says
// which it has. (KIP-98, KIP-360, KIP-588)

func init() { register(0, 5, initProducerID) }

func initProducerID(r *request, q *kmsg.InitProducerIDRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	if resp.ErrorCode = r.mayInit(q); resp.ErrorCode != codeNone {
		return resp, nil
	}
	init := engine.InitRequest{Timeout: time.Duration(q.TransactionTimeoutMillis) * time.Millisecond, ProducerID: -1, Epoch: -1}
	if q.TransactionalID != nil {
		init.TransactionalID = *q.TransactionalID
	}
	if q.Version >= 3 {
		init.ProducerID, init.Epoch = q.ProducerID, q.ProducerEpoch
	}
	producerID, epoch, err := r.engine.Txns().InitProducer(r.life, init)
	if resp.ErrorCode = txnCode(err, q.Version >= 4); err == nil {
		resp.ProducerID, resp.ProducerEpoch = producerID, epoch
	}
	return resp, nil
}

// mayInit says what is wrong with the request, or who asks it.
func (r *request) mayInit(q *kmsg.InitProducerIDRequest) int16 {
	switch {
	case q.TransactionalID != nil && *q.TransactionalID == "":
		return codeInvalidRequest
	case q.Version >= 3 && (q.ProducerID < 0) != (q.ProducerEpoch < 0):
		return codeInvalidRequest // half of what it has
	case q.TransactionalID != nil && !r.authorize(OpWrite, ResourceTransactionalID, *q.TransactionalID):
		return codeTransactionalIDAuthorizationFailed
	case q.TransactionalID == nil && !r.authorize(OpIdempotentWrite, ResourceCluster, ClusterName) && !r.authorizeAny(OpWrite, ResourceTopic):
		return codeClusterAuthorizationFailed
	}
	return codeNone
}
