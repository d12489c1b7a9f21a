package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/kafka"
	"github.com/x/embedlog/raftrepl"
)

// cluster is three databases in this process that are one cluster, each with a listener, as three machines would
// be it: they know of each other by loopback alone. While it moves, another node comes to lead one partition after
// the other.
type cluster struct {
	nodes []*server
	die   context.CancelFunc
	moves sync.WaitGroup
	moved atomic.Int64
	// coordinators says that the partitions of coordinators move, and no others. Otherwise all move but those of groups:
	// another coordinator does not know the members of groups with server-side assignment, who join again and read again
	// what they had not committed, which kgo's tests of groups take for an error. (docs/kafka.md)
	coordinators atomic.Bool
}

const (
	clusterNodes = 3
	// movePause is between two moves of a leader.
	movePause = 300 * time.Millisecond
)

// patientTiming keeps leaders where they are on a machine that is busy with three nodes and a few hundred clients:
// they are moved on purpose, which takes no timeout.
var patientTiming = raftrepl.Timing{Heartbeat: 3 * time.Second, Election: 3 * time.Second, LeaderLease: 3 * time.Second, CommitTimeout: time.Second}

// serveCluster starts one.
func serveCluster(ctx context.Context, r *run, name string) (c *cluster, err error) {
	peers := make(map[int32]string)
	// Addresses have to be known before anybody listens on them.
	for id := range int32(clusterNodes) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		peers[id+1] = l.Addr().String()
		if err := l.Close(); err != nil {
			return nil, err
		}
	}
	c = &cluster{die: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	for id := range int32(clusterNodes) {
		node, err := raftrepl.New(raftrepl.Config{Node: id + 1, Cluster: "conformance", Listen: peers[id+1], Peers: peers, Timing: patientTiming})
		if err != nil {
			return nil, err
		}
		s, err := serveWith(r, fmt.Sprintf("%s-%d", name, id+1), kafka.Options{Listeners: []kafka.Listener{{Address: "127.0.0.1:0"}}},
			embedlog.Options{Replication: node, PreferredLeaders: -1, ReplicationFactor: clusterNodes})
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, s)
	}
	for deadline := time.Now().Add(time.Minute); !c.whole(); {
		if time.Now().After(deadline) {
			return nil, errors.New("the nodes do not find each other within a minute")
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return c, nil
}

// whole says that each node knows of all others where clients find them.
func (c *cluster) whole() bool {
	for _, s := range c.nodes {
		list := s.db.Cluster().Nodes()
		if len(list) != clusterNodes {
			return false
		}
		for _, n := range list {
			if len(n.Endpoints) == 0 || !n.Alive {
				return false
			}
		}
	}
	return true
}

// seeds are the addresses of all nodes, by comma.
func (c *cluster) seeds() string {
	var list []string
	for _, s := range c.nodes {
		list = append(list, s.addr(0))
	}
	return strings.Join(list, ",")
}

// move has leaders move until stop.
func (c *cluster) move(seed uint64) {
	ctx, cancel := context.WithCancel(context.Background())
	c.die = cancel
	c.moves.Go(func() {
		rnd := rand.New(rand.NewPCG(seed, 1))
		for {
			select {
			case <-time.After(movePause):
			case <-ctx.Done():
				return
			}
			s := c.nodes[rnd.IntN(len(c.nodes))]
			status := s.db.Cluster().Status()[1:] // but for the metadata
			if len(status) == 0 {
				continue
			}
			p := status[rnd.IntN(len(status))]
			to := p.Replicas[rnd.IntN(len(p.Replicas))]
			mayMove := p.Topic != "__consumer_offsets"
			if c.coordinators.Load() {
				mayMove = strings.HasPrefix(p.Topic, "__")
			}
			if p.Leader == to || !mayMove {
				continue
			}
			soon, cancel := context.WithTimeout(ctx, 5*time.Second)
			if s.db.Cluster().TransferLeadership(soon, p.Topic, p.Partition, to) == nil { // the topic may be gone meanwhile
				c.moved.Add(1)
			}
			cancel()
		}
	})
}

// stop ends the nodes, and says whether everything in their databases is whole.
func (c *cluster) stop() error {
	c.die()
	c.moves.Wait()
	var errs []error
	for _, s := range c.nodes {
		if err := s.shut(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.dir, err))
		}
	}
	for _, s := range c.nodes {
		if err := s.db.Close(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.dir, err))
		}
	}
	for _, s := range c.nodes {
		if len(errs) == 0 {
			_ = os.RemoveAll(s.dir) // the disk is needed
		}
	}
	return errors.Join(errs...)
}
