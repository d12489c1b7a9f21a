package scram

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Server is the server's side of one exchange:
//
//	client                                server
//	n,,n=user,r=nonce          -->
//	                           <--  r=nonce+ours,s=salt,i=iterations
//	c=biws,r=nonce+ours,p=proof -->
//	                           <--  v=signature
//
// An error ends it. What the client did wrong is not told to it.
type Server struct {
	mechanism Mechanism
	find      func(user string) (c *Credential, known bool)
	nonce     string // of the server; tests choose it

	state serverState
	user  string
	known bool
	cred  *Credential
	gs2   string // the header that the proof covers
	bare  string // client-first-message-bare
	first string // server-first-message

	clientNonce, bothNonce string
}

type serverState uint8

const (
	awaitsFirst serverState = iota
	awaitsFinal
	succeeded
	failed
)

// ErrFailed is matched by every error of an exchange.
var ErrFailed = errors.New("authentication failed")

// maxMessageBytes bounds a message of a client. Names and nonces are far smaller.
const maxMessageBytes = 4096

// NewServer begins an exchange. find returns a user's credential; of a user that
// there is not it returns one that Fake made, and false.
func NewServer(m Mechanism, find func(user string) (c *Credential, known bool)) *Server {
	return &Server{mechanism: m, find: find, nonce: newNonce()}
}

func newNonce() string {
	b := make([]byte, 24)
	rand.Read(b) // it does not fail
	return base64.StdEncoding.EncodeToString(b)
}

// Done says whether the client has proved that it knows the password.
func (s *Server) Done() bool { return s.state == succeeded }

// User is who the client says that it is; who it is when Done.
func (s *Server) User() string { return s.user }

// Next takes the client's message and returns the answer. After the last one Done
// is true.
func (s *Server) Next(message []byte) (answer []byte, err error) {
	state := s.state
	s.state = failed // until it is known better
	if len(message) > maxMessageBytes || !utf8.Valid(message) {
		return nil, refuse("a message that is too long, or no text")
	}
	switch state {
	case awaitsFirst:
		answer, err = s.takeFirst(string(message))
		if err == nil {
			s.state = awaitsFinal
		}
	case awaitsFinal:
		answer, err = s.takeFinal(string(message))
		if err == nil {
			s.state = succeeded
		}
	default:
		err = refuse("the exchange is over")
	}
	return answer, err
}

func refuse(why string) error { return fmt.Errorf("%w: %s", ErrFailed, why) }

// takeFirst reads gs2-header and client-first-message-bare.
func (s *Server) takeFirst(m string) ([]byte, error) {
	binding, rest, ok1 := strings.Cut(m, ",")
	authzid, bare, ok2 := strings.Cut(rest, ",")
	switch {
	case !ok1 || !ok2:
		return nil, refuse("a first message without its header")
	case strings.HasPrefix(binding, "p="):
		return nil, refuse("channel binding, which was not offered")
	case binding != "n" && binding != "y":
		return nil, refuse("a header that is none")
	}
	s.gs2, s.bare = m[:len(m)-len(bare)], bare
	// A client that needs an extension puts m= in front: we have none.
	name, rest, ok := strings.Cut(bare, ",")
	user, isName := strings.CutPrefix(name, "n=")
	nonce, extensions, _ := strings.Cut(rest, ",")
	nonce, isNonce := strings.CutPrefix(nonce, "r=")
	if !ok || !isName || !isNonce || !printable(nonce) || extensions != "" && !validExtensions(extensions) {
		return nil, refuse("a first message without name and nonce")
	}
	if s.user, ok = unescape(user); !ok || s.user == "" {
		return nil, refuse("a name that is none")
	}
	if authzid != "" {
		as, isAs := strings.CutPrefix(authzid, "a=")
		if as, ok := unescape(as); !ok || !isAs || as != s.user {
			return nil, refuse("another identity than the user's was asked for")
		}
	}
	s.cred, s.known = s.find(s.user)
	s.clientNonce, s.bothNonce = nonce, nonce+s.nonce
	s.first = fmt.Sprintf("r=%s,s=%s,i=%d", s.bothNonce, base64.StdEncoding.EncodeToString(s.cred.Salt), s.cred.Iterations)
	return []byte(s.first), nil
}

// validExtensions says whether they are attributes that can be passed over. One of
// Kafka's cannot: it says that the user is a delegation token.
func validExtensions(s string) bool {
	for e := range strings.SplitSeq(s, ",") {
		name, value, ok := strings.Cut(e, "=")
		if !ok || name == "" || name == "tokenauth" && strings.EqualFold(value, "true") {
			return false
		}
		for _, c := range []byte(name) {
			if c|0x20 < 'a' || c|0x20 > 'z' {
				return false
			}
		}
	}
	return true
}

// takeFinal reads client-final-message, and checks the proof.
func (s *Server) takeFinal(m string) ([]byte, error) {
	at := strings.LastIndex(m, ",p=")
	if at < 0 {
		return nil, refuse("a last message without proof")
	}
	without := m[:at]
	proof, err := base64.StdEncoding.Strict().DecodeString(m[at+len(",p="):])
	if err != nil || len(proof) != s.mechanism.KeyBytes() {
		return nil, refuse("a proof that is none")
	}
	channel, rest, _ := strings.Cut(without, ",")
	nonce, extensions, _ := strings.Cut(rest, ",")
	if channel != "c="+base64.StdEncoding.EncodeToString([]byte(s.gs2)) {
		return nil, refuse("another header than in the first message")
	}
	// librdkafka before 2.6.1 puts its own nonce in front once more, against the RFC. Kafka
	// 3.8.1 and 3.9 let it, and 4.0 does not; systems still ship it, so that form is taken.
	// The proof covers what was sent, and our nonce is in it either way.
	if nonce != "r="+s.bothNonce && nonce != "r="+s.clientNonce+s.bothNonce || extensions != "" && !validExtensions(extensions) {
		return nil, refuse("another nonce than in the first message")
	}
	auth := s.bare + "," + s.first + "," + without
	signature := s.mechanism.hmac(s.cred.StoredKey, auth)
	clientKey := make([]byte, len(proof))
	subtle.XORBytes(clientKey, proof, signature)
	right := hmac.Equal(s.mechanism.sum(clientKey), s.cred.StoredKey)
	answer := "v=" + base64.StdEncoding.EncodeToString(s.mechanism.hmac(s.cred.ServerKey, auth))
	if !right || !s.known { // both are known by now, and took the same time
		return nil, refuse("wrong password, or no such user")
	}
	return []byte(answer), nil
}

// printable says whether s is a nonce: printable ASCII without commas.
func printable(s string) bool {
	for _, c := range []byte(s) {
		if c < 0x21 || c > 0x7e || c == ',' {
			return false
		}
	}
	return s != ""
}

// unescape reads a saslname: "=2C" is a comma, "=3D" an equals sign.
func unescape(s string) (string, bool) {
	if strings.ContainsRune(s, 0) {
		return "", false
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "=")
		b.WriteString(before)
		switch {
		case !found:
			return b.String(), true
		case strings.HasPrefix(after, "2C"):
			b.WriteByte(',')
		case strings.HasPrefix(after, "3D"):
			b.WriteByte('=')
		default:
			return "", false
		}
		s = after[2:]
	}
}
