package kafka

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	embedlog "github.com/x/embedlog"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	saslplain "github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// witness is an Authorizer that remembers who asked.
type witness struct {
	mu   sync.Mutex
	seen map[string]bool
}

func (w *witness) Authorize(_ context.Context, p Principal, _ string, _ Operation, _ ResourceType, _ string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen == nil {
		w.seen = make(map[string]bool)
	}
	w.seen[p.String()] = true
	return true
}

func (w *witness) AuthorizeAny(ctx context.Context, p Principal, host string, op Operation, r ResourceType) bool {
	return w.Authorize(ctx, p, host, op, r, "")
}

// took is who asked since the last call.
func (w *witness) took() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for name := range w.seen {
		names = append(names, name)
	}
	slices.Sort(names)
	w.seen = nil
	return strings.Join(names, " ")
}

func setUsers(t testing.TB, db *embedlog.DB, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if err := db.SetUser(t.Context(), pairs[i], pairs[i+1]); err != nil {
			t.Fatal(err)
		}
	}
}

// askOnce produces nothing but a request that the authorizer is asked about.
func askOnce(c *kgo.Client) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	q := kmsg.NewPtrMetadataRequest()
	name := "t"
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = &name
	q.Topics = append(q.Topics, topic)
	_, err := q.RequestWith(ctx, c)
	return err
}

// A client comes in by each mechanism, with the right password and by no other.
func TestSASLWithAClient(t *testing.T) {
	db := openMemory(t, nil)
	setUsers(t, db, "alice", "wonderland", "a,b=c", "x")
	ca, who := newAuthority(t), &witness{}
	s := serve(t, db, Options{Authorizer: who, Listeners: []Listener{
		{Address: "127.0.0.1:0", SASL: &SASL{PlainWithoutTLS: true}},
		{Address: "127.0.0.1:0", TLS: ca.server(), SASL: &SASL{}},
		{Address: "127.0.0.1:0", SASL: &SASL{}},
	}})
	s256 := func(user, pass string) sasl.Mechanism {
		return scram.Auth{User: user, Pass: pass}.AsSha256Mechanism()
	}
	s512 := func(user, pass string) sasl.Mechanism {
		return scram.Auth{User: user, Pass: pass}.AsSha512Mechanism()
	}
	simple := func(user, pass string) sasl.Mechanism { return saslplain.Auth{User: user, Pass: pass}.AsMechanism() }
	for _, row := range []struct {
		name     string
		listener int
		by       sasl.Mechanism
		want     string
		err      error
	}{
		{"plain", 0, simple("alice", "wonderland"), "User:alice", nil},
		{"plain over TLS", 1, simple("alice", "wonderland"), "User:alice", nil},
		{"SCRAM-SHA-256", 0, s256("alice", "wonderland"), "User:alice", nil},
		{"SCRAM-SHA-512", 0, s512("alice", "wonderland"), "User:alice", nil},
		{"SCRAM-SHA-512 over TLS", 1, s512("a,b=c", "x"), "User:a,b=c", nil},
		{"plain without TLS is not offered", 2, simple("alice", "wonderland"), "", kerr.UnsupportedSaslMechanism},
		{"plain, wrong password", 0, simple("alice", "w"), "", kerr.SaslAuthenticationFailed},
		{"plain, unknown user", 0, simple("bob", "wonderland"), "", kerr.SaslAuthenticationFailed},
		{"SCRAM-SHA-256, wrong password", 0, s256("alice", "w"), "", kerr.SaslAuthenticationFailed},
		{"SCRAM-SHA-512, unknown user", 1, s512("bob", "wonderland"), "", kerr.SaslAuthenticationFailed},
	} {
		opts := []kgo.Opt{kgo.SeedBrokers(s.Addrs()[row.listener].String()), kgo.SASL(row.by), kgo.RequestRetries(0), kgo.DisableClientMetrics()}
		if row.listener == 1 {
			opts = append(opts, kgo.DialTLSConfig(ca.client(nil)))
		}
		c, err := kgo.NewClient(opts...)
		if err != nil {
			t.Fatal(err)
		}
		err = askOnce(c)
		c.Close()
		if !errors.Is(err, row.err) || (err == nil) != (row.err == nil) {
			t.Errorf("%s: %v, want %v", row.name, err, row.err)
		}
		if got := who.took(); got != row.want {
			t.Errorf("%s: asked as %q, want %q", row.name, got, row.want)
		}
	}
}

// The certificate says who a client is, and without one it is not let in.
func TestMutualTLS(t *testing.T) {
	db := openMemory(t, nil)
	ca, stranger, who := newAuthority(t), newAuthority(t), &witness{}
	s := serve(t, db, Options{Authorizer: who, Listeners: []Listener{
		{Address: "127.0.0.1:0", TLS: ca.mutual()},
		{Address: "127.0.0.1:0", TLS: ca.mutual(), CertificateUser: func(c *x509.Certificate) string { return strings.ToLower(c.Subject.CommonName) }},
	}})
	name := &pkix.Name{CommonName: "Alice", OrganizationalUnit: []string{"billing"}, Organization: []string{"Example, Inc."}}
	unknown := stranger.client(name)
	unknown.RootCAs = ca.pool
	for _, row := range []struct {
		name     string
		listener int
		tls      *tls.Config
		want     string
	}{
		{"the distinguished name", 0, ca.client(name), `User:CN=Alice,OU=billing,O=Example\, Inc.`},
		{"a name of its own making", 1, ca.client(name), "User:alice"},
		{"no name", 1, ca.client(&pkix.Name{Organization: []string{"x"}}), ""},
		{"no certificate", 0, ca.client(nil), ""},
		{"somebody else's certificate", 0, unknown, ""},
		{"no TLS", 0, nil, ""},
	} {
		opts := []kgo.Opt{kgo.SeedBrokers(s.Addrs()[row.listener].String()), kgo.RequestRetries(0), kgo.DisableClientMetrics()}
		if row.tls != nil {
			opts = append(opts, kgo.DialTLSConfig(row.tls))
		}
		c, err := kgo.NewClient(opts...)
		if err != nil {
			t.Fatal(err)
		}
		err = askOnce(c)
		c.Close()
		if got := who.took(); got != row.want || (err == nil) != (row.want != "") {
			t.Errorf("%s: asked as %q, %v, want %q", row.name, got, err, row.want)
		}
	}
}

func TestDistinguishedName(t *testing.T) {
	type part struct {
		oid   asn1.ObjectIdentifier
		value string
	}
	cn, ou, o, dc := asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.ObjectIdentifier{2, 5, 4, 11}, asn1.ObjectIdentifier{2, 5, 4, 10}, asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}
	for _, row := range []struct {
		name  string
		parts [][]part
		want  string
	}{
		{"empty", nil, ""},
		{"one", [][]part{{{cn, "alice"}}}, "CN=alice"},
		{"the last first", [][]part{{{o, "Example"}}, {{ou, "a"}}, {{ou, "b"}}, {{cn, "alice"}}}, "CN=alice,OU=b,OU=a,O=Example"},
		{"in the certificate's order", [][]part{{{cn, "alice"}}, {{o, "Example"}}}, "O=Example,CN=alice"},
		{"domain components", [][]part{{{dc, "org"}}, {{dc, "example"}}, {{cn, "alice"}}}, "CN=alice,DC=example,DC=org"},
		{"several at once", [][]part{{{cn, "alice"}, {ou, "a"}}}, "OU=a+CN=alice"},
		{"escaped", [][]part{{{cn, ` #a,b+"\<>;=c `}}}, `CN=\ #a\,b\+\"\\\<\>\;=c\ `},
		{"a hash in front", [][]part{{{cn, "#a#"}}}, `CN=\#a#`},
		{"not ASCII", [][]part{{{cn, "żółw"}}}, "CN=żółw"},
		{"a number", [][]part{{{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, "a@b"}}}, "1.2.840.113549.1.9.1=#1603614062"},
	} {
		var seq pkix.RDNSequence
		for _, set := range row.parts {
			var s pkix.RelativeDistinguishedNameSET
			for _, p := range set {
				s = append(s, pkix.AttributeTypeAndValue{Type: p.oid, Value: p.value})
			}
			seq = append(seq, s)
		}
		der, err := asn1.Marshal(seq)
		if err != nil {
			t.Fatal(err)
		}
		if row.name == "a number" {
			der = bytes.Replace(der, []byte("\x0c\x03a@b"), []byte("\x16\x03a@b"), 1)
		}
		if got, err := distinguishedName(der); err != nil || got != row.want {
			t.Errorf("%s: %q, %v, want %q", row.name, got, err, row.want)
		}
		for n := range der {
			if got, err := distinguishedName(der[:n]); err == nil {
				t.Errorf("%s: %d bytes give %q", row.name, n, got)
			}
		}
	}
}

// dialSASL connects through a pipe to a listener with SASL.
func dialSASL(t testing.TB, s *Server, o *SASL) *raw {
	t.Helper()
	ours, theirs := net.Pipe()
	s.serve(&listener{Listener: Listener{SASL: o}, advertise: endpoint{"127.0.0.1", 9092}}, theirs)
	t.Cleanup(func() { ours.Close() })
	return &raw{t: t, c: ours}
}

func (x *raw) handshakeSASL(version int16, mechanism string) *kmsg.SASLHandshakeResponse {
	q := kmsg.NewPtrSASLHandshakeRequest()
	q.Version, q.Mechanism = version, mechanism
	return do[*kmsg.SASLHandshakeResponse](x, q)
}

func (x *raw) authenticate(version int16, token string) *kmsg.SASLAuthenticateResponse {
	q := kmsg.NewPtrSASLAuthenticateRequest()
	q.Version, q.SASLAuthBytes = version, []byte(token)
	return do[*kmsg.SASLAuthenticateResponse](x, q)
}

// plainly authenticates by PLAIN and returns the session's lifetime in milliseconds.
func (x *raw) plainly(version int16, user, password string) int64 {
	x.t.Helper()
	if r := x.handshakeSASL(1, Plain); r.ErrorCode != codeNone {
		x.t.Fatalf("SaslHandshake: %d", r.ErrorCode)
	}
	r := x.authenticate(version, "\x00"+user+"\x00"+password)
	if r.ErrorCode != codeNone {
		x.t.Fatalf("SaslAuthenticate: %d", r.ErrorCode)
	}
	return r.SessionLifetimeMillis
}

// token sends a token without a request around it and reads the answer.
func (x *raw) token(text string) string {
	x.t.Helper()
	b := append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
	if _, err := x.c.Write(b); err != nil {
		x.t.Fatal(err)
	}
	answer, err := readFrame(x.c)
	if err != nil {
		x.t.Fatal(err)
	}
	return string(answer)
}

var everyMechanism = SASL{Mechanisms: []string{Plain, ScramSHA256, ScramSHA512}, PlainWithoutTLS: true}

// Tokens without requests around them, after version 0 of SaslHandshake.
func TestRawTokens(t *testing.T) {
	db := openMemory(t, nil)
	setUsers(t, db, "alice", "wonderland")
	s := pipeServer(t, db, Options{})
	x := dialSASL(t, s, &everyMechanism)
	if r := x.handshakeSASL(0, Plain); r.ErrorCode != codeNone {
		t.Fatal(r.ErrorCode)
	}
	if a := x.token("\x00alice\x00wonderland"); a != "" {
		t.Fatalf("answered %q", a)
	}
	if m := do[*kmsg.MetadataResponse](x, kmsg.NewPtrMetadataRequest()); len(m.Brokers) != 1 {
		t.Fatalf("%+v", m)
	}

	x = dialSASL(t, s, &everyMechanism)
	x.handshakeSASL(0, ScramSHA256)
	session, first, err := scram.Auth{User: "alice", Pass: "wonderland"}.AsSha256Mechanism().Authenticate(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for done, message := false, first; !done; {
		if done, message, err = session.Challenge([]byte(x.token(string(message)))); err != nil {
			t.Fatal(err)
		}
	}
	do[*kmsg.MetadataResponse](x, kmsg.NewPtrMetadataRequest())

	x = dialSASL(t, s, &everyMechanism)
	x.handshakeSASL(0, Plain)
	if _, err := x.c.Write([]byte("\x00\x00\x00\x08\x00alice\x00x")); err != nil {
		t.Fatal(err)
	}
	x.gone()
}

// What comes at the wrong time ends the connection, and nothing that needs a user is
// looked at without one.
func TestSASLOutOfOrder(t *testing.T) {
	db := openMemory(t, nil)
	setUsers(t, db, "alice", "wonderland")
	s := pipeServer(t, db, Options{})

	x := dialSASL(t, s, &everyMechanism)
	do[*kmsg.ApiVersionsResponse](x, kmsg.NewPtrApiVersionsRequest())
	x.send(kmsg.NewPtrMetadataRequest())
	x.gone()

	x = dialSASL(t, s, &everyMechanism)
	if r := x.authenticate(2, "\x00alice\x00wonderland"); r.ErrorCode != codeIllegalSaslState {
		t.Fatalf("without a handshake: %d", r.ErrorCode)
	}
	x.gone()

	x = dialSASL(t, s, &everyMechanism)
	if r := x.handshakeSASL(1, Plain); r.ErrorCode != codeNone || strings.Join(r.SupportedMechanisms, " ") != "PLAIN SCRAM-SHA-256 SCRAM-SHA-512" {
		t.Fatalf("%+v", r)
	}
	if r := x.handshakeSASL(1, Plain); r.ErrorCode != codeIllegalSaslState {
		t.Fatalf("a second handshake: %d", r.ErrorCode)
	}
	x.gone()

	x = dialSASL(t, s, &SASL{})
	if r := x.handshakeSASL(1, "GSSAPI"); r.ErrorCode != codeUnsupportedSaslMechanism || strings.Join(r.SupportedMechanisms, " ") != "SCRAM-SHA-512 SCRAM-SHA-256" {
		t.Fatalf("%+v", r)
	}
	x.gone()

	x = dialSASL(t, s, &everyMechanism)
	x.handshakeSASL(1, ScramSHA256)
	x.send(kmsg.NewPtrMetadataRequest())
	x.gone()

	x = dial(t, s, nil) // a listener without SASL
	if r := x.handshakeSASL(1, Plain); r.ErrorCode != codeIllegalSaslState {
		t.Fatalf("without SASL: %d", r.ErrorCode)
	}
	if r := x.authenticate(1, "\x00alice\x00wonderland"); r.ErrorCode != codeIllegalSaslState {
		t.Fatalf("without SASL: %d", r.ErrorCode)
	}
	do[*kmsg.MetadataResponse](x, kmsg.NewPtrMetadataRequest())
}

// What PLAIN does not take, whatever is asked for.
func TestPlainRefuses(t *testing.T) {
	db := openMemory(t, nil)
	s := pipeServer(t, db, Options{})
	var asked []string
	o := everyMechanism
	o.CheckPassword = func(_ context.Context, name, password string) bool {
		asked = append(asked, name+"/"+password)
		return name == "alice" && password == "wonderland"
	}
	for _, row := range []struct {
		token string
		code  int16
	}{
		{"\x00alice\x00wonderland", codeNone},
		{"alice\x00alice\x00wonderland", codeNone},
		{"bob\x00alice\x00wonderland", codeSaslAuthenticationFailed},
		{"\x00alice\x00", codeSaslAuthenticationFailed},
		{"\x00\x00wonderland", codeSaslAuthenticationFailed},
		{"alice\x00wonderland", codeSaslAuthenticationFailed},
		{"\x00alice\x00wonderland\x00", codeSaslAuthenticationFailed},
		{"\x00al\xffice\x00wonderland", codeSaslAuthenticationFailed},
		{"", codeSaslAuthenticationFailed},
		{"\x00alice\x00" + strings.Repeat("w", 5000), codeSaslAuthenticationFailed},
		{"\x00alice\x00w", codeSaslAuthenticationFailed},
	} {
		x := dialSASL(t, s, &o)
		x.handshakeSASL(1, Plain)
		if r := x.authenticate(2, row.token); r.ErrorCode != row.code {
			t.Errorf("%.40q: %d, want %d", row.token, r.ErrorCode, row.code)
		} else if row.code != codeNone {
			x.gone()
		}
	}
	if want := "alice/wonderland alice/wonderland alice/w"; strings.Join(asked, " ") != want {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

// A session ends at its time, unless the client has come again, as the same user.
func TestSessionLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openMemory(t, nil)
		s := pipeServer(t, db, Options{Limits: Limits{IdleTimeout: 24 * time.Hour}})
		o := everyMechanism
		o.SessionLifetime = time.Hour
		o.CheckPassword = func(_ context.Context, name, password string) bool { return password == "of "+name }
		ask := func(x *raw) { do[*kmsg.MetadataResponse](x, kmsg.NewPtrMetadataRequest()) }

		x := dialSASL(t, s, &o)
		if ms := x.plainly(2, "alice", "of alice"); ms != time.Hour.Milliseconds() {
			t.Fatalf("lifetime %d ms", ms)
		}
		time.Sleep(59 * time.Minute)
		ask(x)
		if ms := x.plainly(1, "alice", "of alice"); ms != time.Hour.Milliseconds() {
			t.Fatalf("lifetime %d ms", ms)
		}
		time.Sleep(59 * time.Minute)
		ask(x)
		time.Sleep(2 * time.Minute)
		x.plainly(2, "alice", "of alice") // late, and still let in
		ask(x)
		time.Sleep(time.Hour)
		x.send(kmsg.NewPtrMetadataRequest())
		x.gone()

		x = dialSASL(t, s, &o)
		x.plainly(2, "alice", "of alice")
		x.handshakeSASL(1, Plain)
		if r := x.authenticate(2, "\x00bob\x00of bob"); r.ErrorCode != codeSaslAuthenticationFailed {
			t.Fatalf("as somebody else: %d", r.ErrorCode)
		}
		x.gone()

		x = dialSASL(t, s, &o)
		x.plainly(2, "alice", "of alice")
		if r := x.handshakeSASL(0, Plain); r.ErrorCode != codeIllegalSaslState {
			t.Fatalf("tokens without requests when coming again: %d", r.ErrorCode)
		}
		x.gone()

		x = dialSASL(t, s, &o)
		x.plainly(2, "alice", "of alice")
		x.handshakeSASL(1, Plain)
		x.send(kmsg.NewPtrMetadataRequest())
		x.gone()

		old := dialSASL(t, s, &o) // knows nothing of lifetimes
		if ms := old.plainly(0, "alice", "of alice"); ms != 0 {
			t.Fatalf("lifetime %d ms", ms)
		}
		time.Sleep(3 * time.Hour)
		ask(old)
	})
}

// A user that is deleted is off at once, whatever his connection does; one whose
// password is changed goes on, and others hear nothing of it.
func TestDeletedUserIsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openMemory(t, nil)
		topic := createTopic(t, db, "orders", nil)
		setUsers(t, db, "alice", "of alice", "bob", "of bob")
		s := pipeServer(t, db, Options{})
		ask := func(x *raw) { do[*kmsg.MetadataResponse](x, kmsg.NewPtrMetadataRequest()) }
		idle, waiting, bob := dialSASL(t, s, &everyMechanism), dialSASL(t, s, &everyMechanism), dialSASL(t, s, &everyMechanism)
		elsewhere := everyMechanism
		elsewhere.CheckPassword = func(context.Context, string, string) bool { return true }
		other := dialSASL(t, s, &elsewhere) // a name of somewhere else
		idle.plainly(2, "alice", "of alice")
		waiting.plainly(2, "alice", "of alice")
		bob.plainly(2, "bob", "of bob")
		other.plainly(2, "alice", "anything")
		setUsers(t, db, "alice", "another")
		ask(idle)
		q := fetchRequest(12, topic, 0, 0)
		q.MaxWaitMillis = 60_000
		waiting.send(q)
		waiting.send(kmsg.NewPtrMetadataRequest())
		synctest.Wait()
		if err := db.DeleteUser(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		mustAppend(t, topic, 0, batch(t, plain(), "not for alice"))
		waiting.gone()
		idle.gone()
		if took := time.Since(began); took != 0 {
			t.Errorf("off after %v", took)
		}
		ask(bob)
		ask(other)
		synctest.Wait()
		if n := len(s.conns); n != 2 {
			t.Errorf("%d connections are left", n)
		}
	})
}

// He may be deleted while he proves who he is.
func TestUserDeletedWhileHeComesIn(t *testing.T) {
	db := openMemory(t, nil)
	setUsers(t, db, "alice", "of alice")
	s := pipeServer(t, db, Options{})
	x := dialSASL(t, s, &everyMechanism)
	x.handshakeSASL(1, ScramSHA256)
	client, first, err := scram.Auth{User: "alice", Pass: "of alice"}.AsSha256Mechanism().Authenticate(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	_, final, err := client.Challenge(x.authenticate(2, string(first)).SASLAuthBytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.DeleteUser(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	if r := x.authenticate(2, string(final)); r.ErrorCode != codeSaslAuthenticationFailed {
		t.Fatalf("a user that is not there any more: error code %d", r.ErrorCode)
	}
	x.gone()
}

// Who guesses waits; who says nothing is let go.
func TestSlowToFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openMemory(t, nil)
		s := pipeServer(t, db, Options{})
		o := everyMechanism
		o.CheckPassword = func(context.Context, string, string) bool { return false }
		x := dialSASL(t, s, &o)
		x.handshakeSASL(1, Plain)
		began := time.Now()
		x.authenticate(1, "\x00alice\x00x")
		if took := time.Since(began); took != failureDelay {
			t.Errorf("answered after %v", took)
		}
		x.gone()

		x = dialSASL(t, s, &o)
		began = time.Now()
		for range 3 { // it may ask what there is, but not for ever
			time.Sleep(15 * time.Second)
			do[*kmsg.ApiVersionsResponse](x, kmsg.NewPtrApiVersionsRequest())
		}
		x.gone()
		if took := time.Since(began); took != authenticationTimeout {
			t.Errorf("closed after %v", took)
		}
	})
}

// What is not safe is refused, and says so.
func TestListenerOptions(t *testing.T) {
	db := openMemory(t, nil)
	ca := newAuthority(t)
	for _, row := range []struct {
		name     string
		l        Listener
		insecure bool
		want     string // in the error; "" is none
	}{
		{"loopback", Listener{Address: "127.0.0.1:0"}, false, ""},
		{"everywhere", Listener{Address: "0.0.0.0:0"}, false, "needs TLS and authentication"},
		{"everywhere, TLS alone", Listener{Address: "0.0.0.0:0", TLS: ca.server()}, false, "needs TLS and authentication"},
		{"everywhere, SASL alone", Listener{Address: "0.0.0.0:0", SASL: &SASL{}}, false, "needs TLS and authentication"},
		{"TLS without a certificate", Listener{Address: "127.0.0.1:0", TLS: &tls.Config{}}, false, "has no certificate"},
		{"PLAIN without TLS", Listener{Address: "127.0.0.1:0", SASL: &SASL{Mechanisms: []string{Plain}}}, false, "PlainWithoutTLS"},
		{"PLAIN without TLS, said in words", Listener{Address: "127.0.0.1:0", SASL: &everyMechanism}, false, ""},
		{"PLAIN with TLS", Listener{Address: "127.0.0.1:0", TLS: ca.server(), SASL: &SASL{Mechanisms: []string{Plain}}}, false, ""},
		{"an unknown mechanism", Listener{Address: "127.0.0.1:0", SASL: &SASL{Mechanisms: []string{"GSSAPI"}}}, false, "is none of"},
		{"no mechanism", Listener{Address: "127.0.0.1:0", SASL: &SASL{Mechanisms: []string{}}}, false, "at least one"},
		{"a negative lifetime", Listener{Address: "127.0.0.1:0", SASL: &SASL{SessionLifetime: -1}}, false, "SessionLifetime"},
		{"a bad mechanism in spite of AllowInsecure", Listener{Address: "127.0.0.1:0", SASL: &SASL{Mechanisms: []string{"X"}}}, true, "is none of"},
	} {
		s, err := Serve(db, &Options{Listeners: []Listener{row.l}, AllowInsecure: row.insecure})
		if err == nil {
			s.Close()
		}
		if (err == nil) != (row.want == "") || err != nil && (!strings.Contains(err.Error(), row.want) || !errors.Is(err, embedlog.ErrInvalidSetting)) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
	// What would be taken, without listening there.
	for _, row := range []struct {
		name string
		l    Listener
	}{
		{"everywhere, TLS and SASL", Listener{Address: "0.0.0.0:0", TLS: ca.server(), SASL: &SASL{}}},
		{"everywhere, certificates on both sides", Listener{Address: "0.0.0.0:0", TLS: ca.mutual()}},
	} {
		if err := row.l.check(0, false); err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

// Nobody is let in by bytes of any kind, and nothing but the three requests that are
// allowed before is handled.
func FuzzBeforeAuthentication(f *testing.F) {
	frame := func(q kmsg.Request) []byte {
		b := kmsg.NewRequestFormatter(kmsg.FormatterClientID("x")).AppendRequest(nil, q, 1)
		return b
	}
	versions := kmsg.NewPtrApiVersionsRequest()
	versions.Version, versions.ClientSoftwareName, versions.ClientSoftwareVersion = 3, "x", "1"
	hello := func(v int16, m string) []byte {
		q := kmsg.NewPtrSASLHandshakeRequest()
		q.Version, q.Mechanism = v, m
		return frame(q)
	}
	auth := func(v int16, token string) []byte {
		q := kmsg.NewPtrSASLAuthenticateRequest()
		q.Version, q.SASLAuthBytes = v, []byte(token)
		return frame(q)
	}
	f.Add(slices.Concat(frame(versions), hello(1, Plain), auth(2, "\x00alice\x00x")))
	f.Add(slices.Concat(hello(1, ScramSHA256), auth(1, "n,,n=alice,r=abc"), auth(1, "c=biws,r=abc,p=AAAA")))
	f.Add(slices.Concat(hello(0, Plain), []byte("\x00\x00\x00\x04\x00a\x00b")))
	f.Add(slices.Concat(hello(0, ScramSHA512), []byte("\x00\x00\x00\x0cn,,n=a,r=abc")))
	f.Add(frame(kmsg.NewPtrMetadataRequest()))
	db := openMemory(f, nil)
	setUsers(f, db, "alice", "a password that no fuzzer finds")
	o := everyMechanism
	o.CheckPassword = func(_ context.Context, name, password string) bool { return false } // quicker
	s := newServer(db, &Options{Authorizer: refuser{}}, mustLimits(f))
	f.Cleanup(func() { s.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		c := newConn(s, &listener{Listener: Listener{SASL: &o}}, theirs)
		defer c.cancel()
		c.cancel() // nobody waits for a failure's delay
		go func() {
			buf := make([]byte, 4096)
			for {
				if _, err := ours.Read(buf); err != nil {
					return
				}
			}
		}()
		var err error
		if c.auth, err = c.newAuthenticator(); err != nil {
			t.Fatal(err)
		}
		for len(b) >= 4 {
			n := int(binary.BigEndian.Uint32(b) % 4096)
			b = b[4:]
			n = min(n, len(b))
			if _, err := c.serve(asFrame(slices.Clone(b[:n]))); err != nil {
				break
			}
			b = b[n:]
		}
		if p, ok := c.auth.principal(); ok || c.open.Load() || p != (Principal{}) {
			t.Fatalf("let in as %s", p)
		}
	})
}

func mustLimits(t testing.TB) Limits {
	l, err := Limits{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// refuser is an authorizer that must never be asked.
type refuser struct{}

func (refuser) Authorize(_ context.Context, p Principal, _ string, op Operation, resource ResourceType, name string) bool {
	panic(fmt.Sprintf("%s is asked about before it is known: %s %s %s", p, op, resource, name))
}

func (r refuser) AuthorizeAny(ctx context.Context, p Principal, host string, op Operation, resource ResourceType) bool {
	return r.Authorize(ctx, p, host, op, resource, "any")
}
