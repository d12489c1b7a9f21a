package engine

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Groups is the coordinator of groups of both protocols. Members live in memory;
// offsets, epochs and the members of classic generations in __consumer_offsets, one
// partition of which is read when the first of its groups is asked for.
//
// Lock order: Groups.mu; offsetsShard.turn, then a group's gate, then
// group.persisting, then offsetsShard.mu, then group.mu. Who waits for an answer
// (Join, Sync) holds none of them. No file is touched, and topics are not changed,
// while a mutex is held.
type Groups struct {
	engine *Engine
	limits classicLimits
	view   atomic.Pointer[topicsView]
	cancel func() // of the watches on metadata
	// seen says that what members may see has changed since their patterns were looked at.
	seen atomic.Bool

	mu     sync.Mutex
	shards []*offsetsShard // nil while there is no __consumer_offsets

	// Of tick, which is called by one goroutine at a time.
	cleaned     time.Time // when offsets were last looked through
	cleanedView uint64    // version of the topics then
	matched     time.Time // when patterns were last looked at again
}

// offsetsCleaningInterval is how often offsets are looked through for what is to be
// forgotten, if no topic was deleted meanwhile.
const offsetsCleaningInterval = time.Minute

// patternsInterval is how often patterns are looked at again where nobody says that
// what their members may see has changed. (group.consumer.regex.refresh.interval.ms)
const patternsInterval = 10 * time.Minute

const defaultOffsetsRetention = 7 * 24 * time.Hour

func openGroups(e *Engine) (*Groups, error) {
	g := &Groups{engine: e, cleaned: e.Now(), matched: e.Now(), limits: limitsOf(&e.options)}
	g.view.Store(newTopicsView(1, e))
	topics := e.OnMetadata(g.topicsChanged)
	acls := e.OnSecurity(func(c SecurityChange) {
		if c.ACLs {
			g.seen.Store(true)
		}
	})
	g.cancel = func() { topics(); acls() }
	return g, nil
}

// close ends what waits. Topics are still open.
func (g *Groups) close() { g.cancel() }

func newTopicsView(version uint64, e *Engine) *topicsView {
	topics := e.view.Load()
	v := &topicsView{version, make(map[string]viewTopic, len(topics.byName)), make(map[TopicID]viewTopic, len(topics.byName))}
	for name, t := range topics.byName {
		vt := viewTopic{t.ID(), name, int32(len(t.partitions)), t.Internal()}
		v.byName[name], v.byID[vt.id] = vt, vt
	}
	return v
}

// topicsChanged gives groups with members a new target at once: members in this
// process are told.
func (g *Groups) topicsChanged() {
	for {
		old := g.view.Load()
		if g.view.CompareAndSwap(old, newTopicsView(old.version+1, g.engine)) {
			break
		}
	}
	for _, x := range g.loadedGroups() {
		x.mu.Lock()
		changed := x.roster.server.setTopics(g.view.Load())
		changed = x.roster.share.setTopics(g.view.Load()) || changed
		epoch, members := x.roster.server.epoch, x.roster.count()
		x.mu.Unlock()
		g.rebalanced(x, changed, epoch, members)
	}
}

func (g *Groups) rebalanced(x *group, changed bool, epoch int32, members int) {
	if hook := g.engine.hooks.OnRebalance; hook != nil && changed {
		hook(x.name, epoch, members)
	}
}

func (g *Groups) loadedGroups() (list []*group) {
	for _, s := range g.allShards() {
		s.mu.Lock()
		if s.loaded && s.tenure.ended() == nil {
			for _, x := range s.groups {
				list = append(list, x)
			}
		}
		s.mu.Unlock()
	}
	return list
}

// loadAll reads what nobody has asked for in this run: offsets that nobody uses are
// forgotten all the same.
func (g *Groups) loadAll() {
	if g.offsetsRetention() <= 0 {
		return
	}
	shards, err := g.prepare(g.engine.life, false)
	if err != nil {
		return
	}
	for _, s := range shards {
		if s.isLoaded() || s.tenure != nil { // in a cluster who leads has read it: see follow
			continue
		}
		if err := s.load(g.engine.life, g); err != nil && g.engine.life.Err() == nil {
			g.engine.Logger().Debug("offsets of groups are not read", "error", err) // whoever asks for a group is told
		}
	}
}

func (g *Groups) allShards() []*offsetsShard {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shards
}

// prepare finds or makes the shards. They are nil when there are no groups and
// create is false.
func (g *Groups) prepare(ctx context.Context, create bool) ([]*offsetsShard, error) {
	if err := g.engine.closedError(); err != nil {
		return nil, err
	}
	if shards := g.allShards(); shards != nil {
		return shards, nil
	}
	t, err := g.engine.Topic(offsetsTopicName)
	if errors.Is(err, ErrUnknownTopic) {
		if !create {
			return nil, nil
		}
		t, err = g.engine.coordinatorTopic(ctx, offsetsTopicName)
	}
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shards == nil {
		for _, p := range t.Partitions() {
			g.shards = append(g.shards, newOffsetsShard(p))
			g.engine.coordinators.follow(p)
		}
	}
	return g.shards, nil
}

// prepareKnowing is prepare, without making the topic, on a node that may not have heard of it yet: whoever is told
// that a group has committed nothing begins anew.
func (g *Groups) prepareKnowing(ctx context.Context) ([]*offsetsShard, error) {
	if t, err := g.engine.internalTopic(ctx, offsetsTopicName); t == nil {
		return nil, err
	}
	return g.prepare(ctx, false)
}

func checkGroupName(group string) error {
	if len(group) == 0 || len(group) > math.MaxInt16 || !utf8.ValidString(group) {
		return fmt.Errorf("group %.64q: %w: it must be UTF-8 text of 1 to 32767 bytes", group, ErrInvalidGroup)
	}
	return nil
}

// shard returns the shard of a group, loaded; nil when create is false and there
// are no groups.
func (g *Groups) shard(ctx context.Context, group string, create bool) (*offsetsShard, error) {
	if err := checkGroupName(group); err != nil {
		return nil, err
	}
	shards, err := g.prepare(ctx, create)
	if err == nil && shards == nil {
		shards, err = g.prepareKnowing(ctx)
	}
	if err != nil || shards == nil {
		return nil, err
	}
	s, err := g.loaded(ctx, int(offsetsPartitionOf(group, len(shards))))
	if err != nil {
		return nil, fmt.Errorf("group %q: %w", group, err)
	}
	return s, nil
}

// loaded returns a shard that is loaded, and whose tenure goes on.
func (g *Groups) loaded(ctx context.Context, i int) (*offsetsShard, error) {
	for {
		s := g.allShards()[i]
		patient, stop := s.tenure.patience(ctx)
		err := s.load(patient, g)
		stop()
		if err == nil {
			return s, nil
		}
		if g.replace(i, s) {
			continue // who led and leads again reads what was written meanwhile
		}
		return nil, s.tenure.loading(ctx, err)
	}
}

// replace puts a new shard in the place of one whose tenure is over, and wakes who
// waits for something of the old one. It reports whether it is over.
func (g *Groups) replace(i int, old *offsetsShard) bool {
	now, stale := old.tenure.stale(offsetsTopicName)
	if !stale {
		return false
	}
	if now != old.part {
		g.engine.coordinators.follow(now)
	}
	g.mu.Lock()
	if g.shards[i] == old {
		g.shards = slices.Clone(g.shards) // allShards was given to others
		g.shards[i] = newOffsetsShard(now)
	}
	g.mu.Unlock()
	old.mu.Lock()
	defer old.mu.Unlock()
	if !old.loaded {
		return true // whoever reads it finds out
	}
	for _, x := range old.groups {
		x.mu.Lock()
		for _, m := range x.roster.server.members {
			m.notify() // members in this process ask, and are told where the group is now
		}
		x.mu.Unlock()
	}
	return true
}

// follow keeps step with who leads: memory of tenures that are over is let go of, and
// what this node has come to lead is read, so that sessions end and transactions count
// also where nobody asks.
func (g *Groups) follow(ctx context.Context) {
	shards, err := g.prepare(ctx, false)
	if err != nil {
		return
	}
	for i, s := range shards {
		g.replace(i, s)
		if s = g.allShards()[i]; !s.isLoaded() && s.tenure.leads() {
			g.engine.coordinators.background("read its log", s.part, func() error { return s.load(ctx, g) })
		}
	}
}

// enter returns the group with its gate entered, shared or alone: the caller calls
// gate.leave. It is nil when create is false and there is no such group.
func (g *Groups) enter(ctx context.Context, name string, create, alone bool) (*group, error) {
	s, err := g.shard(ctx, name, create)
	if err != nil || s == nil {
		return nil, err
	}
	for {
		s.mu.Lock()
		x := s.groups[name]
		if x == nil && create {
			x = s.groupLocked(g, name)
		}
		s.mu.Unlock()
		if x == nil {
			return nil, nil
		}
		enter := x.gate.share
		if alone {
			enter = x.gate.exclude
		}
		if err := enter(ctx); err != nil {
			return nil, fmt.Errorf("group %q: %w", name, err)
		}
		x.mu.Lock()
		dead := x.dead
		x.used = s.now()
		x.mu.Unlock()
		if !dead {
			return x, nil
		}
		x.gate.leave()
	}
}

// enterKnown is enter, alone, of a group that there is. That there is none it says when it is sure: somebody else may
// lead by now and have made the group, and who hears that it has no offsets begins anew.
func (g *Groups) enterKnown(ctx context.Context, name string) (*group, error) {
	for {
		x, err := g.enter(ctx, name, false, true)
		if err != nil || x != nil {
			return x, err
		}
		s, err := g.shard(ctx, name, false)
		if err != nil || s == nil {
			return nil, err
		}
		if err := s.tenure.confirm(ctx); err != nil {
			return nil, fmt.Errorf("group %q: %w", name, err)
		}
		s.mu.Lock()
		none := s.groups[name] == nil
		s.mu.Unlock()
		if none {
			return nil, nil
		}
	}
}

// Heartbeat is the only call of a member: see HeartbeatRequest. The calls of one
// member come one after the other.
//
// It fails with ErrUnknownMember or an error that matches ErrRebalance when the
// member is not one any more: it owns nothing then, and joins again. After any
// other error it calls again, with Owned.
func (g *Groups) Heartbeat(ctx context.Context, req HeartbeatRequest) (HeartbeatResponse, error) {
	joins := req.MemberEpoch == JoinEpoch
	if req.MemberID == "" && joins {
		req.MemberID = NewMemberID()
	}
	x, err := g.enter(ctx, req.Group, joins, false)
	if err != nil {
		return HeartbeatResponse{}, err
	}
	if x == nil {
		return HeartbeatResponse{}, fmt.Errorf("group %q: member %q: %w", req.Group, req.MemberID, ErrUnknownMember)
	}
	defer x.gate.leave()
	now := g.engine.Now()
	x.mu.Lock()
	before := x.roster.server.epoch
	x.roster.server.setTopics(g.view.Load())
	resp, err := x.roster.heartbeat(now, &req)
	epoch, members := x.roster.server.epoch, x.roster.count()
	x.rearmLocked()
	x.mu.Unlock()
	g.rebalanced(x, epoch != before, epoch, members)
	if err == nil {
		err = x.settle(ctx, now, resp.MemberEpoch)
	}
	if err != nil {
		return HeartbeatResponse{}, fmt.Errorf("group %q: member %q: %w", req.Group, req.MemberID, err)
	}
	return resp, nil
}

// NewMemberID is one that nobody has. A member that chooses its own before it joins
// is the same one when it tries again, and can leave when it does not know whether it
// has joined.
func NewMemberID() string {
	var b [16]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Changed returns a channel that gets a token when the member's next call brings
// it news, or would tell it that it is no member any more. It is the same one for
// all calls as long as the member is there.
func (g *Groups) Changed(group, memberID string) <-chan struct{} {
	if s := g.loadedShard(group); s != nil {
		s.mu.Lock()
		x := s.groups[group]
		s.mu.Unlock()
		if x != nil {
			x.mu.Lock()
			defer x.mu.Unlock()
			if m := x.roster.server.members[memberID]; m != nil {
				if m.news == nil {
					m.news = make(chan struct{}, 1)
					if x.roster.server.hasNews(m) {
						m.notify()
					}
				}
				return m.news
			}
		}
	}
	gone := make(chan struct{}, 1)
	gone <- struct{}{}
	return gone
}

// loadedShard is the shard of a group if that is in memory.
func (g *Groups) loadedShard(group string) *offsetsShard {
	shards := g.allShards()
	if shards == nil {
		return nil
	}
	if s := shards[offsetsPartitionOf(group, len(shards))]; s.isLoaded() && s.tenure.ended() == nil {
		return s
	}
	return nil
}

// expire does what is due in one group.
func (g *Groups) expire(x *group, now time.Time) {
	session := g.engine.shares.loadedSettings(x.name).session
	x.mu.Lock()
	before := x.roster.server.epoch
	out := x.roster.expire(now, session)
	share := x.roster.kind == GroupTypeShare
	epoch, members := x.roster.server.epoch, x.roster.count()
	x.rearmLocked()
	x.mu.Unlock()
	if out != nil {
		for i := 0; share && i < len(out); i++ {
			g.engine.shares.releaseMember(x.name, out[i])
		}
		g.engine.Logger().Info("members left out of their group: silent for too long, or they did not do in time what they were asked for",
			"group", x.name, "members", out, "epoch", epoch)
	}
	g.rebalanced(x, epoch != before, epoch, members)
}

// settleLate writes what could not be written when it happened.
func (g *Groups) settleLate(x *group, now time.Time) {
	x.mu.Lock()
	owes := x.owesLocked(0) && !x.dead
	told := x.owes
	x.owes = owes
	x.mu.Unlock()
	if !owes {
		return
	}
	err := x.gate.share(g.engine.life)
	if err == nil {
		err = x.settle(g.engine.life, now, 0)
		x.gate.leave()
	}
	if err != nil && !told && g.engine.life.Err() == nil {
		g.engine.Logger().Warn("what is known of a group's members is not on disk yet", "group", x.name, "error", err)
	}
}

// matchAgain looks at the patterns of all members again: an ACL may have come or gone.
func (g *Groups) matchAgain(groups []*group) {
	for _, x := range groups {
		x.mu.Lock()
		changed := x.roster.server.matchAgain()
		epoch, members := x.roster.server.epoch, x.roster.count()
		x.mu.Unlock()
		g.rebalanced(x, changed, epoch, members)
	}
}

// tick ends sessions and offsets that are over. It is called once a second.
func (g *Groups) tick(now time.Time) {
	groups := g.loadedGroups()
	changed := g.seen.Swap(false) // before it is looked at: what changes meanwhile counts for the next tick
	if since := now.Sub(g.matched); changed || since < 0 || since >= patternsInterval {
		g.matched = now
		g.matchAgain(groups)
	}
	for _, x := range groups {
		x.mu.Lock()
		x.inUseLocked()
		x.mu.Unlock()
		g.expire(x, now)
		g.settleLate(x, now)
	}
	view := g.view.Load()
	if since := now.Sub(g.cleaned); view.version == g.cleanedView && since >= 0 && since < offsetsCleaningInterval {
		return
	}
	g.loadAll()
	groups = g.loadedGroups()
	if err := g.noteUnused(g.engine.life, groups, now); err != nil && g.engine.life.Err() == nil {
		g.engine.Logger().Debug("since when groups are unused is not noted", "error", err)
	}
	failed := false
	for _, x := range groups {
		if err := g.clean(g.engine.life, x, view, now); err != nil && g.engine.life.Err() == nil {
			failed = true
			g.engine.Logger().Warn("offsets that are over are still there", "group", x.name, "error", err)
		}
	}
	if g.cleaned = now; !failed {
		g.cleanedView = view.version
	}
}
