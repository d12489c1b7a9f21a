package kafka

import (
	"github.com/x/embedlog/internal/acl"
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// CreateAcls, versions 1 to 3. Those that are valid are made whatever the others are.
// (KIP-140, KIP-290)

func init() { register(1, 3, createACLs) }

func createACLs(r *request, q *kmsg.CreateACLsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.CreateACLsResponse)
	code, message := r.mayACLs(OpAlter)
	var good []acl.ACL
	var at []int
	for i := range q.Creations {
		c := &q.Creations[i]
		result := kmsg.NewCreateACLsResponseResult()
		result.ErrorCode, result.ErrorMessage = code, message
		a := acl.ACL{
			Resource: acl.ResourceType(c.ResourceType), Pattern: acl.PatternType(c.ResourcePatternType), Name: c.ResourceName,
			Principal: c.Principal, Host: c.Host, Operation: acl.Operation(c.Operation), Permission: acl.Permission(c.PermissionType),
		}
		if code == codeNone {
			if why := a.Reason(); why != "" { // before defaults: what is zero here is unknown
				err := &engine.InvalidACLError{ACL: a, Reason: why}
				result.ErrorCode, result.ErrorMessage = codeOf(err), errorText(err)
			} else {
				good, at = append(good, a), append(at, i)
			}
		}
		resp.Results = append(resp.Results, result)
	}
	if len(good) > 0 {
		if err := r.engine.CreateACLs(r.life, good); err != nil {
			for _, i := range at {
				resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage = codeOf(err), errorText(err)
			}
		}
	}
	return resp, nil
}
