package vfs

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync/atomic"
)

// QuotaView is the file system below a Quota, for somebody of one class.
type QuotaView struct {
	q     *Quota
	class atomic.Int32
}

// View returns the file system for somebody of class c.
func (q *Quota) View(c QuotaClass) *QuotaView {
	v := &QuotaView{q: q}
	v.SetClass(c)
	return v
}

// Class is what the view's files may take.
func (v *QuotaView) Class() QuotaClass { return QuotaClass(v.class.Load()) }

// SetClass changes it, for open files too.
func (v *QuotaView) SetClass(c QuotaClass) { v.class.Store(int32(c)) }

// Open opens an existing file.
func (v *QuotaView) Open(name string) (File, error) { return v.open(name, v.q.inner.Open) }

// Create makes a new, empty file. That takes no room.
func (v *QuotaView) Create(name string) (File, error) { return v.open(name, v.q.inner.Create) }

func (v *QuotaView) open(name string, open func(string) (File, error)) (File, error) {
	q := v.q
	q.tree.RLock()
	defer q.tree.RUnlock()
	defer q.lockNames(name)()
	f, err := open(name)
	if err != nil {
		return nil, err
	}
	return &quotaFile{File: f, view: v, node: q.named(name, 1), essential: q.essential(name)}, nil
}

// Mkdir makes a directory and its parents.
func (v *QuotaView) Mkdir(name string) error {
	q := v.q
	q.tree.Lock()
	defer q.tree.Unlock()
	var made []string
	for dir := name; fs.ValidPath(dir) && !q.dirs[dir]; dir = path.Dir(dir) {
		made = append(made, dir)
	}
	n := int64(len(made)) * quotaBlock
	if n > 0 {
		if err := q.take(name, n, v.Class()); err != nil {
			return err
		}
	}
	if err := q.inner.Mkdir(name); err != nil {
		q.used.Add(-n)
		for _, dir := range made { // a part of them may be there
			if info, err := q.inner.Stat(dir); err == nil && info.Dir {
				q.dirs[dir] = true
				q.used.Add(quotaBlock)
			}
		}
		return err
	}
	for _, dir := range made {
		q.dirs[dir] = true
	}
	return nil
}

// Rename gives a file or directory another name.
func (v *QuotaView) Rename(oldName, newName string) error {
	q := v.q
	q.tree.RLock()
	if q.dirs[oldName] {
		q.tree.RUnlock()
		return q.renameDir(oldName, newName)
	}
	defer q.tree.RUnlock()
	defer q.lockNames(oldName, newName)()
	if err := q.inner.Rename(oldName, newName); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.nodes[oldName]
	if n == nil || n == q.nodes[newName] {
		return nil // two names of one file: nothing happens
	}
	q.unnameLocked(newName)
	delete(q.nodes, oldName)
	q.nodes[newName] = n
	return nil
}

// renameDir moves all that lies below a directory.
func (q *Quota) renameDir(oldName, newName string) error {
	q.tree.Lock()
	defer q.tree.Unlock()
	if err := q.inner.Rename(oldName, newName); err != nil || oldName == newName {
		return err
	}
	if q.dirs[newName] { // an empty one was replaced
		q.used.Add(-quotaBlock)
	}
	moved := func(name string) (string, bool) {
		rest, ok := strings.CutPrefix(name, oldName)
		return newName + rest, ok && (rest == "" || rest[0] == '/')
	}
	dirs := make(map[string]bool, len(q.dirs))
	for dir := range q.dirs {
		if to, ok := moved(dir); ok {
			dir = to
		}
		dirs[dir] = true
	}
	q.dirs = dirs
	q.mu.Lock()
	defer q.mu.Unlock()
	nodes := make(map[string]*quotaNode, len(q.nodes))
	for name, n := range q.nodes {
		if to, ok := moved(name); ok {
			name = to
		}
		nodes[name] = n
	}
	q.nodes = nodes
	return nil
}

// Link gives a file a second name.
func (v *QuotaView) Link(oldName, newName string) error {
	q := v.q
	q.tree.RLock()
	defer q.tree.RUnlock()
	defer q.lockNames(oldName, newName)()
	if q.dirs[oldName] {
		return &fs.PathError{Op: "link", Path: oldName, Err: errQuotaTree}
	}
	if err := q.inner.Link(oldName, newName); err != nil {
		return err
	}
	n := q.named(oldName, 0)
	q.mu.Lock()
	defer q.mu.Unlock()
	n.names++
	q.nodes[newName] = n
	return nil
}

// Remove unlinks a file or an empty directory.
func (v *QuotaView) Remove(name string) error {
	q := v.q
	q.tree.RLock()
	if q.dirs[name] {
		q.tree.RUnlock()
		return q.removeDir(name)
	}
	defer q.tree.RUnlock()
	defer q.lockNames(name)()
	if err := q.inner.Remove(name); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.unnameLocked(name)
	return nil
}

func (q *Quota) removeDir(name string) error {
	q.tree.Lock()
	defer q.tree.Unlock()
	if err := q.inner.Remove(name); err != nil {
		return err
	}
	if q.dirs[name] {
		delete(q.dirs, name)
		q.used.Add(-quotaBlock)
	}
	return nil
}

// List returns the entries of a directory.
func (v *QuotaView) List(dir string) ([]Info, error) { return v.q.inner.List(dir) }

// Stat describes one file or directory.
func (v *QuotaView) Stat(name string) (Info, error) { return v.q.inner.Stat(name) }

// SyncDir makes the names in a directory durable.
func (v *QuotaView) SyncDir(dir string) error { return v.q.inner.SyncDir(dir) }

// Lock takes a lock. Its file counts as one block, which it may always have.
func (v *QuotaView) Lock(name string) (io.Closer, error) {
	q := v.q
	q.tree.RLock()
	defer q.tree.RUnlock()
	defer q.lockNames(name)()
	l, err := q.inner.Lock(name)
	if err != nil {
		return nil, err
	}
	n := q.named(name, 0)
	n.growing.Lock()
	defer n.growing.Unlock()
	if n.charged.Load() < quotaBlock {
		q.charge(n, quotaBlock)
	}
	return l, nil
}

// Close releases the root of the file system below.
func (v *QuotaView) Close() error { return v.q.inner.Close() }

var _ FS = (*QuotaView)(nil)

// Recount counts a file anew that somebody else writes, beside fsys: what it takes by now is taken, whatever
// the bound says. It does nothing where fsys has no quota, and where there is no such file. It may be
// called at any time; name is not to be open in fsys.
func Recount(fsys FS, name string) error {
	v, ok := fsys.(*QuotaView)
	if !ok {
		return nil
	}
	q := v.q
	q.tree.RLock()
	defer q.tree.RUnlock()
	defer q.lockNames(name)()
	info, err := q.inner.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	n := q.named(name, 0)
	n.growing.Lock()
	defer n.growing.Unlock()
	if now := max(quotaBlocks(info.Size), info.Allocated); now != n.charged.Load() {
		q.charge(n, now)
		q.looks()
	}
	return nil
}
