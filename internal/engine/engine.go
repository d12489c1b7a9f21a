package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Options are what Open takes. They are copied. Nil is all defaults.
type Options struct {
	// FS is the file system; nil is the operating system's. It is not closed.
	FS vfs.FS
	// Logger is told what recovery found and what failed in the background; nil is silent.
	Logger *slog.Logger
	// Now is the wall clock; nil is time.Now.
	Now func() time.Time
	// LockTimeout is how long Open waits while somebody else has the directory open.
	// Zero is not at all.
	LockTimeout time.Duration
	// OpenFiles bounds the open files of all partitions. Zero means log.DefaultOpenFiles.
	OpenFiles int
	// MaxBytes is the most that the database may take on the disk, everything
	// included. Zero is no cap; the smallest is MinMaxBytes. Topics whose segment.bytes
	// nobody says get segments of a 32nd of it.
	MaxBytes int64
	// Defaults are settings of topics, under Kafka's names, for those that do not set
	// them. Internal topics do not follow them.
	Defaults map[string]string
	// InternalPartitions is how many partitions an internal topic gets when it is first
	// made. Zero means 1.
	InternalPartitions int
	// OffsetsRetention is how long a group's offsets are kept when nobody uses them,
	// counting the time for which the database is open.
	// Zero means 7 days, negative for ever.
	OffsetsRetention time.Duration
	// GroupInitialDelay is how long an empty group of the classic protocol waits for more
	// members before its first generation begins. Zero means 100 ms, negative not at all.
	// (group.initial.rebalance.delay.ms)
	GroupInitialDelay time.Duration
	// GroupMinSessionTimeout and GroupMaxSessionTimeout bound the session timeouts of
	// members of the classic protocol. Zero means 6 s and 30 min.
	// (group.min.session.timeout.ms, group.max.session.timeout.ms)
	GroupMinSessionTimeout, GroupMaxSessionTimeout time.Duration
	// GroupMaxSize is how many members a group may have. Zero means 10,000.
	// (group.max.size)
	GroupMaxSize int
	// MaintenanceInterval is how often retention, compaction and the disk cap are
	// looked at. Zero means 30 s; negative is never by itself, only by Tick.
	MaintenanceInterval time.Duration
	// Hooks are called on what happens; nil ones cost nothing.
	Hooks *Hooks
	// Cluster replicates the database on its peers. Nil is alone. It is closed by Close.
	Cluster Cluster
	// ReplicationFactor is how many replicas a partition gets where nobody says it. Zero
	// means 3, or as many as there are nodes. (default.replication.factor)
	ReplicationFactor int
	// PreferredLeaders is for how long a partition's preferred leader has to be in sync before
	// who leads instead gives it the lead. Zero is 30 s, negative never by itself.
	// (auto.leader.rebalance.enable)
	PreferredLeaders time.Duration
}

// Hooks are functions that are called on what happens. They are called by whoever
// does it, so they must be quick, and must not call back.
type Hooks struct {
	// OnProduce is called after each append, with the bytes of keys and values, or of
	// the batch where it came encoded.
	OnProduce func(topic string, partition int32, records int, bytes int64, d time.Duration, err error)
	// OnFetch is called after each fetch of a partition, and for each batch that a
	// consumer takes up.
	OnFetch func(topic string, partition int32, batches int, bytes int64, d time.Duration, err error)
	// OnFsync is called after each sync of records to the disk, in whatever goroutine
	// made it; concurrent appends share one.
	OnFsync func(topic string, partition int32, d time.Duration, err error)
	// OnCommit is called after each commit of a group's offsets.
	OnCommit func(group string, offsets int, d time.Duration, err error)
	// OnRebalance is called when a group has another assignment.
	OnRebalance func(group string, epoch int32, members int)
}

// Engine is an open database.
type Engine struct {
	dir                string
	fs                 vfs.FS
	ownFS              bool
	lock               io.Closer
	identity           identity
	files              *log.FileCache
	logger             *slog.Logger
	now                func() time.Time
	hooks              Hooks
	defaults           map[string]string
	internalPartitions int
	options            Options // for what is not above

	meta        *metaLog
	producerIDs producerIDs
	view        atomic.Pointer[topicView]
	watchers    watchers

	securityWatchers securityWatchers
	admin            chan struct{} // holds a token while topics are being changed
	retiring         sync.Map      // TopicID of those that were deleted and whose partitions are being closed

	groups *Groups
	shares *Shares
	txns   *Txns

	cluster   Cluster // nil alone
	services  services
	peers     atomic.Pointer[map[int32]string] // addresses of the nodes
	standings atomic.Pointer[standings]        // who may ask what of this node
	adopting  sync.Mutex                       // guards identity.cluster while the engine is open
	started   bool                             // cluster.Start was called
	initial   []int32                          // the nodes that begin the cluster
	address   string                           // where peers find this node
	changes   chan struct{}                    // in a cluster: holds a token while topics are being changed by this node
	replicas  replicas
	calling   calling // what asks peers in the background
	handlers  peerHandlers

	coordinators coordinators

	closed  atomic.Bool
	closing sync.Once
	life    context.Context // ends with Close
	die     context.CancelFunc
	ticker  ticker
	cleaner *cleaner
	cap     *diskCap // nil without Options.MaxBytes
}

// Open opens the database in dir, and makes one there if the directory is empty.
// With Options.FS, dir is used in messages only.
//
// It fails with a *vfs.LockedError that names the holder when somebody else has it
// open, with log.ErrNewerFormat when a newer version wrote it, with a
// *WrongDirectoryError when it holds something else, and with a
// *log.CorruptionError when the metadata is damaged; none of these changes
// anything. Damage to a partition is the error of that partition alone.
func Open(dir string, options *Options) (opened *Engine, err error) {
	e := newEngine(dir, options)
	if _, err := ParseSettings(nil, e.defaults); err != nil {
		return nil, fmt.Errorf("open %s: default settings: %w", dir, err)
	}
	if e.fs == nil {
		if e.fs, err = vfs.OS(dir); err != nil {
			return nil, fmt.Errorf("open %s: %w", dir, err)
		}
		e.ownFS = true
	}
	if err := e.open(); err != nil {
		e.closed.Store(true)
		return nil, fmt.Errorf("open %s: %w", dir, errors.Join(e.withAdvice(err), e.release()))
	}
	return e, nil
}

// newEngine is an engine that nothing of is opened.
func newEngine(dir string, options *Options) *Engine {
	e := &Engine{dir: dir, admin: make(chan struct{}, 1), changes: make(chan struct{}, 1), producerIDs: producerIDs{turn: make(chan struct{}, 1)}}
	if options != nil {
		e.options = *options
	}
	o := &e.options
	e.fs, e.logger, e.now, e.defaults = o.FS, o.Logger, o.Now, maps.Clone(o.Defaults)
	e.internalPartitions = max(o.InternalPartitions, 1)
	if o.Hooks != nil {
		e.hooks = *o.Hooks
	}
	if e.logger == nil {
		e.logger = slog.New(slog.DiscardHandler)
	}
	if e.now == nil {
		e.now = time.Now
	}
	e.cluster, e.services.opened = o.Cluster, make(chan struct{})
	e.files = log.NewFileCache(o.OpenFiles)
	e.cleaner = newCleaner(e)
	e.life, e.die = context.WithCancel(context.Background())
	e.view.Store(&topicView{})
	e.coordinators.init(e)
	return e
}

func (e *Engine) open() (err error) {
	// Twice: a directory that is not ours, or too new, does not even get a lock file.
	if _, err := e.identify(); err != nil {
		return err
	}
	if e.lock, err = lockDirectory(e.life, e.fs, e.options.LockTimeout); err != nil {
		return err
	}
	if err := e.bound(); err != nil {
		return err
	}
	found, err := e.identify()
	if err != nil {
		return err
	}
	if found {
		// Whoever made FORMAT may have been killed before its name was durable. Topics must not survive a power cut that it does not.
		if err := e.fs.SyncDir("."); err != nil {
			return err
		}
	}
	if e.cluster != nil {
		return e.openReplicated(found)
	}
	if found && e.identity.node != 0 {
		return &InvalidNodeError{Node: e.identity.node, Reason: "its directory is a part of a cluster, and was opened without one"}
	}
	if found {
		err = e.openMeta(true, nil)
	} else {
		err = e.create(identity{cluster: newID(), directory: newID()})
	}
	if err != nil {
		return err
	}
	if err := e.openTopics(); err != nil {
		return err
	}
	return e.openRest()
}

// openRest opens what stands on topics, and begins what goes on by itself.
func (e *Engine) openRest() error {
	if err := e.openParts(); err != nil {
		return err
	}
	e.coordinators.start()
	e.cleaner.start()
	e.ticker.start(e)
	close(e.services.opened)
	return nil
}

// bound puts the cap below everything that is opened from now on.
func (e *Engine) bound() (err error) {
	limit := e.options.MaxBytes
	if e.cap, err = newDiskCap(e, e.fs, limit); err != nil || e.cap == nil {
		return err
	}
	e.fs, _ = e.cap.view(e.fs, vfs.QuotaOrdinary)
	if e.defaults == nil {
		e.defaults = make(map[string]string)
	}
	if _, said := e.defaults[settingSegmentBytes]; !said {
		e.defaults[settingSegmentBytes] = strconv.FormatInt(capSegment(limit), 10)
	}
	return nil
}

// openMeta opens the metadata, which may take what is kept back under a cap: without
// it not even a topic could be deleted.
func (e *Engine) openMeta(mustExist bool, replicator partition.Replicator) (err error) {
	fsys, _ := e.cap.view(e.fs, vfs.QuotaEssential)
	e.meta, err = openMetaLog(vfs.Sub(fsys, metaName), mustExist, e.files, e.logger, e.now, replicator)
	return err
}

// identify reads FORMAT. found is false in a directory where a database can be made.
func (e *Engine) identify() (found bool, err error) {
	if e.identity, found, err = readIdentity(e.fs); err != nil || found {
		return found, err
	}
	if err = checkEmpty(e.fs, e.dir); err == nil {
		return false, nil
	}
	// Somebody else may have made a database since FORMAT was looked for.
	if id, found, again := readIdentity(e.fs); found {
		e.identity = id
		return true, again
	}
	return false, err
}

// create makes a database. A crash before FORMAT is durable leaves a directory in
// which it is made again.
func (e *Engine) create(id identity) (err error) {
	for _, name := range []string{metaName, topicsName} {
		if err := e.fs.Mkdir(name); err != nil {
			return err
		}
	}
	if err = e.openMeta(false, nil); err != nil {
		return err
	}
	if e.meta.part.LogEnd() > 0 {
		return damaged(formatName, errors.New("the file is missing, and there is metadata"))
	}
	e.identity = id
	if err := e.fs.SyncDir("."); err != nil {
		return err
	}
	return replaceFile(e.fs, ".", formatName, e.identity.encode())
}

// openParts opens what keeps its own state in internal topics.
func (e *Engine) openParts() (err error) {
	if e.shares == nil {
		e.shares = newShares(e)
	}
	if e.groups, err = openGroups(e); err != nil {
		return fmt.Errorf("groups: %w", err)
	}
	if e.txns, err = openTxns(e); err != nil {
		return fmt.Errorf("transactions: %w", err)
	}
	return nil
}

// Close makes everything durable and gives the directory free. Calls that are under
// way end with an error that matches log.ErrClosed. It ends all goroutines of the
// engine. A second Close waits for the first and returns nil.
func (e *Engine) Close() (err error) {
	e.closing.Do(func() {
		e.closed.Store(true)
		e.die()
		if err = e.release(); err != nil {
			err = fmt.Errorf("close %s: %w", e.dir, err)
		}
	})
	return err
}

// release gives back what open took, in the opposite order.
func (e *Engine) release() error {
	e.die()
	e.services.close()
	e.replicas.stop()
	e.calling.close()
	e.ticker.stop()
	e.coordinators.stop()
	e.cleaner.running.Wait()
	if e.meta != nil && e.meta.group != nil {
		e.meta.group.running.Wait()
	}
	e.admin <- struct{}{} // whoever changes topics comes to an end; who comes later finds it closed
	defer e.endAdmin()
	var errs []error
	if e.txns != nil {
		e.txns.close()
	}
	if e.groups != nil {
		e.shares.close()
		e.groups.close()
	}
	errs = append(errs, e.closeTopics()...)
	if e.meta != nil {
		errs = append(errs, e.meta.close())
	}
	if e.started {
		errs = append(errs, e.cluster.Close())
	}
	if e.lock != nil {
		errs = append(errs, e.lock.Close())
	}
	if e.ownFS {
		errs = append(errs, e.fs.Close())
	}
	return errors.Join(errs...)
}

// Closed says that Close was called.
func (e *Engine) Closed() bool { return e.closed.Load() }

// closedError is nil while the engine is open.
func (e *Engine) closedError() error {
	if e.closed.Load() {
		return log.ErrClosed
	}
	return nil
}

// beginAdmin makes the caller the only one who changes topics, until endAdmin.
func (e *Engine) beginAdmin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case e.admin <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := e.closedError(); err != nil {
		e.endAdmin()
		return err
	}
	return nil
}

func (e *Engine) endAdmin() { <-e.admin }

// beginChange makes the caller the only one who asks for changes of topics on this node,
// until endChange. In a cluster it fails with a *partition.NotLeaderError where this
// node does not lead the metadata; then what readers see is the newest there is.
func (e *Engine) beginChange(ctx context.Context) error {
	if e.cluster == nil {
		return e.beginAdmin(ctx)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case e.changes <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-e.life.Done():
		return log.ErrClosed
	}
	err := e.closedError()
	if err == nil {
		err = e.knowMeta(ctx)
	}
	if err != nil {
		<-e.changes
	}
	return err
}

func (e *Engine) endChange() {
	if e.cluster == nil {
		e.endAdmin()
		return
	}
	<-e.changes
}

// Now is the wall clock.
func (e *Engine) Now() time.Time { return e.now() }

// Hooks are those of the options; they do not change.
func (e *Engine) Hooks() *Hooks { return &e.hooks }

// Logger is never nil.
func (e *Engine) Logger() *slog.Logger { return e.logger }

// Groups are the consumer groups.
func (e *Engine) Groups() *Groups { return e.groups }

// Shares are the records of share groups.
func (e *Engine) Shares() *Shares { return e.shares }

// Txns are the transactions.
func (e *Engine) Txns() *Txns { return e.txns }
