package dbsim

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/simnet"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/raftrepl"
)

// machine is what stays when a process ends: a disk and a clock.
type machine struct {
	id   int32
	disk *vfs.Mem
	skew time.Duration // of its wall clock, for processes that begin from now on
	join string
	busy atomic.Bool // it is being stopped
	run  atomic.Pointer[process]
	// What it is in the cluster. A machine that is lost is still a node of it, until that is removed.
	part    atomic.Int32
	leaving atomic.Bool // its replicas are to go to others
	lost    atomic.Bool // it never starts again
}

// What a machine is.
const (
	isNode  = iota
	isSpare // not yet a node
	wasNode // and is none any more
)

// process is a database that runs on a machine, with the clients in it.
type process struct {
	m     *machine
	dead  atomic.Bool // what it says and does from then on never happened
	fault *vfs.Fault
	slow  *slowDisk
	db    *embedlog.DB
	life  context.Context // of its clients
	kill  context.CancelFunc
}

// cluster is all machines and the network between them.
type cluster struct {
	net      *simnet.Net
	machines []*machine
	initial  int // so many of them begin it together
	timing   raftrepl.Timing
	closing  sync.WaitGroup // of processes that have crashed
}

func host(id int32) string    { return fmt.Sprintf("n%d", id) }
func address(id int32) string { return fmt.Sprintf("n%d:7001", id) }

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

func newCluster(initial, more int, timing raftrepl.Timing) *cluster {
	c := &cluster{net: simnet.New(), initial: initial, timing: timing}
	for i := range initial + more {
		m := &machine{id: int32(i + 1), disk: vfs.NewMem()}
		if i >= initial {
			m.part.Store(isSpare)
		}
		c.machines = append(c.machines, m)
	}
	return c
}

// slowDisk is a disk that takes its time. raftrepl asks it before a log is written or synced, with no
// lock held, because virtual time stands still while somebody waits for one.
type slowDisk struct {
	*vfs.Fault
	mu    sync.Mutex
	until time.Time     // to then each write and sync takes so long
	each  time.Duration // or until then, where it is longer than what is left
}

// Stall is what a write or a sync begins with.
func (d *slowDisk) Stall() {
	d.mu.Lock()
	pause := min(d.each, time.Until(d.until))
	d.mu.Unlock()
	if pause > 0 {
		time.Sleep(pause)
	}
}

func (d *slowDisk) set(during, each time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.until, d.each = time.Now().Add(during), each
}

var discard = slog.New(slog.DiscardHandler)

func logger(id int32) *slog.Logger {
	if os.Getenv("EMBEDLOG_TEST_LOG") == "" {
		return discard
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", id)
}

// start runs a database on a machine. It is down when that fails.
func (c *cluster) start(m *machine) error {
	p := &process{m: m, fault: vfs.NewFault(m.disk)}
	p.slow = &slowDisk{Fault: p.fault}
	p.life, p.kill = context.WithCancel(context.Background())
	cfg := raftrepl.Config{
		Node: m.id, Cluster: "sim", Listen: address(m.id), AllowInsecure: true, Timing: c.timing, Join: m.join,
		Network: mortal{c.net.Host(host(m.id)), &p.dead}, Logger: logger(m.id),
	}
	if m.join == "" {
		cfg.Peers = map[int32]string{}
		for _, other := range c.machines[:c.initial] {
			cfg.Peers[other.id] = address(other.id)
		}
	}
	skew := m.skew
	node, err := raftrepl.New(cfg)
	if err != nil {
		return err
	}
	p.db, err = embedlog.OpenFS(p.slow, &embedlog.Options{
		Replication: node, ReplicationFactor: 3, Logger: logger(m.id), Now: func() time.Time { return time.Now().Add(skew) },
		TopicDefaults: embedlog.TopicConfig{SegmentBytes: 64 << 10, Retention: -1},
	})
	if err != nil {
		return err
	}
	m.run.Store(p)
	return nil
}

// crash ends a process. By a power cut its disk keeps what seed says of what was not synced, by a kill
// all of it.
func (c *cluster) crash(m *machine, power bool, seed uint64) {
	p := m.run.Swap(nil)
	if p == nil {
		return
	}
	p.dead.Store(true)
	c.net.Host(host(m.id)).Crash()
	if power {
		m.disk = m.disk.AfterCrash(vfs.Random(seed))
	} else {
		m.disk = m.disk.AfterKill()
	}
	p.kill()
	p.fault.Clear()
	c.closing.Go(func() { p.db.Close() })
}

// stop closes a database properly.
func (c *cluster) stop(m *machine) error {
	p := m.run.Swap(nil)
	if p == nil {
		return nil
	}
	m.busy.Store(true)
	defer m.busy.Store(false)
	p.fault.Clear()
	p.kill()
	return p.db.Close()
}

func (c *cluster) close() (err error) {
	var all sync.WaitGroup
	var mu sync.Mutex
	for _, m := range c.machines {
		all.Go(func() {
			if e := c.stop(m); e != nil {
				mu.Lock()
				err = e
				mu.Unlock()
			}
		})
	}
	all.Wait()
	c.closing.Wait()
	c.net.Close()
	return err
}

// nodes are the machines of the cluster.
func (c *cluster) nodes() (list []*machine) {
	for _, m := range c.machines {
		if m.part.Load() == isNode {
			list = append(list, m)
		}
	}
	return list
}

// alive are those of them that run, or can be started again.
func (c *cluster) alive() []*machine {
	return slices.DeleteFunc(c.nodes(), func(m *machine) bool { return m.lost.Load() })
}

// staying are those of them that are to keep replicas.
func (c *cluster) staying() []*machine {
	return slices.DeleteFunc(c.alive(), func(m *machine) bool { return m.leaving.Load() })
}

// processes are those that run on nodes.
func (c *cluster) processes() (list []*process) {
	for _, m := range c.alive() {
		if p := m.run.Load(); p != nil {
			list = append(list, p)
		}
	}
	return list
}

// running is a process that runs, at random; nil is none.
func (c *cluster) running(rnd *rand.Rand) *process {
	var list []*process
	for _, m := range c.alive() {
		if p := m.run.Load(); p != nil {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[rnd.IntN(len(list))]
}

func (c *cluster) down() (count int) {
	for _, m := range c.nodes() {
		if p := m.run.Load(); p == nil || p.failed() {
			count++
		}
	}
	return count
}

// failed says that a log of it has failed, which only another start mends.
func (p *process) failed() bool {
	if p.db.Stats().Failed > 0 {
		return true
	}
	for _, s := range p.db.Cluster().Status() {
		if strings.Contains(s.Reason, "storage failed") {
			return true
		}
	}
	return false
}
