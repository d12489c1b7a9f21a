package embedlog

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// replicatedModel is a replicated partition as a producer meets it: batches are put in the log and
// acknowledged later; what is not committed yet may be taken back, and so all behind it.
type replicatedModel struct {
	t   *testing.T
	rng *rand.Rand
	bad bool // things go wrong

	mu        sync.Mutex
	log       []modelBatch
	committed int // batches
	under     int // calls
	unplaced  int // of those, that are not in the log yet
	most      int // of under
	missed    int // calls that came behind one that was taken back
}

type modelBatch struct {
	producer partition.Producer
	records  []int
	base     int64
}

func (m *replicatedModel) end() int64 {
	if len(m.log) == 0 {
		return 0
	}
	last := m.log[len(m.log)-1]
	return last.base + int64(len(last.records))
}

// place is what the leader does with a batch: it is in the log behind the one that is before it in the
// producer's sequence, or nowhere.
func (m *replicatedModel) place(pr *partition.Producer, recs []log.Record) (at int, err error) {
	known := false
	epoch, next := int16(0), int32(0)
	for i, b := range m.log {
		if b.producer.ID != pr.ID {
			continue
		}
		if b.producer.Epoch == pr.Epoch && b.producer.Sequence == pr.Sequence && len(b.records) == len(recs) {
			return i, nil // a repetition
		}
		known, epoch, next = true, b.producer.Epoch, b.producer.Sequence+int32(len(b.records))
	}
	switch {
	case known && pr.Epoch < epoch:
		return 0, &FencedError{ProducerID: pr.ID, Epoch: int32(pr.Epoch), Current: int32(epoch)}
	case known && pr.Epoch > epoch:
		next = 0
	case !known:
		next = pr.Sequence
	}
	if pr.Sequence != next {
		return 0, &OutOfOrderSequenceError{ProducerID: pr.ID, Epoch: pr.Epoch, Sequence: pr.Sequence, Expected: next}
	}
	b := modelBatch{producer: *pr, base: m.end()}
	for _, r := range recs {
		b.records = append(b.records, int(binary.BigEndian.Uint16(r.Value)))
	}
	m.log = append(m.log, b)
	return len(m.log) - 1, nil
}

func (m *replicatedModel) write(_ *engine.Partition, ctx context.Context, recs []log.Record, o *partition.AppendOptions) (res partition.Result, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unplaced > 0 {
		m.t.Error("a batch goes while the one before it is not in the log yet")
	}
	m.under++
	m.unplaced++
	m.most = max(m.most, m.under)
	defer func() { m.under-- }()
	chance := func(n int) bool { return m.bad && m.rng.IntN(n) == 0 }
	wait := func(d time.Duration) {
		d = time.Duration(m.rng.Int64N(int64(d)))
		m.mu.Unlock()
		time.Sleep(d)
		m.mu.Lock()
	}
	lost := func(why string) error {
		return &UnknownOutcomeError{BaseOffset: -1, LastOffset: -1, Err: errors.New(why)}
	}
	wait(5 * time.Millisecond)
	if chance(20) {
		m.unplaced--
		return res, &NotLeaderError{Leader: -1}
	}
	at, err := m.place(o.Producer, recs)
	m.unplaced--
	if err != nil {
		if errors.Is(err, ErrOutOfOrderSequence) {
			m.missed++
		}
		return res, err
	}
	mine := m.log[at]
	m.mu.Unlock()
	o.Placed()
	m.mu.Lock()
	wait(10 * time.Millisecond)
	there := at < len(m.log) && m.log[at].producer == mine.producer && m.log[at].base == mine.base && slices.Equal(m.log[at].records, mine.records)
	switch {
	case !there:
		return res, lost("it was taken back")
	case at >= m.committed && chance(6):
		m.log = m.log[:at+m.rng.IntN(2)] // with those behind it
		return res, lost("another leads")
	case chance(12):
		return res, lost("no answer")
	}
	m.committed = max(m.committed, at+1)
	return partition.Result{BaseOffset: mine.base, LastOffset: mine.base + int64(len(recs)) - 1, AppendTime: -1}, nil
}

var underSeed = flag.Int64("under.seed", 0, "the one seed of TestProducerBatchesUnderWay; 0 is many")

// Batches go while others of their partition wait for a majority, and whatever becomes of them: what is
// acknowledged is there, once, all of it in the order it was sent in, and is told in that order; of what is told to have
// failed nothing is there.
func TestProducerBatchesUnderWay(t *testing.T) {
	seeds := int64(testcount.N(500))
	most, missed := 0, 0
	for seed := int64(1); seed <= seeds; seed++ {
		if *underSeed != 0 {
			seed, seeds = *underSeed, *underSeed
		}
		synctest.Test(t, func(t *testing.T) {
			m := underWay(t, seed)
			most, missed = max(most, m.most), missed+m.missed
		})
		if t.Failed() {
			t.Fatalf("with -under.seed=%d", seed)
		}
	}
	if *underSeed == 0 && (seeds >= 20 && most != mostUnder || seeds >= 100 && missed == 0) {
		t.Errorf("%d batches were under way at once, want %d; %d came behind one that was taken back", most, mostUnder, missed)
	}
}

const underRecords = 120

func underWay(t *testing.T, seed int64) *replicatedModel {
	rng := rand.New(rand.NewPCG(uint64(seed), 1))
	db := openMemory(t, nil)
	makeTopic(t, db, "t", nil)
	cfg := &ProducerConfig{BatchBytes: 4 * worthBytes, BufferBytes: int64(1+rng.IntN(20)) * worthBytes}
	if rng.IntN(4) == 0 {
		cfg.Linger = time.Millisecond
	}
	if rng.IntN(3) == 0 {
		cfg.DeliveryTimeout = 150 * time.Millisecond // once more, and then it is given up
	}
	p, err := db.Producer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	m := &replicatedModel{t: t, rng: rand.New(rand.NewPCG(uint64(seed), 2)), bad: seed%4 > 0}
	p.write = m.write
	type told struct {
		err error
		pos Position
	}
	outcomes := map[int]told{}
	last := -1
	for i := range underRecords {
		v := binary.BigEndian.AppendUint16(nil, uint16(i))
		v = append(v, make([]byte, 1+rng.IntN(worthBytes/3))...)
		err := p.Send(context.Background(), Record{Topic: "t", Value: v}, func(pos Position, err error) {
			if _, again := outcomes[i]; again || i <= last {
				t.Errorf("record %d is told after %d (twice: %t)", i, last, again)
			}
			last, outcomes[i] = i, told{err, pos}
		})
		if err != nil {
			t.Fatal(err)
		}
		switch rng.IntN(40) {
		case 0:
			time.Sleep(time.Duration(rng.Int64N(int64(20 * time.Millisecond))))
		case 1:
			p.Flush(context.Background()) // its error is a record's, which has been told
		}
	}
	if seed%7 == 0 {
		p.Abort()
	} else if err := p.Close(); err != nil {
		t.Error(err)
	}
	there := map[int]int64{}
	before := -1
	for _, b := range m.log {
		for k, i := range b.records {
			if i <= before {
				t.Errorf("record %d is there behind %d", i, before)
			}
			before, there[i] = i, b.base+int64(k)
		}
	}
	acked := 0
	for i := range underRecords {
		o, ok := outcomes[i]
		offset, is := there[i]
		switch {
		case !ok:
			t.Errorf("record %d is not told of", i)
		case o.err == nil && (!is || offset != o.pos.Offset):
			t.Errorf("record %d was acknowledged at %d, and is there: %t, %d", i, o.pos.Offset, is, offset)
		case o.err != nil && !errors.Is(o.err, ErrUnknownOutcome) && is:
			t.Errorf("record %d has failed with %v, and is there", i, o.err)
		case o.err != nil && seed%7 > 0 && (cfg.DeliveryTimeout == 0 || !errors.Is(o.err, ErrUnknownOutcome) && !errors.Is(o.err, ErrNotLeader)):
			t.Errorf("record %d: %v", i, o.err) // it could have been tried again
		case o.err == nil:
			acked++
		}
	}
	if seed%7 > 0 && acked == 0 {
		t.Error("nothing was acknowledged")
	}
	return m
}
