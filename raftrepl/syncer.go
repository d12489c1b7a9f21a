package raftrepl

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/log"
)

// A leader sends entries to its followers while its own disk syncs them (Ongaro's thesis,
// 10.2.1). The library counts itself as soon as StoreLogs has returned, so it must not learn
// sooner than this disk has an entry that a follower has it: no entry is committed without at
// least one follower, where there are several voters.
//
//	StoreLogs: write ─── returns ── library: send ────────── answer ── match, commit
//	             |                                              |
//	             '── syncer: fdatasync ── synced(index) ──> waits here
//
// What must be true of the library's own count, and why it is:
//
//   - Committed means that a majority has it on disk, this node among it: every answer that
//     counts has waited for it. A group with one voter, and every change of members, which may
//     leave one, is synced by StoreLogs itself.
//   - A node that follows another leader has on disk what it answers for: what it has written
//     as a leader is synced before a request of another one reaches the library.
//   - Votes promise nothing about a log: to be stricter by what a crash may take away is no harm.
type syncer struct {
	store *logStore

	mu      sync.Mutex
	written uint64 // index of the last entry that is in the log
	synced  uint64 // index up to which all are on the disk
	running bool
	runs    sync.WaitGroup
	from    time.Time     // when the sync that runs began; zero when none does
	moved   chan struct{} // closed when synced moves, or never will; nil when nobody waits
}

// mayWait says whether the entries may be synced after StoreLogs has returned.
func (s *logStore) mayWait(logs []*raft.Log) bool {
	r := s.inst.library.Load()
	if r == nil || r.State() != raft.Leader || s.p.Log().Level() != log.Durable {
		return false
	}
	for _, l := range logs {
		if l.Type == raft.LogConfiguration {
			return false
		}
	}
	voters := 0
	for _, server := range r.GetConfiguration().Configuration().Servers {
		if server.Suffrage == raft.Voter {
			voters++
		}
	}
	return voters > 1
}

// wrote notes entries that are in the log: those of a StoreLogs that did not sync have it done
// by a goroutine that ends when there is nothing more to do.
func (y *syncer) wrote(last uint64, synced bool) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.written = last
	if synced {
		y.movedLocked(last)
		return
	}
	if !y.running {
		y.running = true
		y.from = time.Now()
		y.runs.Go(y.run)
	}
}

// cut follows a truncation, which leaves nothing unsynced.
func (y *syncer) cut(last uint64) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.written, y.synced = last, last
}

func (y *syncer) movedLocked(index uint64) {
	if y.synced = max(y.synced, index); y.moved != nil {
		close(y.moved)
		y.moved = nil
	}
}

func (y *syncer) run() {
	y.mu.Lock()
	for y.written > y.synced {
		upto := y.written
		y.from = time.Now()
		y.mu.Unlock()
		if stall := y.store.inst.g.stall; stall != nil {
			stall()
		}
		err := y.store.p.Log().Flush()
		if err != nil {
			y.mu.Lock()
			y.running, y.from = false, time.Time{}
			y.mu.Unlock()
			y.store.inst.fail(fmt.Errorf("sync entries up to %d: %w", upto, err)) // who waits hears of that
			return
		}
		y.mu.Lock()
		y.movedLocked(upto)
	}
	y.running, y.from = false, time.Time{}
	y.mu.Unlock()
}

// wait returns when this node has the entries up to index on its disk, and fails when the instance ends
// before.
func (y *syncer) wait(index uint64) error {
	for {
		y.mu.Lock()
		if index <= y.synced {
			y.mu.Unlock()
			return nil
		}
		if y.moved == nil {
			y.moved = make(chan struct{})
		}
		moved := y.moved
		y.mu.Unlock()
		select {
		case <-moved:
		case <-y.store.inst.done:
			return errCutOff
		}
	}
}

// end waits until nothing is synced any more: after the library's last call.
func (y *syncer) end() { y.runs.Wait() }

// settle waits for all that is written now.
func (y *syncer) settle() error {
	y.mu.Lock()
	index := y.written
	y.mu.Unlock()
	return y.wait(index)
}

// has says whether this node has the entries up to index on its disk.
func (y *syncer) has(index uint64) bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	return index <= y.synced
}

// since is when the sync that runs began; zero when none does.
func (y *syncer) since() time.Time {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.from
}
