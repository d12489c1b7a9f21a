package raftrepl

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/history"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// The simulation: clients append and read while what runs the cluster breaks, in virtual time.
//
//	go test -run TestSimulation ./raftrepl                          a dozen seeds
//	go test -run TestSimulation ./raftrepl -sim.seed 4711           one of them again
//	go test -run TestSimulation ./raftrepl -sim.from 1000 -sim.runs 100000 -timeout 0
//
// Slow and hanging disks are there with -sim.real alone, which takes the time that it takes: who waits
// for a lock that is held over a disk's operation does not let a bubble's clock move.
//
// A seed decides about faults and their times. What goroutines do between two of them is the
// scheduler's choice, so a seed that failed may have to run some times to fail again.
var (
	simSeed = flag.Uint64("sim.seed", 0, "run one seed of the simulation")
	simFrom = flag.Uint64("sim.from", 1, "the first seed")
	simRuns = flag.Int("sim.runs", 0, "how many seeds; 0 is a few")
	simTime = flag.Duration("sim.time", 10*time.Second, "how long faults go on, in virtual time")
	simShow = flag.Bool("sim.trace", false, "say what happened in a run that failed")
	simReal = flag.Bool("sim.real", false, "in real time, with slow disks")
)

func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		simulate(t, *simSeed)
		return
	}
	runs := *simRuns
	if runs == 0 {
		runs = testcount.N(12)
	}
	for i := range uint64(runs) {
		seed := *simFrom + i
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) { simulate(t, seed) })
		if t.Failed() {
			t.Fatalf("seed %d failed: go test -run TestSimulation ./raftrepl -sim.seed %d; to go on behind it -sim.from %d", seed, seed, seed+1)
		}
	}
}

var simKey = history.Key{Topic: "sim", Partition: 1}

// sim is one run.
type sim struct {
	*simCluster
	rng     *rand.Rand
	spare   int // nodes that are no members at first
	start   time.Time
	clients context.Context
	wg      sync.WaitGroup

	mu       sync.Mutex
	ops      history.History
	value    int64
	leaders  map[int32]int32 // by epoch
	read     int64           // up to there the final read has come
	problems []string
	events   []string // what happened, for -sim.trace
	faults   map[string]int
}

func simulate(t *testing.T, seed uint64) {
	in := synctest.Test
	if *simReal {
		in = func(t *testing.T, f func(*testing.T)) { f(t) }
	}
	in(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 0x51))
		members, spare := 3, rng.IntN(2)
		if rng.IntN(3) == 0 {
			members, spare = 5, 0
		}
		s := &sim{simCluster: newSimCluster(t, members, members+spare), rng: rng, spare: spare,
			start: time.Now(), leaders: map[int32]int32{}, faults: map[string]int{}}
		defer s.close()
		for _, n := range s.nodes {
			if err := n.start(); err != nil {
				t.Fatalf("node %d: %v", n.id, err)
			}
		}
		var stop context.CancelFunc
		s.clients, stop = context.WithCancel(context.Background())
		for i := range 3 {
			s.wg.Go(func() { s.produce(int32(i + 1)) })
		}
		for i := range 2 {
			s.wg.Go(func() { s.poll(int32(100+i), rand.New(rand.NewPCG(seed, uint64(i)))) })
		}
		s.wg.Go(s.watch)
		s.wg.Go(s.collect)
		s.record(s.final(history.OpAssign))
		s.harm(*simTime)
		s.heal()
		time.Sleep(5 * time.Second) // clients go on for a while
		stop()
		s.wg.Wait()
		s.judge(t)
		if t.Failed() {
			for _, e := range s.events {
				t.Log(e)
			}
			t.Logf("seed %d: %d members, %d more nodes, faults %v", seed, members, spare, s.faults)
		}
	})
}

func (s *sim) problem(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problems = append(s.problems, fmt.Sprintf("%v: ", time.Since(s.start))+fmt.Sprintf(format, args...))
}

func (s *sim) trace(format string, args ...any) {
	if *simShow {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, fmt.Sprintf("%v: ", time.Since(s.start))+fmt.Sprintf(format, args...))
	}
}

func (s *sim) record(op history.Op) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ops = append(s.ops, op)
}

func (s *sim) nano() int64 { return int64(time.Since(s.start)) + 1 }

// produce is a client: an idempotent producer that sends one record after the other, each until it is
// told that it is written. When it gives one up, it goes on under another producer id, as a client
// that starts anew.
func (s *sim) produce(process int32) {
	id, sequence := int64(process)*1000, int32(0)
	for s.clients.Err() == nil {
		s.mu.Lock()
		s.value++
		value := s.value
		s.mu.Unlock()
		op := history.Op{Process: process, Kind: history.OpSend, Start: s.nano()}
		offset, outcome := s.send(value, id, sequence)
		op.Outcome, op.End = outcome, s.nano()
		op.Sends = []history.Run{{Key: simKey, Records: []history.Record{{Offset: offset, Value: value}}}}
		s.record(op)
		if outcome == history.OK {
			sequence++
		} else {
			id, sequence = id+1, 0
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *sim) send(value, id int64, sequence int32) (offset int64, outcome history.Outcome) {
	outcome = history.Fail
	offset = history.Refused
	for begun := time.Now(); time.Since(begun) < 10*time.Second; time.Sleep(50 * time.Millisecond) {
		l := s.leader()
		if l == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		r, err := l.p.Append(ctx, record(strconv.FormatInt(value, 10)), &partition.AppendOptions{Producer: &partition.Producer{ID: id, Sequence: sequence}})
		cancel()
		s.trace("value %d, producer %d, sequence %d at node %d: offset %d, duplicate %t, %v, dead %t", value, id, sequence, l.n.id, r.BaseOffset, r.Duplicate, err, l.dead.Load())
		switch {
		case l.dead.Load(): // nobody heard what it said
			offset, outcome = history.Unanswered, history.Info
		case err == nil:
			return r.BaseOffset, history.OK
		case errors.Is(err, partition.ErrUnknownOutcome):
			offset, outcome = history.Unanswered, history.Info
		case errors.Is(err, partition.ErrOutOfOrderSequence):
			s.problem("producer %d, sequence %d at node %d: %v", id, sequence, l.n.id, err)
			return history.Unanswered, history.Info
		}
	}
	return offset, outcome
}

// poll is a reader: it reads at any node what is below the watermark there, and goes on where it was.
func (s *sim) poll(process int32, rng *rand.Rand) {
	s.record(history.Op{Process: process, Kind: history.OpAssign, Outcome: history.OK, Start: s.nano(), End: s.nano(), Keys: []history.Key{simKey}})
	next := int64(0)
	for s.clients.Err() == nil {
		time.Sleep(time.Duration(rng.IntN(200)) * time.Millisecond)
		r := s.nodes[rng.IntN(len(s.nodes))].run.Load()
		if r == nil || next >= r.p.HighWatermark() {
			continue
		}
		if start := r.p.LogStart(); next < start {
			next = start
			s.record(history.Op{Process: process, Kind: history.OpSeek, Outcome: history.OK, Start: s.nano(), End: s.nano(), Offsets: []history.Offset{{Key: simKey, Offset: next}}})
		}
		op := history.Op{Process: process, Kind: history.OpPoll, Outcome: history.OK, Start: s.nano()}
		records, err := r.read(next)
		if r.dead.Load() || errors.Is(err, partition.ErrOffsetOutOfRange) {
			continue // it was deleted meanwhile
		}
		if err != nil {
			s.problem("read at node %d from %d: %v", r.n.id, next, err)
		}
		if len(records) == 0 {
			continue
		}
		op.Polls, op.End = []history.Run{{Key: simKey, Records: records}}, s.nano()
		next = records[len(records)-1].Offset + 1
		s.record(op)
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
		time.Sleep(time.Second)
		if l := s.leader(); l != nil {
			s.collectFrom(l)
		}
	}
}

func (s *sim) collectFrom(l *simRun) {
	from := s.collected()
	records, err := l.read(from)
	if l.dead.Load() {
		return
	}
	if err != nil {
		s.problem("final read at node %d from %d: %v", l.n.id, from, err)
	}
	if len(records) == 0 {
		return
	}
	s.record(s.final(history.OpPoll, records...))
	s.mu.Lock()
	s.read = records[len(records)-1].Offset + 1
	s.mu.Unlock()
}

func (s *sim) collected() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read
}

// read returns the records from an offset to the watermark.
func (r *simRun) read(from int64) (list []history.Record, err error) {
	reader, err := r.p.ReadFrom(from, nil)
	if err != nil {
		return nil, err
	}
	for {
		b, err := reader.TryNext()
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		var rr log.RecordReader
		if err := rr.Reset(b, 0); err != nil {
			return list, err
		}
		for i := int64(0); rr.Next(); i++ {
			v, err := strconv.ParseInt(string(rr.Record().Value), 10, 64)
			if err != nil {
				return list, err
			}
			if o := b.BaseOffset() + i; o >= from {
				list = append(list, history.Record{Offset: o, Value: v})
			}
		}
	}
}

// watch looks all the time at what must hold at every moment: one leader in an epoch, and
// watermarks that do not go back.
func (s *sim) watch() {
	marks := map[*simRun]int64{}
	for s.clients.Err() == nil {
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
				s.mu.Lock()
				who, ok := s.leaders[epoch]
				if !ok {
					s.events = append(s.events, fmt.Sprintf("%v: node %d leads in epoch %d", time.Since(s.start), n.id, epoch))
				}
				s.leaders[epoch] = n.id
				s.mu.Unlock()
				if ok && who != n.id {
					s.problem("nodes %d and %d lead in epoch %d", who, n.id, epoch)
				}
			}
			if mark < marks[r] {
				s.problem("node %d's watermark goes back from %d to %d", n.id, marks[r], mark)
			}
			marks[r] = mark
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// harm breaks something every now and then, and mends other things.
func (s *sim) harm(during time.Duration) {
	for time.Since(s.start) < during {
		time.Sleep(time.Duration(100+s.rng.IntN(1500)) * time.Millisecond)
		s.fault()
	}
}

// fault is one step. At most a minority of the nodes is down or has a bad disk at a time; the network
// may be as bad as it likes.
func (s *sim) fault() {
	n := s.nodes[s.rng.IntN(len(s.nodes))]
	if s.rng.IntN(2) == 0 { // the leader is worth more trouble
		if l := s.leader(); l != nil {
			n = l.n
		}
	}
	a, b := hostName(n.id), hostName(s.nodes[s.rng.IntN(len(s.nodes))].id)
	r := n.run.Load()
	name := ""
	kinds := 15
	if *simReal {
		kinds = 17
	}
	switch s.rng.IntN(kinds) {
	case 0, 1:
		if r != nil && s.down() < s.minority() {
			power := s.rng.IntN(2) == 0
			name = fmt.Sprintf("crash, power %t", power)
			n.crash(power, s.rng.Uint64())
		}
	case 2, 3:
		name = "restart"
		s.restart()
	case 4:
		name = "cut off"
		for _, other := range s.nodes {
			s.net.CutBoth(a, hostName(other.id))
		}
	case 5:
		name = "one-way cut"
		if s.rng.IntN(2) == 0 {
			a, b = b, a
		}
		s.net.Cut(a, b)
	case 6:
		name = "heal"
		s.net.HealAll()
	case 7:
		name = "loss"
		seed := s.rng.Uint64()
		lost := rand.New(rand.NewPCG(seed, 1))
		s.net.Loss(a, b, func() time.Duration {
			if lost.IntN(10) == 0 {
				return 200 * time.Millisecond
			}
			return 0
		})
	case 8:
		name = "delay"
		s.net.Delay(a, b, time.Duration(s.rng.IntN(100))*time.Millisecond)
	case 9:
		name = "reset"
		s.net.Reset(a, b)
	case 10:
		if r == nil || s.down() >= s.minority() {
			break
		}
		if s.rng.IntN(2) == 0 {
			name = "failed sync"
			r.fault.Add(vfs.Rule{Op: vfs.OpDatasync, Effect: vfs.FailSync()})
		} else {
			name = "full disk"
			n.disk.SetCapacity(0)
			time.Sleep(time.Duration(s.rng.IntN(3000)) * time.Millisecond)
			n.disk.SetCapacity(-1)
		}
	case 12:
		if s.rng.IntN(3) == 0 {
			name = "power cut for all"
			for _, n := range s.nodes {
				n.crash(true, s.rng.Uint64())
			}
			s.restart()
		}
	case 13, 14:
		name = "retention"
		if l := s.leader(); l != nil {
			upto := s.collected()
			s.wg.Go(func() {
				ctx, cancel := context.WithTimeout(s.clients, 5*time.Second)
				defer cancel()
				if l.p.LogStart() < upto && upto <= l.p.HighWatermark() {
					l.p.DeleteRecords(ctx, upto)
				}
			})
		}
	case 15:
		name = "slow disk"
		if r != nil {
			d := time.Duration(s.rng.IntN(200)) * time.Millisecond
			r.fault.Add(vfs.Rule{Op: vfs.OpDatasync, Count: 20, Effect: vfs.Call(func() { time.Sleep(d) })})
		}
	case 16:
		if r != nil && s.down() < s.minority() {
			name = "disk hangs"
			r.fault.Add(vfs.Rule{Op: vfs.OpDatasync, Effect: vfs.Call(func() { time.Sleep(2 * time.Second) })})
		}
	case 11:
		switch s.rng.IntN(3) {
		case 0:
			name = "clock"
			n.skew.Store(int64(time.Duration(s.rng.IntN(7200)-3600) * time.Second))
		case 1:
			name = "members"
			s.changeMembers()
		case 2:
			name = "transfer"
			if l := s.leader(); l != nil {
				s.wg.Go(func() {
					ctx, cancel := context.WithTimeout(s.clients, 5*time.Second)
					defer cancel()
					l.g.Transfer(ctx, 0)
				})
			}
		}
	}
	if name != "" {
		s.trace("%s: node %d, %s to %s", name, n.id, a, b)
		s.mu.Lock()
		s.faults[name]++
		s.mu.Unlock()
	}
}

func (s *sim) minority() int { return (len(s.initial) - 1) / 2 }

// down is how many are not there, or have a log that has failed.
func (s *sim) down() (count int) {
	for _, n := range s.nodes {
		if r := n.run.Load(); r == nil || r.p.Err() != nil {
			count++
		}
	}
	return count
}

// restart starts what is down, and again what has failed.
func (s *sim) restart() {
	for _, n := range s.nodes {
		if r := n.run.Load(); r != nil && r.p.Err() != nil {
			n.crash(s.rng.IntN(2) == 0, s.rng.Uint64())
		}
		if n.run.Load() == nil {
			n.disk.SetCapacity(-1)
			if err := n.start(); err != nil {
				s.problem("node %d does not start: %v", n.id, err)
			}
		}
	}
}

// changeMembers asks the leader for other members, of which most are those that were.
func (s *sim) changeMembers() {
	l := s.leader()
	if l == nil || s.spare == 0 {
		return
	}
	var want []int32
	for _, n := range s.nodes {
		want = append(want, n.id)
	}
	if s.rng.IntN(2) == 0 {
		out := s.rng.IntN(len(want))
		want = slices.Delete(want, out, out+1)
	}
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.clients, 15*time.Second)
		defer cancel()
		l.g.SetMembers(ctx, want)
	})
}

// heal ends all faults and starts all nodes.
func (s *sim) heal() {
	s.net.HealAll()
	for _, a := range s.nodes {
		for _, b := range s.nodes {
			s.net.Loss(hostName(a.id), hostName(b.id), nil)
			s.net.Delay(hostName(a.id), hostName(b.id), 0)
		}
		a.skew.Store(0)
		a.disk.SetCapacity(-1)
		if r := a.run.Load(); r != nil {
			r.fault.Clear()
		}
	}
	s.restart()
}

// judge looks at what is left: the replicas are the same, and what clients saw is possible.
func (s *sim) judge(t *testing.T) {
	s.restart() // a sync that failed at the very end
	l, err := s.settle(60 * time.Second)
	if err != nil {
		t.Error(err)
		for _, p := range s.problems {
			t.Error(p)
		}
		return
	}
	if err := s.same(l); err != nil {
		t.Error(err)
	}
	s.collectFrom(l)
	s.record(s.final(history.OpFinal))
	if all, err := l.entries(l.p.Log().FirstCompleteIndex()); err == nil {
		s.trace("the log:\n%.20000s", all)
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
	if sent := report.Figures.Sent.OK; sent < 50 || report.Figures.Polled < sent {
		t.Errorf("%d records were acknowledged and %d read: the run proves little", sent, report.Figures.Polled)
	}
}
