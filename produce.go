package embedlog

import (
	"context"
	"fmt"
	"sync"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Produce appends records: those with a key to the key's partition, the others
// together to one that is chosen so that all partitions get the same share. It
// returns where each is, in the order given, when all are acknowledged, which
// means what the topic's Durability says.
//
// Records of one partition that fit MaxRecordBytes together are one batch, and
// written all or none. More of them, or several partitions, are several batches:
// if some of those fail, the error is a *ProduceError that says which records are
// written, and the positions of the others have the offset -1.
//
// A context that is cancelled before the records were taken has written nothing,
// and the error is the context's. Later, it matches ErrUnknownOutcome, and
// *UnknownOutcomeError names the offsets.
func (t *Topic) Produce(ctx context.Context, recs ...Record) ([]Position, error) {
	top, err := t.writable()
	if err != nil {
		return nil, fmt.Errorf("produce to %s: %w", t.name, err)
	}
	if err := checkTopics(recs, t.name); err != nil {
		return nil, err
	}
	parts := top.Partitions()
	switch {
	case len(recs) == 1:
		return t.produceOne(ctx, parts, &recs[0])
	case len(parts) == 1:
		return t.produceTo(ctx, top, 0, recs, nil)
	}
	return t.produceSpread(ctx, top, recs)
}

// ProduceTo is Produce to one partition, whatever the keys.
func (t *Topic) ProduceTo(ctx context.Context, partition int32, recs ...Record) ([]Position, error) {
	top, err := t.writable()
	if err != nil {
		return nil, fmt.Errorf("produce to %s: %w", t.name, err)
	}
	if err := checkTopics(recs, t.name); err != nil {
		return nil, err
	}
	return t.produceTo(ctx, top, partition, recs, nil)
}

// ProduceAt is ProduceTo if the first record gets the offset expected, and a
// *UnexpectedOffsetError that has written nothing otherwise: of several that read
// up to the same offset and decide what to append, one wins. The records are one
// batch, and must fit MaxRecordBytes together.
func (t *Topic) ProduceAt(ctx context.Context, partitionID int32, expected int64, recs ...Record) ([]Position, error) {
	top, err := t.writable()
	if err != nil {
		return nil, fmt.Errorf("produce to %s: %w", t.name, err)
	}
	if err := checkTopics(recs, t.name); err != nil {
		return nil, err
	}
	return t.produceTo(ctx, top, partitionID, recs, &partition.AppendOptions{Expect: true, ExpectedOffset: expected})
}

// checkTopics refuses records that name another topic than the one they go to.
func checkTopics(recs []Record, name string) error {
	for i := range recs {
		if r := &recs[i]; r.Topic != "" && r.Topic != name {
			return fmt.Errorf("produce to %s: %w", name, &InvalidRecordError{Records: []InvalidRecord{{
				Index: i, Reason: fmt.Sprintf("it names the topic %q", r.Topic),
			}}})
		}
	}
	return nil
}

// partitionOf is the partition of one record.
func (t *Topic) partitionOf(r *Record, partitions int) int32 {
	if r.Key != nil {
		return KeyPartition(r.Key, partitions)
	}
	return t.sticky.next(recordBytes(r), partitions)
}

// produceOne is Produce of one record, the most common call. Budget: 40 ns over the
// append, and one allocation, the position.
func (t *Topic) produceOne(ctx context.Context, parts []*engine.Partition, r *Record) ([]Position, error) {
	id := int32(0)
	if len(parts) > 1 {
		id = t.partitionOf(r, len(parts))
	}
	now := int64(0)
	if r.Timestamp.IsZero() {
		now = t.db.nowMillis()
	}
	var recs [1]log.Record
	setProduced(&recs[0], r, now)
	p := parts[id]
	var res partition.Result
	var err error
	done := false
	if p.CanTry() {
		if res, done, err = p.TryAppend(ctx, recs[:]); err != nil {
			var again bool
			if again, err = p.Tried(err); !again {
				return nil, err
			}
			done = false
		}
	}
	if !done {
		b := getProduceBuffer(1) // who shares a group with others must not lie on the stack
		b.recs[0] = recs[0]
		res, err = p.Append(ctx, b.recs, nil)
		b.put()
		if err != nil {
			return nil, err
		}
	}
	return []Position{{Topic: t.name, Partition: id, LeaderEpoch: p.LeaderEpoch(), Offset: res.BaseOffset}}, nil
}

// produceTo appends recs to one partition, with o as one batch and without it in
// as many as it takes.
func (t *Topic) produceTo(ctx context.Context, top *engine.Topic, id int32, recs []Record, o *partition.AppendOptions) ([]Position, error) {
	p, err := top.Partition(id)
	if err != nil {
		return nil, fmt.Errorf("produce to %s: %w", t.name, err)
	}
	if len(recs) == 0 {
		return nil, ctx.Err()
	}
	b := getProduceBuffer(len(recs))
	defer b.put()
	now := int64(0)
	bytes := 0
	for i := range recs {
		r := &recs[i]
		if now == 0 && r.Timestamp.IsZero() {
			now = t.db.nowMillis()
		}
		setProduced(&b.recs[i], r, now)
		bytes += recordBytes(r)
	}
	if o == nil && len(recs) > 1 && bytes > p.Config().MaxBatchBytes-log.BatchHeaderLen {
		shares := []share{{p: p, end: len(recs), bytes: bytes}}
		return appendShares(ctx, t.name, shares, b.recs, nil)
	}
	res, err := p.Append(ctx, b.recs, o)
	if err != nil {
		return nil, err
	}
	out := make([]Position, len(recs))
	epoch := p.LeaderEpoch()
	for i := range out {
		out[i] = Position{Topic: t.name, Partition: id, LeaderEpoch: epoch, Offset: res.BaseOffset + int64(i)}
	}
	return out, nil
}

// produceSpread appends each record to the partition of its key.
//
// The records are sorted by partition, by counting, so that each partition's lie
// side by side in the order given.
func (t *Topic) produceSpread(ctx context.Context, top *engine.Topic, recs []Record) ([]Position, error) {
	if len(recs) == 0 {
		return nil, ctx.Err()
	}
	parts := top.Partitions()
	b := getProduceBuffer(len(recs))
	defer b.put()
	shares := make([]share, len(parts))
	count, bytes := 0, 0 // without a key
	for i := range recs {
		r := &recs[i]
		if r.Key == nil {
			b.where[i] = -1
			count++
			bytes += recordBytes(r)
			continue
		}
		w := KeyPartition(r.Key, len(parts))
		b.where[i] = w
		shares[w].end++
		shares[w].bytes += recordBytes(r)
	}
	keyless := int32(0)
	if count > 0 {
		keyless = t.sticky.next(bytes, len(parts))
		shares[keyless].end += count
		shares[keyless].bytes += bytes
	}
	start := 0
	for i := range shares {
		s := &shares[i]
		n := s.end
		s.p, s.start, s.end = parts[i], start, start
		start += n
	}
	now := int64(0)
	for i := range recs {
		r := &recs[i]
		if now == 0 && r.Timestamp.IsZero() {
			now = t.db.nowMillis()
		}
		w := b.where[i]
		if w < 0 {
			w = keyless
		}
		s := &shares[w]
		setProduced(&b.recs[s.end], r, now)
		b.order[s.end] = int32(i)
		s.end++
	}
	return appendShares(ctx, t.name, shares, b.recs, b.order)
}

// produceBuffer is the memory that a call of Produce needs and gives back.
type produceBuffer struct {
	recs  []log.Record
	where []int32 // the partition of each record, in the caller's order
	order []int32 // the caller's index of each of recs
}

var produceBuffers = sync.Pool{New: func() any { return new(produceBuffer) }}

// keptRecords bounds what a produceBuffer keeps for the next call.
const keptRecords = 16 << 10

func getProduceBuffer(n int) *produceBuffer {
	b := produceBuffers.Get().(*produceBuffer)
	if cap(b.recs) < n {
		b.recs, b.where, b.order = make([]log.Record, n), make([]int32, n), make([]int32, n)
	}
	b.recs, b.where, b.order = b.recs[:n], b.where[:n], b.order[:n]
	return b
}

func (b *produceBuffer) put() {
	if cap(b.recs) > keptRecords {
		return
	}
	clear(b.recs) // they would keep the caller's bytes alive
	produceBuffers.Put(b)
}
