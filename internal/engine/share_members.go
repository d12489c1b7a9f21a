package engine

import (
	"maps"
	"slices"
	"time"
)

// ShareHeartbeatRequest is what a member of a share group says. (ShareGroupHeartbeat,
// KIP-932)
type ShareHeartbeatRequest struct {
	Group string
	// MemberID is chosen by the member, and unique.
	MemberID string
	// MemberEpoch is the one of the last response, or JoinEpoch or LeaveEpoch.
	MemberEpoch                  int32
	RackID, ClientID, ClientHost string
	// Topics are the names subscribed to, which need not exist yet. Nil is no change.
	Topics []string
}

// shareMembers are the members of a share group and who has what. Like groupState it
// knows no clock, no disk and no lock. Members do not walk to their target: several may have a
// partition, so each gets his in the answer to his next heartbeat.
type shareMembers struct {
	name    string
	epoch   *int32 // the group's
	members map[string]*shareMember
	view    *topicsView
	counts  map[TopicID]int32 // partitions of each topic subscribed to, as assigned
}

type shareMember struct {
	id, rack, client, host string

	topics          []string // ascending
	subscribed      []TopicID
	assigned        groupParts
	epoch, previous int32 // as in groupMember
	lastSeen        time.Time
}

func newShareMembers(name string, epoch *int32, view *topicsView) *shareMembers {
	return &shareMembers{name: name, epoch: epoch, members: map[string]*shareMember{}, view: view, counts: map[TopicID]int32{}}
}

// validate says what no member sends.
func (g *shareMembers) validate(req *ShareHeartbeatRequest) error {
	bad := func(reason string) error { return &InvalidMemberError{g.name, req.MemberID, reason} }
	switch {
	case req.MemberEpoch < LeaveEpoch:
		return bad("the member epoch is less than -1")
	case req.MemberID == "":
		return bad("the member id is empty")
	case req.MemberEpoch == JoinEpoch && len(req.Topics) == 0:
		return bad("it joins without a subscription")
	}
	return nil
}

// heartbeat is one call of one member.
func (g *shareMembers) heartbeat(now time.Time, req *ShareHeartbeatRequest) (resp HeartbeatResponse, err error) {
	if err := g.validate(req); err != nil {
		return resp, err
	}
	m := g.members[req.MemberID]
	if m == nil && req.MemberEpoch != JoinEpoch {
		return resp, ErrUnknownMember
	}
	if req.MemberEpoch == LeaveEpoch {
		delete(g.members, m.id)
		g.rebalance()
		return HeartbeatResponse{MemberID: req.MemberID, MemberEpoch: LeaveEpoch}, nil
	}
	joins := req.MemberEpoch == JoinEpoch
	if !joins && req.MemberEpoch != m.epoch && (req.MemberEpoch != m.previous || m.previous == 0) {
		return resp, &MemberEpochError{g.name, m.id, req.MemberEpoch, m.epoch}
	}
	changed := m == nil
	if m == nil {
		m = &shareMember{id: req.MemberID}
		g.members[m.id] = m
	}
	m.lastSeen = now
	if joins {
		m.client, m.host, m.rack = req.ClientID, req.ClientHost, req.RackID
	}
	if req.Topics != nil {
		topics := slices.Clone(req.Topics)
		slices.Sort(topics)
		if topics = slices.Compact(topics); !slices.Equal(topics, m.topics) {
			m.topics, changed = topics, true
		}
	}
	if changed {
		m.resolve(g.view)
		g.rebalance()
	}
	resp = HeartbeatResponse{MemberID: m.id}
	if joins || req.MemberEpoch != *g.epoch || req.Topics != nil {
		resp.Assignment = m.assigned.list()
	}
	if m.epoch != *g.epoch {
		m.previous, m.epoch = m.epoch, *g.epoch
	}
	resp.MemberEpoch = m.epoch
	return resp, nil
}

// resolve brings subscribed up to date. It reports whether that changed it.
func (m *shareMember) resolve(view *topicsView) bool {
	var ids []TopicID
	for _, name := range m.topics {
		if t, ok := view.byName[name]; ok {
			ids = append(ids, t.id)
		}
	}
	slices.SortFunc(ids, compareTopicIDs)
	changed := !slices.Equal(ids, m.subscribed)
	m.subscribed = ids
	return changed
}

// setTopics says which topics there are now. It reports whether that changes the
// assignment.
func (g *shareMembers) setTopics(view *topicsView) bool {
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
	}
	return changed
}

// expire takes out who was silent for the session timeout. It reports who.
func (g *shareMembers) expire(now time.Time, session time.Duration) (out []string) {
	for _, id := range slices.Sorted(maps.Keys(g.members)) {
		if !now.Before(g.members[id].lastSeen.Add(session)) {
			delete(g.members, id)
			out = append(out, id)
		}
	}
	if out != nil {
		g.rebalance()
	}
	return out
}

// rebalance makes a new assignment and raises the epoch.
func (g *shareMembers) rebalance() {
	*g.epoch++
	subscribers := map[TopicID][]*shareMember{}
	for _, id := range slices.Sorted(maps.Keys(g.members)) {
		m := g.members[id]
		m.assigned = groupParts{}
		for _, topic := range m.subscribed {
			subscribers[topic] = append(subscribers[topic], m)
		}
	}
	g.counts = map[TopicID]int32{}
	for i, id := range slices.SortedFunc(maps.Keys(subscribers), compareTopicIDs) {
		g.counts[id] = g.view.byID[id].partitions
		assignShared(id, g.counts[id], subscribers[id], i)
	}
}

// assignShared gives each member a partition of the topic, and each partition a member:
// counts differ by at most one. Which member is first differs from topic to topic, so that the
// same ones do not get more of each. (KIP-932, SimpleAssignor)
func assignShared(topic TopicID, partitions int32, members []*shareMember, first int) {
	n := int32(len(members))
	for i := range max(n, partitions) {
		if partitions == 0 {
			return
		}
		m := members[(int(i%n)+first)%len(members)]
		m.assigned[topic] = append(m.assigned[topic], i%partitions)
	}
	for _, m := range members {
		slices.Sort(m.assigned[topic])
	}
}

func (m *shareMember) describe() MemberDescription {
	return MemberDescription{
		MemberID: m.id, RackID: m.rack, ClientID: m.client, ClientHost: m.host, Epoch: m.epoch, Topics: slices.Clone(m.topics), LastSeen: m.lastSeen,
		Assigned: m.assigned.list(), Revoking: []TopicPartitions{}, Target: m.assigned.list(),
	}
}
