package takeover

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/simnet"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/raftrepl"
)

// machine is what stays when a process ends: a disk.
type machine struct {
	id   int32
	disk *vfs.Mem
	run  atomic.Pointer[process]
}

// process is a database with its graphs that runs on a machine.
type process struct {
	m    *machine
	dead atomic.Bool // what it says and does from then on never happened
	db   *embedlog.DB
	g    atomic.Pointer[graphs]
	life context.Context
	kill context.CancelFunc
	wg   sync.WaitGroup // who starts graphs
}

type cluster struct {
	net      *simnet.Net
	machines []*machine
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

func newCluster(n int, timing raftrepl.Timing) *cluster {
	c := &cluster{net: simnet.New(), timing: timing}
	for i := range n {
		c.machines = append(c.machines, &machine{id: int32(i + 1), disk: vfs.NewMem()})
	}
	return c
}

func logger(id int32) *slog.Logger {
	if os.Getenv("EMBEDLOG_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", id)
}

// start runs a database on a machine. Its graphs are there a little later.
func (c *cluster) start(m *machine) error {
	p := &process{m: m}
	p.life, p.kill = context.WithCancel(context.Background())
	cfg := raftrepl.Config{
		Node: m.id, Cluster: "sim", Listen: address(m.id), AllowInsecure: true, Timing: c.timing, Peers: map[int32]string{},
		Network: mortal{c.net.Host(host(m.id)), &p.dead}, Logger: logger(m.id),
	}
	for _, other := range c.machines {
		cfg.Peers[other.id] = address(other.id)
	}
	node, err := raftrepl.New(cfg)
	if err != nil {
		return err
	}
	p.db, err = embedlog.OpenFS(m.disk, &embedlog.Options{Replication: node, ReplicationFactor: len(c.machines), Logger: logger(m.id)})
	if err != nil {
		return err
	}
	m.run.Store(p)
	p.wg.Go(p.startGraphs)
	return nil
}

// startGraphs tries until there are enough nodes.
func (p *process) startGraphs() {
	for p.life.Err() == nil {
		ctx, cancel := context.WithTimeout(p.life, 20*time.Second)
		g, err := newGraphs(ctx, p.db, logger(p.m.id))
		cancel()
		if err == nil {
			p.g.Store(g)
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-p.life.Done():
		}
	}
}

// crash ends a process. By a power cut its disk keeps what seed says of what was not synced, by a kill all of it.
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
	c.closing.Go(func() { p.wg.Wait(); p.db.Close() })
}

// stop closes a database properly.
func (c *cluster) stop(m *machine) error {
	p := m.run.Swap(nil)
	if p == nil {
		return nil
	}
	p.kill()
	p.wg.Wait()
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

// up are those that run.
func (c *cluster) up() (list []*process) {
	for _, m := range c.machines {
		if p := m.run.Load(); p != nil {
			list = append(list, p)
		}
	}
	return list
}
