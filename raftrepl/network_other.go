//go:build !linux

package raftrepl

import "net"

// limitUnsent is for systems that bound what waits in the kernel by the send buffer alone.
func limitUnsent(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetWriteBuffer(unsentBytes)
	}
}
