package raftrepl

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/x/embedlog/internal/engine"
)

// refusal dials node 2 from node 1, which was made by change, and returns why that failed.
func refusal(t *testing.T, w *world, change func(c *transportConfig)) *PeerRefusedError {
	t.Helper()
	if w.nodes[2] == nil {
		w.answering(w.group(w.node(2), groupA, groupHooks{}), nil)
	}
	c := w.config(1)
	change(&c)
	tr := w.start(c)
	err := w.group(tr, groupA, groupHooks{}).TimeoutNow("2", "", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{})
	tr.Close()
	if err == nil {
		return nil
	}
	var refused *PeerRefusedError
	if !errors.As(err, &refused) || !errors.Is(err, engine.ErrPeerUnreachable) {
		t.Fatalf("failed with %v", err)
	}
	return refused
}

func TestPeersThatAreRefused(t *testing.T) {
	pairOf := func(t *testing.T, ca, trust *CA, node int32) *tlsPair {
		cert, key, err := ca.Issue(node)
		if err != nil {
			t.Fatal(err)
		}
		p, err := newTLS(ca.CertPEM(), cert, key, ca.Cluster(), node)
		if err != nil {
			t.Fatal(err)
		}
		if trust != nil { // it lets everybody in, which the other end does not
			p.config.VerifyConnection = nil
		}
		return p
	}
	for _, row := range []struct {
		name   string
		change func(t *testing.T, w *world, c *transportConfig)
		reason RefusalReason
		words  string
	}{
		{"another cluster", func(t *testing.T, w *world, c *transportConfig) {
			c.identity = func() identity { return identity{engine.TopicID{'x'}, engine.TopicID{'d', 1}} }
		}, RefusedCluster, "is of cluster"},
		{"no TLS", func(t *testing.T, w *world, c *transportConfig) { c.tls = nil }, RefusedProtocol, ""},
		{"certificate of another authority", func(t *testing.T, w *world, c *transportConfig) {
			other, _ := NewCA("test")
			c.tls = pairOf(t, other, w.ca, 1)
		}, RefusedCertificate, "does not take this node's certificate"},
		{"certificate of another node", func(t *testing.T, w *world, c *transportConfig) { c.tls = pairOf(t, w.ca, nil, 3) }, RefusedCertificate, "certificate is of node 3"},
		{"a directory that is not registered", func(t *testing.T, w *world, c *transportConfig) {
			w.dirs[1] = engine.TopicID{'d', 1}
			c.identity = func() identity { return identity{theCluster, engine.TopicID{'d', 9}} }
		}, RefusedDirectory, "a copy or was restored"},
		{"its own number", func(t *testing.T, w *world, c *transportConfig) {
			c.self = 2
			c.tls = pairOf(t, w.ca, nil, 2)
			c.address = func(int32) (string, bool) { return address(2), true }
		}, RefusedNode, ""},
		{"another node at the address", func(t *testing.T, w *world, c *transportConfig) {
			w.answering(w.group(w.node(3), groupA, groupHooks{}), nil)
			c.address = func(int32) (string, bool) { return address(3), true }
		}, RefusedNode, "wants node 2"},
	} {
		t.Run(row.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.ca, _ = NewCA("test")
				var got *PeerRefusedError
				if row.name == "its own number" {
					w.answering(w.group(w.node(2), groupA, groupHooks{}), nil)
					c := w.config(1)
					row.change(t, w, &c)
					c.listen = "elsewhere:1"
					tr, err := newTransport(c)
					if err != nil {
						t.Fatal(err)
					}
					defer tr.Close()
					_, _, err = tr.knock(address(2), 0, flavourMain, 0)
					if !errors.As(err, &got) {
						t.Fatal(err)
					}
				} else {
					got = refusal(t, w, func(c *transportConfig) { row.change(t, w, c) })
				}
				if got == nil || got.Reason != row.reason || !strings.Contains(got.Error(), row.words) {
					t.Fatalf("got %v (%v), want %v: ...%s...", got, got.Reason, row.reason, row.words)
				}
				// Who comes as it should is let in.
				clear(w.dirs)
				if got := refusal(t, w, func(*transportConfig) {}); got != nil {
					t.Fatalf("afterwards: %v", got)
				}
			})
		})
	}
}

// A node that nobody knows needs the token.
func TestStrangerNeedsTheToken(t *testing.T) {
	for _, row := range []struct {
		theirs, ours string
		want         RefusalReason
	}{{"secret", "secret", 0}, {"secret", "guess", RefusedToken}, {"secret", "", RefusedToken}, {"", "", RefusedNode}} {
		inWorld(t, func(t *testing.T, w *world) {
			c := w.config(2)
			c.token = row.theirs
			c.address = func(int32) (string, bool) { return "", false }
			var said string
			c.learned = func(_ int32, address string) { said = address }
			w.answering(w.group(w.start(c), groupA, groupHooks{}), nil)
			got := refusal(t, w, func(c *transportConfig) { c.token, c.advertise = row.ours, "n1:1" })
			switch {
			case row.want == 0 && (got != nil || said != "n1:1"):
				t.Errorf("%+v: %v, address %q", row, got, said)
			case row.want != 0 && (got == nil || got.Reason != row.want || !got.ByPeer || said != ""):
				t.Errorf("%+v: %v, address %q", row, got, said)
			}
		})
	}
}

// Nor is the token spared to one whose address an administrator has added: whose directory it is, nobody
// knows before it was there.
func TestAddedNodeNeedsTheToken(t *testing.T) {
	for _, row := range []struct {
		ours  string
		known bool // its directory is registered
		want  RefusalReason
	}{{"secret", false, 0}, {"guess", false, RefusedToken}, {"", false, RefusedToken}, {"guess", true, 0}} {
		inWorld(t, func(t *testing.T, w *world) {
			c := w.config(2)
			c.token = "secret"
			c.address = func(n int32) (string, bool) { return address(n), true }
			own := w.config(1).identity().directory
			c.directory = func(int32) (engine.TopicID, bool) { return own, row.known }
			w.answering(w.group(w.start(c), groupA, groupHooks{}), nil)
			got := refusal(t, w, func(c *transportConfig) { c.token = row.ours })
			if (got != nil) != (row.want != 0) || got != nil && (got.Reason != row.want || !got.ByPeer) {
				t.Errorf("%+v: %v", row, got)
			}
		})
	}
}

// A copy of a directory says the same ids. It is told by how often it was started: less often than
// the node that others know, or as often as one that runs.
func TestCopiedDirectories(t *testing.T) {
	type run struct {
		boot uint64
		dir  byte
		want bool
	}
	for name, runs := range map[string][]run{
		"the node starts again":     {{1, 1, true}, {2, 1, true}, {3, 1, true}},
		"restored":                  {{5, 1, true}, {4, 1, false}, {5, 1, false}, {6, 1, true}},
		"a copy beside it":          {{5, 1, true}, {5, 1, false}},
		"another directory":         {{5, 1, true}, {1, 2, true}, {2, 2, true}},
		"nobody counts, as in 1.0":  {{0, 1, true}, {0, 1, true}},
		"the count is lost with it": {{5, 1, true}, {0, 1, false}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				for i, r := range runs {
					got := refusal(t, w, func(c *transportConfig) {
						c.boot = r.boot
						c.identity = func() identity { return identity{theCluster, engine.TopicID{r.dir}} }
					})
					if (got == nil) != r.want || got != nil && got.Reason != RefusedDirectory {
						t.Errorf("run %d, %+v: %v", i, r, got)
					}
					synctest.Wait()
				}
			})
		})
	}
}

// A copy that is made while the node runs, and then started beside it, counts one start more. It is refused as long as the node
// is heard, and the node is not. One that was killed, or whose machine has lost power, is let in when it is back.
func TestCopyOfARunningNode(t *testing.T) {
	for _, killed := range []bool{true, false} {
		inWorld(t, func(t *testing.T, w *world) {
			w.answering(w.group(w.node(2), groupA, groupHooks{}), nil)
			run := func(boot uint64, host string) (*transport, func() error) {
				c := w.config(1)
				c.boot, c.listen, c.network = boot, host+":1", w.net.Host(host)
				tr := w.start(c)
				g := w.group(tr, groupA, groupHooks{})
				return tr, func() error { return g.TimeoutNow("2", "", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}) }
			}
			node, ask := run(5, "n1")
			defer node.Close()
			if err := ask(); err != nil {
				t.Fatal(err)
			}
			copied, askCopied := run(6, "copied")
			for range 10 { // idle, too
				time.Sleep(time.Second)
				var refused *PeerRefusedError
				if err := askCopied(); !errors.As(err, &refused) || refused.Reason != RefusedDirectory || !strings.Contains(err.Error(), "a copy of its directory") {
					t.Fatalf("a copy beside the node: %v", err)
				}
			}
			if err := ask(); err != nil {
				t.Errorf("the node itself: %v", err)
			}
			copied.Close()
			if killed {
				node.Close()
				synctest.Wait()
			} else {
				w.net.CutBoth("n1", "n2")
				time.Sleep(node.election)
			}
			again, askAgain := run(6, "again")
			defer again.Close()
			if err := askAgain(); err != nil {
				t.Errorf("killed %t, the node, started again: %v", killed, err)
			}
		})
	}
}

// Whatever a stranger sends, its connection is closed within a time, and peers are served meanwhile.
func TestStrangersDoNoHarm(t *testing.T) {
	good := hello{low: 1, high: 1, cluster: theCluster, from: 1, to: 2, directory: engine.TopicID{'d', 1}, instance: 1, nonce: 1}
	edit := func(f func(h *hello)) []byte {
		h := good
		f(&h)
		return h.encode()
	}
	frame := func(l lane, msg []byte) []byte {
		return append(appendFrameHeader(nil, l, len(msg), len(msg), true), msg...)
	}
	for name, sent := range map[string][]byte{
		"nothing":                 nil,
		"half a hello":            good.encode()[:20],
		"garbage":                 bytes.Repeat([]byte{0xff}, 100_000),
		"HTTP":                    []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"later version alone":     edit(func(h *hello) { h.low, h.high = 9, 9 }),
		"from nobody":             edit(func(h *hello) { h.from = 0 }),
		"no such flavour":         edit(func(h *hello) { h.flavour = 7 }),
		"half a frame":            append(good.encode(), 0x80, 0, 0),
		"silence behind":          good.encode(),
		"a frame of 4 GiB":        append(good.encode(), 0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"a message of 4 GiB":      append(good.encode(), 0x81, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 1),
		"a frame of none":         append(good.encode(), 0x80, 0, 0, 0, 0, 0, 0, 0, 9),
		"no such lane":            append(good.encode(), 0x83, 0, 0, 0, 1, 0, 0, 0, 1, 1),
		"goes on without a begin": append(good.encode(), 0x01, 0, 0, 0, 1, 1),
		"a message cut short":     append(good.encode(), frame(laneUrgent, []byte{byte(kindVote), 1, 2, 3})...),
		"entries that are not there": append(good.encode(), frame(laneEntries,
			appendUvarints(appendRoute(appendHead(nil, kindAppend, 1), route{groupA, "1", "2"}), 1, 2, 1, 2, 4000))...),
		"credit of too much": append(good.encode(), frame(laneUrgent, binary.AppendUvarint(appendHead(nil, kindCredit, 1), 1<<60))...),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				tr := w.node(2)
				w.answering(w.group(tr, groupA, groupHooks{}), nil)
				c, err := w.net.Host("n1").Dial(t.Context(), address(2))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				go c.Write(sent)
				peer := w.group(w.node(3), groupA, groupHooks{})
				if err := peer.TimeoutNow("2", "", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}); err != nil {
					t.Errorf("a peer is not served: %v", err)
				}
				c.SetReadDeadline(time.Now().Add(handshakeTimeout + tr.deadAfter() + time.Second))
				if _, err := io.Copy(io.Discard, c); errors.As(err, new(net.Error)) && err.(net.Error).Timeout() {
					t.Errorf("the connection stays: %v", err)
				}
			})
		})
	}
}

// What is not understood, but whole, is answered: a later version may send it.
func TestUnknownRequestIsAnswered(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.node(1)
		w.node(2)
		l, err := a.peer(2).get(t.Context(), flavourMain)
		if err != nil {
			t.Fatal(err)
		}
		p, err := l.request(t.Context(), laneUrgent, func(id uint64) ([][]byte, error) { return one(appendHead(nil, 77, id)) })
		if err != nil {
			t.Fatal(err)
		}
		if ans := <-p.answer; ans.status != statusUnknown || !errors.Is(ans.errOf(2), engine.ErrPeerUnreachable) {
			t.Errorf("answer %v: %v", ans.status, ans.errOf(2))
		}
	})
}

// Connections that say nothing are bounded: those that come later are closed at once, and peers get
// through again when the silent ones have had their time.
func TestHalfOpenConnectionsAreBounded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.ca, _ = NewCA("test")
		w.answering(w.group(w.node(2), groupA, groupHooks{}), nil)
		for range maxHandshakes {
			if _, err := w.net.Host("x").Dial(t.Context(), address(2)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		c, err := w.net.Host("x").Dial(t.Context(), address(2))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Fatal("one more is listened to")
		}
		time.Sleep(handshakeTimeout)
		synctest.Wait()
		if got := refusal(t, w, func(*transportConfig) {}); got != nil {
			t.Fatal(got)
		}
	})
}

// A peer that takes nothing off its connection loses it, and blocks nobody else.
func TestSlowReaderLosesItsConnection(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve = func(context.Context, int32, string, []byte) ([]byte, error) { return make([]byte, 4<<20), nil }
		tr := w.node(2)
		c, err := w.net.Host("n1").Dial(t.Context(), address(2))
		if err != nil {
			t.Fatal(err)
		}
		h := hello{low: 1, high: 1, cluster: theCluster, from: 1, to: 2, directory: engine.TopicID{'d', 1}, instance: 1, nonce: 1}
		c.Write(h.encode())
		for id := range uint64(20) {
			msg := encodeCall(id+1, time.Hour, "s")
			c.Write(append(appendFrameHeader(nil, laneCalls, len(msg), len(msg), true), msg...))
		}
		synctest.Wait()
		if n := w.net.Conns("n1", "n2"); n != 1 {
			t.Fatalf("%d connections", n)
		}
		w.answering(w.group(tr, groupA, groupHooks{}), nil)
		if err := w.group(w.node(3), groupA, groupHooks{}).TimeoutNow("2", "", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(tr.deadAfter())
		synctest.Wait()
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Logf("ended with %v", err)
		}
		tr.mu.Lock()
		p := tr.peers[1]
		tr.mu.Unlock()
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.slots[flavourMain].wire != nil {
			t.Error("the connection is still there")
		}
	})
}

func TestVersionsOfTLS(t *testing.T) {
	ca, err := NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Issue(1)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newTLS(ca.CertPEM(), cert, key, "test", 1)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	old := p.config.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	go tls.Client(a, old).Handshake()
	if err := tls.Server(b, p.config).Handshake(); err == nil {
		t.Error("TLS 1.2 is spoken")
	}
}
