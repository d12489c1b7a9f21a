package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/x/embedlog/kafka"
)

// serving are the servers that scripts run, by the directory of the script and name.
var serving sync.Map // to *served

type served struct {
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr bytes.Buffer
}

// serveScript are the commands of scripts about serve.
var serveScript = map[string]func(*testscript.TestScript, bool, []string){
	"serving": startServing, "stopped": endServing(syscall.SIGTERM), "interrupted": endServing(os.Interrupt), "killed": killServing,
	"get": getURL, "kafka": kafkaClient,
}

// startServing: serving NAME args... runs embedlog with args, waits until it is
// ready, and puts the addresses that it says into $NAME_kafka and $NAME_http.
func startServing(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: serving NAME args...")
	}
	path, err := exec.LookPath("embedlog")
	ts.Check(err)
	s := &served{cmd: exec.Command(path, args[1:]...)}
	s.cmd.Dir, s.cmd.Stderr = ts.MkAbs("."), &s.stderr
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "EMBEDLOG_DATA"} {
		s.cmd.Env = append(s.cmd.Env, name+"="+ts.Getenv(name))
	}
	out, err := s.cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(s.cmd.Start())
	ts.Defer(func() {
		s.cmd.Process.Kill() // it may have ended in order
		s.cmd.Wait()
	})
	s.stdout = bufio.NewReader(out)
	line, err := s.stdout.ReadBytes('\n')
	if err != nil {
		s.cmd.Wait()
		ts.Fatalf("it ended before it was ready: %s", s.stderr.String())
	}
	var r ready
	ts.Check(json.Unmarshal(line, &r))
	if !r.Ready || r.PID != s.cmd.Process.Pid || r.ClusterID == "" {
		ts.Fatalf("the ready line is %s", line)
	}
	ts.Setenv(args[0]+"_kafka", strings.Join(r.Kafka, ","))
	ts.Setenv(args[0]+"_http", r.HTTP)
	serving.Store(ts.MkAbs(args[0]), s)
}

// endServing: stopped NAME CODE sends a signal and wants the server to end with CODE,
// having printed nothing more on stdout.
func endServing(signal os.Signal) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		s := servedBy(ts, args)
		ts.Check(s.cmd.Process.Signal(signal))
		rest, err := io.ReadAll(s.stdout)
		ts.Check(err)
		if len(rest) > 0 {
			ts.Fatalf("more than one line on stdout: %q", rest)
		}
		s.cmd.Wait()
		if got := strconv.Itoa(s.cmd.ProcessState.ExitCode()); got != args[1] {
			ts.Fatalf("exit code %s, want %s: %s", got, args[1], s.stderr.String())
		}
		fmt.Fprint(ts.Stderr(), s.stderr.String())
	}
}

// killServing: killed NAME ends a server without a chance.
func killServing(ts *testscript.TestScript, neg bool, args []string) {
	s := servedBy(ts, args)
	ts.Check(s.cmd.Process.Kill())
	s.cmd.Wait()
}

func servedBy(ts *testscript.TestScript, args []string) *served {
	s, ok := serving.LoadAndDelete(ts.MkAbs(args[0]))
	if !ok {
		ts.Fatalf("%s does not run", args[0])
	}
	return s.(*served)
}

// getURL: get URL CODE prints what is there.
func getURL(ts *testscript.TestScript, neg bool, args []string) {
	resp, err := http.Get(args[0])
	ts.Check(err)
	defer resp.Body.Close()
	_, err = io.Copy(ts.Stdout(), resp.Body)
	ts.Check(err)
	if strconv.Itoa(resp.StatusCode) != args[1] {
		ts.Fatalf("%s, want %s", resp.Status, args[1])
	}
}

// kafkaClient is a client of Kafka's:
//
//	kafka ADDRESS produce TOPIC value...   makes the topic, if it is not there
//	kafka ADDRESS consume TOPIC N          prints N records
//	kafka ADDRESS waiting TOPIC            leaves a client that waits for records
func kafkaClient(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	ts.Defer(cancel)
	c, err := kgo.NewClient(kgo.SeedBrokers(args[0]), kgo.ConsumeTopics(args[2]), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ts.Check(err)
	switch args[1] {
	case "produce":
		defer c.Close()
		ts.Check(ensureTopic(ctx, c, args[2]))
		for _, v := range args[3:] {
			ts.Check(c.ProduceSync(ctx, &kgo.Record{Topic: args[2], Value: []byte(v)}).FirstErr())
		}
	case "consume":
		defer c.Close()
		n, err := strconv.Atoi(args[3])
		ts.Check(err)
		for n > 0 {
			fetched := c.PollFetches(ctx)
			ts.Check(fetched.Err())
			fetched.EachRecord(func(r *kgo.Record) {
				n--
				fmt.Fprintf(ts.Stdout(), "%s\n", r.Value)
			})
		}
	case "waiting":
		ts.Defer(c.Close)
		fetched := c.PollFetches(ctx) // what is there; from then on it waits in the background
		ts.Check(fetched.Err())
	default:
		ts.Fatalf("no such thing: %s", args[1])
	}
}

func ensureTopic(ctx context.Context, c *kgo.Client, name string) error {
	q := kmsg.NewPtrCreateTopicsRequest()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, -1, -1
	q.Topics = append(q.Topics, t)
	resp, err := q.RequestWith(ctx, c)
	if err != nil {
		return err
	}
	if err := kerr.ErrorForCode(resp.Topics[0].ErrorCode); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return err
	}
	return nil
}

// authority makes certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.cert, a.key, _ = a.make("authority", nil)
	return a
}

// make makes a certificate, signed by the authority or by itself.
func (a *authority) make(name string, by *authority) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	a.t.Helper()
	a.n++
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.n), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: by == nil, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key, der
}

// write puts a new certificate with its key into files.
func (a *authority) write(name, certFile, keyFile string) {
	a.t.Helper()
	_, key, der := a.make(name, a)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	writePEM(a.t, certFile, "CERTIFICATE", der)
	writePEM(a.t, keyFile, "PRIVATE KEY", secret)
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A listener's TLS asks for a certificate of the client, and takes up a renewed
// certificate of its own without a restart.
func TestListenerTLS(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	ca := newAuthority(t)
	writePEM(t, file("ca.pem"), "CERTIFICATE", ca.cert.Raw)
	ca.write("first", file("cert.pem"), file("key.pem"))
	ca.write("client", file("client.pem"), file("clientkey.pem"))
	l := &listenerConfig{cert: file("cert.pem"), key: file("key.pem"), ca: file("ca.pem")}
	config, err := l.tls()
	if err != nil {
		t.Fatal(err)
	}
	mine, err := tls.LoadX509KeyPair(file("client.pem"), file("clientkey.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	// connect returns the name of the server's certificate.
	connect := func(certs ...tls.Certificate) (string, error) {
		here, there := net.Pipe()
		defer here.Close()
		srv := tls.Server(there, config)
		failed := make(chan error, 1)
		go func() {
			failed <- srv.Handshake()
			there.Close()
		}()
		c := tls.Client(here, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", Certificates: certs})
		err := c.Handshake()
		if err != nil {
			return "", err
		}
		go io.Copy(io.Discard, c) // an alert, for who has no certificate
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName, <-failed
	}
	if name, err := connect(mine); err != nil || name != "first" {
		t.Fatalf("with a certificate: %q, %v", name, err)
	}
	if _, err := connect(); err == nil {
		t.Fatal("a client without a certificate got in")
	}
	later := time.Now().Add(time.Minute)
	ca.write("second", file("cert.pem"), file("key.pem"))
	for _, name := range []string{"cert.pem", "key.pem"} {
		if err := os.Chtimes(file(name), later, later); err != nil {
			t.Fatal(err)
		}
	}
	if name, err := connect(mine); err != nil || name != "second" {
		t.Fatalf("after it was renewed: %q, %v", name, err)
	}
	// Half of a renewal: the certificate before is good.
	if err := os.WriteFile(file("key.pem"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if name, err := connect(mine); err != nil || name != "second" {
		t.Fatalf("in the middle of a renewal: %q, %v", name, err)
	}
	for what, l := range map[string]*listenerConfig{
		"half":          {cert: file("cert.pem"), key: file("key.pem")},
		"no key":        {cert: file("cert.pem")},
		"only a CA":     {ca: file("ca.pem")},
		"no file":       {cert: file("none.pem"), key: file("key.pem")},
		"no CA":         {cert: file("client.pem"), key: file("clientkey.pem"), ca: file("none.pem")},
		"a CA of junk":  {cert: file("client.pem"), key: file("clientkey.pem"), ca: file("key.pem")},
		"another's key": {cert: file("client.pem"), key: file("cert.pem")},
	} {
		if _, err := l.tls(); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

// Who a client is, by its certificate or its password.
func TestListenerIdentifies(t *testing.T) {
	cert := &x509.Certificate{Subject: pkix.Name{CommonName: "alice", Organization: []string{"Example"}}}
	for _, row := range []struct {
		name string
		l    listenerConfig
		user string // of the certificate; empty: Kafka's default
		sasl bool
		bad  bool
	}{
		{name: "nothing said"},
		{name: "the whole name", l: listenerConfig{certUser: "dn", ca: "ca.pem"}},
		{name: "the common name", l: listenerConfig{certUser: "cn", ca: "ca.pem"}, user: "alice"},
		{name: "a password", l: listenerConfig{sasl: true, mechanisms: []string{"PLAIN"}, plainWithoutTLS: true, sessionLifetime: time.Hour}, sasl: true},
		{name: "no CA", l: listenerConfig{certUser: "cn"}, bad: true},
		{name: "another name", l: listenerConfig{certUser: "uid", ca: "ca.pem"}, bad: true},
		{name: "a lifetime of nothing", l: listenerConfig{sessionLifetime: time.Hour}, bad: true},
	} {
		var to kafka.Listener
		err := row.l.identify(&to)
		user := ""
		if to.CertificateUser != nil {
			user = to.CertificateUser(cert)
		}
		if (err != nil) != row.bad || user != row.user || (to.SASL != nil) != row.sasl {
			t.Errorf("%s: %v, user %q, SASL %+v", row.name, err, user, to.SASL)
		}
		if row.sasl && (to.SASL.SessionLifetime != time.Hour || !to.SASL.PlainWithoutTLS || len(to.SASL.Mechanisms) != 1) {
			t.Errorf("%s: %+v", row.name, to.SASL)
		}
	}
}

// Any file that there may be is refused or read, and what is printed reads as the same.
func FuzzServeConfig(f *testing.F) {
	f.Add([]byte("data = \"x\"\n[[kafka]]\nlisten = \"a:1\"\n[topic-defaults]\nretention.ms = 5\n\"a b\" = \"\\u0000\"\n[limits]\nidle-timeout = \"1s\""))
	f.Add([]byte("kafka = 1\ntopic-defaults = []\nlimits = 5\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var c serveConfig
		if c.parse(text) != nil {
			return
		}
		var once, twice bytes.Buffer
		if err := c.print(&once); err != nil {
			t.Fatal(err)
		}
		var again serveConfig
		if err := again.parse(once.Bytes()); err != nil {
			t.Fatalf("%v in\n%s", err, once.String())
		}
		if err := again.print(&twice); err != nil || once.String() != twice.String() {
			t.Fatalf("%v: printed\n%s\nand read and printed again\n%s", err, once.String(), twice.String())
		}
	})
}
