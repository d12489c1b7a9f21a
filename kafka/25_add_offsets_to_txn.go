package kafka

import "github.com/twmb/franz-go/pkg/kmsg"

// AddOffsetsToTxn, versions 0 to 4: a group's offsets become part of a transaction.
// With KIP-890 TxnOffsetCommit does that itself.

func init() { register(0, 4, addOffsetsToTxn) }

func addOffsetsToTxn(r *request, q *kmsg.AddOffsetsToTxnRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.AddOffsetsToTxnResponse)
	switch {
	case !r.authorize(OpWrite, ResourceTransactionalID, q.TransactionalID):
		resp.ErrorCode = codeTransactionalIDAuthorizationFailed
	case !r.authorize(OpRead, ResourceGroup, q.Group):
		resp.ErrorCode = codeGroupAuthorizationFailed
	default:
		err := r.engine.Txns().AddOffsets(r.life, q.TransactionalID, q.ProducerID, q.ProducerEpoch, q.Group)
		resp.ErrorCode = txnCode(err, q.Version >= 2)
	}
	return resp, nil
}
