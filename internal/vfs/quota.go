package vfs

import (
	"errors"
	"fmt"
	"hash/maphash"
	"path"
	"slices"
	"sync"
	"sync/atomic"
)

// Quota bounds what the files and directories of a file system take on its disk:
// it counts them once, and from then on every operation that makes them grow asks
// first. One that asks for too much fails with a *QuotaError and has done nothing.
// That is a full disk to whoever writes, and is answered in the same way.
//
//	0                   -headroom    limit-spare   limit-spare/2    limit
//	|------ Zero, Allocate --|            |               |             |
//	|------ QuotaOrdinary ----------------|               |             |
//	|------ QuotaInternal --------------------------------|             |
//	|------ QuotaEssential ---------------------------------------------|
//
// Zero and Allocate lay something ahead of need, for whatever class, and leave the
// headroom to those that need it now; only the essential may take all.
//
// Sizes are counted in blocks of 4 KiB, a hole as if it were written. A file whose
// last name is gone counts until nobody has it open or mapped, as it does on the
// disk. What the file system keeps beside the blocks of files is not seen.
//
// All methods may be called from several goroutines. A write below a file's size
// must not run at the same time as a truncation of that file.
type Quota struct {
	inner     FS
	essential func(name string) bool

	limit, spare atomic.Int64
	headroom     atomic.Int64
	used, held   atomic.Int64
	low          atomic.Pointer[func()]
	released     atomic.Pointer[chan struct{}] // closed when held falls

	// tree is held for writing by what changes directories. Beside it who changes a
	// name holds the stripe that the name falls into, over the operation below.
	tree    sync.RWMutex
	dirs    map[string]bool
	stripes [64]sync.Mutex
	hash    maphash.Seed

	mu    sync.Mutex // guards nodes, and in them names, handles and gone
	nodes map[string]*quotaNode
}

// QuotaClass says how much of the limit somebody may take.
type QuotaClass int32

// The classes.
const (
	// quotaAhead leaves the headroom free, too.
	quotaAhead QuotaClass = iota - 1
	// QuotaOrdinary leaves the spare part free.
	QuotaOrdinary
	// QuotaInternal may take half of the spare part: for what has to go on when the rest is full.
	QuotaInternal
	// QuotaEssential may take all of it, and more where more than the limit is taken
	// already: for what has to be written before anything can be deleted.
	QuotaEssential
)

const quotaBlock = 4096

func quotaBlocks(size int64) int64 { return (size + quotaBlock - 1) &^ (quotaBlock - 1) }

// quotaNode is a file.
type quotaNode struct {
	growing sync.Mutex // held over an operation that may change what is charged
	charged atomic.Int64

	names, handles int
	gone           bool // it has no name: charged counts as held
}

// QuotaError says that the quota does not allow an operation.
type QuotaError struct {
	Name                string // of the file
	Limit, Used, Wanted int64  // bytes; what the operation may take of the limit
}

func (e *QuotaError) Error() string {
	return fmt.Sprintf("%s: %d bytes may be taken, %d are, %d more are wanted: %v", e.Name, e.Limit, e.Used, e.Wanted, ErrNoSpace)
}

// Is matches ErrNoSpace.
func (e *QuotaError) Is(target error) bool { return target == ErrNoSpace }

// NewQuota counts what is in inner and bounds it. Limit 0 is no bound. spare is the
// part of the limit that only some may take. essential tells the files, by their
// name as it is when they are opened, whose growth is QuotaEssential whoever it is;
// nil is none. From then on nobody else may change what is in inner.
func NewQuota(inner FS, limit, spare int64, essential func(name string) bool) (*Quota, error) {
	if essential == nil {
		essential = func(string) bool { return false }
	}
	q := &Quota{
		inner: inner, essential: essential, hash: maphash.MakeSeed(),
		dirs: map[string]bool{".": true}, nodes: make(map[string]*quotaNode),
	}
	if err := q.count("."); err != nil {
		return nil, fmt.Errorf("quota: %w", err)
	}
	q.SetLimit(limit, spare)
	return q, nil
}

// count takes in what is in a directory.
func (q *Quota) count(dir string) error {
	list, err := q.inner.List(dir)
	if err != nil {
		return err
	}
	for _, info := range list {
		name := path.Join(dir, info.Name)
		if info.Dir {
			q.dirs[name] = true
			q.used.Add(quotaBlock)
			if err := q.count(name); err != nil {
				return err
			}
			continue
		}
		n := &quotaNode{names: 1}
		n.charged.Store(max(quotaBlocks(info.Size), info.Allocated))
		q.used.Add(n.charged.Load())
		q.nodes[name] = n
	}
	return nil
}

// SetLimit changes the bound. When more is taken already, nothing grows until it is less.
func (q *Quota) SetLimit(limit, spare int64) {
	q.limit.Store(limit)
	q.spare.Store(min(spare, limit))
}

// Limit returns the bound.
func (q *Quota) Limit() int64 { return q.limit.Load() }

// Used is what is taken now.
func (q *Quota) Used() int64 { return q.used.Load() }

// Held is the part of Used that files without a name take: it comes free by itself.
func (q *Quota) Held() int64 { return q.held.Load() }

// Room is how much a class could still take; it is negative when more is taken than
// it may. Without a limit it is a large number.
func (q *Quota) Room(c QuotaClass) int64 {
	if q.limit.Load() <= 0 {
		return 1 << 62
	}
	return q.bound(c) - q.used.Load()
}

func (q *Quota) bound(c QuotaClass) int64 {
	limit, spare := q.limit.Load(), q.spare.Load()
	switch c {
	case quotaAhead:
		return limit - spare - q.headroom.Load()
	case QuotaOrdinary:
		return limit - spare
	case QuotaInternal:
		return limit - spare/2
	}
	return limit
}

// OnLow has call called whenever something grew and less than headroom is left for
// QuotaOrdinary. It must be quick and use no file.
func (q *Quota) OnLow(headroom int64, call func()) {
	q.headroom.Store(headroom)
	q.low.Store(&call)
}

// Released returns a channel that is closed when something that was held comes free,
// or at once when nothing is held.
func (q *Quota) Released() <-chan struct{} {
	for {
		ch := q.released.Load()
		if ch == nil {
			fresh := make(chan struct{})
			if !q.released.CompareAndSwap(nil, &fresh) {
				continue
			}
			ch = &fresh
		}
		if q.held.Load() == 0 { // looked at after the channel is there for who releases
			q.release()
		}
		return *ch
	}
}

// release wakes those who wait for what was held.
func (q *Quota) release() {
	if ch := q.released.Swap(nil); ch != nil {
		close(*ch)
	}
}

// take counts n more bytes, if the class may have them.
func (q *Quota) take(name string, n int64, c QuotaClass) error {
	for {
		used, limit := q.used.Load(), q.limit.Load()
		bound := q.bound(c)
		if limit > 0 && used+n > bound && !(c == QuotaEssential && used > limit) {
			return &QuotaError{Name: name, Limit: bound, Used: used, Wanted: n}
		}
		if q.used.CompareAndSwap(used, used+n) {
			break
		}
	}
	q.looks()
	return nil
}

// looks says when there is little room, after something has grown.
func (q *Quota) looks() {
	if call := q.low.Load(); call != nil && q.Room(QuotaOrdinary) < q.headroom.Load() {
		(*call)()
	}
}

// charge sets what a file takes, whatever the bound says: it is so already. growing is held.
func (q *Quota) charge(n *quotaNode, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	more := bytes - n.charged.Swap(bytes)
	q.used.Add(more)
	if n.gone {
		q.held.Add(more)
	}
}

// lockNames takes the stripes of the names, in order.
func (q *Quota) lockNames(names ...string) (unlock func()) {
	var at []int
	for _, name := range names {
		at = append(at, int(maphash.String(q.hash, name)%uint64(len(q.stripes))))
	}
	slices.Sort(at)
	at = slices.Compact(at)
	for _, i := range at {
		q.stripes[i].Lock()
	}
	return func() {
		for _, i := range at {
			q.stripes[i].Unlock()
		}
	}
}

// named notes that a file has a name, and that a handle of it is open.
func (q *Quota) named(name string, handles int) *quotaNode {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.nodes[name]
	if n == nil {
		n = &quotaNode{names: 1}
		q.nodes[name] = n
	}
	n.handles += handles
	return n
}

// unnameLocked takes a name away.
func (q *Quota) unnameLocked(name string) {
	n := q.nodes[name]
	if n == nil {
		return
	}
	delete(q.nodes, name)
	if n.names--; n.names > 0 {
		return
	}
	if n.handles > 0 {
		n.gone = true
		q.held.Add(n.charged.Load())
		return
	}
	q.used.Add(-n.charged.Load())
}

// dropped ends a handle.
func (q *Quota) dropped(n *quotaNode) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n.handles--; n.handles == 0 && n.gone {
		q.held.Add(-n.charged.Load())
		q.used.Add(-n.charged.Load())
		n.charged.Store(0)
		q.release()
	}
}

// quotaFile is a file of a Quota.
type quotaFile struct {
	File
	view      *QuotaView
	node      *quotaNode
	essential bool
	closed    atomic.Bool
}

func (f *quotaFile) class() QuotaClass {
	if f.essential {
		return QuotaEssential
	}
	return f.view.Class()
}

// grow does what may make the file end at end, and counts it before.
func (f *quotaFile) grow(end int64, c QuotaClass, do func() error) error {
	q, n := f.view.q, f.node
	need := quotaBlocks(end)
	if need <= n.charged.Load() {
		return do()
	}
	n.growing.Lock()
	defer n.growing.Unlock()
	was := n.charged.Load()
	if need <= was {
		return do()
	}
	if err := q.take(f.Name(), need-was, c); err != nil {
		return err
	}
	q.mu.Lock()
	n.charged.Store(need)
	if n.gone {
		q.held.Add(need - was)
	}
	q.mu.Unlock()
	err := do()
	if err != nil {
		f.settle()
	}
	return err
}

// settle counts a file anew of which it is not known how much was done to it.
func (f *quotaFile) settle() {
	if info, err := f.File.Info(); err == nil {
		f.view.q.charge(f.node, max(quotaBlocks(info.Size), info.Allocated))
	}
}

func (f *quotaFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.grow(off+int64(len(p)), f.class(), func() error {
		n, err = f.File.WriteAt(p, off)
		return err
	})
	return n, err
}

func (f *quotaFile) WritevAt(pieces [][]byte, off int64) (n int, err error) {
	err = f.grow(off+int64(piecesBytes(pieces)), f.class(), func() error {
		n, err = f.File.WritevAt(pieces, off)
		return err
	})
	return n, err
}

func (f *quotaFile) Append(p []byte) (n int, err error) {
	info, err := f.File.Info()
	if err != nil {
		return 0, err
	}
	err = f.grow(info.Size+int64(len(p)), f.class(), func() error {
		n, err = f.File.Append(p)
		return err
	})
	return n, err
}

func (f *quotaFile) ahead() QuotaClass {
	if f.essential {
		return QuotaEssential
	}
	return quotaAhead
}

func (f *quotaFile) Allocate(off, n int64) error {
	return f.grow(off+n, f.ahead(), func() error { return f.File.Allocate(off, n) })
}

func (f *quotaFile) Zero(off, n int64) error {
	return f.grow(off+n, f.ahead(), func() error { return f.File.Zero(off, n) })
}

func (f *quotaFile) Truncate(size int64) error {
	if quotaBlocks(size) > f.node.charged.Load() {
		return f.grow(size, f.class(), func() error { return f.File.Truncate(size) })
	}
	f.node.growing.Lock()
	defer f.node.growing.Unlock()
	if err := f.File.Truncate(size); err != nil {
		f.settle()
		return err
	}
	f.view.q.charge(f.node, quotaBlocks(size))
	return nil
}

func (f *quotaFile) Map(off int64, n int) (Mapping, error) {
	m, err := f.File.Map(off, n)
	if err != nil {
		return nil, err
	}
	q := f.view.q
	q.mu.Lock()
	f.node.handles++
	q.mu.Unlock()
	return &quotaMapping{Mapping: m, file: f}, nil
}

func (f *quotaFile) Close() error {
	err := f.File.Close()
	if f.closed.CompareAndSwap(false, true) {
		f.view.q.dropped(f.node)
	}
	return err
}

// quotaMapping holds the file's room until it is closed.
type quotaMapping struct {
	Mapping
	file   *quotaFile
	closed atomic.Bool
}

func (m *quotaMapping) Close() error {
	err := m.Mapping.Close()
	if m.closed.CompareAndSwap(false, true) {
		m.file.view.q.dropped(m.file.node)
	}
	return err
}

var errQuotaTree = errors.New("directories cannot be linked")
