package engine

import (
	"errors"
	"fmt"
	"strings"
)

// What a caller of groups branches on.
var (
	// ErrUnknownMember says that the group does not have the member (any more): it
	// owns nothing, and joins anew with epoch 0.
	ErrUnknownMember = errors.New("embedlog: unknown group member")
	// ErrRebalance is matched by *MemberEpochError and *NotOwnerError: partitions have
	// changed hands since.
	ErrRebalance = errors.New("embedlog: the group has rebalanced")
	// ErrUnknownGroup says that there is no such group.
	ErrUnknownGroup = errors.New("embedlog: unknown group")
	// ErrGroupNotEmpty says that the group has members, which must leave first.
	ErrGroupNotEmpty = errors.New("embedlog: group is not empty")
	// ErrInvalidGroup says that a group's name is empty or too long.
	ErrInvalidGroup = errors.New("embedlog: invalid group name")
	// ErrInvalidMember is matched by *InvalidMemberError.
	ErrInvalidMember = errors.New("embedlog: invalid group member")
	// ErrInvalidRegex is matched by *InvalidRegexError.
	ErrInvalidRegex = errors.New("embedlog: invalid regular expression")
	// ErrUnsupportedAssignor says that an assignor was asked for that there is not.
	ErrUnsupportedAssignor = errors.New("embedlog: unsupported assignor")
	// ErrInstanceInUse says that a static member with the same instance id is there and
	// has not left.
	ErrInstanceInUse = errors.New("embedlog: instance id is in use")
	// ErrFencedInstance says that another member has taken the instance id over.
	ErrFencedInstance = errors.New("embedlog: instance id was taken over")
	// ErrPositionLost is matched by *PositionLostError.
	ErrPositionLost = errors.New("embedlog: committed position is past what is left of the log")
	// ErrUnstableOffset says that a transaction which commits the offset is not decided.
	ErrUnstableOffset = errors.New("embedlog: offset is in an open transaction")
	// ErrInvalidCommit is matched by *InvalidCommitError.
	ErrInvalidCommit = errors.New("embedlog: invalid offset commit")
	// ErrInvalidReset is matched by *InvalidResetError.
	ErrInvalidReset = errors.New("embedlog: invalid reset")
)

// MemberEpochError is a call with a member epoch that is not the current one.
type MemberEpochError struct {
	Group, MemberID string
	Epoch           int32 // the call's
	Current         int32
}

func (e *MemberEpochError) Error() string {
	return fmt.Sprintf("group %q: member %q has epoch %d, the call has %d: partitions may have changed hands", e.Group, e.MemberID, e.Current, e.Epoch)
}

// Is matches ErrRebalance.
func (e *MemberEpochError) Is(target error) bool { return target == ErrRebalance }

// NotOwnerError is a commit for a partition that another member has.
type NotOwnerError struct {
	Group, MemberID, Owner string
	Epoch                  int32 // the owner's when it got the partition
}

func (e *NotOwnerError) Error() string {
	return fmt.Sprintf("group %q: member %q has the partition since epoch %d, not %q", e.Group, e.Owner, e.Epoch, e.MemberID)
}

// Is matches ErrRebalance.
func (e *NotOwnerError) Is(target error) bool { return target == ErrRebalance }

// InvalidMemberError is a heartbeat that no member may send.
type InvalidMemberError struct{ Group, MemberID, Reason string }

func (e *InvalidMemberError) Error() string {
	return fmt.Sprintf("group %q: member %q: %s", e.Group, e.MemberID, e.Reason)
}

// Is matches ErrInvalidMember.
func (e *InvalidMemberError) Is(target error) bool { return target == ErrInvalidMember }

// InvalidRegexError is a subscription that package regexp does not understand.
type InvalidRegexError struct {
	Regex string
	Cause error
}

func (e *InvalidRegexError) Error() string {
	return fmt.Sprintf("subscription by %q: %v", e.Regex, e.Cause)
}

// Is matches ErrInvalidRegex.
func (e *InvalidRegexError) Is(target error) bool { return target == ErrInvalidRegex }

// Unwrap returns the cause.
func (e *InvalidRegexError) Unwrap() error { return e.Cause }

// PositionLostError says that a group had consumed records that are no longer
// there: the log lost its end, at a weak level, and may have grown again since.
type PositionLostError struct {
	Group, Topic string
	Partition    int32
	Offset       int64 // that was committed
	LeaderEpoch  int32 // of the last record consumed
	End          int64 // where that epoch's records end now: where reading goes on
}

func (e *PositionLostError) Error() string {
	return fmt.Sprintf("group %q: %s/%d: committed at %d in epoch %d, whose records end at %d: the log has lost its end, reading goes on at %d",
		e.Group, e.Topic, e.Partition, e.Offset, e.LeaderEpoch, e.End, e.End)
}

// Is matches ErrPositionLost.
func (e *PositionLostError) Is(target error) bool { return target == ErrPositionLost }

// CommitFailure is why one offset was not committed.
type CommitFailure struct {
	Index     int // within CommitRequest.Offsets
	Topic     string
	TopicID   TopicID
	Partition int32
	Err       error
}

// CommitError lists the offsets that were not committed. All others were.
type CommitError struct {
	Group    string
	Failures []CommitFailure
}

func (e *CommitError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "commit of group %q:", e.Group)
	for i, f := range e.Failures {
		if i == 3 {
			fmt.Fprintf(&b, " and %d more", len(e.Failures)-i)
			break
		}
		name := f.Topic
		if name == "" {
			name = f.TopicID.String()
		}
		fmt.Fprintf(&b, " %s/%d: %v;", name, f.Partition, f.Err)
	}
	return strings.TrimSuffix(b.String(), ";")
}

// Unwrap returns the causes.
func (e *CommitError) Unwrap() []error {
	list := make([]error, len(e.Failures))
	for i, f := range e.Failures {
		list[i] = f.Err
	}
	return list
}

// InvalidCommitError is an offset or its metadata that cannot be committed.
type InvalidCommitError struct{ Reason string }

func (e *InvalidCommitError) Error() string { return "offset commit: " + e.Reason }

// Is matches ErrInvalidCommit.
func (e *InvalidCommitError) Is(target error) bool { return target == ErrInvalidCommit }

// InvalidResetError is a reset that does not say what it wants.
type InvalidResetError struct{ Reason string }

func (e *InvalidResetError) Error() string { return "reset of offsets: " + e.Reason }

// Is matches ErrInvalidReset.
func (e *InvalidResetError) Is(target error) bool { return target == ErrInvalidReset }
