package engine

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// classicState is the members of a group of the classic protocol (JoinGroup,
// SyncGroup, Heartbeat, LeaveGroup), where one of them assigns for all. Like
// groupState it knows no clock, no disk and no lock.
//
//	Empty --join--> PreparingRebalance --all have joined, or time is over--> CompletingRebalance
//	  ^                ^  next generation, one protocol, one leader             |
//	  |                |                                                        | the leader's Sync,
//	  |                +-- who joins, leaves, falls silent <--------+           | stored
//	  |                |                                            |           v
//	  +--nobody left---+                                            +--------- Stable
//
// A Join waits in PreparingRebalance and a Sync in CompletingRebalance. Who does
// not join again in time is out, a static member only when its session ends.
type classicState struct {
	name   string
	limits classicLimits
	epoch  *int32 // the group's: generations and the epochs of groupState are one row

	phase        GroupState
	generation   int32
	protocolType string
	protocol     string // from CompletingRebalance on
	leader       string
	members      map[string]*classicMember
	static       map[string]string    // instance id: member id
	invited      map[string]time.Time // ids that were given out and have not joined, and until when they may
	order        int

	// Of PreparingRebalance.
	joinEnd    time.Time
	initial    bool      // it began in Empty: joinEnd is when a delay ends, and all must wait for it
	initialEnd time.Time // no delay goes further
	newcomer   bool      // somebody came during the delay
	// Of CompletingRebalance and Stable: when every member must have synced; zero: all have.
	syncEnd time.Time
	// returns counts static members that came back without a new generation. That is to
	// be stored before they hear their ids.
	returns int
}

// classicLimits are options.
type classicLimits struct {
	delay                  time.Duration // of the first generation of an empty group
	minSession, maxSession time.Duration
	members                int
}

func newClassicState(name string, limits classicLimits, epoch *int32) *classicState {
	return &classicState{
		name: name, limits: limits, epoch: epoch, phase: GroupEmpty,
		members: map[string]*classicMember{}, static: map[string]string{}, invited: map[string]time.Time{},
	}
}

// join is one JoinGroup. newID is an id that nobody has. When wait is not nil the
// answer comes there.
func (c *classicState) join(now time.Time, req *JoinRequest, newID string) (resp JoinResponse, wait *joinWait, err error) {
	if err := c.accepts(req); err != nil {
		return resp, nil, err
	}
	if req.MemberID == "" {
		if holder := c.static[req.InstanceID]; req.InstanceID != "" && holder != "" {
			return c.replace(now, c.members[holder], req, newID)
		}
		if req.InstanceID == "" && req.RequireMemberID {
			c.invited[newID] = now.Add(req.SessionTimeout)
			return resp, nil, &MemberIDRequiredError{c.name, newID}
		}
		return resp, c.add(now, req, newID, false), nil
	}
	if _, ok := c.invited[req.MemberID]; ok && req.InstanceID == "" {
		return resp, c.add(now, req, req.MemberID, true), nil
	}
	m, err := c.find(req.MemberID, req.InstanceID)
	if err != nil {
		return resp, nil, err
	}
	same := m.sameProtocols(req.Protocols)
	switch {
	case c.phase == GroupCompletingRebalance && same, c.phase == GroupStable && same && m.id != c.leader:
		// The answer to its last Join got lost, or it only wants to be sure. A leader that
		// joins again may have seen that there are more partitions, so it leads anew.
		m.lastSeen = now
		return c.response(m), nil, nil
	}
	return resp, c.rejoin(now, m, req), nil
}

// accepts reports why nobody, or not this member, can join.
func (c *classicState) accepts(req *JoinRequest) error {
	if l := c.limits; req.SessionTimeout < l.minSession || req.SessionTimeout > l.maxSession {
		return &SessionTimeoutError{req.SessionTimeout, l.minSession, l.maxSession}
	}
	m := c.members[req.MemberID]
	if m == nil && req.InstanceID != "" {
		m = c.members[c.static[req.InstanceID]]
	}
	if m == nil && len(c.members) >= c.limits.members {
		return ErrGroupMaxSize
	}
	if _, ok := c.invited[req.MemberID]; m == nil && !ok && len(c.members)+len(c.invited) >= 2*c.limits.members {
		return ErrGroupMaxSize // who asks for ids and never comes would fill the memory
	}
	others := 0
	for _, o := range c.members {
		if o != m {
			others += o.bytes
		}
	}
	if err := tooLarge(c.name, req.MemberID, protocolsBytes(req.Protocols), others); err != nil {
		return err
	}
	bad := func(reason string) error { return &InconsistentProtocolError{c.name, reason} }
	switch {
	case req.ProtocolType == "" || len(req.Protocols) == 0:
		return bad("a member offers no protocol")
	case len(c.members) > 0 && req.ProtocolType != c.protocolType:
		return bad("its members are of protocol type " + strconv.Quote(c.protocolType) + ", not " + strconv.Quote(req.ProtocolType))
	case !slices.ContainsFunc(req.Protocols, func(p GroupProtocol) bool { return c.allSupport(p.Name, m) }):
		return bad("none of the member's protocols is one that all members have")
	}
	return nil
}

// allSupport reports whether all members but one can do the protocol.
func (c *classicState) allSupport(protocol string, except *classicMember) bool {
	for _, m := range c.members {
		if m != except && !supportsProtocol(m.protocols, protocol) {
			return false
		}
	}
	return true
}

// find returns the member of a call that says a member id.
func (c *classicState) find(id, instance string) (*classicMember, error) {
	if instance != "" {
		holder, ok := c.static[instance]
		if !ok {
			return nil, ErrUnknownMember
		}
		if holder != id {
			return nil, ErrFencedInstance
		}
	}
	m := c.members[id]
	if m == nil {
		return nil, ErrUnknownMember
	}
	return m, nil
}

// add lets a new member in.
func (c *classicState) add(now time.Time, req *JoinRequest, id string, knowsID bool) *joinWait {
	delete(c.invited, id)
	c.order++
	m := &classicMember{
		id: id, instance: req.InstanceID, client: req.ClientID, host: req.ClientHost,
		order: c.order, lastSeen: now, fresh: true, knowsID: knowsID, epoch: -1,
	}
	m.configure(req)
	if len(c.members) == 0 {
		c.protocolType = req.ProtocolType
	}
	c.members[id] = m
	if m.instance != "" {
		c.static[m.instance] = id
	}
	if c.leader == "" {
		c.leader = id
	}
	if c.phase == GroupPreparingRebalance && c.initial {
		c.newcomer = true
	}
	w := m.waitJoin()
	c.rebalance(now)
	return w
}

func (m *classicMember) configure(req *JoinRequest) {
	m.protocols, m.bytes = cloneProtocols(req.Protocols), protocolsBytes(req.Protocols)
	m.session, m.rebalance = req.SessionTimeout, req.RebalanceTimeout
	if m.rebalance <= 0 {
		m.rebalance = m.session
	}
}

func (m *classicMember) waitJoin() *joinWait {
	if m.join == nil {
		m.join = &joinWait{done: make(chan struct{})}
	}
	m.join.callers++
	return m.join
}

func (c *classicState) rejoin(now time.Time, m *classicMember, req *JoinRequest) *joinWait {
	m.configure(req)
	m.lastSeen, m.assignment = now, nil
	w := m.waitJoin()
	c.rebalance(now)
	return w
}

// replace gives a static member's place to who has come back with its instance id.
// The generation stands when that changes nothing for the others.
func (c *classicState) replace(now time.Time, old *classicMember, req *JoinRequest, newID string) (resp JoinResponse, wait *joinWait, err error) {
	before := old.metadata(c.protocol)
	led := c.leader // who does not know of KIP-814 must not take itself for the leader, and assign
	c.rename(old, newID)
	m := old
	m.client, m.host, m.lastSeen = req.ClientID, req.ClientHost, now
	m.configure(req)
	// In CompletingRebalance, too: the leader knows the old id only.
	if c.phase != GroupStable || c.selectProtocol() != c.protocol || !sameSubscription(c.protocolType, before, m.metadata(c.protocol)) ||
		mustRevoke(c.protocolType, before, m.assignment) {
		return resp, c.rejoin(now, m, req), nil
	}
	c.returns++
	resp = c.response(m)
	switch {
	case c.leader != m.id:
	case req.SkipAssignment:
		resp.SkipAssignment = true
	default:
		resp.Leader, resp.Members = led, nil
	}
	return resp, nil, nil
}

// rename gives the member another id; whoever used the old one is told.
func (c *classicState) rename(m *classicMember, id string) {
	m.answerJoin(JoinResponse{}, ErrFencedInstance)
	m.answerSync(SyncResponse{}, ErrFencedInstance)
	delete(c.members, m.id)
	if c.leader == m.id {
		c.leader = id
	}
	m.id = id
	c.members[id], c.static[m.instance] = m, id
}

// response is what the member is told of the generation that there is.
func (c *classicState) response(m *classicMember) JoinResponse {
	r := JoinResponse{MemberID: m.id, Generation: c.generation, ProtocolType: c.protocolType, Protocol: c.protocol, Leader: c.leader}
	if m.id == c.leader {
		for _, id := range slices.Sorted(maps.Keys(c.members)) {
			o := c.members[id]
			r.Members = append(r.Members, JoinMember{o.id, o.instance, o.metadata(c.protocol)})
		}
	}
	return r
}

// rebalance begins the way to the next generation, or goes on with it.
func (c *classicState) rebalance(now time.Time) {
	if c.phase != GroupPreparingRebalance {
		c.prepare(now)
	} else if !c.initial && c.allJoined() {
		c.complete(now)
	}
}

func (c *classicState) prepare(now time.Time) {
	for _, m := range c.members {
		if m.unsynced = false; m.sync != nil {
			m.lastSeen = now // it was not silent, it waited
			m.answerSync(SyncResponse{}, ErrRebalancing)
		}
	}
	c.syncEnd, c.newcomer = time.Time{}, false
	c.initial = c.phase == GroupEmpty
	c.phase = GroupPreparingRebalance
	timeout := c.rebalanceTimeout()
	switch {
	case c.initial && c.limits.delay > 0:
		c.joinEnd, c.initialEnd = now.Add(c.limits.delay), now.Add(max(timeout, c.limits.delay))
	case c.initial || c.allJoined():
		c.complete(now)
	default:
		c.joinEnd = now.Add(timeout)
	}
}

func (c *classicState) rebalanceTimeout() (d time.Duration) {
	for _, m := range c.members {
		d = max(d, m.rebalance)
	}
	return d
}

// allJoined reports whether nobody is waited for. Who was given an id is.
func (c *classicState) allJoined() bool {
	for _, m := range c.members {
		if m.join == nil {
			return false
		}
	}
	return len(c.invited) == 0
}

// complete ends PreparingRebalance.
func (c *classicState) complete(now time.Time) {
	joined := 0
	for id, m := range c.members {
		if m.join != nil {
			joined++
		} else if m.instance == "" {
			c.drop(m)
			delete(c.members, id)
		}
	}
	if joined == 0 && len(c.members) > 0 {
		// Static members that are away: their sessions end, or one of them comes.
		c.initial, c.joinEnd = false, now.Add(c.rebalanceTimeout())
		return
	}
	*c.epoch++
	c.generation, c.initial, c.joinEnd = *c.epoch, false, time.Time{}
	if len(c.members) == 0 {
		c.phase, c.protocol, c.leader = GroupEmpty, "", ""
		return
	}
	if m := c.members[c.leader]; m == nil || m.join == nil {
		c.leader = c.eldest()
	}
	c.phase, c.protocol = GroupCompletingRebalance, c.selectProtocol()
	c.syncEnd = now.Add(c.rebalanceTimeout())
	for _, m := range c.members {
		if m.epoch = -1; m.join != nil {
			m.lastSeen, m.fresh, m.unsynced = now, false, true
			m.answerJoin(c.response(m), nil)
		}
	}
}

// eldest is the member that came first of those that have joined.
func (c *classicState) eldest() string {
	var first *classicMember
	for _, m := range c.members {
		if m.join != nil && (first == nil || m.order < first.order) {
			first = m
		}
	}
	return first.id
}

// selectProtocol has each member vote for the protocol that it likes best of those
// that all have. The name decides between equals.
func (c *classicState) selectProtocol() (best string) {
	votes := map[string]int{}
	for _, m := range c.members {
		for _, p := range m.protocols {
			if c.allSupport(p.Name, m) {
				votes[p.Name]++
				break
			}
		}
	}
	for name, n := range votes {
		if most := votes[best]; n > most || n == most && strings.Compare(name, best) < 0 {
			best = name
		}
	}
	return best
}

// drop takes a member out of everything but members.
func (c *classicState) drop(m *classicMember) {
	m.answerJoin(JoinResponse{}, ErrUnknownMember)
	m.answerSync(SyncResponse{}, ErrUnknownMember)
	if m.instance != "" {
		delete(c.static, m.instance)
	}
}

// remove takes a member out. The caller rebalances.
func (c *classicState) remove(m *classicMember) {
	c.drop(m)
	delete(c.members, m.id)
}

// removed goes on after members are gone.
func (c *classicState) removed(now time.Time) {
	if c.phase == GroupPreparingRebalance && c.initial && len(c.members) == 0 {
		c.initial = false // nobody is there to be waited for
	}
	if c.phase != GroupEmpty {
		c.rebalance(now)
	}
}

// sync is one SyncGroup. When wait is not nil the answer comes there. With store the
// assignments of the leader are to be stored, and then to be told to stable.
func (c *classicState) sync(now time.Time, req *SyncRequest) (resp SyncResponse, wait *syncWait, store bool, err error) {
	m, err := c.find(req.MemberID, req.InstanceID)
	if err != nil {
		return resp, nil, false, err
	}
	if !c.current(m, req.Generation) {
		return resp, nil, false, c.otherGeneration(m, req.Generation)
	}
	m.lastSeen = now
	switch {
	case req.ProtocolType != "" && req.ProtocolType != c.protocolType:
		return resp, nil, false, &InconsistentProtocolError{c.name, "its protocol type is " + strconv.Quote(c.protocolType) + ", not " + strconv.Quote(req.ProtocolType)}
	case c.phase == GroupPreparingRebalance:
		return resp, nil, false, ErrRebalancing
	case req.Protocol != "" && req.Protocol != c.protocol:
		return resp, nil, false, &InconsistentProtocolError{c.name, "its protocol is " + strconv.Quote(c.protocol) + ", not " + strconv.Quote(req.Protocol)}
	}
	c.synced(m)
	if c.phase == GroupStable {
		return c.assignment(m), nil, false, nil
	}
	if m.sync == nil {
		m.sync = &syncWait{done: make(chan struct{})}
	}
	m.sync.callers++
	return resp, m.sync, m.id == c.leader, nil
}

func (c *classicState) otherGeneration(m *classicMember, said int32) error {
	return &GenerationError{c.name, m.id, said, c.generation}
}

func (c *classicState) assignment(m *classicMember) SyncResponse {
	return SyncResponse{c.protocolType, c.protocol, m.assignment}
}

// synced notes that the member has asked for its assignment.
func (c *classicState) synced(m *classicMember) {
	m.unsynced = false
	for _, o := range c.members {
		if o.unsynced {
			return
		}
	}
	c.syncEnd = time.Time{}
}

// stable is told that the assignments of a generation are stored. It reports whether
// that still is the generation.
func (c *classicState) stable(now time.Time, generation int32, assignments map[string][]byte) bool {
	if c.phase != GroupCompletingRebalance || c.generation != generation {
		return false
	}
	c.phase = GroupStable
	for _, m := range c.members {
		m.assignment = assignments[m.id]
		if m.sync != nil {
			m.lastSeen = now
			m.answerSync(c.assignment(m), nil)
		}
	}
	return true
}

// heartbeat is one Heartbeat.
func (c *classicState) heartbeat(now time.Time, req *ClassicHeartbeatRequest) error {
	m, err := c.find(req.MemberID, req.InstanceID)
	if err != nil {
		return err
	}
	if !c.current(m, req.Generation) {
		return c.otherGeneration(m, req.Generation)
	}
	m.lastSeen = now
	if c.phase == GroupPreparingRebalance {
		return ErrRebalancing
	}
	return nil
}

// current reports whether the member is in the generation that it says.
func (c *classicState) current(m *classicMember, generation int32) bool {
	if m.epoch >= 0 {
		return generation == m.epoch
	}
	return generation == c.generation
}

// leave takes one member out. The caller calls removed after the last one.
func (c *classicState) leave(now time.Time, who *LeavingMember) (id string, err error) {
	id = who.MemberID
	if id == "" && who.InstanceID != "" { // by who administers the group
		id = c.static[who.InstanceID]
	}
	if _, ok := c.invited[id]; ok {
		delete(c.invited, id)
		return id, nil
	}
	m, err := c.find(id, who.InstanceID)
	if err != nil {
		return id, err
	}
	c.remove(m)
	return id, nil
}

// abandonJoin is told that a Join ended before its answer came.
func (c *classicState) abandonJoin(now time.Time, w *joinWait) {
	for _, m := range c.members {
		if m.join != w {
			continue
		}
		if w.callers--; w.callers > 0 {
			return
		}
		m.join = nil
		m.lastSeen = now
		if m.fresh {
			// It has not heard its id, or may come with it again.
			c.remove(m)
			if m.knowsID {
				c.invited[m.id] = now.Add(m.session)
			}
			c.removed(now)
		}
		return
	}
}

// abandonSync is told that a Sync ended before its answer came.
func (c *classicState) abandonSync(now time.Time, w *syncWait) {
	for _, m := range c.members {
		if m.sync != w {
			continue
		}
		if w.callers--; w.callers == 0 {
			m.sync, m.lastSeen = nil, now
		}
		return
	}
}

// due returns when expire has something to do next.
func (c *classicState) due() (at time.Time, ok bool) {
	earlier := func(t time.Time) {
		if !t.IsZero() && (!ok || t.Before(at)) {
			at, ok = t, true
		}
	}
	for _, t := range c.invited {
		earlier(t)
	}
	for _, m := range c.members {
		if t, ok := m.expires(); ok {
			earlier(t)
		}
	}
	if c.phase == GroupPreparingRebalance {
		earlier(c.joinEnd)
	}
	earlier(c.syncEnd)
	return at, ok
}

// expire does what is due. It reports who is out.
func (c *classicState) expire(now time.Time) (out []string) {
	over := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	uninvited := false
	for id, until := range c.invited {
		if over(until) {
			delete(c.invited, id)
			uninvited = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.members)) {
		m := c.members[id]
		if end, ok := m.expires(); ok && over(end) {
			c.remove(m)
			out = append(out, id)
		}
	}
	if out != nil || uninvited && c.phase == GroupPreparingRebalance {
		c.removed(now)
	}
	if c.phase == GroupPreparingRebalance && over(c.joinEnd) {
		switch {
		case c.initial && c.newcomer && now.Before(c.initialEnd):
			c.newcomer = false
			if c.joinEnd = now.Add(c.limits.delay); c.joinEnd.After(c.initialEnd) {
				c.joinEnd = c.initialEnd
			}
		default:
			before := slices.Sorted(maps.Keys(c.members))
			c.complete(now)
			out = append(out, slices.DeleteFunc(before, func(id string) bool { return c.members[id] != nil })...)
		}
	}
	if over(c.syncEnd) {
		for _, id := range slices.Sorted(maps.Keys(c.members)) {
			if m := c.members[id]; m.unsynced {
				c.remove(m)
				out = append(out, id)
			}
		}
		c.prepare(now)
	}
	return out
}

// mayCommit reports why a call may not commit offsets.
func (c *classicState) mayCommit(now time.Time, req *CommitRequest, transactional bool) error {
	if req.ofNobody() {
		// A producer of before KIP-447 says nothing of the group in its transaction.
		if len(c.members) > 0 && !(transactional && !req.Local) {
			return ErrGroupNotEmpty
		}
		return nil
	}
	m, err := c.find(req.MemberID, req.InstanceID)
	if err != nil {
		return err
	}
	if !c.current(m, req.MemberEpoch) {
		return c.otherGeneration(m, req.MemberEpoch)
	}
	if transactional {
		return nil // as in Kafka: the transaction is fenced by its generation alone
	}
	m.lastSeen = now
	if c.phase == GroupCompletingRebalance {
		return ErrRebalancing // it has joined and does not know what it owns
	}
	return nil
}

// record is what is stored of the generation, with these assignments.
func (c *classicState) record(now time.Time, assignments map[string][]byte) *classicRecord {
	r := &classicRecord{protocolType: c.protocolType, generation: c.generation, protocol: c.protocol, leader: c.leader, millis: now.UnixMilli()}
	for _, id := range slices.Sorted(maps.Keys(c.members)) {
		m := c.members[id]
		r.members = append(r.members, classicRecordMember{
			id: m.id, instance: m.instance, client: m.client, host: m.host, rebalance: m.rebalance, session: m.session,
			subscription: m.metadata(c.protocol), assignment: assignments[id],
		})
	}
	return r
}

// assignments are those of a stable generation.
func (c *classicState) assignments() map[string][]byte {
	all := make(map[string][]byte, len(c.members))
	for id, m := range c.members {
		all[id] = m.assignment
	}
	return all
}

// reset forgets all members.
func (c *classicState) reset() {
	returns := c.returns
	*c = *newClassicState(c.name, c.limits, c.epoch)
	c.returns = returns
}

// restore is the opposite of record: members have a fresh session.
func (c *classicState) restore(now time.Time, r *classicRecord) {
	c.reset()
	*c.epoch = max(*c.epoch, r.generation)
	c.generation, c.protocolType = r.generation, r.protocolType
	for i := range r.members {
		o := &r.members[i]
		c.order++
		m := &classicMember{
			id: o.id, instance: o.instance, client: o.client, host: o.host, order: c.order,
			session: min(max(o.session, c.limits.minSession), c.limits.maxSession), rebalance: max(o.rebalance, time.Second),
			protocols: []GroupProtocol{{r.protocol, o.subscription}}, bytes: len(o.subscription), assignment: o.assignment, lastSeen: now, epoch: -1,
		}
		c.members[m.id] = m
		if m.instance != "" {
			c.static[m.instance] = m.id
		}
	}
	if len(c.members) > 0 {
		c.phase, c.protocol, c.leader = GroupStable, r.protocol, r.leader
	}
}
