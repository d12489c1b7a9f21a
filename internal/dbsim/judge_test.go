package dbsim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/history"
	"github.com/x/embedlog/log"
)

// judge looks at what is left when all is healed and nobody does anything any more.
func (s *sim) judge(t *testing.T) {
	s.restart() // a sync that failed at the very end
	if err := s.until(120*time.Second, s.quiet); err != nil {
		t.Errorf("after all was healed: %v", err)
		s.describe(t)
	} else if err := s.same(); err != nil {
		t.Error(err)
	}
	for _, p := range s.problems {
		t.Error(p)
	}
	if t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	there := s.processes()
	end := &client{sim: s, number: 1000, p: there[0]}
	last, err := end.final(ctx)
	if err != nil {
		t.Errorf("final read: %v", err)
	}
	member := &client{sim: s, number: 1001, rnd: s.rng, p: there[1]}
	if err := member.catchUp(last); err != nil {
		t.Errorf("a member that joins when all others are gone: %v", err)
	}
	if err := end.positions(ctx, true); err != nil {
		t.Errorf("final positions: %v", err)
	}
	if s.plan.weak {
		if err := end.finalWeak(ctx); err != nil {
			t.Errorf("final read below durable: %v", err)
		}
	}
	if s.plan.shares {
		if err := member.shareRest(); err != nil {
			t.Errorf("share group in the end: %v", err)
			s.describe(t)
		} else if err := end.shared(ctx); err != nil {
			t.Errorf("share group: %v", err)
		}
	}
	report, err := history.Check(s.ops, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range report.Bad() {
		t.Errorf("%v: %d times", bad.Kind, bad.Count)
		for _, first := range bad.First {
			t.Errorf("  %v", first)
		}
	}
	for _, p := range s.problems {
		t.Error(p)
	}
	if testing.Verbose() {
		t.Logf("%d nodes, %v virtual, faults %v, %d linearizable reads\n%v", len(s.machines), time.Since(s.start), s.faults, s.notes["linearizable reads"], report)
	}
	f := &report.Figures
	if f.Sent.OK < 20 || f.Kinds[history.OpTxn].OK < 3 || f.Polled < f.Sent.OK {
		t.Errorf("%d records and %d transactions were acknowledged, and %d read: the run proves little", f.Sent.OK, f.Kinds[history.OpTxn].OK, f.Polled)
	}
}

// quiet says that nothing is left to be done. A partition below durable that waits for a person gets one.
func (s *sim) quiet() error {
	if s.plan.weak {
		s.recover(true)
	}
	return errors.Join(s.settled(), s.placed(), s.administered(s.admin))
}

func (s *sim) until(most time.Duration, f func() error) (err error) {
	for begun := time.Now(); time.Since(begun) < most; time.Sleep(200 * time.Millisecond) {
		if err = f(); err == nil {
			return nil
		}
	}
	return fmt.Errorf("after %v: %w", most, err)
}

// settled says that every partition has a leader, that all its replicas are there and have the same, and that
// no transaction is open.
func (s *sim) settled() error {
	for _, p := range s.processes() {
		for _, topic := range p.db.Engine().Topics() {
			for _, part := range topic.Partitions() {
				if err := s.whole(part); err != nil {
					return fmt.Errorf("%v at node %d: %w", part, p.m.id, err)
				}
			}
		}
	}
	return nil
}

func (s *sim) whole(part *engine.Partition) error {
	if part.Elsewhere() {
		return nil
	}
	leader, _ := part.Leader()
	if leader < 1 {
		return errors.New("nobody leads: " + part.Status().Reason)
	}
	l, err := s.replica(leader, part)
	if err != nil {
		return err
	}
	if !l.Leads() {
		return fmt.Errorf("node %d does not know that it leads", leader)
	}
	if end, mark := l.LogEnd(), part.HighWatermark(); end != mark {
		return fmt.Errorf("the high watermark is %d, and the leader's log ends at %d", mark, end)
	}
	if mark, stable := part.HighWatermark(), part.LastStable(); stable != mark {
		return fmt.Errorf("a transaction is open: the last stable offset is %d of %d", stable, mark)
	}
	return nil
}

// replica is another node's replica of the same partition.
func (s *sim) replica(node int32, part *engine.Partition) (*engine.Partition, error) {
	p := s.machines[node-1].run.Load()
	if p == nil {
		return nil, fmt.Errorf("node %d does not run", node)
	}
	topic, err := p.db.Engine().TopicByID(part.TopicID())
	if err != nil {
		return nil, fmt.Errorf("node %d: %w", node, err)
	}
	return topic.Partition(part.ID())
}

// same compares all replicas with those of the leaders, byte by byte.
func (s *sim) same() error {
	for _, p := range s.processes() {
		for _, topic := range p.db.Engine().Topics() {
			for _, part := range topic.Partitions() {
				leader, _ := part.Leader()
				if part.Elsewhere() || leader == p.m.id {
					continue
				}
				l, err := s.replica(leader, part)
				if err != nil {
					return err
				}
				first := max(part.Log().FirstCompleteIndex(), l.Log().FirstCompleteIndex())
				got, err := entries(part, first)
				if err != nil {
					return fmt.Errorf("%v at node %d: %w", part, p.m.id, err)
				}
				want, err := entries(l, first)
				if err != nil {
					return fmt.Errorf("%v at node %d: %w", part, leader, err)
				}
				if !slices.Equal(got, want) {
					return fmt.Errorf("%v: node %d has not what the leader %d has: %d entries from %d on, and %d", part, p.m.id, leader, len(got), first, len(want))
				}
			}
		}
	}
	return nil
}

// entries are what is committed of a log from an index on, as text.
func entries(part *engine.Partition, first uint64) (list []string, err error) {
	reader, err := part.Log().ReadFromIndex(first)
	for err == nil {
		var f *log.Frame
		if f, err = reader.Next(); err == io.EOF {
			return list, nil
		}
		if err == nil {
			list = append(list, fmt.Sprintf("%d %d %v %d %x", f.Index, f.Epoch, f.Kind, f.Offset, f.Payload))
		}
	}
	return nil, err
}

func (s *sim) describe(t *testing.T) {
	for _, p := range s.processes() {
		var b bytes.Buffer
		for _, st := range p.db.Cluster().Status() {
			fmt.Fprintf(&b, "\n  %+v", st)
		}
		for _, topic := range p.db.Engine().Topics() {
			for _, part := range topic.Partitions() {
				for _, st := range part.Producers() {
					if part.Leads() && st.TxnFirstOffset >= 0 {
						fmt.Fprintf(&b, "\n  %v: open: %+v", part, st)
					}
				}
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		list, err := p.db.Engine().AnyTxns().List(ctx)
		for _, l := range list {
			d, err := p.db.Engine().AnyTxns().Describe(ctx, l.TransactionalID)
			if l.State != "CompleteCommit" && l.State != "CompleteAbort" && l.State != "Empty" {
				fmt.Fprintf(&b, "\n  %+v %v", d, err)
			}
		}
		cancel()
		t.Logf("node %d: %v%s", p.m.id, err, &b)
	}
}

// final reads everything from start to end.
// It returns the last record of each partition.
func (c *client) final(ctx context.Context) (last map[history.Key]int64, err error) {
	last = map[history.Key]int64{}
	assign := c.begin(history.OpAssign)
	assign.Keys = c.keys()
	c.end(assign, history.OK)
	for _, k := range c.keys() {
		topic, err := c.p.db.Topic(k.Topic)
		if err != nil {
			return nil, err
		}
		op := c.begin(history.OpPoll)
		op.Final = true
		run := history.Run{Key: k}
		for rec, err := range topic.Scan(ctx, &embedlog.ScanOptions{Partitions: []int32{k.Partition}, Linearizable: true}) {
			if err != nil {
				return nil, err
			}
			value, err := strconv.ParseInt(string(rec.Value), 10, 64)
			if err != nil {
				return nil, err
			}
			last[k] = rec.Offset
			run.Records = append(run.Records, history.Record{Offset: rec.Offset, Value: value})
		}
		if len(run.Records) > 0 {
			op.Polls = []history.Run{run}
			c.end(op, history.OK)
		}
	}
	op := c.begin(history.OpFinal)
	op.Keys = c.keys()
	c.end(op, history.OK)
	return last, nil
}

// catchUp joins the group that counts, and reads and commits what nobody has: members that have died
// give their partitions on.
func (c *client) catchUp(last map[history.Key]int64) error {
	consumer, m := c.member(countGroup, c.topics...)
	if consumer == nil {
		return errors.New("it cannot join")
	}
	defer consumer.Close()
	return c.until(2*time.Minute, func() error {
		c.rebalanced(m)
		op := c.begin(history.OpPoll)
		runs, marks, ok := c.poll(consumer)
		op.Polls, op.Keys = runs, m.take()
		c.end(op, history.OK)
		if !ok || len(runs) > 0 && !c.commit(consumer, marks) {
			return errors.New("it cannot go on")
		}
		ctx, cancel := c.limit(10 * time.Second)
		defer cancel()
		info, err := c.p.db.DescribeGroup(ctx, countGroup)
		if err != nil {
			return err
		}
		committed := map[history.Key]int64{}
		for _, p := range info.Partitions {
			committed[history.Key{Topic: p.Topic, Partition: p.Partition}] = p.Committed
		}
		for k, at := range last {
			if committed[k] <= at {
				return fmt.Errorf("of %v %d is committed, and the last record is %d; it has %v; members %+v", k, committed[k], at, consumer.Assignment(), info.Members)
			}
		}
		return nil
	})
}
