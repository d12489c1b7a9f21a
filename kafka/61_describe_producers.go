package kafka

import "github.com/twmb/franz-go/pkg/kmsg"

// DescribeProducers, version 0: the producers that partitions remember. (KIP-664)

func init() { register(0, 0, describeProducers) }

func describeProducers(r *request, q *kmsg.DescribeProducersRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.DescribeProducersResponse)
	for i := range q.Topics {
		asked := &q.Topics[i]
		if err := r.grow(1+len(asked.Partitions), plainBytes); err != nil {
			return nil, err
		}
		t := kmsg.NewDescribeProducersResponseTopic()
		t.Topic = asked.Topic
		topic, code := r.topicFor(OpRead, asked.Topic)
		for _, n := range asked.Partitions {
			p := kmsg.NewDescribeProducersResponseTopicPartition()
			p.Partition, p.ErrorCode = n, code
			if code == codeNone {
				part, err := r.partition(topic, n)
				if err == nil {
					err = r.mustLead(part)
				}
				if p.ErrorCode = codeOf(err); err == nil {
					producers := part.Producers()
					if err := r.grow(len(producers), plainBytes); err != nil {
						return nil, err
					}
					for _, s := range producers {
						a := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
						a.ProducerID, a.ProducerEpoch, a.LastSequence = s.ProducerID, int32(s.Epoch), s.LastSequence
						a.LastTimestamp, a.CoordinatorEpoch, a.CurrentTxnStartOffset = s.LastTimestamp, s.CoordinatorEpoch, s.TxnFirstOffset
						p.ActiveProducers = append(p.ActiveProducers, a)
					}
				}
			}
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp, nil
}
