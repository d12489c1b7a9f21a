package soak

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/kafka"
)

// specVariable in the environment makes a binary that calls Main the server.
const specVariable = "EMBEDLOG_SOAK_SERVER"

// spec is what a server is told.
type spec struct {
	Binary    string `json:"-"` // embedlog, or empty for this binary
	Dir       string
	Advertise string
}

// Main is what a binary calls first. In a server it serves, and exits when its input
// ends: a parent that was killed leaves nothing behind.
func Main() {
	text := os.Getenv(specVariable)
	if text == "" {
		return
	}
	var s spec
	err := json.Unmarshal([]byte(text), &s)
	if err == nil {
		err = s.serve()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "soak: server: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (s *spec) serve() error {
	db, err := embedlog.Open(s.Dir, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	server, err := kafka.Serve(db, &kafka.Options{Listeners: []kafka.Listener{{Address: "127.0.0.1:0", Advertise: s.Advertise}}})
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(ready{Ready: true, Kafka: []string{server.Addrs()[0].String()}}); err != nil {
		return err
	}
	io.Copy(io.Discard, os.Stdin)
	return errors.Join(server.Close(), db.Close())
}

// ready is what a server prints when it is: of what `embedlog serve` prints, the part
// that matters here.
type ready struct {
	Ready bool     `json:"ready"`
	Kafka []string `json:"kafka"`
}

// command starts a server: this binary, or `embedlog serve`.
func (s *spec) command() (*exec.Cmd, error) {
	if s.Binary != "" {
		return exec.Command(s.Binary, "serve", "--quiet", "--data", s.Dir, "--kafka", "127.0.0.1:0", "--advertise", s.Advertise), nil
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), specVariable+"="+string(text))
	return cmd, nil
}

// server is a running server.
type server struct {
	self  bool // this binary, not embedlog
	cmd   *exec.Cmd
	stdin io.WriteCloser
	addr  string
	done  chan error
	errs  *strings.Builder // after done
}

// startTime bounds how long a server may take until it is ready.
const startTime = 60 * time.Second

// start starts a server and returns when it is ready.
func (s *spec) start() (*server, error) {
	cmd, err := s.command()
	if err != nil {
		return nil, err
	}
	v := &server{self: s.Binary == "", cmd: cmd, done: make(chan error, 1), errs: &strings.Builder{}}
	v.cmd.Stderr = v.errs
	if v.stdin, err = v.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := v.cmd.Start(); err != nil {
		return nil, err
	}
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(out).ReadString('\n')
		line <- text
		io.Copy(io.Discard, out)
		v.done <- v.cmd.Wait()
	}()
	timer := time.NewTimer(startTime)
	defer timer.Stop()
	select {
	case text := <-line:
		var at ready
		if err := json.Unmarshal([]byte(text), &at); err == nil && at.Ready && len(at.Kafka) == 1 {
			v.addr = at.Kafka[0]
			return v, nil
		}
		v.cmd.Process.Kill()
		err := <-v.done
		return nil, fmt.Errorf("soak: the server did not start: %v: %s%s", err, text, v.errs)
	case <-timer.C:
		v.cmd.Process.Kill()
		<-v.done
		return nil, fmt.Errorf("soak: the server was not ready after %v: %s", startTime, v.errs)
	}
}

// kill is kill -9. The error says that the server was dead before, by itself.
func (v *server) kill() error {
	select {
	case err := <-v.done:
		return fmt.Errorf("soak: the server died by itself: %v: %s", err, v.errs)
	default:
	}
	v.cmd.Process.Kill()
	<-v.done
	return nil
}

// stop lets the server close everything: embedlog at a signal, this binary when its
// input ends.
func (v *server) stop() error {
	if !v.self {
		v.cmd.Process.Signal(syscall.SIGTERM)
	}
	v.stdin.Close()
	timer := time.AfterFunc(startTime, func() { v.cmd.Process.Kill() })
	defer timer.Stop()
	if err := <-v.done; err != nil {
		return fmt.Errorf("soak: the server did not stop well: %v: %s", err, v.errs)
	}
	return nil
}
