// Package scram has the credentials of users, from which no password can be read,
// and the server's side of SCRAM (RFC 5802, RFC 7677) as Kafka speaks it: without
// channel binding, and with passwords as the bytes that the client has, which
// Kafka does not prepare (RFC 4013) either.
//
//	password --PBKDF2, salt, iterations--> salted password --+--> client key --H--> stored key
//	                                                         +--> server key
//
// A Credential is only read once it is made. A Server belongs to one exchange.
package scram

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"fmt"
	"hash"
	"strings"
)

// Mechanism is one of the two kinds of SCRAM, by Kafka's number. (ScramMechanism)
type Mechanism int8

// The mechanisms, with Kafka's numbers.
const (
	SHA256 Mechanism = 1
	SHA512 Mechanism = 2
)

// String is the mechanism's name in SASL: SCRAM-SHA-256.
func (m Mechanism) String() string {
	switch m {
	case SHA256:
		return "SCRAM-SHA-256"
	case SHA512:
		return "SCRAM-SHA-512"
	}
	return fmt.Sprintf("SCRAM(%d)", m)
}

// ParseMechanism reads what String wrote, in any case.
func ParseMechanism(s string) (Mechanism, error) {
	for _, m := range []Mechanism{SHA256, SHA512} {
		if strings.EqualFold(s, m.String()) {
			return m, nil
		}
	}
	return 0, fmt.Errorf("%q is no mechanism: there are %s and %s", s, SHA256, SHA512)
}

// Known says whether m is one of the mechanisms.
func (m Mechanism) Known() bool { return m == SHA256 || m == SHA512 }

// KeyBytes is the size of the mechanism's keys.
func (m Mechanism) KeyBytes() int {
	if m == SHA512 {
		return sha512.Size
	}
	return sha256.Size
}

func (m Mechanism) hash() func() hash.Hash {
	if m == SHA512 {
		return sha512.New
	}
	return sha256.New
}

func (m Mechanism) hmac(key []byte, text string) []byte {
	h := hmac.New(m.hash(), key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func (m Mechanism) sum(b []byte) []byte {
	h := m.hash()()
	h.Write(b)
	return h.Sum(nil)
}

// How often a password is hashed. (Kafka's ScramMechanism and its limit in
// AlterUserScramCredentials)
const (
	MinIterations     = 4096
	MaxIterations     = 16384
	DefaultIterations = 8192
)

// Sizes of salts, in bytes.
const (
	SaltBytes    = 24
	MaxSaltBytes = 255
)

// Credential is what a server keeps of a user's password: enough to recognise it,
// and for SCRAM.
type Credential struct {
	Mechanism  Mechanism
	Iterations int
	Salt       []byte
	StoredKey  []byte
	ServerKey  []byte
}

// New makes the credential of a password, with a random salt.
func New(m Mechanism, password string, iterations int) (*Credential, error) {
	c := &Credential{Mechanism: m, Iterations: iterations, Salt: make([]byte, SaltBytes)}
	rand.Read(c.Salt) // it does not fail
	salted, err := c.salted(password)
	if err != nil {
		return nil, err
	}
	return FromSalted(m, iterations, c.Salt, salted), nil
}

// FromSalted makes the credential of a password that was salted elsewhere. It keeps
// salt.
func FromSalted(m Mechanism, iterations int, salt, salted []byte) *Credential {
	c := &Credential{Mechanism: m, Iterations: iterations, Salt: salt, ServerKey: m.hmac(salted, "Server Key")}
	c.StoredKey = m.sum(m.hmac(salted, "Client Key"))
	return c
}

// Salted is what FromSalted takes.
func Salted(m Mechanism, password string, iterations int, salt []byte) ([]byte, error) {
	return (&Credential{Mechanism: m, Iterations: iterations, Salt: salt}).salted(password)
}

func (c *Credential) salted(password string) ([]byte, error) {
	return pbkdf2.Key(c.Mechanism.hash(), password, c.Salt, c.Iterations, c.Mechanism.KeyBytes())
}

// Reason says why there can be no such credential; "" is that there can.
func (c *Credential) Reason() string {
	switch {
	case !c.Mechanism.Known():
		return fmt.Sprintf("there is no SCRAM mechanism %d", c.Mechanism)
	case c.Iterations < MinIterations || c.Iterations > MaxIterations:
		return fmt.Sprintf("%d iterations: want %d to %d", c.Iterations, MinIterations, MaxIterations)
	case len(c.Salt) == 0 || len(c.Salt) > MaxSaltBytes:
		return fmt.Sprintf("a salt of %d bytes: want 1 to %d", len(c.Salt), MaxSaltBytes)
	case len(c.StoredKey) != c.Mechanism.KeyBytes() || len(c.ServerKey) != c.Mechanism.KeyBytes():
		return fmt.Sprintf("keys of %d and %d bytes: want %d", len(c.StoredKey), len(c.ServerKey), c.Mechanism.KeyBytes())
	}
	return ""
}

// Verify says whether the password is the credential's. It takes as long as the
// iterations say, whatever the answer: 1 to 10 ms.
func (c *Credential) Verify(password string) bool {
	salted, err := c.salted(password)
	if err != nil {
		return false
	}
	stored := c.Mechanism.sum(c.Mechanism.hmac(salted, "Client Key"))
	return subtle.ConstantTimeCompare(stored, c.StoredKey) == 1
}

// Fake is a credential for a user that there is not: it costs what another costs,
// shows the same salt each time, and no password fits it. Who does not know the
// secret cannot tell it from others.
func Fake(m Mechanism, secret []byte, user string, iterations, saltBytes int) *Credential {
	bytes := func(what string, n int) []byte {
		var b []byte
		for i := 0; len(b) < n; i++ {
			b = append(b, SHA512.hmac(secret, fmt.Sprintf("%s %d %d %s", what, i, m, user))...)
		}
		return b[:n]
	}
	return &Credential{
		Mechanism: m, Iterations: iterations, Salt: bytes("salt", saltBytes),
		StoredKey: bytes("stored key", m.KeyBytes()), ServerKey: bytes("server key", m.KeyBytes()),
	}
}
