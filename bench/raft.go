package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/x/embedlog/bench/internal/raftload"
)

// Replication: three processes on loopback, beside three bare ones that send, write and
// sync the same bytes. The nodes, the loads and the limit are package raftload's, which
// bench/compare shares.

// raftChild is the hidden subcommand that is a node: bench raft-node SYSTEM CONFIGURATION.
const raftChild = "raft-node"

var raftSystems = []*raftload.System{raftload.Ours, raftload.Bound}

func raftChildMain(args []string, stderr io.Writer) int {
	ours := *raftload.Ours
	ours.Open = raftload.OpenOurs(raftOperations)
	if err := raftload.ServeChild([]*raftload.System{&ours, raftload.Bound}, args); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

// A raftPart is one of the measurements of the suite.
type raftPart struct {
	name string
	run  func(ctx context.Context, c config, stdout, stderr io.Writer) (missed int, err error)
}

// raftParts are those besides the loads.
var raftParts = []raftPart{}

func raftMatrix(c config) *raftload.Matrix {
	return &raftload.Matrix{
		Systems: raftSystems, Reps: c.reps, Time: c.seconds, Rows: c.rows, Dir: c.dir,
		Child: []string{raftChild}, Profile: c.profile,
	}
}

func runRaft(c config, stdout, stderr io.Writer) int {
	m := raftMatrix(c)
	selected := m.Selected()
	var parts []raftPart
	for _, p := range raftParts {
		if c.rows.MatchString(p.name) {
			parts = append(parts, p)
		}
	}
	if len(selected)+len(parts) == 0 {
		fmt.Fprintf(stderr, "bench: --rows %s matches no row; --list shows them\n", c.rows)
		return 2
	}
	if c.list {
		for _, l := range selected {
			fmt.Fprintln(stdout, l.Name())
		}
		for _, p := range parts {
			fmt.Fprintln(stdout, p.name)
		}
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fmt.Fprintf(stdout, "%s; %s\n\n", machine(c.dir), m.Conditions())
	missed := 0
	var errs []error
	if len(selected) > 0 {
		lines, err := m.Run(ctx, stderr)
		m.Print(stdout, lines)
		fmt.Fprintln(stdout)
		errs = append(errs, err)
		missed += printRaftTargets(stdout, lines)
	}
	for _, p := range parts {
		if ctx.Err() != nil {
			break
		}
		n, err := p.run(ctx, c, stdout, stderr)
		missed += n
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 1
	}
	if missed > 0 && c.check {
		fmt.Fprintf(stderr, "bench: %d targets missed\n", missed)
		return 1
	}
	return 0
}

// The targets: how much of the limit's throughput, and how many times its time.
const (
	raftPipelineTarget = 0.5
	raftSingleTarget   = 1.8
)

// raftTarget judges a line against the limit: its ratio as it is stated, and whether that is
// enough.
func raftTarget(l *raftload.Line) (ratio float64, target string, ok bool) {
	mid, _, _ := raftload.Better(l.Load.Kind, l.Of(raftload.OursName), l.Of(raftload.LimitName))
	if l.Load.Kind == raftload.Single {
		ratio = 1 / mid
		return ratio, fmt.Sprintf("<= %.1f", raftSingleTarget), ratio <= raftSingleTarget
	}
	return mid, fmt.Sprintf(">= %.1f", raftPipelineTarget), mid >= raftPipelineTarget
}

func printRaftTargets(w io.Writer, lines []raftload.Line) (missed int) {
	for i := range lines {
		ratio, target, ok := raftTarget(&lines[i])
		says := "yes"
		if !ok {
			says = "NO"
			missed++
		}
		fmt.Fprintf(w, "%s: %s of the limit, target %s: %s\n", lines[i].Load.Name(), raftload.Short(ratio), target, says)
	}
	fmt.Fprintln(w)
	return missed
}
