package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// tls is the listener's side of TLS, or nil where no certificate is named.
func (l *listenerConfig) tls() (*tls.Config, error) {
	switch {
	case l.cert == "" && l.key == "" && l.ca == "":
		return nil, nil
	case l.cert == "" || l.key == "":
		return nil, errors.New("tls-cert and tls-key belong together, and tls-client-ca needs both")
	}
	c := &certificate{certFile: l.cert, keyFile: l.key}
	if _, err := c.get(nil); err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}
	if l.ca == "" {
		return config, nil
	}
	pem, err := os.ReadFile(l.ca)
	if err != nil {
		return nil, fmt.Errorf("tls-client-ca: %w", err)
	}
	config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls-client-ca: %s holds no certificate", l.ca)
	}
	return config, nil
}

// certificate is a certificate in two files, which are read again when they have
// changed: certificates are renewed while the server runs.
type certificate struct {
	certFile, keyFile string

	mu     sync.Mutex
	have   *tls.Certificate
	stamps [2]time.Time // when the files were changed that have is of
}

// get returns the certificate. While the files do not hold together, which is so
// between the writing of one and of the other, it is the one before.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var stamps [2]time.Time
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return c.or(fmt.Errorf("certificate: %w", err))
		}
		stamps[i] = info.ModTime()
	}
	if c.have != nil && stamps == c.stamps {
		return c.have, nil
	}
	fresh, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return c.or(fmt.Errorf("certificate %s with key %s: %w", c.certFile, c.keyFile, err))
	}
	c.have, c.stamps = &fresh, stamps
	return c.have, nil
}

// or is the certificate that was read before, or else the error.
func (c *certificate) or(err error) (*tls.Certificate, error) {
	if c.have != nil {
		return c.have, nil
	}
	return nil, err
}
