package vfs

import (
	"sync"
	"time"
)

// pageSize is the block of the disk and the page of the cache.
const pageSize = 4096

type page [pageSize]byte

// zeroPage stands for a block that was zeroed or allocated. Nothing writes to it.
var zeroPage = new(page)

// slot is one page of a file: as read now, and as last synced. Nil is a hole. The
// page is dirty when the two differ.
type slot struct {
	now, disk *page
	private   bool // now belongs to this slot's now alone, and may be written in place
	kept      bool // disk belongs to this slot alone (to now as well, unless private)
	lost      bool // a sync failed: now counts as clean and is gone after a power cut
}

// memNode is a file's content.
type memNode struct {
	mem          *Mem
	links, opens int // guarded by Mem.mu: names; handles and mappings

	mu         sync.Mutex
	slots      []slot
	size       int64
	syncedSize int64
	dirty      span          // the slots written since the last sync lie in it
	blocks     int64         // slots that are not holes, counted in Mem.used
	maps       []*memMapping // replaced, never changed in place
	modified   time.Time
}

// span is a range of slots.
type span struct{ start, end int }

func (s span) with(start, end int) span {
	if s.start == s.end {
		return span{start, end}
	}
	return span{min(s.start, start), max(s.end, end)}
}

func (m *Mem) newNode() *memNode { return &memNode{mem: m, modified: time.Now()} }

func (n *memNode) infoLocked(name string) Info {
	return Info{Name: name, Size: n.size, Allocated: n.blocks * pageSize, Modified: n.modified}
}

// growSlots makes room for count slots.
func (n *memNode) growSlots(count int) {
	for len(n.slots) < count {
		n.slots = append(n.slots, slot{})
	}
}

// readLocked copies the bytes at off, as read now or as last synced, up to the end
// of the file.
func (n *memNode) readLocked(p []byte, off int64, synced bool) int {
	size := n.size
	if synced {
		size = n.syncedSize
	}
	if off >= size {
		return 0
	}
	p = p[:min(int64(len(p)), size-off)]
	for done := 0; done < len(p); {
		at := off + int64(done)
		i, in := int(at/pageSize), int(at%pageSize)
		src := zeroPage
		if i < len(n.slots) {
			s := &n.slots[i]
			if synced && s.disk != nil {
				src = s.disk
			} else if !synced && s.now != nil {
				src = s.now
			}
		}
		done += copy(p[done:], src[in:])
	}
	return len(p)
}

// putLocked writes count bytes at off, those of p or, where p is nil, zeros. It
// returns how many the disk had room for. Mappings are the caller's business.
func (n *memNode) putLocked(off int64, p []byte, count int) int {
	if count == 0 {
		return 0
	}
	end := off + int64(count)
	first, last := int(off/pageSize), int((end-1)/pageSize)
	n.growSlots(last + 1)
	done := 0
	for i := first; i <= last; i++ {
		s := &n.slots[i]
		if s.now == nil {
			if !n.mem.take() {
				break
			}
			n.blocks++
		}
		at := off + int64(done)
		in := int(at % pageSize)
		piece := min(pageSize-in, count-done)
		if p == nil && piece == pageSize {
			s.now, s.private = zeroPage, false
		} else {
			dst := s.own()
			if p == nil {
				clear(dst[in : in+piece])
			} else {
				copy(dst[in:], p[done:done+piece])
			}
		}
		s.lost = false
		done += piece
	}
	if done > 0 {
		n.dirty = n.dirty.with(first, last+1)
		n.size = max(n.size, off+int64(done))
	}
	return done
}

// own returns the page of the slot for writing, copied if somebody else shares it.
func (s *slot) own() *page {
	if !s.private {
		p := new(page)
		if s.now != nil && s.now != zeroPage {
			*p = *s.now
		}
		s.now, s.private = p, true
	}
	return s.now
}

// resizeLocked sets the size. Bytes past the end are always zero in the pages, so
// growing costs nothing.
func (n *memNode) resizeLocked(size int64) {
	if size < n.size {
		for _, v := range n.maps {
			v.high = max(v.high, n.size)
		}
		keep := int((size + pageSize - 1) / pageSize)
		for i := keep; i < len(n.slots); i++ {
			s := &n.slots[i]
			if s.now != nil {
				n.blocks--
				n.mem.used.Add(-1)
			}
			s.now, s.private, s.lost = nil, false, false
		}
		if keep < len(n.slots) {
			n.dirty = n.dirty.with(keep, len(n.slots))
		}
		if in := int(size % pageSize); in != 0 && keep <= len(n.slots) && n.slots[keep-1].now != nil {
			s := &n.slots[keep-1]
			if s.now != zeroPage {
				clear(s.own()[in:])
				s.lost = false
				n.dirty = n.dirty.with(keep-1, keep)
			}
		}
	}
	n.growViews(size)
	n.size = size
}

// allocateLocked turns holes of [off, off+count) into zeroed blocks.
func (n *memNode) allocateLocked(off, count int64) bool {
	first, last := int(off/pageSize), int((off+count-1)/pageSize)
	n.growSlots(last + 1)
	for i := first; i <= last; i++ {
		s := &n.slots[i]
		if s.now != nil {
			continue
		}
		if !n.mem.take() {
			return false
		}
		n.blocks++
		s.now = zeroPage
		n.dirty = n.dirty.with(i, i+1)
	}
	return true
}

// syncLocked makes what is dirty durable. A page of an earlier failed sync is not
// dirty: the system forgot that it was never written.
func (n *memNode) syncLocked() {
	if n.mem.volatile {
		n.dirty = span{}
		return
	}
	for i := n.dirty.start; i < n.dirty.end; i++ {
		s := &n.slots[i]
		switch {
		case s.lost || s.now == s.disk:
		case s.private && s.kept:
			*s.disk = *s.now // cheaper than to share it, and allocate at the next write
		default:
			s.disk, s.kept, s.private = s.now, s.private, false
		}
	}
	n.dirty = span{}
	n.syncedSize = n.size
}

// failSyncLocked is a sync that fails as on Linux: the dirty pages still read new,
// count as clean, and never reach the disk unless they are written again. The
// size stays unsynced.
func (n *memNode) failSyncLocked() {
	for i := n.dirty.start; i < n.dirty.end; i++ {
		s := &n.slots[i]
		s.lost = s.now != s.disk
	}
	n.dirty = span{}
}
