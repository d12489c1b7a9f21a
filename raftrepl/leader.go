package raftrepl

import (
	"context"
	"errors"
	"math"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/seed"
	"github.com/x/embedlog/partition"
)

// LeaderEpoch implements partition.Replicator.
func (g *Group) LeaderEpoch() (int32, error) {
	if inst := g.instance(); inst != nil {
		inst.pmu.Lock()
		term, moving := inst.leading, inst.transferring
		inst.pmu.Unlock()
		if term != 0 && term <= math.MaxInt32 && !moving && !inst.hangs() {
			return int32(term), nil
		}
	}
	return 0, g.notLeader()
}

// Leader implements engine.ReplicatedLog.
func (g *Group) Leader() (node, epoch int32) { return g.leaderOf(g.instance()) }

func (g *Group) leaderOf(inst *instance) (node, epoch int32) {
	if inst == nil || inst.raft == nil {
		return -1, -1
	}
	epoch = int32(min(inst.raft.CurrentTerm(), math.MaxInt32))
	return memberNode(inst.leader()), epoch
}

func (g *Group) notLeader() error { return g.notLeaderAs(g.instance()) }

func (g *Group) notLeaderAs(inst *instance) error {
	node, epoch := g.leaderOf(inst)
	if node == g.cfg.Self {
		node = -1 // not any more, or not quite yet
	}
	return &partition.NotLeaderError{Leader: node, LeaderEpoch: epoch}
}

// Watch implements engine.ReplicatedLog.
func (g *Group) Watch(f func()) (cancel func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	id := g.nextID
	g.nextID++
	g.watchers[id] = f
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.watchers, id)
	}
}

// notice has the watchers called by a goroutine: whoever notices is the library's main loop.
func (g *Group) notice() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.noticeLocked()
}

func (g *Group) noticeLocked() {
	g.again = true
	if g.notices || len(g.watchers) == 0 || g.stopped {
		return
	}
	g.notices = true
	g.work.Go(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		for g.again {
			g.again = false
			var list []func()
			for _, f := range g.watchers {
				list = append(list, f)
			}
			g.mu.Unlock()
			for _, f := range list {
				f()
			}
			g.mu.Lock()
		}
		g.notices = false
	})
}

// Lead implements engine.ReplicatedLog: the first entry of the term in which this node
// leads is committed when all before it is.
func (g *Group) Lead(ctx context.Context) (int32, error) {
	inst := g.instance()
	if inst == nil {
		return 0, g.notLeader()
	}
	inst.pmu.Lock()
	term, ready, isReady := inst.leading, inst.ready, inst.isReady
	inst.pmu.Unlock()
	if term == 0 || term > math.MaxInt32 {
		return 0, g.notLeader()
	}
	if !isReady {
		select {
		case <-ready:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		inst.pmu.Lock()
		isReady = inst.isReady && inst.leading == term
		inst.pmu.Unlock()
		if !isReady {
			return 0, g.notLeader()
		}
	}
	return int32(term), nil
}

// goCall runs f in a goroutine that the instance waits for before it is shut down; not
// any more when that has begun.
func (i *instance) goCall(f func()) bool {
	i.callsMu.Lock()
	defer i.callsMu.Unlock()
	if i.closing {
		return false
	}
	i.calls.Go(f)
	return true
}

// call has f wait for a future of the instance, which is not shut down before it ended.
func (i *instance) call(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	if !i.goCall(func() { done <- f() }) {
		return i.g.notLeader()
	}
	select {
	case err := <-done:
		return i.g.fromLibrary(err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fromLibrary is an error of the library as the callers of a group know it.
func (g *Group) fromLibrary(err error) error {
	for _, is := range []error{raft.ErrNotLeader, raft.ErrLeadershipLost, raft.ErrRaftShutdown, raft.ErrLeadershipTransferInProgress} {
		if errors.Is(err, is) {
			return g.notLeader()
		}
	}
	return err
}

// Confirm implements engine.ReplicatedLog: a majority of the voters has answered a message
// that was sent after the call, and none knows a newer term. The library's own
// VerifyLeader counts answers to what was sent before, too.
func (g *Group) Confirm(ctx context.Context) error {
	epoch, err := g.Lead(ctx)
	if err != nil {
		return err
	}
	inst := g.instance()
	if inst == nil {
		return g.notLeader()
	}
	if seed.Is(seed.StaleRead) {
		return nil
	}
	t := g.gate.transport(inst)
	m := raft.AppendEntriesRequest{RPCHeader: g.gate.header(), Term: uint64(epoch)}
	voters, yes := 0, 0
	answers := make(chan bool, maxMembers)
	for _, s := range inst.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if s.ID == g.self {
			yes++
			continue
		}
		inst.goCall(func() {
			own, resp := m, raft.AppendEntriesResponse{}
			err := t.ask(s.ID, s.Address, &own, &resp)
			answers <- err == nil && resp.Success && resp.Term == own.Term
		})
	}
	for left := voters - yes; yes < voters/2+1; left-- {
		if left == 0 {
			return g.notLeader()
		}
		select {
		case ok := <-answers:
			if ok {
				yes++
			}
		case <-inst.done:
			return g.notLeader()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if now, err := g.Lead(ctx); err != nil || now != epoch {
		return g.notLeader()
	}
	return nil
}
