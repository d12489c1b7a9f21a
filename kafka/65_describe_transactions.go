package kafka

import (
	"errors"
	"slices"

	embedlog "github.com/x/embedlog"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeTransactions, version 0. (KIP-664)

func init() { register(0, 0, describeTransactions) }

func describeTransactions(r *request, q *kmsg.DescribeTransactionsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.DescribeTransactionsResponse)
	for _, id := range q.TransactionalIDs {
		s := kmsg.NewDescribeTransactionsResponseTransactionState()
		s.TransactionalID, s.StartTimestamp, s.ProducerID, s.ProducerEpoch = id, -1, -1, -1
		if !r.authorize(OpDescribe, ResourceTransactionalID, id) {
			s.ErrorCode = codeTransactionalIDAuthorizationFailed
		} else {
			r.describeTransaction(&s)
		}
		parts := 1
		for i := range s.Topics {
			parts += 1 + len(s.Topics[i].Partitions)
		}
		if err := r.grow(parts, plainBytes); err != nil {
			return nil, err
		}
		resp.TransactionStates = append(resp.TransactionStates, s)
	}
	return resp, nil
}

func (r *request) describeTransaction(s *kmsg.DescribeTransactionsResponseTransactionState) {
	d, err := r.engine.Txns().Describe(s.TransactionalID)
	if errors.Is(err, embedlog.ErrProducerMapping) {
		s.ErrorCode = codeTransactionalIDNotFound
		return
	}
	if s.ErrorCode = coordinatorCodeOf(err); err != nil {
		return
	}
	s.State, s.TimeoutMillis = d.State, int32(d.Timeout.Milliseconds())
	s.ProducerID, s.ProducerEpoch = d.ProducerID, d.Epoch
	if !d.Started.IsZero() {
		s.StartTimestamp = d.Started.UnixMilli()
	}
	for _, p := range d.Partitions {
		topic, err := r.engine.TopicByID(p.Topic)
		if err != nil || !r.authorize(OpDescribe, ResourceTopic, topic.Name()) {
			continue // deleted meanwhile, or not for everybody to know
		}
		t := kmsg.NewDescribeTransactionsResponseTransactionStateTopic()
		t.Topic, t.Partitions = topic.Name(), slices.Clone(p.Partitions)
		s.Topics = append(s.Topics, t)
	}
}
