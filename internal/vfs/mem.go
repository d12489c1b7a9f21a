package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ErrCrashed is what every operation of a Mem answers from its crash on.
var ErrCrashed = errors.New("vfs: the machine has crashed")

// Mem is a file system in memory that can crash.
//
//	m := vfs.NewMem(vfs.CrashAt(k), vfs.CrashByte(7)) // the k-th operation, from 0, is cut
//	... use it until ErrCrashed ...
//	m = m.AfterCrash(vfs.Random(seed))                // what a power cut left
//	m = m.AfterKill()                                 // what a killed process left
//
// A file has two images, the bytes that a read shows and the bytes as last
// synced, in pages of 4 KiB that are shared until one of them is written. A
// directory has the names as last synced and the changes since, in order.
//
// Mappings are Go memory. Store copies into them without holding a lock, and no
// load of Bytes takes one, so the race detector sees a load that races with a
// store. Only the count of operations and a file's bookkeeping are synchronized.
type Mem struct {
	crashed  atomic.Bool
	ops      atomic.Int64
	used     atomic.Int64 // blocks of pageSize
	capacity atomic.Int64 // blocks; negative is without limit

	// What follows is set by NewMem and never changed.
	crashAt    int64 // negative: never
	cut        func(n int) int
	countReads bool
	mapBytes   int
	volatile   bool

	mu     sync.Mutex // guards the tree, links, opens; lock order: Mem.mu, memNode.mu
	root   *memDir
	locks  map[string]*memLock
	closed bool
}

// Option sets up a Mem.
type Option func(*Mem)

// CrashAt makes the k-th counted operation, from 0, the one that the crash
// interrupts: it does not happen, or in part (CrashByte, CrashCut).
func CrashAt(k int) Option { return func(m *Mem) { m.crashAt = int64(k) } }

// CrashByte lets n bytes of the interrupted write, append, zero or store arrive.
// The default is none.
func CrashByte(n int) Option { return CrashCut(func(int) int { return n }) }

// CrashCut asks f how many bytes of an interrupted operation of length bytes arrive.
// Locks are held: f must not use the file system.
func CrashCut(f func(length int) int) Option { return func(m *Mem) { m.cut = f } }

// CountReads counts the operations that change nothing too: read, stat, list.
func CountReads() Option { return func(m *Mem) { m.countReads = true } }

// Capacity is the size of the disk. Only blocks of 4 KiB that were written, zeroed
// or allocated count; names cost nothing.
func Capacity(bytes int64) Option { return func(m *Mem) { m.SetCapacity(bytes) } }

// MapBytes is the largest window that Map gives; beyond it Map answers
// errors.ErrUnsupported. Zero is no mapping at all. The default is 64 MiB; a
// window costs its size in memory once it is used.
func MapBytes(n int) Option { return func(m *Mem) { m.mapBytes = n } }

// Volatile is for who wants the memory and no crash: nothing is kept of what a
// power cut would leave, so a sync costs nothing and a file takes its size once.
// There is no mapping, whose window would take memory that is not used yet.
// AfterCrash and AfterKill of such a Mem panic.
func Volatile() Option { return func(m *Mem) { m.volatile, m.mapBytes = true, 0 } }

// NewMem makes an empty file system.
func NewMem(opts ...Option) *Mem {
	m := &Mem{crashAt: -1, mapBytes: 64 << 20, root: &memDir{}}
	m.capacity.Store(-1)
	for _, o := range opts {
		o(m)
	}
	return m
}

// Crashed says whether the crash has happened.
func (m *Mem) Crashed() bool { return m.crashed.Load() }

// Ops is the number of operations counted so far, the interrupted one included.
func (m *Mem) Ops() int { return int(m.ops.Load()) }

// SetCapacity changes the size of the disk. Negative is without limit. What is
// stored already stays.
func (m *Mem) SetCapacity(bytes int64) {
	if bytes >= 0 {
		bytes /= pageSize
	}
	m.capacity.Store(bytes)
}

// step counts an operation on n bytes and says how many of them happen: all,
// without an error, unless the crash is now or was before.
func (m *Mem) step(op Op, name string, n int) (int, error) {
	if m.crashed.Load() {
		return 0, crashedError(op, name)
	}
	if op.reads() && !m.countReads {
		return n, nil
	}
	k := m.ops.Add(1) - 1
	if m.crashAt < 0 || k < m.crashAt {
		return n, nil
	}
	m.crashed.Store(true)
	if k > m.crashAt || m.cut == nil {
		return 0, crashedError(op, name)
	}
	return max(0, min(n, m.cut(n))), crashedError(op, name)
}

func crashedError(op Op, name string) error { return memError(op, name, ErrCrashed) }

func memError(op Op, name string, err error) error {
	return &fs.PathError{Op: op.String(), Path: name, Err: err}
}

// take reserves a block of the disk.
func (m *Mem) take() bool {
	if limit := m.capacity.Load(); m.used.Add(1) > limit && limit >= 0 {
		m.used.Add(-1)
		return false
	}
	return true
}

// begin checks the names of an operation on the tree and counts it. It locks m.mu,
// also when it fails.
func (m *Mem) begin(op Op, names ...string) error {
	m.mu.Lock()
	for _, name := range names {
		if err := checkName(op.String(), name); err != nil {
			return err
		}
	}
	if m.closed {
		return memError(op, names[0], fs.ErrClosed)
	}
	_, err := m.step(op, names[0], 0)
	return err
}

// Open opens an existing file.
func (m *Mem) Open(name string) (File, error) {
	defer m.mu.Unlock()
	if err := m.begin(OpOpen, name); err != nil {
		return nil, err
	}
	e, err := m.findLocked(name)
	if err != nil {
		return nil, memError(OpOpen, name, err)
	}
	if e.dir != nil {
		return nil, memError(OpOpen, name, errIsDir)
	}
	return m.handleLocked(e.file, name), nil
}

var (
	errIsDir    = errors.New("is a directory")
	errNotDir   = errors.New("not a directory")
	errNotEmpty = errors.New("directory not empty")
)

func (m *Mem) handleLocked(n *memNode, name string) *memFile {
	n.opens++
	return &memFile{node: n, name: name}
}

// Create makes a new, empty file.
func (m *Mem) Create(name string) (File, error) {
	defer m.mu.Unlock()
	if err := m.begin(OpCreate, name); err != nil {
		return nil, err
	}
	d, base, err := m.parentLocked(name)
	if err != nil {
		return nil, memError(OpCreate, name, err)
	}
	if d.find(base) != nil {
		return nil, memError(OpCreate, name, fs.ErrExist)
	}
	n := m.newNode()
	m.changeLocked(d, OpCreate, entry{name: base, file: n})
	return m.handleLocked(n, name), nil
}

// Mkdir makes a directory and its parents; each of them is a change of its own to
// a power cut.
func (m *Mem) Mkdir(name string) error {
	defer m.mu.Unlock()
	if err := m.begin(OpMkdir, name); err != nil {
		return err
	}
	d := m.root
	for base := range strings.SplitSeq(name, "/") {
		if base == "." {
			continue
		}
		e := d.find(base)
		switch {
		case e == nil:
			sub := &memDir{modified: time.Now()}
			m.changeLocked(d, OpMkdir, entry{name: base, dir: sub})
			d = sub
		case e.dir == nil:
			return memError(OpMkdir, name, errNotDir)
		default:
			d = e.dir
		}
	}
	return nil
}

// Rename moves a file or directory. Within one directory it is one change to a
// power cut; between two it is two, and the file may be seen at both places or at
// neither.
func (m *Mem) Rename(oldName, newName string) error {
	defer m.mu.Unlock()
	if err := m.begin(OpRename, oldName, newName); err != nil {
		return err
	}
	from, oldBase, err := m.parentLocked(oldName)
	if err != nil {
		return memError(OpRename, oldName, err)
	}
	e := from.find(oldBase)
	if e == nil {
		return memError(OpRename, oldName, fs.ErrNotExist)
	}
	to, newBase, err := m.parentLocked(newName)
	if err != nil {
		return memError(OpRename, newName, err)
	}
	if newName == oldName {
		return nil
	}
	if e.dir != nil && strings.HasPrefix(newName, oldName+"/") {
		return memError(OpRename, newName, fs.ErrInvalid)
	}
	if old := to.find(newBase); old != nil {
		switch {
		case old.dir != nil && e.dir == nil:
			return memError(OpRename, newName, errIsDir)
		case old.dir == nil && e.dir != nil:
			return memError(OpRename, newName, errNotDir)
		case old.dir != nil && len(old.dir.entries) > 0:
			return memError(OpRename, newName, errNotEmpty)
		case old.file != nil && old.file == e.file:
			return nil // two names of one file: POSIX leaves both
		}
	}
	gone := entry{name: oldBase}
	moved := entry{name: newBase, file: e.file, dir: e.dir}
	if from == to {
		m.changeLocked(from, OpRename, gone, moved)
		return nil
	}
	m.changeLocked(to, OpRename, moved)
	m.changeLocked(from, OpRename, gone)
	return nil
}

// Link gives a file a second name.
func (m *Mem) Link(oldName, newName string) error {
	defer m.mu.Unlock()
	if err := m.begin(OpLink, oldName, newName); err != nil {
		return err
	}
	e, err := m.findLocked(oldName)
	if err != nil {
		return memError(OpLink, oldName, err)
	}
	if e.dir != nil {
		return memError(OpLink, oldName, errIsDir)
	}
	d, base, err := m.parentLocked(newName)
	if err != nil {
		return memError(OpLink, newName, err)
	}
	if d.find(base) != nil {
		return memError(OpLink, newName, fs.ErrExist)
	}
	m.changeLocked(d, OpLink, entry{name: base, file: e.file})
	return nil
}

// Remove unlinks a file or an empty directory.
func (m *Mem) Remove(name string) error {
	defer m.mu.Unlock()
	if err := m.begin(OpRemove, name); err != nil {
		return err
	}
	d, base, err := m.parentLocked(name)
	if err != nil {
		return memError(OpRemove, name, err)
	}
	e := d.find(base)
	if e == nil {
		return memError(OpRemove, name, fs.ErrNotExist)
	}
	if e.dir != nil && len(e.dir.entries) > 0 {
		return memError(OpRemove, name, errNotEmpty)
	}
	m.changeLocked(d, OpRemove, entry{name: base})
	return nil
}

// List returns the entries of a directory, sorted by name.
func (m *Mem) List(dir string) ([]Info, error) {
	defer m.mu.Unlock()
	if err := m.begin(OpList, dir); err != nil {
		return nil, err
	}
	d, err := m.dirLocked(dir)
	if err != nil {
		return nil, memError(OpList, dir, err)
	}
	infos := make([]Info, len(d.entries))
	for i := range d.entries {
		infos[i] = d.entries[i].info()
	}
	return infos, nil
}

// Stat describes one file or directory.
func (m *Mem) Stat(name string) (Info, error) {
	defer m.mu.Unlock()
	if err := m.begin(OpStat, name); err != nil {
		return Info{}, err
	}
	if name == "." {
		return Info{Name: ".", Dir: true, Modified: m.root.modified}, nil
	}
	e, err := m.findLocked(name)
	if err != nil {
		return Info{}, memError(OpStat, name, err)
	}
	return e.info(), nil
}

// SyncDir makes the names in a directory durable.
func (m *Mem) SyncDir(dir string) error {
	defer m.mu.Unlock()
	if err := m.begin(OpSyncDir, dir); err != nil {
		return err
	}
	d, err := m.dirLocked(dir)
	if err != nil {
		return memError(OpSyncDir, dir, err)
	}
	if len(d.pending) > 0 {
		d.synced, d.pending = slices.Clone(d.entries), nil
	}
	return nil
}

// Close releases the root. Open files stay usable.
func (m *Mem) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fs.ErrClosed
	}
	m.closed = true
	return nil
}

// Lock takes the lock that name stands for. It is one operation, and makes the
// file when it does not exist.
func (m *Mem) Lock(name string) (io.Closer, error) {
	defer m.mu.Unlock()
	if err := m.begin(OpLock, name); err != nil {
		return nil, err
	}
	if l := m.locks[name]; l != nil {
		return nil, l.heldBy
	}
	d, base, err := m.parentLocked(name)
	if err != nil {
		return nil, memError(OpLock, name, err)
	}
	e := d.find(base)
	if e != nil && e.dir != nil {
		return nil, memError(OpLock, name, errIsDir)
	}
	if e == nil {
		m.changeLocked(d, OpCreate, entry{name: base, file: m.newNode()})
		e = d.find(base)
	}
	l := &memLock{
		mem: m, name: name, file: m.handleLocked(e.file, name),
		heldBy: &LockedError{Name: name, PID: os.Getpid(), Host: "memory", Since: time.Now()},
	}
	l.write(fmt.Sprintf("%d memory %s\n", l.heldBy.PID, l.heldBy.Since.UTC().Format(time.RFC3339)))
	if m.locks == nil {
		m.locks = map[string]*memLock{}
	}
	m.locks[name] = l
	return l, nil
}

type memLock struct {
	mem    *Mem
	name   string
	file   *memFile
	heldBy *LockedError
}

// write replaces the text of the lock file, as far as the disk has room.
func (l *memLock) write(text string) {
	n := l.file.node
	n.mu.Lock()
	defer n.mu.Unlock()
	n.resizeLocked(0)
	n.putLocked(0, []byte(text), len(text))
}

func (l *memLock) Close() error {
	m := l.mem
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[l.name] != l {
		return fs.ErrClosed
	}
	delete(m.locks, l.name)
	if m.Crashed() {
		return crashedError(OpLock, l.name)
	}
	l.write("")
	m.dropLocked(l.file.node)
	return nil
}

// findLocked looks a name up; "." is the root.
func (m *Mem) findLocked(name string) (*entry, error) {
	if name == "." {
		return &entry{name: ".", dir: m.root}, nil
	}
	d, base, err := m.parentLocked(name)
	if err != nil {
		return nil, err
	}
	if e := d.find(base); e != nil {
		return e, nil
	}
	return nil, fs.ErrNotExist
}

func (m *Mem) dirLocked(name string) (*memDir, error) {
	e, err := m.findLocked(name)
	if err != nil {
		return nil, err
	}
	if e.dir == nil {
		return nil, errNotDir
	}
	return e.dir, nil
}

// parentLocked returns the directory that holds name, and name's last element.
func (m *Mem) parentLocked(name string) (*memDir, string, error) {
	if name == "." {
		return nil, "", fs.ErrInvalid
	}
	d, rest := m.root, name
	for {
		base, after, more := strings.Cut(rest, "/")
		if !more {
			return d, base, nil
		}
		e := d.find(base)
		if e == nil {
			return nil, "", fs.ErrNotExist
		}
		if e.dir == nil {
			return nil, "", errNotDir
		}
		d, rest = e.dir, after
	}
}

func (e *entry) info() Info {
	if e.dir != nil {
		return Info{Name: e.name, Dir: true, Modified: e.dir.modified}
	}
	e.file.mu.Lock()
	defer e.file.mu.Unlock()
	return e.file.infoLocked(e.name)
}

func (f *memFile) Info() (Info, error) {
	f.node.mu.Lock()
	defer f.node.mu.Unlock()
	if err := f.beginLocked(OpStat); err != nil {
		return Info{}, err
	}
	return f.node.infoLocked(path.Base(f.name)), nil
}
