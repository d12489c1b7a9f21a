package raftload

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/x/embedlog"
)

// What every node answers, whichever system it is of.
const (
	opReady    = "ready"    // it is up: answered once, without being asked
	opCPU      = "cpu"      // time.Duration
	opProfile  = "profile"  // string, a path: profile the processor from now on
	opProfiled = "profiled" // end that, and write what was allocated beside it
	opRuntime  = "runtime"  // Runtime
)

const startTimeout = 30 * time.Second

// Server is one node of a system in its own process.
type Server interface {
	// Do answers one operation with something that JSON can carry. It may be called by
	// several goroutines.
	Do(ctx context.Context, op string, in json.RawMessage) (any, error)
	Close() error
}

// NodeConfig is what a node's process is told.
type NodeConfig struct {
	Node  int32
	Nodes int // how many begin the cluster together
	Dir   string
	// Addresses are where nodes listen for each other, by number; those of other kinds (a
	// second port) have the number and a name.
	Addresses map[string]string
	Join      string // the address of a node that this one joins; empty begins with the others
	Fast      bool   // the fast timing
	Insecure  bool   // without TLS
	CA        []byte `json:",omitempty"`
	Cert, Key []byte `json:",omitempty"`
	Settings  json.RawMessage
}

// question and reply are a line each.
type question struct {
	ID int64
	Op string
	In json.RawMessage `json:",omitempty"`
}

type reply struct {
	ID    int64
	Out   json.RawMessage `json:",omitempty"`
	Error string          `json:",omitempty"`
	Retry bool            `json:",omitempty"`
}

// RemoteError is what a node answered.
type RemoteError struct {
	Node      int32
	Op        string
	Text      string
	Retriable bool // nothing was done: it may be asked again
}

func (e *RemoteError) Error() string { return fmt.Sprintf("node %d, %s: %s", e.Node, e.Op, e.Text) }

// errGone says that the process has ended. What was asked may have been done.
var errGone = errors.New("the process has ended")

// process is a node as who started it sees it.
type process struct {
	node   int32
	cmd    *exec.Cmd
	in     io.WriteCloser
	stderr bytes.Buffer
	done   chan struct{} // closed when its output has ended

	mu      sync.Mutex
	next    int64
	waiting map[int64]chan reply // closed when the process has ended
	gone    bool
}

func startProcess(cmd *exec.Cmd, node int32) (*process, error) {
	p := &process{node: node, cmd: cmd, done: make(chan struct{}), waiting: map[int64]chan reply{}}
	cmd.Stderr = &p.stderr
	var err error
	if p.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	ready := make(chan reply, 1)
	p.waiting[0] = ready
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go p.listen(out)
	slow := time.AfterFunc(startTimeout, func() { cmd.Process.Kill() })
	defer slow.Stop()
	r, ok := <-ready
	if !ok || r.Error != "" {
		p.end()
		return nil, fmt.Errorf("node %d did not start: %s%s", node, r.Error, bytes.TrimSpace(p.stderr.Bytes()))
	}
	return p, nil
}

func (p *process) listen(out io.Reader) {
	defer close(p.done)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var r reply
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			fmt.Fprintf(os.Stderr, "node %d said %q\n", p.node, lines.Bytes())
			continue
		}
		p.mu.Lock()
		c := p.waiting[r.ID]
		delete(p.waiting, r.ID)
		p.mu.Unlock()
		if c != nil {
			c <- r
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	for _, c := range p.waiting {
		close(c)
	}
}

// ask sends one operation and waits for its answer.
func (p *process) ask(ctx context.Context, op string, in, out any) error {
	encoded, err := json.Marshal(in)
	if err != nil {
		return err
	}
	c := make(chan reply, 1)
	p.mu.Lock()
	if p.gone {
		p.mu.Unlock()
		return fmt.Errorf("node %d, %s: %w", p.node, op, errGone)
	}
	p.next++
	id := p.next
	p.waiting[id] = c
	line, err := json.Marshal(question{ID: id, Op: op, In: encoded})
	if err == nil {
		_, err = p.in.Write(append(line, '\n'))
	}
	p.mu.Unlock()
	if err != nil {
		return fmt.Errorf("node %d, %s: %w", p.node, op, errors.Join(errGone, err))
	}
	select {
	case r, ok := <-c:
		switch {
		case !ok:
			return fmt.Errorf("node %d, %s: %w: %s", p.node, op, errGone, bytes.TrimSpace(p.stderr.Bytes()))
		case r.Error != "":
			return &RemoteError{Node: p.node, Op: op, Text: r.Error, Retriable: r.Retry}
		case out == nil:
			return nil
		}
		return json.Unmarshal(r.Out, out)
	case <-ctx.Done():
		p.mu.Lock()
		delete(p.waiting, id)
		p.mu.Unlock()
		return fmt.Errorf("node %d, %s: %w", p.node, op, ctx.Err())
	}
}

// kill ends the process without warning, and waits until it is gone.
func (p *process) kill() error {
	err := p.cmd.Process.Kill()
	<-p.done
	p.cmd.Wait() // it says that it was killed
	return err
}

// end has the process close what it has, and waits for it.
func (p *process) end() error {
	p.in.Close()
	slow := time.AfterFunc(startTimeout, func() { p.cmd.Process.Kill() })
	defer slow.Stop()
	<-p.done
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("end of node %d: %w: %s", p.node, err, bytes.TrimSpace(p.stderr.Bytes()))
	}
	return nil
}

// Runtime is what a node's process has.
type Runtime struct {
	Goroutines int
	HeapBytes  uint64
	CPU        time.Duration // in user and system mode, since it was started
}

// Serve is the child's part: it answers on stdout what it is asked on stdin, several at
// a time, and closes the server when its input ends.
func Serve(open func(*NodeConfig) (Server, error), config string) (err error) {
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	say := func(r reply) {
		mu.Lock()
		defer mu.Unlock()
		out.Encode(r) // when nobody listens any more, nobody asks either
	}
	var c NodeConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	s, err := open(&c)
	if err != nil {
		say(reply{Error: err.Error()})
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var asked sync.WaitGroup
	defer func() {
		cancel()
		asked.Wait()
		err = errors.Join(err, s.Close())
	}()
	say(reply{})
	var profile profiler
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var q question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return err
		}
		asked.Go(func() {
			r := reply{ID: q.ID}
			got, err := common(ctx, s, &profile, q)
			if err == nil {
				r.Out, err = json.Marshal(got)
			}
			if err != nil {
				r.Error, r.Retry = err.Error(), embedlog.IsRetriable(err)
			}
			say(r)
		})
	}
	return lines.Err()
}

func common(ctx context.Context, s Server, p *profiler, q question) (any, error) {
	switch q.Op {
	case opCPU:
		return processCPU()
	case opRuntime:
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		cpu, err := processCPU()
		return Runtime{Goroutines: runtime.NumGoroutine(), HeapBytes: m.HeapAlloc, CPU: cpu}, err
	case opProfile:
		var path string
		if err := json.Unmarshal(q.In, &path); err != nil {
			return nil, err
		}
		return nil, p.begin(path)
	case opProfiled:
		return nil, p.end()
	}
	return s.Do(ctx, q.Op, q.In)
}

// profiler writes one profile at a time.
type profiler struct {
	mu   sync.Mutex
	file *os.File
}

func (p *profiler) begin(path string) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file != nil {
		return errors.New("a profile is being made")
	}
	if p.file, err = os.Create(path); err != nil {
		return err
	}
	return pprof.StartCPUProfile(p.file)
}

func (p *profiler) end() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file == nil {
		return errors.New("nothing is profiled")
	}
	pprof.StopCPUProfile()
	allocs, err := os.Create(p.file.Name() + ".allocs")
	if err == nil {
		runtime.GC()
		err = errors.Join(pprof.Lookup("allocs").WriteTo(allocs, 0), allocs.Close())
	}
	err = errors.Join(err, p.file.Close())
	p.file = nil
	return err
}
