package main

import (
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/acl"
	"github.com/x/embedlog/kafka"
)

// identify has the listener find out who its clients are.
func (l *listenerConfig) identify(to *kafka.Listener) error {
	switch {
	case l.certUser != "" && l.certUser != "dn" && l.certUser != "cn":
		return fmt.Errorf("tls-user is dn or cn, not %q", l.certUser)
	case l.certUser != "" && l.ca == "":
		return errors.New("tls-user says who a client's certificate is: it needs tls-client-ca")
	case l.certUser == "cn": // dn is Kafka's default
		to.CertificateUser = func(c *x509.Certificate) string { return c.Subject.CommonName }
	}
	if !l.sasl {
		if l.mechanisms != nil || l.plainWithoutTLS || l.sessionLifetime != 0 {
			return errors.New("sasl-mechanisms, sasl-plain-without-tls and sasl-session-lifetime need sasl = true (--sasl)")
		}
		return nil
	}
	to.SASL = &kafka.SASL{Mechanisms: l.mechanisms, PlainWithoutTLS: l.plainWithoutTLS, SessionLifetime: l.sessionLifetime}
	return nil
}

// rules is how ACLs decide; nil lets everybody do everything.
func (c *serveConfig) rules() (*embedlog.AuthorizerOptions, error) {
	if !c.authorize {
		if c.superUsers != nil || c.everyoneIfNoACL {
			return nil, errors.New("super-users and everyone-if-no-acl need authorize = true (--authorize)")
		}
		return nil, nil
	}
	o := &embedlog.AuthorizerOptions{EveryoneIfNoACL: c.everyoneIfNoACL}
	var bad []error
	for _, s := range c.superUsers {
		p, err := acl.ParsePrincipal(s)
		if err != nil {
			bad = append(bad, fmt.Errorf("super-users: %w", err))
		}
		o.SuperUsers = append(o.SuperUsers, p)
	}
	return o, errors.Join(bad...)
}

// secure turns ACLs on, and warns of a listener that nobody can come in at.
func (s *server) secure(c *serveConfig, k *kafka.Options) error {
	o, err := c.rules()
	if err != nil {
		return err
	}
	if o != nil {
		k.Authorizer = s.db.Authorizer(o)
	}
	for i := range k.Listeners {
		if k.Listeners[i].SASL != nil && len(s.db.Users()) == 0 {
			s.logger.Warn("clients need a name and a password, and there is no user; `embedlog user create NAME` makes one", "listener", k.Listeners[i].Address)
		}
	}
	return nil
}
