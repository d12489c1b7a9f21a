package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/x/embedlog/log"
)

// What the disk knows of a group's members is little, and in order:
//
//   - the epoch, before any member hears it (ConsumerGroupMetadata). So no epoch and no
//     generation is ever told twice, whatever becomes of the process in between;
//   - of a classic group the members of its last generation that became stable
//     (GroupMetadata), before any of them hears its assignment. After a restart they go
//     on with it;
//   - that a classic group is empty, or that it is not classic any more, before anything
//     is committed or anybody is assigned anything by that. So who was fenced stays so;
//   - the new id of a static member that came back without a new generation, before it
//     hears it.
//
// Members with an epoch are in memory only: after a restart they join again.

// groupRecord is what the disk says of the members of a classic group.
type groupRecord int8

const (
	noRecord groupRecord = iota
	emptyRecord
	memberRecord
)

func recordOf(r *classicRecord) groupRecord {
	if len(r.members) > 0 {
		return memberRecord
	}
	return emptyRecord
}

// owesLocked reports whether something must be written before anybody hears of the
// epoch, or is let in by what has happened.
func (x *group) owesLocked(told int32) bool {
	if told > x.persisted {
		return true
	}
	c := x.roster.classic
	if x.roster.kind != GroupTypeClassic {
		return x.recorded != noRecord
	}
	return len(c.members) == 0 && x.recorded == memberRecord || c.phase == GroupStable && c.returns != x.returns
}

// owedLocked returns the records for it, and what to do when they are written.
func (x *group) owedLocked(now time.Time) (recs []log.Record, written func()) {
	c, epoch := x.roster.classic, x.roster.server.epoch
	recs = x.epochRecord(now, recs)
	recorded, returns := x.recorded, x.returns
	switch {
	case x.roster.kind != GroupTypeClassic:
		if recorded != noRecord {
			recs, recorded = append(recs, x.classicRecord(now, nil)), noRecord
		}
	case len(c.members) == 0 && recorded == memberRecord:
		recs, recorded = append(recs, x.classicRecord(now, c.record(now, nil))), emptyRecord
	case c.phase == GroupStable && c.returns != returns:
		recs, returns = append(recs, x.classicRecord(now, c.record(now, c.assignments()))), c.returns
	}
	return recs, func() {
		x.epochWrittenLocked(epoch)
		x.recorded, x.returns = recorded, returns
	}
}

// epochRecord adds the record of the epoch, if it is not on disk.
func (x *group) epochRecord(now time.Time, recs []log.Record) []log.Record {
	epoch := x.roster.server.epoch
	if epoch <= x.persisted {
		return recs
	}
	key := offsetKey{version: x.epochKeyLocked(), group: x.name}
	return append(recs, log.Record{Timestamp: now.UnixMilli(), Key: appendOffsetKey(nil, &key), Value: appendGroupValue(nil, groupValue{epoch, -1})})
}

// epochKeyLocked is the version of the key under which the epoch is kept. It tells a share
// group from others.
func (x *group) epochKeyLocked() int16 {
	if x.roster.kind == GroupTypeShare {
		return shareGroupKeyVersion
	}
	return groupKeyVersion
}

// epochWrittenLocked notes that epochRecord's record is on disk. It makes void what one
// before it said of the time that the group was unused.
func (x *group) epochWrittenLocked(epoch int32) {
	if epoch > x.persisted {
		x.persisted, x.epochRecorded, x.noted = epoch, true, notNoted
	}
}

// classicRecord is a record of the classic group; r is nil for a tombstone.
func (x *group) classicRecord(now time.Time, r *classicRecord) log.Record {
	key := offsetKey{version: classicKeyVersion, group: x.name}
	rec := log.Record{Timestamp: now.UnixMilli(), Key: appendOffsetKey(nil, &key)}
	if r != nil {
		rec.Value = appendClassicValue(nil, r)
	}
	return rec
}

// recordKeys are the versions of the keys that the group has records under, besides
// those of offsets.
func (x *group) recordKeys() (versions []int16) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.recorded != noRecord {
		versions = append(versions, classicKeyVersion)
	}
	if x.epochRecorded {
		versions = append(versions, x.epochKeyLocked())
	}
	return versions
}

// beginRecords waits for the turn to write records of the members.
func (x *group) beginRecords(ctx context.Context) error {
	select {
	case <-x.persisting:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (x *group) endRecords() { x.persisting <- struct{}{} }

// settle makes durable what is owed, before a member hears of the epoch told. The
// caller is in the gate.
func (x *group) settle(ctx context.Context, now time.Time, told int32) error {
	x.mu.Lock()
	owes, dead := x.owesLocked(told), x.dead
	x.mu.Unlock()
	if dead { // the members left, and the group was deleted, before the answer was given
		return ErrUnknownMember
	}
	if !owes {
		return nil
	}
	if err := x.beginRecords(ctx); err != nil {
		return err
	}
	defer x.endRecords()
	x.mu.Lock()
	recs, written := x.owedLocked(now)
	x.mu.Unlock()
	return x.write(ctx, recs, written)
}

// write appends records of the members. The caller has the turn.
func (x *group) write(ctx context.Context, recs []log.Record, written func()) error {
	if len(recs) == 0 {
		return nil // somebody else's write held ours
	}
	if _, err := x.append(ctx, recs, nil, false); err != nil {
		return fmt.Errorf("members of group %q: %w", x.name, err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	written()
	return nil
}

// store writes a generation with its assignments, and makes it the stable one. It does
// nothing when the generation is over by then. The caller is in the gate.
func (x *group) store(ctx context.Context, now time.Time, generation int32, assignments map[string][]byte) error {
	if err := x.beginRecords(ctx); err != nil {
		return err
	}
	defer x.endRecords()
	x.mu.Lock()
	c, epoch := x.roster.classic, x.roster.server.epoch
	if c.phase != GroupCompletingRebalance || c.generation != generation {
		x.mu.Unlock()
		return nil
	}
	returns := c.returns
	recs := append(x.epochRecord(now, nil), x.classicRecord(now, c.record(now, assignments)))
	x.mu.Unlock()
	return x.write(ctx, recs, func() {
		x.epochWrittenLocked(epoch)
		x.recorded, x.returns = memberRecord, returns
		c.stable(now, generation, assignments)
		x.rearmLocked()
	})
}
