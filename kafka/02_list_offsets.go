package kafka

import (
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListOffsets, versions 1 to 11: offsets by timestamp, or by what stands for one.

func init() { register(1, 11, listOffsets) }

// Timestamps that stand for something else, and from which version on.
const (
	timeLatest          = -1 // the high watermark, or the last stable offset
	timeEarliest        = -2 // the log start offset
	timeNewest          = -3 // the record with the largest timestamp (KIP-734)
	timeEarliestLocal   = -4 // the first record on this node's disk (KIP-405)
	timeLatestTiered    = -5 // the last one in remote storage (KIP-1005)
	timeEarliestPending = -6 // the first one that has yet to go there (KIP-1023)
)

var timeSince = map[int64]int16{timeLatest: 1, timeEarliest: 1, timeNewest: 7, timeEarliestLocal: 8, timeLatestTiered: 9, timeEarliestPending: 11}

func listOffsets(r *request, q *kmsg.ListOffsetsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.ListOffsetsResponse)
	type place struct {
		topic     string
		partition int32
	}
	times := make(map[place]int)
	for i := range q.Topics {
		for j := range q.Topics[i].Partitions {
			times[place{q.Topics[i].Topic, q.Topics[i].Partitions[j].Partition}]++
		}
	}
	for i := range q.Topics {
		asked := &q.Topics[i]
		t := kmsg.NewListOffsetsResponseTopic()
		t.Topic = asked.Topic
		topic, code := r.topicFor(OpDescribe, asked.Topic)
		for j := range asked.Partitions {
			p := kmsg.NewListOffsetsResponseTopicPartition()
			p.Partition, p.Timestamp, p.Offset, p.LeaderEpoch = asked.Partitions[j].Partition, -1, -1, -1
			switch {
			case times[place{asked.Topic, p.Partition}] > 1: // which of the answers is to which question?
				p.ErrorCode = codeInvalidRequest
			case code != codeNone:
				p.ErrorCode = code
			default:
				listOffset(r, q, topic, &asked.Partitions[j], &p)
			}
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp, nil
}

// listOffset answers for one partition.
func listOffset(r *request, q *kmsg.ListOffsetsRequest, topic *engine.Topic, asked *kmsg.ListOffsetsRequestTopicPartition, p *kmsg.ListOffsetsResponseTopicPartition) {
	part, err := r.readablePartition(topic, asked.Partition)
	if err == nil {
		err = r.mustLead(part)
	}
	if p.ErrorCode = codeOf(err); err != nil {
		return
	}
	if q.Version >= 4 {
		if p.ErrorCode = r.checkLeaderEpoch(part, asked.CurrentLeaderEpoch); p.ErrorCode != codeNone {
			return
		}
	}
	since, special := timeSince[asked.Timestamp]
	if asked.Timestamp >= 0 || asked.Timestamp == timeLatest || asked.Timestamp == timeNewest {
		if err := r.mustKnow(part); err != nil {
			if p.ErrorCode = codeNotLeaderOrFollower; q.Version >= 5 {
				p.ErrorCode = codeOffsetNotAvailable
			}
			return
		}
	}
	switch {
	case asked.Timestamp < 0 && !special, special && q.Version < since:
		p.ErrorCode = codeUnsupportedVersion
	case asked.Timestamp == timeLatest:
		_, p.LeaderEpoch = r.leaderOf(part)
		p.Offset = part.HighWatermark()
		if q.IsolationLevel == 1 {
			p.Offset = part.LastStable()
		}
	case asked.Timestamp == timeEarliest, asked.Timestamp == timeEarliestLocal:
		p.Offset = part.LogStart()
		p.LeaderEpoch = r.epochOf(part, p.Offset)
	case asked.Timestamp == timeLatestTiered, asked.Timestamp == timeEarliestPending:
		// All there is lies here: there is nothing to answer with, and that is no error.
	case asked.Timestamp == timeNewest:
		found, ok, err := part.Log().MaxTimestamp()
		if p.ErrorCode = codeOf(err); ok && err == nil && found.Offset < part.HighWatermark() {
			p.Offset, p.Timestamp, p.LeaderEpoch = found.Offset, found.Timestamp, int32(found.Epoch)
		}
	default:
		found, ok, err := part.OffsetForTime(asked.Timestamp)
		if p.ErrorCode = codeOf(err); ok && err == nil && (q.IsolationLevel != 1 || found.Offset < part.LastStable()) {
			p.Offset, p.Timestamp, p.LeaderEpoch = found.Offset, found.Timestamp, int32(found.Epoch)
		}
	}
}

// epochOf is the leader epoch of what is or will be at an offset.
func (r *request) epochOf(p *engine.Partition, offset int64) int32 {
	if epoch, ok := p.EpochOf(offset); ok {
		return epoch
	}
	_, epoch := r.leaderOf(p)
	return epoch
}
