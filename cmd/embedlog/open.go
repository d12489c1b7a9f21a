package main

import (
	"context"
	"errors"
	"net"
	"syscall"

	"github.com/x/embedlog"
)

// open opens the directory and begins a session with it, in this process. While
// it runs, other commands reach the database through its socket, where there can
// be one.
func (a *app) open(ctx context.Context, dir string) (*client, error) {
	db, err := embedlog.Open(dir, &embedlog.Options{Socket: true})
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.ENAMETOOLONG) {
		db, err = embedlog.Open(dir, nil)
	}
	if err != nil {
		return nil, err
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
