package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/x/embedlog/bench/internal/raftload"
)

// Failover: one client on each node that does not lead produces single records, one after another. The
// leader is killed (SIGKILL); what is measured is the time from its end to the next record that is
// acknowledged of those sent after it. The node is started again and the next leader is killed
// when all have caught up.

const failoverTopic = "failover"

var failoverTargets = map[bool]time.Duration{false: 3 * time.Second, true: time.Second}

func init() { raftParts = append(raftParts, raftPart{"failover", runFailover}) }

func runFailover(ctx context.Context, c config, stdout, stderr io.Writer) (missed int, err error) {
	fmt.Fprintf(stdout, "failover: %d kills of the leader, time to the next acknowledgement\n", c.kills)
	fmt.Fprintf(stdout, "%-8s %9s %9s %9s %9s  %s\n", "timing", "p50", "p90", "p99", "max", "target of p99")
	for _, fast := range []bool{false, true} {
		name := "default"
		if fast {
			name = "fast"
		}
		times, err := failovers(ctx, c, fast, stderr)
		if err != nil {
			return missed, fmt.Errorf("%s timing, after %d kills: %w", name, len(times), err)
		}
		slices.Sort(times)
		rank := func(p int) time.Duration { return times[(len(times)*p+99)/100-1] } // the nearest rank
		at := func(p int) string { return rank(p).Round(time.Millisecond).String() }
		says := "yes"
		if rank(99) > failoverTargets[fast] {
			says = "NO"
			missed++
		}
		fmt.Fprintf(stdout, "%-8s %9s %9s %9s %9s  <= %v: %s\n", name, at(50), at(90), at(99), at(100), failoverTargets[fast], says)
	}
	fmt.Fprintln(stdout)
	return missed, nil
}

func failovers(ctx context.Context, c config, fast bool, stderr io.Writer) (times []time.Duration, err error) {
	cluster, end, err := raftCluster(c, fast)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	if err := makeTopic(ctx, cluster, raftload.Topic{Name: failoverTopic, Partitions: 1, Factor: 3}); err != nil {
		return nil, err
	}
	for i := range c.kills {
		leader, err := inSync(ctx, cluster, failoverTopic, 1)
		if err != nil {
			return times, err
		}
		took, err := failover(ctx, cluster, leader[0])
		if err != nil {
			return times, err
		}
		times = append(times, took)
		fmt.Fprintf(stderr, "kill %d of node %d: %v\n", i+1, leader[0], took.Round(time.Millisecond))
		if err := cluster.Start(leader[0]); err != nil {
			return times, err
		}
	}
	return times, nil
}

// failover kills the leader at a moment of chance, while clients produce on the others.
func failover(ctx context.Context, cluster *raftload.Cluster, leader int32) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var clients sync.WaitGroup
	var mu sync.Mutex
	var killed, acked time.Time
	for _, node := range cluster.Running() {
		if node == leader {
			continue
		}
		clients.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				err := cluster.Ask(ctx, node, raftload.OpProduce, raftload.Produce{Topic: failoverTopic, Value: make([]byte, 100), Timeout: 30 * time.Second}, nil)
				mu.Lock()
				if err == nil && !killed.IsZero() && began.After(killed) {
					if acked.IsZero() {
						acked = time.Now()
					}
					mu.Unlock()
					cancel()
					return
				}
				mu.Unlock()
				if err != nil {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	time.Sleep(time.Second + rand.N(time.Second))
	err := cluster.Kill(leader)
	mu.Lock()
	killed = time.Now()
	mu.Unlock()
	clients.Wait()
	if err != nil {
		return 0, err
	}
	if acked.IsZero() {
		return 0, fmt.Errorf("nothing was acknowledged within a minute after node %d was killed", leader)
	}
	return acked.Sub(killed), nil
}

// raftCluster is three nodes that have found each other, in a directory that end removes.
func raftCluster(c config, fast bool) (_ *raftload.Cluster, end func() error, err error) {
	dir, err := os.MkdirTemp(c.dir, "bench-raft-")
	if err != nil {
		return nil, nil, err
	}
	cluster, err := raftload.NewCluster(raftload.ClusterOptions{
		Nodes: 3, Dir: filepath.Join(dir, "nodes"), Child: []string{raftChild, raftload.OursName}, Fast: fast, Settings: raftload.Settings{},
	})
	if err == nil {
		err = cluster.Start()
	}
	end = func() error {
		var err error
		if cluster != nil {
			err = cluster.Stop()
		}
		return errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		return nil, nil, errors.Join(err, end())
	}
	return cluster, end, nil
}

// makeTopic makes a topic when all nodes are there.
func makeTopic(ctx context.Context, cluster *raftload.Cluster, t raftload.Topic) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return raftload.Until(ctx, "the topic is made", func() (bool, error) {
		var st raftload.Status
		if err := cluster.Ask(ctx, 1, raftload.OpStatus, nil, &st); err != nil || len(st.Alive) < 3 {
			return false, err
		}
		err := cluster.Ask(ctx, 1, raftload.OpTopic, t, nil)
		return err == nil, err
	})
}

// inSync waits until each partition has a leader with three replicas that are in sync, and returns
// the leaders.
func inSync(ctx context.Context, cluster *raftload.Cluster, topic string, partitions int) (leaders []int32, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	err = raftload.Until(ctx, "all replicas are in sync", func() (bool, error) {
		leaders = make([]int32, partitions)
		n := 0
		for _, node := range cluster.Running() {
			var st raftload.Status
			if err := cluster.Ask(ctx, node, raftload.OpStatus, nil, &st); err != nil {
				return false, err
			}
			for _, l := range st.Logs {
				if l.Topic == topic && l.Leader == node && len(l.InSync) == 3 && leaders[l.Partition] == 0 {
					leaders[l.Partition] = node
					n++
				}
			}
		}
		return n == partitions, nil
	})
	return leaders, err
}
