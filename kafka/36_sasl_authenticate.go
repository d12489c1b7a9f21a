package kafka

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// SaslAuthenticate, versions 0 to 2: a token of the mechanism that SaslHandshake
// chose. From version 1 on the client is told when to come again. (KIP-152, KIP-368)

const saslAuthenticateKey = 36

func init() { register(0, 2, saslAuthenticate) }

func saslAuthenticate(r *request, q *kmsg.SASLAuthenticateRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.SASLAuthenticateResponse)
	s, ok := r.conn.auth.(*saslAuth)
	if !ok || s.state != saslTokens {
		text := "SaslAuthenticate without SaslHandshake before it"
		resp.ErrorCode, resp.ErrorMessage = codeIllegalSaslState, &text
		if ok {
			s.refused = errors.New(text)
		}
		return resp, nil
	}
	answer, err := s.take(r.ctx, q.SASLAuthBytes)
	if err != nil {
		resp.ErrorCode, resp.ErrorMessage = codeSaslAuthenticationFailed, s.failedMessage()
		return resp, nil
	}
	resp.SASLAuthBytes = answer
	if s.state == saslDone && q.Version >= 1 {
		resp.SessionLifetimeMillis = s.begin().Milliseconds()
	}
	return resp, nil
}
