package engine

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// diskCap bounds what the database takes on the disk (Options.MaxBytes). The bound
// itself is kept by a vfs.Quota below every file, so it holds at every moment and
// whoever grows; what is here makes room.
//
//	|-------------- ordinary topics --------------|-- internal topics --|-- checkpoints, metadata --|
//	                                   |-headroom-|
//
// When less than the headroom is left for ordinary topics the oldest segments go, in
// the background; an append that finds no room makes some itself and tries again.
// Deleting needs room for a checkpoint, which is why some is kept back.
//
// Nobody holds a lock of a partition while he evicts: that takes the writer's lock
// of other partitions.
type diskCap struct {
	e        *Engine
	quota    *vfs.Quota
	headroom int64
	turn     chan struct{} // holds a token while somebody evicts
}

// MinMaxBytes is the smallest cap of a database.
const MinMaxBytes = 4 << 20

// The parts of a cap, in bytes: what is kept back from ordinary topics, what is kept
// free ahead of need, and how large a segment becomes where the topic does not say.
func capSpare(limit int64) int64    { return clamp(limit/16, 256<<10, 64<<20) }
func capHeadroom(limit int64) int64 { return clamp(limit/64, 64<<10, 16<<20) }
func capSegment(limit int64) int64  { return clamp(limit/32, 64<<10, 1<<30) }

func clamp(n, least, most int64) int64 { return max(least, min(n, most)) }

// replicationPrefix is what the names of files begin with that replication keeps beside the logs.
const replicationPrefix = "raft."

// newDiskCap counts what is in fsys and bounds it. It is nil without a cap, and its
// methods hold for nil.
func newDiskCap(e *Engine, fsys vfs.FS, limit int64) (*diskCap, error) {
	if limit == 0 {
		return nil, nil
	}
	if limit < MinMaxBytes {
		return nil, fmt.Errorf("MaxBytes is %d: must be 0, which is no cap, or at least %d", limit, MinMaxBytes)
	}
	// The log moves its start by a checkpoint, and nothing can be deleted without. In a cluster that takes a leader,
	// and a leader takes votes that are durable.
	q, err := vfs.NewQuota(fsys, limit, capSpare(limit), func(name string) bool {
		return log.Essential(name) || strings.HasPrefix(path.Base(name), replicationPrefix)
	})
	if err != nil {
		return nil, err
	}
	c := &diskCap{e: e, quota: q, headroom: capHeadroom(limit), turn: make(chan struct{}, 1)}
	q.OnLow(c.headroom, func() { signal(e.cleaner.low) })
	return c, nil
}

// use is the cap and how much of it is taken.
func (c *diskCap) use() (limit, used int64) {
	if c == nil {
		return 0, 0
	}
	return c.quota.Limit(), c.quota.Used()
}

// view is the file system for somebody of a class; fsys where there is no cap.
func (c *diskCap) view(fsys vfs.FS, class vfs.QuotaClass) (vfs.FS, *space) {
	if c == nil {
		return fsys, &space{base: class}
	}
	v := c.quota.View(class)
	return v, &space{base: class, view: v}
}

// space is the class of a partition's files, which can be raised for a time.
type space struct {
	base vfs.QuotaClass
	view *vfs.QuotaView // nil without a cap

	mu   sync.Mutex
	held [vfs.QuotaEssential + 1]int
}

// raise makes the class at least c until lower is called.
func (s *space) raise(c vfs.QuotaClass) (lower func()) {
	s.change(c, 1)
	return func() { s.change(c, -1) }
}

func (s *space) change(c vfs.QuotaClass, by int) {
	if s.view == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[c] += by
	class := s.base
	for c := s.base; c <= vfs.QuotaEssential; c++ {
		if s.held[c] > 0 {
			class = c
		}
	}
	s.view.SetClass(class)
}

// SetMaxBytes changes the cap of a database that was opened with one. When more is
// taken already, nothing grows until enough was deleted.
func (e *Engine) SetMaxBytes(limit int64) error {
	if e.cap == nil || limit < MinMaxBytes {
		return fmt.Errorf("MaxBytes %d: a cap is set when the database is opened, and at least %d", limit, MinMaxBytes)
	}
	e.cap.quota.SetLimit(limit, capSpare(limit))
	signal(e.cleaner.low)
	return nil
}

// evictAhead keeps the headroom free, as far as anything may go.
func (c *diskCap) evictAhead(ctx context.Context) {
	if c != nil && c.quota.Room(vfs.QuotaOrdinary) < c.headroom {
		c.evict(ctx, 2*c.headroom)
	}
}

// makeRoom deletes what may go when an append found no room, and says whether it is
// worth trying again.
func (e *Engine) makeRoom(ctx context.Context, p *Partition, err error) bool {
	var own *log.CapError
	var all *vfs.QuotaError
	switch {
	case errors.As(err, &own):
		return e.makeRoomIn(ctx, p, own)
	case errors.As(err, &all) && p.space.base == vfs.QuotaInternal:
		// It may take more than others, and has taken it. It can only become smaller.
		return e.cleaner.compactForRoom(ctx, p)
	case errors.As(err, &all) && all.Wanted < all.Limit/2:
		return e.cap.evict(ctx, all.Wanted+e.cap.headroom)
	}
	return false // the disk itself is full: what others take is not ours to make up for
}

// makeRoomIn makes room in a partition with a cap of its own.
func (e *Engine) makeRoomIn(ctx context.Context, p *Partition, full *log.CapError) bool {
	t, err := e.TopicByID(p.topicID)
	if err != nil || !t.settings.Evicts() || full.Wanted > full.Limit/2 {
		return false
	}
	deleted, freed, err := p.Retain(ctx, log.RetentionPolicy{Room: full.Wanted})
	e.cleaner.evicted(p, deleted, freed)
	if err != nil {
		e.cleaner.failed(ctx, p, "eviction", err)
	}
	return deleted > 0
}

// evict deletes the oldest data that may go until so much room is there for ordinary
// topics. It says whether there is more room now than before, or enough.
func (c *diskCap) evict(ctx context.Context, room int64) bool {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-c.turn }()
	failed := make(map[*Partition]bool)
	progress := false
	lacks := func() bool { return c.quota.Room(vfs.QuotaOrdinary) < room }
	if lacks() {
		progress = c.giveBack(ctx)
	}
	patience := time.NewTimer(maxHeldWait)
	defer patience.Stop()
	patient := true
	for ctx.Err() == nil && lacks() {
		if c.quota.Room(vfs.QuotaOrdinary)+c.quota.Held() >= room && patient {
			// Somebody still has files open that are gone already. Data is not deleted for
			// him, as long as he does not take for ever.
			select {
			case <-c.quota.Released():
				progress = true
				continue
			case <-ctx.Done():
				return progress
			case <-patience.C:
				patient = false
			}
		}
		p := c.oldest(failed)
		if p == nil {
			return progress
		}
		deleted, err := c.evictFrom(ctx, p)
		if err != nil {
			c.e.cleaner.failed(ctx, p, "eviction", err)
		}
		if deleted == 0 {
			failed[p] = true
			continue
		}
		progress = true
	}
	return true
}

// maxHeldWait is how long eviction waits for readers of what it deleted.
const maxHeldWait = time.Second

// giveBack takes from all partitions what they laid ahead of need: before data goes.
func (c *diskCap) giveBack(ctx context.Context) (some bool) {
	c.e.cleaner.eachPartition(ctx, func(_ *Topic, p *Partition) {
		l := p.Log()
		if l.AheadBytes() < minGiveBack {
			return
		}
		l.Lock()
		defer l.Unlock()
		if err := l.GiveBack(); err != nil {
			c.e.cleaner.failed(ctx, p, "giving back", err)
			return
		}
		some = true
	})
	return some
}

// minGiveBack is what is worth a writer's lock and a truncation.
const minGiveBack = 32 << 10

// oldest finds the partition whose first segment is to go next: a closed one before
// one that is being written to, then by the largest timestamp, then by name.
func (c *diskCap) oldest(except map[*Partition]bool) (best *Partition) {
	var of log.OldestSegment
	for _, t := range c.e.Topics() {
		if !t.settings.Evicts() {
			continue
		}
		for _, p := range t.partitions {
			if except[p] || p.Err() != nil || !p.Leads() { // what goes is decided by the leader
				continue
			}
			s, err := p.Log().Oldest()
			if err != nil || s.EndOffset <= s.BaseOffset || s.Active && p.LogStart() >= s.EndOffset {
				continue // there is nothing in it
			}
			if best == nil || of.Active && !s.Active || of.Active == s.Active && s.MaxTimestamp < of.MaxTimestamp {
				best, of = p, s
			}
		}
	}
	return best
}

// evictFrom deletes the first segment of a partition. One that is written to is
// closed first, in the room that is kept for it.
func (c *diskCap) evictFrom(ctx context.Context, p *Partition) (deleted int, err error) {
	s, err := p.Log().Oldest()
	if err != nil {
		return 0, err
	}
	if s.Active {
		defer p.space.raise(vfs.QuotaEssential)()
		if err := p.Roll(ctx); err != nil {
			return 0, err
		}
	}
	// All of it may go, and nothing behind it.
	deleted, freed, err := p.Retain(ctx, log.RetentionPolicy{Upto: s.EndOffset, Bytes: 1, Room: 1})
	c.e.cleaner.evicted(p, deleted, freed)
	return deleted, err
}

// evicted counts what went before its time.
func (c *cleaner) evicted(p *Partition, segments int, bytes int64) {
	if segments == 0 {
		return
	}
	c.count(func(s *MaintenanceStats) { s.EvictedSegments += int64(segments); s.EvictedBytes += bytes })
	c.e.logger.Info("segments deleted for room", "partition", p.String(), "segments", segments, "bytes", bytes, "log_start", p.LogStart())
}

// evictions is how often an append makes room and tries again: others may take what
// it made.
const evictions = 16

// appendAgain is what an append that failed comes to. What it tried is tried again
// as long as room can be made for it.
func (p *Partition) appendAgain(ctx context.Context, err error, again func() (partition.Result, error)) (partition.Result, error) {
	e := p.engine
	for range evictions {
		if !errors.Is(err, log.ErrNoSpace) || errors.Is(err, partition.ErrUnknownOutcome) || !e.makeRoom(ctx, p, err) {
			break
		}
		var res partition.Result
		if res, err = again(); err == nil {
			return res, nil
		}
	}
	var full *vfs.QuotaError
	if errors.As(err, &full) {
		limit, used := e.cap.use()
		err = fmt.Errorf("the database's cap, MaxBytes %d, is reached with %d bytes: %w", limit, used, err)
	}
	if errors.Is(err, log.ErrNoSpace) {
		e.cleaner.count(func(s *MaintenanceStats) { s.RefusedAppends++ })
	}
	if cause := ctx.Err(); cause != nil && errors.Is(err, partition.ErrNotLeader) && p.engine.cluster != nil {
		err = fmt.Errorf("%w (%v)", cause, err) // there was no time left to look for the leader
	}
	return partition.Result{}, p.failed("append", err)
}
