package log

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/x/embedlog/compress"
)

// golden reads a batch that kafka-python encoded.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/batches/" + name + ".hex")
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.ReplaceAll(string(text), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// goldenRecords are the records of every golden batch.
func goldenRecords(base int64) []Record {
	return []Record{
		{Offset: base, Timestamp: 1700000000000, Key: []byte("ann"), Value: []byte("450"),
			Headers: []Header{{"source", []byte("web")}, {"empty", []byte{}}, {"null", nil}}},
		{Offset: base + 1, Timestamp: 1699999999950, Value: bytes.Repeat([]byte("ab"), 100)},
		{Offset: base + 2, Timestamp: 1700000005000, Key: []byte{}},
	}
}

// readBatch copies the records of a batch.
func readBatch(t testing.TB, batch []byte) []Record {
	t.Helper()
	var recs []Record
	for rec, err := range Batch(batch).Records(0) {
		if err != nil {
			t.Fatalf("record %d: %v", len(recs), err)
		}
		rec.Headers = append([]Header(nil), rec.Headers...)
		recs = append(recs, rec)
	}
	return recs
}

func TestGoldenBatches(t *testing.T) {
	for _, c := range []struct {
		name  string
		codec compress.Codec
	}{{"none", compress.None}, {"gzip", compress.Gzip}, {"snappy", compress.Snappy}, {"lz4", compress.LZ4}, {"zstd", compress.Zstd}} {
		b := golden(t, c.name)
		h, err := CheckBatch(b, Limits{})
		if err != nil {
			t.Errorf("%s: CheckBatch: %v", c.name, err)
			continue
		}
		want := BatchHeader{Length: int32(len(b) - 12), LeaderEpoch: h.LeaderEpoch, CRC: h.CRC, Attributes: Attributes(c.codec), LastOffsetDelta: 2,
			BaseTimestamp: 1700000000000, MaxTimestamp: 1700000005000, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, Count: 3}
		if h != want {
			t.Errorf("%s: header\ngot  %+v\nwant %+v", c.name, h, want)
		}
		if got := readBatch(t, b); !reflect.DeepEqual(got, goldenRecords(0)) {
			t.Errorf("%s: records\ngot  %+v\nwant %+v", c.name, got, goldenRecords(0))
		}
		plain, err := CompressBatch(nil, b, compress.None, 0)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(plain, golden(t, "none")) {
			t.Errorf("%s: uncompressed it is not the golden batch without compression\ngot  %x", c.name, plain)
		}
	}
}

// Our encoder makes the same bytes as another one.
func TestAppendBatchGolden(t *testing.T) {
	want := golden(t, "idempotent")
	h := BatchHeader{BaseOffset: 1000, LeaderEpoch: -1, Attributes: Transactional, ProducerID: 4096, ProducerEpoch: 7, BaseSequence: math.MaxInt32 - 1}
	want[12], want[13], want[14], want[15] = 0xff, 0xff, 0xff, 0xff // outside the checksum; clients differ
	got, err := AppendBatch([]byte("front"), &h, goldenRecords(1000))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[5:], want) || string(got[:5]) != "front" {
		t.Errorf("got  %x\nwant %x", got[5:], want)
	}
	if parsed, err := ParseBatchHeader(want); err != nil || parsed != h {
		t.Errorf("the header that AppendBatch left, %+v, is not the one that is encoded, %+v (%v)", h, parsed, err)
	}
	if h.LastOffset() != 1002 || h.LastSequence() != 0 || h.Size() != len(want) {
		t.Errorf("last offset %d, last sequence %d, size %d; want 1002, 0 (2^31-2, 2^31-1, 0), %d", h.LastOffset(), h.LastSequence(), h.Size(), len(want))
	}
}

// A commit marker with a delete horizon by hand, from the drawing in docs/format.md;
// the checksum is computed, bit by bit.
func TestBatchByHand(t *testing.T) {
	b := unhex(t, `
		0000000000000007 00000042 00000003 02 00000000 0070 00000000
		000000000000000a 0000000000000014 0000000000000001 0002 ffffffff 00000001
		20 00 14 00 08 0000 0001 0c 0000 00000009 00`)
	crc := ^uint32(0)
	for _, c := range b[21:] {
		crc ^= uint32(c)
		for range 8 {
			crc = crc>>1 ^ 0x82f63b78&-(crc&1)
		}
	}
	putCRC(b, ^crc)

	key, value := EndTxnMarker(true, 9)
	h := BatchHeader{BaseOffset: 7, LeaderEpoch: 3, Attributes: Transactional | Control | DeleteHorizon, BaseTimestamp: 10, ProducerID: 1, ProducerEpoch: 2, BaseSequence: -1}
	got, err := AppendBatch(nil, &h, []Record{{Timestamp: 20, Key: key, Value: value}})
	if err != nil || !bytes.Equal(got, b) {
		t.Errorf("%v\ngot  %x\nwant %x", err, got, b)
	}
	checked, err := CheckBatch(b, Limits{Stored: true, AllowControl: true})
	if err != nil || checked != h {
		t.Errorf("CheckBatch: %+v, %v\nwant %+v", checked, err, h)
	}
	if ms, ok := checked.DeleteHorizon(); ms != 10 || !ok {
		t.Errorf("DeleteHorizon = %d, %t", ms, ok)
	}
	recs := readBatch(t, b)
	if len(recs) != 1 || recs[0].Timestamp != 20 || recs[0].Offset != 7 {
		t.Fatalf("records %+v", recs)
	}
	if kind, epoch, err := ParseControl(&recs[0]); kind != ControlCommit || epoch != 9 || err != nil {
		t.Errorf("ParseControl = %v, %d, %v", kind, epoch, err)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLastSequence(t *testing.T) {
	for _, c := range []struct{ base, delta, want int32 }{
		{0, 0, 0}, {-1, 5, -1}, {10, 4, 14}, {math.MaxInt32, 0, math.MaxInt32}, {math.MaxInt32, 1, 0}, {math.MaxInt32 - 1, 3, 1},
	} {
		h := BatchHeader{BaseSequence: c.base, LastOffsetDelta: c.delta}
		if got := h.LastSequence(); got != c.want {
			t.Errorf("base %d, delta %d: got %d, want %d", c.base, c.delta, got, c.want)
		}
	}
}

// What may lie outside the checksum is patched without it; append time is not.
func TestPatch(t *testing.T) {
	b := golden(t, "zstd")
	SetBatchOffset(b, 1<<40, 12)
	if !VerifyBatchCRC(b) {
		t.Error("SetBatchOffset broke the checksum")
	}
	SetAppendTime(b, 1800000000000)
	h, err := CheckBatch(b, Limits{Stored: true})
	if err != nil {
		t.Fatal(err)
	}
	if h.BaseOffset != 1<<40 || h.LeaderEpoch != 12 || h.MaxTimestamp != 1800000000000 || h.BaseTimestamp != 1700000000000 || h.Attributes != AppendTime|4 {
		t.Errorf("header %+v", h)
	}
	for i, rec := range readBatch(t, b) {
		if rec.Offset != 1<<40+int64(i) || rec.Timestamp != 1800000000000 {
			t.Errorf("record %d: offset %d, timestamp %d", i, rec.Offset, rec.Timestamp)
		}
	}
	// Re-encoding keeps both.
	plain, err := CompressBatch(nil, b, compress.LZ4, 0)
	if err != nil {
		t.Fatal(err)
	}
	h2, err := CheckBatch(plain, Limits{Stored: true})
	if err != nil || h2.BaseOffset != 1<<40 || h2.LeaderEpoch != 12 || h2.Attributes != AppendTime|3 {
		t.Errorf("compressed again: %+v, %v", h2, err)
	}
}

func TestParseBatchHeaderRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(h *BatchHeader, b []byte)
		pos    int
	}{
		{"magic 1", func(_ *BatchHeader, b []byte) { b[16] = 1 }, 16},
		{"negative base offset", func(h *BatchHeader, _ []byte) { h.BaseOffset = -1 }, 0},
		{"offsets past 2^63-1", func(h *BatchHeader, _ []byte) { h.BaseOffset = math.MaxInt64 - 1 }, 0},
		{"length below the header", func(h *BatchHeader, _ []byte) { h.Length = 48 }, 8},
		{"negative length", func(h *BatchHeader, _ []byte) { h.Length = -1 }, 8},
		{"size past 2^31-1", func(h *BatchHeader, _ []byte) { h.Length = math.MaxInt32 - 11 }, 8},
		{"negative last offset delta", func(h *BatchHeader, _ []byte) { h.LastOffsetDelta = -1 }, 23},
		{"negative count", func(h *BatchHeader, _ []byte) { h.Count = -1 }, 57},
		{"more records than offsets", func(h *BatchHeader, _ []byte) { h.Count = 4 }, 57},
		{"more records than bytes", func(h *BatchHeader, _ []byte) { h.Count, h.LastOffsetDelta = 1000, 999 }, 57},
		{"producer id -2", func(h *BatchHeader, _ []byte) { h.ProducerID = -2 }, 43},
	} {
		b := golden(t, "none")
		h, err := ParseBatchHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		c.change(&h, b)
		if magic := b[16]; magic == 2 {
			h.Put(b)
		}
		wantBadBatch(t, c.name, parseErr(b), c.pos)
		wantBadBatch(t, c.name+", checked", checkErr(b, Limits{Stored: true}), c.pos)
	}
	for n := range BatchHeaderLen {
		wantBadBatch(t, "cut off", parseErr(golden(t, "none")[:n]), n)
	}
}

func parseErr(b []byte) error {
	_, err := ParseBatchHeader(b)
	return err
}

func checkErr(b []byte, lim Limits) error {
	_, err := CheckBatch(b, lim)
	return err
}

// wantBadBatch wants a *BadBatchError at pos; -1 is any.
func wantBadBatch(t testing.TB, name string, err error, pos int) {
	t.Helper()
	var bad *BadBatchError
	if !errors.As(err, &bad) || !errors.Is(err, ErrBadBatch) {
		t.Errorf("%s: %v, want a *BadBatchError", name, err)
		return
	}
	if pos >= 0 && bad.Position != pos {
		t.Errorf("%s: %v, want byte %d", name, err, pos)
	}
}
