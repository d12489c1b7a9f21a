package partition

import (
	"errors"
	"fmt"
	"strings"
)

// What a caller of a partition branches on. Wrapped errors match them with errors.Is.
// Those of the bytes below (closed, corrupt, no space, storage failed) are package log's.
var (
	// ErrOffsetOutOfRange is matched by *OffsetOutOfRangeError.
	ErrOffsetOutOfRange = errors.New("embedlog: offset out of range")
	// ErrRecordTooLarge is matched by *RecordTooLargeError. Nothing was written.
	ErrRecordTooLarge = errors.New("embedlog: record too large")
	// ErrNotLeader is matched by *NotLeaderError. Nothing was written.
	ErrNotLeader = errors.New("embedlog: not the leader")
	// ErrFenced is matched by *FencedError: somebody newer has taken over.
	ErrFenced = errors.New("embedlog: fenced")
	// ErrOutOfOrderSequence is matched by *OutOfOrderSequenceError: records of the
	// producer are missing before this batch, or it is too old to be recognised.
	ErrOutOfOrderSequence = errors.New("embedlog: out of order sequence")
	// ErrUnexpectedOffset is matched by *UnexpectedOffsetError. Nothing was written.
	ErrUnexpectedOffset = errors.New("embedlog: unexpected offset")
	// ErrUnknownOutcome is matched by *UnknownOutcomeError: the records may or may not be there.
	ErrUnknownOutcome = errors.New("embedlog: unknown outcome")
	// ErrInvalidTxnState is matched by *InvalidTxnStateError.
	ErrInvalidTxnState = errors.New("embedlog: invalid transaction state")
	// ErrInvalidRecord is matched by *InvalidRecordError. Nothing was written.
	ErrInvalidRecord = errors.New("embedlog: invalid record")
)

// OffsetOutOfRangeError is a read below the log start offset or past the log end offset.
type OffsetOutOfRangeError struct {
	Offset           int64 // what was asked for
	LogStart, LogEnd int64 // what there is, half-open
}

func (e *OffsetOutOfRangeError) Error() string {
	return fmt.Sprintf("offset %d is outside of the log's %d to %d", e.Offset, e.LogStart, e.LogEnd)
}

// Is matches ErrOffsetOutOfRange.
func (e *OffsetOutOfRangeError) Is(target error) bool { return target == ErrOffsetOutOfRange }

// RecordTooLargeError is a record or batch above a size limit.
type RecordTooLargeError struct {
	Bytes int64 // size of the batch as it would be stored
	Limit int64
}

func (e *RecordTooLargeError) Error() string {
	return fmt.Sprintf("record batch of %d bytes, at most %d are allowed", e.Bytes, e.Limit)
}

// Is matches ErrRecordTooLarge.
func (e *RecordTooLargeError) Is(target error) bool { return target == ErrRecordTooLarge }

// NotLeaderError says that another node leads the partition, and which where it is known.
type NotLeaderError struct {
	Leader      int32  // node id; -1 when nobody leads or it is not known
	LeaderEpoch int32  // the newest leader epoch known here; -1 when none is
	Address     string // where the leader takes calls; empty when not known
}

func (e *NotLeaderError) Error() string {
	if e.Leader < 0 {
		return fmt.Sprintf("no leader is known (leader epoch %d)", e.LeaderEpoch)
	}
	return fmt.Sprintf("node %d leads (leader epoch %d, %q)", e.Leader, e.LeaderEpoch, e.Address)
}

// Is matches ErrNotLeader.
func (e *NotLeaderError) Is(target error) bool { return target == ErrNotLeader }

// FencedError is a write by a producer, or by a transaction coordinator, that a
// newer one of the same name has replaced. The two are different answers to a
// Kafka client: INVALID_PRODUCER_EPOCH and TRANSACTION_COORDINATOR_FENCED.
type FencedError struct {
	ProducerID  int64
	Coordinator bool  // the epochs are those of the coordinator that wrote the marker
	Epoch       int32 // the writer's
	Current     int32 // the newest seen
}

func (e *FencedError) Error() string {
	who := "producer"
	if e.Coordinator {
		who = "transaction coordinator of producer"
	}
	return fmt.Sprintf("%s %d writes with epoch %d, the current one is %d", who, e.ProducerID, e.Epoch, e.Current)
}

// Is matches ErrFenced.
func (e *FencedError) Is(target error) bool { return target == ErrFenced }

// OutOfOrderSequenceError is a batch whose first sequence does not follow the
// producer's last one and that is none of its last five batches.
type OutOfOrderSequenceError struct {
	ProducerID int64
	Epoch      int16
	Sequence   int32 // first of the batch
	Expected   int32
}

func (e *OutOfOrderSequenceError) Error() string {
	return fmt.Sprintf("producer %d epoch %d sends sequence %d, expected is %d", e.ProducerID, e.Epoch, e.Sequence, e.Expected)
}

// Is matches ErrOutOfOrderSequence.
func (e *OutOfOrderSequenceError) Is(target error) bool { return target == ErrOutOfOrderSequence }

// UnexpectedOffsetError is an append that asked for an offset that is not the next one.
type UnexpectedOffsetError struct {
	Expected int64 // by the caller
	LogEnd   int64 // the offset the records would have got
}

func (e *UnexpectedOffsetError) Error() string {
	return fmt.Sprintf("append expected offset %d, the log ends at %d", e.Expected, e.LogEnd)
}

// Is matches ErrUnexpectedOffset.
func (e *UnexpectedOffsetError) Is(target error) bool { return target == ErrUnexpectedOffset }

// UnknownOutcomeError is an append whose records were taken and whose fate is not
// known. It is not a failure: the records may be there, now or after a restart.
type UnknownOutcomeError struct {
	BaseOffset, LastOffset int64 // what the records got, inclusive; -1 when not known
	Err                    error // why the outcome is not known
}

func (e *UnknownOutcomeError) Error() string {
	if e.BaseOffset < 0 {
		return fmt.Sprintf("outcome of the append unknown: %v", e.Err)
	}
	return fmt.Sprintf("outcome of the append of offsets %d to %d unknown: %v", e.BaseOffset, e.LastOffset, e.Err)
}

// Is matches ErrUnknownOutcome.
func (e *UnknownOutcomeError) Is(target error) bool { return target == ErrUnknownOutcome }

// Unwrap returns why the outcome is not known.
func (e *UnknownOutcomeError) Unwrap() error { return e.Err }

// InvalidTxnStateError is a write that does not fit the producer's transaction here.
type InvalidTxnStateError struct {
	ProducerID  int64
	FirstOffset int64 // of the open transaction; -1 when there is none
	Reason      string
}

func (e *InvalidTxnStateError) Error() string {
	if e.FirstOffset < 0 {
		return fmt.Sprintf("producer %d, no open transaction: %s", e.ProducerID, e.Reason)
	}
	return fmt.Sprintf("producer %d, transaction open since offset %d: %s", e.ProducerID, e.FirstOffset, e.Reason)
}

// Is matches ErrInvalidTxnState.
func (e *InvalidTxnStateError) Is(target error) bool { return target == ErrInvalidTxnState }

// InvalidRecord says what is wrong with one record of a batch.
type InvalidRecord struct {
	Index  int // within the batch, from 0; -1 when it is the batch as a whole
	Reason string
}

// InvalidRecordError is a batch that the topic's settings, or sense, do not allow.
type InvalidRecordError struct {
	Records []InvalidRecord
}

// At most this many records are named in the text; Records has them all.
const invalidRecordsShown = 5

func (e *InvalidRecordError) Error() string {
	var b strings.Builder
	b.WriteString("invalid record batch")
	for i, r := range e.Records {
		if i == invalidRecordsShown {
			fmt.Fprintf(&b, "; and %d more", len(e.Records)-i)
			break
		}
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		b.WriteString(sep)
		if r.Index >= 0 {
			fmt.Fprintf(&b, "record %d: ", r.Index)
		}
		b.WriteString(r.Reason)
	}
	return b.String()
}

// Is matches ErrInvalidRecord.
func (e *InvalidRecordError) Is(target error) bool { return target == ErrInvalidRecord }
