package partition

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog/internal/invariant"
	"github.com/x/embedlog/internal/seed"
	"github.com/x/embedlog/log"
)

// Partition is an ordered log of records: one writer at a time, which many
// callers take turns in being, and any number of readers.
//
//	log start offset   last stable offset   high watermark   log end offset
//	      |                    |                  |                |
//	------#####################*******************.................|
//	      readable by all      read uncommitted   written, not yet acknowledged
//
// All methods may be called from several goroutines.
//
// Lock order: the log's writer lock, then staging, then mu. No file is touched
// while mu is held.
type Partition struct {
	log        *log.Log
	replicator Replicator
	cfg        atomic.Pointer[Config]
	clock      clock            // what producers expire by
	now        func() time.Time // the wall clock

	highWatermark atomic.Int64
	// unstable is the first offset of the oldest transaction that holds the last
	// stable offset down; math.MaxInt64 when none does. It changes with transactions
	// only, so that an append that belongs to none has one store less to make.
	unstable atomic.Int64
	epoch    atomic.Int64 // the leader epoch that local appends get

	queue    queue
	requests sync.Pool   // of *request
	turn     sync.Locker // what who writes a group holds: the log's writer lock, or proposing
	writer   groupWriter // belongs to who holds it
	waiters  waiters

	verifying verifying

	mu        sync.Mutex // guards what follows
	state     *state
	stored    []storedEntry // replicated: what lies above the high watermark
	base      *state        // replicated: the state of what lies below the high watermark
	cuts      uint64        // replicated: how often entries were taken back or replaced
	proposing proposing     // replicated: held by who proposes

	weakNoted bool // replicated: the checkpoint says GroupState.Open; the writer's

	closed atomic.Bool
	reason atomic.Pointer[error] // why it is closed; nil is log.ErrClosed
	life   context.Context       // ends with Close
	die    context.CancelFunc
}

// Open opens the partition in dir, and makes one there if there is none. With
// Options.FS, dir is not used.
//
// It fails as log.Open does. A partition with damage below what was durable opens
// for reading: Err says so, Recovered has the place.
func Open(dir string, options *Options) (*Partition, error) {
	var o Options
	if options != nil {
		o = *options
	}
	cfg, err := o.Config.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Partition{replicator: o.Replicator, now: o.Now}
	if p.now == nil {
		p.now = time.Now
	}
	p.life, p.die = context.WithCancel(context.Background())
	p.cfg.Store(&cfg)
	p.log, err = log.Open(dir, &log.Options{
		FS: o.FS, Files: o.Files, NoLock: o.NoLock, MustExist: o.MustExist, Logger: o.Logger, Now: o.Now,
		Snapshot: p.takeSnapshot, OnSync: o.OnSync, Config: cfg.Log,
	})
	if err != nil {
		p.die()
		return nil, fmt.Errorf("open partition: %w", err)
	}
	p.turn = p.log
	if p.replicator != nil {
		p.proposing = newProposing()
		p.turn = p.proposing
		if p.commander() != nil {
			p.log.Uncap() // a log that is replicated asks before it proposes
		}
	}
	if err := p.recover(); err != nil {
		p.die()
		p.log.Close()
		return nil, fmt.Errorf("open partition: %w", err)
	}
	return p, nil
}

// takeSnapshot is what the log's checkpoint keeps for us.
func (p *Partition) takeSnapshot(dst []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == nil {
		// Recovery failed, and the log writes a checkpoint as it closes: it must not lose
		// what the next open needs.
		return append(dst, p.log.Recovered().State...)
	}
	if p.base != nil && !seed.Is(seed.SnapshotUncommitted) {
		if g := p.base.group; g != nil {
			g.Weak = p.log.Level() != log.Durable
			g.Open = g.Weak && !p.closed.Load()
		}
		return p.base.appendTo(dst)
	}
	return p.state.appendTo(dst)
}

// recover brings the state from the checkpoint's snapshot to the log's end.
func (p *Partition) recover() error {
	rec := p.log.Recovered()
	start, end := p.log.StartOffset(), p.log.EndOffset()
	s, err := decodeState(rec.State)
	if len(rec.State) == 0 || err != nil || s.end > end && s.group == nil {
		// None, or one of a longer log than there is: the records have it all.
		s = newState(start)
	}
	if s.group != nil && p.replicator == nil {
		return ErrReplicated
	}
	p.clock = newClock(s.producers.lastAppend())
	if p.replicator != nil {
		return p.recoverGroup(s)
	}
	s.deletedTo(start)
	if err := p.replay(s, end); err != nil {
		return err
	}
	return p.recovered(s)
}

// recovered ends recover: s is the state at the log's end.
func (p *Partition) recovered(s *state) error {
	s.deletedTo(p.log.StartOffset())
	p.mu.Lock()
	p.state = s
	p.mu.Unlock()
	// Entries without offsets have epochs, too, and those never fall along the log.
	p.log.Lock()
	p.epoch.Store(max(int64(s.epochs.latest()), int64(p.log.LastEpoch()), 0))
	p.log.Unlock()
	if p.replicator == nil {
		p.advance(p.log.EndOffset())
		return nil
	}
	p.base.txns.advance(p.base.end)
	p.advance(p.base.end)
	return nil
}

// replay applies the batches from s.end to end.
func (p *Partition) replay(s *state, end int64) error {
	r, err := p.log.ReadFrom(max(s.end, p.log.StartOffset()))
	if err != nil {
		return err
	}
	return p.eachEntry(r, func(e *storedEntry) error {
		if !e.data || e.next <= s.end {
			return nil
		}
		return e.apply(s)
	})
}

// eachEntry calls f for the entries from where r stands to the log's end, but for those
// whose batch does not parse.
func (p *Partition) eachEntry(r *log.Reader, f func(*storedEntry) error) error {
	r.Reuse()
	now := p.clock.now()
	for {
		fr, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if errors.Is(err, log.ErrCorrupt) {
			// The log is open for reading only. What lies behind the damage counts.
			if _, err = r.Skip(); err == nil {
				continue
			}
			if err == io.EOF {
				return nil
			}
		}
		if err != nil {
			return err
		}
		e := storedEntry{index: fr.Index, epoch: fr.Epoch, kind: fr.Kind, next: fr.NextOffset, now: now}
		if err = e.parse(fr.Payload); err == nil {
			err = f(&e)
		}
		if err != nil && !errors.Is(err, log.ErrBadBatch) {
			return err
		}
	}
}

// readMarker finds the transaction marker in a control batch.
func readMarker(batch []byte) (m marker, ok bool, err error) {
	var r log.RecordReader
	if err := r.Reset(batch, 0); err != nil {
		return m, false, err
	}
	if !r.Next() {
		return m, false, r.Err()
	}
	t, epoch, err := log.ParseControl(r.Record())
	if err != nil {
		return m, false, err
	}
	return marker{commit: t == log.ControlCommit, coordinatorEpoch: epoch}, t == log.ControlCommit || t == log.ControlAbort, nil
}

// Failed is a partition that could not be opened, because of err. It holds
// nothing; reads, appends and Err answer err. It lets the owner of many go on with
// the others.
func Failed(err error) *Partition {
	p := &Partition{now: time.Now, log: log.Failed(err)}
	p.life, p.die = context.WithCancel(context.Background())
	p.die()
	cfg, _ := Config{}.withDefaults() // the zero Config holds
	p.cfg.Store(&cfg)
	p.turn = p.log
	p.state = newState(0)
	p.clock = newClock(p.state.producers.lastAppend())
	p.advance(0)
	p.reason.Store(&err)
	p.closed.Store(true)
	p.waiters.wakeAll()
	return p
}

// CloseFor is Close that tells readers why: what waits or reads later fails with
// reason, joined with log.ErrClosed. Of a partition that is closed already it
// changes nothing.
func (p *Partition) CloseFor(reason error) error {
	reason = fmt.Errorf("%w: %w", reason, log.ErrClosed)
	p.reason.CompareAndSwap(nil, &reason)
	return p.Close()
}

// closedError is what readers of a closed partition get.
func (p *Partition) closedError() error {
	if r := p.reason.Load(); r != nil {
		return *r
	}
	return log.ErrClosed
}

// Close makes everything durable and gives the directory free. Appends that wait
// end with an error that matches log.ErrClosed, readers too.
func (p *Partition) Close() error {
	if !p.closed.CompareAndSwap(false, true) {
		return nil
	}
	p.die()
	p.waiters.wakeAll()
	return p.log.Close()
}

// Err is nil while the partition may be written. It matches log.ErrStorageFailed
// after a failed write or sync, log.ErrCorrupt when damage was found at Open, and
// log.ErrClosed.
func (p *Partition) Err() error { return p.log.Err() }

// Log is the log below, for who copies or maintains it.
func (p *Partition) Log() *log.Log { return p.log }

// LogStart is the offset of the first record there is.
func (p *Partition) LogStart() int64 { return p.log.StartOffset() }

// LogEnd is the offset that the next record gets.
func (p *Partition) LogEnd() int64 { return p.log.EndOffset() }

// HighWatermark is the offset below which records are acknowledged and readable.
func (p *Partition) HighWatermark() int64 { return p.highWatermark.Load() }

// LastStable is the offset below which every transaction has ended: readers of
// committed records read up to it.
func (p *Partition) LastStable() int64 {
	// In this order: a transaction is seen by the time its records are visible.
	hw := p.highWatermark.Load()
	stable := min(hw, p.unstable.Load())
	if seed.Is(seed.VisibleMarker) {
		stable = hw
	}
	return max(stable, min(p.log.StartOffset(), hw))
}

// Config returns the settings in force, defaults filled in.
func (p *Partition) Config() Config {
	c := *p.cfg.Load()
	c.Log = p.log.Config()
	return c
}

// SetConfig changes the settings. Appends that are under way keep the old ones.
// A change to Durable makes what was acknowledged before durable first.
func (p *Partition) SetConfig(c Config) error {
	c, err := c.withDefaults()
	if err != nil {
		return err
	}
	p.log.Lock()
	defer p.log.Unlock()
	return p.setConfig(c)
}

// setConfig puts settings in force whose defaults are filled in. Writer.
func (p *Partition) setConfig(c Config) error {
	was := p.log.Config().Level
	if err := p.log.SetConfig(c.Log); err != nil {
		return err
	}
	p.cfg.Store(&c)
	if c.Log.Level == log.Durable {
		p.weakNoted = false
	}
	if c.Log.Level == log.Durable && was != log.Durable {
		return p.log.Sync()
	}
	return nil
}

// SetLevel changes when an append is acknowledged.
func (p *Partition) SetLevel(level log.Level) error {
	p.log.Lock()
	defer p.log.Unlock()
	c := p.Config()
	c.Log.Level = level
	return p.setConfig(c)
}

// Sync returns when everything acknowledged before the call is durable. ctx is
// looked at before: a sync that has begun cannot be called back.
func (p *Partition) Sync(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return p.log.Flush()
}

// wall is the wall clock's time in milliseconds since 1970. It may jump.
func (p *Partition) wall() int64 { return p.now().UnixMilli() }

// advance moves the high watermark forward, and the last stable offset with it,
// and wakes who waits for that.
func (p *Partition) advance(hw int64) {
	p.mu.Lock()
	p.advanceLocked(hw)
	p.mu.Unlock()
	p.waiters.wake(p)
}

func (p *Partition) advanceLocked(hw int64) {
	invariant.True(hw >= p.highWatermark.Load(), "high watermark moves back: %d to %d", p.highWatermark.Load(), hw)
	invariant.True(hw <= p.log.EndOffset(), "high watermark %d is past log end %d", hw, p.log.EndOffset())
	p.state.txns.advance(hw)
	if p.unstable.Load() != p.state.txns.unstable {
		// A transaction that begins holds down before its records are visible; one that
		// ended lets go after its marker is. The bound never passes an undecided record.
		if p.state.txns.unstable < p.unstable.Load() {
			p.unstable.Store(p.state.txns.unstable)
			p.highWatermark.Store(hw)
			return
		}
		p.highWatermark.Store(hw)
		p.unstable.Store(p.state.txns.unstable)
		return
	}
	p.highWatermark.Store(hw)
}

// DeleteRecords makes offset the log start offset: records below it are gone for
// ever when it returns. It must not lie above the high watermark; -1 stands for
// that. It returns the log start offset. (DeleteRecords in Kafka's protocol.)
func (p *Partition) DeleteRecords(ctx context.Context, offset int64) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if c := p.commander(); c != nil {
		offset, err := p.checkStart(offset)
		if err == nil && offset > p.LogStart() {
			err = p.proposeStart(ctx, c, offset)
		}
		if err != nil {
			return 0, fmt.Errorf("delete records: %w", err)
		}
		return p.LogStart(), nil
	}
	p.log.Lock()
	defer p.log.Unlock()
	offset, err := p.checkStart(offset)
	if err != nil {
		return 0, fmt.Errorf("delete records: %w", err)
	}
	if err := p.log.TruncateToKeeping(offset, p.keepIndex()); err != nil {
		return 0, fmt.Errorf("delete records: %w", err)
	}
	p.movedStart()
	return p.LogStart(), nil
}

// checkStart says whether offset may become the log start offset; -1 stands for the
// high watermark.
func (p *Partition) checkStart(offset int64) (int64, error) {
	hw := p.highWatermark.Load()
	if offset == -1 {
		offset = hw
	}
	if offset < 0 || offset > hw {
		return 0, &OffsetOutOfRangeError{Offset: offset, LogStart: p.LogStart(), LogEnd: hw}
	}
	return offset, nil
}

// movedStart follows the log start offset with the state.
func (p *Partition) movedStart() {
	p.mu.Lock()
	p.state.deletedTo(p.log.StartOffset())
	if p.base != nil {
		p.base.deletedTo(p.log.StartOffset())
	}
	p.mu.Unlock()
	p.waiters.wake(p)
}

// ExpireProducers forgets producers that have written nothing for longer than
// Config.ProducerExpiry, and returns how many. Somebody calls it now and then.
func (p *Partition) ExpireProducers() int {
	p.log.Lock()
	defer p.log.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	now, ttl := p.clock.now(), p.cfg.Load().ProducerExpiry
	if p.base != nil {
		p.base.producers.expire(now, ttl)
	}
	return p.state.producers.expire(now, ttl)
}

// Producers lists what is known of each producer id. (DescribeProducers)
func (p *Partition) Producers() []ProducerState {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state.producerStates()
}

// ProducerState returns what is known of one producer id. ok is false when nothing is.
func (p *Partition) ProducerState(id int64) (s ProducerState, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.state.producers[id]
	if known == nil {
		return ProducerState{ProducerID: id}, false
	}
	return known.describe(), true
}

// EpochEnd answers where a leader epoch ended: the largest epoch that is not above
// the one asked for, and the offset behind its last record. Epoch and offset are
// -1 where nothing is known. A reader or replica whose log goes on past that
// offset under that epoch has diverged (KIP-101, KIP-279).
func (p *Partition) EpochEnd(epoch int32) (found int32, end int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state.epochs.endOffset(epoch, p.log.EndOffset())
}

// EpochOf returns the leader epoch of the record at offset. ok is false where it
// is not known.
func (p *Partition) EpochOf(offset int64) (epoch int32, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state.epochs.epochFor(offset)
}

// LeaderEpoch is the epoch that appends get now.
func (p *Partition) LeaderEpoch() int32 { return int32(p.epoch.Load()) }

// SetLeaderEpoch makes later appends carry a newer epoch. It never falls.
func (p *Partition) SetLeaderEpoch(epoch int32) error {
	p.log.Lock()
	defer p.log.Unlock()
	if now := p.epoch.Load(); int64(epoch) < now || epoch < 0 || epoch == math.MaxInt32 {
		return fmt.Errorf("leader epoch %d: the current one is %d: %w", epoch, now, ErrFenced)
	}
	p.epoch.Store(int64(epoch))
	return nil
}

// OffsetForTime returns the first visible record whose timestamp is ms or later,
// in milliseconds since 1970. ok is false when there is none.
func (p *Partition) OffsetForTime(ms int64) (found log.TimePosition, ok bool, err error) {
	if p.closed.Load() {
		return found, false, p.closedError()
	}
	found, ok, err = p.log.OffsetForTime(ms)
	if found.Offset >= p.HighWatermark() {
		return log.TimePosition{}, false, err
	}
	return found, ok, err
}

// Recovered says what Open found.
func (p *Partition) Recovered() log.Recovered { return p.log.Recovered() }
