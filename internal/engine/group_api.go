package engine

import (
	"time"

	"github.com/x/embedlog/partition"
)

// Member epochs with a meaning of their own in a HeartbeatRequest.
const (
	JoinEpoch        int32 = 0
	LeaveEpoch       int32 = -1
	StaticLeaveEpoch int32 = -2 // a static member goes and will be back
)

// HeartbeatRequest is what a member says: that it joins, is there, what it has,
// that it goes. (ConsumerGroupHeartbeat in Kafka's protocol, KIP-848)
type HeartbeatRequest struct {
	Group string
	// MemberID is chosen by the member and unique, or empty in a first call: then one is made.
	MemberID string
	// MemberEpoch is the one of the last response, or JoinEpoch, LeaveEpoch, StaticLeaveEpoch.
	MemberEpoch int32
	// InstanceID makes the member a static one: another member with the same instance
	// id takes its assignment over after it left with StaticLeaveEpoch.
	InstanceID                   string
	RackID, ClientID, ClientHost string
	// RebalanceTimeout is within what time the member gives up partitions when it is
	// asked to, at least SessionTimeout. Zero means 5 minutes when joining and no change later.
	RebalanceTimeout time.Duration
	// SessionTimeout is how long the member may be silent. Zero means, when joining, 45 s,
	// and for a Local member that there is no limit; later no change.
	SessionTimeout time.Duration
	// Topics are the names subscribed to, which need not exist yet. Nil is no change,
	// and empty none. Who joins says one of Topics, Regex and NoRegex: a member without a
	// subscription is one, and has nothing.
	Topics []string
	// Regex subscribes to the topics whose whole name matches, internal ones left out.
	// It is in Go's syntax (package regexp). Empty is no change; NoRegex ends one.
	Regex string
	// NoRegex ends the subscription by Regex.
	NoRegex bool
	// MaySee says of a topic whose name matches Regex, an internal one, too, whether the
	// member may know that there is one. It is asked whenever topics, ACLs or the subscription
	// change, and every ten minutes, by any goroutine, under a lock: it is quick, and of the
	// engine it calls nothing but ACLSet. It comes with Regex. Nil is all but the internal ones.
	MaySee func(topic string) bool
	// Assignor is "uniform", "range", or empty: no change. The group has the one that
	// most members ask for, and the uniform one otherwise.
	Assignor string
	// Owned is what the member has or is about to take. It is how partitions are given
	// back: those that it was asked for are free for others as soon as they are not in
	// it. Nil is no change. A member sends it when an assignment has changed what it
	// has, and after each call that failed, and then gets the whole assignment again.
	Owned []TopicPartitions
	// Local says that the member lives in this process.
	Local bool
}

// HeartbeatResponse is the answer to a heartbeat.
type HeartbeatResponse struct {
	MemberID    string
	MemberEpoch int32
	// Interval is when to call again at the latest; zero when there is no limit.
	Interval time.Duration
	// Assignment is all that the member may have from now on: it gives up what is not
	// in it and then sends Owned. Nil is no change.
	Assignment []TopicPartitions
}

// OffsetCommit is a position in a partition: where its group goes on reading.
type OffsetCommit struct {
	Topic       string  // or TopicID
	TopicID     TopicID // when both are given they must agree
	Partition   int32
	Offset      int64  // of the next record to be read
	LeaderEpoch int32  // of the record before it; -1 unknown
	Metadata    string // anything, at most MaxOffsetMetadataBytes
	// EpochSaid says that LeaderEpoch is what a client of Kafka's protocol said. Some say
	// an earlier one than that of the record, so that it proves no loss: a client that
	// does know its epochs checks by itself. (OffsetForLeaderEpoch)
	EpochSaid bool
}

// MaxOffsetMetadataBytes bounds OffsetCommit.Metadata. (offset.metadata.max.bytes)
const MaxOffsetMetadataBytes = 4096

// NoOffset is the place of a group that has none.
const NoOffset int64 = -1

// CommitRequest commits offsets of one group.
type CommitRequest struct {
	Group    string
	MemberID string
	// MemberEpoch is the member's, or -1 for who is no member: allowed while the
	// group has none, and in a transaction of a producer that is not Local.
	MemberEpoch int32
	InstanceID  string
	Offsets     []OffsetCommit
	// Forget lets an Offset be NoOffset, which takes the group's place in the partition
	// away. Clients of Kafka reset a group that way.
	Forget bool
	// Verified is what a TxnCommit's transaction was verified under, by who asked the
	// coordinator before: see partition.Verification.
	Verified *partition.Verification
	// Local says of a TxnCommit that the transaction's producer lives in this process:
	// nobody counts on the offsets before the transaction's end makes them durable.
	Local bool
}

// ofNobody says that the commit names no member.
func (r *CommitRequest) ofNobody() bool {
	return r.MemberEpoch < 0 && r.MemberID == "" && r.InstanceID == ""
}

// CommittedOffset is where a group goes on reading a partition.
type CommittedOffset struct {
	OffsetCommit           // Topic and TopicID are both set
	CommitTime   time.Time // of the engine's clock
	// Lost is not nil when records before the committed offset are no longer there, such
	// as after a power cut at a weak level: Offset and LeaderEpoch are then where the log
	// and what was consumed part. (KIP-320)
	Lost *PositionLostError
}

// GroupState is what a group is doing.
type GroupState string

const (
	GroupEmpty       GroupState = "Empty"       // no members
	GroupReconciling GroupState = "Reconciling" // members walk to the target assignment
	GroupStable      GroupState = "Stable"
	// Of classic groups.
	GroupPreparingRebalance  GroupState = "PreparingRebalance"  // members join the next generation
	GroupCompletingRebalance GroupState = "CompletingRebalance" // the leader assigns
)

// GroupListing is one line about a group.
type GroupListing struct {
	Group        string
	Type         GroupType
	ProtocolType string // "consumer", or what classic members say; empty when there never were any
	State        GroupState
	Members      int
}

// GroupDescription is all about a group.
type GroupDescription struct {
	Group        string
	Type         GroupType
	ProtocolType string // as in GroupListing
	Protocol     string // of a classic group's generation: empty without members
	State        GroupState
	Epoch        int32               // 0 when it never had a member; of a classic group its generation
	Assignor     string              // of a group that the server assigns
	Members      []MemberDescription // by id
	Partitions   []PartitionLag      // those assigned or committed, by topic and partition; of a share group those begun, Offset being the start offset
}

// MemberDescription is all about a member.
type MemberDescription struct {
	MemberID, InstanceID, RackID, ClientID, ClientHost string

	Epoch    int32 // StaticLeaveEpoch while a static member is away
	Classic  bool  // it speaks the classic protocol
	Topics   []string
	Regex    string
	Local    bool
	LastSeen time.Time
	// Assigned is what it has, Revoking what it has and was asked back, Target what it
	// will have.
	Assigned, Revoking, Target []TopicPartitions
	// Metadata and Assignment are what a member of a stable classic group said and was
	// given. Assigned and Topics are read from them where they are of consumers. They
	// are the group's: they are not changed.
	Metadata, Assignment []byte
}

// PartitionLag is how far a group is in a partition.
type PartitionLag struct {
	CommittedOffset               // Offset is -1 when nothing is committed
	LogStart, HighWatermark int64 // -1 when the partition cannot be asked
	Lag                     int64 // records up to the high watermark; -1 when not known
	MemberID                string
}
