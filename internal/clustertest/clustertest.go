// Package clustertest has a cluster for tests of what stands on one: engines in one
// process whose logs are replicated by function calls. A majority always agrees, at
// once, and the test says who leads. What Raft and a network do to it is tested in
// package raftrepl.
package clustertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// Net is the cluster. Its methods may be called from several goroutines.
type Net struct {
	initial []int32
	mu      sync.Mutex
	nodes   map[int32]*Node
	groups  map[engine.LogID]*group
}

// New is a cluster of nobody, that the initial nodes begin together. Others wait to be
// added.
func New(initial ...int32) *Net {
	return &Net{initial: initial, nodes: map[int32]*Node{}, groups: map[engine.LogID]*group{}}
}

// Node is one peer: an engine.Cluster to open one engine with, after which the engine
// may be closed and opened again with another Node of the same id.
func (n *Net) Node(id int32) *Node { return &Node{net: n, id: id} }

// Elect makes the node, a running member, the leader of a log, in the next epoch.
func (n *Net) Elect(id engine.LogID, node int32) error {
	g := n.group(id)
	defer g.tell()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.elect(node)
}

// Depose leaves a log without a leader.
func (n *Net) Depose(id engine.LogID) {
	g := n.group(id)
	defer g.tell()
	g.mu.Lock()
	g.leader = -1
	g.mu.Unlock()
}

// Hold has what is proposed stored everywhere and committed nowhere until release is
// called: proposers wait.
func (n *Net) Hold(id engine.LogID) (release func()) {
	g := n.group(id)
	g.mu.Lock()
	g.held++
	g.mu.Unlock()
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.held--
		g.commit()
	}
}

// Deafen has a node not hear what is committed in a log, until release is called: it stores
// entries, and may be elected.
func (n *Net) Deafen(id engine.LogID, node int32) (release func()) {
	g := n.group(id)
	g.mu.Lock()
	g.deaf[node] = true
	g.mu.Unlock()
	return func() {
		defer g.tell()
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.deaf, node)
		g.commit()
	}
}

// Starve has a node get nothing of a log, neither entries nor what is committed, until release is called: as one that
// is slow, or cut off. Others are a majority all the same.
func (n *Net) Starve(id engine.LogID, node int32) (release func()) {
	g := n.group(id)
	g.mu.Lock()
	g.starved[node] = true
	g.mu.Unlock()
	return func() {
		defer g.tell()
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.starved, node)
		if l := g.running[node]; l != nil && g.bring(l) != nil {
			delete(g.running, node)
		}
		g.commit()
	}
}

// Doubt has whoever is elected lead, and take records, and not know yet what earlier leaders have
// committed, until release is called: as one that was elected, and has committed nothing yet.
func (n *Net) Doubt(id engine.LogID) (release func()) {
	g := n.group(id)
	add := func(by int) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.doubts += by
		g.moved.Broadcast()
	}
	add(1)
	return func() { add(-1) }
}

func (n *Net) group(id engine.LogID) *group {
	n.mu.Lock()
	defer n.mu.Unlock()
	g := n.groups[id]
	if g == nil {
		g = &group{leader: -1, running: map[int32]*Log{}, holds: map[int32]bool{}, deaf: map[int32]bool{}, starved: map[int32]bool{}}
		g.moved = sync.NewCond(&g.mu)
		n.groups[id] = g
	}
	return g
}

// group is one log and who has it.
type group struct {
	mu        sync.Mutex
	moved     *sync.Cond // committed or leader changed
	first     uint64     // index of entries[0]
	entries   []partition.Entry
	committed uint64
	members   []int32
	leader    int32
	epoch     int32
	held      int
	doubts    int
	running   map[int32]*Log
	holds     map[int32]bool // nodes whose log has held entries, until Forget
	deaf      map[int32]bool // nodes that do not hear of commits
	starved   map[int32]bool // nodes that get nothing
	watchers  []*func()
}

func (g *group) last() uint64 { return g.first + uint64(len(g.entries)) - 1 }

// elect appends the noop with which a leader begins.
func (g *group) elect(node int32) error {
	if g.running[node] == nil {
		return fmt.Errorf("node %d does not run the log", node)
	}
	g.leader = node
	g.epoch++
	return g.append([]partition.Entry{{Kind: log.KindNoop}})
}

// append gives entries their places and stores them on all that run.
func (g *group) append(entries []partition.Entry) error {
	for i := range entries {
		entries[i].Index, entries[i].Epoch = g.last()+1, uint64(g.epoch)
		g.entries = append(g.entries, entries[i])
	}
	for _, m := range g.members {
		l := g.running[m]
		if l == nil || g.starved[m] {
			continue
		}
		if err := g.bring(l); err != nil {
			if m == g.leader {
				return err
			}
			delete(g.running, m) // its disk failed: it comes back when it is opened again
		}
	}
	g.commit()
	return nil
}

// begin takes over the entries of the first member's log.
func (g *group) begin(p *partition.Partition) error {
	p.Log().Lock()
	next := p.Log().NextIndex()
	g.epoch = int32(p.Log().LastEpoch())
	p.Log().Unlock()
	for g.first = p.Log().FirstCompleteIndex(); g.last()+1 < next; {
		f, err := p.Log().Entry(g.last() + 1)
		if err != nil {
			return err
		}
		g.entries = append(g.entries, partition.Entry{Kind: f.Kind, Index: f.Index, Epoch: f.Epoch, Data: slices.Clone(f.Payload)})
	}
	g.committed = g.last()
	return nil
}

// bring stores what a log lacks.
func (g *group) bring(l *Log) error {
	for {
		l.part.Log().Lock()
		next := l.part.Log().NextIndex()
		l.part.Log().Unlock()
		if next > g.last() {
			g.holds[l.node.id] = g.holds[l.node.id] || next > 1
			return nil
		}
		if next == 1 && g.holds[l.node.id] {
			return fmt.Errorf("node %d: %w", l.node.id, ErrLogLost)
		}
		if next < g.first {
			return fmt.Errorf("node %d needs entry %d: the first one is %d", l.node.id, next, g.first)
		}
		if err := l.part.Store(slices.Clone(g.entries[next-g.first:])); err != nil {
			return err
		}
	}
}

func (g *group) commit() {
	if g.held > 0 {
		return
	}
	g.committed = g.last()
	for _, m := range g.members {
		if l := g.running[m]; l != nil && !g.deaf[m] && !g.starved[m] {
			l.part.Commit(g.committed)
		}
	}
	g.moved.Broadcast()
}

// tell calls the watchers.
func (g *group) tell() {
	g.mu.Lock()
	g.moved.Broadcast()
	list := slices.Clone(g.watchers)
	g.mu.Unlock()
	for _, f := range list {
		(*f)()
	}
}

// Node is a peer.
type Node struct {
	net *Net
	id  int32

	mu   sync.Mutex
	host engine.Host
	down bool
	lose func(service string) bool

	removedBy atomic.Int32
}

var _ engine.Cluster = (*Node)(nil)

// RemovedBy is a node that has refused this one because it was removed; 0 is none.
func (n *Node) RemovedBy() int32 { return n.removedBy.Load() }

func (n *Node) Self() int32 { return n.id }

// Bootstrap names the nodes that New was told, for those alone, and an address that
// says who it is.
func (n *Node) Bootstrap() engine.Bootstrap {
	b := engine.Bootstrap{Address: fmt.Sprintf("node-%d", n.id)}
	if slices.Contains(n.net.initial, n.id) {
		b.Initial = slices.Clone(n.net.initial)
	}
	return b
}

func (n *Node) Start(h engine.Host) error {
	n.mu.Lock()
	n.host = h
	n.mu.Unlock()
	n.net.mu.Lock()
	n.net.nodes[n.id] = n
	n.net.mu.Unlock()
	return nil
}

// Log gives a group that nobody has begun its members.
func (n *Node) Log(id engine.LogID, initial []int32) engine.ReplicatedLog {
	g := n.net.group(id)
	g.mu.Lock()
	if g.members == nil {
		g.members = slices.Clone(initial)
	}
	g.mu.Unlock()
	return &Log{node: n, id: id, g: g}
}

// Call is a function call.
func (n *Node) Call(ctx context.Context, node int32, service string, request []byte) ([]byte, error) {
	n.net.mu.Lock()
	peer := n.net.nodes[node]
	n.net.mu.Unlock()
	if peer == nil || n.isDown() || peer.isDown() {
		return nil, fmt.Errorf("node %d: %w", node, engine.ErrPeerUnreachable)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	_, directory := n.host.Identity()
	if r, ok := peer.host.(engine.Registry); ok {
		if s := r.Standing(n.id, directory); !s.MayCall(service) {
			if s == engine.StandsRemoved {
				n.removedBy.Store(node)
			}
			return nil, fmt.Errorf("node %d: %w: %s", node, engine.ErrPeerUnreachable, s.Why(n.id))
		}
	}
	answer, err := peer.host.Serve(ctx, n.id, service, slices.Clone(request))
	peer.mu.Lock()
	lose := peer.lose
	peer.mu.Unlock()
	if lose != nil && lose(service) {
		return nil, fmt.Errorf("node %d: the connection broke", node)
	}
	return answer, err
}

// Lose has the answers of this node lost for which f says so: what was asked for is done.
// Nil loses none.
func (n *Node) Lose(f func(service string) bool) {
	n.mu.Lock()
	n.lose = f
	n.mu.Unlock()
}

// ErrLogLost says that a log is empty that has held entries, and was not let go: such a
// member could promise again what it has promised before.
var ErrLogLost = errors.New("the log is lost")

// Forget lets an empty log begin again.
func (n *Node) Forget(id engine.LogID, _ bool) error {
	g := n.net.group(id)
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.holds, n.id)
	return nil
}

// Cut takes the node off the network for calls, until Cut(false).
func (n *Node) Cut(down bool) {
	n.mu.Lock()
	n.down = down
	n.mu.Unlock()
}

func (n *Node) isDown() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.down || n.host == nil
}

func (n *Node) Close() error {
	n.Cut(true)
	return nil
}

// Log is one node's copy.
type Log struct {
	node *Node
	id   engine.LogID
	g    *group
	part *partition.Partition
}

// Run brings the log up to date. The first member that runs leads.
func (l *Log) Run(p *partition.Partition) error {
	g := l.g
	defer g.tell()
	g.mu.Lock()
	defer g.mu.Unlock()
	l.part = p
	if g.first == 0 && slices.Contains(g.members, l.node.id) {
		if err := g.begin(p); err != nil {
			return err
		}
	}
	g.running[l.node.id] = l
	if !slices.Contains(g.members, l.node.id) {
		return nil
	}
	if err := g.bring(l); err != nil {
		return err
	}
	if err := p.Commit(g.committed); err != nil {
		return err
	}
	if g.leader < 0 {
		return g.elect(l.node.id)
	}
	return nil
}

// Stop leaves. Another running member leads on.
func (l *Log) Stop() {
	g := l.g
	defer g.tell()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running[l.node.id] != l {
		return
	}
	delete(g.running, l.node.id)
	if g.leader != l.node.id {
		return
	}
	g.leader = -1
	for _, m := range g.members {
		if g.running[m] != nil && g.elect(m) == nil {
			return
		}
	}
}

func (l *Log) notLeader() error {
	return &partition.NotLeaderError{Leader: l.g.leader, LeaderEpoch: l.g.epoch}
}

func (l *Log) leads() bool { return l.g.leader == l.node.id && l.g.running[l.node.id] == l }

func (l *Log) LeaderEpoch() (int32, error) {
	l.g.mu.Lock()
	defer l.g.mu.Unlock()
	if !l.leads() {
		return 0, l.notLeader()
	}
	return l.g.epoch, nil
}

func (l *Log) Propose(ctx context.Context, epoch int32, base int64, batches [][]byte) (partition.Proposal, error) {
	g := l.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if !l.leads() || epoch != g.epoch || base != l.part.LogEnd() {
		return nil, l.notLeader()
	}
	var entries []partition.Entry
	for _, b := range batches {
		entries = append(entries, partition.Entry{Kind: log.KindData, Data: slices.Clone(b)})
	}
	if err := g.append(entries); err != nil {
		return nil, err
	}
	return proposal{g, g.last()}, nil
}

// ProposeCommand is partition.Commander's.
func (l *Log) ProposeCommand(ctx context.Context, epoch int32, command []byte) (partition.Proposal, error) {
	g := l.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if !l.leads() || epoch != g.epoch {
		return nil, l.notLeader()
	}
	if err := g.append([]partition.Entry{{Kind: log.KindCommand, Data: slices.Clone(command)}}); err != nil {
		return nil, err
	}
	return proposal{g, g.last()}, nil
}

type proposal struct {
	g     *group
	index uint64
}

func (p proposal) Wait(ctx context.Context) error { return p.g.wait(ctx, p.index) }

func (g *group) wait(ctx context.Context, index uint64) error {
	return g.until(ctx, func() bool { return g.committed >= index })
}

// until waits until something is so.
func (g *group) until(ctx context.Context, so func() bool) error {
	stop := context.AfterFunc(ctx, func() {
		g.mu.Lock()
		g.moved.Broadcast()
		g.mu.Unlock()
	})
	defer stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	for !so() {
		if err := ctx.Err(); err != nil {
			return err
		}
		g.moved.Wait()
	}
	return nil
}

func (l *Log) Leader() (node, epoch int32) {
	l.g.mu.Lock()
	defer l.g.mu.Unlock()
	return l.g.leader, l.g.epoch
}

func (l *Log) Watch(f func()) (cancel func()) {
	g := l.g
	p := &f
	g.mu.Lock()
	g.watchers = append(g.watchers, p)
	g.mu.Unlock()
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.watchers = slices.DeleteFunc(slices.Clone(g.watchers), func(q *func()) bool { return q == p })
	}
}

func (l *Log) Lead(ctx context.Context) (int32, error) {
	epoch, err := l.LeaderEpoch()
	if err != nil {
		return 0, err
	}
	l.g.mu.Lock()
	last := l.g.last()
	l.g.mu.Unlock()
	if err := l.g.wait(ctx, last); err != nil {
		return 0, err
	}
	if err := l.g.until(ctx, func() bool { return !l.g.deaf[l.node.id] && l.g.doubts == 0 }); err != nil {
		return 0, err
	}
	if now, err := l.LeaderEpoch(); err != nil || now != epoch {
		l.g.mu.Lock()
		defer l.g.mu.Unlock()
		return 0, l.notLeader()
	}
	return epoch, nil
}

func (l *Log) Confirm(ctx context.Context) error {
	_, err := l.Lead(ctx)
	return err
}

// SetMembers brings new members that run up to date; others come when they run.
func (l *Log) SetMembers(_ context.Context, nodes []int32) error {
	g := l.g
	defer g.tell()
	g.mu.Lock()
	defer g.mu.Unlock()
	if !l.leads() {
		return l.notLeader()
	}
	if slices.Equal(slices.Sorted(slices.Values(g.members)), slices.Sorted(slices.Values(nodes))) {
		return nil
	}
	g.members = slices.Clone(nodes)
	if err := g.append([]partition.Entry{{Kind: log.KindConfiguration, Data: []byte(fmt.Sprint(nodes))}}); err != nil {
		return err
	}
	if !slices.Contains(nodes, g.leader) {
		for _, m := range nodes {
			if g.running[m] != nil {
				return g.elect(m)
			}
		}
		g.leader = -1
	}
	return nil
}

func (l *Log) Transfer(_ context.Context, to int32) error {
	g := l.g
	defer g.tell()
	g.mu.Lock()
	defer g.mu.Unlock()
	if !l.leads() {
		return l.notLeader()
	}
	for _, m := range g.members {
		if g.running[m] != nil && m != g.leader && (to == 0 || to == m) {
			return g.elect(m)
		}
	}
	return fmt.Errorf("node %d cannot lead", to)
}

func (l *Log) Status() engine.LogStatus {
	g := l.g
	g.mu.Lock()
	defer g.mu.Unlock()
	s := engine.LogStatus{Leader: g.leader, Epoch: g.epoch}
	for _, m := range g.members {
		s.Members = append(s.Members, engine.MemberStatus{Node: m, Voter: true, InSync: g.running[m] != nil})
	}
	if g.leader < 0 {
		s.Reason = "nobody was elected"
	}
	return s
}
