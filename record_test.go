package embedlog

import (
	"bytes"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/x/embedlog/log"
)

// A record keeps what it says through a batch: null and empty, headers, times.
func TestRecordThroughABatch(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_123)
	recs := []Record{
		{Key: []byte("k"), Value: []byte("v"), Timestamp: at, Headers: []Header{{Key: "a", Value: []byte("1")}, {Key: "a", Value: nil}, {Key: "b", Value: []byte{}}}},
		{Key: nil, Value: nil},
		{Key: []byte{}, Value: []byte{}, Timestamp: at.Add(time.Microsecond)},
	}
	const now = 1_700_000_000_456
	lrs := make([]log.Record, len(recs))
	for i := range recs {
		setProduced(&lrs[i], &recs[i], now)
	}
	h := log.BatchHeader{BaseOffset: 7, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
	b, err := log.AppendBatch(nil, &h, lrs)
	if err != nil {
		t.Fatal(err)
	}
	var r log.RecordReader
	if err := r.Reset(b, 0); err != nil {
		t.Fatal(err)
	}
	var got []Record
	for r.Next() {
		var rec Record
		rec.setRead("orders", 3, 5, r.Record())
		got = append(got, rec)
	}
	want := []Record{recs[0], recs[1], recs[2]}
	for i := range want {
		w := &want[i]
		w.Topic, w.Partition, w.LeaderEpoch, w.Offset = "orders", 3, 5, 7+int64(i)
	}
	want[1].Timestamp, want[2].Timestamp = time.UnixMilli(now), at
	if r.Err() != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v\n%v", got, want, r.Err())
	}
	if p := (Position{Topic: "orders", Partition: 3, LeaderEpoch: 5, Offset: 8}); got[1].Position() != p {
		t.Errorf("position is %+v, want %+v", got[1].Position(), p)
	}
	if v, ok := got[0].Header("a"); !ok || v != nil {
		t.Errorf("the last header named a is %q, %t; want null", v, ok)
	}
	if v, ok := got[0].Header("c"); ok {
		t.Errorf("a header that is not there has the value %q", v)
	}
	if ts := timeOf(noTimestamp); !ts.IsZero() {
		t.Errorf("no timestamp became %v", ts)
	}
}

// What batches are cut by is never less than what the records really take.
func TestRecordBytesIsABound(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		recs := make([]Record, 1+rng.IntN(4))
		lrs := make([]log.Record, len(recs))
		bound := log.BatchHeaderLen
		for i := range recs {
			r := &recs[i]
			r.Timestamp = time.UnixMilli(rng.Int64N(math.MaxInt64 / 2))
			r.Key, r.Value = bytes.Repeat([]byte("k"), rng.IntN(300)), bytes.Repeat([]byte("v"), rng.IntN(1<<rng.IntN(18)))
			for range rng.IntN(5) {
				r.Headers = append(r.Headers, Header{Key: string(bytes.Repeat([]byte("h"), rng.IntN(20))), Value: make([]byte, rng.IntN(200))})
			}
			bound += recordBytes(r)
			setProduced(&lrs[i], r, 0)
		}
		h := log.BatchHeader{ProducerID: -1}
		if n := log.EncodedLen(&h, lrs); n > bound {
			t.Fatalf("%d records take %d bytes, the bound says %d", len(recs), n, bound)
		}
	}
}
