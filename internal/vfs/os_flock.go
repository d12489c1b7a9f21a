//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func isNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// allocated is the disk that a file takes; st_blocks counts 512 bytes everywhere.
func allocated(fi fs.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int64(st.Blocks) * 512
	}
	return fi.Size()
}

// tryLock takes flock(2), which belongs to the open file: a second Lock fails in
// this process too, where a POSIX record lock would be granted again.
func tryLock(f *os.File) (held bool, err error) {
	c, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	var lockErr error
	if err := c.Control(func(fd uintptr) {
		lockErr = retryEINTR(func() error { return unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) })
	}); err != nil {
		return false, err
	}
	if errors.Is(lockErr, unix.EWOULDBLOCK) {
		return false, nil
	}
	return lockErr == nil, lockErr
}

// unlock gives the lock up. A child process that inherited the descriptor would
// otherwise keep it past the close.
func unlock(f *os.File) error {
	return control(f, "unlock", func(fd uintptr) error { return unix.Flock(int(fd), unix.LOCK_UN) })
}

// syncDir makes the names in a directory durable.
func syncDir(d *os.File) error {
	err := d.Sync()
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOTTY) {
		// macOS refuses F_FULLFSYNC on directories of some file systems.
		return control(d, "fsync", func(fd uintptr) error {
			return retryEINTR(func() error { return unix.Fsync(int(fd)) })
		})
	}
	return err
}

// writeAt writes p and knows how much of it arrived when it fails.
func writeAt(f *os.File, p []byte, off int64) (n int, err error) {
	err = control(f, "write", func(fd uintptr) error {
		for n < len(p) {
			w, err := unix.Pwrite(int(fd), p[n:], off+int64(n))
			if err != nil && err != unix.EINTR {
				return err
			}
			if w == 0 && err == nil {
				return io.ErrShortWrite // no system does this; do not spin if one does
			}
			n += max(w, 0)
		}
		return nil
	})
	return n, err
}

func retryEINTR(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
