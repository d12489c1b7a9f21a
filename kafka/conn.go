package kafka

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// conn is one connection: a reader that takes frames from the socket and a handler
// that answers them one after the other, and begins the next of those that wait for
// the disk meanwhile (pipeline.go).
//
//	socket --> reader --frames--> handler --> socket
//	              |                  |
//	              +-- end of file: ctx ends, what was read is still handled
//
// The reader runs ahead, so that it notices when the peer goes away while the
// handler waits for records; a small request that waits for nothing it handles itself.
// As long as the connection is not authenticated it
// does not: how the next frame is read depends on what becomes of this one.
type conn struct {
	srv      *Server
	listener *listener
	nc       net.Conn
	host     string
	br       *bufio.Reader
	readBy   time.Time // the deadline of reading, as the reader set it
	memory   *budget   // the connection's own

	ctx    context.Context // ends when the peer has gone, or the server drains or stops
	cancel context.CancelFunc

	auth    authenticator          // the handler's
	authBy  time.Time              // when it must be authenticated
	open    atomic.Bool            // authenticated
	user    atomic.Pointer[string] // of the database, who authenticated it; nil: none did
	gone    atomic.Bool            // that user was deleted: see evict
	queue   chan frame
	handled chan struct{} // a token for each frame, while not authenticated
	busy    atomic.Int32  // frames that were read and not answered
	quick   atomic.Bool   // see isQuick
	active  atomic.Int64  // when the last one was answered, since the connection began
	start   time.Time

	// Below: the handler's.
	clientID string
	software string // name and version, as ApiVersions said
	req      request
	out      output
	writeBy  time.Time // the deadline of writing
	pipe     pipeline
	leads    sync.WaitGroup // those who write groups for it
	fetch    fetcher
	names    map[string]string // see intern
	shares   bool              // it has begun a share session
}

// frame is a request as it was read.
type frame struct {
	bytes []byte
	free  *[]byte // for frames.put; nil when the garbage collector has it
	size  int64   // reserved
	quick bool    // the reader handles it
}

const (
	readBufferBytes = 16 << 10
	// aheadFrames is how many frames the reader may be ahead of the handler.
	aheadFrames = 8
	// bytesPerSecond is how fast a peer has to take or send what is large.
	bytesPerSecond = 1 << 20
)

var errDraining = errors.New("the server shuts down")

func newConn(s *Server, l *listener, nc net.Conn) *conn {
	c := &conn{
		start: time.Now(),
		srv:   s, listener: l, nc: nc, host: hostOf(nc.RemoteAddr()),
		memory: newBudget(s.limits.ConnectionMemoryBytes),
		queue:  make(chan frame, aheadFrames), handled: make(chan struct{}, 1),
	}
	c.fetch.memory.pool = &s.frames
	c.ctx, c.cancel = context.WithCancel(s.draining)
	return c
}

// hostOf is an address without its port.
func hostOf(a net.Addr) string {
	if a == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}

// run serves the connection to its end.
func (c *conn) run() {
	defer c.cancel()
	defer c.nc.Close()
	c.wait(c.srv.quotas.connect(c.host))
	if err := c.handshake(); err != nil {
		c.srv.logger.Warn("kafka: TLS handshake failed", "peer", c.host, "error", err)
		return
	}
	var err error
	if c.auth, err = c.newAuthenticator(); err != nil {
		c.srv.logger.Warn("kafka: connection refused", "peer", c.host, "error", err)
		return
	}
	c.authBy = time.Now().Add(authenticationTimeout)
	_, ok := c.auth.principal()
	c.open.Store(ok)
	c.br = bufio.NewReaderSize(c.nc, readBufferBytes)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(c.queue)
		err := c.read()
		if err != nil && !expected(err) {
			c.srv.logger.Warn("kafka: connection closed", "peer", c.host, "error", err)
		}
		c.cancel() // whoever waits for records need not any more
	})
	err = c.handle()
	if err != nil && !expected(err) {
		c.srv.logger.Warn("kafka: connection closed", "peer", c.host, "client", c.clientID, "software", c.software, "error", err)
	}
	c.cancel()
	if c.shares {
		c.srv.engine.Shares().Disconnected(c)
	}
	c.nc.Close() // ends the reader
	for f := range c.queue {
		c.free(f)
	}
	reader.Wait()
}

// expected are ends of a connection that nobody need hear of.
func expected(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, errDraining) || errors.Is(err, context.Canceled) || errors.Is(err, errIdle)
}

func (c *conn) handshake() error {
	t, ok := c.nc.(*tls.Conn)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.srv.limits.FrameTimeout)
	defer cancel()
	return t.HandshakeContext(ctx)
}

var errIdle = errors.New("no request for too long")

// read takes frames from the socket until it ends.
func (c *conn) read() error {
	for {
		f, err := c.readFrame()
		if err != nil {
			return err
		}
		waits := !c.open.Load()
		f.quick = !waits && c.isQuick(&f)
		c.busy.Add(1)
		if f.quick {
			_, err := c.serve(f)
			c.free(f)
			if err != nil {
				return err
			}
			continue
		}
		if err := c.pass(f); err != nil {
			return err
		}
		if waits {
			select {
			case <-c.handled:
			case <-c.ctx.Done():
				return net.ErrClosed
			}
		}
	}
}

// readFrame reads one frame, whose bytes are reserved before.
func (c *conn) readFrame() (frame, error) {
	if err := c.awaitFrame(); err != nil {
		return frame{}, err
	}
	lim := &c.srv.limits
	if c.br.Buffered() < 4 {
		if err := c.setReadDeadline(time.Now().Add(lim.FrameTimeout)); err != nil {
			return frame{}, err
		}
	}
	head, err := c.br.Peek(4)
	if err != nil {
		return frame{}, c.cutShort(err)
	}
	size, limit, shared := int64(int32(binary.BigEndian.Uint32(head))), int64(lim.FrameBytes), c.srv.memory
	least := int64(8)
	if !c.open.Load() {
		// Whoever is not authenticated must not be able to take what the others need. It
		// may send tokens that are smaller than any request.
		least = 4
		limit, shared = int64(min(lim.HandshakeFrameBytes, lim.FrameBytes)), c.srv.handshakes
	}
	if size < least || size > limit {
		return frame{}, fmt.Errorf("a frame of %d bytes, at most %d are allowed", size, limit)
	}
	f := frame{size: size}
	if err := c.reserve(shared, size); err != nil {
		return frame{}, err
	}
	c.br.Discard(4)
	if int64(c.br.Buffered()) < size {
		err = c.setReadDeadline(time.Now().Add(lim.FrameTimeout + time.Duration(size/bytesPerSecond)*time.Second))
	}
	if err == nil {
		err = c.readBody(&f, int(size))
	}
	if err != nil {
		c.release(shared, size)
		c.srv.frames.put(f.free)
		return frame{}, c.cutShort(err)
	}
	if shared != c.srv.memory {
		// Handling it may authenticate the connection: from here on it counts as all others do.
		shared.release(size)
		c.srv.memory.take(size, size)
	}
	return f, nil
}

// readBody reads the frame's bytes into memory that fits what becomes of them.
func (c *conn) readBody(f *frame, size int) error {
	head, err := c.br.Peek(2)
	if err != nil {
		return err
	}
	if a := apiOf(int16(binary.BigEndian.Uint16(head))); a != nil && a.borrows {
		f.bytes, f.free = c.srv.frames.get(size)
	} else {
		f.bytes = make([]byte, size)
	}
	_, err = io.ReadFull(c.br, f.bytes)
	return err
}

// awaitFrame waits for a frame's first byte, as long as the connection may be idle.
func (c *conn) awaitFrame() error {
	idle := c.srv.limits.IdleTimeout
	until := time.Now().Add(idle)
	for c.br.Buffered() == 0 {
		deadline := until
		if !c.open.Load() && deadline.After(c.authBy) {
			deadline = c.authBy
		}
		if err := c.setIdleDeadline(deadline, idle/4); err != nil {
			return err
		}
		_, err := c.br.Peek(1)
		switch {
		case err == nil:
			return nil
		case c.srv.draining.Err() != nil:
			return errDraining
		case isTimeout(err):
			c.readBy = time.Time{} // whatever it was, it is over
			// An answer is a sign of life as much as a request.
			if !c.open.Load() && !time.Now().Before(c.authBy) {
				return errIdle
			} else if c.busy.Load() > 0 {
				until = time.Now().Add(idle)
			} else if until = c.start.Add(time.Duration(c.active.Load())).Add(idle); !time.Now().Before(until) {
				return errIdle
			}
		default:
			return err
		}
	}
	if c.srv.draining.Err() != nil {
		return errDraining
	}
	return nil
}

// setReadDeadline sets the deadline, unless the server shuts down: it has set its own
// then, and perhaps before ours. See Server.stopAccepting.
func (c *conn) setReadDeadline(at time.Time) error {
	c.readBy = at
	c.nc.SetReadDeadline(at)
	if c.srv.draining.Err() != nil {
		return errDraining
	}
	return nil
}

// setIdleDeadline is setReadDeadline for who looks, when the deadline is over, whether
// it really is. So one that is earlier by less than slack will do: requests that follow
// each other closely do not set a timer each.
func (c *conn) setIdleDeadline(at time.Time, slack time.Duration) error {
	if early := at.Sub(c.readBy); early >= 0 && early < slack {
		if c.srv.draining.Err() != nil {
			return errDraining
		}
		return nil
	}
	return c.setReadDeadline(at)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// cutShort is the error of a frame that did not come to its end.
func (c *conn) cutShort(err error) error {
	switch {
	case c.srv.draining.Err() != nil:
		return errDraining
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

// reserve takes bytes of the connection's budget, then of the shared one.
func (c *conn) reserve(shared *budget, n int64) error {
	if err := c.memory.reserve(c.ctx, n); err != nil {
		return err
	}
	if err := shared.reserve(c.ctx, n); err != nil {
		c.memory.release(n)
		return err
	}
	return nil
}

func (c *conn) release(shared *budget, n int64) {
	shared.release(n)
	c.memory.release(n)
}

// free gives a frame's memory back.
func (c *conn) free(f frame) {
	c.srv.frames.put(f.free)
	c.release(c.srv.memory, f.size)
	c.active.Store(int64(time.Since(c.start)))
	c.busy.Add(-1)
}

// handle answers frames until there are no more, or one cannot be answered.
func (c *conn) handle() error {
	defer c.dropBegun()
	for {
		f, ok, err := c.nextFrame()
		if err != nil {
			return err
		}
		if !ok {
			return c.finishAll()
		}
		waits := !c.open.Load()
		kept, err := c.serve(f)
		if err != nil {
			c.finishAll() // what came before is answered; if that fails too, it is for the same reason
		}
		if !kept {
			c.free(f)
		}
		if waits {
			c.handled <- struct{}{}
		}
		if err != nil {
			return err
		}
	}
}

// serve answers one request, or begins it: then it is kept, with its frame.
func (c *conn) serve(f frame) (kept bool, err error) {
	if c.gone.Load() {
		return false, net.ErrClosed
	}
	if s, ok := c.auth.(*saslAuth); ok && s.takesToken() {
		if err := c.finishAll(); err != nil {
			return false, err
		}
		return false, c.serveToken(s, f.bytes)
	}
	r := &c.req
	*r = request{ctx: c.ctx, life: c.srv.life, srv: c.srv, conn: c, engine: c.srv.engine, host: c.host, out: &c.out, began: time.Now()}
	rest, err := r.parseHeader(f.bytes)
	if err != nil {
		return false, err
	}
	a := apiOf(r.key)
	if a == nil {
		return false, fmt.Errorf("API key %d is not served", r.key)
	}
	if !c.auth.admits(r.key) {
		return false, fmt.Errorf("%w: %s", errNotAuthenticated, kmsg.NameForKey(r.key))
	}
	if r.version < a.min || r.version > a.max {
		if r.key != apiVersionsKey {
			return false, fmt.Errorf("%s version %d is not served", kmsg.NameForKey(r.key), r.version)
		}
		// The client asks again with a version that this answer names. (KIP-511)
		if err := c.finishAll(); err != nil {
			return false, err
		}
		r.principal, _ = c.auth.principal()
		c.out.begin(r.correlation, false)
		r.respond(unsupportedApiVersions(r))
		return false, c.write()
	}
	flexible := r.version >= a.flexible
	if rest, err = r.parseClient(rest, flexible); err != nil {
		return false, err
	}
	r.principal, _ = c.auth.principal()
	if a.handle == nil {
		return c.serveProduce(f, rest)
	}
	if err := c.finishAll(); err != nil {
		return false, err
	}
	// The answer to ApiVersions has the oldest header: who asks does not know yet
	// which the server has.
	c.out.begin(r.correlation, flexible && r.key != apiVersionsKey)
	err = a.handle(r, rest)
	if err == nil && !c.out.dropped {
		err = c.write()
	}
	c.srv.memory.release(r.reserved)
	c.out.reset()
	c.fetch.memory.release() // what was borrowed from it is written
	if err != nil {
		return false, err
	}
	if err := c.refusal(); err != nil {
		return false, err
	}
	if !c.open.Load() {
		_, ok := c.auth.principal()
		c.open.Store(ok)
	}
	return false, c.wait(time.Duration(r.throttled()) * time.Millisecond)
}

// write sends the answer. A client that takes it too slowly is cut off, after seven
// eighths of the time at least: a deadline serves answers that follow each other closely.
func (c *conn) write() error {
	if c.gone.Load() {
		return net.ErrClosed
	}
	lim := &c.srv.limits
	now, most := time.Now(), lim.FrameTimeout+time.Duration(c.out.len()/bytesPerSecond)*time.Second
	if left := c.writeBy.Sub(now); left < most-most/8 || left > most {
		c.writeBy = now.Add(most)
		c.nc.SetWriteDeadline(c.writeBy)
	}
	return c.out.writeTo(c.nc)
}

// wait leaves the connection alone for as long as its client was told.
func (c *conn) wait(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.ctx.Done():
	}
	return nil
}

// keptNames bounds what intern keeps.
const keptNames = 4096

// intern is b as a string: the same one for the same bytes, as a connection speaks
// of the same topics all the time.
func (c *conn) intern(b []byte) string {
	if s, ok := c.names[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(s) > 249 { // no topic's
		return s
	}
	if c.names == nil || len(c.names) >= keptNames {
		c.names = make(map[string]string)
	}
	c.names[s] = s
	return s
}
