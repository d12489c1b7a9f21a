package kafka

import (
	"slices"

	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListPartitionReassignments, version 0. Those under way are of partitions that this node
// has a replica of; alone there is never one. (KIP-455)

func init() { register(0, 0, listPartitionReassignments) }

func listPartitionReassignments(r *request, q *kmsg.ListPartitionReassignmentsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.ListPartitionReassignmentsResponse)
	resp.Topics = []kmsg.ListPartitionReassignmentsResponseTopic{}
	if !r.authorize(OpDescribe, ResourceCluster, ClusterName) {
		resp.ErrorCode, resp.ErrorMessage = answerTo(errClusterDenied)
		return resp, nil
	}
	if r.engine.Cluster() == nil {
		return resp, nil
	}
	wanted := make(map[string][]int32)
	for _, t := range q.Topics {
		wanted[t.Topic] = append(wanted[t.Topic], t.Partitions...)
	}
	for _, t := range r.engine.Topics() {
		numbers, named := wanted[t.Name()]
		if q.Topics != nil && !named {
			continue
		}
		x := kmsg.NewListPartitionReassignmentsResponseTopic()
		x.Topic = t.Name()
		for _, p := range t.Partitions() {
			if q.Topics != nil && !slices.Contains(numbers, p.ID()) {
				continue
			}
			if y, under := reassignment(p.Status()); under {
				x.Partitions = append(x.Partitions, y)
			}
		}
		if len(x.Partitions) > 0 {
			resp.Topics = append(resp.Topics, x)
		}
	}
	return resp, nil
}

// reassignment says whether a partition has other replicas than it is to have.
func reassignment(s engine.ReplicaStatus) (y kmsg.ListPartitionReassignmentsResponseTopicPartition, under bool) {
	y = kmsg.NewListPartitionReassignmentsResponseTopicPartition()
	y.Partition, y.Replicas = s.Partition, slices.Clone(s.Replicas)
	y.AddingReplicas, y.RemovingReplicas = []int32{}, []int32{}
	if len(s.Members) == 0 {
		return y, false // not known here
	}
	has := func(id int32, voter bool) bool {
		return slices.ContainsFunc(s.Members, func(m engine.MemberStatus) bool { return m.Node == id && (m.Voter || !voter) })
	}
	for _, id := range s.Replicas {
		if !has(id, true) {
			y.AddingReplicas = append(y.AddingReplicas, id)
		}
	}
	for _, m := range s.Members {
		if !slices.Contains(s.Replicas, m.Node) {
			y.Replicas = append(y.Replicas, m.Node)
			y.RemovingReplicas = append(y.RemovingReplicas, m.Node)
		}
	}
	return y, len(y.AddingReplicas)+len(y.RemovingReplicas) > 0
}
