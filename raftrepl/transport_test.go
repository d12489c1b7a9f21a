package raftrepl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/simnet"
)

const testElection = time.Second

var (
	theCluster = engine.TopicID{'c'}
	groupA     = engine.LogID{Topic: engine.TopicID{'t'}, Partition: 3}
	groupB     = engine.LogID{}
)

// world is transports on a simulated network, in a bubble.
type world struct {
	t     *testing.T
	net   *simnet.Net
	ca    *CA // nil is plain connections
	nodes map[int32]*transport
	dirs  map[int32]engine.TopicID
	serve func(ctx context.Context, from int32, service string, request []byte) ([]byte, error)
}

func hostName(node int32) string { return fmt.Sprintf("n%d", node) }
func address(node int32) string  { return hostName(node) + ":1" }

// inWorld runs f in a bubble; all transports are closed behind it, and nothing may be left.
func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: simnet.New(), nodes: map[int32]*transport{}, dirs: map[int32]engine.TopicID{}}
		defer w.net.Close()
		defer func() {
			for _, n := range w.nodes {
				n.Close()
			}
		}()
		f(t, w)
	})
}

func (w *world) config(node int32) transportConfig {
	host := w.net.Host(hostName(node))
	c := transportConfig{self: node, listen: address(node), network: host, election: testElection,
		identity: func() identity { return identity{theCluster, engine.TopicID{'d', byte(node)}} },
		address:  func(n int32) (string, bool) { return address(n), n < 100 },
		directory: func(n int32) (engine.TopicID, bool) {
			d, ok := w.dirs[n]
			return d, ok
		},
		serve: w.serve,
	}
	if w.ca != nil {
		cert, key, err := w.ca.Issue(node)
		if err != nil {
			w.t.Fatal(err)
		}
		if c.tls, err = newTLS(w.ca.CertPEM(), cert, key, w.ca.Cluster(), node); err != nil {
			w.t.Fatal(err)
		}
	}
	return c
}

func (w *world) node(node int32) *transport {
	w.t.Helper()
	return w.start(w.config(node))
}

func (w *world) start(c transportConfig) *transport {
	w.t.Helper()
	tr, err := newTransport(c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.nodes[c.self] = tr
	return tr
}

func (w *world) group(tr *transport, id engine.LogID, hooks groupHooks) *groupTransport {
	w.t.Helper()
	g, err := tr.group(id, hooks)
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

// answering answers every request that a group gets as a follower that agrees would.
func (w *world) answering(g *groupTransport, answer func(cmd any) any) {
	go func() {
		for {
			select {
			case rpc := <-g.Consumer():
				if answer != nil {
					rpc.Respond(answer(rpc.Command), nil)
					continue
				}
				rpc.Respond(agree(rpc.Command), nil)
			case <-g.ctx.Done():
				return
			}
		}
	}()
}

func agree(cmd any) any {
	switch r := cmd.(type) {
	case *raft.AppendEntriesRequest:
		return &raft.AppendEntriesResponse{Term: r.Term, LastLog: r.PrevLogEntry + uint64(len(r.Entries)), Success: true}
	case *raft.RequestVoteRequest:
		return &raft.RequestVoteResponse{Term: r.Term, Granted: true}
	case *raft.RequestPreVoteRequest:
		return &raft.RequestPreVoteResponse{Term: r.Term, Granted: true}
	default:
		return &raft.TimeoutNowResponse{}
	}
}

func entries(first uint64, sizes ...int) []*raft.Log {
	var list []*raft.Log
	for i, n := range sizes {
		list = append(list, &raft.Log{Index: first + uint64(i), Term: 7, Type: raft.LogCommand, Data: bytes.Repeat([]byte{byte(i + 1)}, n)})
	}
	return list
}

func TestRequestsArriveAsTheyWere(t *testing.T) {
	for _, withTLS := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%t", withTLS), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				if withTLS {
					w.ca, _ = NewCA("test")
				}
				a, b := w.group(w.node(1), groupA, groupHooks{}), w.group(w.node(2), groupA, groupHooks{})
				got := make(chan any, 10)
				w.answering(b, func(cmd any) any {
					got <- cmd
					return agree(cmd)
				})
				header := raft.RPCHeader{ProtocolVersion: 3, ID: []byte("1"), Addr: []byte("1")}
				compare := func(err error, want any) {
					t.Helper()
					if err != nil {
						t.Fatal(err)
					}
					if g, w := fmt.Sprintf("%+v", <-got), fmt.Sprintf("%+v", want); g != w {
						t.Errorf("arrived\n%s\nwant\n%s", g, w)
					}
				}
				var ar raft.AppendEntriesResponse
				req := &raft.AppendEntriesRequest{RPCHeader: header, Term: 9, PrevLogEntry: 4, PrevLogTerm: 2, LeaderCommitIndex: 4}
				compare(a.AppendEntries("2", "", req, &ar), req)
				if ar.Term != 9 || ar.LastLog != 4 || !ar.Success {
					t.Errorf("answer %+v", ar)
				}
				var vr raft.RequestVoteResponse
				vote := &raft.RequestVoteRequest{RPCHeader: header, Term: 3, LastLogIndex: 8, LastLogTerm: 2, LeadershipTransfer: true}
				compare(a.RequestVote("2", "", vote, &vr), vote)
				if !vr.Granted || vr.Term != 3 {
					t.Errorf("answer %+v", vr)
				}
				var pr raft.RequestPreVoteResponse
				pre := &raft.RequestPreVoteRequest{RPCHeader: header, Term: 3, LastLogIndex: 8, LastLogTerm: 2}
				compare(a.RequestPreVote("2", "", pre, &pr), pre)
				if !pr.Granted || pr.Term != 3 {
					t.Errorf("answer %+v", pr)
				}
				now := &raft.TimeoutNowRequest{RPCHeader: header}
				compare(a.TimeoutNow("2", "", now, &raft.TimeoutNowResponse{}), now)

				full := &raft.AppendEntriesRequest{Term: 9, PrevLogEntry: 4, PrevLogTerm: 2, LeaderCommitIndex: 6, Entries: entries(5, 10, 100_000, 0)}
				full.Entries[0].Extensions = []byte("for this node")
				if err := a.AppendEntries("2", "", full, &ar); err != nil {
					t.Fatal(err)
				}
				r := (<-got).(*raft.AppendEntriesRequest)
				for i, e := range r.Entries {
					want := full.Entries[i]
					if e.Index != want.Index || e.Term != want.Term || e.Type != want.Type || !bytes.Equal(e.Data, want.Data) || e.Extensions != nil {
						t.Errorf("entry %d is %d %d %v, %d bytes", i, e.Index, e.Term, e.Type, len(e.Data))
					}
				}
				if len(r.Entries) != 3 || r.LeaderCommitIndex != 6 {
					t.Errorf("%d entries, committed %d", len(r.Entries), r.LeaderCommitIndex)
				}
				if n := w.net.Conns("n1", "n2"); n != 1 {
					t.Errorf("%d connections", n)
				}
			})
		})
	}
}

// The library's follower takes the smaller of the leader's committed index and of its own last one:
// a request must not say more than it proves.
func TestCommittedIndexIsWhatTheRequestProves(t *testing.T) {
	for _, row := range []struct{ prev, entries, committed, want uint64 }{
		{10, 0, 10, 10}, {10, 0, 12, 10}, {10, 2, 20, 12}, {10, 2, 11, 11}, {0, 0, 0, 0}, {0, 3, 9, 3},
	} {
		req := &raft.AppendEntriesRequest{PrevLogEntry: row.prev, LeaderCommitIndex: row.committed}
		for i := range row.entries {
			req.Entries = append(req.Entries, &raft.Log{Index: row.prev + 1 + i})
		}
		segments, err := encodeAppend(1, route{groupA, "1", "2"}, req)
		if err != nil {
			t.Fatal(err)
		}
		d := decoder{b: bytes.Join(segments, nil)}
		d.head()
		d.route()
		if got := d.appendEntries(); got.LeaderCommitIndex != row.want || d.end() != nil {
			t.Errorf("%+v: committed %d, %v", row, got.LeaderCommitIndex, d.err)
		}
	}
}

// Both ends dial at the same moment, many times: there is one connection in the end.
func TestOneConnectionForAPair(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.net.Delay("n1", "n2", 3*time.Millisecond)
		w.net.Delay("n2", "n1", 5*time.Millisecond)
		g := []*groupTransport{nil, w.group(w.node(1), groupA, groupHooks{}), w.group(w.node(2), groupA, groupHooks{})}
		w.answering(g[1], nil)
		w.answering(g[2], nil)
		for range 20 {
			var wg sync.WaitGroup
			for from := 1; from <= 2; from++ {
				wg.Go(func() {
					for range 3 { // one that was sent on the connection that gave way fails
						if g[from].TimeoutNow(peerName(int32(3-from)), "", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}) == nil {
							return
						}
					}
					t.Errorf("node %d does not get through", from)
				})
			}
			wg.Wait()
			time.Sleep(2 * testElection)
			if n := w.net.Conns("n1", "n2"); n != 1 {
				t.Fatalf("%d connections", n)
			}
			w.net.Reset("n1", "n2")
			synctest.Wait()
		}
	})
}

// A node that starts again is let in at once, although the other end does not know yet that the
// connection is dead.
func TestRestartedPeerTakesItsPlace(t *testing.T) {
	for _, restarted := range []int32{1, 2} {
		t.Run(fmt.Sprint(restarted), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				other := 3 - restarted
				g := w.group(w.node(restarted), groupA, groupHooks{})
				w.answering(w.group(w.node(other), groupA, groupHooks{}), nil)
				if err := g.TimeoutNow(peerName(other), "", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}); err != nil {
					t.Fatal(err)
				}
				// It goes without a word.
				w.net.Cut(hostName(restarted), hostName(other))
				w.nodes[restarted].Close()
				synctest.Wait()
				w.net.HealAll()
				g = w.group(w.node(restarted), groupA, groupHooks{})
				if err := g.TimeoutNow(peerName(other), "", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// counted is a connection that notes where in its bytes frames of the urgent lane begin.
type counted struct {
	net.Conn
	mu    sync.Mutex
	wrote int64
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.mu.Lock()
	c.wrote += int64(n)
	c.mu.Unlock()
	return n, err
}

func (c *counted) bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wrote
}

type countingNetwork struct {
	Network
	conns *[]*counted
}

func (n countingNetwork) Dial(ctx context.Context, address string) (net.Conn, error) {
	c, err := n.Network.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	cc := &counted{Conn: c}
	*n.conns = append(*n.conns, cc)
	return cc, nil
}

// While entries and calls fill the connection, a heartbeat waits behind less than a mebibyte of what
// this node writes: counted in bytes, not in time.
func TestHeartbeatWaitsBehindOneMebibyte(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve = func(context.Context, int32, string, []byte) ([]byte, error) { return nil, nil }
		var conns []*counted
		c := w.config(1)
		c.network = countingNetwork{c.network, &conns}
		a, b := w.start(c), w.node(2)
		ga, gb := w.group(a, groupA, groupHooks{}), w.group(b, groupA, groupHooks{})
		var arrivedAt int64
		w.answering(gb, func(cmd any) any {
			if r, ok := cmd.(*raft.AppendEntriesRequest); ok && onlyBeats(r) {
				arrivedAt = conns[0].bytes()
			}
			return agree(cmd)
		})
		beat := func() {
			var resp raft.AppendEntriesResponse
			if err := ga.AppendEntries("2", "", &raft.AppendEntriesRequest{Term: 1}, &resp); err != nil {
				t.Fatal(err)
			}
		}
		beat() // connects
		w.net.Rate("n1", "n2", 2<<20)
		stop, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for stop.Err() == nil {
					var resp raft.AppendEntriesResponse
					ga.AppendEntries("2", "", &raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 1, Entries: entries(2, 4<<20)}, &resp)
				}
			})
			wg.Go(func() {
				for stop.Err() == nil {
					a.call(stop, 2, "s", make([]byte, 8<<20))
				}
			})
		}
		time.Sleep(10 * time.Second)
		worst := int64(0)
		for range 20 {
			time.Sleep(130 * time.Millisecond)
			before := conns[0].bytes()
			beat()
			worst = max(worst, arrivedAt-before)
		}
		cancel()
		ga.Close()
		wg.Wait()
		if len(conns) != 1 {
			t.Fatalf("%d connections", len(conns))
		}
		if worst >= 1<<20 || worst < 100<<10 {
			t.Errorf("a heartbeat waited behind %d bytes", worst)
		}
	})
}

func TestLargeAppendsAreCut(t *testing.T) {
	mib := 1 << 20
	for _, row := range []struct {
		name  string
		sizes []int
		want  []int // entries a request
	}{
		{"nothing", nil, []int{0}},
		{"small", []int{1, 2, 3}, []int{3}},
		{"four MiB", []int{mib, mib, mib, mib}, []int{4}},
		{"more", []int{mib, mib, mib, mib, 1}, []int{4, 1}},
		{"one that is larger", []int{1, 9 * mib, 1, 1}, []int{1, 1, 2}},
		{"many", []int{3 * mib, 2 * mib, 2 * mib, 3 * mib}, []int{1, 2, 1}},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, piped := range []bool{false, true} {
				inWorld(t, func(t *testing.T, w *world) {
					ga, gb := w.group(w.node(1), groupA, groupHooks{}), w.group(w.node(2), groupA, groupHooks{})
					var got []int
					next := uint64(5)
					w.answering(gb, func(cmd any) any {
						r := cmd.(*raft.AppendEntriesRequest)
						got = append(got, len(r.Entries))
						if r.PrevLogEntry+1 != next {
							t.Errorf("a request behind %d, want %d", r.PrevLogEntry, next-1)
						}
						next += uint64(len(r.Entries))
						return agree(cmd)
					})
					req := &raft.AppendEntriesRequest{Term: 9, PrevLogEntry: 4, PrevLogTerm: 2, LeaderCommitIndex: 4, Entries: entries(5, row.sizes...)}
					resp := new(raft.AppendEntriesResponse)
					if piped {
						p, err := ga.AppendEntriesPipeline("2", "")
						if err != nil {
							t.Fatal(err)
						}
						defer p.Close()
						if _, err := p.AppendEntries(req, resp); err != nil {
							t.Fatal(err)
						}
						f := <-p.Consumer()
						if err := f.Error(); err != nil || f.Request() != req || f.Response() != resp {
							t.Fatal(err)
						}
					} else if err := ga.AppendEntries("2", "", req, resp); err != nil {
						t.Fatal(err)
					}
					if !slices.Equal(got, row.want) || !resp.Success || resp.LastLog != 4+uint64(len(row.sizes)) || len(req.Entries) != len(row.sizes) {
						t.Errorf("piped %t: requests of %v entries, want %v; answer %+v", piped, got, row.want, *resp)
					}
				})
			}
		})
	}
}

// Where a piece is refused, that is the answer, and nothing of what is behind counts.
func TestRefusedPieceIsTheAnswer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ga, gb := w.group(w.node(1), groupA, groupHooks{}), w.group(w.node(2), groupA, groupHooks{})
		w.answering(gb, func(cmd any) any {
			if r := cmd.(*raft.AppendEntriesRequest); r.PrevLogEntry == 4 {
				return agree(cmd)
			}
			return &raft.AppendEntriesResponse{Term: 11, LastLog: 5}
		})
		req := func() *raft.AppendEntriesRequest {
			return &raft.AppendEntriesRequest{Term: 9, PrevLogEntry: 4, PrevLogTerm: 2, Entries: entries(5, 4<<20, 4<<20, 4<<20)}
		}
		var resp raft.AppendEntriesResponse
		if err := ga.AppendEntries("2", "", req(), &resp); err != nil || resp.Success || resp.Term != 11 || resp.LastLog != 5 {
			t.Errorf("answer %+v, %v", resp, err)
		}
		p, err := ga.AppendEntriesPipeline("2", "")
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if _, err := p.AppendEntries(req(), &resp); err != nil {
			t.Fatal(err)
		}
		if f := <-p.Consumer(); f.Error() != nil || f.Response().Success || f.Response().Term != 11 {
			t.Errorf("answer %+v, %v", f.Response(), f.Error())
		}
	})
}

func TestPipelineIsBoundedAndEnds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ga, gb := w.group(w.node(1), groupA, groupHooks{}), w.group(w.node(2), groupA, groupHooks{})
		p, err := ga.AppendEntriesPipeline("2", "")
		if err != nil {
			t.Fatal(err)
		}
		sent := 0
		ended := make(chan error)
		go func() {
			for i := uint64(1); ; i++ {
				_, err := p.AppendEntries(&raft.AppendEntriesRequest{Term: 1, PrevLogEntry: i, Entries: entries(i+1, 10)}, new(raft.AppendEntriesResponse))
				if err != nil {
					ended <- err
					return
				}
				sent++
			}
		}()
		synctest.Wait()
		if sent != pipelineWindow || len(gb.Consumer()) != sent {
			t.Fatalf("%d were sent, %d arrived", sent, len(gb.Consumer()))
		}
		w.net.Reset("n1", "n2")
		if f := <-p.Consumer(); f.Error() == nil || f.Response().Success {
			t.Error("a request succeeded whose connection broke")
		}
		if err := <-ended; err == nil {
			t.Error("it went on")
		}
		p.Close()
	})
}

// The library takes no answer behind one that is a refusal. Who goes on sending is told instead of waiting for room.
func TestPipelineEndsBehindARefusal(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ga, gb := w.group(w.node(1), groupA, groupHooks{}), w.group(w.node(2), groupA, groupHooks{})
		w.answering(gb, func(any) any { return &raft.AppendEntriesResponse{Term: 1} })
		p, err := ga.AppendEntriesPipeline("2", "")
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		ended := make(chan error, 1)
		go func() {
			for i := uint64(1); ; i++ {
				if _, err := p.AppendEntries(&raft.AppendEntriesRequest{Term: 1, PrevLogEntry: i, Entries: entries(i+1, 10)}, new(raft.AppendEntriesResponse)); err != nil {
					ended <- err
					return
				}
			}
		}()
		if f := <-p.Consumer(); f.Error() != nil || f.Response().Success {
			t.Errorf("answer %+v, %v", f.Response(), f.Error())
		}
		synctest.Wait()
		select {
		case err := <-ended:
			if !errors.Is(err, raft.ErrPipelineShutdown) && !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
		default:
			t.Error("the sender waits")
		}
	})
}

// P18: a leader whose disk hangs keeps quiet, so that another can lead.
func TestHangingStoreSilencesTheGroup(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var since time.Time
		hooks := groupHooks{storing: func() time.Duration {
			if since.IsZero() {
				return 0
			}
			return time.Since(since)
		}}
		tr := w.node(1)
		ga, other := w.group(tr, groupA, hooks), w.group(tr, groupB, groupHooks{})
		b := w.node(2)
		w.answering(w.group(b, groupA, groupHooks{}), nil)
		w.answering(w.group(b, groupB, groupHooks{}), nil)
		beat := func(g *groupTransport) error {
			return g.AppendEntries("2", "", &raft.AppendEntriesRequest{Term: 1}, &raft.AppendEntriesResponse{})
		}
		p, err := ga.AppendEntriesPipeline("2", "")
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		since = time.Now()
		time.Sleep(testElection)
		if err := beat(ga); err != nil {
			t.Fatalf("a write that is slow: %v", err)
		}
		time.Sleep(time.Millisecond)
		if err := beat(ga); !errors.Is(err, errStoreHangs) {
			t.Errorf("heartbeat: %v", err)
		}
		// What raft sends every CommitTimeout keeps followers quiet too.
		if _, err := p.AppendEntries(&raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 3}, new(raft.AppendEntriesResponse)); !errors.Is(err, errStoreHangs) {
			t.Errorf("pipeline: %v", err)
		}
		if err := beat(other); err != nil {
			t.Errorf("another group: %v", err)
		}
		since = time.Time{}
		if err := beat(ga); err != nil {
			t.Errorf("the disk works again: %v", err)
		}
	})
}

func TestGroupThatIsNotHere(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ga := w.group(w.node(1), groupA, groupHooks{})
		b := w.node(2)
		ask := func() error { return ga.TimeoutNow("2", "", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}) }
		var remote *RemoteError
		if err := ask(); !errors.As(err, &remote) || remote.Node != 2 || remote.Served {
			t.Fatalf("no group: %v", err)
		}
		gb := w.group(b, groupA, groupHooks{})
		if _, err := b.group(groupA, groupHooks{}); err == nil {
			t.Fatal("a group is here twice")
		}
		time.AfterFunc(100*time.Millisecond, func() { gb.Close() })
		if err := ask(); !errors.As(err, &remote) {
			t.Fatalf("a group that closes before it answered: %v", err)
		}
		gb = w.group(b, groupA, groupHooks{})
		w.answering(gb, nil)
		if err := ask(); err != nil {
			t.Fatalf("the group came back: %v", err)
		}
		if err := ga.TimeoutNow("x", "", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}); err == nil {
			t.Fatal("a server that is no number")
		}
		// What waits is bounded, in requests and in bytes.
		gb.Close()
		gb = w.group(b, groupA, groupHooks{}) // nobody takes its requests
		busy := 0
		var wg sync.WaitGroup
		var mu sync.Mutex
		for range maxGroupRequests + 10 {
			wg.Go(func() {
				var remote *RemoteError
				if err := ask(); errors.As(err, &remote) && strings.Contains(remote.Text, "too many") {
					mu.Lock()
					busy++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		mu.Lock()
		defer mu.Unlock()
		if busy != 10 {
			t.Errorf("%d of %d were told that it is busy, want 10", busy, maxGroupRequests+10)
		}
	})
}

// A peer that is dead costs those who ask for it a short time, and the others none.
func TestDeadPeer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ga := w.group(w.node(1), groupA, groupHooks{})
		w.answering(w.group(w.node(2), groupA, groupHooks{}), nil)
		w.net.CutBoth("n1", "n3")
		for range 5 {
			start := time.Now()
			err := ga.TimeoutNow("3", "", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{})
			if took := time.Since(start); !errors.Is(err, engine.ErrPeerUnreachable) || took > ga.urgentTimeout() {
				t.Errorf("after %v: %v", took, err)
			}
			start = time.Now()
			if err := ga.TimeoutNow("2", "", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}); err != nil || time.Since(start) != 0 {
				t.Errorf("a peer that lives: %v after %v", err, time.Since(start))
			}
		}
		w.net.HealAll()
		w.answering(w.group(w.node(3), groupA, groupHooks{}), nil)
		start := time.Now()
		for ga.TimeoutNow("3", "", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}) != nil {
			time.Sleep(10 * time.Millisecond)
			if time.Since(start) > 4*time.Second {
				t.Fatal("it is not found again")
			}
		}
	})
}

// What is cut off is noticed by its silence, on both ends, and found again.
func TestSilentConnectionIsGivenUp(t *testing.T) {
	for _, cut := range [][2]string{{"n1", "n2"}, {"n2", "n1"}} {
		t.Run(cut[0]+cut[1], func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				ga, gb := w.group(w.node(1), groupA, groupHooks{}), w.group(w.node(2), groupA, groupHooks{})
				w.answering(ga, nil)
				w.answering(gb, nil)
				if err := ga.TimeoutNow("2", "", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour) // pings keep it
				if n := w.net.Conns("n1", "n2"); n != 1 {
					t.Fatalf("%d connections after an hour", n)
				}
				w.net.Cut(cut[0], cut[1])
				time.Sleep(2 * w.nodes[1].deadAfter())
				if n := w.net.Conns("n1", "n2"); n != 0 {
					t.Fatalf("%d connections through a cut", n)
				}
				w.net.HealAll()
				time.Sleep(lastRedial) // they have tried meanwhile
				if err := gb.TimeoutNow("1", "", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{}); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}
