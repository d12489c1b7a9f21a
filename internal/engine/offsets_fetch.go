package engine

import (
	"context"
	"fmt"
)

// FetchRequest asks where a group goes on reading. (OffsetFetch)
type FetchRequest struct {
	Group string
	// MemberID and MemberEpoch are those of a member with an epoch, who is told when it
	// is not one any more. Empty and -1 say nothing.
	MemberID    string
	MemberEpoch int32
	Partitions  []TopicPartitions // nil: all that have an offset
	// Stable asks which offsets an open transaction is about to replace.
	Stable bool
}

// FetchedOffset is a CommittedOffset, or that it is not known yet.
type FetchedOffset struct {
	CommittedOffset
	// Undecided says that a transaction which commits the offset is open. Offset is then
	// NoOffset.
	Undecided bool
}

// FetchOffsets is Committed for who asks again instead of waiting, and who says which
// member it is. An unknown group has no offsets. It fails with ErrUnknownMember, a
// *MemberEpochError and a *GenerationError.
func (g *Groups) FetchOffsets(ctx context.Context, req FetchRequest) ([]FetchedOffset, error) {
	var wanted groupParts
	if req.Partitions != nil {
		wanted = newGroupParts(req.Partitions)
	}
	x, err := g.enterKnown(ctx, req.Group) // alone: see Committed
	if err != nil || x == nil {
		return nil, err
	}
	defer x.gate.leave()
	x.mu.Lock()
	err = x.roster.mayFetch(&req)
	open := map[topicPart]OffsetCommit{}
	if req.Stable && err == nil {
		open = x.undecidedLocked(g.view.Load(), wanted)
	}
	x.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("offsets of group %q: %w", req.Group, err)
	}
	// A transaction that ends in between was open when it was asked for.
	committed, _ := g.committed(x, wanted, false)
	var list []FetchedOffset
	for _, o := range committed {
		if _, undecided := open[topicPart{o.TopicID, o.Partition}]; !undecided {
			list = append(list, FetchedOffset{CommittedOffset: o})
		}
	}
	for _, o := range open {
		list = append(list, FetchedOffset{CommittedOffset{OffsetCommit: o}, true})
	}
	if err := x.shard.tenure.confirm(ctx); err != nil { // see Committed
		return nil, fmt.Errorf("offsets of group %q: %w", req.Group, err)
	}
	return list, nil
}

// undecidedLocked returns the offsets that open transactions commit.
func (x *group) undecidedLocked(view *topicsView, wanted groupParts) map[topicPart]OffsetCommit {
	open := map[topicPart]OffsetCommit{}
	for _, offsets := range x.pending {
		for at, v := range offsets {
			if id, ok := view.wanted(wanted, at, &v.offsetValue); ok {
				open[topicPart{id, at.partition}] = OffsetCommit{Topic: view.byID[id].name, TopicID: id, Partition: at.partition, Offset: NoOffset, LeaderEpoch: -1}
			}
		}
	}
	return open
}

// mayFetch reports why a member may not have its group's offsets: what it read next
// would be somebody else's. Classic members do not say who they are.
func (r *roster) mayFetch(req *FetchRequest) error {
	if req.MemberID == "" && req.MemberEpoch < 0 || r.kind != GroupTypeConsumer {
		return nil
	}
	m := r.server.members[req.MemberID]
	switch {
	case m == nil:
		return ErrUnknownMember
	case m.classic != nil && req.MemberEpoch != m.epoch:
		return m.otherGeneration(r.server.name, req.MemberEpoch)
	case m.left || req.MemberEpoch != m.epoch:
		return &MemberEpochError{r.server.name, m.id, req.MemberEpoch, m.shownEpoch()}
	}
	return nil
}
