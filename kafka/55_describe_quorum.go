package kafka

import (
	"time"

	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeQuorum, versions 0 to 2: who leads the metadata, and how far the others are behind. Any node asks the
// leader. A member's end is counted in entries of its log, of which some hold no offset, so it may be said to be a little
// further back than it is. (KIP-595, KIP-642, KIP-836)

func init() { register(0, 2, describeQuorum) }

// quorumTopic is what Kafka calls the metadata's log.
const quorumTopic = "__cluster_metadata"

func describeQuorum(r *request, q *kmsg.DescribeQuorumRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.DescribeQuorumResponse)
	parts := 0
	for i := range q.Topics {
		parts += 1 + len(q.Topics[i].Partitions)
	}
	if err := r.grow(parts, explainedBytes); err != nil {
		return nil, err
	}
	resp.Topics, resp.Nodes = []kmsg.DescribeQuorumResponseTopic{}, []kmsg.DescribeQuorumResponseNode{}
	if !r.authorize(OpDescribe, ResourceCluster, ClusterName) {
		resp.ErrorCode, resp.ErrorMessage = answerTo(errClusterDenied)
		return resp, nil
	}
	began := time.Now()
	status, highWatermark, end := r.engine.MetaStatus(r.ctx)
	r.waited(began)
	told := false
	for _, asked := range q.Topics {
		x := kmsg.NewDescribeQuorumResponseTopic()
		x.Topic = asked.Topic
		for _, p := range asked.Partitions {
			y := kmsg.NewDescribeQuorumResponseTopicPartition()
			y.Partition, y.LeaderID, y.LeaderEpoch = p.Partition, -1, -1
			y.CurrentVoters, y.Observers = []kmsg.DescribeQuorumResponseTopicPartitionReplicaState{}, []kmsg.DescribeQuorumResponseTopicPartitionReplicaState{}
			if asked.Topic != quorumTopic || p.Partition != 0 {
				y.ErrorCode, y.ErrorMessage = answerTo(refuse(codeUnknownTopicOrPartition, "the quorum is of %s, partition 0", quorumTopic))
			} else {
				r.describeQuorum(&y, &status, highWatermark, end)
				told = true
			}
			x.Partitions = append(x.Partitions, y)
		}
		resp.Topics = append(resp.Topics, x)
	}
	if told {
		resp.Nodes = append(resp.Nodes, r.quorumNodes()...)
	}
	return resp, nil
}

func (r *request) describeQuorum(y *kmsg.DescribeQuorumResponseTopicPartition, s *engine.ReplicaStatus, highWatermark, end int64) {
	y.LeaderID, y.LeaderEpoch, y.HighWatermark = s.Leader, s.Epoch, highWatermark
	if r.engine.Cluster() == nil {
		y.LeaderID = r.srv.nodeID
	}
	now, directories := r.engine.Now(), make(map[int32]engine.TopicID)
	for _, n := range r.engine.Nodes() {
		directories[n.ID] = n.Directory
	}
	for _, m := range s.Members {
		z := kmsg.NewDescribeQuorumResponseTopicPartitionReplicaState()
		z.ReplicaID, z.ReplicaDirectoryID, z.LogEndOffset = m.Node, directories[m.Node], -1
		if r.engine.Cluster() == nil {
			z.ReplicaID = r.srv.nodeID
		}
		if m.Lag >= 0 {
			z.LogEndOffset = max(end-m.Lag, 0)
		}
		if m.Contact >= 0 && z.ReplicaID != y.LeaderID {
			z.LastFetchTimestamp = now.Add(-m.Contact).UnixMilli()
			if m.Lag == 0 {
				z.LastCaughtUpTimestamp = z.LastFetchTimestamp
			}
		}
		if m.Voter {
			y.CurrentVoters = append(y.CurrentVoters, z)
		} else {
			y.Observers = append(y.Observers, z)
		}
	}
}

// quorumNodes says where the nodes are.
func (r *request) quorumNodes() (list []kmsg.DescribeQuorumResponseNode) {
	for _, b := range r.brokers() {
		n := kmsg.NewDescribeQuorumResponseNode()
		n.NodeID = b.id
		l := kmsg.NewDescribeQuorumResponseNodeListener()
		l.Name, l.Host, l.Port = r.conn.listener.name, b.host, uint16(b.port)
		n.Listeners = append(n.Listeners, l)
		list = append(list, n)
	}
	return list
}
