package partition

import (
	"fmt"
	"testing"

	"github.com/x/embedlog/log"
)

// stageAt stages a batch of p's end and says what came of it.
func stageAt(p *pending, h *log.BatchHeader) string {
	h.BaseOffset = p.end
	return outcome(p.stage(h, nil, fromProducer, 0))
}

func TestPendingSeesWhatWasStaged(t *testing.T) {
	s := newState(0)
	p := s.begin()
	steps := []struct {
		h    *log.BatchHeader
		want string
	}{
		{batch(7, 0, 0, 2), "ok 0-1"},
		{batch(7, 0, 2, 1), "ok 2-2"},
		{batch(7, 0, 0, 2), "dup 0-1"}, // a retry that overtook the write of the original
		{batch(7, 0, 4, 1), "out of order"},
		{batch(-1, -1, -1, 1), "ok 3-3"},
		{batch(7, 0, 3, 1), "ok 4-4"},
	}
	for i, st := range steps {
		if got := stageAt(p, st.h); got != st.want {
			t.Fatalf("step %d: %s, want %s", i, got, st.want)
		}
	}
	if s.end != 0 || len(s.producers) != 0 {
		t.Fatalf("staged only, and the state has %d producers and ends at %d", len(s.producers), s.end)
	}
	p.discard()
	p = s.begin()
	if got := stageAt(p, batch(7, 0, 3, 1)); got != "ok 0-0" {
		t.Fatalf("after a discard the producer is unknown: %s", got)
	}
	p.commit()
	if s.end != 1 || s.producers[7].batches[0].lastSequence != 3 {
		t.Fatalf("committed: end %d, %+v", s.end, s.producers[7])
	}
}

// With few and with many producers, around the size where the map begins.
func TestPendingRollback(t *testing.T) {
	for n := range int64(3 * linearStaged) {
		for back := range n + 1 {
			s := newState(0)
			put(s, batch(0, 0, 9, 1), nil, fromProducer, 0) // sequence 10 follows
			p := s.begin()
			var mark pendingMark
			for id := range n {
				if id == back {
					mark = p.mark()
					stageAt(p, inTxn(batch(0, 0, 11, 1))) // changes one that is staged, if id 0 is
				}
				if got, want := stageAt(p, batch(id, 0, 10, 1)), fmt.Sprintf("ok %d-%d", p.end-1, p.end-1); id > 0 && got != want {
					t.Fatalf("n=%d back=%d id=%d: %s, want %s", n, back, id, got, want)
				}
			}
			if back == n {
				mark = p.mark()
			}
			p.rollback(mark)
			for round := range int32(2) { // what was rolled back can be staged again, what was not goes on
				for id := range n {
					seq := 10 + round
					if id < back {
						seq++
					}
					if got, want := stageAt(p, batch(id, 0, seq, 1)), fmt.Sprintf("ok %d-%d", p.end-1, p.end-1); got != want {
						t.Fatalf("n=%d back=%d round=%d id=%d: %s, want %s", n, back, round, id, got, want)
					}
				}
			}
			p.commit()
			if int64(len(s.producers)) != max(1, n) || len(s.txns.open) != 0 {
				t.Fatalf("n=%d back=%d: %d producers, open %v", n, back, len(s.producers), s.txns.open)
			}
		}
	}
}

func TestPendingManyProducersLeaveNoMemory(t *testing.T) {
	s := newState(0)
	p := s.begin()
	for id := range int64(2 * maxKeptStaged) {
		stageAt(p, batch(id, 0, 0, 1))
	}
	p.commit()
	if len(s.producers) != 2*maxKeptStaged {
		t.Fatalf("%d producers", len(s.producers))
	}
	if cap(p.staged) > maxKeptStaged || cap(p.undo) > maxKeptStaged || len(p.index) > 0 {
		t.Errorf("kept room for %d producers, %d undo steps, %d in the map", cap(p.staged), cap(p.undo), len(p.index))
	}
	for id := range int64(20) {
		if got, want := stageAt(s.begin(), batch(id, 0, 0, 1)), fmt.Sprintf("dup %d-%d", id, id); got != want {
			t.Fatalf("producer %d: %s, want %s", id, got, want)
		}
	}
}

func TestPendingAllocatesNothing(t *testing.T) {
	s := newState(0)
	nobody := batch(noProducer, noProducerEpoch, noSequence, 10)
	known := batch(7, 0, 0, 10)
	groups := func() {
		p := s.begin()
		for range 20 {
			nobody.BaseOffset = p.end
			if _, err := p.stage(nobody, nil, fromProducer, 0); err != nil {
				t.Fatal(err)
			}
		}
		for range 20 {
			known.BaseOffset = p.end
			if _, err := p.stage(known, nil, fromProducer, 0); err != nil {
				t.Fatal(err)
			}
			known.BaseSequence = addSequence(known.LastSequence(), 1)
		}
		p.commit()
	}
	groups()
	if n := testing.AllocsPerRun(100, groups); n != 0 {
		t.Errorf("%v allocations for a group of 40 batches", n)
	}
}

func BenchmarkStage(b *testing.B) {
	for _, id := range []int64{noProducer, 7} {
		b.Run(fmt.Sprintf("producer=%t", id >= 0), func(b *testing.B) {
			s := newState(0)
			h := batch(id, 0, 0, 10)
			if id < 0 {
				h.BaseSequence = noSequence
			}
			b.ReportAllocs()
			for b.Loop() {
				p := s.begin()
				h.BaseOffset = p.end
				if _, err := p.stage(h, nil, fromProducer, 0); err != nil {
					b.Fatal(err)
				}
				p.commit()
				if id >= 0 {
					h.BaseSequence = addSequence(h.LastSequence(), 1)
				}
			}
		})
	}
}
