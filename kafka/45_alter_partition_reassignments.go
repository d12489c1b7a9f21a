package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// AlterPartitionReassignments, versions 0 and 1. Alone a partition may be given to this
// node, which has it already, and to no other. In a cluster any node takes it to the controller; null
// calls off what is under way. (KIP-455)

func init() { register(0, 1, alterPartitionReassignments) }

func alterPartitionReassignments(r *request, q *kmsg.AlterPartitionAssignmentsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.AlterPartitionAssignmentsResponse)
	ctx, cancel := r.within(q.TimeoutMillis)
	defer cancel()
	parts := 0
	for i := range q.Topics {
		parts += 1 + len(q.Topics[i].Partitions)
	}
	if err := r.grow(parts, explainedBytes); err != nil {
		return nil, err
	}
	resp.AllowReplicationFactorChange = q.AllowReplicationFactorChange
	resp.Topics = []kmsg.AlterPartitionAssignmentsResponseTopic{}
	allowed := r.authorize(OpAlter, ResourceCluster, ClusterName)
	if !allowed {
		resp.ErrorCode, resp.ErrorMessage = answerTo(errClusterDenied)
	}
	for _, asked := range q.Topics {
		x := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		x.Topic = asked.Topic
		for _, p := range asked.Partitions {
			y := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			y.Partition = p.Partition
			err := errClusterDenied
			if allowed {
				err = r.reassign(ctx, asked.Topic, p.Partition, p.Replicas)
			}
			y.ErrorCode, y.ErrorMessage = answerTo(err)
			x.Partitions = append(x.Partitions, y)
		}
		resp.Topics = append(resp.Topics, x)
	}
	return resp, nil
}

// reassign gives a partition to replicas, or, where they are nil, calls that off.
func (r *request) reassign(ctx context.Context, topic string, partition int32, replicas []int32) error {
	t, err := r.topic(topic)
	if err != nil {
		return err
	}
	if _, err := r.partition(t, partition); err != nil {
		return err
	}
	if replicas == nil && r.engine.Cluster() != nil {
		return r.engine.CancelReassignment(ctx, topic, partition)
	}
	if replicas == nil {
		return refuse(codeNoReassignmentInProgress, "No partition reassignment is in progress.")
	}
	if err := r.checkReplicas(replicas); err != nil || r.engine.Cluster() == nil {
		return err
	}
	return r.engine.Reassign(ctx, topic, partition, replicas)
}
