package kafka

import "github.com/twmb/franz-go/pkg/kmsg"

// EndTxn, versions 0 to 5. With 5 each transaction has an epoch of its own, and the
// answer is the next one's. (KIP-890)

func init() { register(0, 5, endTxn) }

func endTxn(r *request, q *kmsg.EndTxnRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.EndTxnResponse)
	if !r.authorize(OpWrite, ResourceTransactionalID, q.TransactionalID) {
		resp.ErrorCode = codeTransactionalIDAuthorizationFailed
		return resp, nil
	}
	txns := r.engine.Txns()
	if q.Version < 5 {
		err := txns.EndV1(r.life, q.TransactionalID, q.ProducerID, q.ProducerEpoch, q.Commit)
		resp.ErrorCode = txnCode(err, q.Version >= 2)
		return resp, nil
	}
	producerID, epoch, err := txns.End(r.life, q.TransactionalID, q.ProducerID, q.ProducerEpoch, q.Commit)
	resp.ErrorCode, resp.ProducerID, resp.ProducerEpoch = txnCode(err, true), producerID, epoch
	return resp, nil
}
