package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/x/embedlog/partition"
)

// What a caller of a transaction branches on.
var (
	// ErrTxnAborted is matched by *TxnAbortedError: the transaction was ended by
	// somebody else, as one that never was.
	ErrTxnAborted = errors.New("embedlog: transaction aborted")
	// ErrConcurrentTransactions is matched by *ConcurrentTransactionsError. The same
	// request succeeds later.
	ErrConcurrentTransactions = errors.New("embedlog: concurrent transactions")
	// ErrProducerMapping is matched by *ProducerMappingError. (INVALID_PRODUCER_ID_MAPPING)
	ErrProducerMapping = errors.New("embedlog: producer id does not belong to the transactional id")
	// ErrInvalidTimeout is matched by *TxnTimeoutError. (INVALID_TRANSACTION_TIMEOUT)
	ErrInvalidTimeout = errors.New("embedlog: invalid transaction timeout")
	// ErrInvalidTransactionalID is a transactional id that is too long or no text.
	ErrInvalidTransactionalID = errors.New("embedlog: invalid transactional id")
)

// TxnAbortedError is a request of a transaction that was aborted because it was
// open for longer than its timeout.
type TxnAbortedError struct {
	TransactionalID string
	Timeout         time.Duration
}

func (e *TxnAbortedError) Error() string {
	return fmt.Sprintf("transaction of %q aborted: it was open for longer than its timeout of %v; begin it again", e.TransactionalID, e.Timeout)
}

// Is matches ErrTxnAborted.
func (e *TxnAbortedError) Is(target error) bool { return target == ErrTxnAborted }

// TxnFencedError is a request with an epoch that is not the current one of its
// transactional id: somebody else has taken the id over.
type TxnFencedError struct {
	TransactionalID string
	ProducerID      int64
	Epoch           int16
	CurrentID       int64 // producer id and epoch in force
	Current         int16
}

func (e *TxnFencedError) Error() string {
	return fmt.Sprintf("transactional id %q is fenced: producer %d has epoch %d, in force is producer %d, epoch %d; somebody else uses the id",
		e.TransactionalID, e.ProducerID, e.Epoch, e.CurrentID, e.Current)
}

// Is matches partition.ErrFenced.
func (e *TxnFencedError) Is(target error) bool { return target == partition.ErrFenced }

// ConcurrentTransactionsError is a request while the end of the id's transaction
// is under way, or waits for a partition that cannot be written.
type ConcurrentTransactionsError struct {
	TransactionalID string
	State           string
}

func (e *ConcurrentTransactionsError) Error() string {
	return fmt.Sprintf("the transaction before, of %q, is being ended (%s): try again; it waits as long as one of its partitions cannot be written", e.TransactionalID, e.State)
}

// Is matches ErrConcurrentTransactions.
func (e *ConcurrentTransactionsError) Is(target error) bool {
	return target == ErrConcurrentTransactions
}

// TxnStateError is a request that does not fit the state of its transactional id,
// such as the commit of a transaction that was not begun.
type TxnStateError struct {
	TransactionalID string
	State           string
	Request         string
}

func (e *TxnStateError) Error() string {
	return fmt.Sprintf("%s of the transaction of %q, which is %s", e.Request, e.TransactionalID, e.State)
}

// Is matches partition.ErrInvalidTxnState.
func (e *TxnStateError) Is(target error) bool { return target == partition.ErrInvalidTxnState }

// ProducerMappingError is a request with a producer id that is not that of the
// transactional id, or for an id that is not known: it was never used, or not for a week.
type ProducerMappingError struct {
	TransactionalID string
	ProducerID      int64
}

func (e *ProducerMappingError) Error() string {
	return fmt.Sprintf("transactional id %q does not have producer id %d", e.TransactionalID, e.ProducerID)
}

// Is matches ErrProducerMapping.
func (e *ProducerMappingError) Is(target error) bool { return target == ErrProducerMapping }

// TxnTimeoutError is a timeout that is not positive, or longer than allowed.
type TxnTimeoutError struct{ Timeout, Max time.Duration }

func (e *TxnTimeoutError) Error() string {
	return fmt.Sprintf("a transaction's timeout of %v: it must be positive and at most %v", e.Timeout, e.Max)
}

// Is matches ErrInvalidTimeout.
func (e *TxnTimeoutError) Is(target error) bool { return target == ErrInvalidTimeout }
