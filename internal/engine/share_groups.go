package engine

import (
	"context"
	"fmt"
)

// ShareAssignor is the name of how partitions are assigned in share groups.
const ShareAssignor = "simple"

// isShare says whether it is a share group that there is.
func (x *group) isShare() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.roster.kind == GroupTypeShare && x.knownLocked()
}

// isShare is nil for a share group, and ErrUnknownGroup for anything else.
func (g *Groups) isShare(ctx context.Context, name string) error {
	s, err := g.shard(ctx, name, false)
	if err != nil {
		return err
	}
	if s != nil {
		s.mu.Lock()
		x := s.groups[name]
		s.mu.Unlock()
		if x != nil && x.isShare() {
			return nil
		}
	}
	return ErrUnknownGroup
}

// makeShareLocked makes a share group of one that has never been anything.
func (x *group) makeShareLocked() error {
	if x.roster.kind == GroupTypeShare {
		return nil
	}
	if x.knownLocked() || len(x.roster.classic.invited) > 0 {
		return &GroupTypeError{x.name, "it is not a share group"}
	}
	x.roster.kind = GroupTypeShare
	return nil
}

// notShare refuses what only other groups have.
func (r *roster) notShare() error {
	if r.kind == GroupTypeShare {
		return &GroupTypeError{r.server.name, "it is a share group"}
	}
	return nil
}

// ShareHeartbeat is the call of a member of a share group: see Heartbeat.
func (g *Groups) ShareHeartbeat(ctx context.Context, req ShareHeartbeatRequest) (HeartbeatResponse, error) {
	fail := func(err error) (HeartbeatResponse, error) {
		return HeartbeatResponse{}, fmt.Errorf("share group %q: member %q: %w", req.Group, req.MemberID, err)
	}
	if err := (&shareMembers{name: req.Group}).validate(&req); err != nil {
		return fail(err)
	}
	settings, err := g.engine.shares.settings(ctx, req.Group)
	if err != nil {
		return fail(err)
	}
	x, err := g.enter(ctx, req.Group, req.MemberEpoch == JoinEpoch, false)
	if err != nil {
		return fail(err)
	}
	if x == nil {
		return fail(ErrUnknownMember)
	}
	defer x.gate.leave()
	now := g.engine.Now()
	x.mu.Lock()
	r := &x.roster
	before := r.server.epoch
	if req.MemberEpoch == JoinEpoch {
		if err = x.makeShareLocked(); err == nil && r.share.members[req.MemberID] == nil && r.count() >= r.classic.limits.members {
			err = ErrGroupMaxSize
		}
	} else if r.kind != GroupTypeShare {
		err = ErrUnknownMember
	}
	var resp HeartbeatResponse
	if err == nil {
		r.share.setTopics(g.view.Load())
		resp, err = r.share.heartbeat(now, &req)
	}
	epoch, members := r.server.epoch, r.count()
	x.mu.Unlock()
	g.rebalanced(x, epoch != before, epoch, members)
	if err == nil && req.MemberEpoch == LeaveEpoch {
		g.engine.shares.releaseMember(req.Group, req.MemberID)
	}
	if err == nil {
		err = x.settle(ctx, now, resp.MemberEpoch)
	}
	if err != nil {
		return fail(err)
	}
	resp.Interval = settings.heartbeat
	return resp, nil
}

// deleteGroup forgets the state of a share group that is being deleted. The caller is alone in its gate.
func (s *Shares) deleteGroup(ctx context.Context, name string) error {
	g, err := s.group(ctx, name, false)
	if err != nil || g == nil {
		return err
	}
	return s.remove(ctx, g, g.list())
}
