package disk

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/x/embedlog"
	"github.com/x/embedlog/query"
)

// Options are the settings of stores; nil is the defaults.
type Options struct {
	// Dir is where the stores are. Empty means the database's directory; a database in memory has none.
	Dir string
	// CacheBytes is how much of its files each store keeps in memory, unpacked. Zero means 128 MiB.
	CacheBytes int64
	// WriteBytes is how much each store collects in memory before it writes a file. Up to twice as much is lost in a crash, and
	// read again from changelogs. Zero means 32 MiB; less than 64 KiB is 64 KiB.
	WriteBytes int
}

// Stores has the rows of views in files. Its methods may be called by several goroutines.
type Stores struct {
	o  Options
	fs vfs.FS
}

var _ query.Stores = (*Stores)(nil)

// leastWriteBytes is enough for what pebble has in a memtable besides rows: with less than that it panics.
const leastWriteBytes = 64 << 10

// New makes stores. It does not touch the disk.
func New(o *Options) *Stores {
	s := &Stores{fs: vfs.Default}
	if o != nil {
		s.o = *o
	}
	if s.o.CacheBytes <= 0 {
		s.o.CacheBytes = 128 << 20
	}
	if s.o.WriteBytes <= 0 {
		s.o.WriteBytes = 32 << 20
	}
	s.o.WriteBytes = max(s.o.WriteBytes, leastWriteBytes)
	return s
}

// OpenStore opens a store. Graphs call it. An error is ErrNoDirectory or a *StoreError.
func (s *Stores) OpenStore(dir, name string) (query.RowStore, error) {
	if s.o.Dir != "" {
		dir = s.o.Dir
	}
	if dir == "" {
		return nil, ErrNoDirectory
	}
	r := &rows{stores: s, dir: filepath.Join(dir, name)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.openLocked(); err != nil {
		r.closed = true // and the directory is not its own any more
		return nil, fmt.Errorf("open: %w", typed(r.dir, err))
	}
	return r, nil
}

// rows is a store.
//
//	open ── something fails ──> failed: pebble is closed beside, calls say why ──> closed: removed, or kept where only room was missing
type rows struct {
	stores *Stores
	dir    string
	failed atomic.Pointer[StoreError] // until Clear
	since  atomic.Int64               // bytes applied since room looked

	mu     sync.RWMutex  // held for reading by all that uses db
	db     *pebble.DB    // nil: closed, or failed
	broke  chan struct{} // closed when it has failed
	closed bool
}

// openLocked opens the files. What cannot be opened is removed: it is a copy. But where there is only no room it stays.
func (r *rows) openLocked() error {
	fs := r.stores.fs
	if err := fs.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	// Who else has it open is not to be robbed of it.
	lock, err := pebble.LockDirectory(r.dir, fs)
	if err != nil {
		return err
	}
	empty := func() error {
		if err := errors.Join(lock.Close(), fs.RemoveAll(r.dir), fs.MkdirAll(r.dir, 0o700)); err != nil {
			return err
		}
		lock, err = pebble.LockDirectory(r.dir, fs)
		return err
	}
	if _, err := fs.Stat(fs.PathJoin(r.dir, removing)); err == nil {
		if err := empty(); err != nil {
			return err
		}
	}
	if err = r.openFiles(lock); err != nil && !errors.Is(err, embedlog.ErrNoSpace) {
		if err := empty(); err != nil {
			return err
		}
		err = r.openFiles(lock)
	}
	if err := errors.Join(err, lock.Close()); err != nil { // pebble holds it as well
		return typed(r.dir, err)
	}
	return nil
}

// openFiles sets db.
func (r *rows) openFiles(lock *pebble.Lock) (err error) {
	r.failed.Store(nil)
	r.broke = make(chan struct{})
	defer func() { // some damage it does not expect
		if p := recover(); p != nil {
			err = typed(r.dir, fmt.Errorf("%w: %v", errPanic, p))
		}
	}()
	// Logs have nothing, because none is written. But pebble would flush what it finds in them, and where that fails it tries for ever, in Open.
	names, err := r.stores.fs.List(r.dir)
	if err != nil {
		return typed(r.dir, err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".log") {
			if err := r.stores.fs.Remove(r.stores.fs.PathJoin(r.dir, name)); err != nil {
				return typed(r.dir, err)
			}
		}
	}
	cache := pebble.NewCache(r.stores.o.CacheBytes)
	defer cache.Unref()
	o := &pebble.Options{
		FS: &gate{FS: r.stores.fs, shut: r.err, fail: r.fail}, Lock: lock, Cache: cache,
		DisableWAL: true, MemTableSize: uint64(r.stores.o.WriteBytes),
		MemTableStopWritesThreshold: 1 << 16, L0StopWritesThreshold: 1 << 16, // see room
		FormatMajorVersion: pebble.FormatNewest, MaxOpenFiles: 256,
		CompactionConcurrencyRange: func() (int, int) { return 1, max(runtime.GOMAXPROCS(0)/2, 1) },
		Logger:                     logger{r},
		EventListener:              &pebble.EventListener{BackgroundError: r.fail, DataCorruption: func(i pebble.DataCorruptionInfo) { r.fail(i.Details) }},
	}
	// The default has a goroutine that pebble leaves behind when it cannot be opened. Without it compactions are looked for when a flush or a
	// compaction has ended, which is enough.
	o.Experimental.CompactionScheduler = pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()
	for i := range o.Levels {
		o.Levels[i].IndexBlockSize = 256 << 10 // one level of them: a get reads a block less
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(r.dir, o)
	if err == nil {
		if err = r.err(); err != nil {
			db.Close()
		}
	}
	if err != nil {
		if first := r.err(); first != nil { // what went wrong with the files says more
			err = first
		}
		return typed(r.dir, err)
	}
	r.db = db
	return nil
}

// removing is the name of a file that says that the store is not to be used.
const removing = "remove"

// err is why the store has failed.
func (r *rows) err() error {
	if e := r.failed.Load(); e != nil {
		return e
	}
	return nil
}

// fail has the store do nothing any more. Whoever calls it may hold locks of pebble's, which would try again without a pause: it is
// closed beside.
func (r *rows) fail(err error) {
	e := typed(r.dir, err)
	if !r.failed.CompareAndSwap(nil, e) {
		return
	}
	close(r.broke)
	go func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.failed.Load() == e && !r.closed { // otherwise others may have the directory
			r.endLocked()
		}
	}()
}

// endLocked closes the files of a store that has failed, and removes them. It may be called again.
func (r *rows) endLocked() {
	fs, keep := r.stores.fs, errors.Is(r.err(), embedlog.ErrNoSpace) // they are as they were when there was no more room
	if !keep {
		// What it says of its files may be wrong: nobody is to open it again, also when it cannot be removed now.
		if f, err := fs.Create(fs.PathJoin(r.dir, removing), vfs.WriteCategoryUnspecified); err == nil {
			f.Close()
		}
	}
	if db := r.db; db != nil {
		r.db = nil
		closed(db) // it has failed already
	}
	if !keep {
		fs.RemoveAll(r.dir)
	}
}

// closed ends what still runs of it. One that has failed may be in any state.
func closed(db *pebble.DB) (err error) {
	defer panicked(&err)
	return db.Close()
}

// logger hears what pebble cannot go on with. It goes on all the same: nothing of it is believed or kept.
type logger struct{ r *rows }

func (logger) Infof(string, ...any)                   {}
func (logger) Errorf(string, ...any)                  {}
func (l logger) Fatalf(format string, args ...any)    { l.r.fail(fmt.Errorf(format, args...)) }
func (logger) Eventf(context.Context, string, ...any) {}
func (logger) IsTracingEnabled(context.Context) bool  { return false }

// use calls f while the store is open.
func (r *rows) use(f func(db *pebble.DB) error) (err error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.closed {
		return embedlog.ErrClosed
	}
	if err := r.err(); err != nil {
		return err
	}
	err = f(r.db)
	if err != nil {
		r.fail(err)
	}
	return r.err() // then what f has read may be wrong
}

// panicked makes an error of a panic of pebble's.
func panicked(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", errPanic, p)
	}
}

func (r *rows) Get(dst, key []byte) (row []byte, found bool, err error) {
	row = dst
	err = r.use(func(db *pebble.DB) (err error) {
		defer panicked(&err)
		v, done, err := db.Get(key)
		if errors.Is(err, pebble.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		row, found = append(dst, v...), true
		return done.Close()
	})
	return row, found && err == nil, err
}

func (r *rows) Walk(from, to []byte, backwards bool, f func(key, row []byte) bool) error {
	return r.use(func(db *pebble.DB) (err error) {
		calling := false // f, whose panics are its own
		defer func() {
			if calling {
				return
			}
			if p := recover(); p != nil {
				err = fmt.Errorf("%w: %v", errPanic, p)
			}
		}()
		it, err := db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, it.Close()) }()
		first, next := it.First, it.Next
		if backwards {
			first, next = it.Last, it.Prev
		}
		for ok := first(); ok; ok = next() {
			row, err := it.ValueAndErr()
			if err != nil {
				return err
			}
			calling = true
			more := f(it.Key(), row)
			if calling = false; !more {
				break
			}
		}
		return it.Error()
	})
}

func (r *rows) Apply(changes []query.RowChange) error {
	return r.use(func(db *pebble.DB) (err error) {
		defer panicked(&err)
		b := db.NewBatch()
		defer b.Close()
		for i := range changes {
			c := &changes[i]
			if c.Delete {
				err = b.Delete(c.Key, nil)
			} else {
				err = b.Set(c.Key, c.Row, nil)
			}
			if err != nil {
				return err
			}
		}
		if r.since.Add(int64(b.Len())) > int64(r.stores.o.WriteBytes) {
			r.since.Store(0)
			if err := r.room(db); err != nil {
				return err
			}
		}
		return b.Commit(pebble.NoSync)
	})
}

// What may wait to be written to files, and the files that may wait to be merged.
const (
	mostMemTables = 4
	mostSublevels = 20
)

// room waits until not too much waits to be written. Pebble would do that itself, but without an end where writing fails.
func (r *rows) room(db *pebble.DB) error {
	for {
		if err := r.err(); err != nil {
			return err
		}
		m := db.Metrics()
		if m.MemTable.Count <= mostMemTables && m.Levels[0].Sublevels <= mostSublevels {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
}

func (r *rows) Clear() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return embedlog.ErrClosed
	}
	if r.db != nil {
		db := r.db
		r.db = nil
		if err := closed(db); err != nil && r.err() == nil {
			return r.failLocked(err)
		}
	}
	if err := r.stores.fs.RemoveAll(r.dir); err != nil {
		return r.failLocked(err)
	}
	if err := r.openLocked(); err != nil {
		return r.failLocked(err)
	}
	return nil
}

// failLocked is fail where the caller ends the store.
func (r *rows) failLocked(err error) error {
	r.failed.CompareAndSwap(nil, typed(r.dir, err))
	return r.err()
}

func (r *rows) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	if r.err() == nil {
		if err := r.flushLocked(); err != nil {
			r.failLocked(err)
		}
	}
	if r.err() != nil {
		r.endLocked() // the disk may be back
		return nil    // all that it had is in changelogs
	}
	db := r.db
	r.db = nil
	err := closed(db)
	if err != nil {
		err = r.failLocked(err)
	}
	if r.err() != nil { // pebble may have said nothing of what went wrong with its files
		r.endLocked()
	}
	return err
}

// flushLocked has what is in memory written. Pebble tries for ever.
func (r *rows) flushLocked() (err error) {
	defer panicked(&err)
	done, err := r.db.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-done:
	case <-r.broke:
	}
	return nil
}
