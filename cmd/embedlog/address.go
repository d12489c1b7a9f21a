package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"golang.org/x/term"
)

// address is where a database is reached over Kafka's protocol, and how: what the
// flags say.
type address struct {
	hosts []string // HOST:PORT; none: the database is a directory

	tls             bool
	ca, cert, key   string // PEM files
	skipVerify      bool
	user            string
	passwordFile    string
	mechanism       string
	plainWithoutTLS bool
	password        string // once it was read or asked for
	stdin           io.Reader
	stderr          io.Writer
	fromEnv         bool // EMBEDLOG_ADDRESS said it, no flag
	silent          bool // nobody can be asked
	hasPassword     bool // password was read
}

// defaultPort is the port of an address that says none.
const defaultPort = "9092"

// passwordVariable is an environment variable: those of others are not for everybody
// to see, as arguments are.
const passwordVariable = "EMBEDLOG_PASSWORD"

func (d *address) flags(f *pflag.FlagSet) {
	f.StringSliceVar(&d.hosts, "address", nil, "`HOST:PORT` of a Kafka listener, instead of --data (EMBEDLOG_ADDRESS)")
	f.BoolVar(&d.tls, "tls", false, "TLS, with the CAs that the system trusts")
	f.StringVar(&d.ca, "tls-ca", "", "TLS with the CA in this PEM `FILE`")
	f.StringVar(&d.cert, "tls-cert", "", "TLS with a certificate of your own, a PEM `FILE`")
	f.StringVar(&d.key, "tls-key", "", "its key, a PEM `FILE`")
	f.BoolVar(&d.skipVerify, "tls-skip-verify", false, "TLS with whoever answers: somebody in between reads and changes everything")
	f.StringVar(&d.user, "user", "", "the user's `NAME`; the password is in --password-file or EMBEDLOG_PASSWORD, or asked for")
	f.StringVar(&d.passwordFile, "password-file", "", "`FILE` whose first line is the password")
	f.StringVar(&d.mechanism, "mechanism", "", "`MECHANISM` by which the password is shown: SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN, which needs TLS (default: the better SCRAM that the listener takes)")
	f.BoolVar(&d.plainWithoutTLS, "plain-without-tls", false, "send the password of PLAIN for everybody to read")
}

// addressFlags are those that say something about --address.
var addressFlags = []string{"tls", "tls-ca", "tls-cert", "tls-key", "tls-skip-verify", "user", "password-file", "mechanism", "plain-without-tls"}

var mechanisms = []string{"SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"}

// check says what does not go together, before anything is done. data says that
// --data was given.
func (d *address) check(cmd *cobra.Command, data bool) error {
	said := func(name string) bool {
		f := cmd.Root().PersistentFlags().Lookup(name)
		return f != nil && f.Changed
	}
	if d.fromEnv && data {
		d.hosts, d.fromEnv = nil, false // of a shell that completes: flags are known late
	}
	if env := os.Getenv("EMBEDLOG_ADDRESS"); env != "" && !said("address") && !data && d.hosts == nil {
		d.hosts, d.fromEnv = strings.Split(env, ","), true
	}
	if said("address") && data {
		return usagef("--data and --address both say where the database is; give one")
	}
	if len(d.hosts) == 0 {
		for _, name := range addressFlags {
			if said(name) && cmd.Name() == "serve" && name == "tls" {
				return usagef("%s speaks TLS with --tls-cert and --tls-key", cmd.CommandPath())
			}
			if said(name) {
				return usagef("--%s goes with --address HOST:PORT", name)
			}
		}
		if said("address") {
			return usagef("--address is empty; it is the HOST:PORT of a Kafka listener")
		}
		return nil
	}
	for i, host := range d.hosts {
		full, err := withPort(strings.TrimSpace(host))
		if err != nil {
			return err
		}
		d.hosts[i] = full
	}
	d.tls = d.tls || d.ca != "" || d.cert != "" || d.key != "" || d.skipVerify
	d.mechanism = strings.ToUpper(d.mechanism)
	switch {
	case (d.cert == "") != (d.key == ""):
		return usagef("--tls-cert and --tls-key belong together")
	case d.ca != "" && d.skipVerify:
		return usagef("--tls-skip-verify looks at no CA; leave out it or --tls-ca")
	case d.user == "" && (d.passwordFile != "" || d.mechanism != ""):
		return usagef("--password-file and --mechanism go with --user NAME")
	case d.mechanism != "" && !slices.Contains(mechanisms, d.mechanism):
		return usagef("--mechanism is SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN, not %q", d.mechanism)
	case d.mechanism == "PLAIN" && !d.tls && !d.plainWithoutTLS:
		return usagef("PLAIN sends the password as it stands: it needs --tls, or --plain-without-tls to do it all the same")
	}
	return nil
}

// withPort is host:port of what was given.
func withPort(s string) (string, error) {
	bad := usagef("an address is HOST:PORT or HOST, not %q", s)
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = strings.Trim(s, "[]"), defaultPort
		if strings.Contains(host, ":") && net.ParseIP(host) == nil {
			return "", bad
		}
	}
	if host == "" && port != "" && err == nil {
		host = "localhost"
	}
	if _, err := net.LookupPort("tcp", port); err != nil || port == "" || host == "" || strings.ContainsAny(host, "/ []") {
		return "", bad
	}
	return net.JoinHostPort(host, port), nil
}

// tlsConfig is the client's side of TLS; nil without.
func (d *address) tlsConfig() (*tls.Config, error) {
	if !d.tls {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: d.skipVerify}
	if d.ca != "" {
		pem, err := os.ReadFile(d.ca)
		if err != nil {
			return nil, usagef("--tls-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, usagef("--tls-ca: %s holds no certificate", d.ca)
		}
	}
	if d.cert != "" {
		cert, err := tls.LoadX509KeyPair(d.cert, d.key)
		if err != nil {
			return nil, usagef("--tls-cert %s with --tls-key %s: %w", d.cert, d.key, err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return config, nil
}

// sasl is how the user says who he is, what is liked best first; none without a user.
func (d *address) sasl() ([]sasl.Mechanism, error) {
	if d.user == "" {
		return nil, nil
	}
	password, err := d.readPassword()
	if err != nil {
		return nil, err
	}
	auth := scram.Auth{User: d.user, Pass: password}
	switch d.mechanism {
	case "PLAIN":
		return []sasl.Mechanism{plain.Auth{User: d.user, Pass: password}.AsMechanism()}, nil
	case "SCRAM-SHA-256":
		return []sasl.Mechanism{auth.AsSha256Mechanism()}, nil
	case "SCRAM-SHA-512":
		return []sasl.Mechanism{auth.AsSha512Mechanism()}, nil
	}
	return []sasl.Mechanism{auth.AsSha512Mechanism(), auth.AsSha256Mechanism()}, nil
}

// readPassword reads the password once: from the file, the environment or the
// terminal. stdin is left alone when it is no terminal: it holds records, or the
// password of somebody else.
func (d *address) readPassword() (string, error) {
	if d.hasPassword {
		return d.password, nil
	}
	password, err := d.findPassword()
	if err == nil && password == "" {
		err = usagef("the password of %s is empty", d.user)
	}
	d.password, d.hasPassword = password, err == nil
	return password, err
}

func (d *address) findPassword() (string, error) {
	if d.passwordFile != "" {
		f, err := os.Open(d.passwordFile)
		if err != nil {
			return "", usagef("--password-file: %w", err)
		}
		defer f.Close()
		line, err := bufio.NewReader(io.LimitReader(f, 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", usagef("--password-file: %w", err)
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	if password, ok := os.LookupEnv(passwordVariable); ok {
		return password, nil
	}
	in, ok := d.stdin.(*os.File)
	if d.silent {
		return "", errors.New("nobody can be asked for a password")
	}
	if !ok || !isTerminal(in) {
		tty, err := os.Open(ttyName)
		if err != nil || !isTerminal(tty) {
			return "", usagef("the password of %s is missing: --password-file FILE, or %s", d.user, passwordVariable)
		}
		defer tty.Close()
		in = tty
	}
	fmt.Fprintf(d.stderr, "Password of %s: ", d.user)
	b, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(d.stderr)
	return string(b), err
}

// ttyName is the terminal, whatever stdin is.
const ttyName = "/dev/tty"
