package kafka

import (
	"fmt"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ShareGroupDescribe, version 1: share groups and their members. (KIP-932)

func init() { register(1, 1, shareGroupDescribe) }

func shareGroupDescribe(r *request, q *kmsg.ShareGroupDescribeRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.ShareGroupDescribeResponse)
	for _, name := range q.GroupIDs {
		g := kmsg.NewShareGroupDescribeResponseGroup()
		g.GroupID = name
		if g.ErrorCode = r.mayGroup(OpDescribe, name); g.ErrorCode == codeNone {
			r.describeShareGroup(&g)
			if q.IncludeAuthorizedOperations {
				g.AuthorizedOperations = r.operations(ResourceGroup, name, groupOperations...)
			}
		}
		resp.Groups = append(resp.Groups, g)
	}
	return resp, nil
}

func (r *request) describeShareGroup(g *kmsg.ShareGroupDescribeResponseGroup) {
	d, err := r.engine.Groups().Describe(r.ctx, g.GroupID)
	if err == nil && d.Type != engine.GroupTypeShare {
		err = fmt.Errorf("group %q is not a share group: %w", g.GroupID, embedlog.ErrUnknownGroup)
	}
	if err != nil {
		g.ErrorCode, g.ErrorMessage = coordinatorCodeOf(err), message(err)
		return
	}
	g.GroupState, g.GroupEpoch, g.AssignmentEpoch, g.Assignor = string(d.State), d.Epoch, d.Epoch, d.Assignor
	see := newSeenTopics(r)
	for i := range d.Members {
		m := &d.Members[i]
		x := kmsg.NewShareGroupDescribeResponseGroupMember()
		x.MemberID, x.RackID, x.MemberEpoch = m.MemberID, orNull(m.RackID), m.Epoch
		x.ClientID, x.ClientHost, x.SubscribedTopicNames = m.ClientID, shownHost(m.ClientHost), m.Topics
		for _, name := range m.Topics {
			see.name(name)
		}
		for _, t := range see.list(m.Assigned) {
			y := kmsg.NewShareGroupDescribeResponseGroupMemberAssignmentTopicPartition()
			y.TopicID, y.Topic, y.Partitions = t.TopicID, t.Topic, t.Partitions
			x.Assignment.TopicPartitions = append(x.Assignment.TopicPartitions, y)
		}
		g.Members = append(g.Members, x)
	}
	if see.hidden {
		why := "the group reads topics that are not for everybody to know"
		*g = kmsg.ShareGroupDescribeResponseGroup{
			GroupID: g.GroupID, ErrorCode: codeTopicAuthorizationFailed, ErrorMessage: &why, AuthorizedOperations: g.AuthorizedOperations,
		}
	}
}
