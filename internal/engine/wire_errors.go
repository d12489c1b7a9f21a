package engine

import (
	"context"
	"fmt"
	"io"

	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/internal/vfs"
	codec "github.com/x/embedlog/internal/wire"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// peerErrors are the errors that arrive at another peer as what they were: all that a
// caller of this package branches on. A test compares the list with the source, so that
// a new one is not forgotten.
var peerErrors = func() *codec.Errors {
	e := codec.NewErrors()
	for name, err := range map[string]error{
		"context.Canceled": context.Canceled, "context.DeadlineExceeded": context.DeadlineExceeded,
		"io.EOF": io.EOF, "io.ErrUnexpectedEOF": io.ErrUnexpectedEOF,

		"vfs.ErrFault": vfs.ErrFault,

		"compress.ErrUnknownCodec": compress.ErrUnknownCodec, "compress.ErrCorrupt": compress.ErrCorrupt,
		"compress.ErrTooLarge": compress.ErrTooLarge,

		"ErrClosed": log.ErrClosed, "ErrCorrupt": log.ErrCorrupt, "ErrBadBatch": log.ErrBadBatch,
		"ErrStorageFailed": log.ErrStorageFailed, "ErrNoSpace": log.ErrNoSpace, "ErrLocked": log.ErrLocked,
		"ErrNewerFormat": log.ErrNewerFormat, "ErrOffsetGone": log.ErrOffsetGone, "ErrOffsetAhead": log.ErrOffsetAhead,
		"ErrHeld": log.ErrHeld, "ErrGone": log.ErrGone, "ErrBeyond": log.ErrBeyond, "ErrGroupFull": log.ErrGroupFull,

		"ErrOffsetOutOfRange": partition.ErrOffsetOutOfRange, "ErrRecordTooLarge": partition.ErrRecordTooLarge,
		"ErrNotLeader": partition.ErrNotLeader, "ErrFenced": partition.ErrFenced,
		"ErrOutOfOrderSequence": partition.ErrOutOfOrderSequence, "ErrUnexpectedOffset": partition.ErrUnexpectedOffset,
		"ErrUnknownOutcome": partition.ErrUnknownOutcome, "ErrInvalidTxnState": partition.ErrInvalidTxnState,
		"ErrInvalidRecord": partition.ErrInvalidRecord, "ErrLineBroken": partition.ErrLineBroken, "ErrReplicated": partition.ErrReplicated,

		"ErrUnknownTopic": ErrUnknownTopic, "ErrUnknownPartition": ErrUnknownPartition, "ErrTopicExists": ErrTopicExists,
		"ErrInvalidTopic": ErrInvalidTopic, "ErrWrongDirectory": ErrWrongDirectory, "ErrPeerUnreachable": ErrPeerUnreachable, "ErrCoordinatorLoading": ErrCoordinatorLoading,
		"ErrNoHandler":      ErrNoHandler,
		"ErrInvalidSetting": ErrInvalidSetting, "ErrNotEmpty": ErrNotEmpty,
		"ErrUnknownUser": ErrUnknownUser, "ErrInvalidUser": ErrInvalidUser, "ErrInvalidACL": ErrInvalidACL,
		"ErrInvalidQuota": ErrInvalidQuota,

		"ErrUnknownNode": ErrUnknownNode, "ErrInvalidNode": ErrInvalidNode, "ErrNotRecoverable": ErrNotRecoverable, "ErrNoReassignment": ErrNoReassignment, "ErrReplicaLost": ErrReplicaLost,
		"ErrNotYet": ErrNotYet, "ErrNodeRemoved": ErrNodeRemoved,
		"ErrInvalidReplicationFactor": ErrInvalidReplicationFactor, "ErrInvalidAssignment": ErrInvalidAssignment,

		"ErrUnknownMember": ErrUnknownMember, "ErrRebalance": ErrRebalance, "ErrUnknownGroup": ErrUnknownGroup,
		"ErrGroupNotEmpty": ErrGroupNotEmpty, "ErrInvalidGroup": ErrInvalidGroup, "ErrInvalidMember": ErrInvalidMember,
		"ErrInvalidRegex": ErrInvalidRegex, "ErrUnsupportedAssignor": ErrUnsupportedAssignor,
		"ErrInstanceInUse": ErrInstanceInUse, "ErrFencedInstance": ErrFencedInstance, "ErrPositionLost": ErrPositionLost,
		"ErrUnstableOffset": ErrUnstableOffset, "ErrInvalidCommit": ErrInvalidCommit, "ErrInvalidReset": ErrInvalidReset,

		"ErrMemberIDRequired": ErrMemberIDRequired, "ErrIllegalGeneration": ErrIllegalGeneration,
		"ErrRebalancing": ErrRebalancing, "ErrInconsistentProtocol": ErrInconsistentProtocol,
		"ErrSessionTimeout": ErrSessionTimeout, "ErrGroupMaxSize": ErrGroupMaxSize, "ErrGroupType": ErrGroupType,

		"ErrInvalidAck": ErrInvalidAck, "ErrNotAcquired": ErrNotAcquired,
		"ErrShareSessionNotFound": ErrShareSessionNotFound, "ErrShareSessionEpoch": ErrShareSessionEpoch,
		"ErrShareSessionLimit": ErrShareSessionLimit,

		"ErrTxnAborted": ErrTxnAborted, "ErrConcurrentTransactions": ErrConcurrentTransactions,
		"ErrProducerMapping": ErrProducerMapping, "ErrInvalidTimeout": ErrInvalidTimeout,
		"ErrInvalidTransactionalID": ErrInvalidTransactionalID,
	} {
		e.Sentinel(name, err)
	}
	e.Type(
		&log.LockedError{}, &log.CapError{}, &log.CorruptionError{}, &log.BadBatchError{}, &log.BadRecordsError{},
		&vfs.FaultError{}, &vfs.QuotaError{},

		&partition.OffsetOutOfRangeError{}, &partition.RecordTooLargeError{}, &partition.NotLeaderError{},
		&partition.FencedError{}, &partition.OutOfOrderSequenceError{}, &partition.UnexpectedOffsetError{},
		&partition.UnknownOutcomeError{}, &partition.InvalidTxnStateError{}, &partition.InvalidRecordError{},

		&UnknownTopicError{}, &UnknownPartitionError{}, &TopicExistsError{}, &InvalidTopicError{}, &WrongDirectoryError{},
		&InvalidSettingError{}, &NotEmptyError{}, &UnknownUserError{}, &InvalidUserError{}, &InvalidACLError{}, &InvalidQuotaError{},

		&UnknownNodeError{}, &InvalidNodeError{}, &NodeRemovedError{}, &ElsewhereError{}, &ReplicationFactorError{}, &InvalidAssignmentError{},

		&MemberEpochError{}, &NotOwnerError{}, &InvalidMemberError{}, &InvalidRegexError{}, &PositionLostError{},
		&CommitError{}, &InvalidCommitError{}, &InvalidResetError{},

		&MemberIDRequiredError{}, &GenerationError{}, &InconsistentProtocolError{}, &SessionTimeoutError{}, &GroupTypeError{},
		&InvalidAckError{}, &NotAcquiredError{},

		&TxnAbortedError{}, &TxnFencedError{}, &ConcurrentTransactionsError{}, &TxnStateError{}, &ProducerMappingError{},
		&TxnTimeoutError{}, &TxnUnknownOutcomeError{},
	)
	return e
}()

// peerCodec is what requests, answers and errors between peers are encoded with.
var peerCodec = codec.Codec{Errors: peerErrors}

// EncodeError is an error as it is sent to a peer, of a few KiB at most beside the fields of
// its types. DecodeError makes it what errors.Is and errors.As find the same in: all that
// the packages log, partition and engine name, and the errors of a context. The rest
// arrives as text.
func EncodeError(dst []byte, err error) []byte { return peerCodec.AppendError(dst, err) }

// DecodeError reads what EncodeError wrote; nil bytes are no error.
func DecodeError(b []byte) error {
	err, bad := peerCodec.DecodeError(b)
	if bad != nil {
		return fmt.Errorf("an error of a peer that cannot be read: %w", bad)
	}
	return err
}
