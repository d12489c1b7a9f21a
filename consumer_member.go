package embedlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
)

// member is a consumer's side of its group.
//
//	background                            the goroutine that reads, between two records
//	heartbeat: an assignment
//	   what is not in it  ---- going ---> OnRevoked; out of sources
//	   commit its marks  <--- leaving --
//	   heartbeat: no longer owned
//	   what is new, its committed
//	   offsets looked up  --- coming ---> into sources; OnAssigned
//	   fenced, or too slow ---- lost ---> out of sources; OnLost
//	   join again         <------------
//
// Partitions that stay are read all the time. What is handed over is nobody's in
// between: it is owned until its marks are committed.
type member struct {
	id    string
	epoch int32 // 0: has not joined
	tried bool  // it asked to be let in: the group may have it, whatever the answer was
	// owesLeave says that we are out of the group, and that it was not told yet.
	owesLeave bool
	// The background goroutine's.
	news   <-chan struct{}          // a heartbeat would bring something
	beat   time.Time                // when the next one is due; zero: none is
	sent   []engine.TopicPartitions // Owned of the last one that succeeded; nil after a failure
	target []engine.TopicPartitions // what we were told last
	open   bool                     // target was not wholly taken in
	known  map[engine.TopicID]int   // partitions there were when we joined
	seen   progress
	seenAt time.Time
	retry  time.Time // nothing is tried before; zero: nothing failed
}

// progress is how far the application came. While it differs from look to look the
// application lives.
type progress struct {
	at      int64
	batches uint64
}

// How long the background waits after a failure, and when nothing is to be done.
const (
	retryAfter   = time.Second
	unstableFor  = 20 * time.Millisecond // for one look at an undecided transaction
	undecidedFor = time.Minute           // for one that a caller without a context waits for
	longAway     = 24 * time.Hour
	maxTimeout   = 24 * 24 * time.Hour // what fits the protocol's 32-bit milliseconds
)

// startLocked begins what reading needs, once.
func (c *Consumer) startLocked() {
	if c.started {
		return
	}
	if c.isMember() || c.auto {
		c.started = true
		go c.run()
	}
}

// run is the background goroutine.
func (c *Consumer) run() {
	defer close(c.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	m := &c.member
	m.seenAt = time.Now()
	for {
		news := false
		select {
		case <-c.stop:
			return
		case <-m.news:
			news = true
		case <-c.kick:
		case <-timer.C:
		}
		if err := c.call(c.life); err != nil {
			return
		}
		wait := c.step(news)
		<-c.calls
		timer.Reset(wait)
	}
}

// step does what is due, and says after how long to come again.
func (c *Consumer) step(news bool) time.Duration {
	m := &c.member
	now := time.Now()
	if news {
		m.beat = now
	}
	if wait := m.retry.Sub(now); wait > 0 {
		return wait
	}
	m.retry = time.Time{}
	next := now.Add(longAway)
	if err := c.commitDue(now, &next); err != nil {
		return c.trouble("commit", err, now)
	}
	if c.isMember() {
		if err := c.attend(now, &next); err != nil {
			return c.trouble("heartbeat", err, now)
		}
	}
	return max(time.Until(next), 0)
}

// trouble deals with an error: what time may heal is tried again, the rest ends
// the loop.
func (c *Consumer) trouble(what string, err error, now time.Time) time.Duration {
	m := &c.member
	m.sent = nil
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case errors.Is(err, engine.ErrUnstableOffset):
		m.retry = now // it has waited already
	case c.isMember() && isFenced(err):
		c.loseLocked(err)
		return 0
	case errors.Is(err, log.ErrClosed) || errors.Is(err, context.Canceled):
		m.retry = now.Add(longAway) // the database closes, and with it this consumer
		c.fatal = ErrClosed
		c.notify()
	case errors.Is(err, engine.ErrInvalidGroup), errors.Is(err, engine.ErrInvalidMember), errors.Is(err, engine.ErrInvalidRegex),
		errors.Is(err, engine.ErrInstanceInUse), errors.Is(err, engine.ErrGroupNotEmpty), errors.Is(err, engine.ErrGroupType), !c.isMember() && isFenced(err):
		m.retry = now.Add(longAway)
		c.fatal = fmt.Errorf("group %q: %w", c.cfg.Group, err)
		c.notify()
	default:
		m.retry = now.Add(retryAfter)
		c.logger.Warn("consumer tries again", "group", c.cfg.Group, "what", what, "error", err)
	}
	return m.retry.Sub(now)
}

// commitDue commits the marks when it is time, and those of partitions that are
// handed over at once.
func (c *Consumer) commitDue(now time.Time, next *time.Time) error {
	c.mu.Lock()
	leaving := len(c.leaving)
	due := leaving > 0
	if c.busy {
		at := c.busySince.Add(c.cfg.CommitInterval)
		due = due || !at.After(now)
		if !due {
			*next = earlier(*next, at)
		}
	}
	c.mu.Unlock()
	if !due {
		return nil
	}
	if c.auto {
		if err := c.commitHeld(c.life); err != nil {
			return err
		}
	}
	c.mu.Lock()
	for _, s := range c.leaving[:min(leaving, len(c.leaving))] {
		if s.mark != unmarked && s.mark != s.committed {
			c.dropLocked(&NotAssignedError{s.name, s.partition}) // of ManualCommit
		}
	}
	c.leaving = c.leaving[min(leaving, len(c.leaving)):]
	// While a batch is at hand its records go on to be marked without our hearing of it.
	c.busy = c.auto && c.cur != nil
	c.busySince = now
	if c.busy {
		*next = earlier(*next, now.Add(c.cfg.CommitInterval))
	}
	c.mu.Unlock()
	return nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// attend does what a member has to.
func (c *Consumer) attend(now time.Time, next *time.Time) error {
	m := &c.member
	c.mu.Lock()
	lost := c.lost
	c.mu.Unlock()
	if m.owesLeave {
		if err := c.sayLeave(); err != nil {
			return err
		}
	}
	if lost {
		return nil // until the application knows
	}
	if slow, err := c.tooSlow(now, next); slow || err != nil {
		return err
	}
	// Twice at most: taking in an assignment changes what is owned.
	for range 2 {
		owned := c.owned()
		same := m.sent != nil && slices.EqualFunc(owned, m.sent, equalParts)
		if m.epoch == 0 || !same || !m.beat.IsZero() && !m.beat.After(now) {
			if err := c.heartbeat(owned, now); err != nil {
				return err
			}
		}
		if !m.open {
			break
		}
		if err := c.accept(); err != nil {
			return err
		}
	}
	if !slices.EqualFunc(c.owned(), m.sent, equalParts) {
		*next = now
	}
	if !m.beat.IsZero() {
		*next = earlier(*next, m.beat)
	}
	return nil
}

func equalParts(a, b engine.TopicPartitions) bool {
	return a.Topic == b.Topic && slices.Equal(a.Partitions, b.Partitions)
}

// heartbeat talks to the coordinator.
func (c *Consumer) heartbeat(owned []engine.TopicPartitions, now time.Time) error {
	m := &c.member
	r := engine.HeartbeatRequest{
		Group: c.cfg.Group, MemberID: m.id, MemberEpoch: m.epoch, InstanceID: c.cfg.InstanceID, ClientID: c.cfg.ClientID,
		Local: true, Owned: owned,
	}
	if m.epoch == 0 {
		r.Owned = []engine.TopicPartitions{}
		r.Topics, r.Regex = slices.Clone(c.cfg.Topics), c.cfg.Pattern
		if r.Topics == nil {
			r.Topics = []string{}
		}
		r.SessionTimeout = c.cfg.SessionTimeout
		r.RebalanceTimeout = c.cfg.MaxPollInterval
		if r.RebalanceTimeout < 0 {
			r.RebalanceTimeout = maxTimeout
		}
		m.known = make(map[engine.TopicID]int)
		for _, t := range c.engine.Topics() {
			m.known[t.ID()] = len(t.Partitions())
		}
	}
	m.tried = true
	res, err := c.engine.AnyGroups().Heartbeat(c.life, r)
	if err != nil {
		return err
	}
	if m.epoch == 0 && (m.news == nil || c.engine.Cluster() == nil) {
		m.news = c.engine.AnyGroups().Changed(c.life, c.cfg.Group, m.id)
	}
	m.epoch, m.sent, m.beat = res.MemberEpoch, r.Owned, time.Time{}
	if res.Interval > 0 {
		m.beat = now.Add(res.Interval)
	}
	if res.Assignment != nil {
		m.target, m.open = res.Assignment, true
	}
	return nil
}

// owned is what we have or are about to take, until its marks are committed.
func (c *Consumer) owned() []engine.TopicPartitions {
	c.mu.Lock()
	defer c.mu.Unlock()
	parts := make(map[engine.TopicID][]int32)
	for at := range c.sources {
		parts[at.topic] = append(parts[at.topic], at.partition)
	}
	for _, list := range [][]*source{c.coming, c.leaving} {
		for _, s := range list {
			parts[s.topic] = append(parts[s.topic], s.partition)
		}
	}
	list := make([]engine.TopicPartitions, 0, len(parts))
	for id, p := range parts {
		slices.Sort(p)
		list = append(list, engine.TopicPartitions{Topic: id, Partitions: p})
	}
	slices.SortFunc(list, func(a, b engine.TopicPartitions) int { return slices.Compare(a.Topic[:], b.Topic[:]) })
	return list
}

// accept turns the assignment into what the goroutine that reads has to do.
func (c *Consumer) accept() error {
	m := &c.member
	want := make(map[place]bool)
	for _, t := range m.target {
		for _, p := range t.Partitions {
			want[place{t.Topic, p}] = true
		}
	}
	c.mu.Lock()
	c.going = c.going[:0]
	for at, s := range c.sources {
		if !want[at] {
			c.going = append(c.going, s)
		}
		delete(want, at)
	}
	c.coming = slices.DeleteFunc(c.coming, func(s *source) bool { return !want[s.place] })
	for _, s := range c.coming {
		delete(want, s.place)
	}
	complete := true
	for _, s := range c.leaving {
		if want[s.place] {
			complete = false // given back to us before we have let go of it
			delete(want, s.place)
		}
	}
	if len(c.going) > 0 {
		c.notify()
	}
	c.mu.Unlock()
	fresh, err := c.begins(want)
	if err != nil {
		return err // m.open still says that there is more to take in
	}
	m.open = !complete
	if len(fresh) > 0 {
		c.mu.Lock()
		c.coming = append(c.coming, fresh...)
		c.notify()
		c.mu.Unlock()
	}
	return nil
}

// begins makes sources for partitions that were given to us, with what the group
// has committed for them.
func (c *Consumer) begins(want map[place]bool) ([]*source, error) {
	if len(want) == 0 {
		return nil, nil
	}
	var list []*source
	for at := range want {
		t, err := c.engine.TopicByID(at.topic)
		if err != nil {
			continue // deleted: the group learns of it, and tells us
		}
		p, err := t.Partition(at.partition)
		if err != nil {
			continue
		}
		s := newSource(p, at.topic, t.Name(), Position{Offset: OffsetCommitted, LeaderEpoch: -1})
		s.late = int(at.partition) >= c.member.known[at.topic]
		list = append(list, s)
	}
	if len(list) == 0 {
		return nil, nil
	}
	return list, c.ask(list, unstableFor) // commits and heartbeats go on between two looks
}

// ask fills in what the group has committed. While that is not decided it waits for
// as long as it is said to.
func (c *Consumer) ask(list []*source, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(c.life, wait)
	defer cancel()
	var ask []engine.TopicPartitions
	for _, s := range list {
		ask = append(ask, engine.TopicPartitions{Topic: s.topic, Partitions: []int32{s.partition}})
	}
	got, err := c.engine.AnyGroups().Committed(ctx, c.cfg.Group, ask, true)
	if err != nil {
		return err
	}
	for _, o := range got {
		for _, s := range list {
			if s.topic != o.TopicID || s.partition != o.Partition {
				continue
			}
			s.want = Position{Offset: o.Offset, LeaderEpoch: o.LeaderEpoch}
			s.committed = o.Offset
			if o.Lost != nil {
				s.lost = &Reset{Topic: s.name, Partition: s.partition, From: o.Lost.Offset, To: o.Offset, Cause: o.Lost}
				s.committed = o.Lost.Offset
			}
		}
	}
	return nil
}

// tooSlow leaves the group when the application has not asked for the next record
// for too long.
func (c *Consumer) tooSlow(now time.Time, next *time.Time) (bool, error) {
	m := &c.member
	most := c.cfg.MaxPollInterval
	if most < 0 || m.epoch == 0 {
		m.seenAt = now
		return false, nil
	}
	c.mu.Lock()
	p := progress{c.at.Load(), c.batches}
	idle := len(c.sources) == 0 && len(c.coming) == 0
	c.mu.Unlock()
	if p != m.seen || c.waiting.Load() || idle {
		m.seen, m.seenAt = p, now
	}
	if now.Sub(m.seenAt) < most {
		*next = earlier(*next, m.seenAt.Add(most))
		return false, nil
	}
	// First here and then in the group, which may give what we had to another at once.
	c.mu.Lock()
	c.loseLocked(fmt.Errorf("the application did not ask for the next record within %v: %w", most, engine.ErrRebalance))
	c.mu.Unlock()
	m.owesLeave = true
	return true, c.sayLeave()
}

// sayLeave tells the group that we are out of it.
func (c *Consumer) sayLeave() error {
	m := &c.member
	_, err := c.engine.AnyGroups().Heartbeat(c.life, engine.HeartbeatRequest{
		Group: c.cfg.Group, MemberID: m.id, MemberEpoch: engine.LeaveEpoch, InstanceID: c.cfg.InstanceID, Local: true,
	})
	if err != nil && !isFenced(err) {
		return err
	}
	m.owesLeave = false
	return nil
}

// loseLocked is called when the group goes on without us. The caller has called call.
func (c *Consumer) loseLocked(err error) {
	m := &c.member
	c.logger.Warn("consumer is out of its group", "group", c.cfg.Group, "member", m.id, "cause", err)
	m.epoch, m.sent, m.open, m.beat = 0, nil, false, time.Time{}
	if len(c.dueLocked()) > 0 {
		c.dropLocked(err)
	}
	c.going, c.coming, c.leaving = nil, nil, nil
	if len(c.sources) > 0 {
		c.lost = true
		c.notify()
	} else {
		c.prod()
	}
}

// leave says goodbye. A static member is expected back.
func (c *Consumer) leave(ctx context.Context) {
	if err := c.call(ctx); err != nil {
		return
	}
	defer func() { <-c.calls }()
	m := &c.member
	if !m.tried {
		return
	}
	// Also where no call has succeeded: a group that could not write its epoch has the
	// member all the same, and a local one never expires by silence.
	epoch := engine.LeaveEpoch
	if c.cfg.InstanceID != "" {
		epoch = engine.StaticLeaveEpoch
	}
	_, err := c.engine.AnyGroups().Heartbeat(ctx, engine.HeartbeatRequest{
		Group: c.cfg.Group, MemberID: m.id, MemberEpoch: epoch, InstanceID: c.cfg.InstanceID, Local: true,
	})
	if err != nil && !isFenced(err) && !errors.Is(err, log.ErrClosed) {
		c.logger.Warn("consumer could not leave its group", "group", c.cfg.Group, "member", m.id, "error", err)
	}
	m.epoch = 0
}
