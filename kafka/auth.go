package kafka

import (
	"crypto/tls"
	"net"
)

// authenticator is the state machine that finds out who a connection belongs to.
// The connection's handler alone calls it.
//
//	connected --SaslHandshake--> mechanism --SaslAuthenticate...--> authenticated
//	    |                                                                ^
//	    +------------ nothing asked for, or a client certificate --------+
type authenticator interface {
	// admits says whether a request with that API key may be parsed now. A request that
	// may not closes the connection.
	admits(key int16) bool
	// principal is who it is; ok is false as long as that is not known.
	principal() (p Principal, ok bool)
}

// known is a connection whose owner is known from the beginning.
type known Principal

func (k known) admits(key int16) bool { return true }

func (k known) principal() (Principal, bool) { return Principal(k), true }

// authenticates says whether the listener finds out who its clients are.
func (l *Listener) authenticates() bool {
	return l.TLS != nil && l.TLS.ClientAuth == tls.RequireAndVerifyClientCert
}

// newAuthenticator is where a connection begins, after its TLS handshake.
func (l *Listener) newAuthenticator(c net.Conn) authenticator {
	if t, ok := c.(*tls.Conn); ok {
		if state := t.ConnectionState(); len(state.VerifiedChains) > 0 {
			// Kafka's default names a client by its certificate's distinguished name.
			return known{Type: "User", Name: state.PeerCertificates[0].Subject.String()}
		}
	}
	return known(Anonymous)
}
