package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ElectLeaders, versions 0 to 2. Alone every partition has its preferred leader, this
// node, so no election is ever needed. In a cluster who leads gives the lead to the first of
// the replicas; nobody is elected who lacks what was committed. (KIP-183, KIP-460)

func init() { register(0, 2, electLeaders) }

// The kinds of election: of the preferred replica, or of any.
const (
	electPreferred = 0
	electUnclean   = 1
)

func electLeaders(r *request, q *kmsg.ElectLeadersRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.ElectLeadersResponse)
	ctx, cancel := r.within(q.TimeoutMillis)
	defer cancel()
	parts := 0
	for i := range q.Topics {
		parts += 1 + len(q.Topics[i].Partitions)
	}
	if err := r.grow(parts, explainedBytes); err != nil {
		return nil, err
	}
	resp.Topics = []kmsg.ElectLeadersResponseTopic{}
	var err error
	if !r.authorize(OpAlter, ResourceCluster, ClusterName) {
		err = errClusterDenied
	} else if q.ElectionType != electPreferred && q.ElectionType != electUnclean {
		err = refuse(codeInvalidRequest, "election type %d is not known", q.ElectionType)
	}
	resp.ErrorCode, _ = answerTo(err)
	if q.Topics == nil && err == nil {
		// All partitions were meant. Those that have the leader they should have are left
		// out of the answer: that is all of them.
		for _, t := range r.engine.Topics() {
			x := kmsg.NewElectLeadersResponseTopic()
			x.Topic = t.Name()
			for _, p := range t.Partitions() {
				why := r.electLeader(ctx, t.Name(), p.ID(), q.ElectionType)
				if code, message := answerTo(why); code != codeElectionNotNeeded {
					y := kmsg.NewElectLeadersResponseTopicPartition()
					y.Partition, y.ErrorCode, y.ErrorMessage = p.ID(), code, message
					x.Partitions = append(x.Partitions, y)
				}
			}
			resp.Topics = append(resp.Topics, x)
		}
	}
	for _, asked := range q.Topics {
		x := kmsg.NewElectLeadersResponseTopic()
		x.Topic = asked.Topic
		for _, n := range asked.Partitions {
			y := kmsg.NewElectLeadersResponseTopicPartition()
			y.Partition = n
			why := err
			if why == nil {
				why = r.electLeader(ctx, asked.Topic, n, q.ElectionType)
			}
			y.ErrorCode, y.ErrorMessage = answerTo(why)
			x.Partitions = append(x.Partitions, y)
		}
		resp.Topics = append(resp.Topics, x)
	}
	return resp, nil
}

func (r *request) electLeader(ctx context.Context, topic string, partition int32, kind int8) error {
	t, err := r.topic(topic)
	if err != nil {
		return err
	}
	p, err := r.partition(t, partition)
	if err != nil {
		return err
	}
	node, _ := r.leaderOf(p)
	// Who has a replica knows who leads; others have heard of it, and the leader knows better.
	if replicas := t.Replicas(partition); kind == electPreferred && r.engine.Cluster() != nil && len(replicas) > 0 && (p.Replicated() == nil || node != replicas[0]) {
		moved, err := r.engine.ElectLeader(ctx, p, replicas[0])
		switch {
		case err != nil:
			return refuse(codePreferredLeaderNotAvailable, "The preferred leader %d cannot take over: %v", replicas[0], err)
		case moved:
			return nil
		}
		node = replicas[0]
	}
	if node < 0 {
		return refuse(codeEligibleLeadersNotAvailable, "No leader is known, and none is elected that lacks committed records.")
	}
	return refuse(codeElectionNotNeeded, "Leader election not needed for topic partition.")
}
