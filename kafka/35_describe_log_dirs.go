package kafka

import (
	"time"

	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeLogDirs, versions 1 to 5: what partitions take on the disk, and how far a replica is behind what its
// leader knows to be committed. There is one directory, that of the database.

func init() { register(1, 5, describeLogDirs) }

func describeLogDirs(r *request, q *kmsg.DescribeLogDirsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.DescribeLogDirsResponse)
	parts := 0
	for i := range q.Topics {
		parts += 1 + len(q.Topics[i].Partitions)
	}
	if err := r.grow(parts, plainBytes); err != nil {
		return nil, err
	}
	resp.Dirs = []kmsg.DescribeLogDirsResponseDir{}
	if !r.authorize(OpDescribe, ResourceCluster, ClusterName) {
		resp.ErrorCode = codeClusterAuthorizationFailed // version 3 and above; before, the list is empty
		return resp, nil
	}
	dir := kmsg.NewDescribeLogDirsResponseDir()
	dir.Dir = r.engine.Info().Dir
	dir.TotalBytes, dir.UsableBytes = r.engine.DiskSpace()
	dir.Topics = []kmsg.DescribeLogDirsResponseDirTopic{}
	began := time.Now()
	lag := r.engine.AskReplicaLag(r.ctx)
	r.waited(began)
	if q.Topics == nil {
		for _, t := range r.engine.Topics() {
			dir.Topics = append(dir.Topics, logDirTopic(t, t.Partitions(), lag))
		}
	}
	for _, asked := range q.Topics {
		t, err := r.topic(asked.Topic)
		if err != nil {
			continue // what is not here is not listed
		}
		var parts []*engine.Partition
		for _, n := range asked.Partitions {
			if p, err := r.partition(t, n); err == nil {
				parts = append(parts, p)
			}
		}
		if len(parts) > 0 {
			dir.Topics = append(dir.Topics, logDirTopic(t, parts, lag))
		}
	}
	resp.Dirs = append(resp.Dirs, dir)
	return resp, nil
}

func logDirTopic(t *engine.Topic, parts []*engine.Partition, lag engine.ReplicaLag) kmsg.DescribeLogDirsResponseDirTopic {
	x := kmsg.NewDescribeLogDirsResponseDirTopic()
	x.Topic = t.Name()
	for _, p := range parts {
		behind, ok := lag(p)
		if !ok {
			continue // not in this directory
		}
		y := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
		y.Partition, y.Size, y.OffsetLag = p.ID(), p.Log().AllocatedBytes(), behind
		x.Partitions = append(x.Partitions, y)
	}
	return x
}
