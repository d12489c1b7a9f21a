package raftrepl

import (
	"context"
	"net"
	"time"
)

// tcp is the network of a real machine.
type tcp struct{}

var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

func (tcp) Dial(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: keepAlive}
	c, err := d.DialContext(ctx, "tcp", address)
	if err == nil {
		limitUnsent(c)
	}
	return c, err
}

func (tcp) Listen(address string) (net.Listener, error) {
	c := net.ListenConfig{KeepAliveConfig: keepAlive}
	ln, err := c.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	return tcpListener{ln}, nil
}

type tcpListener struct{ net.Listener }

func (l tcpListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		limitUnsent(c)
	}
	return c, err
}

// unsentBytes is what the kernel keeps of a connection beyond what is on the wire: a heartbeat waits
// behind it.
const unsentBytes = 256 << 10
