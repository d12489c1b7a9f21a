package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"
)

// ShareOffset is how far a share group is in a partition.
type ShareOffset struct {
	Topic       string
	TopicID     TopicID
	Partition   int32
	Start       int64 // everything below is done; -1 where the group has not begun
	LeaderEpoch int32
	// Lag is how many offsets up to the high watermark are not done; -1 when not known.
	Lag int64
	Err error
}

// Offsets returns how far a share group is, in want, or in all partitions that it has begun when that
// is nil. It fails with ErrUnknownGroup.
func (s *Shares) Offsets(ctx context.Context, group string, want []TopicPartitions) ([]ShareOffset, error) {
	fail := func(err error) ([]ShareOffset, error) {
		return nil, fmt.Errorf("offsets of share group %q: %w", group, err)
	}
	if err := s.engine.groups.isShare(ctx, group); err != nil {
		return fail(err)
	}
	g, err := s.group(ctx, group, false)
	if err != nil {
		return fail(err)
	}
	if want == nil {
		for _, sp := range g.list() {
			want = append(want, TopicPartitions{sp.at.topic, []int32{sp.at.partition}})
		}
		want = newGroupParts(want).list()
	}
	var list []ShareOffset
	for _, t := range want {
		for _, index := range t.Partitions {
			o := s.offset(ctx, g, topicPart{t.Topic, index})
			if o.Topic != "" || o.Err != nil {
				list = append(list, o)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b ShareOffset) int { return cmp.Compare(a.Topic, b.Topic) })
	return list, nil
}

func (s *Shares) offset(ctx context.Context, g *shareGroup, at topicPart) ShareOffset {
	o := ShareOffset{TopicID: at.topic, Partition: at.partition, Start: -1, LeaderEpoch: 0, Lag: -1}
	p, err := s.engine.groups.find(at)
	if err != nil {
		o.Err = err
		return o
	}
	o.Topic = p.Topic()
	bounds, err := s.engine.offsetsOf(ctx, p, offsetsQuestion{})
	if err != nil {
		o.Err = err
		return o
	}
	sp := g.find(at)
	if sp == nil || !sp.begun() {
		return o
	}
	sp.check(p)
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.refreshLocked(p, s.clock(s.engine.Now()))
	o.Start, o.LeaderEpoch = sp.state.start, max(p.LeaderEpoch(), 0)
	o.Lag = max(bounds.HighWatermark-sp.state.start-sp.state.done(), 0)
	return o
}

// alone enters the gate of a share group that has no members: the caller calls gate.leave. With create it
// makes one of a name that is nothing yet.
func (s *Shares) alone(ctx context.Context, group string, create bool) (*group, error) {
	x, err := s.engine.groups.enter(ctx, group, create, true)
	if err != nil {
		return nil, err
	}
	if x == nil {
		return nil, ErrUnknownGroup
	}
	x.mu.Lock()
	if create {
		err = x.makeShareLocked()
	} else if x.roster.kind != GroupTypeShare || !x.knownLocked() {
		err = ErrUnknownGroup
	}
	if err == nil && x.roster.count() > 0 {
		err = ErrGroupNotEmpty
	}
	if err == nil && x.roster.server.epoch == 0 {
		x.roster.server.epoch = 1 // so that there is something to remember it by
	}
	x.mu.Unlock()
	if err != nil {
		x.gate.leave()
		return nil, err
	}
	return x, nil
}

// SetOffset sets where a share group without members goes on, and makes the group if there is
// none. What was said of records of the partition is forgotten. The offset is brought into what the log has.
func (s *Shares) SetOffset(ctx context.Context, group string, topic TopicID, index int32, start int64) error {
	c := shareOffsetCall{group, topic, index, start}
	_, err := askCoordinator(ctx, s.engine.groups, group, "set offset", serviceShareOffset, true, &c, func(ctx context.Context) (nothing, error) {
		return nothing{}, s.setOffset(ctx, group, topicPart{topic, index}, start)
	})
	if err != nil {
		return fmt.Errorf("set offset of share group %q: %w", group, err)
	}
	return nil
}

func (s *Shares) setOffset(ctx context.Context, group string, at topicPart, start int64) error {
	p, err := s.engine.groups.find(at)
	if err != nil {
		return err
	}
	bounds, err := s.engine.offsetsOf(ctx, p, offsetsQuestion{})
	if err != nil {
		return err
	}
	x, err := s.alone(ctx, group, true)
	if err != nil {
		return err
	}
	defer x.gate.leave()
	x.mu.Lock()
	epoch := x.roster.server.epoch
	x.mu.Unlock()
	if err := x.settle(ctx, s.engine.Now(), epoch); err != nil {
		return err
	}
	start = max(min(start, bounds.HighWatermark), bounds.LogStart)
	_, err = s.begin(ctx, group, at, p, &start)
	return err
}

// DeleteOffsets forgets what a share group without members knows of a topic: it begins anew there.
func (s *Shares) DeleteOffsets(ctx context.Context, group string, topic TopicID) error {
	fail := func(err error) error {
		return fmt.Errorf("delete offsets of share group %q: %w", group, err)
	}
	x, err := s.alone(ctx, group, false)
	if err != nil {
		return fail(err)
	}
	defer x.gate.leave()
	g, err := s.group(ctx, group, false)
	if err != nil {
		return fail(err)
	}
	list := slices.DeleteFunc(g.list(), func(sp *sharePart) bool { return sp.at.topic != topic })
	if err := s.remove(ctx, g, list); err != nil {
		return fail(err)
	}
	return nil
}

// shareLag is how far a share group is, as a description has it. Several members may have a
// partition, so it names none.
func (g *Groups) shareLag(ctx context.Context, name string) (list []PartitionLag, err error) {
	offsets, err := g.engine.shares.Offsets(ctx, name, nil)
	if err != nil {
		return nil, err
	}
	for _, o := range offsets {
		if o.Err != nil {
			continue // the topic is being deleted
		}
		l := g.lag(ctx, CommittedOffset{OffsetCommit: OffsetCommit{Topic: o.Topic, TopicID: o.TopicID, Partition: o.Partition, Offset: o.Start, LeaderEpoch: o.LeaderEpoch}}, "")
		l.Lag = o.Lag
		list = append(list, l)
	}
	return list, nil
}
