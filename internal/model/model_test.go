package model

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// build reads a log, one append a word:
//
//	a=1,b=2    a batch with two records; "a=" is an empty value, "a!" a tombstone, "=1" has no key
//	7:a=1      the same in a transaction of producer 7
//	7C, 7A     producer 7 commits, aborts
//
// Timestamps are ten times the offset.
func build(t *testing.T, s string) *Log {
	t.Helper()
	l := New(0)
	for word := range strings.FieldsSeq(s) {
		if id, err := strconv.ParseInt(word[:len(word)-1], 10, 64); err == nil {
			if _, o := l.EndTxn(Marker{Commit: word[len(word)-1] == 'C', ProducerID: id, Timestamp: l.End() * 10}); o != Appended {
				t.Fatalf("%s: outcome %d", word, o)
			}
			continue
		}
		b := Batch{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
		if id, records, ok := strings.Cut(word, ":"); ok {
			n, err := strconv.ParseInt(id, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			b.ProducerID, b.ProducerEpoch, b.Transactional = n, 0, true
			word = records
		}
		for f := range strings.SplitSeq(word, ",") {
			r := Record{Timestamp: (l.End() + int64(len(b.Records))) * 10}
			key, value, _ := strings.Cut(f, "=")
			if k, ok := strings.CutSuffix(f, "!"); ok {
				key = k
			} else {
				r.Value = []byte(value)
			}
			if key != "" {
				r.Key = []byte(key)
			}
			b.Records = append(b.Records, r)
		}
		if _, _, o := l.Append(b); o != Appended {
			t.Fatalf("%s: outcome %d", word, o)
		}
	}
	return l
}

// show lists offsets.
func show(rs []Record) string {
	var s []string
	for _, r := range rs {
		s = append(s, fmt.Sprint(r.Offset))
	}
	return strings.Join(s, " ")
}

// pick takes the records at the offsets listed.
func pick(l *Log, offsets string) (rs []Record) {
	for f := range strings.FieldsSeq(offsets) {
		n, _ := strconv.ParseInt(f, 10, 64)
		rs = append(rs, l.Read(n, n+1)...)
	}
	return rs
}

func TestTransactions(t *testing.T) {
	tests := []struct {
		name, log string
		hw        int64
		stable    int64
		committed string
		aborted   []Txn
	}{
		{"no transactions", "a=1 b=2", 2, 2, "0 1", nil},
		{"open", "a=1 7:b=2 c=3", 3, 1, "0", nil},
		{"committed", "a=1 7:b=2 7C c=3", 4, 4, "0 1 3", nil},
		{"aborted", "a=1 7:b=2 7A c=3", 4, 4, "0 3", []Txn{{7, 1, 2}}},
		{"marker above the high watermark", "a=1 7:b=2 7C c=3", 2, 1, "0", nil},
		{"marker just above the high watermark", "7:b=2 7C", 1, 0, "", nil},
		{"marker just below the high watermark", "7:b=2 7C", 2, 2, "0", nil},
		{"two, the older one open", "7:a=1 8:b=2 8C c=3", 4, 0, "", nil},
		{"two, the newer one open", "7:a=1 8:b=2 7A c=3", 4, 1, "", []Txn{{7, 0, 2}}},
		{"abort, then commit, of one producer", "7:a=1 7A 7:b=2 7C", 4, 4, "2", []Txn{{7, 0, 1}}},
		{"nested", "7:a=1 8:b=2 8A 7A", 4, 4, "", []Txn{{8, 1, 2}, {7, 0, 3}}},
		{"marker of nothing", "a=1 7A b=2", 3, 3, "0 2", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := build(t, tt.log)
			if got := l.LastStable(tt.hw); got != tt.stable {
				t.Errorf("%q: last stable offset under %d is %d, want %d", tt.log, tt.hw, got, tt.stable)
			}
			if got := show(l.Committed(0, tt.hw)); got != tt.committed {
				t.Errorf("%q: committed under %d: %q, want %q", tt.log, tt.hw, got, tt.committed)
			}
			if got := l.Aborted(0, tt.hw); !slices.Equal(got, tt.aborted) {
				t.Errorf("%q: aborted %v, want %v", tt.log, got, tt.aborted)
			}
		})
	}
}

func TestSequences(t *testing.T) {
	l := New(0)
	add := func(epoch int16, seq int32, n int) string {
		base, last, o := l.Append(Batch{ProducerID: 7, ProducerEpoch: epoch, BaseSequence: seq, Records: make([]Record, n)})
		return fmt.Sprint(base, last, o)
	}
	steps := []struct {
		epoch int16
		seq   int32
		n     int
		want  string
	}{
		{3, 40, 2, "0 1 0"},   // an unknown producer begins anywhere
		{3, 40, 2, "0 1 1"},   // repeated
		{3, 40, 1, "-1 -1 4"}, // not the same batch
		{3, 43, 1, "-1 -1 4"}, // one is missing
		{3, 42, 1, "2 2 0"},
		{2, 43, 1, "-1 -1 2"}, // fenced
		{4, 1, 1, "-1 -1 4"},  // a new epoch begins at 0
		{4, 0, 1, "3 3 0"},    //
		{3, 42, 1, "-1 -1 2"}, // what the old epoch wrote is not repeated any more
		{4, 1, 1, "4 4 0"},    //
		{4, 2, 1, "5 5 0"},    //
		{4, 3, 1, "6 6 0"},    //
		{4, 4, 1, "7 7 0"},    // the fifth
		{4, 0, 1, "3 3 1"},    //
		{4, 5, 1, "8 8 0"},    // the sixth
		{4, 0, 1, "-1 -1 4"},  // forgotten
		{4, 1, 1, "4 4 1"},    //
	}
	for i, s := range steps {
		if got := add(s.epoch, s.seq, s.n); got != s.want {
			t.Fatalf("step %d %+v: got %s", i, s, got)
		}
	}
	l.Forget(7)
	if got := add(0, 9, 1); got != "9 9 0" {
		t.Errorf("after Forget: %s", got)
	}
	if _, _, o := l.AppendAt(3, Batch{ProducerID: -1, Records: make([]Record, 1)}); o != Unexpected {
		t.Errorf("append at another offset: outcome %d", o)
	}
	// From the last sequence to the first.
	w := New(0)
	for i, seq := range []int32{1<<31 - 2, 0, 3} {
		if _, _, o := w.Append(Batch{ProducerID: 7, BaseSequence: seq, Records: make([]Record, 2+i%2)}); o != Appended {
			t.Errorf("sequence %d: outcome %d", seq, o)
		}
	}
}

func TestEpochsAndTimes(t *testing.T) {
	l := New(10)
	for i, epoch := range []int32{2, 2, 5, 5, 7} {
		l.Append(Batch{ProducerID: -1, LeaderEpoch: epoch, Records: []Record{{Timestamp: []int64{50, 30, 60, 10, 90}[i]}}})
	}
	ends := func(epochs ...int32) (s string) {
		for _, e := range epochs {
			found, end := l.EndOfEpoch(e)
			s += fmt.Sprintf("%d:%d@%d ", e, found, end)
		}
		return s
	}
	if got, want := ends(-1, 1, 2, 3, 5, 6, 7, 8), "-1:-1@-1 1:1@10 2:2@12 3:2@12 5:5@14 6:5@14 7:7@15 8:-1@-1 "; got != want {
		t.Errorf("ends of epochs\n %s, want\n %s", got, want)
	}
	if r, ok := l.OffsetForTime(55, l.End()); !ok || r.Offset != 12 {
		t.Errorf("offset for time 55: %v, %t", r, ok)
	}
	if r, ok := l.OffsetForTime(70, 14); ok {
		t.Errorf("offset for time 70 below 14: %v", r)
	}
	l.DeleteTo(13)
	if got, want := ends(1, 2, 5, 7), "1:1@13 2:2@13 5:5@14 7:7@15 "; got != want {
		t.Errorf("ends of epochs from 13\n %s, want\n %s", got, want)
	}
	if got := show(l.Read(0, 99)); got != "13 14" {
		t.Errorf("read from 13: %s", got)
	}
	if got := l.EpochAt(13); got != 5 {
		t.Errorf("epoch at 13: %d", got)
	}
	l.Truncate(14)
	if l.End() != 14 || show(l.Read(0, 99)) != "13" {
		t.Errorf("truncated to 14: ends at %d, holds %s", l.End(), show(l.Read(0, 99)))
	}
}

func TestCheckPrefix(t *testing.T) {
	l := build(t, "a=1,b=2 c=3 d=4")
	changed := l.Read(0, 4)
	changed[1].Value = []byte("9")
	longer := append(l.Read(0, 4), Record{Offset: 4})
	tests := []struct {
		name  string
		acked int64
		got   []Record
		want  string // part of the error, empty for none
	}{
		{"all", 4, l.Read(0, 4), ""},
		{"as far as acknowledged", 2, l.Read(0, 2), ""},
		{"nothing acknowledged, nothing there", 0, nil, ""},
		{"acknowledged record lost", 3, l.Read(0, 2), "were acknowledged"},
		{"hole", 1, pick(l, "0 2 3"), "sent was 1"},
		{"changed", 1, changed, "sent was 1"},
		{"invented", 4, longer, "never sent"},
	}
	for _, tt := range tests {
		checkError(t, tt.name, l.CheckPrefix(tt.acked, tt.got), tt.want)
	}
}

func TestCheckCompacted(t *testing.T) {
	const plain = "a=1 b=1 a=2 =x b! c=1" // offsets 0 to 5
	null := build(t, plain).Read(0, 6)
	null[5].Value = nil
	tests := []struct {
		name, log, left string
		want            string
	}{
		{"untouched", plain, "0 1 2 3 4 5", ""},
		{"clean", plain, "2 4 5", ""},
		{"clean, tombstone gone", plain, "2 5", ""},
		{"half clean", plain, "0 2 4 5", ""},
		{"last value gone", plain, "0 4 5", "2:\"a\""},
		{"only value gone", plain, "2 4", "5:\"c\""},
		{"tombstone gone before the value", plain, "1 2 5", "tombstone"},
		{"out of order", plain, "2 5 4", "comes behind"},
		{"twice", plain, "2 2 4 5", "comes behind"},
		{"committed", "7:a=1 a=2 7:a=3 7C", "2 3", ""},
		{"committed, last value gone", "7:a=1 a=2 7:a=3 7C", "1 3", "2:\"a\""},
		{"committed, marker gone", "7:a=1 a=2 7:a=3 7C", "2", "marker"},
		{"all superseded, marker gone", "7:a=1 7C a=2", "2", ""},
		{"aborted", "a=1 7:a=2 7A", "0", ""},
		{"aborted, kept", "a=1 7:a=2 7A", "0 1 2", ""},
		{"aborted one hides nothing", "a=1 7:a=2 7A", "1 2", "0:\"a\""},
		{"aborted, marker gone", "a=1 7:a=2 7A", "0 1", "marker"},
		{"aborted tombstone", "a=1 7:a! 7A", "1 2", "0:\"a\""},
		{"open is untouched", "a=1 a=2 7:a=3 b=1 b=2", "1 2 3 4", ""},
		{"open, its record gone", "a=1 a=2 7:a=3 b=1 b=2", "1 3 4", "stable"},
		{"behind an open one", "a=1 a=2 7:a=3 b=1 b=2", "1 2 4", "stable"},
		{"open hides nothing", "a=1 7:a=3", "1", "0:\"a\""},
	}
	for _, tt := range tests {
		l := build(t, tt.log)
		checkError(t, tt.name, l.CheckCompacted(pick(l, tt.left)), tt.want)
	}
	checkError(t, "empty for null", build(t, plain).CheckCompacted(null), "was not sent")
	l := build(t, plain)
	l.DeleteTo(3)
	checkError(t, "deleted records need not be there", l.CheckCompacted(pick(l, "4 5")), "")
	checkError(t, "deleted records must not be there", l.CheckCompacted(null[2:5]), "was not sent")
}

func checkError(t *testing.T, name string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", name, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: error %v, want one with %q", name, err, want)
	}
}

func TestSame(t *testing.T) {
	base := func() Record {
		return Record{Offset: 1, Timestamp: 2, Key: []byte("k"), Value: []byte{}, Headers: []Header{{"h", nil}}}
	}
	if !base().Same(base()) {
		t.Fatal("a record is not the same as itself")
	}
	for name, change := range map[string]func(*Record){
		"offset": func(r *Record) { r.Offset++ }, "timestamp": func(r *Record) { r.Timestamp++ },
		"key": func(r *Record) { r.Key = bytes.ToUpper(r.Key) }, "null value": func(r *Record) { r.Value = nil },
		"null header": func(r *Record) { r.Headers[0].Value = []byte{} }, "header key": func(r *Record) { r.Headers[0].Key = "" },
		"no headers": func(r *Record) { r.Headers = nil }, "kind": func(r *Record) { r.Kind = Abort },
	} {
		r := base()
		change(&r)
		if r.Same(base()) {
			t.Errorf("%s makes no difference", name)
		}
	}
}

func TestMarkersAndEpochs(t *testing.T) {
	l := New(5)
	data := func(epoch int16, seq int32, transactional, v2 bool) Outcome {
		_, _, o := l.Append(Batch{ProducerID: 7, ProducerEpoch: epoch, BaseSequence: seq, Transactional: transactional, TxnV2: v2, Records: make([]Record, 1)})
		return o
	}
	end := func(epoch int16, coordinator int32, v2 bool) Outcome {
		_, o := l.EndTxn(Marker{Commit: true, ProducerID: 7, ProducerEpoch: epoch, CoordinatorEpoch: coordinator, TxnV2: v2})
		return o
	}
	steps := []struct {
		name      string
		got, want Outcome
	}{
		{"unknown producer of protocol 2 begins at 0", data(1, 9, true, true), OutOfOrder},
		{"begins", data(1, 0, true, true), Appended},
		{"not transactional within a transaction", data(1, 1, false, true), InvalidTxn},
		{"marker of the transaction's own epoch, protocol 2", end(1, 3, true), Fenced},
		{"marker of an old epoch", end(0, 3, false), Fenced},
		{"marker of the next epoch", end(2, 3, true), Appended},
		{"old coordinator", end(2, 2, true), FencedCoordinator},
		{"repeated marker", end(2, 3, true), Appended},
		{"old epoch", data(1, 1, true, true), Fenced},
		{"the marker's epoch begins at 0", data(2, 1, true, true), OutOfOrder},
		{"the marker's epoch begins", data(2, 0, true, true), Appended},
		{"marker of the transaction's own epoch, protocol 1", end(2, 3, false), Appended},
		{"not transactional outside", data(2, 1, false, false), Appended},
	}
	for _, s := range steps {
		if s.got != s.want {
			t.Errorf("%s: outcome %d, want %d", s.name, s.got, s.want)
		}
	}
	if base, last, o := l.AppendAt(l.End(), Batch{ProducerID: -1, Records: make([]Record, 2)}); base != 11 || last != 12 || o != Appended {
		t.Errorf("append at the end: %d to %d, outcome %d", base, last, o)
	}
	l.Truncate(99) // past the end: nothing
	if l.Start() != 5 || l.End() != 13 {
		t.Errorf("the log is %d to %d, want 5 to 13", l.Start(), l.End())
	}
	if found, end := New(5).EndOfEpoch(0); found != -1 || end != -1 {
		t.Errorf("an empty log knows epoch %d, which ends at %d", found, end)
	}
}
