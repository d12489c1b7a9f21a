package faultproc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// childTime bounds a child's life: one that hangs is a failure.
const childTime = 60 * time.Second

// child makes the command of a child, under strace with these arguments unless
// there are none.
func child(ctx context.Context, s *Spec, strace ...string) (*exec.Cmd, error) {
	spec, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{self}
	if len(strace) > 0 {
		args = append(append([]string{"strace", "-f", "-qq"}, strace...), self)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.WaitDelay = 5 * time.Second // a child of a killed strace may keep the pipe
	cmd.Env = append(os.Environ(), specVariable+"="+string(spec))
	return cmd, nil
}

// life runs a child to its end, feeds the journal, and says whether it was killed.
// A positive kill ends it after that time.
func (j *Journal) life(s *Spec, kill time.Duration, strace ...string) (killed bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), childTime)
	defer cancel()
	s.Committed, s.Epoch, s.Sequence, s.Retry = j.Committed, j.Epoch, j.Sequence, j.Retry
	cmd, err := child(ctx, s, strace...)
	if err != nil {
		return false, err
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		return false, err
	}
	if kill > 0 {
		timer := time.AfterFunc(kill, func() { cmd.Process.Kill() })
		defer timer.Stop()
	}
	ended := j.Ended
	err = cmd.Wait()
	if ctx.Err() != nil {
		return false, fmt.Errorf("child hangs: %s", errs.Bytes())
	}
	if errs.Len() > 0 {
		return false, fmt.Errorf("child says: %s", errs.Bytes())
	}
	if err := j.Read(&out); err != nil {
		return false, err
	}
	if j.Ended > ended {
		return false, nil
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && !exit.Exited() {
		return true, nil
	}
	return false, fmt.Errorf("child ended with %v, neither killed nor done", err)
}

// running is a child that is talked to.
type running struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	out    *bytes.Buffer
	held   chan struct{}
	cancel context.CancelFunc
	done   chan error
}

// start starts a child and returns when it says "held".
func start(s *Spec, strace ...string) (*running, error) {
	ctx, cancel := context.WithTimeout(context.Background(), childTime)
	cmd, err := child(ctx, s, strace...)
	if err != nil {
		cancel()
		return nil, err
	}
	r := &running{cmd: cmd, out: &bytes.Buffer{}, held: make(chan struct{}), cancel: cancel, done: make(chan error, 1)}
	cmd.Stdout = &watcher{r: r}
	cmd.Stderr = os.Stderr
	if r.stdin, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	go func() { r.done <- cmd.Wait() }()
	select {
	case <-r.held:
		return r, nil
	case err := <-r.done:
		cancel()
		return nil, fmt.Errorf("child ended early: %v: %s", err, r.out)
	}
}

// kill is kill -9. It returns what the child had written.
func (r *running) kill() *bytes.Buffer {
	defer r.cancel()
	r.cmd.Process.Kill()
	<-r.done
	return r.out
}

// watcher keeps a child's output and looks for the line "held", which it leaves out.
type watcher struct {
	r    *running
	line []byte
}

func (w *watcher) Write(p []byte) (int, error) {
	for _, b := range p {
		w.line = append(w.line, b)
		if b != '\n' {
			continue
		}
		if string(w.line) == "held\n" {
			close(w.r.held)
		} else {
			w.r.out.Write(w.line)
		}
		w.line = w.line[:0]
	}
	return len(p), nil
}
