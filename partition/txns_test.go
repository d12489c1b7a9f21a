package partition

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/x/embedlog/log"
)

// txnLog writes the words into an empty state: "7" is a transactional batch of
// producer 7, "7C" and "7A" end its transaction, "." is a batch of nobody. Each
// word takes one offset.
func txnLog(t *testing.T, words string) *state {
	t.Helper()
	s := newState(0)
	seq := map[int64]int32{}
	for w := range strings.FieldsSeq(words) {
		var err error
		id := int64(w[0] - '0')
		switch {
		case w == ".":
			_, err = put(s, batch(-1, -1, -1, 1), nil, fromProducer, 0)
		case len(w) == 1:
			_, err = put(s, inTxn(batch(id, 0, seq[id], 1)), nil, fromProducer, 0)
			seq[id]++
		default:
			_, err = put(s, endTxn(id, 0), &marker{commit: w[1] == 'C'}, fromCoordinator, 0)
		}
		if err != nil {
			t.Fatalf("%q: %s: %v", words, w, err)
		}
	}
	return s
}

func TestParseMarker(t *testing.T) {
	record := func(key, value []byte) *log.Record { return &log.Record{Key: key, Value: value} }
	tests := []struct {
		name string
		rec  *log.Record
		want string
	}{
		{"commit", record(log.EndTxnMarker(true, 9)), "{true 9} true <nil>"},
		{"abort", record(log.EndTxnMarker(false, 1<<30)), "{false 1073741824} true <nil>"},
		{"leader change", record([]byte{0, 0, 0, 2}, nil), "{false 0} false <nil>"},
		{"unknown", record([]byte{0, 0, 0, 77}, nil), "{false 0} false <nil>"},
	}
	for _, tt := range tests {
		m, ok, err := parseMarker(tt.rec)
		if got := fmt.Sprint(m, ok, err); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	for _, rec := range []*log.Record{record(nil, nil), record([]byte{0, 0, 0}, nil), record([]byte{0, 0, 0, 1}, []byte{0, 0, 0, 0, 0})} {
		if m, ok, err := parseMarker(rec); err == nil || ok {
			t.Errorf("key %x value %x: %v, %t, no error", rec.Key, rec.Value, m, ok)
		}
	}
}

func TestLastStableOffset(t *testing.T) {
	tests := []struct {
		name, log string
		// stable holds, for each high watermark from 0 to the log end, the last stable offset.
		stable string
	}{
		{"no transactions", ". . .", "0 1 2 3"},
		{"open", ". 7 . .", "0 1 1 1 1"},
		{"a marker counts when it is visible", ". 7 . 7C .", "0 1 1 1 4 5"},
		{"abort likewise", ". 7 . 7A .", "0 1 1 1 4 5"},
		{"the younger one ends first", "7 8 8C . 7C .", "0 0 0 0 0 5 6"},
		{"the older one ends first", "7 8 7C . 8C .", "0 0 0 1 1 5 6"},
		{"the older one stays open", "7 8 8C .", "0 0 0 0 0"},
		{"the younger one stays open", "7 8 7C .", "0 0 0 1 1"},
		{"one after the other", "7 7C 7 7A 7", "0 0 2 2 4 4"},
		{"marker of nothing", ". 7A .", "0 1 2 3"},
		{"three, crossing", "1 2 3 2C 1A 3C", "0 0 0 0 0 2 6"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := txnLog(t, tt.log)
			var got []string
			for hw := int64(0); hw <= s.end; hw++ {
				s.txns.advance(hw)
				got = append(got, fmt.Sprint(s.txns.lastStable(0, hw)))
			}
			if g := strings.Join(got, " "); g != tt.stable {
				t.Errorf("%q: last stable offsets %q, want %q", tt.log, g, tt.stable)
			}
			if len(s.txns.ended) != 0 {
				t.Errorf("%q: all is visible and %v is still held", tt.log, s.txns.ended)
			}
		})
	}
}

// A step back of the high watermark, as after an election, never lets a reader
// see further than a smaller high watermark allows.
func TestLastStableNeverPassesHighWatermark(t *testing.T) {
	s := txnLog(t, ". 7 7C . .")
	s.txns.advance(5)
	for hw := int64(5); hw >= 0; hw-- {
		if got := s.txns.lastStable(0, hw); got != hw {
			t.Errorf("high watermark %d: last stable offset %d", hw, got)
		}
	}
	if got := s.txns.lastStable(9, 4); got != 4 {
		t.Errorf("log start behind the high watermark: last stable offset %d, want 4", got)
	}
}

func TestFirstUndecided(t *testing.T) {
	for words, want := range map[string]int64{"": -1, ". 7": 1, ". 7 8 7C": 2, ". 7 8 8A": 1, "7 7C": -1} {
		got, ok := txnLog(t, words).txns.firstUndecided()
		if got != want || ok != (want >= 0) {
			t.Errorf("%q: first undecided offset %d, %t, want %d", words, got, ok, want)
		}
	}
}

func TestAbortedIn(t *testing.T) {
	//           0 1 2  3 4  5 6  7 8 9  10
	const words = "1 2 2A 3 1C . 3A 2 . 2A ."
	tests := []struct {
		from, to int64
		want     string // producer:first-marker
	}{
		{0, 11, "2:1-2 3:3-6 2:7-9"},
		{0, 2, "2:1-2"},
		{0, 1, ""},
		{2, 3, "2:1-2"},
		{3, 4, "3:3-6"},
		{2, 4, "2:1-2 3:3-6"},
		{6, 7, "3:3-6"},
		{7, 8, "2:7-9"},
		{6, 8, "3:3-6 2:7-9"},
		{10, 11, ""},
		{5, 5, "3:3-6"},
	}
	show := func(list []abortedTxn) string {
		var s []string
		for _, a := range list {
			s = append(s, fmt.Sprintf("%d:%d-%d", a.producerID, a.first, a.marker))
		}
		return strings.Join(s, " ")
	}
	s := txnLog(t, words)
	for _, tt := range tests {
		if got := show(s.txns.abortedIn(nil, tt.from, tt.to)); got != tt.want {
			t.Errorf("aborted in [%d, %d): %q, want %q", tt.from, tt.to, got, tt.want)
		}
	}
	for trim, want := range map[int64]string{0: "2:1-2 3:3-6 2:7-9", 2: "2:1-2 3:3-6 2:7-9", 3: "3:3-6 2:7-9", 6: "3:3-6 2:7-9", 7: "2:7-9", 10: ""} {
		s := txnLog(t, words)
		s.deletedTo(trim)
		if got := show(s.txns.abortedIn(nil, 0, 11)); got != want {
			t.Errorf("from log start %d: %q, want %q", trim, got, want)
		}
	}
}

// The search stops early by the last stable offsets; looking at every entry must
// find nothing more.
func TestAbortedInStopsAtTheRightPlace(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		var words []string
		open := map[int]bool{}
		for range 60 {
			id := 1 + rnd.IntN(6)
			switch {
			case open[id] && rnd.IntN(4) == 0:
				words = append(words, fmt.Sprintf("%d%c", id, "AC"[rnd.IntN(2)]))
				open[id] = false
			default:
				words = append(words, fmt.Sprint(id))
				open[id] = true
			}
		}
		text := strings.Join(words, " ")
		s := txnLog(t, text)
		for range 50 {
			from := rnd.Int64N(s.end)
			to := from + rnd.Int64N(s.end-from+1)
			got := s.txns.abortedIn(nil, from, to)
			var want []abortedTxn
			for _, a := range s.txns.aborted {
				if a.marker >= from && a.first < to {
					want = append(want, a)
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("seed %d: %q: aborted in [%d, %d): %v, want %v", seed, text, from, to, got, want)
			}
		}
	}
}
