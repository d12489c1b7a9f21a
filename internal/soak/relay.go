package soak

import (
	"io"
	"net"
	"sync"
)

// relay listens at one address and passes connections on to the server that lives,
// wherever that is. All methods may be called from several goroutines.
type relay struct {
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex
	change *sync.Cond // of closed and to
	closed bool
	to     string // empty: nobody lives
	pairs  map[*pair]struct{}
}

// pair is a connection and the one that it is passed on to.
type pair struct{ client, server net.Conn }

func (p *pair) close() {
	p.client.Close()
	if p.server != nil {
		p.server.Close()
	}
}

func newRelay() (*relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{listener: l, pairs: map[*pair]struct{}{}}
	r.change = sync.NewCond(&r.mu)
	r.running.Go(r.accept)
	return r, nil
}

func (r *relay) addr() string { return r.listener.Addr().String() }

// point sends new connections to an address. Empty lets them wait until there is one:
// as clients see it, the network is slow for a while.
func (r *relay) point(to string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = to
	r.change.Broadcast()
}

// cut ends all connections, with whatever is on its way in them.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.pairs {
		p.close()
	}
}

func (r *relay) close() {
	r.mu.Lock()
	r.closed = true
	r.change.Broadcast()
	r.mu.Unlock()
	r.listener.Close()
	r.cut()
	r.running.Wait()
}

func (r *relay) accept() {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return // closed: nothing else makes a loopback listener fail for good
		}
		p := &pair{client: c}
		r.mu.Lock()
		if r.closed {
			r.mu.Unlock()
			c.Close()
			return
		}
		r.pairs[p] = struct{}{}
		r.mu.Unlock()
		r.running.Go(func() { r.pass(p) })
	}
}

func (r *relay) pass(p *pair) {
	defer func() {
		r.mu.Lock()
		delete(r.pairs, p)
		r.mu.Unlock()
		p.close()
	}()
	r.mu.Lock()
	for r.to == "" && !r.closed {
		r.change.Wait()
	}
	to := r.to
	r.mu.Unlock()
	if to == "" {
		return
	}
	s, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	r.mu.Lock()
	p.server = s // from now on a cut closes it, too
	r.mu.Unlock()
	var both sync.WaitGroup
	for _, way := range [2][2]net.Conn{{s, p.client}, {p.client, s}} {
		both.Go(func() {
			io.Copy(way[0], way[1])
			// One side has ended: so does the other, as when a process is killed.
			way[0].Close()
			way[1].Close()
		})
	}
	both.Wait()
}
