package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// dialTimeout is how long a connection and its TLS may take.
	dialTimeout = 5 * time.Second
	// firstAnswer is how long a listener may take to say who it is.
	firstAnswer = 10 * time.Second
	// requestTimeout is how long a request is tried again before it has failed.
	requestTimeout = 15 * time.Second
)

// dialError says why an address could not be reached, and what to do.
type dialError struct {
	address string
	advice  string
	err     error
}

func (e *dialError) Error() string { return e.address + ": " + e.advice }
func (e *dialError) Unwrap() error { return e.err }

// dialer connects, with TLS where that is said, and knows why it could not.
func (d *address) dialer(config *tls.Config) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, host string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		conn, err := new(net.Dialer).DialContext(ctx, network, host)
		if err != nil {
			return nil, &dialError{host, d.adviceTCP(host, err), err}
		}
		if config == nil {
			return conn, nil
		}
		own := config.Clone()
		own.ServerName, _, _ = net.SplitHostPort(host)
		secure := tls.Client(conn, own)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close() // the handshake's error is the one to tell
			return nil, &dialError{host, adviceTLS(own.ServerName, err), err}
		}
		return secure, nil
	}
}

func (d *address) adviceTCP(host string, err error) string {
	var dns *net.DNSError
	why := ""
	switch {
	case errors.As(err, &dns):
		why = fmt.Sprintf("there is no host %s", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		why = "nothing listens there (connection refused)"
	case errors.Is(err, context.DeadlineExceeded):
		why = fmt.Sprintf("no answer within %v", dialTimeout)
	case errors.Is(err, context.Canceled):
		return "interrupted"
	default:
		why = "cannot be reached: " + lastCause(err)
	}
	if !slices.Contains(d.hosts, host) {
		return why + fmt.Sprintf("; %s tells its clients to connect there, see its advertised address", strings.Join(d.hosts, ","))
	}
	return why + "; --address is the HOST:PORT of a Kafka listener that runs"
}

func adviceTLS(server string, err error) string {
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		header  tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &unknown):
		return "its certificate is of an authority that is not trusted here; --tls-ca FILE names the right one"
	case errors.As(err, &name):
		return fmt.Sprintf("its certificate is not one for %s: %s; use the name that it is for", server, name.Error())
	case errors.As(err, &invalid):
		return "its certificate does not hold: " + invalid.Error()
	case errors.As(err, &header), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.ErrUnexpectedEOF):
		return "it does not speak TLS; leave out --tls, or name the port that does"
	case strings.Contains(err.Error(), "remote error: tls:"):
		return adviceAlert(err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no TLS handshake within %v; does it speak TLS?", dialTimeout)
	}
	return "TLS: " + lastCause(err)
}

// adviceAlert is about what the other side says against us in TLS.
func adviceAlert(err error) string {
	_, alert, _ := strings.Cut(err.Error(), "remote error: tls: ")
	return fmt.Sprintf("it refuses TLS with us (%s); it may want a certificate that it knows: --tls-cert and --tls-key", alert)
}

// lastCause is the innermost of errors: without who was dialled by whom.
func lastCause(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// options are those of every client.
func (d *address) options() ([]kgo.Opt, error) {
	config, err := d.tlsConfig()
	if err != nil {
		return nil, err
	}
	return []kgo.Opt{
		kgo.SeedBrokers(d.hosts...), kgo.ClientID("embedlog-cli"), kgo.Dialer(d.dialer(config)),
		kgo.RetryTimeout(requestTimeout), kgo.MetadataMinAge(100 * time.Millisecond), kgo.DisableClientMetrics(),
		kgo.RetryBackoffFn(func(n int) time.Duration { return min(50*time.Millisecond<<min(n, 6), time.Second) }),
	}, nil
}

// dialAddress begins a session at the address. A listener that does not take the best
// way of saying a password is asked again with the next one.
func (a *app) dialAddress(ctx context.Context) (*client, error) {
	d := &a.address
	d.stdin, d.stderr = a.stdin, a.stderr
	common, err := d.options()
	if err != nil {
		return nil, err
	}
	ways, err := d.sasl()
	if err != nil {
		return nil, err
	}
	for {
		opts := common
		if len(ways) > 0 {
			opts = append(common[:len(common):len(common)], kgo.SASL(ways[0]))
		}
		c, err := a.tryAddress(ctx, opts)
		switch {
		case err == nil || ctx.Err() != nil:
			return c, err
		case len(ways) < 2 || !errors.Is(err, kerr.UnsupportedSaslMechanism):
			return nil, d.explain(ctx, err)
		}
		ways = ways[1:]
	}
}

func (a *app) tryAddress(ctx context.Context, opts []kgo.Opt) (*client, error) {
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, usagef("--address: %w", err)
	}
	pinged, cancel := context.WithTimeout(ctx, firstAnswer)
	defer cancel()
	answered := make(chan error, 1)
	go func() { answered <- cl.Ping(pinged) }()
	select {
	case err = <-answered:
	case <-pinged.Done():
		cl.Close() // a connection that is being made looks at no context
		<-answered
		err = pinged.Err()
	}
	if err != nil {
		cl.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return &client{door: &kafkaDoor{app: a, at: &a.address, opts: opts, cl: cl, admin: kadm.NewClient(cl)}}, nil
}

// speaksTLS finds out whether a listener that hung up on plain bytes wants TLS.
func (d *address) speaksTLS(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // nothing is sent that way
	conn, err := dialer.DialContext(ctx, "tcp", d.hosts[0])
	if err == nil {
		_ = conn.Close()
	}
	return err == nil || strings.Contains(err.Error(), "remote error: tls:")
}

// explain makes one sentence of why the listener did not answer.
func (d *address) explain(ctx context.Context, err error) error {
	where := strings.Join(d.hosts, ",")
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%s: "+format, append([]any{where}, args...)...)
	}
	var dial *dialError
	var eof *kgo.ErrFirstReadEOF
	text := err.Error()
	hungUp := errors.As(err, &eof) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrUnexpectedEOF)
	switch {
	case errors.As(err, &dial):
		return dial
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return fail("the password of %s is not the right one, or there is no such user; who may come in is said by `embedlog user list` on the other side", d.user)
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return fail("it does not take %s; try another --mechanism, or leave out --user if it asks for no password", orAny(d.mechanism))
	case errors.Is(err, kerr.IllegalSaslState):
		return fail("it asks for no password; leave out --user")
	case strings.Contains(text, "tls alert record"):
		return fail("%s", adviceAddTLS)
	case strings.Contains(text, "remote error: tls:"):
		return fail("%s", adviceAlert(err))
	case hungUp && !d.tls && d.speaksTLS(ctx):
		return fail("%s", adviceAddTLS)
	case hungUp:
		if d.user == "" {
			return fail("it hung up before it answered; it may want a password (--user NAME), or not be a Kafka listener")
		}
		return fail("it hung up before it answered; it may not be a Kafka listener")
	case errors.Is(err, context.DeadlineExceeded):
		return fail("it takes connections and does not answer within %v; it may want TLS (--tls), or not be a Kafka listener", firstAnswer)
	}
	return fail("%w", err)
}

const adviceAddTLS = "it speaks TLS; add --tls, with --tls-ca FILE if its certificate is of an authority of its own"

func orAny(mechanism string) string {
	if mechanism == "" {
		return "SCRAM"
	}
	return mechanism
}
