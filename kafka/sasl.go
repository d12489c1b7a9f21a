package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/acl"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/scram"
)

// The mechanisms that there are.
const (
	Plain       = "PLAIN"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA512 = "SCRAM-SHA-512"
)

// SASL has the clients of a listener say who they are by a name and a password: of
// the database's users, see embedlog.DB.SetUser. The zero value is all defaults.
type SASL struct {
	// Mechanisms are those that clients may choose from. Nil means SCRAM-SHA-256,
	// SCRAM-SHA-512 and, where there is TLS or PlainWithoutTLS, PLAIN.
	// (sasl.enabled.mechanisms)
	Mechanisms []string
	// PlainWithoutTLS lets PLAIN, which sends the password as it is, be used without
	// TLS.
	PlainWithoutTLS bool
	// CheckPassword decides PLAIN instead of the database's users: for passwords that
	// are kept elsewhere. It may be called by several goroutines at once.
	CheckPassword func(ctx context.Context, name, password string) bool
	// SessionLifetime is after what time a client has to authenticate again on the same
	// connection; one that does not is closed at its next request. Zero is never.
	// Clients that do not know of it (SaslAuthenticate version 0) are left alone, as
	// Kafka does. (connections.max.reauth.ms, KIP-368)
	SessionLifetime time.Duration
}

// mechanisms are those that the listener offers, in Kafka's order.
func (l *Listener) mechanisms() []string {
	if l.SASL.Mechanisms != nil {
		return l.SASL.Mechanisms
	}
	if l.TLS != nil || l.SASL.PlainWithoutTLS {
		return []string{ScramSHA512, ScramSHA256, Plain}
	}
	return []string{ScramSHA512, ScramSHA256}
}

// check says what is wrong with the options.
func (s *SASL) check(i int, l *Listener) error {
	if s == nil {
		return nil
	}
	var bad []error
	invalid := func(field, value, reason string) {
		bad = append(bad, &embedlog.InvalidSettingError{Name: fmt.Sprintf("Listeners[%d].SASL.%s", i, field), Value: value, Reason: reason})
	}
	if s.Mechanisms != nil && len(s.Mechanisms) == 0 {
		invalid("Mechanisms", "", "must have at least one, or be nil")
	}
	for _, m := range s.Mechanisms {
		switch {
		case m != Plain && m != ScramSHA256 && m != ScramSHA512:
			invalid("Mechanisms", m, "is none of PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512")
		case m == Plain && l.TLS == nil && !s.PlainWithoutTLS:
			invalid("Mechanisms", m, "sends passwords as they are: it needs TLS, or PlainWithoutTLS")
		}
	}
	if s.SessionLifetime < 0 || s.SessionLifetime > 0 && s.SessionLifetime < time.Second {
		invalid("SessionLifetime", s.SessionLifetime.String(), "must be 0, or a second at least")
	}
	return errors.Join(bad...)
}

type saslState uint8

const (
	saslBegins saslState = iota // SaslHandshake comes next
	saslTokens                  // tokens of the mechanism come
	saslDone
)

// saslAuth is the authenticator of a listener with SASL. (KIP-43, KIP-152, KIP-368)
type saslAuth struct {
	conn    *conn
	options *SASL

	state     saslState
	raw       bool // tokens come without a request around them: SaslHandshake version 0
	mechanism string
	exchange  *scram.Server // nil for PLAIN

	who     Principal // zero until it is known
	expires time.Time // of the session; zero is never
	refused error     // the connection ends when this is answered
}

func newSASL(c *conn) *saslAuth { return &saslAuth{conn: c, options: c.listener.SASL} }

// failureDelay is how long the answer to a wrong password takes: who guesses does so
// slowly. (connection.failed.authentication.delay.ms)
const failureDelay = 100 * time.Millisecond

// authenticationTimeout is how long a connection may take to say who it is.
const authenticationTimeout = time.Minute

func (s *saslAuth) admits(key int16) bool {
	switch key {
	case apiVersionsKey, saslHandshakeKey, saslAuthenticateKey:
		return s.refused == nil
	}
	return s.state == saslDone && s.refused == nil && !s.expired()
}

func (s *saslAuth) expired() bool { return !s.expires.IsZero() && !time.Now().Before(s.expires) }

func (s *saslAuth) principal() (Principal, bool) { return s.who, s.who != Principal{} }

// choose begins with a mechanism.
func (s *saslAuth) choose(mechanism string, raw bool) (code int16) {
	again := s.who != Principal{}
	switch {
	case s.state == saslTokens || again && raw:
		s.refused = errors.New("SaslHandshake at the wrong time")
		return codeIllegalSaslState
	case !slices.Contains(s.conn.listener.mechanisms(), mechanism):
		s.refused = fmt.Errorf("mechanism %.40q is not offered", mechanism)
		return codeUnsupportedSaslMechanism
	}
	s.state, s.raw, s.mechanism, s.exchange = saslTokens, raw, mechanism, nil
	if m, err := scram.ParseMechanism(mechanism); err == nil {
		s.exchange = scram.NewServer(m, func(user string) (*scram.Credential, bool) {
			return s.conn.srv.engine.Credential(user, m)
		})
	}
	return codeNone
}

// takesToken says that the next frame is a token alone.
func (s *saslAuth) takesToken() bool { return s.state == saslTokens && s.raw }

// take takes a token of the mechanism and returns what to answer. After an error the
// connection is of no use any more.
func (s *saslAuth) take(ctx context.Context, token []byte) (answer []byte, err error) {
	name := ""
	if s.exchange == nil {
		name, err = s.takePlain(ctx, token)
	} else {
		answer, err = s.exchange.Next(token)
		if err == nil && !s.exchange.Done() {
			return answer, nil
		}
		name = s.exchange.User()
	}
	if err == nil {
		err = s.let(name)
	}
	if err != nil {
		s.refused = fmt.Errorf("%s of user %.64q: %w", s.mechanism, name, err)
		s.conn.wait(failureDelay)
		return nil, s.refused
	}
	return answer, nil
}

// let lets a user in who has proved who he is.
func (s *saslAuth) let(name string) error {
	who := acl.User(name)
	if s.who != (Principal{}) && s.who != who {
		return fmt.Errorf("%s would become %s", s.who, who)
	}
	if s.exchange != nil || s.options.CheckPassword == nil {
		if err := s.conn.belongsTo(name); err != nil {
			return err
		}
	}
	s.who, s.state, s.exchange, s.expires = who, saslDone, nil, time.Time{}
	return nil
}

// begin says for how long the client may go on, which knows that it has to come
// again. Zero is for ever.
func (s *saslAuth) begin() time.Duration {
	if s.options.SessionLifetime > 0 {
		s.expires = time.Now().Add(s.options.SessionLifetime)
	}
	return s.options.SessionLifetime
}

// takePlain reads the one message of PLAIN. (RFC 4616)
func (s *saslAuth) takePlain(ctx context.Context, token []byte) (name string, err error) {
	parts := bytes.Split(token, []byte{0})
	if len(parts) != 3 || len(token) > maxPlainBytes || !utf8.Valid(token) {
		return "", errors.New("a message that is none")
	}
	as, name, password := string(parts[0]), string(parts[1]), string(parts[2])
	switch {
	case engine.CheckUserName(name) != nil || password == "":
		return "", errors.New("no name, or no password")
	case as != "" && as != name:
		return name, errors.New("another identity than the user's was asked for")
	}
	check := s.options.CheckPassword
	if check == nil {
		check = s.checkPassword
	}
	if !check(ctx, name, password) {
		return name, errors.New("wrong password, or no such user")
	}
	return name, nil
}

const maxPlainBytes = 4096

// checkPassword looks the password up. It takes milliseconds of a CPU, which all
// connections together must not take all of.
func (s *saslAuth) checkPassword(ctx context.Context, name, password string) bool {
	select {
	case s.conn.srv.hashing <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-s.conn.srv.hashing }()
	return s.conn.srv.engine.CheckPassword(name, password)
}

// serveToken answers a token that came without a request around it.
func (c *conn) serveToken(s *saslAuth, token []byte) error {
	answer, err := s.take(c.ctx, token)
	if err != nil {
		return c.refusal() // Kafka closes the connection, too
	}
	c.out.reset()
	c.out.b = append(append(c.out.b, 0, 0, 0, 0), answer...)
	err = c.write()
	c.out.reset()
	if err == nil && s.state == saslDone {
		c.open.Store(true)
	}
	return err
}

// failedMessage is all that a client hears.
func (s *saslAuth) failedMessage() *string {
	text := "Authentication failed: invalid credentials with SASL mechanism " + s.mechanism
	return &text
}
