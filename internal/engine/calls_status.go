package engine

import (
	"context"
	"slices"
	"sync"
	"time"
)

// How far replicas are is known to who leads them. Two things come of that: whoever wants to know asks
// the leaders (StatusOf, AskClusterStatus); and every node hears every few seconds from the others of which of the
// logs that they lead a replica is not in sync, so that it can tell Kafka's clients without asking.

const serviceStatus = "status"

// statusPatience is how long a leader may take to say how its logs are.
const statusPatience = 2 * time.Second

// statusCall asks a node for the logs that it leads: those of one topic, where that is not zero, or with Behind those
// alone of which some replica is not in sync.
type statusCall struct {
	Topic  TopicID
	Behind bool
}

type statusAnswer struct{ Logs []ledLog }

// ledLog is one log as its leader sees it.
type ledLog struct {
	Topic         TopicID
	Status        ReplicaStatus
	HighWatermark int64 // 0 from a node that does not say it
}

func (e *Engine) serveStatus(_ context.Context, c *statusCall) (a statusAnswer, err error) {
	if c.Topic.IsZero() && !c.Behind {
		if s := e.ClusterStatus()[0]; s.Leader == e.identity.node {
			a.Logs = append(a.Logs, ledLog{Status: s, HighWatermark: e.meta.part.HighWatermark()})
		}
	}
	for _, t := range e.view.Load().byID {
		if !c.Topic.IsZero() && t.meta.id != c.Topic {
			continue
		}
		for n, p := range t.partitions {
			if !p.Leads() {
				continue
			}
			s := e.partitionStatus(t, n, p)
			if c.Behind && !s.behind() {
				continue
			}
			a.Logs = append(a.Logs, ledLog{t.meta.id, s, p.HighWatermark()})
		}
	}
	return a, nil
}

// behind says that a replica that there is to be is not in sync.
func (s *ReplicaStatus) behind() bool {
	return slices.ContainsFunc(s.Replicas, func(n int32) bool { return !slices.Contains(s.InSync, n) })
}

// askStatus has all other nodes say how the logs are that they lead.
func (e *Engine) askStatus(ctx context.Context, c statusCall) map[LogID]ledLog {
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	var mu sync.Mutex
	var asked sync.WaitGroup
	said := make(map[LogID]ledLog)
	for _, node := range e.peerIDs() {
		if !e.replicas.heardLately(node, e.now()) {
			continue
		}
		asked.Go(func() {
			a, err := callStruct[statusCall, statusAnswer](ctx, e, node, serviceStatus, &c)
			if err != nil {
				return // what is known here has to do
			}
			mu.Lock()
			defer mu.Unlock()
			for _, l := range a.Logs {
				id := LogID{l.Topic, l.Status.Partition}
				if has, ok := said[id]; !ok || l.Status.Epoch > has.Status.Epoch {
					said[id] = l
				}
			}
		})
	}
	asked.Wait()
	return said
}

// AskClusterStatus is ClusterStatus as the leaders see their logs, as far as they answer within 2 seconds.
func (e *Engine) AskClusterStatus(ctx context.Context) []ReplicaStatus {
	if e.cluster == nil || e.closed.Load() {
		return e.ClusterStatus()
	}
	said := e.askStatus(ctx, statusCall{})
	list := e.ClusterStatus()
	for i := range list {
		id := LogID{Partition: list[i].Partition}
		if list[i].Topic != "" {
			t, err := e.Topic(list[i].Topic)
			if err != nil {
				continue
			}
			id.Topic = t.meta.id
		}
		list[i] = list[i].with(said[id].Status)
	}
	if why := e.noPart(list[0].Replicas); why != "" {
		list[0].Reason = why // whoever leads does not know of it
	}
	return list
}

// AskStatus describes the groups of a topic's partitions as their leaders see them: see AskClusterStatus.
func (e *Engine) AskStatus(ctx context.Context, t *Topic) []ReplicaStatus {
	list := make([]ReplicaStatus, len(t.partitions))
	var said map[LogID]ledLog
	if e.cluster != nil && slices.ContainsFunc(t.partitions, func(p *Partition) bool { return !p.Leads() }) {
		said = e.askStatus(ctx, statusCall{Topic: t.meta.id})
	}
	for n, p := range t.partitions {
		list[n] = p.Status().with(said[LogID{t.meta.id, int32(n)}].Status)
	}
	return list
}

// ReplicaLag is how many offsets this node's replica of a partition is behind what its leader knows to be
// committed. ok is false where there is no such replica.
type ReplicaLag func(p *Partition) (offsets int64, ok bool)

// AskReplicaLag asks the leaders of all partitions, which may take 2 seconds; of those that do not answer a replica
// is behind as far as it knows itself. (DescribeLogDirs)
func (e *Engine) AskReplicaLag(ctx context.Context) ReplicaLag {
	var said map[LogID]ledLog
	if e.cluster != nil && !e.closed.Load() {
		said = e.askStatus(ctx, statusCall{})
	}
	return func(p *Partition) (int64, bool) {
		if !p.Here() || p.Elsewhere() {
			return 0, false
		}
		known := p.HighWatermark()
		if !p.Leads() {
			known = max(known, said[LogID{p.topicID, p.id}].HighWatermark)
		}
		return max(known-p.LogEnd(), 0), true
	}
}

// MetaStatus is the metadata's log as its leader sees it: how it is replicated, its high watermark and its end. Where
// nobody leads, or the leader does not answer within 2 seconds, it is what this node knows. Alone it is this
// node's. (DescribeQuorum)
func (e *Engine) MetaStatus(ctx context.Context) (s ReplicaStatus, highWatermark, logEnd int64) {
	p := e.meta.part
	if e.cluster == nil {
		self := e.identity.node
		return ReplicaStatus{Leader: self, Members: []MemberStatus{{Node: self, Voter: true, InSync: true}}}, p.HighWatermark(), p.LogEnd()
	}
	s = e.ClusterStatus()[0]
	highWatermark, logEnd = p.HighWatermark(), p.LogEnd()
	if s.Leader != e.identity.node {
		if said, ok := e.askStatus(ctx, statusCall{})[LogID{}]; ok && said.Status.Epoch >= s.Epoch {
			s, highWatermark = s.with(said.Status), max(highWatermark, said.HighWatermark)
			logEnd = max(logEnd, highWatermark)
		}
	}
	return s, highWatermark, logEnd
}

// with is what its leader says of a log, unless it was deposed since; what is wrong on this node stays.
func (s ReplicaStatus) with(leader ReplicaStatus) ReplicaStatus {
	if leader.Members == nil || leader.Epoch < s.Epoch || s.InSync != nil {
		return s
	}
	// Who was asked has applied what it has answered; the leader may be a moment behind.
	leader.Topic, leader.Replicas, leader.Factor = s.Topic, s.Replicas, s.Factor
	if s.Reason != "" && s.Leader >= 0 {
		leader.Reason = s.Reason
	}
	return leader
}

// askBehind hears from a node of which logs that it leads some replica is not in sync.
func (r *replicas) askBehind(ctx context.Context, node int32) {
	a, err := callStruct[statusCall, statusAnswer](ctx, r.e, node, serviceStatus, &statusCall{Behind: true})
	if err != nil {
		return
	}
	behind := make(map[LogID][]int32, len(a.Logs))
	for _, l := range a.Logs {
		behind[LogID{l.Topic, l.Status.Partition}] = l.Status.InSync
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.behind == nil {
		r.behind = make(map[int32]map[LogID][]int32)
	}
	r.behind[node] = behind
}

// InSync are the replicas of a partition that have what was committed a short while ago: as this node sees it where it
// leads, otherwise as the leader has said within the last seconds. ok is false when nobody has.
func (p *Partition) InSync() (nodes []int32, ok bool) {
	e := p.engine
	if e.cluster == nil {
		return nil, false
	}
	if p.Leads() {
		return p.Status().InSync, true
	}
	leader, _ := p.Leader()
	r := &e.replicas
	r.mu.Lock()
	defer r.mu.Unlock()
	said, ok := r.behind[leader]
	if !ok {
		return nil, false
	}
	if nodes, ok := said[LogID{p.topicID, p.id}]; ok {
		return slices.Clone(nodes), true
	}
	t := e.view.Load().byID[p.topicID]
	if t == nil {
		return nil, false
	}
	return slices.Clone(t.Replicas(p.id)), true
}
