package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
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
	return l.SASL != nil || l.TLS != nil && l.TLS.ClientAuth == tls.RequireAndVerifyClientCert
}

// newAuthenticator is where a connection begins, after its TLS handshake. With SASL
// it is by SASL that a client says who it is, also when it has a certificate.
func (c *conn) newAuthenticator() (authenticator, error) {
	if c.listener.auth != nil {
		return c.listener.auth(c.nc), nil
	}
	if c.listener.SASL != nil {
		return newSASL(c), nil
	}
	if t, ok := c.nc.(*tls.Conn); ok {
		if state := t.ConnectionState(); len(state.VerifiedChains) > 0 {
			name, err := c.listener.nameOf(state.PeerCertificates[0])
			if err != nil {
				return nil, err
			}
			return known{Type: "User", Name: name}, nil
		}
	}
	return known(Anonymous), nil
}

// nameOf is the name of the user whose certificate it is. Kafka's default is the
// certificate's distinguished name.
func (l *Listener) nameOf(cert *x509.Certificate) (name string, err error) {
	if l.CertificateUser != nil {
		name = l.CertificateUser(cert)
	} else if name, err = distinguishedName(cert.RawSubject); err != nil {
		return "", err
	}
	if name == "" {
		return "", errNoName
	}
	return name, nil
}

var (
	errNoName = errors.New("the client's certificate names nobody")
	// errNotAuthenticated ends a connection that did not say who it is.
	errNotAuthenticated = errors.New("not authenticated")
)

// refusal is why a connection ends whose client has been told so.
func (c *conn) refusal() error {
	if s, ok := c.auth.(*saslAuth); ok && s.refused != nil {
		return fmt.Errorf("%w: %w", errNotAuthenticated, s.refused)
	}
	return nil
}
