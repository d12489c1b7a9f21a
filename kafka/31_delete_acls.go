package kafka

import (
	"github.com/x/embedlog/internal/acl"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteAcls, versions 1 to 3: those that filters choose. (KIP-140, KIP-290)

func init() { register(1, 3, deleteACLs) }

func deleteACLs(r *request, q *kmsg.DeleteACLsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.DeleteACLsResponse)
	code, message := r.mayACLs(OpAlter)
	var filters []acl.Filter
	var at []int
	for i := range q.Filters {
		x := &q.Filters[i]
		result := kmsg.NewDeleteACLsResponseResult()
		f := acl.Filter{
			Resource: acl.ResourceType(x.ResourceType), Pattern: acl.PatternType(x.ResourcePatternType), Name: x.ResourceName,
			Principal: x.Principal, Host: x.Host, Operation: acl.Operation(x.Operation), Permission: acl.Permission(x.PermissionType),
		}
		if result.ErrorCode, result.ErrorMessage = code, message; code == codeNone {
			result.ErrorCode, result.ErrorMessage = checkFilter(&f)
		}
		if result.ErrorCode == codeNone {
			// Each filter answers with all that it chooses.
			if err := r.grow(r.engine.ACLSet().Count(&f), explainedBytes); err != nil {
				return nil, err
			}
			filters, at = append(filters, f), append(at, i)
		}
		resp.Results = append(resp.Results, result)
	}
	if len(filters) == 0 {
		return resp, nil
	}
	deleted, err := r.engine.DeleteACLs(r.life, filters...)
	for j, i := range at {
		if err != nil {
			resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage = codeOf(err), errorText(err)
			continue
		}
		for _, a := range deleted[j] {
			m := kmsg.NewDeleteACLsResponseResultMatchingACL()
			m.ResourceType, m.ResourceName, m.ResourcePatternType = kmsg.ACLResourceType(a.Resource), a.Name, kmsg.ACLResourcePatternType(a.Pattern)
			m.Principal, m.Host, m.Operation, m.PermissionType = a.Principal, a.Host, kmsg.ACLOperation(a.Operation), kmsg.ACLPermissionType(a.Permission)
			resp.Results[i].MatchingACLs = append(resp.Results[i].MatchingACLs, m)
		}
	}
	return resp, nil
}
