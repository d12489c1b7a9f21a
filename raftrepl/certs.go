package raftrepl

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// How long certificates hold that are made here. A node says in its log when its own is near its end.
const (
	caLifetime   = 20 * 365 * 24 * time.Hour
	nodeLifetime = 2 * 365 * 24 * time.Hour
)

// CA is the authority of one cluster: whoever has its key can make a node of it. Nodes need the
// certificate alone.
type CA struct {
	cluster string
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
}

// NewCA makes an authority for a cluster of that name (letters, digits, '-' and '.', at most 63).
func NewCA(cluster string) (*CA, error) {
	if err := checkCluster(cluster); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "embedlog cluster " + cluster},
		URIs:      []*url.URL{{Scheme: "embedlog", Host: cluster}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(caLifetime),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &CA{cluster: cluster, cert: cert, key: key}, nil
}

// LoadCA reads what CertPEM and KeyPEM returned.
func LoadCA(certPEM, keyPEM []byte) (*CA, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA || len(pair.Leaf.URIs) != 1 || pair.Leaf.URIs[0].Scheme != "embedlog" {
		return nil, errors.New("certificate authority: it was not made by NewCA")
	}
	return &CA{cluster: pair.Leaf.URIs[0].Host, cert: pair.Leaf, key: key}, nil
}

// Cluster is the cluster's name.
func (c *CA) Cluster() string { return c.cluster }

// CertPEM is the certificate that every node has.
func (c *CA) CertPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})
}

// KeyPEM is the secret of the cluster.
func (c *CA) KeyPEM() ([]byte, error) { return keyPEM(c.key) }

// Issue makes a certificate and key for a node. It holds two years; another one may be issued at
// any time, and the old one works to its end.
func (c *CA) Issue(node int32) (cert, key []byte, err error) {
	if node < 1 {
		return nil, nil, fmt.Errorf("node %d: nodes are numbered from 1", node)
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: fmt.Sprintf("embedlog node %d of %s", node, c.cluster)},
		URIs:      []*url.URL{nodeURI(c.cluster, node)},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(nodeLifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, &k.PublicKey, c.key)
	if err != nil {
		return nil, nil, err
	}
	key, err = keyPEM(k)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key, err
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return n
}

func keyPEM(k *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func nodeURI(cluster string, node int32) *url.URL {
	return &url.URL{Scheme: "embedlog", Host: cluster, Path: "/node/" + strconv.Itoa(int(node))}
}

func checkCluster(name string) error {
	if name == "" || len(name) > 63 {
		return fmt.Errorf("cluster name %.70q: it has 1 to 63 characters", name)
	}
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return fmt.Errorf("cluster name %q: letters, digits, '-' and '.' are allowed", name)
		}
	}
	return nil
}

// nodeOfCertificate is whose a certificate is, as a member of the cluster: the node in its URI
// embedlog://CLUSTER/node/N.
func nodeOfCertificate(c *x509.Certificate, cluster string) (int32, error) {
	for _, u := range c.URIs {
		n, ok := strings.CutPrefix(u.Path, "/node/")
		if u.Scheme != "embedlog" || !ok {
			continue
		}
		if u.Host != cluster {
			return 0, fmt.Errorf("its certificate is of cluster %q, not of %q", u.Host, cluster)
		}
		node, err := strconv.ParseInt(n, 10, 32)
		if err != nil || node < 1 || strconv.FormatInt(node, 10) != n {
			return 0, fmt.Errorf("its certificate is of %s, which is no node", u)
		}
		return int32(node), nil
	}
	return 0, errors.New("its certificate is not a node's: it has no URI embedlog://CLUSTER/node/NUMBER")
}

func verifyPeer(chain []*x509.Certificate, roots *x509.CertPool, cluster string) error {
	if len(chain) == 0 {
		return errors.New("it shows no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{usage}})
		if err != nil {
			return outOfTime(err)
		}
	}
	_, err := nodeOfCertificate(chain[0], cluster)
	return err
}

// outOfTime says in short of a certificate that is not valid now, which is what most often goes wrong.
func outOfTime(err error) error {
	invalid := new(x509.CertificateInvalidError)
	if !errors.As(err, invalid) || invalid.Reason != x509.Expired {
		return err
	}
	whose := "it"
	if invalid.Cert.IsCA {
		whose = "its authority's certificate"
	}
	if now := time.Now(); now.Before(invalid.Cert.NotBefore) {
		return fmt.Errorf("%s begins on %s, and the clock here says %s", whose, day(invalid.Cert.NotBefore), now.UTC().Format(time.RFC3339))
	}
	return fmt.Errorf("%s ended on %s", whose, day(invalid.Cert.NotAfter))
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
