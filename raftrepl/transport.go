package raftrepl

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog/internal/engine"
)

const (
	dialTimeout      = 3 * time.Second
	handshakeTimeout = 5 * time.Second
	// maxHandshakes is how many connections may be open that have not said yet who they are.
	maxHandshakes = 64
)

// Network is how a node dials and listens. Tests put a simulated one in its place.
type Network interface {
	Dial(ctx context.Context, address string) (net.Conn, error)
	Listen(address string) (net.Listener, error)
}

// identity is who a node is, as the handshake says it.
type identity struct {
	cluster, directory engine.TopicID
}

// transportConfig is what a transport needs of its node. The functions may be called from any
// goroutine and do not wait.
type transportConfig struct {
	self      int32
	name      string // the cluster's, as it was configured; empty is not said and not compared
	listen    string
	advertise string
	token     string
	network   Network
	tls       *tlsPair // nil is plain connections, for loopback
	election  time.Duration
	boot      uint64 // which run of the node this is, from 1 on; 0 is not said
	identity  func() identity
	logger    *slog.Logger
	// address is where a node is, and whether it is known.
	address func(node int32) (string, bool)
	// adopt makes the node one of a cluster, when it is of none yet. Nil is a node that is of one.
	adopt func(cluster engine.TopicID) error
	// directory is the directory id that is registered of a node, if any is.
	directory func(node int32) (engine.TopicID, bool)
	// standing is what a directory may do that says to be a node's. Nil is that all may do all.
	standing func(node int32, directory engine.TopicID) engine.Standing
	// learned is told what a peer says of where it is.
	learned func(node int32, address string)
	serve   func(ctx context.Context, from int32, service string, request []byte) ([]byte, error)
}

// transport carries the messages of all groups of a node, and its calls.
//
//	group A ─┐                                      ┌─ group A
//	group B ─┼─ lanes ─ frames ══ one connection ══ ┼─ group B
//	calls   ─┘                                      └─ Host.Serve
//	installs ── chunks with credit ══ another one ══ the group's callback
//
// A peer that does not answer holds up what is sent to it alone. What a peer sends is bounded by
// limits of frames, lanes, queues and requests that are served.
type transport struct {
	transportConfig
	instance uint64
	listener net.Listener
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	goes     sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	peers     map[int32]*peer
	groups    map[engine.LogID]*groupTransport
	strangers map[net.Conn]struct{} // before the handshake is over

	refusals sayings // of those that dialled

	rejudged  chan struct{} // what nodes may do has changed
	removedBy atomic.Int32  // a peer that has said that this node was removed
}

// newTransport listens, and dials when something is to be sent.
func newTransport(c transportConfig) (*transport, error) {
	t := makeTransport(c)
	return t, t.begin()
}

// makeTransport is a transport that does not listen yet.
func makeTransport(c transportConfig) *transport {
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	t := &transport{transportConfig: c, instance: rand.Uint64(), peers: map[int32]*peer{},
		groups: map[engine.LogID]*groupTransport{}, strangers: map[net.Conn]struct{}{}, rejudged: make(chan struct{}, 1)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// begin listens.
func (t *transport) begin() error {
	ln, err := t.network.Listen(t.listen)
	if err != nil {
		t.cancel()
		return err
	}
	t.listener = ln
	t.run(t.accept)
	t.run(t.rejudge)
	return nil
}

// Close leaves: what waits for answers fails, and all goroutines have ended when it returns.
func (t *transport) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	t.cancel()
	var peers []*peer
	for _, p := range t.peers {
		peers = append(peers, p)
	}
	var groups []*groupTransport
	for _, g := range t.groups {
		groups = append(groups, g)
	}
	for c := range t.strangers {
		c.Close()
	}
	t.mu.Unlock()
	var err error
	if t.listener != nil {
		err = t.listener.Close()
	}
	for _, g := range groups {
		g.Close()
	}
	for _, p := range peers {
		p.close()
	}
	t.goes.Wait()
	return err
}

// run starts a goroutine that Close waits for, unless it is too late.
func (t *transport) run(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.goes.Go(f)
	return true
}

// pingEvery is after what time of silence something is said.
func (t *transport) pingEvery() time.Duration { return t.election / 2 }

// deadAfter is after what time of silence a connection is given up. A new one is quicker than TCP's
// sending again, once the network is there.
func (t *transport) deadAfter() time.Duration { return max(3*t.election, time.Second) }

func (t *transport) peer(node int32) *peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[node]
	if p == nil {
		p = newPeer(t, node)
		t.peers[node] = p
	}
	return p
}

// stranger notes a connection that Close has to end. It is false when it is too late, or there are
// too many.
func (t *transport) stranger(c net.Conn, limit int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(t.strangers) >= limit {
		return false
	}
	t.strangers[c] = struct{}{}
	return true
}

func (t *transport) known(c net.Conn) {
	t.mu.Lock()
	delete(t.strangers, c)
	t.mu.Unlock()
}

func (t *transport) accept() {
	pause := firstRedial
	for {
		c, err := t.listener.Accept()
		if err != nil {
			if t.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Files may have run out: it goes on when there are some.
			t.logger.Error("connections cannot be accepted", "error", err)
			select {
			case <-time.After(pause):
			case <-t.ctx.Done():
				return
			}
			pause = min(2*pause, lastRedial)
			continue
		}
		pause = firstRedial
		if !t.stranger(c, maxHandshakes) {
			c.Close()
			continue
		}
		t.run(func() {
			defer t.known(c)
			if err := t.welcome(c); err != nil {
				c.Close()
				if t.ctx.Err() == nil && t.refusals.news(refusalText(err)) {
					t.logger.Warn("connection is refused", "error", err)
				}
			}
		})
	}
}

// welcome is the handshake of a connection that was dialled by another.
func (t *transport) welcome(raw net.Conn) error {
	ctx, cancel := context.WithTimeout(t.ctx, handshakeTimeout)
	defer cancel()
	raw.SetDeadline(time.Now().Add(handshakeTimeout))
	where := raw.RemoteAddr().String()
	conn, named, err := t.secure(ctx, raw, false)
	if err != nil {
		return &PeerRefusedError{Address: where, Reason: RefusedCertificate, Detail: err.Error()}
	}
	msg, err := readHello(conn)
	if err != nil {
		return &PeerRefusedError{Address: where, Reason: RefusedProtocol, Detail: err.Error()}
	}
	h, err := decodeHello(msg)
	if err != nil {
		return &PeerRefusedError{Address: where, Reason: RefusedProtocol, Detail: err.Error()}
	}
	own := t.identity()
	answer := t.judge(h, named)
	var l *wire
	if answer == nil && h.flavour != flavourKnock {
		p := t.peer(h.from)
		l = newWire(t, p, h.flavour, conn)
		l.instance, l.nonce, l.directory, l.address = h.instance, h.nonce, h.directory, where
		answer = p.admit(h, l)
	}
	refused := answer
	if answer == nil {
		answer = &welcome{}
		if h.advertise != "" && t.learned != nil {
			t.learned(h.from, h.advertise)
		}
	}
	answer.version, answer.cluster, answer.node = min(protocolVersion, h.high), t.identity().cluster, t.self
	answer.directory, answer.boot, answer.instance = own.directory, t.boot, t.instance
	_, err = conn.Write(answer.encode())
	if refused != nil {
		return &PeerRefusedError{Node: h.from, Address: where, Reason: refused.reason, Detail: refused.words}
	}
	if l == nil {
		return conn.Close()
	}
	if err != nil {
		l.fail(err)
		return nil
	}
	conn.SetDeadline(time.Time{})
	l.start()
	t.logger.Info("peer connected", "node", h.from, "for", h.flavour.String(), "address", where)
	return nil
}

// judge compares what a peer says with what is known here. Nil is welcome.
func (t *transport) judge(h *hello, named int32) *welcome {
	no := func(r RefusalReason, format string, args ...any) *welcome {
		return &welcome{reason: r, words: fmt.Sprintf(format, args...)}
	}
	own := t.identity()
	switch {
	case h.low > protocolVersion || h.high < protocolVersion:
		return no(RefusedVersion, "it speaks versions %d to %d, this node %d", h.low, h.high, protocolVersion)
	case t.tls != nil && named != h.from:
		return no(RefusedCertificate, "it says to be node %d, its certificate is of node %d", h.from, named)
	case h.name != "" && t.name != "" && h.name != t.name:
		return no(RefusedCluster, "it was started for cluster %q, this node for %q", h.name, t.name)
	case !h.cluster.IsZero() && !own.cluster.IsZero() && h.cluster != own.cluster:
		return no(RefusedCluster, "its directory is of cluster %s, this node's of %s: a node that joins begins with an empty one", h.cluster, own.cluster)
	case h.cluster.IsZero() && own.cluster.IsZero():
		return no(RefusedCluster, "neither of the two is of a cluster")
	case h.from == t.self:
		return no(RefusedNode, "it has the number of this node, %d: each node has its own", t.self)
	case h.to != 0 && h.to != t.self:
		return no(RefusedNode, "it wants node %d, this is node %d", h.to, t.self)
	}
	stands := t.standingOf(h.from, h.directory)
	if stands == engine.StandsRemoved && !t.memberOfAny(h.from) {
		return no(RefusedRemoved, "%s", stands.Why(h.from))
	}
	registered, known := t.directory(h.from)
	if !known && t.token != "" && subtle.ConstantTimeCompare([]byte(t.token), []byte(h.token)) != 1 {
		return no(RefusedToken, "node %d was not here before, and its token is not this node's", h.from)
	}
	// Whoever is of this cluster already may have been added while this node was away.
	if _, ok := t.address(h.from); !ok && t.token == "" && t.tls == nil && (h.cluster.IsZero() || t.standing == nil) {
		return no(RefusedNode, "node %d is not known", h.from) // else it may knock, to be put into the registry
	}
	if known && registered != h.directory {
		return no(RefusedDirectory, "node %d is registered with directory %s, this one is %s: the number is another node's, or the directory is "+
			"a copy or was restored. A new node takes a number of its own and an empty directory", h.from, registered, h.directory)
	}
	if own.cluster.IsZero() {
		if err := t.joins(h.cluster); err != nil {
			return no(RefusedCluster, "%v", err)
		}
	}
	return nil
}

// joins makes this node one of a cluster of which it heard.
func (t *transport) joins(cluster engine.TopicID) error {
	if t.adopt == nil {
		return errors.New("this node is of no cluster, and does not join one")
	}
	if err := t.adopt(cluster); err != nil {
		return fmt.Errorf("this node cannot join the cluster: %w", err)
	}
	return nil
}

// connect dials a peer and shakes hands.
func (t *transport) connect(p *peer, f flavour, last uint64) (*wire, error) {
	address, ok := t.address(p.node)
	if !ok {
		return nil, p.unreachable(errors.New("its address is not known"))
	}
	l, w, err := t.knock(address, p.node, f, last)
	if err != nil {
		return nil, fmt.Errorf("node %d: %w", p.node, err)
	}
	l.peer, l.directory, l.instance = p, w.directory, w.instance
	p.mu.Lock()
	why := p.remember(w.directory, w.boot, w.instance)
	p.mu.Unlock()
	if why != "" {
		l.conn.Close()
		return nil, &PeerRefusedError{Node: p.node, Address: address, Reason: RefusedDirectory, Detail: why}
	}
	return l, nil
}

// knock dials an address. A node of 0 is whoever answers.
func (t *transport) knock(address string, node int32, f flavour, last uint64) (*wire, *welcome, error) {
	ctx, cancel := context.WithTimeout(t.ctx, dialTimeout)
	defer cancel()
	raw, err := t.network.Dial(ctx, address)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", engine.ErrPeerUnreachable, err)
	}
	if !t.stranger(raw, 1<<20) {
		raw.Close()
		return nil, nil, errClosing
	}
	defer t.known(raw)
	l, w, err := t.introduce(raw, address, node, f, last)
	if err != nil {
		raw.Close()
	}
	return l, w, err
}

func (t *transport) introduce(raw net.Conn, address string, node int32, f flavour, last uint64) (*wire, *welcome, error) {
	ctx, cancel := context.WithTimeout(t.ctx, handshakeTimeout)
	defer cancel()
	raw.SetDeadline(time.Now().Add(handshakeTimeout))
	no := func(r RefusalReason, format string, args ...any) (*wire, *welcome, error) {
		return nil, nil, &PeerRefusedError{Node: node, Address: address, Reason: r, Detail: fmt.Sprintf(format, args...)}
	}
	conn, named, err := t.secure(ctx, raw, true)
	if err != nil {
		return no(RefusedCertificate, "%v", err)
	}
	own := t.identity()
	h := hello{low: protocolVersion, high: protocolVersion, flavour: f, cluster: own.cluster, from: t.self, to: node,
		directory: own.directory, boot: t.boot, instance: t.instance, nonce: rand.Uint64(), last: last, advertise: t.advertise, token: t.token, name: t.name}
	_, lost := conn.Write(h.encode())
	msg, err := readHello(conn)
	switch {
	case err != nil && lost != nil && !isAlert(err):
		return nil, nil, fmt.Errorf("%w: %w", engine.ErrPeerUnreachable, lost)
	case err != nil && isAlert(err): // who refuses a certificate says so and closes, perhaps before the write
		return no(RefusedCertificate, "the peer does not take this node's certificate: %v", err)
	case err != nil:
		return no(RefusedProtocol, "%v", err)
	}
	w, err := decodeWelcome(msg)
	switch {
	case err != nil:
		return no(RefusedProtocol, "%v", err)
	case t.tls != nil && named != w.node:
		return no(RefusedCertificate, "it says to be node %d, its certificate is of node %d", w.node, named)
	case w.reason != 0:
		if w.reason == RefusedRemoved && w.cluster == own.cluster {
			t.removedBy.Store(w.node)
		}
		return nil, nil, &PeerRefusedError{Node: w.node, Address: address, Reason: w.reason, Detail: w.words, ByPeer: true}
	case w.version != protocolVersion:
		return no(RefusedVersion, "it chose version %d, this node speaks %d", w.version, protocolVersion)
	case node != 0 && w.node != node || w.node == t.self || w.node == 0:
		return no(RefusedNode, "it is node %d", w.node)
	case !own.cluster.IsZero() && w.cluster != own.cluster:
		return no(RefusedCluster, "its directory is of cluster %s, this node's of %s: a node that joins begins with an empty one", w.cluster, own.cluster)
	}
	if s := t.standingOf(w.node, w.directory); s == engine.StandsRemoved && !t.memberOfAny(w.node) {
		return no(RefusedRemoved, "%s", s.Why(w.node))
	}
	if d, ok := t.directory(w.node); ok && d != w.directory {
		return no(RefusedDirectory, "it is registered with directory %s, this one is %s: it is a copy or was restored", d, w.directory)
	}
	if own.cluster.IsZero() {
		if err := t.joins(w.cluster); err != nil {
			return no(RefusedCluster, "%v", err)
		}
	}
	conn.SetDeadline(time.Time{})
	l := newWire(t, nil, f, conn)
	l.dialled, l.nonce, l.address = true, h.nonce, address
	return l, w, nil
}

// secure puts TLS over a connection, and says whose certificate the peer has.
func (t *transport) secure(ctx context.Context, raw net.Conn, dialled bool) (net.Conn, int32, error) {
	if t.tls == nil {
		return raw, 0, nil
	}
	under, config := newGatherConn(raw), t.tls.current()
	c := tls.Server(under, config)
	if dialled {
		c = tls.Client(under, config)
	}
	if err := c.HandshakeContext(ctx); err != nil {
		if isAlert(err) {
			err = fmt.Errorf("the peer does not take this node's certificate, or has none itself: %w", err)
		}
		return nil, 0, err
	}
	named, err := nodeOfCertificate(c.ConnectionState().PeerCertificates[0], t.tls.cluster)
	if err != nil {
		return nil, 0, err
	}
	return tlsConn{c, under}, named, nil
}

// isAlert says that a peer ended TLS, with a reason.
func isAlert(err error) bool {
	op := new(net.OpError)
	return errors.As(err, &op) && op.Op == "remote error"
}

// tlsConn closes without a farewell, which would wait for a peer that does not read.
type tlsConn struct {
	*tls.Conn
	raw *gatherConn
}

func (c tlsConn) Close() error { return c.raw.Close() }

// Flush implements gathering.
func (c tlsConn) Flush() error { return c.raw.Flush() }
