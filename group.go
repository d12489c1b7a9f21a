package embedlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/x/embedlog/internal/engine"
)

// What operations on groups fail with, besides what consumers do.
var (
	// ErrInvalidReset says that a ResetSpec does not say where to, or says it twice.
	ErrInvalidReset = engine.ErrInvalidReset
	// ErrInvalidCommit says that an offset is negative, or its metadata too long.
	ErrInvalidCommit = engine.ErrInvalidCommit
)

// PositionLostError says which position a group had, the Offset and LeaderEpoch that
// were committed, and where it goes on: at End.
type PositionLostError = engine.PositionLostError

// GroupState is what a group is doing.
type GroupState = engine.GroupState

// The states of a group.
const (
	GroupEmpty       = engine.GroupEmpty       // it has no members
	GroupReconciling = engine.GroupReconciling // partitions are changing hands
	GroupStable      = engine.GroupStable      // every member has what is for it

	GroupPreparingRebalance  = engine.GroupPreparingRebalance  // classic: members join the next generation
	GroupCompletingRebalance = engine.GroupCompletingRebalance // classic: its leader assigns
)

// GroupType says who assigns partitions in a group.
type GroupType = engine.GroupType

// The types of groups. One without members becomes what its next member needs, but for a share group.
const (
	GroupTypeConsumer = engine.GroupTypeConsumer // the database assigns: the type of Consumer
	GroupTypeClassic  = engine.GroupTypeClassic  // a member does; also a group that has offsets only
	GroupTypeShare    = engine.GroupTypeShare    // the database does, and members share records, not partitions: Kafka clients only
)

// GroupListing is one line about a group: its name (Group), Type, State and number of
// Members.
type GroupListing = engine.GroupListing

// GroupInfo is all about a consumer group.
type GroupInfo struct {
	Group string
	Type  GroupType
	State GroupState
	// Epoch grows with each assignment, also over restarts. Zero: it never had a member.
	Epoch      int32
	Members    []GroupMember    // by id
	Partitions []GroupPartition // those committed or assigned, by topic and number
}

// GroupMember is a consumer that is a member of a group.
type GroupMember struct {
	MemberID             string
	InstanceID, ClientID string
	Classic              bool   // it speaks the classic protocol
	ClientHost           string // of a member from outside of the process
	Epoch                int32  // that of the group once the member has caught up; -2 while a static member is away
	Topics               []string
	Pattern              string
	// Assigned and Target are what it has and what it will have, with the numbers of
	// partitions by topic.
	Assigned, Target map[string][]int32
	LastSeen         time.Time
}

// GroupPartition is how far a group is in a partition.
type GroupPartition struct {
	Topic     string
	Partition int32
	// Committed is the offset of the next record that the group reads; -1 when it has
	// committed nothing. In a share group everything below is done, and of what follows
	// Lag does not count what is.
	Committed   int64
	LeaderEpoch int32 // of the record before it; -1 when not known
	Metadata    string
	CommitTime  time.Time
	// LogStart and HighWatermark bound the records that there are; -1 when the
	// partition does not open.
	LogStart, HighWatermark int64
	Lag                     int64  // records there are to be read; -1 when not known
	MemberID                string // who reads it; empty when nobody does
	// Lost is not nil when records before the committed position were lost: Committed
	// is then where the group goes on.
	Lost *PositionLostError
}

// Groups lists the consumer groups, by name.
func (db *DB) Groups(ctx context.Context) ([]GroupListing, error) {
	return db.engine.AnyGroups().List(ctx)
}

// DescribeGroup returns all about a group: its members, and its lag in each
// partition. It fails with ErrUnknownGroup.
func (db *DB) DescribeGroup(ctx context.Context, group string) (GroupInfo, error) {
	d, err := db.engine.AnyGroups().Describe(ctx, group)
	if err != nil {
		return GroupInfo{}, err
	}
	info := GroupInfo{Group: d.Group, Type: d.Type, State: d.State, Epoch: d.Epoch}
	for i := range d.Members {
		m := &d.Members[i]
		info.Members = append(info.Members, GroupMember{
			MemberID: m.MemberID, InstanceID: m.InstanceID, ClientID: m.ClientID, Classic: m.Classic, ClientHost: m.ClientHost, Epoch: m.Epoch,
			Topics: m.Topics, Pattern: m.Regex, Assigned: db.partitionNames(m.Assigned, m.Revoking), Target: db.partitionNames(m.Target),
			LastSeen: m.LastSeen,
		})
	}
	for i := range d.Partitions {
		p := &d.Partitions[i]
		info.Partitions = append(info.Partitions, GroupPartition{
			Topic: p.Topic, Partition: p.Partition, Committed: p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: p.Metadata,
			CommitTime: p.CommitTime, LogStart: p.LogStart, HighWatermark: p.HighWatermark, Lag: p.Lag, MemberID: p.MemberID, Lost: p.Lost,
		})
	}
	return info, nil
}

// partitionNames leaves topics out that were deleted meanwhile.
func (db *DB) partitionNames(lists ...[]engine.TopicPartitions) map[string][]int32 {
	names := make(map[string][]int32)
	for _, list := range lists {
		for _, tp := range list {
			if t, err := db.engine.TopicByID(tp.Topic); err == nil {
				names[t.Name()] = append(names[t.Name()], tp.Partitions...)
			}
		}
	}
	return names
}

// ResetSpec says which offsets of a group are reset, and where to. Exactly one of
// To, ShiftBy, ByDuration and Current is set.
type ResetSpec struct {
	// Topics are whose partitions are reset. None means all that the group has committed.
	Topics []string
	// Partitions are the numbers in each of Topics. None means all.
	Partitions []int32
	// To is Earliest, Latest, AtTime or AtOffset.
	To OffsetSpec
	// ShiftBy is so many records further than where the group is, or back if negative.
	ShiftBy int64
	// ByDuration is the first record of the time before now.
	ByDuration time.Duration
	// Current is where the group is, brought into the log's range, and the end of the log
	// where it has committed nothing.
	Current bool
	// DryRun only answers what would be done.
	DryRun bool
}

// ResetResult is one offset that was reset, or would be.
type ResetResult struct {
	Topic     string
	Partition int32
	Before    int64 // -1: none was committed
	Wanted    int64 // what the spec came to
	// Committed is where the group goes on: Wanted, brought into the range from LogStart
	// to HighWatermark.
	Committed               int64
	LogStart, HighWatermark int64
}

// Clamped reports whether the offset that was wanted is not in the log, so that
// another one was committed.
func (r ResetResult) Clamped() bool { return r.Wanted != r.Committed }

// ResetGroup moves the offsets of a group, all of them or none, and returns what it
// moved by topic and partition. It fails with ErrGroupNotEmpty while the group has
// members: they would go on where they are. Naming topics makes a group that there
// is not.
func (db *DB) ResetGroup(ctx context.Context, group string, spec ResetSpec) ([]ResetResult, error) {
	req, err := db.resetRequest(ctx, &spec)
	if err != nil {
		return nil, fmt.Errorf("reset offsets of group %q: %w", group, err)
	}
	list, err := db.engine.AnyGroups().Reset(ctx, group, req)
	if err != nil {
		return nil, err
	}
	results := make([]ResetResult, len(list))
	for i, r := range list {
		results[i] = ResetResult{
			Topic: r.Topic, Partition: r.Partition, Before: r.Before, Wanted: r.Wanted, Committed: r.Offset,
			LogStart: r.LogStart, HighWatermark: r.HighWatermark,
		}
	}
	return results, nil
}

func (db *DB) resetRequest(ctx context.Context, spec *ResetSpec) (req engine.ResetRequest, err error) {
	req = engine.ResetRequest{DryRun: spec.DryRun}
	var errs []error
	bad := func(reason string) { errs = append(errs, &engine.InvalidResetError{Reason: reason}) }
	if len(spec.Partitions) > 0 && len(spec.Topics) == 0 {
		bad("partitions are given without a topic")
	}
	if len(spec.Partitions) == 0 {
		req.Topics = spec.Topics
	} else {
		for _, name := range spec.Topics {
			t, err := db.engine.FindTopic(ctx, name)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			req.Partitions = append(req.Partitions, engine.TopicPartitions{Topic: t.ID(), Partitions: spec.Partitions})
		}
	}
	targets := 0
	set := func(given bool, kind engine.ResetKind) {
		if given {
			targets++
			req.Kind = kind
		}
	}
	switch spec.To.kind {
	case specEarliest:
		set(true, engine.ResetEarliest)
	case specLatest:
		set(true, engine.ResetLatest)
	case specOffset:
		req.Offset = spec.To.value
		set(true, engine.ResetOffset)
	case specTime:
		req.Time = time.UnixMilli(spec.To.value)
		set(true, engine.ResetTime)
	case specMaxTimestamp:
		bad("MaxTimestamp is no place to go on from")
	}
	if spec.ShiftBy != 0 {
		req.Offset = spec.ShiftBy
	}
	req.Duration = spec.ByDuration
	set(spec.ShiftBy != 0, engine.ResetShift)
	set(spec.ByDuration != 0, engine.ResetDuration)
	set(spec.Current, engine.ResetCurrent)
	if targets != 1 {
		bad(fmt.Sprintf("exactly one of To, ShiftBy, ByDuration and Current says where to, and %d are set", targets))
	}
	return req, errors.Join(errs...)
}

// DeleteGroup deletes a group and its offsets. It fails with ErrGroupNotEmpty while
// the group has members, and with ErrUnknownGroup.
func (db *DB) DeleteGroup(ctx context.Context, group string) error {
	return db.engine.AnyGroups().Delete(ctx, group)
}

// DeleteGroupOffsets deletes what a group has committed for partitions of a topic,
// or for all of them when none is named. It fails with ErrGroupNotEmpty while a
// member subscribes to the topic.
func (db *DB) DeleteGroupOffsets(ctx context.Context, group, topic string, partitions ...int32) error {
	t, err := db.engine.FindTopic(ctx, topic)
	if err != nil {
		return fmt.Errorf("delete offsets of group %q: %w", group, err)
	}
	if len(partitions) == 0 {
		for _, p := range t.Partitions() {
			partitions = append(partitions, p.ID())
		}
	}
	return db.engine.AnyGroups().DeleteOffsets(ctx, group, []engine.TopicPartitions{{Topic: t.ID(), Partitions: partitions}})
}

// CommitPositions commits where a group goes on reading: each position is that of
// the next record. It is for who reads without being a member, and fails with
// ErrGroupNotEmpty while the group has any. Positions that cannot be committed are
// listed in a *CommitError; the others are durable.
func (db *DB) CommitPositions(ctx context.Context, group string, positions ...Position) error {
	req := engine.CommitRequest{Group: group, MemberEpoch: -1}
	for _, p := range positions {
		req.Offsets = append(req.Offsets, engine.OffsetCommit{Topic: p.Topic, Partition: p.Partition, Offset: p.Offset, LeaderEpoch: p.LeaderEpoch})
	}
	return db.engine.AnyGroups().Commit(ctx, req)
}
