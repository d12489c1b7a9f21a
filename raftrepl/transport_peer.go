package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/x/embedlog/internal/engine"
)

const (
	firstRedial = 50 * time.Millisecond
	lastRedial  = 500 * time.Millisecond
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
	gone  bool   // its process has ended: see transport.gone
	// The newest run of the node that was met.
	directory      engine.TopicID
	boot, instance uint64
}

// slot is one connection, or what is known about why there is none.
type slot struct {
	wire     *wire
	last     uint64 // nonce of the last wire that was here
	dialling bool
	wanted   bool // somebody has asked in vain since the last dial
	failures int
	retryAt  time.Time
	err      error
	changed  chan struct{} // closed when a dial ended or a wire came
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
func (p *peer) get(ctx context.Context, f flavour) (*wire, error) {
	s := &p.slots[f]
	for tried := false; ; {
		p.mu.Lock()
		if s.wire != nil {
			defer p.mu.Unlock()
			return s.wire, nil
		}
		if p.t.ctx.Err() != nil {
			p.mu.Unlock()
			return nil, p.unreachable(errClosing)
		}
		if !s.dialling {
			if s.err != nil && (tried || time.Now().Before(s.retryAt)) {
				s.wanted = true
				defer p.mu.Unlock()
				return nil, p.unreachable(s.err)
			}
			if !p.t.run(func() { p.dial(f) }) {
				p.mu.Unlock()
				return nil, p.unreachable(errClosing)
			}
			s.dialling, s.wanted = true, false
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
	case s.wire == nil:
		pause := min(firstRedial<<min(s.failures, 10), lastRedial)
		s.failures++
		s.err = err
		pause = pause/2 + rand.N(pause/2)
		s.retryAt = time.Now().Add(pause)
		p.t.run(func() { p.redial(f, pause) })
	}
	close(s.changed)
	s.changed = make(chan struct{})
	say := lost && s.wire == nil && err.Error() != p.told && !errors.Is(err, errClosing)
	if say {
		p.told = err.Error()
	}
	left := err != nil && s.wire == nil && s.last != 0 && f == flavourMain && !p.gone && errors.Is(err, syscall.ECONNREFUSED)
	p.gone = p.gone || left
	p.mu.Unlock()
	if left {
		p.t.left(p.node)
	}
	if say {
		p.t.logger.Warn("peer cannot be reached", "node", p.node, "error", err)
	}
	if lost && l != nil {
		l.fail(err)
	} else if l != nil {
		l.start()
	}
}

// redial dials again after a pause, where somebody has asked meanwhile: those who do ask seldom.
func (p *peer) redial(f flavour, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.t.ctx.Done():
		return
	}
	p.mu.Lock()
	wanted := p.slots[f].wanted
	p.mu.Unlock()
	if wanted {
		p.get(p.t.ctx, f)
	}
}

// settle puts a wire that this node dialled into its slot. Both ends have to come to the same: of
// two connections that were dialled at the same time, the one of the lower node stays.
func (p *peer) settle(s *slot, l *wire) error {
	if p.t.ctx.Err() != nil {
		return errClosing
	}
	old := s.wire
	if old != nil && old.instance == l.instance && p.t.self > p.node {
		return errWireReplaced
	}
	p.put(s, l, old != nil && old.instance == l.instance)
	return nil
}

// put has l take the place of what is in the slot. What is under way on a connection that both ends
// had may end within a while: it was not its fault.
func (p *peer) put(s *slot, l *wire, drain bool) {
	if old := s.wire; old != nil {
		p.t.run(func() {
			if drain {
				select {
				case <-time.After(p.t.election):
				case <-old.done:
				case <-p.t.ctx.Done():
				}
			}
			old.fail(errWireReplaced)
		})
	}
	s.wire, s.last, p.told, p.gone = l, l.nonce, "", false
	if l.flavour == flavourMain {
		p.t.run(func() { p.t.met(p.node) })
	}
}

// admit decides about a peer that dialled, and puts its wire into the slot before it is told so: the
// welcome may be lost, which the next dial says.
func (p *peer) admit(h *hello, l *wire) *welcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.slots[h.flavour]
	old := s.wire
	if p.t.ctx.Err() != nil {
		return &welcome{reason: RefusedClosing, words: errClosing.Error()}
	}
	if why := p.remember(h.directory, h.boot, h.instance); why != "" {
		return &welcome{reason: RefusedDirectory, words: why}
	}
	// Both dialled, and each has its own; the peer did not have this one yet when it dialled.
	if old != nil && old.dialled && old.instance == h.instance && h.last != old.nonce && p.t.self < p.node {
		return &welcome{reason: RefusedDuplicate, words: "there is a connection that the lower node dialled"}
	}
	p.put(s, l, old != nil && old.instance == h.instance && h.last != old.nonce)
	s.failures, s.err = 0, nil
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// remember compares a run of the node with those that were met before, and says why it cannot be one:
// a copy of the directory that runs beside it, or an older state of it. mu is held.
func (p *peer) remember(directory engine.TopicID, boot, instance uint64) string {
	if p.directory != directory && !p.directory.IsZero() {
		for f := range p.slots {
			if p.slots[f].wire != nil {
				return fmt.Sprintf("node %d is here with directory %s, this one is %s", p.node, p.directory, directory)
			}
		}
		p.boot, p.instance = 0, 0
	}
	if boot < p.boot {
		return fmt.Sprintf("node %d has been started %d times, this one %d times: it is a copy or was restored", p.node, p.boot, boot)
	}
	if boot == p.boot && boot > 0 && instance != p.instance {
		return fmt.Sprintf("node %d runs twice: one of the two is a copy", p.node)
	}
	// A copy of a running node's directory counts one start more than the node. Who has just been heard lives, and its directory is
	// locked. The connections of a process that was killed end with it; those of a machine that lost power do not, but are silent,
	// and the node is let in when it dials again.
	if boot > p.boot && p.boot > 0 && directory == p.directory {
		for f := range p.slots {
			if old := p.slots[f].wire; old != nil && old.instance == p.instance && old.silence() < p.t.election {
				return fmt.Sprintf("node %d runs, and was heard %v ago: this is a copy of its directory", p.node, old.silence().Round(time.Millisecond))
			}
		}
	}
	p.directory, p.boot, p.instance = directory, boot, instance
	return ""
}

// lost empties the slot of a wire that failed.
func (p *peer) lost(l *wire, err error) {
	p.mu.Lock()
	s := &p.slots[l.flavour]
	was := s.wire == l
	if was {
		s.wire = nil
	}
	p.mu.Unlock()
	if was && !errors.Is(err, errWireIdle) && p.t.ctx.Err() == nil {
		p.t.logger.Warn("connection lost", "node", p.node, "for", l.flavour.String(), "error", err)
		if l.flavour == flavourMain && time.Since(l.made) > 2*lastRedial {
			p.t.greet(p.node) // to know soon whether anybody is there; not for ever, where connections end at once
		}
	}
}

// gone says whether a node's process has ended: there was a connection with it, and where it listened
// the machine says that nobody does. Who is silent, or whose machine is, is not known to be gone.
func (t *transport) gone(node int32) bool {
	t.mu.Lock()
	p := t.peers[node]
	t.mu.Unlock()
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gone
}

// left tells the groups that a node's process has ended, met that there is a connection with it.
func (t *transport) left(node int32) { t.tell(node, func(h *groupHooks) func(int32) { return h.left }) }
func (t *transport) met(node int32)  { t.tell(node, func(h *groupHooks) func(int32) { return h.met }) }

func (t *transport) tell(node int32, hook func(*groupHooks) func(int32)) {
	t.mu.Lock()
	var list []func(int32)
	for _, g := range t.groups {
		if f := hook(&g.hooks); f != nil {
			list = append(list, f)
		}
	}
	t.mu.Unlock()
	for _, f := range list {
		f(node)
	}
}

// close fails the links. No new ones come after t.ctx ended.
func (p *peer) close() {
	p.mu.Lock()
	var links []*wire
	for f := range p.slots {
		if l := p.slots[f].wire; l != nil {
			links = append(links, l)
		}
	}
	p.mu.Unlock()
	for _, l := range links {
		l.fail(errClosing)
	}
}
