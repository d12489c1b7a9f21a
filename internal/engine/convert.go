package engine

import (
	"errors"
	"fmt"

	"github.com/x/embedlog/log"
)

// settle opens a directory that was used alone once more as one, and closes it in order,
// before it becomes a node's. What a process leaves that was killed is ended by that: above
// all the transactions of its own producers, of which there is no record but the data
// (see Txns): in a cluster nobody knows that their producers are gone. Those of clients
// of the Kafka door are on record, and their timeout ends them, whoever coordinates then.
//
// A crash in it leaves a directory that was used alone. It is no node's while
// a transaction is open that could not be ended, unless the log that has it, or the log that
// could tell, is damaged: then it stays open, as it would alone.
func (e *Engine) settle() (err error) {
	o := e.options
	o.Cluster = nil
	a := newEngine(e.dir, &o)
	a.fs, a.identity, a.files, a.cap = e.fs, e.identity, e.files, e.cap
	a.defaults = e.defaults
	defer func() {
		a.closed.Store(true)
		if err = errors.Join(err, a.release()); err != nil {
			err = fmt.Errorf("end what it did alone: %w", err)
		}
	}()
	if err := a.openMeta(true, nil); err != nil {
		return err
	}
	if err := a.openTopics(); err != nil {
		return err
	}
	if err := a.openParts(); err != nil {
		return err
	}
	return errors.Join(a.txns.sweep()...)
}

// holdsUp says whether a transaction that was not ended because of err keeps its directory
// from becoming a node's: tried again it may be ended, and later by nobody.
func holdsUp(err error) bool { return !errors.Is(err, log.ErrCorrupt) }
