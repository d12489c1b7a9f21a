package takeover

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/query"
	"github.com/x/embedlog/raftrepl"
)

var (
	oneSeed = flag.Uint64("takeover.seed", 0, "run one seed of the simulation")
	from    = flag.Uint64("takeover.from", 1, "the first seed")
	runs    = flag.Int("takeover.runs", 0, "how many seeds; 0 is a few")
	during  = flag.Duration("takeover.for", 0, "begin no seed after so long, whatever -takeover.runs says")
	show    = flag.Bool("takeover.trace", false, "say what happened in a run that failed")
)

// Whoever owns a view dies in the middle of a load, again and again. Nothing is lost and nothing counts twice, and every node answers.
func TestSimulation(t *testing.T) {
	if *oneSeed != 0 {
		simulate(t, *oneSeed)
		return
	}
	n := *runs
	if n == 0 {
		n = testcount.N(3)
	}
	began := time.Now()
	for i := range uint64(n) {
		if *during > 0 && time.Since(began) > *during {
			break
		}
		seed := *from + i
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) { simulate(t, seed) })
		if t.Failed() {
			t.Fatalf("seed %d failed: go test ./internal/takeover -run Simulation -takeover.seed %d", seed, seed)
		}
	}
}

// sim is one run.
type sim struct {
	*cluster
	t     *testing.T
	rnd   *rand.Rand // of what breaks
	seed  uint64
	start time.Time
	load  context.Context // ends when nobody is to begin anything any more

	mu       sync.Mutex
	problems []string
	events   []string
	acked    map[int64]string // numbers, and their keys
	gets     int
	slowest  time.Duration // of a read
}

func simulate(t *testing.T, seed uint64) {
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(seed, 0x7a))
		timing := raftrepl.FastTiming
		if rnd.IntN(4) == 0 {
			timing = raftrepl.DefaultTiming
		}
		s := &sim{cluster: newCluster(3, timing), t: t, rnd: rnd, seed: seed, start: time.Now(), acked: map[int64]string{}}
		defer func() {
			if err := s.close(); err != nil {
				t.Errorf("close: %v", err)
			}
			for _, p := range s.problems {
				t.Error(p)
			}
			if t.Failed() {
				for _, e := range s.events {
					t.Log(e)
				}
			}
		}()
		for _, a := range s.machines { // so that standbys are behind, each another time
			for _, b := range s.machines {
				s.net.Delay(host(a.id), host(b.id), time.Duration(s.rnd.IntN(20))*time.Millisecond)
			}
		}
		for _, m := range s.machines {
			if err := s.cluster.start(m); err != nil {
				t.Fatalf("node %d: %v", m.id, err)
			}
		}
		s.until("graphs run everywhere", s.running)
		load, stop := context.WithCancel(context.Background())
		defer stop()
		s.load = load
		var clients sync.WaitGroup
		for key := range keys {
			clients.Go(func() { s.client(key) })
		}
		for range 2 + s.rnd.IntN(4) {
			time.Sleep(time.Duration(200+s.rnd.IntN(3000)) * time.Millisecond)
			s.fault()
		}
		s.heal()
		stop()
		clients.Wait()
		s.judge("after all faults")
		// Those that were killed take over again.
		for _, m := range s.machines {
			s.hand("flat", int32(s.rnd.IntN(2)), m.id)
			s.hand("deep", int32(s.rnd.IntN(4)), m.id)
			s.judge(fmt.Sprint("with tasks at node ", m.id))
		}
		if s.gets < 20 {
			t.Errorf("%d reads were answered: the load was none", s.gets)
		}
		t.Logf("%d records, %d reads, the slowest took %v", len(s.acked), s.gets, s.slowest)
	})
}

func (s *sim) trace(format string, args ...any) {
	if *show {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, fmt.Sprintf("%v: ", time.Since(s.start))+fmt.Sprintf(format, args...))
	}
}

func (s *sim) problem(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.problems) < 20 {
		s.problems = append(s.problems, fmt.Sprintf("%v: ", time.Since(s.start))+fmt.Sprintf(format, args...))
	}
}

// until waits for something, for minutes of virtual time at most.
func (s *sim) until(what string, f func() error) {
	s.t.Helper()
	var err error
	for began := time.Now(); time.Since(began) < 3*time.Minute; time.Sleep(50 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
		if errors.Is(err, errWrong) {
			break
		}
	}
	for _, p := range s.up() {
		for _, l := range p.db.Cluster().Status() {
			s.t.Logf("node %d: %+v", p.m.id, l)
		}
	}
	s.t.Fatalf("%s: %v", what, err)
}

func (s *sim) running() error {
	for _, m := range s.machines {
		if p := m.run.Load(); p == nil || p.g.Load() == nil {
			return fmt.Errorf("node %d does not run its graphs", m.id)
		}
	}
	return nil
}

// client appends records of one key, at nodes of chance, and reads them at others. Nobody else has the key, so that he knows what its row
// can be: all that was acknowledged, some of those of which he was not told, and never less than he saw before.
func (s *sim) client(key int) {
	rnd := rand.New(rand.NewPCG(s.seed, uint64(key)))
	var least, most int64
	for n := int64(key); s.load.Err() == nil; {
		time.Sleep(time.Duration(rnd.IntN(60)) * time.Millisecond)
		p := s.one(rnd)
		if p == nil {
			continue
		}
		g := p.g.Load()
		ctx, cancel := context.WithTimeout(p.life, 20*time.Second)
		if rnd.IntN(3) > 0 {
			n += keys
			most += n
			_, err := g.orders.Produce(ctx, embedlog.Record{Key: []byte(keyOf(key)), Value: encoded(n)})
			if err == nil && !p.dead.Load() {
				least += n
				s.mu.Lock()
				s.acked[n] = keyOf(key)
				s.mu.Unlock()
			}
			cancel()
			continue
		}
		began := time.Now()
		v, _, err := g.byKey.Get(ctx, keyOf(key))
		took := time.Since(began)
		cancel()
		if p.life.Err() != nil { // it was killed, or closed
			continue
		}
		s.mu.Lock()
		if err == nil {
			s.gets++
			s.slowest = max(s.slowest, took)
		}
		s.mu.Unlock()
		switch {
		case err != nil && !again(err) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, query.ErrClosed):
			s.problem("get %s at node %d after %v: %v", keyOf(key), p.m.id, took, err)
		case err == nil && (v < least || v > most):
			s.problem("get %s at node %d: %d, and it is at least %d and at most %d", keyOf(key), p.m.id, v, least, most)
		case err == nil:
			least = v
		}
	}
}

// one is a process whose graphs run.
func (s *sim) one(rnd *rand.Rand) *process {
	var list []*process
	for _, p := range s.up() {
		if p.g.Load() != nil {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[rnd.IntN(len(list))]
}

// owner is the machine that has a task, as far as a node knows.
func (s *sim) owner() *machine {
	graph, tasks := "flat", int32(2)
	if s.rnd.IntN(2) == 0 {
		graph, tasks = "deep", 4
	}
	task := s.rnd.Int32N(tasks)
	for _, p := range s.up() {
		if node := owner(p.db, graph, task); node > 0 {
			return s.machines[node-1]
		}
	}
	return s.machines[s.rnd.IntN(len(s.machines))]
}

// fault does something to whoever owns a task.
func (s *sim) fault() {
	m := s.owner()
	down := len(s.machines) - len(s.up())
	switch k := s.rnd.IntN(8); {
	case k < 4: // it dies, and comes back
		if down > 0 {
			s.restart()
		}
		power := s.rnd.IntN(3) > 0
		s.trace("node %d dies, power %v", m.id, power)
		s.crash(m, power, s.rnd.Uint64())
		if s.rnd.IntN(2) == 0 {
			time.Sleep(time.Duration(s.rnd.IntN(4000)) * time.Millisecond)
			s.restart()
		}
	case k < 6: // it believes that it owns, for a while
		s.trace("node %d is cut off", m.id)
		for _, other := range s.machines {
			if other != m {
				s.net.CutBoth(host(m.id), host(other.id))
			}
		}
		time.Sleep(time.Duration(s.rnd.IntN(5000)) * time.Millisecond)
		s.trace("all are connected")
		s.net.HealAll()
	case k < 7: // the task moves, and comes back at once
		other := s.machines[s.rnd.IntN(len(s.machines))]
		s.trace("tasks of node %d go to node %d", m.id, other.id)
		for task := range int32(2) {
			s.lead("flat", task, other.id)
			s.lead("deep", task, other.id)
		}
		time.Sleep(time.Duration(s.rnd.IntN(200)) * time.Millisecond)
		for task := range int32(2) {
			s.lead("flat", task, m.id)
			s.lead("deep", task, m.id)
		}
	default: // it closes its database, and opens it again
		if down > 0 {
			s.restart()
		}
		s.trace("node %d is closed", m.id)
		if err := s.stop(m); err != nil {
			s.trace("close of node %d: %v", m.id, err) // of the last commit
		}
		s.restart()
	}
}

// lead has a node lead a partition, if it can. It is asked of nobody who is down: the library waits for such a one, without taking records, for ever
// if it loses the leadership meanwhile.
func (s *sim) lead(graph string, task, node int32) error {
	if s.machines[node-1].run.Load() == nil {
		return fmt.Errorf("node %d is down", node)
	}
	var err error
	for _, p := range s.up() {
		ctx, cancel := context.WithTimeout(p.life, 2*time.Second)
		err = p.db.Cluster().TransferLeadership(ctx, graph+"-progress", task, node)
		cancel()
		if err == nil {
			return nil
		}
	}
	return err
}

func (s *sim) restart() {
	for _, m := range s.machines {
		if m.run.Load() == nil {
			s.trace("node %d starts", m.id)
			if err := s.cluster.start(m); err != nil {
				s.problem("node %d does not start: %v", m.id, err)
			}
		}
	}
}

func (s *sim) heal() {
	s.trace("all is healed")
	s.net.HealAll()
	s.restart()
	s.until("graphs run everywhere again", s.running)
}

// hand gives a task to a node.
func (s *sim) hand(graph string, task, node int32) {
	s.until(fmt.Sprintf("task %d of %s goes to node %d", task, graph, node), func() error {
		for _, p := range s.up() {
			if owner(p.db, graph, task) != node {
				return errors.Join(fmt.Errorf("node %d does not know", p.m.id), s.lead(graph, task, node))
			}
		}
		return nil
	})
}

// judge compares what every node answers with what the log has.
func (s *sim) judge(when string) {
	s.t.Helper()
	var want *truth
	s.until(when+": the log is read", func() (err error) {
		want, err = read(s.t.Context(), s.machines[0].run.Load().g.Load().orders)
		return err
	})
	for n, key := range s.acked {
		if want.times[n] != 1 {
			s.problem("%s: %d of %s was acknowledged, and is there %d times", when, n, key, want.times[n])
		}
	}
	for _, m := range s.machines {
		p := m.run.Load()
		s.until(fmt.Sprintf("%s: node %d answers", when, m.id), func() error {
			ctx, cancel := context.WithTimeout(p.life, time.Minute)
			defer cancel()
			if err := errors.Join(p.g.Load().flat.Err(), p.g.Load().deep.Err()); err != nil {
				return fmt.Errorf("%w: %w", errWrong, err)
			}
			return p.g.Load().compare(ctx, want)
		})
	}
	s.until(when+": all is appended", func() error {
		got, err := read(s.t.Context(), s.machines[1].run.Load().g.Load().out)
		if err != nil {
			return err
		}
		return got.appendedOf(want)
	})
}
