package dbsim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/x/embedlog"
)

// reshape adds a node, removes one, or replaces one whose machine is gone for good, as an administrator does: in the
// background, one change after the other, each until it is done.
func (s *sim) reshape() (name string) {
	var spare *machine
	for _, m := range s.machines {
		if m.part.Load() == isSpare && !m.lost.Load() {
			spare = m
			break
		}
	}
	alive := s.alive()
	victim := alive[s.rng.IntN(len(alive))]
	if s.drained != 0 || !s.reshaping.CompareAndSwap(false, true) {
		return ""
	}
	rnd := rand.New(rand.NewPCG(s.rng.Uint64(), 2))
	change := func(f func(rnd *rand.Rand) error) {
		s.changes.Go(func() {
			defer s.reshaping.Store(false)
			if err := f(rnd); err != nil {
				s.problem("%s: %v", name, err)
			} else {
				s.trace("%s: done", name)
			}
		})
	}
	switch kind := s.rng.IntN(4); {
	case kind < 2 && spare != nil && s.down() < s.minority() && !s.few: // else a majority may be lost with it
		name = fmt.Sprintf("node %d is gone for good, and replaced by %d", victim.id, spare.id)
		victim.lost.Store(true)
		s.crash(victim, true, s.rng.Uint64())
		change(func(rnd *rand.Rand) error { return errors.Join(s.add(rnd, spare), s.remove(rnd, victim)) })
		s.happened("node replaced")
	case kind == 2 && spare != nil:
		name = fmt.Sprintf("node %d is added", spare.id)
		change(func(rnd *rand.Rand) error { return s.add(rnd, spare) })
		s.happened("node added")
	case kind == 3 && len(alive) > 3:
		name = fmt.Sprintf("node %d is removed", victim.id)
		change(func(rnd *rand.Rand) error { return s.remove(rnd, victim) })
		s.happened("node removed")
	default:
		s.reshaping.Store(false)
	}
	return name
}

func (s *sim) happened(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[name]++
}

// insist asks one node after the other, until it is done.
func (s *sim) insist(rnd *rand.Rand, what string, f func(ctx context.Context, c *embedlog.Cluster) error) (err error) {
	for begun := time.Now(); time.Since(begun) < *dbTime+3*time.Minute; time.Sleep(500 * time.Millisecond) {
		p := s.running(rnd)
		if p == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(p.life, 15*time.Second)
		err = f(ctx, p.db.Cluster())
		cancel()
		if err == nil && !p.dead.Load() {
			return nil
		}
		s.note(what, err)
		s.trace("%s at node %d: %v", what, p.m.id, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// add makes a machine with an empty disk a node. It may be started before it is let in.
func (s *sim) add(rnd *rand.Rand, m *machine) error {
	alive := s.alive()
	m.join = address(alive[rnd.IntN(len(alive))].id)
	late := rnd.IntN(2) == 0
	if !late {
		if err := s.cluster.start(m); err != nil {
			return err
		}
	}
	err := s.insist(rnd, "add a node", func(ctx context.Context, c *embedlog.Cluster) error {
		return c.AddNode(ctx, m.id, address(m.id))
	})
	if err != nil {
		return err
	}
	if late {
		if err := s.cluster.start(m); err != nil {
			return err
		}
	}
	err = s.insist(rnd, "be let in", func(ctx context.Context, _ *embedlog.Cluster) error {
		p := m.run.Load()
		if p.failed() {
			return errors.New("its log has failed")
		}
		for _, n := range p.db.Cluster().Nodes() {
			if n.ID == m.id && !n.Directory.IsZero() {
				_, err := p.db.Topic(copiedTopic)
				return err
			}
		}
		return fmt.Errorf("it is not registered: %+v", p.db.Cluster().Status()[0])
	})
	if err != nil {
		return err
	}
	m.part.Store(isNode)
	return nil
}

// remove gives a node's replicas to others, waits until it has none, and has it forgotten. One that lives ends before
// or after that.
func (s *sim) remove(rnd *rand.Rand, m *machine) error {
	m.leaving.Store(true)
	err := s.insist(rnd, "drain a node", func(ctx context.Context, c *embedlog.Cluster) error {
		if err := c.DrainNode(ctx, m.id); err != nil && !errors.Is(err, embedlog.ErrUnknownNode) {
			return err
		}
		for _, st := range c.AskStatus(ctx) {
			if st.Topic == "" {
				continue
			}
			is := slices.Contains(st.Replicas, m.id)
			for _, member := range st.Members {
				is = is || member.Node == m.id
			}
			if is || st.Leader < 1 {
				return fmt.Errorf("node %d has a replica: %+v", m.id, st)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	first := rnd.IntN(2) == 0
	if first {
		m.lost.Store(true)
		s.end(m)
	}
	err = s.insist(rnd, "remove a node", func(ctx context.Context, c *embedlog.Cluster) error {
		if err := c.RemoveNode(ctx, m.id); err != nil && !errors.Is(err, embedlog.ErrUnknownNode) {
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.part.Store(wasNode)
	m.lost.Store(true)
	s.end(m)
	return nil
}

// end ends a node for good.
func (s *sim) end(m *machine) {
	if err := s.stop(m); err != nil {
		s.note("end of a node", err)
	}
}

// reshaped waits until nodes have come and gone. Partitions that wait for a person get one.
func (s *sim) reshaped() {
	done := make(chan struct{})
	s.wg.Go(func() {
		s.changes.Wait()
		close(done)
	})
	for {
		select {
		case <-done:
			return
		case <-time.After(time.Second):
			s.restart()
			if s.plan.weak {
				s.recover(true)
			}
		}
	}
}
