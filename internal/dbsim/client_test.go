package dbsim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/history"
)

// client is an application in the process of a node, with which it dies. It then begins anew at a node
// that runs.
type client struct {
	*sim
	number int32
	rnd    *rand.Rand
	sent   int64
	p      *process          // where it is
	made   map[string]*named // of an administrator
}

// value is one that nobody else sends.
func (c *client) value() int64 {
	c.sent++
	return int64(c.number)<<32 | c.sent
}

func (c *client) key(topic string) history.Key {
	return history.Key{Topic: topic, Partition: int32(c.rnd.IntN(c.parts))}
}

func (c *client) begin(kind history.OpKind) *history.Op {
	return &history.Op{Process: c.number, Kind: kind, Start: c.now()}
}

// end records an operation. Of one whose process has died meanwhile nobody knows how it ended.
func (c *client) end(op *history.Op, o history.Outcome) {
	if op.End, op.Outcome = c.now(), o; c.p.dead.Load() {
		op.Outcome = history.Info
		for i := range op.Sends {
			for j := range op.Sends[i].Records {
				at := &op.Sends[i].Records[j].Offset
				if op.Kind == history.OpSend {
					*at = history.Unanswered
				} else {
					*at = history.NoOffset
				}
			}
		}
	}
	c.record(op)
}

func (c *client) note(what string, err error) {
	if err == nil || c.p.dead.Load() {
		return
	}
	c.trace("client %d at node %d: %s: %v", c.number, c.p.m.id, what, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notes[fmt.Sprintf("%s: %.160v", what, err)]++
}

// pause waits, and says whether to go on.
func (c *client) pause(most time.Duration) bool {
	select {
	case <-c.clients.Done():
		return false
	case <-time.After(time.Duration(1 + c.rnd.Int64N(int64(most)))):
		return c.clients.Err() == nil
	}
}

// live calls life again and again, each time at another node. life returns when the client dies.
func (c *client) live(life func()) {
	for c.pause(50 * time.Millisecond) {
		if c.p = c.running(c.rnd); c.p == nil {
			continue
		}
		life()
		c.record(&history.Op{Process: c.number, Kind: history.OpCrash, Outcome: history.OK, Start: c.now(), End: c.now()})
	}
}

// alive says that the life may go on.
func (c *client) alive() bool { return c.clients.Err() == nil && c.p.life.Err() == nil }

// limit is a context for one call.
func (c *client) limit(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.p.life, d)
}

func text(value int64) []byte { return strconv.AppendInt(nil, value, 10) }

// sending is records on their way.
type sending struct {
	mu   sync.Mutex
	runs []history.Run
	wait sync.WaitGroup
}

// add makes a record, and returns where its offset is to be put.
func (s *sending) add(k history.Key, value, offset int64) (run, i int) {
	for run = range s.runs {
		if s.runs[run].Key == k {
			break
		}
	}
	if run == len(s.runs) || s.runs[run].Key != k {
		run = len(s.runs)
		s.runs = append(s.runs, history.Run{Key: k})
	}
	s.runs[run].Records = append(s.runs[run].Records, history.Record{Offset: offset, Value: value})
	return run, len(s.runs[run].Records) - 1
}

// produce is an idempotent producer.
func (c *client) produce() {
	c.live(func() {
		patience := 1 + c.rnd.IntN(20)
		batch, most := 0, 5
		if patience%2 == 0 {
			batch, most = 150, 12 // a record or two in each: several are under way at the leader
		}
		producer, err := c.p.db.Producer(&embedlog.ProducerConfig{
			BatchBytes:      batch,
			DeliveryTimeout: time.Duration(patience) * time.Second,
			Partitioner:     func(rec *embedlog.Record, _ int) int32 { n, _ := strconv.Atoi(string(rec.Key)); return int32(n) },
		})
		if err != nil {
			c.note("make a producer", err)
			return
		}
		for life := 10 + c.rnd.IntN(100); life > 0 && c.alive(); life-- {
			c.send(producer, most)
			c.pause(100 * time.Millisecond)
		}
		if c.p.dead.Load() {
			return
		}
		if c.rnd.IntN(2) == 0 {
			producer.Abort()
		} else {
			producer.Close()
		}
	})
}

// send sends some records and waits for all answers.
func (c *client) send(producer *embedlog.Producer, most int) {
	op, s := c.begin(history.OpSend), &sending{}
	keys := []history.Key{c.key(safeTopic), c.key(otherTopic)}
	for range 1 + c.rnd.IntN(most) {
		k, value := keys[c.rnd.IntN(2)], c.value()
		s.mu.Lock()
		run, i := s.add(k, value, history.Unanswered)
		s.mu.Unlock()
		rec := embedlog.Record{Topic: k.Topic, Key: strconv.AppendInt(nil, int64(k.Partition), 10), Value: text(value)}
		s.wait.Add(1)
		err := producer.Send(c.p.life, rec, func(at embedlog.Position, err error) {
			defer s.wait.Done()
			s.mu.Lock()
			defer s.mu.Unlock()
			c.sentAs(&s.runs[run].Records[i], k, at, err)
		})
		if err != nil {
			s.wait.Done()
			s.mu.Lock()
			c.sentAs(&s.runs[run].Records[i], k, embedlog.Position{}, err)
			s.mu.Unlock()
		}
	}
	s.wait.Wait()
	op.Sends = s.runs
	c.end(op, history.OK)
}

func (c *client) sentAs(r *history.Record, k history.Key, at embedlog.Position, err error) {
	switch {
	case err == nil && at.Partition != k.Partition:
		c.problem("a record for %v went to %+v", k, at)
	case err == nil:
		r.Offset = at.Offset
	case errors.Is(err, embedlog.ErrUnknownOutcome):
		r.Offset = history.Unanswered
	default:
		r.Offset = history.Refused
	}
	if errors.Is(err, embedlog.ErrOutOfOrderSequence) || errors.Is(err, embedlog.ErrFenced) {
		c.problem("process %d at node %d, value %d to %v: %v", c.number, c.p.m.id, r.Value, k, err)
	}
	if err != nil {
		c.note("send", err)
	}
}

// transact is a transactional producer, which aborts now and then, or leaves one open.
func (c *client) transact() {
	c.live(func() {
		options := &embedlog.TxnOptions{Timeout: 10 * time.Second}
		if c.number%2 == 0 {
			options.ID = fmt.Sprint("txn-", c.number)
		}
		for life := 5 + c.rnd.IntN(40); life > 0 && c.alive(); life-- {
			if !c.transaction(options) {
				return
			}
			c.pause(200 * time.Millisecond)
		}
	})
}

func (c *client) transaction(options *embedlog.TxnOptions) bool {
	ctx, cancel := c.limit(time.Duration(1+c.rnd.IntN(15)) * time.Second)
	defer cancel()
	op, s := c.begin(history.OpTxn), &sending{}
	txn, err := c.p.db.Begin(ctx, options)
	if err != nil {
		c.note("begin", err)
		return c.pause(time.Second)
	}
	topics := []string{safeTopic, otherTopic}
	var failed error
	for range 1 + c.rnd.IntN(4) {
		failed = c.produceIn(ctx, txn, s, c.key(topics[c.rnd.IntN(2)]), c.value())
		if failed != nil {
			break
		}
	}
	op.Sends = s.runs
	if failed == nil && c.rnd.IntN(15) == 0 {
		c.end(op, history.Info) // nobody ends it
		return false
	}
	_, ok := c.finish(ctx, op, txn, failed != nil || c.rnd.IntN(4) == 0)
	return ok
}

// produceIn sends one record in a transaction.
func (c *client) produceIn(ctx context.Context, txn *embedlog.Txn, s *sending, k history.Key, value int64) error {
	run, i := s.add(k, value, history.NoOffset)
	at, err := txn.ProduceTo(ctx, embedlog.Record{Topic: k.Topic, Partition: k.Partition, Value: text(value)})
	if err != nil {
		c.note("produce in a transaction", err)
		return err
	}
	s.runs[run].Records[i].Offset = at[0].Offset
	return nil
}

// finish commits or aborts, and says whether it is known what became of it.
func (c *client) finish(ctx context.Context, op *history.Op, txn *embedlog.Txn, abort bool) (committed, known bool) {
	if !abort {
		err := txn.Commit(ctx)
		if err == nil {
			c.end(op, history.OK)
			return true, true
		}
		c.note("commit", err)
		if errors.Is(err, embedlog.ErrUnknownOutcome) {
			c.end(op, history.Info)
			return false, false
		}
	}
	if err := txn.Abort(ctx); err != nil && !errors.Is(err, embedlog.ErrTxnEnded) {
		c.note("abort", err) // it ends by its timeout
		c.end(op, history.Fail)
		return false, false
	}
	c.end(op, history.Fail)
	return false, true
}
