package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"syscall"

	"github.com/x/embedlog"
)

// open opens the directory and begins a session with it, in this process. While
// it runs, other commands reach the database through its socket, where there can
// be one.
func (a *app) open(ctx context.Context, dir string) (*client, error) {
	o := &embedlog.Options{Socket: true, Logger: slog.New(&warnings{a: a})}
	db, err := embedlog.Open(dir, o)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.ENAMETOOLONG) {
		o.Socket = false
		db, err = embedlog.Open(dir, o)
	}
	if err != nil {
		return nil, ofCluster(dir, err)
	}
	here, there := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = db.ServeCommands(context.WithoutCancel(ctx), there) // its end is the client's to notice
	}()
	c, err := newClient(here, func() error {
		err := here.Close()
		<-served
		return errors.Join(err, db.Close())
	})
	if err != nil {
		return nil, errors.Join(err, here.Close(), db.Close())
	}
	c.mine = true
	return c, nil
}
