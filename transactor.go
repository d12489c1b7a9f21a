package embedlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Transactor begins one transaction after another under an id that it holds: whoever makes another one with the id
// takes it over, and this one's transactions fail with ErrFenced from then on. (DB.Begin takes the id over each time, so that
// one who was taken for dead would come back.) It is for who owns a part of some work, and writes what becomes of it.
//
// Its methods may be called from several goroutines. It needs no Close.
type Transactor struct {
	db *DB

	mu      sync.Mutex
	session *txnSession
	busy    bool
	over    bool // the id is somebody else's, or how the last transaction ended is not known
}

// ErrTransactorEnded says that a transactor has lost its id, or that the outcome of its last transaction is not known.
// Another one, made by DB.Transactor, finds it decided.
var ErrTransactorEnded = errors.New("embedlog: the transactor has ended")

// Transactor takes over the id that o names, which it must. What is open under it is aborted; what was committed is there, and is
// seen, when the call returns.
func (db *DB) Transactor(ctx context.Context, o TxnOptions) (*Transactor, error) {
	if o.ID == "" {
		return nil, errors.New("embedlog: a transactor needs an id")
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTxnTimeout
	}
	s, err := db.session(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("transactor %s: %w", o.ID, err)
	}
	return &Transactor{db: db, session: s}, nil
}

// Begin begins a transaction; the one before must have ended. ErrTransactorEnded is final.
func (t *Transactor) Begin(ctx context.Context) (*Txn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("begin transaction: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.over:
		return nil, fmt.Errorf("begin transaction: %w", ErrTransactorEnded)
	case t.busy:
		return nil, fmt.Errorf("begin transaction: %w", &ConcurrentTransactionsError{TransactionalID: t.session.id, State: "open"})
	}
	x := &Txn{db: t.db, session: t.session, of: t, turn: make(chan struct{}, 1), parts: make(map[place]*txnPart)}
	x.turn <- struct{}{}
	if err := t.db.opened(x); err != nil {
		return nil, fmt.Errorf("begin transaction: %w", err)
	}
	t.busy = true
	return x, nil
}

// ended is told by the transaction.
func (t *Transactor) ended(usable bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy = false
	t.over = t.over || !usable
}
