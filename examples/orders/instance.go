package main

import (
	"bufio"
	"context"
	"encoding/json"
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
	"github.com/x/embedlog/raftrepl"
)

// instanceEnv has the configuration of a process that is an instance of the shop.
const instanceEnv = "EMBEDLOG_EXAMPLE_SHOP"

type instanceConfig struct {
	Dir   string
	Node  int32            // which of the instances it is
	Peers map[int32]string // where they listen for each other; of an instance that is the only one there are none
}

const patience = time.Minute

// open opens the instance's copy of the database.
func (c *instanceConfig) open() (*embedlog.DB, error) {
	o := &embedlog.Options{LockTimeout: patience}
	if len(c.Peers) > 0 {
		node, err := raftrepl.New(raftrepl.Config{Node: c.Node, Cluster: "shop", Listen: c.Peers[c.Node], Peers: c.Peers})
		if err != nil {
			return nil, err
		}
		o.Replication = node
	}
	return embedlog.Open(c.Dir, o)
}

// serve is an instance: all services, on one database. It prints the address that it listens at, and ends when its input does.
func serve(ctx context.Context, config string, in io.Reader, out io.Writer) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var c instanceConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	db, err := c.open()
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
	closed := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, in)
		closed <- err
	}()
	select {
	case err = <-closed:
	case err = <-s.failed:
	case <-ctx.Done():
	}
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

// startInstance starts this program as an instance, and waits until it serves: the others must be there, or come, if it is not the only one.
func startInstance(ctx context.Context, c instanceConfig) (*instance, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), instanceEnv+"="+string(config))
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
		_ = cmd.Process.Kill()
		return nil, fmt.Errorf("instance %d did not start: %w", c.Node, errors.Join(err, cmd.Wait()))
	}
	return &instance{cmd, in, strings.TrimSpace(line)}, nil
}

// kill ends it without a chance to tidy up (SIGKILL).
func (i *instance) kill() error {
	err := i.cmd.Process.Kill()
	_ = i.cmd.Wait() // says that it was killed
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	return err
}

// end has it close its database.
func (i *instance) end() error {
	err := i.in.Close()
	timer := time.AfterFunc(patience, func() { _ = i.cmd.Process.Kill() })
	defer timer.Stop()
	return errors.Join(err, i.cmd.Wait())
}

// freeAddresses are so many on this machine where nobody listened a moment ago.
func freeAddresses(n int) (list []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		list = append(list, l.Addr().String())
	}
	return list, nil
}
