package query

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/x/embedlog"
)

// onDisk has a store's rows in a RowStore, and a part of them in memory: those that have changed since the last commit and those that are being committed,
// those of which a snapshot needs an older value, and some others that were used lately.
//
// What is not in memory has not changed since it was written, nor since the oldest snapshot: what the RowStore has is its value
// for all readers. So an entry leaves memory only when the RowStore has it, no snapshot is older than it, and no
// operator holds it: between chunks. What is in memory counts before what is on the disk, also where it says that a row is deleted.
type onDisk[V any] struct {
	rows   RowStore
	prefix [2]byte                     // of the store's keys
	decode func(raw []byte) (V, error) // the value may be a part of what it is given
	cache  *rowCache

	flushing     []*entry[V] // in the commit under way
	ring         []*entry[V] // what can leave, when its time has come
	hand         int
	pending      []RowChange // while changelogs are read, and the keys in it
	sets         map[string]bool
	pendingBytes int
}

// rowCache is how much a task has in memory of rows that are on disk as well.
type rowCache struct {
	limit, used int
}

// defaultCacheBytes is what a task keeps in memory of rows on disk.
const defaultCacheBytes = 64 << 20

// entryBytes is what an entry takes beside its key and its row, roughly.
const entryBytes = 200

// key is a row's key in the RowStore.
func (d *onDisk[V]) key(key string) []byte {
	return append(append(make([]byte, 0, len(key)+2), d.prefix[:]...), key...)
}

// bounds are of keys from the one to the other; empty is the end.
func (d *onDisk[V]) bounds(from, to string) (a, b []byte) {
	if a = d.key(from); to != "" {
		return a, d.key(to)
	}
	return a, []byte{d.prefix[0], d.prefix[1] + 1}
}

// read is a row that is not in memory.
func (s *store[V]) read(key []byte) (v V, size int, ok bool) {
	raw, ok, err := s.disk.rows.Get(nil, s.disk.key(text(key)))
	err = ofNode(err)
	if err == nil && ok {
		v, err = s.disk.decode(raw)
	}
	if err != nil {
		s.c.fail(fmt.Errorf("store %s: %w", s.name, err))
		return v, 0, false
	}
	return v, len(raw), ok
}

// missed is get of a row that is not in memory.
func (s *store[V]) missed(key []byte) (v V, ok bool) {
	if s.c.writing { // an operator asks, and will again
		if e := s.find(key); e != nil && e.is.there {
			return e.is.val, true
		}
		return v, false
	}
	v, _, ok = s.read(key)
	return v, ok
}

// loaded brings a row into memory if it is on the disk.
func (s *store[V]) loaded(key []byte) *entry[V] {
	v, size, ok := s.read(key)
	if !ok {
		return nil
	}
	return s.attach(string(key), v, size)
}

// attach adds a row that is on the disk to those in memory. No snapshot is older than it.
func (s *store[V]) attach(key string, v V, size int) *entry[V] {
	e := &entry[V]{key: key, is: state[V]{val: v, there: true}}
	s.rows[key] = e
	s.order.Set(key, e)
	s.sized(e, size)
	s.circle(e)
	return e
}

// sized notes how long an entry's row is.
func (s *store[V]) sized(e *entry[V], size int) {
	size += len(e.key) + entryBytes
	if e.circled {
		s.disk.cache.used += size - int(e.size)
	}
	e.size = uint32(min(int64(size), math.MaxUint32))
}

// circle has an entry leave when it is not used any more.
func (s *store[V]) circle(e *entry[V]) {
	e.used = true
	if !e.circled {
		e.circled = true
		s.disk.ring = append(s.disk.ring, e)
		s.disk.cache.used += int(e.size)
	}
}

// evict has entries leave memory that were not used since the hand came by, while there is too much. It looks at some.
func (s *store[V]) evict() {
	d := s.disk
	if d == nil {
		return
	}
	for steps := 1024 + len(d.ring)/8; steps > 0 && d.cache.used > d.cache.limit && len(d.ring) > 0; steps-- {
		if d.hand >= len(d.ring) {
			d.hand = 0
		}
		e := d.ring[d.hand]
		stays := e.changed || e.flushing || e.kept // it comes back into the ring when it may leave
		switch {
		case !stays && e.is.there && len(s.c.pins) > 0 && e.is.version > s.c.pins[0]:
			d.hand++
			continue
		case !stays && e.used && !e.gone:
			e.used = false
			d.hand++
			continue
		}
		if !e.gone && !stays {
			s.remove(e)
		}
		d.cache.used -= int(e.size)
		e.circled = false
		last := len(d.ring) - 1
		d.ring[d.hand] = d.ring[last]
		d.ring[last] = nil
		d.ring = d.ring[:last]
	}
}

// flush has what was changed wait until the RowStore has it.
func (s *store[V]) flush() {
	d := s.disk
	for _, e := range s.changed {
		e.changed, e.flushing = false, true
	}
	d.flushing, s.changed, s.bytes = s.changed, d.flushing[:0], 0
}

// flushed says that the RowStore has it.
func (s *store[V]) flushed() {
	d := s.disk
	if d == nil {
		return
	}
	for i, e := range d.flushing {
		e.flushing = false
		if s.tidy(e); !e.gone {
			s.circle(e)
		}
		d.flushing[i] = nil
	}
	d.flushing = d.flushing[:0]
}

// walk calls f for the rows in memory, and for those on disk that are not, in order. e is nil for these, and row is what the RowStore has.
// F must not change the store.
func (s *store[V]) walk(from, to string, backwards bool, f func(key string, e *entry[V], row []byte) bool) {
	it := s.order.Iter()
	var more bool
	inMemory := func() bool { // the iterator is at an entry of the range
		return more && (to == "" || it.Key() < to) && it.Key() >= from
	}
	step := it.Next
	switch {
	case !backwards:
		more = it.Seek(from)
	case to == "":
		step, more = it.Prev, it.Last()
	default:
		step = it.Prev
		if more = it.Seek(to); more {
			more = it.Prev()
		} else {
			more = it.Last()
		}
	}
	stopped := false
	next := func() bool {
		stopped = !f(it.Key(), it.Value(), nil)
		more = step()
		return !stopped
	}
	a, b := s.disk.bounds(from, to)
	err := s.disk.rows.Walk(a, b, backwards, func(key, row []byte) bool {
		k := text(key[len(s.disk.prefix):])
		for inMemory() && (it.Key() < k != backwards && it.Key() != k) {
			if !next() {
				return false
			}
		}
		if inMemory() && it.Key() == k {
			return next()
		}
		stopped = !f(strings.Clone(k), nil, row)
		return !stopped
	})
	if err != nil {
		s.c.fail(fmt.Errorf("store %s: %w", s.name, ofNode(err)))
		return
	}
	for !stopped && inMemory() && next() {
	}
}

// passing makes an entry of a row that stays on disk.
func (s *store[V]) passing(key string, row []byte) *entry[V] {
	v, err := s.disk.decode(slices.Clone(row))
	if err != nil {
		s.c.fail(fmt.Errorf("store %s: %w", s.name, err))
		return &entry[V]{key: key}
	}
	return &entry[V]{key: key, is: state[V]{val: v, there: true}}
}

// scanDisk is scan of a store on disk.
func (s *store[V]) scanDisk(from, to string, f func(key string, e *entry[V]) bool) {
	s.walk(from, to, false, func(key string, e *entry[V], row []byte) bool {
		if e == nil {
			e = s.passing(key, row)
		}
		return f(key, e)
	})
}

// entriesDisk is entries of a store on disk: some at a time come into memory, and then f is called, which may change the store.
func (s *store[V]) entriesDisk(from, to string, backwards bool, f func(key string, e *entry[V]) bool) {
	var some []*entry[V]
	for n := 4; ; n = min(4*n, page) {
		some = some[:0]
		s.walk(from, to, backwards, func(key string, e *entry[V], row []byte) bool {
			if e == nil {
				e = s.passing(key, row)
				e.size = uint32(len(row))
			}
			some = append(some, e)
			return len(some) < n
		})
		for i, e := range some {
			if s.rows[e.key] == nil {
				some[i] = s.attach(e.key, e.is.val, int(e.size))
			}
		}
		for _, e := range some {
			if !f(e.key, e) {
				return
			}
		}
		if len(some) < n {
			return
		}
		if last := some[len(some)-1].key; backwards {
			to = last
			if to == "" {
				return
			}
		} else {
			from = last + "\x00"
		}
	}
}

// change is what a record of the changelog changes in the RowStore.
func (d *onDisk[V]) change(rec *embedlog.Record) RowChange {
	c := RowChange{Key: d.key(text(rec.Key)), Delete: rec.Value == nil}
	if !c.Delete {
		c.Row = appendRow(nil, rec.Value, rec.Headers)
	}
	return c
}

// replayed takes a record of the changelog into what is applied next.
func (s *store[V]) replayed(rec *embedlog.Record) error {
	d := s.disk
	was, ok := d.sets[string(rec.Key)]
	if !ok {
		var err error
		if _, was, err = d.rows.Get(nil, d.key(text(rec.Key))); err != nil {
			return ofNode(err)
		}
	}
	is := rec.Value != nil
	switch {
	case is && !was:
		s.live++
	case !is && was:
		s.live--
	}
	if d.sets == nil {
		d.sets = map[string]bool{}
	}
	d.sets[string(rec.Key)] = is
	c := d.change(rec)
	d.pending = append(d.pending, c)
	d.pendingBytes += len(c.Key) + len(c.Row)
	return nil
}

// takePending is what replayed has taken.
func (s *store[V]) takePending() []RowChange {
	d := s.disk
	if d == nil {
		return nil
	}
	list := d.pending
	d.pending, d.sets, d.pendingBytes = nil, nil, 0
	return list
}
