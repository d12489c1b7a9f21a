package log

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"testing"

	"github.com/x/embedlog/compress"
)

// batchOf is a batch with a right checksum over any bytes at all.
func batchOf(h BatchHeader, records []byte) []byte {
	b := append(make([]byte, BatchHeaderLen), records...)
	h.Length = int32(len(b) - batchOverhead)
	h.Put(b)
	binary.BigEndian.PutUint32(b[posCRC:], crc32c(b[posAttributes:]))
	return b
}

func plainHeader(count int32) BatchHeader {
	return BatchHeader{LastOffsetDelta: count - 1, BaseTimestamp: 1000, MaxTimestamp: 1000, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, Count: count}
}

// Every way in which the header can lie although the checksum is right.
func TestCheckBatchHeader(t *testing.T) {
	good := unhex(t, "0c 00 00 00 01 01 00") // length 6, no key, no value
	for _, c := range []struct {
		name   string
		change func(*BatchHeader)
		lim    Limits
		pos    int // -1: allowed
	}{
		{"as it should be", func(h *BatchHeader) {}, Limits{}, -1},
		{"unknown attribute", func(h *BatchHeader) { h.Attributes = 1 << 7 }, Limits{}, 21},
		{"unknown attribute in the high byte", func(h *BatchHeader) { h.Attributes = 1 << 15 }, Limits{Stored: true}, 21},
		{"codec 5", func(h *BatchHeader) { h.Attributes = 5 }, Limits{}, 21},
		{"append time", func(h *BatchHeader) { h.Attributes = AppendTime }, Limits{}, 21},
		{"append time, stored", func(h *BatchHeader) { h.Attributes, h.MaxTimestamp = AppendTime, 5 }, Limits{Stored: true}, -1},
		{"delete horizon", func(h *BatchHeader) { h.Attributes = DeleteHorizon }, Limits{}, 21},
		{"delete horizon, stored", func(h *BatchHeader) { h.Attributes = DeleteHorizon }, Limits{Stored: true}, -1},
		{"control", func(h *BatchHeader) { h.Attributes = Control }, Limits{}, 21},
		{"control without a type", func(h *BatchHeader) { h.Attributes = Control }, Limits{AllowControl: true}, 61},
		{"control, compressed", func(h *BatchHeader) { h.Attributes = Control | 1 }, Limits{AllowControl: true}, 21},
		{"transactional without a producer", func(h *BatchHeader) { h.Attributes = Transactional }, Limits{}, 43},
		{"transactional", func(h *BatchHeader) { *h = withProducer(*h, 5, 0, 0); h.Attributes = Transactional }, Limits{}, -1},
		{"producer without epoch", func(h *BatchHeader) { *h = withProducer(*h, 5, -1, 0) }, Limits{}, 51},
		{"producer without sequence", func(h *BatchHeader) { *h = withProducer(*h, 5, 0, -1) }, Limits{}, 53},
		{"producer without sequence, stored", func(h *BatchHeader) { *h = withProducer(*h, 5, 0, -1) }, Limits{Stored: true}, 53},
		{"transactional without sequence", func(h *BatchHeader) { *h = withProducer(*h, 5, 0, -1); h.Attributes = Transactional }, Limits{}, 53},
		{"transactional without sequence, stored", func(h *BatchHeader) { *h = withProducer(*h, 5, 0, -1); h.Attributes = Transactional }, Limits{Stored: true}, -1},
		{"no producer, and epoch and sequence 0", func(h *BatchHeader) { *h = withProducer(*h, -1, 0, 0) }, Limits{}, -1},
		{"no records", func(h *BatchHeader) { h.Count = 0 }, Limits{}, 57},
		{"offsets for more records", func(h *BatchHeader) { h.LastOffsetDelta = 1 }, Limits{}, 23},
		{"offsets for more records, stored", func(h *BatchHeader) { h.LastOffsetDelta = 1 }, Limits{Stored: true}, -1},
		{"maximum timestamp too large", func(h *BatchHeader) { h.MaxTimestamp = 1001 }, Limits{}, 35},
		{"maximum timestamp too small", func(h *BatchHeader) { h.MaxTimestamp = 999 }, Limits{Stored: true}, 35},
		{"maximum timestamp put right", func(h *BatchHeader) { h.MaxTimestamp = 999 }, Limits{FixMaxTimestamp: true}, -1},
		{"larger than the limit", func(h *BatchHeader) {}, Limits{MaxBatchBytes: 67}, 8},
		{"as large as the limit", func(h *BatchHeader) {}, Limits{MaxBatchBytes: 68}, -1},
		{"more bytes of records than the limit", func(h *BatchHeader) {}, Limits{MaxDecompressedBytes: 6}, 8},
	} {
		h := plainHeader(1)
		c.change(&h)
		b := batchOf(h, good)
		got, err := CheckBatch(b, c.lim)
		if c.pos >= 0 {
			wantBadBatch(t, c.name, err, c.pos)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if parsed, err := ParseBatchHeader(b); err != nil || parsed != got || !VerifyBatchCRC(b) {
			t.Errorf("%s: CheckBatch returns %+v, the batch says %+v, checksum right %t", c.name, got, parsed, VerifyBatchCRC(b))
		}
	}
}

func withProducer(h BatchHeader, id int64, epoch int16, sequence int32) BatchHeader {
	h.ProducerID, h.ProducerEpoch, h.BaseSequence = id, epoch, sequence
	return h
}

// Every way in which records can lie. The position is that of the record.
func TestCheckBatchRecords(t *testing.T) {
	const record = "0c 00 00 00 01 01 00 " // offset delta 0; behind it stands delta 1:
	for _, c := range []struct {
		name    string
		count   int32
		records string
		pos     int // in the records; -1: fine
	}{
		{"two", 2, record + "0c 00 00 02 01 01 00", -1},
		{"a delta twice", 2, record + "0c 00 00 00 01 01 00", 7},
		{"a delta left out", 2, record + "0c 00 00 04 01 01 00", 7},
		{"a negative delta", 1, "0c 00 00 01 01 01 00", 0},
		{"bytes behind", 1, record + "00", 7},
		{"a record behind", 1, record + "0c 00 00 02 01 01 00", 7},
		{"one record fewer", 2, record + "00 00 00 00 00 00 00", 7},
		{"record cut off", 2, record + "10 00 00 02 01 01 02 00", 7},
		{"record length past the end", 1, "0e 00 00 00 01 01 00", 0},
		{"record length of less than a record", 1, "0a 00 00 00 01 01 00", 0},
		{"record length negative", 1, "01 00 00 00 01 01 00", 0},
		{"record length of 2^31", 1, "80 80 80 80 10 00 00 00 01 01 00", 0},
		{"record length of 6 bytes", 1, "8c 80 80 80 80 00 00 00 00 01 01 00", 0},
		{"record length of more than 32 bits", 1, "8c 80 80 80 70 00 00 00 01 01 00", 0},
		{"record length with needless zeros", 1, "8c 80 80 00 00 00 00 01 01 00", -1},
		{"record longer than its fields", 1, "0e 00 00 00 01 01 00 00", 0},
		{"key past the end", 1, "0c 00 00 00 20 01 00", 0},
		{"key length -2", 1, "0c 00 00 00 03 01 00", 0},
		{"key length of 2^31-1", 1, "14 00 00 00 fe ff ff ff 0f 01 00", 0},
		{"key length of -2^31", 1, "14 00 00 00 ff ff ff ff 0f 01 00", 0},
		{"empty key", 1, "0c 00 00 00 00 01 00", -1},
		{"value past the end", 1, "0c 00 00 00 01 04 00", 0},
		{"value length -2", 1, "0c 00 00 00 01 03 00", 0},
		{"value length is cut off", 1, "0c 00 00 00 01 81 81", 0},
		{"value length is cut off after one", 1, "0c 00 00 00 01 00 81", 0},
		{"no header count", 1, "0e 00 00 00 01 04 61 62", 0},
		{"negative header count", 1, "0c 00 00 00 01 01 01", 0},
		{"header count of 2^31-1", 1, "14 00 00 00 01 01 fe ff ff ff 0f", 0},
		{"header", 1, "10 00 00 00 01 01 02 00 01", -1},
		{"header cut off", 1, "0e 00 00 00 01 01 02 00", 0},
		{"header with a null key", 1, "10 00 00 00 01 01 02 01 01", 0},
		{"header key past the end", 1, "10 00 00 00 01 01 02 04 01", 0},
		{"header value past the end", 1, "10 00 00 00 01 01 02 00 02", 0},
		{"header value length -2", 1, "10 00 00 00 01 01 02 00 03", 0},
		{"bytes behind the headers", 1, "12 00 00 00 01 01 02 00 01 00", 0},
		{"timestamp of eleven bytes", 1, "20 00 80 80 80 80 80 80 80 80 80 80 00 00 01 01 00", 0},
		{"timestamp of more than 64 bits", 1, "1e 00 80 80 80 80 80 80 80 80 80 02 00 01 01 00", 0},
		{"offset delta of six bytes", 1, "16 00 00 80 80 80 80 80 00 01 01 00", 0},
	} {
		b := batchOf(plainHeader(c.count), unhex(t, c.records))
		for _, form := range []string{"as it is", "compressed"} {
			place := c.pos + BatchHeaderLen
			if form == "compressed" {
				packed, err := compress.Encode(nil, b[BatchHeaderLen:], compress.Snappy, 0)
				if err != nil {
					t.Fatal(err)
				}
				h := plainHeader(c.count)
				h.Attributes = Attributes(compress.Snappy)
				b, place = batchOf(h, packed), c.pos
			}
			err := checkErr(b, Limits{})
			if c.pos < 0 {
				if err != nil {
					t.Errorf("%s, %s: %v", c.name, form, err)
				}
				continue
			}
			wantBadBatch(t, c.name+", "+form, err, place)
			if c.name == "a delta left out" {
				continue // what compaction leaves is no fault to a reader
			}
			if err := readErr(b); !errors.Is(err, ErrBadBatch) {
				t.Errorf("%s, %s: a reader finds no fault: %v", c.name, form, err)
			}
		}
	}
}

func readErr(b []byte) (err error) {
	for _, err = range Batch(b).Records(0) {
	}
	return err
}

// Every flipped bit of a batch is seen, except in what the checksum leaves out.
func TestCheckBatchFlippedBits(t *testing.T) {
	for _, name := range []string{"none", "zstd"} {
		good := golden(t, name)
		for i := range good {
			if i < posLength || i >= posLeaderEpoch && i < posMagic {
				continue
			}
			for bit := range 8 {
				b := bytes.Clone(good)
				b[i] ^= 1 << bit
				if err := checkErr(b, Limits{Stored: true, AllowControl: true, FixMaxTimestamp: true}); !errors.Is(err, ErrBadBatch) {
					t.Errorf("%s: byte %d bit %d flipped: %v", name, i, bit, err)
				}
			}
		}
		for n := range good {
			wantBadBatch(t, name+" cut off", checkErr(good[:n], Limits{}), -1)
		}
		wantBadBatch(t, name+" and a byte", checkErr(append(bytes.Clone(good), 0), Limits{}), 8)
	}
}

func TestCheckBatchKeys(t *testing.T) {
	_, err := CheckBatch(golden(t, "lz4"), Limits{RequireKeys: true})
	var bad *BadRecordsError
	if !errors.As(err, &bad) || !errors.Is(err, ErrBadBatch) || !reflect.DeepEqual(bad.Indexes, []int{1}) {
		t.Errorf("got %v, want a *BadRecordsError for record 1", err)
	}
	if err := checkErr(golden(t, "none"), Limits{MaxHeaders: 2}); !errors.Is(err, ErrBadBatch) {
		t.Errorf("three headers where two are allowed: %v", err)
	}
	if err := checkErr(golden(t, "none"), Limits{MaxHeaders: 3}); err != nil {
		t.Errorf("three headers where three are allowed: %v", err)
	}
}

// A small batch cannot make the check or a reader take more than the bound.
func TestBatchBombs(t *testing.T) {
	const limit = 1 << 20
	zeros := make([]byte, 32<<20)
	for codec := compress.Gzip; codec <= compress.Zstd; codec++ {
		packed, err := compress.Encode(nil, zeros, codec, 0)
		if err != nil {
			t.Fatal(err)
		}
		h := plainHeader(1 << 20)
		h.Attributes = Attributes(codec)
		b := batchOf(h, packed)
		got := bytesTaken(func() { err = checkErr(b, Limits{MaxBatchBytes: -1, MaxDecompressedBytes: limit}) })
		if !errors.Is(err, ErrBadBatch) || !errors.Is(err, compress.ErrTooLarge) {
			t.Errorf("%v: %v, want a *BadBatchError of an ErrTooLarge", codec, err)
		}
		got = max(got, bytesTaken(func() {
			var r RecordReader
			err = r.Reset(b, limit)
		}))
		if !errors.Is(err, compress.ErrTooLarge) {
			t.Errorf("%v: a reader: %v, want ErrTooLarge", codec, err)
		}
		if got > 2*limit+64<<10+1<<20 { // 1 MiB of tables, once
			t.Errorf("%v: %d bytes taken", codec, got)
		}
	}
	// 2^31-1 headers are claimed, none is there.
	b := batchOf(plainHeader(1), unhex(t, "14 00 00 00 01 01 fe ff ff ff 0f"))
	if got := bytesTaken(func() { readErr(b) }); got > 64<<10 {
		t.Errorf("a count of headers: %d bytes taken", got)
	}
}

func bytesTaken(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestCheckBatchAllocs(t *testing.T) {
	for _, name := range []string{"none", "snappy", "lz4", "zstd"} {
		b := golden(t, name)
		if n := testing.AllocsPerRun(200, func() {
			if err := checkErr(b, Limits{}); err != nil {
				t.Fatal(err)
			}
		}); n >= 1 && !underRace {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// Whatever CheckBatch accepts, a reader reads to the end, and what it reads is
// encoded to a batch that says the same.
func FuzzCheckBatch(f *testing.F) {
	for _, name := range []string{"none", "gzip", "snappy", "lz4", "zstd", "idempotent"} {
		f.Add(golden(f, name), true)
	}
	key, value := EndTxnMarker(true, 1)
	h := BatchHeader{Attributes: Control | Transactional, BaseSequence: -1}
	marker, err := AppendBatch(nil, &h, []Record{{Key: key, Value: value}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(marker, true)
	f.Add(batchOf(BatchHeader{LastOffsetDelta: 5, ProducerID: -1}, nil), true)
	f.Add(batchOf(plainHeader(1), []byte{0x10, 0, 0, 0, 1, 1, 2, 0, 1}), false)
	f.Fuzz(func(t *testing.T, b []byte, stored bool) {
		if len(b) > BatchHeaderLen { // a fuzzer does not find checksums
			binary.BigEndian.PutUint32(b[posLength:], uint32(len(b)-batchOverhead))
			putCRC(b, crc32c(b[posAttributes:]))
		}
		lim := Limits{Stored: stored, AllowControl: true, FixMaxTimestamp: true, MaxDecompressedBytes: 1 << 20}
		h, err := CheckBatch(b, lim)
		if err != nil {
			if !errors.Is(err, ErrBadBatch) {
				t.Fatalf("an error that is no *BadBatchError: %v", err)
			}
			return
		}
		recs := readBatch(t, b)
		if len(recs) != int(h.Count) {
			t.Fatalf("%d records, the header counts %d", len(recs), h.Count)
		}
		again := h
		encoded, err := AppendBatchAt(nil, &again, recs)
		if err != nil {
			t.Fatal(err)
		}
		lim.Stored = true
		h2, err := CheckBatch(encoded, lim)
		if err != nil {
			t.Fatalf("encoded again: %v", err)
		}
		if back := readBatch(t, encoded); !reflect.DeepEqual(back, recs) {
			t.Fatalf("encoded again\ngot  %+v\nwant %+v", back, recs)
		}
		if h2.LastOffset() != h.LastOffset() || h2.LastSequence() != h.LastSequence() {
			t.Fatalf("encoded again: %+v, was %+v", h2, h)
		}
		if _, err := CheckBatch(b, Limits{Stored: true, AllowControl: true, MaxDecompressedBytes: 1 << 20}); err != nil {
			t.Fatalf("a second time: %v", err)
		}
	})
}

func BenchmarkCheckBatch(b *testing.B) {
	h := plainHeader(0)
	plain, err := AppendBatch(nil, &h, benchRecords(1000, 100))
	if err != nil {
		b.Fatal(err)
	}
	for codec := compress.None; codec <= compress.Zstd; codec++ {
		batch, err := CompressBatch(nil, plain, codec, 0)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("codec=%v/records=1000/size=100", codec), func(b *testing.B) {
			b.SetBytes(100_000)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := CheckBatch(batch, Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A batch of many bad records does not make a large error.
func TestBadIndexesBounded(t *testing.T) {
	h := plainHeader(0)
	b, err := AppendBatch(nil, &h, make([]Record, 5000))
	if err != nil {
		t.Fatal(err)
	}
	var bad *BadRecordsError
	if err := checkErr(b, Limits{RequireKeys: true}); !errors.As(err, &bad) || len(bad.Indexes) != maxBadIndexes || len(err.Error()) > 200 {
		t.Errorf("got %.300v", err)
	}
}
