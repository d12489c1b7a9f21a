package kafka

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListGroups, versions 0 to 5. From 4 on it filters by state (KIP-518), from 5 on by
// type (KIP-848); neither looks at upper and lower case.

func init() { register(0, 5, listGroups) }

func listGroups(r *request, q *kmsg.ListGroupsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.ListGroupsResponse)
	list, err := r.engine.Groups().List(r.ctx)
	if resp.ErrorCode = coordinatorCodeOf(err); err != nil {
		return resp, nil
	}
	all := r.authorize(OpDescribe, ResourceCluster, ClusterName)
	lower := func(filter []string) map[string]bool {
		set := make(map[string]bool, len(filter))
		for _, f := range filter {
			set[strings.ToLower(f)] = true
		}
		return set
	}
	states, types := lower(q.StatesFilter), lower(q.TypesFilter)
	in := func(filter map[string]bool, s string) bool { return len(filter) == 0 || filter[strings.ToLower(s)] }
	for _, g := range list {
		if !in(states, string(g.State)) || !in(types, string(g.Type)) || !all && !r.authorize(OpDescribe, ResourceGroup, g.Group) {
			continue
		}
		x := kmsg.NewListGroupsResponseGroup()
		x.Group, x.ProtocolType, x.GroupState, x.GroupType = g.Group, g.ProtocolType, string(g.State), string(g.Type)
		resp.Groups = append(resp.Groups, x)
	}
	return resp, nil
}
