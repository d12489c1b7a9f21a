package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"time"

	"github.com/x/embedlog/bench/internal/raftload"
)

// Replicas beside what a Go program would embed instead: the loads of bench raft, three nodes
// of each system, each a process of its own, over loopback.

// raftCommand compares replicated systems; raftChild is the hidden one that is a node.
const (
	raftCommand = "raft"
	raftChild   = "raft-node"
)

var raftSystems = []*raftload.System{
	raftload.Ours,
	{
		Name: "jetstream", Open: openNATSNode, Ports: []string{natsRoutePort},
		Note: "nats-server v2.15.2 embedded, a cluster of three, one stream with 3 replicas on file storage, sync_always; the client is in the leader's process (InProcessServer); single: Publish; pipeline: PublishAsync with the same window; no TLS",
	},
	{
		Name: "raft-wal", Open: openRaftNode,
		Note: "hashicorp/raft v1.7.3 on raft-wal v0.4.0, its NetworkTransport over TCP; single: Apply; pipeline: Apply with the same window, a record an entry, up to 1024 entries in a message and a sync (MaxAppendEntries, BatchApplyCh); no TLS",
	},
	raftload.Bound,
}

func runRaft(args []string, stdout, stderr io.Writer) error {
	m := raftload.Matrix{Child: []string{raftChild}}
	var rows, systems string
	var seconds float64
	var list, check bool
	fs := flag.NewFlagSet("compare raft", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.IntVar(&m.Reps, "reps", 5, "`repetitions` of each cell; the median counts")
	fs.Float64Var(&seconds, "seconds", 1, "`seconds` of each repetition")
	fs.StringVar(&rows, "rows", "", "run only rows that match this `regexp`")
	fs.StringVar(&systems, "systems", "", "run only systems that match this `regexp` (embedlog always runs)")
	fs.StringVar(&m.Dir, "dir", "", "`directory` for the data (default: the system's temporary directory)")
	fs.BoolVar(&list, "list", false, "print the names of the rows and stop")
	fs.BoolVar(&check, "check", false, "exit with status 1 where embedlog is behind jetstream or raft-wal")
	if err := fs.Parse(args); err != nil {
		return err
	}
	var err error
	if m.Rows, err = regexp.Compile(rows); err != nil {
		return fmt.Errorf("--rows: %w", err)
	}
	only, err := regexp.Compile(systems)
	switch {
	case err != nil:
		return fmt.Errorf("--systems: %w", err)
	case fs.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case m.Reps < 1 || !(seconds > 0):
		return errors.New("--reps and --seconds must be positive")
	case len(m.Selected()) == 0:
		return fmt.Errorf("--rows %s matches no row; --list shows them", rows)
	}
	m.Time = time.Duration(seconds * float64(time.Second))
	if list {
		for _, l := range m.Selected() {
			fmt.Fprintln(stdout, l.Name())
		}
		return nil
	}
	for _, s := range raftSystems {
		if s == raftload.Ours || only.MatchString(s.Name) {
			m.Systems = append(m.Systems, s)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	fmt.Fprintf(stdout, "%s.\nIn brackets how many times embedlog is ahead (below 1: behind): median (least to most) of the repetitions.\n\n", m.Conditions())
	lines, err := m.Run(ctx, stderr)
	m.Print(stdout, lines)
	behind := raftBehind(lines)
	fmt.Fprintf(stdout, "\nembedlog is behind in %d of the cells that count: of jetstream and raft-wal.\n", behind)
	if err == nil && check && behind > 0 {
		err = fmt.Errorf("behind in %d cells", behind)
	}
	return err
}

// raftBehind counts the cells in which embedlog is behind another system that keeps the same
// guarantee. The limit is none.
func raftBehind(lines []raftload.Line) (n int) {
	for i := range lines {
		for _, o := range lines[i].Outcomes {
			if o.System.Name == raftload.OursName || o.System.Name == raftload.LimitName {
				continue
			}
			if mid, _, _ := raftload.Better(lines[i].Load.Kind, lines[i].Of(raftload.OursName), o.Results); mid < 1 {
				n++
			}
		}
	}
	return n
}
