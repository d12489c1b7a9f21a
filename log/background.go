package log

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// background is the work that follows the writer: syncing behind it, flushing
// indexes, writing checkpoints, settling when it has gone quiet. There is no
// goroutine while there is nothing to do: a timer runs while there was an append
// since the last time, and a job when enough was written.
type background struct {
	l *Log

	// safe is how many of the bytes written since open are synced, indexed and
	// checkpointed: what lies above is what the next open must read.
	safe atomic.Int64

	armed atomic.Bool  // the timer runs
	clock atomic.Int64 // milliseconds since 1970 when it last did something

	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
	ticking bool // the timer's function runs, and sets the timer itself
	job     *job
	running sync.WaitGroup
	seen    int64         // written at the last tick
	quiet   time.Duration // for how long it has been that
}

// job is one run of the work that keeps the part that open must read short.
type job struct {
	done chan struct{}
	err  error
}

// jobBytes is how much is written between two jobs. Tests lower it.
var jobBytes int64 = 14 << 20

// idleAfter is how long a log must be quiet to be settled.
const idleAfter = time.Second

func (b *background) init(l *Log) { b.l = l }

// wrote is called after each group. Writer.
func (b *background) wrote() {
	if !b.armed.Load() {
		b.arm()
	}
	if b.l.w.written-b.safe.Load() >= jobBytes {
		b.start()
	}
}

// written is how many bytes of frames were written since open. It follows from
// what readers see anyway, so that an append has one store less to publish.
func (l *Log) written() int64 {
	segs := *l.segs.Load()
	s := segs[len(segs)-1]
	return s.before + s.end.Load()
}

func (b *background) arm() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped || b.armed.Load() {
		return
	}
	b.armed.Store(true)
	b.seen, b.quiet = -1, 0
	b.clock.Store(b.l.now().UnixMilli())
	if b.timer == nil {
		b.timer = time.AfterFunc(b.period(), b.tick)
	} else {
		b.timer.Reset(b.period())
	}
}

// retime makes a changed interval count from now on.
func (b *background) retime() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.stopped && b.armed.Load() && !b.ticking {
		b.timer.Reset(b.period())
	}
}

// now is the wall clock in milliseconds since 1970, at most a second late: asking
// for it costs a fifth of an append.
func (b *background) now() int64 {
	if b.armed.Load() {
		return b.clock.Load()
	}
	return b.l.now().UnixMilli()
}

func (b *background) period() time.Duration {
	if cfg := b.l.cfg.Load(); cfg.Level == Interval {
		return min(cfg.SyncInterval, idleAfter)
	}
	return idleAfter
}

// tick syncs what the interval is over for, and settles the log when nothing was
// written for a second.
func (b *background) tick() {
	b.mu.Lock()
	if b.stopped || b.ticking {
		// A retimed timer may fire while the tick before it runs, which sets it again.
		b.mu.Unlock()
		return
	}
	b.running.Add(1)
	defer b.running.Done()
	b.ticking = true
	period := b.period()
	b.mu.Unlock()
	b.look(period)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ticking = false
	if b.armed.Load() && !b.stopped { // or again: an append may have come since the log was settled
		b.timer.Reset(b.period())
	}
}

// look is what a tick does. When the log is settled it needs none until something
// is written.
func (b *background) look(period time.Duration) {
	l := b.l
	b.clock.Store(l.now().UnixMilli())
	if l.cfg.Load().Level == Interval {
		l.syncData() // a failure is noted in l.failed, and every later append returns it
	}
	written := l.written()
	if written != b.seen {
		b.seen, b.quiet = written, 0
	} else {
		b.quiet += period
	}
	if b.quiet < idleAfter || !l.syncing.TryLock() {
		return // a sync that does not end is not waited for with the writer's lock
	}
	l.syncing.Unlock()
	if l.TryLock() {
		quiet := l.w.written == written
		defer l.Unlock()
		if quiet {
			l.settleIdle()
			b.armed.Store(false)
		}
	}
}

// settleIdle syncs data and the mark behind it, and gives back the memory that
// only a writer needs. Writer.
func (l *Log) settleIdle() {
	w := &l.w
	w.runway.drop()
	w.group, w.marks = group{}, nil
	if l.syncData() != nil {
		return
	}
	l.mark()
	if w.marked == w.pos {
		if err := l.datasync(w.seg); err != nil {
			l.fail("sync "+w.seg.name, err)
			return
		}
	}
	for _, s := range *l.segs.Load() {
		if err := s.index.flush(s.durable.Load(), false); err != nil {
			l.logger.Warn("index not written; it will be rebuilt", "segment", s.name, "error", err)
		}
	}
}

// start begins a job unless one is running. Writer.
func (b *background) start() *job {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.job != nil || b.stopped {
		return b.job
	}
	j := &job{done: make(chan struct{})}
	b.job = j
	written, c := b.l.w.written, b.l.takeCheckpoint()
	b.running.Add(1)
	go func() {
		defer b.running.Done()
		j.err = b.l.catchUp(c)
		if j.err == nil {
			b.safe.Store(written)
		}
		b.mu.Lock()
		b.job = nil
		b.mu.Unlock()
		close(j.done)
	}()
	return j
}

// quiesce waits for the job that runs. None begins while the caller keeps the
// writer's lock.
func (b *background) quiesce() {
	b.mu.Lock()
	j := b.job
	b.mu.Unlock()
	if j != nil {
		<-j.done
	}
}

func (b *background) stop() {
	b.mu.Lock()
	b.stopped = true
	if b.timer != nil {
		b.timer.Stop()
	}
	b.mu.Unlock()
	b.running.Wait()
}

// catchUp makes everything up to when c was taken cheap to open: synced, indexed,
// checkpointed.
func (l *Log) catchUp(c *checkpoint) error {
	if err := l.syncData(); err != nil {
		return err
	}
	if err := l.keepReserve(); err != nil {
		// What little room there is belongs to deletion, which needs it for a checkpoint.
		return fmt.Errorf("indexes not written: %w", err)
	}
	segs := *l.segs.Load()
	for i, s := range segs {
		// A segment that was closed while the sync ran is not wholly durable yet: an entry
		// that leads behind a hole would make the next open begin there.
		durable := s.durable.Load()
		sealed := i < len(segs)-1 && durable >= s.end.Load()
		if sealed && s.settled.Load() {
			continue
		}
		if err := s.index.flush(durable, true); err != nil {
			l.logger.Warn("index not written", "segment", s.name, "error", err)
			return err
		}
		if sealed {
			if err := s.trim(); err != nil {
				l.logger.Warn("segment not trimmed", "segment", s.name, "error", err)
				return err
			}
			s.settled.Store(true)
		}
	}
	l.mu.Lock()
	c.durableBase, c.durablePos = l.durable.base, l.durable.pos
	l.mu.Unlock()
	if err := l.writeCheckpoint(c); err != nil {
		l.logger.Warn("checkpoint not written", "error", err)
		return err
	}
	return nil
}

// trim gives the zeros behind a sealed segment's last frame back to the disk.
func (s *segment) trim() error {
	f, err := s.handle.acquire()
	if err != nil {
		return err
	}
	defer s.handle.release()
	if err := f.Truncate(s.end.Load()); err != nil {
		return err
	}
	info, err := f.Info()
	if err == nil {
		s.allocated.Store(info.Allocated)
	}
	return err
}

// makeRoom waits until n more bytes keep what the next open must read within
// MaxUnsyncedBytes. Writer.
func (l *Log) makeRoom(n int64) error {
	b := &l.bg
	for l.w.written+n-b.safe.Load() > MaxUnsyncedBytes && l.w.written > b.safe.Load() {
		j := b.start()
		if j == nil {
			return ErrClosed
		}
		<-j.done
		if j.err != nil {
			if err := l.Err(); err != nil {
				return err
			}
			return j.err
		}
	}
	return nil
}
