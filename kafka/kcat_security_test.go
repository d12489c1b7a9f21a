package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writePEM writes certificates, and a key after them if there is one, to a file.
func writePEM(t *testing.T, c tls.Certificate) string {
	t.Helper()
	var text []byte
	for _, der := range c.Certificate {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if c.PrivateKey != nil {
		der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	}
	file := filepath.Join(t.TempDir(), "x.pem")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// kcat (librdkafka) comes in by every mechanism, over TCP and TLS, and by certificate.
func TestKcatComesIn(t *testing.T) {
	if _, err := exec.LookPath("kcat"); err != nil {
		t.Skip("kcat is not installed: apt-get install kcat")
	}
	db := openMemory(t, nil)
	setUsers(t, db, "alice", "wonderland")
	createTopic(t, db, "orders", nil)
	ca := newAuthority(t)
	root := writePEM(t, tls.Certificate{Certificate: [][]byte{ca.cert.Raw}})
	mine := writePEM(t, ca.client(&pkix.Name{CommonName: "bob"}).Certificates[0])
	ssl := []string{"ssl.ca.location=" + root}
	login := func(mechanism, password string) []string {
		return []string{"sasl.mechanisms=" + mechanism, "sasl.username=alice", "sasl.password=" + password}
	}
	for _, row := range []struct {
		name     string
		listener int
		protocol string
		settings []string
		want     string // who it is; "" is that it is not let in
	}{
		{"PLAIN", 0, "SASL_PLAINTEXT", login("PLAIN", "wonderland"), "User:alice"},
		{"SCRAM-SHA-256", 0, "SASL_PLAINTEXT", login("SCRAM-SHA-256", "wonderland"), "User:alice"},
		{"SCRAM-SHA-512 over TLS", 1, "SASL_SSL", append(login("SCRAM-SHA-512", "wonderland"), ssl...), "User:alice"},
		{"PLAIN over TLS", 1, "SASL_SSL", append(login("PLAIN", "wonderland"), ssl...), "User:alice"},
		{"a certificate", 2, "SSL", append([]string{"ssl.certificate.location=" + mine, "ssl.key.location=" + mine}, ssl...), "User:CN=bob"},
		{"a wrong password", 0, "SASL_PLAINTEXT", login("SCRAM-SHA-256", "x"), ""},
		{"no login", 0, "PLAINTEXT", nil, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			who := &witness{} // of its own: what an earlier row's kcat asked last may still be served
			s := serve(t, db, Options{Authorizer: who, Listeners: []Listener{
				{Address: "127.0.0.1:0", Advertise: "localhost", SASL: &everyMechanism},
				{Address: "127.0.0.1:0", Advertise: "localhost", TLS: ca.server(), SASL: &SASL{}},
				{Address: "127.0.0.1:0", Advertise: "localhost", TLS: ca.mutual()},
			}})
			address := s.Addrs()[row.listener].String()
			args := []string{"-b", "localhost" + address[strings.LastIndexByte(address, ':'):], "-X", "security.protocol=" + row.protocol}
			for _, x := range row.settings {
				args = append(args, "-X", x)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			ask := append(args, "-L", "-t", "orders", "-m", "15")
			if row.want == "" {
				ask = append(args, "-L", "-t", "orders", "-m", "1") // librdkafka tries again until then
			}
			out, err := exec.CommandContext(ctx, "kcat", ask...).CombinedOutput()
			if got := who.took(); got != row.want || (err == nil) != (row.want != "") {
				t.Fatalf("asked as %q, want %q: %v\n%s", got, row.want, err, out)
			}
			if row.want == "" {
				return
			}
			produce := exec.CommandContext(ctx, "kcat", append(args, "-P", "-t", "orders")...)
			produce.Stdin = strings.NewReader("by " + row.name + "\n")
			if out, err := produce.CombinedOutput(); err != nil {
				t.Fatalf("produce: %v\n%s", err, out)
			}
			out, err = exec.CommandContext(ctx, "kcat", append(args, "-C", "-t", "orders", "-o", "-1", "-e", "-q")...).CombinedOutput()
			if strings.TrimSpace(string(out)) != "by "+row.name || err != nil {
				t.Fatalf("consume: %q, %v", out, err)
			}
		})
	}
}
