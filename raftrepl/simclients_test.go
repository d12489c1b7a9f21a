package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/x/embedlog/internal/history"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// batch is records of one append: up to three with values of their own, and before them, where
// compaction runs, some with keys that come again and again, of which no history is kept.
func (s *sim) batch(rng *rand.Rand) (recs []log.Record, values []int64, first int) {
	if s.plan.compact {
		for range rng.IntN(3) {
			r := log.Record{Timestamp: 1, Key: fmt.Appendf(nil, "f%d", rng.IntN(5))}
			if rng.IntN(4) > 0 {
				r.Value = make([]byte, rng.IntN(400))
			}
			recs = append(recs, r)
		}
	}
	first = len(recs)
	for range 1 + rng.IntN(3)*rng.IntN(2) {
		v := s.value.Add(1)
		text := strconv.AppendInt(nil, v, 10)
		recs = append(recs, log.Record{Timestamp: 1, Key: append([]byte{'v'}, text...), Value: text})
		values = append(values, v)
	}
	return recs, values, first
}

// produce is a client: an idempotent producer that sends one batch after the other, each until it is
// told that it is written. When it gives one up, it goes on under another producer id, as a client
// that starts anew.
func (s *sim) produce(process int32, rng *rand.Rand) {
	id, sequence := int64(process)*1_000_000, int32(0)
	for s.clients.Err() == nil {
		op := history.Op{Process: process, Kind: history.OpSend, Start: s.nano()}
		recs, values, first := s.batch(rng)
		base, outcome := s.send(recs, partition.Producer{ID: id, Sequence: sequence})
		op.Outcome, op.End = outcome, s.nano()
		op.Sends = sent(values, base, first, outcome)
		s.record(op)
		if outcome == history.OK {
			sequence += int32(len(recs))
		} else {
			id, sequence = id+1, 0
		}
		time.Sleep(s.scaled(time.Duration(5+rng.IntN(90)) * time.Millisecond))
	}
}

// sent is a batch as the history has it.
func sent(values []int64, base int64, first int, outcome history.Outcome) []history.Run {
	run := history.Run{Key: simKey}
	for i, v := range values {
		r := history.Record{Offset: base + int64(first+i), Value: v}
		switch outcome {
		case history.Info:
			r.Offset = history.Unanswered
		case history.Fail:
			r.Offset = history.Refused
		}
		run.Records = append(run.Records, r)
	}
	return []history.Run{run}
}

// send appends at who leads until that is acknowledged, or patience ends.
func (s *sim) send(recs []log.Record, producer partition.Producer) (base int64, outcome history.Outcome) {
	outcome = history.Fail
	for begun := time.Now(); time.Since(begun) < s.scaled(10*time.Second); time.Sleep(s.scaled(50 * time.Millisecond)) {
		l := s.leader()
		if l == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), s.scaled(3*time.Second))
		r, err := l.p.Append(ctx, recs, &partition.AppendOptions{Producer: &producer})
		cancel()
		s.trace("%q, producer %d, sequence %d at node %d: offset %d, duplicate %t, %v, dead %t", recs[len(recs)-1].Value, producer.ID, producer.Sequence, l.n.id, r.BaseOffset, r.Duplicate, err, l.dead.Load())
		switch {
		case l.dead.Load(): // nobody heard what it said
			outcome = history.Info
		case err == nil:
			s.acknowledged(r.LastOffset)
			return r.BaseOffset, history.OK
		case errors.Is(err, partition.ErrUnknownOutcome):
			outcome = history.Info
		case errors.Is(err, partition.ErrOutOfOrderSequence):
			s.problem("producer %d, sequence %d at node %d: %v", producer.ID, producer.Sequence, l.n.id, err)
			return 0, history.Info
		}
	}
	return 0, outcome
}

func (s *sim) acknowledged(last int64) {
	s.appended.Add(1)
	for {
		was := s.promised.Load()
		if last < was || s.promised.CompareAndSwap(was, last+1) {
			return
		}
	}
}

// transact is a client with transactions, and its coordinator: what was decided is told until
// somebody has it.
func (s *sim) transact(process int32, rng *rand.Rand) {
	id := int64(process) * 1_000_000
	for epoch := int16(0); s.clients.Err() == nil; epoch++ {
		op := history.Op{Process: process, Kind: history.OpTxn, Start: s.nano()}
		commit, sequence := rng.IntN(3) > 0, int32(0)
		for range 1 + rng.IntN(3) {
			recs, values, first := s.batch(rng)
			base, outcome := s.send(recs, partition.Producer{ID: id, Epoch: epoch, Sequence: sequence, Transactional: true, TxnV2: true})
			runs := sent(values, base, first, history.OK)
			if outcome != history.OK {
				commit = false
				for i := range runs[0].Records {
					runs[0].Records[i].Offset = history.NoOffset
				}
			}
			op.Sends = append(op.Sends, runs...)
			if outcome != history.OK {
				break
			}
			sequence += int32(len(recs))
			time.Sleep(s.scaled(time.Duration(rng.IntN(100)) * time.Millisecond))
		}
		ended := s.end(id, epoch+1, commit)
		op.End = s.nano()
		switch {
		case !ended:
			op.Outcome = history.Info
			s.problem("transaction %d of producer %d does not end", epoch, id)
		case commit:
			op.Outcome = history.OK
			s.count("transactions", 1)
		default:
			op.Outcome = history.Fail
			s.count("aborted transactions", 1)
		}
		s.record(op)
		if !ended {
			return
		}
		time.Sleep(s.scaled(time.Duration(20+rng.IntN(200)) * time.Millisecond))
	}
}

// end ends a transaction. The faults are over after a while, so it can.
func (s *sim) end(id int64, epoch int16, commit bool) bool {
	until := time.Now().Add(s.scaled(*simTime) + s.scaled(time.Minute) + time.Minute)
	for ; time.Now().Before(until); time.Sleep(s.scaled(50 * time.Millisecond)) {
		l := s.leader()
		if l == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), s.scaled(3*time.Second))
		r, err := l.p.EndTransaction(ctx, id, epoch, commit, 1, true)
		cancel()
		s.trace("end of producer %d, epoch %d, commit %t at node %d: %v, dead %t", id, epoch, commit, l.n.id, err, l.dead.Load())
		if err == nil && !l.dead.Load() {
			s.acknowledged(r.LastOffset)
			return true
		}
		if errors.Is(err, partition.ErrFenced) {
			s.problem("producer %d, epoch %d at node %d: %v", id, epoch, l.n.id, err)
			return false
		}
	}
	return false
}

// poll is a reader: it reads at any node what is visible there, and goes on where it was.
func (s *sim) poll(process int32, rng *rand.Rand) {
	s.record(history.Op{Process: process, Kind: history.OpAssign, Outcome: history.OK, Start: s.nano(), End: s.nano(), Keys: []history.Key{simKey}})
	next := int64(0)
	for s.clients.Err() == nil {
		time.Sleep(s.scaled(time.Duration(rng.IntN(200)) * time.Millisecond))
		r := s.nodes[rng.IntN(len(s.nodes))].run.Load()
		if r == nil || next >= r.p.LastStable() {
			continue
		}
		if start := r.p.LogStart(); next < start {
			next = start
			s.record(history.Op{Process: process, Kind: history.OpSeek, Outcome: history.OK, Start: s.nano(), End: s.nano(), Offsets: []history.Offset{{Key: simKey, Offset: next}}})
		}
		op := history.Op{Process: process, Kind: history.OpPoll, Outcome: history.OK, Start: s.nano()}
		records, behind, err := r.read(next)
		if r.dead.Load() || errors.Is(err, partition.ErrOffsetOutOfRange) {
			continue // it was deleted meanwhile
		}
		if err != nil && r.p.Err() == nil {
			s.problem("read at node %d from %d: %v", r.n.id, next, err)
		}
		next = behind
		if len(records) == 0 {
			continue
		}
		op.Polls, op.End = []history.Run{{Key: simKey, Records: records}}, s.nano()
		s.record(op)
	}
}

// confirm asks whoever believes to lead for a linearizable read: what was acknowledged before it was
// asked is there.
func (s *sim) confirm(_ int32, rng *rand.Rand) {
	for s.clients.Err() == nil {
		time.Sleep(s.scaled(time.Duration(rng.IntN(300)) * time.Millisecond))
		for _, i := range rng.Perm(len(s.nodes)) {
			r := s.nodes[i].run.Load()
			if r == nil {
				continue
			}
			if _, err := r.g.LeaderEpoch(); err != nil {
				continue
			}
			promised := s.promised.Load()
			ctx, cancel := context.WithTimeout(context.Background(), s.scaled(2*time.Second))
			err := r.g.Confirm(ctx)
			cancel()
			if mark := r.p.HighWatermark(); err == nil && !r.dead.Load() {
				s.count("confirmed reads", 1)
				if mark < promised {
					s.problem("node %d confirms that it leads, its watermark is %d, acknowledged was up to %d", r.n.id, mark, promised)
				}
			}
		}
	}
}

// final is an operation of the one who reads everything, in time before it is deleted.
func (s *sim) final(kind history.OpKind, records ...history.Record) history.Op {
	op := history.Op{Process: 1000, Kind: kind, Outcome: history.OK, Start: s.nano(), End: s.nano(), Final: kind == history.OpPoll}
	if kind == history.OpPoll {
		op.Polls = []history.Run{{Key: simKey, Records: records}}
	} else {
		op.Keys = []history.Key{simKey}
	}
	return op
}

// collect reads on for the final read now and then, so that the log can be deleted behind it.
func (s *sim) collect() {
	for s.clients.Err() == nil {
		time.Sleep(s.scaled(time.Second))
		// One that was replaced and does not know it may end below.
		if l := s.leader(); l != nil && l.p.LogEnd() >= s.collected() {
			s.collectFrom(l)
		}
	}
}

func (s *sim) collectFrom(l *simRun) {
	from := s.collected()
	records, behind, err := l.read(from)
	if l.dead.Load() {
		return
	}
	if err != nil && l.p.Err() == nil {
		s.problem("final read at node %d from %d: %v", l.n.id, from, err)
	}
	if len(records) > 0 {
		s.record(s.final(history.OpPoll, records...))
	}
	s.mu.Lock()
	s.read = max(s.read, behind)
	s.mu.Unlock()
}

func (s *sim) collected() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read
}

// read returns the committed records from an offset to the last stable one, and the offset behind
// what it has looked at.
func (r *simRun) read(from int64) (list []history.Record, behind int64, err error) {
	behind = from
	err = r.each(from, func(rec *log.Record) error {
		behind = rec.Offset + 1
		if rec.Key[0] == 'f' {
			return nil
		}
		v, err := strconv.ParseInt(string(rec.Value), 10, 64)
		if err == nil {
			list = append(list, history.Record{Offset: rec.Offset, Value: v})
		}
		return err
	})
	return list, behind, err
}

// each calls f with the committed records from an offset on.
func (r *simRun) each(from int64, f func(rec *log.Record) error) error {
	reader, err := r.p.ReadFrom(from, &partition.ReaderOptions{Isolation: partition.ReadCommitted})
	if err != nil {
		return err
	}
	for {
		b, err := reader.TryNext()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var rr log.RecordReader
		if err := rr.Reset(b, 0); err != nil {
			return err
		}
		for rr.Next() {
			if rr.Record().Offset < from {
				continue
			}
			if err := f(rr.Record()); err != nil {
				return err
			}
		}
		if err := rr.Err(); err != nil {
			return err
		}
	}
}
