package query

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// A store and its snapshots are what a map and its copies are.
func TestStoreIsAMap(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := &clock{version: 1}
		s := newStore[int]("s", c)
		model := map[string]int{}
		type shot struct {
			version uint64
			rows    map[string]int
		}
		var shots []shot
		for range 300 {
			key := fmt.Appendf(nil, "k%d", r.IntN(12))
			switch r.IntN(10) {
			case 0, 1, 2, 3:
				v := r.Int()
				s.put(key, v)
				model[string(key)] = v
			case 4, 5:
				s.del(key)
				delete(model, string(key))
			case 6:
				c.version++
			case 7: // a snapshot is of a version that is over
				shots = append(shots, shot{c.pin(), maps.Clone(model)})
				c.version++
			case 8:
				if len(shots) > 0 {
					i := r.IntN(len(shots))
					c.release(shots[i].version)
					shots = slices.Delete(shots, i, i+1)
				}
			case 9:
				s.committed()
			}
			v, ok := s.get(key)
			if w, has := model[string(key)]; ok != has || v != w || s.live != len(model) {
				t.Fatalf("seed %d: %q is %d, %v, of %d rows; want %d, %v, of %d", seed, key, v, ok, s.live, w, has, len(model))
			}
			for _, sh := range shots {
				got := map[string]int{}
				for _, e := range s.rows {
					if v, ok := e.at(sh.version); ok {
						got[e.key] = v
					}
				}
				if !maps.Equal(got, sh.rows) {
					t.Fatalf("seed %d: at version %d: %v, want %v", seed, sh.version, got, sh.rows)
				}
			}
			if !slices.Equal(s.order.Keys(), slices.Sorted(maps.Keys(s.rows))) {
				t.Fatalf("seed %d: keys in order: %v, of %v", seed, s.order.Keys(), s.rows)
			}
		}
		for _, sh := range shots {
			c.release(sh.version)
		}
		s.committed()
		if len(s.rows) != len(model) || len(s.old) != 0 {
			t.Errorf("seed %d: %d entries and %d with a past are left of %d rows", seed, len(s.rows), len(s.old), len(model))
		}
	}
}

// The store keeps nothing of the key that it is given.
func TestStoreCopiesKeys(t *testing.T) {
	s := newStore[int]("s", &clock{})
	key := []byte("abc")
	s.put(key, 1)
	copy(key, "xyz")
	if _, ok := s.get([]byte("abc")); !ok || !bytes.Equal(key, []byte("xyz")) {
		t.Error("the key has changed")
	}
}
