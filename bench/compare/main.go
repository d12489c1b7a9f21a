// Command compare runs the same workloads on embedlog and on what a Go program
// would embed instead, and prints one table.
//
//	cd bench/compare && go run .          # stores in the process
//	cd bench/compare && go run . kafka    # servers over loopback
//	cd bench/compare && go run . raft     # three replicas over loopback
//
// Every repetition runs in a process of its own on a fresh directory; the systems
// take turns, so that a busy moment of the machine hits all of them. A workload is
// left out for a system that cannot keep its guarantee, and the table says so.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/x/embedlog/bench/internal/kafkaload"
	"github.com/x/embedlog/bench/internal/raftload"
)

// options are the command's flags.
type options struct {
	Reps      int
	Seconds   float64
	Sizes     string
	Only      *regexp.Regexp
	Systems   *regexp.Regexp
	Dir       string
	child     string
	childDir  string
	childSize int
	childFill bool
}

func parse(args []string) (options, error) {
	var o options
	var only, systems string
	var short bool
	fs := flag.NewFlagSet("compare", flag.ContinueOnError)
	fs.IntVar(&o.Reps, "reps", 3, "`repetitions` of each cell; the median counts")
	fs.Float64Var(&o.Seconds, "seconds", 1.2, "`seconds` of each repetition")
	fs.StringVar(&o.Sizes, "size", "100,1024", "value sizes in `bytes`, comma-separated")
	fs.StringVar(&only, "workloads", "", "run only workloads that match this `regexp`")
	fs.StringVar(&systems, "systems", "", "run only systems that match this `regexp` (embedlog always runs)")
	fs.StringVar(&o.Dir, "dir", "", "`directory` for the data (default: the system's temporary directory); use the disk you care about")
	fs.BoolVar(&short, "short", false, "one short repetition, to see that it works")
	fs.StringVar(&o.child, "child", "", "internal: run one cell")
	fs.StringVar(&o.childDir, "child-dir", "", "internal")
	fs.IntVar(&o.childSize, "child-size", 0, "internal")
	fs.BoolVar(&o.childFill, "child-fill", false, "internal: write what the cell reads")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if short {
		o.Reps, o.Seconds, o.Sizes = 1, 0.2, "100"
	}
	if o.Reps < 1 || o.Seconds <= 0 {
		return o, errors.New("--reps and --seconds must be positive")
	}
	var err error
	if o.Only, err = regexp.Compile(only); err != nil {
		return o, fmt.Errorf("--workloads: %w", err)
	}
	if o.Systems, err = regexp.Compile(systems); err != nil {
		return o, fmt.Errorf("--systems: %w", err)
	}
	return o, nil
}

func main() {
	if len(os.Args) > 1 && (os.Args[1] == kafkaCommand || os.Args[1] == kafkaChild) {
		var err error
		if os.Args[1] == kafkaChild {
			err = kafkaload.ServeChild(kafkaSystems, os.Args[2:])
		} else {
			err = runKafka(os.Args[2:], os.Stdout, os.Stderr)
		}
		if err != nil && !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "compare:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && (os.Args[1] == raftCommand || os.Args[1] == raftChild) {
		var err error
		if os.Args[1] == raftChild {
			err = raftload.ServeChild(raftSystems, os.Args[2:])
		} else {
			err = runRaft(os.Args[2:], os.Stdout, os.Stderr)
		}
		if err != nil && !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "compare:", err)
			os.Exit(1)
		}
		return
	}
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if o.child != "" {
		err = runChild(ctx, o)
	} else {
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

// run measures every cell and prints the table.
func run(ctx context.Context, o options) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	base, err := os.MkdirTemp(o.Dir, "compare-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(base)
	var sizes []int
	for _, s := range strings.Split(o.Sizes, ",") {
		var n int
		if _, err := fmt.Sscanf(strings.TrimSpace(s), "%d", &n); err != nil || n < 1 {
			return fmt.Errorf("--size %q: not a list of sizes", o.Sizes)
		}
		sizes = append(sizes, n)
	}
	var t table
	for _, w := range workloads {
		if !o.Only.MatchString(w.name) {
			continue
		}
		for _, size := range sizes {
			row := t.add(w, size)
			for rep := range o.Reps {
				for _, s := range systems {
					if s.name != ours && !o.Systems.MatchString(s.name) {
						continue
					}
					if why := s.cannot(w); why != "" {
						row.cell(s.name).cannot = why
						continue
					}
					fmt.Fprintf(os.Stderr, "\r\x1b[K%s, %d B, %s (%d of %d)", w.name, size, s.name, rep+1, o.Reps)
					dir := filepath.Join(base, "data")
					res, err := measure(ctx, self, o, w, s.name, dir, size)
					if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
						return fmt.Errorf("%s, %s: %w", s.name, w.name, err)
					}
					row.cell(s.name).results = append(row.cell(s.name).results, res)
				}
			}
		}
	}
	fmt.Fprint(os.Stderr, "\r\x1b[K")
	t.print(os.Stdout, o)
	return nil
}

// measure runs one repetition in processes of its own.
func measure(ctx context.Context, self string, o options, w *workload, system, dir string, size int) (res result, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return res, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(o.Seconds*float64(time.Second))+3*time.Minute)
	defer cancel()
	child := func(more ...string) ([]byte, error) {
		args := append([]string{"--child", system + "/" + w.name, "--child-dir", dir, "--child-size", fmt.Sprint(size), "--seconds", fmt.Sprint(o.Seconds)}, more...)
		cmd := exec.CommandContext(ctx, self, args...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(errs.Bytes()))
		}
		return out.Bytes(), nil
	}
	if w.kind == reading || w.kind == opening {
		// In another process: who reads or opens must not find it in its own memory.
		if _, err := child("--child-fill"); err != nil {
			return res, err
		}
	}
	out, err := child()
	if err != nil {
		return res, err
	}
	return res, json.Unmarshal(out, &res)
}
