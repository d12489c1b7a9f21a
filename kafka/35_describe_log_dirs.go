package kafka

import (
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeLogDirs, versions 1 to 5: what partitions take on the disk. There is one
// directory, that of the database.

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
	if q.Topics == nil {
		for _, t := range r.engine.Topics() {
			dir.Topics = append(dir.Topics, logDirTopic(t, t.Partitions()))
		}
	}
	for _, asked := range q.Topics {
		t, err := r.engine.Topic(asked.Topic)
		if err != nil {
			continue // what is not here is not listed
		}
		var parts []*engine.Partition
		for _, n := range asked.Partitions {
			if p, err := t.Partition(n); err == nil {
				parts = append(parts, p)
			}
		}
		if len(parts) > 0 {
			dir.Topics = append(dir.Topics, logDirTopic(t, parts))
		}
	}
	resp.Dirs = append(resp.Dirs, dir)
	return resp, nil
}

func logDirTopic(t *engine.Topic, parts []*engine.Partition) kmsg.DescribeLogDirsResponseDirTopic {
	x := kmsg.NewDescribeLogDirsResponseDirTopic()
	x.Topic = t.Name()
	for _, p := range parts {
		if p.Elsewhere() {
			continue // not in this directory
		}
		y := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
		// A partition that is the only copy, or leads, lags behind nobody; how far a replica is
		// behind its leader is what the leader knows.
		y.Partition, y.Size, y.OffsetLag = p.ID(), p.Log().AllocatedBytes(), 0
		x.Partitions = append(x.Partitions, y)
	}
	return x
}
