package engine

import (
	"maps"
	"slices"
	"strconv"
	"time"
)

// GroupType says who assigns partitions in a group.
type GroupType string

const (
	GroupTypeConsumer GroupType = "consumer" // the server (KIP-848)
	GroupTypeClassic  GroupType = "classic"  // a member that leads
	GroupTypeShare    GroupType = "share"    // the server, and several members may have a partition (KIP-932)
)

// roster is the members of a group, whichever protocol they speak. At most one of
// the states has members.
//
//	server    assigned by the server; at least one member has an epoch, classic consumers may be among them
//	classic   classic members only
//
//	classic --a member with an epoch joins, and all are consumers--> server
//	server  --the last member with an epoch is gone----------------> classic
//
// A group without members becomes what the next member needs. (KIP-848,
// group.consumer.migration.policy=bidirectional) A share group is none of these, and stays what
// it is until it is deleted.
type roster struct {
	kind    GroupType // of the last member that joined, or of what was loaded
	server  *groupState
	classic *classicState
	share   *shareMembers
}

func newRoster(name string, limits classicLimits, view *topicsView) roster {
	server := newGroupState(name, 0, view)
	return roster{GroupTypeClassic, server, newClassicState(name, limits, &server.epoch), newShareMembers(name, &server.epoch, view)}
}

// count returns how many members there are.
func (r *roster) count() int {
	return len(r.server.members) + len(r.classic.members) + len(r.share.members)
}

func (r *roster) state() GroupState {
	switch {
	case len(r.server.members) > 0:
		return r.server.state()
	case len(r.share.members) > 0:
		return GroupStable // who has what changes with the next heartbeat
	}
	return r.classic.phase
}

// heartbeat is a call of a member with an epoch.
func (r *roster) heartbeat(now time.Time, req *HeartbeatRequest) (resp HeartbeatResponse, err error) {
	if req.MemberEpoch == JoinEpoch {
		if err := r.notShare(); err != nil {
			return resp, err
		}
		if err := r.makeServer(now, req); err != nil {
			return resp, err
		}
	}
	resp, err = r.server.heartbeat(now, req)
	r.changed(now)
	return resp, err
}

// makeServer makes the group one that the member can join.
func (r *roster) makeServer(now time.Time, req *HeartbeatRequest) error {
	if err := r.server.validate(req); err != nil {
		return err
	}
	if _, _, err := regexOf(req); err != nil {
		return err
	}
	there := r.server.members[req.MemberID] != nil || r.classic.members[req.MemberID] != nil
	if req.InstanceID != "" {
		there = there || r.server.static[req.InstanceID] != "" || r.classic.static[req.InstanceID] != ""
	}
	if !there && r.count() >= r.classic.limits.members {
		return ErrGroupMaxSize
	}
	if len(r.classic.members) == 0 {
		r.classic.reset()
		return nil
	}
	return r.upgrade(now)
}

// upgrade makes a server-assigned group of one of classic consumers, who keep what
// they have, and are told to join again.
func (r *roster) upgrade(now time.Time) error {
	c, g := r.classic, r.server
	if c.protocolType != ConsumerProtocolType {
		return &GroupTypeError{c.name, "its protocol type is " + strconv.Quote(c.protocolType) + ": only consumers can be assigned to by the server"}
	}
	subs := map[string]consumerSubscription{}
	held := map[string]groupParts{}
	for id, m := range c.members {
		s, err := classicSubscription(c.name, m.protocols)
		if err != nil {
			return &GroupTypeError{c.name, "a member cannot be assigned to by the server: " + err.Error()}
		}
		list, err := parseConsumerAssignment(m.assignment)
		if err != nil {
			return &GroupTypeError{c.name, "the assignment of a member cannot be read: " + err.Error()}
		}
		// Until it says otherwise it may have what it kept and what it was given.
		subs[id], held[id] = s, g.view.parts(s.owned).or(g.view.parts(list))
	}
	for _, id := range slices.Sorted(maps.Keys(c.members)) {
		m, s := c.members[id], subs[id]
		m.answerJoin(JoinResponse{}, ErrRebalancing)
		m.answerSync(SyncResponse{}, ErrRebalancing)
		if m.fresh {
			continue // it has nothing, and perhaps not even heard its id: it joins again, as a new one
		}
		n := &groupMember{id: id, instance: m.instance}
		req := JoinRequest{
			ClientID: m.client, ClientHost: m.host, Protocols: m.protocols, SessionTimeout: m.session, RebalanceTimeout: m.rebalance,
		}
		n.configureClassic(now, &req, &s)
		n.classic.syncEnd = time.Time{}
		if n.epoch = c.generation; m.epoch >= 0 {
			n.epoch = m.epoch
		}
		n.assigned = held[id].filter(g.isFree)
		n.target = n.assigned
		n.assigned.each(func(p topicPart) { g.owners[p] = groupOwner{id, n.epoch} })
		n.resolve(g.view)
		g.members[id] = n
		if n.instance != "" {
			g.static[n.instance] = id
		}
	}
	c.reset()
	// Who joins may be a static member that wants what it wanted before: then its join
	// changes nothing, and what the leader left out would stay nobody's.
	g.rebalance()
	return nil
}

// changed is called after members joined or went. It makes a group of classic members
// only, if that is what is left, a classic one: they are told to join again.
func (r *roster) changed(now time.Time) {
	g, c := r.server, r.classic
	defer func() {
		switch {
		case len(g.members) > 0:
			r.kind = GroupTypeConsumer
		case len(c.members) > 0:
			r.kind = GroupTypeClassic
		}
	}()
	for _, m := range g.members {
		if m.classic == nil {
			return
		}
	}
	if len(g.members) == 0 {
		return
	}
	c.reset()
	for _, id := range slices.Sorted(maps.Keys(g.members)) {
		m := g.members[id]
		owned := m.assigned.or(m.revoking)
		c.order++
		c.members[id] = &classicMember{
			id: id, instance: m.instance, client: m.client, host: m.host, order: c.order, session: m.sessionTimeout, rebalance: m.rebalanceTimeout,
			protocols: m.classic.protocols, bytes: m.bytes, lastSeen: m.lastSeen, epoch: m.epoch, owned: owned,
			assignment: appendConsumerAssignment(nil, m.classic.version, g.view.named(owned)),
		}
		if m.instance != "" {
			c.static[m.instance] = id
		}
		if c.leader == "" {
			c.leader = id
		}
	}
	c.phase, c.generation, c.protocolType = GroupStable, g.epoch, ConsumerProtocolType
	c.protocol = c.selectProtocol()
	g.members, g.static = map[string]*groupMember{}, map[string]string{}
	g.owners, g.counts = map[topicPart]groupOwner{}, map[TopicID]int32{}
	c.prepare(now)
}

// join is one JoinGroup: see classicState.join.
func (r *roster) join(now time.Time, req *JoinRequest, newID string) (resp JoinResponse, wait *joinWait, err error) {
	if err := r.notShare(); err != nil {
		return resp, nil, &InconsistentProtocolError{r.server.name, "it is a share group"}
	}
	if len(r.server.members) > 0 {
		resp, err = r.server.joinClassic(now, req, r.classic.limits, newID)
	} else {
		resp, wait, err = r.classic.join(now, req, newID)
	}
	r.changed(now)
	return resp, wait, err
}

// sync is one SyncGroup: see classicState.sync.
func (r *roster) sync(now time.Time, req *SyncRequest) (resp SyncResponse, wait *syncWait, store bool, err error) {
	if len(r.server.members) > 0 {
		resp, err = r.server.syncClassic(now, req)
		return resp, nil, false, err
	}
	return r.classic.sync(now, req)
}

// classicHeartbeat is one Heartbeat.
func (r *roster) classicHeartbeat(now time.Time, req *ClassicHeartbeatRequest) error {
	if len(r.server.members) > 0 {
		return r.server.heartbeatClassic(now, req)
	}
	return r.classic.heartbeat(now, req)
}

// leave is one LeaveGroup. It returns of each member its id and why it could not leave.
func (r *roster) leave(now time.Time, members []LeavingMember) (ids []string, errs []error) {
	server, left := len(r.server.members) > 0, false
	for i := range members {
		var id string
		var err error
		if server {
			id, err = r.server.leaveClassic(now, &members[i])
		} else {
			id, err = r.classic.leave(now, &members[i])
		}
		ids, errs, left = append(ids, id), append(errs, err), left || err == nil
	}
	switch {
	case !left:
	case server:
		r.server.rebalance()
		r.server.tell()
	default:
		r.classic.removed(now)
	}
	r.changed(now)
	return ids, errs
}

// expire takes out who is late. It reports who.
func (r *roster) expire(now time.Time, shareSession time.Duration) (out []string) {
	if out = r.share.expire(now, shareSession); out != nil {
		return out
	}
	out = r.server.expire(now)
	if out != nil {
		r.changed(now)
	}
	return append(out, r.classic.expire(now)...)
}

// mayCommit reports why a call may not commit offsets: see groupState.mayCommit.
func (r *roster) mayCommit(now time.Time, req *CommitRequest, transactional bool) error {
	if err := r.notShare(); err != nil {
		return err
	}
	if len(r.classic.members) > 0 {
		return r.classic.mayCommit(now, req, transactional)
	}
	if transactional && req.ofNobody() && !req.Local {
		return nil // a producer of before KIP-447, or one that was told of a group and no member
	}
	err := r.server.mayCommit(req)
	if m := r.server.members[req.MemberID]; err == nil && m != nil && m.classic != nil && !transactional {
		m.lastSeen = now // as in a classic group
	}
	return err
}

// mayCommitPart is mayCommit for one partition, after it. In a classic group nothing
// changes hands within a generation, so the server does not look at who has what.
func (r *roster) mayCommitPart(req *CommitRequest, p topicPart) error {
	if len(r.classic.members) > 0 {
		if m := r.classic.members[req.MemberID]; m != nil && m.epoch >= 0 && !m.owned.has(p) {
			return r.classic.otherGeneration(m, req.MemberEpoch)
		}
		return nil
	}
	return r.server.mayCommitPart(req, p)
}

// opaque reports whether there are members of which nobody knows what they read.
func (r *roster) opaque() bool {
	return len(r.classic.members) > 0 && r.classic.protocolType != ConsumerProtocolType
}

// subscribes reports whether a member may read the topic.
func (r *roster) subscribes(id TopicID) bool {
	if len(r.server.members) > 0 {
		_, ok := r.server.counts[id]
		return ok
	}
	t := r.server.view.byID[id]
	for _, m := range r.classic.members {
		s, err := classicSubscription(r.classic.name, m.protocols)
		if err != nil || slices.Contains(s.topics, t.name) {
			return true
		}
	}
	return false
}
