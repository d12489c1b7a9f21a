package kafka

import (
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ShareAcknowledge, versions 1 and 2: what a member says of records that it has. It is on the disk when it is
// answered. 2 renews locks (KIP-1222). (KIP-932; version 0 was of a preview)

func init() { register(1, 2, shareAcknowledge) }

func shareAcknowledge(r *request, q *kmsg.ShareAcknowledgeRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.ShareAcknowledgeResponse)
	group, member := orEmpty(q.GroupID), orEmpty(q.MemberID)
	if resp.ErrorCode = r.mayGroup(OpRead, group); resp.ErrorCode != codeNone {
		return resp, nil
	}
	err := error(nil)
	if q.ShareSessionEpoch == engine.ShareSessionOpen {
		err = engine.ErrShareSessionEpoch // a session begins with a fetch
	} else {
		_, err = r.shareStep(q.GroupID, q.MemberID, q.ShareSessionEpoch, nil, nil)
	}
	if err != nil {
		resp.ErrorCode, resp.ErrorMessage = answerTo(err)
		return resp, nil
	}
	var list []shareAcks
	for i := range q.Topics {
		t := &q.Topics[i]
		for j := range t.Partitions {
			p := &t.Partitions[j]
			x := shareAcks{at: sharePartition{t.TopicID, p.Partition}}
			for _, b := range p.AcknowledgementBatches {
				types, ok := ackTypes(b.AcknowledgeTypes, q.IsRenewAck)
				if !ok {
					x.code = codeInvalidRequest
				}
				x.acks = append(x.acks, engine.Ack{First: b.FirstOffset, Last: b.LastOffset, Types: types})
			}
			list = append(list, x)
		}
	}
	if err := r.grow(len(list), explainedBytes); err != nil {
		return nil, err
	}
	r.acknowledge(group, member, list)
	if q.ShareSessionEpoch == engine.ShareSessionClose {
		r.engine.Shares().Release(group, member)
	}
	if resp.AcquisitionLockTimeoutMillis, err = r.engine.Shares().LockTimeout(r.ctx, group); err != nil {
		resp.ErrorCode, resp.ErrorMessage = answerTo(err)
		return resp, nil
	}
	var topics shareTopics[kmsg.ShareAcknowledgeResponseTopic]
	for i := range list {
		x := &list[i]
		t := topics.topic(x.at.topic, func() kmsg.ShareAcknowledgeResponseTopic {
			t := kmsg.NewShareAcknowledgeResponseTopic()
			t.TopicID = x.at.topic
			return t
		})
		p := kmsg.NewShareAcknowledgeResponseTopicPartition()
		p.Partition, p.ErrorCode, p.ErrorMessage = x.at.partition, x.code, message(x.err)
		p.CurrentLeader = kmsg.ShareAcknowledgeResponseTopicPartitionCurrentLeader(noLeader)
		t.Partitions = append(t.Partitions, p)
	}
	resp.Topics = topics.list
	return resp, nil
}
