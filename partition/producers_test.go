package partition

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// batch is the header of a batch of a producer with n records.
func batch(id int64, epoch int16, seq int32, n int) *log.BatchHeader {
	return &log.BatchHeader{
		ProducerID: id, ProducerEpoch: epoch, BaseSequence: seq,
		LastOffsetDelta: int32(n - 1), Count: int32(n), LeaderEpoch: -1,
	}
}

// inTxn makes a batch transactional.
func inTxn(h *log.BatchHeader) *log.BatchHeader {
	h.Attributes |= log.Transactional
	return h
}

// endTxn is the header of a marker.
func endTxn(id int64, epoch int16) *log.BatchHeader {
	h := inTxn(batch(id, epoch, noSequence, 1))
	h.Attributes |= log.Control
	return h
}

// put appends one batch to s the way the group commit does, and says what came of it.
func put(s *state, h *log.BatchHeader, m *marker, o origin, now int64) (verdict, error) {
	p := s.begin()
	h.BaseOffset = p.end
	h.MaxTimestamp = 1000 + p.end
	v, err := p.stage(h, m, o, now)
	if err != nil || v.duplicate {
		p.discard()
		return v, err
	}
	p.commit()
	return v, nil
}

// outcome shortens what came of an append: "ok 5-6", "dup 3-3", "fenced", ...
func outcome(v verdict, err error) string {
	var fenced *FencedError
	switch {
	case errors.As(err, &fenced) && fenced.Coordinator:
		return "coordinator fenced"
	case errors.Is(err, ErrFenced):
		return "fenced"
	case errors.Is(err, ErrOutOfOrderSequence):
		return "out of order"
	case errors.Is(err, ErrInvalidTxnState):
		return "invalid txn"
	case errors.Is(err, ErrInvalidRecord):
		return "invalid record"
	case err != nil:
		return err.Error()
	case v.duplicate:
		return fmt.Sprintf("dup %d-%d", v.baseOffset, v.lastOffset)
	}
	return fmt.Sprintf("ok %d-%d", v.baseOffset, v.lastOffset)
}

// step is one append of a table, and what it has to come to.
type step struct {
	h    *log.BatchHeader
	m    *marker
	o    origin
	want string
}

func data(h *log.BatchHeader, want string) step { return step{h: h, want: want} }
func dataV2(h *log.BatchHeader, want string) step {
	return step{h: h, o: fromProducer | withTxnV2, want: want}
}
func commits(id int64, epoch int16, coordinator int32, want string) step {
	return step{h: endTxn(id, epoch), m: &marker{true, coordinator}, o: fromCoordinator, want: want}
}
func aborts(id int64, epoch int16, coordinator int32, want string) step {
	return step{h: endTxn(id, epoch), m: &marker{false, coordinator}, o: fromCoordinator, want: want}
}
func v2(s step) step { s.o |= withTxnV2; return s }

func TestProducerRules(t *testing.T) {
	const p = int64(7)
	tests := []struct {
		name  string
		steps []step
	}{
		{"in order", []step{data(batch(p, 0, 0, 3), "ok 0-2"), data(batch(p, 0, 3, 1), "ok 3-3"), data(batch(p, 0, 4, 2), "ok 4-5")}},
		{"gap", []step{data(batch(p, 0, 0, 3), "ok 0-2"), data(batch(p, 0, 4, 1), "out of order")}},
		{"overlap", []step{data(batch(p, 0, 0, 3), "ok 0-2"), data(batch(p, 0, 2, 2), "out of order")}},
		{"any of the last five is a duplicate, the sixth is not", []step{
			data(batch(p, 0, 0, 1), "ok 0-0"), data(batch(p, 0, 1, 2), "ok 1-2"), data(batch(p, 0, 3, 3), "ok 3-5"),
			data(batch(p, 0, 6, 1), "ok 6-6"), data(batch(p, 0, 7, 1), "ok 7-7"),
			data(batch(p, 0, 0, 1), "dup 0-0"), data(batch(p, 0, 1, 2), "dup 1-2"), data(batch(p, 0, 3, 3), "dup 3-5"),
			data(batch(p, 0, 6, 1), "dup 6-6"), data(batch(p, 0, 7, 1), "dup 7-7"),
			data(batch(p, 0, 8, 1), "ok 8-8"),
			data(batch(p, 0, 0, 1), "out of order"), data(batch(p, 0, 1, 2), "dup 1-2"),
		}},
		{"part of a batch is no duplicate", []step{data(batch(p, 0, 0, 4), "ok 0-3"), data(batch(p, 0, 0, 2), "out of order"), data(batch(p, 0, 2, 2), "out of order")}},
		{"unknown producer begins anywhere", []step{data(batch(p, 3, 17, 2), "ok 0-1"), data(batch(p, 3, 19, 1), "ok 2-2"), data(batch(p, 3, 17, 2), "dup 0-1")}},
		{"unknown producer of protocol 2 begins at 0", []step{dataV2(inTxn(batch(p, 3, 17, 2)), "out of order"), dataV2(inTxn(batch(p, 3, 0, 2)), "ok 0-1")}},
		{"unknown idempotent producer of protocol 2 begins anywhere", []step{dataV2(batch(p, 3, 17, 2), "ok 0-1")}},
		{"new epoch begins at 0", []step{data(batch(p, 0, 0, 1), "ok 0-0"), data(batch(p, 1, 1, 1), "out of order"), data(batch(p, 1, 0, 1), "ok 1-1"), data(batch(p, 1, 1, 1), "ok 2-2")}},
		{"old epoch is fenced, also for a repetition", []step{data(batch(p, 1, 0, 1), "ok 0-0"), data(batch(p, 0, 0, 1), "fenced"), data(batch(p, 2, 0, 1), "ok 1-1"), data(batch(p, 1, 0, 1), "fenced")}},
		{"same sequences in a new epoch are no duplicate", []step{data(batch(p, 0, 0, 1), "ok 0-0"), data(batch(p, 1, 0, 1), "ok 1-1"), data(batch(p, 1, 0, 1), "dup 1-1")}},
		{"sequence wraps between batches", []step{data(batch(p, 0, math.MaxInt32, 1), "ok 0-0"), data(batch(p, 0, 0, 1), "ok 1-1"), data(batch(p, 0, math.MaxInt32, 1), "dup 0-0")}},
		{"sequence wraps within a batch", []step{data(batch(p, 0, math.MaxInt32-1, 4), "ok 0-3"), data(batch(p, 0, 2, 1), "ok 4-4"), data(batch(p, 0, math.MaxInt32-1, 4), "dup 0-3")}},
		{"producers do not mix", []step{data(batch(p, 0, 0, 1), "ok 0-0"), data(batch(8, 5, 0, 1), "ok 1-1"), data(batch(p, 0, 1, 1), "ok 2-2"), data(batch(8, 5, 1, 1), "ok 3-3")}},
		{"no producer id, no rules", []step{data(batch(-1, -1, -1, 1), "ok 0-0"), data(batch(-1, -1, -1, 1), "ok 1-1")}},
		{"malformed", []step{data(batch(p, -1, 0, 1), "invalid record"), data(batch(p, 0, -1, 1), "invalid record"), {h: endTxn(p, 0), m: &marker{}, want: "invalid record"}}},
		{"coordinator's batches have no sequence", []step{
			{h: inTxn(batch(p, 0, -1, 1)), o: fromCoordinator, want: "ok 0-0"}, {h: inTxn(batch(p, 0, -1, 1)), o: fromCoordinator, want: "ok 1-1"},
			commits(p, 0, 0, "ok 2-2"), {h: inTxn(batch(p, 1, -1, 1)), o: fromCoordinator, want: "ok 3-3"}, {h: inTxn(batch(p, 0, -1, 1)), o: fromCoordinator, want: "fenced"},
		}},

		{"not transactional while one is open", []step{data(inTxn(batch(p, 0, 0, 1)), "ok 0-0"), data(batch(p, 0, 1, 1), "invalid txn"), commits(p, 0, 0, "ok 1-1"), data(batch(p, 0, 1, 1), "ok 2-2")}},
		{"protocol 1: sequences go on after a marker", []step{data(inTxn(batch(p, 0, 0, 2)), "ok 0-1"), commits(p, 0, 0, "ok 2-2"), data(inTxn(batch(p, 0, 0, 2)), "dup 0-1"), data(inTxn(batch(p, 0, 2, 1)), "ok 3-3")}},
		{"protocol 2: the marker's epoch begins at 0 and fences", []step{
			dataV2(inTxn(batch(p, 0, 0, 2)), "ok 0-1"), v2(commits(p, 1, 0, "ok 2-2")),
			dataV2(inTxn(batch(p, 0, 2, 1)), "fenced"), dataV2(inTxn(batch(p, 1, 2, 1)), "out of order"), dataV2(inTxn(batch(p, 1, 0, 1)), "ok 3-3"),
		}},
		{"protocol 2: a late marker does not end the next transaction", []step{
			dataV2(inTxn(batch(p, 0, 0, 1)), "ok 0-0"), v2(commits(p, 1, 0, "ok 1-1")), v2(commits(p, 1, 0, "ok 2-2")),
			dataV2(inTxn(batch(p, 1, 0, 1)), "ok 3-3"), v2(commits(p, 1, 0, "fenced")), v2(aborts(p, 0, 0, "fenced")), v2(commits(p, 2, 0, "ok 4-4")),
		}},
		{"marker with an old producer epoch", []step{data(batch(p, 2, 0, 1), "ok 0-0"), aborts(p, 1, 0, "fenced"), aborts(p, 2, 0, "ok 1-1"), aborts(p, 5, 0, "ok 2-2"), data(batch(p, 4, 0, 1), "fenced")}},
		{"marker of an old coordinator", []step{data(inTxn(batch(p, 0, 0, 1)), "ok 0-0"), commits(p, 0, 4, "ok 1-1"), commits(p, 0, 3, "coordinator fenced"), commits(p, 0, 4, "ok 2-2"), commits(p, 0, 5, "ok 3-3")}},
		{"marker for an unknown producer makes it known", []step{commits(p, 3, 0, "ok 0-0"), data(batch(p, 2, 0, 1), "fenced"), data(batch(p, 3, 9, 1), "out of order"), data(batch(p, 3, 0, 1), "ok 1-1")}},
		{"control batch that ends nothing", []step{{h: endTxn(p, 0), o: fromCoordinator, want: "ok 0-0"}, data(batch(p, 0, 5, 1), "ok 1-1")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newState(0)
			for i, st := range tt.steps {
				before := string(s.appendTo(nil))
				got := outcome(put(s, st.h, st.m, st.o, 0))
				if got != st.want {
					t.Fatalf("step %d: %s, want %s", i, got, st.want)
				}
				if _, err := decodeState(s.appendTo(nil)); err != nil {
					t.Fatalf("step %d: the state cannot be read back: %v", i, err)
				}
				if !strings.HasPrefix(got, "ok") && string(s.appendTo(nil)) != before {
					t.Fatalf("step %d: %s, but the state changed", i, got)
				}
			}
		})
	}
}

func TestDuplicateHasTheOriginalsTimestamp(t *testing.T) {
	s := newState(100)
	if v, err := put(s, batch(7, 0, 0, 3), nil, fromProducer, 0); err != nil || v.timestamp != 1100 {
		t.Fatalf("original: %+v, %v", v, err)
	}
	if v, err := put(s, batch(7, 0, 0, 3), nil, fromProducer, 0); err != nil || !v.duplicate || v.timestamp != 1100 {
		t.Errorf("duplicate: %+v, %v, want the timestamp 1100", v, err)
	}
}

func TestErrorsOfProducersCarryNumbers(t *testing.T) {
	s := newState(0)
	put(s, batch(7, 3, 0, 5), nil, fromProducer, 0)
	var order *OutOfOrderSequenceError
	if _, err := put(s, batch(7, 3, 9, 1), nil, fromProducer, 0); !errors.As(err, &order) || *order != (OutOfOrderSequenceError{7, 3, 9, 5}) {
		t.Errorf("out of order: %#v", err)
	}
	var fenced *FencedError
	if _, err := put(s, batch(7, 2, 5, 1), nil, fromProducer, 0); !errors.As(err, &fenced) || *fenced != (FencedError{ProducerID: 7, Epoch: 2, Current: 3}) {
		t.Errorf("fenced: %#v", err)
	}
}

func TestProducersExpire(t *testing.T) {
	const day = 24 * time.Hour
	ms := day.Milliseconds()
	fill := func() *state {
		s := newState(0)
		put(s, batch(1, 0, 0, 1), nil, fromProducer, 1000)
		put(s, inTxn(batch(2, 0, 0, 1)), nil, fromProducer, 1000)
		put(s, batch(3, 0, 0, 1), nil, fromProducer, 2000)
		return s
	}
	ids := func(s *state) string {
		var b strings.Builder
		for _, p := range s.producerStates() {
			fmt.Fprint(&b, p.ProducerID, " ")
		}
		return b.String()
	}
	tests := []struct {
		name string
		now  int64
		ttl  time.Duration
		left string
	}{
		{"too early", 999 + ms, day, "1 2 3 "},
		{"the first", 1000 + ms, day, "2 3 "},
		{"all but the one in a transaction", 2000 + ms, day, "2 "},
		{"far in the future", math.MaxInt64, day, "2 "},
		{"the clock went back", -5000, day, "1 2 3 "},
		{"the clock went back very far", math.MinInt64, day, "1 2 3 "},
		{"off", math.MaxInt64, 0, "1 2 3 "},
		{"off, negative", math.MaxInt64, -1, "1 2 3 "},
	}
	for _, tt := range tests {
		s := fill()
		n := s.producers.expire(tt.now, tt.ttl)
		if got := ids(s); got != tt.left || n != 3-len(tt.left)/2 {
			t.Errorf("%s: %d expired, left %q, want %q", tt.name, n, got, tt.left)
		}
	}
	s := fill()
	put(s, batch(1, 0, 1, 1), nil, fromProducer, 500) // appended by a clock that went back
	if s.producers.expire(999+ms, day); ids(s) != "1 2 3 " {
		t.Errorf("an append at an earlier time brought the expiry forward: left %q", ids(s))
	}
	put(s, endTxn(2, 0), &marker{commit: true}, fromCoordinator, 3000)
	if s.producers.expire(2000+ms, day); ids(s) != "2 " {
		t.Errorf("a marker is an append: left %q", ids(s))
	}
	if s.producers.expire(3000+ms, day); ids(s) != "" {
		t.Errorf("left %q", ids(s))
	}
	// It starts again wherever it is.
	if got := outcome(put(s, batch(1, 0, 77, 1), nil, fromProducer, 0)); got != "ok 5-5" {
		t.Errorf("an expired producer goes on: %s", got)
	}
}

func TestDeletedRecordsKeepTheirProducer(t *testing.T) {
	s := newState(0)
	put(s, batch(7, 0, 0, 3), nil, fromProducer, 0)
	put(s, inTxn(batch(8, 0, 0, 3)), nil, fromProducer, 0)
	s.deletedTo(6)
	if got := outcome(put(s, batch(7, 0, 0, 3), nil, fromProducer, 0)); got != "dup 0-2" {
		t.Errorf("a repetition of a deleted batch: %s", got)
	}
	if got := outcome(put(s, batch(7, 0, 4, 1), nil, fromProducer, 0)); got != "out of order" {
		t.Errorf("a gap behind deleted batches: %s", got)
	}
	if first, ok := s.txns.firstUndecided(); !ok || first != 3 {
		t.Errorf("the open transaction begins at %d, %t, want 3", first, ok)
	}
	if got := s.txns.lastStable(6, 6); got != 6 {
		t.Errorf("last stable offset %d, want the log start 6", got)
	}
}

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			name         string
			known        bool
			newest, base int64 // milliseconds from the wall clock
		}{
			{"nothing known", false, 0, 0},
			{"older appends", true, -5000, 0},
			{"the wall clock was set back", true, 5000, 5000},
		} {
			wall := time.Now().UnixMilli()
			ps := make(producers)
			if tt.known {
				ps[1], ps[2] = &producer{id: 1, lastAppend: wall + tt.newest}, &producer{id: 2, lastAppend: wall - 9000}
			}
			c := newClock(ps.lastAppend())
			if got := c.now() - wall; got != tt.base {
				t.Errorf("%s: starts at wall clock %+d, want %+d", tt.name, got, tt.base)
			}
			time.Sleep(3 * time.Second)
			if got := c.now() - wall; got != tt.base+3000 {
				t.Errorf("%s: three seconds later it is %+d, want %+d", tt.name, got, tt.base+3000)
			}
		}
	})
}

func TestProducerState(t *testing.T) {
	p := openTest(t, vfs.NewMem(), Config{})
	if s, ok := p.ProducerState(7); ok || s.ProducerID != 7 {
		t.Errorf("before it wrote: %+v, %t", s, ok)
	}
	for i := range int64(3) {
		o := &AppendOptions{Producer: &Producer{ID: 7 + i, Epoch: int16(i), Transactional: i == 1}}
		if _, err := p.Append(context.Background(), record("a"), o); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range p.Producers() {
		if got, ok := p.ProducerState(want.ProducerID); !ok || got != want {
			t.Errorf("got %+v, %t, want %+v", got, ok, want)
		}
	}
}
