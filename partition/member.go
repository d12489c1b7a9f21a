package partition

import (
	"errors"
	"fmt"

	"github.com/x/embedlog/log"
)

// GroupState is what the checkpoint of a replicated log keeps for its group. It is
// always of the same committed index as the producers and transactions beside it, so
// that a start that begins there misses nothing and does nothing twice.
type GroupState struct {
	// Index and Epoch are of the last committed entry that is known.
	Index, Epoch uint64
	// Members is what the newest committed entry of log.KindConfiguration holds, and
	// MembersIndex its index. The bytes are not to be changed.
	Members      []byte
	MembersIndex uint64
	// LogStart is the log start offset that the group has decided. The log may be behind
	// it for as long as there is no room to follow.
	LogStart int64
	// Doubtful says that this replica may have lost what it had acknowledged: it has no
	// vote until a leader has brought it up to date.
	Doubtful bool
	// Weak says that the log was written to at a level that acknowledges before a sync.
	Weak bool
	// Open says that it was being written so, and was not closed since: what the file looks like after a power cut
	// does not tell, when that took all that was written since the open.
	Open bool
}

// ErrReplicated says that the log belongs to a group and was opened without a Replicator.
var ErrReplicated = errors.New("embedlog: the log is a member of a replicated group")

// Group describes the log's part in its group as of what is committed here. ok is
// false for a log that is in none.
func (p *Partition) Group() (g GroupState, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.base == nil || p.base.group == nil {
		return g, false
	}
	return *p.base.group, true
}

// BeginGroup makes a log that this node had alone the first of a group: all of it is
// committed, as of its last entry, and members says who is in the group. It is
// durable when it returns, by one replaced checkpoint: after a crash before, the log
// is local still. For the replicator.
func (p *Partition) BeginGroup(members []byte) error {
	p.log.Lock()
	defer p.log.Unlock()
	p.mu.Lock()
	if p.base == nil || p.base.group != nil || len(p.stored) > 0 && p.highWatermark.Load() > p.stored[0].next {
		p.mu.Unlock()
		return errors.New("begin group: the log is in a group already")
	}
	before, tail := p.base, p.stored
	p.base = p.state.clone()
	last := p.log.NextIndex() - 1
	p.base.group = &GroupState{
		Index: last, Epoch: p.log.LastEpoch(), Members: members, MembersIndex: last, LogStart: p.log.StartOffset(),
	}
	p.stored = nil
	p.mu.Unlock()
	if err := p.log.Checkpoint(); err != nil {
		// Which checkpoint the next open reads is not known: nothing may be built on either.
		p.mu.Lock()
		p.base, p.stored = before, tail
		p.mu.Unlock()
		return fmt.Errorf("begin group: %w", err)
	}
	p.mu.Lock()
	p.base.txns.advance(p.base.end)
	p.advanceLocked(p.base.end)
	p.mu.Unlock()
	p.waiters.wake(p)
	return nil
}

// Checkpoint makes durable what is committed, and that it is: the next open begins there,
// before anybody says so again. For what is needed to hear of others.
func (p *Partition) Checkpoint() error {
	p.log.Lock()
	defer p.log.Unlock()
	if err := p.log.Checkpoint(); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// SetDoubtful says whether the replica may have lost what it had acknowledged. It is in
// the next checkpoint. For the replicator.
func (p *Partition) SetDoubtful(doubtful bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if g := p.base.group; g != nil {
		g.Doubtful = doubtful
	}
}

// noteWeak has the checkpoint say GroupState.Open before anything is written at a weak level, once for each open or change of the
// level. Neither the file nor the level at the next open would tell: a power cut may leave the file as it was closed before, and the topic may
// have been made durable meanwhile, or the node knows of the metadata only what it had heard to be committed. Writer.
func (p *Partition) noteWeak() error {
	if p.weakNoted || p.log.Level() == log.Durable {
		return nil
	}
	if _, ok := p.Group(); !ok {
		return nil // about to join, which writes a checkpoint
	}
	if p.closed.Load() {
		return log.ErrClosed
	}
	if err := p.log.Checkpoint(); err != nil {
		return fmt.Errorf("note that the log is written at a weak level: %w", err)
	}
	p.weakNoted = true
	return nil
}

// LastEntry is the index and epoch of the log's last entry, or of its boundary. For the replicator.
func (p *Partition) LastEntry() (index, epoch uint64) {
	p.log.Lock()
	defer p.log.Unlock()
	return p.log.NextIndex() - 1, p.log.LastEpoch()
}

// JoinGroup makes an empty log, or one whose entries come from a group, say in its
// checkpoint that it is in one: from then on an unclean stop is seen for what it may have
// lost. For the replicator.
func (p *Partition) JoinGroup() error {
	p.log.Lock()
	defer p.log.Unlock()
	p.mu.Lock()
	if p.base.group == nil {
		p.base.group = &GroupState{}
	}
	p.mu.Unlock()
	if err := p.log.Checkpoint(); err != nil {
		return fmt.Errorf("join group: %w", err)
	}
	return nil
}

// recoverGroup is recover for a log with a replicator: s is the checkpoint's state,
// which is of what was committed only. What lies behind it goes to stored.
func (p *Partition) recoverGroup(s *state) error {
	last, epoch := p.LastEntry()
	g := s.group
	lost := g != nil && (g.Index > last || s.end > p.log.EndOffset())
	if lost {
		// A power cut at a weak level took what was committed. What is left was committed, too.
		s = newState(p.log.StartOffset())
		if err := p.replay(s, p.log.EndOffset()); err != nil {
			return err
		}
		kept := *g
		kept.Index, kept.Epoch = last, epoch
		s.group = &kept
	}
	p.base = s.clone()
	s.deletedTo(p.log.StartOffset())
	p.base.deletedTo(p.log.StartOffset())
	if !lost {
		if err := p.replayStored(s, last); err != nil {
			return err
		}
	}
	if g = p.base.group; g != nil {
		rec := p.log.Recovered()
		g.Doubtful = g.Doubtful || lost || g.Open || !rec.Clean && (g.Weak || p.log.Level() != log.Durable)
	}
	s.group = nil
	return p.recovered(s)
}

// replayStored takes in what lies behind the checkpoint's committed index.
func (p *Partition) replayStored(s *state, last uint64) error {
	committed := uint64(0)
	r, err := p.log.ReadFrom(max(s.end, p.log.StartOffset()))
	if s.group != nil {
		if committed = s.group.Index; committed == last {
			return nil
		}
		r, err = p.log.ReadFromIndex(committed + 1)
	}
	if err != nil {
		return err
	}
	return p.eachEntry(r, func(e *storedEntry) error {
		if e.index <= committed || s.group == nil && e.next <= s.end && e.data {
			return nil
		}
		p.stored = append(p.stored, *e)
		return e.apply(s)
	})
}
