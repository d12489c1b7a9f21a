package raftrepl

import (
	"net"

	"golang.org/x/sys/unix"
)

// limitUnsent bounds what waits in the kernel. Where it cannot, heartbeats wait longer.
func limitUnsent(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytes)
	})
}
