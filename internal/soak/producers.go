package soak

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/x/embedlog/internal/history"
)

// key is a partition of a topic, at random.
func (w *worker) key(topic string) history.Key {
	return history.Key{Topic: topic, Partition: int32(w.rnd.IntN(w.Partitions))}
}

// send is an idempotent producer, which sends batches to one or two partitions at a
// time, and dies now and then with a batch on its way.
func (w *worker) send(ctx context.Context, p *pace) {
	for ctx.Err() == nil {
		cl, err := kgo.NewClient(w.options(
			kgo.RecordPartitioner(kgo.ManualPartitioner()),
			kgo.ProducerLinger(time.Duration(w.rnd.IntN(3))*time.Millisecond),
		)...)
		if err != nil {
			w.fail(err)
			return
		}
		for life := 10 + w.rnd.IntN(100); ctx.Err() == nil; life-- {
			n := 20 + w.rnd.IntN(100)
			p.take(ctx, n)
			keys := []history.Key{w.key(fastTopic), w.key(safeTopic)}
			op, s := w.begin(history.OpSend), &sending{}
			for range n {
				s.add(w, cl.Produce, keys[w.rnd.IntN(len(keys))], history.Unanswered)
			}
			if life <= 0 {
				// Somewhere on the way of the batch, or behind it.
				time.Sleep(time.Duration(w.rnd.IntN(3000)) * time.Microsecond)
				cl.Close()
			}
			answered, err := s.wait()
			op.Sends = s.runs()
			w.end(op, history.OK)
			if !answered {
				err = fmt.Errorf("no answer after %v", stuck)
			}
			if err != nil && life > 0 {
				w.note("send", err)
			}
			if err != nil || life <= 0 {
				break
			}
		}
		cl.Close()
		w.crash()
		w.pause(ctx)
	}
}

// transact is a transactional producer, which aborts now and then, and dies in the
// middle of a transaction or while it ends.
func (w *worker) transact(ctx context.Context, p *pace) {
	for ctx.Err() == nil {
		cl, err := kgo.NewClient(w.options(
			kgo.RecordPartitioner(kgo.ManualPartitioner()),
			kgo.TransactionalID(w.transactionalID()),
			kgo.TransactionTimeout(20*time.Second),
		)...)
		if err != nil {
			w.fail(err)
			return
		}
		for life := 5 + w.rnd.IntN(50); ctx.Err() == nil && w.transaction(ctx, cl, p, life <= 0); life-- {
		}
		cl.Close()
		w.crash()
		w.pause(ctx)
	}
}

func (w *worker) transactionalID() string { return fmt.Sprintf("soak-%d", w.process) }

// transaction does one; false when the client is not good for another.
func (w *worker) transaction(ctx context.Context, cl *kgo.Client, p *pace, die bool) bool {
	n := 1 + w.rnd.IntN(60)
	p.take(ctx, n)
	op, s := w.begin(history.OpTxn), &sending{}
	if err := cl.BeginTransaction(); err != nil {
		w.note("begin", err)
		return false // nothing was sent
	}
	topics := []string{fastTopic, safeTopic}
	for range n {
		s.add(w, cl.Produce, w.key(topics[w.rnd.IntN(2)]), history.NoOffset)
	}
	commit := kgo.TransactionEndTry(w.rnd.IntN(4) > 0)
	if die && w.rnd.IntN(2) == 0 {
		time.Sleep(time.Duration(w.rnd.IntN(5000)) * time.Microsecond)
		cl.Close() // nobody ends it
		s.wait()
		op.Sends = s.runs()
		w.end(op, history.Info)
		return false
	}
	answered, err := s.wait()
	op.Sends = s.runs()
	if err != nil || !answered {
		w.note("send in a transaction", err)
		commit = kgo.TryAbort
	}
	if !answered {
		w.note("send in a transaction", fmt.Errorf("no answer after %v", stuck))
		w.end(op, history.Info)
		return false
	}
	limit, cancel := context.WithTimeout(context.Background(), stuck)
	defer cancel()
	if die {
		after := time.AfterFunc(time.Duration(w.rnd.IntN(5000))*time.Microsecond, cl.Close)
		defer after.Stop()
	}
	switch err := cl.EndTransaction(limit, commit); {
	case err != nil:
		if !die {
			w.note("end", err)
		}
		w.end(op, history.Info)
		return false
	case bool(commit):
		w.end(op, history.OK)
	default:
		w.end(op, history.Fail)
	}
	return !die
}
