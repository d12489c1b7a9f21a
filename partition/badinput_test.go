package partition

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"runtime"
	"testing"

	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// What a client may send: each is refused with an error that says what is wrong, in
// bounded memory, nothing of it is in the log, and the log goes on.
func TestBadInput(t *testing.T) {
	const maxBatch = 4 << 10
	ctx := context.Background()
	encode := func(recs ...log.Record) []byte {
		h := log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
		b, err := log.AppendBatch(nil, &h, recs)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := encode(log.Record{Key: []byte("k"), Value: []byte("v"), Timestamp: 1000})
	// patched changes a field and makes the checksum right again.
	patched := func(b []byte, at int, field ...byte) []byte {
		b = bytes.Clone(b)
		copy(b[at:], field)
		binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
		return b
	}
	bomb := func(codec compress.Codec) []byte {
		b, err := log.CompressBatch(nil, encode(log.Record{Key: []byte("k"), Value: make([]byte, 8<<20)}), codec, 0)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	crc := bytes.Clone(good)
	crc[17]++
	batch := func(b []byte) func(p *Partition) error {
		return func(p *Partition) error { _, err := p.AppendBatch(ctx, b, nil); return err }
	}
	records := func(recs ...log.Record) func(p *Partition) error {
		return func(p *Partition) error { _, err := p.Append(ctx, recs, nil); return err }
	}
	fetch := func(q FetchRequest) func(p *Partition) error {
		return func(p *Partition) error { _, err := p.Fetch(ctx, q); return err }
	}
	read := func(offset int64) func(p *Partition) error {
		return func(p *Partition) error { _, err := p.ReadFrom(offset, nil); return err }
	}
	for _, c := range []struct {
		name string
		do   func(p *Partition) error
		want error
	}{
		{"nothing", batch(nil), log.ErrBadBatch},
		{"cut off in the header", batch(good[:60]), log.ErrBadBatch},
		{"cut off in the records", batch(good[:len(good)-1]), log.ErrBadBatch},
		{"bytes behind the batch", batch(append(bytes.Clone(good), 0)), log.ErrBadBatch},
		{"two batches", batch(append(bytes.Clone(good), good...)), log.ErrBadBatch},
		{"magic 0", batch(patched(good, 16, 0)), log.ErrBadBatch},
		{"magic 1", batch(patched(good, 16, 1)), log.ErrBadBatch},
		{"magic 3", batch(patched(good, 16, 3)), log.ErrBadBatch},
		{"wrong checksum", batch(crc), log.ErrBadBatch},
		{"length -1", batch(patched(good, 8, 255, 255, 255, 255)), log.ErrBadBatch},
		{"length 2^31-1", batch(patched(good, 8, 127, 255, 255, 255)), log.ErrBadBatch},
		{"length one less", batch(patched(good, 11, good[11]-1)), log.ErrBadBatch},
		{"codec 7", batch(patched(good, 21, 0, 7)), log.ErrBadBatch},
		{"a codec that it is not in", batch(patched(good, 21, 0, byte(compress.Zstd))), log.ErrBadBatch},
		{"a control batch", batch(patched(good, 21, 0, 0x20)), log.ErrBadBatch},
		{"last offset delta -1", batch(patched(good, 23, 255, 255, 255, 255)), log.ErrBadBatch},
		{"last offset delta 2^31-1", batch(patched(good, 23, 127, 255, 255, 255)), log.ErrBadBatch},
		{"count -1", batch(patched(good, 57, 255, 255, 255, 255)), log.ErrBadBatch},
		{"count 2^31-1", batch(patched(good, 57, 127, 255, 255, 255)), log.ErrBadBatch},
		{"count 0", batch(patched(good, 57, 0, 0, 0, 0)), log.ErrBadBatch},
		{"a record of length 2^28", batch(patched(good, 61, 255, 255, 255, 255, 1)), log.ErrBadBatch},
		{"a producer without sequence", batch(patched(good, 43, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0)), log.ErrBadBatch},
		{"gzip bomb", batch(bomb(compress.Gzip)), log.ErrBadBatch},
		{"snappy bomb", batch(bomb(compress.Snappy)), ErrRecordTooLarge}, // it compresses to a twentieth only
		{"lz4 bomb", batch(bomb(compress.LZ4)), ErrRecordTooLarge},
		{"zstd bomb", batch(bomb(compress.Zstd)), log.ErrBadBatch},
		{"a batch over the limit", batch(encode(log.Record{Key: []byte("k"), Value: make([]byte, maxBatch)})), ErrRecordTooLarge},
		{"a batch without a key", batch(encode(log.Record{Value: []byte("v")})), ErrInvalidRecord},
		{"no records", records(), ErrInvalidRecord},
		{"a record without a key", records(log.Record{Value: []byte("v")}), ErrInvalidRecord},
		{"a record over the limit", records(log.Record{Key: []byte("k"), Value: make([]byte, maxBatch)}), ErrRecordTooLarge},
		{"a header over the limit", records(log.Record{Key: []byte("k"), Headers: []log.Header{{Key: "h", Value: make([]byte, maxBatch)}}}), ErrRecordTooLarge},
		{"fetch from -1", fetch(FetchRequest{Offset: -1}), ErrOffsetOutOfRange},
		{"fetch from 2", fetch(FetchRequest{Offset: 2}), ErrOffsetOutOfRange},
		{"fetch from the largest offset", fetch(FetchRequest{Offset: math.MaxInt64}), ErrOffsetOutOfRange},
		{"fetch from the smallest offset", fetch(FetchRequest{Offset: math.MinInt64}), ErrOffsetOutOfRange},
		{"read from -1", read(-1), ErrOffsetOutOfRange},
		{"read from the largest offset", read(math.MaxInt64), ErrOffsetOutOfRange},
		{"delete up to 2", func(p *Partition) error { _, err := p.DeleteRecords(ctx, 2); return err }, ErrOffsetOutOfRange},
		{"delete up to -2", func(p *Partition) error { _, err := p.DeleteRecords(ctx, -2); return err }, ErrOffsetOutOfRange},
		{"a marker of producer -1", func(p *Partition) error { _, err := p.EndTransaction(ctx, -1, 0, true, 0, false); return err }, ErrInvalidTxnState},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := vfs.NewMem()
			cfg := Config{MaxBatchBytes: maxBatch, MaxDecompressedBytes: 1 << 20, RequireKeys: true}
			if c.want == log.ErrBadBatch {
				cfg.MaxBatchBytes = 64 << 10 // the bombs are small enough to come in
			}
			p := openTest(t, fs, cfg)
			if _, err := p.Append(ctx, record("first"), nil); err != nil {
				t.Fatal(err)
			}
			var m0, m1 runtime.MemStats
			runtime.ReadMemStats(&m0)
			err := c.do(p)
			runtime.ReadMemStats(&m1)
			if err == nil || !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if n := m1.TotalAlloc - m0.TotalAlloc; n > 24<<20 {
				t.Errorf("%d bytes were allocated", n)
			}
			if end := p.LogEnd(); end != 1 {
				t.Errorf("the log ends at %d", end)
			}
			if _, err := p.Append(ctx, record("last"), nil); err != nil {
				t.Fatal(err)
			}
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			p = openTest(t, fs, cfg)
			if got := readAll(t, p, ReadCommitted); len(got) != 2 || got[0] != "first" || got[1] != "last" {
				t.Fatalf("the log holds %q", got)
			}
		})
	}
}

// Sizes below zero in a fetch are those of a caller who does not care.
func TestFetchSizes(t *testing.T) {
	p := openTest(t, vfs.NewMem(), Config{})
	ctx := context.Background()
	if _, err := p.Append(ctx, record("v"), nil); err != nil {
		t.Fatal(err)
	}
	for _, q := range []FetchRequest{{MaxBytes: -1}, {MaxBytes: 1}, {MaxBytes: math.MaxInt}, {MinBytes: -1}, {MinBytes: math.MaxInt, MaxWait: -1}, {MinBytes: math.MaxInt}, {MinBytes: math.MaxInt, MaxWait: 1}} {
		res, err := p.Fetch(ctx, q)
		if err != nil || len(res.Batches) != 1 || res.Next != 1 {
			t.Errorf("fetch %+v: %+v, %v", q, res, err)
		}
	}
}
