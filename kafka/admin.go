package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/x/embedlog/internal/engine"
)

// What the administration APIs have in common.

// within is the context of what a request changes. It ends after the request's own
// timeout, which may be none at all, and with the server: not with the connection,
// since what a client asked for and was not refused should not depend on whether it
// waits for the answer.
func (r *request) within(timeoutMillis int32) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.life, time.Duration(max(timeoutMillis, 0))*time.Millisecond)
}

// refusal is an error that a client hears with a code of its own.
type refusal struct {
	code    int16
	message string
}

func (e *refusal) Error() string { return e.message }

func refuse(code int16, format string, args ...any) error {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

// answerTo is the code and the message for an error; nil is code 0 without one.
func answerTo(err error) (code int16, message *string) {
	if err == nil {
		return codeNone, nil
	}
	// Joined errors have a line each, and names in them may be long.
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if len(text) > maxMessageBytes {
		text = strings.ToValidUTF8(text[:maxMessageBytes], "") + "..."
	}
	var own *refusal
	if errors.As(err, &own) {
		return own.code, &text
	}
	if code = codeOf(err); code == codeNotLeaderOrFollower {
		code = codeNotController // what is administered is in the metadata
	}
	return code, &text
}

// maxMessageBytes bounds the text about one error.
const maxMessageBytes = 2048

// Sizes of an answer's parts in memory, about: with a message, and without.
const (
	explainedBytes = 400
	plainBytes     = 64
)

// grow takes memory for the answer. A few bytes of a request may ask for many of an
// answer, and some thousands of them for more than there is: then it is an error,
// before anything is changed.
func (r *request) grow(parts int, each int64) error {
	if err := r.reserve(int64(parts) * each); err != nil {
		return fmt.Errorf("the answer: %w", err)
	}
	return nil
}

// What somebody hears who may not do something. It does not say whether the thing is
// there.
var (
	errTopicDenied   = refuse(codeTopicAuthorizationFailed, "Topic authorization failed.")
	errGroupDenied   = refuse(codeGroupAuthorizationFailed, "Group authorization failed.")
	errClusterDenied = refuse(codeClusterAuthorizationFailed, "Cluster authorization failed.")
)

// checkReplicas says whether a partition can have these replicas. Alone there is one
// node, and so one list.
func (r *request) checkReplicas(replicas []int32) error {
	if len(replicas) == 0 {
		return refuse(codeInvalidReplicaAssignment, "the list of replicas is empty")
	}
	for i, id := range replicas {
		if r.engine.Cluster() != nil {
			if !slices.ContainsFunc(r.engine.Nodes(), func(n engine.NodeInfo) bool { return n.ID == id }) {
				return refuse(codeInvalidReplicaAssignment, "broker %d does not exist", id)
			}
		} else if id != r.srv.nodeID {
			return refuse(codeInvalidReplicaAssignment, "broker %d does not exist: there is only %d", id, r.srv.nodeID)
		}
		if slices.Contains(replicas[:i], id) {
			return refuse(codeInvalidReplicaAssignment, "broker %d is there more than once", id)
		}
	}
	return nil
}

// counted says how often each name is there.
func counted[T any, K comparable](list []T, name func(*T) K) map[K]int {
	n := make(map[K]int, len(list))
	for i := range list {
		n[name(&list[i])]++
	}
	return n
}
