package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/x/embedlog/internal/engine"
)

const (
	firstPause = 50 * time.Millisecond
	longPause  = 2 * time.Second
)

// peer is another node: at most one connection of each flavour with it, whoever dialled.
type peer struct {
	t        *transport
	node     int32
	calls    chan struct{} // a place for each call under way
	installs chan struct{}

	mu    sync.Mutex
	slots [flavours]slot
	told  string // what was logged last
}

// slot is one connection, or what is known about why there is none.
type slot struct {
	link     *link
	last     uint64 // nonce of the last link that was here
	dialling bool
	failures int
	retryAt  time.Time
	err      error
	changed  chan struct{} // closed when a dial ended or a link came
}

func newPeer(t *transport, node int32) *peer {
	p := &peer{t: t, node: node, calls: make(chan struct{}, maxCallsInFlight), installs: make(chan struct{}, maxInstalls)}
	for f := range p.slots {
		p.slots[f].changed = make(chan struct{})
	}
	return p
}

// get is the connection. Without one it dials, and waits for how that ends; soon after a failure it
// says no at once, so that who asks for a dead peer loses no time.
func (p *peer) get(ctx context.Context, f flavour) (*link, error) {
	s := &p.slots[f]
	for tried := false; ; {
		p.mu.Lock()
		if s.link != nil {
			defer p.mu.Unlock()
			return s.link, nil
		}
		if p.t.ctx.Err() != nil {
			p.mu.Unlock()
			return nil, p.unreachable(errClosing)
		}
		if !s.dialling {
			if s.err != nil && (tried || time.Now().Before(s.retryAt)) {
				defer p.mu.Unlock()
				return nil, p.unreachable(s.err)
			}
			if !p.t.run(func() { p.dial(f) }) {
				p.mu.Unlock()
				return nil, p.unreachable(errClosing)
			}
			s.dialling = true
		}
		tried = true
		changed := s.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", p.unreachable(errors.New("no connection yet")), ctx.Err())
		}
	}
}

func (p *peer) unreachable(err error) error {
	return fmt.Errorf("node %d: %w: %w", p.node, engine.ErrPeerUnreachable, err)
}

// dial makes one attempt.
func (p *peer) dial(f flavour) {
	p.mu.Lock()
	last := p.slots[f].last
	p.mu.Unlock()
	l, err := p.t.connect(p, f, last)
	p.mu.Lock()
	s := &p.slots[f]
	s.dialling = false
	if err == nil {
		err = p.settle(s, l)
	}
	lost := err != nil
	switch {
	case !lost:
		s.failures, s.err = 0, nil
	case s.link == nil:
		pause := min(firstPause<<min(s.failures, 10), longPause)
		s.failures++
		s.err = err
		s.retryAt = time.Now().Add(pause/2 + rand.N(pause))
	}
	close(s.changed)
	s.changed = make(chan struct{})
	say := lost && s.link == nil && err.Error() != p.told && !errors.Is(err, errClosing)
	if say {
		p.told = err.Error()
	}
	p.mu.Unlock()
	if say {
		p.t.logger.Warn("peer cannot be reached", "node", p.node, "error", err)
	}
	if lost && l != nil {
		l.fail(err)
	} else if l != nil {
		l.start()
	}
}

// settle puts a link that this node dialled into its slot. Both ends have to come to the same: of
// two connections that were dialled at the same time, the one of the lower node stays.
func (p *peer) settle(s *slot, l *link) error {
	if p.t.ctx.Err() != nil {
		return errClosing
	}
	old := s.link
	if old != nil && old.instance == l.instance && p.t.self > p.node {
		return errLinkReplaced
	}
	p.put(s, l)
	return nil
}

// put has l take the place of what is in the slot.
func (p *peer) put(s *slot, l *link) {
	if old := s.link; old != nil {
		p.t.run(func() { old.fail(errLinkReplaced) })
	}
	s.link, s.last, p.told = l, l.nonce, ""
}

// admit decides about a peer that dialled, and puts its link into the slot before it is told so: the
// welcome may be lost, which the next dial says.
func (p *peer) admit(h *hello, l *link) *welcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.slots[h.flavour]
	old := s.link
	if p.t.ctx.Err() != nil {
		return &welcome{reason: RefusedClosing, words: errClosing.Error()}
	}
	for _, other := range p.slots {
		if o := other.link; o != nil && o.instance == h.instance && o.directory != h.directory {
			return &welcome{reason: RefusedDirectory, words: "it has said another directory id before"}
		}
	}
	// Both dialled, and each has its own; the peer did not have this one yet when it dialled.
	if old != nil && old.dialled && old.instance == h.instance && h.last != old.nonce && p.t.self < p.node {
		return &welcome{reason: RefusedDuplicate, words: "there is a connection that the lower node dialled"}
	}
	p.put(s, l)
	s.failures, s.err = 0, nil
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// lost empties the slot of a link that failed.
func (p *peer) lost(l *link, err error) {
	p.mu.Lock()
	s := &p.slots[l.flavour]
	was := s.link == l
	if was {
		s.link = nil
	}
	p.mu.Unlock()
	if was && !errors.Is(err, errLinkIdle) && p.t.ctx.Err() == nil {
		p.t.logger.Warn("connection lost", "node", p.node, "for", l.flavour.String(), "error", err)
	}
}

// close fails the links. No new ones come after t.ctx ended.
func (p *peer) close() {
	p.mu.Lock()
	var links []*link
	for f := range p.slots {
		if l := p.slots[f].link; l != nil {
			links = append(links, l)
		}
	}
	p.mu.Unlock()
	for _, l := range links {
		l.fail(errClosing)
	}
}
