package kafka

import (
	"bufio"
	"errors"
	"net"
	"time"
)

const (
	// peerLook is how often the reader looks whether the peer is still there, while the
	// handler takes nothing from it.
	peerLook = time.Second
	// peerLookTime is how long it looks.
	peerLookTime = time.Millisecond
)

// pass gives a frame to the handler. When that is busy, and the reader as far ahead of
// it as it may be, nobody reads the socket: so it looks now and then whether the peer has
// gone, and what the handler waits for ends then. What was read is handled first.
func (c *conn) pass(f frame) error {
	select {
	case c.queue <- f:
		return nil
	default:
	}
	look := time.NewTimer(peerLook)
	defer look.Stop()
	var gone error
	for {
		select {
		case c.queue <- f:
			return gone
		case <-c.srv.life.Done():
			c.free(f)
			return net.ErrClosed
		case <-look.C:
			if gone = c.peerGone(); gone == nil {
				look.Reset(peerLook)
				continue
			}
			c.cancel()
		}
	}
}

// peerGone says that no more will come than what is buffered. It cannot say so where the
// peer has sent more than there is room for.
func (c *conn) peerGone() error {
	if err := c.setReadDeadline(time.Now().Add(peerLookTime)); err != nil {
		return nil // the server ends anyway
	}
	_, err := c.br.Peek(c.br.Buffered() + 1)
	var timeout net.Error
	if err == nil || errors.Is(err, bufio.ErrBufferFull) || errors.As(err, &timeout) && timeout.Timeout() {
		return nil
	}
	return err
}
