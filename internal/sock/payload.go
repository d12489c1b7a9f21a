package sock

import "time"

// The JSON payloads. Those that the command line prints with --format json are
// documented in docs/cli.md: a field is never renamed or given another meaning.

// Error is the payload of an error frame.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"error"` // says what was tried, on what
}

func (e *Error) Error() string { return e.Message }

// Code is what a client branches on.
type Code string

const (
	CodeFailure        Code = "failure" // anything that has no code of its own
	CodeInvalid        Code = "invalid" // a name, setting or argument that cannot be
	CodeUnknownTopic   Code = "unknown_topic"
	CodeUnknownPart    Code = "unknown_partition"
	CodeUnknownGroup   Code = "unknown_group"
	CodeTopicExists    Code = "topic_exists"
	CodeUnknownUser    Code = "unknown_user"
	CodeUserExists     Code = "user_exists"
	CodeUnknownNode    Code = "unknown_node"
	CodeUnknownView    Code = "unknown_view"
	CodeNotLeader      Code = "not_leader" // another node has to be asked, or none leads
	CodeNotYet         Code = "not_yet"    // the same request succeeds later
	CodeGroupNotEmpty  Code = "group_not_empty"
	CodeOffsetRange    Code = "offset_out_of_range"
	CodeTooLarge       Code = "record_too_large"
	CodeNoSpace        Code = "no_space"
	CodeCorrupt        Code = "corrupt"
	CodeReadOnly       Code = "read_only"
	CodeNewerFormat    Code = "newer_format"
	CodeUnknownOutcome Code = "unknown_outcome"
	CodeCancelled      Code = "cancelled"
	CodeClosing        Code = "closing"  // nothing was done: the program is closing the directory
	CodeBusy           Code = "busy"     // too many connections
	CodeProtocol       Code = "protocol" // the client does not keep to the protocol
)

// Progress is what a long request says while it runs.
type Progress struct {
	What  string `json:"what"`            // the partition or file being worked on
	Done  int64  `json:"done"`            // bytes so far
	Total int64  `json:"total,omitempty"` // bytes in all; 0 is not known
	Moved *Moved `json:"moved,omitempty"` // of OpPoll, and then nothing else is set
}

// Info is the database as a whole. (OpInfo, embedlog info)
type Info struct {
	Dir         string       `json:"dir"`
	ClusterID   string       `json:"cluster_id"`
	DirectoryID string       `json:"directory_id"`
	NodeID      int32        `json:"node_id"`
	Format      int          `json:"format"`
	PID         int          `json:"pid"` // of the program that has it open
	Topics      []TopicBrief `json:"topics"`
	// Of a cluster that is reached over Kafka's protocol: where, and what it is made of.
	// Dir is then that of the only node, DirectoryID, Format and PID are not known.
	Address string `json:"address,omitempty"`
	Nodes   []Node `json:"nodes,omitempty"`
}

// Node is a broker of a cluster.
type Node struct {
	NodeID int32  `json:"node_id"`
	Host   string `json:"host"`
	Port   int32  `json:"port"`
}

// TopicBrief is a topic in a list.
type TopicBrief struct {
	Topic      string `json:"topic"`
	ID         string `json:"id"` // its directory is topics/<id>
	Internal   bool   `json:"internal"`
	Partitions int    `json:"partitions"`
	Records    int64  `json:"records"` // offsets between log start and high watermark: an upper bound after compaction
	Bytes      int64  `json:"bytes"`   // allocated on the disk; -1 where it is not for who asks to know
	Damaged    bool   `json:"damaged,omitempty"`
	// Elsewhere is how many of its partitions other nodes have alone: what these hold is not in Records and Bytes.
	Elsewhere int `json:"partitions_elsewhere,omitempty"`
}

// TopicsRequest asks for topics: one by its name, or all. (OpTopics)
type TopicsRequest struct {
	Topic string `json:"topic,omitempty"`
}

// Topic is one topic with everything. (OpTopics, embedlog topic describe)
type Topic struct {
	TopicBrief
	Settings []Setting `json:"settings"` // those that differ from the default
	// SettingsHidden says that they are not for who asks to know. (over Kafka's protocol)
	SettingsHidden bool        `json:"settings_hidden,omitempty"`
	PartitionList  []Partition `json:"partition_list"`
	Existed        bool        `json:"existed,omitempty"` // answers CreateTopic: it was there, and is as it was
}

// Setting is a topic's setting under Kafka's name.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Partition is one partition of a topic.
type Partition struct {
	Partition     int32  `json:"partition"`
	LogStart      int64  `json:"log_start_offset"`
	LastStable    int64  `json:"last_stable_offset"`
	HighWatermark int64  `json:"high_watermark"`
	LogEnd        int64  `json:"log_end_offset"`
	LeaderEpoch   int32  `json:"leader_epoch"`
	Bytes         int64  `json:"bytes"`
	Error         string `json:"error,omitempty"` // why it cannot be written
	// Of a replicated one: who leads it, -1 when nobody is known to; the nodes that have it,
	// the preferred leader first; those of them that have what was acknowledged a short while
	// ago, which only the leader knows; and what is not well.
	Leader   int32   `json:"leader,omitempty"`
	Replicas []int32 `json:"replicas,omitempty"`
	InSync   []int32 `json:"in_sync,omitempty"`
	Reason   string  `json:"reason,omitempty"`
}

// CreateTopic makes a topic. (OpCreateTopic)
type CreateTopic struct {
	Topic      string `json:"topic"`
	Partitions int    `json:"partitions"`
	// ReplicationFactor is how many nodes have each partition. 0 is the default.
	ReplicationFactor int               `json:"replication_factor,omitempty"`
	Settings          map[string]string `json:"settings,omitempty"`
	IfNotExists       bool              `json:"if_not_exists,omitempty"`
}

// AlterTopic changes settings of a topic. (OpAlterTopic)
type AlterTopic struct {
	Topic string            `json:"topic"`
	Set   map[string]string `json:"set,omitempty"`
	Unset []string          `json:"unset,omitempty"`
}

// AddPartitions raises the number of partitions to Total. (OpAddPartitions)
type AddPartitions struct {
	Topic string `json:"topic"`
	Total int    `json:"total"`
}

// Trim deletes the records below an offset. (OpTrim)
type Trim struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Before    int64  `json:"before"` // -1: the high watermark
}

// Trimmed is where a partition begins now. (OpTrim's reply)
type Trimmed struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	LogStart  int64  `json:"log_start_offset"`
}

// TopicName names a topic. (OpDeleteTopic)
type TopicName struct {
	Topic string `json:"topic"`
}

// At is a point in each partition of a topic.
type At string

const (
	AtStart At = "start"
	AtEnd   At = "end" // the high watermark
	AtTime  At = "time"
)

// ListOffsets asks where in each partition a point is. (OpListOffsets)
type ListOffsets struct {
	Topic string    `json:"topic"`
	At    At        `json:"at"`
	Time  time.Time `json:"time,omitzero"`
}

// Position is an offset in a partition.
type Position struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Epoch     int32  `json:"leader_epoch"` // -1 unknown
}

// Producer opens the session's producer, and closes the one before. (OpProducer)
type Producer struct {
	Topic       string `json:"topic"`
	Compression string `json:"compression,omitempty"` // none, gzip, snappy, lz4, zstd
}

// Consumer opens the session's consumer, and closes the one before: a member of
// a group, or assigned by hand. (OpConsumer)
type Consumer struct {
	Group      string     `json:"group,omitempty"`
	Topics     []string   `json:"topics,omitempty"`  // of the group's member
	Pattern    string     `json:"pattern,omitempty"` // instead of topics
	Assign     []Position `json:"assign,omitempty"`  // by hand: where to begin in each
	FromLatest bool       `json:"from_latest,omitempty"`
	// ReadUncommitted shows records of transactions that are open or aborted.
	ReadUncommitted bool `json:"read_uncommitted,omitempty"`
	// SkipDamage goes on behind damaged bytes; Progress.Moved tells of each place.
	SkipDamage bool   `json:"skip_damage,omitempty"`
	ClientID   string `json:"client_id,omitempty"`
}

// Moved is a consumer that goes on elsewhere than it stood: what it was to read there
// was deleted, lost or damaged. (In the progress of OpPoll)
type Moved struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"` // what was to be read
	To        int64  `json:"to"`   // where reading goes on
	Cause     string `json:"cause"`
}

// Poll asks for records. The reply is AppendRecords'; with none, the wait is
// over. A next poll says that the records of the last one are done. (OpPoll)
type Poll struct {
	MaxRecords int           `json:"max_records"`
	Wait       time.Duration `json:"wait"`
}

// Lag is how far the session's consumer is behind. (OpLag's reply)
type Lag struct {
	Assigned int   `json:"assigned"` // partitions
	Records  int64 `json:"records"`  // -1: not known yet
}

// GroupBrief is a group in a list. (OpGroups' reply)
type GroupBrief struct {
	Group   string `json:"group"`
	Type    string `json:"type"`  // consumer: the database assigns; classic: a member does
	State   string `json:"state"` // Empty, Reconciling or Stable; of a classic group as Kafka has them
	Members int    `json:"members"`
}

// Group is a consumer group. (OpGroup, embedlog group describe)
type Group struct {
	Group    string        `json:"group"`
	Type     string        `json:"type"` // as in GroupBrief
	State    string        `json:"state"`
	Epoch    int32         `json:"epoch"`
	Assignor string        `json:"assignor,omitempty"`
	Members  []Member      `json:"members"`
	Offsets  []GroupOffset `json:"offsets"`
}

// Member is a member of a group.
type Member struct {
	ID         string           `json:"member_id"`
	InstanceID string           `json:"instance_id,omitempty"`
	ClientID   string           `json:"client_id,omitempty"`
	Host       string           `json:"host,omitempty"`
	Epoch      int32            `json:"epoch"`
	Assigned   []TopicPartition `json:"assigned"`
}

// TopicPartition names a partition.
type TopicPartition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
}

// GroupOffset is where a group stands in a partition.
type GroupOffset struct {
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Current   int64     `json:"current_offset"` // -1: nothing committed
	LogEnd    int64     `json:"log_end_offset"`
	Lag       int64     `json:"lag"` // -1: nothing committed
	Metadata  string    `json:"metadata,omitempty"`
	Committed time.Time `json:"committed,omitzero"`
	MemberID  string    `json:"member_id,omitempty"` // who has the partition
	Host      string    `json:"host,omitempty"`
	ClientID  string    `json:"client_id,omitempty"`
}

// Reset moves a group's committed offsets. (OpResetGroup)
type Reset struct {
	Group    string        `json:"group"`
	Topics   []ResetTopic  `json:"topics,omitempty"` // none: every topic that the group has offsets in
	To       ResetTo       `json:"to"`
	Offset   int64         `json:"offset,omitempty"` // ToOffset; ToShift: by how much
	Time     time.Time     `json:"time,omitzero"`
	Duration time.Duration `json:"duration,omitempty"`
	Execute  bool          `json:"execute,omitempty"`
}

// ResetTopic is a topic, or some partitions of it.
type ResetTopic struct {
	Topic      string  `json:"topic"`
	Partitions []int32 `json:"partitions,omitempty"` // none: all
}

// ResetTo is where a reset goes.
type ResetTo string

const (
	ToEarliest ResetTo = "earliest"
	ToLatest   ResetTo = "latest"
	ToOffset   ResetTo = "offset"
	ToShift    ResetTo = "shift"
	ToTime     ResetTo = "time"
	ToDuration ResetTo = "duration"
	ToCurrent  ResetTo = "current"
)

// ResetResult is what a reset does to one partition.
type ResetResult struct {
	Group     string `json:"group"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Current   int64  `json:"current_offset"` // before; -1: nothing committed
	New       int64  `json:"new_offset"`
	Wanted    int64  `json:"wanted_offset"` // New is this, brought into the log
}

// GroupName names a group. (OpGroup, OpDeleteGroup)
type GroupName struct {
	Group string `json:"group"`
}

// VerifyRequest asks for a check. (OpVerify)
type VerifyRequest struct {
	Topics []string `json:"topics,omitempty"` // none: all, and the metadata
}

// Problem is one thing that a check found.
type Problem struct {
	Topic     string `json:"topic"` // empty: the metadata
	Partition int32  `json:"partition"`
	File      string `json:"file,omitempty"` // in the partition's directory
	Position  int64  `json:"position"`       // byte in the file
	Cache     bool   `json:"cache"`          // an index, which is made anew: no record is lost
	Problem   string `json:"problem"`
}

// Verified is what a check read. (OpVerify's reply)
type Verified struct {
	Partitions int       `json:"partitions"`
	Segments   int       `json:"segments"`
	Bytes      int64     `json:"bytes"`
	Batches    int64     `json:"batches"`
	Records    int64     `json:"records"`
	Problems   []Problem `json:"problems"`
	// LostPositions are committed positions past the end of what a power cut left at a
	// weak level. They are no damage: the group goes on where the log ends.
	LostPositions []string `json:"lost_positions"`
}

// Backup copies the database while it is used. (OpBackup)
type Backup struct {
	To string `json:"to"` // absolute
}

// BackedUp is what a backup did. (OpBackup's reply)
type BackedUp struct {
	To         string    `json:"to"`
	Taken      time.Time `json:"taken"` // the moment that it shows
	Partitions int       `json:"partitions"`
	Files      int       `json:"files"`
	Bytes      int64     `json:"bytes"`
	Reused     int64     `json:"reused_bytes"` // that were there already
	Trimmed    []string  `json:"trimmed"`      // partitions of which retention deleted something meanwhile
}

// Restored is what a restore did. The command line does it by itself.
type Restored struct {
	Done       string    `json:"done"` // restored or verified
	Taken      time.Time `json:"taken"`
	Partitions int       `json:"partitions"`
	Files      int       `json:"files"`
	Bytes      int64     `json:"bytes"`
}

// Export writes partitions as the files of a Kafka broker. (OpExport)
type Export struct {
	Topic      string  `json:"topic"`
	Partitions []int32 `json:"partitions,omitempty"` // none: all
	To         string  `json:"to"`                   // absolute
}

// Exported is one partition's directory. (in OpExport's reply)
type Exported struct {
	Dir      string `json:"dir"`
	Segments int    `json:"segments"`
	Batches  int64  `json:"batches"`
	Records  int64  `json:"records"`
	Bytes    int64  `json:"bytes"`
}
