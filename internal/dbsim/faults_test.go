package dbsim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/x/embedlog/internal/vfs"
)

// harm breaks something every now and then, and mends other things.
func (s *sim) harm(during time.Duration) {
	for begun := time.Now(); time.Since(begun) < during; {
		time.Sleep(time.Duration(100+s.rng.IntN(2000)) * time.Millisecond)
		s.fault()
	}
}

func (s *sim) minority() int { return (len(s.nodes()) - 1) / 2 }

// fault is one step. At most a minority of the nodes is down or has a bad disk at a time, but for
// a power cut of all; the network may be as bad as it likes.
func (s *sim) fault() {
	alive := s.alive()
	m := alive[s.rng.IntN(len(alive))]
	a, b := host(m.id), host(alive[s.rng.IntN(len(alive))].id)
	p := m.run.Load()
	name := ""
	switch s.rng.IntN(22) {
	case 0, 1:
		if p != nil && s.down() < s.minority() {
			power := s.rng.IntN(2) == 0
			name = fmt.Sprintf("crash, power %t", power)
			s.crash(m, power, s.rng.Uint64())
		}
	case 2, 3:
		name = "restart"
		s.restart()
	case 4:
		name = "cut off"
		for _, other := range s.machines {
			if other != m {
				s.net.CutBoth(a, host(other.id))
			}
		}
	case 5:
		name = "one-way cut"
		s.net.Cut(a, b)
	case 6, 7:
		name = "heal"
		s.net.HealAll()
	case 8:
		name = "loss"
		lost := rand.New(rand.NewPCG(s.rng.Uint64(), 1))
		s.net.Loss(a, b, func() time.Duration {
			if lost.IntN(10) == 0 {
				return 200 * time.Millisecond
			}
			return 0
		})
	case 9:
		name = "delay"
		s.net.Delay(a, b, time.Duration(s.rng.IntN(100))*time.Millisecond)
	case 10:
		name = "reset"
		s.net.Reset(a, b)
	case 11:
		if p == nil || s.down() >= s.minority() {
			break
		}
		if s.rng.IntN(2) == 0 {
			name = "failed sync"
			p.fault.Add(vfs.Rule{Op: vfs.OpDatasync, Effect: vfs.FailSync()})
		} else {
			name = "full disk"
			m.disk.SetCapacity(0)
			time.Sleep(time.Duration(s.rng.IntN(3000)) * time.Millisecond)
			m.disk.SetCapacity(-1)
		}
	case 17, 18:
		if p == nil {
			break
		}
		if during := time.Duration(s.rng.IntN(4000)) * time.Millisecond; s.rng.IntN(2) == 0 {
			name = "slow disk"
			p.slow.set(during, time.Duration(s.rng.IntN(200))*time.Millisecond)
		} else {
			name = "disk hangs"
			p.slow.set(during, during)
		}
	case 19:
		if s.plan.weak {
			name = s.recover(s.rng.IntN(4) == 0)
		}
	case 20, 21:
		if s.plan.reshape {
			name = s.reshape()
		}
	case 13, 14, 15, 16:
		name = s.move()
	case 12:
		switch s.rng.IntN(4) {
		case 0:
			name = "power cut for all"
			for _, m := range alive {
				s.crash(m, true, s.rng.Uint64())
			}
			s.restart()
		case 1:
			name = "clock"
			m.skew = time.Duration(s.rng.IntN(7200)-3600) * time.Second // at its next start
		case 2:
			name = "stop"
			if p != nil && s.down() < s.minority() {
				s.wg.Go(func() {
					if err := s.stop(m); err != nil {
						s.note("stop", err)
					}
				})
			}
		}
	}
	if name != "" {
		s.trace("%s: node %d, %s to %s", name, m.id, a, b)
		s.mu.Lock()
		s.faults[name]++
		s.mu.Unlock()
	}
}

func (s *sim) note(what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes[fmt.Sprintf("%s: %.160v", what, err)]++
}

// restart starts what is down, and again what has failed.
func (s *sim) restart() {
	for _, m := range s.alive() {
		if p := m.run.Load(); p != nil && p.failed() {
			s.crash(m, s.rng.IntN(2) == 0, s.rng.Uint64())
		}
		if m.run.Load() == nil && !m.busy.Load() {
			m.disk.SetCapacity(-1)
			if err := s.cluster.start(m); err != nil {
				s.problem("node %d does not start: %v", m.id, err)
			}
		}
		if m.lost.Load() { // it was decided meanwhile
			s.stop(m)
		}
	}
}

// heal ends all faults and starts all nodes.
func (s *sim) heal() {
	s.trace("all is healed")
	s.net.HealAll()
	for _, a := range s.machines {
		for _, b := range s.machines {
			s.net.Loss(host(a.id), host(b.id), nil)
			s.net.Delay(host(a.id), host(b.id), 0)
		}
		a.disk.SetCapacity(-1)
		if p := a.run.Load(); p != nil {
			p.fault.Clear()
			p.slow.set(0, 0)
		}
	}
	for _, m := range s.machines {
		for m.busy.Load() {
			time.Sleep(100 * time.Millisecond)
		}
	}
	s.restart()
}
