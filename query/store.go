package query

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/tidwall/btree"

	"github.com/x/embedlog/internal/seed"
)

// A store has the rows of one operator in one task, by the bytes of their keys.
//
//	rows   key -> entry            a hash table: what the operators look up
//	order  keys, ascending         a tree whose copy costs nothing until a key comes or goes: scans and prefixes
//	entry  value of now ── older ── older ...   as far as a snapshot needs them
//
// The task writes, with its lock held for writing; readers hold it for reading. A snapshot pins a version of the task: what is
// written afterwards leaves the older value behind the new one. So a scan takes the lock for some rows at a time, and
// sees one version all the same.
type store[V any] struct {
	name  string
	c     *clock
	rows  map[string]*entry[V]
	order btree.Map[string, *entry[V]]
	live  int // rows that are there now
	// changed are the entries written since the last commit, each once; old those that keep older values.
	changed []*entry[V]
	old     []*entry[V]
	bytes   int // of keys of changed, roughly
	// unsorted are entries that are not in order yet, while changelogs are read.
	unsorted    []*entry[V]
	disk        *onDisk[V] // nil: all rows are in memory
	watches     []*keySet
	beforeWrite []func(e *entry[V]) // are called before a row is written
	hist        *history            // nil: no past is kept but for snapshots
	past        []outdated[V]       // of hist, by when they were replaced
}

// keySet is the keys that have changed since somebody looked: see View.Watch.
type keySet struct {
	keys map[string]struct{}
}

// entry is a row. It stays in its store, deleted, while a snapshot or the next commit needs it.
type entry[V any] struct {
	key     string
	is      state[V]
	older   *past[V]
	changed bool // is in store.changed
	kept    bool // is in store.old
	// Of a store on disk:
	flushing bool // is in the commit under way
	circled  bool // is in onDisk.ring
	used     bool // since the hand came by
	gone     bool // is not in the store any more
	size     uint32
}

type state[V any] struct {
	val     V
	there   bool
	version uint64 // of the task, when it was written
}

type past[V any] struct {
	state[V]
	older *past[V]
}

// clock is a task's version: it advances with every chunk. It has the lock of all stores of the task.
type clock struct {
	sync.RWMutex
	version uint64
	pins    []uint64 // of snapshots, ascending; one each
	writing bool     // the task has the lock, and changes rows
	broken  atomic.Pointer[error]
	breaks  chan struct{} // has one when broken is set
	// unpin of the stores drops some of what was kept, when no snapshot is left; more says that there is more of it.
	unpin []func() (more bool)
}

// pin keeps the rows of now for a reader. The lock is held, for writing.
func (c *clock) pin() uint64 {
	c.pins = append(c.pins, c.version)
	return c.version
}

// release ends a pin. It returns for how long it held the lock at once, at most.
func (c *clock) release(version uint64) (stop time.Duration) {
	c.Lock()
	if i := slices.Index(c.pins, version); i >= 0 {
		c.pins = slices.Delete(c.pins, i, i+1)
	}
	for more := true; more && len(c.pins) == 0; {
		began := time.Now()
		more = false
		for _, f := range c.unpin {
			more = f() || more
		}
		stop = max(stop, time.Since(began))
		c.Unlock() // a snapshot may have a million of them, and others wait
		c.Lock()
	}
	c.Unlock()
	return stop
}

// wants says whether a snapshot needs a value that was written at from and is replaced now.
func (c *clock) wants(from uint64) bool {
	return len(c.pins) > 0 && c.pins[len(c.pins)-1] >= from && from < c.version
}

// fail notes that rows could not be read. What was read is not to be believed, and the task ends.
func (c *clock) fail(err error) {
	if c.broken.CompareAndSwap(nil, &err) {
		select {
		case c.breaks <- struct{}{}:
		default: // nobody listens
		}
	}
}

// err is why rows cannot be read.
func (c *clock) err() error {
	if err := c.broken.Load(); err != nil {
		return *err
	}
	return nil
}

func newStore[V any](name string, c *clock) *store[V] {
	s := &store[V]{name: name, c: c, rows: make(map[string]*entry[V])}
	c.unpin = append(c.unpin, s.forget)
	return s
}

// get is the row of now. The key is not kept.
func (s *store[V]) get(key []byte) (v V, ok bool) {
	e := s.rows[string(key)]
	if e == nil && s.disk != nil {
		return s.missed(key)
	}
	if e != nil && e.is.there {
		return e.is.val, true
	}
	return v, false
}

// find is a row's entry; nil where there is none. It is for the task alone.
func (s *store[V]) find(key []byte) *entry[V] {
	e := s.rows[string(key)]
	if s.disk != nil {
		if e == nil {
			return s.loaded(key)
		}
		e.used = true
	}
	return e
}

// getAt is a row of a version that is pinned.
func (s *store[V]) getAt(key []byte, version uint64) (v V, ok bool) {
	e := s.rows[string(key)]
	if e == nil && s.disk != nil {
		return s.missed(key)
	}
	if e == nil {
		return v, false
	}
	return e.at(version)
}

// scan calls f for the entries from a key on, in order, up to another one that is not included, if it is not empty; until f says false.
// F changes neither them nor the store.
func (s *store[V]) scan(from, to string, f func(key string, e *entry[V]) bool) {
	if s.disk != nil {
		s.scanDisk(from, to, f)
		return
	}
	if to == "" {
		s.order.Ascend(from, f)
		return
	}
	s.order.Ascend(from, func(key string, e *entry[V]) bool { return key < to && f(key, e) })
}

// between is scan for the task, which may write the entries.
func (s *store[V]) between(from, to string, f func(key string, e *entry[V]) bool) {
	if s.disk != nil {
		s.entriesDisk(from, to, false, f)
		return
	}
	s.scan(from, to, f)
}

// before is between for the entries up to a key, which is included, from the last one on down.
func (s *store[V]) before(last string, f func(key string, e *entry[V]) bool) {
	if s.disk != nil {
		s.entriesDisk("", last+"\x00", true, f)
		return
	}
	s.order.Descend(last, f)
}

// put sets a row. The key is copied.
func (s *store[V]) put(key []byte, v V) { s.write(s.entry(key), v, true) }

func (s *store[V]) add(key string) *entry[V] {
	e := &entry[V]{key: key, is: state[V]{version: s.c.version}}
	s.rows[key] = e
	s.order.Set(key, e)
	return e
}

// del deletes a row.
func (s *store[V]) del(key []byte) {
	if e := s.find(key); e != nil && e.is.there {
		var none V
		s.write(e, none, false)
	}
}

func (s *store[V]) write(e *entry[V], v V, there bool) {
	for _, f := range s.beforeWrite {
		f(e)
	}
	if (s.c.wants(e.is.version) || s.hist.wants(e.is.version)) && (e.is.there || e.older != nil) {
		e.older = &past[V]{e.is, e.older}
		if s.hist != nil {
			e.kept = true
			s.past = append(s.past, outdated[V]{e, s.c.version})
		} else if !e.kept {
			e.kept = true
			s.old = append(s.old, e)
		}
	}
	switch {
	case there && !e.is.there:
		s.live++
	case !there && e.is.there:
		s.live--
	}
	e.is = state[V]{v, there, s.c.version}
	for _, w := range s.watches {
		w.keys[e.key] = struct{}{}
	}
	if !e.changed {
		e.changed = true
		s.changed = append(s.changed, e)
		s.bytes += len(e.key) + int(unsafe.Sizeof(v))
	}
}

// restored sets a row that is in the changelog. It has its place in the order when the changelog is through, see sorted: a tree takes keys that come in
// their order five times as fast as others.
func (s *store[V]) restored(key []byte, v V, there bool) {
	switch e := s.rows[string(key)]; {
	case there:
		if e == nil {
			e = &entry[V]{key: string(key), is: state[V]{version: s.c.version}}
			s.rows[e.key] = e
			s.unsorted = append(s.unsorted, e)
			s.live++
		}
		e.is.val, e.is.there = v, true
	case e != nil:
		s.live--
		e.is.there = false
		s.remove(e)
	}
}

// sorted ends a restoration.
func (s *store[V]) sorted() {
	slices.SortFunc(s.unsorted, func(a, b *entry[V]) int { return strings.Compare(a.key, b.key) })
	for _, e := range s.unsorted {
		if e.is.there {
			s.order.Load(e.key, e)
		}
	}
	s.unsorted = nil
}

// load sets a row that is not there; the keys come in their order. The key is kept.
func (s *store[V]) load(key string, v V) {
	e := &entry[V]{key: key, is: state[V]{v, true, s.c.version}}
	s.rows[key] = e
	s.order.Load(key, e)
	s.live++
}

// reset removes all rows, with room for some others. It is for a store that nobody reads yet.
func (s *store[V]) reset(room int) {
	if s.disk != nil {
		room, s.disk.ring, s.disk.hand = 0, nil, 0
		s.takePending()
	}
	s.rows, s.order, s.unsorted, s.live = make(map[string]*entry[V], room), btree.Map[string, *entry[V]]{}, nil, 0
}

// committed forgets what was changed: the next changes are counted anew.
func (s *store[V]) committed() {
	if s.disk != nil {
		s.flush()
		return
	}
	for i, e := range s.changed {
		e.changed = false
		s.tidy(e)
		s.changed[i] = nil
	}
	s.changed, s.bytes = s.changed[:0], 0
}

// forgetAtOnce is how many entries forget looks at.
const forgetAtOnce = 1 << 12

// forget drops some of what was kept for snapshots, when none is left; more says that there is more.
func (s *store[V]) forget() (more bool) {
	if s.hist != nil {
		return false // see trim
	}
	for n := 0; n < forgetAtOnce && len(s.old) > 0; n++ {
		last := len(s.old) - 1
		e := s.old[last]
		s.old[last] = nil
		s.old = s.old[:last]
		e.kept, e.older = false, nil
		if s.tidy(e); s.disk != nil && !e.gone && !e.changed && !e.flushing {
			s.circle(e)
		}
	}
	return len(s.old) > 0
}

// tidy removes an entry that nobody needs.
func (s *store[V]) tidy(e *entry[V]) {
	if !e.is.there && !e.changed && !e.kept && !e.flushing {
		s.remove(e)
	}
}

func (s *store[V]) remove(e *entry[V]) {
	if s.rows[e.key] == e {
		delete(s.rows, e.key)
		s.order.Delete(e.key)
		e.gone = true
	}
}

// at is the entry's value at a version that is pinned.
func (e *entry[V]) at(version uint64) (v V, ok bool) {
	if e.is.version <= version || seed.Is(seed.ViewSnapshot) {
		return e.is.val, e.is.there
	}
	for p := e.older; p != nil; p = p.older {
		if p.version <= version {
			return p.val, p.there
		}
	}
	return v, false
}

// text is a key as the store's tables take it: it is valid as long as b.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// entry finds a row to be written, and makes one that is not there where there is none. The key is copied.
func (s *store[V]) entry(key []byte) *entry[V] {
	e := s.find(key)
	if e == nil {
		e = s.add(string(key))
	}
	return e
}
