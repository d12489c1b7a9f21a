package raftrepl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// Node is one peer: the engine.Cluster of one engine. It has the connections with the other
// peers, the votes of all groups, and a Group for each log that is open.
//
// All methods may be called from several goroutines. Start comes before the others but for
// Self and Bootstrap; a Node serves one engine once.
type Node struct {
	cfg  Config
	tls  *tlsPair
	host engine.Host

	mu        sync.Mutex
	started   bool
	closed    bool
	transport *transport
	votes     *Votes
	cache     *Cache
	logger    *slog.Logger
	open      map[engine.LogID]*groupTransport
	learned   map[int32]string // what peers have said of where they are
	joining   error            // why the cluster to join was not found yet
}

var (
	_ engine.Cluster      = (*Node)(nil)
	_ engine.Bootstrapper = (*Node)(nil)
	_ engine.Certified    = (*Node)(nil)
)

// New checks a configuration, and reports all that is wrong with it. Nothing is opened before
// the engine starts it.
func New(cfg Config) (*Node, error) {
	pair, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	if cfg.Network == nil {
		cfg.Network = tcp{}
	}
	return &Node{cfg: cfg, tls: pair, open: map[engine.LogID]*groupTransport{}, learned: map[int32]string{}}, nil
}

// Self implements engine.Cluster.
func (n *Node) Self() int32 { return n.cfg.Node }

// Bootstrap implements engine.Bootstrapper.
func (n *Node) Bootstrap() engine.Bootstrap {
	b := engine.Bootstrap{Address: n.cfg.Advertise, Initial: n.cfg.initial(), Joins: n.cfg.Join != ""}
	if len(b.Initial) > 1 {
		b.Cluster = n.cfg.clusterID()
	}
	return b
}

// Start opens the votes and listens. From then on peers are served.
func (n *Node) Start(h engine.Host) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.started || n.closed {
		return errors.New("raftrepl: a node is started once")
	}
	n.host = h
	if n.logger = n.cfg.Logger; n.logger == nil {
		n.logger = h.Logger()
	}
	var err error
	if n.votes, err = openNodeVotes(h); err != nil {
		return fmt.Errorf("raftrepl: %w", err)
	}
	boot, err := countBoot(h.FS(), n.votes.used())
	if err != nil {
		n.votes.Close()
		return fmt.Errorf("raftrepl: %w", err)
	}
	n.cache = NewCache(n.cfg.CacheBytes)
	t := makeTransport(transportConfig{
		self: n.cfg.Node, name: n.cfg.Cluster, listen: n.cfg.Listen, advertise: n.cfg.Advertise, token: n.cfg.Token, network: n.cfg.Network, tls: n.tls,
		election: n.cfg.Timing.Election, boot: boot, identity: n.identity, logger: n.logger, address: n.address,
		adopt: n.adopter(), directory: n.directory, standing: n.standing(), learned: n.learn, serve: h.Serve,
	})
	if err := t.begin(); err != nil {
		n.votes.Close()
		return fmt.Errorf("raftrepl: peers cannot be listened for: %w", err)
	}
	n.transport, n.started = t, true
	t.run(n.greet)
	if n.tls != nil {
		n.tls.mu.Lock()
		n.tls.logger = n.logger
		n.tls.mu.Unlock()
		t.run(n.watchCertificates)
	}
	if n.cfg.Join != "" {
		t.run(n.announce)
	}
	return nil
}

func (n *Node) identity() identity {
	cluster, directory := n.host.Identity()
	return identity{cluster, directory}
}

// adopter is how a node that is of no cluster yet becomes one of the first that it hears of.
func (n *Node) adopter() func(engine.TopicID) error {
	if a, ok := n.host.(interface {
		Adopt(cluster engine.TopicID) error
	}); ok {
		return a.Adopt
	}
	return nil
}

// directory is what the metadata has registered.
func (n *Node) directory(node int32) (engine.TopicID, bool) {
	r, ok := n.host.(engine.Registry)
	if !ok {
		return engine.TopicID{}, false
	}
	id, ok := r.Directory(node)
	return id, ok && !id.IsZero()
}

// address is where a node is: as the metadata says, the configuration, or the node itself.
func (n *Node) address(node int32) (string, bool) {
	if a := n.host.Peers()[node]; a != "" {
		return a, true
	}
	if a, ok := n.cfg.Peers[node]; ok {
		return a, true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	a, ok := n.learned[node]
	return a, ok
}

func (n *Node) learn(node int32, address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.learned[node] = address
}

// greetFor is for how long a node that starts waits until it knows where others are.
const greetFor = 10 * time.Second

// greet connects with the other nodes at once: they have failed to reach this one while it was down, and
// try again after a pause only. What this node has to say by itself begins when it misses a leader.
func (n *Node) greet() {
	t := n.transport
	for waited := time.Duration(0); waited < greetFor; waited += firstRedial {
		peers := n.host.Peers()
		if len(peers) == 0 {
			peers = n.cfg.Peers
		}
		for node := range peers {
			t.greet(node)
		}
		if len(peers) > 1 {
			return
		}
		select {
		case <-time.After(firstRedial):
		case <-t.ctx.Done():
			return
		}
	}
}

// greet begins to connect with a node.
func (t *transport) greet(node int32) {
	if node != t.self {
		t.run(func() { t.peer(node).get(t.ctx, flavourMain) }) // who cannot be reached is asked again by who needs it
	}
}

// announce says where this node is to the one that it joins, until that knows it.
func (n *Node) announce() {
	t := n.transport
	var said sayings
	for pause := firstRedial; ; pause = min(2*pause, lastRedial) {
		conn, w, err := t.knock(n.cfg.Join, 0, flavourKnock, 0)
		n.mu.Lock()
		n.joining = err
		n.mu.Unlock()
		if err == nil {
			conn.conn.Close()
			n.logger.Info("the cluster was found", "node", w.node, "cluster", w.cluster)
			n.learn(w.node, n.cfg.Join)
			return
		}
		if t.ctx.Err() != nil {
			return
		}
		if said.news(err.Error()) {
			n.logger.Warn("the cluster to join is not found; tried again", "address", n.cfg.Join, "error", err)
		}
		select {
		case <-time.After(pause):
		case <-t.ctx.Done():
			return
		}
	}
}

// Log implements engine.Cluster. A log that is opened again takes the place of the one before, which
// was stopped or could not be opened.
func (n *Node) Log(id engine.LogID, initial []int32) engine.ReplicatedLog {
	n.mu.Lock()
	t, old := n.transport, n.open[id]
	n.mu.Unlock()
	if old != nil {
		old.Close()
	}
	var g *Group
	var mu sync.Mutex // g is set when messages may come already
	group := func() *Group {
		mu.Lock()
		defer mu.Unlock()
		return g
	}
	known, _ := n.votes.get(id)
	self := replicaID(n.cfg.Node, known.life)
	hooks := groupHooks{
		server: func() raft.ServerID { return self },
		storing: func() time.Duration {
			if g := group(); g != nil {
				return g.StoreHung()
			}
			return 0
		},
		storeFailures: func() uint64 {
			if g := group(); g != nil {
				if i := g.instance(); i == nil || i.cutOff.Load() {
					return 1
				}
			}
			return 0
		},
		member: func(node int32) bool {
			g := group()
			return g == nil || g.hasMember(node)
		},
		leads: func() int32 {
			g := group()
			if g == nil {
				return -1
			}
			leader, _ := g.Leader()
			return leader
		},
		left: func(node int32) {
			if g := group(); g != nil {
				g.nodeGone(node)
			}
		},
		met: func(node int32) {
			if g := group(); g != nil {
				g.gate.met(node)
			}
		},
	}
	gt, err := t.group(id, hooks)
	if err != nil { // the node is closed: nothing comes and nothing goes
		gt = t.noGroup(id)
	}
	made := NewGroup(GroupConfig{
		ID: id, Self: n.cfg.Node, Initial: initial, Transport: gt, Votes: n.votes, Cache: n.cache, Timing: n.cfg.Timing, Logger: n.logger, Gone: t.gone,
	})
	if slow, ok := n.host.FS().(staller); ok {
		made.stall = func(bool) { slow.Stall() }
	}
	mu.Lock()
	g = made
	mu.Unlock()
	n.mu.Lock()
	n.open[id] = gt
	n.mu.Unlock()
	return made
}

// Call implements engine.Cluster.
func (n *Node) Call(ctx context.Context, node int32, service string, request []byte) ([]byte, error) {
	n.mu.Lock()
	t := n.transport
	n.mu.Unlock()
	if t == nil {
		return nil, fmt.Errorf("node %d: %w: this node has not started", node, engine.ErrPeerUnreachable)
	}
	return t.call(ctx, node, service, request)
}

// Close implements engine.Cluster: connections end, and calls that are served are waited for.
func (n *Node) Close() error {
	n.mu.Lock()
	started := n.started && !n.closed
	n.closed = true
	n.mu.Unlock()
	if !started {
		return nil
	}
	return errors.Join(n.transport.Close(), n.votes.Close())
}

// openNodeVotes opens the votes of a node, and makes them where it never started before: a start is
// counted when the votes are there, so a count without votes says that they were lost.
func openNodeVotes(h engine.Host) (*Votes, error) {
	name, dir := "raft.votes", h.Dir()
	if dir != "" {
		name = "raft.db"
	}
	info, err := h.FS().Stat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size == 0 {
		if _, booted := h.FS().Stat(bootName); booted == nil {
			return nil, fmt.Errorf("%w: %s is missing or empty, and this node was started before. Put it back if it was moved away; if it is gone: %s", ErrVotesLost, name, engine.ReplaceNode)
		}
		if dir == "" {
			err = replaceWhole(h.FS(), name, encodeVotes(nil))
		} else {
			err = nil
		}
	}
	if err != nil {
		return nil, err
	}
	var v *Votes
	if dir != "" {
		v, err = OpenVotes(filepath.Join(dir, name))
	} else {
		v, err = OpenVotesIn(h.FS(), name)
	}
	if _, booted := h.FS().Stat(bootName); dir != "" && errors.Is(err, log.ErrCorrupt) && errors.Is(booted, fs.ErrNotExist) {
		// The power went while the file was made, at the first start. Nothing was promised before that was counted.
		if err = h.FS().Remove(name); err == nil {
			v, err = OpenVotes(filepath.Join(dir, name))
		}
	}
	if errors.Is(err, log.ErrCorrupt) {
		err = fmt.Errorf("%w: %s is damaged: %w. %s", ErrVotesLost, name, err, engine.ReplaceNode)
	}
	if err == nil && dir != "" {
		// The library writes it beside the file system that counts what the database takes.
		count := func() {
			if err := vfs.Recount(h.FS(), name); err != nil {
				h.Logger().Warn("what the file of votes takes is not counted", slog.String("file", name), slog.Any("error", err))
			}
		}
		v.backend.(*boltVotes).grown = count
		count()
	}
	return v, err
}

// bootName is a file that counts how often the node was started: its eight bytes and a checksum
// (CRC32C, uint32). Peers remember the newest count that they have met, and so tell a copy or an old
// state of the directory. A crash leaves the old count or the new one.
const bootName = "raft.boot"

var bootTable = crc32.MakeTable(crc32.Castagnoli)

// ErrBootsLost says that the count of a node's starts is lost or damaged, though it was started before:
// others could not tell it from a copy of an older state, and refuse it.
var ErrBootsLost = errors.New("embedlog: the count of the node's starts is lost")

// countBoot counts a start. started says that there was one before.
func countBoot(fsys vfs.FS, started bool) (uint64, error) {
	n := uint64(0)
	f, err := fsys.Open(bootName)
	switch {
	case errors.Is(err, fs.ErrNotExist) && started:
		return 0, fmt.Errorf("%w: %s is missing. Put it back if it was moved away; if it is gone: %s", ErrBootsLost, bootName, engine.ReplaceNode)
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return 0, err
	default:
		var b [12]byte
		k, err := f.ReadAt(b[:], 0)
		f.Close()
		if err != nil && err != io.EOF {
			return 0, err
		}
		if k < len(b) || crc32.Checksum(b[:8], bootTable) != binary.BigEndian.Uint32(b[8:]) {
			return 0, fmt.Errorf("%w: %s: %w. %s", ErrBootsLost, bootName, log.ErrCorrupt, engine.ReplaceNode)
		}
		n = binary.BigEndian.Uint64(b[:8])
	}
	n++
	b := binary.BigEndian.AppendUint64(nil, n)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, bootTable))
	return n, replaceWhole(fsys, bootName, b)
}

// replaceWhole has a file hold b, or what it held.
func replaceWhole(fsys vfs.FS, name string, b []byte) error {
	tmp := name + ".tmp"
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(tmp)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(b, 0); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return err
	}
	return fsys.SyncDir(".")
}
