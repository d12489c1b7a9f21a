package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/x/embedlog/bench/internal/raftload"
)

// raftPatience is how long a cluster may take to do what a part waits for.
const raftPatience = time.Minute

// startRaft starts so many of our nodes and waits until all have registered.
func startRaft(ctx context.Context, c config, nodes int, settings raftload.Settings) (cluster *raftload.Cluster, end func() error, err error) {
	dir, err := os.MkdirTemp(c.dir, "embedlog-raft-")
	if err != nil {
		return nil, nil, err
	}
	cluster, err = raftload.NewCluster(raftload.ClusterOptions{Nodes: nodes, Dir: dir, Child: []string{raftChild, raftload.OursName}, Settings: settings})
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	end = func() error { return errors.Join(cluster.Stop(), os.RemoveAll(dir)) }
	if err = cluster.Start(); err == nil {
		err = raftRegistered(ctx, cluster, nodes)
	}
	if err != nil {
		return nil, nil, errors.Join(err, end())
	}
	return cluster, end, nil
}

func raftRegistered(ctx context.Context, cluster *raftload.Cluster, nodes int) error {
	ctx, cancel := context.WithTimeout(ctx, raftPatience)
	defer cancel()
	return raftload.Until(ctx, "all nodes have registered", func() (bool, error) {
		var st raftload.Status
		err := cluster.Ask(ctx, 1, raftload.OpStatus, nil, &st)
		return len(st.Alive) == nodes, err
	})
}

// raftTopic makes a topic of one partition and waits until all its replicas are in sync.
func raftTopic(ctx context.Context, cluster *raftload.Cluster, t raftload.Topic) (leader int32, err error) {
	ctx, cancel := context.WithTimeout(ctx, raftPatience)
	defer cancel()
	if err := raftload.Until(ctx, "there is a topic", func() (bool, error) {
		err := cluster.Ask(ctx, 1, raftload.OpTopic, t, nil)
		return err == nil, err
	}); err != nil {
		return 0, err
	}
	return leader, raftload.Until(ctx, "it is led", func() (bool, error) {
		for _, n := range cluster.Running() {
			var st raftload.Status
			if err := cluster.Ask(ctx, n, raftload.OpStatus, nil, &st); err != nil {
				return false, err
			}
			if l, ok := st.Of(t.Name, 0); ok && l.Leader == n && len(l.InSync) == t.Factor {
				leader = n
				return true, nil
			}
		}
		return false, nil
	})
}

// held is what a node has of partition 0 of a topic.
func held(ctx context.Context, cluster *raftload.Cluster, node int32, topic string) (raftload.Held, error) {
	var list []raftload.Held
	if err := cluster.Ask(ctx, node, raftload.OpHolds, topic, &list); err != nil || len(list) == 0 {
		return raftload.Held{}, err
	}
	return list[0], nil
}

// raftWrittenTarget is how many times the frames' bytes a node may write, zeros that are laid
// ahead counted apart.
const raftWrittenTarget = 1.1

func init() {
	raftParts = append(raftParts, raftPart{"raft/written", raftWritten}, raftPart{"raft/catchup", raftCatchUp})
}

// raftWritten counts what each node writes to its files for records of a replicated topic.
func raftWritten(ctx context.Context, c config, stdout, _ io.Writer) (missed int, err error) {
	cluster, end, err := startRaft(ctx, c, 3, raftload.Settings{Count: true})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, end()) }()
	fmt.Fprintln(stdout, "| bytes written | node | frames | data files | zeros ahead | indexes | checkpoints, metadata's files | terms and votes | written / frames | syncs | at most 1.1 |")
	fmt.Fprintln(stdout, "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|")
	for _, l := range raftload.Loads() {
		l.Time = c.seconds
		leader, err := raftload.Prepare(ctx, cluster, &l)
		if err != nil {
			return missed, err
		}
		before := map[int32]raftload.Written{}
		frames := map[int32]int64{}
		for _, n := range cluster.Running() {
			h, err := held(ctx, cluster, n, l.Place())
			if err != nil {
				return missed, err
			}
			frames[n] = h.FrameBytes
			var w raftload.Written
			if err := cluster.Ask(ctx, n, raftload.OpWritten, nil, &w); err != nil {
				return missed, err
			}
			before[n] = w
		}
		var res raftload.Result
		if err := cluster.Ask(ctx, leader, raftload.OpLoad, l, &res); err != nil {
			return missed, err
		}
		lead, err := held(ctx, cluster, leader, l.Place())
		if err != nil {
			return missed, err
		}
		for _, n := range cluster.Running() {
			var h raftload.Held
			var w raftload.Written
			err := raftload.Until(ctx, "all replicas have all", func() (bool, error) {
				// Written before what is there, which syncs.
				if err := cluster.Ask(ctx, n, raftload.OpWritten, nil, &w); err != nil {
					return false, err
				}
				var err error
				h, err = held(ctx, cluster, n, l.Place())
				return h.HighWatermark == lead.LogEnd, err
			})
			if err != nil {
				return missed, err
			}
			written, size := w.Minus(before[n]), h.FrameBytes-frames[n]
			ratio := float64(written.Bytes()) / float64(size)
			says := "yes"
			if ratio > raftWrittenTarget {
				says = "NO"
				missed++
			}
			role := "follower"
			if n == leader {
				role = "leader"
			}
			fmt.Fprintf(stdout, "| %s | %s | %d | %d | %d | %d | %d | %d | %.3f | %d | %s |\n", l.Name(), role, size,
				written.Segments, written.Zeros, written.Indexes, written.Checkpoints, written.Votes, ratio, written.Syncs, says)
		}
	}
	fmt.Fprintln(stdout)
	return missed, nil
}

// raftCatchUp gives a topic of two replicas that has records a third, empty one, and says how
// long that takes to have them all.
func raftCatchUp(ctx context.Context, c config, stdout, _ io.Writer) (missed int, err error) {
	cluster, end, err := startRaft(ctx, c, 3, raftload.Settings{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, end()) }()
	fmt.Fprintln(stdout, "| catch-up of an empty replica | frames | repetitions | MB/s, median (least to most) |")
	fmt.Fprintln(stdout, "|---|---:|---:|---:|")
	for _, size := range []int{100, 1024} {
		var rates []float64
		var frames int64
		for rep := range c.reps {
			t := raftload.Topic{Name: fmt.Sprintf("catchup-%d-%d", size, rep), Partitions: 1, Factor: 2}
			leader, err := raftTopic(ctx, cluster, t)
			if err != nil {
				return 0, err
			}
			if err := cluster.Ask(ctx, leader, raftload.OpFill, raftload.Fill{Topic: t.Name, Records: c.bytes / int64(size), Bytes: size}, nil); err != nil {
				return 0, err
			}
			lead, err := held(ctx, cluster, leader, t.Name)
			if err != nil {
				return 0, err
			}
			var st raftload.Status
			if err := cluster.Ask(ctx, leader, raftload.OpStatus, nil, &st); err != nil {
				return 0, err
			}
			l, _ := st.Of(t.Name, 0)
			empty := slices.IndexFunc([]int32{1, 2, 3}, func(n int32) bool { return !slices.Contains(l.InSync, n) }) + 1
			t.Factor = 3
			began := time.Now()
			if err := cluster.Ask(ctx, 1, raftload.OpFactor, t, nil); err != nil {
				return 0, err
			}
			wait, cancel := context.WithTimeout(ctx, raftPatience)
			err = raftload.Until(wait, "the empty replica has all", func() (bool, error) {
				h, err := held(wait, cluster, int32(empty), t.Name)
				return h.HighWatermark >= lead.LogEnd, err
			})
			cancel()
			if err != nil {
				return 0, err
			}
			frames = lead.FrameBytes
			rates = append(rates, float64(frames)/1e6/time.Since(began).Seconds())
		}
		slices.Sort(rates)
		fmt.Fprintf(stdout, "| value=%dB | %d | %d | %s (%s to %s) |\n", size, frames, len(rates),
			raftload.Short(rates[(len(rates)-1)/2]), raftload.Short(rates[0]), raftload.Short(rates[len(rates)-1]))
	}
	fmt.Fprintln(stdout)
	return 0, nil
}
