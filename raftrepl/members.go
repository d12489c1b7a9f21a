package raftrepl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
)

// hasMember says whether a node is a member of the group, as this replica's log says. Without an instance that runs nobody
// is.
func (g *Group) hasMember(node int32) bool {
	inst := g.instance()
	if inst == nil {
		return false
	}
	return slices.ContainsFunc(inst.raft.GetConfiguration().Configuration().Servers, func(s raft.Server) bool { return memberNode(s.ID) == node })
}

// firstMembers is the configuration that a group begins with: the same bytes on every
// member.
func firstMembers(nodes []int32) []byte {
	sorted := slices.Clone(nodes)
	slices.Sort(sorted)
	var c raft.Configuration
	for _, n := range slices.Compact(sorted) {
		c.Servers = append(c.Servers, server(n, raft.Voter))
	}
	return raft.EncodeConfiguration(c)
}

func server(node int32, s raft.ServerSuffrage) raft.Server {
	return raft.Server{Suffrage: s, ID: memberID(node), Address: raft.ServerAddress(memberID(node))}
}

// decodeMembers reads a configuration from a peer or the disk. The library's own function
// panics on what it cannot read.
func decodeMembers(b []byte) (c raft.Configuration, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("members cannot be read: %v: %w", r, log.ErrCorrupt)
		}
	}()
	c = raft.DecodeConfiguration(b)
	if len(c.Servers) > maxMembers {
		return c, fmt.Errorf("%d members: %w", len(c.Servers), log.ErrCorrupt)
	}
	for _, s := range c.Servers {
		if memberNode(s.ID) < 0 || string(s.Address) != string(s.ID) || s.Suffrage > raft.Staging {
			return c, fmt.Errorf("member %q at %q: %w", s.ID, s.Address, log.ErrCorrupt)
		}
	}
	return c, nil
}

// maxMembers bounds what is believed of a configuration.
const maxMembers = 1000

// SetMembers implements engine.ReplicatedLog. A new member gets the log before it has a
// vote, and comes before an old one goes. A leader that is to go itself gives the
// leadership to a member that stays, and returns a *partition.NotLeaderError: the next
// leader goes on.
func (g *Group) SetMembers(ctx context.Context, nodes []int32) error {
	return g.setMembers(ctx, nodes, false)
}

// setMembers is SetMembers. With only it changes replicas and leaves the nodes as they are.
func (g *Group) setMembers(ctx context.Context, nodes []int32, only bool) error {
	want := slices.Clone(nodes)
	slices.Sort(want)
	want = slices.Compact(want)
	if len(want) == 0 || want[0] < 1 || len(want) > maxMembers {
		return fmt.Errorf("members %v: they are numbers from 1 on, and at least one", nodes)
	}
	select {
	case g.changes <- struct{}{}:
		defer func() { <-g.changes }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		if _, err := g.Lead(ctx); err != nil {
			return err
		}
		inst := g.instance()
		if inst == nil {
			return g.notLeader()
		}
		done, err := inst.changeMember(ctx, want, only)
		if err != nil && ctx.Err() == nil && !errors.Is(err, errChanged) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if done {
			return nil
		}
	}
}

var errChanged = errors.New("the members have changed meanwhile")

// changeMember does the next step towards the members that are wanted. done says that
// there was none left.
func (i *instance) changeMember(ctx context.Context, want []int32, only bool) (done bool, err error) {
	f := i.raft.GetConfiguration()
	have, at := f.Configuration().Servers, f.Index()
	find := func(node int32) int {
		return slices.IndexFunc(have, func(s raft.Server) bool { return memberNode(s.ID) == node })
	}
	change := func(f func() raft.IndexFuture) (bool, error) {
		err := i.call(ctx, func() error {
			future := f()
			// The library counts an answer only of who has a vote when it comes: if that is before the
			// change has reached the count, nothing is sent again that would be answered. Another entry is.
			again := time.AfterFunc(i.g.cfg.Timing.Heartbeat, func() {
				i.goCall(func() { _ = i.raft.Barrier(changeTimeout).Error() }) // the change says how it ended
			})
			defer again.Stop()
			return future.Error()
		})
		if err != nil && i.raft.GetConfiguration().Index() != at {
			err = fmt.Errorf("%w: %w", errChanged, err)
		}
		return false, err
	}
	self := i.g.self
	for _, s := range have {
		if s.ID != self && i.g.superseded(s.ID) {
			return change(func() raft.IndexFuture { return i.raft.RemoveServer(s.ID, at, changeTimeout) })
		}
	}
	for _, n := range want {
		if find(n) < 0 {
			id := memberID(n) // another one says so itself, and is added then
			if newest := i.g.newest(n); newest != "" {
				id = newest
			}
			return change(func() raft.IndexFuture {
				return i.raft.AddNonvoter(id, raft.ServerAddress(id), at, changeTimeout)
			})
		}
	}
	// Those first that have the log: one that is dead keeps none of them waiting.
	slices.SortStableFunc(want, func(a, b int32) int { return cmp.Compare(i.behind(have[find(a)].ID), i.behind(have[find(b)].ID)) })
	for _, n := range want {
		if s := have[find(n)]; s.Suffrage != raft.Voter {
			if err := i.awaitCaughtUp(ctx, s.ID); err != nil {
				return false, err
			}
			return change(func() raft.IndexFuture { return i.raft.AddVoter(s.ID, s.Address, at, changeTimeout) })
		}
	}
	if only {
		return true, nil
	}
	for _, s := range have {
		if s.ID != self && !slices.Contains(want, memberNode(s.ID)) {
			return change(func() raft.IndexFuture { return i.raft.RemoveServer(s.ID, at, changeTimeout) })
		}
	}
	if slices.Contains(want, i.g.cfg.Self) {
		return true, nil
	}
	if err := i.g.Transfer(ctx, 0); err != nil {
		return false, err
	}
	return false, i.g.notLeader()
}

// changeTimeout is how long a change may take to begin.
const changeTimeout = 10 * time.Second

// silentMember is for how long one that is not heard of is waited for: others may have the log.
const silentMember = 10 * time.Second

// behind is 0 for a member that has all but the last moment of the log, and 1 for others.
func (i *instance) behind(id raft.ServerID) int {
	last, _ := i.store.LastIndex()
	if p, ok := i.g.gate.progress(id); ok && p.match+maxAppendEntries > last && p.match > 0 {
		return 0
	}
	return 1
}

// awaitCaughtUp waits until a new member has, of the log, all but what came in the last moment.
func (i *instance) awaitCaughtUp(ctx context.Context, id raft.ServerID) error {
	tick := time.NewTicker(max(i.g.cfg.Timing.Heartbeat/10, time.Millisecond))
	defer tick.Stop()
	for began := time.Now(); ; {
		last, _ := i.store.LastIndex()
		p, ok := i.g.gate.progress(id)
		if time.Since(began) > silentMember && time.Since(p.contact) > silentMember {
			return fmt.Errorf("node %d: %w: it is to be a member", memberNode(id), engine.ErrPeerUnreachable)
		}
		if ok && p.match+inSyncEntries > last && p.match > 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-i.done:
			return i.g.notLeader()
		case <-ctx.Done():
			return ctx.Err()
		}
		if _, err := i.g.LeaderEpoch(); err != nil {
			return err
		}
		if i.g.superseded(id) {
			return errChanged
		}
	}
}

// Transfer implements engine.ReplicatedLog. Meanwhile nothing is appended.
func (g *Group) Transfer(ctx context.Context, to int32) error {
	if _, err := g.Lead(ctx); err != nil {
		return err
	}
	inst := g.instance()
	if inst == nil {
		return g.notLeader()
	}
	if to == g.cfg.Self {
		return nil
	}
	id, err := g.successor(ctx, inst, to)
	if err != nil {
		return fmt.Errorf("transfer of %s to node %d: %w", g.name, to, err)
	}
	// The library refuses what comes while it hands over, and says so to nobody who listens
	// (see proposal): so nothing is on its way then.
	if err := inst.hold(ctx); err != nil {
		return err
	}
	defer inst.letGo()
	err = inst.call(ctx, func() error {
		return inst.raft.LeadershipTransferToServer(id, raft.ServerAddress(id)).Error()
	})
	if err != nil {
		// It says that it failed a moment before it takes entries again.
		time.Sleep(g.cfg.Timing.Heartbeat / 10)
		return fmt.Errorf("transfer of %s to node %d: %w", g.name, to, err)
	}
	return nil
}

// successor is the voter that the lead is given to, which has answered lately; to is its node, 0 for who has most of the log. hashicorp/raft 1.7.3 must not be
// told to hand over to one that does not answer, as it might choose itself: the second time its leadershipTransfer waits for the replication to that
// one, and when the lead is lost meanwhile it waits for ever, with everything refused whenever this node leads again.
func (g *Group) successor(ctx context.Context, inst *instance, to int32) (id raft.ServerID, err error) {
	patience := g.cfg.Timing.Election
	for began := time.Now(); ; {
		best := uint64(0)
		for _, s := range inst.raft.GetConfiguration().Configuration().Servers {
			if s.Suffrage != raft.Voter || s.ID == g.self || to != 0 && memberNode(s.ID) != to {
				continue
			}
			if p, known := g.gate.progress(s.ID); known && time.Since(p.contact) < patience && (id == "" || p.match > best) {
				id, best = s.ID, p.match
			}
		}
		switch {
		case id != "":
			return id, nil
		case time.Since(began) >= patience:
			if to == 0 {
				return "", &engine.InvalidAssignmentError{Reason: "no other replica answers"}
			}
			return "", &engine.InvalidAssignmentError{Reason: fmt.Sprintf("node %d does not answer, so it cannot lead", to)}
		}
		select {
		case <-time.After(g.cfg.Timing.Heartbeat / 20):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// hold keeps proposals back and waits for those that are on their way to the log.
func (i *instance) hold(ctx context.Context) error {
	i.pmu.Lock()
	if i.transferring || i.leading == 0 {
		i.pmu.Unlock()
		return i.g.notLeader()
	}
	i.transferring = true
	i.pmu.Unlock()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		onTheirWay := false
		i.pmu.Lock()
		for _, p := range i.proposals {
			onTheirWay = onTheirWay || p.storedTo < p.n
		}
		i.pmu.Unlock()
		if !onTheirWay {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			i.letGo()
			return ctx.Err()
		}
	}
}

func (i *instance) letGo() {
	i.pmu.Lock()
	i.transferring = false
	i.pmu.Unlock()
}
