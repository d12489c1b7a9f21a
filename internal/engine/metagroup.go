package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// metaGroup is the metadata's log as a member of group 0. Its leader appends commands;
// every node applies them in order as they are committed, in one goroutine, and makes
// what is on its disk agree before it goes on with the next one.
//
//	change:  alone among changes of this node -> Lead -> all of the log is applied ->
//	         check -> append, committed -> applied here -> what apply said
type metaGroup struct {
	m      *metaLog
	engine *Engine // who asks the leader
	log    ReplicatedLog
	life   context.Context
	// act makes it so on this node, after a command was applied that held. It is called
	// by the goroutine that applies.
	act func(c *command, change SecurityChange)
	// caught is called by that goroutine, once, when all that the log held at Open has been
	// applied as far as it is committed: what an earlier run has applied is applied again.
	caught func()

	changing chan struct{} // holds a token while a command of this node is under way
	running  sync.WaitGroup

	held int64 // where the log ended at Open; the goroutine's
	done bool  // caught was called; the goroutine's, and Open's before

	mu    sync.Mutex
	next  int64         // the offset of the first record that is not applied
	shown bool          // caught has returned: until then what is applied is not to be seen on this node
	moved chan struct{} // closed when next moves on
	// results are what became of records since a change began; nil while none is under way.
	results map[int64]metaResult
	failed  error // why nothing more is applied
	stuck   error // why nothing is applied for a while, though it is tried; nil when it is
}

// metaResult is what apply said of one command.
type metaResult struct {
	firstID int64
	change  SecurityChange
	err     error
}

func newMetaGroup(m *metaLog, log ReplicatedLog, life context.Context) *metaGroup {
	return &metaGroup{m: m, log: log, life: life, changing: make(chan struct{}, 1), moved: make(chan struct{})}
}

// start joins the group and begins to apply. What lies below the high watermark has
// been replayed.
func (g *metaGroup) start() error { return g.startAt(g.m.part.HighWatermark()) }

// startAt is start with what is to be applied first.
func (g *metaGroup) startAt(next int64) error {
	g.mu.Lock()
	g.held, g.next = g.m.part.LogEnd(), next
	g.mu.Unlock()
	if err := g.log.Run(g.m.part); err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	g.checkCaught()
	g.running.Go(g.run)
	return nil
}

// stop ends the goroutine, whose life is over, and leaves the group.
func (g *metaGroup) stop() {
	g.running.Wait()
	g.log.Stop()
}

// applyPause is how long the goroutine waits after it could not read the log.
const applyPause = time.Second

// misreadError is damage that was seen in the log, once; maxMisreads is how often at one place it is looked again.
type misreadError struct{ error }

func (e *misreadError) Unwrap() error { return e.error }

const maxMisreads = 2

// maxFails is for how many tries, a second apart, those wait who want to see a change: a disk that fails for longer has them
// wait for ever.
const maxFails = 10

func misread(err error) error {
	if errors.Is(err, log.ErrCorrupt) {
		return &misreadError{err}
	}
	return err
}

func (g *metaGroup) run() {
	misreadAt, misreads := int64(-1), 0
	failsAt, fails := int64(-1), 0
	for g.life.Err() == nil {
		err := g.follow()
		var gone *partition.OffsetOutOfRangeError
		switch {
		case g.life.Err() != nil:
			return
		case errors.As(err, &gone) && gone.LogStart > g.applied():
			// What comes next is not in the log any more, here or at the leader who sent us his:
			// it begins with a snapshot, and that is the whole state.
			g.m.logger.Info("metadata goes on with a snapshot", "applied", g.applied(), "log_start", gone.LogStart)
			g.advance(gone.LogStart, nil)
			continue
		case errors.As(err, new(*misreadError)) && (g.applied() != misreadAt || misreads < maxMisreads):
			// What was seen may have been a file that was going: the group looks at the place itself, and stops if it is so.
			if at := g.applied(); at != misreadAt {
				misreadAt, misreads = at, 0
			}
			misreads++
		case errors.Is(err, log.ErrNewerFormat), errors.Is(err, log.ErrCorrupt), errors.Is(err, log.ErrClosed):
			g.m.logger.Error("metadata is not applied any more", "error", err)
			g.mu.Lock()
			g.failed = fmt.Errorf("metadata: %w", err)
			close(g.moved)
			g.moved = make(chan struct{})
			g.mu.Unlock()
			return
		}
		g.m.logger.Warn("metadata not read; tried again", "error", err)
		if at := g.applied(); at != failsAt {
			failsAt, fails = at, 0
		}
		if fails++; fails > maxFails {
			g.mu.Lock()
			g.stuck = fmt.Errorf("metadata: it cannot be read: %w", err)
			close(g.moved)
			g.moved = make(chan struct{})
			g.mu.Unlock()
		}
		select {
		case <-time.After(applyPause):
		case <-g.life.Done():
		}
	}
}

// follow applies what is committed, until the log cannot be read.
func (g *metaGroup) follow() error {
	r, err := g.m.part.ReadFrom(g.applied(), nil)
	if err != nil {
		return misread(err)
	}
	var records log.RecordReader
	for {
		batch, err := g.nextBatch(r)
		if err != nil {
			return misread(err)
		}
		for err = records.Reset(batch, 0); err == nil && records.Next(); {
			rec := records.Record()
			if rec.Offset < g.applied() {
				continue
			}
			if err := g.take(rec.Offset, rec.Value); err != nil {
				return err
			}
		}
		if err := errors.Join(err, records.Err()); err != nil {
			return err
		}
	}
}

// nextBatch waits for a batch. Whether all that the log held at first is applied is
// looked at meanwhile: a tail that is taken back moves nothing.
func (g *metaGroup) nextBatch(r *partition.Reader) (log.Batch, error) {
	for !g.done {
		if g.checkCaught(); g.done {
			break
		}
		ctx, cancel := context.WithTimeout(g.life, applyPause)
		batch, err := r.Next(ctx)
		cancel()
		if err == nil || !errors.Is(err, context.DeadlineExceeded) {
			return batch, err
		}
	}
	return r.Next(g.life)
}

func (g *metaGroup) checkCaught() {
	// What was committed is never taken back, so it lies below both ends.
	if !g.done && g.applied() >= min(g.held, g.m.part.LogEnd()) {
		g.done = true
		g.caught()
		g.mu.Lock()
		g.shown = true
		close(g.moved)
		g.moved = make(chan struct{})
		g.mu.Unlock()
	}
}

// take applies one command and makes it so on this node. Only bytes that are no
// command are an error: one that does not hold changes nothing, here as elsewhere.
func (g *metaGroup) take(offset int64, b []byte) error {
	c, err := decodeCommand(b)
	if errors.Is(err, log.ErrNewerFormat) {
		return err
	}
	if err != nil {
		return &log.CorruptionError{File: metaName, End: -1, FirstOffset: offset, EndOffset: offset + 1, Cause: err}
	}
	m := g.m
	var r metaResult
	m.mu.Lock()
	last := c.flags&snapshotLast != 0 && (c.kind == snapshotCommand || c.continuesSnapshot())
	r.firstID, r.err = m.state.apply(c)
	if r.err == nil {
		r.change = m.state.security.securityChange(c)
		if c.kind.changesSecurity() {
			m.security.Store(m.state.security.after(c.kind, m.security.Load()))
		}
	}
	m.since += len(b)
	if last && r.err == nil {
		m.since = 0
	}
	m.mu.Unlock()
	if last && r.err == nil {
		// Only whole segments are deleted: what lies before the next snapshot is to be one.
		if err := m.part.Roll(g.life); err != nil && g.life.Err() == nil {
			m.logger.Warn("the metadata's segment was not closed", "error", err)
		}
	}
	if r.err == nil {
		g.act(c, r.change)
	}
	g.advance(offset+1, &r)
	g.checkCaught()
	return nil
}

// advance says that all below next is applied. r is the last one's result.
func (g *metaGroup) advance(next int64, r *metaResult) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.results != nil && r != nil {
		g.results[next-1] = *r
	}
	g.next, g.stuck = next, nil
	close(g.moved)
	g.moved = make(chan struct{})
}

func (g *metaGroup) applied() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.next
}

// await returns when all below offset is applied on this node, and to be seen.
func (g *metaGroup) await(ctx context.Context, offset int64) error {
	for {
		g.mu.Lock()
		next, failed, moved := g.next, errors.Join(g.failed, g.stuck), g.moved
		shown := g.shown
		g.mu.Unlock()
		if next >= offset && shown {
			return nil
		}
		if failed != nil {
			return failed
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		case <-g.life.Done():
			return log.ErrClosed
		}
	}
}

// begin makes the caller the only one on this node who changes the metadata, until end.
func (g *metaGroup) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case g.changing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-g.life.Done():
		return log.ErrClosed
	}
}

func (g *metaGroup) end() { <-g.changing }

// ready returns when this node leads and the state is the newest there is. It fails
// with a *partition.NotLeaderError where it does not lead.
func (g *metaGroup) ready(ctx context.Context) error {
	if _, err := g.log.Lead(ctx); err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	return g.await(ctx, g.m.part.HighWatermark())
}

// change is metaLog.change in a cluster. An error that matches
// partition.ErrUnknownOutcome says that the command may hold, now or later. ctx is
// looked at all the time: what is in the log is applied whoever waits for it.
func (g *metaGroup) change(ctx context.Context, c *command) (r metaResult, err error) {
	if err := g.begin(ctx); err != nil {
		return r, err
	}
	defer g.end()
	return g.changeNow(ctx, c)
}

// changeNow is change for who has begun.
func (g *metaGroup) changeNow(ctx context.Context, c *command) (r metaResult, err error) {
	if err := g.ready(ctx); err != nil {
		return r, err
	}
	m := g.m
	m.mu.Lock()
	err = m.state.check(c)
	m.mu.Unlock()
	if err != nil {
		// Whoever was deposed and does not know it must not say what there is.
		if lost := g.log.Confirm(ctx); lost != nil {
			err = fmt.Errorf("metadata: %w", lost)
		}
		return r, err
	}
	if _, r, err = g.propose(ctx, c, anywhere); err != nil {
		return r, err
	}
	m.mu.Lock()
	due := m.snapshotDue()
	m.mu.Unlock()
	if due {
		if err := g.snapshot(ctx); err != nil {
			m.logger.Warn("no metadata snapshot was written", "error", err)
		}
	}
	return r, r.err
}

// propose appends a command, at an offset if one is expected, and waits until it is
// applied here.
func (g *metaGroup) propose(ctx context.Context, c *command, expect int64) (at int64, r metaResult, err error) {
	b := c.encode()
	if len(b) > maxCommandBytes {
		return at, r, &InvalidTopicError{Name: c.topic.name, Reason: fmt.Sprintf("too much for one change: %d bytes, at most %d are allowed", len(b), maxCommandBytes)}
	}
	g.mu.Lock()
	g.results = make(map[int64]metaResult)
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		g.results = nil
		g.mu.Unlock()
	}()
	if at, err = g.m.append(ctx, b, expect); err != nil {
		return at, r, err
	}
	if err := g.await(ctx, at+1); err != nil {
		// It is there for good. What it did is not known here.
		return at, r, fmt.Errorf("metadata: %w", &partition.UnknownOutcomeError{BaseOffset: at, LastOffset: at, Err: err})
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	r, ok := g.results[at]
	if !ok {
		// The log was replaced by a leader's that begins behind it.
		return at, r, fmt.Errorf("metadata: %w", &partition.UnknownOutcomeError{BaseOffset: at, LastOffset: at, Err: errors.New("it was applied as a part of a snapshot")})
	}
	return at, r, nil
}

// snapshot writes the state and lets go of what lies before it, on all nodes: the log
// start offset is replicated. Its parts follow each other or are refused, so that no
// two leaders write one snapshot together.
func (g *metaGroup) snapshot(ctx context.Context) error {
	m := g.m
	if err := m.part.Roll(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	parts := m.state.snapshot()
	m.mu.Unlock()
	start, next := int64(anywhere), g.applied()
	for _, c := range parts {
		at, r, err := g.propose(ctx, c, next)
		if err == nil {
			err = r.err
		}
		if err != nil {
			return err
		}
		if start == anywhere {
			start = at
		}
		next = at + 1
	}
	_, err := m.part.DeleteRecords(ctx, start)
	return err
}
