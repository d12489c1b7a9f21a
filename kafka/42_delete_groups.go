package kafka

import "github.com/twmb/franz-go/pkg/kmsg"

// DeleteGroups, versions 0 to 3: groups without members, with their offsets. 3 has
// messages.

func init() { register(0, 3, deleteGroups) }

func deleteGroups(r *request, q *kmsg.DeleteGroupsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.DeleteGroupsResponse)
	for _, name := range q.Groups {
		g := kmsg.NewDeleteGroupsResponseGroup()
		g.Group = name
		if g.ErrorCode = r.mayGroup(OpDelete, name); g.ErrorCode == codeNone {
			err := r.engine.Groups().Delete(r.life, name)
			g.ErrorCode, g.ErrorMessage = coordinatorCodeOf(err), message(err)
		}
		resp.Groups = append(resp.Groups, g)
	}
	return resp, nil
}
