package raftrepl

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/engine"
)

// What goes on is logged once a minute, and what is new at once.
func TestSayings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sayings
		said := func(text string, want bool) {
			t.Helper()
			if got := s.news(text); got != want {
				t.Errorf("%q is news: %v, want %v", text, got, want)
			}
		}
		said("a", true)
		said("a", false)
		said("b", true)
		time.Sleep(sayAgain - time.Second)
		said("a", false)
		time.Sleep(time.Second)
		said("a", true)
		said("b", true)
		for i := range 2 * maxSayings {
			s.news(fmt.Sprint(i))
		}
		if len(s.at) > maxSayings {
			t.Errorf("%d texts are remembered, at most %d should be", len(s.at), maxSayings)
		}
	})
}

// Status names the node; the reason behind it does not name it again.
func TestTroubleText(t *testing.T) {
	dialled := fmt.Errorf("%w: %w", engine.ErrPeerUnreachable, errors.New("dial tcp 127.0.0.1:1: connection refused"))
	for _, row := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("node 2: %w: %w", engine.ErrPeerUnreachable, fmt.Errorf("node 2: %w", dialled)), "dial tcp 127.0.0.1:1: connection refused"},
		{fmt.Errorf("node 2: %w", &PeerRefusedError{Node: 2, Address: "h:1", Reason: RefusedToken, Detail: "no", ByPeer: true}), "it refuses this node (token): no"},
		{&PeerRefusedError{Node: 2, Address: "h:1", Reason: RefusedCertificate, Detail: "old"}, "this node refuses it (certificate): old"},
		{errors.New("what else there is"), "what else there is"},
	} {
		if got := troubleText(row.err); got != row.want || strings.Contains(got, "node 2") {
			t.Errorf("%v: %q, want %q", row.err, got, row.want)
		}
	}
}
