package kafka

import (
	"fmt"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ConsumerGroupDescribe, versions 0 and 1: groups that the server assigns, and their
// members. 1 says which protocol each speaks. (KIP-848)

func init() { register(0, 1, consumerGroupDescribe) }

func consumerGroupDescribe(r *request, q *kmsg.ConsumerGroupDescribeRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.ConsumerGroupDescribeResponse)
	for _, name := range q.Groups {
		g := kmsg.NewConsumerGroupDescribeResponseGroup()
		g.Group = name
		if g.ErrorCode = r.mayGroup(OpDescribe, name); g.ErrorCode == codeNone {
			r.describeServerAssigned(&g)
			bytes := int64(explainedBytes)
			for i := range g.Members {
				m := &g.Members[i]
				bytes += describedMemberBytes + memoryOf(m.Assignment) + memoryOf(m.TargetAssignment)
				for _, topic := range m.SubscribedTopics {
					bytes += int64(len(topic)) + 16
				}
			}
			if err := r.grow(1, bytes); err != nil {
				return nil, err
			}
			if q.IncludeAuthorizedOperations {
				g.AuthorizedOperations = r.operations(ResourceGroup, name, groupOperations...)
			}
		}
		resp.Groups = append(resp.Groups, g)
	}
	return resp, nil
}

// What a member speaks. (ConsumerGroupDescribeResponse, MemberType)
const (
	memberClassic  = 0
	memberConsumer = 1
)

func (r *request) describeServerAssigned(g *kmsg.ConsumerGroupDescribeResponseGroup) {
	d, err := r.engine.Groups().Describe(r.ctx, g.Group)
	if err == nil && d.Type != engine.GroupTypeConsumer {
		err = fmt.Errorf("group %q is not one that the server assigns: %w", g.Group, embedlog.ErrUnknownGroup)
	}
	if err != nil {
		g.ErrorCode, g.ErrorMessage = coordinatorCodeOf(err), message(err)
		return
	}
	g.State, g.Epoch, g.AssignmentEpoch, g.AssignorName = string(d.State), d.Epoch, d.Epoch, d.Assignor
	see := newSeenTopics(r)
	for i := range d.Members {
		m := &d.Members[i]
		x := kmsg.NewConsumerGroupDescribeResponseGroupMember()
		x.MemberID, x.InstanceID, x.RackID, x.MemberEpoch = m.MemberID, orNull(m.InstanceID), orNull(m.RackID), m.Epoch
		x.ClientID, x.ClientHost = m.ClientID, shownHost(m.ClientHost)
		x.SubscribedTopics, x.SubscribedTopicRegex = m.Topics, orNull(m.Regex)
		for _, name := range m.Topics {
			see.name(name)
		}
		x.Assignment.TopicPartitions, x.TargetAssignment.TopicPartitions = see.list(m.Assigned), see.list(m.Target)
		if x.MemberType = memberConsumer; m.Classic {
			x.MemberType = memberClassic
		}
		g.Members = append(g.Members, x)
	}
	if see.hidden {
		why := "the group reads topics that are not for everybody to know"
		*g = kmsg.ConsumerGroupDescribeResponseGroup{
			Group: g.Group, ErrorCode: codeTopicAuthorizationFailed, ErrorMessage: &why, AuthorizedOperations: g.AuthorizedOperations,
		}
	}
}

// memoryOf is about what an assignment takes in an answer.
func memoryOf(a kmsg.Assignment) (bytes int64) {
	for i := range a.TopicPartitions {
		bytes += plainBytes + 4*int64(len(a.TopicPartitions[i].Partitions))
	}
	return bytes
}

// seenTopics finds the names of topics, and notes whether one of them is not for whoever
// asks.
type seenTopics struct {
	r      *request
	seen   map[string]bool
	hidden bool
}

func newSeenTopics(r *request) *seenTopics { return &seenTopics{r: r, seen: make(map[string]bool)} }

func (n *seenTopics) name(topic string) {
	if !n.seen[topic] {
		n.seen[topic] = true
		n.hidden = n.hidden || !n.r.authorize(OpDescribe, ResourceTopic, topic)
	}
}

func (n *seenTopics) list(parts []engine.TopicPartitions) (list []kmsg.AssignmentTopicPartition) {
	for _, t := range parts {
		topic, err := n.r.engine.TopicByID(t.Topic)
		if err != nil {
			continue // it was deleted, and the member has not yet heard
		}
		n.name(topic.Name())
		x := kmsg.NewAssignmentTopicPartition()
		x.TopicID, x.Topic, x.Partitions = t.Topic, topic.Name(), t.Partitions
		list = append(list, x)
	}
	return list
}
