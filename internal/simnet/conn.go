package simnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

const segmentBytes = 64 << 10

// Conn is one end of a connection.
type Conn struct {
	net           *Net
	local, remote Addr
	out, in       *half
	closed        bool
}

var _ net.Conn = (*Conn)(nil)

// half is one direction: what was written and not read yet, in the order of arrival.
// All of it is guarded by Net.mu.
type half struct {
	net      *Net
	from, to string
	moved    *sync.Cond // something to read, or room to write, or an end

	segments []segment
	bytes    int
	free     time.Time // until then earlier bytes take the line, or are late

	ended  bool // the writer closed: the end is behind the segments, and takes as long
	endAt  time.Time
	gone   bool // the reader closed
	broken bool // reset

	readBy, writeBy time.Time
	timers          map[*time.Timer]struct{}
}

type segment struct {
	at   time.Time
	data []byte
}

func newHalf(n *Net, from, to string) *half {
	h := &half{net: n, from: from, to: to, timers: map[*time.Timer]struct{}{}}
	h.moved = sync.NewCond(&n.mu)
	return h
}

func (h *half) wake() { h.moved.Broadcast() }

// wakeAt has those that wait look again at a time.
func (h *half) wakeAt(at time.Time) (cancel func()) {
	var t *time.Timer
	t = time.AfterFunc(time.Until(at), func() {
		h.net.mu.Lock()
		delete(h.timers, t)
		h.wake()
		h.net.mu.Unlock()
	})
	h.timers[t] = struct{}{}
	return func() {
		t.Stop()
		delete(h.timers, t)
	}
}

// reset loses what was not read and fails both sides.
func (h *half) reset() {
	h.broken = true
	h.segments, h.bytes = nil, 0
	for t := range h.timers {
		t.Stop()
	}
	clear(h.timers)
	h.wake()
}

// wait waits for a change, or for a time unless it is zero.
func (h *half) wait(times ...time.Time) {
	var cancel []func()
	for _, at := range times {
		if !at.IsZero() {
			cancel = append(cancel, h.wakeAt(at))
		}
	}
	h.moved.Wait()
	for _, f := range cancel {
		f()
	}
}

func past(deadline time.Time) bool { return !deadline.IsZero() && !time.Now().Before(deadline) }

// arrival is when what is written now is there.
func (h *half) arrival(bytes int) time.Time {
	p := h.net.path(h.from, h.to)
	now := time.Now()
	if h.free.Before(now) {
		h.free = now
	}
	if p.stall != nil {
		h.free = h.free.Add(p.stall())
	}
	if p.rate > 0 {
		h.free = h.free.Add(time.Duration(int64(bytes) * int64(time.Second) / p.rate))
	}
	at := h.free.Add(p.delay)
	// The delay may have shrunk: bytes do not overtake.
	if n := len(h.segments); n > 0 && at.Before(h.segments[n-1].at) {
		at = h.segments[n-1].at
	}
	return at
}

func (c *Conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "sim", Source: c.local, Addr: c.remote, Err: err}
}

// Read waits for bytes, the end, a deadline or Close.
func (c *Conn) Read(b []byte) (int, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	h := c.in
	for {
		now := time.Now()
		cut := h.net.isCut(h.from, h.to)
		var next time.Time
		switch {
		case c.closed:
			return 0, c.opError("read", net.ErrClosed)
		case past(h.readBy):
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case h.broken:
			return 0, c.opError("read", syscall.ECONNRESET)
		case len(b) == 0:
			return 0, nil
		case cut:
		case len(h.segments) > 0 && !h.segments[0].at.After(now):
			return h.take(b), nil
		case len(h.segments) > 0:
			next = h.segments[0].at
		case h.ended && !h.endAt.After(now):
			return 0, io.EOF
		case h.ended:
			next = h.endAt
		}
		h.wait(h.readBy, next)
	}
}

// take moves bytes that are there into b.
func (h *half) take(b []byte) int {
	n, now := 0, time.Now()
	for n < len(b) && len(h.segments) > 0 && !h.segments[0].at.After(now) {
		s := &h.segments[0]
		k := copy(b[n:], s.data)
		n += k
		if s.data = s.data[k:]; len(s.data) == 0 {
			h.segments = h.segments[1:]
		}
	}
	h.bytes -= n
	h.wake()
	return n
}

// Write waits for room, a deadline or Close.
func (c *Conn) Write(b []byte) (int, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	h, done := c.out, 0
	for {
		back := h.net.isCut(h.to, h.from) || h.net.isCut(h.from, h.to)
		switch {
		case c.closed:
			return done, c.opError("write", net.ErrClosed)
		case past(h.writeBy):
			return done, c.opError("write", os.ErrDeadlineExceeded)
		case h.broken:
			return done, c.opError("write", syscall.ECONNRESET)
		case h.gone && !back:
			return done, c.opError("write", syscall.EPIPE)
		case done == len(b):
			return done, nil
		case h.bytes < DefaultBuffer:
			n := min(len(b)-done, segmentBytes, DefaultBuffer-h.bytes)
			data := append([]byte(nil), b[done:done+n]...)
			h.segments = append(h.segments, segment{h.arrival(n), data})
			h.bytes += n
			done += n
			h.wake()
		default:
			h.wait(h.writeBy)
		}
	}
}

// Close ends the connection. The other end reads what was written, and then the end.
func (c *Conn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.closeLocked()
	return nil
}

func (c *Conn) closeLocked() {
	if c.closed {
		return
	}
	c.closed = true
	delete(c.net.conns, c)
	c.out.ended, c.out.endAt = true, c.out.arrival(0)
	c.in.gone = true
	c.in.segments, c.in.bytes = nil, 0
	c.out.wake()
	c.in.wake()
}

func (c *Conn) LocalAddr() net.Addr  { return c.local }
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return c.setDeadlines(&t, &t)
}

// SetReadDeadline has reads end then; the zero time is never.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(&t, nil) }

// SetWriteDeadline has writes end then; the zero time is never.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(nil, &t) }

func (c *Conn) setDeadlines(read, write *time.Time) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	if read != nil {
		c.in.readBy = *read
		c.in.wake()
	}
	if write != nil {
		c.out.writeBy = *write
		c.out.wake()
	}
	return nil
}
