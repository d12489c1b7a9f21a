package raftrepl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// testNet carries messages between the groups of a test, by calls.
type testNet struct {
	mu       sync.Mutex
	nodes    map[raft.ServerAddress]*testTransport
	cut      map[[2]raft.ServerAddress]bool // from, to
	installs int
	latency  time.Duration
	seen     func(from, to raft.ServerAddress, m any) // under mu
}

func newTestNet() *testNet {
	return &testNet{nodes: make(map[raft.ServerAddress]*testTransport), cut: make(map[[2]raft.ServerAddress]bool), latency: time.Millisecond}
}

// testTransport is one group's end, as long as its node runs.
type testTransport struct {
	net      *testNet
	self     raft.ServerAddress
	replica  raft.ServerAddress
	consumer chan raft.RPC
	closed   chan struct{}
	once     sync.Once
}

func (n *testNet) transport(node int32, replica raft.ServerID) *testTransport {
	t := &testTransport{net: n, self: raft.ServerAddress(memberID(node)), replica: raft.ServerAddress(replica), consumer: make(chan raft.RPC, 64), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[t.self] = t
	return t
}

func (t *testTransport) Close() error {
	t.once.Do(func() {
		t.net.mu.Lock()
		defer t.net.mu.Unlock()
		close(t.closed)
		if t.net.nodes[t.self] == t {
			delete(t.net.nodes, t.self)
		}
	})
	return nil
}

// isolate cuts a node off, or heals that.
func (n *testNet) isolate(node int32, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := raft.ServerAddress(memberID(node))
	for i := range int32(9) {
		b := raft.ServerAddress(memberID(i + 1))
		n.cut[[2]raft.ServerAddress{a, b}], n.cut[[2]raft.ServerAddress{b, a}] = cut, cut
	}
}

var errUnreachable = errors.New("unreachable")

func (t *testTransport) call(to raft.ServerAddress, m any, data io.Reader) (any, error) {
	time.Sleep(t.net.latency)
	t.net.mu.Lock()
	replica, node := to, memberNode(raft.ServerID(to))
	to = raft.ServerAddress(memberID(node))
	peer, cut := t.net.nodes[to], t.net.cut[[2]raft.ServerAddress{t.self, to}]
	if t.net.seen != nil {
		t.net.seen(t.self, to, m)
	}
	if _, ok := m.(*raft.InstallSnapshotRequest); ok && peer != nil && !cut {
		t.net.installs++
	}
	t.net.mu.Unlock()
	if peer == nil || cut {
		time.Sleep(5 * time.Millisecond)
		return nil, errUnreachable
	}
	if peer.replica != replica {
		return nil, otherReplica(node, raft.ServerID(replica), raft.ServerID(peer.replica))
	}
	answer := make(chan raft.RPCResponse, 1)
	late := time.NewTimer(2 * time.Second)
	if data != nil {
		late.Reset(time.Minute)
	}
	defer late.Stop()
	select {
	case peer.consumer <- raft.RPC{Command: m, Reader: data, RespChan: answer}:
	case <-peer.closed:
		return nil, errUnreachable
	case <-t.closed:
		return nil, errUnreachable
	case <-late.C:
		return nil, errors.New("timeout")
	}
	select {
	case a := <-answer:
		time.Sleep(t.net.latency)
		t.net.mu.Lock()
		defer t.net.mu.Unlock()
		if t.net.cut[[2]raft.ServerAddress{to, t.self}] {
			return nil, errUnreachable
		}
		return a.Response, a.Error
	case <-peer.closed:
		return nil, errUnreachable
	case <-t.closed:
		return nil, errUnreachable
	case <-late.C:
		return nil, errors.New("timeout")
	}
}

func (t *testTransport) Consumer() <-chan raft.RPC          { return t.consumer }
func (t *testTransport) LocalAddr() raft.ServerAddress      { return t.self }
func (t *testTransport) SetHeartbeatHandler(func(raft.RPC)) {}
func (t *testTransport) EncodePeer(_ raft.ServerID, a raft.ServerAddress) []byte {
	return []byte(a)
}
func (t *testTransport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }
func (t *testTransport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}
func (t *testTransport) AppendEntries(_ raft.ServerID, to raft.ServerAddress, m *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	return into(resp)(t.call(to, m, nil))
}
func (t *testTransport) RequestVote(_ raft.ServerID, to raft.ServerAddress, m *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return into(resp)(t.call(to, m, nil))
}
func (t *testTransport) RequestPreVote(_ raft.ServerID, to raft.ServerAddress, m *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return into(resp)(t.call(to, m, nil))
}
func (t *testTransport) TimeoutNow(_ raft.ServerID, to raft.ServerAddress, m *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return into(resp)(t.call(to, m, nil))
}
func (t *testTransport) InstallSnapshot(_ raft.ServerID, to raft.ServerAddress, m *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return into(resp)(t.call(to, m, data))
}

func into[T any](resp *T) func(any, error) error {
	return func(a any, err error) error {
		if r, ok := a.(*T); ok && r != nil {
			*resp = *r
		}
		return err
	}
}

// testNode is one replica.
type testNode struct {
	c     *testCluster
	id    int32
	fs    *vfs.Mem // the log's
	vfs   vfs.FS   // what the log is opened on
	votes *vfs.Mem
	v     *Votes
	g     *Group
	p     *partition.Partition
	up    bool
}

// testCluster is a partition on several nodes.
type testCluster struct {
	t       testing.TB
	net     *testNet
	cfg     partition.Config
	initial []int32
	nodes   []*testNode
	logger  *slog.Logger
	gone    func(at, node int32) bool // whether one believes that another's process has ended
}

var testLog = engine.LogID{Topic: engine.TopicID{1}, Partition: 3}

func newTestCluster(t testing.TB, n int) *testCluster {
	c := &testCluster{t: t, net: newTestNet(), logger: slog.New(slog.DiscardHandler)}
	if os.Getenv("EMBEDLOG_TEST_LOG") != "" {
		c.logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	c.cfg.Log = log.Config{SegmentBytes: 4 << 10, IndexIntervalBytes: 256, SegmentAge: -1}
	for i := range n {
		c.initial = append(c.initial, int32(i+1))
	}
	for range n {
		c.add()
	}
	return c
}

// add makes a node, which is not up.
func (c *testCluster) add() *testNode {
	n := &testNode{c: c, id: int32(len(c.nodes) + 1), fs: vfs.NewMem(), votes: vfs.NewMem()}
	n.vfs = n.fs
	c.nodes = append(c.nodes, n)
	return n
}

func (c *testCluster) node(id int32) *testNode { return c.nodes[id-1] }

func (n *testNode) start() {
	n.c.t.Helper()
	if err := n.tryStart(); err != nil {
		n.c.t.Fatalf("node %d: %v", n.id, err)
	}
}

func (n *testNode) tryStart() (err error) {
	if n.v, err = OpenVotesIn(n.votes, "raft"); err != nil {
		return err
	}
	initial := n.c.initial
	if !slices.Contains(initial, n.id) {
		initial = nil
	}
	known, _ := n.v.get(testLog)
	end := n.c.net.transport(n.id, replicaID(n.id, known.life))
	n.g = NewGroup(GroupConfig{
		ID: testLog, Self: n.id, Initial: initial, Transport: end, Votes: n.v,
		// Small, so that what a follower lacks is read from the log.
		Cache:  NewCache(4 << 10),
		Timing: FastTiming, Logger: n.c.logger.With("at", n.id),
		Gone: func(node int32) bool { return n.c.gone != nil && n.c.gone(n.id, node) },
	})
	if n.p, err = partition.Open("", &partition.Options{FS: n.vfs, Replicator: n.g, Config: n.c.cfg, Logger: n.c.logger}); err != nil {
		n.g.Stop()
		return err
	}
	if err = n.g.Run(n.p); err != nil {
		n.g.Stop()
		n.p.Close()
		return err
	}
	n.up = true
	return nil
}

// stop stops the node properly.
func (n *testNode) stop() {
	n.c.t.Helper()
	if !n.up {
		return
	}
	n.up = false
	n.g.Stop()
	if err := n.p.Close(); err != nil {
		n.c.t.Errorf("close node %d: %v", n.id, err)
	}
	n.v.Close()
}

// kill ends the node's process: what was written is there, synced or not.
func (n *testNode) kill() { n.crash(func(fs *vfs.Mem) *vfs.Mem { return fs.AfterKill() }) }

// crash ends the node and has the disk as after says.
func (n *testNode) crash(after func(*vfs.Mem) *vfs.Mem) {
	if !n.up {
		return
	}
	n.up = false
	n.c.net.isolate(n.id, true) // what it says from here on was never said
	fs, votes := after(n.fs), after(n.votes)
	n.g.Stop()
	n.p.Close()
	n.v.Close()
	n.c.net.isolate(n.id, false)
	n.fs, n.votes, n.vfs = fs, votes, fs
}

func (c *testCluster) start() *testCluster {
	c.t.Helper()
	for _, n := range c.nodes {
		n.start()
	}
	return c
}

func (c *testCluster) stop() {
	for _, n := range c.nodes {
		n.stop()
	}
}

// leader waits for one, which has committed what earlier ones left.
func (c *testCluster) leader() *testNode {
	c.t.Helper()
	for range 1000 {
		for _, n := range c.nodes {
			if !n.up {
				continue
			}
			if _, err := n.g.LeaderEpoch(); err == nil {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				_, err := n.g.Lead(ctx)
				cancel()
				if err == nil {
					return n
				}
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, n := range c.nodes {
		if n.up {
			c.t.Logf("node %d: %+v", n.id, n.g.Status())
		}
	}
	c.t.Fatal("nobody leads")
	return nil
}

func record(value string) []log.Record {
	return []log.Record{{Timestamp: 1, Key: []byte("k"), Value: []byte(value)}}
}

func (n *testNode) append(value string) (int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := n.p.Append(ctx, record(value), nil)
	return r.BaseOffset, err
}

func (n *testNode) mustAppend(values ...string) {
	n.c.t.Helper()
	for _, v := range values {
		if _, err := n.append(v); err != nil {
			n.c.t.Fatalf("append %q at node %d: %v", v, n.id, err)
		}
	}
}

// values are the records below the high watermark.
func (n *testNode) values() (list []string) {
	n.c.t.Helper()
	r, err := n.p.ReadFrom(n.p.LogStart(), nil)
	if err != nil {
		n.c.t.Fatalf("node %d: %v", n.id, err)
	}
	for {
		b, err := r.TryNext()
		if err == io.EOF {
			return list
		}
		if err != nil {
			n.c.t.Fatalf("node %d: %v", n.id, err)
		}
		var rr log.RecordReader
		if err := rr.Reset(b, 0); err != nil {
			n.c.t.Fatal(err)
		}
		for rr.Next() {
			list = append(list, string(rr.Record().Value))
		}
	}
}

// settle waits until every node that is up has all that the leader has.
func (c *testCluster) settle() *testNode {
	c.t.Helper()
	l := c.leader()
	for range 2000 {
		same := true
		last, _ := l.p.LastEntry()
		for _, n := range c.nodes {
			if n.up {
				st, _ := n.p.Group()
				mine, _ := n.p.LastEntry()
				same = same && mine == last && st.Index == last && n.p.HighWatermark() == l.p.LogEnd()
			}
		}
		if same {
			return l
		}
		time.Sleep(10 * time.Millisecond)
		l = c.leader()
	}
	for _, n := range c.nodes {
		if n.up {
			g, _ := n.p.Group()
			last, epoch := n.p.LastEntry()
			g.Members = nil
			c.t.Logf("node %d: high watermark %d, log end %d, last entry %d of %d, first complete %d, boundary %+v, %+v, %+v", n.id, n.p.HighWatermark(), n.p.LogEnd(), last, epoch,
				n.p.Log().FirstCompleteIndex(), n.p.Log().Boundary(), n.g.Status(), g)
		}
	}
	c.t.Fatal("the replicas do not become the same")
	return nil
}

// same compares the replicas byte by byte, entry by entry, from the highest first
// complete index on.
func (c *testCluster) same() {
	c.t.Helper()
	var want []byte
	first := uint64(0)
	for _, n := range c.nodes {
		if n.up {
			first = max(first, n.p.Log().FirstCompleteIndex())
		}
	}
	for _, n := range c.nodes {
		if !n.up {
			continue
		}
		got := n.entries(first)
		if want == nil {
			want = got
		}
		if !bytes.Equal(got, want) {
			c.t.Fatalf("node %d's entries from %d on differ:\n%s\nothers have\n%s", n.id, first, got, want)
		}
	}
}

func (n *testNode) entries(first uint64) []byte {
	var out bytes.Buffer
	last, _ := n.p.LastEntry()
	for i := first; i <= last; i++ {
		f, err := n.p.Log().Entry(i)
		if err != nil {
			n.c.t.Fatalf("node %d, entry %d: %v", n.id, i, err)
		}
		fmt.Fprintf(&out, "%d %d %v %d %x\n", f.Index, f.Epoch, f.Kind, f.Offset, f.Payload)
	}
	return out.Bytes()
}

// bubble runs a test in virtual time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}
