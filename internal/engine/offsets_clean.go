package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/x/embedlog/log"
)

// clean forgets what a group need not keep: offsets of topics that were deleted;
// offsets of a group without members that were committed longer ago than
// Options.OffsetsRetention, and that nobody asked for in that time; and then the
// group.
//
// The second condition is by the time for which the database was open, all runs
// together (offsetsShard.now): a device that was off for a month, or got the date
// from the network only just now, must not lose its place. What is unused is noted in
// the log for the next run, see note.
func (g *Groups) clean(ctx context.Context, x *group, view *topicsView, now time.Time) error {
	if list, whole := g.over(x, view, now); len(list) == 0 && !whole {
		return nil
	}
	if err := x.gate.exclude(ctx); err != nil {
		return err
	}
	defer x.gate.leave()
	list, whole := g.over(x, view, now) // again, now that nobody appends
	if err := x.remove(ctx, now, list, whole); err != nil {
		return err
	}
	if whole {
		x.bury()
	}
	return nil
}

// over returns the offsets that are to be forgotten, and whether the group is.
func (g *Groups) over(x *group, view *topicsView, now time.Time) (list []offsetAt, whole bool) {
	retention := g.offsetsRetention()
	x.mu.Lock()
	defer x.mu.Unlock()
	unused := !x.inUseLocked()
	expired := unused && retention > 0 && x.shard.now()-x.used >= retention
	for at, v := range x.offsets {
		_, exists := view.byID[v.topicID]
		if !exists && !v.topicID.IsZero() || expired && now.Sub(time.UnixMilli(v.commitMillis)) >= retention {
			list = append(list, at)
		}
	}
	// A group that was only asked about leaves nothing behind; one that had members
	// keeps its epoch as long as offsets.
	// A share group keeps the place that it has in its partitions until it is deleted.
	expired = expired && x.roster.kind != GroupTypeShare
	whole = unused && len(list) == len(x.offsets) && (expired || x.persisted == 0 && x.recorded == noRecord && len(x.offsets) == 0)
	return list, whole
}

// offsetsRetention is Options.OffsetsRetention, not positive for ever.
func (g *Groups) offsetsRetention() time.Duration {
	if r := g.engine.options.OffsetsRetention; r != 0 {
		return r
	}
	return defaultOffsetsRetention
}

// inUseLocked says that the group has members, or that a transaction is to commit for
// it: then it is used at this moment.
func (x *group) inUseLocked() bool {
	if x.roster.count() == 0 && len(x.roster.classic.invited) == 0 && len(x.pending) == 0 {
		return false
	}
	x.used = x.shard.now()
	return true
}

// noteUnused sees to it that what groups were unused for is not forgotten by a
// restart: once they are unused for some time their records say since when, and the
// log's running time is made durable now and then. A kill forgets a thousandth of the
// retention.
func (g *Groups) noteUnused(ctx context.Context, groups []*group, now time.Time) error {
	retention := g.offsetsRetention()
	// In a cluster the running time is that of the leader's log, and counts from when it
	// began to lead: what another one noted says nothing of it. Offsets are kept longer for it.
	if retention <= 0 || g.engine.options.Cluster != nil {
		return nil
	}
	grain := max(retention/1000, time.Minute)
	shards := make(map[*offsetsShard]struct{})
	for _, x := range groups {
		if x.toNote(grain) != nil {
			if err := x.note(ctx, now, grain); err != nil {
				return err
			}
		}
		x.mu.Lock()
		if !x.inUseLocked() {
			shards[x.shard] = struct{}{}
		}
		x.mu.Unlock()
	}
	for s := range shards {
		l := s.part.Log()
		l.Lock()
		err := l.SaveRunningTime(grain)
		l.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// toNote is what the group's record has to say, nil when it may stay as it is.
func (x *group) toNote(grain time.Duration) *groupValue {
	x.mu.Lock()
	defer x.mu.Unlock()
	v := &groupValue{x.persisted, -1}
	switch {
	case x.dead, x.roster.kind == GroupTypeShare:
		return nil
	case x.inUseLocked():
		if x.noted < 0 {
			return nil
		}
	case x.noted < 0 && x.shard.now()-x.used < grain, x.noted >= 0 && x.used-x.noted < grain, !x.knownLocked():
		return nil
	default:
		v.unused = x.used.Milliseconds()
	}
	return v
}

// note writes the group's record. Nobody appends meanwhile, so what lies behind it in
// the log was done later. It is not synced: at worst the group is kept for longer.
func (x *group) note(ctx context.Context, now time.Time, grain time.Duration) error {
	if err := x.gate.exclude(ctx); err != nil {
		return err
	}
	defer x.gate.leave()
	v := x.toNote(grain)
	if v == nil {
		return nil
	}
	key := offsetKey{version: groupKeyVersion, group: x.name}
	rec := log.Record{Timestamp: now.UnixMilli(), Key: appendOffsetKey(nil, &key), Value: appendGroupValue(nil, *v)}
	if _, err := x.append(ctx, []log.Record{rec}, nil, true); err != nil {
		return fmt.Errorf("record of group %q: %w", x.name, err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.epochRecorded, x.noted = true, time.Duration(v.unused)*time.Millisecond
	return nil
}

// bury takes a group out that has no records. The caller is alone in its gate.
func (x *group) bury() {
	x.shard.mu.Lock()
	defer x.shard.mu.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.dead, x.persisted, x.epochRecorded, x.recorded = true, 0, false, noRecord
	delete(x.shard.groups, x.name)
	for _, groups := range x.shard.txns {
		delete(groups, x)
	}
}

// Delete deletes a group without members, with its offsets: when it returns nil
// it stays deleted.
func (g *Groups) Delete(ctx context.Context, group string) error {
	if err := g.delete(ctx, group); err != nil {
		return fmt.Errorf("delete group %q: %w", group, err)
	}
	return nil
}

func (g *Groups) delete(ctx context.Context, group string) error {
	x, err := g.enter(ctx, group, false, true)
	if err != nil {
		return err
	}
	if x == nil {
		return ErrUnknownGroup
	}
	defer x.gate.leave()
	var list []offsetAt
	x.mu.Lock()
	members := x.roster.count()
	known, share := x.knownLocked(), x.roster.kind == GroupTypeShare
	for at := range x.offsets {
		list = append(list, at)
	}
	for _, m := range x.pending { // what a transaction is about to commit goes, too
		for at := range m {
			if _, both := x.offsets[at]; !both {
				list = append(list, at)
			}
		}
	}
	x.mu.Unlock()
	if members > 0 {
		return ErrGroupNotEmpty
	}
	if !known {
		return ErrUnknownGroup
	}
	if share {
		// First: a group that is there without its state begins anew, one that is not there must not leave any.
		if err := g.engine.shares.deleteGroup(ctx, group); err != nil {
			return err
		}
	}
	if err := x.remove(ctx, g.engine.Now(), list, true); err != nil {
		return err
	}
	x.bury()
	return nil
}

// knownLocked tells a group from a name that somebody asked for.
func (x *group) knownLocked() bool {
	return x.roster.count() > 0 || len(x.offsets) > 0 || len(x.pending) > 0 || x.persisted > 0 || x.recorded != noRecord
}

// DeleteOffsets deletes a group's offsets of some partitions. Partitions without
// one are passed over. It fails with ErrGroupNotEmpty when a member subscribes to
// one of the topics, or, also without partitions, when the members are no consumers: of
// those nobody knows what they read. (KIP-496)
func (g *Groups) DeleteOffsets(ctx context.Context, group string, parts []TopicPartitions) error {
	if err := g.deleteOffsets(ctx, group, newGroupParts(parts)); err != nil {
		return fmt.Errorf("delete offsets of group %q: %w", group, err)
	}
	return nil
}

func (g *Groups) deleteOffsets(ctx context.Context, group string, parts groupParts) error {
	x, err := g.enter(ctx, group, false, true)
	if err != nil {
		return err
	}
	if x == nil {
		return ErrUnknownGroup
	}
	defer x.gate.leave()
	view := g.view.Load()
	var list []offsetAt
	x.mu.Lock()
	known, busy, opaque := x.knownLocked(), false, x.roster.opaque()
	x.roster.server.setTopics(view)
	for id := range parts {
		busy = busy || x.roster.subscribes(id)
	}
	for at, v := range x.offsets {
		if _, ok := view.wanted(parts, at, &v.offsetValue); ok {
			list = append(list, at)
		}
	}
	x.mu.Unlock()
	if !known {
		return ErrUnknownGroup
	}
	if opaque {
		return fmt.Errorf("%w: its members are no consumers", ErrGroupNotEmpty)
	}
	if busy {
		return fmt.Errorf("%w: a member subscribes to the topic", ErrGroupNotEmpty)
	}
	return x.remove(ctx, g.engine.Now(), list, false)
}
