package query

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/btree"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
	"github.com/x/embedlog/internal/testcount"
)

// MemStores are stores that are in memory, and forget what they were told last when they are told to.
type MemStores struct {
	mu     sync.Mutex
	stores map[string]*memRows
}

func (m *MemStores) OpenStore(_, name string) (RowStore, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stores == nil {
		m.stores = map[string]*memRows{}
	}
	s := m.stores[name]
	if s == nil {
		s = &memRows{rows: new(btree.Map[string, string])}
		m.stores[name] = s
	}
	if s.open {
		return nil, fmt.Errorf("store %s is open", name)
	}
	s.open = true
	return s, nil
}

// Forget has each store be as it was some changes ago.
func (m *MemStores) Forget(r *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(m.stores)) {
		s := m.stores[name]
		if n := len(s.before); n > 0 && r.IntN(3) > 0 {
			s.rows = s.before[r.IntN(n)]
		}
		s.before, s.open = nil, false
	}
}

// memRows are rows of now, and as they were before the last changes.
type memRows struct {
	mu     sync.RWMutex
	open   bool
	rows   *btree.Map[string, string]
	before []*btree.Map[string, string]
}

func (s *memRows) Get(dst, key []byte) ([]byte, bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.open {
		return nil, false, embedlog.ErrClosed
	}
	row, ok := s.rows.Get(string(key))
	return append(dst, row...), ok, nil
}

func (s *memRows) Walk(from, to []byte, backwards bool, f func(key, row []byte) bool) error {
	s.mu.Lock() // a copy changes what it is of
	if !s.open {
		s.mu.Unlock()
		return embedlog.ErrClosed
	}
	rows := s.rows.Copy()
	s.mu.Unlock()
	// What f is given is not valid afterwards, and is written over to show it.
	give := func(key, row string) bool {
		k, r := []byte(key), []byte(row)
		more := f(k, r)
		for i := range k {
			k[i] = 0xee
		}
		for i := range r {
			r[i] = 0xee
		}
		return more
	}
	if !backwards {
		rows.Ascend(string(from), func(key, row string) bool { return (to == nil || key < string(to)) && give(key, row) })
		return nil
	}
	step := func(key, row string) bool {
		return to != nil && key >= string(to) || key >= string(from) && give(key, row)
	}
	if to == nil {
		rows.Reverse(step)
	} else {
		rows.Descend(string(to), step)
	}
	return nil
}

func (s *memRows) Apply(changes []RowChange) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return embedlog.ErrClosed
	}
	s.before = append(s.before, s.rows.Copy())
	s.before = s.before[max(len(s.before)-5, 0):]
	for _, c := range changes {
		if c.Delete {
			s.rows.Delete(string(c.Key))
		} else {
			s.rows.Set(string(c.Key), string(c.Row))
		}
	}
	return nil
}

func (s *memRows) Clear() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows, s.before = new(btree.Map[string, string]), nil
	return nil
}

func (s *memRows) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = false
	return nil
}

// A store whose rows are on disk, and its snapshots, are what a map and its copies are, whatever leaves memory and when.
func TestStoreOnDiskIsAMap(t *testing.T) {
	for seed := range uint64(testcount.N(300)) {
		if storeOnDisk(t, seed); t.Failed() {
			return
		}
	}
}

func storeOnDisk(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 2))
	c := &clock{version: 1, writing: true}
	rows, _ := new(MemStores).OpenStore("", "s")
	s := newStore[int64]("s", c)
	k := &keptStore[int64]{s, plain[int64](codec.Int64)}
	k.toDisk(rows, 3, &rowCache{limit: r.IntN(2000)})
	// Rows of the stores before and after it.
	for _, n := range []int{2, 4} {
		p := storePrefix(n)
		if err := rows.Apply([]RowChange{{Key: append(p[:], "k5"...), Row: []byte("other")}, {Key: append(p[:], 0xff), Row: []byte("other")}}); err != nil {
			t.Fatal(err)
		}
	}
	model := map[string]int64{}
	type shot struct {
		version uint64
		rows    map[string]int64
	}
	var shots []shot
	var under []RowChange // the commit under way
	committing := false
	key := func() string { return "k" + strings.Repeat("x", r.IntN(2)) + fmt.Sprint(r.IntN(12)) }
	check := func(what string, got, want map[string]int64) {
		if !maps.Equal(got, want) {
			t.Fatalf("seed %d: %s: %v, want %v", seed, what, got, want)
		}
	}
	for range 400 {
		name := key()
		switch r.IntN(14) {
		case 0, 1, 2, 3:
			v := int64(r.IntN(1000))
			s.put([]byte(name), v)
			model[name] = v
		case 4, 5:
			s.del([]byte(name))
			delete(model, name)
		case 6:
			c.version++
			s.evict()
		case 7:
			shots = append(shots, shot{c.pin(), maps.Clone(model)})
			c.version++
		case 8:
			if len(shots) > 0 {
				i := r.IntN(len(shots))
				c.release(shots[i].version)
				shots = slices.Delete(shots, i, i+1)
			}
		case 9, 10:
			if !committing {
				recs, err := k.changes(nil, "t", 0)
				if err != nil {
					t.Fatal(err)
				}
				for i := range recs {
					under = append(under, k.change(&recs[i]))
				}
				k.committed()
				committing = true
				break
			}
			if err := rows.Apply(under); err != nil {
				t.Fatal(err)
			}
			k.flushed()
			under, committing = nil, false
		case 11: // a walk that writes what it finds
			var seen []string
			from, backwards := key(), r.IntN(2) == 0
			f := func(key string, e *entry[int64]) bool {
				if !e.is.there {
					return true
				}
				seen = append(seen, key)
				switch r.IntN(3) {
				case 0:
					model[key]++
					s.write(e, e.is.val+1, true)
				case 1:
					delete(model, key)
					s.write(e, 0, false)
				}
				return true
			}
			before := maps.Clone(model)
			if backwards {
				s.before(from, f)
				slices.Reverse(seen)
				maps.DeleteFunc(before, func(k string, _ int64) bool { return k > from })
			} else {
				s.between(from, "", f)
				maps.DeleteFunc(before, func(k string, _ int64) bool { return k < from })
			}
			if want := slices.Sorted(maps.Keys(before)); !slices.Equal(seen, want) {
				t.Fatalf("seed %d: from %q, backwards %v: %v, want %v", seed, from, backwards, seen, want)
			}
		}
		c.writing = r.IntN(2) == 0 // or a reader asks
		v, ok := s.get([]byte(name))
		if w, has := model[name]; ok != has || v != w || s.live != len(model) {
			t.Fatalf("seed %d: %q is %d, %v, of %d rows; want %d, %v, of %d", seed, name, v, ok, s.live, w, has, len(model))
		}
		c.writing = true
		shots := append(shots, shot{c.version, model})
		at := shots[r.IntN(len(shots))]
		got := map[string]int64{}
		var order []string
		s.scan("", "", func(key string, e *entry[int64]) bool {
			if v, ok := e.at(at.version); ok {
				got[key] = v
			}
			order = append(order, key)
			return true
		})
		check("scan", got, at.rows)
		if !slices.IsSorted(order) || len(slices.Compact(order)) != len(order) {
			t.Fatalf("seed %d: scanned in the order %v", seed, order)
		}
		if v, ok := s.getAt([]byte(name), at.version); ok != (at.rows[name] != 0 || has(at.rows, name)) || v != at.rows[name] {
			t.Fatalf("seed %d: %q at version %d: %d, %v; want %d", seed, name, at.version, v, ok, at.rows[name])
		}
		if err := c.err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, sh := range shots {
		c.release(sh.version)
	}
	if err := rows.Apply(under); err != nil {
		t.Fatal(err)
	}
	k.flushed()
	s.disk.cache.limit = 0
	for range 100 {
		if len(s.changed) > 0 {
			recs, _ := k.changes(nil, "t", 0)
			k.committed()
			var list []RowChange
			for i := range recs {
				list = append(list, k.change(&recs[i]))
			}
			if err := rows.Apply(list); err != nil {
				t.Fatal(err)
			}
			k.flushed()
		}
		s.evict()
	}
	if len(s.rows) != 0 || s.order.Len() != 0 || s.disk.cache.used != 0 || len(s.disk.ring) != 0 {
		t.Errorf("seed %d: %d entries, %d in order, %d in the ring and %d bytes are left in memory", seed, len(s.rows), s.order.Len(), len(s.disk.ring), s.disk.cache.used)
	}
	n := 0
	if err := rows.Walk([]byte{0, 4}, []byte{0, 5}, false, func(key, row []byte) bool {
		n++
		v, err := s.disk.decode(bytes.Clone(row))
		if err != nil || v != model[string(key[2:])] {
			t.Errorf("seed %d: on disk %q is %d, %v", seed, key, v, err)
		}
		return true
	}); err != nil || n != len(model) {
		t.Errorf("seed %d: %d rows on disk, want %d, %v", seed, n, len(model), err)
	}
}

func has(m map[string]int64, key string) bool {
	_, ok := m[key]
	return ok
}

// A view of many more rows than there is room for has about as many in memory as there is room for.
func TestMemoryIsBounded(t *testing.T) {
	ctx, db := context.Background(), embedlogtest.Open(t, nil)
	top, err := db.EnsureTopic(ctx, "t", nil)
	if err != nil {
		t.Fatal(err)
	}
	const room = 64 << 10
	rows := max(testcount.N(20_000), 4000)
	stores := new(MemStores)
	open := func() (*Graph, *View[string, int64]) {
		g := NewGraph(db.DB, "g", &Options{CommitInterval: time.Millisecond, Store: stores, CacheBytes: room})
		v := Add(g, "v", Max(TableFrom(top, codec.String, codec.Int64), func(_ string, n int64) int64 { return n }))
		if err := g.Start(ctx); err != nil {
			t.Fatal(err)
		}
		return g, v
	}
	g, v := open()
	for i := 0; i < rows; i += 500 {
		var recs []embedlog.Record
		for j := range 500 {
			recs = append(recs, embedlog.Record{Key: fmt.Appendf(nil, "k%06d", (i+j)*7919%rows), Value: mustInt(int64(i))})
		}
		if _, err := top.Produce(ctx, recs...); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	inMemory := func() (n int) {
		task := g.slots[0].task
		task.clock.Lock()
		defer task.clock.Unlock()
		for _, s := range task.stores {
			n += s.entries()
		}
		return n
	}
	// The last commit has to end, and some records to come, for what it wrote to leave.
	for try := 0; inMemory() > 3*room/entryBytes; try++ {
		if try == 2000 {
			t.Fatalf("%d entries of %d rows are in memory", inMemory(), 3*rows)
		}
		if _, err := top.Produce(ctx, embedlog.Record{Key: []byte("k000001"), Value: mustInt(1)}); err != nil {
			t.Fatal(err)
		}
		if err := g.CatchUp(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := v.Len(ctx); n != rows || err != nil {
		t.Errorf("%d rows, %v", n, err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	g, v = open() // and none is read before it is asked for
	if n, err := v.Len(ctx); n != rows || err != nil || inMemory() != 0 {
		t.Errorf("after a restart there are %d rows, %d in memory, %v", n, inMemory(), err)
	}
	if s := g.Stats(); s.RestoredRows != int64(3*rows) || s.RestoredRecords != 0 {
		t.Errorf("restored: %+v", s)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
}
