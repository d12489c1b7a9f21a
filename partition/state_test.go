package partition

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/x/embedlog/internal/model"
	"github.com/x/embedlog/log"
)

// logged is a batch that is in the log, as recovery would find it.
type logged struct {
	h   log.BatchHeader
	m   *marker
	now int64
}

func (l *logged) replay(s *state) error {
	return s.replay(&l.h, l.now, func() (marker, bool, error) {
		if l.m == nil {
			return marker{}, false, nil
		}
		return *l.m, true, nil
	})
}

// client is a producer that mostly behaves.
type client struct {
	id    int64
	v2    bool // second transaction protocol
	txns  bool
	epoch int16
	next  int32
	sent  []log.BatchHeader
}

// world runs a state and the naive log side by side.
type world struct {
	t       *testing.T
	seed    uint64
	rnd     *rand.Rand
	s       *state
	m       *model.Log
	log     []logged
	snaps   [][]byte // encoded states, oldest first; the first may be the empty one
	hw      int64
	now     int64
	epoch   int32
	clients []*client
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d, log end %d: %s", w.seed, w.s.end, fmt.Sprintf(format, args...))
}

// Whatever is appended, repeated, refused, discarded, deleted, cut off and
// recovered, the state answers like the naive log, and a snapshot with the
// batches behind it comes to the same bytes as the live state.
func TestStateAgainstModel(t *testing.T) {
	base := rand.Uint64()
	var counts [8]int
	for i := range uint64(150) {
		runWorld(t, base+i, 60, &counts)
	}
	// A run that refuses everything, or nothing, would prove little.
	for o, n := range counts[:model.Unexpected] {
		if n < 20 {
			t.Errorf("outcome %d came up %d times only: %v", o, n, counts)
		}
	}
}

func runWorld(t *testing.T, seed uint64, groups int, counts *[8]int) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	start := rnd.Int64N(50)
	w := &world{t: t, seed: seed, rnd: rnd, s: newState(start), m: model.New(start), hw: start, now: 1000}
	w.snaps = append(w.snaps, w.s.appendTo(nil))
	for i := range 2 + rnd.IntN(14) { // more than linearStaged at times
		c := &client{id: int64(i * 10), v2: rnd.IntN(2) == 0, txns: rnd.IntN(3) > 0}
		if rnd.IntN(3) == 0 {
			c.next = math.MaxInt32 - rnd.Int32N(10)
		}
		w.clients = append(w.clients, c)
	}
	for range groups {
		w.now += rnd.Int64N(100)
		if rnd.IntN(10) == 0 {
			w.epoch += 1 + rnd.Int32N(3)
		}
		w.group(counts)
		w.s.txns.advance(w.hw)
		switch rnd.IntN(16) {
		case 0:
			w.snaps = append(w.snaps, w.s.appendTo(nil))
		case 1:
			w.deleteRecords()
		case 2:
			w.truncate()
		case 3:
			w.expire()
		case 4, 5:
			w.hw += rnd.Int64N(w.s.end - w.hw + 1)
			w.s.txns.advance(w.hw)
		case 6, 7:
			w.hw = w.s.end
			w.s.txns.advance(w.hw)
		}
		w.compare()
	}
}

// group stages some batches, with points to go back to, and commits or discards them.
func (w *world) group(counts *[8]int) {
	p := w.s.begin()
	var written []logged
	before := w.s.end
	for range 1 + w.rnd.IntN(20) {
		mark, end, n := p.mark(), w.m.End(), len(written)
		for range 1 + w.rnd.IntN(2) {
			if b, ok := w.append(p, counts); ok {
				written = append(written, b)
			}
		}
		if w.rnd.IntN(10) == 0 {
			p.rollback(mark)
			w.m.Truncate(end)
			written = written[:n]
		}
	}
	if w.rnd.IntN(6) == 0 {
		p.discard()
		w.m.Truncate(before)
		return
	}
	p.commit()
	w.log = append(w.log, written...)
}

// append stages one batch and compares the verdict.
func (w *world) append(p *pending, counts *[8]int) (logged, bool) {
	c := w.clients[w.rnd.IntN(len(w.clients))]
	b := logged{now: w.now}
	var o origin
	if c.v2 {
		o = withTxnV2
	}
	var base, last int64
	var want model.Outcome
	if c.txns && w.rnd.IntN(4) == 0 {
		o |= fromCoordinator
		epoch := c.epoch
		if c.v2 && w.rnd.IntN(4) > 0 {
			epoch++
		}
		b.h = *endTxn(c.id, max(0, epoch-int16(w.rnd.IntN(8)/7)))
		b.m = &marker{commit: w.rnd.IntN(2) == 0, coordinatorEpoch: int32(p.end/64) - w.rnd.Int32N(8)/7}
		base, want = w.m.EndTxn(model.Marker{
			Commit: b.m.commit, ProducerID: c.id, ProducerEpoch: b.h.ProducerEpoch,
			CoordinatorEpoch: b.m.coordinatorEpoch, TxnV2: c.v2, LeaderEpoch: w.epoch,
		})
		last = base
		if want == model.Appended && b.h.ProducerEpoch > c.epoch {
			c.epoch, c.next = b.h.ProducerEpoch, 0
		}
	} else {
		b.h = *w.batchOf(c)
		base, last, want = w.m.Append(model.Batch{
			ProducerID: b.h.ProducerID, ProducerEpoch: b.h.ProducerEpoch, BaseSequence: b.h.BaseSequence,
			Transactional: b.h.Attributes.Has(log.Transactional), TxnV2: c.v2,
			LeaderEpoch: w.epoch, Records: make([]model.Record, b.h.Count),
		})
		if want == model.Appended && b.h.ProducerID >= 0 {
			c.epoch, c.next = b.h.ProducerEpoch, addSequence(b.h.LastSequence(), 1)
			c.sent = append(c.sent, b.h)
		}
	}
	counts[want]++
	b.h.BaseOffset, b.h.LeaderEpoch = p.end, w.epoch
	v, err := p.stage(&b.h, b.m, o, w.now)
	got := map[string]model.Outcome{
		"fenced": model.Fenced, "coordinator fenced": model.FencedCoordinator,
		"out of order": model.OutOfOrder, "invalid txn": model.InvalidTxn,
	}[outcome(verdict{}, err)]
	if err == nil && v.duplicate {
		got = model.Duplicate
	}
	if got != want || err == nil && (v.baseOffset != base || v.lastOffset != last) {
		w.fatalf("%+v marker %+v: got %s (%v), the model says outcome %d, offsets %d to %d", b.h, b.m, outcome(v, err), err, want, base, last)
	}
	return b, want == model.Appended
}

// batchOf makes the next batch of a client, sometimes a repeated or a wrong one.
func (w *world) batchOf(c *client) *log.BatchHeader {
	n := 1 + w.rnd.IntN(4)
	h := batch(c.id, c.epoch, c.next, n)
	switch w.rnd.IntN(24) {
	case 0, 1, 2:
		if len(c.sent) > 0 { // a retry, mostly of a batch that is still remembered
			h = new(log.BatchHeader)
			*h = c.sent[len(c.sent)-1-w.rnd.IntN(min(7, len(c.sent)))]
			return h
		}
	case 3:
		h.BaseSequence = addSequence(c.next, w.rnd.Int32N(5)-2)
	case 4:
		h.ProducerEpoch = max(0, c.epoch-1)
	case 5:
		h.ProducerEpoch, h.BaseSequence = c.epoch+1, w.rnd.Int32N(6)/5
	case 6, 7, 8:
		return batch(noProducer, noProducerEpoch, noSequence, n)
	}
	if c.txns && w.rnd.IntN(12) > 0 {
		inTxn(h)
	}
	return h
}

func (w *world) deleteRecords() {
	to := w.m.Start() + w.rnd.Int64N(w.hw-w.m.Start()+1)
	w.m.DeleteTo(to)
	w.s.deletedTo(to)
	w.snaps = append(w.snaps[:0], w.s.appendTo(nil)) // a log start is moved with a checkpoint; what lies below is gone
}

// expire forgets idle producers. That is not in the log, so recovery from an
// older snapshot would know them again.
func (w *world) expire() {
	before := w.s.producerStates()
	if w.s.producers.expire(w.now, 300e6) == 0 {
		return
	}
	after := w.s.producerStates()
	for _, p := range before {
		if !slices.Contains(after, p) {
			w.m.Forget(p.ProducerID)
		}
	}
	w.snaps = append(w.snaps[:0], w.s.appendTo(nil))
}

// recovered is the state that a snapshot and the batches behind it make, cut off at end.
func (w *world) recovered(snap []byte, end int64) *state {
	s, err := decodeState(snap)
	if err != nil {
		w.fatalf("snapshot: %v", err)
	}
	for i := range w.log {
		if w.log[i].h.LastOffset() >= end {
			break
		}
		if err := w.log[i].replay(s); err != nil {
			w.fatalf("replay: %v", err)
		}
	}
	s.deletedTo(w.m.Start())
	s.txns.advance(w.hw)
	return s
}

// truncate cuts off batches above the high watermark, as a new leader would have it.
func (w *world) truncate() {
	ends := []int64{w.s.end}
	for _, b := range w.log {
		if b.h.BaseOffset >= w.hw {
			ends = append(ends, b.h.BaseOffset)
		}
	}
	end := ends[w.rnd.IntN(len(ends))]
	for len(w.snaps) > 0 {
		snap, err := decodeState(w.snaps[len(w.snaps)-1])
		if err == nil && snap.end <= end {
			break
		}
		w.snaps = w.snaps[:len(w.snaps)-1]
	}
	if len(w.snaps) == 0 { // all were taken behind the cut: start again from this state
		w.snaps = append(w.snaps, w.s.appendTo(nil))
		return
	}
	w.s.restore(w.recovered(w.snaps[len(w.snaps)-1], end))
	w.m.Truncate(end)
	w.log = slices.DeleteFunc(w.log, func(b logged) bool { return b.h.BaseOffset >= end })
}

func (w *world) compare() {
	if w.s.end != w.m.End() {
		w.fatalf("the model ends at %d", w.m.End())
	}
	if got, want := w.s.txns.lastStable(w.m.Start(), w.hw), w.m.LastStable(w.hw); got != want {
		w.fatalf("last stable offset under %d: %d, the model says %d", w.hw, got, want)
	}
	from := w.m.Start() + w.rnd.Int64N(w.s.end-w.m.Start()+1)
	to := from + w.rnd.Int64N(w.s.end-from+1)
	var aborted []model.Txn
	for _, a := range w.s.txns.abortedIn(nil, from, to) {
		aborted = append(aborted, model.Txn{ProducerID: a.producerID, First: a.first, Marker: a.marker})
	}
	if want := w.m.Aborted(from, to); !slices.Equal(aborted, want) {
		w.fatalf("aborted in [%d, %d): %v, the model says %v", from, to, aborted, want)
	}
	for e := int32(-1); e <= w.epoch+1; e++ {
		epoch, end := w.s.epochs.endOffset(e, w.s.end)
		if wantEpoch, want := w.m.EndOfEpoch(e); epoch != wantEpoch || end != want {
			w.fatalf("epoch %d: %d ends at %d, the model says %d at %d (%v, log start %d)", e, epoch, end, wantEpoch, want, &w.s.epochs, w.m.Start())
		}
	}
	if from < w.s.end {
		if got, ok := w.s.epochs.epochFor(from); !ok || got != w.m.EpochAt(from) {
			w.fatalf("epoch at %d: %d, %t, the model says %d", from, got, ok, w.m.EpochAt(from))
		}
	}
	live := w.s.appendTo(nil)
	if got := w.recovered(w.snaps[w.rnd.IntN(len(w.snaps))], w.s.end).appendTo(nil); !bytes.Equal(got, live) {
		w.fatalf("recovered state differs from the live one:\n%x\n%x", got, live)
	}
	back, err := decodeState(live)
	if err != nil {
		w.fatalf("decode: %v", err)
	}
	if back.txns.unstable != w.s.txns.unstable || !slices.Equal(back.txns.open, w.s.txns.open) {
		w.fatalf("decoded: open %v unstable %d, live: open %v unstable %d", back.txns.open, back.txns.unstable, w.s.txns.open, w.s.txns.unstable)
	}
}

func TestCloneIsIndependent(t *testing.T) {
	// Everything, with what the bytes do not show.
	show := func(s *state) string {
		return fmt.Sprintf("%x %v %d", s.appendTo(nil), s.txns.open, s.txns.unstable)
	}
	s := newState(0)
	add := func(h *log.BatchHeader, m *marker, epoch int32, now int64) {
		t.Helper()
		h.LeaderEpoch = epoch
		o := fromProducer
		if m != nil {
			o = fromCoordinator
		}
		if _, err := put(s, h, m, o, now); err != nil {
			t.Fatal(err)
		}
	}
	change := func() {
		t.Helper()
		s.txns.advance(s.end) // what shrinks in place goes first: a list that has grown lies elsewhere
		s.deletedTo(7)
		add(inTxn(batch(7, 0, 2, 2)), nil, 4, 6)
		add(endTxn(7, 0), &marker{}, 4, 6)
		add(batch(10, 0, 0, 1), nil, 5, 6)
	}
	add(inTxn(batch(7, 0, 0, 2)), nil, 1, 5)
	add(inTxn(batch(8, 0, 0, 2)), nil, 2, 5)
	add(inTxn(batch(9, 0, 0, 2)), nil, 3, 5)
	add(endTxn(8, 0), &marker{}, 3, 5)
	saved := s.clone()
	want := show(s)
	if got := show(saved); got != want {
		t.Fatalf("the clone differs:\n%s\n%s", got, want)
	}
	change()
	if got := show(saved); got != want {
		t.Fatalf("the clone changed:\n%s\n%s", got, want)
	}
	p := s.begin()
	h := batch(10, 0, 1, 1)
	h.BaseOffset = p.end
	if _, err := p.stage(h, nil, fromProducer, 7); err != nil {
		t.Fatal(err)
	}
	s.restore(saved)
	if got := show(s); got != want {
		t.Fatalf("restored:\n%s\n%s", got, want)
	}
	if p.end != saved.end || len(p.staged) != 0 {
		t.Error("a restored state keeps what was pending")
	}
	change()
	if got := show(saved); got != want {
		t.Fatalf("the clone changed after a restore from it:\n%s\n%s", got, want)
	}
}

// A replica that is sent a log from some offset on begins there.
func TestDeletedPastTheEnd(t *testing.T) {
	s := newState(0)
	put(s, inTxn(batch(7, 0, 0, 2)), nil, fromProducer, 0)
	put(s, endTxn(7, 0), &marker{}, fromCoordinator, 0)
	s.deletedTo(50)
	if s.end != 50 || len(s.txns.aborted) != 0 {
		t.Errorf("ends at %d, aborted %v", s.end, s.txns.aborted)
	}
	if got := outcome(put(s, batch(7, 0, 2, 1), nil, fromProducer, 0)); got != "ok 50-50" {
		t.Errorf("the producer goes on: %s", got)
	}
}

func TestReplay(t *testing.T) {
	s := newState(10)
	none := func() (marker, bool, error) {
		t.Error("asked for a marker of a data batch")
		return marker{}, false, nil
	}
	at := func(h *log.BatchHeader, offset int64) *log.BatchHeader { h.BaseOffset = offset; return h }
	if err := s.replay(at(batch(7, 0, 5, 3), 7), 0, none); err != nil || len(s.producers) != 0 {
		t.Errorf("a batch below the snapshot's end: %v, %v", err, s.producers)
	}
	var bad *log.BadBatchError
	if err := s.replay(at(batch(7, 0, 5, 3), 8), 0, none); !errors.As(err, &bad) || s.end != 10 {
		t.Errorf("a batch across the snapshot's end: %v, end %d", err, s.end)
	}
	if err := s.replay(at(batch(-1, -1, -1, 3), 8), 0, none); err != nil || s.end != 11 {
		t.Errorf("a joined batch of nobody across the snapshot's end: %v, end %d", err, s.end)
	}
	if err := s.replay(at(inTxn(batch(7, 0, 5, 3)), 20), 0, none); err != nil || s.txns.unstable != 20 || s.end != 23 {
		t.Errorf("a transaction: %v, %+v, end %d", err, s.txns, s.end)
	}
	wrong := errors.New("wrong")
	if err := s.replay(at(endTxn(7, 0), 23), 0, func() (marker, bool, error) { return marker{}, false, wrong }); err != wrong || s.end != 23 {
		t.Errorf("a marker that does not parse: %v, end %d", err, s.end)
	}
	empty := at(endTxn(7, 0), 23)
	empty.Count = 0
	if err := s.replay(empty, 0, none); err != nil || len(s.txns.open) != 1 || s.end != 24 {
		t.Errorf("a marker that compaction emptied: %v, %+v, end %d", err, s.txns, s.end)
	}
	// The log has an older epoch behind a newer one: the newer one keeps its sequences.
	s.replay(at(batch(9, 5, 0, 1), 24), 0, none)
	s.replay(at(batch(9, 4, 8, 1), 25), 0, none)
	if p := s.producers[9]; p.epoch != 5 || p.kept != 1 || p.batches[0].lastSequence != 0 {
		t.Errorf("after an older epoch: %+v", p)
	}
}

func TestProducerStates(t *testing.T) {
	s := newState(0)
	put(s, inTxn(batch(8, 2, 5, 2)), nil, fromProducer, 0)
	put(s, endTxn(7, 1), &marker{coordinatorEpoch: 4}, fromCoordinator, 0)
	want := []ProducerState{
		{ProducerID: 7, Epoch: 1, LastSequence: -1, LastOffset: -1, LastTimestamp: -1, CoordinatorEpoch: 4, TxnFirstOffset: -1},
		{ProducerID: 8, Epoch: 2, LastSequence: 6, LastOffset: 1, LastTimestamp: 1000, CoordinatorEpoch: -1, TxnFirstOffset: 0},
	}
	if got := s.producerStates(); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
