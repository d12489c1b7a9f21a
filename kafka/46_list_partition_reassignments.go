package kafka

import (
	"slices"
	"time"

	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListPartitionReassignments, version 0. The leaders of the partitions are asked; alone there is never one
// under way. (KIP-455)

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
	r.knowOnce()
	began := time.Now()
	said := make(map[engine.LogID]engine.ReplicaStatus)
	for _, s := range r.engine.AskClusterStatus(r.ctx) {
		if t, err := r.engine.Topic(s.Topic); err == nil {
			said[engine.LogID{Topic: t.ID(), Partition: s.Partition}] = s
		}
	}
	r.waited(began)
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
			if y, under := reassignment(said[engine.LogID{Topic: t.ID(), Partition: p.ID()}]); under {
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
	y.AddingReplicas, y.RemovingReplicas = s.Moving()
	y.Replicas = append(y.Replicas, y.RemovingReplicas...)
	under = len(y.AddingReplicas)+len(y.RemovingReplicas) > 0
	if y.AddingReplicas == nil {
		y.AddingReplicas = []int32{}
	}
	if y.RemovingReplicas == nil {
		y.RemovingReplicas = []int32{}
	}
	return y, under
}
