package raftrepl

import (
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

// leader is who leads, as far as the replica knows: itself among them, empty for nobody. A candidate knows nobody. The library may
// have a name there: where it is told to ask for votes while it asks for pre-votes, and the old leader's last message comes then, it
// stays a candidate and keeps the name for as long as it is one. Two such candidates would refuse each other for ever.
func (i *instance) leader() raft.ServerID {
	if i.raft.State() == raft.Candidate {
		return ""
	}
	_, id := i.raft.LeaderWithID()
	return id
}

// missed says whether this follower's leader, if it knows one, has been silent for so long that at
// least one heartbeat is missing, or its process is known to have ended.
func (i *instance) missed() bool {
	return i.raft.State() == raft.Follower && (time.Since(i.raft.LastContact()) > i.g.cfg.Timing.Heartbeat*6/10 || i.leaderGone())
}

// released is a request for a vote as the library is to see it: where the leader has been silent, as
// one that may take its place.
func (i *instance) released(m *raft.RequestVoteRequest) *raft.RequestVoteRequest {
	if m.LeadershipTransfer || !i.missed() && i.raft.State() != raft.Candidate {
		return m
	}
	own := *m // the sender may be in this process
	own.LeadershipTransfer = true
	return &own
}
