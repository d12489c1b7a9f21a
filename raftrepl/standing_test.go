package raftrepl

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/engine"
)

// What a peer may ask for is what the metadata of the one that is asked says of its directory, and for messages of a group,
// of which it is a member.
func TestStandingDecides(t *testing.T) {
	const self = 2
	for _, row := range []struct {
		name    string
		stands  engine.Standing
		member  bool
		leads   int32 // the group, as its replica at the one that is asked knows; -1 is nobody
		calls   string
		message bool
		reason  RefusalReason // of what is refused
	}{
		{"registered", engine.StandsRegistered, false, self, "meta offset echo", true, 0},
		{"added, a member", engine.StandsExpected, true, self, "meta offset", true, RefusedNode},
		{"added, another one leads", engine.StandsExpected, false, self, "meta offset", false, RefusedNode},
		{"not known, a member", engine.StandsUnknown, true, self, "", true, RefusedNode},
		{"not known, nobody leads", engine.StandsUnknown, false, -1, "", true, RefusedNode},
		{"not known, it leads", engine.StandsUnknown, false, 1, "", true, RefusedNode},
		{"not known, another one leads", engine.StandsUnknown, false, self, "", false, RefusedNode},
		{"removed, a member still", engine.StandsRemoved, true, -1, "", true, RefusedRemoved},
	} {
		t.Run(row.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.serve = func(context.Context, int32, string, []byte) ([]byte, error) { return []byte("served"), nil }
				c := w.config(self)
				c.standing = func(node int32, _ engine.TopicID) engine.Standing {
					if node != 1 {
						t.Errorf("it looks for node %d", node)
					}
					return row.stands
				}
				w.answering(w.group(w.start(c), groupA, groupHooks{
					member: func(int32) bool { return row.member }, leads: func() int32 { return row.leads },
					install: func(int32, *raft.InstallSnapshotRequest, io.Reader) (*raft.InstallSnapshotResponse, error) {
						return &raft.InstallSnapshotResponse{Success: true}, nil
					},
				}), nil)
				from := w.node(1)
				for _, service := range []string{"meta", "offset", "echo"} {
					got, err := from.call(t.Context(), self, service, nil)
					if strings.Contains(row.calls, service) {
						if err != nil || string(got) != "served" {
							t.Errorf("%s: %q, %v", service, got, err)
						}
						continue
					}
					checkRefused(t, service, err, row.reason)
				}
				g := w.group(from, groupA, groupHooks{})
				for name, ask := range map[string]func() error{
					"vote": func() error { return g.RequestVote("2", "", &raft.RequestVoteRequest{}, &raft.RequestVoteResponse{}) },
					"entries": func() error {
						return g.AppendEntries("2", "", &raft.AppendEntriesRequest{Entries: []*raft.Log{{Index: 1, Term: 1}}}, &raft.AppendEntriesResponse{})
					},
					"install": func() error {
						return g.InstallSnapshot("2", "", &raft.InstallSnapshotRequest{}, &raft.InstallSnapshotResponse{}, strings.NewReader(""))
					},
				} {
					if err := ask(); row.message && err != nil {
						t.Errorf("%s: %v", name, err)
					} else if !row.message {
						checkRefused(t, name, err, row.reason)
					}
				}
			})
		})
	}
}

func checkRefused(t *testing.T, what string, err error, reason RefusalReason) {
	t.Helper()
	var refused *PeerRefusedError
	if !errors.As(err, &refused) || refused.Reason != reason || !refused.ByPeer || !errors.Is(err, engine.ErrPeerUnreachable) {
		t.Errorf("%s: %v, want a refusal (%v)", what, err, reason)
	}
	if errors.Is(err, engine.ErrNodeRemoved) != (reason == RefusedRemoved) {
		t.Errorf("%s: %v, of a node that was removed: %v", what, err, reason == RefusedRemoved)
	}
}

// The connections of a node that is removed end, but not before its groups have let it go and it has the answer to what it
// has asked; then it does not come in again, and knows why.
func TestConnectionsOfARemovedNodeEnd(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var removed, member atomic.Bool
		member.Store(true)
		answer := make(chan struct{})
		w.serve = func(_ context.Context, _ int32, service string, _ []byte) ([]byte, error) {
			<-answer
			return []byte(service), nil
		}
		c := w.config(2)
		c.standing = func(node int32, _ engine.TopicID) engine.Standing {
			if node == 1 && removed.Load() {
				return engine.StandsRemoved
			}
			return engine.StandsRegistered
		}
		at := w.start(c)
		w.answering(w.group(at, groupA, groupHooks{member: func(int32) bool { return member.Load() }, leads: func() int32 { return 2 }}), nil)
		from, third := w.node(1), w.node(3)
		asked := make(chan error, 2)
		for _, n := range []*transport{from, third} {
			go func() {
				_, err := n.call(t.Context(), 2, "echo", nil)
				asked <- err
			}()
		}
		synctest.Wait()
		removed.Store(true)
		at.nodesChanged()
		time.Sleep(10 * testElection)
		connected := func(n *transport) bool {
			p := n.peer(2)
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.slots[flavourMain].wire != nil
		}
		if !connected(from) {
			t.Fatal("it has no connection any more, though it is a member")
		}
		if err := w.group(from, groupA, groupHooks{}).TimeoutNow("2", "", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}); err != nil {
			t.Errorf("a member's message: %v", err)
		}
		member.Store(false)
		close(answer)
		for range 2 {
			if err := <-asked; err != nil {
				t.Errorf("what was asked before: %v", err)
			}
		}
		time.Sleep(2 * testElection)
		if connected(from) || !connected(third) {
			t.Errorf("connections of the removed node, and of another: %v, %v", connected(from), connected(third))
		}
		_, err := from.call(t.Context(), 2, "echo", nil)
		checkRefused(t, "call", err, RefusedRemoved)
		if !strings.Contains(err.Error(), "node 1 was removed from the cluster") || !strings.Contains(err.Error(), "cluster add") {
			t.Errorf("it says %v", err)
		}
		if by := from.removedBy.Load(); by != 2 {
			t.Errorf("node %d is said to have refused it", by)
		}
		if _, err := third.call(t.Context(), 2, "echo", nil); err != nil {
			t.Errorf("another node's call: %v", err)
		}
	})
}
