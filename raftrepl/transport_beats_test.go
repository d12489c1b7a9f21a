package raftrepl

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/x/embedlog/internal/engine"
)

// writingNetwork counts the writes to the connections that were dialled.
type writingNetwork struct {
	Network
	writes *atomic.Int64
}

type writing struct {
	net.Conn
	writes *atomic.Int64
}

func (n writingNetwork) Dial(ctx context.Context, address string) (net.Conn, error) {
	c, err := n.Network.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	return writing{c, n.writes}, nil
}

func (c writing) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// Heartbeats that are due at one time travel together, and each of them gets its own answer.
func TestHeartbeatsTravelTogether(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		const groups = 200
		var writes atomic.Int64
		c := w.config(1)
		c.network = writingNetwork{c.network, &writes}
		from, to := w.start(c), w.node(2)
		var list []*groupTransport
		for i := range groups {
			id := engine.LogID{Topic: engine.TopicID{'t'}, Partition: int32(i)}
			list = append(list, w.group(from, id, groupHooks{}))
			if i == 7 {
				continue // is not there
			}
			w.answering(w.group(to, id, groupHooks{}), func(any) any {
				return &raft.AppendEntriesResponse{Term: 4, LastLog: uint64(i), Success: i != 9}
			})
		}
		round := func() {
			var all sync.WaitGroup
			for i, g := range list {
				all.Go(func() {
					m := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ID: []byte("1")}, Term: 4}
					var resp raft.AppendEntriesResponse
					err := g.Beat("2", "2", m, &resp)
					switch {
					case i == 7:
						if !errors.Is(err, engine.ErrPeerUnreachable) {
							t.Errorf("a group that is not there: %v", err)
						}
					case err != nil || resp.Term != 4 || resp.LastLog != uint64(i) || resp.Success != (i != 9):
						t.Errorf("heartbeat %d: %+v, %v", i, resp, err)
					}
				})
			}
			all.Wait()
		}
		round() // connects
		before, began := writes.Load(), time.Now()
		round()
		if took := time.Since(began); took < from.beatDelay() || took > 3*from.beatDelay() {
			t.Errorf("a round took %v", took)
		}
		if n := writes.Load() - before; n > 4 {
			t.Errorf("%d heartbeats took %d writes", groups, n)
		}
	})
}

// Only what may wait is taken from a batch: a peer that puts something else there is cut off.
func TestBatchesHaveHeartbeatsOnly(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		from, to := w.node(1), w.node(2)
		_ = to
		for name, msg := range map[string][]byte{
			"batch": appendBytes(appendHead(nil, kindBatch, 0), appendHead(nil, kindBatch, 0)),
			"call":  appendBytes(appendHead(nil, kindBatch, 0), encodeCall(1, 1000, "service")),
			"short": append(appendHead(nil, kindBatch, 0), 200),
		} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			l, err := from.peer(2).get(ctx, flavourMain)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			l.urgent(msg)
			synctest.Wait()
			select {
			case <-l.done:
			default:
				t.Errorf("%s: the connection goes on", name)
			}
			time.Sleep(3 * time.Second) // until it may be dialled again
		}
	})
}

// A follower of an idle group gets three heartbeats for each time that it waits for one, and no leader
// is lost by that. Who asks whether a node still leads does not wait for the next.
func TestIdleHeartbeats(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newTestCluster(t, 3).start()
		defer c.stop()
		l := c.leader()
		l.mustAppend("a")
		c.settle()
		_, epoch := l.g.Leader()
		var beats atomic.Int64
		c.net.mu.Lock()
		c.net.seen = func(_, _ raft.ServerAddress, m any) {
			if a, ok := m.(*raft.AppendEntriesRequest); ok && onlyHeartbeat(a) {
				beats.Add(1)
			}
		}
		c.net.mu.Unlock()
		const waits = 100
		time.Sleep(waits * FastTiming.Heartbeat)
		if n := beats.Load(); n < 2*2*waits || n > 2*4*waits {
			t.Errorf("%d heartbeats to two followers in %d times what each waits for one", n, waits)
		}
		if node, now := l.g.Leader(); node != l.id || now != epoch {
			t.Errorf("node %d leads in epoch %d, it was node %d in %d", node, now, l.id, epoch)
		}
		for range 20 {
			began := time.Now()
			if err := l.g.Confirm(t.Context()); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 10*c.net.latency {
				t.Errorf("a confirmation took %v", took)
			}
			time.Sleep(37 * time.Millisecond)
		}
	})
}
