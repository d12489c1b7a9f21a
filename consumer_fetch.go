package embedlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

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
	reader *engine.Reader
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

// dropReader lets go of the reader.
func (s *source) dropReader() {
	s.reader.Close()
	s.reader = nil
}

// arrivals are sources of which something came from another node, or that are to be
// tried again: others put them there, and wake the goroutine that reads.
type arrivals struct {
	mu   sync.Mutex
	list []*source
}

func (a *arrivals) take() []*source {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := a.list
	a.list = nil
	return list
}

// arrive has s looked at again.
func (c *Consumer) arrive(s *source) {
	c.arrived.mu.Lock()
	c.arrived.list = append(c.arrived.list, s)
	c.arrived.mu.Unlock()
	c.waiter.Wake()
}

// later has s, at the head of the queue, tried again after a while: nobody leads it.
func (c *Consumer) later(s *source) {
	if c.front.head == s {
		c.dequeue()
	}
	time.AfterFunc(leaderPause, func() { c.arrive(s) })
}

// How long a partition that nobody leads is left alone, and how long its leader is
// asked for an offset, while others are to be read.
const (
	leaderPause = 500 * time.Millisecond
	leaderAsked = 2 * time.Second
)

// settle turns where to begin into an offset that can be read. It returns what has
// to be told, if the place that was asked for is not there any more.
//
// This node's replica is asked first. When that does not have the place it may only be
// behind, or lead no more and not know it: the leader that a majority confirms has the last word.
func (c *Consumer) settle(ctx context.Context, s *source, want Position, start OffsetSpec) (Position, *Reset, error) {
	view := s.part.View()
	if c.engine.Cluster() != nil && (want.Offset == OffsetLatest || want.Offset == OffsetCommitted && start.kind != specEarliest && start.kind != specUnset) {
		// Who begins at the end passes over what lies before it: see bounds.
		view = s.part.LeaderView()
		if _, err := view.Confirmed(ctx); err != nil {
			return want, nil, err
		}
	}
	at, reset, err := c.settleIn(ctx, view, s, want, start)
	if err != nil || reset == nil {
		return at, reset, err
	}
	if _, err := s.part.ReadIndex(ctx); err != nil {
		return at, nil, err
	}
	return c.settleIn(ctx, s.part.View(), s, want, start)
}

func (c *Consumer) settleIn(ctx context.Context, view engine.View, s *source, want Position, start OffsetSpec) (Position, *Reset, error) {
	at := Position{Topic: s.name, Partition: s.partition, LeaderEpoch: -1, Offset: want.Offset}
	bounds, err := view.Bounds(ctx)
	if err != nil {
		return at, nil, err
	}
	first, end := bounds.LogStart, bounds.End(c.isolation())
	switch want.Offset {
	case OffsetEarliest:
		at.Offset = first
		return at, nil, nil
	case OffsetLatest:
		at.Offset = end
		return at, nil, nil
	case OffsetCommitted:
		offset, _, err := findOffset(ctx, view, start, c.isolation())
		if err != nil {
			return at, nil, err
		}
		want = Position{Offset: offset, LeaderEpoch: -1}
	}
	at.Offset = want.Offset
	at.LeaderEpoch = want.LeaderEpoch
	reset := func(to int64, cause error) (Position, *Reset, error) {
		at.Offset = to
		epoch, ok, err := view.EpochOf(ctx, to-1)
		if err != nil {
			return at, nil, err
		}
		if ok {
			at.LeaderEpoch = epoch
		}
		return at, &Reset{Topic: s.name, Partition: s.partition, From: want.Offset, To: to, Cause: cause}, nil
	}
	outside := &OffsetOutOfRangeError{Offset: want.Offset, LogStart: first, LogEnd: bounds.LogEnd}
	if want.LeaderEpoch >= 0 {
		// KIP-320: records of that epoch may have been lost with the power, and others have
		// got their offsets since.
		_, behind, err := view.EpochEnd(ctx, want.LeaderEpoch)
		if err != nil {
			return at, nil, err
		}
		if behind >= 0 && want.Offset > behind {
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
	s.part = s.part.Current() // in a cluster it may have come here, or gone
	want := Position{Offset: s.done, LeaderEpoch: s.doneEpoch}
	c.mu.Unlock()
	asked, cancel := context.WithTimeout(ctx, leaderAsked)
	at, lost, err := c.settle(asked, s, want, c.cfg.Start)
	cancel()
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		c.later(s)
		return nil
	}
	if err != nil {
		return c.failed(ctx, s, err)
	}
	if !c.relocate(s, want, at, lost) {
		return nil // it was sought meanwhile
	}
	c.tell(ctx, lost)
	reader, err := s.part.OpenReader(at.Offset, &partition.ReaderOptions{Isolation: c.isolation(), ReadAhead: c.share(), Reuse: c.cfg.ReuseBuffers},
		func() { c.arrive(s) })
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
		s.dropReader()
		return errPollEnds // the next one meets it again
	}
	c.mu.Lock()
	c.putDownLocked()
	at := s.done
	gone := s.gone
	c.mu.Unlock()
	reader := s.reader
	defer reader.Close()
	s.reader = nil
	if gone {
		return nil
	}
	var outside *OffsetOutOfRangeError
	var bad *BadBatchError
	switch {
	case errors.Is(err, partition.ErrOffsetOutOfRange):
		// Retention overtook us: the next open says where to go on.
		if !s.part.Here() || errors.As(err, &outside) && (at < s.part.LogStart() || at > s.part.LogEnd()) {
			return nil
		}
	case errors.Is(err, partition.ErrNotLeader):
		c.later(s)
		return nil
	case errors.Is(err, engine.ErrUnknownTopic):
		return c.vanished(s, err)
	case errors.Is(err, log.ErrClosed):
		return ErrClosed // the database was closed
	case errors.Is(err, log.ErrCorrupt), errors.As(err, &bad):
		next := c.behind(ctx, s, reader, at, bad)
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
func (c *Consumer) behind(ctx context.Context, s *source, reader *engine.Reader, at int64, bad *BadBatchError) int64 {
	if bad != nil {
		if bad.LastOffset >= at {
			return bad.LastOffset + 1
		}
		return -1
	}
	var next int64
	var err error
	if reader == nil || reader.Remote() {
		next, err = s.part.View().Behind(ctx, at, c.isolation())
	} else if next, err = reader.Skip(); err == io.EOF {
		next, err = s.part.LogEnd(), nil // nothing whole comes behind
	}
	if err != nil || next <= at {
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
	s.gone, s.out = true, true
	s.dropReader()
	s.wait.Disarm()
	delete(c.sources, s.place)
}
