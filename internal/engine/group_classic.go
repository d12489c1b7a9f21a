package engine

import (
	"slices"
	"strconv"
	"time"
)

// classicSide is what a member of a server-assigned group has besides when it speaks
// the classic protocol. It joins and syncs as it would in a classic group, and gets its
// share of the group's target: it never leads and never waits.
//
//	Join        reconcile, with what it says that it has kept; its epoch is the generation
//	Sync        what is assigned
//	Heartbeat   ErrRebalancing when its next Join would bring news
//
// An eager member keeps nothing through a rebalance, so all that it is to give up is
// free with its Join. A cooperative one sees in the answer to Sync what it has to give
// up, does so, and joins again. (KIP-848, "online migration")
type classicSide struct {
	protocols []GroupProtocol
	version   int16     // of its subscription, and so of its assignments
	joinEnd   time.Time // it was told to join again; zero: it was not
	syncEnd   time.Time // it has joined and must sync; zero: it has
}

// late reports whether a member has not done what it was told in time.
func (s *classicSide) late(now time.Time) bool {
	over := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	return s != nil && (over(s.joinEnd) || over(s.syncEnd))
}

func (m *groupMember) otherGeneration(group string, said int32) error {
	return &GenerationError{group, m.id, said, m.epoch}
}

// classicSubscription reads what a classic consumer subscribes to: from the first of
// its protocols, as they all say the same.
func classicSubscription(group string, protocols []GroupProtocol) (consumerSubscription, error) {
	s, err := parseConsumerSubscription(protocols[0].Metadata)
	if err != nil {
		return s, &InconsistentProtocolError{group, "the subscription in " + strconv.Quote(protocols[0].Name) + " cannot be read: " + err.Error()}
	}
	return s, nil
}

// joinClassic is a JoinGroup to a server-assigned group.
func (g *groupState) joinClassic(now time.Time, req *JoinRequest, limits classicLimits, newID string) (resp JoinResponse, err error) {
	m, err := g.placeFor(req)
	if err != nil {
		return resp, err
	}
	sub, err := g.acceptsClassic(req, m, limits)
	if err != nil {
		return resp, err
	}
	id := req.MemberID
	if id == "" {
		if req.RequireMemberID && req.InstanceID == "" {
			return resp, &MemberIDRequiredError{g.name, newID}
		}
		id = newID
	}
	owned := groupParts{}
	changed := m == nil
	switch {
	case m == nil:
		m = &groupMember{id: id, instance: req.InstanceID}
		g.members[id] = m
		if m.instance != "" {
			g.static[m.instance] = id
		}
	case m.id != id:
		g.takeOver(m, id) // by a process that has nothing
		m.left = false
	default:
		owned = g.view.parts(sub.owned)
	}
	if m.configureClassic(now, req, &sub) || changed {
		m.resolve(g.view)
		g.rebalance()
	}
	g.reconcile(now, m, owned)
	g.tell()
	return JoinResponse{MemberID: m.id, Generation: m.epoch, ProtocolType: ConsumerProtocolType, Protocol: m.classic.protocols[0].Name}, nil
}

// placeFor returns the member that a JoinGroup is of, or that it replaces; nil when it
// is a new one.
func (g *groupState) placeFor(req *JoinRequest) (*groupMember, error) {
	if req.InstanceID != "" {
		holder, known := g.static[req.InstanceID]
		switch {
		case known && (req.MemberID == "" || req.MemberID == holder):
			return g.members[holder], nil
		case known:
			return nil, ErrFencedInstance
		case req.MemberID != "":
			return nil, ErrUnknownMember
		}
		return nil, nil
	}
	m := g.members[req.MemberID]
	if m != nil && m.classic == nil {
		return nil, ErrUnknownMember // the id is one of a member with an epoch
	}
	return m, nil
}

func (g *groupState) acceptsClassic(req *JoinRequest, m *groupMember, limits classicLimits) (s consumerSubscription, err error) {
	if req.SessionTimeout < limits.minSession || req.SessionTimeout > limits.maxSession {
		return s, &SessionTimeoutError{req.SessionTimeout, limits.minSession, limits.maxSession}
	}
	if m == nil && len(g.members) >= limits.members {
		return s, ErrGroupMaxSize
	}
	if err := tooLarge(g.name, req.MemberID, protocolsBytes(req.Protocols), g.bytesBut(m)); err != nil {
		return s, err
	}
	if req.ProtocolType != ConsumerProtocolType {
		return s, &InconsistentProtocolError{g.name, "partitions are assigned by the server, to consumers, and a member is of protocol type " + strconv.Quote(req.ProtocolType)}
	}
	// What classic members have in common they need when the others are gone.
	common := slices.ContainsFunc(req.Protocols, func(p GroupProtocol) bool {
		for _, o := range g.members {
			if o != m && o.classic != nil && !supportsProtocol(o.classic.protocols, p.Name) {
				return false
			}
		}
		return true
	})
	if !common {
		return s, &InconsistentProtocolError{g.name, "none of the member's protocols is one that all members of the classic protocol have"}
	}
	return classicSubscription(g.name, req.Protocols)
}

// configureClassic takes over what a JoinGroup says. It reports whether the
// subscription changed.
func (m *groupMember) configureClassic(now time.Time, req *JoinRequest, s *consumerSubscription) (changed bool) {
	m.client, m.host, m.rack, m.local, m.lastSeen = req.ClientID, req.ClientHost, s.rack, false, now
	m.sessionTimeout = req.SessionTimeout
	m.rebalanceTimeout = max(req.RebalanceTimeout, req.SessionTimeout)
	m.classic = &classicSide{protocols: cloneProtocols(req.Protocols), version: s.version, syncEnd: now.Add(m.rebalanceTimeout)}
	topics := slices.Clone(s.topics)
	slices.Sort(topics)
	topics = slices.Compact(topics)
	changed = m.regex != "" || !slices.Equal(topics, m.topics)
	m.topics, m.regex, m.match, m.patternBytes = topics, "", nil, 0
	m.bytes = protocolsBytes(req.Protocols)
	return changed
}

// findClassic returns the classic member of a call with a member id.
func (g *groupState) findClassic(id, instance string, generation int32) (*groupMember, error) {
	if instance != "" {
		holder, known := g.static[instance]
		if !known {
			return nil, ErrUnknownMember
		}
		if holder != id {
			return nil, ErrFencedInstance
		}
	}
	m := g.members[id]
	if m == nil || m.classic == nil {
		return nil, ErrUnknownMember
	}
	if generation != m.epoch {
		return nil, m.otherGeneration(g.name, generation)
	}
	return m, nil
}

// syncClassic is a SyncGroup to a server-assigned group.
func (g *groupState) syncClassic(now time.Time, req *SyncRequest) (resp SyncResponse, err error) {
	m, err := g.findClassic(req.MemberID, req.InstanceID, req.Generation)
	if err != nil {
		return resp, err
	}
	if req.ProtocolType != "" && req.ProtocolType != ConsumerProtocolType || req.Protocol != "" && !supportsProtocol(m.classic.protocols, req.Protocol) {
		return resp, &InconsistentProtocolError{g.name, "the member did not join with " + strconv.Quote(req.ProtocolType) + ", " + strconv.Quote(req.Protocol)}
	}
	m.lastSeen = now
	if m.epoch != g.epoch && len(m.revoking) == 0 {
		return resp, g.joinAgain(now, m)
	}
	m.classic.syncEnd = time.Time{}
	protocol := req.Protocol
	if protocol == "" {
		protocol = m.classic.protocols[0].Name
	}
	return SyncResponse{ConsumerProtocolType, protocol, appendConsumerAssignment(nil, m.classic.version, g.view.named(m.assigned))}, nil
}

// joinAgain tells a member to do so, and by when.
func (g *groupState) joinAgain(now time.Time, m *groupMember) error {
	if m.classic.syncEnd = (time.Time{}); m.classic.joinEnd.IsZero() {
		m.classic.joinEnd = now.Add(m.rebalanceTimeout)
	}
	return ErrRebalancing
}

// heartbeatClassic is a Heartbeat to a server-assigned group.
func (g *groupState) heartbeatClassic(now time.Time, req *ClassicHeartbeatRequest) error {
	m, err := g.findClassic(req.MemberID, req.InstanceID, req.Generation)
	if err != nil {
		return err
	}
	if m.lastSeen = now; len(m.revoking) > 0 || g.hasNews(m) {
		return g.joinAgain(now, m)
	}
	return nil
}

// leaveClassic is one member of a LeaveGroup to a server-assigned group. The caller
// calls rebalance and tell after the last one.
func (g *groupState) leaveClassic(now time.Time, who *LeavingMember) (id string, err error) {
	id = who.MemberID
	if who.InstanceID != "" {
		holder, known := g.static[who.InstanceID]
		if !known {
			return id, ErrUnknownMember
		}
		if id != "" && id != holder {
			return id, ErrFencedInstance
		}
		id = holder
	}
	m := g.members[id]
	if m == nil || m.classic == nil && who.MemberID != "" {
		return id, ErrUnknownMember // with an epoch it leaves by a heartbeat, or is removed by its instance id
	}
	g.remove(m)
	return id, nil
}
