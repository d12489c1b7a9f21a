package engine

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/x/embedlog/log"
)

// What options mean that do not say.
const (
	// defaultInitialDelay lets consumers that start together, such as those of one
	// process, begin in one generation: else the second waits until the first one's
	// next heartbeat, three seconds as a rule, and stops it. Kafka's three seconds are
	// for fleets that start over a network; who starts a single consumer would wait
	// them for nothing.
	defaultInitialDelay      = 100 * time.Millisecond
	defaultMinSessionTimeout = 6 * time.Second
	defaultMaxSessionTimeout = 30 * time.Minute
	defaultGroupMaxSize      = 10_000
)

func limitsOf(o *Options) classicLimits {
	l := classicLimits{
		delay: o.GroupInitialDelay, minSession: o.GroupMinSessionTimeout, maxSession: o.GroupMaxSessionTimeout, members: o.GroupMaxSize,
	}
	if l.delay == 0 {
		l.delay = defaultInitialDelay
	}
	if l.minSession <= 0 {
		l.minSession = defaultMinSessionTimeout
	}
	if l.maxSession <= 0 {
		l.maxSession = max(defaultMaxSessionTimeout, l.minSession)
	}
	if l.members <= 0 {
		l.members = defaultGroupMaxSize
	}
	return l
}

// Join is a JoinGroup. It waits until the group's next generation begins, which takes
// at most the rebalance timeout of its members, and ends with ctx and with the
// engine. Who gives up waiting may join again: as the same member, if it knows its id.
//
// It fails with a *MemberIDRequiredError, ErrUnknownMember, ErrFencedInstance, an
// *InconsistentProtocolError, a *SessionTimeoutError, ErrGroupMaxSize, an
// *InvalidMemberError, and with ErrRebalancing when the member is to join again at once.
func (g *Groups) Join(ctx context.Context, req JoinRequest) (JoinResponse, error) {
	resp, err := g.join(ctx, &req)
	if err != nil {
		return JoinResponse{}, fmt.Errorf("group %q: member %q joins: %w", req.Group, req.MemberID, err)
	}
	return resp, nil
}

func (g *Groups) join(ctx context.Context, req *JoinRequest) (resp JoinResponse, err error) {
	if err := req.check(); err != nil {
		return resp, err
	}
	newID := req.newMemberID()
	x, err := g.enter(ctx, req.Group, req.MemberID == "", false)
	if err != nil {
		return resp, err
	}
	if x == nil {
		return resp, ErrUnknownMember
	}
	now := g.engine.Now()
	var wait *joinWait
	g.change(x, func(r *roster) { resp, wait, err = r.join(now, req, newID) })
	if err == nil && wait == nil {
		err = x.settle(ctx, now, resp.Generation)
	}
	x.gate.leave()
	if err != nil || wait == nil {
		return resp, err
	}
	if err := g.await(ctx, x, wait.done, req.Waited, func(c *classicState) { c.abandonJoin(g.engine.Now(), wait) }); err != nil {
		return resp, err
	}
	if wait.err != nil {
		return resp, wait.err
	}
	if err := x.gate.share(ctx); err != nil {
		return resp, err
	}
	defer x.gate.leave()
	return wait.resp, x.settle(ctx, g.engine.Now(), wait.resp.Generation)
}

// Sync is a SyncGroup. It waits for the leader's, which ends it as soon as the
// assignments are durable; it ends with ctx and with the engine, too.
//
// It fails with ErrUnknownMember, ErrFencedInstance, a *GenerationError, an
// *InconsistentProtocolError, and ErrRebalancing when the generation is over.
func (g *Groups) Sync(ctx context.Context, req SyncRequest) (SyncResponse, error) {
	resp, err := g.sync(ctx, &req)
	if err != nil {
		return SyncResponse{}, fmt.Errorf("group %q: member %q syncs: %w", req.Group, req.MemberID, err)
	}
	return resp, nil
}

func (g *Groups) sync(ctx context.Context, req *SyncRequest) (resp SyncResponse, err error) {
	x, err := g.enter(ctx, req.Group, false, false)
	if err != nil {
		return resp, err
	}
	if x == nil {
		return resp, ErrUnknownMember
	}
	now := g.engine.Now()
	var wait *syncWait
	var store bool
	g.change(x, func(r *roster) { resp, wait, store, err = r.sync(now, req) })
	if store {
		assignments := make(map[string][]byte, len(req.Assignments))
		for _, a := range req.Assignments {
			assignments[a.MemberID] = bytes.Clone(a.Assignment)
		}
		err = x.store(ctx, now, req.Generation, assignments)
	}
	x.gate.leave()
	abandon := func(c *classicState) { c.abandonSync(g.engine.Now(), wait) }
	switch {
	case err != nil && wait != nil:
		x.abandon(abandon) // it may bring them again
		return resp, err
	case err != nil || wait == nil:
		return resp, err
	}
	if err := g.await(ctx, x, wait.done, req.Waited, abandon); err != nil {
		return resp, err
	}
	return wait.resp, wait.err
}

// ClassicHeartbeat is a Heartbeat. It fails with ErrRebalancing when the member is to
// join again, and with ErrUnknownMember, ErrFencedInstance and a *GenerationError.
func (g *Groups) ClassicHeartbeat(ctx context.Context, req ClassicHeartbeatRequest) error {
	x, err := g.enter(ctx, req.Group, false, false)
	switch {
	case err != nil:
	case x == nil:
		err = ErrUnknownMember
	default:
		g.change(x, func(r *roster) { err = r.classicHeartbeat(g.engine.Now(), &req) })
		x.gate.leave()
	}
	if err != nil {
		return fmt.Errorf("group %q: heartbeat of member %q: %w", req.Group, req.MemberID, err)
	}
	return nil
}

// Leave is a LeaveGroup. It returns for each member why it could not leave, nil if it
// has: ErrUnknownMember or ErrFencedInstance. The error besides is about all of them.
func (g *Groups) Leave(ctx context.Context, req LeaveRequest) ([]error, error) {
	x, err := g.enter(ctx, req.Group, false, false)
	if err == nil && x == nil {
		err = ErrUnknownMember
	}
	if err != nil {
		return nil, fmt.Errorf("leave group %q: %w", req.Group, err)
	}
	defer x.gate.leave()
	now := g.engine.Now()
	var ids []string
	var errs []error
	g.change(x, func(r *roster) { ids, errs = r.leave(now, req.Members) })
	for i, m := range req.Members {
		if errs[i] == nil {
			g.engine.Logger().Info("member left its group", "group", req.Group, "member", ids[i], "instance", m.InstanceID, "reason", m.Reason)
		}
	}
	// They have left, also when that cannot be written now: the next tick tries again.
	_ = x.settle(ctx, now, 0)
	return errs, nil
}

// change lets f change the members of a group.
func (g *Groups) change(x *group, f func(r *roster)) {
	x.mu.Lock()
	before := x.roster.server.epoch
	x.roster.server.setTopics(g.view.Load())
	f(&x.roster)
	epoch, members := x.roster.server.epoch, x.roster.count()
	x.rearmLocked()
	x.mu.Unlock()
	g.rebalanced(x, epoch != before, epoch, members)
}

// await waits for the answer to a call of a member. Who waits does what is due in the
// group meanwhile, at the moment it is due: the engine's ticks are a second apart. When
// it gives up it calls abandon. waited, if not nil, gets the time.
func (g *Groups) await(ctx context.Context, x *group, done <-chan struct{}, waited *time.Duration, abandon func(*classicState)) (err error) {
	if waited != nil {
		began := time.Now()
		defer func() { *waited += time.Since(began) }()
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for err == nil {
		now := g.engine.Now()
		due, alarm := x.nextAlarm(now)
		timer.Reset(max(due.Sub(now), time.Millisecond))
		select {
		case <-done:
			return nil
		case <-alarm:
		case <-timer.C:
			g.expire(x, g.engine.Now()) // a test's clock may say that it is not time yet
		case <-ctx.Done():
			err = ctx.Err()
		case <-x.shard.tenure.done():
			err = x.shard.tenure.ended()
		case <-g.engine.life.Done():
			err = log.ErrClosed
		}
	}
	x.abandon(abandon)
	return err
}

func (x *group) abandon(f func(*classicState)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	f(x.roster.classic)
	x.rearmLocked()
}

// nextAlarm returns when something is due, and a channel that is closed when that
// becomes earlier.
func (x *group) nextAlarm(now time.Time) (due time.Time, alarm <-chan struct{}) {
	x.mu.Lock()
	defer x.mu.Unlock()
	due, ok := x.roster.classic.due()
	if !ok {
		due = now.Add(time.Hour)
	}
	if x.alarm == nil {
		x.alarm = make(chan struct{})
	}
	x.alarmAt = due
	return due, x.alarm
}

// rearmLocked wakes those who wait when something is due earlier than they know.
func (x *group) rearmLocked() {
	if x.alarm == nil {
		return
	}
	if due, ok := x.roster.classic.due(); ok && due.Before(x.alarmAt) {
		close(x.alarm)
		x.alarm = nil
	}
}

// maxClientIDInMemberID bounds what of a client's id is in the ids of its members.
const maxClientIDInMemberID = 200

// newMemberID makes an id in Kafka's form: of the client, or for a static member of
// the instance, and random.
func (r *JoinRequest) newMemberID() string {
	prefix := r.ClientID
	if r.InstanceID != "" {
		prefix = r.InstanceID
	}
	if len(prefix) > maxClientIDInMemberID {
		prefix = strings.ToValidUTF8(prefix[:maxClientIDInMemberID], "")
	}
	return prefix + "-" + NewMemberID()
}

// check refuses what could not be stored, and mends what is for people only.
func (r *JoinRequest) check() error {
	text := func(s string) bool { return len(s) <= math.MaxInt16 && utf8.ValidString(s) }
	bad := func(what string) error {
		return &InvalidMemberError{r.Group, strings.ToValidUTF8(r.MemberID, "?"), what + " is not UTF-8 text of at most 32767 bytes"}
	}
	switch {
	case !text(r.MemberID):
		return bad("the member id")
	case !text(r.InstanceID):
		return bad("the instance id")
	case !text(r.ProtocolType):
		return bad("the protocol type")
	case len(r.Protocols) > maxProtocols:
		return &InvalidMemberError{r.Group, r.MemberID, fmt.Sprintf("it offers %d protocols, %d are allowed", len(r.Protocols), maxProtocols)}
	}
	for _, p := range r.Protocols {
		if p.Name == "" || !text(p.Name) {
			return bad("the name of a protocol is empty or")
		}
	}
	for _, s := range []*string{&r.ClientID, &r.ClientHost} {
		if len(*s) > math.MaxInt16 {
			*s = (*s)[:math.MaxInt16]
		}
		*s = strings.ToValidUTF8(*s, "")
	}
	return nil
}
