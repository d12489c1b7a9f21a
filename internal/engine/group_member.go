package engine

import (
	"regexp"
	"slices"
	"time"
)

// What a member gets that does not say.
const (
	defaultSessionTimeout    = 45 * time.Second
	defaultRebalanceTimeout  = 5 * time.Minute
	defaultHeartbeatInterval = 5 * time.Second
)

// groupMember is one member of a group on its way to its target.
//
//	target      what the group's newest assignment gives it
//	assigned    what it was told that it may have
//	revoking    what it had, was told to give up, and has not said is gone
//
// A partition in assigned or revoking of one member is in neither of any other:
// that is what "at most one owner" rests on.
type groupMember struct {
	id, instance, rack, client, host string

	local            bool
	sessionTimeout   time.Duration // 0: it may be silent for ever
	rebalanceTimeout time.Duration
	topics           []string // subscribed by name, ascending
	regex            string
	match            *regexp.Regexp // nil: none
	patternBytes     int            // about what match takes
	maySee           func(topic string) bool
	assignor         string // empty: it asks for none

	// epoch is that of the group when the member last had given up all that it had to.
	// previous is the one before: a member whose response was lost still has it.
	epoch, previous int32
	left            bool         // a static member that will be back
	classic         *classicSide // nil: it speaks with an epoch
	bytes           int          // about what it says takes
	subscribed      []TopicID    // that exist, ascending
	target          groupParts
	assigned        groupParts
	revoking        groupParts

	lastSeen  time.Time
	revokeEnd time.Time // when revoking must be empty
	// news holds a token when the member should call. Nil until it is asked for.
	news chan struct{}
}

// place is what members are ordered by where an order is to last.
func (m *groupMember) place() string {
	if m.instance != "" {
		return m.instance
	}
	return m.id
}

func (m *groupMember) shownEpoch() int32 {
	if m.left {
		return StaticLeaveEpoch
	}
	return m.epoch
}

// expires returns when the member has been silent for too long; ok is false when
// it never has.
func (m *groupMember) expires() (at time.Time, ok bool) {
	timeout := m.sessionTimeout
	if m.left && timeout <= 0 {
		timeout = defaultSessionTimeout
	}
	return m.lastSeen.Add(timeout), timeout > 0
}

func (m *groupMember) interval() time.Duration {
	if m.sessionTimeout <= 0 {
		return 0
	}
	return min(defaultHeartbeatInterval, m.sessionTimeout/3)
}

// says is what the member takes when the request has changed it.
func (m *groupMember) says(req *HeartbeatRequest, patternSize int) int {
	topics, pattern := req.Topics, patternSize*patternUnitBytes
	if m != nil && topics == nil {
		topics = m.topics
	}
	if m != nil && req.Regex == "" && !req.NoRegex {
		pattern = m.patternBytes
	}
	return namesBytes(topics) + pattern + len(req.MemberID) + len(req.InstanceID) + len(req.RackID) + len(req.ClientID)
}

// configure takes over what the request says about the member. It reports whether
// the subscription changed.
func (m *groupMember) configure(req *HeartbeatRequest, match *regexp.Regexp, patternSize int) (changed bool) {
	joins := req.MemberEpoch == JoinEpoch
	if joins || req.Topics != nil || req.Regex != "" || req.NoRegex {
		m.bytes = m.says(req, patternSize)
	}
	if req.RebalanceTimeout > 0 || joins {
		if m.rebalanceTimeout = req.RebalanceTimeout; m.rebalanceTimeout <= 0 {
			m.rebalanceTimeout = defaultRebalanceTimeout
		}
	}
	if req.SessionTimeout > 0 || joins {
		if m.sessionTimeout = req.SessionTimeout; m.sessionTimeout <= 0 && !req.Local {
			m.sessionTimeout = defaultSessionTimeout
		}
	}
	// Who hears nothing for as long as a session stops by itself. Were it asked for
	// partitions in an answer that got lost, others must not have them before.
	m.rebalanceTimeout = max(m.rebalanceTimeout, m.sessionTimeout)
	if joins {
		m.local, m.client, m.host, m.rack = req.Local, req.ClientID, req.ClientHost, req.RackID
	}
	if req.Assignor != "" && req.Assignor != m.assignor {
		m.assignor, changed = req.Assignor, true
	}
	if req.Topics != nil {
		topics := slices.Clone(req.Topics)
		slices.Sort(topics)
		topics = slices.Compact(topics)
		changed = changed || !slices.Equal(topics, m.topics)
		m.topics = topics
	}
	switch {
	case req.NoRegex && m.regex != "":
		m.regex, m.match, m.patternBytes, m.maySee, changed = "", nil, 0, nil, true
	case req.Regex != "":
		changed = changed || req.Regex != m.regex
		m.regex, m.match, m.patternBytes, m.maySee = req.Regex, match, patternSize*patternUnitBytes, req.MaySee
	}
	return changed
}

// resolve brings subscribed up to date. It reports whether that changed it.
func (m *groupMember) resolve(view *topicsView) bool {
	var ids []TopicID
	for _, name := range m.topics {
		if t, ok := view.byName[name]; ok {
			ids = append(ids, t.id)
		}
	}
	if m.match != nil {
		for _, t := range view.byName {
			if m.match.MatchString(t.name) && m.sees(t) {
				ids = append(ids, t.id)
			}
		}
	}
	slices.SortFunc(ids, compareTopicIDs)
	ids = slices.Compact(ids)
	if slices.Equal(ids, m.subscribed) {
		return false
	}
	m.subscribed = ids
	return true
}

// sees says whether a topic whose name matches the member's pattern is one for it.
func (m *groupMember) sees(t viewTopic) bool {
	if m.maySee == nil {
		return !t.internal
	}
	return m.maySee(t.name)
}

// notify leaves a token for the member.
func (m *groupMember) notify() {
	select {
	case m.news <- struct{}{}:
	default: // nobody has asked for it, or there is one
	}
}
