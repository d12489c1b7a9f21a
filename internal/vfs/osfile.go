package vfs

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"sync"
)

// osFile is a file of the operating system. os.File retries EINTR and loops over
// short reads and writes.
type osFile struct {
	f    *os.File
	name string

	// appending orders appends on systems without an append at the end in one
	// call. Appends through two Files of one file are then not ordered.
	appending sync.Mutex
}

func (f *osFile) ReadAt(p []byte, off int64) (int, error) { return f.f.ReadAt(p, off) }

func (f *osFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.f.WriteAt(p, off)
	if err != nil && isNoSpace(err) {
		// os.File forgets the bytes that arrived before the disk was full. To write
		// the same bytes to the same place again is harmless, so count this time.
		n, err = writeAt(f.f, p, off)
	}
	return n, osError(err)
}

// WritevAt counts by itself what arrives before the disk is full, where the system
// has the call.
func (f *osFile) WritevAt(pieces [][]byte, off int64) (int, error) {
	if len(pieces) == 1 {
		return f.WriteAt(pieces[0], off)
	}
	n, err := f.writev(pieces, off)
	return n, osError(err)
}

func (f *osFile) Append(p []byte) (int, error) {
	f.appending.Lock()
	defer f.appending.Unlock()
	n, err := appendTo(f.f, p)
	if !errors.Is(err, errors.ErrUnsupported) {
		return n, osError(err)
	}
	fi, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return f.WriteAt(p, fi.Size())
}

func (f *osFile) Name() string { return f.name }

func (f *osFile) Info() (Info, error) {
	fi, err := f.f.Stat()
	if err != nil {
		return Info{}, err
	}
	info := infoOf(fi)
	info.Name = path.Base(f.name)
	return info, nil
}

func (f *osFile) Sync() error { return osError(f.f.Sync()) } // os.File uses F_FULLFSYNC on macOS

func (f *osFile) Datasync() error { return osError(datasync(f.f)) }

func (f *osFile) Truncate(size int64) error { return osError(f.f.Truncate(size)) }

func (f *osFile) Allocate(off, n int64) error {
	if err := checkRange("allocate", f.name, off, n); err != nil {
		return err
	}
	if n == 0 {
		return nil
	}
	return osError(allocate(f.f, off, n))
}

// zeros is what Zero writes from. 256 KiB is where larger pieces stop being faster.
var zeros [256 << 10]byte

func (f *osFile) Zero(off, n int64) error {
	if err := checkRange("zero", f.name, off, n); err != nil {
		return err
	}
	for n > 0 {
		piece := min(n, int64(len(zeros)))
		w, err := f.WriteAt(zeros[:piece], off)
		if err != nil {
			return err
		}
		off, n = off+int64(w), n-int64(w)
	}
	return nil
}

func (f *osFile) Map(off int64, n int) (Mapping, error) {
	if err := checkRange("map", f.name, off, int64(n)); err != nil {
		return nil, err
	}
	if off%MapAlign != 0 || n == 0 {
		return nil, &fs.PathError{Op: "map", Path: f.name, Err: fs.ErrInvalid}
	}
	return mapFile(f.f, f.name, off, n)
}

func (f *osFile) Close() error { return f.f.Close() }

// control runs a system call on the descriptor of f, held open meanwhile.
func control(f *os.File, op string, call func(fd uintptr) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	if err := c.Control(func(fd uintptr) { callErr = call(fd) }); err != nil {
		// The only reason not to call is a closed file; the runtime's own error for
		// that does not match fs.ErrClosed.
		return &fs.PathError{Op: op, Path: f.Name(), Err: fs.ErrClosed}
	}
	if callErr != nil {
		return &fs.PathError{Op: op, Path: f.Name(), Err: callErr}
	}
	return nil
}
