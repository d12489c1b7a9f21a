package engine

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/x/embedlog/log"
)

// ResetKind says where offsets are reset to.
type ResetKind string

const (
	ResetEarliest ResetKind = "earliest" // the log start offset
	ResetLatest   ResetKind = "latest"   // the high watermark
	ResetOffset   ResetKind = "offset"   // ResetRequest.Offset
	ResetShift    ResetKind = "shift"    // ResetRequest.Offset from where the group is; back if negative
	ResetTime     ResetKind = "time"     // the first record from ResetRequest.Time on, or the high watermark
	ResetDuration ResetKind = "duration" // the first record of the last ResetRequest.Duration, or the high watermark
	ResetCurrent  ResetKind = "current"  // where the group is, or the high watermark
)

// ResetRequest says which offsets are reset, and where to.
type ResetRequest struct {
	// Topics and Partitions say which. With neither, all that the group has committed.
	Topics     []string
	Partitions []TopicPartitions
	Kind       ResetKind
	Offset     int64
	Time       time.Time
	Duration   time.Duration
	DryRun     bool // only answer what would be done
}

// ResetResult is one offset that was reset, or would be.
type ResetResult struct {
	Topic                   string
	TopicID                 TopicID
	Partition               int32
	Before                  int64 // -1: none was committed
	Wanted                  int64 // what the request came to
	Offset                  int64 // what is committed now: Wanted, brought into the log's range
	LeaderEpoch             int32
	LogStart, HighWatermark int64
}

// Clamped reports whether Wanted was not in the log.
func (r *ResetResult) Clamped() bool { return r.Wanted != r.Offset }

// Reset moves a group's offsets, all of them or none. It fails with
// ErrGroupNotEmpty while the group has members, who would not know. Offsets outside
// of a partition's log are brought into it: see ResetResult.Clamped. A group that
// there is not is made when topics or partitions are named.
func (g *Groups) Reset(ctx context.Context, group string, req ResetRequest) ([]ResetResult, error) {
	results, err := g.reset(ctx, group, &req)
	if err != nil {
		return nil, fmt.Errorf("reset offsets of group %q: %w", group, err)
	}
	return results, nil
}

func (r *ResetRequest) validate() error {
	switch r.Kind {
	case ResetEarliest, ResetLatest, ResetCurrent, ResetShift:
	case ResetOffset:
		if r.Offset < 0 {
			return &InvalidResetError{fmt.Sprintf("offset %d is negative", r.Offset)}
		}
	case ResetTime:
		if r.Time.IsZero() {
			return &InvalidResetError{"no time is given"}
		}
	case ResetDuration:
		if r.Duration < 0 {
			return &InvalidResetError{fmt.Sprintf("duration %v is negative", r.Duration)}
		}
	default:
		return &InvalidResetError{fmt.Sprintf("it is not known how to reset to %q", r.Kind)}
	}
	return nil
}

func (g *Groups) reset(ctx context.Context, group string, req *ResetRequest) (results []ResetResult, err error) {
	if err := req.validate(); err != nil {
		return nil, err
	}
	named := len(req.Topics) > 0 || len(req.Partitions) > 0
	x, err := g.enter(ctx, group, named && !req.DryRun, true)
	if err != nil {
		return nil, err
	}
	if x == nil && !named {
		return nil, ErrUnknownGroup
	}
	before := map[topicPart]CommittedOffset{}
	if x != nil {
		defer x.gate.leave()
		x.mu.Lock()
		members, known, share := x.roster.count(), x.knownLocked(), x.roster.notShare()
		x.mu.Unlock()
		if share != nil {
			return nil, share
		}
		if members > 0 {
			return nil, ErrGroupNotEmpty
		}
		if !known && !named {
			return nil, ErrUnknownGroup
		}
		committed, _ := g.committed(x, nil, false)
		for _, o := range committed {
			before[topicPart{o.TopicID, o.Partition}] = o
		}
	}
	parts, err := g.resetParts(req, before)
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		r, err := g.resetOne(ctx, req, p, before)
		if err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	if req.DryRun || len(results) == 0 {
		return results, nil
	}
	return results, g.store(ctx, x, results)
}

// resetParts is which partitions are meant, in order.
func (g *Groups) resetParts(req *ResetRequest, before map[topicPart]CommittedOffset) (list []topicPart, err error) {
	view := g.view.Load()
	parts := newGroupParts(req.Partitions)
	for id, numbers := range parts {
		t, ok := view.byID[id]
		if !ok {
			return nil, &UnknownTopicError{ID: id}
		}
		for _, n := range numbers {
			if n < 0 || n >= t.partitions {
				return nil, &UnknownPartitionError{Topic: t.name, Partition: n, Partitions: int(t.partitions)}
			}
		}
	}
	for _, name := range req.Topics {
		t, ok := view.byName[name]
		if !ok {
			return nil, &UnknownTopicError{Name: name}
		}
		all := make([]int32, t.partitions)
		for i := range all {
			all[i] = int32(i)
		}
		parts[t.id] = all
	}
	if len(req.Topics) == 0 && len(req.Partitions) == 0 {
		for p := range before {
			parts[p.topic] = append(parts[p.topic], p.partition)
		}
	}
	parts.each(func(p topicPart) { list = append(list, p) })
	slices.SortFunc(list, func(a, b topicPart) int {
		x, y := OffsetCommit{Topic: view.byID[a.topic].name, Partition: a.partition}, OffsetCommit{Topic: view.byID[b.topic].name, Partition: b.partition}
		return compareOffsets(&x, &y)
	})
	return list, nil
}

func (g *Groups) resetOne(ctx context.Context, req *ResetRequest, at topicPart, before map[topicPart]CommittedOffset) (ResetResult, error) {
	p, err := g.find(at)
	if err != nil {
		return ResetResult{}, err
	}
	var q offsetsQuestion
	switch req.Kind {
	case ResetTime:
		q.ByTime, q.Millis = true, req.Time.UnixMilli()
	case ResetDuration:
		q.ByTime, q.Millis = true, g.engine.Now().Add(-req.Duration).UnixMilli()
	}
	bounds, err := g.engine.offsetsOf(ctx, p, q)
	if err != nil {
		return ResetResult{}, err
	}
	r := ResetResult{Topic: p.Topic(), TopicID: at.topic, Partition: at.partition, Before: -1, LogStart: bounds.LogStart, HighWatermark: bounds.HighWatermark}
	if o, ok := before[at]; ok {
		r.Before = o.Offset
	}
	switch req.Kind {
	case ResetEarliest:
		r.Wanted = r.LogStart
	case ResetLatest:
		r.Wanted = r.HighWatermark
	case ResetOffset:
		r.Wanted = req.Offset
	case ResetCurrent:
		if r.Wanted = r.Before; r.Before < 0 {
			r.Wanted = r.HighWatermark
		}
	case ResetShift:
		if r.Before < 0 {
			return r, &InvalidResetError{fmt.Sprintf("%s has no committed offset to shift", p)}
		}
		// Offsets are not negative, so this cannot overflow downwards.
		if r.Wanted = r.Before + req.Offset; req.Offset > 0 && r.Wanted < 0 {
			r.Wanted = math.MaxInt64
		}
	case ResetTime, ResetDuration:
		if r.Wanted = r.HighWatermark; bounds.Found {
			r.Wanted = bounds.FoundOffset
		}
	}
	r.Offset, r.LeaderEpoch = max(min(r.Wanted, r.HighWatermark), r.LogStart), -1
	bounds, err = g.engine.offsetsOf(ctx, p, offsetsQuestion{ByEpoch: true, Offset: r.Offset})
	r.LeaderEpoch = bounds.Epoch
	return r, err
}

// store commits what was reset. The caller is alone in the gate.
func (g *Groups) store(ctx context.Context, x *group, results []ResetResult) error {
	now := g.engine.Now().UnixMilli()
	recs := make([]log.Record, len(results))
	values := make([]offsetToStore, len(results))
	for i, r := range results {
		values[i] = offsetToStore{offsetAt{r.Topic, r.Partition}, offsetValue{offset: r.Offset, leaderEpoch: r.LeaderEpoch, commitMillis: now, topicID: r.TopicID}}
		recs[i] = values[i].record(x.name)
	}
	base, err := x.append(ctx, recs, nil, false)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.noted = notNoted // that was before
	for i := range values {
		x.storeLocked(values[i].at, storedOffset{values[i].value, base + int64(i)})
	}
	return nil
}
