package disk

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
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
	// read again from changelogs. Zero means 32 MiB.
	WriteBytes int
}

// Stores has the rows of views in files. Its methods may be called by several goroutines.
type Stores struct {
	o  Options
	fs vfs.FS
}

var _ query.Stores = (*Stores)(nil)

// ErrNoDirectory says that the database is in no directory, and Options.Dir names none.
var ErrNoDirectory = errors.New("disk: no directory for the rows of views: Options.Dir names none, and the database is in memory")

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
	return s
}

// OpenStore opens a store. Graphs call it.
func (s *Stores) OpenStore(dir, name string) (query.RowStore, error) {
	if s.o.Dir != "" {
		dir = s.o.Dir
	}
	if dir == "" {
		return nil, ErrNoDirectory
	}
	r := &rows{stores: s, dir: filepath.Join(dir, name)}
	if err := r.open(); err != nil {
		return nil, fmt.Errorf("open store %s: %w", r.dir, err)
	}
	return r, nil
}

// rows is a store.
type rows struct {
	stores *Stores
	dir    string
	failed atomic.Pointer[error] // for good: it is removed when it is closed
	since  atomic.Int64          // bytes applied since room looked

	mu sync.RWMutex // held for reading by all that uses db
	db *pebble.DB   // nil: closed
}

// open opens the files. What cannot be opened is removed: it is a copy.
func (r *rows) open() error {
	fs := r.stores.fs
	if err := fs.MkdirAll(r.dir, 0o755); err != nil {
		return err
	}
	// Who else has it open is not to be robbed of it.
	lock, err := pebble.LockDirectory(r.dir, fs)
	if err != nil {
		return err
	}
	if _, err := fs.Stat(fs.PathJoin(r.dir, removing)); err == nil {
		err = errors.Join(lock.Close(), fs.RemoveAll(r.dir), fs.MkdirAll(r.dir, 0o755))
		if err == nil {
			lock, err = pebble.LockDirectory(r.dir, fs)
		}
		if err != nil {
			return err
		}
	}
	r.db, err = r.openLocked(lock)
	if err != nil {
		if err := errors.Join(lock.Close(), fs.RemoveAll(r.dir), fs.MkdirAll(r.dir, 0o755)); err != nil {
			return err
		}
		if lock, err = pebble.LockDirectory(r.dir, fs); err != nil {
			return err
		}
		r.failed.Store(nil)
		r.db, err = r.openLocked(lock)
	}
	return errors.Join(err, lock.Close()) // pebble holds it as well
}

func (r *rows) openLocked(lock *pebble.Lock) (db *pebble.DB, err error) {
	defer func() { // some damage it does not expect
		if p := recover(); p != nil {
			err = fmt.Errorf("pebble panicked: %v", p)
		}
	}()
	cache := pebble.NewCache(r.stores.o.CacheBytes)
	defer cache.Unref()
	o := &pebble.Options{
		FS: r.stores.fs, Lock: lock, Cache: cache,
		DisableWAL: true, MemTableSize: uint64(r.stores.o.WriteBytes),
		MemTableStopWritesThreshold: 1 << 16, L0StopWritesThreshold: 1 << 16, // see room
		FormatMajorVersion: pebble.FormatNewest, MaxOpenFiles: 256,
		CompactionConcurrencyRange: func() (int, int) { return 1, max(runtime.GOMAXPROCS(0)/2, 1) },
		Logger:                     logger{r},
		EventListener:              &pebble.EventListener{BackgroundError: r.fail, DataCorruption: func(i pebble.DataCorruptionInfo) { r.fail(i.Details) }},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return pebble.Open(r.dir, o)
}

// removing is the name of a file that says that the store is not to be used.
const removing = "remove"

// fail has the store do nothing any more. It is removed when it is closed.
func (r *rows) fail(err error) { r.failed.CompareAndSwap(nil, &err) }

// logger hears what pebble cannot go on with. It goes on all the same: nothing of it is believed or kept.
type logger struct{ r *rows }

func (logger) Infof(string, ...any)                   {}
func (logger) Errorf(string, ...any)                  {}
func (l logger) Fatalf(format string, args ...any)    { l.r.fail(fmt.Errorf(format, args...)) }
func (logger) Eventf(context.Context, string, ...any) {}
func (logger) IsTracingEnabled(context.Context) bool  { return false }

// use calls f while the store is open.
func (r *rows) use(f func(db *pebble.DB) error) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.db == nil {
		return embedlog.ErrClosed
	}
	if err := r.failed.Load(); err != nil {
		return *err
	}
	err := f(r.db)
	if failed := r.failed.Load(); failed != nil { // then what f has read may be wrong
		return *failed
	}
	if err != nil {
		r.fail(err)
	}
	return err
}

func (r *rows) Get(dst, key []byte) (row []byte, found bool, err error) {
	row = dst
	err = r.use(func(db *pebble.DB) error {
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
	return r.use(func(db *pebble.DB) error {
		it, err := db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
		if err != nil {
			return err
		}
		first, next := it.First, it.Next
		if backwards {
			first, next = it.Last, it.Prev
		}
		for ok := first(); ok; ok = next() {
			row, err := it.ValueAndErr()
			if err != nil {
				return errors.Join(err, it.Close())
			}
			if !f(it.Key(), row) {
				break
			}
		}
		return errors.Join(it.Error(), it.Close())
	})
}

func (r *rows) Apply(changes []query.RowChange) error {
	return r.use(func(db *pebble.DB) error {
		b := db.NewBatch()
		defer b.Close()
		for i := range changes {
			c := &changes[i]
			var err error
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
		if err := r.failed.Load(); err != nil {
			return *err
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
	if r.db == nil {
		return embedlog.ErrClosed
	}
	err := errors.Join(r.db.Close(), r.stores.fs.RemoveAll(r.dir))
	r.db = nil
	if err != nil {
		return err
	}
	r.failed.Store(nil)
	return r.open()
}

func (r *rows) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.db == nil {
		return nil
	}
	db := r.db
	r.db = nil
	if r.failed.Load() != nil {
		// What it says of its files may be wrong: nobody is to open it again, also when it cannot be removed now.
		if f, err := r.stores.fs.Create(r.stores.fs.PathJoin(r.dir, removing), vfs.WriteCategoryUnspecified); err == nil {
			f.Close()
		}
		db.Close()
		r.stores.fs.RemoveAll(r.dir)
		return nil
	}
	err := db.Flush()
	return errors.Join(err, db.Close())
}
