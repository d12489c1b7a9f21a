package engine

import "time"

// ConsumerProtocolType is the protocol type of classic members that are consumers:
// their metadata and assignments can be read. (ConsumerProtocol in Kafka)
const ConsumerProtocolType = "consumer"

// GroupProtocol is one way of sharing that a classic member offers: the name of an
// assignor, and what that assignor is to know of the member.
type GroupProtocol struct {
	Name     string
	Metadata []byte
}

// JoinRequest asks for a place in the next generation of a group. (JoinGroup)
// Byte slices are copied.
type JoinRequest struct {
	Group string
	// MemberID is empty in a first call, then what an answer said: that of a
	// JoinResponse or of a *MemberIDRequiredError.
	MemberID string
	// InstanceID makes the member a static one: who joins with it later, and without a
	// member id, takes its place. (KIP-345)
	InstanceID           string
	ClientID, ClientHost string
	// ProtocolType is what the group is for; all members say the same.
	ProtocolType string
	// Protocols are those that the member can do, the one it likes best first.
	Protocols []GroupProtocol
	// SessionTimeout is how long the member may be silent between two calls.
	SessionTimeout time.Duration
	// RebalanceTimeout is how long others wait for the member when it has to join
	// again. Zero means SessionTimeout.
	RebalanceTimeout time.Duration
	// RequireMemberID refuses a first call with the id to come again with, so that who
	// never hears the answer is no member. (KIP-394; from version 4 on)
	RequireMemberID bool
	// SkipAssignment says that the member understands JoinResponse.SkipAssignment.
	// (KIP-814; from version 9 on)
	SkipAssignment bool
	// Reason is for the log. (KIP-800)
	Reason string
	// Waited, if not nil, is increased by the time for which the call waited for other members.
	Waited *time.Duration
}

// JoinResponse is a place in a generation. The member asks for its assignment with
// Sync. Byte slices are the group's: they are not changed.
type JoinResponse struct {
	MemberID               string
	Generation             int32
	ProtocolType, Protocol string
	// Leader is the member that assigns. It is empty where the server does.
	Leader string
	// SkipAssignment says to a leader that the assignment stands: Sync gives it.
	SkipAssignment bool
	Members        []JoinMember // for the leader only, by id
}

// JoinMember is a member as its group's leader sees it.
type JoinMember struct {
	MemberID, InstanceID string
	Metadata             []byte // of the generation's protocol
}

// SyncRequest asks for the member's assignment in a generation, and for the leader
// brings those of all. (SyncGroup) Byte slices are copied.
type SyncRequest struct {
	Group, MemberID, InstanceID string

	Generation int32
	// ProtocolType and Protocol are those of the JoinResponse. Empty is not checked. (KIP-559)
	ProtocolType, Protocol string
	Assignments            []SyncAssignment // from the leader only
	// Waited is as in JoinRequest.
	Waited *time.Duration
}

// SyncAssignment is what a leader gives to one member.
type SyncAssignment struct {
	MemberID   string
	Assignment []byte
}

// SyncResponse is a member's assignment. The slice is the group's: it is not changed.
type SyncResponse struct {
	ProtocolType, Protocol string
	Assignment             []byte
}

// ClassicHeartbeatRequest says that a member is there. (Heartbeat)
type ClassicHeartbeatRequest struct {
	Group, MemberID, InstanceID string

	Generation int32
}

// LeaveRequest takes members out of a group. (LeaveGroup)
type LeaveRequest struct {
	Group   string
	Members []LeavingMember
}

// LeavingMember is a member that goes: by its id, or a static one by its instance id
// alone.
type LeavingMember struct {
	MemberID, InstanceID string
	Reason               string // for the log (KIP-800)
}
