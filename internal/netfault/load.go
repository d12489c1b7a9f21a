//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/history"
	"github.com/x/embedlog/internal/soak"
)

// goGroup is the group whose members are consumers of the Go door.
const goGroup = "go"

// load are the workers of one life of a node. Those of the Go door work until stop is called.
type load struct {
	spec    *nodeSpec
	db      *embedlog.DB
	history *history.Writer
	logger  *slog.Logger
	fail    func(error)
}

// process is the number of a process in the history, one that no other life of any node has.
func (s *nodeSpec) process(worker int32) int32 { return s.Node*100_000_000 + s.Life*1000 + worker }

// run lets them work until ctx ends, and they have finished.
func (l *load) run(ctx context.Context) {
	var workers sync.WaitGroup
	sent, copied := soak.Topics()
	rate := newTicker(ctx, l.spec.Rate)
	for i := range int32(2) {
		workers.Go(func() { l.worker(10+i).send(ctx, sent, rate) })
	}
	for i, topic := range sent {
		for p := range int32(l.spec.Partitions) {
			workers.Go(func() { l.worker(20+int32(i)*100+p).pulse(ctx, topic, p) })
		}
	}
	workers.Go(func() { l.worker(0).transact(ctx, sent) })
	workers.Go(func() { l.worker(1).member(ctx, append(sent, copied)) })
	workers.Go(func() { l.worker(2).read(ctx, append(sent, copied)) })
	workers.Wait()
}

// worker is one process of the history.
type worker struct {
	*load
	process int32
	rnd     *rand.Rand
	sent    int64
}

func (l *load) worker(n int32) *worker {
	p := l.spec.process(n)
	return &worker{load: l, process: p, rnd: rand.New(rand.NewPCG(l.spec.Seed, uint64(p)))}
}

// value is one that nobody else sends: the number of the process, and one that grows.
func (w *worker) value() int64 {
	w.sent++
	return int64(w.process)<<32 | w.sent
}

func (w *worker) begin(kind history.OpKind) *history.Op {
	return &history.Op{Process: w.process, Kind: kind, Start: time.Now().UnixNano()}
}

// note writes the operation down, as begun or with how it ended.
func (w *worker) note(op *history.Op, o history.Outcome) {
	op.Outcome, op.End = o, time.Now().UnixNano()
	if err := w.history.Append(op); err != nil {
		w.fail(err)
	}
}

func (w *worker) say(what string, err error) {
	if err != nil {
		w.logger.Info("load", "worker", w.process, "what", what, "err", err)
	}
}

func (w *worker) pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// answered is the place in the history of a record whose producer was told err, or p.
func answered(p embedlog.Position, err error) int64 {
	switch {
	case err == nil:
		return p.Offset
	case errors.Is(err, embedlog.ErrUnknownOutcome):
		return history.Unanswered
	}
	return history.Refused // any other error says that nothing was written
}

// send is an idempotent producer.
func (w *worker) send(ctx context.Context, topics []string, rate *ticker) {
	p, err := w.db.Producer(&embedlog.ProducerConfig{
		DeliveryTimeout: 30 * time.Second,
		Partitioner: func(rec *embedlog.Record, _ int) int32 {
			n, _ := strconv.Atoi(string(rec.Key))
			return int32(n)
		},
	})
	if err != nil {
		w.fail(err)
		return
	}
	for rate.take(ctx, 30) {
		op := w.begin(history.OpSend)
		recs := make([]embedlog.Record, 0, 30)
		for _, topic := range topics {
			k := history.Key{Topic: topic, Partition: int32(w.rnd.IntN(w.spec.Partitions))}
			run := history.Run{Key: k}
			for range 15 {
				v := w.value()
				run.Records = append(run.Records, history.Record{Offset: history.Unanswered, Value: v})
				recs = append(recs, embedlog.Record{Topic: topic, Key: []byte(strconv.Itoa(int(k.Partition))), Value: soak.Encode(v, w.spec.RecordBytes)})
			}
			op.Sends = append(op.Sends, run)
		}
		w.note(op, history.Begun)
		var wait sync.WaitGroup
		var mu sync.Mutex
		for i, rec := range recs {
			at := &op.Sends[i/15].Records[i%15].Offset
			done := func(p embedlog.Position, err error) {
				defer wait.Done()
				mu.Lock()
				defer mu.Unlock()
				*at = answered(p, err)
				if i == 0 {
					w.say("send", err)
				}
			}
			wait.Add(1)
			if err := p.Send(context.Background(), rec, done); err != nil {
				done(embedlog.Position{}, err)
			}
		}
		wait.Wait()
		w.note(op, history.OK)
	}
	w.say("close producer", p.Close())
}

// pulse appends single records to one partition, so that one can see when each partition took
// some. A call whose answer did not come is not made again.
func (w *worker) pulse(ctx context.Context, topic string, partition int32) {
	for ctx.Err() == nil {
		w.pause(ctx, time.Duration(200+w.rnd.IntN(200))*time.Millisecond)
		t, err := w.db.Topic(topic)
		if err != nil {
			w.say("pulse", err)
			continue
		}
		v := w.value()
		op := w.begin(history.OpSend)
		op.Sends = []history.Run{{Key: history.Key{Topic: topic, Partition: partition}, Records: []history.Record{{Offset: history.Unanswered, Value: v}}}}
		w.note(op, history.Begun)
		limit, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		pos, err := t.ProduceTo(limit, partition, embedlog.Record{Value: soak.Encode(v, w.spec.RecordBytes)})
		cancel()
		at := embedlog.Position{}
		if err == nil {
			at = pos[0]
		}
		w.say("pulse", err)
		op.Sends[0].Records[0].Offset = answered(at, err)
		w.note(op, history.OK)
	}
}

// transact runs transactions, and ends one in four without having them happen.
func (w *worker) transact(ctx context.Context, topics []string) {
	for ctx.Err() == nil {
		w.transaction(topics)
		w.pause(ctx, time.Duration(100+w.rnd.IntN(400))*time.Millisecond)
	}
}

func (w *worker) transaction(topics []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	op := w.begin(history.OpTxn)
	var recs []embedlog.Record
	for _, topic := range topics {
		k := history.Key{Topic: topic, Partition: int32(w.rnd.IntN(w.spec.Partitions))}
		run := history.Run{Key: k}
		for range 1 + w.rnd.IntN(5) {
			v := w.value()
			run.Records = append(run.Records, history.Record{Offset: history.NoOffset, Value: v})
			recs = append(recs, embedlog.Record{Topic: topic, Partition: k.Partition, Value: soak.Encode(v, w.spec.RecordBytes)})
		}
		op.Sends = append(op.Sends, run)
	}
	w.note(op, history.Begun)
	tx, err := w.db.Begin(ctx, &embedlog.TxnOptions{ID: fmt.Sprintf("go-%d", w.spec.Node), Timeout: 20 * time.Second})
	if err != nil {
		w.say("begin", err)
		w.note(op, history.Fail)
		return
	}
	if _, err = tx.ProduceTo(ctx, recs...); err != nil || w.rnd.IntN(4) == 0 {
		w.say("produce in a transaction", err)
		if err = tx.Abort(ctx); err != nil {
			w.say("abort", err) // still, it was never told to commit
		}
		w.note(op, history.Fail)
		return
	}
	if err = tx.Commit(ctx); err != nil {
		w.say("commit", err)
		w.note(op, history.Info)
		return
	}
	w.note(op, history.OK)
}

// moves are the keys that came to a member or left it since it was asked.
type moves struct{ keys []history.Key }

func (m *moves) add(_ context.Context, _ *embedlog.Consumer, list []embedlog.Position) {
	for _, p := range list {
		m.keys = append(m.keys, history.Key{Topic: p.Topic, Partition: p.Partition})
	}
}

func (m *moves) take() []history.Key {
	keys := m.keys
	m.keys = nil
	return keys
}

// member polls as a member of a group, and commits what it polled.
func (w *worker) member(ctx context.Context, topics []string) {
	w.known(ctx, topics)
	if ctx.Err() != nil {
		return
	}
	m := &moves{}
	c, err := w.db.Consumer(&embedlog.ConsumerConfig{
		Group: goGroup, Topics: topics, ManualCommit: true, SessionTimeout: 6 * time.Second,
		OnAssigned: m.add, OnRevoked: m.add, OnLost: m.add, OnReset: w.reset,
	})
	if err != nil {
		w.fail(err)
		return
	}
	op := w.begin(history.OpSubscribe)
	op.Group = goGroup
	for _, t := range topics {
		op.Keys = append(op.Keys, history.Key{Topic: t, Partition: -1})
	}
	w.note(op, history.OK)
	for ctx.Err() == nil {
		recs := w.poll(ctx, c, m)
		op := w.begin(history.OpCommit)
		op.Group = goGroup
		for _, run := range runs(recs) {
			op.Offsets = append(op.Offsets, history.Offset{Key: run.Key, Offset: run.Records[len(run.Records)-1].Offset + 1})
		}
		if len(recs) == 0 {
			continue
		}
		w.note(op, history.Begun)
		for _, rec := range recs {
			c.Mark(rec)
		}
		limit, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		err := c.Commit(limit)
		cancel()
		if err == nil {
			w.note(op, history.OK)
		} else {
			w.say("commit positions", err)
			w.note(op, history.Info) // some may have been committed, or are later
		}
	}
	w.say("close member", c.Close())
}

// known waits until the node knows the topics: one that was killed begins with the metadata of its
// checkpoint, and hears of the rest from the others.
func (w *worker) known(ctx context.Context, topics []string) {
	for _, topic := range topics {
		for ctx.Err() == nil {
			if _, err := w.db.Topic(topic); err == nil {
				break
			}
			w.pause(ctx, 50*time.Millisecond)
		}
	}
}

// reset is a consumer that goes on elsewhere: nothing is deleted here, so it may not.
func (w *worker) reset(_ context.Context, _ *embedlog.Consumer, r embedlog.Reset) {
	w.fail(fmt.Errorf("consumer of process %d was moved in %s/%d from %d to %d: %w", w.process, r.Topic, r.Partition, r.From, r.To, r.Cause))
}

// poll polls once and notes it.
func (w *worker) poll(ctx context.Context, c *embedlog.Consumer, m *moves) []embedlog.Record {
	op := w.begin(history.OpPoll)
	limit, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	recs, err := c.Poll(limit, 1000)
	if err != nil && limit.Err() == nil {
		w.say("poll", err)
		w.pause(ctx, 50*time.Millisecond)
	}
	op.Polls, op.Keys = runs(recs), m.take()
	if len(op.Polls)+len(op.Keys) > 0 {
		w.note(op, history.OK)
	}
	return recs
}

// runs are records as the history has them.
func runs(recs []embedlog.Record) (list []history.Run) {
	at := map[history.Key]int{}
	for _, rec := range recs {
		k := history.Key{Topic: rec.Topic, Partition: rec.Partition}
		i, ok := at[k]
		if !ok {
			i = len(list)
			at[k] = i
			list = append(list, history.Run{Key: k})
		}
		v, err := soak.Decode(rec.Value)
		if err != nil {
			v = -1 - rec.Offset // a value that nobody sent
		}
		list[i].Records = append(list[i].Records, history.Record{Offset: rec.Offset, Value: v})
	}
	return list
}

// read reads everything of the node's own replicas, from a little before where the log ends now.
func (w *worker) read(ctx context.Context, topics []string) {
	var from []embedlog.Position
	for _, topic := range topics {
		for ctx.Err() == nil {
			t, err := w.db.Topic(topic)
			if err == nil {
				var list []embedlog.Position
				limit, cancel := context.WithTimeout(ctx, 10*time.Second)
				list, err = t.ListOffsets(limit, embedlog.Latest)
				cancel()
				for _, p := range list {
					p.Offset = max(p.Offset-500, 0)
					from = append(from, p)
				}
			}
			if err == nil {
				break
			}
			w.say("list offsets", err)
			w.pause(ctx, 100*time.Millisecond)
		}
	}
	if ctx.Err() != nil {
		return
	}
	assign, seek := w.begin(history.OpAssign), w.begin(history.OpSeek)
	for _, p := range from {
		k := history.Key{Topic: p.Topic, Partition: p.Partition}
		assign.Keys = append(assign.Keys, k)
		seek.Offsets = append(seek.Offsets, history.Offset{Key: k, Offset: p.Offset})
	}
	w.note(assign, history.OK)
	w.note(seek, history.OK)
	c, err := w.db.Consumer(&embedlog.ConsumerConfig{Assign: from, OnReset: w.reset})
	if err != nil {
		w.fail(err)
		return
	}
	m := &moves{}
	for ctx.Err() == nil {
		w.poll(ctx, c, m)
	}
	w.say("close reader", c.Close())
}

// ticker lets workers together do so many things a second.
type ticker struct {
	mu    sync.Mutex
	every time.Duration
	next  time.Time
}

func newTicker(_ context.Context, rate int) *ticker {
	return &ticker{every: time.Second / time.Duration(max(rate, 1)), next: time.Now()}
}

// take waits until n more may be done; false when ctx has ended.
func (t *ticker) take(ctx context.Context, n int) bool {
	t.mu.Lock()
	if now := time.Now(); t.next.Before(now) {
		t.next = now
	}
	at := t.next
	t.next = t.next.Add(time.Duration(n) * t.every)
	t.mu.Unlock()
	select {
	case <-time.After(time.Until(at)):
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
