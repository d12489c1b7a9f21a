package kafka

import (
	"context"
	"errors"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/partition"
)

// codes says what a client hears for each sentinel error of the root. The first
// that matches counts: an error that matches several stands at the one that says
// most.
var codes = []struct {
	err  error
	code int16
}{
	// Whether it was done is not known: the client asks again, an idempotent one safely.
	{embedlog.ErrUnknownOutcome, codeRequestTimedOut},

	{embedlog.ErrUnknownTopic, codeUnknownTopicOrPartition},
	{embedlog.ErrUnknownPartition, codeUnknownTopicOrPartition},
	{embedlog.ErrTopicExists, codeTopicAlreadyExists},
	{embedlog.ErrTopicDiffers, codeTopicAlreadyExists},
	{embedlog.ErrInvalidTopic, codeInvalidTopicException},
	{embedlog.ErrInvalidSetting, codeInvalidConfig},
	{embedlog.ErrInvalidReplicationFactor, codeInvalidReplicationFactor},
	{embedlog.ErrInvalidAssignment, codeInvalidReplicaAssignment},
	{embedlog.ErrUnknownNode, codeInvalidReplicaAssignment},
	{embedlog.ErrNodeRemoved, codeNotLeaderOrFollower}, // other nodes serve the client
	{embedlog.ErrInvalidNode, codeInvalidRequest},
	{embedlog.ErrNotRecoverable, codeInvalidRequest},
	{embedlog.ErrNoReassignment, codeNoReassignmentInProgress},

	{embedlog.ErrOffsetOutOfRange, codeOffsetOutOfRange},
	{embedlog.ErrPositionLost, codeOffsetOutOfRange},
	{embedlog.ErrRecordTooLarge, codeMessageTooLarge},
	{embedlog.ErrInvalidRecord, codeInvalidRecord},
	{compress.ErrUnknownCodec, codeUnsupportedCompressionType},
	{embedlog.ErrBadBatch, codeCorruptMessage},
	{embedlog.ErrOutOfOrderSequence, codeOutOfOrderSequenceNumber},
	{embedlog.ErrNotLeader, codeNotLeaderOrFollower},
	{embedlog.ErrCoordinatorLoading, codeCoordinatorLoadInProgress},
	{embedlog.ErrPeerUnreachable, codeNotLeaderOrFollower}, // another one leads before long, or it is back

	{embedlog.ErrTxnAborted, codeProducerFenced},
	{embedlog.ErrFenced, codeInvalidProducerEpoch},
	{embedlog.ErrConcurrentTransactions, codeConcurrentTransactions},
	{embedlog.ErrInvalidTxnState, codeInvalidTxnState},
	{embedlog.ErrTxnEnded, codeInvalidTxnState},
	{embedlog.ErrTransactorEnded, codeProducerFenced},
	{embedlog.ErrProducerMapping, codeInvalidProducerIDMapping},
	{embedlog.ErrInvalidTimeout, codeInvalidTransactionTimeout},
	{embedlog.ErrInvalidTransactionalID, codeInvalidRequest},

	{embedlog.ErrUnknownMember, codeUnknownMemberID},
	{embedlog.ErrRebalance, codeFencedMemberEpoch},
	{embedlog.ErrUnknownGroup, codeGroupIDNotFound},
	{embedlog.ErrGroupNotEmpty, codeNonEmptyGroup},
	{embedlog.ErrInvalidGroup, codeInvalidGroupID},
	{embedlog.ErrInvalidMember, codeInvalidRequest},
	{embedlog.ErrInvalidRegex, codeInvalidRegularExpression},
	{engine.ErrUnsupportedAssignor, codeUnsupportedAssignor},
	{engine.ErrMemberIDRequired, codeMemberIDRequired},
	{engine.ErrIllegalGeneration, codeIllegalGeneration},
	{engine.ErrRebalancing, codeRebalanceInProgress},
	{engine.ErrInconsistentProtocol, codeInconsistentGroupProtocol},
	{engine.ErrSessionTimeout, codeInvalidSessionTimeout},
	{embedlog.ErrGroupMaxSize, codeGroupMaxSizeReached},
	// A member with an epoch asks for a group of its kind, and there is none of that name.
	{embedlog.ErrGroupType, codeGroupIDNotFound},
	{embedlog.ErrInstanceInUse, codeUnreleasedInstanceID},
	{embedlog.ErrFencedInstance, codeFencedInstanceID},
	{embedlog.ErrUnstableOffset, codeUnstableOffsetCommit},
	{embedlog.ErrInvalidCommit, codeInvalidCommitOffsetSize},
	{embedlog.ErrInvalidReset, codeInvalidRequest},
	{embedlog.ErrBusy, codeInvalidRequest},

	{engine.ErrNotAcquired, codeInvalidRecordState},
	{engine.ErrInvalidAck, codeInvalidRequest},
	{engine.ErrShareSessionNotFound, codeShareSessionNotFound},
	{engine.ErrShareSessionEpoch, codeInvalidShareSessionEpoch},
	{engine.ErrShareSessionLimit, codeShareSessionLimitReached},

	{embedlog.ErrUnknownUser, codeResourceNotFound},
	{embedlog.ErrInvalidUser, codeUnacceptableCredential},
	{embedlog.ErrInvalidACL, codeInvalidRequest},
	{embedlog.ErrInvalidQuota, codeInvalidRequest},

	// Clients try these again after a while, and they can pass: a disk gets room, a
	// partition is repaired, a database is opened again.
	{embedlog.ErrNoSpace, codeKafkaStorageError},
	{embedlog.ErrStorageFailed, codeKafkaStorageError},
	{embedlog.ErrCorrupt, codeKafkaStorageError},
	{embedlog.ErrClosed, codeKafkaStorageError},
	{context.DeadlineExceeded, codeRequestTimedOut},
	{context.Canceled, codeRequestTimedOut},

	// No request of a client comes to these.
	{embedlog.ErrUnexpectedOffset, codeUnknownServerError},
	{embedlog.ErrNoHandler, codeUnknownServerError},
	{embedlog.ErrLocked, codeUnknownServerError},
	{embedlog.ErrNewerFormat, codeUnknownServerError},
	{embedlog.ErrWrongDirectory, codeUnknownServerError},
	{embedlog.ErrNotEmpty, codeUnknownServerError},
	{embedlog.ErrNoBackup, codeUnknownServerError},
	{embedlog.ErrReentrant, codeUnknownServerError},
	{embedlog.ErrReplicated, codeUnknownServerError},
}

// codeOf is the error code for an error of the engine.
func codeOf(err error) int16 {
	if err == nil {
		return codeNone
	}
	// Two kinds of being fenced, which are different answers.
	var fenced *partition.FencedError
	if errors.As(err, &fenced) && fenced.Coordinator {
		return codeTransactionCoordinatorFenced
	}
	var id *engine.TxnFencedError
	if errors.As(err, &id) {
		return codeProducerFenced
	}
	for i := range codes {
		if errors.Is(err, codes[i].err) {
			return codes[i].code
		}
	}
	return codeUnknownServerError
}

// coordinatorCodeOf is codeOf for what a coordinator of groups or transactions
// answers: clients look for it again when it is not there.
func coordinatorCodeOf(err error) int16 {
	var own *refusal
	if errors.As(err, &own) {
		return own.code
	}
	switch code := codeOf(err); code {
	case codeKafkaStorageError, codeRequestTimedOut:
		return codeCoordinatorNotAvailable
	case codeNotLeaderOrFollower:
		return codeNotCoordinator
	default:
		return code
	}
}
