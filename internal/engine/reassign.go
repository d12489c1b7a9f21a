package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/x/embedlog/partition"
)

// A reassignment is under way while the members of a partition's group are others than its replicas are to be. The
// metadata knows only where they are to be; who leads the partition knows where they are.

// ErrNoReassignment says that the replicas of a partition are where they are to be.
var ErrNoReassignment = errors.New("embedlog: no reassignment is under way")

// Moving are the nodes that are to get a replica and have no vote yet, and those that are to lose theirs: none when no
// reassignment is under way. Only who leads the partition, and who asked it, knows: see AskStatus.
func (s *ReplicaStatus) Moving() (adding, removing []int32) {
	if len(s.Members) == 0 {
		return nil, nil
	}
	for _, n := range s.Replicas {
		if !slices.ContainsFunc(s.Members, func(m MemberStatus) bool { return m.Node == n && m.Voter }) {
			adding = append(adding, n)
		}
	}
	for _, m := range s.Members {
		if !slices.Contains(s.Replicas, m.Node) {
			removing = append(removing, m.Node)
		}
	}
	return adding, removing
}

// before are the replicas that a partition had when the reassignment began that is under way, the preferred leader
// first. Members are in the order in which they came: those that the reassignment has brought are the last ones,
// and where as many go as come, they are as many as the topic is to have.
func (s *ReplicaStatus) before(factor int) (nodes []int32) {
	_, removing := s.Moving()
	room := len(s.Members)
	if len(removing) > 0 {
		room = max(factor-len(removing), 0)
	}
	for _, m := range s.Members {
		switch {
		case !m.Voter:
		case slices.Contains(removing, m.Node):
			nodes = append(nodes, m.Node)
		case room > 0:
			nodes = append(nodes, m.Node)
			room--
		}
	}
	return nodes
}

// CancelReassignment has a partition keep the replicas that it had when the reassignment began that is under way, and
// fails with ErrNoReassignment when there is none. It returns when that is decided, as Reassign
// does. Who leads the partition is asked, which may take 2 seconds. (AlterPartitionReassignments)
func (e *Engine) CancelReassignment(ctx context.Context, topic string, n int32) error {
	return e.administer(ctx, fmt.Sprintf("cancel the reassignment of %s/%d", topic, n), func() error {
		t, _, err := e.FindPartition(ctx, topic, n)
		if err != nil {
			return err
		}
		s := e.AskStatus(ctx, t)[n]
		a := t.meta.replicasOf(int(n))
		if len(s.Members) == 0 {
			return &partition.NotLeaderError{Leader: -1, LeaderEpoch: s.Epoch}
		}
		adding, removing := s.Moving()
		if len(adding)+len(removing) == 0 {
			return ErrNoReassignment
		}
		back := s.before(t.ReplicationFactor())
		if len(back) == 0 {
			return &InvalidAssignmentError{topic, n, "no member has a vote"}
		}
		c := &command{kind: assignCommand, topic: topicMeta{id: t.meta.id}}
		c.placed = []placed{{int(n), assignment{a.epoch + 1, back}}}
		_, err = e.meta.do(ctx, c)
		return err
	})
}
