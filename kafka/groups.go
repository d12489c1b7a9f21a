package kafka

import (
	"time"

	"github.com/x/embedlog/internal/engine"
)

// What the files of the group APIs share.

// millis is a time of the protocol. What is negative says nothing.
func millis(ms int32) time.Duration { return time.Duration(max(ms, 0)) * time.Millisecond }

// orEmpty is what a nullable string says; null and empty are the same to the engine.
func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// orNull is the opposite of orEmpty: empty is null.
func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// message is an error for people, who read it beside its code.
func message(err error) *string {
	if err == nil {
		return nil
	}
	s := err.Error()
	return &s
}

// shownHost is a member's host as Kafka writes it: tools know addresses by the slash.
func shownHost(host string) string {
	if host == "" {
		return ""
	}
	return "/" + host
}

// epochAt is the leader epoch of the record before an offset, for clients that do not
// say it: so what they have read is known again after a loss at the log's end, too.
// -1 when it is not known. (KIP-320)
func epochAt(topic *engine.Topic, partition int32, offset int64) int32 {
	p, err := topic.Partition(partition)
	if err != nil || p.Err() != nil || offset > p.LogEnd() { // past the end nobody has read anything
		return -1
	}
	if epoch, ok := p.EpochOf(offset - 1); ok {
		return epoch
	}
	return -1
}

// mayGroup says whether whoever asks may do op to the group, by the code to answer with.
func (r *request) mayGroup(op Operation, group string) int16 {
	if !r.authorize(op, ResourceGroup, group) {
		return codeGroupAuthorizationFailed
	}
	return codeNone
}
