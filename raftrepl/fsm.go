package raftrepl

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/invariant"
)

// fsm moves the high watermark: the log is the state.
type fsm struct{ inst *instance }

var _ raft.BatchingFSM = (*fsm)(nil)

// ApplyBatch implements raft.BatchingFSM. All entries come here but for barriers, which
// nobody makes, so the last one's index is what is committed.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	if len(logs) > 0 {
		f.commit(logs[len(logs)-1])
	}
	return make([]any, len(logs))
}

// Apply implements raft.FSM.
func (f *fsm) Apply(l *raft.Log) any {
	f.commit(l)
	return nil
}

func (f *fsm) commit(l *raft.Log) {
	i := f.inst
	if i.cutOff.Load() {
		return // what a failed instance takes for committed may be what GetLog made up
	}
	if i.store.sync.wait(l.Index) != nil {
		return // the instance ends
	}
	invariant.True(i.store.sync.has(l.Index), "entry %d is committed and not on this disk", l.Index)
	if err := i.store.p.Commit(l.Index); err != nil {
		if permanent(err) {
			i.fail(err)
			return
		}
		// The log start could not follow: it does when there is room.
		i.g.cfg.Logger.Warn("committed, but not followed", "index", l.Index, "error", err)
	}
	i.committed(l.Index)
	i.g.committed(i, l)
}

// Snapshot implements raft.FSM: the library makes none.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	return nil, errors.New("the log is its own snapshot")
}

// Restore implements raft.FSM: an install does not come through the library.
func (f *fsm) Restore(r io.ReadCloser) error {
	return errors.Join(r.Close(), fmt.Errorf("the log of %s is not restored by the library", f.inst.g.name))
}
