package engine

import (
	"bytes"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/x/embedlog/internal/invariant"
)

// topicsView is the topics there are, as groups see them.
type topicsView struct {
	version uint64 // grows with each change
	byName  map[string]viewTopic
	byID    map[TopicID]viewTopic
}

type viewTopic struct {
	id         TopicID
	name       string
	partitions int32
	internal   bool
}

func compareTopicIDs(a, b TopicID) int { return bytes.Compare(a[:], b[:]) }

// groupState is the members of one group and who has what. It knows no clock, no
// disk and no lock: the same calls give the same answers.
//
//	heartbeat, expire, setTopics
//	      |
//	epoch grows, assign computes everybody's target
//	      |
//	each member, in its own heartbeats (reconcile):
//	      assigned beyond the target -> revoking, told, waited for
//	      nothing left to give up    -> takes the epoch, and of its target what nobody has
type groupState struct {
	name    string
	epoch   int32 // of the target assignment; never falls
	members map[string]*groupMember
	static  map[string]string // instance id: member id
	owners  map[topicPart]groupOwner
	view    *topicsView
	counts  map[TopicID]int32 // partitions of each topic subscribed to, as assigned
	// assignor is the name of what made the target.
	assignor string
}

// groupOwner is who has a partition in assigned or revoking.
type groupOwner struct {
	member string
	since  int32 // the member's epoch when it got it
}

func newGroupState(name string, epoch int32, view *topicsView) *groupState {
	return &groupState{
		name: name, epoch: epoch, view: view, assignor: uniformAssignor, members: map[string]*groupMember{}, static: map[string]string{},
		owners: map[topicPart]groupOwner{}, counts: map[TopicID]int32{},
	}
}

// heartbeat is one call of one member. The calls of one member come in order: a
// late copy of an earlier one may not overtake.
func (g *groupState) heartbeat(now time.Time, req *HeartbeatRequest) (HeartbeatResponse, error) {
	if err := g.validate(req); err != nil {
		return HeartbeatResponse{}, err
	}
	switch req.MemberEpoch {
	case LeaveEpoch, StaticLeaveEpoch:
		return g.leave(now, req)
	case JoinEpoch:
		return g.join(now, req)
	}
	return g.stay(now, req)
}

func (g *groupState) validate(req *HeartbeatRequest) error {
	bad := func(reason string) error { return &InvalidMemberError{g.name, req.MemberID, reason} }
	switch {
	case req.MemberEpoch < StaticLeaveEpoch:
		return bad("the member epoch is less than -2")
	case req.MemberID == "":
		return bad("the member id is empty")
	case req.Assignor != "" && req.Assignor != uniformAssignor && req.Assignor != rangeAssignor:
		return ErrUnsupportedAssignor
	case req.MemberEpoch != JoinEpoch:
		return nil
	case req.Topics == nil && req.Regex == "" && !req.NoRegex:
		return bad("it joins without a subscription")
	case len(newGroupParts(req.Owned)) > 0:
		return bad("it joins and says that it has partitions: who joins has none")
	}
	return nil
}

// find returns the member of a call that does not join.
func (g *groupState) find(req *HeartbeatRequest) (*groupMember, error) {
	if holder := g.static[req.InstanceID]; req.InstanceID != "" && holder != "" && holder != req.MemberID {
		return nil, ErrFencedInstance
	}
	m := g.members[req.MemberID]
	if m == nil || req.InstanceID != "" && m.instance != req.InstanceID || m.classic != nil {
		return nil, ErrUnknownMember
	}
	return m, nil
}

func (g *groupState) leave(now time.Time, req *HeartbeatRequest) (HeartbeatResponse, error) {
	m, err := g.find(req)
	if err != nil {
		return HeartbeatResponse{}, err
	}
	if req.MemberEpoch == StaticLeaveEpoch && m.instance == "" {
		return HeartbeatResponse{}, &InvalidMemberError{g.name, m.id, "only a static member, with an instance id, leaves to come back"}
	}
	if req.MemberEpoch == LeaveEpoch {
		g.remove(m)
		g.rebalance()
	} else if !m.left {
		// It owns nothing while it is away. What is assigned waits for it, what it was to
		// give up does not.
		m.left, m.lastSeen = true, now
		g.free(m, &m.revoking, m.revoking)
		g.freeUntargeted(m)
	}
	g.tell()
	return HeartbeatResponse{MemberID: m.id, MemberEpoch: req.MemberEpoch}, nil
}

func (g *groupState) join(now time.Time, req *HeartbeatRequest) (HeartbeatResponse, error) {
	match, size, err := regexOf(req)
	if err != nil {
		return HeartbeatResponse{}, err
	}
	m := g.members[req.MemberID]
	if err := g.fits(req, m, size); err != nil {
		return HeartbeatResponse{}, err
	}
	if m != nil && m.instance != req.InstanceID {
		return HeartbeatResponse{}, &InvalidMemberError{g.name, req.MemberID, "it joins with another instance id"}
	}
	if holder := g.static[req.InstanceID]; req.InstanceID != "" && holder != "" && holder != req.MemberID {
		if m = g.members[holder]; !m.left && m.classic == nil { // a classic one does not say that it goes
			return HeartbeatResponse{}, ErrInstanceInUse
		}
		g.takeOver(m, req.MemberID)
	}
	changed := m == nil
	if m == nil {
		m = &groupMember{id: req.MemberID, instance: req.InstanceID}
		g.members[m.id] = m
		if m.instance != "" {
			g.static[m.instance] = m.id
		}
	}
	// Who joins has nothing, also when he was a member before and only the answer got lost.
	g.free(m, &m.revoking, m.revoking)
	g.free(m, &m.assigned, m.assigned)
	m.left, m.epoch, m.previous, m.lastSeen, m.classic = false, 0, 0, now, nil
	if m.configure(req, match, size) || changed {
		changed = true
		m.resolve(g.view)
	}
	if changed {
		g.rebalance()
	}
	g.reconcile(now, m, nil)
	g.tell()
	return g.response(m, true), nil
}

// takeOver renames a static member, for another process that has its instance id.
func (g *groupState) takeOver(m *groupMember, id string) {
	delete(g.members, m.id)
	m.notify() // whoever still listens learns that he is not a member any more
	m.news = nil
	for p, o := range g.owners {
		if o.member == m.id {
			g.owners[p] = groupOwner{id, o.since}
		}
	}
	m.id = id
	g.members[id], g.static[m.instance] = m, id
}

func (g *groupState) stay(now time.Time, req *HeartbeatRequest) (HeartbeatResponse, error) {
	match, size, err := regexOf(req)
	if err != nil {
		return HeartbeatResponse{}, err
	}
	m, err := g.find(req)
	if err == nil && (req.Topics != nil || req.Regex != "") {
		err = g.fits(req, m, size)
	}
	if err != nil {
		return HeartbeatResponse{}, err
	}
	if m.left || req.MemberEpoch != m.epoch && (req.MemberEpoch != m.previous || m.previous == 0) {
		return HeartbeatResponse{}, &MemberEpochError{g.name, m.id, req.MemberEpoch, m.shownEpoch()}
	}
	m.lastSeen = now
	if m.configure(req, match, size) {
		m.resolve(g.view)
		g.rebalance()
	}
	if req.MemberEpoch != m.epoch {
		// The answer that took it to its epoch was lost. What it says that it owns is from
		// before: it gives nothing back, and hears all again.
		g.tell()
		return g.response(m, true), nil
	}
	epoch, assigned := m.epoch, m.assigned
	var owned groupParts
	if req.Owned != nil {
		owned = newGroupParts(req.Owned)
	}
	g.reconcile(now, m, owned)
	g.tell()
	return g.response(m, req.Owned != nil || m.epoch != epoch || !m.assigned.equal(assigned)), nil
}

func regexOf(req *HeartbeatRequest) (match *regexp.Regexp, size int, err error) {
	if req.Regex == "" {
		return nil, 0, nil
	}
	return compileRegex(req.Regex)
}

// fits reports why what the member says, nil a new one, is too much.
func (g *groupState) fits(req *HeartbeatRequest, m *groupMember, patternSize int) error {
	return tooLarge(g.name, req.MemberID, m.says(req, patternSize), g.bytesBut(m))
}

// bytesBut is what all members but one say.
func (g *groupState) bytesBut(m *groupMember) (n int) {
	for _, o := range g.members {
		if o != m {
			n += o.bytes
		}
	}
	return n
}

func (g *groupState) response(m *groupMember, all bool) HeartbeatResponse {
	r := HeartbeatResponse{MemberID: m.id, MemberEpoch: m.epoch, Interval: m.interval()}
	if all {
		r.Assignment = m.assigned.list()
	}
	return r
}

// reconcile takes the member one step towards its target. owned is what it says
// that it has, nil when it says nothing.
func (g *groupState) reconcile(now time.Time, m *groupMember, owned groupParts) {
	if owned != nil {
		g.free(m, &m.revoking, m.revoking.minus(owned))
	}
	if excess := m.assigned.minus(m.target); len(excess) > 0 {
		m.assigned = m.assigned.and(m.target)
		if len(m.revoking) == 0 {
			m.revokeEnd = now.Add(m.rebalanceTimeout)
		}
		m.revoking = m.revoking.or(excess)
		if owned != nil { // it never took them: the answer that gave them was lost
			g.free(m, &m.revoking, excess.minus(owned))
		}
	}
	if len(m.revoking) > 0 {
		return
	}
	if m.epoch != g.epoch {
		m.previous, m.epoch = m.epoch, g.epoch
	}
	free := m.target.minus(m.assigned).filter(g.isFree)
	free.each(func(p topicPart) { g.owners[p] = groupOwner{m.id, m.epoch} })
	if len(free) > 0 {
		m.assigned = m.assigned.or(free)
	}
}

func (g *groupState) isFree(p topicPart) bool {
	_, taken := g.owners[p]
	return !taken
}

// free takes parts, which are in *set, from the member.
func (g *groupState) free(m *groupMember, set *groupParts, parts groupParts) {
	if len(parts) == 0 {
		return
	}
	parts.each(func(p topicPart) {
		invariant.True(g.owners[p].member == m.id, "group %q: %v is owned by %q, not by %q", g.name, p, g.owners[p].member, m.id)
		delete(g.owners, p)
	})
	*set = set.minus(parts)
}

// freeUntargeted takes from a static member that is away what is not for it any
// more: nobody has to be asked.
func (g *groupState) freeUntargeted(m *groupMember) {
	if m.left {
		g.free(m, &m.assigned, m.assigned.minus(m.target))
	}
}

// remove takes a member out, without computing a new target.
func (g *groupState) remove(m *groupMember) {
	g.free(m, &m.revoking, m.revoking)
	g.free(m, &m.assigned, m.assigned)
	delete(g.members, m.id)
	if m.instance != "" {
		delete(g.static, m.instance)
	}
	m.notify()
}

// expire takes out members that were silent for too long, or did not give up in
// time what they were asked for. It reports who.
func (g *groupState) expire(now time.Time) (out []string) {
	for _, id := range slices.Sorted(maps.Keys(g.members)) {
		m := g.members[id]
		end, ok := m.expires()
		if ok && !now.Before(end) || len(m.revoking) > 0 && !now.Before(m.revokeEnd) || m.classic.late(now) {
			g.remove(m)
			out = append(out, id)
		}
	}
	if out != nil {
		g.rebalance()
		g.tell()
	}
	return out
}

// setTopics says which topics there are now. It reports whether that changes the
// group's assignment.
func (g *groupState) setTopics(view *topicsView) bool {
	if view.version <= g.view.version {
		return false
	}
	g.view = view
	changed := false
	for _, m := range g.members {
		changed = m.resolve(view) || changed
	}
	for id, n := range g.counts {
		changed = changed || view.byID[id].partitions != n
	}
	if changed {
		g.rebalance()
		g.tell()
	}
	return changed
}

// matchAgain asks anew which topics the members with a pattern may see. It reports
// whether that changes the group's assignment.
func (g *groupState) matchAgain() bool {
	changed := false
	for _, m := range g.members {
		if m.match != nil && m.maySee != nil {
			changed = m.resolve(g.view) || changed
		}
	}
	if changed {
		g.rebalance()
		g.tell()
	}
	return changed
}

// rebalance makes a new target for everybody and raises the epoch.
func (g *groupState) rebalance() {
	g.epoch++
	g.counts = map[TopicID]int32{}
	for _, m := range g.members {
		for _, id := range m.subscribed {
			g.counts[id] = g.view.byID[id].partitions
		}
	}
	topics := slices.SortedFunc(maps.Keys(g.counts), compareTopicIDs)
	index := make(map[TopicID]int, len(topics))
	in := assignInput{partitions: make([]int32, len(topics))}
	for i, id := range topics {
		index[id], in.partitions[i] = i, g.counts[id]
	}
	ids := slices.Sorted(maps.Keys(g.members))
	assign := assign
	if g.assignor = g.preferredAssignor(); g.assignor == rangeAssignor {
		assign = assignRanges
		// A static member that comes back has another id, and is to have the same place.
		slices.SortStableFunc(ids, func(a, b string) int { return strings.Compare(g.members[a].place(), g.members[b].place()) })
	}
	for _, id := range ids {
		m := g.members[id]
		member := assignMember{topics: make([]int, len(m.subscribed))}
		for i, id := range m.subscribed {
			member.topics[i] = index[id]
			if list := m.target[id]; list != nil {
				member.owned = append(member.owned, share{index[id], list})
			}
		}
		in.members = append(in.members, member)
	}
	for i, shares := range assign(in) {
		m := g.members[ids[i]]
		m.target = groupParts{}
		for _, s := range shares {
			m.target[topics[s.topic]] = s.partitions
		}
		g.freeUntargeted(m)
	}
}

// tell leaves a token for each member whose next call brings news.
func (g *groupState) tell() {
	for _, m := range g.members {
		if m.news != nil && g.hasNews(m) {
			m.notify()
		}
	}
}

// hasNews reports whether the member's next call changes anything for it.
func (g *groupState) hasNews(m *groupMember) bool {
	if m.left {
		return false
	}
	if len(m.revoking) == 0 && m.epoch != g.epoch {
		return true
	}
	news := false
	m.assigned.each(func(p topicPart) { news = news || !m.target.has(p) })
	if len(m.revoking) == 0 && !news {
		m.target.each(func(p topicPart) { news = news || !m.assigned.has(p) && g.isFree(p) })
	}
	return news
}

func (g *groupState) state() GroupState {
	if len(g.members) == 0 {
		return GroupEmpty
	}
	for _, m := range g.members {
		if !m.left && (m.epoch != g.epoch || len(m.revoking) > 0 || !m.assigned.equal(m.target)) {
			return GroupReconciling
		}
	}
	return GroupStable
}

// mayCommit reports why a member may not commit offsets at all: nil, if it may
// those of partitions that nobody else has. Its epoch may be an older one for
// partitions that it has had since: see mayCommitPart. (KIP-1251)
func (g *groupState) mayCommit(req *CommitRequest) error {
	if req.MemberEpoch < 0 && req.MemberID == "" {
		if len(g.members) > 0 {
			return ErrGroupNotEmpty
		}
		return nil
	}
	if holder := g.static[req.InstanceID]; req.InstanceID != "" && holder != "" && holder != req.MemberID {
		return ErrFencedInstance
	}
	m := g.members[req.MemberID]
	if m == nil {
		return ErrUnknownMember
	}
	if m.classic != nil && req.MemberEpoch != m.epoch {
		return m.otherGeneration(g.name, req.MemberEpoch)
	}
	if m.left || req.MemberEpoch > m.epoch || req.MemberEpoch < 0 {
		return &MemberEpochError{g.name, m.id, req.MemberEpoch, m.shownEpoch()}
	}
	return nil
}

// mayCommitPart is mayCommit for one partition, after it.
func (g *groupState) mayCommitPart(req *CommitRequest, p topicPart) error {
	if req.ofNobody() {
		return nil // nobody has anything, or it is a transaction's: see roster.mayCommit
	}
	o, taken := g.owners[p]
	switch m := g.members[req.MemberID]; {
	case taken && o.member != req.MemberID:
		return &NotOwnerError{g.name, req.MemberID, o.member, o.since}
	case !taken && m != nil && m.classic != nil:
		// It may have had it, in this generation, before the group was one of the server's.
		return m.otherGeneration(g.name, req.MemberEpoch)
	case m == nil || req.MemberEpoch == m.epoch:
		return nil
	case !taken || req.MemberEpoch < o.since:
		return &MemberEpochError{g.name, m.id, req.MemberEpoch, m.epoch}
	}
	return nil
}
