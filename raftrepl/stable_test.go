package raftrepl

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

func logID(partition int32) engine.LogID {
	return engine.LogID{Topic: engine.TopicID{7}, Partition: partition}
}

func storeOf(t testing.TB, v *Votes, id engine.LogID) *stableStore {
	return &stableStore{v: v, id: id, lost: func(err error) { t.Errorf("lost: %v", err) }}
}

// Both backends are what the library wants of a StableStore, and remember it.
func TestVotesAreKept(t *testing.T) {
	mem := vfs.NewMem()
	path := filepath.Join(t.TempDir(), "raft.db")
	for name, open := range map[string]func() (*Votes, error){
		"bolt": func() (*Votes, error) { return OpenVotes(path) },
		"file": func() (*Votes, error) { return OpenVotesIn(mem, "votes") },
	} {
		t.Run(name, func(t *testing.T) {
			v, err := open()
			if err != nil {
				t.Fatal(err)
			}
			a, b := storeOf(t, v, logID(1)), storeOf(t, v, logID(2))
			if _, err := a.GetUint64([]byte(keyTerm)); err == nil || err.Error() != "not found" {
				t.Errorf("a term that is not there: %v", err)
			}
			if _, err := a.Get([]byte(keyCandidate)); err == nil || err.Error() != "not found" {
				t.Errorf("a vote that is not there: %v", err)
			}
			for _, err := range []error{
				a.SetUint64([]byte(keyTerm), 5), a.SetUint64([]byte(keyVoteTerm), 5), a.Set([]byte(keyCandidate), []byte("3")),
				b.SetUint64([]byte(keyTerm), 9),
				v.change(logID(3), func(g *vote) { g.term, g.joined = 2, true }), v.Forget(logID(3)),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := a.Set([]byte("something"), nil); err == nil {
				t.Error("another key was kept")
			}
			// Half of a vote, as a crash between the library's two writes leaves it, is none.
			if err := b.SetUint64([]byte(keyVoteTerm), 9); err != nil {
				t.Fatal(err)
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			if err := v.change(logID(1), func(g *vote) { g.term++ }); !errors.Is(err, log.ErrClosed) {
				t.Errorf("changed after close: %v", err)
			}
			for range 2 {
				if v, err = open(); err != nil {
					t.Fatal(err)
				}
				a, b = storeOf(t, v, logID(1)), storeOf(t, v, logID(2))
				term, err1 := a.GetUint64([]byte(keyTerm))
				voteTerm, err2 := a.GetUint64([]byte(keyVoteTerm))
				candidate, err3 := a.Get([]byte(keyCandidate))
				if err := errors.Join(err1, err2, err3); err != nil || term != 5 || voteTerm != 5 || string(candidate) != "3" {
					t.Errorf("term %d, vote %d for %q: %v", term, voteTerm, candidate, err)
				}
				if _, err := b.GetUint64([]byte(keyVoteTerm)); err == nil {
					t.Error("half of a vote was kept")
				}
				if g, ok := v.get(logID(3)); ok {
					t.Errorf("forgotten and there: %+v", g)
				}
				v.Close()
			}
		})
	}
}

// Many groups at once share commits, and each has what it wrote.
func TestVotesShareCommits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	v, err := OpenVotes(path)
	if err != nil {
		t.Fatal(err)
	}
	const groups, each = 50, 4
	var wg sync.WaitGroup
	for k := range int32(groups) {
		wg.Go(func() {
			for i := range uint64(each) {
				if err := v.change(logID(k), func(g *vote) { g.term, g.candidate, g.voteTerm = i+1, fmt.Sprint(k), i+1 }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if v.written > groups*each/2 {
		t.Errorf("%d commits for %d changes", v.written, groups*each)
	}
	v.Close()
	if v, err = OpenVotes(path); err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for k := range int32(groups) {
		if g, _ := v.get(logID(k)); g.term != each || g.candidate != fmt.Sprint(k) {
			t.Errorf("group %d: %+v", k, g)
		}
	}
}

// After a crash at any operation a vote that was said to be stored is there.
func TestVotesCrash(t *testing.T) {
	for k := 0; ; k++ {
		m := vfs.NewMem(vfs.CrashAt(k))
		stored := uint64(0)
		if v, err := OpenVotesIn(m, "votes"); err == nil {
			for term := uint64(1); term < 6; term++ {
				if v.change(logID(1), func(g *vote) { g.term, g.voteTerm, g.candidate = term, term, fmt.Sprint(term) }) != nil {
					break
				}
				stored = term
			}
			if m.Crashed() && v.change(logID(1), func(*vote) {}) == nil {
				t.Fatalf("operation %d: a write after one that failed was accepted", k)
			}
		}
		crashed := m.Crashed()
		for i, fs := range []*vfs.Mem{m.AfterCrash(nil), m.AfterCrash(vfs.Random(uint64(k))), m.AfterCrash(vfs.KeepAll), m.AfterKill()} {
			v, err := OpenVotesIn(fs, "votes")
			if err != nil {
				t.Fatalf("operation %d, state %d: %v", k, i, err)
			}
			if g, _ := v.get(logID(1)); g.term < stored || g.term > stored+1 || g.voteTerm != g.term || stored > 0 && g.candidate != fmt.Sprint(g.term) {
				t.Fatalf("operation %d, state %d: %d was stored, there is %+v", k, i, stored, g)
			}
		}
		if !crashed {
			return
		}
	}
}

// On a full disk a change fails and can be made later; the library is told of neither.
func TestVotesOnAFullDisk(t *testing.T) {
	m := vfs.NewMem()
	v, err := OpenVotesIn(m, "votes")
	if err != nil {
		t.Fatal(err)
	}
	m.SetCapacity(0)
	var lost error
	s := &stableStore{v: v, id: logID(1), lost: func(err error) { lost = err }}
	if err := s.SetUint64([]byte(keyTerm), 4); err != nil || !errors.Is(lost, log.ErrNoSpace) {
		t.Errorf("a term on a full disk: %v, lost %v", err, lost) // the library would panic
	}
	if err := s.Set([]byte(keyCandidate), []byte("2")); !errors.Is(err, log.ErrNoSpace) {
		t.Errorf("a vote on a full disk: %v", err)
	}
	m.SetCapacity(-1)
	lost = nil
	if err := s.SetUint64([]byte(keyTerm), 4); err != nil || lost != nil {
		t.Errorf("with room: %v, lost %v", err, lost)
	}
	if v, err = OpenVotesIn(m.AfterCrash(nil), "votes"); err != nil {
		t.Fatal(err)
	}
	if g, _ := v.get(logID(1)); g.term != 4 {
		t.Errorf("after a crash: %+v", g)
	}
}

func FuzzVotes(f *testing.F) {
	f.Add(encodeVotes([]vote{{id: logID(1), term: 4, voteTerm: 3, candidate: "2", joined: true, life: 3, empty: true}, {id: logID(2)}}))
	f.Add([]byte(votesMagic + "\xff\xff\xff\xff\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if list, err := decodeVotes(b); err == nil && !bytes.Equal(encodeVotes(list), b) {
			t.Fatalf("accepted %x and encoded %x", b, encodeVotes(list))
		}
	})
}

func FuzzMembers(f *testing.F) {
	f.Add(firstMembers([]int32{3, 1, 2}))
	f.Add(raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "x", Address: "y"}}}))
	f.Add([]byte{0x81, 0xa7})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeMembers(b)
		if err == nil {
			for _, s := range c.Servers {
				if node, life, ok := parseReplica(s.ID); !ok || replicaID(node, life) != s.ID {
					t.Fatalf("accepted member %q", s.ID)
				}
			}
		}
	})
}
