package embedlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/internal/views"
)

func init() {
	views.Of = func(db any) *views.Registry { return &db.(*DB).views }
}

// DB is an open database: a directory of topics, of which this process is the only
// user. All methods may be called from several goroutines.
//
// In a cluster every node takes every call: what concerns a partition, a group or a
// transaction that another node leads goes there, and waits, 30 seconds at most, while
// nobody leads it. When an answer does not come the error matches ErrUnknownOutcome, unless
// the call could be made again without harm.
type DB struct {
	engine      *engine.Engine
	autoCreate  bool
	partitions  int           // of topics that do not say
	version     atomic.Uint64 // grows with each change of topics: see Topic.current
	stopVersion func()
	sessions    txnSessions  // of transactions without an id
	out         atomic.Int32 // functions of the user's that run: see callOut
	volatile    bool         // nothing outlives it
	views       views.Registry

	mu      sync.Mutex
	closes  bool                // Close has been called
	closed  bool                // nothing new begins
	closers map[closer]struct{} // what has to end before the engine does
	done    chan struct{}       // closed when Close is through
	err     error               // what Close found
}

// closer is something of the database's that is open: a producer, a consumer, a
// transaction, the socket.
type closer interface{ closeWithDB() }

// Open opens the database in dir, and makes one there if there is none.
//
// It fails with a *LockedError when somebody else has it open, with ErrNewerFormat
// when a newer version wrote it, and with *InvalidSettingError, joined, for each
// option that is not valid. A partition with damage does not make it fail: see
// Verify.
func Open(dir string, o *Options) (*DB, error) {
	if dir == "" {
		return nil, errors.New("embedlog: open: no directory given; OpenMemory needs none")
	}
	return open(dir, nil, o)
}

// OpenMemory opens an empty database that is in memory alone and gone when it is
// closed. It is otherwise the same; what is synced costs nothing.
func OpenMemory(o *Options) (*DB, error) {
	db, err := open("memory", vfs.NewMem(vfs.Volatile()), o)
	if err == nil {
		db.volatile = true
	}
	return db, err
}

// OpenFS opens the database in a file system of this module's, for its tests.
func OpenFS(fs vfs.FS, o *Options) (*DB, error) { return open("memory", fs, o) }

func open(dir string, fs vfs.FS, o *Options) (*DB, error) {
	eo, err := o.engine()
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	eo.FS = fs
	e, err := engine.Open(dir, eo)
	if err != nil {
		return nil, err
	}
	db := &DB{engine: e, partitions: 1, closers: make(map[closer]struct{}), done: make(chan struct{})}
	if o != nil {
		db.autoCreate = o.AutoCreateTopics
		db.partitions = max(o.TopicDefaults.Partitions, 1)
	}
	db.stopVersion = e.OnMetadata(func() { db.version.Add(1) })
	if o != nil && o.Socket {
		if err := db.listen(dir, fs == nil); err != nil {
			return nil, errors.Join(fmt.Errorf("open %s: %w", dir, err), db.Close())
		}
	}
	return db, nil
}

// Close ends what is open, producers with what they still hold, makes everything
// durable and gives the directory free. Calls that wait end with ErrClosed. It may
// be called more than once, but not from within a done function of Producer.Send or a
// consumer's hook, for which it waits: that fails with ErrReentrant.
func (db *DB) Close() error {
	if err := db.reentered(); err != nil {
		return err
	}
	db.mu.Lock()
	if db.closes {
		db.mu.Unlock()
		<-db.done
		return db.err
	}
	db.closes = true
	for !db.closed {
		first := db.endings() // they may need all the rest
		db.closed = len(first) == 0
		db.mu.Unlock()
		end(first)
		db.mu.Lock()
	}
	rest := slices.Collect(maps.Keys(db.closers))
	db.mu.Unlock()
	end(rest)
	db.stopVersion()
	db.err = db.engine.Close()
	db.version.Add(1) // what handles remember is from before
	close(db.done)
	return db.err
}

// endings takes the functions of BeforeClose out of what has to be closed.
func (db *DB) endings() (list []closer) {
	for c := range db.closers {
		if _, ok := c.(*ending); ok {
			list = append(list, c)
			delete(db.closers, c)
		}
	}
	return list
}

// end closes at once: each may wait for a coordinator that nobody reaches.
func end(list []closer) {
	var ending sync.WaitGroup
	for _, c := range list {
		ending.Go(c.closeWithDB)
	}
	ending.Wait()
}

// opened registers something that ends before the engine does.
func (db *DB) opened(c closer) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return ErrClosed
	}
	db.closers[c] = struct{}{}
	return nil
}

// closing takes back what opened did.
func (db *DB) closing(c closer) {
	db.mu.Lock()
	defer db.mu.Unlock()
	delete(db.closers, c)
}

// Engine is what the other packages of this module build on.
func (db *DB) Engine() *engine.Engine { return db.engine }

// StateDir is the directory "views" in the database's, where package query keeps what it can make again from topics: checkpoints and
// stores. It is made when it is not there. dir is its name for others; it is empty where the database is in no directory
// of the system's. files is nil where nothing outlives the database (OpenMemory).
func (db *DB) StateDir() (files vfs.FS, dir string, err error) {
	if db.isClosed() {
		return nil, "", ErrClosed
	}
	if db.volatile {
		return nil, "", nil
	}
	return db.engine.StateDir()
}

func (db *DB) isClosed() bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.closed
}

// closePatience is how long what ends waits for other nodes: a cluster that is being
// shut down has no leaders in the end.
const closePatience = 5 * time.Second

// patience is ctx for a call that is made because something ends. Alone it waits for the
// disk only.
func (db *DB) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	if db.engine.Cluster() == nil {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, closePatience)
}

func (db *DB) nowMillis() int64 { return db.engine.Now().UnixMilli() }

// Sync returns when everything that was acknowledged before is durable, whatever
// the topics' levels.
func (db *DB) Sync(ctx context.Context) error {
	return db.eachPartition(ctx, "sync", func(p *engine.Partition) error { return p.Sync(ctx) })
}
