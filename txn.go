package embedlog

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/x/embedlog/internal/engine"
)

var (
	// ErrTxnAborted is matched by *TxnAbortedError: the transaction was open for
	// longer than its timeout. Nothing of it is there.
	ErrTxnAborted = engine.ErrTxnAborted
	// ErrTxnEnded says that the transaction was committed or aborted before.
	ErrTxnEnded = errors.New("embedlog: the transaction has ended")
	// ErrConcurrentTransactions is matched by *ConcurrentTransactionsError: the
	// transaction before, of the same id, is still being ended.
	ErrConcurrentTransactions = engine.ErrConcurrentTransactions
)

// The typed errors of transactions.
type (
	// TxnAbortedError has the timeout that was over.
	TxnAbortedError = engine.TxnAbortedError
	// TxnFencedError says that another transaction has the same id; it matches ErrFenced.
	TxnFencedError = engine.TxnFencedError
	// ConcurrentTransactionsError has the id.
	ConcurrentTransactionsError = engine.ConcurrentTransactionsError
	// TxnUnknownOutcomeError is the end of a transaction that nobody waited for; it
	// matches ErrUnknownOutcome.
	TxnUnknownOutcomeError = engine.TxnUnknownOutcomeError
)

// TxnOptions are the settings of a transaction; nil is the defaults.
type TxnOptions struct {
	// ID is a name that only one transaction has at a time, in this process and among
	// the clients of the Kafka listener: to begin one aborts what is open under the
	// name, and its holder gets ErrFenced from then on. Empty is a transaction that
	// nobody else can end.
	ID string
	// Timeout is how long the transaction may be open, from its first record. Zero
	// means one minute; 15 minutes is the longest.
	Timeout time.Duration
}

const defaultTxnTimeout = time.Minute

// Txn is a transaction: records in any partitions, and offsets of consumer groups,
// that are all there or none of them. Consumers that do not ask for
// ReadUncommitted see none of it before Commit.
//
// It ends with Commit or Abort, by its timeout, or with the database. After a crash
// each transaction is wholly there, if its Commit had returned, and otherwise wholly
// there or not at all. That holds at every Durability: a commit makes what the
// transaction wrote durable first.
//
// Its methods may be called from several goroutines, and take turns.
type Txn struct {
	db      *DB
	session *txnSession
	of      *Transactor   // whose it is; nil of the database's own
	turn    chan struct{} // holds a token while nobody uses the transaction

	// Below: whoever has the turn.
	ended     bool
	closed    bool  // it was the database that ended it
	failed    error // why it can only be aborted
	parts     map[place]*txnPart
	consumers []func(committed bool)
}

// txnPart is a partition that the transaction has written to.
type txnPart struct {
	sequence int32 // of the next record
}

// txnSession is a transactional id and its producer. It is used for one
// transaction after another.
type txnSession struct {
	id         string
	named      bool
	timeout    time.Duration
	producerID int64
	epoch      int16
	topics     map[string]*Topic // that were produced to
}

// txnSessions are those that wait for a transaction without an ID.
type txnSessions struct {
	mu   sync.Mutex
	free []*txnSession
}

// keptSessions bounds how many wait: so many transactions may well be open at once again.
const keptSessions = 64

func (p *txnSessions) take(timeout time.Duration) *txnSession {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.free) - 1; i >= 0; i-- {
		if s := p.free[i]; s.timeout == timeout {
			p.free = append(p.free[:i], p.free[i+1:]...)
			return s
		}
	}
	return nil
}

func (p *txnSessions) put(s *txnSession) {
	if len(s.topics) > fewTopics {
		maps.DeleteFunc(s.topics, func(_ string, t *Topic) bool {
			_, err := t.current()
			return errors.Is(err, ErrUnknownTopic)
		})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !s.named && len(p.free) < keptSessions {
		p.free = append(p.free, s)
	}
}

// Begin begins a transaction. Its timeout runs from its first record.
func (db *DB) Begin(ctx context.Context, o *TxnOptions) (*Txn, error) {
	var options TxnOptions
	if o != nil {
		options = *o
	}
	if options.Timeout == 0 {
		options.Timeout = defaultTxnTimeout
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := db.session(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("begin transaction: %w", err)
	}
	t := &Txn{db: db, session: s, turn: make(chan struct{}, 1), parts: make(map[place]*txnPart)}
	t.turn <- struct{}{}
	if err := db.opened(t); err != nil {
		return nil, fmt.Errorf("begin transaction: %w", err)
	}
	return t, nil
}

func (db *DB) session(ctx context.Context, o TxnOptions) (*txnSession, error) {
	if o.ID == "" {
		if s := db.sessions.take(o.Timeout); s != nil {
			return s, nil
		}
	}
	s := &txnSession{id: o.ID, named: o.ID != "", timeout: o.Timeout, topics: make(map[string]*Topic)}
	if !s.named {
		random := make([]byte, 12)
		rand.Read(random) // it never fails: see crypto/rand
		s.id = "embedlog-" + hex.EncodeToString(random)
	}
	return s, s.init(ctx, db)
}

func (s *txnSession) init(ctx context.Context, db *DB) (err error) {
	s.producerID, s.epoch, err = db.engine.AnyTxns().InitProducer(ctx, engine.InitRequest{
		TransactionalID: s.id, Timeout: s.timeout, ProducerID: -1, Epoch: -1, Local: true, Anonymous: !s.named,
	})
	return err
}

// Update runs f in a transaction: it is committed when f returns nil, and aborted
// when f returns an error, which Update returns, or panics. f does not call Commit or Abort.
func (db *DB) Update(ctx context.Context, f func(*Txn) error) error {
	t, err := db.Begin(ctx, nil)
	if err != nil {
		return err
	}
	defer t.Abort(ctx) // does nothing after Commit
	if err := f(t); err != nil {
		if abort := t.Abort(ctx); abort != nil && !errors.Is(abort, ErrTxnEnded) {
			return fmt.Errorf("%w (and it is not aborted yet: %w)", err, abort)
		}
		return err
	}
	return t.Commit(ctx)
}

// begin takes the turn of a transaction that is open.
func (t *Txn) begin(ctx context.Context) error {
	select {
	case <-t.turn:
	default:
		select {
		case <-t.turn:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if t.ended {
		defer t.release()
		if t.closed {
			return fmt.Errorf("%w: %w", ErrTxnEnded, ErrClosed)
		}
		return ErrTxnEnded
	}
	return nil
}

func (t *Txn) release() { t.turn <- struct{}{} }

// fail notes why the transaction can only be aborted.
func (t *Txn) fail(err error) error {
	if err != nil && t.failed == nil {
		t.failed = err
	}
	return err
}

// Commit makes everything that the transaction did count, at once. When it returns
// nil that is durable and visible.
//
// A transaction of which a call failed is aborted, and the error is that call's.
// One that matches ErrTxnAborted or ErrFenced says that it was aborted before. One
// that matches ErrUnknownOutcome, that it may be committed or not: when ctx ended,
// the commit goes on in the background; a consumer whose offsets are in it is to be
// closed, since another one begins where the group then is. After any other error
// the transaction is open as before: Commit may be tried again.
func (t *Txn) Commit(ctx context.Context) error {
	if err := t.begin(ctx); err != nil {
		return fmt.Errorf("commit transaction: %w", err)
	}
	defer t.release()
	if t.failed != nil {
		if err := t.abort(context.Background()); err != nil {
			return fmt.Errorf("commit transaction: %w (and it is not aborted yet: %w)", t.failed, err)
		}
		return fmt.Errorf("commit transaction: it was aborted, because a part of it failed: %w", t.failed)
	}
	if len(t.parts) == 0 {
		t.end(true, true)
		return nil
	}
	s := t.session
	producerID, epoch, err := t.db.engine.AnyTxns().End(ctx, s.id, s.producerID, s.epoch, true)
	switch {
	case err == nil:
		s.producerID, s.epoch = producerID, epoch
		t.end(true, true)
	case errors.Is(err, ErrUnknownOutcome):
		t.consumers = nil
		t.end(false, false)
	case over(err):
		t.end(false, false)
	}
	return err
}

// over says that somebody else ended the transaction, by aborting it.
func over(err error) bool {
	return errors.Is(err, ErrTxnAborted) || errors.Is(err, ErrFenced) || errors.Is(err, engine.ErrProducerMapping)
}

// Abort takes everything back that the transaction did: no reader of committed
// records ever sees it, and consumers whose offsets were in it read again from
// where their group is. It waits for the disk, also when ctx has ended. After Commit
// it is ErrTxnEnded and does nothing, so it can be deferred.
func (t *Txn) Abort(ctx context.Context) error {
	if err := t.begin(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("abort transaction: %w", err)
	}
	defer t.release()
	return t.abort(context.Background())
}

func (t *Txn) abort(ctx context.Context) error {
	s := t.session
	if len(t.parts) > 0 {
		producerID, epoch, err := t.db.engine.AnyTxns().End(ctx, s.id, s.producerID, s.epoch, false)
		if err != nil && !over(err) {
			return err
		}
		if err != nil {
			t.end(false, false)
			return nil
		}
		s.producerID, s.epoch = producerID, epoch
	}
	t.end(false, true)
	return nil
}

// end is the last thing that happens. The session can be used again when its epoch
// is known.
func (t *Txn) end(committed, reuse bool) {
	t.ended = true
	if t.of != nil {
		defer t.of.ended(reuse)
	}
	for _, done := range t.consumers {
		done(committed)
	}
	t.consumers, t.parts = nil, nil
	if reuse {
		t.db.sessions.put(t.session)
	}
	t.db.closing(t)
}

// closeWithDB aborts what is open when the database is closed.
func (t *Txn) closeWithDB() {
	if t.begin(context.Background()) != nil {
		return // it has ended
	}
	defer t.release()
	t.closed = true
	ctx, cancel := t.db.patience(context.Background())
	defer cancel()
	_ = t.abort(ctx) // what cannot be aborted now is when the database is opened again
}
