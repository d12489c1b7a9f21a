package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/x/embedlog/internal/sock"
	"github.com/x/embedlog/log"
)

// patience is how long a locked directory that nobody answers for is tried again:
// its holder may be opening or closing it just now.
const patience = 2 * time.Second

// connectPause is between two tries.
const connectPause = 25 * time.Millisecond

// connect begins a session with the database: at --address, or in --data with the
// program that holds it, if one answers on its socket, otherwise by opening the
// directory. It makes no database unless create says so.
func (a *app) connect(ctx context.Context, create bool) (*client, error) {
	if len(a.address.hosts) > 0 {
		return a.dialAddress(ctx)
	}
	if isSocket(a.data) {
		return dialSocket(a.data)
	}
	dir, err := filepath.Abs(a.data)
	if err != nil {
		return nil, err
	}
	if !create {
		if err := checkDatabase(dir, a.data); err != nil {
			return nil, err
		}
	}
	for start := time.Now(); ; {
		c, err := dial(dir)
		if err == nil {
			return c, nil
		}
		if c, err = a.open(ctx, dir); err == nil {
			return c, nil
		}
		if !errors.Is(err, log.ErrLocked) {
			return nil, err
		}
		if time.Since(start) > patience {
			return nil, &exitError{exitLocked, lockedBy(a.data, err, noAnswer)}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(connectPause):
		}
	}
}

// with runs f in a session, and once more in another if the holder closed the
// directory before it did anything.
func (a *app) with(ctx context.Context, create bool, f func(*client) error) error {
	for again := 3; ; again-- {
		c, err := a.connect(ctx, create)
		if err != nil {
			return err
		}
		err = f(c)
		if closeErr := c.Close(); err == nil {
			err = closeErr
		}
		if again == 0 || !isClosing(err) {
			return err
		}
	}
}

func dial(dir string) (*client, error) {
	conn, err := sock.Dial(dir)
	if err != nil {
		return nil, err
	}
	// A program that accepts and says nothing is no answer.
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c, err := newClient(conn, conn.Close)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, conn.SetDeadline(time.Time{})
}

// checkDatabase says so when there is no database, before anything is made.
func checkDatabase(dir, shown string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		return notFoundf("%s: a file, not a directory; --data or EMBEDLOG_DATA names the database's directory", shown)
	}
	if _, err := os.Stat(filepath.Join(dir, "FORMAT")); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if errors.Is(err, fs.ErrNotExist) {
		return notFoundf("%s: no such directory; --data or EMBEDLOG_DATA names it, `embedlog topic create` makes it", shown)
	}
	return notFoundf("%s: not an embedlog directory; --data or EMBEDLOG_DATA names it, `embedlog topic create` makes one", shown)
}

const noAnswer = "it does not answer commands (a program lets them in with Options.Socket)"

// lockedBy says who has the directory, and what could be done.
func lockedBy(dir string, err error, hint string) error {
	var l *log.LockedError
	if !errors.As(err, &l) || l.PID == 0 {
		return fmt.Errorf("%s: held by another program; %s", dir, hint)
	}
	return fmt.Errorf("%s: held by process %d on %s since %s; %s",
		dir, l.PID, l.Host, l.Since.Local().Format(time.DateTime), hint)
}

// hangup closes several things in turn.
func hangup(cs ...io.Closer) error {
	var errs []error
	for _, c := range cs {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
