package kafka

import "github.com/twmb/franz-go/pkg/kmsg"

// OffsetForLeaderEpoch, versions 2 to 4: where a leader's records end. A client
// that has read further has read what was lost. (KIP-101, KIP-320)

func init() { register(2, 4, offsetForLeaderEpoch) }

func offsetForLeaderEpoch(r *request, q *kmsg.OffsetForLeaderEpochRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
	for i := range q.Topics {
		asked := &q.Topics[i]
		t := kmsg.NewOffsetForLeaderEpochResponseTopic()
		t.Topic = asked.Topic
		topic, code := r.topicFor(OpDescribe, asked.Topic)
		for j := range asked.Partitions {
			p := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			p.Partition, p.ErrorCode, p.LeaderEpoch, p.EndOffset = asked.Partitions[j].Partition, code, -1, -1
			if code == codeNone {
				part, err := r.readablePartition(topic, p.Partition)
				if err == nil {
					err = r.mustKnow(part)
				}
				if p.ErrorCode = codeOf(err); err == nil {
					p.ErrorCode = r.checkLeaderEpoch(part, asked.Partitions[j].CurrentLeaderEpoch)
				}
				if p.ErrorCode == codeNone {
					// Once more: it may have been replaced before its epoch was compared, which
					// then was its successor's.
					p.ErrorCode = codeOf(r.mustKnow(part))
				}
				if p.ErrorCode == codeNone {
					p.LeaderEpoch, p.EndOffset = part.EpochEnd(asked.Partitions[j].LeaderEpoch)
				}
			}
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp, nil
}
