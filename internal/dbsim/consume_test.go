package dbsim

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/history"
)

const (
	copyGroup  = "copy"
	countGroup = "count"
)

// moved is the keys that rebalances gave to a member or took from it, until somebody asks.
type moved struct {
	mu   sync.Mutex
	keys map[history.Key]bool
}

func (m *moved) add(_ context.Context, _ *embedlog.Consumer, list []embedlog.Position) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range list {
		m.keys[history.Key{Topic: p.Topic, Partition: p.Partition}] = true
	}
}

func (m *moved) take() (keys []history.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range m.keys {
		keys = append(keys, k)
	}
	clear(m.keys)
	return keys
}

func (c *client) consumer(cfg *embedlog.ConsumerConfig, m *moved) *embedlog.Consumer {
	cfg.OnReset = func(_ context.Context, _ *embedlog.Consumer, r embedlog.Reset) {
		if !c.p.dead.Load() {
			c.problem("process %d at node %d: reading begins elsewhere: %+v", c.number, c.p.m.id, r)
		}
	}
	if m != nil {
		cfg.OnAssigned, cfg.OnRevoked, cfg.OnLost = m.add, m.add, m.add
	}
	consumer, err := c.p.db.Consumer(cfg)
	if err != nil {
		c.note("make a consumer", err)
		return nil
	}
	return consumer
}

// poll polls for a moment. false: the consumer is not good for more.
func (c *client) poll(consumer *embedlog.Consumer) (runs []history.Run, last []embedlog.Record, ok bool) {
	ctx, cancel := c.limit(500 * time.Millisecond)
	defer cancel()
	records, err := consumer.Poll(ctx, 1+c.rnd.IntN(50))
	if c.p.dead.Load() {
		return nil, nil, false
	}
	for _, rec := range records {
		k := history.Key{Topic: rec.Topic, Partition: rec.Partition}
		value, bad := strconv.ParseInt(string(rec.Value), 10, 64)
		if bad != nil {
			c.problem("%v@%d is %q", k, rec.Offset, rec.Value)
		}
		r := history.Record{Offset: rec.Offset, Value: value}
		if n := len(runs); n > 0 && runs[n-1].Key == k {
			runs[n-1].Records = append(runs[n-1].Records, r)
			last[n-1] = rec
		} else {
			runs, last = append(runs, history.Run{Key: k, Records: []history.Record{r}}), append(last, rec)
		}
	}
	if err != nil && ctx.Err() == nil {
		c.note("poll", err)
		return runs, last, false
	}
	return runs, last, true
}

// read reads all partitions by itself, at one node after the other, and goes on where it was.
func (c *client) read(uncommitted bool) {
	next := map[history.Key]int64{}
	c.live(func() {
		var at []embedlog.Position
		seek := c.begin(history.OpSeek)
		for _, k := range c.keys() {
			at = append(at, embedlog.Position{Topic: k.Topic, Partition: k.Partition, Offset: next[k], LeaderEpoch: -1})
			seek.Offsets = append(seek.Offsets, history.Offset{Key: k, Offset: next[k]})
		}
		consumer := c.consumer(&embedlog.ConsumerConfig{Assign: at, ReadUncommitted: uncommitted}, nil)
		if consumer == nil {
			return
		}
		op := c.begin(history.OpAssign)
		op.Keys = c.keys()
		c.end(op, history.OK)
		c.end(seek, history.OK)
		for life := 10 + c.rnd.IntN(100); life > 0 && c.alive(); life-- {
			op := c.begin(history.OpPoll)
			op.Uncommitted = uncommitted
			runs, _, ok := c.poll(consumer)
			if op.Polls = runs; len(runs) > 0 {
				c.end(op, history.OK)
			}
			for _, run := range runs {
				next[run.Key] = run.Records[len(run.Records)-1].Offset + 1
			}
			if !ok {
				break
			}
		}
		if !c.p.dead.Load() {
			consumer.Close()
		}
	})
}

func (c *client) subscribe(group string, topics ...string) {
	op := c.begin(history.OpSubscribe)
	op.Group = group
	for _, t := range topics {
		op.Keys = append(op.Keys, history.Key{Topic: t, Partition: -1})
	}
	c.end(op, history.OK)
}

// member makes a member of a group, and notes it.
func (c *client) member(group string, topics ...string) (*embedlog.Consumer, *moved) {
	m := &moved{keys: map[history.Key]bool{}}
	cfg := &embedlog.ConsumerConfig{Group: group, Topics: topics, ManualCommit: true}
	if c.rnd.IntN(2) == 0 {
		cfg.SessionTimeout = 3 * time.Second
	}
	consumer := c.consumer(cfg, m)
	if consumer != nil {
		c.subscribe(group, topics...)
	}
	return consumer, m
}

// rebalanced notes rebalances that fell between operations.
func (c *client) rebalanced(m *moved) {
	op := c.begin(history.OpRebalance)
	if op.Keys = m.take(); len(op.Keys) > 0 {
		c.end(op, history.OK)
	}
}

func positions(last []embedlog.Record) (list []history.Offset) {
	at := map[history.Key]int{}
	for _, rec := range last {
		k := history.Key{Topic: rec.Topic, Partition: rec.Partition}
		if i, ok := at[k]; ok {
			list[i].Offset = rec.Offset + 1
			continue
		}
		at[k] = len(list)
		list = append(list, history.Offset{Key: k, Offset: rec.Offset + 1})
	}
	return list
}

// count is a member of a group that reads everything, and commits what it has read: at least once.
func (c *client) count() {
	c.live(func() {
		consumer, m := c.member(countGroup, c.topics...)
		if consumer == nil {
			return
		}
		for life := 10 + c.rnd.IntN(60); life > 0 && c.alive(); life-- {
			c.rebalanced(m)
			op := c.begin(history.OpPoll)
			runs, last, ok := c.poll(consumer)
			op.Polls, op.Keys = runs, m.take()
			c.end(op, history.OK)
			if len(runs) > 0 && !c.commit(consumer, last) || !ok {
				break
			}
		}
		if !c.p.dead.Load() {
			consumer.Close()
		}
	})
}

// commit commits what was polled. false: the consumer is not good for more.
func (c *client) commit(consumer *embedlog.Consumer, last []embedlog.Record) bool {
	op := c.begin(history.OpCommit)
	op.Group, op.Offsets = countGroup, positions(last)
	for _, rec := range last {
		consumer.Mark(rec)
	}
	ctx, cancel := c.limit(time.Duration(1+c.rnd.IntN(10)) * time.Second)
	defer cancel()
	err := consumer.Commit(ctx)
	c.note("commit positions", err)
	var some *embedlog.CommitError
	switch {
	case err == nil:
		c.end(op, history.OK)
		return true
	case errors.Is(err, embedlog.ErrUnknownOutcome), errors.Is(err, embedlog.ErrRebalance), errors.As(err, &some):
		c.end(op, history.Info)
	default:
		c.end(op, history.Fail)
	}
	return false
}

// copy is a member that copies from one topic to another, each batch and its positions in one transaction:
// exactly once.
func (c *client) copy() {
	c.live(func() {
		consumer, m := c.member(copyGroup, safeTopic)
		if consumer == nil {
			return
		}
		for life := 10 + c.rnd.IntN(60); life > 0 && c.alive() && c.copyBatch(consumer, m); life-- {
		}
		if !c.p.dead.Load() {
			consumer.Close()
		}
	})
}

func (c *client) copyBatch(consumer *embedlog.Consumer, m *moved) bool {
	c.rebalanced(m)
	op, s := c.begin(history.OpTxn), &sending{}
	op.Group = copyGroup
	runs, last, ok := c.poll(consumer)
	if op.Polls = runs; len(runs) == 0 {
		return ok
	}
	ctx, cancel := c.limit(time.Duration(2+c.rnd.IntN(15)) * time.Second)
	defer cancel()
	end := func(o history.Outcome) {
		op.Keys, op.Sends = m.take(), s.runs
		c.end(op, o)
	}
	txn, err := c.p.db.Begin(ctx, &embedlog.TxnOptions{Timeout: 10 * time.Second})
	if err != nil {
		c.note("begin copy", err)
		end(history.Fail)
		return false
	}
	op.Offsets = positions(last)
	for _, run := range runs {
		for range run.Records {
			if err == nil {
				err = c.produceIn(ctx, txn, s, history.Key{Topic: copiedTopic, Partition: run.Key.Partition}, c.value())
			}
		}
	}
	if err == nil {
		for _, rec := range last {
			consumer.Mark(rec)
		}
		if err = txn.CommitOffsets(ctx, consumer); err != nil {
			c.note("positions in a transaction", err)
		}
	}
	op.Keys, op.Sends = m.take(), s.runs
	committed, known := c.finish(ctx, op, txn, err != nil || c.rnd.IntN(8) == 0)
	if !committed {
		consumer.Rewind()
	}
	return known
}

// ask asks for the positions of groups now and then, at any node.
func (c *client) ask() {
	for c.pause(2 * time.Second) {
		if c.p = c.running(c.rnd); c.p != nil {
			ctx, cancel := c.limit(10 * time.Second)
			c.note("ask for positions", c.positions(ctx, false))
			cancel()
		}
	}
}

func (c *client) positions(ctx context.Context, final bool) error {
	for _, group := range []string{copyGroup, countGroup} {
		op := c.begin(history.OpCommitted)
		op.Group, op.Final = group, final
		info, err := c.p.db.DescribeGroup(ctx, group)
		if err != nil {
			if errors.Is(err, embedlog.ErrUnknownGroup) {
				continue
			}
			return err
		}
		for _, p := range info.Partitions {
			op.Offsets = append(op.Offsets, history.Offset{Key: history.Key{Topic: p.Topic, Partition: p.Partition}, Offset: p.Committed})
			if p.Lost != nil {
				c.problem("group %s has lost a position: %+v", group, p.Lost)
			}
		}
		if !c.p.dead.Load() {
			c.end(op, history.OK)
		}
	}
	return nil
}

// linearizable scans at any node, and looks that all is there that was acknowledged anywhere before.
func (c *client) linearizable() {
	for c.pause(500 * time.Millisecond) {
		if c.p = c.running(c.rnd); c.p == nil {
			continue
		}
		k := c.key(c.topics[c.rnd.IntN(len(c.topics))])
		want := c.acknowledged(k)
		from := max(0, want.Offset-10)
		topic, err := c.p.db.Topic(k.Topic)
		if err != nil {
			c.note("topic for a linearizable read", err)
			continue
		}
		ctx, cancel := c.limit(10 * time.Second)
		got := map[int64]string{}
		for rec, e := range topic.Scan(ctx, &embedlog.ScanOptions{Partitions: []int32{k.Partition}, From: embedlog.AtOffset(from), ReadUncommitted: true, Linearizable: true}) {
			if err = e; err != nil {
				break
			}
			got[rec.Offset] = string(rec.Value)
		}
		cancel()
		if c.p.dead.Load() {
			continue
		}
		if err != nil {
			c.note("linearizable read", err)
			continue
		}
		if want.Value != 0 && got[want.Offset] != string(text(want.Value)) {
			c.problem("a linearizable read of %v at node %d has not value %d at offset %d, which was acknowledged before: it has %d records from %d on, and %q there",
				k, c.p.m.id, want.Value, want.Offset, len(got), from, got[want.Offset])
		}
		c.mu.Lock()
		c.notes["linearizable reads"]++
		c.mu.Unlock()
	}
}

// acknowledged is the newest record of a partition of which it is known that it was written.
func (s *sim) acknowledged(k history.Key) (best history.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.ops {
		for _, run := range s.ops[i].Sends {
			for _, r := range run.Records {
				if run.Key == k && r.Offset >= 0 && r.Offset >= best.Offset {
					best = r
				}
			}
		}
	}
	return best
}
