package partition

import (
	"errors"
	"fmt"

	"github.com/x/embedlog/internal/invariant"
	"github.com/x/embedlog/log"
)

// CaptureCommitted describes the log up to what is committed here, with the state of that
// very entry, for a replica that is to get it whole. The caller has called Log().Hold and
// holds on to it while it copies. For the replicator.
func (p *Partition) CaptureCommitted() (*log.Capture, GroupState, error) {
	p.log.Lock()
	defer p.log.Unlock()
	p.mu.Lock()
	if p.base == nil || p.base.group == nil {
		p.mu.Unlock()
		return nil, GroupState{}, errors.New("capture: the log is in no group")
	}
	g := *p.base.group
	state := p.base.appendTo(nil)
	p.mu.Unlock()
	c, err := p.log.CaptureAt(g.Index, state)
	return c, g, err
}

// CaptureAlone describes the log up to what is committed here as one that is in no group, for a copy that is to be used
// alone. The caller has called Log().Hold and holds on to it while it copies.
func (p *Partition) CaptureAlone() (*log.Capture, error) {
	p.log.Lock()
	defer p.log.Unlock()
	p.mu.Lock()
	if p.base == nil || p.base.group == nil {
		p.mu.Unlock()
		return nil, errors.New("capture: the log is in no group")
	}
	s := p.base.clone()
	index := p.base.group.Index
	p.mu.Unlock()
	s.group = nil
	return p.log.CaptureAt(index, s.appendTo(nil))
}

// Install puts a received log, which ends with the entry index, in the place of this one.
// The partition stays open, and the high watermark moves to the new end. It refuses a log
// that ends before what is committed here. For the replicator, while nothing is stored.
func (p *Partition) Install(in *log.Incoming, index uint64) error {
	s, err := decodeState(in.State())
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	p.mu.Lock()
	switch own := p.base.group; {
	case s.group == nil || s.group.Index != index:
		err = fmt.Errorf("install: the state is not that of entry %d: %w", index, log.ErrCorrupt)
	case own != nil && own.Index >= index || s.end < p.highWatermark.Load():
		err = fmt.Errorf("install: entry %d is committed here already", index)
	case own != nil:
		s.group.Doubtful = own.Doubtful // ours, not the sender's
	default:
		s.group.Doubtful = false
	}
	p.mu.Unlock()
	if err != nil {
		return err
	}
	s.group.Weak = p.log.Level() != log.Durable
	s.group.Open = s.group.Weak
	in.SetState(s.appendTo(nil))
	err = p.log.Install(in, func() {
		invariant.True(s.end == p.log.EndOffset() && p.log.NextIndex() == index+1, "installed log ends at %d and index %d, the state at %d and %d", p.log.EndOffset(), p.log.NextIndex()-1, s.end, index)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.base, p.state, p.stored = s, s.clone(), nil
		p.cuts++
		p.state.group = nil
		p.epoch.Store(max(p.epoch.Load(), int64(s.epochs.latest()), int64(p.log.LastEpoch())))
		p.base.txns.advance(s.end)
		p.advanceLocked(s.end)
	})
	if err != nil {
		return err
	}
	p.waiters.wake(p)
	return nil
}
