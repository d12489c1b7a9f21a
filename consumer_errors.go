package embedlog

import "github.com/x/embedlog/internal/engine"

// What consumers and groups fail with.
var (
	// ErrRebalance says that partitions have changed hands: what was marked in them and
	// not committed is read again by who has them now.
	ErrRebalance = engine.ErrRebalance
	// ErrUnknownMember says that the group goes on without the consumer.
	ErrUnknownMember = engine.ErrUnknownMember
	// ErrUnknownGroup says that there is no such group.
	ErrUnknownGroup = engine.ErrUnknownGroup
	// ErrGroupNotEmpty says that the group has members, which must leave first.
	ErrGroupNotEmpty = engine.ErrGroupNotEmpty
	// ErrGroupType is matched by *GroupTypeError: the group cannot be shared with its
	// members, who are no consumers.
	ErrGroupType = engine.ErrGroupType
	// ErrGroupMaxSize says that the group has as many members as it may.
	ErrGroupMaxSize = engine.ErrGroupMaxSize
	// ErrInvalidGroup says that a group's name is empty or too long.
	ErrInvalidGroup = engine.ErrInvalidGroup
	// ErrInstanceInUse says that a static member with the same instance id is there.
	ErrInstanceInUse = engine.ErrInstanceInUse
	// ErrUnstableOffset says that a transaction which commits the offset is not decided.
	// The same call succeeds when it is.
	ErrUnstableOffset = engine.ErrUnstableOffset
	// ErrPositionLost says that records before a committed offset were lost, with the
	// power at a weak level: reading goes on where what is left ends.
	ErrPositionLost = engine.ErrPositionLost
)

// CommitError lists the offsets that were not committed. All others were.
type CommitError = engine.CommitError
