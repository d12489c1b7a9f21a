package raftrepl

import (
	"bufio"
	"net"
	"sync"
)

// gatherConn is a connection below TLS, which reads and writes it a record of 16 KiB at a time: it
// has several of them go through one system call.
type gatherConn struct {
	net.Conn
	r *bufio.Reader

	mu  sync.Mutex
	on  bool
	buf []byte // written and not sent yet
}

// gatherBytes is what is sent at once.
const gatherBytes = 128 << 10

func newGatherConn(c net.Conn) *gatherConn {
	return &gatherConn{Conn: c, r: bufio.NewReaderSize(c, 64<<10)}
}

// gather begins to gather what is written, until then each Write is sent at once: a handshake waits
// for answers.
func (c *gatherConn) gather() {
	c.mu.Lock()
	c.on = true
	c.mu.Unlock()
}

// Read implements net.Conn.
func (c *gatherConn) Read(b []byte) (int, error) { return c.r.Read(b) }

// Write implements net.Conn. After an error the connection is of no use any more.
func (c *gatherConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.on {
		return c.Conn.Write(b)
	}
	if len(c.buf)+len(b) > gatherBytes {
		if err := c.flushLocked(); err != nil {
			return 0, err
		}
	}
	c.buf = append(c.buf, b...)
	return len(b), nil
}

// Flush implements gathering.
func (c *gatherConn) Flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flushLocked()
}

func (c *gatherConn) flushLocked() error {
	if len(c.buf) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.buf)
	c.buf = c.buf[:0]
	return err
}
