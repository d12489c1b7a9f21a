package engine

import (
	"context"
	"fmt"
	"time"
)

// clean forgets what a group need not keep: offsets of topics that were deleted;
// offsets of a group without members that were committed longer ago than
// Options.OffsetsRetention, and that nobody asked for in that time; and then the
// group.
//
// The second condition is on this run of the database, by a clock that does not
// jump: a device that was off for a month, or got the date from the network only
// just now, must not lose its place.
func (g *Groups) clean(ctx context.Context, x *group, view *topicsView, now time.Time) error {
	if list, whole := g.over(x, view, now); len(list) == 0 && !whole {
		return nil
	}
	if err := x.gate.exclude(ctx); err != nil {
		return err
	}
	defer x.gate.leave()
	list, whole := g.over(x, view, now) // again, now that nobody appends
	x.mu.Lock()
	recorded := x.persisted > 0
	x.mu.Unlock()
	if err := x.remove(ctx, now, list, whole && recorded); err != nil {
		return err
	}
	if whole {
		x.bury()
	}
	return nil
}

// over returns the offsets that are to be forgotten, and whether the group is.
func (g *Groups) over(x *group, view *topicsView, now time.Time) (list []offsetAt, whole bool) {
	retention := g.engine.options.OffsetsRetention
	if retention == 0 {
		retention = defaultOffsetsRetention
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	last := x.used
	if x.state.emptied.After(last) {
		last = x.state.emptied
	}
	unused := len(x.state.members) == 0 && len(x.pending) == 0
	expired := unused && retention > 0 && now.Sub(last) >= retention
	for at, v := range x.offsets {
		_, exists := view.byID[v.topicID]
		if !exists && !v.topicID.IsZero() || expired && now.Sub(time.UnixMilli(v.commitMillis)) >= retention {
			list = append(list, at)
		}
	}
	// A group that was only asked about leaves nothing behind; one that had members
	// keeps its epoch as long as offsets.
	whole = unused && len(list) == len(x.offsets) && (expired || x.persisted == 0 && len(x.offsets) == 0)
	return list, whole
}

// bury takes a group out that has no records. The caller is alone in its gate.
func (x *group) bury() {
	x.shard.mu.Lock()
	defer x.shard.mu.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.dead = true
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
	members := len(x.state.members)
	known := x.knownLocked()
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
	recorded := x.persisted > 0
	x.mu.Unlock()
	if members > 0 {
		return ErrGroupNotEmpty
	}
	if !known {
		return ErrUnknownGroup
	}
	if err := x.remove(ctx, g.engine.Now(), list, recorded); err != nil {
		return err
	}
	x.bury()
	return nil
}

// knownLocked tells a group from a name that somebody asked for.
func (x *group) knownLocked() bool {
	return len(x.state.members) > 0 || len(x.offsets) > 0 || len(x.pending) > 0 || x.persisted > 0
}

// DeleteOffsets deletes a group's offsets of some partitions. Partitions without
// one are passed over. It fails with ErrGroupNotEmpty when a member subscribes to
// one of the topics.
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
	known, busy := x.knownLocked(), false
	x.state.setTopics(view)
	for id := range parts {
		_, subscribed := x.state.counts[id]
		busy = busy || subscribed
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
	if busy {
		return fmt.Errorf("%w: a member subscribes to the topic", ErrGroupNotEmpty)
	}
	return x.remove(ctx, g.engine.Now(), list, false)
}
