//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"
)

// fault is one kind of harm. do does it, and returns what heals it; nil is nothing.
type fault struct {
	name string
	do   func(h *harness, rnd *rand.Rand) (what string, heal func() error, err error)
}

const slowDisk = "slow disk"

// kinds are all of them.
var kinds = []fault{
	{"kill the leader", func(h *harness, rnd *rand.Rand) (string, func() error, error) {
		n, of := h.leader(rnd)
		err := h.kill(n)
		return fmt.Sprintf("node %d, which leads %s", n, of), func() error { return h.start(n) }, err
	}},
	{"kill all", func(h *harness, rnd *rand.Rand) (string, func() error, error) {
		for n := range h.each() {
			if err := h.kill(n); err != nil {
				return "", nil, err
			}
		}
		return "", func() error {
			for _, n := range rnd.Perm(nodes) {
				if err := h.start(n + 1); err != nil {
					return err
				}
				time.Sleep(time.Duration(rnd.Int64N(int64(time.Second))))
			}
			return nil
		}, nil
	}},
	{"stop the leader", func(h *harness, rnd *rand.Rand) (string, func() error, error) {
		n, of := h.leader(rnd)
		return fmt.Sprintf("SIGSTOP to node %d, which leads %s", n, of), h.pause(n), nil
	}},
	{"stop a node", func(h *harness, rnd *rand.Rand) (string, func() error, error) {
		n := 1 + rnd.IntN(nodes)
		return fmt.Sprintf("SIGSTOP to node %d", n), h.pause(n), nil
	}},
	{"isolate the leader from its peers", func(h *harness, rnd *rand.Rand) (string, func() error, error) {
		n, of := h.leader(rnd)
		heal, err := h.cut(func(s *state) {
			for m := range h.each() {
				s.deaf[n][m], s.deaf[m][n] = m != n, m != n
			}
		}, 0)
		return fmt.Sprintf("node %d, which leads %s", n, of), heal, err
	}},
	{"isolate the leader from all, clients too", func(h *harness, rnd *rand.Rand) (string, func() error, error) {
		n, of := h.leader(rnd)
		heal, err := h.cut(func(s *state) {
			for m := range h.each() {
				s.deaf[n][m], s.deaf[m][n] = m != n, m != n
			}
		}, int32(n))
		return fmt.Sprintf("node %d, which leads %s", n, of), heal, err
	}},
	{"isolate a node from its peers", func(h *harness, rnd *rand.Rand) (string, func() error, error) {
		n := 1 + rnd.IntN(nodes)
		heal, err := h.cut(func(s *state) {
			for m := range h.each() {
				s.deaf[n][m], s.deaf[m][n] = m != n, m != n
			}
		}, 0)
		return fmt.Sprintf("node %d", n), heal, err
	}},
	{"cut one link", func(h *harness, rnd *rand.Rand) (string, func() error, error) {
		a, b := pair(rnd)
		heal, err := h.cut(func(s *state) { s.deaf[a][b], s.deaf[b][a] = true, true }, 0)
		return fmt.Sprintf("nodes %d and %d", a, b), heal, err
	}},
	{"cut one link one way", func(h *harness, rnd *rand.Rand) (string, func() error, error) {
		a, b := pair(rnd)
		heal, err := h.cut(func(s *state) { s.deaf[a][b] = true }, 0)
		return fmt.Sprintf("node %d hears nothing from node %d", a, b), heal, err
	}},
	{"leader hears nobody", func(h *harness, rnd *rand.Rand) (string, func() error, error) {
		n, of := h.leader(rnd)
		heal, err := h.cut(func(s *state) {
			for m := range h.each() {
				s.deaf[n][m] = m != n
			}
		}, 0)
		return fmt.Sprintf("node %d, which leads %s", n, of), heal, err
	}},
	{"nobody hears the leader", func(h *harness, rnd *rand.Rand) (string, func() error, error) {
		n, of := h.leader(rnd)
		heal, err := h.cut(func(s *state) {
			for m := range h.each() {
				s.deaf[m][n] = m != n
			}
		}, 0)
		return fmt.Sprintf("node %d, which leads %s", n, of), heal, err
	}},
	{"30 % loss at one node", func(h *harness, rnd *rand.Rand) (string, func() error, error) {
		n := 1 + rnd.IntN(nodes)
		heal, err := h.lose(n)
		return fmt.Sprintf("node %d", n), heal, err
	}},
	{"30 % loss at all nodes", func(h *harness, _ *rand.Rand) (string, func() error, error) {
		heal, err := h.lose(1, 2, 3)
		return "", heal, err
	}},
	{"full disk", func(h *harness, rnd *rand.Rand) (string, func() error, error) {
		n, of := h.leader(rnd)
		h.change(func(s *state) { s.full[n] = true })
		return fmt.Sprintf("node %d, which leads %s", n, of), func() error {
			err := h.disks[n].free()
			h.change(func(s *state) { s.full[n] = false })
			return err
		}, h.disks[n].fill()
	}},
	{slowDisk, func(h *harness, rnd *rand.Rand) (string, func() error, error) {
		n, of := h.leader(rnd)
		writes := []int{3, 10, 30}[rnd.IntN(3)]
		h.change(func(s *state) { s.slow[n] = true })
		return fmt.Sprintf("%d writes a second on node %d, which leads %s", writes, n, of), func() error {
			err := h.disks[n].slow(0)
			h.change(func(s *state) { s.slow[n] = false })
			return err
		}, h.disks[n].slow(writes)
	}},
}

// pair are two nodes.
func pair(rnd *rand.Rand) (a, b int) {
	list := rnd.Perm(nodes)
	return list[0] + 1, list[1] + 1
}

// deck deals the kinds, each as often as any other.
type deck struct {
	rnd  *rand.Rand
	left []fault
}

func (d *deck) next() fault {
	if len(d.left) == 0 {
		for _, i := range d.rnd.Perm(len(kinds)) {
			d.left = append(d.left, kinds[i])
		}
	}
	f := d.left[0]
	d.left = d.left[1:]
	return f
}

// lasts is how long a fault does, and rests how long it is quiet after it: one begins every
// 5 to 10 s, where none lasts longer.
func lasts(f fault, rnd *rand.Rand) (lasts, rests time.Duration) {
	every := 5*time.Second + time.Duration(rnd.Int64N(int64(5*time.Second)))
	lasts = time.Second + time.Duration(rnd.Int64N(int64(every-time.Second)))
	if f.name == "stop the leader" || f.name == "stop a node" {
		lasts = time.Second + time.Duration(rnd.Int64N(int64(14*time.Second)))
	}
	return lasts, max(every-lasts, time.Second)
}

// done is a fault that was done.
type done struct {
	name, what string
	span
}

// harm does harm until ctx ends, and heals the last one.
func (h *harness) harm(ctx context.Context) error {
	rnd := rand.New(rand.NewPCG(h.seed, 1))
	d := &deck{rnd: rnd}
	for wait(ctx, 2*time.Second); ctx.Err() == nil; {
		f := d.next()
		if h.only != "" && f.name != h.only || f.name == slowDisk && h.noSlow != nil {
			continue
		}
		long, quiet := lasts(f, rnd)
		from := time.Now()
		what, heal, err := f.do(h, rnd)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		h.logf("%-40s %s, for %v", f.name, what, long.Round(100*time.Millisecond))
		wait(ctx, long)
		if err := heal(); err != nil {
			return fmt.Errorf("heal %s: %w", f.name, err)
		}
		h.done = append(h.done, done{f.name, what, span{from, time.Now()}})
		h.logf("healed")
		if err := h.watch(); err != nil {
			return err
		}
		wait(ctx, quiet)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// pause stops a process, and returns what lets it go on.
func (h *harness) pause(n int) (heal func() error) {
	h.change(func(s *state) { s.paused[n] = true })
	h.procs[n].signal(syscall.SIGSTOP)
	return func() error {
		h.procs[n].signal(syscall.SIGCONT)
		h.change(func(s *state) { s.paused[n] = false })
		return nil
	}
}

// cut changes who hears whom; apart is a node that clients do not reach either, 0 none.
func (h *harness) cut(f func(*state), apart int32) (heal func() error, err error) {
	h.change(f)
	return func() error {
		err := h.rules(0)
		if err == nil {
			h.change(func(s *state) { s.deaf = state{}.deaf })
			err = h.rules(0)
		}
		return err
	}, h.rules(apart)
}

// lose has nodes lose packets.
func (h *harness) lose(list ...int) (heal func() error, err error) {
	h.change(func(s *state) {
		for _, n := range list {
			s.lossy[n] = true
		}
	})
	return func() error {
		h.change(func(s *state) { s.lossy = state{}.lossy })
		return h.rules(0)
	}, h.rules(0)
}

// rules tells the kernel what the state says.
func (h *harness) rules(apart int32) error {
	s := h.now()
	for n := range h.each() {
		var deaf []int32
		for m := range h.each() {
			if s.deaf[n][m] {
				deaf = append(deaf, int32(m))
			}
		}
		if int32(n) == apart {
			deaf = append(deaf, client)
		}
		loss := 0
		if s.lossy[n] {
			loss = 30
		}
		if err := h.net.rules(int32(n), deaf, loss); err != nil {
			return err
		}
	}
	return nil
}
