package log

import (
	"sync"

	"github.com/x/embedlog/internal/vfs"
)

// DefaultOpenFiles is how many files a FileCache keeps open when not told otherwise.
const DefaultOpenFiles = 256

// FileCache bounds how many files are open, over all the logs that share it. The
// least recently used one that nobody is using is closed first; while all are in
// use the bound is passed rather than anyone kept waiting.
//
// All methods may be called from several goroutines.
type FileCache struct {
	max int

	mu   sync.Mutex
	open int
	// A ring of handles in order of use: head.next is the most recent.
	head handle
}

// NewFileCache returns a cache of at most max open files. Zero or less means DefaultOpenFiles.
func NewFileCache(max int) *FileCache {
	if max <= 0 {
		max = DefaultOpenFiles
	}
	c := &FileCache{max: max}
	c.head.next, c.head.prev = &c.head, &c.head
	return c
}

// Open returns how many files are open now.
func (c *FileCache) Open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// handle is one file that may or may not be open. Its owner closes it for good
// with forget.
type handle struct {
	cache *FileCache
	// opens opens the file, and checks that it is still the one that was meant.
	opens func() (vfs.File, error)

	opening sync.Mutex // held while the file is being opened; taken before cache.mu

	// The rest is guarded by cache.mu.
	file       vfs.File
	refs       int
	gone       bool
	over       bool    // closed for good: what is opened from now on closes with its last user
	prev, next *handle // nil when not in the ring
}

// acquire returns the open file, opening it if need be. Every acquire is followed
// by one release.
func (h *handle) acquire() (vfs.File, error) {
	c := h.cache
	c.mu.Lock()
	if h.file != nil {
		h.refs++
		c.touchLocked(h)
		f := h.file
		c.mu.Unlock()
		return f, nil
	}
	c.mu.Unlock()

	h.opening.Lock()
	defer h.opening.Unlock()
	c.mu.Lock()
	if h.file != nil {
		h.refs++
		c.touchLocked(h)
		f := h.file
		c.mu.Unlock()
		return f, nil
	}
	c.mu.Unlock()
	f, err := h.opens()
	if err != nil {
		return nil, err
	}
	h.adopt(f)
	return f, nil
}

// adopt gives the handle a file that is already open, with one reference for the caller.
func (h *handle) adopt(f vfs.File) {
	c := h.cache
	c.mu.Lock()
	h.file = f
	h.refs++
	h.gone = h.gone || h.over
	c.open++
	c.touchLocked(h)
	victims := c.shrinkLocked(nil)
	c.mu.Unlock()
	for _, v := range victims {
		v.Close() // only reads, or bytes that a later sync through another handle makes durable: nothing is lost with the handle
	}
}

func (h *handle) release() {
	c := h.cache
	c.mu.Lock()
	h.refs--
	var victims []vfs.File
	switch {
	case h.gone && h.refs == 0 && h.file != nil:
		victims = c.dropLocked(h, nil)
	case c.open > c.max:
		victims = c.shrinkLocked(nil)
	}
	c.mu.Unlock()
	for _, v := range victims {
		v.Close()
	}
}

// forget closes the file as soon as nobody uses it. A later acquire opens it
// again, which fails when its name is gone.
func (h *handle) forget() {
	c := h.cache
	c.mu.Lock()
	var victims []vfs.File
	if h.file != nil && h.refs == 0 {
		victims = c.dropLocked(h, nil)
	} else {
		h.gone = true
	}
	c.mu.Unlock()
	for _, v := range victims {
		v.Close()
	}
}

// shut is forget for ever: a reader that still comes holds the file open no longer
// than it uses it.
func (h *handle) shut() {
	h.cache.mu.Lock()
	h.over = true
	h.cache.mu.Unlock()
	h.forget()
}

func (c *FileCache) touchLocked(h *handle) {
	if c.head.next == h {
		return
	}
	if h.next != nil {
		h.prev.next, h.next.prev = h.next, h.prev
	}
	h.prev, h.next = &c.head, c.head.next
	h.prev.next, h.next.prev = h, h
}

func (c *FileCache) dropLocked(h *handle, victims []vfs.File) []vfs.File {
	victims = append(victims, h.file)
	h.file, h.gone = nil, false
	h.prev.next, h.next.prev = h.next, h.prev
	h.prev, h.next = nil, nil
	c.open--
	return victims
}

func (c *FileCache) shrinkLocked(victims []vfs.File) []vfs.File {
	for h := c.head.prev; c.open > c.max && h != &c.head; {
		prev := h.prev
		if h.refs == 0 {
			victims = c.dropLocked(h, victims)
		}
		h = prev
	}
	return victims
}
