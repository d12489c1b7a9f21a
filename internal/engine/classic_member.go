package engine

import (
	"bytes"
	"slices"
	"strings"
	"time"
)

// classicMember is one member of a classic group.
type classicMember struct {
	id, instance, client, host string

	order     int // grows with each member that is added: the eldest leads
	session   time.Duration
	rebalance time.Duration
	protocols []GroupProtocol
	bytes     int // about what protocols take
	// assignment is of the last generation that the member took part in, and was stable.
	assignment []byte

	lastSeen time.Time
	fresh    bool // it has never had a JoinResponse
	knowsID  bool // it has heard its id before it was a member (KIP-394)
	unsynced bool // it has not asked for its assignment in this generation
	// epoch is what the member was told in the server-assigned group that this one comes
	// from; -1 none. It is good until the first generation of our own, for the partitions
	// that the member had then.
	epoch int32
	owned groupParts

	join *joinWait // nil: it has not joined the next generation, or the call is over
	sync *syncWait
}

// joinWait is a Join that waits: done is closed when the rest is set.
type joinWait struct {
	done    chan struct{}
	callers int // a call may be made again before the first one is over
	resp    JoinResponse
	err     error
}

type syncWait struct {
	done    chan struct{}
	callers int
	resp    SyncResponse
	err     error
}

func (m *classicMember) waits() bool { return m.join != nil || m.sync != nil }

func (m *classicMember) answerJoin(resp JoinResponse, err error) {
	if w := m.join; w != nil {
		w.resp, w.err, m.join = resp, err, nil
		close(w.done)
	}
}

func (m *classicMember) answerSync(resp SyncResponse, err error) {
	if w := m.sync; w != nil {
		w.resp, w.err, m.sync = resp, err, nil
		close(w.done)
	}
}

// newMemberJoinTimeout ends the wait of a new member, in case nobody is there any
// more to hear the answer. (group.new.member.join.timeout.ms)
const newMemberJoinTimeout = 5 * time.Minute

// expires returns when the member has been silent for too long. One that waits for
// an answer is not silent.
func (m *classicMember) expires() (at time.Time, ok bool) {
	switch {
	case !m.waits():
		return m.lastSeen.Add(m.session), true
	case m.join != nil && m.fresh:
		return m.lastSeen.Add(newMemberJoinTimeout), true
	}
	return time.Time{}, false
}

func (m *classicMember) metadata(protocol string) []byte {
	return protocolMetadata(m.protocols, protocol)
}

func protocolMetadata(list []GroupProtocol, name string) []byte {
	for _, p := range list {
		if p.Name == name {
			return p.Metadata
		}
	}
	return nil
}

func supportsProtocol(list []GroupProtocol, name string) bool {
	return slices.ContainsFunc(list, func(p GroupProtocol) bool { return p.Name == name })
}

func (m *classicMember) sameProtocols(list []GroupProtocol) bool {
	return slices.EqualFunc(m.protocols, list, func(a, b GroupProtocol) bool {
		return a.Name == b.Name && bytes.Equal(a.Metadata, b.Metadata)
	})
}

// cloneProtocols copies what a request holds. Of two with one name the first counts.
func cloneProtocols(list []GroupProtocol) []GroupProtocol {
	var out []GroupProtocol
	for _, p := range list {
		if !supportsProtocol(out, p.Name) {
			out = append(out, GroupProtocol{strings.Clone(p.Name), bytes.Clone(p.Metadata)})
		}
	}
	return out
}

// sameSubscription reports whether a member that comes back wants what it wanted. Of a
// consumer the topics decide: what it had, and in which generation, differs each time.
func sameSubscription(protocolType string, before, after []byte) bool {
	if bytes.Equal(before, after) {
		return true
	}
	if protocolType != ConsumerProtocolType {
		return false
	}
	a, err := parseConsumerSubscription(before)
	if err != nil {
		return false
	}
	b, err := parseConsumerSubscription(after)
	if err != nil {
		return false
	}
	slices.Sort(a.topics)
	slices.Sort(b.topics)
	return slices.Equal(slices.Compact(a.topics), slices.Compact(b.topics)) && a.rack == b.rack
}

// mustRevoke reports whether a cooperative consumer kept partitions that its leader
// did not give it again. It was to let go of them and to join once more, and whoever
// takes its place has nothing to let go of: the partitions would stay nobody's.
func mustRevoke(protocolType string, metadata, assignment []byte) bool {
	if protocolType != ConsumerProtocolType {
		return false
	}
	s, err := parseConsumerSubscription(metadata)
	if err != nil {
		return false
	}
	given, err := parseConsumerAssignment(assignment)
	if err != nil {
		return false
	}
	// Both lists are as long as their members like.
	has := make(map[string][]int32, len(given))
	for _, g := range given {
		has[g.topic] = append(has[g.topic], g.partitions...)
	}
	for _, list := range has {
		slices.Sort(list)
	}
	for _, o := range s.owned {
		list := has[o.topic]
		for _, p := range o.partitions {
			if _, ok := slices.BinarySearch(list, p); !ok {
				return true
			}
		}
	}
	return false
}
