package raftrepl

import (
	"sync"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/seed"
)

// Cache keeps the newest entries of all groups of a node, within a number of bytes:
// an entry is read by each follower soon after it was stored. The oldest goes first,
// whichever group's it is. The bytes of an entry are shared with who stored it.
type Cache struct {
	max int64

	mu   sync.Mutex
	used int64
	// A ring in the order of storing: head.next is the oldest.
	head cached
}

type cached struct {
	log        raft.Log
	of         *cacheWindow
	prev, next *cached
}

// cachedOverhead is what an entry takes besides its data.
const cachedOverhead = 256

// NewCache returns a cache of at most so many bytes. Zero or less means 16 MiB.
func NewCache(bytes int64) *Cache {
	if bytes <= 0 {
		bytes = 16 << 20
	}
	c := &Cache{max: bytes}
	c.head.prev, c.head.next = &c.head, &c.head
	return c
}

// cacheWindow is the entries of one log that the cache has: a contiguous run up to the
// log's last.
type cacheWindow struct {
	c     *Cache
	first uint64
	run   []*cached // of index first and on
}

func (w *cacheWindow) get(index uint64, to *raft.Log) bool {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	if index < w.first || index-w.first >= uint64(len(w.run)) {
		return false
	}
	*to = w.run[index-w.first].log
	return true
}

// add takes entries in that follow those that are there; others make it forget them.
func (w *cacheWindow) add(logs []*raft.Log) {
	c := w.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range logs {
		if seed.Is(seed.CacheKeepsCut) && l.Index >= w.first && l.Index < w.first+uint64(len(w.run)) {
			continue
		}
		if len(w.run) > 0 && l.Index != w.first+uint64(len(w.run)) {
			w.cutLocked(w.first)
		}
		if len(w.run) == 0 {
			w.first = l.Index
		}
		e := &cached{of: w, prev: c.head.prev, next: &c.head}
		e.log = raft.Log{Index: l.Index, Term: l.Term, Type: l.Type, Data: l.Data}
		e.prev.next, c.head.prev = e, e
		w.run = append(w.run, e)
		c.used += int64(len(l.Data)) + cachedOverhead
	}
	for c.used > c.max {
		oldest := c.head.next
		of := oldest.of
		of.run[0] = nil
		of.run, of.first = of.run[1:], of.first+1
		oldest.dropLocked(c)
	}
}

// cut forgets the entries from index on.
func (w *cacheWindow) cut(index uint64) {
	if seed.Is(seed.CacheKeepsCut) {
		return
	}
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	w.cutLocked(index)
}

func (w *cacheWindow) cutLocked(index uint64) {
	keep := 0
	if index > w.first {
		keep = min(int(index-w.first), len(w.run))
	}
	for _, e := range w.run[keep:] {
		e.dropLocked(w.c)
	}
	clear(w.run[keep:])
	w.run = w.run[:keep]
}

func (e *cached) dropLocked(c *Cache) {
	e.prev.next, e.next.prev = e.next, e.prev
	c.used -= int64(len(e.log.Data)) + cachedOverhead
}
