package log

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/x/embedlog/compress"
)

// randomRecords are n records with all that a record can have, in every size class
// of its varints.
func randomRecords(rng *rand.Rand, n int) []Record {
	sizes := []int{0, 1, 2, 63, 64, 65, 100, 8191, 8192, 20000}
	field := func() []byte {
		if rng.IntN(4) == 0 {
			return nil
		}
		b := make([]byte, sizes[rng.IntN(len(sizes))])
		for i := range b {
			b[i] = byte('a' + rng.IntN(3))
		}
		return b
	}
	recs := make([]Record, n)
	for i := range recs {
		recs[i] = Record{Offset: int64(i), Timestamp: 1700000000000 + rng.Int64N(1<<uint(rng.IntN(40)+1)) - 500, Key: field(), Value: field()}
		if rng.IntN(50) == 0 {
			recs[i].Timestamp = []int64{-1, 0, math.MinInt64, math.MaxInt64}[rng.IntN(4)]
		}
		for range rng.IntN(3) * rng.IntN(3) * rng.IntN(40) / 10 {
			recs[i].Headers = append(recs[i].Headers, Header{Key: string(field()), Value: field()})
		}
	}
	return recs
}

// What goes in comes out, in every codec, plain or with gaps.
func TestBatchRoundTrip(t *testing.T) {
	for seed := range uint64(25) {
		rng := rand.New(rand.NewPCG(seed, 1))
		recs := randomRecords(rng, 1+rng.IntN(1<<rng.IntN(9)))
		h := BatchHeader{BaseOffset: rng.Int64N(1 << 50), ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
		for i := range recs {
			recs[i].Offset = h.BaseOffset + int64(i)
		}
		size := EncodedLen(&h, recs)
		plain, err := AppendBatch(nil, &h, recs)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if len(plain) != size {
			t.Fatalf("seed %d: EncodedLen says %d, AppendBatch makes %d", seed, size, len(plain))
		}
		// Into the last room there is, and into too little of it at every start.
		for _, room := range []int{0, 1, 60, 61, size / 3, size - 1, size, size + 1} {
			dst := append(make([]byte, 0, 5+room), "front"...)
			again, err := AppendBatch(dst, &h, recs)
			if err != nil || !bytes.Equal(again[5:], plain) || string(again[:5]) != "front" {
				t.Fatalf("seed %d: with room for %d of %d bytes the batch is another one (%v)", seed, room, size, err)
			}
			if room >= size && &again[0] != &dst[0] {
				t.Fatalf("seed %d: AppendBatch moved although dst had room", seed)
			}
		}
		for codec := compress.None; codec <= compress.Zstd; codec++ {
			b, err := CompressBatch([]byte("front"), plain, codec, 0)
			if err != nil {
				t.Fatalf("seed %d, %v: %v", seed, codec, err)
			}
			b = b[5:]
			if len(b) > len(plain) {
				t.Errorf("seed %d, %v: %d bytes became %d", seed, codec, len(plain), len(b))
			}
			checked, err := CheckBatch(b, Limits{MaxBatchBytes: -1})
			if err != nil {
				t.Fatalf("seed %d, %v: CheckBatch: %v", seed, codec, err)
			}
			if used := checked.Attributes.Codec(); used != codec && (used != compress.None || len(b) != len(plain)) {
				t.Errorf("seed %d: asked for %v, got %v", seed, codec, used)
			}
			if got := readBatch(t, b); !reflect.DeepEqual(got, recs) {
				t.Fatalf("seed %d, %v: records differ\ngot  %s\nwant %s", seed, codec, brief(got), brief(recs))
			}
		}
		// What compaction leaves: some of the records, at their offsets.
		kept := recs[:0:0]
		for _, rec := range recs {
			if rng.IntN(3) == 0 {
				kept = append(kept, rec)
			}
		}
		left := h
		left.Attributes |= DeleteHorizon
		left.BaseTimestamp = 1800000000000
		b, err := AppendBatchAt([]byte("front"), &left, kept)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		checked, err := CheckBatch(b[5:], Limits{MaxBatchBytes: -1, Stored: true})
		if err != nil || checked != left || checked.LastOffset() != h.LastOffset() {
			t.Fatalf("seed %d: compacted: %+v, %v; want %+v", seed, checked, err, left)
		}
		if ms, ok := checked.DeleteHorizon(); !ok || ms != 1800000000000 {
			t.Fatalf("seed %d: delete horizon %d, %t", seed, ms, ok)
		}
		if got := readBatch(t, b[5:]); !reflect.DeepEqual(append(kept[:0:0], got...), kept) {
			t.Fatalf("seed %d: compacted: records differ\ngot  %s\nwant %s", seed, brief(got), brief(kept))
		}
	}
}

func brief(recs []Record) string {
	var s strings.Builder
	for i := range recs {
		r := &recs[i]
		fmt.Fprintf(&s, "%d@%d %.10q(%d) %.10q(%d) %d headers; ", r.Offset, r.Timestamp, r.Key, len(r.Key), r.Value, len(r.Value), len(r.Headers))
	}
	return s.String()
}

func TestAppendBatchRefuses(t *testing.T) {
	h := plainHeader(0)
	dst := []byte("front")
	if got, err := AppendBatch(dst, &h, nil); !errors.Is(err, ErrBadBatch) || string(got) != "front" {
		t.Errorf("no records: %q, %v", got, err)
	}
	// 2 GiB of values with one array behind them all.
	recs := make([]Record, 64)
	value := make([]byte, 32<<20)
	for i := range recs {
		recs[i].Value = value
	}
	if got, err := AppendBatch(dst, &h, recs); !errors.Is(err, ErrBadBatch) || string(got) != "front" {
		t.Errorf("larger than 2^31-1 bytes: %d bytes, %v", len(got), err)
	}
	for _, c := range []struct {
		name    string
		last    int32
		offsets []int64
	}{
		{"below the base", 5, []int64{9}},
		{"past the last", 5, []int64{16}},
		{"twice the same", 5, []int64{11, 11}},
		{"falling", 5, []int64{12, 11}},
	} {
		h := BatchHeader{BaseOffset: 10, LastOffsetDelta: c.last}
		recs := make([]Record, len(c.offsets))
		for i, offset := range c.offsets {
			recs[i].Offset = offset
		}
		if got, err := AppendBatchAt(dst, &h, recs); !errors.Is(err, ErrBadBatch) || string(got) != "front" {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
}

// A batch of which compaction left nothing keeps its place and its timestamps.
func TestEmptyBatch(t *testing.T) {
	want := BatchHeader{BaseOffset: 10, LastOffsetDelta: 4, BaseTimestamp: 5, MaxTimestamp: 6, ProducerID: 1, ProducerEpoch: 2, BaseSequence: 3}
	h := want
	b, err := AppendBatchAt(nil, &h, nil)
	if err != nil || len(b) != BatchHeaderLen {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	got, err := CheckBatch(b, Limits{Stored: true})
	want.Length, want.CRC = BatchHeaderLen-batchOverhead, h.CRC
	if err != nil || got != want || got.LastOffset() != 14 || got.LastSequence() != 7 {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if recs := readBatch(t, b); len(recs) != 0 {
		t.Errorf("%d records", len(recs))
	}
	for codec := compress.None; codec <= compress.Zstd; codec++ {
		again, err := CompressBatch(nil, b, codec, 0)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%v: %x, %v", codec, again, err)
		}
	}
	// Kafka's compaction leaves the codec bits of the batch that was.
	got.Attributes = Attributes(compress.Zstd)
	coded := batchOf(got, nil)
	if err := readErr(coded); err != nil {
		t.Errorf("an empty batch with a codec: %v", err)
	}
	if err := checkErr(coded, Limits{Stored: true}); err != nil {
		t.Errorf("an empty batch with a codec, checked: %v", err)
	}
	if again, err := CompressBatch(nil, coded, compress.Gzip, 0); err != nil || !bytes.Equal(again, b) {
		t.Errorf("an empty batch with a codec, compressed: %x, %v; want it without one, %x", again, err, b)
	}
}

// Records stay valid when the reader goes on, and alias the batch if they can.
func TestRecordsStay(t *testing.T) {
	for _, name := range []string{"none", "zstd"} {
		b := golden(t, name)
		var r RecordReader
		var recs []Record
		for range 2 { // the reader is used again
			for err := r.Reset(b, 0); err == nil && r.Next(); {
				rec := *r.Record()
				rec.Headers = append([]Header(nil), rec.Headers...)
				recs = append(recs, rec)
			}
			if r.Err() != nil || r.Next() {
				t.Fatalf("%s: %v at the end, or a record behind it", name, r.Err())
			}
		}
		if want := append(goldenRecords(0), goldenRecords(0)...); !reflect.DeepEqual(recs, want) {
			t.Errorf("%s: got %s\nwant %s", name, brief(recs), brief(want))
		}
		for i, rec := range recs {
			if cap(rec.Value) > len(rec.Value) || cap(rec.Key) > len(rec.Key) {
				t.Errorf("%s: record %d: an append to a field would write over what follows", name, i)
			}
		}
	}
	b := golden(t, "none")
	for rec := range Batch(b).Records(0) {
		rec.Key[0] = 'A'
		break
	}
	if !bytes.Contains(b, []byte("Ann\x06450")) {
		t.Error("a record of an uncompressed batch is a copy")
	}
}

func TestReaderAllocs(t *testing.T) {
	h := plainHeader(0)
	recs := randomRecords(rand.New(rand.NewPCG(1, 2)), 100)
	for i := range recs {
		recs[i].Headers = []Header{{"trace", []byte("a")}, {"source", nil}}
	}
	b, err := AppendBatch(nil, &h, recs)
	if err != nil {
		t.Fatal(err)
	}
	var r RecordReader
	if n := testing.AllocsPerRun(100, func() {
		n := 0
		for err := r.Reset(b, 0); err == nil && r.Next(); n++ {
		}
		if n != 100 {
			t.Fatal(n, r.Err())
		}
	}); n != 0 {
		t.Errorf("a reader that is used again, with headers: %v allocations", n)
	}
	plain := append([]byte(nil), b[:0]...)
	if plain, err = AppendBatch(plain, &h, benchRecords(100, 100)); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		for rec, err := range Batch(plain).Records(0) {
			if err != nil || len(rec.Value) != 100 {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("a range over Records: %v allocations", n)
	}
	dst := make([]byte, 0, EncodedLen(&h, recs))
	if n := testing.AllocsPerRun(100, func() {
		if _, err := AppendBatch(dst, &h, recs); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("AppendBatch into room: %v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := AppendBatch(nil, &h, recs); err != nil {
			t.Fatal(err)
		}
	}); n != 1 && !underRace {
		t.Errorf("AppendBatch without room: %v allocations, want 1", n)
	}
}

// An iterator that is left early does not go on, and an error is its last pair.
func TestRecordsEnds(t *testing.T) {
	n := 0
	for range Batch(golden(t, "none")).Records(0) {
		n++
		break
	}
	if n != 1 {
		t.Errorf("%d records after a break", n)
	}
	bad := batchOf(plainHeader(2), unhex(t, "0c 00 00 00 01 01 00  0c 00 00 02 01 09 00"))
	var got []string
	for rec, err := range Batch(bad).Records(0) {
		got = append(got, fmt.Sprint(rec.Offset, errors.Is(err, ErrBadBatch)))
	}
	if want := []string{"0 false", "0 true"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, err := range Batch("short").Records(0) {
		wantBadBatch(t, "short", err, 5)
	}
	for _, err := range Batch(golden(t, "zstd")).Records(100) {
		if !errors.Is(err, compress.ErrTooLarge) {
			t.Errorf("past the bound: %v", err)
		}
	}
}

func TestUvarintLen(t *testing.T) {
	var b [10]byte
	for shift := range 64 {
		for _, v := range []uint64{1 << shift, 1<<shift - 1, 1<<shift + 1} {
			n := putUvarint(b[:], 0, v)
			if uvarintLen(v) != n {
				t.Errorf("uvarintLen(%d) = %d, it takes %d", v, uvarintLen(v), n)
			}
			if got, next := uvarint(b[:n], 0, 64); got != v || next != n {
				t.Errorf("uvarint gives %d, %d; want %d, %d", got, next, v, n)
			}
			if got, next := uvarint(b[:n], 0, 32); (next == n) != (v < 1<<32) || next > 0 && got != v {
				t.Errorf("in 32 bits: uvarint gives %d, %d for %d", got, next, v)
			}
			if _, next := uvarint(b[:n-1], 0, 64); next >= 0 {
				t.Errorf("%d cut off is accepted", v)
			}
			if s := int64(v); unzigzag(zigzag(s)) != s || unzigzag(zigzag(-s)) != -s {
				t.Errorf("zigzag of %d", s)
			}
		}
	}
}

// Any bytes: the reader does not panic, agrees with itself, and what it reads
// lies in order.
func FuzzRecords(f *testing.F) {
	for _, name := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		f.Add(golden(f, name))
	}
	f.Add(batchOf(plainHeader(1), []byte{0x10, 0, 0, 0, 1, 1, 2, 0, 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r RecordReader
		err := r.Reset(b, 1<<20)
		last, n := int64(-1), 0
		for err == nil && r.Next() {
			rec := r.Record()
			if rec.Offset <= last || rec.Offset > r.Header().LastOffset() {
				t.Fatalf("record %d has offset %d after %d, the batch ends with %d", n, rec.Offset, last, r.Header().LastOffset())
			}
			last = rec.Offset
			n++
		}
		if err == nil {
			err = r.Err()
		}
		if err != nil && !errors.Is(err, ErrBadBatch) {
			t.Fatalf("an error that is no *BadBatchError: %v", err)
		}
		if err == nil && n != int(r.Header().Count) {
			t.Fatalf("%d records, the header counts %d", n, r.Header().Count)
		}
		var walked int
		var walkErr error
		for _, e := range Batch(b).Records(1 << 20) {
			if walkErr = e; e == nil {
				walked++
			}
		}
		if walked != n || (walkErr == nil) != (err == nil) {
			t.Fatalf("Records gives %d records and %v, the reader %d and %v", walked, walkErr, n, err)
		}
	})
}
