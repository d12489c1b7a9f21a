package kafka

import (
	"errors"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// What ShareFetch and ShareAcknowledge share.

// sharePartition is a partition within a request of a share session.
type sharePartition struct {
	topic     engine.TopicID
	partition int32
}

// shareAcks are what a request says of the records of one partition, and what came of it.
type shareAcks struct {
	at   sharePartition
	acks []engine.Ack
	err  error
	code int16 // of err, or of what was found before the engine was asked
}

// ackTypes makes the engine's types of those of the wire; renewals only where the request
// says that there are some. (KIP-1222)
func ackTypes(types []int8, renew bool) ([]engine.AckType, bool) {
	list := make([]engine.AckType, len(types))
	for i, t := range types {
		if list[i] = engine.AckType(t); list[i] == engine.AckRenew && !renew {
			return nil, false
		}
	}
	return list, true
}

// acknowledge does what the acknowledgements of a request say, partitions side by side so that
// they wait for the disk together.
func (r *request) acknowledge(group, member string, list []shareAcks) {
	for i := range list { // before: it may have to find out whether there are such topics
		if x := &list[i]; x.code == codeNone {
			x.code = r.mayShare(x.at.topic)
		}
	}
	sideBySide(len(list), func(i int) {
		x := &list[i]
		if x.code != codeNone {
			return
		}
		x.err = r.engine.Shares().Acknowledge(r.life, engine.AckRequest{
			Group: group, MemberID: member, Topic: x.at.topic, Partition: x.at.partition, Acks: x.acks,
		})
		x.code = shareCodeOf(x.err)
	})
}

// mayShare says whether whoever asks may read the topic, by the code to answer with.
func (r *request) mayShare(id engine.TopicID) int16 {
	t, err := r.topicByID(id)
	if err != nil {
		return shareCodeOf(err)
	}
	if !r.authorize(OpRead, ResourceTopic, t.Name()) {
		return codeTopicAuthorizationFailed
	}
	return codeNone
}

// shareCodeOf is codeOf where topics are named by their ids.
func shareCodeOf(err error) int16 {
	switch {
	case errors.Is(err, embedlog.ErrUnknownTopic):
		return codeUnknownTopicID
	case errors.Is(err, embedlog.ErrCorrupt):
		return codeCorruptMessage
	}
	return codeOf(err)
}

// shareStep is the next request of a share session.
func (r *request) shareStep(group, member *string, epoch int32, add, forget []engine.TopicPartitions) ([]engine.TopicPartitions, error) {
	if orEmpty(group) == "" || orEmpty(member) == "" {
		return nil, refuse(codeInvalidRequest, "the group id or the member id is empty")
	}
	r.conn.shares = true
	return r.engine.Shares().Sessions.Step(r.conn, *group, *member, epoch, add, forget)
}

// shareTopics collects answers by topic, in the order in which they come.
type shareTopics[T any] struct {
	at   map[engine.TopicID]int
	list []T
}

func (s *shareTopics[T]) topic(id engine.TopicID, make func() T) *T {
	if s.at == nil {
		s.at = map[engine.TopicID]int{}
	}
	i, has := s.at[id]
	if !has {
		i = len(s.list)
		s.at[id] = i
		s.list = append(s.list, make())
	}
	return &s.list[i]
}

// noLeader is who leads where the client need not be told.
var noLeader = kmsg.ShareFetchResponseTopicPartitionCurrentLeader{LeaderID: -1, LeaderEpoch: -1}
