package raftrepl

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

var _ engine.Recoverable = (*Group)(nil)

// Doubtful implements engine.Recoverable.
func (g *Group) Doubtful() bool { return g.doubt.is() }

// Last implements engine.Recoverable.
func (g *Group) Last() (index, epoch uint64, ok bool) {
	inst := g.instance()
	if inst == nil || inst.cutOff.Load() {
		return 0, 0, false
	}
	index, epoch = inst.store.p.LastEntry()
	return index, epoch, true
}

// TakeOver implements engine.Recoverable. The log gets one entry more, of a term that is above all that this
// replica knows, in which it is the only member; from then on all of the log is committed, and an
// instance that finds that as its members leads at once. Replicas of the old members that come
// back have older terms: what they have beyond is damage there, and they are fetched again.
//
// The term is durable first, then the entry: a crash between leaves the group as it was, and one after finds
// the entry, whose members hold although it is not known to be committed.
func (g *Group) TakeOver() (err error) {
	g.mu.Lock()
	inst := g.inst
	if inst == nil || g.stopped || inst.cutOff.Load() {
		g.mu.Unlock()
		return fmt.Errorf("take over %s: %w", g.name, errNotUp)
	}
	member := false
	for _, s := range inst.raft.GetConfiguration().Configuration().Servers {
		member = member || s.ID == g.self
	}
	if node, _ := g.leaderOf(inst); node > 0 || !member {
		g.mu.Unlock()
		if !member {
			return fmt.Errorf("take over %s: this replica is not a member", g.name)
		}
		return fmt.Errorf("take over %s: node %d leads", g.name, node)
	}
	if !inst.cut(errNotUp) {
		g.mu.Unlock()
		return fmt.Errorf("take over %s: %w", g.name, errNotUp)
	}
	g.inst, g.reason = nil, "it is made the only member of its group"
	g.mu.Unlock()
	inst.shut()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.stopped {
			return
		}
		if serr := g.startLocked(); serr != nil {
			g.endLocked(serr)
			err = errors.Join(err, serr)
			g.work.Go(g.resume)
		}
	}()
	known, _ := g.cfg.Votes.get(g.cfg.ID)
	last, epoch := g.p.LastEntry()
	term := max(known.term, epoch) + 1
	if err := g.cfg.Votes.change(g.cfg.ID, func(v *vote) { v.term = max(v.term, term) }); err != nil {
		return fmt.Errorf("take over %s: %w", g.name, err)
	}
	alone := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: g.self, Address: raft.ServerAddress(g.self)}}})
	err = g.p.Store([]partition.Entry{{Kind: log.KindConfiguration, Index: last + 1, Epoch: term, Data: alone}})
	if err == nil {
		err = g.p.Log().Flush()
	}
	if err == nil {
		err = g.p.Commit(last + 1)
	}
	if err != nil {
		return fmt.Errorf("take over %s: %w", g.name, err)
	}
	g.EndDoubt()
	if err := g.p.Checkpoint(); err != nil {
		return fmt.Errorf("take over %s: %w", g.name, err)
	}
	g.cfg.Logger.Warn("this replica is the only member of its group now: what it did not have is lost", "index", last, "term", term)
	return nil
}
