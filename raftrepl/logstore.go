package raftrepl

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/seed"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// logStore is a partition's log as the library sees it: one copy of the data. It
// belongs to one instance of the library, and its first error ends that instance,
// because the library does not know then where the log ends.
//
//	library's entry          frame
//	command, record batch    data
//	command, empty           noop. The library's own noops become such, so that the FSM sees them
//	command, first byte 0x81 command
//	configuration            configuration
//	barrier                  barrier
type logStore struct {
	inst *instance
	p    *partition.Partition

	window cacheWindow
	sync   syncer

	reading sync.Mutex
	readers [2]entryReader // followers that are behind read in order, each its own
	turn    int

	mu          sync.Mutex
	last        uint64    // index of the last entry
	storingFrom time.Time // when the StoreLogs that runs began; zero when none does
}

// entryReader stands before the entry that is likely to be asked for next.
type entryReader struct {
	next uint64 // its index; 0 is none
	r    *log.Reader
}

var (
	_ raft.LogStore          = (*logStore)(nil)
	_ raft.MonotonicLogStore = (*logStore)(nil)
)

func newLogStore(inst *instance, p *partition.Partition, c *Cache) *logStore {
	s := &logStore{inst: inst, p: p, window: cacheWindow{c: c}}
	s.last, _ = p.LastEntry()
	// What an instance before this one has written may not be on the disk yet, and nobody syncs it any more: the first
	// who waits does.
	s.sync = syncer{store: s, written: s.last}
	if p.Log().Level() != log.Durable || seed.Is(seed.InstanceTrusts) {
		s.sync.synced = s.last // as wrote would say
	}
	return s
}

// IsMonotonic implements raft.MonotonicLogStore: there are no gaps.
func (s *logStore) IsMonotonic() bool { return true }

// FirstIndex is the first entry that can be read singly.
func (s *logStore) FirstIndex() (uint64, error) { return s.p.Log().FirstCompleteIndex(), nil }

// LastIndex is the last entry's, or the boundary's of an emptied log.
func (s *logStore) LastIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, nil
}

// GetLog implements raft.LogStore. Just before the first entry it answers with the term
// alone, and below with raft.ErrLogNotFound, upon which the leader sends an install. The
// library panics where a committed entry cannot be read, so when the log cannot be read
// the instance is cut off from everything and gets an entry that does nothing.
func (s *logStore) GetLog(index uint64, to *raft.Log) error {
	if s.window.get(index, to) {
		return nil
	}
	err := s.read(index, to)
	if err == nil || err == raft.ErrLogNotFound {
		return err
	}
	s.inst.fail(fmt.Errorf("read entry %d: %w", index, err))
	*to = raft.Log{Index: index, Type: raft.LogCommand}
	return nil
}

func (s *logStore) read(index uint64, to *raft.Log) error {
	s.reading.Lock()
	defer s.reading.Unlock()
	if s.inst.cutOff.Load() {
		return log.ErrClosed
	}
	if last, _ := s.LastIndex(); index > last {
		return raft.ErrLogNotFound
	}
	l := s.p.Log()
	if first := l.FirstCompleteIndex(); index < first {
		if index+1 != first {
			return raft.ErrLogNotFound
		}
		epoch, err := l.EpochOf(index)
		if errors.Is(err, log.ErrOffsetGone) {
			return raft.ErrLogNotFound // deleted meanwhile
		}
		if err == nil {
			*to = raft.Log{Index: index, Term: epoch, Type: raft.LogCommand}
		}
		return err
	}
	f, err := s.frame(index)
	if err != nil && (errors.Is(err, log.ErrOffsetGone) || index < l.FirstCompleteIndex()) {
		// Deleted or compacted while it was looked for: what was found there says nothing. The
		// first complete index moves before the files do.
		return raft.ErrLogNotFound
	}
	if err != nil {
		return err
	}
	*to = raft.Log{Index: index, Term: f.Epoch, Data: f.Payload}
	switch f.Kind {
	case log.KindConfiguration:
		to.Type = raft.LogConfiguration
		_, err = decodeMembers(to.Data)
	case log.KindBarrier:
		to.Type = raft.LogBarrier
	case log.KindNoop:
		to.Data = nil
	}
	return err
}

// frame reads one frame, by a reader that stands there if there is one.
func (s *logStore) frame(index uint64) (*log.Frame, error) {
	var e *entryReader
	for i := range s.readers {
		if s.readers[i].next == index {
			e = &s.readers[i]
		}
	}
	for range 2 {
		if e == nil {
			s.turn = 1 - s.turn
			e = &s.readers[s.turn]
			e.next = 0
			var err error
			if e.r, err = s.p.Log().ReadFromIndex(index); err != nil {
				return nil, err
			}
			e.r.Bound(1 << 20)
		}
		f, err := e.r.Next()
		if err == nil && f.FirstIndex == index && f.Index == index {
			e.next = index + 1
			return f, nil
		}
		e.next = 0
		e = nil
		if err != nil && err != io.EOF {
			return nil, err
		}
		// The reader was led astray by a truncation: look the place up.
	}
	return nil, fmt.Errorf("entry %d is not where it belongs: %w", index, log.ErrCorrupt)
}

// StoreLog implements raft.LogStore.
func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore: all or nothing, at the log's end, with one write
// and one sync, which may come later: see syncer. Of the leader's own entries it refuses those whose place another has
// taken: they become noops, here and so everywhere, and their proposal is told.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	if s.inst.cutOff.Load() {
		return log.ErrClosed
	}
	s.storing(time.Now())
	defer s.storing(time.Time{})
	if stall := s.inst.g.stall; stall != nil {
		stall(false)
	}
	entries := make([]partition.Entry, len(logs))
	end, err := s.p.LogEnd(), error(nil)
	for i, l := range logs {
		if entries[i], end, err = s.entry(l, end); err != nil {
			break
		}
	}
	later, leads := false, false
	if err == nil {
		later, leads = s.mayWait(logs)
	}
	switch {
	case later:
		err = s.p.StoreUnsynced(entries)
	case err == nil:
		err = s.p.Store(entries)
	}
	if err != nil {
		err = fmt.Errorf("store entries from %d on: %w", logs[0].Index, err)
		if last, _ := s.p.LastEntry(); last >= logs[0].Index && s.p.Err() == nil {
			// A disk too full to take back what had gone in.
			err = &partition.UnknownOutcomeError{BaseOffset: -1, LastOffset: -1, Err: err}
		}
		if errors.Is(err, log.ErrNoSpace) {
			s.inst.g.full.Store(time.Now().Add(fullFor).UnixNano())
			s.inst.g.noRoom()
			s.inst.g.starve(logs[0].Index)
		}
		s.inst.stored(err) // before they are told that the instance has ended: this says more
		s.inst.fail(err)
		return err
	}
	last := logs[len(logs)-1]
	s.sync.wrote(last.Index, !later, leads)
	s.mu.Lock()
	s.last = last.Index
	s.mu.Unlock()
	s.window.add(logs)
	s.inst.stored(nil)
	if seed.Is(seed.LeaderAlone) || seed.Is(seed.FollowerShowsAll) {
		s.inst.pmu.Lock()
		leads := s.inst.leading != 0
		s.inst.pmu.Unlock()
		if leads == seed.Is(seed.LeaderAlone) && s.p.Commit(last.Index) == nil {
			s.inst.committed(last.Index)
		}
	}
	return nil
}

// entry is what is stored of one of the library's. end is the log end offset before it.
func (s *logStore) entry(l *raft.Log, end int64) (partition.Entry, int64, error) {
	if l.Type == raft.LogNoop {
		l.Type, l.Data = raft.LogCommand, nil
		s.inst.ledFrom(l.Term, l.Index) // a follower gets it as a command
	}
	if len(l.Extensions) > 0 && !s.inst.admit(l, end) {
		l.Data = nil
	}
	l.Extensions = nil
	e := partition.Entry{Index: l.Index, Epoch: l.Term, Data: l.Data}
	switch {
	case l.Type == raft.LogConfiguration:
		e.Kind = log.KindConfiguration
		if _, err := decodeMembers(l.Data); err != nil {
			return e, end, err
		}
	case l.Type == raft.LogBarrier:
		e.Kind = log.KindBarrier
	case l.Type != raft.LogCommand:
		return e, end, fmt.Errorf("entry %d: %v is not stored", l.Index, l.Type)
	case len(l.Data) == 0:
		e.Kind, e.Data = log.KindNoop, nil
	case partition.IsCommand(l.Data):
		e.Kind = log.KindCommand
	default:
		e.Kind = log.KindData
		h, err := log.ParseBatchHeader(l.Data)
		if err != nil {
			return e, end, err
		}
		// The entry says where its sender has it. Two logs that disagree have diverged, and
		// nothing may be built on that.
		if h.BaseOffset != end || uint64(h.LeaderEpoch) != l.Term {
			return e, end, fmt.Errorf("entry %d of term %d is the batch of offset %d and epoch %d, the log ends at %d: %w",
				l.Index, l.Term, h.BaseOffset, h.LeaderEpoch, end, log.ErrCorrupt)
		}
		end = h.LastOffset() + 1
	}
	return e, end, nil
}

// DeleteRange implements raft.LogStore. What the library wants deleted from the front
// stays: that is retention's work. A tail that another leader's replaces is taken back.
func (s *logStore) DeleteRange(low, high uint64) error {
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	if high < last {
		return nil
	}
	if s.inst.cutOff.Load() {
		return log.ErrClosed
	}
	err := func() error {
		if g, _ := s.p.Group(); low <= g.Index {
			return fmt.Errorf("a leader wants entry %d taken back, %d is committed: %w", low, g.Index, log.ErrCorrupt)
		}
		return s.p.TruncateFrom(low)
	}()
	if err != nil {
		err = fmt.Errorf("take back entries from %d on: %w", low, err)
		s.inst.fail(err)
		return err
	}
	s.window.cut(low)
	s.sync.cut(low - 1)
	// What a reader read ahead is no longer so.
	s.reading.Lock()
	s.readers = [2]entryReader{}
	s.reading.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = low - 1
	return nil
}

func (s *logStore) storing(since time.Time) {
	s.mu.Lock()
	s.storingFrom = since
	s.mu.Unlock()
}

// hung is for how long the StoreLogs or the sync that runs has been running.
func (s *logStore) hung() time.Duration {
	s.mu.Lock()
	from := s.storingFrom
	s.mu.Unlock()
	if since := s.sync.since(); from.IsZero() || !since.IsZero() && since.Before(from) {
		from = since
	}
	if from.IsZero() {
		return 0
	}
	return time.Since(from)
}
