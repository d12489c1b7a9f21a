package kafka

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// certificate makes a certificate for loopback that is its own authority.
func certificate(t testing.TB, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: []string{"embedlog"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}

// With TLS a client's certificate says who it is, large records pass, and who has
// none or speaks no TLS does not get in.
func TestTLS(t *testing.T) {
	server, serverPool := certificate(t, "server")
	ann, annPool := certificate(t, "ann")
	db := openMemory(t, nil)
	createTopic(t, db, "orders", nil)
	auth := &rules{}
	for _, name := range []string{"orders"} {
		for _, op := range []Operation{OpRead, OpWrite, OpDescribe} {
			auth.allowed = append(auth.allowed, rule(op, ResourceTopic, name))
		}
	}
	s := serve(t, db, Options{
		Authorizer: auth,
		Listeners: []Listener{{Address: "127.0.0.1:0", TLS: &tls.Config{
			Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: annPool,
		}}},
	})
	dialer := &tls.Config{RootCAs: serverPool, Certificates: []tls.Certificate{ann}}
	c := client(t, s, kgo.DialTLSConfig(dialer), kgo.ConsumeTopics("orders"), kgo.DefaultProduceTopic("orders"))
	for _, size := range []int{10, 5000, 900_000} {
		mustProduce(t, c, &kgo.Record{Value: []byte(strings.Repeat("a", size))})
	}
	if recs := consume(t, c, 3); len(recs[2].Value) != 900_000 || len(recs[1].Value) != 5000 {
		t.Errorf("read %d and %d bytes", len(recs[1].Value), len(recs[2].Value))
	}
	auth.mu.Lock()
	if who := "User:CN=ann,O=embedlog "; !slices.ContainsFunc(auth.asked, func(a string) bool { return strings.HasPrefix(a, who) }) {
		t.Errorf("asked for %q, want %q", auth.asked[0], who)
	}
	auth.mu.Unlock()

	plain, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	x := &raw{t: t, c: plain}
	x.send(apiVersionsRequest(3))
	if _, err := x.tryRecv(apiVersionsRequest(3), 1); err == nil {
		t.Error("who speaks no TLS is answered")
	}
	stranger, err := tls.Dial("tcp", s.Addrs()[0].String(), &tls.Config{RootCAs: serverPool, ServerName: "127.0.0.1"})
	if err == nil { // TLS 1.3: the server's refusal comes with the first read
		defer stranger.Close()
		x := &raw{t: t, c: stranger}
		stranger.SetDeadline(time.Now().Add(20 * time.Second))
		stranger.Write(framed(header(18, 0, 1)))
		if _, err := x.tryRecv(apiVersionsRequest(0), 1); err == nil {
			t.Error("who has no certificate is answered")
		}
	}
}
