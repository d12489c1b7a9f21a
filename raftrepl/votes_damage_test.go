package raftrepl

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/log"
)

// Whatever bit of raft.db is turned over, and wherever it is cut, it holds what it held, or does not open: no
// vote is answered that was not given, none is forgotten, and nothing panics.
func TestVotesInADamagedFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "raft.db")
	v, err := OpenVotes(path)
	if err != nil {
		t.Fatal(err)
	}
	for round := range uint64(4) {
		for k := range int32(24) {
			if err := v.change(logID(k), func(g *vote) {
				g.term, g.voteTerm, g.candidate, g.life, g.joined = round+uint64(k), round+1, fmt.Sprint(k), uint32(k%3), k%2 == 0
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := v.Forget(logID(5)); err != nil {
		t.Fatal(err)
	}
	have := func(v *Votes) map[engine.LogID]vote {
		all := make(map[engine.LogID]vote)
		for k := range int32(30) {
			if g, ok := v.get(logID(k)); ok {
				g.slot = 0
				all[logID(k)] = g
			}
		}
		return all
	}
	want := have(v)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found, harmless := 0, 0
	try := func(name string, b []byte) {
		t.Helper()
		at := filepath.Join(dir, "damaged.db")
		if err := os.WriteFile(at, b, 0o600); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(at)
		v, err := OpenVotes(at)
		if err != nil {
			if !errors.Is(err, log.ErrCorrupt) {
				t.Errorf("%s: %v", name, err)
			}
			found++
			return
		}
		defer v.Close()
		harmless++
		if got := have(v); !maps.Equal(got, want) {
			t.Errorf("%s: it has other votes: %d of %d", name, len(got), len(want))
		}
	}
	try("as it was", append([]byte(nil), whole...))
	if found > 0 || t.Failed() {
		t.Fatal("it does not open undamaged")
	}
	step := 409 / testcount.N(1)
	page := os.Getpagesize()
	for i := 0; i < len(whole); i++ {
		// The first bytes of a page say what it is; most of the others are never looked at.
		if in := i % page; in >= 96 && i%max(step, 1) != 0 || in < 96 && i%(1+step/60) != 0 {
			continue
		}
		b := append([]byte(nil), whole...)
		b[i] ^= 1 << (i % 8)
		try(fmt.Sprintf("bit %d of byte %d", i%8, i), b)
	}
	for size := 1; size < len(whole); size += len(whole) / 9 {
		try(fmt.Sprintf("the first %d bytes", size), append([]byte(nil), whole[:size]...))
	}
	t.Logf("%d bytes: %d damages found, %d were harmless", len(whole), found, harmless)
	if found < 20 || harmless == 0 {
		t.Error("the test damages nothing that counts, or everything")
	}
}
