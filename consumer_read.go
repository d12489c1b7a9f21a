package embedlog

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/x/embedlog/log"
)

// reading is what the goroutine that reads works with.
type reading struct {
	// queue are the sources that may have something to read, in the order of their turns.
	head, tail *source
	spent      int // bytes of the turn of the one at the head

	// The batch at hand. It is put down when the next one is taken up.
	src    *source
	batch  log.Batch
	epoch  int32
	end    int64 // the offset behind the batch
	rr     log.RecordReader
	read   int64 // what rr stands behind; -1 when it does not stand in the batch
	polled []*source
	poll   bool  // Poll collects: what it takes up is not asked past
	gave   bool  // and has a record to give
	given  int64 // of the batch at hand, what Poll gave out up to; -1 nothing

	stop func() bool // ends the watch of the context
}

// turn is how many bytes of one partition are read before it is another's turn.
const turn = 256 << 10

// Records walks the records of the consumer's partitions and waits for more, as
// long as ctx allows. An error is the last pair: ctx's own, ErrClosed after Close,
// a *ReadError at damage.
//
// The iterator is single-use: another one goes on where it ended. Keys and values stay
// valid as long as they are held, and keep their batch in memory, unless
// ConsumerConfig.ReuseBuffers is set.
func (c *Consumer) Records(ctx context.Context) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if err := c.begin(ctx, true); err != nil {
			yield(Record{}, err)
			return
		}
		defer c.leaveLoop(ctx)
		r := &c.front
		var rec Record
		for {
			from, err := c.decode(ctx)
			if err != nil {
				yield(Record{}, err)
				return
			}
			rec.Topic, rec.Partition, rec.LeaderEpoch = r.src.name, r.src.partition, r.epoch
			for r.rr.Next() {
				lr := r.rr.Record()
				r.read = lr.Offset + 1
				if lr.Offset < from {
					continue
				}
				rec.Offset, rec.Key, rec.Value = lr.Offset, lr.Key, lr.Value
				rec.Timestamp = timeOf(lr.Timestamp)
				rec.Headers = nil
				if lr.Headers != nil {
					rec.Headers = append([]Header(nil), lr.Headers...)
				}
				if !yield(rec, nil) {
					return
				}
				if !c.events.Load() {
					c.at.Store(lr.Offset + 1)
					continue
				}
				if err := c.interrupted(ctx, lr.Offset+1); err != nil {
					yield(Record{}, err)
					return
				}
				if r.src == nil {
					break
				}
			}
			if err := c.finish(ctx); err != nil {
				yield(Record{}, err)
				return
			}
		}
	}
}

// Batch is some records of one partition, in order, as they are stored.
type Batch struct {
	Topic       string
	Partition   int32
	LeaderEpoch int32
	// FirstOffset is the first offset that counts: a batch may begin before it.
	FirstOffset int64
	// LastOffset is the last offset that the batch takes up. Compaction may have left
	// out any of them.
	LastOffset int64

	batch log.Batch
}

// Bytes is the record batch, in Kafka's encoding, from its own first offset on. It
// must not be written to, and stays valid as long as it is held, unless
// ConsumerConfig.ReuseBuffers is set. log.RecordReader reads it without a copy of
// each record.
func (b *Batch) Bytes() []byte { return b.batch }

// Records walks the records from FirstOffset on; it can be repeated. Keys and
// values stay valid as long as the batch. An error is the last pair.
func (b *Batch) Records() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		rec := Record{Topic: b.Topic, Partition: b.Partition, LeaderEpoch: b.LeaderEpoch}
		var rr log.RecordReader
		err := rr.Reset(b.batch, 0)
		for err == nil && rr.Next() {
			lr := rr.Record()
			if lr.Offset < b.FirstOffset {
				continue
			}
			rec.Offset, rec.Key, rec.Value = lr.Offset, lr.Key, lr.Value
			rec.Timestamp = timeOf(lr.Timestamp)
			rec.Headers = nil
			if lr.Headers != nil {
				rec.Headers = append([]Header(nil), lr.Headers...)
			}
			if !yield(rec, nil) {
				return
			}
		}
		if err = rr.Err(); err != nil {
			yield(Record{}, &ReadError{Topic: b.Topic, Partition: b.Partition, Offset: b.FirstOffset, Next: b.LastOffset + 1, Err: err})
		}
	}
}

// Position is where reading goes on behind the batch: marked, it says that the
// batch is done.
func (b *Batch) Position() Position {
	return Position{Topic: b.Topic, Partition: b.Partition, LeaderEpoch: b.LeaderEpoch, Offset: b.LastOffset + 1}
}

// Batches is Records for whole batches, for throughput: asking for the next marks
// all records of the last one.
func (c *Consumer) Batches(ctx context.Context) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		if err := c.begin(ctx, true); err != nil {
			yield(nil, err)
			return
		}
		defer c.leaveLoop(ctx)
		r := &c.front
		for {
			if r.src == nil {
				if err := c.take(ctx); err != nil {
					yield(nil, err)
					return
				}
			}
			b := &Batch{Topic: r.src.name, Partition: r.src.partition, LeaderEpoch: r.epoch, FirstOffset: c.at.Load(), LastOffset: r.end - 1, batch: r.batch}
			if !yield(b, nil) {
				return
			}
			if c.events.Load() {
				if err := c.interrupted(ctx, r.end); err != nil {
					yield(nil, err)
					return
				}
			}
			c.drop()
		}
	}
}

// Poll returns up to max records, at least one, and waits for that as long as ctx
// allows; max 0 means 500. The next Poll, or loop, marks them.
func (c *Consumer) Poll(ctx context.Context, max int) ([]Record, error) {
	if err := c.begin(ctx, false); err != nil {
		return nil, err
	}
	defer c.release()
	if max <= 0 {
		max = 500
	}
	r := &c.front
	var list []Record
	r.poll = true
	defer func() { r.poll, r.gave = false, false }()
	for bytes := 0; len(list) < max && bytes < pollBytes; {
		from, err := c.decode(ctx)
		if err == errPollEnds {
			break
		}
		if err != nil {
			return nil, err
		}
		for len(list) < max && bytes < pollBytes && r.rr.Next() {
			lr := r.rr.Record()
			r.read = lr.Offset + 1
			if lr.Offset < from {
				continue
			}
			list = append(list, Record{})
			rec := &list[len(list)-1]
			rec.setRead(r.src.name, r.src.partition, r.epoch, lr)
			if c.cfg.ReuseBuffers {
				rec.copyBytes()
			}
			bytes += len(lr.Key) + len(lr.Value)
			r.given, r.gave = lr.Offset+1, true
		}
		if len(list) == max || bytes >= pollBytes {
			break // the rest of the batch stays at hand
		}
		if err := c.finish(ctx); err == errPollEnds {
			break
		} else if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// pollBytes bounds what one Poll returns, but for the last record.
const pollBytes = 4 << 20

// errPollEnds ends a Poll that has records to give, and meets what is better
// dealt with when the application is done with those.
var errPollEnds = errors.New("poll ends")

// begin makes the caller the one who reads. loop says that ctx is looked at
// between records, too.
func (c *Consumer) begin(ctx context.Context, loop bool) error {
	if !c.reading.CompareAndSwap(false, true) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.closing {
			return ErrClosed
		}
		return ErrBusy
	}
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		c.release()
		return ErrClosed
	}
	c.askLocked()
	c.startLocked()
	c.mu.Unlock()
	if loop && ctx.Done() != nil {
		c.front.stop = context.AfterFunc(ctx, c.notify)
	}
	if err := c.handle(ctx); err != nil {
		c.release()
		return err
	}
	return nil
}

// askLocked takes a new loop, or Poll, as the question for what comes next: what the
// last Poll gave out is done. Of a loop that was broken off, only what was
// marked is.
func (c *Consumer) askLocked() {
	r := &c.front
	for _, s := range r.polled {
		s.polled = false
		if !s.gone && !s.moved && s.given > s.done {
			s.done, s.doneEpoch = s.given, s.givenEpoch
			if c.auto {
				s.markLocked(s.done, s.doneEpoch)
			}
		}
	}
	r.polled = r.polled[:0]
	given := r.given
	r.given = -1
	if c.cur == nil {
		r.src, r.batch = nil, nil
		return
	}
	at := min(max(c.at.Load(), given, c.cur.mark), r.end)
	c.at.Store(at)
	if at == r.end || r.src == nil {
		c.putDownLocked()
		r.src, r.batch = nil, nil
	}
}

// release ends begin.
func (c *Consumer) release() {
	if c.front.stop != nil {
		c.front.stop()
		c.front.stop = nil
	}
	c.reading.Store(false)
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		c.sweep()
	}
}

// leaveLoop commits what the loop marked, and lets the next one begin.
func (c *Consumer) leaveLoop(ctx context.Context) {
	if c.auto {
		patient, cancel := c.db.patience(context.WithoutCancel(ctx))
		err := c.commit(patient)
		cancel()
		if err != nil {
			c.logger.Warn("marks were not committed at the end of a loop", "group", c.cfg.Group, "error", err)
		}
	}
	c.release()
}

// interrupted is what happens between two records when there is something to do
// besides. next is what the application asks for. r.src is nil afterwards when the
// batch at hand must not be read on.
func (c *Consumer) interrupted(ctx context.Context, next int64) error {
	c.mu.Lock()
	if c.cur != nil {
		c.at.Store(next)
	}
	c.mu.Unlock()
	return c.handle(ctx)
}

// drop takes the batch at hand out of the hand. Its records up to its end are done
// unless somebody took the position away meanwhile.
func (c *Consumer) drop() {
	r := &c.front
	if r.src != nil && !r.poll {
		c.at.Store(r.end) // the next lock of mu takes it over: see putDownLocked
	}
	r.src, r.batch = nil, nil
}

// decode makes rr stand in front of the record at from, in the batch at hand, or
// the next one if there is none.
func (c *Consumer) decode(ctx context.Context) (from int64, err error) {
	r := &c.front
	for {
		if r.src == nil {
			if err := c.take(ctx); err != nil {
				return 0, err
			}
		}
		from = c.at.Load()
		if r.given >= 0 {
			from = r.given
		}
		if r.read == from {
			return from, nil
		}
		if err := r.rr.Reset(r.batch, 0); err == nil {
			r.read = -1
			return from, nil
		}
		if err := c.finish(ctx); err != nil {
			return 0, err
		}
	}
}

// finish is called when rr can go no further: at the end of the batch, or where it
// does not parse.
func (c *Consumer) finish(ctx context.Context) error {
	r := &c.front
	s := r.src
	if s == nil {
		return nil
	}
	err := r.rr.Err()
	if err == nil {
		if r.poll {
			c.setGiven(s, r.end, r.epoch)
			r.given = -1
		}
		c.drop()
		return nil
	}
	if r.poll && r.given >= 0 {
		c.setGiven(s, r.given, r.epoch)
		r.given = -1
		c.mu.Lock()
		c.putDownLocked()
		c.mu.Unlock()
	}
	r.src, r.batch = nil, nil // at stays in front of what does not parse
	return c.failed(ctx, s, err)
}

func (c *Consumer) setGiven(s *source, end int64, epoch int32) {
	s.given, s.givenEpoch = end, epoch
	if !s.polled {
		s.polled = true
		c.front.polled = append(c.front.polled, s)
	}
}

// take takes up the next batch, waiting for one.
func (c *Consumer) take(ctx context.Context) error {
	r := &c.front
	for {
		s := r.head
		if r.gave && (s == nil || c.events.Load()) {
			return errPollEnds
		}
		if c.events.Load() {
			if err := c.handle(ctx); err != nil {
				return err
			}
			s = r.head
		}
		if s == nil {
			if err := c.sleep(ctx); err != nil {
				return err
			}
			continue
		}
		if s.out {
			c.dequeue()
			continue
		}
		if s.reader == nil {
			if err := c.open(ctx, s); err != nil {
				return err
			}
			continue
		}
		if r.spent >= turn && r.tail != s {
			c.dequeue()
			c.enqueue(s)
			continue
		}
		batch, err := c.fetch(s)
		switch {
		case err == nil:
			r.spent += len(batch)
			if c.takeUp(s, batch) {
				return nil
			}
		case err == io.EOF:
			c.rest(s)
		default:
			if err := c.failed(ctx, s, err); err != nil {
				return err
			}
		}
	}
}

// fetch takes the next batch of a partition, and tells who wants to know.
func (c *Consumer) fetch(s *source) (log.Batch, error) {
	hook := c.db.engine.Hooks().OnFetch
	if hook == nil {
		return s.reader.TryNext()
	}
	began := time.Now()
	batch, err := s.reader.TryNext()
	switch {
	case err == nil:
		hook(s.name, s.partition, 1, int64(len(batch)), time.Since(began), nil)
	case err != io.EOF:
		hook(s.name, s.partition, 0, 0, time.Since(began), err)
	}
	return batch, err
}

// takeUp makes batch the one at hand. It is false when s is not to be read any
// more: handle sees to it.
func (c *Consumer) takeUp(s *source, batch log.Batch) bool {
	r := &c.front
	base, epoch, end := batch.BaseOffset(), batch.LeaderEpoch(), s.reader.Offset()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.putDownLocked()
	if s.gone || s.moved || s.paused {
		return false
	}
	at := max(s.done, base)
	if s.polled {
		at = max(s.given, base)
	}
	c.cur, c.curFirst, c.curEpoch = s, at, epoch
	c.batches++
	c.at.Store(at)
	c.busyLocked()
	r.src, r.batch, r.epoch, r.end, r.read, r.given = s, batch, epoch, end, -1, -1
	return true
}

// putDownLocked takes over how far the application came in the batch at hand.
func (c *Consumer) putDownLocked() {
	s := c.cur
	if s == nil {
		return
	}
	c.cur = nil
	if at := c.at.Load(); at > c.curFirst || at > s.done && !s.polled {
		s.done, s.doneEpoch = at, c.curEpoch
		if c.auto {
			s.markLocked(at, c.curEpoch)
			c.busyLocked()
		}
	}
}

// markLocked moves the mark forward.
func (s *source) markLocked(offset int64, epoch int32) {
	if offset > s.mark {
		s.mark, s.markEpoch = offset, epoch
	}
}

// rest makes s wait for more.
func (c *Consumer) rest(s *source) {
	c.mu.Lock()
	c.putDownLocked()
	// Behind what was read there may be what no reader sees: markers, aborted records.
	end := s.reader.Offset()
	if end > s.done && !s.moved {
		epoch, ok := s.part.EpochOf(end - 1)
		if !ok && s.reader.Remote() {
			epoch = s.doneEpoch // of a record before it: that proves no loss
		}
		if s.polled {
			s.given, s.givenEpoch = end, epoch
		} else {
			s.done, s.doneEpoch = end, epoch
			if c.auto {
				s.markLocked(end, epoch)
				c.busyLocked()
			}
		}
	}
	c.mu.Unlock()
	if s.reader.Remote() {
		c.dequeue()
		if s.reader.Waits() {
			return
		}
		c.enqueue(s) // it has come meanwhile
		return
	}
	if s.wait.Arm(c.waiter, s.part.Partition, end, c.isolation()) {
		c.dequeue()
	}
}

// sleep waits until a partition has something to read, or something happened.
func (c *Consumer) sleep(ctx context.Context) error {
	r := &c.front
	if r.stop == nil && ctx.Done() != nil {
		r.stop = context.AfterFunc(ctx, c.notify)
	}
	c.mu.Lock()
	c.putDownLocked()
	c.mu.Unlock()
	c.waiting.Store(true)
	<-c.waiter.C()
	c.waiting.Store(false)
	for x := c.waiter.Next(); x != nil; x = c.waiter.Next() {
		c.enqueue(x.Value.(*source))
	}
	for _, s := range c.arrived.take() {
		s.wait.Disarm() // what came from another node may come when this node's replica is read by now
		c.enqueue(s)
	}
	return nil
}

// enqueue makes s the last to have its turn.
func (c *Consumer) enqueue(s *source) {
	r := &c.front
	if s.out || s.queued {
		return
	}
	s.queued = true
	if r.head == nil {
		r.head, r.spent = s, 0
	} else {
		r.tail.next = s
	}
	r.tail = s
}

// dequeue takes the head off the queue.
func (c *Consumer) dequeue() {
	r := &c.front
	s := r.head
	r.head, s.next, s.queued, r.spent = s.next, nil, false, 0
	if r.head == nil {
		r.tail = nil
	}
}
