package kafka

import (
	"context"
	"math"
	"time"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Clients send up to five Produce requests before the first is answered. Where each
// waits for the disk, the next one of the connection is begun meanwhile, so that all
// that came during one sync share the next one:
//
//	reader    P1  P2  P3  P4
//	handler   begin P1  begin P2  begin P3 .. answer P1, begin P4 .. answer P2, P3 and P4 at once
//	disk         |--- sync P1 ---------------| |--- sync P2, P3 -----|
//
// What a client sees is what it would see if each request were handled to its end
// before the next is looked at:
//
//   - Batches of one connection take their places in a partition in the order of its
//     requests, and answers go out in that order.
//   - A batch that fails is tried again (after room was made) before any that came
//     behind it takes effect: see partition.Line. So an error lets nothing pass that an
//     answer in sequence would not have let pass, whether the producer is idempotent or not.
//   - Any other request, and one to Produce that does not wait for the disk, is looked
//     at when all that was begun has been answered.
//   - While there are quotas, or a Throttler that is not ours, nothing is begun ahead:
//     what a client is to wait for is known when a request has been answered.
//   - Frames stay reserved until they are answered, and at most maxBegun are begun, so
//     memory is bounded as before. When the connection ends, what was begun is waited
//     for before the handler returns.

// maxBegun is how many Produce requests of a connection may be under way.
const maxBegun = 8

// keptBegunParts is how many partitions' memory each of them keeps.
const keptBegunParts = 128

// produceCall is a Produce request that was begun.
type produceCall struct {
	request request
	q       producer
	frame   frame
	ctx     context.Context
	cancel  context.CancelFunc // nil when there is no timeout
}

// pipeline is the Produce requests of a connection that are under way, and what it
// needs for them. It is the handler's.
type pipeline struct {
	begun []*produceCall // the oldest first
	free  []*produceCall
	lines map[*engine.Partition]*partition.Line
}

// room says whether so many more partitions have their place in the pipeline. A line
// stays as long as something of it may be under way.
func (l *pipeline) room(n int) bool {
	if len(l.begun) == 0 && len(l.lines)+n > keptParts {
		l.lines = nil
	}
	return len(l.lines)+n <= keptParts
}

// line is what keeps the connection's appends to a partition in order.
func (l *pipeline) line(p *engine.Partition) *partition.Line {
	at := l.lines[p]
	if at == nil {
		if l.lines == nil {
			l.lines = make(map[*engine.Partition]*partition.Line)
		}
		at = &partition.Line{}
		l.lines[p] = at
	}
	return at
}

func (l *pipeline) get() *produceCall {
	if n := len(l.free); n > 0 {
		call := l.free[n-1]
		l.free = l.free[:n-1]
		return call
	}
	return &produceCall{}
}

func (l *pipeline) put(call *produceCall) {
	call.q.release()
	call.q.forget()
	if cap(call.q.parts) > keptBegunParts || cap(call.q.topics) > keptBegunParts {
		call.q = producer{}
	}
	call.request, call.frame, call.ctx, call.cancel = request{}, frame{}, nil, nil
	l.free = append(l.free, call)
}

// how says how a request whose partitions are known is handled: whether it is one that
// is begun (see above), or one that waits for nothing but its turn to append.
func (q *producer) how(r *request) (begins, quick bool) {
	if q.acks == 0 || r.srv.throttler != r.srv.quotas || !r.srv.engine.QuotaTable().Empty() {
		return false, false
	}
	waits := false
	for i := range q.parts {
		p := &q.parts[i]
		if p.code != codeNone {
			continue
		}
		if !p.part.CanBegin() {
			return false, false
		}
		waits = waits || p.part.Log().Level() == log.Durable
	}
	return waits && r.conn.pipe.room(len(q.parts)), !waits
}

// isQuick says whether a frame is handled by the reader itself, which saves a switch
// between two goroutines: a small one to Produce, when nothing else of the connection
// is under way and the last one was quick. The handler is idle then: it gave the last
// frame back before, and touches nothing until it gets another one.
func (c *conn) isQuick(f *frame) bool {
	return c.quick.Load() && len(f.bytes) <= readBufferBytes && c.busy.Load() == 0 && f.bytes[0] == 0 && f.bytes[1] == produceKey
}

// serveProduce takes a request up. kept says that it is under way, with its frame.
func (c *conn) serveProduce(f frame, body []byte) (kept bool, err error) {
	call := c.pipe.get()
	call.request, call.frame = c.req, f
	r, q := &call.request, &call.q
	if err = q.read(r, body); err != nil {
		err = r.failed(err)
		c.srv.memory.release(r.reserved)
		c.pipe.put(call)
		return false, err
	}
	q.check(r)
	q.joinTransaction(r)
	begins, quick := q.how(r)
	c.quick.Store(quick)
	if begins && !f.quick {
		call.ctx, call.cancel = q.appendContext(r)
		for i := range q.parts {
			if p := &q.parts[i]; p.code == codeNone {
				p.begun, p.under = p.part.BeginBatch(call.ctx, p.records, p.appendOptions(r), c.pipe.line(p.part), c.leads.Go), true
			}
		}
		c.pipe.begun = append(c.pipe.begun, call)
		if len(c.pipe.begun) == maxBegun {
			err = c.finishOldest()
		}
		return true, err
	}
	if err = c.finishAll(); err == nil {
		q.append(r)
		c.out.begin(r.correlation, r.version >= produceFlexible)
		if err = q.answer(r); err == nil && !c.out.dropped {
			err = c.write()
		}
		c.out.reset()
	}
	wait := time.Duration(r.throttled()) * time.Millisecond
	c.srv.memory.release(r.reserved)
	c.pipe.put(call)
	if err != nil {
		return false, err
	}
	return false, c.wait(wait)
}

// nextFrame is the next request. Until it comes, answers go out for those that are
// under way. ok is false when there are no more.
func (c *conn) nextFrame() (f frame, ok bool, err error) {
	for len(c.pipe.begun) > 0 {
		oldest := c.pipe.begun[0]
		if p := oldest.waiting(); p != nil {
			select {
			case f, ok = <-c.queue:
				return f, ok, nil
			case <-p.begun.Done():
				p.done = true
				continue // with the request's other partitions
			case <-oldest.ctx.Done():
				// Whoever finishes leaves what is not there by now.
			}
		}
		if err := c.finishOldest(); err != nil {
			return frame{}, false, err
		}
	}
	f, ok = <-c.queue
	return f, ok, nil
}

// waiting is a partition whose outcome is not there as far as is known; nil is none.
func (call *produceCall) waiting() *producePart {
	for i := range call.q.parts {
		if p := &call.q.parts[i]; p.under && !p.done && p.begun.Done() != nil {
			return p
		}
	}
	return nil
}

// ready says that finish will not wait.
func (call *produceCall) ready() bool {
	for i := range call.q.parts {
		if p := &call.q.parts[i]; p.under && !p.done && p.begun.Done() != nil && len(p.begun.Done()) == 0 {
			return false
		}
	}
	return true
}

// finish waits for all outcomes.
func (call *produceCall) finish() {
	for i := range call.q.parts {
		p := &call.q.parts[i]
		if !p.under {
			continue
		}
		p.under = false
		if p.result, p.err = p.begun.Finish(p.done); p.err != nil {
			p.code = p.codeOf(&call.request, p.err)
		}
	}
	if call.cancel != nil {
		call.cancel()
	}
}

// finishOldest answers the oldest request that is under way, and those behind it
// whose outcomes are there, with one system call.
func (c *conn) finishOldest() error {
	n := 0
	var err error
	wait := time.Duration(0)
	for first := true; first || err == nil && n < len(c.pipe.begun) && c.pipe.begun[n].ready(); first = false {
		call := c.pipe.begun[n]
		n++
		call.finish()
		r := &call.request
		if first {
			c.out.begin(r.correlation, r.version >= produceFlexible)
		} else {
			c.out.next(r.correlation, r.version >= produceFlexible)
		}
		err = call.q.answer(r)
		wait = max(wait, time.Duration(r.throttled())*time.Millisecond)
	}
	if err == nil {
		err = c.write()
	}
	c.out.reset()
	if err == nil {
		err = c.wait(wait)
	}
	// Last: when nothing is under way any more, the reader may handle the next one.
	var frames [maxBegun]frame
	for i, call := range c.pipe.begun[:n] {
		frames[i] = call.frame
		c.forget(call)
	}
	c.pipe.begun = append(c.pipe.begun[:0], c.pipe.begun[n:]...)
	for _, f := range frames[:n] {
		c.free(f)
	}
	return err
}

// finishAll answers all that are under way.
func (c *conn) finishAll() error {
	for len(c.pipe.begun) > 0 {
		if err := c.finishOldest(); err != nil {
			return err
		}
	}
	return nil
}

// dropBegun waits for what is under way when nobody hears of it any more. When it
// returns, no goroutine writes for this connection.
func (c *conn) dropBegun() {
	for _, call := range c.pipe.begun {
		call.finish()
		f := call.frame
		c.forget(call)
		c.free(f)
	}
	c.pipe.begun = nil
	c.leads.Wait()
}

// forget gives back what a request that was begun holds, but for its frame.
func (c *conn) forget(call *produceCall) {
	c.srv.memory.release(call.request.reserved)
	c.pipe.put(call)
}

// appendContext is what an append waits for the disk with: the request's timeout
// counts, whether its client has gone does not.
func (q *producer) appendContext(r *request) (context.Context, context.CancelFunc) {
	if q.timeout > 0 && q.timeout < math.MaxInt32*time.Millisecond {
		return context.WithTimeout(r.life, q.timeout)
	}
	return r.life, nil
}
