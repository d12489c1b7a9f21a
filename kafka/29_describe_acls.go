package kafka

import (
	"github.com/x/embedlog/internal/acl"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeAcls, versions 1 to 3: the ACLs that a filter chooses. (KIP-140, KIP-290)

func init() { register(1, 3, describeACLs) }

func describeACLs(r *request, q *kmsg.DescribeACLsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.DescribeACLsResponse)
	f := acl.Filter{
		Resource: acl.ResourceType(q.ResourceType), Pattern: acl.PatternType(q.ResourcePatternType), Name: q.ResourceName,
		Principal: q.Principal, Host: q.Host, Operation: acl.Operation(q.Operation), Permission: acl.Permission(q.PermissionType),
	}
	if resp.ErrorCode, resp.ErrorMessage = r.mayACLs(OpDescribe); resp.ErrorCode != codeNone {
		return resp, nil
	}
	if resp.ErrorCode, resp.ErrorMessage = checkFilter(&f); resp.ErrorCode != codeNone {
		return resp, nil
	}
	for _, a := range r.engine.ACLs(f) { // those of one resource lie together
		n := len(resp.Resources)
		if n == 0 || resp.Resources[n-1].ResourceType != kmsg.ACLResourceType(a.Resource) || resp.Resources[n-1].ResourceName != a.Name ||
			resp.Resources[n-1].ResourcePatternType != kmsg.ACLResourcePatternType(a.Pattern) {
			x := kmsg.NewDescribeACLsResponseResource()
			x.ResourceType, x.ResourceName, x.ResourcePatternType = kmsg.ACLResourceType(a.Resource), a.Name, kmsg.ACLResourcePatternType(a.Pattern)
			resp.Resources = append(resp.Resources, x)
			n++
		}
		e := kmsg.NewDescribeACLsResponseResourceACL()
		e.Principal, e.Host, e.Operation, e.PermissionType = a.Principal, a.Host, kmsg.ACLOperation(a.Operation), kmsg.ACLPermissionType(a.Permission)
		resp.Resources[n-1].ACLs = append(resp.Resources[n-1].ACLs, e)
	}
	return resp, nil
}

// mayACLs says why whoever asks may not see or change ACLs. Where nobody asks about
// them there are none to speak of, as in Kafka.
func (r *request) mayACLs(op Operation) (code int16, message *string) {
	if r.srv.authorizer == nil {
		return codeSecurityDisabled, nullable("no authorizer is set: ACLs would not be looked at")
	}
	if !r.authorize(op, ResourceCluster, ClusterName) {
		return codeClusterAuthorizationFailed, nil
	}
	return codeNone, nil
}

// checkFilter refuses words that there are not; 0 is one that the client does not
// know itself.
func checkFilter(f *acl.Filter) (code int16, message *string) {
	if f.Resource < acl.ResourceAny || f.Resource > acl.ResourceUser || f.Pattern < acl.PatternAny || f.Pattern > acl.PatternPrefixed ||
		f.Operation < acl.OpAny || f.Operation > acl.OpTwoPhaseCommit || f.Permission < acl.PermissionAny || f.Permission > acl.Allow {
		return codeInvalidRequest, nullable("the filter has a resource type, pattern type, operation or permission that is unknown")
	}
	return codeNone, nil
}

// nullable is s for a field that may be null.
func nullable(s string) *string { return &s }

// errorText is the message for an error code.
func errorText(err error) *string {
	if err == nil {
		return nil
	}
	return nullable(err.Error())
}
