package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/x/embedlog/partition"
)

// In a cluster a share group is coordinated where its partition of __share_group_state is
// led, and that is, but for a moment, where its partition of __consumer_offsets is led, too:
// see Shares.join. A member fetches from who leads a partition, which asks the coordinator
// for it: what is acquired is read there, from that node's replica.
//
//	member --ShareFetch--> leader of orders/3 --acquire--> coordinator: who has what, replica of orders/3
//	                                          <--batches--        or, where it has none, the leader's

// shareAwait is Shares.Await as it is sent.
type shareAwait struct {
	Group   string
	Parts   []TopicPartitions
	MaxWait time.Duration
}

// shareRelease names a member of a group.
type shareRelease struct{ Group, MemberID string }

// shareLock is Shares.LockTimeout.
type shareLock struct{ Millis int32 }

func (s *Shares) askAcquire() *service[ShareRequest, ShareResult] {
	return &service[ShareRequest, ShareResult]{"share.acquire", s.acquire}
}

func (s *Shares) askAcknowledge() *service[AckRequest, nothing] {
	return &service[AckRequest, nothing]{"share.acknowledge", func(ctx context.Context, q *AckRequest) (nothing, error) {
		return nothing{}, s.acknowledge(ctx, q)
	}}
}

func (s *Shares) askAwait() *service[shareAwait, nothing] {
	return &service[shareAwait, nothing]{"share.await", func(ctx context.Context, q *shareAwait) (nothing, error) {
		return nothing{}, s.await(ctx, q.Group, q.Parts, q.MaxWait)
	}}
}

func (s *Shares) askRelease() *service[shareRelease, nothing] {
	return &service[shareRelease, nothing]{"share.release", func(_ context.Context, q *shareRelease) (nothing, error) {
		s.release(q.Group, q.MemberID)
		return nothing{}, nil
	}}
}

func (s *Shares) askLock() *service[shareRelease, shareLock] {
	return &service[shareRelease, shareLock]{"share.lock", func(ctx context.Context, q *shareRelease) (shareLock, error) {
		settings, err := s.settings(ctx, q.Group)
		if err != nil {
			return shareLock{}, err
		}
		return shareLock{settings.lockMillis}, nil
	}}
}

func (e *Engine) handleShares() {
	e.shares = newShares(e) // its services are known before it is open
	s := e.shares
	e.handle(s.askAcquire().name, s.askAcquire().handler())
	e.handle(s.askAcknowledge().name, s.askAcknowledge().handler())
	e.handle(s.askAwait().name, s.askAwait().handler())
	e.handle(s.askRelease().name, s.askRelease().handler())
	e.handle(s.askLock().name, s.askLock().handler())
	e.handle(s.askSettings().name, s.askSettings().handler())
}

// of has the coordinator of a share group answer. Where it cannot be found the error
// matches ErrCoordinatorLoading, and not that this node does not lead: see
// Txns.atCoordinator.
func (s *service[Q, A]) of(ctx context.Context, shares *Shares, group string, q *Q) (answer A, err error) {
	if shares.engine.cluster == nil {
		return s.f(ctx, q)
	}
	shards, err := shares.prepare(ctx, true)
	if err != nil {
		return answer, err
	}
	answer, err = s.atLeader(ctx, shards[offsetsPartitionOf(group, len(shards))].part, q)
	if errors.Is(err, partition.ErrNotLeader) || errors.Is(err, ErrPeerUnreachable) || errors.Is(err, errPeerCloses) {
		err = fmt.Errorf("%w: share group %q: %v", ErrCoordinatorLoading, group, err)
	} else if errors.Is(err, errAnswerLost) {
		err = fmt.Errorf("%w: share group %q: %w", partition.ErrUnknownOutcome, group, err)
	}
	return answer, err
}

// join gives the lead of a partition of __share_group_state to the node that leads the same
// partition of __consumer_offsets, where the groups' members are. Nodes that have the one are given the other first:
// assignments of the two are chosen apart, by creation, drains and people, and a node without a replica cannot lead.
func (s *Shares) join(ctx context.Context, i int, shard *shareShard) {
	topic, err := s.engine.Topic(offsetsTopicName)
	if err != nil {
		return
	}
	groups, err := topic.Partition(int32(i))
	if err != nil {
		return
	}
	states, err := s.engine.Topic(shareTopicName)
	if err != nil {
		return
	}
	node, _ := groups.Leader()
	if node < 0 {
		return
	}
	have, want := states.meta.replicasOf(i).nodes, topic.meta.replicasOf(i).nodes
	switch together := beside(have, want); {
	case len(want) == 0 || len(have) == 0:
	case have[0] != want[0] || !slices.Contains(have, node) && slices.Contains(together, node):
		s.engine.coordinators.background("get the replicas of that of the group's members", groups, func() error {
			return s.engine.Reassign(ctx, shareTopicName, int32(i), together)
		})
	case node != s.engine.cluster.Self():
		s.engine.coordinators.background("join that of the group's members", groups, func() error { return shard.part.repl.Transfer(ctx, node) })
	}
}

// beside is an assignment that has the nodes of another one, in its order, and as many as before.
func beside(have, other []int32) []int32 {
	list := slices.Clone(other)
	for _, node := range have {
		if len(list) < len(have) && !slices.Contains(list, node) {
			list = append(list, node)
		}
	}
	return list
}
