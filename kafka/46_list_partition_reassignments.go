package kafka

import "github.com/twmb/franz-go/pkg/kmsg"

// ListPartitionReassignments, version 0. There is never one under way. (KIP-455)

func init() { register(0, 0, listPartitionReassignments) }

func listPartitionReassignments(r *request, q *kmsg.ListPartitionReassignmentsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.ListPartitionReassignmentsResponse)
	resp.Topics = []kmsg.ListPartitionReassignmentsResponseTopic{}
	if !r.authorize(OpDescribe, ResourceCluster, ClusterName) {
		resp.ErrorCode, resp.ErrorMessage = answerTo(errClusterDenied)
	}
	return resp, nil
}
