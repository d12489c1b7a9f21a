package kafka

import (
	"errors"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// OffsetCommit, versions 2 to 10: where a group goes on reading. From 6 on it has
// leader epochs (KIP-320), from 9 on members with an epoch commit with it (KIP-848);
// 10 has topic ids. The retention time of versions 2 to 4 is not looked at, as in Kafka.

func init() { register(2, 10, offsetCommit) }

// committedBytes is about what an offset takes on its way to the disk, without its metadata.
const committedBytes = 400

func offsetCommit(r *request, q *kmsg.OffsetCommitRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.OffsetCommitResponse)
	commit := engine.CommitRequest{Group: q.Group, MemberID: q.MemberID, MemberEpoch: q.Generation, InstanceID: orEmpty(q.InstanceID), Forget: true}
	parts := 0
	for i := range q.Topics {
		parts += len(q.Topics[i].Partitions)
	}
	if err := r.grow(parts, committedBytes); err != nil {
		return nil, err
	}
	failure := r.mayGroup(OpRead, q.Group)
	var codes []*int16 // of commit.Offsets
	resp.Topics = make([]kmsg.OffsetCommitResponseTopic, len(q.Topics))
	for i := range q.Topics {
		asked, t := &q.Topics[i], &resp.Topics[i]
		t.Topic, t.TopicID = asked.Topic, asked.TopicID
		t.Partitions = make([]kmsg.OffsetCommitResponseTopicPartition, len(asked.Partitions))
		var topic *engine.Topic
		code := failure
		switch {
		case code != codeNone:
		case q.Version >= 10:
			topic, code = r.topicByIDFor(OpRead, asked.TopicID)
		default:
			topic, code = r.topicFor(OpRead, asked.Topic)
		}
		for j := range asked.Partitions {
			p, answer := &asked.Partitions[j], &t.Partitions[j]
			answer.Partition, answer.ErrorCode = p.Partition, code
			if code == codeNone && len(orEmpty(p.Metadata)) > engine.MaxOffsetMetadataBytes {
				answer.ErrorCode = codeOffsetMetadataTooLarge
			}
			if answer.ErrorCode != codeNone {
				continue
			}
			o := engine.OffsetCommit{
				TopicID: topic.ID(), Topic: topic.Name(), Partition: p.Partition, Offset: max(p.Offset, engine.NoOffset), LeaderEpoch: -1, Metadata: orEmpty(p.Metadata),
			}
			if q.Version >= 6 {
				o.LeaderEpoch = p.LeaderEpoch
			}
			if o.EpochSaid = o.LeaderEpoch >= 0; !o.EpochSaid {
				o.LeaderEpoch = epochAt(topic, p.Partition, o.Offset)
			}
			commit.Offsets = append(commit.Offsets, o)
			codes = append(codes, &answer.ErrorCode)
		}
	}
	if len(commit.Offsets) > 0 {
		r.commitOffsets(&commit, codes)
	}
	return resp, nil
}

// commitOffsets commits, and sets the codes of what cannot be.
func (r *request) commitOffsets(commit *engine.CommitRequest, codes []*int16) {
	groups := r.engine.Groups()
	member, instance := commit.MemberID, commit.InstanceID
	if commit.MemberEpoch < 0 {
		// Whoever says no generation is a member of nothing, whatever else he says: he
		// may commit while the group has no members.
		commit.MemberEpoch, commit.MemberID, commit.InstanceID = -1, "", ""
	}
	err := groups.Commit(r.life, *commit)
	if commit.MemberEpoch < 0 && member+instance != "" && errors.Is(err, embedlog.ErrGroupNotEmpty) {
		commit.MemberID, commit.InstanceID = member, instance
		err = groups.Commit(r.life, *commit) // is refused, and says why
	}
	var some *embedlog.CommitError
	if errors.As(err, &some) {
		for _, f := range some.Failures {
			*codes[f.Index] = r.commitCode(f.Err)
		}
		return
	}
	for _, code := range codes {
		*code = r.commitCode(err)
	}
}

// commitCode is the code for an error of a commit.
func (r *request) commitCode(err error) int16 {
	var notOwner *engine.NotOwnerError
	switch code := coordinatorCodeOf(err); code {
	case codeFencedMemberEpoch:
		switch {
		case r.version >= 9:
			return codeStaleMemberEpoch
		case errors.As(err, &notOwner):
			return codeIllegalGeneration // a classic member's partition is somebody else's by now
		}
		return codeUnsupportedVersion // members with an epoch commit with version 9
	case codeNonEmptyGroup:
		return codeUnknownMemberID // only members commit while there are any
	case codeMessageTooLarge:
		return codeInvalidCommitOffsetSize
	case codeUnknownTopicOrPartition:
		if r.version >= 10 && errors.Is(err, embedlog.ErrUnknownTopic) {
			return codeUnknownTopicID // it was deleted meanwhile
		}
		return code
	default:
		return code
	}
}
