package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/sock"
	"github.com/x/embedlog/kafka"
)

// keyPair is a certificate of the authority's.
func (a *authority) keyPair(name string) tls.Certificate {
	var key *ecdsa.PrivateKey
	cert, key, der := a.make(name, a)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Who may come in comes in; who may not, or calls at the wrong port, is told in one
// sentence what to do about it.
func TestAddressSecurity(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	ca, other := newAuthority(t), newAuthority(t)
	writePEM(t, file("ca.pem"), "CERTIFICATE", ca.cert.Raw)
	writePEM(t, file("other.pem"), "CERTIFICATE", other.cert.Raw)
	ca.write("alice", file("cert.pem"), file("key.pem"))
	for name, text := range map[string]string{"good": "wonderland\r\nrest", "bad": "looking-glass\n", "empty": "\n", "junk.pem": "junk"} {
		if err := os.WriteFile(file(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	db, err := embedlog.OpenMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.SetUser(t.Context(), "alice", "wonderland"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.CreateTopic(t.Context(), "orders", nil); err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{ca.keyPair("server")}}
	mutual := config.Clone()
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, ca.pool()
	at := make(map[string]string)
	listeners := map[string]kafka.Listener{
		"plain": {}, "tls": {TLS: config}, "mtls": {TLS: mutual}, "sasl": {SASL: &kafka.SASL{}}, "sasl+tls": {TLS: config, SASL: &kafka.SASL{}},
		"256": {SASL: &kafka.SASL{Mechanisms: []string{kafka.ScramSHA256}}}, "elsewhere": {Advertise: "127.0.0.1:1"},
		"named": {TLS: &tls.Config{Certificates: []tls.Certificate{other.keyPair("server")}}},
	}
	for name, l := range listeners {
		l.Address = "127.0.0.1:0"
		s, err := kafka.Serve(db, &kafka.Options{Listeners: []kafka.Listener{l}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Shutdown(context.Background())
		at[name] = s.Addrs()[0].String()
	}
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at["nobody"] = nobody.Addr().String()
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	at["localhost"] = strings.Replace(at["tls"], "127.0.0.1", "localhost", 1)
	alice := "--user alice --password-file " + file("good")
	mine := " --tls-cert " + file("cert.pem") + " --tls-key " + file("key.pem")
	trust := "--tls-ca " + file("ca.pem")
	for _, row := range []struct {
		name, at, flags string
		env             string // the password
		code            int
		says            string
	}{
		{name: "plain", at: "plain"},
		{name: "TLS", at: "tls", flags: trust},
		{name: "TLS without looking", at: "tls", flags: "--tls-skip-verify"},
		{name: "own certificate", at: "mtls", flags: trust + mine},
		{name: "password of a file", at: "sasl", flags: alice},
		{name: "password of the environment", at: "sasl", flags: "--user alice", env: "wonderland"},
		{name: "the file is stronger", at: "sasl", flags: alice, env: "other"},
		{name: "SCRAM-SHA-256", at: "sasl", flags: alice + " --mechanism scram-sha-256"},
		{name: "what the listener takes", at: "256", flags: alice},
		{name: "PLAIN over TLS", at: "sasl+tls", flags: trust + " --mechanism PLAIN " + alice},

		{name: "nobody there", at: "nobody", code: 1, says: "nothing listens there (connection refused); --address is the HOST:PORT of a Kafka listener that runs"},
		{name: "advertised elsewhere", at: "elsewhere", code: 1, says: "tells its clients to connect there, see its advertised address"},
		{name: "TLS to a plain port", at: "plain", flags: "--tls", code: 1, says: "does not speak TLS; leave out --tls"},
		{name: "plain to a TLS port", at: "tls", code: 1, says: "it speaks TLS; add --tls"},
		{name: "plain and a password to a TLS port", at: "sasl+tls", flags: alice, code: 1, says: "it speaks TLS; add --tls"},
		{name: "nobody's CA", at: "tls", flags: "--tls", code: 1, says: "authority that is not trusted here; --tls-ca FILE"},
		{name: "another CA", at: "tls", flags: "--tls-ca " + file("other.pem"), code: 1, says: "authority that is not trusted here; --tls-ca FILE"},
		{name: "another name", at: "localhost", flags: trust, code: 1, says: "is not one for localhost"},
		{name: "no certificate", at: "mtls", flags: trust, code: 1, says: "it may want a certificate that it knows: --tls-cert and --tls-key"},
		{name: "wrong password", at: "sasl", flags: "--user alice --password-file " + file("bad"), code: 1, says: "the password of alice is not the right one, or there is no such user"},
		{name: "unknown user", at: "sasl", flags: "--user bob", env: "wonderland", code: 1, says: "the password of bob is not the right one, or there is no such user"},
		{name: "wrong password by PLAIN", at: "sasl+tls", flags: trust + " --mechanism PLAIN --user alice", env: "x", code: 1, says: "the password of alice is not the right one"},
		{name: "no password", at: "sasl", code: 1, says: "it may want a password (--user NAME)"},
		{name: "password where none is asked", at: "plain", flags: alice, code: 1, says: "leave out --user"},
		{name: "a mechanism that is not taken", at: "256", flags: alice + " --mechanism SCRAM-SHA-512", code: 1, says: "it does not take SCRAM-SHA-512; try another --mechanism"},

		{name: "PLAIN in the clear", at: "sasl", flags: alice + " --mechanism PLAIN", code: 2, says: "it needs --tls, or --plain-without-tls"},
		{name: "no such mechanism", at: "sasl", flags: alice + " --mechanism GSSAPI", code: 2, says: "not \"GSSAPI\""},
		{name: "half a certificate", at: "mtls", flags: "--tls-cert " + file("cert.pem"), code: 2, says: "--tls-cert and --tls-key belong together"},
		{name: "no such CA file", at: "tls", flags: "--tls-ca " + file("none.pem"), code: 2, says: "none.pem"},
		{name: "a CA file of junk", at: "tls", flags: "--tls-ca " + file("junk.pem"), code: 2, says: "holds no certificate"},
		{name: "a certificate of junk", at: "tls", flags: "--tls-cert " + file("junk.pem") + " --tls-key " + file("key.pem"), code: 2, says: "junk.pem"},
		{name: "no such password file", at: "sasl", flags: "--user alice --password-file " + file("none"), code: 2, says: "--password-file"},
		{name: "an empty password", at: "sasl", flags: "--user alice --password-file " + file("empty"), code: 2, says: "the password of alice is empty"},
		{name: "a password of nobody", at: "sasl", flags: "--password-file " + file("good"), code: 2, says: "go with --user NAME"},
		{name: "a CA that is not looked at", at: "tls", flags: trust + " --tls-skip-verify", code: 2, says: "looks at no CA"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.env != "" {
				t.Setenv(passwordVariable, row.env)
			}
			r := runHere(t, "", strings.Fields("topic list --address "+at[row.at]+" "+row.flags)...)
			switch {
			case r.code != row.code || !strings.Contains(r.stderr, row.says):
				t.Errorf("exit code %d, want %d; %q, want %q", r.code, row.code, r.stderr, row.says)
			case row.code == 0 && !strings.Contains(r.stdout, "orders"):
				t.Errorf("printed %q", r.stdout)
			case strings.Count(r.stderr, "\n") > 1:
				t.Errorf("more than a sentence: %s", r.stderr)
			case strings.Contains(r.stderr, "wonderland"):
				t.Errorf("it tells the password: %s", r.stderr)
			}
		})
	}
}

// What is said of the database must go together.
func TestAddressFlags(t *testing.T) {
	for _, row := range []struct{ line, env, says string }{
		{"topic list --address h --data d", "", "--data and --address both say where the database is; give one"},
		{"topic list --tls", "", "--tls goes with --address HOST:PORT"},
		{"topic list --user alice", "", "--user goes with --address HOST:PORT"},
		{"topic list --address=", "", "--address is empty"},
		{"topic list --address h:port", "", `an address is HOST:PORT or HOST, not "h:port"`},
		{"topic list --address h:1:2", "", "an address is HOST:PORT or HOST"},
		{"topic list --address http://h:9092", "", "an address is HOST:PORT or HOST"},
		{"dump orders/0", "h:1", "dump works on the files of a database: give --data DIR, not --address"},
		{"consume orders --skip-damage --address h:1", "", "give --data DIR, not --address"},
		{"serve --address h:1", "", "--kafka HOST:PORT says where"},
	} {
		t.Setenv("EMBEDLOG_ADDRESS", row.env)
		r := runHere(t, "", strings.Fields(row.line)...)
		if r.code != exitUsage || !strings.Contains(r.stderr, row.says) {
			t.Errorf("%s: exit code %d, %q, want %q", row.line, r.code, r.stderr, row.says)
		}
	}
	for text, want := range map[string]string{
		"h": "h:9092", "h:1": "h:1", ":1": "localhost:1", "::1": "[::1]:9092", "[::1]": "[::1]:9092", "[::1]:7": "[::1]:7",
	} {
		if got, err := withPort(text); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
	// Where --data is given the environment does not count.
	t.Setenv("EMBEDLOG_ADDRESS", "127.0.0.1:1")
	if r := runHere(t, "", "topic", "create", "orders", "--data", filepath.Join(t.TempDir(), "d")); r.code != 0 {
		t.Errorf("--data beside EMBEDLOG_ADDRESS: exit code %d, %s", r.code, r.stderr)
	}
}

// The shell completes topics and groups over an address, too; where it would have to
// ask for a password it offers nothing.
func TestAddressCompletes(t *testing.T) {
	db, address := serveKafka(t, t.TempDir(), kafka.Listener{Address: "127.0.0.1:0"}, "")
	for _, name := range []string{"orders", "prices"} {
		if _, err := db.CreateTopic(t.Context(), name, nil); err != nil {
			t.Fatal(err)
		}
	}
	if r := runHere(t, "", "consume", "orders", "-g", "billing", "-e", "--address", address); r.code != 0 {
		t.Fatal(r)
	}
	for _, row := range []struct{ line, want string }{
		{"topic describe --address ADDRESS {}", "orders\nprices\n:4\n"},
		{"topic describe --address ADDRESS orders {}", "prices\n:4\n"},
		{"group describe --address ADDRESS {}", "billing\n:4\n"},
		{"topic describe --address ADDRESS --user alice {}", ":4\n"},
		{"topic describe --address 127.0.0.1:1 {}", ":4\n"},
		{"topic list --mechanism {}", "SCRAM-SHA-512\nSCRAM-SHA-256\nPLAIN\n:4\n"},
	} {
		args := append([]string{"__complete"}, fields(strings.ReplaceAll(row.line, "ADDRESS", address))...)
		if r := runHere(t, "", args...); r.code != 0 || r.stdout != row.want {
			t.Errorf("%s: exit code %d, %q, want %q", row.line, r.code, r.stdout, row.want)
		}
	}
}

// A user without rights is told who says what he may; nothing of what he asked is done.
func TestAddressWithoutRights(t *testing.T) {
	db, address := serveKafka(t, t.TempDir(), kafka.Listener{Address: "127.0.0.1:0", SASL: &kafka.SASL{}}, "admin")
	if err := db.SetUser(t.Context(), "bob", "builder"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.CreateTopic(t.Context(), "orders", nil); err != nil {
		t.Fatal(err)
	}
	t.Setenv(passwordVariable, "builder")
	for _, row := range []struct{ line, says string }{
		{"topic create mine", "AUTHORIZATION_FAILED"},
		{"topic describe orders", "AUTHORIZATION_FAILED"},
		{"topic delete orders", "AUTHORIZATION_FAILED"},
		{"produce orders", "AUTHORIZATION_FAILED"},
		{"consume orders -e -o start", "AUTHORIZATION_FAILED"},
		{"consume orders -e -g billing", "AUTHORIZATION_FAILED"},
		{"group describe billing", "AUTHORIZATION_FAILED"},
		{"user list", "AUTHORIZATION_FAILED"},
		{"acl list", "AUTHORIZATION_FAILED"},
	} {
		r := runHere(t, "x\n", append(strings.Fields(row.line), "--yes", "--address", address, "--user", "bob")...)
		if r.code != exitFailure || !strings.Contains(r.stderr, row.says) || !strings.Contains(r.stderr, "bob may not do that") {
			t.Errorf("%s: exit code %d, %s", row.line, r.code, r.stderr)
		}
	}
	if _, err := db.Topic("orders"); err != nil {
		t.Error(err)
	}
}

// A consumer that waits ends by an interrupt, has committed what it printed, and has
// left its group; one whose listener ends says so and waits.
func TestAddressInterrupt(t *testing.T) {
	db, address := serveKafka(t, t.TempDir(), kafka.Listener{Address: "127.0.0.1:0"}, "")
	orders, err := db.CreateTopic(t.Context(), "orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := orders.Produce(t.Context(), embedlog.Record{Value: []byte("one")}, embedlog.Record{Value: []byte("two")}); err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	out := &signalled{want: "two", done: interrupt}
	a := &app{stdin: strings.NewReader(""), stdout: out, stderr: new(strings.Builder)}
	err = a.execute(ctx, []string{"consume", "orders", "-g", "billing", "--address", address})
	if code := exitCode(err); code != exitInterrupted {
		t.Fatalf("exit code %d: %v", code, err)
	}
	r := runHere(t, "", "group", "describe", "billing", "--address", address)
	if !strings.Contains(r.stdout, "billing  orders          0               2               2    0  -") {
		t.Errorf("afterwards the group is\n%s", r.stdout)
	}
}

// A topic that is deleted below a consumer ends it, instead of a wait for ever.
func TestAddressTopicDeleted(t *testing.T) {
	for _, how := range []string{"-o start", "-g billing"} {
		db, address := serveKafka(t, t.TempDir(), kafka.Listener{Address: "127.0.0.1:0"}, "")
		orders, err := db.CreateTopic(t.Context(), "orders", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := orders.Produce(t.Context(), embedlog.Record{Value: []byte("one")}); err != nil {
			t.Fatal(err)
		}
		out := &signalled{want: "one", done: func() { _ = db.DeleteTopic(context.Background(), "orders") }}
		a := &app{stdin: strings.NewReader(""), stdout: out, stderr: new(strings.Builder)}
		err = a.execute(t.Context(), append([]string{"consume", "orders", "--address", address}, strings.Fields(how)...))
		if exitCode(err) != exitNotFound || !strings.Contains(err.Error(), `topic "orders" was deleted`) {
			t.Errorf("%s: exit code %d, %v", how, exitCode(err), err)
		}
	}
}

// A group that has not answered yet is not at its end: brokers let a new one wait for
// more members, Kafka for three seconds.
func TestAddressLagBeforeTheGroupAnswers(t *testing.T) {
	c := &kafkaConsumer{spec: sock.Consumer{Group: "billing"}}
	k := &kafkaDoor{consumer: c}
	lag := func() int64 {
		t.Helper()
		l, err := k.lag(t.Context(), none{})
		if err != nil || l.Assigned != 0 {
			t.Fatal(l, err)
		}
		return l.Records
	}
	for range 3 * settle {
		if n := lag(); n != -1 {
			t.Fatalf("%d before it has joined, want -1", n)
		}
	}
	c.assigned(nil)
	for i := range settle {
		if n := lag(); n != -1 {
			t.Fatalf("%d when asked %d times after it has joined, want -1", n, i)
		}
	}
	if n := lag(); n != 0 {
		t.Errorf("%d with more members than partitions, want 0", n)
	}
}

// signalled is an output that says when it holds a text.
type signalled struct {
	text strings.Builder
	want string
	done func()
}

func (s *signalled) Write(b []byte) (int, error) {
	n, err := s.text.Write(b)
	if strings.Contains(s.text.String(), s.want) {
		s.done()
	}
	return n, err
}

// Something that takes connections and says nothing does not keep anybody for ever.
func TestAddressSilence(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		conn, err := silent.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Read(make([]byte, 1)) // it has been asked
		cancel()
		<-t.Context().Done()
	}()
	start := time.Now()
	if r := runWithin(ctx, "", "topic", "list", "--address", silent.Addr().String()); r.code != exitInterrupted {
		t.Errorf("exit code %d after %v: %s", r.code, time.Since(start), r.stderr)
	}
	d := &address{hosts: []string{"h:1"}}
	if err := d.explain(t.Context(), context.DeadlineExceeded); !strings.Contains(err.Error(), "does not answer within 10s") {
		t.Error(err)
	}
}

// What an end has behind it that is no record does not keep -e waiting: transactions
// that were aborted, or are open.
func TestAddressEndBehindTransactions(t *testing.T) {
	db, address := serveKafka(t, t.TempDir(), kafka.Listener{Address: "127.0.0.1:0"}, "")
	if _, err := db.CreateTopic(t.Context(), "orders", nil); err != nil {
		t.Fatal(err)
	}
	write := func(value string, end func(*embedlog.Txn) error) {
		t.Helper()
		txn, err := db.Begin(t.Context(), &embedlog.TxnOptions{ID: value})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := txn.Produce(t.Context(), embedlog.Record{Topic: "orders", Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
		if err := end(txn); err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	write("kept", func(x *embedlog.Txn) error { return x.Commit(ctx) })
	write("dropped", func(x *embedlog.Txn) error { return x.Abort(ctx) })
	for _, how := range [][]string{{"-o", "start"}, {"-g", "billing"}} {
		r := runHere(t, "", append([]string{"consume", "orders", "-e", "--address", address}, how...)...)
		if r.code != 0 || r.stdout != "kept\n" {
			t.Errorf("%s: exit code %d, %q, %s", how, r.code, r.stdout, r.stderr)
		}
	}
	write("open", func(*embedlog.Txn) error { return nil })
	for _, row := range []struct{ flags, want string }{{"-o start", "kept\n"}, {"-o start --read-uncommitted", "kept\ndropped\nopen\n"}, {"-g billing", ""}} {
		r := runHere(t, "", append([]string{"consume", "orders", "-e", "--address", address}, strings.Fields(row.flags)...)...)
		if r.code != 0 || r.stdout != row.want {
			t.Errorf("%s: exit code %d, %q, want %q; %s", row.flags, r.code, r.stdout, row.want, r.stderr)
		}
	}
}

// A consumer whose place was deleted goes on where there is something, and says so.
func TestAddressMoved(t *testing.T) {
	db, address := serveKafka(t, t.TempDir(), kafka.Listener{Address: "127.0.0.1:0"}, "")
	orders, err := db.CreateTopic(t.Context(), "orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	var recs []embedlog.Record
	for range 10 {
		recs = append(recs, embedlog.Record{Value: []byte("v")})
	}
	if _, err := orders.Produce(t.Context(), recs...); err != nil {
		t.Fatal(err)
	}
	to := func(args ...string) ranWith { return runHere(t, "", append(args, "--address", address)...) }
	if r := to("consume", "orders", "-g", "billing", "-n", "3"); r.code != 0 {
		t.Fatal(r)
	}
	if _, err := orders.DeleteRecords(t.Context(), 0, 7); err != nil {
		t.Fatal(err)
	}
	if r := to("group", "describe", "billing"); !strings.Contains(r.stdout, "               3              10    3  -") {
		t.Errorf("what was deleted is not to be read any more, but the lag is\n%s", r.stdout)
	}
	if r := to("consume", "orders", "-g", "billing", "-e", "-f", `%o\n`); r.code != 0 || r.stdout != "7\n8\n9\n" || !strings.Contains(r.stderr, "from: 3; to: 7") {
		t.Errorf("exit code %d, %q, %s", r.code, r.stdout, r.stderr)
	}
}

// What is not known to be there or not is said to be so; what the broker has refused
// is not.
func TestNotProduced(t *testing.T) {
	d := &address{hosts: []string{"h:1"}}
	for _, row := range []struct {
		err  error
		code sock.Code
		says string
	}{
		{kgo.ErrRecordTimeout, sock.CodeUnknownOutcome, "not acknowledged within 10s, it may be there or not: h:1 does not answer"},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), sock.CodeUnknownOutcome, "it may be there or not"},
		{fmt.Errorf("x: %w", &dialError{"h:1", "nothing listens there", net.ErrClosed}), sock.CodeUnknownOutcome, "it may be there or not: h:1: nothing listens there"},
		{kerr.MessageTooLarge, sock.CodeTooLarge, "max.message.bytes"},
		{kerr.UnknownTopicOrPartition, sock.CodeUnknownTopic, `topic "orders" does not exist`},
		{kerr.InvalidRecord, sock.CodeInvalid, "INVALID_RECORD"},
		{kerr.TopicAuthorizationFailed, sock.CodeFailure, "may not do that"},
		{kerr.NotEnoughReplicas, sock.CodeFailure, "NOT_ENOUGH_REPLICAS"},
	} {
		if e := d.notProduced(row.err, "orders"); e.Code != row.code || !strings.Contains(e.Message, row.says) {
			t.Errorf("%v: %s: %s, want %s: %s", row.err, e.Code, e.Message, row.code, row.says)
		}
	}
}

// Over an address, too, a list says of which type groups are.
func TestAddressGroupTypes(t *testing.T) {
	db, address := serveKafka(t, t.TempDir(), kafka.Listener{Address: "127.0.0.1:0"}, "ANONYMOUS")
	run := func(want string, args ...string) {
		t.Helper()
		if r := runHere(t, "x\n", append(args, "--address", address)...); r.code != 0 || !strings.Contains(strings.Join(strings.Fields(r.stdout), " "), want) {
			t.Errorf("%q: exit code %d, %s%s: want %q", args, r.code, r.stdout, r.stderr, want)
		}
	}
	run("", "topic", "create", "orders")
	run("", "produce", "orders")
	run("x", "consume", "orders", "--group", "clients", "-e")
	c, err := db.Consumer(&embedlog.ConsumerConfig{Group: "ours", Topics: []string{"orders"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Poll(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	run("clients classic Empty 0 ours consumer Stable 1", "group", "list")
	run("clients classic Empty", "group", "describe", "clients", "--state")
	run("ours consumer Stable", "group", "describe", "ours", "--state")
}
