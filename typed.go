package embedlog

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// TypedTopic is a topic whose keys and values have types. Make one with Typed.
type TypedTopic[K, V any] struct {
	// Topic is the topic below, for everything else.
	*Topic
	key   Codec[K]
	value Codec[V]
}

// TypedRecord is a record with its key and value decoded.
type TypedRecord[K, V any] struct {
	Key   K
	Value V // the zero value in a tombstone
	// Tombstone says that the record deletes its key.
	Tombstone bool
	Timestamp time.Time
	Headers   []Header
	Position  Position
}

// Typed gives the keys and values of a topic types.
//
//	orders := embedlog.Typed(topic, codec.String, codec.JSON[Order]{})
func Typed[K, V any](t *Topic, key Codec[K], value Codec[V]) *TypedTopic[K, V] {
	return &TypedTopic[K, V]{Topic: t, key: key, value: value}
}

// Produce appends one record, as Topic.Produce does.
func (t *TypedTopic[K, V]) Produce(ctx context.Context, key K, value V) (Position, error) {
	rec, err := t.Encode(key, value)
	if err != nil {
		return noPosition, err
	}
	return t.produceOne(ctx, rec)
}

// Delete appends a tombstone: in a compacted topic it deletes the key.
func (t *TypedTopic[K, V]) Delete(ctx context.Context, key K) (Position, error) {
	k, err := t.key.Append(nil, key)
	if err != nil {
		return noPosition, fmt.Errorf("produce to %s: encode the key: %w", t.name, err)
	}
	return t.produceOne(ctx, Record{Key: k})
}

func (t *TypedTopic[K, V]) produceOne(ctx context.Context, rec Record) (Position, error) {
	pos, err := t.Topic.Produce(ctx, rec)
	if err != nil {
		return noPosition, err
	}
	return pos[0], nil
}

// Encode makes a record, for whatever takes records: Producer.Send, Txn.Produce, or
// Topic.Produce for many at once.
func (t *TypedTopic[K, V]) Encode(key K, value V) (Record, error) {
	k, err := t.key.Append(nil, key)
	if err != nil {
		return Record{}, fmt.Errorf("produce to %s: encode the key: %w", t.name, err)
	}
	v, err := t.value.Append(nil, value)
	if err != nil {
		return Record{}, fmt.Errorf("produce to %s: encode the value: %w", t.name, err)
	}
	return Record{Topic: t.name, Key: k, Value: v}, nil
}

// Decode reads a record of the topic.
func (t *TypedTopic[K, V]) Decode(rec Record) (TypedRecord[K, V], error) {
	out := TypedRecord[K, V]{
		Tombstone: rec.Value == nil, Timestamp: rec.Timestamp, Headers: rec.Headers, Position: rec.Position(),
	}
	var err error
	if rec.Key != nil {
		if out.Key, err = t.key.Decode(rec.Key); err != nil {
			return out, fmt.Errorf("decode the key of %s/%d@%d: %w", rec.Topic, rec.Partition, rec.Offset, err)
		}
	}
	if rec.Value != nil {
		if out.Value, err = t.value.Decode(rec.Value); err != nil {
			return out, fmt.Errorf("decode the value of %s/%d@%d: %w", rec.Topic, rec.Partition, rec.Offset, err)
		}
	}
	return out, nil
}

// Scan is Topic.Scan, decoded.
func (t *TypedTopic[K, V]) Scan(ctx context.Context, o *ScanOptions) iter.Seq2[TypedRecord[K, V], error] {
	return t.Records(t.Topic.Scan(ctx, o))
}

// Records decodes what reads records, such as Consumer.Records of this topic. A
// record that cannot be decoded comes with its error and its position, and the
// next one follows.
func (t *TypedTopic[K, V]) Records(seq iter.Seq2[Record, error]) iter.Seq2[TypedRecord[K, V], error] {
	return func(yield func(TypedRecord[K, V], error) bool) {
		for rec, err := range seq {
			var out TypedRecord[K, V]
			if err == nil {
				out, err = t.Decode(rec)
			}
			if !yield(out, err) {
				return
			}
		}
	}
}
