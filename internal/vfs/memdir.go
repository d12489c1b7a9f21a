package vfs

import (
	"slices"
	"strings"
	"time"
)

// memDir is a directory: its names now, its names as last synced, and the changes
// that lead from these to those. All of it is guarded by Mem.mu.
type memDir struct {
	entries  []entry // sorted by name
	synced   []entry // sorted by name
	pending  []change
	modified time.Time
}

// entry is a name and what it stands for: a file, a directory, or, in a change, nothing.
type entry struct {
	name string
	file *memNode
	dir  *memDir
}

func (e entry) gone() bool { return e.file == nil && e.dir == nil }

// change is one step of a directory that a power cut keeps or loses whole.
type change struct {
	op  Op
	set [2]entry // the second is unused (no name) except by a rename
}

func search(entries []entry, name string) (int, bool) {
	return slices.BinarySearchFunc(entries, name, func(e entry, name string) int { return strings.Compare(e.name, name) })
}

func (d *memDir) find(name string) *entry {
	if i, ok := search(d.entries, name); ok {
		return &d.entries[i]
	}
	return nil
}

// put sets a name to what it stands for now and returns what it stood for before.
func put(entries []entry, e entry) (after []entry, before entry) {
	i, ok := search(entries, e.name)
	switch {
	case ok && e.gone():
		before = entries[i]
		return slices.Delete(entries, i, i+1), before
	case ok:
		before, entries[i] = entries[i], e
		return entries, before
	case e.gone():
		return entries, entry{}
	}
	return slices.Insert(entries, i, e), entry{}
}

// changeLocked makes a change and remembers it until the directory is synced.
func (m *Mem) changeLocked(d *memDir, op Op, sets ...entry) {
	c := change{op: op}
	for i, e := range sets { // all links first: a rename must not free the file
		c.set[i] = e
		if e.file != nil {
			e.file.links++
		}
	}
	for _, e := range sets {
		var before entry
		d.entries, before = put(d.entries, e)
		if before.file != nil {
			before.file.links--
			m.freeLocked(before.file)
		}
	}
	if !m.volatile {
		d.pending = append(d.pending, c)
	}
	d.modified = time.Now()
}

// dropLocked ends one use of a file: a handle or a mapping.
func (m *Mem) dropLocked(n *memNode) {
	n.opens--
	m.freeLocked(n)
}

// freeLocked gives the blocks of a file back that has neither a name nor a user.
// Its bytes stay, because a power cut may bring the name back.
func (m *Mem) freeLocked(n *memNode) {
	if n.links > 0 || n.opens > 0 {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	m.used.Add(-n.blocks)
	n.blocks = 0
}
