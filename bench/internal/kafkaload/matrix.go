package kafkaload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// OursName is the system that the others are held against.
const OursName = "embedlog"

// System is something that can be loaded.
type System struct {
	Name, Note string
	// Serve serves in the child, with files in dir, until kafkaload.Serve returns.
	Serve func(dir string, l *Load) error
	// Run loads the server; Fill puts in what a consumer is to find, nil for nothing.
	Run  func(ctx context.Context, c *Child, l *Load) (Result, error)
	Fill func(ctx context.Context, c *Child, l *Load) error
	// Cannot says why the system does not run a load, or nothing.
	Cannot func(l *Load) string
}

// Ours is embedlog with Kafka's client.
var Ours = &System{
	Name: OursName, Note: "package kafka, franz-go's client; a topic with default settings but for the level",
	Serve: ServeOurs, Run: Kafka, Fill: Fill,
}

// Bound is the limit of the machine.
var Bound = &System{
	Name: "limit", Note: "loopback TCP with the same sizes: a request is read and answered, at Durable after a shared fdatasync; a fetch is answered from memory; a record is handed on",
	Serve: ServeLimit, Run: Limit,
}

// Matrix is loads and the systems that take turns in them.
type Matrix struct {
	Systems []*System
	Reps    int
	Time    time.Duration
	Rows    *regexp.Regexp // names of the loads to run
	Dir     string         // where files go
	// Child are the arguments that have this program call ServeChild with those that follow.
	Child   []string
	Profile string // a directory for profiles of ours, a file for each load; empty is none

	started func() (*Child, error) // in a test; nil is start
}

// Loads is all there are.
func Loads() []Load {
	var all []Load
	for _, kind := range []Kind{Produce, Consume, Latency} {
		for _, durable := range []bool{false, true} {
			if kind == Consume && durable {
				continue // what is read was synced long ago
			}
			for _, size := range []int{100, 1024} {
				for _, clients := range []int{1, 10, 100} {
					all = append(all, Load{Kind: kind, Durable: durable, Clients: clients, Bytes: size, Window: 8192, Fill: int64(64 << 20 / size)})
				}
			}
		}
	}
	return all
}

// Name is key=value, after the kind.
func (l *Load) Name() string {
	level := "os"
	if l.Durable {
		level = "durable"
	}
	size := fmt.Sprintf("%dB", l.Bytes)
	if l.Bytes%1024 == 0 {
		size = fmt.Sprintf("%dKiB", l.Bytes/1024)
	}
	return fmt.Sprintf("kafka/%s/level=%s/value=%s/clients=%d", l.Kind, level, size, l.Clients)
}

// Selected are the loads whose names match.
func (m *Matrix) Selected() []Load {
	return slices.DeleteFunc(Loads(), func(l Load) bool { return !m.Rows.MatchString(l.Name()) })
}

// ServeChild is the child's part of Run: args are the system's name, the load and the
// directory.
func ServeChild(systems []*System, args []string) error {
	if len(args) != 3 {
		return errors.New("a system, a load and a directory are needed: this is for the program itself")
	}
	for _, s := range systems {
		if s.Name != args[0] {
			continue
		}
		var l Load
		if err := json.Unmarshal([]byte(args[1]), &l); err != nil {
			return fmt.Errorf("load: %w", err)
		}
		return s.Serve(args[2], &l)
	}
	return fmt.Errorf("no system %q", args[0])
}

// start starts a server with a directory of its own.
func (m *Matrix) start(ctx context.Context, s *System, l *Load, dir string) (*Child, error) {
	if m.started != nil {
		return m.started()
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return Start(exec.CommandContext(ctx, self, append(slices.Clone(m.Child), s.Name, string(encoded), dir)...))
}

// Outcome is what a system's repetitions of a load came to.
type Outcome struct {
	System  *System
	Results []Result // in the order of the repetitions
	Cannot  string
}

// Measure runs all repetitions of a load: the systems take turns, and another one goes
// first each time, so that a busy moment of the machine hits all of them. files is
// removed by the caller.
func (m *Matrix) Measure(ctx context.Context, l Load, files string, progress io.Writer) ([]Outcome, error) {
	l.Time = m.Time
	outcomes := make([]Outcome, len(m.Systems))
	running := make([]*Child, len(m.Systems)) // those that all repetitions share
	defer func() {
		for _, c := range running {
			if c != nil {
				c.Stop()
			}
		}
	}()
	for i, s := range m.Systems {
		outcomes[i].System = s
		if s.Cannot != nil {
			outcomes[i].Cannot = s.Cannot(&l)
		}
	}
	for rep := range m.Reps {
		for k := range m.Systems {
			i := (rep + k) % len(m.Systems)
			if outcomes[i].Cannot != "" {
				continue
			}
			fmt.Fprintf(progress, "\r\x1b[K%s, %s (%d of %d)", l.Name(), m.Systems[i].Name, rep+1, m.Reps)
			dir := filepath.Join(files, fmt.Sprintf("%s-%d", m.Systems[i].Name, rep))
			res, err := m.once(ctx, &l, m.Systems[i], &running[i], dir, rep)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", l.Name(), m.Systems[i].Name, err)
			}
			if m.Systems[i].Name == OursName && res.Requests > 0 {
				l.Chunk = int(res.Bytes/res.Requests) + recordOverhead // the limit sends as much at once
			}
			outcomes[i].Results = append(outcomes[i].Results, res)
		}
	}
	return outcomes, nil
}

// once runs one repetition. Servers that have something to be read stay.
func (m *Matrix) once(ctx context.Context, l *Load, s *System, running **Child, dir string, rep int) (res Result, err error) {
	c := *running
	if c == nil {
		if c, err = m.start(ctx, s, l, dir); err != nil {
			return Result{}, err
		}
		if l.Kind == Consume {
			*running = c
			if s.Fill != nil {
				if err := s.Fill(ctx, c, l); err != nil {
					return Result{}, fmt.Errorf("fill: %w", err)
				}
			}
		} else {
			defer func() { err = errors.Join(err, c.Stop(), os.RemoveAll(dir)) }()
		}
	}
	profiled := m.Profile != "" && s.Name == OursName && rep == m.Reps-1
	if profiled {
		if err := c.Profile(filepath.Join(m.Profile, strings.ReplaceAll(l.Name(), "/", ","))); err != nil {
			return Result{}, err
		}
	}
	res, err = s.Run(ctx, c, l)
	if profiled {
		err = errors.Join(err, c.Profiled())
	}
	return res, err
}
