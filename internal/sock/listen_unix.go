//go:build linux || darwin

package sock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Name is the socket's name in the directory.
const Name = "sock"

// backlog is how many connections may wait to be accepted.
const backlog = 64

// Listener accepts connections on a unix socket. It does without package net,
// which would be a third of what a small program with a log weighs: the
// descriptors do not block and the runtime's poller waits for them, as for any
// file.
type Listener struct {
	f    *os.File
	path string

	once   sync.Once
	closed atomic.Bool
	err    error
}

// Listen makes dir/sock, which only this user may connect to. A socket that is
// there already is somebody's who was killed: the caller holds the directory's
// lock. What is there and is no socket stays, and is an error.
func Listen(dir string) (*Listener, error) {
	path := filepath.Join(dir, Name)
	if old, err := os.Lstat(path); err == nil {
		if old.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("listen on %s: something else has that name", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
	}
	fd, err := socket()
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path) // not blocking, so the poller takes it
	l := &Listener{f: f, path: path}
	if err := l.bind(dir, fd); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), f.Close(), removeName(path))
	}
	return l, nil
}

// bind gives the socket its name and its mode before it listens: until then
// nobody can connect, whatever the umask says.
func (l *Listener) bind(dir string, fd int) error {
	name, done, err := shortPath(dir)
	if err != nil {
		return err
	}
	defer done()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		return err
	}
	if err := os.Chmod(l.path, 0o600); err != nil {
		return err
	}
	return unix.Listen(fd, backlog)
}

// Accept waits for a connection. After Close it fails with os.ErrClosed.
func (l *Listener) Accept() (*os.File, error) {
	c, err := l.f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var callErr error
	err = c.Read(func(listening uintptr) (done bool) {
		for {
			fd, callErr = accept(int(listening))
			switch callErr {
			case unix.EAGAIN:
				return false // wait until the poller sees a connection
			case unix.EINTR, unix.ECONNABORTED:
				continue
			}
			return true
		}
	})
	if err = errors.Join(err, callErr); err != nil {
		if l.closed.Load() {
			return nil, os.ErrClosed // the poller has an error of its own for this
		}
		return nil, err
	}
	return os.NewFile(uintptr(fd), l.path), nil
}

// Close removes the socket and ends Accept. Connections go on. The caller still
// holds the directory's lock, so the socket is its own.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.closed.Store(true)
		l.err = errors.Join(removeName(l.path), l.f.Close())
	})
	return l.err
}

func removeName(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Dial connects to the program that holds dir. It fails with
// syscall.ECONNREFUSED when that was killed, with fs.ErrNotExist when it does not
// listen.
func Dial(dir string) (*os.File, error) {
	path := filepath.Join(dir, Name)
	fd, err := socket()
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	name, done, err := shortPath(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to %s: %w", path, err), unix.Close(fd))
	}
	defer done()
	for patience := 400; ; patience-- {
		// On a unix socket that does not block, connect is done at once or fails: with
		// EAGAIN when too many wait already, and the program accepts as fast as it can.
		err := unix.Connect(fd, &unix.SockaddrUnix{Name: name})
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case (err == unix.EINTR || err == unix.EAGAIN) && patience > 0:
			time.Sleep(5 * time.Millisecond)
		default:
			return nil, errors.Join(fmt.Errorf("connect to %s: %w", path, err), unix.Close(fd))
		}
	}
}

// shortPath is dir's socket for bind and connect, which take about a hundred
// bytes. On Linux a longer path goes through an open directory.
func shortPath(dir string) (name string, done func(), err error) {
	name = filepath.Join(dir, Name)
	done = func() {}
	if len(name) < len(unix.RawSockaddrUnix{}.Path) {
		return name, done, nil
	}
	if runtime.GOOS != "linux" {
		return "", done, fmt.Errorf("the path is longer than %d bytes: %w", len(unix.RawSockaddrUnix{}.Path)-1, unix.ENAMETOOLONG)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", done, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, Name), func() { _ = unix.Close(fd) }, nil
}

// forkless runs a call that makes a descriptor while no child can be forked that
// would inherit it.
func forkless(open func() (int, error)) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := open()
	if err != nil {
		return -1, err
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func socket() (int, error) {
	return forkless(func() (int, error) { return unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0) })
}

func accept(listening int) (int, error) {
	return forkless(func() (int, error) {
		fd, _, err := unix.Accept(listening)
		return fd, err
	})
}
