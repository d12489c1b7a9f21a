package raftrepl

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/seed"
	"github.com/x/embedlog/log"
)

// StoreLogs writes; the sync comes later, and the library, which takes what StoreLogs has taken for
// durable, must not have its answer counted sooner. A leader sends entries while its own disk syncs
// them (Ongaro's thesis, 10.2.1), and a follower takes the next entries meanwhile. What is written
// when a sync begins shares it.
//
//	leader    StoreLogs: write ─ returns ── library: send ─────────── answer ── match, commit
//	                      |                                             |
//	                      '── syncer: fdatasync ── synced(index) ────> waits here
//	follower  StoreLogs: write ─ returns ── library: answer ── gate: fdatasync ── to the leader
//
// What must be true of the library's own count, and why it is:
//
//   - Committed means that a majority has it on disk, the leader among it: the library counts the
//     leader at once, but no entry is committed without at least one follower, where there are several
//     voters, and each answer that counts has waited for the leader's disk. A group with one voter, and
//     every change of members, which may leave one, is synced by StoreLogs itself.
//   - A follower's answer says that it has on disk all up to the last entry of the message, whoever
//     sent it first: the gate gives it on when that is so. An answer of a term that is over is not
//     given on: the entries that it speaks of may be taken back by now.
//   - What a follower takes for committed is on its disk before the high watermark moves there.
//   - Votes promise nothing about a log: to be stricter by what a crash may take away is no harm. Who
//     has voted by entries that a crash then took has not told a leader that it has them.
type syncer struct {
	store *logStore

	mu      sync.Mutex
	written uint64 // index of the last entry that is in the log
	synced  uint64 // index up to which all are on the disk
	running bool   // somebody syncs
	ended   bool   // nobody may begin to
	cuts    uint64 // how often entries were taken back
	runs    sync.WaitGroup
	from    time.Time     // when the sync that runs began; zero when none does
	moved   chan struct{} // closed when synced or running changes; nil when nobody waits
}

// errTakenBack is for who waits for entries that are not in the log any more.
var errTakenBack = errors.New("entries were taken back while their sync was waited for")

// mayWait says whether the entries may be synced after StoreLogs has returned, and whether this node
// leads: then nobody waits for their sync before a follower has answered, and it has to begin by itself.
func (s *logStore) mayWait(logs []*raft.Log) (later, leads bool) {
	r := s.inst.library.Load()
	if r == nil || s.p.Log().Level() != log.Durable {
		return false, false
	}
	for _, l := range logs {
		if l.Type == raft.LogConfiguration {
			return false, false
		}
	}
	if r.State() != raft.Leader {
		return true, false // they came in a message, whose answer waits
	}
	voters := 0
	for _, server := range r.GetConfiguration().Configuration().Servers {
		if server.Suffrage == raft.Voter {
			voters++
		}
	}
	return voters > 1, true
}

// wrote notes entries that are in the log. Those that are not synced yet are by a goroutine that
// ends when there is nothing more to do, if begin says so; else by the first who waits.
func (y *syncer) wrote(last uint64, synced, begin bool) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.written = last
	if synced {
		y.movedLocked(last)
		return
	}
	if begin && !y.running && !y.ended {
		y.running = true
		y.runs.Go(func() {
			y.mu.Lock()
			defer y.mu.Unlock()
			for y.written > y.synced && y.syncLocked() == nil {
			}
			y.restLocked()
		})
	}
}

// cut follows a truncation, which leaves nothing unsynced.
func (y *syncer) cut(last uint64) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.written, y.synced = last, last
	y.cuts++
	y.tellLocked()
}

func (y *syncer) movedLocked(index uint64) {
	y.synced = max(y.synced, index)
	y.tellLocked()
}

func (y *syncer) tellLocked() {
	if y.moved != nil {
		close(y.moved)
		y.moved = nil
	}
}

// syncLocked syncs what is written now, without the lock. Whoever calls it has set running.
func (y *syncer) syncLocked() error {
	upto, cuts := y.written, y.cuts
	y.from = time.Now()
	y.mu.Unlock()
	if stall := y.store.inst.g.stall; stall != nil {
		stall(true)
	}
	err := y.store.p.Log().Flush()
	if err != nil {
		err = fmt.Errorf("sync entries up to %d: %w", upto, err)
		y.store.inst.fail(err) // who waits hears of that
	}
	y.mu.Lock()
	y.from = time.Time{}
	if seed.Is(seed.SyncCoversLater) {
		upto = y.written
	}
	if err == nil && cuts == y.cuts { // else others have the places up to there
		y.movedLocked(upto)
	}
	return err
}

// restLocked has another one sync, if there is something to.
func (y *syncer) restLocked() {
	y.running = false
	y.tellLocked()
}

// wait returns when this node has the entries up to index on its disk, and fails when the instance ends
// before, or they are not in the log any more. It syncs itself when nobody else does.
func (y *syncer) wait(index uint64) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	for index > y.synced {
		switch {
		case y.ended || y.store.inst.cutOff.Load():
			return errCutOff
		case index > y.written:
			return errTakenBack
		case !y.running:
			y.running = true
			y.runs.Add(1)
			err := y.syncLocked()
			y.runs.Done()
			y.restLocked()
			if err != nil {
				return err
			}
			continue
		}
		if y.moved == nil {
			y.moved = make(chan struct{})
		}
		moved := y.moved
		y.mu.Unlock()
		select {
		case <-moved:
			y.mu.Lock()
		case <-y.store.inst.done:
			y.mu.Lock()
			return errCutOff
		}
	}
	return nil
}

// end waits until nothing is synced any more: after the library's last call.
func (y *syncer) end() {
	y.mu.Lock()
	y.ended = true
	y.tellLocked()
	y.mu.Unlock()
	y.runs.Wait()
}

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
