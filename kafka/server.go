package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"
)

// Server serves a database to Kafka clients. All methods may be called from several
// goroutines.
type Server struct {
	db         *embedlog.DB
	engine     *engine.Engine
	listeners  []*listener
	limits     Limits
	authorizer Authorizer
	throttler  Throttler
	quotas     *quotas
	logger     *slog.Logger
	nodeID     int32
	clusterID  string

	frames     frames
	memory     *budget
	handshakes *budget       // of connections that are not authenticated
	hashing    chan struct{} // a token for each password that is being hashed

	// draining ends when nothing new is to begin, life when everything is to end.
	draining, life context.Context
	drain, kill    context.CancelFunc

	current atomic.Bool // in a cluster: this node had all of the metadata once since it started

	forgetDB    func() // ends DB.BeforeClose
	forgetUsers func() // ends engine.OnSecurity

	mu      sync.Mutex
	conns   map[*conn]struct{}
	byIP    map[string]int
	running sync.WaitGroup // listeners and connections
}

// listener is a Listener that listens.
type listener struct {
	Listener
	name      string // that other nodes know it by
	net       net.Listener
	advertise endpoint
	auth      func(net.Conn) authenticator // in a test; nil is Listener.newAuthenticator
}

// handshakeMemoryBytes is what all connections together that are not authenticated
// may send before it is looked at.
const handshakeMemoryBytes = 16 << 20

// Serve listens as the options say, and serves the database until Shutdown or Close,
// or until the database is closed.
//
// It fails with *embedlog.InvalidSettingError, joined, for options that are not
// valid, an address outside of loopback without TLS and authentication among them,
// and with the operating system's error when an address cannot be listened on; then
// nothing listens.
func Serve(db *embedlog.DB, o *Options) (*Server, error) {
	if o == nil {
		o = &Options{}
	}
	limits, err := o.check()
	if err != nil {
		return nil, fmt.Errorf("kafka: serve: %w", err)
	}
	s := newServer(db, o, limits)
	names := listenerNames(o.Listeners)
	for i := range o.Listeners {
		if err := s.listen(names[i], o.Listeners[i]); err != nil {
			s.Close()
			return nil, fmt.Errorf("kafka: serve: %w", err)
		}
	}
	if s.forgetDB, err = db.BeforeClose(func() { s.Close() }); err != nil {
		s.Close()
		return nil, fmt.Errorf("kafka: serve: %w", err)
	}
	s.advertise()
	for _, l := range s.listeners {
		s.running.Go(func() { s.accept(l) })
	}
	return s, nil
}

func newServer(db *embedlog.DB, o *Options, limits Limits) *Server {
	info := db.Engine().Info()
	s := &Server{
		db: db, engine: db.Engine(), limits: limits,
		authorizer: o.Authorizer, throttler: o.Throttler, logger: o.Logger,
		nodeID: info.NodeID, clusterID: info.ClusterID,
		memory: newBudget(limits.MemoryBytes), handshakes: newBudget(max(handshakeMemoryBytes, int64(limits.HandshakeFrameBytes))),
		hashing: make(chan struct{}, max(runtime.GOMAXPROCS(0)/2, 1)),
		conns:   make(map[*conn]struct{}), byIP: make(map[string]int),
	}
	s.forgetUsers = s.engine.OnSecurity(s.securityChanged)
	s.quotas = newQuotas(s.engine)
	if s.throttler == nil {
		s.throttler = s.quotas
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if s.nodeID <= 0 {
		s.nodeID = 1 // clients take 0 for one of theirs, and -1 for none
	}
	s.life, s.kill = context.WithCancel(context.Background())
	s.draining, s.drain = context.WithCancel(s.life)
	return s
}

func (s *Server) listen(name string, cfg Listener) error {
	address, _, err := cfg.bindAddress()
	if err != nil {
		return err
	}
	n, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	if cfg.SASL != nil {
		sasl := *cfg.SASL
		sasl.Mechanisms = slices.Clone(sasl.Mechanisms)
		cfg.SASL = &sasl
	}
	l := &listener{Listener: cfg, name: name, net: n}
	if cfg.TLS != nil {
		l.net = tls.NewListener(n, cfg.TLS)
	}
	bound := n.Addr().(*net.TCPAddr)
	host, port, _ := splitAddress(cfg.Advertise)
	if host == "" {
		host, _, _ = splitAddress(address)
		if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
			host = "localhost" // nobody can connect to 0.0.0.0
		}
	}
	if port <= 0 {
		port = bound.Port
	}
	l.advertise = endpoint{host, int32(port)}
	s.listeners = append(s.listeners, l)
	return nil
}

// Addrs are the addresses that are listened on, in the order of Options.Listeners.
func (s *Server) Addrs() []net.Addr {
	list := make([]net.Addr, len(s.listeners))
	for i, l := range s.listeners {
		list[i] = l.net.Addr()
	}
	return list
}

// accept takes connections until the listener is closed.
func (s *Server) accept(l *listener) {
	delay := time.Duration(0)
	for {
		nc, err := l.net.Accept()
		if err != nil {
			if s.draining.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Such as too many open files: it passes when connections end.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			s.logger.Warn("kafka: accept failed", "address", l.net.Addr().String(), "error", err, "again in", delay)
			select {
			case <-time.After(delay):
			case <-s.draining.Done():
				return
			}
			continue
		}
		delay = 0
		s.serve(l, nc)
	}
}

// serve takes a connection on, unless there are too many.
func (s *Server) serve(l *listener, nc net.Conn) {
	c := newConn(s, l, nc)
	s.mu.Lock()
	why := ""
	switch {
	case s.draining.Err() != nil:
		why = "the server shuts down"
	case s.limits.Connections > 0 && len(s.conns) >= s.limits.Connections:
		why = "too many connections"
	case s.limits.ConnectionsPerIP > 0 && s.byIP[c.host] >= s.limits.ConnectionsPerIP:
		why = "too many connections from its address"
	default:
		s.conns[c] = struct{}{}
		s.byIP[c.host]++
		s.running.Go(func() {
			c.run()
			s.forget(c)
		})
	}
	s.mu.Unlock()
	if why != "" {
		s.logger.Warn("kafka: connection refused", "peer", c.host, "reason", why)
		c.cancel()
		nc.Close()
	}
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if s.byIP[c.host]--; s.byIP[c.host] <= 0 {
		delete(s.byIP, c.host)
	}
}

// Shutdown ends the server with grace: nothing is accepted any more, requests that
// were read are answered, waits for records end at once, and connections are
// closed. When ctx ends before that is done, what is left is cut off. It returns
// when no goroutine of the server is left, with ctx's error if it had to cut.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopAccepting()
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		s.ended()
		return nil
	case <-ctx.Done():
	}
	s.cut()
	<-done
	s.ended()
	return fmt.Errorf("kafka: shut down: %w", ctx.Err())
}

// Close ends the server at once. Appends that have begun are finished, but their
// clients do not hear of it.
func (s *Server) Close() error {
	s.stopAccepting()
	s.cut()
	s.running.Wait()
	s.ended()
	return nil
}

// ended lets go of what is not a goroutine.
func (s *Server) ended() {
	s.kill()
	s.forgetUsers()
	if s.forgetDB != nil {
		s.forgetDB()
	}
}

// stopAccepting closes the listeners and has the connections read no further.
func (s *Server) stopAccepting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drain() // before the deadlines: see conn.setReadDeadline
	for _, l := range s.listeners {
		l.net.Close()
	}
	for c := range s.conns {
		c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

// cut closes all connections.
func (s *Server) cut() {
	s.kill()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.nc.Close()
	}
}
