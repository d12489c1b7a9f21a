package kafka

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// SaslHandshake, versions 0 and 1: which mechanism comes next. After version 0 tokens
// come without requests around them. (KIP-43, KIP-152)

const saslHandshakeKey = 17

func init() { register(0, 1, saslHandshake) }

func saslHandshake(r *request, q *kmsg.SASLHandshakeRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.SASLHandshakeResponse)
	s, ok := r.conn.auth.(*saslAuth)
	if !ok {
		resp.ErrorCode = codeIllegalSaslState
		return resp, nil
	}
	// There are clients that look at the list when nothing is wrong, too.
	resp.SupportedMechanisms = slices.Clone(r.conn.listener.mechanisms())
	resp.ErrorCode = s.choose(q.Mechanism, q.Version == 0)
	return resp, nil
}
