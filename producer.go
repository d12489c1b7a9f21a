package embedlog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// ProducerConfig are the settings of a Producer; nil is the defaults. They are copied.
type ProducerConfig struct {
	// Linger is how long a record may wait for others to share its batch. Zero means
	// not at all: a batch goes as soon as the one before it of the same partition is
	// done, so batches grow by themselves when there is much to send.
	Linger time.Duration
	// BatchBytes bounds a batch, before compression. Zero means 256 KiB. A topic's
	// MaxRecordBytes bounds it, too.
	BatchBytes int
	// BufferBytes bounds the records that were taken and are not acknowledged: Send
	// waits for room. Zero means 32 MiB.
	BufferBytes int64
	// Compression of the batches, for topics that do not have their own. Zero means none.
	Compression compress.Codec
	// CompressionLevel is the codec's own. Zero means its default.
	CompressionLevel int
	// Partitioner chooses a record's partition, of so many. Nil means by key as Kafka
	// does, and without a key the same one for 16 KiB, then the next. It may be called
	// by several goroutines at once, and must not keep or change the record.
	Partitioner func(rec *Record, partitions int) int32
	// NoIdempotence leaves out what recognises a batch that is sent again. Then one
	// whose outcome is not known is not sent again.
	NoIdempotence bool
	// DeliveryTimeout is how long after Send a record is tried again after failures
	// that can pass, such as a full disk. Zero means 2 minutes, negative for ever.
	DeliveryTimeout time.Duration
}

const (
	defaultBatchBytes      = 256 << 10
	defaultBufferBytes     = 32 << 20
	defaultDeliveryTimeout = 2 * time.Minute
	// producerWorkers bounds the goroutines of a producer, and with it the partitions
	// that it writes to at one moment.
	producerWorkers = 8
	firstBackoff    = 100 * time.Millisecond
	longestBackoff  = time.Second
)

// withDefaults fills zero fields and reports every bad one.
func (c *ProducerConfig) withDefaults() (ProducerConfig, error) {
	var out ProducerConfig
	if c != nil {
		out = *c
	}
	var bad []error
	invalid := func(name, value, reason string) {
		bad = append(bad, &InvalidSettingError{Name: "ProducerConfig." + name, Value: value, Reason: reason})
	}
	if out.Linger < 0 {
		invalid("Linger", out.Linger.String(), "must not be negative")
	}
	if out.BatchBytes < 0 {
		invalid("BatchBytes", strconv.Itoa(out.BatchBytes), "must not be negative")
	}
	if out.BufferBytes < 0 {
		invalid("BufferBytes", strconv.FormatInt(out.BufferBytes, 10), "must not be negative")
	}
	if !out.Compression.Valid() {
		invalid("Compression", out.Compression.String(), "is no codec")
	}
	if out.BatchBytes == 0 {
		out.BatchBytes = defaultBatchBytes
	}
	if out.BufferBytes == 0 {
		out.BufferBytes = defaultBufferBytes
	}
	if out.DeliveryTimeout == 0 {
		out.DeliveryTimeout = defaultDeliveryTimeout
	}
	return out, errors.Join(bad...)
}

// Producer sends records of any topic in batches, without waiting for each.
//
//	Send --> queue of the partition: batch | batch | open batch
//	             |  one at a time, in order; three where it is replicated
//	             v
//	         worker (8 at most, none when idle) --> append --> done(position, nil)
//
// A partition's batches are written one after the other, so records sent by one
// goroutine to one partition stay in order, also when a batch has to be tried
// again. With idempotence, which is the default, none is there twice, and the leader of a
// replicated partition takes the next batch, when that is large, while a majority gets the one before.
//
// A batch that is given up after its outcome was not known may be in the log or
// not: its records get an error that matches ErrUnknownOutcome, and the partition
// goes on with a new producer epoch, so that the gap in the sequence holds nobody
// up.
//
// All methods may be called from several goroutines.
type Producer struct {
	db  *DB
	cfg ProducerConfig
	// appends ends with Abort, those that wait for their turn then.
	appends context.Context
	abort   context.CancelFunc
	// write is engine.Partition.Append, but for tests.
	write func(*engine.Partition, context.Context, []log.Record, *partition.AppendOptions) (partition.Result, error)

	topics  sync.Map                      // name to *producerTopic
	latest  atomic.Pointer[producerTopic] // of the record before: most often the next one's, too
	kept    atomic.Int64                  // of those
	sweepAt atomic.Int64                  // how many there are when those that are gone are looked for

	mu       sync.Mutex
	used     int64 // of BufferBytes
	waiters  []*roomWaiter
	ready    []*producerQueue // to be worked on, in this order
	waiting  map[*producerQueue]struct{}
	timer    *time.Timer
	timerAt  time.Time
	workers  int
	active   map[*producerQueue]struct{} // those with batches
	batches  int                         // in all queues
	flushing int                         // calls of Flush
	free     []*producerBatch
	failed   error // of the first record without a done function that failed since the last Flush
	closed   bool
	noRetry  bool
	drop     bool          // what is not in flight is given up
	drained  chan struct{} // closed when all was answered after close

	idTurn chan struct{} // has room for who uses id: another node may be the one that gives it
	id     int64         // producer id; -1 before the first batch
}

// producerTopic is what a producer keeps of a topic.
type producerTopic struct {
	*Topic
	queues []*producerQueue // by partition; guarded by Producer.mu
}

// Producer makes a producer. It needs no Close when the database is closed, which
// sends what it still holds.
func (db *DB) Producer(c *ProducerConfig) (*Producer, error) {
	cfg, err := c.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("make a producer: %w", err)
	}
	p := &Producer{
		db: db, cfg: cfg, write: (*engine.Partition).Append, idTurn: make(chan struct{}, 1), id: -1,
		waiting: make(map[*producerQueue]struct{}), active: make(map[*producerQueue]struct{}), drained: make(chan struct{}),
	}
	p.sweepAt.Store(fewTopics)
	p.appends, p.abort = context.WithCancel(context.Background())
	if err := db.opened(p); err != nil {
		p.abort()
		return nil, fmt.Errorf("make a producer: %w", err)
	}
	return p, nil
}

// Send takes a record, which names its topic, and returns. It waits only while
// BufferBytes are in use. The record is copied. done, which may be nil, is called
// once with the record's position or with why there is none, from a goroutine of
// the producer, for one partition in the order of the offsets; it should be quick,
// and must not wait for this producer, nor close it or the database. When Send returns an error the record was
// not taken and done is not called.
func (p *Producer) Send(ctx context.Context, rec Record, done func(Position, error)) error {
	return p.send(ctx, &rec, answer{done: done})
}

func (p *Producer) send(ctx context.Context, rec *Record, a answer) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	topic, part, err := p.place(ctx, rec)
	if err != nil {
		return fmt.Errorf("send to %s: %w", rec.Topic, err)
	}
	size := recordBytes(rec)
	need := int64(size + heldOverhead)
	if need > p.cfg.BufferBytes {
		return fmt.Errorf("send to %s: BufferBytes: %w", rec.Topic, &RecordTooLargeError{Bytes: need, Limit: p.cfg.BufferBytes})
	}
	now := int64(0)
	if rec.Timestamp.IsZero() {
		now = p.db.nowMillis()
	}
	p.mu.Lock()
	if err := p.takeRoomLocked(ctx, need); err != nil {
		p.mu.Unlock()
		return fmt.Errorf("send to %s: %w", rec.Topic, err)
	}
	q := topic.queueLocked(part.ID(), part)
	p.addLocked(q, rec, now, size, need, a)
	p.scheduleLocked(q, false)
	p.mu.Unlock()
	return nil
}

// place finds the topic of a record and chooses its partition.
func (p *Producer) place(ctx context.Context, rec *Record) (*producerTopic, *engine.Partition, error) {
	t, err := p.topic(ctx, rec.Topic)
	if err != nil {
		return nil, nil, err
	}
	top, err := t.current()
	if errors.Is(err, ErrUnknownTopic) {
		// It was deleted. Another one may have the name.
		p.forgetTopic(rec.Topic, t)
		if t, err = p.lookUp(ctx, rec.Topic); err == nil {
			top, err = t.current()
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if err := checkWritable(top); err != nil {
		return nil, nil, err
	}
	n := len(top.Partitions())
	var id int32
	if p.cfg.Partitioner != nil {
		own := *rec // what it is given is on the heap: other records need not be
		id = p.cfg.Partitioner(&own, n)
	} else {
		id = t.partitionOf(rec, n)
	}
	part, err := top.Partition(id)
	return t, part, err
}

func (p *Producer) topic(ctx context.Context, name string) (*producerTopic, error) {
	if t := p.latest.Load(); t != nil && t.name == name {
		return t, nil
	}
	t, err := p.lookUp(ctx, name)
	if err == nil {
		p.latest.Store(t)
	}
	return t, err
}

func (p *Producer) lookUp(ctx context.Context, name string) (*producerTopic, error) {
	if t, ok := p.topics.Load(name); ok {
		return t.(*producerTopic), nil
	}
	top, err := p.db.topic(ctx, name)
	if err != nil {
		return nil, err
	}
	t, there := p.topics.LoadOrStore(name, &producerTopic{Topic: p.db.handle(top)})
	if !there && p.kept.Add(1) > p.sweepAt.Load() {
		p.sweepTopics()
	}
	return t.(*producerTopic), nil
}

// fewTopics are not worth a look at which of them are gone.
const fewTopics = 16

func (p *Producer) forgetTopic(name string, t *producerTopic) {
	if p.topics.CompareAndDelete(name, t) {
		p.kept.Add(-1)
	}
	p.latest.CompareAndSwap(t, nil)
}

// sweepTopics forgets topics that were deleted: who makes one for each session, say,
// does not come back to them. It is called when their number has doubled.
func (p *Producer) sweepTopics() {
	live := int64(0)
	p.topics.Range(func(name, t any) bool {
		if _, err := t.(*producerTopic).current(); errors.Is(err, ErrUnknownTopic) {
			p.forgetTopic(name.(string), t.(*producerTopic))
		} else {
			live++
		}
		return true
	})
	p.sweepAt.Store(2*live + fewTopics)
}

// Produce sends records, each to the topic that it names, and waits until all are
// acknowledged. It returns what Topic.Produce does; batches are shared with other
// callers. When ctx ends, records that were taken may still be written: their
// errors match ErrUnknownOutcome.
func (p *Producer) Produce(ctx context.Context, recs ...Record) ([]Position, error) {
	g := newProduceGroup(len(recs))
	for i := range recs {
		if err := p.send(ctx, &recs[i], answer{group: g, index: i}); err != nil {
			g.skip(i, err)
		}
	}
	return g.wait(ctx)
}

// Flush sends what was taken before the call without lingering, and waits until
// each record's done function has returned. Its error is that of the first record
// since the last Flush that was sent without one and failed. A producer that is
// closed, where there is nothing to send, answers ErrClosed.
func (p *Producer) Flush(ctx context.Context) error {
	p.mu.Lock()
	p.flushing++
	closed := p.closed && p.batches == 0
	var last []chan struct{}
	for q := range p.active {
		b := q.batches[len(q.batches)-1]
		b.sealed = true // what comes later is not waited for
		if b.done == nil {
			b.done = make(chan struct{})
		}
		last = append(last, b.done)
	}
	p.hurryLocked()
	p.mu.Unlock()
	var err error
	for _, done := range last {
		select {
		case <-done:
			continue
		case <-ctx.Done():
			err = fmt.Errorf("flush: %w", ctx.Err())
		}
		break
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flushing--
	if err == nil {
		err, p.failed = p.failed, nil
	}
	if err == nil && closed {
		err = fmt.Errorf("flush: %w", ErrClosed)
	}
	return err
}

// Close sends what was taken, waits until all of it is answered, and ends the
// producer. That takes up to DeliveryTimeout where a disk is full. Its error is
// that of Flush. It may be called more than once, and after DB.Close, which tells
// the logger alone.
func (p *Producer) Close() error {
	p.close(false, false)
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	err, p.failed = p.failed, nil
	return err
}

// Abort ends the producer without sending what waits: those records get an error
// that matches ErrClosed. A batch that is being written is waited for.
func (p *Producer) Abort() { p.close(true, true) }

// closeWithDB sends what there is, once.
func (p *Producer) closeWithDB() {
	p.close(true, false)
	p.mu.Lock()
	err := p.failed // it stays, for Close
	p.mu.Unlock()
	if err != nil {
		p.db.engine.Logger().Warn("producer did not close cleanly", "error", err)
	}
}

func (p *Producer) close(noRetry, drop bool) {
	p.mu.Lock()
	p.noRetry, p.drop = p.noRetry || noRetry, p.drop || drop
	if p.drop {
		p.abort()
	}
	if !p.closed {
		p.closed = true
		for _, w := range p.waiters {
			w.refuse(ErrClosed)
		}
		p.waiters = nil
		p.drainLocked()
	}
	p.hurryLocked()
	p.mu.Unlock()
	<-p.drained
	p.abort() // gives the context free
	p.db.closing(p)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
	}
}

// drainLocked tells Close when all was answered and the last worker has left.
func (p *Producer) drainLocked() {
	if p.closed && p.batches == 0 && p.workers == 0 {
		select {
		case <-p.drained: // by a worker that found nothing to do
		default:
			close(p.drained)
		}
	}
}
