package embedlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/x/embedlog/internal/engine"
)

// Mark marks rec, and all before it in its partition, as done. It never moves a
// mark back. A record of a partition that the consumer does not have any more is not
// marked; the next Commit says so.
func (c *Consumer) Mark(rec Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.markedLocked(rec.Topic, rec.Partition); s != nil {
		s.markLocked(rec.Offset+1, rec.LeaderEpoch)
		c.busyLocked()
	}
}

// MarkPosition marks what lies before p as done, and nothing from there on, also
// where more was marked.
func (c *Consumer) MarkPosition(p Position) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.markedLocked(p.Topic, p.Partition); s != nil && p.Offset >= 0 {
		s.mark, s.markEpoch = p.Offset, p.LeaderEpoch
		c.busyLocked()
	}
}

// markedLocked is the partition that a mark is for.
func (c *Consumer) markedLocked(topic string, partition int32) *source {
	s := c.findLocked(topic, partition)
	if s == nil || c.lost {
		c.dropLocked(&NotAssignedError{topic, partition})
		return nil
	}
	return s
}

// dropLocked remembers for Commit that marks were dropped.
func (c *Consumer) dropLocked(err error) {
	if c.dropped == nil {
		c.dropped = err
		c.logger.Warn("marks were dropped", "group", c.cfg.Group, "cause", err)
	}
}

// Commit commits what is marked now, and returns when that is durable. It fails
// with an error that matches ErrRebalance when something that had been marked since
// the last Commit could not be committed, because the group gave the partition to somebody
// else: that somebody reads those records again.
func (c *Consumer) Commit(ctx context.Context) error {
	if c.cfg.Group == "" {
		return errors.New("embedlog: commit: the consumer has no group")
	}
	err := c.commit(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		err, c.dropped = c.dropped, nil // it is said once: what is marked from now on is another matter
	}
	if c.isMember() && isFenced(err) {
		c.dropped = nil // by the same
		if !errors.Is(err, engine.ErrRebalance) {
			err = fmt.Errorf("%w: %w", engine.ErrRebalance, err)
		}
	}
	if err == nil && c.closed {
		err = ErrClosed
	}
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// due is a mark to be committed.
type due struct {
	s      *source
	offset int64
	epoch  int32
}

// dueLocked lists the marks that differ from what is committed.
func (c *Consumer) dueLocked() []due {
	var list []due
	add := func(s *source) {
		offset, epoch := s.mark, s.markEpoch
		if c.cur == s && c.auto {
			if at := c.at.Load(); at > c.curFirst && at > offset {
				offset, epoch = at, c.curEpoch
			}
		}
		if offset != unmarked && offset != s.committed {
			list = append(list, due{s, offset, epoch})
		}
	}
	for _, s := range c.sources {
		add(s)
	}
	for _, s := range c.leaving {
		add(s)
	}
	return list
}

// call makes the caller the one who talks to the coordinator.
func (c *Consumer) call(ctx context.Context) error {
	select {
	case c.calls <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// commit commits all marks.
func (c *Consumer) commit(ctx context.Context) error {
	if err := c.call(ctx); err != nil {
		return err
	}
	defer func() { <-c.calls }()
	return c.commitHeld(ctx)
}

func (c *Consumer) commitHeld(ctx context.Context) error {
	c.mu.Lock()
	list := c.dueLocked()
	lost := c.lost
	c.mu.Unlock()
	if len(list) == 0 || lost {
		return nil
	}
	offsets := make([]engine.OffsetCommit, len(list))
	for i, d := range list {
		offsets[i] = engine.OffsetCommit{Topic: d.s.name, TopicID: d.s.topic, Partition: d.s.partition, Offset: d.offset, LeaderEpoch: d.epoch}
	}
	err := c.engine.AnyGroups().Commit(ctx, c.request(offsets))
	return c.committed(list, err)
}

// request is a commit of this consumer. The caller has called call.
func (c *Consumer) request(offsets []engine.OffsetCommit) engine.CommitRequest {
	r := engine.CommitRequest{Group: c.cfg.Group, MemberEpoch: -1, Offsets: offsets}
	if c.isMember() {
		r.MemberID, r.MemberEpoch, r.InstanceID = c.member.id, c.member.epoch, c.cfg.InstanceID
	}
	return r
}

// committed takes in how a commit of list went.
func (c *Consumer) committed(list []due, err error) error {
	var some *engine.CommitError
	partly := errors.As(err, &some)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil && !partly {
		if c.isMember() && isFenced(err) {
			c.loseLocked(err)
		}
		return err
	}
	failed := make(map[int]error)
	if partly {
		for _, f := range some.Failures {
			failed[f.Index] = f.Err
		}
	}
	left := false
	for i, d := range list {
		cause := failed[i]
		if cause == nil {
			d.s.committed, d.s.base = d.offset, Position{Offset: d.offset, LeaderEpoch: d.epoch}
			continue
		}
		if errors.Is(cause, engine.ErrUnknownTopic) || errors.Is(cause, engine.ErrRebalance) {
			// It was deleted, or somebody else has it: trying again is no use.
			d.s.mark, d.s.committed = unmarked, unmarked
			c.dropLocked(cause)
			continue
		}
		left = true
	}
	if left {
		return err
	}
	return nil
}

// isFenced says that the group goes on without the member.
func isFenced(err error) bool {
	return errors.Is(err, engine.ErrUnknownMember) || errors.Is(err, engine.ErrRebalance) || errors.Is(err, engine.ErrFencedInstance)
}

// Committed returns what the group has committed for the consumer's partitions,
// sorted. Those of which nothing is committed are left out.
func (c *Consumer) Committed(ctx context.Context) ([]Position, error) {
	if c.cfg.Group == "" {
		return nil, errors.New("embedlog: committed: the consumer has no group")
	}
	c.mu.Lock()
	closed := c.closed
	var want []engine.TopicPartitions
	names := make(map[engine.TopicID]string)
	for at, s := range c.sources {
		want = append(want, engine.TopicPartitions{Topic: at.topic, Partitions: []int32{at.partition}})
		names[at.topic] = s.name
	}
	c.mu.Unlock()
	if closed {
		return nil, fmt.Errorf("committed: %w", ErrClosed)
	}
	if len(want) == 0 {
		return nil, nil
	}
	got, err := c.engine.AnyGroups().Committed(ctx, c.cfg.Group, want, false)
	if err != nil {
		return nil, fmt.Errorf("committed: %w", err)
	}
	var list []Position
	for _, o := range got {
		list = append(list, Position{Topic: names[o.TopicID], Partition: o.Partition, LeaderEpoch: o.LeaderEpoch, Offset: o.Offset})
	}
	return sortPositions(list), nil
}

// offsetsForTxn returns what is marked and not committed, for a transaction to
// commit. done is called when its outcome is known: after an abort the consumer
// goes back to what the group has.
func (c *Consumer) offsetsForTxn(ctx context.Context) (r engine.CommitRequest, done func(committed bool), err error) {
	if c.cfg.Group == "" || !c.cfg.ManualCommit {
		return r, nil, errors.New("embedlog: a transaction commits the marks of a consumer with a Group and ManualCommit")
	}
	if err := c.call(ctx); err != nil {
		return r, nil, err
	}
	defer func() { <-c.calls }()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.dropped; err != nil {
		// What was read of those partitions is in the transaction, and its offsets cannot be.
		c.dropped = nil
		return r, nil, err
	}
	list := c.dueLocked()
	offsets := make([]engine.OffsetCommit, len(list))
	for i, d := range list {
		offsets[i] = engine.OffsetCommit{Topic: d.s.name, TopicID: d.s.topic, Partition: d.s.partition, Offset: d.offset, LeaderEpoch: d.epoch}
	}
	done = func(committed bool) {
		if !committed {
			c.Rewind()
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, d := range list {
			d.s.committed, d.s.base = d.offset, Position{Offset: d.offset, LeaderEpoch: d.epoch}
		}
	}
	return c.request(offsets), done, nil
}

// Rewind goes back to what is committed, or where reading began, in every
// partition: what was read since is read again. It is what follows an aborted
// transaction.
func (c *Consumer) Rewind() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sources {
		c.moveLocked(s, s.base)
	}
	c.dropped = nil
}

// busyLocked has the background goroutine commit within CommitInterval.
func (c *Consumer) busyLocked() {
	if !c.busy && c.auto && c.started {
		c.busy = true
		c.busySince = time.Now()
		c.prod()
	}
}
