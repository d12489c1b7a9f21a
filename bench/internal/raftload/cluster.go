package raftload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/x/embedlog/raftrepl"
)

// ClusterName is in the certificates of nodes.
const ClusterName = "bench"

// ClusterOptions are how a cluster is started.
type ClusterOptions struct {
	Nodes int    // that begin it together, numbered from 1
	Spare int    // further ones that have certificates and addresses, and are not started
	Dir   string // of all nodes, one directory each
	// Child are the arguments that have this program call Serve with the configuration, which
	// is appended.
	Child    []string
	Ports    []string // names of further ports that each node needs
	Fast     bool     // raftrepl.FastTiming
	Insecure bool     // without TLS
	Settings any      // for the system's Server, as JSON
}

// Cluster is nodes, each a process of its own. Nodes are started and ended by one goroutine at a
// time; the rest may be called meanwhile.
type Cluster struct {
	o       ClusterOptions
	configs map[int32]*NodeConfig

	mu    sync.Mutex
	nodes map[int32]*process // those that run
}

// process is that of a node; nil when it does not run.
func (c *Cluster) process(node int32) *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[node]
}

// take is process, which does not count as one that runs any more.
func (c *Cluster) take(node int32) *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.nodes[node]
	delete(c.nodes, node)
	return p
}

// NewCluster makes directories, certificates and addresses. Nothing is started.
func NewCluster(o ClusterOptions) (*Cluster, error) {
	c := &Cluster{o: o, configs: map[int32]*NodeConfig{}, nodes: map[int32]*process{}}
	ca, err := raftrepl.NewCA(ClusterName)
	if err != nil {
		return nil, err
	}
	settings, err := json.Marshal(o.Settings)
	if err != nil {
		return nil, err
	}
	addresses, err := pickAddresses(o.Nodes+o.Spare, o.Ports)
	if err != nil {
		return nil, err
	}
	for n := int32(1); int(n) <= o.Nodes+o.Spare; n++ {
		cfg := &NodeConfig{Node: n, Nodes: o.Nodes, Dir: filepath.Join(o.Dir, "node-"+strconv.Itoa(int(n))), Addresses: addresses, Fast: o.Fast, Insecure: o.Insecure, Settings: settings}
		if !o.Insecure {
			cfg.CA = ca.CertPEM()
			if cfg.Cert, cfg.Key, err = ca.Issue(n); err != nil {
				return nil, err
			}
		}
		if int(n) > o.Nodes {
			cfg.Join = addresses["1"]
		}
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			return nil, err
		}
		c.configs[n] = cfg
	}
	return c, nil
}

// pickAddresses finds free ports. Somebody else may take one before the node does: it fails then.
func pickAddresses(nodes int, more []string) (map[string]string, error) {
	list := map[string]string{}
	var held []net.Listener
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	for n := 1; n <= nodes; n++ {
		for _, name := range append([]string{""}, more...) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return nil, err
			}
			held = append(held, l)
			list[strconv.Itoa(n)+name] = l.Addr().String()
		}
	}
	return list, nil
}

// Address is where a node listens for its peers.
func (c *Cluster) Address(node int32) string {
	return c.configs[node].Addresses[strconv.Itoa(int(node))]
}

// Start starts nodes, those that begin the cluster when none is named.
func (c *Cluster) Start(nodes ...int32) error {
	if len(nodes) == 0 {
		for n := range c.o.Nodes {
			nodes = append(nodes, int32(n+1))
		}
	}
	type started struct {
		p   *process
		err error
	}
	all := make([]chan started, len(nodes))
	for i, n := range nodes {
		all[i] = make(chan started, 1)
		go func() {
			p, err := c.start(n)
			all[i] <- started{p, err}
		}()
	}
	var errs []error
	for i, n := range nodes {
		s := <-all[i]
		if s.p != nil {
			c.mu.Lock()
			c.nodes[n] = s.p
			c.mu.Unlock()
		}
		errs = append(errs, s.err)
	}
	return errors.Join(errs...)
}

func (c *Cluster) start(node int32) (*process, error) {
	config, err := json.Marshal(c.configs[node])
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return startProcess(exec.Command(self, append(append([]string(nil), c.o.Child...), string(config))...), node)
}

// Running are the nodes that run, by number.
func (c *Cluster) Running() (list []int32) {
	for n := int32(1); int(n) <= len(c.configs); n++ {
		if c.process(n) != nil {
			list = append(list, n)
		}
	}
	return list
}

// PID is the process of a node that runs.
func (c *Cluster) PID(node int32) int { return c.process(node).cmd.Process.Pid }

// Dir is the directory of a node.
func (c *Cluster) Dir(node int32) string { return c.configs[node].Dir }

// Kill ends a node's process without warning (SIGKILL). Start starts it again.
func (c *Cluster) Kill(node int32) error {
	return c.take(node).kill()
}

// KillAt is Kill, and says when the process was told to end: that takes the longer the more memory it has.
func (c *Cluster) KillAt(node int32) (time.Time, error) {
	p := c.take(node)
	err := p.cmd.Process.Kill()
	at := time.Now()
	p.kill() // waits
	return at, err
}

// End has a node close its database.
func (c *Cluster) End(node int32) error {
	return c.take(node).end()
}

// Stop ends all nodes that run.
func (c *Cluster) Stop() error {
	var all []chan error
	for _, n := range c.Running() {
		done := make(chan error, 1)
		p := c.take(n)
		go func() { done <- p.end() }()
		all = append(all, done)
	}
	var err error
	for _, done := range all {
		err = errors.Join(err, <-done)
	}
	return err
}

// Ask has a node do something and waits for its answer, which goes to out unless that is nil.
// What a node answers is a *RemoteError.
func (c *Cluster) Ask(ctx context.Context, node int32, op string, in, out any) error {
	p := c.process(node)
	if p == nil {
		return fmt.Errorf("node %d, %s: %w", node, op, errGone)
	}
	return p.ask(ctx, op, in, out)
}

// CPU is what a node's process took of the processor, in user and system mode.
func (c *Cluster) CPU(ctx context.Context, node int32) (d time.Duration, err error) {
	return d, c.Ask(ctx, node, opCPU, nil, &d)
}

// Runtime is what a node's process has.
func (c *Cluster) Runtime(ctx context.Context, node int32) (r Runtime, err error) {
	return r, c.Ask(ctx, node, opRuntime, nil, &r)
}

// Profile profiles a node's processor time into a file from now on, Profiled ends that.
func (c *Cluster) Profile(ctx context.Context, node int32, path string) error {
	return c.Ask(ctx, node, opProfile, path, nil)
}

// Profiled ends a profile, and writes what was allocated beside it.
func (c *Cluster) Profiled(ctx context.Context, node int32) error {
	return c.Ask(ctx, node, opProfiled, nil, nil)
}

// Until asks again and again until f says so.
func Until(ctx context.Context, what string, f func() (bool, error)) error {
	var last error
	for {
		ok, err := f()
		if ok {
			return nil
		}
		if err != nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("until %s: %w", what, errors.Join(ctx.Err(), last))
		case <-time.After(20 * time.Millisecond):
		}
	}
}
