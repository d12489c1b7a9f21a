package takeover

import (
	"flag"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/raftrepl"
)

var kills = flag.Int("takeover.kills", 0, "how often an owner is killed; 0 is a few times")

// patience is how long something may take that is to happen.
const patience = time.Minute

// processes is three nodes, and what they have said.
type processes struct {
	t       *testing.T
	configs []nodeConfig
	nodes   []*child

	mu    sync.Mutex
	sent  map[int64]bool
	acked map[int64]bool
	reads int
	next  int64 // the first number of the next life
}

// Owners of tasks are killed while records come, and started again. Each record that was acknowledged counts, once, at every node.
func TestKill(t *testing.T) {
	n := *kills
	if n == 0 {
		n = testcount.N(2)
	}
	c := startProcesses(t)
	for i := range n {
		c.feed()
		time.Sleep(time.Duration(100+rand.IntN(300)) * time.Millisecond) // the load goes on
		graph, task := "flat", rand.Int32N(2)
		if i%2 == 1 {
			graph, task = "deep", rand.Int32N(4)
		}
		at := c.owner(graph, task)
		c.nodes[at].kill()
		c.whileDown(at)
		c.start(at)
		c.ready(at)
	}
	c.check()
	t.Logf("%d kills, %d records acknowledged, %d reads", n, len(c.acked), c.reads)
}

func startProcesses(t *testing.T) *processes {
	t.Helper()
	c := &processes{t: t, nodes: make([]*child, 3), sent: map[int64]bool{}, acked: map[int64]bool{}}
	ca, err := raftrepl.NewCA("takeover")
	if err != nil {
		t.Fatal(err)
	}
	peers := map[int32]string{}
	var held []net.Listener
	for i := range c.nodes {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, l)
		peers[int32(i+1)] = l.Addr().String()
	}
	for _, l := range held {
		l.Close()
	}
	for i := range c.nodes {
		config := nodeConfig{Node: int32(i + 1), Dir: filepath.Join(t.TempDir(), "node"), Peers: peers, CA: ca.CertPEM()}
		if config.Cert, config.Key, err = ca.Issue(config.Node); err != nil {
			t.Fatal(err)
		}
		c.configs = append(c.configs, config)
	}
	t.Cleanup(func() {
		for i, p := range c.nodes {
			if p == nil {
				continue
			}
			if t.Failed() {
				p.kill()
			} else if err := p.end(); err != nil {
				t.Errorf("end of node %d: %v", i+1, err)
			}
		}
	})
	for i := range c.nodes {
		c.start(i)
	}
	for i := range c.nodes {
		c.ready(i)
	}
	return c
}

func (c *processes) start(at int) {
	c.t.Helper()
	p, err := startChild(c.configs[at], func(l line) { c.hear(at, l) })
	if err != nil {
		c.t.Fatal(err)
	}
	c.nodes[at] = p
}

func (c *processes) hear(at int, l line) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case l.Sent != 0:
		c.sent[l.Sent] = true
	case l.Acked != 0:
		c.acked[l.Acked] = true
	case l.Problem != "":
		c.t.Errorf("node %d: %s", at+1, l.Problem)
	}
	c.reads += l.Reads
}

// until asks until the answer is yes.
func (c *processes) until(at int, what string, q question) (l line) {
	c.t.Helper()
	var err error
	for began := time.Now(); time.Since(began) < patience; time.Sleep(10 * time.Millisecond) {
		if l, err = c.nodes[at].ask(q); err == nil {
			return l
		}
	}
	c.t.Fatalf("node %d: %s: %v", at+1, what, err)
	return l
}

func (c *processes) ready(at int) { c.until(at, "graphs run", question{Do: doReady}) }

// feed has all nodes append records.
func (c *processes) feed() {
	for at := range c.nodes {
		c.next += 1_000_000
		c.until(at, "append", question{Do: doRest})
		c.until(at, "append", question{Do: doFeed, First: c.next})
	}
}

// owner is the node that owns a task.
func (c *processes) owner(graph string, task int32) int {
	for began := time.Now(); time.Since(began) < patience; time.Sleep(10 * time.Millisecond) {
		if l, err := c.nodes[0].ask(question{Do: doOwner, Graph: graph, Task: task}); err == nil && l.Node > 0 {
			return int(l.Node - 1)
		}
	}
	c.t.Fatal("nobody owns the task")
	return 0
}

// whileDown waits until what the others append and read goes on without a node.
func (c *processes) whileDown(without int) {
	count := func() (acked, reads int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.acked), c.reads
	}
	acked, reads := count()
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		a, r := count()
		if a > acked+20 && r > reads+20 {
			return
		}
		if time.Since(began) > patience {
			c.t.Fatalf("without node %d %d records are acknowledged and %d reads answered", without+1, a-acked, r-reads)
		}
	}
}

// check has the nodes append no more, and compare what they answer with the log.
func (c *processes) check() {
	c.t.Helper()
	for at := range c.nodes {
		c.until(at, "append no more", question{Do: doRest})
	}
	var there []int64
	for at := range c.nodes {
		there = c.until(at, "compare with the log", question{Do: doCheck}).Numbers
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	log := map[int64]bool{}
	for _, n := range there {
		if log[n] = true; !c.sent[n] {
			c.t.Errorf("%d is in the log, and was not sent", n)
		}
	}
	for n := range c.acked {
		if !log[n] {
			c.t.Errorf("%d was acknowledged, and is not in the log", n)
		}
	}
	if len(c.acked) == 0 || c.reads == 0 {
		c.t.Error("nothing was appended, or nothing read")
	}
}
