package soak

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/x/embedlog/internal/history"
)

// stuck is after what time an answer is not waited for any more. Nothing is to take
// so long: who gives up says so in a note, and goes on as after a crash.
const stuck = 60 * time.Second

// worker is a process of the history: a client that crashes now and then.
type worker struct {
	*run
	process int32
	rnd     *rand.Rand
	sent    int64
}

func (r *run) worker(process int32) *worker {
	return &worker{run: r, process: process, rnd: rand.New(rand.NewPCG(r.Seed, uint64(process)))}
}

// value is one that nobody else sends.
func (w *worker) value() int64 {
	w.sent++
	return int64(w.process)<<32 | w.sent
}

func now() int64 { return time.Now().UnixNano() }

func (w *worker) begin(kind history.OpKind) *history.Op {
	return &history.Op{Process: w.process, Kind: kind, Start: now()}
}

func (w *worker) end(op *history.Op, o history.Outcome) {
	op.End, op.Outcome = now(), o
	w.record(op)
}

func (w *worker) crash() { w.end(w.begin(history.OpCrash), history.OK) }

// pause waits before a client is made anew, so that a server that refuses at once is
// not asked without end.
func (w *worker) pause(ctx context.Context) {
	select {
	case <-time.After(20 * time.Millisecond):
	case <-ctx.Done():
	}
}

// sending is records on their way.
type sending struct {
	mu      sync.Mutex
	records []sentRecord
	waiting sync.WaitGroup
	err     error // the first
}

type sentRecord struct {
	key    history.Key
	value  int64
	offset int64
}

// add sends a record; unanswered is its offset until there is an answer.
func (s *sending) add(w *worker, produce func(context.Context, *kgo.Record, func(*kgo.Record, error)), key history.Key, unanswered int64) {
	value := w.value()
	s.mu.Lock()
	i := len(s.records)
	s.records = append(s.records, sentRecord{key: key, value: value, offset: unanswered})
	s.mu.Unlock()
	s.waiting.Add(1)
	rec := &kgo.Record{Topic: key.Topic, Partition: key.Partition, Value: Encode(value, w.RecordBytes)}
	produce(context.Background(), rec, func(rec *kgo.Record, err error) {
		defer s.waiting.Done()
		s.mu.Lock()
		defer s.mu.Unlock()
		if err == nil {
			s.records[i].offset = rec.Offset
		} else if s.err == nil {
			s.err = err
		}
	})
}

// wait waits for all answers, or gives up; the records are then as far as they are.
func (s *sending) wait() (answered bool, err error) {
	done := make(chan struct{})
	go func() { s.waiting.Wait(); close(done) }()
	select {
	case <-done:
		answered = true
	case <-time.After(stuck):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return answered, s.err
}

// runs are the records by key, in the order in which they were sent.
func (s *sending) runs() []history.Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	var runs []history.Run
	at := map[history.Key]int{}
	for _, rec := range s.records {
		i, ok := at[rec.key]
		if !ok {
			i = len(runs)
			at[rec.key] = i
			runs = append(runs, history.Run{Key: rec.key})
		}
		runs[i].Records = append(runs[i].Records, history.Record{Offset: rec.offset, Value: rec.value})
	}
	return runs
}

// pace lets all producers together send no more than so many records a second. Who
// wants more waits until the others have had theirs.
type pace struct {
	mu    sync.Mutex
	every time.Duration
	next  time.Time
}

func newPace(rate int) *pace {
	return &pace{every: time.Second / time.Duration(rate), next: time.Now()}
}

// take waits until n records may be sent.
func (p *pace) take(ctx context.Context, n int) {
	p.mu.Lock()
	if now := time.Now(); p.next.Before(now.Add(-time.Second)) {
		p.next = now.Add(-time.Second) // a dead server's time is not made up for in full
	}
	at := p.next
	p.next = p.next.Add(time.Duration(n) * p.every)
	p.mu.Unlock()
	select {
	case <-time.After(time.Until(at)):
	case <-ctx.Done():
	}
}
