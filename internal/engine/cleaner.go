package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// cleaner deletes and compacts by the topics' settings, one partition at a time. It
// has a goroutine of its own, because a compaction may take minutes and a tick must
// not. Rounds come by the engine's clock; what a round deletes does not: a segment
// must also have been closed for as long by the log's running time, so that a clock
// that jumps deletes nothing (log.RetentionPolicy).
type cleaner struct {
	e       *Engine
	turn    chan struct{} // holds a token while a round or a compaction that was asked for runs
	due     chan struct{} // a round
	low     chan struct{} // room
	running sync.WaitGroup

	// horizons tells when the next tombstone or marker of a partition may go, in
	// milliseconds since 1970. Who holds the turn.
	horizons map[*Partition]int64
	// forced is where the log of an internal partition ended when it was compacted for
	// want of room. Who holds the turn.
	forced map[*Partition]int64

	mu    sync.Mutex
	stats MaintenanceStats
}

// MaintenanceStats are the counters of what the engine did by itself since it was
// opened, and how full it is.
type MaintenanceStats struct {
	Rounds   int64 // of retention and compaction
	Failures int64 // partitions that could not be cleaned, each time

	RetainedSegments, RetainedBytes int64 // deleted by retention

	Compactions                               int64
	CompactedBytesBefore, CompactedBytesAfter int64
	CompactedRecordsRead, CompactedRecordsNow int64
	CompactionTime                            time.Duration

	EvictedSegments, EvictedBytes int64 // deleted before their time, for room
	RefusedAppends                int64 // for want of room, when nothing could be evicted

	ExpiredProducers int64

	// MaxBytes is the cap of the database, 0 for none; UsedBytes what it takes of it.
	MaxBytes, UsedBytes int64
}

func newCleaner(e *Engine) *cleaner {
	return &cleaner{
		e: e, turn: make(chan struct{}, 1), due: make(chan struct{}, 1), low: make(chan struct{}, 1),
		horizons: make(map[*Partition]int64), forced: make(map[*Partition]int64),
	}
}

// start begins the goroutine, unless the engine does nothing by itself.
func (c *cleaner) start() {
	if c.e.options.MaintenanceInterval < 0 {
		return
	}
	c.running.Go(func() {
		for {
			select {
			case <-c.due:
				c.round(c.e.life)
			case <-c.low:
				c.e.cap.evictAhead(c.e.life)
			case <-c.e.life.Done():
				return
			}
		}
	})
}

// signal puts a token into a channel that holds one.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// count changes the counters.
func (c *cleaner) count(f func(s *MaintenanceStats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.stats)
}

// MaintenanceStats returns the counters of retention, compaction and eviction.
func (e *Engine) MaintenanceStats() (s MaintenanceStats) {
	e.cleaner.count(func(now *MaintenanceStats) { s = *now })
	s.MaxBytes, s.UsedBytes = e.cap.use()
	return s
}

// take waits for the turn. The context that it returns ends with the engine, too.
func (c *cleaner) take(ctx context.Context) (context.Context, func(), error) {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	case <-c.e.life.Done():
		return nil, nil, log.ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(c.e.life, cancel)
	return ctx, func() {
		stop()
		cancel()
		<-c.turn
	}, nil
}

// failed notes that a partition could not be cleaned. A partition that was closed,
// or a round that was, is no failure.
func (c *cleaner) failed(ctx context.Context, p *Partition, what string, err error) {
	if ctx.Err() != nil || errors.Is(err, log.ErrClosed) {
		return
	}
	c.count(func(s *MaintenanceStats) { s.Failures++ })
	c.e.logger.Warn("partition not cleaned", "partition", p.String(), "step", what, "error", err)
}

// eachPartition calls f for every partition that can be written, in the order of names.
func (c *cleaner) eachPartition(ctx context.Context, f func(t *Topic, p *Partition)) {
	for _, t := range c.e.Topics() {
		for _, p := range t.partitions {
			if ctx.Err() != nil {
				return
			}
			if p.Err() == nil { // one that was damaged has said so when it was opened
				f(t, p)
			}
		}
	}
}

// round is one look at everything.
func (c *cleaner) round(ctx context.Context) {
	ctx, done, err := c.take(ctx)
	if err != nil {
		return
	}
	defer done()
	now := c.e.now()
	c.eachPartition(ctx, func(t *Topic, p *Partition) {
		if err := c.retain(ctx, t.settings, p, now); err != nil {
			c.failed(ctx, p, "retention", err)
		}
		if n := p.ExpireProducers(); n > 0 {
			c.count(func(s *MaintenanceStats) { s.ExpiredProducers += int64(n) })
		}
	})
	c.e.cap.evictAhead(ctx)
	c.compactDue(ctx, now)
	c.count(func(s *MaintenanceStats) { s.Rounds++ })
}

// retain deletes what the topic's settings let go.
func (c *cleaner) retain(ctx context.Context, s Settings, p *Partition, now time.Time) error {
	if !s.Deletes() {
		return nil
	}
	policy := log.RetentionPolicy{Now: now}
	if age := s.Retention(); age >= 0 {
		policy.Age = max(age, time.Millisecond) // there 0 is never
	}
	if bytes := s.RetentionBytes(); bytes >= 0 {
		policy.Bytes = max(bytes, 1)
	}
	var deleted int
	var freed int64
	var err error
	if p.Leads() { // followers delete what the leader says: the log start offset is replicated
		deleted, freed, err = p.Retain(ctx, policy)
	}
	if errors.Is(err, partition.ErrNotLeader) {
		err = nil // not any more
	}
	if deleted > 0 {
		c.count(func(s *MaintenanceStats) { s.RetainedSegments += int64(deleted); s.RetainedBytes += freed })
		c.e.logger.Debug("segments deleted", "partition", p.String(), "segments", deleted, "bytes", freed, "log_start", p.LogStart())
	}
	if err == nil && policy.Age > 0 {
		err = c.rollExpired(ctx, p, now.Add(-policy.Age))
	}
	return err
}

// rollExpired closes the active segment of a partition that nobody writes to any
// more when all it holds is older than before: only closed segments are deleted.
func (c *cleaner) rollExpired(ctx context.Context, p *Partition, before time.Time) error {
	oldest, err := p.Log().Oldest()
	if err != nil || !oldest.Active || oldest.EndOffset == oldest.BaseOffset || oldest.MaxTimestamp >= before.UnixMilli() {
		return err
	}
	return p.Roll(ctx)
}

// compaction is a partition that should be compacted.
type compaction struct {
	p        *Partition
	settings Settings
	ratio    float64 // of its closed bytes that are dirty
	again    bool    // only for tombstones whose time is over
}

// compactDue compacts what is worth it, the dirtiest first.
func (c *cleaner) compactDue(ctx context.Context, now time.Time) {
	var list []compaction
	seen := make(map[*Partition]int64)
	c.eachPartition(ctx, func(t *Topic, p *Partition) {
		if !t.settings.Compacts() {
			return
		}
		horizon, known := c.horizons[p]
		if known {
			seen[p] = horizon
		}
		st, err := p.CompactionState()
		if err != nil {
			c.failed(ctx, p, "compaction", err)
			return
		}
		todo := compaction{p: p, settings: t.settings, ratio: float64(st.DirtyBytes) / float64(max(st.DirtyBytes+st.CleanBytes, 1))}
		late := st.DirtyBytes > 0 && st.OldestDirty >= 0 && olderThan(st.OldestDirty, now, t.settings.MaxCompactionLag())
		todo.again = known && now.UnixMilli() >= horizon
		if todo.ratio > t.settings.MinDirtyRatio() || late || todo.again {
			list = append(list, todo)
		}
	})
	c.horizons = seen // those of partitions that are gone are forgotten
	slices.SortStableFunc(list, func(a, b compaction) int { return cmp.Compare(b.ratio, a.ratio) })
	for _, todo := range list {
		if ctx.Err() != nil {
			return
		}
		if _, err := c.compact(ctx, todo); err != nil && !errors.Is(err, log.ErrHeld) { // while it is being copied: the next time
			c.failed(ctx, todo.p, "compaction", err)
		}
	}
}

// olderThan says whether a timestamp in milliseconds lies further back than age,
// which may be the largest duration there is.
func olderThan(ms int64, now time.Time, age time.Duration) bool {
	return now.UnixMilli()-ms > age.Milliseconds()
}

// compact compacts one partition. Who holds the turn.
func (c *cleaner) compact(ctx context.Context, todo compaction) (log.CompactReport, error) {
	p, s := todo.p, todo.settings
	defer p.space.raise(compactionClass(p))()
	began := time.Now()
	// A marker must not go in the call that gave it its horizon: readers have to be
	// told first that its transaction is forgotten (partition.Compact).
	retention := max(s.DeleteRetention(), time.Millisecond)
	report, err := p.Compact(ctx, log.CompactPolicy{
		Now: c.e.now(), MinAge: s.MinCompactionLag(), DeleteRetention: retention, Again: todo.again,
	})
	delete(c.horizons, p)
	if report.NextHorizon > 0 {
		c.horizons[p] = report.NextHorizon
	}
	if report.Rounds > 0 {
		took := time.Since(began)
		c.count(func(s *MaintenanceStats) {
			s.Compactions++
			s.CompactedBytesBefore += report.BytesBefore
			s.CompactedBytesAfter += report.BytesNow
			s.CompactedRecordsRead += report.RecordsRead
			s.CompactedRecordsNow += report.RecordsKept
			s.CompactionTime += took
		})
		c.e.logger.Debug("partition compacted", "partition", p.String(), "before", report.BytesBefore, "after", report.BytesNow, "took", took)
	}
	return report, err
}

// compactionClass is what a partition may take while it is compacted: what that
// writes it gives back with interest. Internal topics have no other way to become smaller.
func compactionClass(p *Partition) vfs.QuotaClass {
	if p.space.base == vfs.QuotaInternal {
		return vfs.QuotaEssential
	}
	return vfs.QuotaInternal
}

// compactForRoom compacts an internal partition that found no room, and says whether
// there is more now. It does not wait for another cleaning, which may take minutes,
// and not for every append that fails: a few records more are not worth it.
func (c *cleaner) compactForRoom(ctx context.Context, p *Partition) bool {
	t, err := c.e.TopicByID(p.topicID)
	if err != nil || !t.settings.Compacts() {
		return false
	}
	select {
	case c.turn <- struct{}{}:
	default:
		return false
	}
	defer func() { <-c.turn }()
	if last, ok := c.forced[p]; ok && p.LogEnd()-last < minForced {
		return false
	}
	c.forced[p] = p.LogEnd()
	report, err := c.compactWhole(ctx, t.settings, p)
	if err != nil {
		c.failed(ctx, p, "compaction for room", err)
	}
	return report.BytesNow < report.BytesBefore
}

// minForced is how many records must have been appended since an internal partition
// was last compacted for want of room.
const minForced = 64

// CompactTopic compacts every partition of a topic up to its last stable offset,
// however little is dirty, and waits for it. min.compaction.lag.ms and
// delete.retention.ms hold as ever. It fails with an *InvalidTopicError when the
// topic's cleanup.policy is without compact; a partition that fails does not keep
// the others from it, and the errors are joined.
func (e *Engine) CompactTopic(ctx context.Context, name string) (sum log.CompactReport, err error) {
	t, err := e.Topic(name)
	if err != nil {
		return sum, fmt.Errorf("compact topic %s: %w", name, err)
	}
	if !t.settings.Compacts() {
		return sum, fmt.Errorf("compact topic %s: %w", name, &InvalidTopicError{Name: name, Reason: "its " + settingCleanup + " is without compact"})
	}
	ctx, done, err := e.cleaner.take(ctx)
	if err != nil {
		return sum, fmt.Errorf("compact topic %s: %w", name, err)
	}
	defer done()
	var errs []error
	for _, p := range t.partitions {
		if p.elsewhere {
			continue // whoever has it compacts it
		}
		report, err := e.cleaner.compactWhole(ctx, t.settings, p)
		if err != nil {
			errs = append(errs, p.failed("compact", err))
		}
		sum.Rounds += report.Rounds
		sum.SegmentsBefore += report.SegmentsBefore
		sum.SegmentsNow += report.SegmentsNow
		sum.BytesBefore += report.BytesBefore
		sum.BytesNow += report.BytesNow
		sum.RecordsRead += report.RecordsRead
		sum.RecordsKept += report.RecordsKept
		sum.BadBatches += report.BadBatches
	}
	return sum, errors.Join(errs...)
}

// compactWhole compacts a partition together with what its active segment holds.
func (c *cleaner) compactWhole(ctx context.Context, s Settings, p *Partition) (log.CompactReport, error) {
	if err := p.Err(); err != nil {
		return log.CompactReport{}, err
	}
	defer p.space.raise(compactionClass(p))()
	if err := p.Roll(ctx); err != nil {
		return log.CompactReport{}, err
	}
	return c.compact(ctx, compaction{p: p, settings: s, again: true})
}
