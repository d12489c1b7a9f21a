package raftload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// OursName is the system that the others are held against.
const OursName = "embedlog"

// LimitName is the system that is the limit of the machine.
const LimitName = "limit"

// System is something that replicates records among three nodes.
type System struct {
	Name, Note string
	Open       func(*NodeConfig) (Server, error)
	Ports      []string // that a node needs besides the one for its peers
}

// Ours is embedlog, Bound the machine's limit.
var (
	Ours = &System{
		Name: OursName, Open: OpenOurs(nil),
		Note: "three replicas at Durable, default timing, TLS 1.3 between nodes; single: Topic.Produce; pipeline: Producer.Send",
	}
	Bound = &System{
		Name: LimitName, Open: OpenLimit,
		Note: "bare TCP, write and fdatasync: the leader sends to both followers while it writes and syncs itself, committed when two have it; single: one record; pipeline: four groups under way, a quarter of the window each",
	}
)

// Matrix is loads and the systems that take turns in them.
type Matrix struct {
	Systems []*System
	Reps    int
	Time    time.Duration
	Rows    *regexp.Regexp // names of the loads to run
	Dir     string         // where files go
	// Child are the arguments that have this program call ServeChild with those that follow.
	Child   []string
	Profile string // a directory for profiles of our nodes, a file for each load and node; empty is none
}

// Outstanding is the window of pipelined loads, and Producers how many share it.
const (
	Outstanding = 8192
	Producers   = 4
)

// Loads is all there are.
func Loads() (list []Load) {
	for _, kind := range []Kind{Single, Pipeline} {
		for _, size := range []int{100, 1024} {
			l := Load{Kind: kind, Bytes: size}
			if kind == Pipeline {
				l.Producers, l.Window = Producers, Outstanding
			}
			list = append(list, l)
		}
	}
	return list
}

// Selected are the loads whose names match.
func (m *Matrix) Selected() []Load {
	return slices.DeleteFunc(Loads(), func(l Load) bool { return !m.Rows.MatchString(l.Name()) })
}

// ServeChild is a node's part: args are the system's name and the configuration.
func ServeChild(systems []*System, args []string) error {
	if len(args) != 2 {
		return errors.New("a system and a configuration are needed: this is for the program itself")
	}
	for _, s := range systems {
		if s.Name == args[0] {
			return Serve(s.Open, args[1])
		}
	}
	return fmt.Errorf("no system %q", args[0])
}

// Outcome is what a system's repetitions of a load came to.
type Outcome struct {
	System  *System
	Results []Result // in the order of the repetitions
}

// Line is a load and what the systems made of it.
type Line struct {
	Load     Load
	Outcomes []Outcome
}

// Of finds a system's results.
func (l *Line) Of(name string) []Result {
	for _, o := range l.Outcomes {
		if o.System.Name == name {
			return o.Results
		}
	}
	return nil
}

// nodes is how many replicas there are.
const nodes = 3

// patience is how long a cluster may take to elect leaders and have all nodes take part.
const patience = 60 * time.Second

// Run measures the selected loads. The systems take turns, and another one goes first each
// time, so that a busy moment of the machine hits all of them; their clusters run side by
// side, each idle while another is loaded.
func (m *Matrix) Run(ctx context.Context, progress io.Writer) (lines []Line, err error) {
	files, err := os.MkdirTemp(m.Dir, "raftload-")
	if err != nil {
		return nil, err
	}
	clusters := make([]*Cluster, len(m.Systems))
	defer func() {
		for _, c := range clusters {
			if c != nil {
				err = errors.Join(err, c.Stop())
			}
		}
		err = errors.Join(err, os.RemoveAll(files))
		fmt.Fprint(progress, "\r\x1b[K")
	}()
	for i, s := range m.Systems {
		fmt.Fprintf(progress, "\r\x1b[Kstarting %s", s.Name)
		c, err := NewCluster(ClusterOptions{Nodes: nodes, Dir: filepath.Join(files, s.Name), Child: append(slices.Clone(m.Child), s.Name), Ports: s.Ports, Insecure: s.Name != OursName})
		if err != nil {
			return nil, err
		}
		clusters[i] = c
		if err := c.Start(); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	for _, l := range m.Selected() {
		line := Line{Load: l}
		for _, s := range m.Systems {
			line.Outcomes = append(line.Outcomes, Outcome{System: s})
		}
		for rep := range m.Reps {
			for k := range m.Systems {
				i := (rep + k) % len(m.Systems)
				fmt.Fprintf(progress, "\r\x1b[K%s, %s (%d of %d)", l.Name(), m.Systems[i].Name, rep+1, m.Reps)
				res, err := m.once(ctx, clusters[i], m.Systems[i], l, rep == m.Reps-1)
				if err != nil {
					return lines, fmt.Errorf("%s, %s: %w", l.Name(), m.Systems[i].Name, err)
				}
				line.Outcomes[i].Results = append(line.Outcomes[i].Results, res)
			}
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// once runs one repetition.
func (m *Matrix) once(ctx context.Context, c *Cluster, s *System, l Load, last bool) (res Result, err error) {
	l.Time = m.Time
	leader, err := Prepare(ctx, c, &l)
	if err != nil {
		return res, err
	}
	before, err := processorTimes(ctx, c)
	if err != nil {
		return res, err
	}
	profiled := last && m.Profile != "" && s.Name == OursName
	if profiled {
		for _, n := range c.Running() {
			if err := c.Profile(ctx, n, filepath.Join(m.Profile, fmt.Sprintf("%s,%s", strings.ReplaceAll(l.Name(), "/", ","), role(n == leader, n)))); err != nil {
				return res, err
			}
		}
	}
	if err := c.Ask(ctx, leader, OpLoad, l, &res); err != nil {
		return res, err
	}
	after, err := processorTimes(ctx, c)
	for i := range after {
		res.CPU = append(res.CPU, after[i]-before[i])
	}
	if profiled {
		for _, n := range c.Running() {
			err = errors.Join(err, c.Profiled(ctx, n))
		}
	}
	return res, err
}

func role(leads bool, node int32) string {
	if leads {
		return "leader"
	}
	return fmt.Sprintf("follower%d", node)
}

// Prepare makes a place for a load's records and waits until a node leads there and the others
// take part.
func Prepare(ctx context.Context, c *Cluster, l *Load) (leader int32, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = Until(ctx, "there is a place for the records", func() (bool, error) {
		err := c.Ask(ctx, c.Running()[0], OpPrepare, l, nil)
		return err == nil, err
	})
	if err != nil {
		return 0, err
	}
	return leader, Until(ctx, "a node leads", func() (bool, error) {
		for _, n := range c.Running() {
			var leads bool
			if err := c.Ask(ctx, n, OpLeads, l, &leads); err != nil {
				return false, err
			}
			if leads {
				leader = n
				return true, nil
			}
		}
		return false, nil
	})
}

func processorTimes(ctx context.Context, c *Cluster) (list []time.Duration, err error) {
	for _, n := range c.Running() {
		d, err := c.CPU(ctx, n)
		if err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, nil
}

// Conditions says in a line what the figures were taken with.
func (m *Matrix) Conditions() string {
	return fmt.Sprintf("%s/%s, GOMAXPROCS %d, %s; %d processes on loopback and one disk; medians of %d repetitions of %v, taken in turns",
		runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), runtime.Version(), nodes, m.Reps, m.Time)
}
