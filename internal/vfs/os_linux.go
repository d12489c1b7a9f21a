package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

func datasync(f *os.File) error {
	return control(f, "fdatasync", func(fd uintptr) error {
		return retryEINTR(func() error { return unix.Fdatasync(int(fd)) })
	})
}

func allocate(f *os.File, off, n int64) error {
	return control(f, "fallocate", func(fd uintptr) error {
		err := retryEINTR(func() error { return unix.Fallocate(int(fd), 0, off, n) })
		if err == unix.EOPNOTSUPP || err == unix.ENOSYS {
			return errors.ErrUnsupported
		}
		return err
	})
}

// appendTo writes p at the end in one call, whoever else appends. RWF_APPEND is
// in Linux 4.16; without it the answer is ErrUnsupported and nothing was written.
func appendTo(f *os.File, p []byte) (n int, err error) {
	err = control(f, "append", func(fd uintptr) error {
		for n < len(p) {
			w, err := unix.Pwritev2(int(fd), [][]byte{p[n:]}, 0, unix.RWF_APPEND)
			if (err == unix.ENOSYS || err == unix.EOPNOTSUPP) && n == 0 {
				return errors.ErrUnsupported
			}
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

// maxPieces is how many pieces one call takes (UIO_MAXIOV).
const maxPieces = 1024

// writev calls pwritev until all is written. A call that stops inside a piece is rare:
// the disk is full, or there are more than 2 GiB.
func (f *osFile) writev(pieces [][]byte, off int64) (n int, err error) {
	err = control(f.f, "pwritev", func(fd uintptr) error {
		for {
			for len(pieces) > 0 && len(pieces[0]) == 0 {
				pieces = pieces[1:]
			}
			if len(pieces) == 0 {
				return nil
			}
			w, err := unix.Pwritev(int(fd), pieces[:min(len(pieces), maxPieces)], off+int64(n))
			if err != nil && err != unix.EINTR {
				return err
			}
			if w == 0 && err == nil {
				return io.ErrShortWrite // no system does this; do not spin if one does
			}
			w = max(w, 0)
			n += w
			for w > 0 && w >= len(pieces[0]) {
				w, pieces = w-len(pieces[0]), pieces[1:]
			}
			if w > 0 {
				pieces = slices.Clone(pieces) // they are the caller's
				pieces[0] = pieces[0][w:]
			}
		}
	})
	return n, err
}

// mapFile maps only on file systems where shared writable mappings were tested.
func mapFile(f *os.File, name string, off int64, n int) (Mapping, error) {
	m := &osMapping{name: name}
	err := control(f, "mmap", func(fd uintptr) error {
		var st unix.Statfs_t
		if err := retryEINTR(func() error { return unix.Fstatfs(int(fd), &st) }); err != nil {
			return err
		}
		switch uint32(st.Type) {
		case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		default:
			return errors.ErrUnsupported
		}
		var err error
		m.buf, err = unix.Mmap(int(fd), off, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		return err
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

type osMapping struct {
	name  string
	buf   []byte // nil after Close
	close sync.Mutex
}

func (m *osMapping) Bytes() []byte { return m.buf }

// Store costs a few nanoseconds over copy: the flag is a word of the goroutine,
// and the deferred call is open-coded.
func (m *osMapping) Store(off int, p []byte) (err error) {
	if off < 0 || off > len(m.buf)-len(p) {
		return m.outside("store")
	}
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			err = faultOf(m.name, r)
		}
	}()
	copy(m.buf[off:], p)
	return nil
}

// Load costs as much as Store.
func (m *osMapping) Load(off int, p []byte) (err error) {
	if off < 0 || off > len(m.buf)-len(p) {
		return m.outside("load")
	}
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			err = faultOf(m.name, r)
		}
	}()
	copy(p, m.buf[off:])
	return nil
}

func (m *osMapping) outside(op string) error {
	if m.buf == nil {
		return &fs.PathError{Op: op, Path: m.name, Err: fs.ErrClosed}
	}
	return &fs.PathError{Op: op, Path: m.name, Err: fs.ErrInvalid}
}

func (m *osMapping) Close() error {
	m.close.Lock()
	defer m.close.Unlock()
	if m.buf == nil {
		return &fs.PathError{Op: "unmap", Path: m.name, Err: fs.ErrClosed}
	}
	buf := m.buf
	m.buf = nil
	return unix.Munmap(buf)
}
