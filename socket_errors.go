package embedlog

import (
	"context"
	"errors"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/sock"
)

// sessionCodes are tried in turn. What is not here is a failure without a code.
var sessionCodes = []struct {
	is   error
	code sock.Code
}{
	{ErrUnknownOutcome, sock.CodeUnknownOutcome}, // before what made it unknown
	{ErrUnknownTopic, sock.CodeUnknownTopic},
	{ErrUnknownPartition, sock.CodeUnknownPart},
	{ErrUnknownGroup, sock.CodeUnknownGroup},
	{ErrGroupNotEmpty, sock.CodeGroupNotEmpty},
	{ErrInvalidGroup, sock.CodeInvalid},
	{ErrInvalidReset, sock.CodeInvalid},
	{ErrUnknownUser, sock.CodeUnknownUser},
	{ErrInvalidUser, sock.CodeInvalid},
	{ErrInvalidACL, sock.CodeInvalid},
	{ErrUnknownNode, sock.CodeUnknownNode},
	{ErrNotLeader, sock.CodeNotLeader},
	{engine.ErrNotYet, sock.CodeNotYet},
	{ErrInvalidNode, sock.CodeInvalid},
	{ErrNotRecoverable, sock.CodeInvalid},
	{ErrNoReassignment, sock.CodeInvalid},
	{ErrInvalidReplicationFactor, sock.CodeInvalid},
	{ErrInvalidAssignment, sock.CodeInvalid},
	{ErrTopicExists, sock.CodeTopicExists},
	{ErrInvalidTopic, sock.CodeInvalid},
	{ErrInvalidSetting, sock.CodeInvalid},
	{ErrInvalidRecord, sock.CodeInvalid},
	{ErrOffsetOutOfRange, sock.CodeOffsetRange},
	{ErrRecordTooLarge, sock.CodeTooLarge},
	{ErrNoSpace, sock.CodeNoSpace},
	{ErrCorrupt, sock.CodeCorrupt},
	{ErrBadBatch, sock.CodeCorrupt},
	{ErrNewerFormat, sock.CodeNewerFormat},
	{ErrClosed, sock.CodeClosing},
	{context.Canceled, sock.CodeCancelled},
}

// sessionError is what a client is told of an error.
func sessionError(err error) *sock.Error {
	if e := (*sock.Error)(nil); errors.As(err, &e) {
		return e
	}
	code := sock.CodeFailure
	for _, row := range sessionCodes {
		if errors.Is(err, row.is) {
			code = row.code
			break
		}
	}
	return &sock.Error{Code: code, Message: err.Error()}
}
