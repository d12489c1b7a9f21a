package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// testClock is a wall clock that a test moves.
type testClock struct{ ns atomic.Int64 }

func newTestClock() *testClock {
	c := &testClock{}
	c.ns.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *testClock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *testClock) advance(d time.Duration) { c.ns.Add(int64(d)) }

// txnProducer is a producer with a transactional id, as simple as can be.
type txnProducer struct {
	e     *Engine
	id    string
	pid   int64
	epoch int16
	local bool
	v1    bool // the first protocol
	seq   map[*Partition]int32
}

func newTxnProducer(e *Engine, id string, local bool) *txnProducer {
	return &txnProducer{e: e, id: id, local: local, seq: make(map[*Partition]int32)}
}

func (p *txnProducer) init() (err error) {
	p.pid, p.epoch, err = p.e.Txns().InitProducer(ctx, InitRequest{
		TransactionalID: p.id, Timeout: time.Minute, ProducerID: -1, Epoch: -1, Local: p.local,
	})
	clear(p.seq)
	return err
}

func (p *txnProducer) produce(part *Partition, values ...string) error {
	if err := p.e.Txns().AddPartitions(ctx, p.id, p.pid, p.epoch, []TopicPartitions{{part.TopicID(), []int32{part.ID()}}}); err != nil {
		return err
	}
	return p.write(part, values...)
}

// write writes without asking the coordinator.
func (p *txnProducer) write(part *Partition, values ...string) error {
	recs := make([]log.Record, len(values))
	for i, v := range values {
		recs[i].Value = []byte(v)
	}
	_, err := part.Append(ctx, recs, &partition.AppendOptions{Producer: &partition.Producer{
		ID: p.pid, Epoch: p.epoch, Sequence: p.seq[part], Transactional: true, TxnV2: !p.v1,
	}, Unsynced: p.local})
	if err == nil {
		p.seq[part] += int32(len(values))
	}
	return err
}

func (p *txnProducer) end(commit bool) error {
	if p.v1 {
		return p.e.Txns().EndV1(ctx, p.id, p.pid, p.epoch, commit)
	}
	pid, epoch, err := p.e.Txns().End(ctx, p.id, p.pid, p.epoch, commit)
	if err == nil {
		p.pid, p.epoch = pid, epoch
		clear(p.seq)
	}
	return err
}

// commitOffset commits an offset of durable/0 for a group, in the transaction.
func (p *txnProducer) commitOffset(group string, offset int64) error {
	if err := p.e.Txns().AddOffsets(ctx, p.id, p.pid, p.epoch, group); err != nil {
		return err
	}
	return p.e.Groups().TxnCommit(ctx, CommitRequest{
		Group: group, MemberEpoch: -1, Offsets: []OffsetCommit{{Topic: "durable", Offset: offset, LeaderEpoch: -1}}, Local: p.local,
	}, p.pid, p.epoch)
}

// committedOffset is what a group has committed of durable/0, 0 if nothing.
func committedOffset(e *Engine, group string) (int64, error) {
	list, err := e.Groups().Committed(ctx, group, nil, false)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	if lost := list[0].Lost; lost != nil { // the tests' numbers lie past the end of the topic
		return lost.Offset, nil
	}
	return list[0].Offset, nil
}

// undecidedOffsets says whether offsets wait for the end of a transaction.
func undecidedOffsets(e *Engine) bool {
	for _, s := range e.groups.allShards() {
		s.mu.Lock()
		n := len(s.txns)
		s.mu.Unlock()
		if n > 0 {
			return true
		}
	}
	return false
}

// committed reads all values that a reader of committed records sees.
func committed(part *Partition) (values []string, err error) {
	r, err := part.ReadFrom(part.LogStart(), &partition.ReaderOptions{Isolation: partition.ReadCommitted})
	if err != nil {
		return nil, err
	}
	for {
		b, err := r.TryNext()
		if err == io.EOF {
			return values, nil
		}
		if err != nil {
			return values, err
		}
		for rec, err := range b.Records(1 << 20) {
			if err != nil {
				return values, err
			}
			values = append(values, string(rec.Value))
		}
	}
}

func wantCommitted(t *testing.T, part *Partition, want ...string) {
	t.Helper()
	got, err := committed(part)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%s: committed are %q, %v, want %q", part, got, err, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// openForTxns opens a database that may be killed before the test closes it.
func openForTxns(t *testing.T, fs vfs.FS, clock *testClock) *Engine {
	t.Helper()
	o := &Options{FS: fs}
	if clock != nil {
		o.Now = clock.now
	}
	e, err := Open("db", o)
	must(t, err)
	t.Cleanup(func() {
		if err := e.Close(); err != nil && !errors.Is(err, vfs.ErrCrashed) {
			t.Error(err)
		}
	})
	return e
}

func txnTestTopics(t *testing.T, e *Engine) (parts []*Partition) {
	t.Helper()
	for _, level := range []string{"durable", "interval", "os"} {
		topic, err := e.CreateTopic(ctx, TopicSpec{Name: level, Partitions: 2, Settings: map[string]string{settingDurability: level}})
		must(t, err)
		parts = append(parts, topic.Partitions()...)
	}
	return parts
}

func TestTransactionIsSeenWholeOrNotAtAll(t *testing.T) {
	for _, local := range []bool{true, false} {
		e := openForTxns(t, vfs.NewMem(), nil)
		parts := txnTestTopics(t, e)
		p := newTxnProducer(e, "ann", local)
		must(t, p.init())
		must(t, p.produce(parts[0], "a", "b"))
		must(t, p.produce(parts[5], "c"))
		must(t, p.produce(parts[0], "d"))
		wantCommitted(t, parts[0])
		must(t, p.end(true))
		wantCommitted(t, parts[0], "a", "b", "d")
		wantCommitted(t, parts[5], "c")
		must(t, p.produce(parts[0], "e"))
		must(t, p.produce(parts[3], "f"))
		must(t, p.end(false))
		must(t, p.produce(parts[0], "g"))
		must(t, p.end(true))
		wantCommitted(t, parts[0], "a", "b", "d", "g")
		wantCommitted(t, parts[3])
	}
}

func TestTransactionsOfTheFirstProtocol(t *testing.T) {
	fs := vfs.NewMem()
	clock := newTestClock()
	e := openForTxns(t, fs, clock)
	parts := txnTestTopics(t, e)
	p := newTxnProducer(e, "ann", false)
	p.v1 = true
	must(t, p.init())
	epoch := p.epoch
	for _, v := range []string{"a", "b"} {
		must(t, p.produce(parts[0], v))
		must(t, p.produce(parts[4], v))
		must(t, p.end(true))
		must(t, p.end(true)) // again
		must(t, p.produce(parts[0], "not"))
		must(t, p.end(false))
	}
	if p.epoch != epoch {
		t.Errorf("the epoch went from %d to %d", epoch, p.epoch)
	}
	// The database is killed while the next one is open: it goes on afterwards.
	must(t, p.produce(parts[0], "c"))
	e = openForTxns(t, fs.AfterKill(), clock)
	durable, _ := e.Topic("durable")
	part := durable.Partitions()[0]
	wantCommitted(t, part, "a", "b")
	p.e, p.seq[part] = e, p.seq[parts[0]]
	must(t, p.produce(part, "d"))
	must(t, p.end(true))
	wantCommitted(t, part, "a", "b", "c", "d")
}

func TestWhoTakesTheIDOverFences(t *testing.T) {
	for _, local := range []bool{true, false} {
		e := openForTxns(t, vfs.NewMem(), nil)
		parts := txnTestTopics(t, e)
		old, young := newTxnProducer(e, "ann", local), newTxnProducer(e, "ann", local)
		must(t, old.init())
		must(t, old.produce(parts[0], "old"))
		must(t, young.init())
		wantCommitted(t, parts[0])
		if parts[0].LastStable() != parts[0].HighWatermark() {
			t.Error("the old producer's transaction is still open")
		}
		for what, err := range map[string]error{
			"register": old.produce(parts[1], "x"), "write": old.write(parts[0], "x"), "commit": old.end(true), "abort": old.end(false),
		} {
			if !errors.Is(err, partition.ErrFenced) {
				t.Errorf("local %t: %s: %v, want fenced", local, what, err)
			}
		}
		must(t, young.produce(parts[0], "young"))
		must(t, young.end(true))
		wantCommitted(t, parts[0], "young")
	}
}

func TestTransactionTimesOut(t *testing.T) {
	clock := newTestClock()
	e := openForTxns(t, vfs.NewMem(), clock)
	parts := txnTestTopics(t, e)
	for _, local := range []bool{true, false} {
		p := newTxnProducer(e, "ann", local)
		must(t, p.init())
		must(t, p.produce(parts[0], "late"))
		must(t, p.produce(parts[5], "late"))
		clock.advance(59 * time.Second)
		e.Tick(ctx)
		must(t, p.produce(parts[1], "still"))
		clock.advance(time.Second)
		e.Tick(ctx)
		for what, err := range map[string]error{"register": p.produce(parts[1], "x"), "commit": p.end(true)} {
			var aborted *TxnAbortedError
			if !errors.As(err, &aborted) || !errors.Is(err, ErrTxnAborted) || aborted.Timeout != time.Minute {
				t.Errorf("%s after the timeout: %v", what, err)
			}
		}
		if err := p.write(parts[0], "x"); !errors.Is(err, partition.ErrFenced) {
			t.Errorf("write after the timeout: %v", err)
		}
		for _, part := range parts {
			wantCommitted(t, part)
			if part.LastStable() != part.HighWatermark() {
				t.Errorf("%s: readers are held back", part)
			}
		}
	}
}

// What a local producer left open is aborted by the next open; what a client of the
// Kafka door has open goes on, or is aborted when its time is over.
func TestOpenTransactionsAfterAKill(t *testing.T) {
	fs := vfs.NewMem()
	clock := newTestClock()
	e := openForTxns(t, fs, clock)
	parts := txnTestTopics(t, e)
	local, goes, stays := newTxnProducer(e, "local", true), newTxnProducer(e, "goes", false), newTxnProducer(e, "stays", false)
	for i, p := range []*txnProducer{local, goes, stays} {
		must(t, p.init())
		must(t, p.produce(parts[i], p.id))
		must(t, p.produce(parts[5], p.id))
	}
	e = openForTxns(t, fs.AfterKill(), clock)
	var again []*Partition
	for _, topic := range e.Topics() {
		if !topic.Internal() {
			again = append(again, topic.Partitions()...)
		}
	}
	if p := again[0]; p.LastStable() != p.HighWatermark() {
		t.Error("the local transaction is still open")
	}
	for i, part := range again {
		if held := part.LastStable() != part.HighWatermark(); held != (i == 1 || i == 2 || i == 5) {
			t.Errorf("%s: held back: %t", part, held)
		}
	}
	if err := local.withEngine(e).end(true); !errors.Is(err, ErrProducerMapping) {
		t.Errorf("commit of a local producer of the run before: %v", err)
	}
	must(t, goes.withEngine(e).end(true))
	wantCommitted(t, again[1], "goes")
	clock.advance(time.Minute)
	e.Tick(ctx)
	wantCommitted(t, again[2])
	wantCommitted(t, again[5], "goes")
	if err := stays.withEngine(e).end(true); !errors.Is(err, ErrTxnAborted) {
		t.Errorf("commit after the timeout: %v", err)
	}
	// The local id gets a new producer id: its epochs of the run before are not known.
	before := local.pid
	must(t, local.init())
	if local.pid == before {
		t.Errorf("producer id %d is used again", before)
	}
}

func (p *txnProducer) withEngine(e *Engine) *txnProducer {
	p.e = e
	return p
}

func TestRepeatedEnd(t *testing.T) {
	fs := vfs.NewMem()
	e := openForTxns(t, fs, nil)
	parts := txnTestTopics(t, e)
	p := newTxnProducer(e, "ann", false)
	must(t, p.init())
	must(t, p.produce(parts[0], "a"))
	pid, epoch := p.pid, p.epoch
	must(t, p.end(true))
	for range 2 {
		gotID, gotEpoch, err := e.Txns().End(ctx, "ann", pid, epoch, true)
		if gotID != p.pid || gotEpoch != p.epoch || err != nil {
			t.Errorf("again: %d, %d, %v, want %d, %d", gotID, gotEpoch, err, p.pid, p.epoch)
		}
		if _, _, err := e.Txns().End(ctx, "ann", pid, epoch, false); !errors.Is(err, partition.ErrInvalidTxnState) {
			t.Errorf("abort of what was committed: %v", err)
		}
		wantCommitted(t, parts[0], "a")
		// Also after a restart, whose log may still say PrepareCommit.
		e = openForTxns(t, fs.AfterKill(), nil)
		durable, _ := e.Topic("durable")
		parts = durable.Partitions()
	}
}

func TestLastEpochLeadsToAnotherProducerID(t *testing.T) {
	for _, local := range []bool{true, false} {
		fs := vfs.NewMem()
		e := openForTxns(t, fs, nil)
		parts := txnTestTopics(t, e)
		p := newTxnProducer(e, "ann", local)
		must(t, p.init())
		x := e.txns.ids["ann"]
		m := *x.meta.Load()
		m.epoch = lastTxnEpoch - 1
		x.meta.Store(&m)
		p.epoch = m.epoch
		first := p.pid
		var want []string
		for i := range 4 {
			v := fmt.Sprint(i)
			must(t, p.produce(parts[0], v))
			must(t, p.end(i%2 == 0))
			if i%2 == 0 {
				want = append(want, v)
			}
			wantCommitted(t, parts[0], want...)
		}
		if p.pid == first || p.epoch != 2 {
			t.Errorf("producer %d epoch %d after producer %d", p.pid, p.epoch, first)
		}
		e = openForTxns(t, fs.AfterKill(), nil)
		durable, _ := e.Topic("durable")
		wantCommitted(t, durable.Partitions()[0], want...)
	}
}

func TestDeletedTopicInATransaction(t *testing.T) {
	fs := vfs.NewMem()
	e := openForTxns(t, fs, nil)
	parts := txnTestTopics(t, e)
	p := newTxnProducer(e, "ann", true)
	must(t, p.init())
	must(t, p.produce(parts[0], "a"))
	must(t, p.produce(parts[2], "a"))
	must(t, e.DeleteTopic(ctx, "interval"))
	again, err := e.CreateTopic(ctx, TopicSpec{Name: "interval"})
	must(t, err)
	must(t, p.end(true))
	wantCommitted(t, parts[0], "a")
	if end := again.Partitions()[0].LogEnd(); end != 0 {
		t.Errorf("the new topic ends at %d", end)
	}
	if err := p.produce(parts[2], "b"); !errors.Is(err, ErrUnknownTopic) {
		t.Errorf("produce to a deleted topic: %v", err)
	}
	must(t, p.produce(parts[0], "c"))
	must(t, p.end(true))
	wantCommitted(t, parts[0], "a", "c")
}

func TestTransactionalIDsExpire(t *testing.T) {
	fs := vfs.NewMem()
	clock := newTestClock()
	e := openForTxns(t, fs, clock)
	parts := txnTestTopics(t, e)
	used, idle := newTxnProducer(e, "used", false), newTxnProducer(e, "idle", false)
	for _, p := range []*txnProducer{used, idle} {
		must(t, p.init())
		must(t, p.produce(parts[0], p.id))
		must(t, p.end(true))
	}
	clock.advance(4 * 24 * time.Hour)
	e.Tick(ctx)
	must(t, used.produce(parts[0], "again"))
	must(t, used.end(true))
	clock.advance(4 * 24 * time.Hour)
	e.Tick(ctx)
	for range 2 {
		if got := fmt.Sprint(e.Txns().List()); strings.Contains(got, "idle") || !strings.Contains(got, "used") {
			t.Errorf("known: %s", got)
		}
		if err := idle.withEngine(e).produce(parts[0], "x"); !errors.Is(err, ErrProducerMapping) {
			t.Errorf("an id that expired: %v", err)
		}
		must(t, e.Close())
		e = openForTxns(t, fs, clock)
		durable, _ := e.Topic("durable")
		parts = durable.Partitions()
	}
	must(t, idle.withEngine(e).init())
}

// Complete is written when an id has been left alone, or the database is closed.
func TestCompleteIsWrittenLater(t *testing.T) {
	for how, want := range map[string]txnState{"at once": txnPrepareCommit, "tick": txnCompleteCommit, "close": txnCompleteCommit} {
		fs := vfs.NewMem()
		clock := newTestClock()
		e := openForTxns(t, fs, clock)
		parts := txnTestTopics(t, e)
		for i := range 5 {
			p := newTxnProducer(e, fmt.Sprint(i), i%2 == 0)
			must(t, p.init())
			must(t, p.produce(parts[0], "a"))
			must(t, p.end(true))
		}
		switch how {
		case "tick":
			clock.advance(time.Second)
			e.Tick(ctx)
		case "close":
			must(t, e.Close())
		}
		got := txnStates(t, fs.AfterKill())
		for i := range 5 {
			if id := fmt.Sprint(i); got[id] != want {
				t.Errorf("%s: %s is %v, want %v", how, id, got[id], want)
			}
		}
	}
}

// txnStates reads what the coordinator's records say.
func txnStates(t *testing.T, fs vfs.FS) map[string]txnState {
	t.Helper()
	states := make(map[string]txnState)
	db := openForTxns(t, fs, nil) // its load writes nothing before it is closed
	topic, err := db.Topic(txnTopicName)
	must(t, err)
	for _, part := range topic.Partitions() {
		r, err := part.ReadFrom(0, nil)
		must(t, err)
		for {
			b, err := r.TryNext()
			if err == io.EOF {
				break
			}
			must(t, err)
			for rec, err := range b.Records(1 << 20) {
				must(t, err)
				id, err := parseTxnKey(rec.Key)
				must(t, err)
				v, err := parseTxnValue(rec.Value)
				must(t, err)
				states[id] = v.State
			}
		}
	}
	return states
}

// An end whose caller does not wait is finished all the same.
func TestEndWithoutWaiting(t *testing.T) {
	mem := vfs.NewMem()
	reached, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var armed atomic.Bool
	fs := vfs.NewFault(mem, vfs.Rule{Op: vfs.OpDatasync, Count: -1, Effect: vfs.Call(func() {
		if armed.Load() {
			once.Do(func() { close(reached) })
			<-release
		}
	})})
	e := openForTxns(t, fs, nil)
	parts := txnTestTopics(t, e)
	p := newTxnProducer(e, "ann", true)
	must(t, p.init())
	must(t, p.produce(parts[0], "a"))
	armed.Store(true)
	short, cancel := context.WithCancel(ctx)
	ended := make(chan error)
	go func() {
		_, _, err := e.Txns().End(short, "ann", p.pid, p.epoch, true)
		ended <- err
	}()
	<-reached
	cancel()
	err := <-ended
	if !errors.Is(err, partition.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "finished in the background") {
		t.Errorf("got %v", err)
	}
	wantCommitted(t, parts[0])
	armed.Store(false)
	close(release)
	must(t, p.init()) // waits for its turn
	wantCommitted(t, parts[0], "a")
}

func TestInitProducerRefuses(t *testing.T) {
	e := openForTxns(t, vfs.NewMem(), nil)
	for _, tt := range []struct {
		name string
		r    InitRequest
		want error
	}{
		{"no timeout", InitRequest{TransactionalID: "a", ProducerID: -1}, ErrInvalidTimeout},
		{"too long", InitRequest{TransactionalID: "a", Timeout: time.Hour, ProducerID: -1}, ErrInvalidTimeout},
		{"long id", InitRequest{TransactionalID: strings.Repeat("a", 40000), Timeout: time.Second, ProducerID: -1}, ErrInvalidTransactionalID},
		{"not UTF-8", InitRequest{TransactionalID: "\xff", Timeout: time.Second, ProducerID: -1}, ErrInvalidTransactionalID},
	} {
		if _, _, err := e.Txns().InitProducer(ctx, tt.r); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if got := e.Txns().List(); len(got) != 0 {
		t.Errorf("known: %v", got)
	}
	a, epoch, err := e.Txns().InitProducer(ctx, InitRequest{})
	b, _, err2 := e.Txns().InitProducer(ctx, InitRequest{})
	if a == b || epoch != 0 || err != nil || err2 != nil {
		t.Errorf("without an id: %d, %d, %v, %v", a, b, err, err2)
	}
	must(t, e.Close())
	if _, _, err := e.Txns().InitProducer(ctx, InitRequest{TransactionalID: "a", Timeout: time.Second, ProducerID: -1}); !errors.Is(err, log.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, _, err := e.Txns().End(ctx, "a", 0, 0, true); !errors.Is(err, log.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestDescribe(t *testing.T) {
	clock := newTestClock()
	e := openForTxns(t, vfs.NewMem(), clock)
	parts := txnTestTopics(t, e)
	p := newTxnProducer(e, "ann", true)
	must(t, p.init())
	must(t, p.produce(parts[1], "a"))
	must(t, p.produce(parts[0], "a"))
	d, err := e.Txns().Describe("ann")
	if err != nil || d.State != "Ongoing" || d.ProducerID != p.pid || d.Epoch != p.epoch || d.Timeout != time.Minute ||
		!d.Local || !d.Started.Equal(clock.now()) || len(d.Partitions) != 1 || !slices.Equal(d.Partitions[0].Partitions, []int32{0, 1}) {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := e.Txns().Describe("bob"); !errors.Is(err, ErrProducerMapping) {
		t.Errorf("unknown: %v", err)
	}
}

func TestOffsetsInATransaction(t *testing.T) {
	for _, local := range []bool{true, false} {
		fs := vfs.NewMem()
		e := openForTxns(t, fs, nil)
		parts := txnTestTopics(t, e)
		p := newTxnProducer(e, "ann", local)
		must(t, p.init())
		want := func(offset int64) {
			t.Helper()
			if got, err := committedOffset(e, "g"); got != offset || err != nil {
				t.Errorf("committed is %d, %v, want %d", got, err, offset)
			}
		}
		must(t, p.produce(parts[0], "a"))
		must(t, p.commitOffset("g", 3))
		if !undecidedOffsets(e) {
			t.Error("the offset is decided before the transaction is")
		}
		want(0)
		must(t, p.end(true))
		if undecidedOffsets(e) {
			t.Error("the offset is undecided after the transaction's end")
		}
		want(3)
		must(t, p.commitOffset("g", 5))
		must(t, p.end(false))
		want(3)
		must(t, p.commitOffset("g", 6))
		must(t, p.end(true))
		want(6)
		e = openForTxns(t, fs.AfterKill(), nil)
		want(6)
	}
}

// An abort, as by a timeout, that comes while offsets are being committed leaves
// nothing undecided behind.
func TestAbortWhileOffsetsAreCommitted(t *testing.T) {
	e := openForTxns(t, vfs.NewMem(), nil)
	txnTestTopics(t, e)
	p := newTxnProducer(e, "ann", true)
	for i := range testcount.N(2000) {
		must(t, p.init())
		must(t, e.Txns().AddOffsets(ctx, p.id, p.pid, p.epoch, "g"))
		committed := make(chan error)
		go func() {
			committed <- e.Groups().TxnCommit(ctx, CommitRequest{
				Group: "g", MemberEpoch: -1, Offsets: []OffsetCommit{{Topic: "durable", Offset: int64(i), LeaderEpoch: -1}},
			}, p.pid, p.epoch)
		}()
		for range i % 50 {
			runtime.Gosched()
		}
		must(t, newTxnProducer(e, "ann", true).init())
		if err := <-committed; err != nil && !errors.Is(err, partition.ErrFenced) {
			t.Fatal(err)
		}
		if got, err := committedOffset(e, "g"); got != 0 || err != nil {
			t.Fatalf("round %d: committed is %d, %v", i, got, err)
		}
		if undecidedOffsets(e) {
			t.Fatalf("round %d: an offset waits for a transaction that is over", i)
		}
	}
}

// What an id of this process had only in memory is not known in the next run: it
// gets another producer id, and is not refused where newer epochs were seen.
func TestLocalIDAfterAKill(t *testing.T) {
	fs := vfs.NewMem()
	e := openForTxns(t, fs, nil)
	parts := txnTestTopics(t, e)
	p := newTxnProducer(e, "ann", true)
	must(t, p.init())
	must(t, p.produce(parts[0], "a"))
	must(t, p.end(true))
	for range 3 {
		must(t, p.produce(parts[0], "b"))
		must(t, p.end(false))
	}
	e = openForTxns(t, fs.AfterKill(), nil)
	again := newTxnProducer(e, "ann", true)
	must(t, again.init())
	if again.pid == p.pid {
		t.Errorf("producer id %d is used again", p.pid)
	}
	durable, _ := e.Topic("durable")
	part := durable.Partitions()[0]
	must(t, again.produce(part, "c"))
	must(t, again.end(true))
	wantCommitted(t, part, "a", "c")
	// The old one may be told nothing but that it is over.
	if err := p.withEngine(e).produce(part, "x"); !errors.Is(err, ErrProducerMapping) {
		t.Errorf("the producer of the run before: %v", err)
	}
}
