package log

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog/internal/seed"
	"github.com/x/embedlog/internal/vfs"
)

// Log is one partition's bytes on disk: an ordered run of segments.
//
// Any number of goroutines may read. Who writes holds the writer's lock (Lock,
// TryLock): the methods that say "writer" need it. A log that failed or found
// damage goes on being read.
//
// Lock order: maint, then writer, then syncing, then switching, then mu. No file is touched while mu is held.
type Log struct {
	fs       vfs.FS
	ownFS    bool
	files    *FileCache
	lock     io.Closer
	logger   *slog.Logger
	now      func() time.Time
	onSync   func(took time.Duration, err error) // nil is nobody
	snapshot func([]byte) []byte
	cfg      atomic.Pointer[Config]
	logID    uint64

	writer sync.Mutex
	w      writerState

	// What readers see. Each is stored after what it leads to.
	segs  atomic.Pointer[[]*segment]
	next  atomic.Int64 // log end offset
	start atomic.Int64 // log start offset

	switching  sync.Mutex  // held while an install puts other files in the place of all
	syncing    sync.Mutex  // held while data is being synced
	namesDirty atomic.Bool // the directory holds names that were not synced
	reserve    sync.Mutex  // held while the reserve is laid or taken
	reserved   atomic.Bool // it lies on the disk
	otherBytes atomic.Int64
	// reserveBytes is what the reserve takes, while it is there.
	reserveBytes    atomic.Int64
	spending        atomic.Bool // a small internal append may use a part of the reserve
	checkpointBytes atomic.Int64
	bg              background
	maintenance

	uncapped bool // see Uncap

	mu            sync.Mutex
	boundary      Boundary
	firstComplete uint64
	durable       durability
	recovered     Recovered

	found  atomic.Pointer[asFound] // nil once there is another checkpoint than Open found
	failed atomic.Pointer[failure] // nil while the log may be written
	closed atomic.Bool
}

// Boundary is the entry just before the first one that is kept.
type Boundary struct {
	Index uint64
	Epoch uint64
}

// durability is how far the log is known to have reached the disk.
type durability struct {
	base   int64 // of the segment that the position lies in; all before it are durable
	pos    int64
	offset int64 // the log end offset that belongs to it
}

type failure struct{ err error }

// Recovered says what Open found.
type Recovered struct {
	// State is what Options.Snapshot gave when the last checkpoint was written.
	State []byte
	// Clean says that the log had been closed properly: nothing had to be read again.
	Clean bool
	// ScannedBytes were read and checked, RewrittenBytes written again and synced.
	ScannedBytes, RewrittenBytes int64
	// CutBytes were cut from the end at CutFile:CutPosition, because CutReason.
	// They lay above everything that was known to be durable.
	CutBytes    int64
	CutFile     string
	CutPosition int64
	CutReason   string
	// LogEnd is the log end offset that recovery ended at.
	LogEnd int64
	// Corruption is damage below what was durable. The log is then open for
	// reading only. Nil is none.
	Corruption *CorruptionError
}

// Open opens the log in dir, and makes one there if there is none. With
// Options.FS, dir is not used.
//
// It fails with a *LockedError when somebody else has the log open, with
// ErrNewerFormat when a newer version wrote it, and with a *CorruptionError when
// the log's own state cannot be read. Damage to records does not make it fail: see
// Recovered.
func Open(dir string, options *Options) (opened *Log, err error) {
	var o Options
	if options != nil {
		o = *options
	}
	cfg, err := o.Config.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &Log{
		fs: o.FS, files: o.Files, logger: o.Logger, now: o.Now, onSync: o.OnSync,
	}
	l.cfg.Store(&cfg)
	if l.files == nil {
		l.files = NewFileCache(0)
	}
	if l.logger == nil {
		l.logger = slog.New(slog.DiscardHandler)
	}
	if l.now == nil {
		l.now = time.Now
	}
	if l.fs == nil {
		if l.fs, err = vfs.OS(dir); err != nil {
			return nil, fmt.Errorf("open log: %w", err)
		}
		l.ownFS = true
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open log: %w", err)
			l.release()
		}
	}()
	if !o.NoLock {
		if l.lock, err = l.fs.Lock(lockName); err != nil {
			return nil, err
		}
	}
	l.bg.init(l)
	l.opened = time.Now()
	if err := l.recover(o.MustExist); err != nil {
		return nil, err
	}
	l.snapshot = o.Snapshot // not before: the owner has not got l yet
	return l, nil
}

// release gives back what Open took.
func (l *Log) release() error {
	var err error
	if segs := l.segs.Load(); segs != nil {
		for _, s := range *segs {
			s.handle.shut()
		}
	}
	if l.lock != nil {
		err = l.lock.Close()
	}
	if l.ownFS {
		l.fs.Close()
	}
	return err
}

// Close makes everything durable, writes a checkpoint, and gives the directory
// free. Waiting appends must have ended. Readers that go on fail with ErrClosed.
func (l *Log) Close() error {
	if !l.closed.CompareAndSwap(false, true) {
		return nil
	}
	l.maint.Lock() // a compaction sees closed and ends
	defer l.maint.Unlock()
	l.awaitWriter()
	l.bg.stop()
	l.Lock()
	defer l.Unlock()
	err := l.settle()
	if l.w.runway != nil {
		l.w.runway.close()
		l.bg.running.Wait()
	}
	if rerr := l.release(); err == nil {
		err = rerr
	}
	if err != nil {
		return fmt.Errorf("close log: %w", err)
	}
	return nil
}

// awaitWriter waits until whoever is writing is done. Who comes later finds the
// log closed and starts nothing.
func (l *Log) awaitWriter() {
	l.Lock()
	defer l.Unlock()
}

// settle makes the log need no recovery: everything synced, an end mark synced
// behind it, the file cut there, indexes and checkpoint written. Writer.
func (l *Log) settle() error {
	if f := l.failed.Load(); f != nil && errors.Is(f.err, ErrStorageFailed) && !seed.Is(seed.CloseHidesFailure) {
		return f.err // what is on the disk is for the next open to find out
	} else if f != nil || l.w.seg == nil {
		return nil // opened for reading only
	}
	if err := l.syncData(); err != nil {
		return err
	}
	if l.untouched(l.takeCheckpoint()) {
		return nil
	}
	if err := l.sealEnd(); err != nil {
		return err
	}
	for _, s := range *l.segs.Load() {
		err := s.index.flush(math.MaxInt64, true)
		if errors.Is(err, ErrNoSpace) {
			l.logger.Warn("index not written; it will be rebuilt", "segment", s.name, "error", err)
		} else if err != nil {
			return err
		}
	}
	return l.writeCheckpoint(l.takeCheckpoint())
}

// asFound is a log that Open found closed properly, with a checkpoint that says that
// all of it is durable.
type asFound struct {
	segs  *[]*segment // another slice when there are other segments
	pos   int64
	start int64
	state uint32 // checksum of the owner's state
}

// untouchedFor is how much running time may be forgotten to spare a log that nobody
// wrote to the syncs of its Close: thousands are opened for one to be read.
const untouchedFor = time.Minute

// untouched says that the files are as a Close would leave them, but for the entry
// of a segment's first frame, without which the next open is as quick. Writer.
func (l *Log) untouched(c *checkpoint) bool {
	f := l.found.Load()
	return f != nil && f.segs == l.segs.Load() && f.pos == l.w.pos && f.start == l.start.Load() &&
		!l.namesDirty.Load() && l.w.seg.index.unsaved() <= 1 && f.state == crc32.Checksum(c.state, castagnoli) &&
		l.ran()-l.ranBase.Load() < untouchedFor.Milliseconds()
}

// Lock takes the writer's lock.
func (l *Log) Lock() { l.writer.Lock() }

// TryLock takes the writer's lock if nobody has it.
func (l *Log) TryLock() bool { return l.writer.TryLock() }

// Unlock gives the writer's lock back.
func (l *Log) Unlock() { l.writer.Unlock() }

// StartOffset is the log start offset: records below it are gone.
func (l *Log) StartOffset() int64 { return l.start.Load() }

// EndOffset is the log end offset: the next one to be assigned.
func (l *Log) EndOffset() int64 { return l.next.Load() }

// NextIndex is the log index that the next frame gets. Writer.
func (l *Log) NextIndex() uint64 { return l.w.at.index }

// LastEpoch is the epoch of the last frame. Writer.
func (l *Log) LastEpoch() uint64 { return l.w.at.epoch }

// DurableOffset is the offset below which everything was synced.
func (l *Log) DurableOffset() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.durable.offset
}

// Boundary is the entry before the first one kept.
func (l *Log) Boundary() Boundary {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.boundary
}

// FirstCompleteIndex is the index from which on every entry can be read singly:
// compaction has rewritten nothing there.
func (l *Log) FirstCompleteIndex() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.firstComplete
}

// Recovered says what Open found.
func (l *Log) Recovered() Recovered {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.recovered
}

// Config returns the settings in force, defaults filled in.
func (l *Log) Config() Config { return *l.cfg.Load() }

// Level is when an append is acknowledged.
func (l *Log) Level() Level { return l.cfg.Load().Level }

// SetConfig changes the settings. What is being written keeps the old ones.
func (l *Log) SetConfig(c Config) error {
	c, err := c.withDefaults()
	if err != nil {
		return err
	}
	l.cfg.Store(&c)
	l.bg.retime()
	return nil
}

// Err is nil while the log may be written, and what stopped it otherwise. It
// matches ErrStorageFailed, ErrCorrupt or ErrClosed.
func (l *Log) Err() error {
	if f := l.failed.Load(); f != nil {
		return f.err
	}
	if l.closed.Load() {
		return ErrClosed
	}
	return nil
}

// fail stops all writing. The kernel may have dropped the pages that a sync could
// not write: a later sync can succeed over lost data, so there is no later sync.
func (l *Log) fail(what string, err error) error {
	f := &failure{fmt.Errorf("%s: %w: %w", what, ErrStorageFailed, err)}
	if l.failed.CompareAndSwap(nil, f) {
		l.logger.Error("log stopped writing", "error", f.err)
	}
	return l.failed.Load().err
}

// segmentFor returns the position in segs of the segment that holds offset: the
// last one whose base offset is not above it.
func segmentFor(segs []*segment, offset int64) int {
	low, high := 0, len(segs)
	for low < high {
		mid := int(uint(low+high) / 2)
		if segs[mid].baseOffset <= offset {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low - 1
}
