package raftrepl

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/x/embedlog/internal/simnet"
)

// The library hands heartbeats to a fast path when its transport has one, and that changes term and
// state beside the main loop: a leader that was deposed by a heartbeat stores what it is given then
// under the term of the new leader, and keeps it when the new leader's entry of that index and term
// comes. Two replicas have different records at one place.
//
// The first test shows that with the library's own transport, so that a version that mends it is
// noticed; the second that ours, which has no fast path, does not have it.

func TestStockTransportDiverges(t *testing.T) {
	if got := diverge(t, stockTransports); !got.diverged() {
		t.Errorf("raft's own transport does not diverge any more: %+v. Was the heartbeat fast path mended?", got)
	}
}

func TestHeartbeatsDoNotDiverge(t *testing.T) {
	got := diverge(t, ourTransports)
	if got.diverged() || got.applied != "ok REAL" || got.stored != "REAL" || !strings.Contains(got.bogus, "not the leader") {
		t.Errorf("got %+v", got)
	}
}

type outcome struct {
	stored  string // what node 1 has where REAL belongs
	applied string
	success bool   // node 1 says that it has REAL
	bogus   string // how the Apply after the heartbeat ended
}

func (o outcome) diverged() bool {
	return o.success && o.stored == "BOGUS" && o.applied == "ok BOGUS"
}

type applied struct {
	mu   sync.Mutex
	list []string
}

func (a *applied) Apply(l *raft.Log) any {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = append(a.list, string(l.Data))
	return nil
}
func (a *applied) Snapshot() (raft.FSMSnapshot, error) { return nil, io.ErrUnexpectedEOF }
func (a *applied) Restore(io.ReadCloser) error         { return io.ErrUnexpectedEOF }

// diverge runs a real node 1, and nodes 2 and 3 that agree to everything or to nothing.
func diverge(t *testing.T, transports func(t *testing.T, n *simnet.Net) (list [3]raft.Transport, ends func())) (got outcome) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		defer n.Close()
		trans, ends := transports(t, n)
		defer ends()
		server := func(i int) raft.Server {
			return raft.Server{ID: raft.ServerID(fmt.Sprint(i + 1)), Address: trans[i].LocalAddr()}
		}
		refuse := new(atomic.Bool)
		stop := make(chan struct{})
		var puppets sync.WaitGroup
		defer puppets.Wait()
		defer close(stop)
		for i := 1; i < 3; i++ {
			puppets.Go(func() {
				for {
					select {
					case rpc := <-trans[i].Consumer():
						if refuse.Load() {
							rpc.Respond(nil, fmt.Errorf("not now"))
							continue
						}
						rpc.Respond(agree(rpc.Command), nil)
					case <-stop:
						return
					}
				}
			})
		}

		conf := raft.DefaultConfig()
		conf.LocalID = "1"
		conf.Logger = hclog.NewNullLogger()
		conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = time.Second, time.Second, time.Second
		store, fsm := raft.NewInmemStore(), &applied{}
		err := raft.BootstrapCluster(conf, store, store, raft.NewInmemSnapshotStore(), trans[0],
			raft.Configuration{Servers: []raft.Server{server(0), server(1), server(2)}})
		if err != nil {
			t.Fatal(err)
		}
		node, err := raft.NewRaft(conf, fsm, store, store, raft.NewInmemSnapshotStore(), trans[0])
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := node.Shutdown().Error(); err != nil {
				t.Error(err)
			}
		}()
		for node.State() != raft.Leader {
			time.Sleep(time.Millisecond)
		}
		if err := node.Apply([]byte("ok"), time.Second).Error(); err != nil {
			t.Fatal(err)
		}
		term, last := node.CurrentTerm(), node.LastIndex()
		refuse.Store(true)
		synctest.Wait()

		header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("2"), Addr: []byte(trans[1].LocalAddr())}
		beat := &raft.AppendEntriesRequest{RPCHeader: header, Term: term + 1}
		var resp raft.AppendEntriesResponse
		if err := trans[1].AppendEntries("1", trans[0].LocalAddr(), beat, &resp); err != nil {
			t.Fatal(err)
		}
		bogus := node.Apply([]byte("BOGUS"), time.Second)
		synctest.Wait()
		next := &raft.AppendEntriesRequest{RPCHeader: header, Term: term + 1, PrevLogEntry: last, PrevLogTerm: term,
			Entries: []*raft.Log{{Index: last + 1, Term: term + 1, Type: raft.LogCommand, Data: []byte("REAL")}}, LeaderCommitIndex: last + 1}
		if err := trans[1].AppendEntries("1", trans[0].LocalAddr(), next, &resp); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		got.success = resp.Success
		got.bogus = fmt.Sprint(bogus.Error())
		var l raft.Log
		if err := store.GetLog(last+1, &l); err != nil {
			t.Fatal(err)
		}
		got.stored = string(l.Data)
		fsm.mu.Lock()
		got.applied = strings.Join(fsm.list, " ")
		fsm.mu.Unlock()
	})
	return got
}

func ourTransports(t *testing.T, n *simnet.Net) (list [3]raft.Transport, ends func()) {
	w := &world{t: t, net: n, nodes: map[int32]*transport{}}
	for i := range list {
		list[i] = w.group(w.node(int32(i+1)), groupA, groupHooks{})
	}
	return list, func() {
		for _, tr := range w.nodes {
			tr.Close()
		}
	}
}

// layer is a simulated host for the library's own transport.
type layer struct {
	net.Listener
	host *simnet.Host
}

func (l layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return l.host.Dial(ctx, string(address))
}

func stockTransports(t *testing.T, n *simnet.Net) (list [3]raft.Transport, ends func()) {
	var closers []func()
	for i := range list {
		host := n.Host(hostName(int32(i + 1)))
		ln, err := host.Listen(address(int32(i + 1)))
		if err != nil {
			t.Fatal(err)
		}
		tr := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Stream: layer{ln, host}, MaxPool: 3, Timeout: 5 * time.Second, Logger: hclog.NewNullLogger()})
		list[i] = tr
		closers = append(closers, func() {
			tr.CloseStreams()
			tr.Close()
			host.Crash()
		})
	}
	return list, func() {
		for _, f := range closers {
			f()
		}
	}
}
