package raftrepl

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// tlsPair is one configuration for both ends. What came from files is read again when they have changed: a
// connection that begins later uses what is there then, and those that are up go on.
type tlsPair struct {
	cluster string
	node    int32
	files   TLS // names of files; empty where texts were given

	mu      sync.Mutex
	config  *tls.Config
	ends    time.Time    // when the first of its certificates ends, this node's or the authority's
	stamps  [3]fileStamp // of the files that config is of
	refused string       // why the newest files are not used
	logger  *slog.Logger // nil until the node starts
}

// fileStamp tells that a file has changed.
type fileStamp struct {
	at   time.Time
	size int64
}

// newTLS checks the three parts together, so that a mistake is found before a peer finds it.
func newTLS(caPEM, certPEM, keyPEM []byte, cluster string, node int32) (*tlsPair, error) {
	p := &tlsPair{cluster: cluster, node: node}
	return p, p.set(caPEM, certPEM, keyPEM)
}

// set has p use other certificates, or returns why it cannot.
func (p *tlsPair) set(caPEM, certPEM, keyPEM []byte) error {
	cluster := p.cluster
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(caPEM) {
		return errors.New("CA: there is no certificate in it")
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return fmt.Errorf("certificate and key: %w", err)
	}
	named, err := nodeOfCertificate(pair.Leaf, cluster)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if named != p.node {
		return fmt.Errorf("certificate: it is of node %d, this is node %d", named, p.node)
	}
	if err := verifyPeer([]*x509.Certificate{pair.Leaf}, roots, cluster); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	p.ends = lastDay(caPEM, pair.Leaf)
	p.config = &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		ClientAuth:   tls.RequireAnyClientCert,
		// Peers are named by number, not by host: VerifyConnection checks chain and name on both ends.
		InsecureSkipVerify:     true,
		SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			return verifyPeer(s.PeerCertificates, roots, cluster)
		},
	}
	return nil
}

// lastDay is when a certificate, or all authorities that may have signed it, end.
func lastDay(caPEM []byte, leaf *x509.Certificate) time.Time {
	var authority time.Time
	for block, rest := pem.Decode(caPEM); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && leaf.CheckSignatureFrom(c) == nil && c.NotAfter.After(authority) {
			authority = c.NotAfter
		}
	}
	if authority.IsZero() || leaf.NotAfter.Before(authority) {
		return leaf.NotAfter
	}
	return authority
}

// names are the files that the parts come from, without what is in them.
func (t *TLS) names() TLS { return TLS{CAFile: t.CAFile, CertFile: t.CertFile, KeyFile: t.KeyFile} }

// look is when the files were changed; ok is false where not all parts are in files, or one is away.
func (t *TLS) look() (stamps [3]fileStamp, ok bool) {
	for i, name := range []string{t.CAFile, t.CertFile, t.KeyFile} {
		if name == "" {
			return stamps, false
		}
		info, err := os.Stat(name)
		if err != nil {
			return stamps, false
		}
		stamps[i] = fileStamp{info.ModTime(), info.Size()}
	}
	return stamps, true
}

// current is what a handshake that begins now uses. Files that do not hold together, as it is between the writing
// of one and of the next, or that would be refused at a start, are not used: what was there before is.
func (p *tlsPair) current() *tls.Config {
	p.mu.Lock()
	defer p.mu.Unlock()
	stamps, ok := p.files.look() // before they are read: what is written meanwhile is read the next time
	if !ok || stamps == p.stamps {
		return p.config
	}
	fresh := p.files
	err := fresh.read()
	if err == nil {
		err = p.set(fresh.CA, fresh.Cert, fresh.Key)
	}
	if err != nil {
		if text := err.Error(); text != p.refused && p.logger != nil {
			p.refused = text
			p.logger.Warn("files of certificates have changed, and are not used", "error", err)
		}
		return p.config
	}
	p.stamps, p.refused = stamps, ""
	if p.logger != nil {
		p.logger.Info("certificates were read again", "ends", day(p.ends))
	}
	return p.config
}

const (
	// certificateNear is how long before its end a certificate is warned of.
	certificateNear = 30 * 24 * time.Hour
	// certificateLook is how often that is looked at, and for files that have changed; certificateSay
	// how often it is logged.
	certificateLook = time.Hour
	certificateSay  = 24 * time.Hour
)

// watchCertificates warns some weeks before this node's certificate ends, until the node is closed.
func (n *Node) watchCertificates() {
	t := n.transport
	var said time.Time
	for {
		n.tls.current()
		if text := endsSoon(n.CertificateEnds(), time.Now()); text != "" && time.Since(said) >= certificateSay {
			n.logger.Warn("this node's certificate "+text, "file", n.cfg.TLS.CertFile)
			said = time.Now()
		}
		select {
		case <-time.After(certificateLook):
		case <-t.ctx.Done():
			return
		}
	}
}

// endsSoon says in words that a certificate ends soon, or has ended; empty while there is time.
func endsSoon(ends, now time.Time) string {
	switch left := ends.Sub(now); {
	case ends.IsZero() || left > certificateNear:
		return ""
	case left <= 0:
		return fmt.Sprintf("ended on %s: no new connection is made with it", day(ends))
	default:
		return fmt.Sprintf("ends on %s, in %d days", day(ends), int(left/(24*time.Hour)))
	}
}

// CertificateEnds implements engine.Certified.
func (n *Node) CertificateEnds() time.Time {
	if n.tls == nil {
		return time.Time{}
	}
	n.tls.current()
	n.tls.mu.Lock()
	defer n.tls.mu.Unlock()
	return n.tls.ends
}
