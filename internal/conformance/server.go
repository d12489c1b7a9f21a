package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/kafka"
)

// server is a database in a directory of its own with a listener.
type server struct {
	db    *embedlog.DB
	kafka *kafka.Server
	dir   string
}

// serve starts a server with these listeners. Records are acknowledged as a
// suite's authors expect of Kafka's defaults: when the process may die, not the power.
func serve(r *run, name string, o kafka.Options) (*server, error) {
	return serveWith(r, name, o, embedlog.Options{})
}

// serveWith is serve with more options of the database.
func serveWith(r *run, name string, o kafka.Options, d embedlog.Options) (*server, error) {
	dir, err := os.MkdirTemp(r.scratch, name+"-")
	if err != nil {
		return nil, err
	}
	d.Durability, d.AutoCreateTopics = embedlog.OS, true
	db, err := embedlog.Open(dir, &d)
	if err != nil {
		return nil, err
	}
	// All clients of a suite come from one address, some hundreds at once; Kafka has no
	// bound by default.
	o.Limits.Connections, o.Limits.ConnectionsPerIP = -1, -1
	// As in Kafka with an authorizer, ACLs can be made and are asked; who has no name may do everything.
	o.Authorizer = db.Authorizer(&embedlog.AuthorizerOptions{SuperUsers: []embedlog.Principal{kafka.Anonymous}})
	s, err := kafka.Serve(db, &o)
	if err != nil {
		db.Close()
		return nil, err
	}
	return &server{db: db, kafka: s, dir: dir}, nil
}

func (s *server) addr(i int) string { return s.kafka.Addrs()[i].String() }

// stop ends the server, and says whether everything in the database is whole.
func (s *server) stop() error {
	err := s.shut()
	if cerr := s.db.Close(); err == nil {
		err = cerr
	}
	return err
}

// shut is stop that leaves the database open.
func (s *server) shut() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := s.kafka.Shutdown(ctx)
	report, verr := s.db.Verify(ctx)
	if err == nil && verr != nil {
		err = fmt.Errorf("verify: %w", verr)
	}
	if err == nil && !report.OK() {
		err = fmt.Errorf("verify found damage: %v", report.Problems)
	}
	return err
}

// certificate makes a certificate for loopback that signs itself, and returns the
// file that clients trust.
func certificate(dir string) (tls.Certificate, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	path := filepath.Join(dir, "ca.pem")
	err = os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, path, err
}
