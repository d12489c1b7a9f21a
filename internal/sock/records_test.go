package sock

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"
)

var someRecords = []Record{
	{Topic: "orders", Partition: 3, Offset: 1 << 40, Epoch: 7, Time: time.UnixMilli(1_700_000_000_123), Key: []byte("ann"), Value: []byte("450")},
	{Topic: "orders", Partition: 3, Offset: 1<<40 + 1, Time: time.UnixMilli(0), Key: []byte{}, Value: []byte{}},
	{Topic: "prices", Partition: -1, Offset: -1, Epoch: -1, Value: nil, Headers: []Header{{Key: "a", Value: nil}, {Key: "", Value: []byte{0, 255}}}},
	{Topic: "orders"},
}

func TestRecordsComeBack(t *testing.T) {
	for n := range len(someRecords) + 1 {
		want := someRecords[:n]
		got, err := DecodeRecords(AppendRecords(nil, want))
		if err != nil || len(got) != n {
			t.Fatalf("%d records: got %d, %v", n, len(got), err)
		}
		for i := range want {
			if !got[i].Time.Equal(want[i].Time) || got[i].Time.IsZero() != want[i].Time.IsZero() {
				t.Errorf("record %d: time %v, want %v", i, got[i].Time, want[i].Time)
			}
			got[i].Time = want[i].Time
			if !reflect.DeepEqual(got[i], want[i]) {
				t.Errorf("record %d: got %+v, want %+v", i, got[i], want[i])
			}
		}
	}
}

func TestProducedComesBack(t *testing.T) {
	for _, want := range []Produced{
		{Acks: []Ack{}},
		{Acks: []Ack{{0, 5}, {-1, -1}, {1 << 20, 1 << 50}}, Err: &Error{Code: CodeNoSpace, Message: "full"}},
	} {
		got, err := DecodeProduced(AppendProduced(nil, want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

func TestBadBytesAreRefused(t *testing.T) {
	good := AppendRecords(nil, someRecords)
	for cut := range len(good) {
		if _, err := DecodeRecords(good[:cut]); !errors.Is(err, ErrProtocol) {
			t.Errorf("cut at %d: got %v, want ErrProtocol", cut, err)
		}
	}
	for _, row := range []struct {
		name string
		b    []byte
	}{
		{"left over", append(bytes.Clone(good), 0)},
		{"a count of which nothing follows", []byte{0xff, 0xff, 0xff, 0xff, 0x0f}},
		{"a number without end", bytes.Repeat([]byte{0xff}, 11)},
		{"a partition above 32 bits", []byte{1, 0, 0xfe, 0xff, 0xff, 0xff, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0}},
	} {
		if _, err := DecodeRecords(row.b); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: got %v, want ErrProtocol", row.name, err)
		}
	}
}

// Whatever comes in: no panic, memory in proportion to it, and what is accepted
// means the same when it is written again.
func FuzzRecords(f *testing.F) {
	f.Add(AppendRecords(nil, someRecords))
	f.Add(AppendRecords(nil, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		recs, err := DecodeRecords(b)
		if err != nil {
			return
		}
		if len(recs) > len(b) {
			t.Fatalf("%d records out of %d bytes", len(recs), len(b))
		}
		again, err := DecodeRecords(AppendRecords(nil, recs))
		if err != nil || !reflect.DeepEqual(recs, again) && len(recs) > 0 {
			t.Fatalf("written again they are %+v (%v), not %+v", again, err, recs)
		}
	})
}

func FuzzProduced(f *testing.F) {
	f.Add(AppendProduced(nil, Produced{Acks: []Ack{{1, 2}}, Err: &Error{Code: CodeFailure, Message: "x"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodeProduced(b)
		if err != nil {
			return
		}
		again, err := DecodeProduced(AppendProduced(nil, p))
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Fatalf("written again it is %+v (%v), not %+v", again, err, p)
		}
	})
}
