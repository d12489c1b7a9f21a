package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	embedlog "github.com/x/embedlog"
)

// DefaultPort is the port of an address that says none.
const DefaultPort = 9092

// Options are what Serve takes. They are copied.
type Options struct {
	// Listeners are where the server listens: at least one.
	Listeners []Listener
	// AllowInsecure lets listeners outside of loopback go without TLS or without
	// authentication: whoever reaches the address may then read and write everything.
	AllowInsecure bool
	// Authorizer decides what a principal may do. Nil allows everything.
	Authorizer Authorizer
	// Throttler says how long clients are to wait for the bytes they move. Nil holds them
	// to the database's quotas, see embedlog.DB.AlterQuota.
	Throttler Throttler
	// Limits bound what clients can take. The zero value is the defaults.
	Limits Limits
	// Logger is told of connections that were closed for a fault. Nil is silent.
	Logger *slog.Logger
}

// Listener is one address that the server listens on.
type Listener struct {
	// Address is host:port. Without a host it is 127.0.0.1, without a port DefaultPort;
	// port 0 is any that is free: see Server.Addrs.
	Address string
	// Advertise is the host:port that clients are told to connect to. Empty is the
	// address listened on; port 0, or none, is the port listened on.
	Advertise string
	// TLS is the server's side of TLS; nil is plain TCP. With ClientAuth
	// RequireAndVerifyClientCert the client's certificate authenticates it.
	TLS *tls.Config
	// CertificateUser is the name of the user whose certificate it is; an empty one
	// closes the connection. Nil is Kafka's default, the distinguished name as in RFC
	// 2253: CN=alice,OU=billing,O=Example. (ssl.principal.mapping.rules)
	CertificateUser func(*x509.Certificate) string
	// SASL has clients authenticate by name and password. Nil does not.
	SASL *SASL
}

// Limits bound what clients can take. A zero field is its default.
type Limits struct {
	// FrameBytes bounds a request. Zero means 100 MiB. (socket.request.max.bytes)
	FrameBytes int
	// HandshakeFrameBytes bounds a request before the connection is authenticated.
	// Zero means 1 MiB.
	HandshakeFrameBytes int
	// Connections bounds the connections of all listeners together. Zero means 1000,
	// negative no bound. (max.connections)
	Connections int
	// ConnectionsPerIP bounds those from one address. Zero means 256, negative no
	// bound. (max.connections.per.ip)
	ConnectionsPerIP int
	// MemoryBytes bounds the requests, and what was read to answer them, of all
	// connections together. Zero means 256 MiB, or FrameBytes where that is more.
	// (queued.max.request.bytes)
	MemoryBytes int64
	// ConnectionMemoryBytes bounds the requests that were read of each connection, and
	// what one becomes when it is decoded. Zero means FrameBytes, or 16 MiB where that
	// is more.
	ConnectionMemoryBytes int64
	// FetchBytes bounds the records of one fetch. Zero means 55 MiB. (fetch.max.bytes)
	FetchBytes int
	// IdleTimeout is after what time without a request a connection is closed. Zero
	// means 10 minutes. (connections.max.idle.ms)
	IdleTimeout time.Duration
	// FrameTimeout is how long a peer may take for a request that has begun, and for
	// taking an answer, besides a second for each MiB. Zero means 30 s.
	FrameTimeout time.Duration
}

const (
	defaultFrameBytes            = 100 << 20
	defaultHandshakeFrameBytes   = 1 << 20
	defaultConnections           = 1000
	defaultConnectionsPerIP      = 256
	defaultMemoryBytes           = 256 << 20
	defaultConnectionMemoryBytes = 16 << 20
	defaultFetchBytes            = 55 << 20
	defaultIdleTimeout           = 10 * time.Minute
	defaultFrameTimeout          = 30 * time.Second
)

// withDefaults fills in what is zero, and reports every field that makes no sense.
func (l Limits) withDefaults() (Limits, error) {
	var bad []error
	invalid := func(name string, value any, reason string) {
		bad = append(bad, &embedlog.InvalidSettingError{Name: "Limits." + name, Value: fmt.Sprint(value), Reason: reason})
	}
	for _, f := range []struct {
		name string
		at   *int
		def  int
	}{
		{"FrameBytes", &l.FrameBytes, defaultFrameBytes},
		{"HandshakeFrameBytes", &l.HandshakeFrameBytes, defaultHandshakeFrameBytes},
		{"FetchBytes", &l.FetchBytes, defaultFetchBytes},
	} {
		switch {
		case *f.at < 0 || *f.at > 1<<30:
			invalid(f.name, *f.at, "must be between 0 and 1 GiB")
		case *f.at == 0:
			*f.at = f.def
		}
	}
	for _, f := range []struct {
		name string
		at   *time.Duration
		def  time.Duration
	}{
		{"IdleTimeout", &l.IdleTimeout, defaultIdleTimeout},
		{"FrameTimeout", &l.FrameTimeout, defaultFrameTimeout},
	} {
		switch {
		case *f.at < 0:
			invalid(f.name, *f.at, "must not be negative")
		case *f.at == 0:
			*f.at = f.def
		}
	}
	if l.Connections == 0 {
		l.Connections = defaultConnections
	}
	if l.ConnectionsPerIP == 0 {
		l.ConnectionsPerIP = defaultConnectionsPerIP
	}
	if l.MemoryBytes == 0 {
		l.MemoryBytes = max(defaultMemoryBytes, int64(l.FrameBytes))
	}
	if l.ConnectionMemoryBytes == 0 {
		l.ConnectionMemoryBytes = max(defaultConnectionMemoryBytes, int64(l.FrameBytes))
	}
	if l.MemoryBytes < int64(l.FrameBytes) {
		invalid("MemoryBytes", l.MemoryBytes, "must be at least FrameBytes, or the largest request could never be read")
	}
	if l.ConnectionMemoryBytes < int64(l.FrameBytes) {
		invalid("ConnectionMemoryBytes", l.ConnectionMemoryBytes, "must be at least FrameBytes, or the largest request could never be read")
	}
	return l, errors.Join(bad...)
}

// endpoint is a host and port that clients are told.
type endpoint struct {
	host string
	port int32
}

func (e endpoint) String() string { return net.JoinHostPort(e.host, strconv.Itoa(int(e.port))) }

// splitAddress takes an address apart; what it does not say is empty and -1.
func splitAddress(address string) (host string, port int, err error) {
	if address == "" {
		return "", -1, nil
	}
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		// It may have no port: "host", "::1" or "[::1]".
		if host, text, err = net.SplitHostPort(net.JoinHostPort(trimBrackets(address), "")); err != nil {
			return "", 0, err
		}
	}
	if strings.Contains(host, ":") {
		if _, err := netip.ParseAddr(host); err != nil {
			return "", 0, fmt.Errorf("%q is no host and port", address)
		}
	}
	if text == "" {
		return host, -1, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q is no number up to 65535", text)
	}
	return host, int(n), nil
}

func trimBrackets(s string) string {
	if len(s) >= 2 && s[0] == '[' && s[len(s)-1] == ']' {
		return s[1 : len(s)-1]
	}
	return s
}

// bindAddress is what the listener binds, and whether it is loopback alone.
func (l *Listener) bindAddress() (address string, loopback bool, err error) {
	host, port, err := splitAddress(l.Address)
	if err != nil {
		return "", false, err
	}
	if host == "" {
		host = "127.0.0.1"
	}
	if port < 0 {
		port = DefaultPort
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), isLoopback(host), nil
}

// isLoopback judges the text: a name that resolves to loopback today may resolve to
// something else tomorrow.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// check says what is wrong with the listener.
func (l *Listener) check(i int, allowInsecure bool) error {
	invalid := func(field, value, reason string) error {
		return &embedlog.InvalidSettingError{Name: fmt.Sprintf("Listeners[%d].%s", i, field), Value: value, Reason: reason}
	}
	_, loopback, err := l.bindAddress()
	if err != nil {
		return invalid("Address", l.Address, err.Error())
	}
	if _, _, err := splitAddress(l.Advertise); err != nil {
		return invalid("Advertise", l.Advertise, err.Error())
	}
	if err := l.SASL.check(i, l); err != nil {
		return err
	}
	if l.TLS != nil && len(l.TLS.Certificates) == 0 && l.TLS.GetCertificate == nil && l.TLS.GetConfigForClient == nil {
		return invalid("TLS", "", "has no certificate")
	}
	if loopback || allowInsecure {
		return nil
	}
	if l.TLS == nil || !l.authenticates() {
		return invalid("Address", l.Address, "is not loopback: it needs TLS and authentication, or AllowInsecure")
	}
	return nil
}
