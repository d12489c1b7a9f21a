package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/x/embedlog/internal/sock"
)

// kafkaCodes are the kinds of failure that Kafka's codes stand for. What is not here
// is a failure without a kind.
var kafkaCodes = map[*kerr.Error]sock.Code{
	kerr.UnknownTopicOrPartition:  sock.CodeUnknownTopic,
	kerr.UnknownTopicID:           sock.CodeUnknownTopic,
	kerr.TopicAlreadyExists:       sock.CodeTopicExists,
	kerr.InvalidTopicException:    sock.CodeInvalid,
	kerr.InvalidPartitions:        sock.CodeInvalid,
	kerr.InvalidReplicationFactor: sock.CodeInvalid,
	kerr.InvalidConfig:            sock.CodeInvalid,
	kerr.InvalidRequest:           sock.CodeInvalid,
	kerr.InvalidRecord:            sock.CodeInvalid,
	kerr.InvalidTimestamp:         sock.CodeInvalid,
	kerr.InvalidGroupID:           sock.CodeInvalid,
	kerr.InvalidPrincipalType:     sock.CodeInvalid,
	kerr.UnacceptableCredential:   sock.CodeInvalid,
	kerr.GroupIDNotFound:          sock.CodeUnknownGroup,
	kerr.NonEmptyGroup:            sock.CodeGroupNotEmpty,
	kerr.UnknownMemberID:          sock.CodeGroupNotEmpty, // of a commit without being a member
	kerr.ResourceNotFound:         sock.CodeUnknownUser,
	kerr.OffsetOutOfRange:         sock.CodeOffsetRange,
	kerr.MessageTooLarge:          sock.CodeTooLarge,
	kerr.RecordListTooLarge:       sock.CodeTooLarge,
	kerr.CorruptMessage:           sock.CodeCorrupt,
}

// failed is an error of the other side: what was tried, and what it said itself where
// it said something.
func failed(err error, said, what string, args ...any) error {
	if err == nil {
		return nil
	}
	var k *kerr.Error
	code := sock.CodeFailure
	if errors.As(err, &k) {
		if c, ok := kafkaCodes[k]; ok {
			code = c
		}
	}
	what = fmt.Sprintf(what, args...)
	switch {
	case isAuthorization(k):
		return k // told adds who it is that may not
	case k == nil:
		return fmt.Errorf("%s: %w", what, err)
	case said != "":
		return &sock.Error{Code: code, Message: said}
	}
	return &sock.Error{Code: code, Message: what + ": " + saidBy(k)}
}

func isAuthorization(k *kerr.Error) bool {
	switch k {
	case kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed:
		return true
	}
	return false
}

// saidBy is a code of Kafka's in words.
func saidBy(k *kerr.Error) string {
	return strings.TrimSuffix(k.Description, ".") + " (" + k.Message + ")"
}

// told is what the person is told of an error: one that has a code of its own stays, a
// connection that is gone is explained.
func (d *address) told(err error) error {
	var e *sock.Error
	var dial *dialError
	var k *kerr.Error
	var shards *kadm.ShardErrors
	if errors.As(err, &shards) && len(shards.Errs) > 0 {
		err = shards.Errs[0].Err // the same at each broker, or the first of several
	}
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &dial):
		return dial
	case errors.As(err, &k):
		switch {
		case isAuthorization(k):
			return &sock.Error{Code: sock.CodeFailure, Message: fmt.Sprintf("%s not do that: %s; `embedlog acl` on the other side says who may do what", d.who(), k.Message)}
		case k == kerr.SecurityDisabled:
			return &sock.Error{Code: sock.CodeFailure, Message: "the other side keeps no ACLs: everybody may do everything (SECURITY_DISABLED); with `embedlog serve --authorize` it does"}
		}
		code := kafkaCodes[k]
		if code == "" {
			code = sock.CodeFailure
		}
		return &sock.Error{Code: code, Message: saidBy(k)}
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: no answer in time", strings.Join(d.hosts, ","))
	case errors.Is(err, kgo.ErrClientClosed):
		return &sock.Error{Code: sock.CodeCancelled, Message: err.Error()}
	}
	var eof *kgo.ErrFirstReadEOF
	var slow net.Error
	if errors.As(err, &slow) && slow.Timeout() {
		return fmt.Errorf("%s: no answer in time", strings.Join(d.hosts, ","))
	}
	if errors.As(err, &eof) {
		return d.explain(context.Background(), err)
	}
	return err
}

func (d *address) who() string {
	switch {
	case d.user != "":
		return d.user + " may"
	case d.cert != "":
		return "whoever has this certificate may"
	}
	return "who gives no name may"
}
