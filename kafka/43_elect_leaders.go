package kafka

import (
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ElectLeaders, versions 0 to 2. Every partition has its preferred leader, this
// node, so no election is ever needed. (KIP-183, KIP-460)

func init() { register(0, 2, electLeaders) }

// The kinds of election: of the preferred replica, or of any.
const (
	electPreferred = 0
	electUnclean   = 1
)

func electLeaders(r *request, q *kmsg.ElectLeadersRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.ElectLeadersResponse)
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
				why = r.electLeader(asked.Topic, n)
			}
			y.ErrorCode, y.ErrorMessage = answerTo(why)
			x.Partitions = append(x.Partitions, y)
		}
		resp.Topics = append(resp.Topics, x)
	}
	return resp, nil
}

func (r *request) electLeader(topic string, partition int32) error {
	t, err := r.engine.Topic(topic)
	if err != nil {
		return err
	}
	if _, err := t.Partition(partition); err != nil {
		return err
	}
	return refuse(codeElectionNotNeeded, "Leader election not needed for topic partition.")
}
