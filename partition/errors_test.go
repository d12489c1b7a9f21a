package partition

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestErrorsMatch(t *testing.T) {
	sentinels := []error{
		ErrOffsetOutOfRange, ErrRecordTooLarge, ErrNotLeader, ErrFenced, ErrOutOfOrderSequence,
		ErrUnexpectedOffset, ErrUnknownOutcome, ErrInvalidTxnState, ErrInvalidRecord,
	}
	tests := []struct {
		err   error
		is    error
		names []string // numbers and words that the text has to show
	}{
		{&OffsetOutOfRangeError{Offset: 7, LogStart: 10, LogEnd: 20}, ErrOffsetOutOfRange, []string{"7", "10", "20"}},
		{&RecordTooLargeError{Bytes: 2048, Limit: 1024}, ErrRecordTooLarge, []string{"2048", "1024"}},
		{&NotLeaderError{Leader: 3, LeaderEpoch: 9, Address: "b:1"}, ErrNotLeader, []string{"3", "9", "b:1"}},
		{&NotLeaderError{Leader: -1, LeaderEpoch: 9}, ErrNotLeader, []string{"no leader", "9"}},
		{&FencedError{ProducerID: 77, Epoch: 4, Current: 5}, ErrFenced, []string{"77", "4", "5"}},
		{&FencedError{ProducerID: 77, Coordinator: true, Epoch: 4, Current: 5}, ErrFenced, []string{"coordinator", "77"}},
		{&OutOfOrderSequenceError{ProducerID: 77, Epoch: 4, Sequence: 12, Expected: 10}, ErrOutOfOrderSequence, []string{"77", "4", "12", "10"}},
		{&UnexpectedOffsetError{Expected: 5, LogEnd: 8}, ErrUnexpectedOffset, []string{"5", "8"}},
		{&UnknownOutcomeError{BaseOffset: 5, LastOffset: 8, Err: io.EOF}, ErrUnknownOutcome, []string{"5", "8", "EOF"}},
		{&UnknownOutcomeError{BaseOffset: -1, LastOffset: -1, Err: io.EOF}, ErrUnknownOutcome, []string{"unknown", "EOF"}},
		{&InvalidTxnStateError{ProducerID: 77, FirstOffset: 9, Reason: "why"}, ErrInvalidTxnState, []string{"77", "9", "why"}},
		{&InvalidTxnStateError{ProducerID: 77, FirstOffset: -1, Reason: "why"}, ErrInvalidTxnState, []string{"77", "no open", "why"}},
		{&InvalidRecordError{Records: []InvalidRecord{{2, "no key"}, {-1, "whole"}}}, ErrInvalidRecord, []string{"record 2: no key", "; whole"}},
		{&InvalidRecordError{Records: make([]InvalidRecord, 9)}, ErrInvalidRecord, []string{"and 4 more"}},
	}
	for _, tt := range tests {
		wrapped := fmt.Errorf("append orders/3: %w", tt.err)
		for _, s := range sentinels {
			if got, want := errors.Is(wrapped, s), s == tt.is; got != want {
				t.Errorf("%T matches %q: %t, want %t", tt.err, s, got, want)
			}
		}
		for _, name := range tt.names {
			if !strings.Contains(tt.err.Error(), name) {
				t.Errorf("%T: text %q does not show %q", tt.err, tt.err, name)
			}
		}
	}
	if err := error(&UnknownOutcomeError{Err: io.EOF}); !errors.Is(err, io.EOF) {
		t.Error("the reason of an unknown outcome is not unwrapped")
	}
	for _, s := range sentinels {
		if !strings.HasPrefix(s.Error(), "embedlog: ") {
			t.Errorf("sentinel %q has no prefix", s)
		}
	}
}
