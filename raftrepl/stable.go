package raftrepl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/seed"
	"github.com/x/embedlog/log"
)

// Votes is the stable store of all groups of a node: the term of each, and whom it has
// voted for. Whoever forgets that may vote twice in a term, so losing it is no small
// thing: see ErrVotesLost. What several groups write at one time is made durable
// together.
//
// All methods may be called from several goroutines.
type Votes struct {
	backend voteBackend

	mu      sync.Mutex
	changed sync.Cond
	groups  map[engine.LogID]*vote
	dirty   []engine.LogID // to be written next
	writing bool
	written uint64 // how often what was dirty has been written
	last    error  // of the last write
	failed  error  // of a write that left the file in an unknown state: nothing is accepted afterwards
}

// voteBackend keeps votes on a disk.
type voteBackend interface {
	load() ([]vote, error)
	// store makes all of them durable, in one step. all are the node's; changed among them.
	store(changed, all []vote) error
	close() error
}

// vote is one group's part.
type vote struct {
	id   engine.LogID
	term uint64
	// The candidate that was voted for in a term; voteTerm 0 is none yet.
	voteTerm  uint64
	candidate string
	// joined says that the log's checkpoint has said that it is in the group.
	joined bool
	// life says which replica of this node it is, and only grows: see replicaID.
	life uint32
	// empty says that the files of the replica before are removed, or about to be.
	empty bool
	slot  uint64 // where the backend keeps it
}

var (
	// ErrVotesLost says that a log is a member of a group whose term and vote are not in
	// the stable store: the node could vote twice, and does not take part.
	ErrVotesLost = errors.New("embedlog: the node's votes are lost")
	// ErrVotesBehind says that the stable store is older than the log: a copy or a restored
	// backup of one of them.
	ErrVotesBehind = errors.New("embedlog: the node's votes are older than its log")
	// ErrGroupLost says that a log has been in a group and does not know any more how far
	// it was committed: its checkpoint is lost.
	ErrGroupLost error = lostError("embedlog: the log's checkpoint is lost")
)

func openVotes(b voteBackend) (*Votes, error) {
	v := &Votes{backend: b, groups: make(map[engine.LogID]*vote)}
	v.changed.L = &v.mu
	list, err := b.load()
	if err != nil {
		b.close()
		return nil, fmt.Errorf("open votes: %w", err)
	}
	for _, one := range list {
		v.groups[one.id] = &one
	}
	return v, nil
}

// Close closes the file. Nothing is written any more.
func (v *Votes) Close() error {
	v.mu.Lock()
	for v.writing {
		v.changed.Wait()
	}
	if v.failed == nil {
		v.failed = log.ErrClosed
	}
	v.mu.Unlock()
	return v.backend.close()
}

// get is what is known of a group.
func (v *Votes) get(id engine.LogID) (vote, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if g := v.groups[id]; g != nil {
		return *g, true
	}
	return vote{}, false
}

// used says whether anything was ever stored.
func (v *Votes) used() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.groups) > 0
}

// change changes a group's part and returns when that is durable. On a full disk it can
// be tried again, and the change is written with the next one. After any other error
// nothing can be changed any more, because what the disk has is not known.
func (v *Votes) change(id engine.LogID, f func(*vote)) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.failed != nil {
		return v.failed
	}
	g := v.groups[id]
	if g == nil {
		g = &vote{id: id}
		v.groups[id] = g
	}
	f(g)
	if !slices.Contains(v.dirty, id) {
		v.dirty = append(v.dirty, id)
	}
	// While somebody writes, those who come share the next write.
	wanted := v.written + 1
	if v.writing {
		wanted++
	}
	for v.written < wanted && v.failed == nil {
		if v.writing {
			v.changed.Wait()
			continue
		}
		v.write()
	}
	return errors.Join(v.last, v.failed)
}

// write makes what is dirty durable. mu is held, but for the time of the write.
func (v *Votes) write() {
	var changed, all []vote
	dirty := v.dirty
	for _, id := range dirty {
		if g := v.groups[id]; g != nil {
			changed = append(changed, *g)
		}
	}
	for _, g := range v.groups {
		all = append(all, *g)
	}
	v.dirty, v.writing = nil, true
	v.mu.Unlock()
	err := v.backend.store(changed, all)
	v.mu.Lock()
	v.writing = false
	v.written++
	v.last = nil
	switch {
	case errors.Is(err, log.ErrNoSpace):
		v.last = fmt.Errorf("store votes: %w", err)
		for _, id := range dirty {
			if !slices.Contains(v.dirty, id) {
				v.dirty = append(v.dirty, id)
			}
		}
	case err != nil && v.failed == nil:
		v.failed = fmt.Errorf("store votes: %w: %w", log.ErrStorageFailed, err)
	}
	for i := range changed {
		if g := v.groups[changed[i].id]; g != nil {
			g.slot = changed[i].slot
		}
	}
	v.changed.Broadcast()
}

// LetGo notes that a group has committed that it has no replica here any more, and that
// the log's files are about to go: an empty log may join the group again. Term and vote
// are still remembered.
func (v *Votes) LetGo(id engine.LogID) error {
	if _, ok := v.get(id); !ok {
		return nil
	}
	return v.change(id, func(g *vote) { g.joined = false })
}

// Forget drops the part of a group whose log is deleted.
func (v *Votes) Forget(id engine.LogID) error {
	err := v.change(id, func(g *vote) { *g = vote{id: id, slot: g.slot} })
	v.mu.Lock()
	defer v.mu.Unlock()
	if err == nil {
		delete(v.groups, id)
	}
	return err
}

// hasTerm says whether the group's term is durable already.
func (v *Votes) hasTerm(id engine.LogID, term uint64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	g := v.groups[id]
	return g != nil && g.term == term && v.failed == nil && !v.writing && !slices.Contains(v.dirty, id)
}

// known says whether a part is more than what Forget leaves.
func (g *vote) known() bool { return g.joined || g.term > 0 || g.voteTerm > 0 || g.life > 0 }

// stableStore is one group's part as the library sees it.
type stableStore struct {
	v  *Votes
	id engine.LogID
	// lost is called when a write failed. The library panics where a term cannot be
	// stored, so it is told that it was, when lost has cut it off from all that it could
	// tell it to.
	lost func(error)
}

var _ raft.StableStore = (*stableStore)(nil)

// errNotFound has the text that the library compares with.
var errNotFound = errors.New("not found")

// The library's keys.
const (
	keyTerm      = "CurrentTerm"
	keyVoteTerm  = "LastVoteTerm"
	keyCandidate = "LastVoteCand"
)

// SetUint64 implements raft.StableStore.
func (s *stableStore) SetUint64(key []byte, n uint64) error {
	var err error
	switch string(key) {
	case keyTerm:
		if s.v.hasTerm(s.id, n) {
			return nil
		}
		err = s.v.change(s.id, func(g *vote) { g.term = n })
	case keyVoteTerm:
		// With the candidate, which follows: half of a vote is none.
		s.v.mu.Lock()
		if g := s.v.groups[s.id]; g != nil {
			g.voteTerm, g.candidate = n, ""
		}
		err = s.v.failed
		s.v.mu.Unlock()
	default:
		return fmt.Errorf("stable store: %q is not kept", key)
	}
	if err == nil {
		return nil
	}
	s.lost(err)
	if string(key) == keyTerm {
		return nil
	}
	return err
}

// Set implements raft.StableStore.
func (s *stableStore) Set(key, val []byte) error {
	if string(key) != keyCandidate {
		return fmt.Errorf("stable store: %q is not kept", key)
	}
	if seed.Is(seed.VoteForgotten) {
		s.v.mu.Lock()
		defer s.v.mu.Unlock()
		if g := s.v.groups[s.id]; g != nil {
			g.candidate = string(val)
		}
		return nil
	}
	err := s.v.change(s.id, func(g *vote) { g.candidate = string(val) })
	if err != nil {
		s.lost(err)
	}
	return err
}

// GetUint64 implements raft.StableStore.
func (s *stableStore) GetUint64(key []byte) (uint64, error) {
	g, ok := s.v.get(s.id)
	switch {
	case ok && string(key) == keyTerm:
		return g.term, nil
	case ok && string(key) == keyVoteTerm && g.voteTerm > 0:
		return g.voteTerm, nil
	}
	return 0, errNotFound
}

// Get implements raft.StableStore.
func (s *stableStore) Get(key []byte) ([]byte, error) {
	if g, ok := s.v.get(s.id); ok && string(key) == keyCandidate && g.candidate != "" {
		return []byte(g.candidate), nil
	}
	return nil, errNotFound
}

// A vote as bytes: 16 topic id, 4 partition, 8 term, 8 term of the vote, 4 life, 1 flags (1
// joined, 2 empty), 2 length of the candidate, the candidate. Big-endian.
const voteBytes = 16 + 4 + 8 + 8 + 4 + 1 + 2

func (g *vote) appendTo(dst []byte) []byte {
	be := binary.BigEndian
	dst = append(dst, g.id.Topic[:]...)
	dst = be.AppendUint32(dst, uint32(g.id.Partition))
	dst = be.AppendUint64(dst, g.term)
	dst = be.AppendUint64(dst, g.voteTerm)
	dst = be.AppendUint32(dst, g.life)
	flags := byte(0)
	if g.joined {
		flags |= 1
	}
	if g.empty {
		flags |= 2
	}
	dst = append(dst, flags)
	dst = be.AppendUint16(dst, uint16(len(g.candidate)))
	return append(dst, g.candidate...)
}

func decodeVote(b []byte) (g vote, rest []byte, err error) {
	be := binary.BigEndian
	if len(b) < voteBytes || b[40] > 3 || len(b) < voteBytes+int(be.Uint16(b[41:])) {
		return g, nil, fmt.Errorf("a vote is damaged: %w", log.ErrCorrupt)
	}
	copy(g.id.Topic[:], b)
	g.id.Partition = int32(be.Uint32(b[16:]))
	g.term, g.voteTerm = be.Uint64(b[20:]), be.Uint64(b[28:])
	g.life = be.Uint32(b[36:])
	g.joined, g.empty = b[40]&1 != 0, b[40]&2 != 0
	end := voteBytes + int(be.Uint16(b[41:]))
	g.candidate = string(b[voteBytes:end])
	return g, b[end:], nil
}
