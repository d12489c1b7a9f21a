package embedlog

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/x/embedlog/internal/engine"
)

// Assignment returns the partitions that the consumer has, with their positions,
// sorted. A member of a group has none before its first read.
func (c *Consumer) Assignment() []Position {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.positionsLocked()
}

func (c *Consumer) positionsLocked() []Position {
	list := make([]Position, 0, len(c.sources))
	for _, s := range c.sources {
		list = append(list, c.positionLocked(s))
	}
	return sortPositions(list)
}

func (c *Consumer) positionLocked(s *source) Position {
	p := Position{Topic: s.name, Partition: s.partition, LeaderEpoch: s.doneEpoch, Offset: s.done}
	if c.cur == s {
		if at := c.at.Load(); at > c.curFirst {
			p.Offset, p.LeaderEpoch = at, c.curEpoch
		}
	}
	return p
}

func sortPositions(list []Position) []Position {
	slices.SortFunc(list, func(a, b Position) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return list
}

// find returns the partition if it is the consumer's.
func (c *Consumer) findLocked(topic string, partition int32) *source {
	t, err := c.engine.Topic(topic)
	if err != nil {
		return nil
	}
	return c.sources[place{t.ID(), partition}]
}

// NotAssignedError is a partition that the consumer does not have, or has no more.
type NotAssignedError struct {
	Topic     string
	Partition int32
}

func (e *NotAssignedError) Error() string {
	return fmt.Sprintf("the consumer does not have %s/%d", e.Topic, e.Partition)
}

// Is matches ErrRebalance.
func (e *NotAssignedError) Is(target error) bool { return target == ErrRebalance }

// Position is where the consumer stands in a partition: the offset of the record
// that the application has in hand, or of the next one there will be. ok is false for
// one that it does not have.
func (c *Consumer) Position(topic string, partition int32) (p Position, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.findLocked(topic, partition)
	if s == nil {
		return Position{}, false
	}
	return c.positionLocked(s), true
}

// Seek makes p.Offset the next one to be read; OffsetEarliest and OffsetLatest are
// understood. What comes next marks from there on: committed offsets follow a seek,
// also backwards. What was marked before and not committed is not any more.
//
// It fails with a *NotAssignedError for a partition that the consumer does not
// have, and with an *OffsetOutOfRangeError.
func (c *Consumer) Seek(p Position) error {
	find := func() (*source, error) {
		if c.closed {
			return nil, fmt.Errorf("seek: %w", ErrClosed)
		}
		s := c.findLocked(p.Topic, p.Partition)
		if s == nil {
			return nil, fmt.Errorf("seek: %w", &NotAssignedError{p.Topic, p.Partition})
		}
		return s, nil
	}
	var part *engine.Partition
	c.mu.Lock()
	s, err := find()
	if err == nil {
		part = s.part
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	// Not under the lock: another node may have to be asked.
	view, bounds, err := c.bounds(c.life, part, p.Offset)
	switch {
	case err != nil:
	case p.Offset == OffsetEarliest:
		p.Offset, p.LeaderEpoch = bounds.LogStart, -1
	case p.Offset == OffsetLatest:
		p.Offset, p.LeaderEpoch = bounds.End(c.isolation()), -1
	case p.Offset < bounds.LogStart || p.Offset > bounds.LogEnd:
		err = &OffsetOutOfRangeError{Offset: p.Offset, LogStart: bounds.LogStart, LogEnd: bounds.LogEnd}
	default:
		// Whoever names an offset that is there means it, whatever epoch it had.
		p.LeaderEpoch, err = epochBefore(c.life, view, p.Offset)
	}
	if err != nil {
		return fmt.Errorf("seek %s/%d: %w", p.Topic, p.Partition, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, err = find(); err != nil {
		return err
	}
	c.moveLocked(s, p)
	return nil
}

// bounds are those of a partition, and who says them. This node's replica, or a leader that was replaced and
// does not know it yet, may lack the last records: where they end, and that an offset is not there, says the leader
// that a majority confirms. Where they begin says this node's replica when nobody leads, so that it can be read.
func (c *Consumer) bounds(ctx context.Context, p *engine.Partition, offset int64) (engine.View, engine.Bounds, error) {
	view := p.View()
	if c.engine.Cluster() == nil || offset == OffsetCommitted {
		b, err := view.Bounds(ctx)
		return view, b, err
	}
	var here engine.Bounds
	if !view.Remote() {
		b, err := view.Bounds(ctx)
		if err != nil || offset >= b.LogStart && offset <= b.HighWatermark {
			return view, b, err
		}
		here = b
	}
	asked := ctx
	if offset == OffsetEarliest && !view.Remote() {
		var cancel context.CancelFunc
		asked, cancel = context.WithTimeout(ctx, leaderAsked)
		defer cancel()
	}
	leader := p.LeaderView()
	b, err := leader.Confirmed(asked)
	if err != nil && asked != ctx && ctx.Err() == nil {
		return view, here, nil
	}
	return leader, b, err
}

// moveLocked makes p the position of s, and forgets what is marked.
func (c *Consumer) moveLocked(s *source, p Position) {
	if c.cur == s {
		c.cur = nil // the record in hand is not of the new place
	}
	s.done, s.doneEpoch, s.mark, s.moved = p.Offset, p.LeaderEpoch, unmarked, true
	c.changedLocked(s)
}

// changedLocked has the goroutine that reads look at s.
func (c *Consumer) changedLocked(s *source) {
	if !slices.Contains(c.changed, s) {
		c.changed = append(c.changed, s)
	}
	c.notify()
}

// Pause stops reading of the partitions, or of all that the consumer has of the
// topic, until Resume. It keeps them. A member that loses a partition and gets it
// again reads it.
func (c *Consumer) Pause(topic string, partitions ...int32) error {
	return c.pause("pause", topic, partitions, true)
}

// Resume goes on reading what Pause stopped.
func (c *Consumer) Resume(topic string, partitions ...int32) error {
	return c.pause("resume", topic, partitions, false)
}

func (c *Consumer) pause(what, topic string, partitions []int32, paused bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return fmt.Errorf("%s: %w", what, ErrClosed)
	}
	var list []*source
	for _, n := range partitions {
		s := c.findLocked(topic, n)
		if s == nil {
			return fmt.Errorf("%s: %w", what, &NotAssignedError{topic, n})
		}
		list = append(list, s)
	}
	if len(partitions) == 0 {
		for _, s := range c.sources {
			if s.name == topic {
				list = append(list, s)
			}
		}
	}
	for _, s := range list {
		if s.paused != paused {
			s.paused = paused
			c.changedLocked(s)
		}
	}
	return nil
}

// ConsumerLag is how far the consumer is in one of its partitions.
type ConsumerLag struct {
	Position
	End int64 // the offset behind the last record that it could read now
	Lag int64 // offsets from the position to End
}

// Lag returns how far the consumer is behind in each of its partitions, sorted.
func (c *Consumer) Lag(ctx context.Context) ([]ConsumerLag, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, fmt.Errorf("lag: %w", ErrClosed)
	}
	positions := c.positionsLocked()
	parts := make([]*engine.Partition, len(positions))
	for i, p := range positions {
		if s := c.findLocked(p.Topic, p.Partition); s != nil { // else deleted a moment ago
			parts[i] = s.part
		}
	}
	c.mu.Unlock()
	list := make([]ConsumerLag, 0, len(positions))
	for i, p := range positions {
		if parts[i] == nil {
			continue
		}
		bounds, err := parts[i].View().Bounds(ctx)
		if err != nil {
			return nil, fmt.Errorf("lag of %s/%d: %w", p.Topic, p.Partition, err)
		}
		end := bounds.End(c.isolation())
		list = append(list, ConsumerLag{Position: p, End: end, Lag: max(end-p.Offset, 0)})
	}
	return list, nil
}

// assignByHand makes the partitions of ConsumerConfig.Assign the consumer's.
func (c *Consumer) assignByHand() error {
	for _, want := range c.cfg.Assign {
		t, part, err := c.engine.FindPartition(c.life, want.Topic, want.Partition)
		if err != nil {
			return err
		}
		view, bounds, err := c.bounds(c.life, part, want.Offset)
		if err == nil && want.Offset >= 0 && (want.Offset < bounds.LogStart || want.Offset > bounds.LogEnd) {
			err = &OffsetOutOfRangeError{Offset: want.Offset, LogStart: bounds.LogStart, LogEnd: bounds.LogEnd}
		}
		if err == nil {
			want.LeaderEpoch, err = epochBefore(c.life, view, want.Offset)
		}
		if err != nil {
			return fmt.Errorf("assign %s/%d: %w", want.Topic, want.Partition, err)
		}
		s := newSource(part, t.ID(), t.Name(), want)
		if c.cfg.Group != "" {
			// Also where it begins elsewhere: what is committed need not be committed again.
			if err := c.ask([]*source{s}, undecidedFor); err != nil {
				return err
			}
			if want.Offset != OffsetCommitted {
				s.want, s.lost = want, nil
			}
		}
		at, reset, err := c.settle(c.life, s, s.want, c.cfg.Start)
		if err != nil {
			return fmt.Errorf("find where to begin in %s/%d: %w", s.name, s.partition, err)
		}
		if s.lost != nil {
			reset = s.lost
		}
		if reset != nil {
			c.untold = append(c.untold, reset)
		}
		s.done, s.doneEpoch, s.base = at.Offset, at.LeaderEpoch, at
		c.sources[s.place] = s
		c.changed = append(c.changed, s)
	}
	c.events.Store(true)
	return nil
}

// epochBefore is the leader epoch of the record before offset, -1 when not known.
func epochBefore(ctx context.Context, v engine.View, offset int64) (int32, error) {
	if offset <= 0 {
		return -1, nil
	}
	epoch, ok, err := v.EpochOf(ctx, offset-1)
	if err != nil || !ok {
		epoch = -1
	}
	return epoch, err
}

// follow makes all partitions of the topics the consumer's, now and when more are
// made.
func (c *Consumer) follow() error {
	c.unfollow = c.engine.OnMetadata(func() {
		c.topics.Store(true)
		c.notify()
	})
	if err := c.resync(true); err != nil {
		c.unfollow()
		return err
	}
	return nil
}

// resync makes those partitions the consumer's that there are.
func (c *Consumer) resync(first bool) error {
	start := c.cfg.Start
	if !first {
		start = Earliest
	}
	want := make(map[place]*source)
	for _, t := range c.engine.Topics() {
		_, named := slices.BinarySearch(c.cfg.Topics, t.Name())
		if !named && (c.match == nil || t.Internal() || !c.match.MatchString(t.Name())) {
			continue
		}
		for _, p := range t.Partitions() {
			s := newSource(p, t.ID(), t.Name(), Position{Offset: OffsetCommitted})
			want[s.place] = s
		}
	}
	var fresh []*source
	c.mu.Lock()
	for at, s := range c.sources {
		if want[at] == nil {
			c.removeLocked(s)
		}
	}
	for at, s := range want {
		if c.sources[at] == nil {
			fresh = append(fresh, s)
		}
	}
	c.mu.Unlock()
	for _, s := range fresh {
		at, _, err := c.settle(c.life, s, s.want, start)
		if err != nil {
			return fmt.Errorf("find where to begin in %s/%d: %w", s.name, s.partition, err)
		}
		s.done, s.doneEpoch, s.base = at.Offset, at.LeaderEpoch, at
	}
	c.mu.Lock()
	for _, s := range fresh {
		c.sources[s.place] = s
	}
	c.mu.Unlock()
	c.enqueueAll(fresh)
	return nil
}

// enqueueAll gives sources their turns in the order of their names.
func (c *Consumer) enqueueAll(list []*source) {
	slices.SortFunc(list, func(a, b *source) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.partition, b.partition))
	})
	for _, s := range list {
		c.enqueue(s)
	}
}
