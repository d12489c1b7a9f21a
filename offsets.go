package embedlog

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// OffsetSpec names an offset of a partition by what lies there: Earliest, Latest,
// LastStable, MaxTimestamp, AtTime or AtOffset. The zero value is the natural end where it is
// used: see ScanOptions.
type OffsetSpec struct {
	kind  specKind
	value int64
}

type specKind uint8

const (
	specUnset specKind = iota
	specEarliest
	specLatest
	specMaxTimestamp
	specLastStable
	specTime
	specOffset
)

var (
	// Earliest is the log start offset.
	Earliest = OffsetSpec{kind: specEarliest}
	// Latest is the offset behind the last record that can be read: the high
	// watermark, or, for who reads committed records only, the last stable offset.
	Latest = OffsetSpec{kind: specLatest}
	// LastStable is the last stable offset, below which no transaction is open: what readers of committed records see ends here,
	// whoever asks.
	LastStable = OffsetSpec{kind: specLastStable}
	// MaxTimestamp is the first record with the largest timestamp.
	MaxTimestamp = OffsetSpec{kind: specMaxTimestamp}
)

// AtTime is the first record, in the order of offsets, with this timestamp or a
// later one. Where there is none it is Latest.
func AtTime(t time.Time) OffsetSpec {
	ms := t.UnixMilli()
	if t.After(time.UnixMilli(ms)) {
		ms++ // a record has whole milliseconds: one of the same millisecond may be earlier
	}
	return OffsetSpec{kind: specTime, value: ms}
}

// AtOffset is the offset itself.
func AtOffset(offset int64) OffsetSpec { return OffsetSpec{kind: specOffset, value: offset} }

// String is for messages.
func (s OffsetSpec) String() string {
	switch s.kind {
	case specEarliest:
		return "earliest"
	case specLatest:
		return "latest"
	case specMaxTimestamp:
		return "max-timestamp"
	case specLastStable:
		return "last-stable"
	case specTime:
		return time.UnixMilli(s.value).UTC().Format(time.RFC3339Nano)
	case specOffset:
		return strconv.FormatInt(s.value, 10)
	}
	return "unset"
}

// ListOffsets finds an offset in each partition of the topic; the positions are in
// the order of the partitions. In a cluster it asks the leaders. An offset that AtOffset names is returned as it is.
func (t *Topic) ListOffsets(ctx context.Context, at OffsetSpec) ([]Position, error) {
	top, err := t.current()
	if err != nil {
		return nil, fmt.Errorf("list offsets of %s: %w", t.name, err)
	}
	parts := top.Partitions()
	out := make([]Position, len(parts))
	for i, p := range parts {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("list offsets of %s: %w", t.name, err)
		}
		offset, epoch, err := findOffset(ctx, p.LeaderView(), at, partition.ReadUncommitted)
		if err != nil {
			return nil, fmt.Errorf("list offsets of %s/%d: %w", t.name, p.ID(), err)
		}
		out[i] = Position{Topic: t.name, Partition: p.ID(), LeaderEpoch: epoch, Offset: offset}
	}
	return out, nil
}

// findOffset resolves a spec in one partition. The epoch is that of the record
// there, -1 where there is none or it is not known.
func findOffset(ctx context.Context, v engine.View, at OffsetSpec, isolation partition.Isolation) (offset int64, epoch int32, err error) {
	var found log.TimePosition
	ok := false
	switch at.kind {
	case specLastStable:
		isolation = partition.ReadCommitted
	case specMaxTimestamp:
		found, ok, err = v.MaxTimestamp(ctx)
	case specTime:
		found, ok, err = v.OffsetForTime(ctx, at.value)
	case specOffset:
		offset = at.value
	}
	switch {
	case err != nil:
		return 0, 0, err
	case ok:
		return found.Offset, int32(found.Epoch), nil
	case at.kind != specOffset:
		bounds, err := v.Bounds(ctx)
		if err != nil {
			return 0, 0, err
		}
		offset = bounds.LogStart
		if at.kind != specEarliest && at.kind != specUnset {
			offset = bounds.End(isolation)
		}
	}
	if epoch, ok, err = v.EpochOf(ctx, offset); err != nil || !ok {
		epoch = -1
	}
	return offset, epoch, err
}
