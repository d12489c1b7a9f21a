package kafka

import (
	"errors"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TxnOffsetCommit, versions 0 to 6: offsets that count when a transaction is
// committed. From 3 on it says which member commits (KIP-447), from 5 on it makes
// the group part of the transaction (KIP-890); 6 has topic ids.

func init() { register(0, 6, txnOffsetCommit) }

func txnOffsetCommit(r *request, q *kmsg.TxnOffsetCommitRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
	commit := engine.CommitRequest{Group: q.Group, MemberID: q.MemberID, MemberEpoch: -1}
	if q.Version >= 3 {
		commit.MemberEpoch = q.Generation
		if q.InstanceID != nil {
			commit.InstanceID = *q.InstanceID
		}
	}
	parts := 0
	for i := range q.Topics {
		parts += len(q.Topics[i].Partitions)
	}
	if err := r.grow(parts, committedBytes); err != nil {
		return nil, err
	}
	var codes []*int16 // of commit.Offsets
	for i := range q.Topics {
		asked := &q.Topics[i]
		t := kmsg.NewTxnOffsetCommitResponseTopic()
		t.Topic, t.TopicID = asked.Topic, asked.TopicID
		t.Partitions = make([]kmsg.TxnOffsetCommitResponseTopicPartition, len(asked.Partitions))
		var topic *engine.Topic
		var code int16
		if q.Version >= 6 {
			topic, code = r.topicByIDFor(OpRead, asked.TopicID)
		} else {
			topic, code = r.topicFor(OpRead, asked.Topic)
		}
		for j := range asked.Partitions {
			p, answer := &asked.Partitions[j], &t.Partitions[j]
			answer.Partition, answer.ErrorCode = p.Partition, code
			if code == codeNone && p.Metadata != nil && len(*p.Metadata) > engine.MaxOffsetMetadataBytes {
				answer.ErrorCode = codeOffsetMetadataTooLarge
			}
			if answer.ErrorCode != codeNone {
				continue
			}
			o := engine.OffsetCommit{TopicID: topic.ID(), Topic: topic.Name(), Partition: p.Partition, Offset: p.Offset, LeaderEpoch: -1}
			if q.Version >= 2 {
				o.LeaderEpoch = p.LeaderEpoch
			}
			if o.EpochSaid = o.LeaderEpoch >= 0; !o.EpochSaid {
				o.LeaderEpoch = epochAt(topic, p.Partition, o.Offset)
			}
			if p.Metadata != nil {
				o.Metadata = *p.Metadata
			}
			commit.Offsets = append(commit.Offsets, o)
			codes = append(codes, &answer.ErrorCode)
		}
		resp.Topics = append(resp.Topics, t)
	}
	failure := r.commitInTxn(q, &commit, codes)
	if failure != codeNone {
		for i := range resp.Topics {
			for j := range resp.Topics[i].Partitions {
				if p := &resp.Topics[i].Partitions[j]; p.ErrorCode == codeNone {
					p.ErrorCode = failure
				}
			}
		}
	}
	return resp, nil
}

// commitInTxn commits the offsets. It sets the codes of those that cannot be, and
// returns one for all of them.
func (r *request) commitInTxn(q *kmsg.TxnOffsetCommitRequest, commit *engine.CommitRequest, codes []*int16) int16 {
	switch {
	case !r.authorize(OpWrite, ResourceTransactionalID, q.TransactionalID):
		return codeTransactionalIDAuthorizationFailed
	case !r.authorize(OpRead, ResourceGroup, q.Group):
		return codeGroupAuthorizationFailed
	case len(commit.Offsets) == 0:
		return codeNone
	}
	part, err := r.engine.Groups().OffsetsPartition(r.life, q.Group)
	if err != nil {
		return r.txnCommitCode(err)
	}
	commit.Verified = part.BeginVerification(q.ProducerID)
	defer commit.Verified.Release()
	if q.Version >= 5 {
		err = r.engine.Txns().AddOffsets(r.life, q.TransactionalID, q.ProducerID, q.ProducerEpoch, q.Group)
	} else { // what was committed outside of a transaction would never be decided
		err = r.engine.Txns().Verify(r.life, q.TransactionalID, q.ProducerID, q.ProducerEpoch, part.TopicID(), part.ID())
	}
	if err != nil {
		return r.txnCommitCode(err)
	}
	err = r.engine.Groups().TxnCommit(r.life, *commit, q.ProducerID, q.ProducerEpoch)
	var some *embedlog.CommitError
	if errors.As(err, &some) {
		for _, f := range some.Failures {
			*codes[f.Index] = r.txnCommitCode(f.Err)
		}
		return codeNone
	}
	return r.txnCommitCode(err)
}

// txnCommitCode is the code for an error of a commit in a transaction.
func (r *request) txnCommitCode(err error) int16 {
	var state *engine.TxnStateError
	switch code := coordinatorCodeOf(err); {
	case code == codeProducerFenced:
		return codeInvalidProducerEpoch
	case code == codeNonEmptyGroup:
		return codeUnknownMemberID // who says no member id, where there are members
	case code == codeFencedMemberEpoch:
		return codeIllegalGeneration
	case errors.As(err, &state) && r.version >= 5:
		return codeTransactionAbortable
	default:
		return code
	}
}
