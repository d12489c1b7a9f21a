package embedlog

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// source is a partition that a consumer reads.
//
//	          enqueue                    nothing to read
//	changed ----------> in the queue ---------------------> waits
//	   ^                 ^        |                            |
//	   | Seek, Pause,    +--------+ its turn is over           |
//	   | Resume          +-------------------------------------+ woken
type source struct {
	place
	name string // of the topic
	part *engine.Partition
	wait partition.Wait

	// The goroutine's that reads.
	reader *partition.Reader
	next   *source // in the queue
	queued bool
	out    bool // paused or not ours any more: it is left out
	// What Poll gave out up to, and that it did.
	given      int64
	givenEpoch int32
	polled     bool

	// Guarded by Consumer.mu.
	want      Position // where to begin; its offset may stand for a place
	done      int64    // below it the application is done: the position, while its batch is not at hand
	doneEpoch int32    // of the record before done; -1 when not known
	mark      int64    // to be committed; -1 when nothing is
	markEpoch int32
	committed int64    // what the group has; -1 when nothing
	base      Position // that, or where reading began: where an aborted transaction goes back to
	lost      *Reset   // to be told when it is taken over
	late      bool     // it was made while the consumer was there already
	paused    bool
	moved     bool // done is not where the reader stands
	gone      bool // not ours any more
	told      bool // OnRevoked was called for it
}

const unmarked = -1

func newSource(p *engine.Partition, topic engine.TopicID, name string, want Position) *source {
	s := &source{
		place: place{topic, p.ID()}, name: name, part: p, want: want,
		done: want.Offset, doneEpoch: want.LeaderEpoch, mark: unmarked, markEpoch: -1, committed: unmarked, moved: true,
	}
	s.wait.Value = s
	return s
}

// settle turns where to begin into an offset that can be read. It returns what has
// to be told, if the place that was asked for is not there any more.
func (c *Consumer) settle(s *source, want Position, start OffsetSpec) (Position, *Reset, error) {
	at := Position{Topic: s.name, Partition: s.partition, LeaderEpoch: -1, Offset: want.Offset}
	first, end := s.part.LogStart(), c.end(s)
	switch want.Offset {
	case OffsetEarliest:
		at.Offset = first
		return at, nil, nil
	case OffsetLatest:
		at.Offset = end
		return at, nil, nil
	case OffsetCommitted:
		offset, _, err := findOffset(s.part, start, c.cfg.ReadUncommitted)
		if err != nil {
			return at, nil, err
		}
		want = Position{Offset: offset, LeaderEpoch: -1}
	}
	at.Offset = want.Offset
	at.LeaderEpoch = want.LeaderEpoch
	reset := func(to int64, cause error) (Position, *Reset, error) {
		at.Offset = to
		if epoch, ok := s.part.EpochOf(to - 1); ok {
			at.LeaderEpoch = epoch
		}
		return at, &Reset{Topic: s.name, Partition: s.partition, From: want.Offset, To: to, Cause: cause}, nil
	}
	outside := &OffsetOutOfRangeError{Offset: want.Offset, LogStart: first, LogEnd: s.part.LogEnd()}
	if want.LeaderEpoch >= 0 {
		// KIP-320: records of that epoch may have been lost with the power, and others have
		// got their offsets since.
		if _, behind := s.part.EpochEnd(want.LeaderEpoch); behind >= 0 && want.Offset > behind {
			return reset(max(behind, first), fmt.Errorf("leader epoch %d ends at offset %d: %w", want.LeaderEpoch, behind, outside))
		}
	}
	if want.Offset < first {
		return reset(first, outside)
	}
	if want.Offset > outside.LogEnd {
		return reset(outside.LogEnd, outside)
	}
	return at, nil, nil
}

// end is the offset behind what the consumer can read of s now.
func (c *Consumer) end(s *source) int64 { return endOf(s.part, c.cfg.ReadUncommitted) }

// tell reports a change of position. Not under mu.
func (c *Consumer) tell(ctx context.Context, r *Reset) {
	if r == nil {
		return
	}
	c.logger.Warn("consumer goes on at another offset", "group", c.cfg.Group, "topic", r.Topic, "partition", r.Partition,
		"from", r.From, "to", r.To, "cause", r.Cause)
	if c.cfg.OnReset != nil {
		c.db.callOut(func() { c.cfg.OnReset(ctx, c, *r) })
	}
}

// open gives s a reader at its position.
func (c *Consumer) open(ctx context.Context, s *source) error {
	c.mu.Lock()
	want := Position{Offset: s.done, LeaderEpoch: s.doneEpoch}
	c.mu.Unlock()
	at, lost, err := c.settle(s, want, c.cfg.Start)
	if err != nil {
		return c.failed(ctx, s, err)
	}
	if !c.relocate(s, want, at, lost) {
		return nil // it was sought meanwhile
	}
	c.tell(ctx, lost)
	reader, err := s.part.ReadFrom(at.Offset, &partition.ReaderOptions{Isolation: c.isolation(), ReadAhead: c.share(), Reuse: c.cfg.ReuseBuffers})
	if err != nil {
		return c.failed(ctx, s, err)
	}
	s.reader = reader
	return nil
}

// relocate makes at the position of s, unless it is not at from any more.
func (c *Consumer) relocate(s *source, from, at Position, lost *Reset) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.done != from.Offset || s.doneEpoch != from.LeaderEpoch {
		return false
	}
	s.done, s.doneEpoch, s.moved = at.Offset, at.LeaderEpoch, false
	if lost != nil && c.auto {
		s.mark, s.markEpoch = at.Offset, at.LeaderEpoch // also where that is further back
	}
	return true
}

// share is how many bytes a reader may read ahead, so that all together stay
// within BufferBytes.
func (c *Consumer) share() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(c.cfg.BufferBytes/max(len(c.sources), 1), minShare)
}

// minShare is enough to read at half of the full speed.
const minShare = 32 << 10

// failed deals with an error of reading s. Nil says that reading goes on: the
// position was changed, or s is left out.
func (c *Consumer) failed(ctx context.Context, s *source, err error) error {
	if c.front.gave {
		s.reader = nil
		return errPollEnds // the next one meets it again
	}
	c.mu.Lock()
	c.putDownLocked()
	at := s.done
	gone := s.gone
	c.mu.Unlock()
	reader := s.reader
	s.reader = nil
	if gone {
		return nil
	}
	var outside *OffsetOutOfRangeError
	var bad *BadBatchError
	switch {
	case errors.Is(err, partition.ErrOffsetOutOfRange):
		// Retention overtook us: the next open says where to go on.
		if errors.As(err, &outside) && (at < s.part.LogStart() || at > s.part.LogEnd()) {
			return nil
		}
	case errors.Is(err, engine.ErrUnknownTopic):
		return c.vanished(s, err)
	case errors.Is(err, log.ErrClosed):
		return ErrClosed // the database was closed
	case errors.Is(err, log.ErrCorrupt), errors.As(err, &bad):
		next := c.behind(s, reader, at, bad)
		if !c.cfg.SkipDamage || next < 0 {
			return &ReadError{Topic: s.name, Partition: s.partition, Offset: at, Next: next, Err: err}
		}
		from := Position{Offset: at}
		c.mu.Lock()
		from.LeaderEpoch = s.doneEpoch
		c.mu.Unlock()
		r := &Reset{Topic: s.name, Partition: s.partition, From: at, To: next, Cause: err}
		if c.relocate(s, from, Position{Offset: next, LeaderEpoch: from.LeaderEpoch}, r) {
			c.tell(ctx, r)
		}
		return nil
	}
	return &ReadError{Topic: s.name, Partition: s.partition, Offset: at, Next: -1, Err: err}
}

// behind is the first offset behind damage that starts at or after at; -1 when
// that is not known.
func (c *Consumer) behind(s *source, reader *partition.Reader, at int64, bad *BadBatchError) int64 {
	if bad != nil {
		if bad.LastOffset >= at {
			return bad.LastOffset + 1
		}
		return -1
	}
	if reader == nil {
		var err error
		if reader, err = s.part.ReadFrom(at, &partition.ReaderOptions{Isolation: c.isolation()}); err != nil {
			return -1
		}
		if _, err = reader.TryNext(); err == nil {
			return -1
		}
	}
	next, err := reader.Skip()
	if err == io.EOF {
		next = s.part.LogEnd() // nothing whole comes behind
	} else if err != nil {
		return -1
	}
	if next <= at {
		return -1
	}
	return next
}

// vanished deals with a partition whose topic was deleted.
func (c *Consumer) vanished(s *source, err error) error {
	s.out = true
	if len(c.cfg.Assign) == 0 {
		return nil // the group, or resync, takes it away
	}
	c.mu.Lock()
	c.removeLocked(s)
	c.mu.Unlock()
	return fmt.Errorf("read %s/%d: %w", s.name, s.partition, err)
}

// removeLocked makes s not ours any more. The caller is the one who reads.
func (c *Consumer) removeLocked(s *source) {
	r := &c.front
	if c.cur == s {
		c.putDownLocked()
	}
	if r.src == s {
		r.src, r.batch, r.given = nil, nil, -1
	}
	s.gone, s.out, s.reader = true, true, nil
	s.wait.Disarm()
	delete(c.sources, s.place)
}
