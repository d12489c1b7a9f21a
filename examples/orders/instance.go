package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/x/embedlog"
)

// instanceEnv has the directory of a process that is an instance of the shop.
const instanceEnv = "EMBEDLOG_EXAMPLE_SHOP"

const patience = 20 * time.Second

// serve is an instance: all services, on one database. It prints the address that it listens at, and ends when its input does.
func serve(ctx context.Context, dir string, in io.Reader, out io.Writer) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	db, err := embedlog.Open(dir, &embedlog.Options{LockTimeout: patience})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	s, err := newShop(ctx, db)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	service, err := s.startAll(ctx)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: service.handler(), ReadHeaderTimeout: patience, BaseContext: func(net.Listener) context.Context { return ctx }}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	fmt.Fprintln(out, l.Addr())
	_, err = io.Copy(io.Discard, in)
	cancel() // those who wait get their answer
	if e := server.Close(); err == nil {
		err = e
	}
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// instance is a process that serves, as who started it sees it.
type instance struct {
	cmd     *exec.Cmd
	in      io.Closer
	address string
}

// startInstance starts this program as an instance.
func startInstance(ctx context.Context, dir string) (*instance, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), instanceEnv+"="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the instance did not start: %w", err), cmd.Process.Kill(), cmd.Wait())
	}
	return &instance{cmd, in, strings.TrimSpace(line)}, nil
}

// kill ends it without a chance to tidy up (SIGKILL).
func (i *instance) kill() error {
	err := i.cmd.Process.Kill()
	_ = i.cmd.Wait() // says that it was killed
	return err
}

// end has it close its database.
func (i *instance) end() error {
	err := i.in.Close()
	timer := time.AfterFunc(patience, func() { _ = i.cmd.Process.Kill() })
	defer timer.Stop()
	return errors.Join(err, i.cmd.Wait())
}
