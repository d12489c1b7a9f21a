package raftrepl

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/x/embedlog/internal/engine"
)

// The same over TCP and TLS on loopback: what the simulated network cannot show is whether a real one is
// used rightly.
func TestTransportOverTCP(t *testing.T) {
	ca, err := NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, ca: ca}
	var mu sync.Mutex
	where := map[int32]string{}
	start := func(node int32) *transport {
		cert, key, err := ca.Issue(node)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := newTLS(ca.CertPEM(), cert, key, "test", node)
		if err != nil {
			t.Fatal(err)
		}
		tr, err := newTransport(transportConfig{self: node, listen: "127.0.0.1:0", network: tcp{}, tls: pair,
			election: 30 * time.Second, // this is not about time, and a busy machine stands still for seconds
			identity: func() identity { return identity{theCluster, engine.TopicID{'d', byte(node)}} },
			address: func(n int32) (string, bool) {
				mu.Lock()
				defer mu.Unlock()
				a, ok := where[n]
				return a, ok
			},
			directory: func(int32) (engine.TopicID, bool) { return engine.TopicID{}, false },
			serve: func(_ context.Context, _ int32, _ string, request []byte) ([]byte, error) {
				return bytes.ToUpper(request), nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		where[node] = tr.listener.Addr().String()
		mu.Unlock()
		return tr
	}
	a, b := start(1), start(2)
	defer a.Close()
	defer b.Close()
	ga, gb := w.group(a, groupA, groupHooks{}), w.group(b, groupA, groupHooks{})
	w.answering(ga, nil)
	w.answering(gb, nil)
	// Both would dial, and what is under way on the connection that gives way is lost.
	if _, err := b.call(t.Context(), 1, "upper", []byte("abc")); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range uint64(5) {
				req := &raft.AppendEntriesRequest{Term: 1, PrevLogEntry: i + 1, PrevLogTerm: 1, Entries: entries(i+2, 3<<20, 3<<20)}
				var resp raft.AppendEntriesResponse
				if err := ga.AppendEntries("2", "", req, &resp); err != nil || !resp.Success {
					t.Errorf("entries: %+v, %v", resp, err)
				}
			}
		})
		wg.Go(func() {
			for range 20 {
				if got, err := b.call(t.Context(), 1, "upper", []byte("abc")); err != nil || string(got) != "ABC" {
					t.Errorf("call: %q, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}
