package kafka

import (
	"fmt"

	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeUserScramCredentials, version 0: which users there are, and their
// mechanisms and iterations. (KIP-554)

func init() { register(0, 0, describeUserSCRAM) }

func describeUserSCRAM(r *request, q *kmsg.DescribeUserSCRAMCredentialsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.DescribeUserSCRAMCredentialsResponse)
	if !r.authorize(OpDescribe, ResourceCluster, ClusterName) {
		resp.ErrorCode = codeClusterAuthorizationFailed
		return resp, nil
	}
	if len(q.Users) == 0 { // all
		for _, u := range r.engine.Users() {
			resp.Results = append(resp.Results, describeUser(u))
		}
		return resp, nil
	}
	asked := make(map[string]int)
	for _, u := range q.Users {
		asked[u.Name]++
	}
	for _, x := range q.Users {
		n := asked[x.Name]
		if delete(asked, x.Name); n == 0 {
			continue // answered
		}
		result := kmsg.NewDescribeUserSCRAMCredentialsResponseResult()
		result.User = x.Name
		u, ok := r.engine.User(x.Name)
		switch {
		case n > 1:
			result.ErrorCode, result.ErrorMessage = codeDuplicateResource, nullable(fmt.Sprintf("user %.64q is asked for %d times", x.Name, n))
		case !ok:
			err := &engine.UnknownUserError{Name: x.Name}
			result.ErrorCode, result.ErrorMessage = codeOf(err), errorText(err)
		default:
			result = describeUser(u)
		}
		resp.Results = append(resp.Results, result)
	}
	return resp, nil
}

func describeUser(u engine.User) kmsg.DescribeUserSCRAMCredentialsResponseResult {
	result := kmsg.NewDescribeUserSCRAMCredentialsResponseResult()
	result.User = u.Name
	for _, c := range u.Credentials {
		i := kmsg.NewDescribeUserSCRAMCredentialsResponseResultCredentialInfo()
		i.Mechanism, i.Iterations = int8(c.Mechanism), int32(c.Iterations)
		result.CredentialInfos = append(result.CredentialInfos, i)
	}
	return result
}
