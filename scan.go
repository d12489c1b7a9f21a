package embedlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// ScanOptions say what a scan reads; nil is every committed record that is there.
type ScanOptions struct {
	// Partitions are read in this order, each to its end. Nil means all.
	Partitions []int32
	// From and To bound the offsets of each partition, half-open: [From, To). Zero
	// means Earliest and Latest, which is found when the loop begins.
	From, To OffsetSpec
	// ReadUncommitted returns records of transactions that are open or were aborted, too.
	ReadUncommitted bool
	// Linearizable, in a cluster, makes sure that every record is seen that was
	// acknowledged anywhere before the loop began: each partition's leader is asked once,
	// and waited for until this node has what it says. Otherwise a replica of this node is
	// read as far as it is, which may be a moment behind. Alone it changes nothing.
	Linearizable bool
}

// Scan walks the records of a finite range, partition by partition in the order of
// offsets. It can be repeated, and then finds Latest anew. It joins no group and
// waits for nothing. An error is the last pair: an *OffsetOutOfRangeError when From
// does not lie in the partition or what comes next was deleted, a *CorruptionError
// or *BadBatchError at damage, whose EndOffset or LastOffset say where another scan
// can go on.
func (t *Topic) Scan(ctx context.Context, o *ScanOptions) iter.Seq2[Record, error] {
	var opts ScanOptions
	if o != nil {
		opts = *o
	}
	return func(yield func(Record, error) bool) {
		parts, err := t.scanned(opts.Partitions)
		if err != nil {
			yield(Record{}, fmt.Errorf("scan %s: %w", t.name, err))
			return
		}
		for _, p := range parts {
			more, err := scanPartition(ctx, t.name, p, &opts, yield)
			if err != nil {
				yield(Record{}, fmt.Errorf("scan %s/%d: %w", t.name, p.ID(), err))
				return
			}
			if !more {
				return
			}
		}
	}
}

// scanned are the partitions to be read.
func (t *Topic) scanned(ids []int32) ([]*engine.Partition, error) {
	top, err := t.current()
	if err != nil || ids == nil {
		if err != nil {
			return nil, err
		}
		return top.Partitions(), nil
	}
	parts := make([]*engine.Partition, len(ids))
	for i, id := range ids {
		if parts[i], err = top.Partition(id); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// scanPartition yields the records of one partition. more is false when the loop
// was left.
func scanPartition(ctx context.Context, topic string, p *engine.Partition, o *ScanOptions, yield func(Record, error) bool) (more bool, err error) {
	isolation := partition.ReadCommitted
	if o.ReadUncommitted {
		isolation = partition.ReadUncommitted
	}
	view, least := p.View(), int64(0)
	if o.Linearizable {
		index, err := p.ReadIndex(ctx)
		if err != nil {
			return false, err
		}
		least = index.End(isolation)
	}
	from, _, err := findOffset(ctx, view, o.From, isolation)
	if err != nil {
		return false, err
	}
	to := o.To
	if to.kind == specUnset {
		to = Latest
	}
	end, _, err := findOffset(ctx, view, to, isolation)
	if err != nil {
		return false, err
	}
	bounds, err := view.Bounds(ctx)
	if err != nil {
		return false, err
	}
	if to == Latest {
		end = max(end, least)
	}
	end = min(end, max(bounds.End(isolation), least))
	if from > end && o.From.kind != specOffset {
		return true, nil
	}
	wake := make(chan struct{}, 1)
	open := func(at int64) (*engine.Reader, error) {
		return p.OpenReader(at, &partition.ReaderOptions{Isolation: isolation}, func() {
			select {
			case wake <- struct{}{}:
			default:
			}
		})
	}
	r, err := open(from)
	if err != nil {
		return false, err
	}
	defer func() { r.Close() }()
	var records log.RecordReader
	var rec Record
	for r.Offset() < end {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		batch, err := r.TryNext()
		if errors.Is(err, io.EOF) {
			if !r.Remote() {
				return true, nil
			}
			select { // what lies below end is there, at the leader
			case <-wake:
			case <-ctx.Done():
			}
			continue
		}
		if r.Remote() && errors.Is(err, ErrNotLeader) { // this node leads by now
			r.Close()
			if r, err = open(r.Offset()); err != nil {
				return false, err
			}
			continue
		}
		// The way to an offset may lead past damage that lies wholly below it.
		if damage := (*CorruptionError)(nil); errors.As(err, &damage) && damage.EndOffset >= 0 && damage.EndOffset <= from {
			if _, err := r.Skip(); err != nil {
				return false, err
			}
			continue
		}
		if err == nil {
			err = records.Reset(batch, p.Config().MaxDecompressedBytes)
		}
		if err != nil {
			return false, err
		}
		for records.Next() {
			lr := records.Record()
			if lr.Offset < from {
				continue
			}
			if lr.Offset >= end {
				return true, nil
			}
			rec.setRead(topic, p.ID(), records.Header().LeaderEpoch, lr)
			if !yield(rec, nil) {
				return false, nil
			}
		}
		if err := records.Err(); err != nil {
			return false, err
		}
	}
	return true, nil
}
