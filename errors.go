package embedlog

import (
	"context"
	"errors"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// What a caller branches on. Errors match them with errors.Is; the typed errors
// below carry the place and the numbers.
var (
	// ErrClosed says that the handle, or the database, was closed. Nothing was done.
	ErrClosed = log.ErrClosed
	// ErrLocked is matched by *LockedError: somebody else has the directory open.
	ErrLocked = log.ErrLocked
	// ErrNewerFormat says that a newer version wrote the directory. Nothing was changed.
	ErrNewerFormat = log.ErrNewerFormat
	// ErrCorrupt is matched by *CorruptionError: bytes that were durable are damaged.
	ErrCorrupt = log.ErrCorrupt
	// ErrBadBatch is matched by *BadBatchError: a stored batch that does not parse.
	ErrBadBatch = log.ErrBadBatch
	// ErrStorageFailed says that a write or sync failed so that the end of a partition
	// is not known. It takes no records until the database is opened again.
	ErrStorageFailed = log.ErrStorageFailed
	// ErrNoSpace says that the disk, or a cap on it, is full. Nothing was written; the
	// same call succeeds when there is room.
	ErrNoSpace = log.ErrNoSpace

	// ErrOffsetOutOfRange is matched by *OffsetOutOfRangeError.
	ErrOffsetOutOfRange = partition.ErrOffsetOutOfRange
	// ErrRecordTooLarge is matched by *RecordTooLargeError. Nothing was written.
	ErrRecordTooLarge = partition.ErrRecordTooLarge
	// ErrInvalidRecord is matched by *InvalidRecordError. Nothing was written.
	ErrInvalidRecord = partition.ErrInvalidRecord
	// ErrNotLeader is matched by *NotLeaderError. Nothing was written.
	ErrNotLeader = partition.ErrNotLeader
	// ErrReplicated says that the database is a member of a cluster and was opened by
	// itself. What it holds is not to be changed then.
	ErrReplicated = partition.ErrReplicated
	// ErrFenced is matched by *FencedError: a newer producer has taken over.
	ErrFenced = partition.ErrFenced
	// ErrOutOfOrderSequence is matched by *OutOfOrderSequenceError.
	ErrOutOfOrderSequence = partition.ErrOutOfOrderSequence
	// ErrUnexpectedOffset is matched by *UnexpectedOffsetError: somebody else was
	// faster. Nothing was written.
	ErrUnexpectedOffset = partition.ErrUnexpectedOffset
	// ErrUnknownOutcome is matched by *UnknownOutcomeError: the records may be there
	// or not, now or after a restart. It is not a failure.
	ErrUnknownOutcome = partition.ErrUnknownOutcome
	// ErrInvalidTxnState is matched by *InvalidTxnStateError.
	ErrInvalidTxnState = partition.ErrInvalidTxnState

	// ErrWrongDirectory is matched by *WrongDirectoryError. Nothing was changed.
	ErrWrongDirectory = engine.ErrWrongDirectory
	// ErrUnknownTopic is matched by *UnknownTopicError.
	ErrUnknownTopic = engine.ErrUnknownTopic
	// ErrUnknownPartition is matched by *UnknownPartitionError.
	ErrUnknownPartition = engine.ErrUnknownPartition
	// ErrTopicExists is matched by *TopicExistsError.
	ErrTopicExists = engine.ErrTopicExists
	// ErrInvalidTopic is matched by *InvalidTopicError.
	ErrInvalidTopic = engine.ErrInvalidTopic
	// ErrInvalidSetting is matched by *InvalidSettingError. Nothing was changed.
	ErrInvalidSetting = engine.ErrInvalidSetting
	// ErrInvalidReplicationFactor is matched by *ReplicationFactorError. Nothing was changed.
	ErrInvalidReplicationFactor = engine.ErrInvalidReplicationFactor
	// ErrInvalidAssignment is matched by *InvalidAssignmentError. Nothing was changed.
	ErrInvalidAssignment = engine.ErrInvalidAssignment
	// ErrUnknownNode is matched by *UnknownNodeError.
	ErrUnknownNode = engine.ErrUnknownNode
	// ErrNotRecoverable says that Cluster.Recover is not needed, or not so, or not here.
	ErrNotRecoverable = engine.ErrNotRecoverable
	// ErrNoReassignment says that a partition's replicas are where they are to be.
	ErrNoReassignment = engine.ErrNoReassignment
	// ErrInvalidNode is matched by *InvalidNodeError.
	ErrInvalidNode = engine.ErrInvalidNode
	// ErrNodeRemoved is matched by *NodeRemovedError: this node was removed from its cluster, and nobody serves it any more.
	ErrNodeRemoved = engine.ErrNodeRemoved
	// ErrPeerUnreachable says that another node of the cluster could not be reached, and
	// was asked nothing.
	ErrPeerUnreachable = engine.ErrPeerUnreachable
	// ErrCoordinatorLoading says that the node which coordinates a group or a transaction has
	// only come to it, or is not known. The same call succeeds a little later.
	ErrCoordinatorLoading = engine.ErrCoordinatorLoading
	// ErrFencedInstance says that another member has taken the instance id over.
	ErrFencedInstance = engine.ErrFencedInstance
	// ErrInvalidMember is matched by *InvalidMemberError.
	ErrInvalidMember = engine.ErrInvalidMember
	// ErrInvalidRegex is matched by *InvalidRegexError: a pattern of topics that does
	// not parse.
	ErrInvalidRegex = engine.ErrInvalidRegex
	// ErrProducerMapping is matched by *ProducerMappingError: a transactional id that
	// is not known any more.
	ErrProducerMapping = engine.ErrProducerMapping
	// ErrInvalidTimeout is matched by *TxnTimeoutError.
	ErrInvalidTimeout = engine.ErrInvalidTimeout
	// ErrInvalidTransactionalID says that a transactional id is too long or no text.
	ErrInvalidTransactionalID = engine.ErrInvalidTransactionalID
	// ErrUnknownUser is matched by *UnknownUserError.
	ErrUnknownUser = engine.ErrUnknownUser
	// ErrInvalidUser is matched by *InvalidUserError. Nothing was changed.
	ErrInvalidUser = engine.ErrInvalidUser
	// ErrInvalidACL is matched by *InvalidACLError. Nothing was changed.
	ErrInvalidACL = engine.ErrInvalidACL
	// ErrInvalidQuota is matched by *InvalidQuotaError. Nothing was changed.
	ErrInvalidQuota = engine.ErrInvalidQuota

	// ErrTopicDiffers is matched by *TopicDiffersError. Nothing was changed.
	ErrTopicDiffers = errors.New("embedlog: topic differs from what was asked for")
)

// The typed errors of the storage and of partitions.
type (
	// LockedError says who has the directory open.
	LockedError = log.LockedError
	// CorruptionError is damage: the file, the place in it and the offsets that may be missing.
	CorruptionError = log.CorruptionError
	// BadBatchError is a record batch that does not hold what it claims.
	BadBatchError = log.BadBatchError
	// OffsetOutOfRangeError is an offset that the partition does not have, and those it has.
	OffsetOutOfRangeError = partition.OffsetOutOfRangeError
	// RecordTooLargeError is a record above max.message.bytes.
	RecordTooLargeError = partition.RecordTooLargeError
	// InvalidRecordError says which records the topic's settings, or sense, do not allow.
	InvalidRecordError = partition.InvalidRecordError
	// InvalidRecord says what is wrong with one of them.
	InvalidRecord = partition.InvalidRecord
	// NotLeaderError says which other node leads a partition.
	NotLeaderError = partition.NotLeaderError
	// FencedError has the epochs of the producer that was replaced.
	FencedError = partition.FencedError
	// OutOfOrderSequenceError has the sequence that was expected.
	OutOfOrderSequenceError = partition.OutOfOrderSequenceError
	// UnexpectedOffsetError has the offset that the records would have got.
	UnexpectedOffsetError = partition.UnexpectedOffsetError
	// UnknownOutcomeError has the offsets that the records have if they are there.
	UnknownOutcomeError = partition.UnknownOutcomeError
	// InvalidTxnStateError is a write that does not fit the producer's transaction.
	InvalidTxnStateError = partition.InvalidTxnStateError

	// GroupTypeError says why a group of the classic protocol cannot be joined.
	GroupTypeError = engine.GroupTypeError
	// WrongDirectoryError names a directory that holds something else.
	WrongDirectoryError = engine.WrongDirectoryError
	// UnknownTopicError names a topic that is not there, or not any more.
	UnknownTopicError = engine.UnknownTopicError
	// UnknownPartitionError is a partition number that the topic does not have.
	UnknownPartitionError = engine.UnknownPartitionError
	// TopicExistsError is a name that is taken.
	TopicExistsError = engine.TopicExistsError
	// InvalidTopicError is a name that cannot be one, or a change that is not allowed.
	InvalidTopicError = engine.InvalidTopicError
	// ReplicationFactorError is a number of replicas that there cannot be.
	ReplicationFactorError = engine.ReplicationFactorError
	// InvalidAssignmentError says why nodes cannot be the replicas of a partition.
	InvalidAssignmentError = engine.InvalidAssignmentError
	// UnknownNodeError is a node that the cluster does not know.
	UnknownNodeError = engine.UnknownNodeError
	// InvalidNodeError says why a node cannot take part, or cannot be removed.
	InvalidNodeError = engine.InvalidNodeError
	// NodeRemovedError names the node, and who says so.
	NodeRemovedError = engine.NodeRemovedError
	// InvalidSettingError is one setting or option that is not valid, and why.
	InvalidSettingError = engine.InvalidSettingError

	// MemberEpochError is a consumer whose group went on without it.
	MemberEpochError = engine.MemberEpochError
	// NotOwnerError is a commit for a partition that another consumer has.
	NotOwnerError = engine.NotOwnerError
	// InvalidMemberError is what no member of a group may ask for.
	InvalidMemberError = engine.InvalidMemberError
	// InvalidRegexError is a pattern that package regexp does not understand.
	InvalidRegexError = engine.InvalidRegexError
	// CommitFailure is why one offset was not committed.
	CommitFailure = engine.CommitFailure
	// InvalidCommitError is an offset or its metadata that cannot be committed.
	InvalidCommitError = engine.InvalidCommitError
	// InvalidResetError is a reset that does not say what it wants.
	InvalidResetError = engine.InvalidResetError
	// TxnStateError is a call that does not fit the state of the transaction.
	TxnStateError = engine.TxnStateError
	// TxnTimeoutError is a timeout that is not allowed, and the longest that is.
	TxnTimeoutError = engine.TxnTimeoutError
	// UnknownUserError names a user, or a mechanism that he has no credential for.
	UnknownUserError = engine.UnknownUserError
	// InvalidUserError says why there can be no such user, or no such credential.
	InvalidUserError = engine.InvalidUserError
	// InvalidACLError says why there can be no such ACL.
	InvalidACLError = engine.InvalidACLError
	// InvalidQuotaError says why there can be no such quota.
	InvalidQuotaError = engine.InvalidQuotaError
	// ProducerMappingError is a producer id that is not the transactional id's.
	ProducerMappingError = engine.ProducerMappingError
)

// IsRetriable says whether the same call may succeed when it is made again later,
// and does no harm: nothing of it was done, and what was in the way can pass by
// itself. An error that matches ErrUnknownOutcome is not: the records may be there.
func IsRetriable(err error) bool {
	if err == nil || errors.Is(err, ErrUnknownOutcome) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var some *ProduceError
	if errors.As(err, &some) {
		for _, err := range some.Errs {
			if !IsRetriable(err) { // nil is written
				return false
			}
		}
		return true
	}
	return retriable(err)
}

func retriable(err error) bool {
	for _, target := range retriableErrors {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// retriableErrors can pass by themselves: when there is room, another leader, the
// holder of a lock or an instance id is gone, a transaction has ended, or a peer is back.
var retriableErrors = []error{ErrNoSpace, ErrNotLeader, ErrLocked, ErrInstanceInUse, ErrUnstableOffset, ErrConcurrentTransactions, ErrPeerUnreachable, ErrCoordinatorLoading}
