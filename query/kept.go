package query

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/x/embedlog"
)

// kept is a store with the codec of its rows: what the task commits to a changelog and restores from it.
type kept interface {
	label() string
	// size is what has changed since the last commit, in bytes, roughly.
	size() int
	// changes appends the changed rows as records of the changelog.
	changes(recs []embedlog.Record, topic string, partition int32) ([]embedlog.Record, error)
	committed()
	// entries are the rows that take memory, deleted ones too.
	entries() int
	// count is how many rows there are.
	count() int
	// dump calls f for the rows of a version that is pinned, in the order of their keys. It holds the lock for some at a time, and says how long.
	dump(ctx context.Context, version uint64, held func(time.Duration), f func(key string, row []byte) error) error
	// toDisk has the rows in a RowStore, under keys that begin with a number. There are rows of them.
	toDisk(rows RowStore, number int, c *rowCache)
	resume(rows int64)
	// pending are rows of changelogs that the RowStore has not got yet, and how much that is.
	pending() []RowChange
	pendingSize() int
	// change is what a record of the changelog changes in the RowStore.
	change(rec *embedlog.Record) RowChange
	// flushed says that the RowStore has what was committed; evict has some of what is there, too, leave memory.
	flushed()
	evict()
	// expect makes room for rows, load takes some of a checkpoint, clear forgets what was taken.
	expect(rows int)
	load(b *block) error
	clear()
	// restore takes a record of the changelog; restored says that it was the last one.
	restore(rec *embedlog.Record) error
	restored()
}

// rowCodec is how a store's rows are written: their value, and headers.
type rowCodec[V any] struct {
	append func(dst []byte, v V) (value []byte, headers []embedlog.Header, err error)
	decode func(rec *embedlog.Record) (V, error)
}

// plain is a row that is a value.
func plain[V any](c Codec[V]) rowCodec[V] {
	return rowCodec[V]{
		func(dst []byte, v V) ([]byte, []embedlog.Header, error) {
			b, err := c.Append(dst, v)
			if b == nil {
				b = []byte{} // not a tombstone
			}
			return b, nil, err
		},
		func(rec *embedlog.Record) (V, error) { return c.Decode(rec.Value) },
	}
}

type keptStore[V any] struct {
	*store[V]
	codec rowCodec[V]
}

// newKept makes a store of a task.
func newKept[V any](b *builder, name string, c rowCodec[V]) *store[V] {
	s := newStore[V](name, &b.task.clock)
	b.task.stores = append(b.task.stores, &keptStore[V]{s, c})
	return s
}

func (k *keptStore[V]) label() string { return k.name }
func (k *keptStore[V]) size() int     { return k.bytes }
func (k *keptStore[V]) entries() int  { return len(k.rows) }
func (k *keptStore[V]) count() int    { return k.live }
func (k *keptStore[V]) expect(n int)  { k.reset(n) }
func (k *keptStore[V]) clear()        { k.reset(0) }

func (k *keptStore[V]) dump(ctx context.Context, version uint64, held func(time.Duration), f func(key string, row []byte) error) error {
	rows := storeRows[V, V]{k.store, same[V]}
	var some []row[V]
	var value, buf []byte
	for next := new(string); next != nil; {
		if err := ctx.Err(); err != nil {
			return err
		}
		k.c.RLock()
		began := time.Now()
		some, next = rows.page(some[:0], version, *next, "", page)
		held(time.Since(began))
		k.c.RUnlock()
		for _, r := range some {
			v, headers, err := k.codec.append(value[:0], r.val)
			if err != nil {
				return fmt.Errorf("encode a row of %s: %w", k.name, err)
			}
			value = v
			buf = appendRow(buf[:0], v, headers)
			if err := f(r.key, buf); err != nil {
				return err
			}
		}
	}
	return nil
}

func (k *keptStore[V]) load(b *block) error {
	var rec embedlog.Record
	last, _, any := k.order.Max()
	return b.each(func(key string, row []byte) error {
		if any && key <= last {
			return fmt.Errorf("%w: keys of %s are not in order", errCheckpoint, k.name)
		}
		last, any = key, true
		if err := readRow(&rec, row); err != nil {
			return fmt.Errorf("a row of %s: %w", k.name, err)
		}
		v, err := k.codec.decode(&rec)
		if err != nil {
			return fmt.Errorf("decode a row of %s: %w", k.name, err)
		}
		k.store.load(key, v)
		return nil
	})
}

func (k *keptStore[V]) changes(recs []embedlog.Record, topic string, partition int32) ([]embedlog.Record, error) {
	recs = slices.Grow(recs, len(k.changed))
	var values arena
	for _, e := range k.changed {
		rec := embedlog.Record{Topic: topic, Partition: partition, Key: rawOf(e.key)} // nobody writes to it
		if len(e.key) == 0 {
			rec.Key = []byte{} // not null
		}
		if e.is.there {
			value, headers, err := k.codec.append(values.room(), e.is.val)
			if err != nil {
				return nil, fmt.Errorf("encode a row of %s: %w", k.name, err)
			}
			rec.Value, rec.Headers = values.took(value), headers
		}
		if k.disk != nil {
			k.sized(e, len(rec.Value))
		}
		recs = append(recs, rec)
	}
	return recs, nil
}

func (k *keptStore[V]) toDisk(rows RowStore, number int, c *rowCache) {
	k.disk = &onDisk[V]{rows: rows, prefix: storePrefix(number), cache: c, decode: func(raw []byte) (v V, err error) {
		var rec embedlog.Record
		if err := readRow(&rec, raw); err != nil {
			return v, err
		}
		return k.codec.decode(&rec)
	}}
}

// storePrefix is what the keys of a store begin with in the task's RowStore. Zero is no store's.
func storePrefix(number int) [2]byte {
	return [2]byte{byte((number + 1) >> 7), byte((number + 1) & 0x7f)}
}

func (k *keptStore[V]) resume(rows int64) { k.live = int(rows) }

func (k *keptStore[V]) pending() []RowChange { return k.takePending() }

func (k *keptStore[V]) pendingSize() int {
	if k.disk == nil {
		return 0
	}
	return k.disk.pendingBytes
}

func (k *keptStore[V]) change(rec *embedlog.Record) RowChange { return k.disk.change(rec) }

func (k *keptStore[V]) restore(rec *embedlog.Record) error {
	if k.disk != nil {
		return k.replayed(rec)
	}
	var v V
	if rec.Value != nil {
		var err error
		if v, err = k.codec.decode(rec); err != nil {
			return fmt.Errorf("decode a row of %s: %w", k.name, err)
		}
	}
	k.store.restored(rec.Key, v, rec.Value != nil)
	return nil
}

func (k *keptStore[V]) restored() { k.sorted() }

// keyed is a row that carries its key: where rows are kept by another one.
type keyed[K, V any] struct {
	key K
	val V
}

// keyedCodec writes the key with its length before the value.
func keyedCodec[K, V any](key Codec[K], value Codec[V]) rowCodec[keyed[K, V]] {
	return rowCodec[keyed[K, V]]{
		func(dst []byte, r keyed[K, V]) ([]byte, []embedlog.Header, error) {
			k, err := key.Append(nil, r.key)
			if err != nil {
				return nil, nil, err
			}
			b, err := value.Append(appendPrefix(dst, k), r.val)
			return b, nil, err
		},
		func(rec *embedlog.Record) (r keyed[K, V], err error) {
			n, size := binary.Uvarint(rec.Value)
			if size <= 0 || n > uint64(len(rec.Value)-size) {
				return r, errKeyed
			}
			if r.key, err = key.Decode(rec.Value[size : size+int(n)]); err != nil {
				return r, err
			}
			r.val, err = value.Decode(rec.Value[size+int(n):])
			return r, err
		},
	}
}

var errKeyed = errors.New("query: invalid encoding of a row with its key")

// appendPrefix appends a key with its length before it: no key's is the beginning of another one's.
func appendPrefix(dst, key []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(key))), key...)
}
