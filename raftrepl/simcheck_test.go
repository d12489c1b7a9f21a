package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog/internal/history"
	"github.com/x/embedlog/log"
)

// simEntry is a committed entry: where it is committed once, it is everywhere and for ever.
type simEntry struct {
	epoch uint64
	kind  log.Kind
	sum   uint64
	node  int32 // that had it first
}

var simHash = maphash.MakeSeed()

// leads notes who leads in an epoch, as its messages and its own word say.
func (s *sim) leads(r *simRun, epoch uint64) {
	s.mu.Lock()
	who, ok := s.leaders[epoch]
	if !ok {
		s.leaders[epoch] = r.n.id
		if *simShow {
			s.events = append(s.events, fmt.Sprintf("%v: node %d leads in epoch %d", time.Since(s.start), r.n.id, epoch))
		}
	}
	s.mu.Unlock()
	if ok && who != r.n.id {
		s.problem("nodes %d and %d lead in epoch %d", who, r.n.id, epoch)
	}
}

// watch looks all the time at what must hold at every moment: one leader in an epoch, watermarks
// that do not go back nor pass what a majority has on its disks, and one entry at an index, as far as anybody takes it for committed.
func (s *sim) watch(ctx context.Context) {
	type seen struct {
		mark  int64
		index uint64
	}
	all := map[*simRun]*seen{}
	for ctx.Err() == nil {
		for _, n := range s.nodes {
			r := n.run.Load()
			if r == nil {
				continue
			}
			epoch, err := r.g.LeaderEpoch()
			mark := r.p.HighWatermark()
			if r.dead.Load() {
				continue
			}
			if err == nil {
				s.leads(r, uint64(epoch))
			}
			have := all[r]
			if have == nil {
				have = &seen{}
				all[r] = have
			}
			if mark < have.mark {
				s.problem("node %d's watermark goes back from %d to %d", n.id, have.mark, mark)
			}
			if mark > r.p.LogEnd() {
				s.problem("node %d's watermark is %d, its log ends at %d", n.id, mark, r.p.LogEnd())
			}
			if mark > have.mark {
				s.durable(r, mark)
			}
			have.mark = mark
			have.index = s.audit(r, have.index)
		}
		time.Sleep(s.scaled(25 * time.Millisecond))
	}
}

// durable looks whether a majority has on its disks what a node shows: who counts before it has synced loses something
// by that only if the power goes at that moment. A node that is down is taken to have it; what a log says
// of its disk, crashes put to the test.
func (s *sim) durable(r *simRun, mark int64) {
	if s.weak() {
		return
	}
	for try := range 2 {
		var without []int32
		for _, n := range s.nodes {
			if other := n.run.Load(); other != nil && other.p.Log().DurableOffset() < mark && !other.dead.Load() {
				without = append(without, n.id)
			}
		}
		switch {
		case len(s.nodes)-len(without) > s.minority():
			return
		case try == 0:
			time.Sleep(time.Microsecond) // an install may just have put files in place
		default:
			s.problem("node %d shows what lies before %d, nodes %v of %d have not synced it", r.n.id, mark, without, len(s.nodes))
		}
	}
}

// audit compares what has been committed at a node since index with what others had there.
func (s *sim) audit(r *simRun, index uint64) uint64 {
	st, _ := r.p.Group()
	l := r.p.Log()
	if st.Index <= index {
		return index
	}
	reader, err := l.ReadFromIndex(max(index+1, l.FirstCompleteIndex()))
	if err != nil {
		return index // deleted or closed meanwhile
	}
	for {
		f, err := reader.Next()
		if err != nil || f.Index > st.Index || r.dead.Load() {
			return index
		}
		if f.FirstIndex != f.Index || f.Index < l.FirstCompleteIndex() {
			continue // compacted meanwhile
		}
		index = f.Index
		is := simEntry{epoch: f.Epoch, kind: f.Kind, sum: maphash.Bytes(simHash, f.Payload), node: r.n.id}
		s.mu.Lock()
		was, known := s.ledger[index]
		if !known {
			s.ledger[index] = is
		}
		s.mu.Unlock()
		if is.node = was.node; known && is != was {
			s.problem("entry %d is committed at node %d, of epoch %d, and another at node %d, of epoch %d", index, was.node, was.epoch, r.n.id, is.epoch)
			return st.Index
		}
	}
}

// goesOn waits for the next acknowledgement after all faults have ended: some elections, and the
// longest pause of an instance that has failed.
func (s *sim) goesOn() {
	before, since := s.appended.Load(), time.Now()
	for s.appended.Load() == before {
		if time.Since(since) > longRestart+fullFor+s.scaled(10*time.Second) {
			_, err := s.settle(0)
			s.problem("nothing was acknowledged within %v after all faults had ended: %v", time.Since(since), err)
			return
		}
		time.Sleep(s.scaled(10 * time.Millisecond))
	}
	s.mu.Lock()
	s.counts["longest recovery, thousandths of an election timeout"] = int64(1000 * float64(time.Since(since)) / float64(s.timing.Election))
	s.mu.Unlock()
}

// judge looks at what is left: the replicas are the same, and what clients saw is possible.
func (s *sim) judge(t *testing.T) {
	for _, n := range s.nodes {
		if r := n.run.Load(); r != nil {
			r.fault.Clear()
		}
	}
	s.restart() // a sync that failed at the very end
	l, err := s.settle(s.scaled(30*time.Second) + longRestart + fullFor)
	if err != nil {
		t.Error(err)
		t.Logf("what sends to followers:\n%s", sendersStacks())
		return
	}
	time.Sleep(s.scaled(100 * time.Millisecond)) // the watch looks once more
	if err := errors.Join(s.same(l), s.sameRecords(l)); err != nil {
		t.Error(err)
	}
	s.collectFrom(l)
	s.record(s.final(history.OpFinal))
	if *simShow {
		if all, err := l.entries(l.p.Log().FirstCompleteIndex()); err == nil {
			s.trace("the log:\n%.20000s", all)
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
	if sent := report.Figures.Sent.OK; sent < 30 || report.Figures.Polled < sent {
		t.Errorf("%d records were acknowledged and %d read: the run proves little", sent, report.Figures.Polled)
	}
	s.count("records acknowledged", int64(report.Figures.Sent.OK))
	s.count("records read", int64(report.Figures.Polled))
	s.count("epochs with a leader", int64(len(s.leaders)))
	s.count("entries compared", int64(len(s.ledger)))
}

// report says what was seen on the way.
func (s *sim) report(t *testing.T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, p := range s.problems {
		if i == 20 {
			t.Errorf("and %d more", len(s.problems)-i)
			break
		}
		t.Error(p)
	}
}

// members are those that run.
func (c *simCluster) members(l *simRun) (list []*simRun) {
	for _, m := range l.g.Status().Members {
		if r := c.nodes[m.Node-1].run.Load(); r != nil {
			list = append(list, r)
		}
	}
	return list
}

// same compares the members' logs byte by byte, above the highest first complete index.
func (c *simCluster) same(l *simRun) error {
	first := uint64(0)
	for _, r := range c.members(l) {
		first = max(first, r.p.Log().FirstCompleteIndex())
	}
	want, err := l.entries(first)
	if err != nil {
		return err
	}
	for _, r := range c.members(l) {
		got, err := r.entries(first)
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("node %d's log from entry %d on is\n%s\nnode %d's is\n%s", r.n.id, first, got, l.n.id, want)
		}
		if start := r.p.LogStart(); start != l.p.LogStart() {
			return fmt.Errorf("node %d's log starts at %d, node %d's at %d", r.n.id, start, l.n.id, l.p.LogStart())
		}
	}
	return nil
}

// sameRecords compares what a full compaction would leave of the members' logs, all that is there
// of them.
func (c *simCluster) sameRecords(l *simRun) error {
	want, err := l.survivors()
	if err != nil {
		return err
	}
	for _, r := range c.members(l) {
		got, err := r.survivors()
		if err != nil {
			return err
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("compacted, node %d's log is\n%v\nnode %d's is\n%v", r.n.id, got, l.n.id, want)
		}
	}
	return nil
}

// survivors are the last records of the keys that were not deleted.
func (r *simRun) survivors() (map[string]string, error) {
	last := map[string]string{}
	err := r.each(r.p.LogStart(), func(rec *log.Record) error {
		if rec.Value == nil {
			delete(last, string(rec.Key))
		} else {
			last[string(rec.Key)] = fmt.Sprintf("%d %x", rec.Offset, rec.Value)
		}
		return nil
	})
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("node %d: %w", r.n.id, err)
	}
	return last, nil
}

// sendersStacks are the goroutines that send to followers, or wait for that: where a follower stays behind, one of them hangs.
func sendersStacks() string {
	all := make([]byte, 8<<20)
	all = all[:runtime.Stack(all, true)]
	var b strings.Builder
	for _, g := range strings.Split(string(all), "\n\n") {
		if strings.Contains(g, "replicate") || strings.Contains(g, "pipeline") || strings.Contains(g, "AppendEntries") {
			b.WriteString(g + "\n\n")
		}
	}
	return b.String()
}
