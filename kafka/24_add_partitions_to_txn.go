package kafka

import "github.com/twmb/franz-go/pkg/kmsg"

// AddPartitionsToTxn, versions 0 to 5. Clients send 0 to 3; from 4 on, between
// brokers, a request has many transactions, and may only verify. (KIP-890)

func init() { register(0, 5, addPartitionsToTxn) }

func addPartitionsToTxn(r *request, q *kmsg.AddPartitionsToTxnRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.AddPartitionsToTxnResponse)
	if q.Version < 4 {
		topics := make([]kmsg.AddPartitionsToTxnRequestTransactionTopic, len(q.Topics))
		for i, t := range q.Topics {
			topics[i].Topic, topics[i].Partitions = t.Topic, t.Partitions
		}
		for _, t := range r.addTransaction(q.TransactionalID, q.ProducerID, q.ProducerEpoch, topics, false) {
			answer := kmsg.NewAddPartitionsToTxnResponseTopic()
			answer.Topic = t.Topic
			for _, p := range t.Partitions {
				answer.Partitions = append(answer.Partitions, kmsg.AddPartitionsToTxnResponseTopicPartition(p))
			}
			resp.Topics = append(resp.Topics, answer)
		}
		return resp, nil
	}
	if !r.authorize(OpClusterAction, ResourceCluster, ClusterName) {
		resp.ErrorCode = codeClusterAuthorizationFailed
		return resp, nil
	}
	for i := range q.Transactions {
		x := &q.Transactions[i]
		answer := kmsg.NewAddPartitionsToTxnResponseTransaction()
		answer.TransactionalID = x.TransactionalID
		answer.Topics = r.addTransaction(x.TransactionalID, x.ProducerID, x.ProducerEpoch, x.Topics, x.VerifyOnly)
		resp.Transactions = append(resp.Transactions, answer)
	}
	return resp, nil
}

// addTransaction answers for one transaction.
func (r *request) addTransaction(id string, producerID int64, epoch int16, topics []kmsg.AddPartitionsToTxnRequestTransactionTopic, verify bool) []kmsg.AddPartitionsToTxnResponseTransactionTopic {
	answers := make([]kmsg.AddPartitionsToTxnResponseTransactionTopic, len(topics))
	var parts []txnPart
	for i := range topics {
		answers[i].Topic = topics[i].Topic
		answers[i].Partitions = make([]kmsg.AddPartitionsToTxnResponseTransactionTopicPartition, len(topics[i].Partitions))
		for j, n := range topics[i].Partitions {
			p := &answers[i].Partitions[j]
			p.Partition = n
			parts = append(parts, txnPart{topics[i].Topic, n, &p.ErrorCode})
		}
	}
	if !r.authorize(OpWrite, ResourceTransactionalID, id) {
		for i := range parts {
			*parts[i].code = codeTransactionalIDAuthorizationFailed
		}
		return answers
	}
	r.addToTxn(id, producerID, epoch, parts, verify)
	return answers
}
