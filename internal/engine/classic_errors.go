package engine

import (
	"errors"
	"fmt"
	"time"
)

// What a caller of the classic protocol branches on, besides ErrUnknownMember and
// ErrFencedInstance.
var (
	// ErrMemberIDRequired is matched by *MemberIDRequiredError.
	ErrMemberIDRequired = errors.New("embedlog: member id is required")
	// ErrIllegalGeneration is matched by *GenerationError.
	ErrIllegalGeneration = errors.New("embedlog: the group has another generation")
	// ErrRebalancing says that the group is making its next generation: the member
	// joins again.
	ErrRebalancing = errors.New("embedlog: the group is rebalancing")
	// ErrInconsistentProtocol is matched by *InconsistentProtocolError.
	ErrInconsistentProtocol = errors.New("embedlog: inconsistent group protocol")
	// ErrSessionTimeout is matched by *SessionTimeoutError.
	ErrSessionTimeout = errors.New("embedlog: invalid session timeout")
	// ErrGroupMaxSize says that the group has as many members as it may.
	ErrGroupMaxSize = errors.New("embedlog: group has the most members that are allowed")
	// ErrGroupType is matched by *GroupTypeError.
	ErrGroupType = errors.New("embedlog: group is of another type")
)

// MemberIDRequiredError says with which id a member is to join again. It is no
// member yet.
type MemberIDRequiredError struct{ Group, MemberID string }

func (e *MemberIDRequiredError) Error() string {
	return fmt.Sprintf("group %q: join again as member %q", e.Group, e.MemberID)
}

// Is matches ErrMemberIDRequired.
func (e *MemberIDRequiredError) Is(target error) bool { return target == ErrMemberIDRequired }

// GenerationError is a call of a classic member with a generation that is not its
// group's: it joins again. It does not match ErrRebalance, which is for members with
// an epoch.
type GenerationError struct {
	Group, MemberID string
	Generation      int32 // the call's
	Current         int32
}

func (e *GenerationError) Error() string {
	return fmt.Sprintf("group %q: member %q is in generation %d, the group in %d", e.Group, e.MemberID, e.Generation, e.Current)
}

// Is matches ErrIllegalGeneration.
func (e *GenerationError) Is(target error) bool { return target == ErrIllegalGeneration }

// InconsistentProtocolError is a member whose protocols do not go with the group's.
type InconsistentProtocolError struct{ Group, Reason string }

func (e *InconsistentProtocolError) Error() string {
	return fmt.Sprintf("group %q: %s", e.Group, e.Reason)
}

// Is matches ErrInconsistentProtocol.
func (e *InconsistentProtocolError) Is(target error) bool { return target == ErrInconsistentProtocol }

// SessionTimeoutError is a session timeout out of the range that the options allow.
type SessionTimeoutError struct{ Timeout, Min, Max time.Duration }

func (e *SessionTimeoutError) Error() string {
	return fmt.Sprintf("session timeout is %v, from %v to %v is allowed", e.Timeout, e.Min, e.Max)
}

// Is matches ErrSessionTimeout.
func (e *SessionTimeoutError) Is(target error) bool { return target == ErrSessionTimeout }

// GroupTypeError is a call that a group of that type does not take: a member with an epoch that
// wants to join a group of classic members which cannot be shared with it, or anything of a
// consumer's to a share group, and the other way round.
type GroupTypeError struct{ Group, Reason string }

func (e *GroupTypeError) Error() string {
	return fmt.Sprintf("group %q is of another type: %s", e.Group, e.Reason)
}

// Is matches ErrGroupType.
func (e *GroupTypeError) Is(target error) bool { return target == ErrGroupType }
