package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// ShareRequest asks for records of one partition for a member of a share group.
type ShareRequest struct {
	Group, MemberID string
	Topic           TopicID
	Partition       int32
	// MaxBytes bounds the batches together, but for the first one. Zero means 1 MiB.
	MaxBytes int
	// MaxRecords bounds the records. Zero means 500. Without Strict the batch in which it
	// is reached is acquired whole, if it is not too large, so that members do not share one.
	MaxRecords int
	Strict     bool
}

// AcquiredRecords are offsets, First to Last, that a member has acquired. There is a
// record at each.
type AcquiredRecords struct {
	First, Last   int64
	DeliveryCount int16 // this one included
}

// ShareResult is what a member has acquired.
type ShareResult struct {
	// Batches are whole record batches, in the order of their offsets, that hold what was
	// acquired and perhaps more. They stay valid as long as they are held.
	Batches  [][]byte
	Acquired []AcquiredRecords // ascending
	// LockTimeout is how long the records are the member's.
	LockTimeout time.Duration
}

const (
	defaultShareRecords = 500
	// shareRounds bounds how often one request looks on when all it comes upon are
	// offsets without records.
	shareRounds = 100
)

// Acquire gives records to a member that nobody else has: for the group's lock duration,
// or until they are acknowledged. What is to be had is looked for once: see Await. Nothing is
// written, but for the place where the group begins in a partition that it has not read.
//
// It fails with ErrUnknownGroup when there is no such share group, with ErrUnknownTopic
// or ErrUnknownPartition, and as reading does.
func (s *Shares) Acquire(ctx context.Context, req ShareRequest) (ShareResult, error) {
	res, err := s.askAcquire().of(ctx, s, req.Group, &req)
	if err != nil {
		return ShareResult{}, fmt.Errorf("share group %q: %w", req.Group, err)
	}
	return res, nil
}

func (s *Shares) acquire(ctx context.Context, req *ShareRequest) (res ShareResult, err error) {
	at := topicPart{req.Topic, req.Partition}
	p, err := s.partition(at)
	if err != nil {
		return res, err
	}
	sp, err := s.place(ctx, req.Group, at, p)
	if err != nil {
		return res, err
	}
	if err := take(ctx, sp.reading); err != nil {
		return res, err
	}
	defer func() { sp.reading <- struct{}{} }()
	settings := sp.group.settings.Load()
	res.LockTimeout = settings.lock
	for range shareRounds {
		more, err := s.look(ctx, sp, p, settings, req, &res)
		if err != nil || len(res.Acquired) > 0 || !more {
			return res, err
		}
		if err := ctx.Err(); err != nil {
			return res, err
		}
	}
	return res, nil
}

// place returns the share partition. One that is new begins where the group's settings
// say, and that is durable when it returns.
func (s *Shares) place(ctx context.Context, group string, at topicPart, p *Partition) (*sharePart, error) {
	if err := s.engine.groups.isShare(ctx, group); err != nil {
		return nil, err
	}
	g, err := s.group(ctx, group, false)
	if err != nil {
		return nil, err
	}
	sp := g.find(at)
	if sp == nil || !sp.begun() {
		// In the group's gate: it cannot be deleted meanwhile.
		x, err := s.engine.groups.enter(ctx, group, false, false)
		if err != nil {
			return nil, err
		}
		if x == nil {
			return nil, ErrUnknownGroup
		}
		defer x.gate.leave()
		if !x.isShare() {
			return nil, ErrUnknownGroup
		}
		if sp, err = s.begin(ctx, group, at, p, nil); err != nil {
			return nil, err
		}
	}
	sp.check(p)
	return sp, nil
}

// begun says that it is on the disk where the group begins.
func (sp *sharePart) begun() bool {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return sp.stored
}

// begin makes a share partition, or sets where one begins: start is nil for where the
// group's settings say, unless it has begun. The caller is in the group's gate.
func (s *Shares) begin(ctx context.Context, group string, at topicPart, p *Partition, start *int64) (*sharePart, error) {
	var g *shareGroup
	var sp *sharePart
	for sp == nil {
		var err error
		if g, err = s.group(ctx, group, true); err != nil {
			return nil, err
		}
		g.shard.mu.Lock()
		if g.mappedLocked() {
			if sp = g.parts[at]; sp == nil {
				sp = newSharePart(g, at)
				g.parts[at] = sp
			}
		}
		g.shard.mu.Unlock()
	}
	if err := take(ctx, sp.writing); err != nil {
		return nil, err
	}
	defer func() { sp.writing <- struct{}{} }()
	sp.mu.Lock()
	stored, dead := sp.stored, sp.dead
	sp.mu.Unlock()
	if dead {
		return nil, ErrUnknownGroup
	}
	if stored && start == nil {
		return sp, nil
	}
	var first int64
	if start != nil {
		first = *start
	} else {
		var err error
		if first, err = s.resetOffset(ctx, p, g.settings.Load()); err != nil {
			return nil, err
		}
	}
	if stored {
		sp.stateEpoch++
	}
	if err := s.append(ctx, sp, first, nil, 0); err != nil {
		return nil, err
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.state, sp.stored, sp.dirty, sp.durable, sp.restored = shareState{start: first}, true, false, sp.tickets, restoredNone
	sp.wakeLocked()
	return sp, nil
}

// resetOffset is where a group begins that has not read the partition.
func (s *Shares) resetOffset(ctx context.Context, p *Partition, settings *shareSettings) (int64, error) {
	var q offsetsQuestion
	if settings.reset.ago > 0 {
		q.ByTime, q.Millis = true, s.engine.Now().Add(-settings.reset.ago).UnixMilli()
	}
	bounds, err := s.engine.offsetsOf(ctx, p, q)
	switch {
	case err != nil:
		return 0, err
	case settings.reset.earliest:
		return bounds.LogStart, nil
	case bounds.Found:
		return bounds.FoundOffset, nil
	}
	return bounds.HighWatermark, nil
}

// found is offsets that a batch holds, or, without a batch, that there is nothing at.
type found struct {
	from, to int64
	batch    []byte
}

// look reads from where there may be records, and acquires. more says that nothing was
// acquired and it is worth looking again. The caller has reading.
func (s *Shares) look(ctx context.Context, sp *sharePart, p *Partition, settings *shareSettings, req *ShareRequest, res *ShareResult) (more bool, err error) {
	sp.mu.Lock()
	if sp.dead {
		sp.mu.Unlock()
		return false, ErrUnknownGroup
	}
	sp.refreshLocked(p, s.clock(s.engine.Now()))
	offset, ok := sp.state.next(settings.records)
	sp.mu.Unlock()
	if !ok {
		return false, nil
	}
	list, err := sp.read(ctx, s, p, offset, settings, req)
	if err != nil {
		var outside *partition.OffsetOutOfRangeError
		if errors.As(err, &outside) && outside.LogStart > offset {
			sp.mu.Lock()
			defer sp.mu.Unlock()
			sp.state.trim(outside.LogStart)
			sp.wakeLocked()
			return true, nil // records were deleted in between
		}
		if !errors.Is(err, log.ErrCorrupt) || len(list) == 0 {
			return false, err
		}
		// What comes before the damage is had first; the next call says so.
	}
	limit := int64(cmp.Or(max(req.MaxRecords, 0), defaultShareRecords))
	now := s.engine.Now()
	until := s.clock(now.Add(settings.lock))
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.dead {
		return false, ErrUnknownGroup
	}
	before, end := sp.state.start, sp.state.end()
	var n int64
	for i := range list {
		f := &list[i]
		if f.batch == nil {
			sp.state.skip(f.from, f.to)
			continue
		}
		room := limit - n
		if f.to > sp.state.end() {
			// Offsets behind the window count against its size; what is available in it does not.
			room = min(room, max(settings.records-sp.state.records(), 0)+max(sp.state.end()-f.from, 0))
		}
		if room <= 0 {
			break
		}
		if !req.Strict && f.to-f.from <= settings.records {
			room = f.to - f.from
		}
		got, k := sp.state.acquire(f.from, f.to, room, req.MemberID, until)
		for _, g := range got {
			if n := len(res.Acquired); n > 0 && res.Acquired[n-1].Last+1 == g.first && res.Acquired[n-1].DeliveryCount == g.count {
				res.Acquired[n-1].Last = g.last
				continue
			}
			res.Acquired = append(res.Acquired, AcquiredRecords{g.first, g.last, g.count})
		}
		if k > 0 && (len(res.Batches) == 0 || &res.Batches[len(res.Batches)-1][0] != &f.batch[0]) {
			res.Batches = append(res.Batches, f.batch)
		}
		n += k
	}
	if sp.state.start != before {
		sp.wakeLocked() // the window may have room again, for those who wait for that
	}
	return sp.state.start != before || sp.state.end() != end, nil
}

// read finds out what lies from offset on: batches of records, and offsets without any.
// Together with an error it returns what comes before.
func (sp *sharePart) read(ctx context.Context, s *Shares, p *Partition, offset int64, settings *shareSettings, req *ShareRequest) (list []found, err error) {
	maxBytes := cmp.Or(max(req.MaxBytes, 0), 1<<20)
	r, err := s.source(ctx, p, offset, maxBytes, settings.isolation)
	if err != nil {
		return nil, err
	}
	limit := int64(cmp.Or(max(req.MaxRecords, 0), defaultShareRecords))
	at, size := offset, 0
	var n int64
	for size == 0 || size < maxBytes && n < limit {
		b, err := r.TryNext()
		if err == io.EOF {
			if next := r.Offset(); next > at {
				list = append(list, found{from: at, to: next})
			}
			return list, nil
		}
		if err != nil {
			return list, err
		}
		if size > 0 && size+len(b) > maxBytes {
			return list, nil
		}
		h, err := b.Header()
		if err != nil {
			return list, err
		}
		first, end := max(h.BaseOffset, at), h.LastOffset()+1
		if first > at {
			list = append(list, found{from: at, to: first})
		}
		if int64(h.Count) == end-h.BaseOffset {
			list = append(list, found{first, end, b})
		} else if list, err = appendSparse(list, b, first, end); err != nil {
			return list, err
		}
		at, size = end, size+len(b)
		n += sp.availableIn(first, end)
	}
	return list, nil
}

// availableIn is how many offsets of [from, to) might be acquired.
func (sp *sharePart) availableIn(from, to int64) (n int64) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	n = max(to-max(from, sp.state.end()), 0)
	sp.state.update(from, to, func(first, end int64, r *shareRecord) {
		if r.state == shareAvailable {
			n += end - first
		}
	})
	return n
}

// appendSparse adds the records of a batch that compaction has left holes in.
func appendSparse(list []found, b log.Batch, from, to int64) ([]found, error) {
	var records log.RecordReader
	if err := records.Reset(b, 0); err != nil {
		return list, err
	}
	at := from
	for records.Next() {
		offset := records.Record().Offset
		if offset < at {
			continue
		}
		if offset > at {
			list = append(list, found{from: at, to: offset})
		}
		if n := len(list); n > 0 && list[n-1].batch != nil && list[n-1].to == offset && &list[n-1].batch[0] == &b[0] {
			list[n-1].to++
		} else {
			list = append(list, found{from: offset, to: offset + 1, batch: b})
		}
		at = offset + 1
	}
	if at < to {
		list = append(list, found{from: at, to: to})
	}
	return list, records.Err()
}

// Await waits until there may be something to acquire in one of the partitions, for
// maxWait at most, and until ctx ends. It is no promise: others may be quicker.
func (s *Shares) Await(ctx context.Context, group string, parts []TopicPartitions, maxWait time.Duration) error {
	_, err := s.askAwait().of(ctx, s, group, &shareAwait{group, parts, maxWait})
	return err
}

func (s *Shares) await(ctx context.Context, group string, parts []TopicPartitions, maxWait time.Duration) error {
	g, err := s.group(ctx, group, false)
	if err != nil {
		return fmt.Errorf("share group %q: %w", group, err)
	}
	w := partition.NewWaiter()
	waits := shareWaits{w: w}
	var listening []*sharePart
	defer func() {
		waits.disarm()
		for _, sp := range listening {
			sp.mu.Lock()
			if sp.waiting[w]--; sp.waiting[w] <= 0 {
				delete(sp.waiting, w)
			}
			sp.mu.Unlock()
		}
	}()
	settings := defaultShareSettings
	if g != nil {
		settings = g.settings.Load()
	}
	first := int64(math.MaxInt64)
	now := s.clock(s.engine.Now())
	for _, t := range parts {
		for _, index := range t.Partitions {
			at := topicPart{t.Topic, index}
			p, err := s.partition(at)
			sp := g.find(at)
			if err != nil || sp == nil {
				continue // the next look tells why
			}
			sp.mu.Lock()
			if sp.waiting == nil {
				sp.waiting = map[*partition.Waiter]int{}
			}
			sp.waiting[w]++
			listening = append(listening, sp)
			sp.refreshLocked(p, now)
			offset, room := sp.state.next(settings.records)
			if at, ok := sp.state.nextExpiry(); ok {
				first = min(first, at)
			}
			sp.mu.Unlock()
			if room {
				// What is available may lie where the group does not read yet: its isolation
				// level may have been raised.
				if !waits.arm(p, offset, settings.isolation) {
					return nil
				}
			}
		}
	}
	if first < math.MaxInt64 {
		maxWait = min(maxWait, time.Duration(max(first-now, 0)))
	}
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	select {
	case <-w.C():
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	case <-g.over():
	case <-s.engine.life.Done():
		return log.ErrClosed
	}
	return nil
}

func sortShareParts(parts []*sharePart) {
	slices.SortFunc(parts, func(a, b *sharePart) int {
		return cmp.Or(compareTopicIDs(a.at.topic, b.at.topic), cmp.Compare(a.at.partition, b.at.partition))
	})
}
