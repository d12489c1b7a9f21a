package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/x/embedlog/partition"
)

// A reassignment is under way while the members of a partition's group are others than its replicas are to be. The
// metadata knows where they are to be, and, until whoever leads the partition has told it that they are there, where they
// were when that began. Who leads the partition knows where they are.
//
//	1 2 3                       before: nothing
//	1 2 3 -> 1 2 4              before: 1 2 3
//	1 2 3 -> 1 2 4 -> 1 5 4     before: 1 2 3, because nobody has said that 1 2 4 were there
//	called off, or moved        before: nothing

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

// moved says that the group of a partition has just the members that are assigned, as who leads it says.
func (s *ReplicaStatus) moved(nodes []int32) bool {
	now := ReplicaStatus{Replicas: nodes, Members: s.Members}
	adding, removing := now.Moving()
	return len(s.Members) > 0 && len(adding)+len(removing) == 0
}

// CancelReassignment has a partition keep the replicas that it had when the reassignment began that is under way, in
// their order, and fails with ErrNoReassignment when there is none. Where it was given others again meanwhile, they are those
// that it had before the first of them. It returns when that is decided, as Reassign
// does. Who leads the partition is asked, which may take 2 seconds. (AlterPartitionReassignments)
func (e *Engine) CancelReassignment(ctx context.Context, topic string, n int32) error {
	return e.administer(ctx, fmt.Sprintf("cancel the reassignment of %s/%d", topic, n), func() error {
		t, _, err := e.FindPartition(ctx, topic, n)
		if err != nil {
			return err
		}
		now := e.reassignment(t, int(n))
		if now.before == nil {
			return ErrNoReassignment
		}
		s := e.AskStatus(ctx, t)[n]
		if len(s.Members) == 0 {
			return &partition.NotLeaderError{Leader: -1, LeaderEpoch: s.Epoch}
		}
		if s.moved(now.nodes) {
			return ErrNoReassignment // the metadata is about to hear that
		}
		c := &command{kind: assignCommand, topic: topicMeta{id: t.meta.id}}
		c.placed = []placed{{int(n), assignment{now.epoch + 1, slices.Clone(now.before)}}}
		c.factor = now.topic.factorWith(c.placed)
		_, err = e.meta.do(ctx, c)
		return err
	})
}

// reassignment is what the metadata says of a partition's replicas.
type reassignment struct {
	topic *topicMeta
	assignment
	before []int32 // nil when nothing moves, as far as it has heard
}

func (e *Engine) reassignment(t *Topic, n int) (r reassignment) {
	r.topic, r.assignment = t.meta, t.meta.replicasOf(n)
	e.meta.view(func(m *metadata) {
		if now := m.byID[t.meta.id]; now != nil {
			r = reassignment{now, now.replicasOf(n), now.before[n]}
		}
	})
	return r
}

// noteMoved has the metadata hear of a reassignment that is over, before another one begins, where who leads the
// partition says so and has not told the metadata yet: what is called off then goes back to where that one led.
func (e *Engine) noteMoved(ctx context.Context, t *Topic, n int32) error {
	r := e.reassignment(t, int(n))
	if r.before == nil {
		return nil
	}
	if s := e.AskStatus(ctx, t)[n]; !s.moved(r.nodes) {
		return nil
	}
	_, err := e.meta.do(ctx, &command{kind: movedCommand, topic: topicMeta{id: t.meta.id}, placed: []placed{{int(n), assignment{epoch: r.epoch}}}})
	return err
}

// tellMoved tells the leader of the metadata which partitions that this node leads have the members now that they
// are to have: nothing can be called off any more.
func (r *replicas) tellMoved() {
	e := r.e
	done := make(map[TopicID][]placed)
	e.meta.view(func(m *metadata) {
		for id, t := range m.byID {
			for n := range t.before {
				done[id] = append(done[id], placed{n, assignment{epoch: t.replicas[n].epoch}})
			}
		}
	})
	for id, list := range done {
		t := e.view.Load().byID[id]
		if t == nil {
			continue
		}
		list = slices.DeleteFunc(list, func(p placed) bool {
			if p.partition >= len(t.partitions) {
				return true
			}
			part := t.partitions[p.partition]
			if part.repl == nil {
				return true
			}
			node, epoch := part.repl.Leader()
			r.mu.Lock()
			defer r.mu.Unlock()
			return node != e.identity.node || r.settled[LogID{id, int32(p.partition)}] != settledAt{p.epoch, epoch}
		})
		if len(list) == 0 {
			continue
		}
		slices.SortFunc(list, func(a, b placed) int { return a.partition - b.partition })
		r.task("replicas of "+t.meta.name+" that moved", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, peerTimeout)
			defer cancel()
			return e.tellLeader(ctx, &command{kind: movedCommand, topic: topicMeta{id: id}, placed: list})
		})
	}
}
