package kafka

import (
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// OffsetFetch, versions 1 to 10: where groups go on reading. From 2 on no topics are
// all of them, from 7 on an offset in an open transaction is UNSTABLE_OFFSET_COMMIT for
// who asks (KIP-447), from 8 on a request has many groups (KIP-709), from 9 on members
// with an epoch say who they are (KIP-848); 10 has topic ids. A group that there is not
// has no offsets, and that is no error.

func init() { register(1, 10, offsetFetch) }

func offsetFetch(r *request, q *kmsg.OffsetFetchRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.OffsetFetchResponse)
	if q.Version >= 8 {
		for i := range q.Groups {
			g := r.fetchGroup(&q.Groups[i], q.RequireStable)
			bytes := int64(plainBytes)
			for j := range g.Topics {
				bytes += plainBytes
				for _, p := range g.Topics[j].Partitions {
					bytes += plainBytes + int64(len(orEmpty(p.Metadata)))
				}
			}
			if err := r.grow(1, bytes); err != nil {
				return nil, err
			}
			resp.Groups = append(resp.Groups, g)
		}
		return resp, nil
	}
	asked := kmsg.NewOffsetFetchRequestGroup()
	asked.Group = q.Group
	if q.Topics != nil || q.Version < 2 {
		asked.Topics = make([]kmsg.OffsetFetchRequestGroupTopic, len(q.Topics))
		for i := range q.Topics {
			asked.Topics[i].Topic, asked.Topics[i].Partitions = q.Topics[i].Topic, q.Topics[i].Partitions
		}
	}
	g := r.fetchGroup(&asked, q.RequireStable)
	resp.ErrorCode = g.ErrorCode
	if g.ErrorCode != codeNone && q.Version < 2 { // which have no place for it
		for i := range asked.Topics {
			t := kmsg.OffsetFetchResponseGroupTopic{Topic: asked.Topics[i].Topic}
			for _, n := range asked.Topics[i].Partitions {
				t.Partitions = append(t.Partitions, noOffset(n, g.ErrorCode))
			}
			g.Topics = append(g.Topics, t)
		}
	}
	for i := range g.Topics {
		t := kmsg.NewOffsetFetchResponseTopic()
		t.Topic = g.Topics[i].Topic
		for _, p := range g.Topics[i].Partitions {
			t.Partitions = append(t.Partitions, kmsg.OffsetFetchResponseTopicPartition(p))
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp, nil
}

// noOffset is the answer for a partition without an offset.
func noOffset(partition int32, code int16) kmsg.OffsetFetchResponseGroupTopicPartition {
	p := kmsg.NewOffsetFetchResponseGroupTopicPartition()
	p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode = partition, engine.NoOffset, -1, kmsg.StringPtr(""), code
	return p
}

// offsetPart is a partition of a topic, by the topic's id.
type offsetPart struct {
	topic     engine.TopicID
	partition int32
}

// fetchGroup answers for one group.
func (r *request) fetchGroup(asked *kmsg.OffsetFetchRequestGroup, stable bool) kmsg.OffsetFetchResponseGroup {
	g := kmsg.NewOffsetFetchResponseGroup()
	g.Group = asked.Group
	if g.ErrorCode = r.mayGroup(OpDescribe, asked.Group); g.ErrorCode != codeNone {
		return g
	}
	req := engine.FetchRequest{Group: asked.Group, MemberID: orEmpty(asked.MemberID), MemberEpoch: asked.MemberEpoch, Stable: stable}
	topics := make([]*engine.Topic, len(asked.Topics))
	codes := make([]int16, len(asked.Topics))
	if asked.Topics != nil {
		req.Partitions = []engine.TopicPartitions{}
	}
	for i := range asked.Topics {
		t := &asked.Topics[i]
		if r.version >= 10 {
			topics[i], codes[i] = r.topicByIDFor(OpDescribe, t.TopicID)
		} else if topics[i], codes[i] = r.topicFor(OpDescribe, t.Topic); codes[i] == codeUnknownTopicOrPartition {
			codes[i] = codeNone // it has no offset either
		}
		if topics[i] != nil {
			req.Partitions = append(req.Partitions, engine.TopicPartitions{Topic: topics[i].ID(), Partitions: t.Partitions})
		}
	}
	list, err := r.engine.Groups().FetchOffsets(r.ctx, req)
	if err != nil {
		if g.ErrorCode = coordinatorCodeOf(err); g.ErrorCode == codeFencedMemberEpoch {
			g.ErrorCode = codeStaleMemberEpoch
		}
		return g
	}
	if asked.Topics == nil {
		r.answerAll(&g, list)
		return g
	}
	found := make(map[offsetPart]*engine.FetchedOffset, len(list))
	for i := range list {
		found[offsetPart{list[i].TopicID, list[i].Partition}] = &list[i]
	}
	for i := range asked.Topics {
		t := kmsg.NewOffsetFetchResponseGroupTopic()
		t.Topic, t.TopicID = asked.Topics[i].Topic, asked.Topics[i].TopicID
		for _, n := range asked.Topics[i].Partitions {
			var o *engine.FetchedOffset
			if topics[i] != nil {
				o = found[offsetPart{topics[i].ID(), n}]
			}
			if o == nil {
				t.Partitions = append(t.Partitions, noOffset(n, codes[i]))
			} else {
				t.Partitions = append(t.Partitions, r.fetchedOffset(asked.Group, o))
			}
		}
		g.Topics = append(g.Topics, t)
	}
	return g
}

// answerAll answers with all offsets of a group, of topics that whoever asks may see.
func (r *request) answerAll(g *kmsg.OffsetFetchResponseGroup, list []engine.FetchedOffset) {
	at := make(map[engine.TopicID]int) // in g.Topics; -1 is not to be seen
	for i := range list {
		o := &list[i]
		n, known := at[o.TopicID]
		if !known {
			n = -1
			if r.authorize(OpDescribe, ResourceTopic, o.Topic) {
				n = len(g.Topics)
				t := kmsg.NewOffsetFetchResponseGroupTopic()
				t.Topic, t.TopicID = o.Topic, o.TopicID
				g.Topics = append(g.Topics, t)
			}
			at[o.TopicID] = n
		}
		if n >= 0 {
			g.Topics[n].Partitions = append(g.Topics[n].Partitions, r.fetchedOffset(g.Group, o))
		}
	}
}

// fetchedOffset is one offset. A place that is known to be lost, by the epoch of the
// log that was committed with it, is where the log and what was read part. Any other is
// what was committed, as in Kafka: it may lie past the end, and an epoch that the client
// said may be wrong.
func (r *request) fetchedOffset(group string, o *engine.FetchedOffset) kmsg.OffsetFetchResponseGroupTopicPartition {
	if o.Undecided {
		return noOffset(o.Partition, codeUnstableOffsetCommit)
	}
	p := noOffset(o.Partition, codeNone)
	p.Offset, p.LeaderEpoch, p.Metadata = o.Offset, o.LeaderEpoch, kmsg.StringPtr(o.Metadata)
	if lost := o.Lost; lost != nil && (lost.LeaderEpoch < 0 || o.EpochSaid) {
		p.Offset, p.LeaderEpoch = lost.Offset, lost.LeaderEpoch
	} else if lost != nil {
		r.srv.logger.Warn("kafka: a committed position was brought back", "group", group, "topic", o.Topic, "partition", o.Partition,
			"committed", lost.Offset, "epoch", lost.LeaderEpoch, "offset", lost.End)
	}
	return p
}
