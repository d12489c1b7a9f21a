package raftrepl

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// The library's followers stick to a leader until a timer of their own, which fires at one to two times
// the timeout, finds that it has been silent: an election succeeds when the slower of two has
// found out. Here a follower that has missed heartbeats says so when a candidate asks, who has
// waited for all of the timeout. (Raft thesis 4.2.3: a server does not vote within the
// minimum election timeout of hearing from a leader; 9.6: nor does it grant a pre-vote)
//
// What votes are about stays with the library: a pre-vote changes nothing, and a vote is granted by
// term and log.

// missed says whether this follower's leader, if it knows one, has been silent for so long that at
// least one heartbeat is missing.
func (i *instance) missed() bool {
	return i.raft.State() == raft.Follower && time.Since(i.raft.LastContact()) > i.g.cfg.Timing.Heartbeat*6/10
}

// favours says whether a pre-vote is granted to a candidate whom the library would refuse because it
// still believes in a leader.
func (i *instance) favours(m *raft.RequestPreVoteRequest) bool {
	if _, leader := i.raft.LeaderWithID(); leader == "" || !i.missed() || m.Term < i.raft.CurrentTerm() {
		return false // the library knows
	}
	voters := i.raft.GetConfiguration().Configuration().Servers
	if !slices.ContainsFunc(voters, func(s raft.Server) bool { return s.ID == raft.ServerID(m.ID) && s.Suffrage == raft.Voter }) {
		return false
	}
	index, term := i.store.p.LastEntry()
	return m.LastLogTerm > term || m.LastLogTerm == term && m.LastLogIndex >= index
}

// released is a request for a vote as the library is to see it: where the leader has been silent, as
// one that may take its place.
func (i *instance) released(m *raft.RequestVoteRequest) *raft.RequestVoteRequest {
	if m.LeadershipTransfer || !i.missed() {
		return m
	}
	own := *m // the sender may be in this process
	own.LeadershipTransfer = true
	return &own
}
