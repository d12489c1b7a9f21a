package kafka

import (
	"errors"
	"fmt"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeGroups, versions 0 to 6: classic groups and their members. Any other is Dead,
// and from 6 on GROUP_ID_NOT_FOUND (KIP-1043): see ConsumerGroupDescribe.

func init() { register(0, 6, describeGroups) }

const groupDead = "Dead"

// describedMemberBytes is about what a member takes in an answer, without what it says itself.
const describedMemberBytes = 300

func describeGroups(r *request, q *kmsg.DescribeGroupsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.DescribeGroupsResponse)
	for _, name := range q.Groups {
		g := kmsg.NewDescribeGroupsResponseGroup()
		g.Group = name
		if g.ErrorCode = r.mayGroup(OpDescribe, name); g.ErrorCode == codeNone {
			r.describeClassic(&g)
			bytes := int64(explainedBytes)
			for i := range g.Members {
				m := &g.Members[i]
				bytes += describedMemberBytes + int64(len(m.ProtocolMetadata)+len(m.MemberAssignment))
			}
			if err := r.grow(1, bytes); err != nil {
				return nil, err
			}
			if q.Version >= 3 && q.IncludeAuthorizedOperations {
				g.AuthorizedOperations = r.operations(ResourceGroup, name, groupOperations...)
			}
		}
		resp.Groups = append(resp.Groups, g)
	}
	return resp, nil
}

func (r *request) describeClassic(g *kmsg.DescribeGroupsResponseGroup) {
	d, err := r.engine.Groups().Describe(r.ctx, g.Group)
	if err == nil && d.Type != engine.GroupTypeClassic {
		err = fmt.Errorf("group %q is not one of the classic protocol: %w", g.Group, embedlog.ErrUnknownGroup)
	}
	if err != nil {
		g.State = groupDead
		if errors.Is(err, embedlog.ErrUnknownGroup) && r.version < 6 {
			return
		}
		g.ErrorCode, g.ErrorMessage = coordinatorCodeOf(err), message(err)
		return
	}
	g.State, g.ProtocolType = string(d.State), d.ProtocolType
	if d.State == engine.GroupStable {
		g.Protocol = d.Protocol
	}
	for i := range d.Members {
		m := &d.Members[i]
		x := kmsg.NewDescribeGroupsResponseGroupMember()
		x.MemberID, x.InstanceID, x.ClientID, x.ClientHost = m.MemberID, orNull(m.InstanceID), m.ClientID, shownHost(m.ClientHost)
		x.ProtocolMetadata, x.MemberAssignment = m.Metadata, m.Assignment
		g.Members = append(g.Members, x)
	}
}
