package vfs

import (
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sync"
	"syscall"
)

// Fault is a file system whose operations go wrong by rule.
//
//	f := vfs.NewFault(vfs.NewMem(), vfs.Rule{Op: vfs.OpDatasync, Glob: "*.log", Skip: 2, Effect: vfs.FailSync()})
//
// Every operation is matched with the rules in the order they were added. All
// effects of the kind Call happen; of the others, the first one.
type Fault struct {
	inner FS

	mu    sync.Mutex
	rules []*rule
	onOp  func(op Op, name string)
	hits  int
}

// Rule says which operations are hit and how.
type Rule struct {
	Op     Op     // OpAny is each to which the effect applies
	Glob   string // path.Match, against the whole name or its last element; "" is every name
	Skip   int    // so many matching operations pass first
	Count  int    // then so many are hit; 0 is 1, negative is all
	Effect Effect
}

type rule struct {
	Rule
	seen int
}

// Effect is what happens to an operation. Each of the functions below makes one
// and says to which operations it applies.
type Effect struct {
	kind  effectKind
	n     int
	delta int64
	name  string
	err   error
	call  func()
}

type effectKind uint8

const (
	passes effectKind = iota
	fails
	fills
	shortens
	calls
	misplaces
	loses
	flips
	stales
	failsSync
)

// Fail does nothing but return an error that wraps err; nil is EIO. All operations.
func Fail(err error) Effect {
	if err == nil {
		err = syscall.EIO
	}
	return Effect{kind: fails, err: err}
}

// Full lets n bytes arrive and then finds the disk full: ErrNoSpace, or for a store
// a *FaultError. All operations that take space; n counts for write, append, zero
// and store.
func Full(n int) Effect { return Effect{kind: fills, n: n} }

// Short lets n bytes of a read, write, append, zero or store pass and then fails:
// io.ErrUnexpectedEOF, io.ErrShortWrite, or for a store a *FaultError.
func Short(n int) Effect { return Effect{kind: shortens, n: n} }

// Call calls f before the operation, which then goes on. No lock is held: f may
// wait, or use the file system. All operations.
func Call(f func()) Effect { return Effect{kind: calls, call: f} }

// Misplace writes the bytes of a write or a store delta bytes away, in the file
// name ("" is the same file), and reports success. A store stays in its window: what
// would leave it is lost.
func Misplace(name string, delta int64) Effect {
	return Effect{kind: misplaces, name: name, delta: delta}
}

// Lose reports success and does nothing. Write, zero, store, and the syncs, which
// is a disk that lies about its cache.
func Lose() Effect { return Effect{kind: loses} }

// Flip turns one bit over, the n-th of the bytes of a read, as they are returned,
// or of a write, append or store, as they arrive. It is counted modulo their length.
func Flip(n int) Effect { return Effect{kind: flips, n: n} }

// Stale lets a read return the bytes as of the last sync. On a file system other
// than a Mem the read fails with errors.ErrUnsupported.
func Stale() Effect { return Effect{kind: stales} }

// FailSync lets a sync fail with EIO as on Linux: the pages read new, count as
// clean and are gone after a power cut, also when the process was killed in between
// and the next sync succeeded. On a file system other than a Mem the sync is only
// not done. Sync and Datasync.
func FailSync() Effect { return Effect{kind: failsSync} }

func (e Effect) applies(op Op) bool {
	switch e.kind {
	case fails, calls:
		return true
	case fills:
		return !op.reads() && !slices.Contains([]Op{OpOpen, OpRemove, OpMap}, op)
	case shortens:
		return slices.Contains([]Op{OpRead, OpWrite, OpAppend, OpZero, OpStore}, op)
	case misplaces:
		return op == OpWrite || op == OpStore && e.name == ""
	case loses:
		return slices.Contains([]Op{OpWrite, OpZero, OpStore, OpSync, OpDatasync, OpSyncDir}, op)
	case flips:
		return slices.Contains([]Op{OpRead, OpWrite, OpAppend, OpStore}, op)
	case stales:
		return op == OpRead
	case failsSync:
		return op == OpSync || op == OpDatasync
	}
	return false
}

// NewFault wraps a file system.
func NewFault(inner FS, rules ...Rule) *Fault {
	f := &Fault{inner: inner}
	for _, r := range rules {
		f.Add(r)
	}
	return f
}

// Add adds a rule. One that could never do anything is a mistake in a test, and panics.
func (f *Fault) Add(r Rule) {
	if _, err := path.Match(r.Glob, ""); err != nil {
		panic(fmt.Sprintf("vfs: rule for %v: glob %q: %v", r.Op, r.Glob, err))
	}
	if r.Effect.kind == passes || r.Op != OpAny && !r.Effect.applies(r.Op) {
		panic(fmt.Sprintf("vfs: this effect does not apply to %v", r.Op))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, &rule{Rule: r})
}

// Clear removes all rules.
func (f *Fault) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
}

// Hits is how many operations met an effect.
func (f *Fault) Hits() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hits
}

// OnOp sets a function that is called before every operation, without a lock held.
// Nil is none.
func (f *Fault) OnOp(hook func(op Op, name string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onOp = hook
}

// on announces an operation and says what is to happen to it.
func (f *Fault) on(op Op, name string) Effect {
	f.mu.Lock()
	hook := f.onOp
	var effect Effect
	var before []func()
	for _, r := range f.rules {
		if !r.matches(op, name) {
			continue
		}
		if r.Effect.kind != calls && effect.kind != passes {
			continue // another rule has it
		}
		r.seen++
		count := max(r.Count, 1)
		if r.seen <= r.Skip || r.Count >= 0 && r.seen > r.Skip+count {
			continue
		}
		f.hits++
		if r.Effect.kind == calls {
			before = append(before, r.Effect.call)
		} else {
			effect = r.Effect
		}
	}
	f.mu.Unlock()
	if hook != nil {
		hook(op, name)
	}
	for _, call := range before {
		call()
	}
	return effect
}

func (r *rule) matches(op Op, name string) bool {
	if r.Op != op && r.Op != OpAny || !r.Effect.applies(op) {
		return false
	}
	if r.Glob == "" {
		return true
	}
	whole, _ := path.Match(r.Glob, name)
	last, _ := path.Match(r.Glob, path.Base(name))
	return whole || last
}

// check is on for an operation that happens whole or not at all. lost says that it
// is to be skipped in silence.
func (f *Fault) check(op Op, name string) (lost bool, err error) {
	e := f.on(op, name)
	return e.kind == loses, e.error(op, name)
}

// error is what an operation returns of which nothing (more) happens; nil when it
// goes on.
func (e Effect) error(op Op, name string) error {
	switch e.kind {
	case fails:
		return memError(op, name, e.err)
	case fills:
		return memError(op, name, ErrNoSpace)
	}
	return nil
}

// Open and the rest are those of the inner file system, or fail by rule.
func (f *Fault) Open(name string) (File, error) {
	if _, err := f.check(OpOpen, name); err != nil {
		return nil, err
	}
	return f.wrap(f.inner.Open(name))
}

// Create makes a new, empty file.
func (f *Fault) Create(name string) (File, error) {
	if _, err := f.check(OpCreate, name); err != nil {
		return nil, err
	}
	return f.wrap(f.inner.Create(name))
}

func (f *Fault) wrap(inner File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return &faultFile{File: inner, fault: f}, nil
}

// Mkdir makes a directory.
func (f *Fault) Mkdir(name string) error {
	if _, err := f.check(OpMkdir, name); err != nil {
		return err
	}
	return f.inner.Mkdir(name)
}

// Rename gives a file another name. Rules match the old one.
func (f *Fault) Rename(oldName, newName string) error {
	if _, err := f.check(OpRename, oldName); err != nil {
		return err
	}
	return f.inner.Rename(oldName, newName)
}

// Link gives a file a second name. Rules match the old one.
func (f *Fault) Link(oldName, newName string) error {
	if _, err := f.check(OpLink, oldName); err != nil {
		return err
	}
	return f.inner.Link(oldName, newName)
}

// Remove unlinks a file or an empty directory.
func (f *Fault) Remove(name string) error {
	if _, err := f.check(OpRemove, name); err != nil {
		return err
	}
	return f.inner.Remove(name)
}

// List returns the entries of a directory.
func (f *Fault) List(dir string) ([]Info, error) {
	if _, err := f.check(OpList, dir); err != nil {
		return nil, err
	}
	return f.inner.List(dir)
}

// Stat describes one file or directory.
func (f *Fault) Stat(name string) (Info, error) {
	if _, err := f.check(OpStat, name); err != nil {
		return Info{}, err
	}
	return f.inner.Stat(name)
}

// SyncDir makes the names in a directory durable.
func (f *Fault) SyncDir(dir string) error {
	if lost, err := f.check(OpSyncDir, dir); err != nil || lost {
		return err
	}
	return f.inner.SyncDir(dir)
}

// Lock takes a lock.
func (f *Fault) Lock(name string) (io.Closer, error) {
	if _, err := f.check(OpLock, name); err != nil {
		return nil, err
	}
	return f.inner.Lock(name)
}

// Close releases the root of the inner file system.
func (f *Fault) Close() error { return f.inner.Close() }

// The optional interfaces of a File that effects need; a Mem's files have them.
type (
	syncFailer   interface{ FailSync(err error) error }
	syncedReader interface {
		ReadSyncedAt(p []byte, off int64) (int, error)
	}
)

var errNotMem = fmt.Errorf("%w: only a Mem can do this fault", errors.ErrUnsupported)

var _, _, _ FS = (*osFS)(nil), (*Mem)(nil), (*Fault)(nil)

// flipped is a copy of p with bit n turned over.
func flipped(p []byte, n int) []byte {
	p = slices.Clone(p)
	if len(p) > 0 {
		n %= 8 * len(p)
		p[n/8] ^= 1 << (n % 8)
	}
	return p
}
