package raftrepl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/simnet"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// simCluster is whole nodes, disk and network simulated, that replicate one partition.
type simCluster struct {
	t       testing.TB
	net     *simnet.Net
	ca      *CA // nil is without TLS
	timing  Timing
	level   log.Level
	initial []int32
	nodes   []*simNode
	logger  *slog.Logger
	opened  func(r *simRun) // called before a node's group takes part
	serve   func(ctx context.Context, from int32, service string, request []byte) ([]byte, error)
}

// simNode is a machine: its disk stays, what runs on it comes and goes.
type simNode struct {
	c    *simCluster
	id   int32
	disk atomic.Pointer[vfs.Mem]
	skew atomic.Int64 // of its wall clock
	run  atomic.Pointer[simRun]
	dir  engine.TopicID
	join string
}

// simRun is a process on it.
type simRun struct {
	n    *simNode
	dead atomic.Bool // what it says and does from then on never happened
	// condemned says that a sync is to fail, which takes what was acknowledged at a weak level.
	condemned atomic.Bool
	fault     *vfs.Fault
	node      *Node
	slow      slowDisk
	wire      *simWire // nil outside of the simulation
	g         *Group
	p         *partition.Partition
}

var simLog = engine.LogID{Topic: engine.TopicID{'s', 'i', 'm'}, Partition: 1}

func newSimCluster(t testing.TB, members, nodes int) *simCluster {
	c := &simCluster{t: t, net: simnet.New(), timing: FastTiming, logger: slog.New(slog.DiscardHandler)}
	if os.Getenv("EMBEDLOG_TEST_LOG") != "" {
		c.logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for i := range nodes {
		id := int32(i + 1)
		if i < members {
			c.initial = append(c.initial, id)
		}
		n := &simNode{c: c, id: id, dir: engine.TopicID{'d', byte(id)}}
		n.disk.Store(vfs.NewMem())
		c.nodes = append(c.nodes, n)
	}
	return c
}

// close stops everything. Nothing is left.
func (c *simCluster) close() {
	for _, n := range c.nodes {
		n.stop()
	}
	c.net.Close()
}

// simHost is the engine of a node, as far as a Node asks for it.
type simHost struct{ r *simRun }

func (h simHost) Dir() string          { return "" }
func (h simHost) FS() vfs.FS           { return h.r.fault }
func (h simHost) Logger() *slog.Logger { return h.r.n.c.logger.With("at", h.r.n.id) }
func (h simHost) Now() time.Time       { return h.r.n.now() }
func (h simHost) Identity() (cluster, directory engine.TopicID) {
	return theCluster, h.r.n.dir
}
func (h simHost) Peers() map[int32]string { return nil }
func (h simHost) Serve(ctx context.Context, from int32, service string, request []byte) ([]byte, error) {
	if h.r.n.c.serve == nil {
		return nil, errors.New("nothing is served")
	}
	return h.r.n.c.serve(ctx, from, service, request)
}

func (n *simNode) now() time.Time { return time.Now().Add(time.Duration(n.skew.Load())) }

// mortal is the network of a process: with it, its connections end.
type mortal struct {
	host *simnet.Host
	dead *atomic.Bool
}

func (m mortal) Dial(ctx context.Context, address string) (net.Conn, error) {
	if m.dead.Load() {
		return nil, net.ErrClosed
	}
	c, err := m.host.Dial(ctx, address)
	if err == nil && m.dead.Load() { // it waited, behind a cut, and died meanwhile
		c.Close()
		return nil, net.ErrClosed
	}
	return c, err
}
func (m mortal) Listen(address string) (net.Listener, error) { return m.host.Listen(address) }

func simAddress(id int32) string { return fmt.Sprintf("n%d:7001", id) }

// start runs the node. It is down when that fails.
func (n *simNode) start() (err error) {
	c := n.c
	r := &simRun{n: n, fault: vfs.NewFault(n.disk.Load())}
	cfg := Config{Node: n.id, Cluster: "sim", Listen: simAddress(n.id), AllowInsecure: true, Timing: c.timing,
		Network: mortal{c.net.Host(hostName(n.id)), &r.dead}, Join: n.join}
	if n.join == "" {
		cfg.Peers = map[int32]string{}
		for _, other := range c.nodes {
			if other.join == "" {
				cfg.Peers[other.id] = simAddress(other.id)
			}
		}
	}
	if c.ca != nil {
		cert, key, err := c.ca.Issue(n.id)
		if err != nil {
			return err
		}
		cfg.Cluster, cfg.TLS = c.ca.Cluster(), TLS{CA: c.ca.CertPEM(), Cert: cert, Key: key}
	}
	if r.node, err = New(cfg); err != nil {
		return err
	}
	if err := r.node.Start(simHost{r}); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer func() {
		if err != nil {
			r.end()
		}
	}()
	initial := c.initial
	if int(n.id) > len(initial) {
		initial = nil
	}
	r.g = r.node.Log(simLog, initial).(*Group)
	if err := r.fault.Mkdir("log"); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := r.fault.SyncDir("."); err != nil {
		return err
	}
	r.p, err = partition.Open("", &partition.Options{FS: vfs.Sub(r.fault, "log"), Replicator: r.g, Now: n.now, Logger: c.logger,
		Config: partition.Config{Log: log.Config{Level: c.level, SegmentBytes: 16 << 10, IndexIntervalBytes: 512, SegmentAge: -1}}})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if c.opened != nil {
		c.opened(r)
	}
	if err := r.g.Run(r.p); err != nil {
		return fmt.Errorf("run: %w", err)
	}
	n.run.Store(r)
	return nil
}

// end ends what was begun, in the order that an engine does.
func (r *simRun) end() (err error) {
	if r.g != nil {
		r.g.Stop()
	}
	if r.p != nil {
		err = r.p.Close()
	}
	return errors.Join(err, r.node.Close())
}

// stop stops the node properly.
func (n *simNode) stop() error {
	r := n.run.Swap(nil)
	if r == nil {
		return nil
	}
	r.fault.Clear()
	return r.end()
}

// crash ends the node: by a power cut its disk keeps what seed says of what was not synced, by a
// kill all of it.
func (n *simNode) crash(power bool, seed uint64) {
	if r := n.die(n.run.Load(), power, seed); r != nil {
		r.end()
	}
}

// die is the moment of a crash, which may be in the middle of an operation on the disk. What the
// process does from then on until its end concerns nobody. It returns nil when the process was
// none any more.
func (n *simNode) die(r *simRun, power bool, seed uint64) *simRun {
	if r == nil || !n.run.CompareAndSwap(r, nil) {
		return nil
	}
	r.dead.Store(true)
	n.c.net.Host(hostName(n.id)).Crash()
	if power {
		n.disk.Store(n.disk.Load().AfterCrash(vfs.Random(seed)))
	} else {
		n.disk.Store(n.disk.Load().AfterKill())
	}
	r.fault.Clear()
	return r
}

// leader is who leads in the newest epoch, as those say that run. Nil is nobody.
func (c *simCluster) leader() *simRun {
	var best *simRun
	newest := int32(-1)
	for _, n := range c.nodes {
		if r := n.run.Load(); r != nil {
			if epoch, err := r.g.LeaderEpoch(); err == nil && epoch > newest {
				best, newest = r, epoch
			}
		}
	}
	return best
}

// settle waits until all members that run have the same log, and returns the leader.
func (c *simCluster) settle(within time.Duration) (*simRun, error) {
	for start := time.Now(); time.Since(start) < within; time.Sleep(20 * time.Millisecond) {
		l := c.leader()
		if l == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := l.g.Lead(ctx)
		cancel()
		if err != nil {
			continue
		}
		end, _ := l.p.LastEntry()
		same := true
		for _, m := range l.g.Status().Members {
			r := c.nodes[m.Node-1].run.Load()
			if r == nil {
				continue
			}
			last, _ := r.p.LastEntry()
			same = same && last == end && r.p.HighWatermark() == l.p.LogEnd()
		}
		if same {
			return l, nil
		}
	}
	var b bytes.Buffer
	for _, n := range c.nodes {
		if r := n.run.Load(); r != nil {
			last, epoch := r.p.LastEntry()
			fmt.Fprintf(&b, "\nnode %d: high watermark %d, log end %d, last entry %d of %d, %+v", n.id, r.p.HighWatermark(), r.p.LogEnd(), last, epoch, r.g.Status())
		} else {
			fmt.Fprintf(&b, "\nnode %d is down", n.id)
		}
	}
	return nil, fmt.Errorf("the replicas do not become the same within %v:%s", within, b.String())
}

// entries are the log from an index on, as text.
func (r *simRun) entries(first uint64) (string, error) {
	var out bytes.Buffer
	reader, err := r.p.Log().ReadFromIndex(first)
	for i := first; err == nil; i++ {
		var f *log.Frame
		if f, err = reader.Next(); err == io.EOF {
			return out.String(), nil
		}
		if err == nil && f.Index != i {
			err = fmt.Errorf("it is entry %d", f.Index)
		}
		if err != nil {
			return "", fmt.Errorf("node %d, entry %d: %w", r.n.id, i, err)
		}
		fmt.Fprintf(&out, "%d %d %v %d %x\n", f.Index, f.Epoch, f.Kind, f.Offset, f.Payload)
	}
	return "", fmt.Errorf("node %d, entry %d: %w", r.n.id, first, err)
}
