package simnet

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// DefaultBuffer is how many bytes of one direction of a connection are on their way
// before Write waits.
const DefaultBuffer = 256 << 10

// Net is the network. The zero delay and no limit hold between hosts of which nothing
// else was said.
type Net struct {
	mu        sync.Mutex
	changed   *sync.Cond // a path, a listener or the network itself
	listeners map[string]*Listener
	paths     map[[2]string]*path
	conns     map[*Conn]struct{} // both ends
	frozen    map[string]bool    // hosts
	ports     int
	closed    bool
}

// path is one direction between two hosts.
type path struct {
	cut   bool
	delay time.Duration
	rate  int64 // bytes per second; 0 is no limit
	stall func() time.Duration
}

// New is a network without hosts.
func New() *Net {
	n := &Net{listeners: map[string]*Listener{}, paths: map[[2]string]*path{}, conns: map[*Conn]struct{}{}, frozen: map[string]bool{}}
	n.changed = sync.NewCond(&n.mu)
	return n
}

// Host is a machine of that name: it listens and dials.
func (n *Net) Host(name string) *Host { return &Host{net: n, name: name} }

// Cut stops what from sends to to: bytes, ends of connections, and connections that
// begin, which need both directions.
func (n *Net) Cut(from, to string) { n.change(from, to, func(p *path) { p.cut = true }) }

// CutBoth cuts both directions.
func (n *Net) CutBoth(a, b string) {
	n.Cut(a, b)
	n.Cut(b, a)
}

// Heal ends a cut: what was held back arrives now.
func (n *Net) Heal(from, to string) { n.change(from, to, func(p *path) { p.cut = false }) }

// HealAll ends all cuts.
func (n *Net) HealAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.paths {
		p.cut = false
	}
	n.wake()
}

// Freeze cuts all that a host sends and gets, beside other cuts, until it is called with
// false: the host's processes stand still.
func (n *Net) Freeze(host string, frozen bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.frozen[host] = frozen
	n.wake()
}

// isCut says whether nothing gets from one host to another.
func (n *Net) isCut(from, to string) bool {
	return n.frozen[from] || n.frozen[to] || n.path(from, to).cut
}

// Delay has each byte of the direction arrive so much later. Bytes never overtake.
func (n *Net) Delay(from, to string, d time.Duration) {
	n.change(from, to, func(p *path) { p.delay = d })
}

// Rate limits each connection of the direction to so many bytes per second, 0 to no limit.
func (n *Net) Rate(from, to string, bytesPerSecond int64) {
	n.change(from, to, func(p *path) { p.rate = bytesPerSecond })
}

// Loss has f say for each write, up to 64 KiB at a time, how much later it and all behind it
// arrive: a lost packet is sent again after a while. f is called with a lock held, one call at a
// time for the whole network. Nil is no loss.
func (n *Net) Loss(from, to string, f func() time.Duration) {
	n.change(from, to, func(p *path) { p.stall = f })
}

// Reset breaks all connections between two hosts. Both ends see it at once.
func (n *Net) Reset(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		if c.out.from == a && c.out.to == b || c.out.from == b && c.out.to == a {
			c.out.reset()
			c.in.reset()
		}
	}
}

// Conns is how many connections are open between two hosts.
func (n *Net) Conns(a, b string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := 0
	for c := range n.conns {
		if c.out.from == a && c.out.to == b || a != b && c.out.from == b && c.out.to == a {
			count++
		}
	}
	return (count + 1) / 2
}

// Close ends all listeners, connections and dials.
func (n *Net) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for _, ln := range n.listeners {
		ln.closeLocked()
	}
	for c := range n.conns {
		c.out.reset()
		c.in.reset()
	}
	n.wake()
}

func (n *Net) change(from, to string, f func(*path)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n.path(from, to))
	n.wake()
}

func (n *Net) path(from, to string) *path {
	key := [2]string{from, to}
	p := n.paths[key]
	if p == nil {
		p = &path{}
		n.paths[key] = p
	}
	return p
}

func (n *Net) wake() {
	n.changed.Broadcast()
	for c := range n.conns {
		c.out.wake()
		c.in.wake() // whose writer may have closed
	}
}

// Host is one machine.
type Host struct {
	net  *Net
	name string
}

// Name is the host's name.
func (h *Host) Name() string { return h.name }

// Listen takes connections to an address, any text that no other listener has.
func (h *Host) Listen(address string) (net.Listener, error) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, net.ErrClosed
	}
	if n.listeners[address] != nil {
		return nil, &net.OpError{Op: "listen", Net: "sim", Addr: Addr(address), Err: syscall.EADDRINUSE}
	}
	ln := &Listener{host: h, address: address}
	ln.arrived = sync.NewCond(&n.mu)
	n.listeners[address] = ln
	n.changed.Broadcast()
	return ln, nil
}

// Dial connects to a listener. Nobody there is a refusal; a cut is waited for until ctx ends.
func (h *Host) Dial(ctx context.Context, address string) (net.Conn, error) {
	n := h.net
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "sim", Addr: Addr(address), Err: err}
	}
	stop := context.AfterFunc(ctx, func() {
		n.mu.Lock()
		n.changed.Broadcast()
		n.mu.Unlock()
	})
	defer stop()
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return fail(err)
		}
		if n.closed {
			return fail(net.ErrClosed)
		}
		ln := n.listeners[address]
		to := hostOf(address)
		if ln != nil {
			to = ln.host.name
		}
		switch {
		case n.isCut(h.name, to) || n.isCut(to, h.name):
			n.changed.Wait()
		case ln == nil:
			return fail(syscall.ECONNREFUSED)
		default:
			n.ports++
			local := fmt.Sprintf("%s:%d", h.name, 40000+n.ports)
			return ln.connect(h, local), nil
		}
	}
}

// Crash breaks the host's connections and listeners, as the end of its process does.
func (h *Host) Crash() {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, ln := range n.listeners {
		if ln.host.name == h.name {
			ln.closeLocked()
		}
	}
	for c := range n.conns {
		if c.out.from == h.name {
			c.closeLocked()
		}
	}
}

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

// Addr is an address of the network.
type Addr string

func (a Addr) Network() string { return "sim" }
func (a Addr) String() string  { return string(a) }

// Listener is a net.Listener.
type Listener struct {
	host    *Host
	address string
	arrived *sync.Cond
	backlog []*Conn
	closed  bool
}

var _ net.Listener = (*Listener)(nil)

// connect makes a connection. Its end here waits in the backlog, which the tests keep short.
func (ln *Listener) connect(from *Host, local string) *Conn {
	n := from.net
	out := newHalf(n, from.name, ln.host.name)
	in := newHalf(n, ln.host.name, from.name)
	dialled := &Conn{net: n, local: Addr(local), remote: Addr(ln.address), out: out, in: in}
	accepted := &Conn{net: n, local: Addr(ln.address), remote: Addr(local), out: in, in: out}
	n.conns[dialled] = struct{}{}
	n.conns[accepted] = struct{}{}
	ln.backlog = append(ln.backlog, accepted)
	ln.arrived.Signal()
	return dialled
}

// Accept waits for a connection.
func (ln *Listener) Accept() (net.Conn, error) {
	n := ln.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(ln.backlog) == 0 && !ln.closed {
		ln.arrived.Wait()
	}
	if ln.closed {
		return nil, &net.OpError{Op: "accept", Net: "sim", Addr: Addr(ln.address), Err: net.ErrClosed}
	}
	c := ln.backlog[0]
	ln.backlog = ln.backlog[1:]
	return c, nil
}

// Close stops listening. Connections that nobody accepted are reset.
func (ln *Listener) Close() error {
	n := ln.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	ln.closeLocked()
	return nil
}

func (ln *Listener) closeLocked() {
	if ln.closed {
		return
	}
	ln.closed = true
	delete(ln.host.net.listeners, ln.address)
	for _, c := range ln.backlog {
		c.closeLocked()
	}
	ln.backlog = nil
	ln.arrived.Broadcast()
}

// Addr is the address that is listened on.
func (ln *Listener) Addr() net.Addr { return Addr(ln.address) }
