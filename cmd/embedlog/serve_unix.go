package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/x/embedlog"
)

// maxUnixSessions bounds the commands that use --unix at once.
const maxUnixSessions = 32

// unixServer takes commands on a socket with a name of its own, so that who may
// send commands need not see the database's directory.
type unixServer struct {
	db       *embedlog.DB
	logger   *slog.Logger
	path     string
	listener net.Listener
	running  sync.WaitGroup
	places   chan struct{}
	ctx      context.Context
	cancel   context.CancelFunc
}

// serveUnix makes the socket, which only its own user may connect to.
func serveUnix(path string, db *embedlog.DB, logger *slog.Logger) (*unixServer, error) {
	l, err := listenUnix(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	s := &unixServer{db: db, logger: logger, path: path, listener: l, places: make(chan struct{}, maxUnixSessions)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.running.Go(s.accept)
	return s, nil
}

// listenUnix makes a socket elsewhere and then gives it its name: there is no moment
// at which others may connect.
func listenUnix(path string) (net.Listener, error) {
	if old, err := os.Lstat(path); err == nil {
		if old.Mode().Type() != fs.ModeSocket {
			return nil, errors.New("something else has that name")
		}
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			return nil, errors.New("somebody else listens there")
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".embedlog-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	hidden := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // by then it has another name
	if err := errors.Join(os.Chmod(hidden, 0o600), os.Rename(hidden, path)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (s *unixServer) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			if s.ctx.Err() == nil {
				s.logger.Error("no more commands are taken", "socket", s.path, "error", err)
			}
			return
		}
		select {
		case s.places <- struct{}{}:
		default:
			c.Close() // whoever it is tries again
			continue
		}
		s.running.Go(func() {
			defer func() { <-s.places }()
			if err := s.db.ServeCommands(s.ctx, c); err != nil && s.ctx.Err() == nil {
				s.logger.Warn("a session of commands", "socket", s.path, "error", err)
			}
		})
	}
}

// stop takes no more commands. Those that run end when the database closes, and
// wait is called after that.
func (s *unixServer) stop() error {
	s.cancel()
	err := s.listener.Close()
	if e := os.Remove(s.path); e != nil && !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

func (s *unixServer) wait() { s.running.Wait() }
