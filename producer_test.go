package embedlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// producerRun is one run of random senders against one producer.
type producerRun struct {
	t      *testing.T
	db     *DB
	fault  *vfs.Fault
	topics []*Topic
	cfg    ProducerConfig
	p      *Producer

	mu   sync.Mutex
	sent map[string]*sentRecord // by value
	most int64                  // of the buffer that was seen in use
	last map[string]int64       // the last offset that a callback told, by partition
}

// sentRecord is a record that Send took.
type sentRecord struct {
	sender, seq int
	key         string
	calls       int
	pos         Position
	err         error
}

func newProducerRun(t *testing.T, cfg ProducerConfig, level Durability) *producerRun {
	t.Helper()
	r := &producerRun{t: t, cfg: cfg, sent: make(map[string]*sentRecord), last: make(map[string]int64)}
	r.fault = vfs.NewFault(vfs.NewMem())
	db, err := OpenFS(r.fault, &Options{MaintenanceInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	r.db = db
	for i, n := range []int{1, 4} {
		r.topics = append(r.topics, makeTopic(t, db, fmt.Sprintf("t%d", i), &TopicConfig{Partitions: n, Durability: level}))
	}
	if r.p, err = db.Producer(&cfg); err != nil {
		t.Fatal(err)
	}
	return r
}

// send sends n records in the order of seq and counts what comes back.
func (r *producerRun) send(ctx context.Context, sender, n int, rng *rand.Rand) {
	for seq := range n {
		topic := r.topics[rng.IntN(len(r.topics))]
		s := &sentRecord{sender: sender, seq: seq}
		value := fmt.Sprintf("%d-%d-%s", sender, seq, strings.Repeat("x", rng.IntN(200)))
		rec := Record{Topic: topic.Name(), Value: []byte(value)}
		if rng.IntN(5) > 0 {
			s.key = fmt.Sprintf("key-%d", rng.IntN(10))
			rec.Key = []byte(s.key)
		}
		if rng.IntN(8) == 0 {
			rec.Headers = []Header{{Key: "h", Value: []byte(value)}, {Key: "null"}}
		}
		r.mu.Lock()
		r.sent[value] = s
		r.mu.Unlock()
		err := r.p.Send(ctx, rec, func(pos Position, err error) { r.answered(s, pos, err) })
		// The bytes are the sender's again.
		for i := range rec.Value {
			rec.Value[i] = '!'
		}
		for i := range rec.Key {
			rec.Key[i] = '!'
		}
		if err != nil {
			r.mu.Lock()
			if s.calls != 0 {
				r.t.Errorf("%s: Send failed (%v) and done was called", value, err)
			}
			delete(r.sent, value)
			r.mu.Unlock()
		}
	}
}

func (r *producerRun) answered(s *sentRecord, pos Position, err error) {
	r.p.mu.Lock() // a callback under the producer's lock would deadlock here
	r.most = max(r.most, r.p.used)
	r.p.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	s.calls++
	s.pos, s.err = pos, err
	if err == nil {
		where := fmt.Sprintf("%s/%d", pos.Topic, pos.Partition)
		if last, ok := r.last[where]; ok && pos.Offset <= last {
			r.t.Errorf("%s: told of offset %d after %d", where, pos.Offset, last)
		}
		r.last[where] = pos.Offset
	}
}

// check compares what was told with what is there: acknowledged is there once, at
// its place; refused is not there; unknown is there once at most; and each sender's
// records of one key are in order.
func (r *producerRun) check() (acknowledged, unknown, failed int) {
	r.t.Helper()
	there := make(map[string]int)
	type chain struct {
		sender     int
		topic, key string
	}
	last := make(map[chain]int)
	for _, topic := range r.topics {
		for rec, err := range topic.Scan(context.Background(), nil) {
			if err != nil {
				r.t.Fatal(err)
			}
			value := string(rec.Value)
			there[value]++
			s := r.sent[value]
			switch {
			case s == nil:
				r.t.Errorf("%+v was never taken", rec.Position())
				continue
			case s.err == nil && s.pos != rec.Position():
				r.t.Errorf("%q is at %+v, told was %+v", value, rec.Position(), s.pos)
			case s.err != nil && !errors.Is(s.err, ErrUnknownOutcome):
				r.t.Errorf("%q is there, told was %v", value, s.err)
			case s.key != string(rec.Key):
				r.t.Errorf("%q has the key %q, want %q", value, rec.Key, s.key)
			}
			if h, ok := rec.Header("h"); ok && string(h) != value {
				r.t.Errorf("%q has the header %q", value, h)
			}
			if s.key == "" {
				continue
			}
			c := chain{s.sender, rec.Topic, s.key}
			if before, ok := last[c]; ok && s.seq <= before {
				r.t.Errorf("%v: record %d came after %d", c, s.seq, before)
			}
			last[c] = s.seq
		}
	}
	for value, s := range r.sent {
		switch {
		case s.calls != 1:
			r.t.Errorf("%q: done was called %d times", value, s.calls)
		case s.err == nil:
			acknowledged++
		case errors.Is(s.err, ErrUnknownOutcome):
			unknown++
		default:
			failed++
		}
		if n := there[value]; n > 1 || s.err == nil && n != 1 {
			r.t.Errorf("%q is there %d times, told was %v", value, n, s.err)
		}
	}
	if r.most > r.cfg.BufferBytes && r.cfg.BufferBytes > 0 {
		r.t.Errorf("%d bytes were held, %d are allowed", r.most, r.cfg.BufferBytes)
	}
	if r.p.used != 0 || len(r.p.waiters) != 0 || len(r.p.active) != 0 || len(r.p.waiting) != 0 || r.p.workers != 0 {
		r.t.Errorf("left behind: %d bytes, %d waiters, %d queues, %d waiting, %d workers", r.p.used, len(r.p.waiters), len(r.p.active), len(r.p.waiting), r.p.workers)
	}
	return acknowledged, unknown, failed
}

func (r *producerRun) senders(ctx context.Context, senders, n int, seed uint64) {
	var all sync.WaitGroup
	for i := range senders {
		all.Go(func() { r.send(ctx, i, n, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	all.Wait()
}

// Random senders, buffers, lingering, codecs and a disk that fills up and has room
// again: everything is acknowledged, once.
func TestProducerHealsFromAFullDisk(t *testing.T) {
	hits := 0
	for seed := range uint64(testcount.N(40)) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			cfg := ProducerConfig{
				Linger: time.Duration(rng.IntN(3)) * 5 * time.Millisecond, BatchBytes: 300 + rng.IntN(20_000),
				BufferBytes: int64(2000 + rng.IntN(100_000)), Compression: compress.Codec(rng.IntN(int(compress.Zstd))), DeliveryTimeout: -1,
			}
			r := newProducerRun(t, cfg, []Durability{Durable, Interval, OS}[rng.IntN(3)])
			for range 3 {
				for _, op := range []vfs.Op{vfs.OpWrite, vfs.OpZero, vfs.OpAllocate} {
					r.fault.Add(vfs.Rule{Op: op, Glob: "topics/*/*/*.log", Skip: rng.IntN(40), Count: 1 + rng.IntN(4), Effect: vfs.Full(0)})
				}
			}
			r.senders(context.Background(), 4, 100, seed)
			if err := r.p.Flush(context.Background()); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			synctest.Wait()
			if r.p.workers != 0 {
				t.Errorf("seed %d: %d workers of an idle producer", seed, r.p.workers)
			}
			if err := r.p.Close(); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			if ok, unknown, failed := r.check(); ok != 400 || unknown+failed != 0 {
				t.Errorf("seed %d: %d acknowledged, %d unknown, %d failed", seed, ok, unknown, failed)
			}
			hits += r.fault.Hits()
			if err := r.db.Close(); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if hits < max(1, testcount.N(40)/4) {
		t.Errorf("the disk was full %d times: the test tests nothing", hits)
	}
}

// A partition whose storage fails loses what was in flight to the unknown, refuses
// what comes, and does not hold up the others.
func TestProducerStorageFails(t *testing.T) {
	unknowns, faults := 0, 0
	for seed := range uint64(testcount.N(30)) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			r := newProducerRun(t, ProducerConfig{BufferBytes: 20_000, BatchBytes: 1000}, Durable)
			r.fault.Add(vfs.Rule{Op: vfs.OpDatasync, Glob: "topics/*/*/*.log", Skip: rng.IntN(30), Effect: vfs.FailSync()})
			ctx := context.Background()
			if rng.IntN(2) == 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, time.Second) // virtual: only if something hangs
				defer cancel()
			}
			r.senders(ctx, 4, 60, seed)
			if err := r.p.Close(); err != nil {
				t.Error(err) // every record had a done function
			}
			ok, unknown, failed := r.check()
			if r.fault.Hits() > 0 {
				faults++
			}
			unknowns += unknown
			if r.fault.Hits() > 0 && ok == 0 {
				t.Errorf("%d acknowledged, %d unknown, %d failed: the other partitions should have worked", ok, unknown, failed)
			}
			_ = r.db.Close() // it says what failed
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if faults == 0 || unknowns == 0 {
		t.Errorf("%d faults, %d unknown outcomes: the test tests nothing", faults, unknowns)
	}
}

// Without a producer id nothing is written, and that is known.
func TestProducerWithoutAnID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newProducerRun(t, ProducerConfig{}, OS)
		r.fault.Add(vfs.Rule{Op: vfs.OpDatasync, Glob: "meta/*.log", Effect: vfs.FailSync()})
		r.senders(context.Background(), 2, 10, 1)
		if err := r.p.Close(); err != nil {
			t.Error(err)
		}
		if ok, unknown, failed := r.check(); ok != 0 || unknown != 0 || failed != 20 {
			t.Errorf("%d acknowledged, %d unknown, %d failed", ok, unknown, failed)
		}
		for _, s := range r.sent {
			checkError(t, s.err, ErrStorageFailed, "no producer id")
		}
		_ = r.db.Close() // it says what failed
	})
}

// flaky is a partition whose answers get lost, and that refuses for a while.
type flaky struct {
	mu    sync.Mutex
	rng   *rand.Rand
	left  int // so many attempts may go wrong
	kinds int // of what goes wrong, those of append from 0 on
}

func (f *flaky) append(p *engine.Partition, ctx context.Context, recs []log.Record, o *partition.AppendOptions) (partition.Result, error) {
	f.mu.Lock()
	what := 9
	if f.left > 0 {
		f.left--
		what = f.rng.IntN(f.kinds + 2)
		if what >= f.kinds {
			what = 9
		}
	}
	f.mu.Unlock()
	lost := &UnknownOutcomeError{BaseOffset: -1, LastOffset: -1, Err: errors.New("connection lost")}
	switch what {
	case 0: // written, and the answer is lost
		if _, err := p.Append(ctx, recs, o); err != nil {
			return partition.Result{}, err
		}
		return partition.Result{}, lost
	case 1: // not written, and the answer is lost
		return partition.Result{}, lost
	case 2:
		return partition.Result{}, &NotLeaderError{Leader: -1}
	case 3:
		return partition.Result{}, &OutOfOrderSequenceError{}
	case 4:
		return partition.Result{}, &FencedError{}
	case 5:
		return partition.Result{}, &RecordTooLargeError{}
	case 6:
		return partition.Result{}, &InvalidRecordError{Records: []InvalidRecord{{Index: f.index(len(recs)), Reason: "odd"}}}
	}
	return p.Append(ctx, recs, o)
}

func (f *flaky) index(n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rng.IntN(n)
}

// Answers that get lost make no duplicate, with every timeout; without idempotence
// nothing is sent twice.
func TestProducerLostAnswers(t *testing.T) {
	var sum [3]int
	for seed := range uint64(testcount.N(150)) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			cfg := ProducerConfig{
				BatchBytes: 200 + rng.IntN(3000), BufferBytes: int64(1000 + rng.IntN(20_000)),
				DeliveryTimeout: []time.Duration{-1, time.Millisecond, 300 * time.Millisecond}[rng.IntN(3)],
				NoIdempotence:   rng.IntN(4) == 0,
			}
			r := newProducerRun(t, cfg, OS)
			f := &flaky{rng: rng, left: 60, kinds: []int{3, 7}[rng.IntN(2)]}
			r.p.write = f.append
			r.senders(context.Background(), 3, 60, seed)
			if err := r.p.Close(); err != nil {
				t.Error(err)
			}
			ok, unknown, failed := r.check()
			sum[0], sum[1], sum[2] = sum[0]+ok, sum[1]+unknown, sum[2]+failed
			if cfg.DeliveryTimeout < 0 && !cfg.NoIdempotence && f.kinds == 3 && unknown+failed > 0 {
				t.Errorf("%d records are unknown and %d failed, though there was time", unknown, failed)
			}
			if err := r.db.Close(); err != nil {
				t.Error(err)
			}
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if slices.Min(sum[:]) == 0 {
		t.Errorf("acknowledged, unknown and failed are %v: one case was not met", sum)
	}
}

// A full buffer makes Send wait, until there is room, the context ends or the
// producer is closed; what was not taken is not written.
func TestProducerBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		db := openMemory(t, nil)
		topic := makeTopic(t, db, "t", nil)
		p, err := db.Producer(&ProducerConfig{BufferBytes: 1000, Linger: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		gate := make(chan struct{})
		p.write = func(part *engine.Partition, ctx context.Context, recs []log.Record, o *partition.AppendOptions) (partition.Result, error) {
			<-gate
			return part.Append(ctx, recs, o)
		}
		big := Record{Topic: "t", Value: make([]byte, 800)}
		if err := p.Send(ctx, big, nil); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := p.Send(short, big, nil); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("full: %v", err)
		}
		results := make(chan error, 3)
		for range 3 {
			go func() { results <- p.Send(ctx, big, nil) }()
		}
		synctest.Wait()
		select {
		case err := <-results:
			t.Fatalf("a full buffer took a record: %v", err)
		default:
		}
		gate <- struct{}{} // somebody waits, so the first batch did not linger
		if err := <-results; err != nil {
			t.Error(err)
		}
		closed := make(chan error)
		go func() { closed <- p.Close() }()
		for range 2 {
			if err := <-results; !errors.Is(err, ErrClosed) {
				t.Errorf("waiting while the producer was closed: %v", err)
			}
		}
		gate <- struct{}{}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if got := readAll(t, topic, nil); len(got) != 2 {
			t.Errorf("%d records, want 2", len(got))
		}
		if err := p.Send(ctx, big, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	})
}

// Linger fills batches; Flush does not wait for it.
func TestProducerLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		db := openMemory(t, nil)
		makeTopic(t, db, "t", nil)
		p, err := db.Producer(&ProducerConfig{Linger: 20 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		var sizes []int
		p.write = func(part *engine.Partition, ctx context.Context, recs []log.Record, o *partition.AppendOptions) (partition.Result, error) {
			sizes = append(sizes, len(recs))
			return part.Append(ctx, recs, o)
		}
		for range 10 {
			if err := p.Send(ctx, Record{Topic: "t"}, nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Millisecond)
		}
		began := time.Now()
		if err := p.Flush(ctx); err != nil || time.Since(began) != 0 {
			t.Errorf("Flush took %v of virtual time: %v", time.Since(began), err)
		}
		if want := []int{7, 3}; !slices.Equal(sizes, want) {
			t.Errorf("batches of %v, want %v", sizes, want)
		}
	})
}

// Under load batches grow without Linger, and one goroutine's records stay in order.
func TestProducerBatchesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		db := openMemory(t, nil)
		topic := makeTopic(t, db, "t", nil)
		p, err := db.Producer(nil)
		if err != nil {
			t.Fatal(err)
		}
		gate := make(chan struct{})
		var sizes []int
		p.write = func(part *engine.Partition, ctx context.Context, recs []log.Record, o *partition.AppendOptions) (partition.Result, error) {
			<-gate
			sizes = append(sizes, len(recs))
			return part.Append(ctx, recs, o)
		}
		for i := range 10 {
			if err := p.Send(ctx, Record{Topic: "t", Value: fmt.Append(nil, i)}, nil); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // the first one is on its way by now
		}
		close(gate)
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if want := []int{1, 9}; !slices.Equal(sizes, want) {
			t.Errorf("batches of %v, want %v", sizes, want)
		}
		if got := strings.Join(readAll(t, topic, nil), " "); got != "0@0=0 0@1=1 0@2=2 0@3=3 0@4=4 0@5=5 0@6=6 0@7=7 0@8=8 0@9=9" {
			t.Error(got)
		}
	})
}

// The goroutines are as few as promised, however many partitions there are.
func TestProducerGoroutines(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, nil)
	makeTopic(t, db, "t", &TopicConfig{Partitions: 100, Durability: OS})
	p, err := db.Producer(&ProducerConfig{Partitioner: ManualPartitioner})
	if err != nil {
		t.Fatal(err)
	}
	gate := make(chan struct{})
	var first sync.Once
	var count, most, workers int
	var mu sync.Mutex
	p.write = func(part *engine.Partition, ctx context.Context, recs []log.Record, o *partition.AppendOptions) (partition.Result, error) {
		mu.Lock()
		count++
		most = max(most, count)
		if count == producerWorkers {
			first.Do(func() {
				stacks := make([]byte, 1<<20)
				stacks = stacks[:runtime.Stack(stacks, true)]
				workers = bytes.Count(stacks, []byte("created by github.com/x/embedlog.(*Producer)"))
				close(gate)
			})
		}
		mu.Unlock()
		<-gate
		mu.Lock()
		count--
		mu.Unlock()
		return part.Append(ctx, recs, o)
	}
	for i := range 300 {
		if err := p.Send(ctx, Record{Topic: "t", Partition: int32(i % 100)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if workers != producerWorkers {
		t.Errorf("%d goroutines while all partitions wait, want %d", workers, producerWorkers)
	}
	if most != producerWorkers {
		t.Errorf("%d partitions were written at once, want %d", most, producerWorkers)
	}
}

func TestProducerProduce(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, &Options{AutoCreateTopics: true})
	p, err := db.Producer(nil)
	if err != nil {
		t.Fatal(err)
	}
	pos, err := p.Produce(ctx, Record{Topic: "a", Value: []byte("1")}, Record{Topic: "b", Value: []byte("2")}, Record{Topic: "a", Value: []byte("3")})
	want := []Position{{Topic: "a"}, {Topic: "b"}, {Topic: "a", Offset: 1}}
	if err != nil || !slices.Equal(pos, want) {
		t.Errorf("%+v, %v", pos, err)
	}
	if pos, err := p.Produce(ctx); err != nil || len(pos) != 0 {
		t.Errorf("nothing: %v, %v", pos, err)
	}
	large := Record{Topic: "a", Value: make([]byte, 2<<20)}
	_, err = p.Produce(ctx, large)
	checkError(t, err, ErrRecordTooLarge, "a/0")
	pos, err = p.Produce(ctx, Record{Topic: "a"}, large, Record{Topic: "no such name!"})
	checkError(t, err, ErrRecordTooLarge, "1 of 3 records written")
	checkError(t, err, ErrInvalidTopic, "no such name!")
	if len(pos) != 3 || pos[0].Offset != 2 || pos[1].Offset != -1 || pos[2].Offset != -1 {
		t.Errorf("%+v", pos)
	}
	// A fire-and-forget record that fails is told by Flush, once.
	if err := p.Send(ctx, large, nil); err != nil {
		t.Fatal(err)
	}
	checkError(t, p.Flush(ctx), ErrRecordTooLarge, "a/0")
	if err := p.Flush(ctx); err != nil {
		t.Error(err)
	}
}

// What was taken and not answered when the context ends is unknown.
func TestProducerProduceCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openMemory(t, nil)
		topic := makeTopic(t, db, "t", nil)
		p, err := db.Producer(nil)
		if err != nil {
			t.Fatal(err)
		}
		gate := make(chan struct{})
		p.write = func(part *engine.Partition, ctx context.Context, recs []log.Record, o *partition.AppendOptions) (partition.Result, error) {
			<-gate
			return part.Append(ctx, recs, o)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err = p.Produce(ctx, Record{Topic: "t", Value: []byte("v")}, Record{Topic: "t", Value: []byte("w")})
		checkError(t, err, ErrUnknownOutcome)
		checkError(t, err, context.DeadlineExceeded)
		_, err = p.Produce(ctx, Record{Topic: "t"})
		checkError(t, err, context.DeadlineExceeded)
		if errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("never taken: %v", err)
		}
		close(gate)
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if got := readAll(t, topic, nil); len(got) != 2 {
			t.Errorf("%v", got)
		}
	})
}

// Abort gives up what waits; the database's Close sends it.
func TestProducerAbortAndClose(t *testing.T) {
	for _, end := range []string{"abort", "db.Close"} {
		t.Run(end, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fs := vfs.NewMem()
				db, err := OpenFS(fs, nil)
				if err != nil {
					t.Fatal(err)
				}
				makeTopic(t, db, "t", nil)
				p, err := db.Producer(&ProducerConfig{Linger: time.Hour})
				if err != nil {
					t.Fatal(err)
				}
				var errs []error
				for range 3 {
					if err := p.Send(context.Background(), Record{Topic: "t"}, func(_ Position, err error) { errs = append(errs, err) }); err != nil {
						t.Fatal(err)
					}
				}
				want := 0
				if end == "abort" {
					p.Abort()
				} else {
					want = 3
				}
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
				for _, err := range errs {
					if (err == nil) != (want == 3) || err != nil && !errors.Is(err, ErrClosed) {
						t.Errorf("%v", err)
					}
				}
				if len(errs) != 3 {
					t.Errorf("%d answers, want 3", len(errs))
				}
				if db, err = OpenFS(fs, nil); err != nil {
					t.Fatal(err)
				}
				defer db.Close()
				if got := readAll(t, makeTopic(t, db, "t", nil), nil); len(got) != want {
					t.Errorf("%d records, want %d", len(got), want)
				}
				if _, err := p.Produce(context.Background(), Record{Topic: "t"}); !errors.Is(err, ErrClosed) {
					t.Errorf("after the end: %v", err)
				}
			})
		})
	}
}

// What a producer holds does not keep the sender's memory alive: an empty slice of a
// large one is another empty slice.
func TestProducerKeepsNoSendersMemory(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, nil)
	makeTopic(t, db, "t", nil)
	p, err := db.Producer(nil)
	if err != nil {
		t.Fatal(err)
	}
	p.write = func(part *engine.Partition, ctx context.Context, recs []log.Record, o *partition.AppendOptions) (partition.Result, error) {
		r := recs[0]
		for _, b := range [][]byte{r.Key, r.Value, r.Headers[0].Value} {
			if b == nil || cap(b) != 0 {
				t.Errorf("%v of %d bytes", b, cap(b))
			}
		}
		return part.Append(ctx, recs, o)
	}
	large := make([]byte, 1<<20)
	if _, err := p.Produce(ctx, Record{Topic: "t", Key: large[:0], Value: large[:0], Headers: []Header{{Key: "h", Value: large[:0]}}}); err != nil {
		t.Fatal(err)
	}
}

func TestProducerBadConfig(t *testing.T) {
	db := openMemory(t, nil)
	_, err := db.Producer(&ProducerConfig{Linger: -1, BatchBytes: -1, BufferBytes: -1, Compression: 9})
	checkError(t, err, ErrInvalidSetting, "Linger", "BatchBytes", "BufferBytes", "Compression")
	p, err := db.Producer(&ProducerConfig{BufferBytes: 100, Partitioner: ManualPartitioner})
	if err != nil {
		t.Fatal(err)
	}
	makeTopic(t, db, "t", nil)
	ctx := context.Background()
	checkError(t, p.Send(ctx, Record{Topic: "t", Value: make([]byte, 100)}, nil), ErrRecordTooLarge, "BufferBytes", "100")
	checkError(t, p.Send(ctx, Record{Topic: "no"}, nil), ErrUnknownTopic, "no")
	checkError(t, p.Send(ctx, Record{Topic: "t", Partition: 1}, nil), ErrUnknownPartition, "t", "1")
}

// A topic that was deleted and made again gets the records that come after.
func TestProducerTopicMadeAgain(t *testing.T) {
	ctx := context.Background()
	db := openMemory(t, nil)
	makeTopic(t, db, "t", nil)
	p, err := db.Producer(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Produce(ctx, Record{Topic: "t"}); err != nil {
		t.Fatal(err)
	}
	if err := db.DeleteTopic(ctx, "t"); err != nil {
		t.Fatal(err)
	}
	_, err = p.Produce(ctx, Record{Topic: "t"})
	checkError(t, err, ErrUnknownTopic, `"t"`)
	topic := makeTopic(t, db, "t", &TopicConfig{Partitions: 2})
	for range 2 {
		if _, err := p.Produce(ctx, Record{Topic: "t", Key: []byte("k"), Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
	}
	if got := readAll(t, topic, nil); len(got) != 2 {
		t.Errorf("%v", got)
	}
}

// An empty key, value or header value is not null: an empty value is no tombstone.
func TestProducerKeepsEmptyFromNull(t *testing.T) {
	db := sessionDB(t)
	ctx := context.Background()
	topic, err := db.CreateTopic(ctx, "t", nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := db.Producer(nil)
	if err != nil {
		t.Fatal(err)
	}
	empty := Record{Topic: "t", Key: []byte{}, Value: []byte{}, Headers: []Header{{Key: "h", Value: []byte{}}}}
	if _, err := p.Produce(ctx, empty, Record{Topic: "t", Headers: []Header{{Key: "h"}}}); err != nil {
		t.Fatal(err)
	}
	i := 0
	for r, err := range topic.Scan(ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
		null := i == 1
		if (r.Key == nil) != null || (r.Value == nil) != null || (r.Headers[0].Value == nil) != null {
			t.Errorf("record %d: key %#v, value %#v, header %#v; null: %t", i, r.Key, r.Value, r.Headers[0].Value, null)
		}
		i++
	}
}
