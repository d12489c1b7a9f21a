package embedlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Offsets that stand for a place in a Position that a consumer is given: to
// Assign, and to Seek.
const (
	OffsetLatest   int64 = -1 // behind the last record that can be read now
	OffsetEarliest int64 = -2 // the log start offset
	// OffsetCommitted is where the group's committed offset is, and where there is
	// none, what ConsumerConfig.Start says.
	OffsetCommitted int64 = -3
)

// ConsumerConfig says what a consumer reads, and how. It is copied.
//
//	Group  Topics or Pattern   a member of the group: it reads the partitions that it
//	                           is given, and shares the rest with the other members
//	Group  Assign              the partitions named, and commits for the group, which
//	                           must have no members
//	       Topics or Pattern   all their partitions, from Start on; nothing is committed
//	       Assign              the partitions named; nothing is committed
type ConsumerConfig struct {
	// Group names the consumer group. Empty is none.
	Group string
	// Topics must exist when the consumer is made.
	Topics []string
	// Pattern is a regular expression that whole topic names must match. Topics
	// that are made later are read, too.
	Pattern string
	// Assign are partitions and the offsets to begin at.
	Assign []Position
	// Start is where to begin where the group has committed nothing. Zero means
	// Earliest. A partition that is added later begins at its log start offset.
	Start OffsetSpec
	// ReadUncommitted shows the records of transactions before they are decided, and
	// of those that are aborted.
	ReadUncommitted bool
	// InstanceID makes the consumer a static member: one that is closed and comes
	// back within the session timeout gets its partitions again.
	InstanceID string
	// ClientID is shown where the group is described.
	ClientID string
	// SessionTimeout is after how long without a sign of life the group goes on
	// without the consumer, which gives the signs by itself. Zero means that none are
	// needed: a consumer of this process does not die alone.
	SessionTimeout time.Duration
	// MaxPollInterval is how long the application may take before it asks for the next
	// record: then the consumer leaves the group. Zero means 5 minutes, negative for
	// ever. (max.poll.interval.ms)
	MaxPollInterval time.Duration
	// ManualCommit leaves marks to Mark and MarkPosition, and commits to Commit and to
	// transactions.
	ManualCommit bool
	// CommitInterval is how often marks are committed. Zero means 1 s.
	CommitInterval time.Duration
	// OnAssigned, OnRevoked and OnLost are called when the group gives the consumer
	// partitions and takes them away. They are called by the goroutine that reads,
	// between two records; OnRevoked and OnLost by Close, too. They may call the
	// consumer's methods, Close among them, but not read, and not close the database,
	// which waits for them (ErrReentrant).
	//
	// OnAssigned is called before the first record; the positions are those it will
	// begin at, and Seek moves them. OnRevoked is called while the partitions are still
	// the consumer's: what is marked until it returns is committed before anybody else
	// gets them. When OnLost is called somebody else may read them already; marks
	// that were not committed are dropped.
	OnAssigned, OnRevoked, OnLost func(ctx context.Context, c *Consumer, partitions []Position)
	// OnReset is told when a consumer goes on elsewhere than it stood, because the
	// records there were deleted, lost or damaged. The logger is told as well.
	OnReset func(ctx context.Context, c *Consumer, r Reset)
	// SkipDamage goes on behind damaged bytes, after OnReset was told, instead of
	// ending the loop with a *ReadError.
	SkipDamage bool
	// BufferBytes bounds what is read ahead, all partitions together. Zero means 16
	// MiB. A larger batch is read whole. Records that are held are not counted.
	BufferBytes int
	// ReuseBuffers reads into the same memory again: what Records and Batches yield
	// is then valid only until the next is asked for, and whoever keeps bytes copies
	// them. It spares the garbage collector as many bytes as are read. Poll copies.
	ReuseBuffers bool
}

// Reset is a change of position that the application did not ask for.
type Reset struct {
	Topic     string
	Partition int32
	// From is the offset that was to be read, To where reading goes on. Where From is
	// smaller, the records between them cannot be read any more; where it is larger,
	// they had been read and were lost since.
	From, To int64
	// Cause matches ErrOffsetOutOfRange when records were deleted or lost, ErrCorrupt
	// or ErrBadBatch when they are damaged.
	Cause error
}

// ReadError is a partition that cannot be read on at an offset. The other
// partitions can, and this one behind the damage: Seek to Next, or Pause it.
type ReadError struct {
	Topic     string
	Partition int32
	Offset    int64 // that could not be read
	Next      int64 // the first offset behind; -1 when not known
	Err       error
}

func (e *ReadError) Error() string {
	return fmt.Sprintf("read %s/%d at offset %d: %v", e.Topic, e.Partition, e.Offset, e.Err)
}

// Unwrap returns the cause.
func (e *ReadError) Unwrap() error { return e.Err }

// ErrBusy says that another loop reads the consumer already.
var ErrBusy = errors.New("embedlog: the consumer is being read by another loop")

// Consumer reads records, of one partition in order, of several in turns.
//
//	for rec, err := range consumer.Records(ctx) {
//		if err != nil {
//			return err
//		}
//		handle(rec)
//	}
//
// Asking for the next record marks the last one as done. Marks are committed every
// CommitInterval, when the loop ends, on Close, and before a partition is handed over:
// each record is handled at least once. The record that a loop breaks on was
// not asked past: it is not marked, unless Mark says so, and the next loop begins
// with it.
//
// One goroutine reads at a time; the other methods may be called by any. A member
// of a group, or who commits for one, has one goroutine in the background; other
// consumers have none.
type Consumer struct {
	db     *DB
	engine *engine.Engine
	logger *slog.Logger
	cfg    ConsumerConfig
	auto   bool // asking for the next marks
	match  *regexp.Regexp

	// events says that the goroutine that reads has something to do besides: see
	// handle. It is what a record costs to look for all of that.
	events atomic.Bool
	// at is where the application stands in the batch at hand: what lies below is done.
	at      atomic.Int64
	waiting atomic.Bool // the application waits for us, not we for it
	reading atomic.Bool // somebody is in a loop
	topics  atomic.Bool // they changed, and this consumer follows them by itself
	waiter  *partition.Waiter
	arrived arrivals // of partitions that are read at their leader
	front   reading  // the goroutine's that reads

	calls    chan struct{} // held by who talks to the coordinator: commits and heartbeats are in order
	member   member        // guarded by calls
	kick     chan struct{} // cap 1: something to do for the background
	stop     chan struct{}
	ended    chan struct{} // closed when the background goroutine is gone
	through  chan struct{} // closed when Close is
	life     context.Context
	die      context.CancelFunc
	unfollow func() // ends the subscription to changes of topics; nil when there is none

	mu        sync.Mutex // guards what follows
	sources   map[place]*source
	changed   []*source // that were paused, resumed or sought since handle looked
	cur       *source   // whose batch is at hand; nil: at says nothing
	curFirst  int64     // where at began
	curEpoch  int32     // of the batch at hand
	batches   uint64    // that were at hand so far
	started   bool      // the background goroutine
	closing   bool      // Close has begun: no hook is called by who reads
	closed    bool
	untold    []*Reset // of partitions assigned by hand
	busy      bool     // there are marks to commit, since busySince
	busySince time.Time
	fatal     error     // what the background cannot go on after
	dropped   error     // marks that could not be committed, until Commit reports it
	lost      bool      // the group goes on without us; sources are what we had
	coming    []*source // given to us, not taken over yet
	going     []*source // to be given up
	leaving   []*source // given up; their marks are to be committed, and the group told
	telling   bool      // Close calls a hook: who closes meanwhile does not wait for it
}

// place is a partition of a topic. A topic that was deleted and made again is another.
type place struct {
	topic     engine.TopicID
	partition int32
}

func placeOf(p *engine.Partition) place { return place{p.TopicID(), p.ID()} }

// Consumer makes a consumer. Nothing is read, and no group joined, before the
// first call of Records, Batches or Poll. It ends with Close, or with the database.
// One with a group whose partitions are assigned by hand asks for what is committed:
// while a transaction is to commit one of those offsets it waits, for a minute at
// most, and then fails with an error that matches ErrUnstableOffset.
func (db *DB) Consumer(cfg *ConsumerConfig) (*Consumer, error) {
	c := &Consumer{
		db: db, engine: db.Engine(), waiter: partition.NewWaiter(),
		calls: make(chan struct{}, 1), kick: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{}),
		through: make(chan struct{}), sources: make(map[place]*source),
	}
	if cfg != nil {
		c.cfg = *cfg
	}
	if err := c.configure(); err != nil {
		return nil, fmt.Errorf("consumer: %w", err)
	}
	c.member.id = engine.NewMemberID()
	c.life, c.die = context.WithCancel(context.Background())
	err := c.assignByHand()
	if err == nil && c.follows() {
		err = c.follow()
	}
	if err == nil {
		err = db.opened(c)
	}
	if err != nil {
		if c.unfollow != nil {
			c.unfollow()
		}
		c.die()
		return nil, fmt.Errorf("consumer: %w", err)
	}
	return c, nil
}

// configure checks the settings, reports every bad one, and fills in defaults.
func (c *Consumer) configure() error {
	cfg := &c.cfg
	var bad []error
	invalid := func(name, value, reason string) {
		bad = append(bad, &InvalidSettingError{Name: "ConsumerConfig." + name, Value: value, Reason: reason})
	}
	cfg.Topics, cfg.Assign = slices.Clone(cfg.Topics), slices.Clone(cfg.Assign)
	slices.Sort(cfg.Topics)
	cfg.Topics = slices.Compact(cfg.Topics)
	said := 0
	for _, n := range []int{len(cfg.Topics), len(cfg.Pattern), len(cfg.Assign)} {
		said += min(n, 1)
	}
	if said != 1 {
		invalid("Topics", fmt.Sprint(cfg.Topics), "say one of Topics, Pattern and Assign")
	}
	if cfg.Pattern != "" {
		var err error
		if c.match, err = regexp.Compile("^(?:" + cfg.Pattern + ")$"); err != nil {
			invalid("Pattern", cfg.Pattern, err.Error())
		}
	}
	seen := make(map[Position]bool)
	for _, p := range cfg.Assign {
		key := Position{Topic: p.Topic, Partition: p.Partition}
		if seen[key] {
			invalid("Assign", fmt.Sprintf("%s/%d", p.Topic, p.Partition), "is named twice")
		}
		seen[key] = true
		if p.Offset < OffsetCommitted || p.Offset == OffsetCommitted && cfg.Group == "" {
			invalid("Assign", strconv.FormatInt(p.Offset, 10), "is no offset to begin at")
		}
	}
	if cfg.InstanceID != "" && (cfg.Group == "" || len(cfg.Assign) > 0) {
		invalid("InstanceID", cfg.InstanceID, "is for members of a group")
	}
	positive := func(name string, d *time.Duration, def time.Duration, off bool) {
		if *d < 0 && !off {
			invalid(name, d.String(), "must not be negative")
		}
		if *d == 0 {
			*d = def
		}
	}
	positive("SessionTimeout", &cfg.SessionTimeout, 0, false)
	positive("MaxPollInterval", &cfg.MaxPollInterval, 5*time.Minute, true)
	positive("CommitInterval", &cfg.CommitInterval, time.Second, false)
	if cfg.BufferBytes < 0 {
		invalid("BufferBytes", strconv.Itoa(cfg.BufferBytes), "must not be negative")
	}
	if cfg.BufferBytes == 0 {
		cfg.BufferBytes = 16 << 20
	}
	c.auto = cfg.Group != "" && !cfg.ManualCommit
	c.logger = c.engine.Logger()
	for _, name := range cfg.Topics {
		if _, err := c.db.Topic(name); err != nil {
			bad = append(bad, err)
		}
	}
	return errors.Join(bad...)
}

// isMember says whether the group's coordinator gives us our partitions.
func (c *Consumer) isMember() bool { return c.cfg.Group != "" && len(c.cfg.Assign) == 0 }

// follows says whether we look ourselves which partitions there are.
func (c *Consumer) follows() bool { return c.cfg.Group == "" && len(c.cfg.Assign) == 0 }

func (c *Consumer) isolation() partition.Isolation {
	if c.cfg.ReadUncommitted {
		return partition.ReadUncommitted
	}
	return partition.ReadCommitted
}

// notify makes the goroutine that reads look at what changed.
func (c *Consumer) notify() {
	c.events.Store(true)
	c.waiter.Wake()
}

// prod makes the background goroutine look at what changed.
func (c *Consumer) prod() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// Close commits what is marked, leaves the group and ends a loop that runs, with
// ErrClosed. The record that the application has in hand is not marked. It may be
// called from within a loop, by the hooks, and more than once: a later call waits for
// the first, but not while that one calls OnRevoked or OnLost, which may be who calls.
func (c *Consumer) Close() error {
	if c.closeBegins() {
		defer close(c.through)
		return c.shut()
	}
	c.mu.Lock()
	telling := c.telling
	c.mu.Unlock()
	if !telling {
		<-c.through
	}
	return nil
}

// closeBegins says that nobody has closed the consumer before.
func (c *Consumer) closeBegins() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.closing
	c.closing = true // from now on it is Close that calls the hooks
	return first
}

// closeWithDB waits also for a Close that calls a hook: what is marked there is to be
// committed before the database closes.
func (c *Consumer) closeWithDB() {
	if !c.closeBegins() {
		<-c.through
		return
	}
	defer close(c.through)
	if err := c.shut(); err != nil {
		c.logger.Warn("consumer did not close cleanly", "group", c.cfg.Group, "error", err)
	}
}

func (c *Consumer) shut() error {
	ctx, cancel := c.db.patience(context.Background())
	defer cancel()
	c.mu.Lock()
	var mine []Position
	for _, s := range c.sources {
		if c.isMember() && !s.told {
			mine = append(mine, c.positionLocked(s))
		}
	}
	tell := c.cfg.OnRevoked
	if c.lost {
		tell = c.cfg.OnLost
	}
	started := c.started
	c.telling = len(mine) > 0 && tell != nil
	telling := c.telling
	c.mu.Unlock()
	c.notify()
	if telling {
		c.db.callOut(func() { tell(ctx, c, sortPositions(mine)) })
	}
	c.mu.Lock()
	c.telling, c.closed = false, true
	c.mu.Unlock()
	if c.unfollow != nil {
		c.unfollow()
	}
	c.notify()
	close(c.stop)
	if started {
		// What is under way may have asked a coordinator that nobody reaches: then commit and
		// leave are tried once more, each for as long.
		select {
		case <-c.ended:
		case <-ctx.Done():
			c.die()
			<-c.ended
			again, cancel := c.db.patience(context.Background())
			defer cancel()
			ctx = again
		}
	}
	var err error
	if c.cfg.Group != "" {
		if c.auto {
			err = c.commit(ctx)
		}
		c.leave(ctx)
	}
	c.die()
	c.sweep()
	c.db.closing(c)
	if errors.Is(err, log.ErrClosed) {
		err = nil // the database is gone, and the log below with it: it says so itself
	}
	if err != nil {
		return fmt.Errorf("close consumer: %w", err)
	}
	return nil
}

// sweep lets go of what the goroutine that reads holds, once there is none.
func (c *Consumer) sweep() {
	if !c.reading.CompareAndSwap(false, true) {
		return // it does this at its end
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sources {
		s.wait.Disarm()
		s.dropReader()
	}
	c.front = reading{}
}
