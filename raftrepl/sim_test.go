package raftrepl

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/history"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/log"
)

// The simulation: clients append and read while what runs the cluster breaks, in virtual time.
//
//	go test -run TestSimulation ./raftrepl                          a dozen seeds
//	go test -run TestSimulation ./raftrepl -sim.seed 4711           one of them again
//	go test -run TestSimulation ./raftrepl -sim.runs 1000 -timeout 0 -sim.results FILE
//
// The last one adds what it did to the file, and goes on behind the seeds that are there already.
//
// A seed decides about faults and their times. What goroutines do between two of them is the
// scheduler's choice, so a seed that failed may have to run some times to fail again.
//
//	sim_test.go         a run                     simclients_test.go  who appends and reads
//	simplan_test.go     what a seed decides       simfaults_test.go   what breaks
//	simnode_test.go     machines and processes    simcheck_test.go    what must hold
//	simwire_test.go     messages                  simtotals_test.go   what many runs come to
var (
	simSeed  = flag.Uint64("sim.seed", 0, "run one seed of the simulation")
	simFrom  = flag.Uint64("sim.from", 0, "the first seed; 0 is 1, or the next one of the results")
	simRuns  = flag.Int("sim.runs", 0, "how many seeds; 0 is a few")
	simFor   = flag.Duration("sim.for", 0, "begin no seed after so long, whatever -sim.runs says")
	simTime  = flag.Duration("sim.time", 10*time.Second, "how long faults go on, in virtual time at the fast timing")
	simShow  = flag.Bool("sim.trace", false, "say what happened in a run that failed")
	simMore  = flag.String("sim.more", "", "a fault that happens as often as all others together")
	simOnly  = flag.String("sim.level", "", "the level of all runs: durable, interval or os")
	simShort = flag.Bool("sim.short", false, "messages of a few entries in three runs of four")
	simReal  = flag.Bool("sim.real", false, "in real time")
)

func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		simulate(t, *simSeed, &simTotals{})
		return
	}
	runs := *simRuns
	if runs == 0 {
		runs = testcount.N(12)
	}
	from := simFirst(t)
	all := &simTotals{From: from}
	began := time.Now()
	for i := range uint64(runs) {
		if *simFor > 0 && time.Since(began) > *simFor {
			break
		}
		seed := from + i
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) { simulate(t, seed, all) })
		if t.Failed() {
			all.save(t)
			t.Fatalf("seed %d failed: go test -run TestSimulation ./raftrepl -sim.seed %d; to go on behind it -sim.from %d", seed, seed, seed+1)
		}
		if all.Seeds >= 100 {
			all.save(t)
			all = &simTotals{From: seed + 1}
		}
	}
	all.save(t)
}

var simKey = history.Key{Topic: "sim", Partition: 1}

// sim is one run.
type sim struct {
	*simCluster
	plan    simPlan
	rng     *rand.Rand
	start   time.Time
	clients context.Context
	wg      sync.WaitGroup
	echoes  sync.WaitGroup // messages that come again

	contested atomic.Pointer[contest] // nil is none
	lateVotes atomic.Pointer[lateVotes]

	value    atomic.Int64 // the last one sent
	appended atomic.Int64 // how many appends were acknowledged
	promised atomic.Int64 // offset behind the last record that was acknowledged

	mu       sync.Mutex
	ops      history.History
	leaders  map[uint64]int32 // by epoch
	read     int64            // up to there the final read has come
	problems []string
	events   []string // what happened, for -sim.trace
	faults   map[string]int
	counts   map[string]int64
	ledger   map[uint64]simEntry // what is committed
	dying    sync.Mutex          // held by who decides that a process ends
}

func simulate(t *testing.T, seed uint64, totals *simTotals) {
	in := synctest.Test
	if *simReal {
		in = func(t *testing.T, f func(*testing.T)) { f(t) }
	}
	in(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 0x51))
		plan := planOf(rng)
		s := &sim{simCluster: newSimCluster(t, plan.members, plan.members+plan.spare), plan: plan, rng: rng, start: time.Now(),
			leaders: map[uint64]int32{}, faults: map[string]int{}, counts: map[string]int64{}, ledger: map[uint64]simEntry{}}
		s.timing, s.level = plan.timing, plan.level
		s.opened = s.prepare
		defer s.echoes.Wait()
		defer s.close()
		for _, n := range s.nodes {
			if err := n.start(); err != nil {
				t.Fatalf("node %d: %v", n.id, err)
			}
		}
		var stop context.CancelFunc
		s.clients, stop = context.WithCancel(context.Background())
		client := func(n int, f func(process int32, rng *rand.Rand)) {
			rng := rand.New(rand.NewPCG(seed, uint64(n)))
			s.wg.Go(func() { f(int32(n), rng) })
		}
		for i := range 3 {
			client(1+i, s.produce)
		}
		if plan.txns {
			client(50, s.transact)
			client(51, s.transact)
		}
		client(100, s.poll)
		client(101, s.poll)
		client(200, s.confirm)
		watching, unwatch := context.WithCancel(context.Background())
		var watch sync.WaitGroup
		watch.Go(func() { s.watch(watching) })
		s.wg.Go(s.collect)
		s.record(s.final(history.OpAssign))
		s.harm(s.scaled(*simTime))
		s.heal()
		s.goesOn()
		time.Sleep(s.scaled(3 * time.Second)) // clients go on for a while
		stop()
		s.wg.Wait()
		s.judge(t)
		unwatch()
		watch.Wait()
		s.report(t)
		if t.Failed() {
			for _, e := range s.events {
				t.Log(e)
			}
			t.Logf("seed %d: %v, faults %v", seed, plan, s.faults)
			return
		}
		totals.add(s)
	})
}

// prepare makes a process part of the simulation before its group begins.
func (s *sim) prepare(r *simRun) {
	w := &simWire{Transport: r.g.gate.trans, s: s, r: r, rng: rand.New(rand.NewPCG(uint64(r.n.id), uint64(time.Since(s.start))))}
	if s.plan.odd {
		w.odd.Store(20)
	}
	r.wire = w
	r.g.gate.trans = w
	r.g.stall = r.slow.wait
	r.g.pipelineFrom = 1 // there is little to send
	if s.plan.short > 0 {
		r.g.messageEntries = s.plan.short
	}
}

// scaled is a time as it would be at the fast timing.
func (s *sim) scaled(d time.Duration) time.Duration { return time.Duration(float64(d) * s.plan.scale) }

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

func (s *sim) count(what string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[what] += n
}

func (s *sim) record(op history.Op) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ops = append(s.ops, op)
}

func (s *sim) nano() int64 { return int64(time.Since(s.start)) + 1 }

// weak says whether what is acknowledged may be on no disk.
func (s *sim) weak() bool { return s.plan.level != log.Durable }
