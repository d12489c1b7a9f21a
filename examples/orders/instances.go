package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// instances are the processes of a shop, numbered from 1 on. Methods may be called from several goroutines, one at a time for an instance.
type instances struct {
	dir   string
	n     int32
	peers map[int32]string // where they find each other; none where there is one
	http  *http.Client
	again atomic.Int64 // requests that were made again

	mu   sync.Mutex
	up   map[int32]*instance
	last int32 // that was asked
}

// newInstances has none of n instances started yet. What they keep is in dir.
func newInstances(dir string, n int32) (*instances, error) {
	s := &instances{dir: dir, n: n, peers: map[int32]string{}, http: &http.Client{Transport: &http.Transport{}}, up: map[int32]*instance{}}
	if n > 1 {
		free, err := freeAddresses(int(n))
		if err != nil {
			return nil, err
		}
		for i, address := range free {
			s.peers[int32(i+1)] = address
		}
	}
	return s, nil
}

// start starts an instance, for the first time or after a kill.
func (s *instances) start(ctx context.Context, node int32) error {
	i, err := startInstance(ctx, instanceConfig{Dir: filepath.Join(s.dir, fmt.Sprint("instance-", node)), Node: node, Peers: s.peers})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up[node] = i
	return nil
}

// startAll starts those that are not there, at once: they wait for each other.
func (s *instances) startAll(ctx context.Context) error {
	var starting sync.WaitGroup
	errs := make([]error, s.n)
	for node := int32(1); node <= s.n; node++ {
		if s.at(node) == nil {
			starting.Go(func() { errs[node-1] = s.start(ctx, node) })
		}
	}
	starting.Wait()
	return errors.Join(errs...)
}

// at is a client of one instance; nil when it is not there.
func (s *instances) at(node int32) *client {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.up[node]; i != nil {
		return &client{s.http, i.address}
	}
	return nil
}

// next is a client of an instance, another one with each call.
func (s *instances) next() *client {
	for range s.n {
		s.mu.Lock()
		s.last = s.last%s.n + 1
		node := s.last
		s.mu.Unlock()
		if c := s.at(node); c != nil {
			return c
		}
	}
	return nil
}

// out takes an instance out of those that are asked.
func (s *instances) out(node int32) *instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.up[node]
	delete(s.up, node)
	return i
}

// kill kills an instance that is there. Whoever waits for its answer gets none.
func (s *instances) kill(node int32) error { return s.out(node).kill() }

// stop has an instance that is there end in good order.
func (s *instances) stop(node int32) error { return s.out(node).end() }

// killAll kills those that are there: what was acknowledged is safe, there is nothing to tidy up.
func (s *instances) killAll() (err error) {
	for node := int32(1); node <= s.n; node++ {
		if i := s.out(node); i != nil {
			err = errors.Join(err, i.kill())
		}
	}
	s.http.CloseIdleConnections()
	return err
}

// ask has an instance do something, any of them. Who gets no answer asks the next one the same: nothing is done twice by that.
func (s *instances) ask(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("%s %s: no answer for %v", method, path, patience))
	defer cancel()
	for {
		err := errors.New("no instance is there")
		if c := s.next(); c != nil {
			var status int
			if status, err = c.ask(ctx, method, path, in, out); err == nil || status != 0 && status != http.StatusServiceUnavailable {
				return err
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
			s.again.Add(1)
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// order posts an order and waits for what becomes of it.
func (s *instances) order(ctx context.Context, o order) (state, error) {
	if err := s.ask(ctx, http.MethodPost, "/v1/orders", o, nil); err != nil {
		return "", fmt.Errorf("order %s: %w", o.ID, err)
	}
	err := s.ask(ctx, http.MethodGet, "/v1/orders/"+o.ID+"/validated"+longest, nil, &o)
	if err != nil {
		return "", fmt.Errorf("order %s: %w", o.ID, err)
	}
	return o.State, nil
}

// pay pays for an order and waits for the mail.
func (s *instances) pay(ctx context.Context, p payment) (m mail, err error) {
	if err = s.ask(ctx, http.MethodPost, "/v1/payments", p, nil); err == nil {
		err = s.ask(ctx, http.MethodGet, "/v1/orders/"+p.Order+"/email"+longest, nil, &m)
	}
	if err != nil {
		err = fmt.Errorf("payment of order %s: %w", p.Order, err)
	}
	return m, err
}

// longest has a long poll wait for as long as ask does.
var longest = fmt.Sprintf("?timeout=%d", patience.Milliseconds())

// busiest is the instance that runs most of the services' tasks.
func (s *instances) busiest(ctx context.Context) (node int32, tasks map[string]int, err error) {
	most := -1
	for i := int32(1); i <= s.n; i++ {
		c := s.at(i)
		if c == nil {
			continue
		}
		var has map[string]int
		if _, err := c.ask(ctx, http.MethodGet, "/v1/instance", nil, &has); err != nil {
			return 0, nil, err
		}
		sum := 0
		for _, n := range has {
			sum += n
		}
		if sum > most {
			most, node, tasks = sum, i, has
		}
	}
	return node, tasks, nil
}

// audited waits until an instance says that everything is done, and right.
func (s *instances) audited(ctx context.Context, node int32) (*audit, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the topics are not right after %v", patience))
	defer cancel()
	for {
		a := new(audit)
		status, err := s.at(node).ask(ctx, http.MethodGet, "/v1/audit", nil, a)
		if err == nil && len(a.Wrong) == 0 || err != nil && status != http.StatusServiceUnavailable {
			return a, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %v, %v", context.Cause(ctx), a.Wrong, err)
		}
	}
}
