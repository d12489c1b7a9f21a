//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// process is a child of ours in a namespace.
type process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	gone chan struct{} // closed when it has ended
	err  error         // after gone: how

	mu     sync.Mutex
	last   report // the newest status
	heard  time.Time
	done   map[string]bool
	errors []string
	ready  bool
}

// inNamespace is the command that runs this binary in a network namespace. nsenter executes
// it in its own place, so its process is the child's.
func inNamespace(ns, variable string, spec any, stderr io.Writer) (*exec.Cmd, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("nsenter", "--net=/run/netns/"+ns, "--", self)
	cmd.Env = append(os.Environ(), variable+"="+string(text))
	cmd.Stderr = stderr
	// A Ctrl-C at the terminal is ours to deal with; whoever outlives us is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, nil
}

// start starts the command and reads what it says.
func start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, gone: make(chan struct{}), done: map[string]bool{}}
	var err error
	if p.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var r report
			if json.Unmarshal(lines.Bytes(), &r) != nil {
				continue
			}
			p.mu.Lock()
			switch {
			case r.Ready:
				p.ready = true
			case r.Done != "":
				p.done[r.Done] = true
			case r.Error != "":
				p.errors = append(p.errors, r.Error)
			case r.Status:
				p.last, p.heard = r, time.Now()
			}
			p.mu.Unlock()
		}
		_, _ = io.Copy(io.Discard, out)
		p.err = cmd.Wait()
		close(p.gone)
	}()
	return p, nil
}

// tell says a word.
func (p *process) tell(word string) error {
	_, err := fmt.Fprintln(p.in, word)
	return err
}

func (p *process) signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

// kill is kill -9. It says when the process had ended before, by itself.
func (p *process) kill() error {
	select {
	case <-p.gone:
		return fmt.Errorf("ended by itself: %v", p.err)
	default:
	}
	p.signal(syscall.SIGKILL)
	<-p.gone
	return nil
}

// stop has it end in order.
func (p *process) stop(patience time.Duration) error {
	_ = p.in.Close()
	select {
	case <-p.gone:
		return p.err
	case <-time.After(patience):
		p.signal(syscall.SIGQUIT) // it says where its goroutines are
		select {
		case <-p.gone:
		case <-time.After(5 * time.Second):
			p.signal(syscall.SIGKILL)
			<-p.gone
		}
		return errors.New("did not end in order within " + patience.String())
	}
}

func (p *process) isReady() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ready
}

func (p *process) hasDone(word string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done[word]
}

func (p *process) status() (report, time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last, p.heard
}

// faults are what it has complained of since it was asked.
func (p *process) faults() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.errors
	p.errors = nil
	return list
}

// startSilent starts a command that says nothing before its end.
func startSilent(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, gone: make(chan struct{}), done: map[string]bool{}}
	var err error
	if p.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.gone)
	}()
	return p, nil
}
