package disk

import (
	"errors"
	"io"
	iofs "io/fs"
	"os"
	"path"
	"time"

	pebblefs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/x/embedlog/internal/vfs"
)

// logFS is the file system of a database as pebble sees it: so that one power cut, or one fault, meets the log and the stores together.
type logFS struct{ fs vfs.FS }

func (l logFS) Create(name string, _ pebblefs.DiskWriteCategory) (pebblefs.File, error) {
	if err := l.fs.Remove(name); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return nil, err
	}
	return l.file(l.fs.Create(name))
}

func (l logFS) file(f vfs.File, err error) (pebblefs.File, error) {
	if err != nil {
		return nil, err
	}
	return &logFile{fs: l.fs, f: f}, nil
}

func (l logFS) Open(name string, _ ...pebblefs.OpenOption) (pebblefs.File, error) {
	return l.file(l.fs.Open(name))
}

func (l logFS) OpenReadWrite(name string, c pebblefs.DiskWriteCategory, _ ...pebblefs.OpenOption) (pebblefs.File, error) {
	f, err := l.fs.Open(name)
	if errors.Is(err, iofs.ErrNotExist) {
		return l.Create(name, c)
	}
	return l.file(f, err)
}

func (l logFS) OpenDir(name string) (pebblefs.File, error) {
	if _, err := l.fs.Stat(name); err != nil {
		return nil, err
	}
	return &logFile{fs: l.fs, dir: name}, nil
}

func (l logFS) Remove(name string) error     { return l.fs.Remove(name) }
func (l logFS) Rename(from, to string) error { return l.fs.Rename(from, to) }
func (l logFS) Link(from, to string) error   { return l.fs.Link(from, to) }

func (l logFS) RemoveAll(name string) error {
	info, err := l.fs.Stat(name)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Dir {
		list, err := l.fs.List(name)
		if err != nil {
			return err
		}
		for _, i := range list {
			if err := l.RemoveAll(path.Join(name, i.Name)); err != nil {
				return err
			}
		}
	}
	if err != nil {
		return err
	}
	return l.fs.Remove(name)
}

func (l logFS) ReuseForWrite(from, to string, c pebblefs.DiskWriteCategory) (pebblefs.File, error) {
	if err := l.fs.Rename(from, to); err != nil {
		return nil, err
	}
	return l.OpenReadWrite(to, c)
}

func (l logFS) MkdirAll(dir string, _ os.FileMode) error { return l.fs.Mkdir(dir) }
func (l logFS) Lock(name string) (io.Closer, error)      { return l.fs.Lock(name) }
func (logFS) PathBase(name string) string                { return path.Base(name) }
func (logFS) PathJoin(elem ...string) string             { return path.Join(elem...) }
func (logFS) PathDir(name string) string                 { return path.Dir(name) }
func (logFS) Unwrap() pebblefs.FS                        { return nil }
func (logFS) GetDiskUsage(string) (pebblefs.DiskUsage, error) {
	return pebblefs.DiskUsage{AvailBytes: 1 << 40, TotalBytes: 1 << 40}, nil
}

func (l logFS) List(dir string) (names []string, err error) {
	list, err := l.fs.List(dir)
	for _, i := range list {
		names = append(names, i.Name)
	}
	return names, err
}

func (l logFS) Stat(name string) (pebblefs.FileInfo, error) {
	i, err := l.fs.Stat(name)
	if err != nil {
		return nil, err
	}
	return logInfo{i}, nil
}

// logFile is an open file, or a directory to be synced.
type logFile struct {
	fs  vfs.FS
	f   vfs.File
	dir string
	at  int64 // of Read and Write
}

func (f *logFile) Close() error {
	if f.f == nil {
		return nil
	}
	return f.f.Close()
}

func (f *logFile) Read(p []byte) (int, error) {
	n, err := f.f.ReadAt(p, f.at)
	f.at += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (f *logFile) ReadAt(p []byte, off int64) (int, error) { return f.f.ReadAt(p, off) }

func (f *logFile) Write(p []byte) (int, error) {
	n, err := f.f.WriteAt(p, f.at)
	f.at += int64(n)
	return n, err
}

func (f *logFile) WriteAt(p []byte, off int64) (int, error) { return f.f.WriteAt(p, off) }
func (f *logFile) Preallocate(int64, int64) error           { return nil }
func (f *logFile) Prefetch(int64, int64) error              { return nil }
func (f *logFile) Fd() uintptr                              { return pebblefs.InvalidFd }
func (f *logFile) SyncTo(int64) (bool, error)               { return false, nil }

func (f *logFile) Stat() (pebblefs.FileInfo, error) {
	if f.f == nil {
		return logFS{f.fs}.Stat(f.dir)
	}
	i, err := f.f.Info()
	if err != nil {
		return nil, err
	}
	return logInfo{i}, nil
}

func (f *logFile) Sync() error {
	if f.f == nil {
		return f.fs.SyncDir(f.dir)
	}
	return f.f.Sync()
}

func (f *logFile) SyncData() error {
	if f.f == nil {
		return f.Sync()
	}
	return f.f.Datasync()
}

// logInfo says what pebble asks of a file.
type logInfo struct{ i vfs.Info }

func (i logInfo) Name() string                { return i.i.Name }
func (i logInfo) Size() int64                 { return i.i.Size }
func (i logInfo) IsDir() bool                 { return i.i.Dir }
func (i logInfo) DeviceID() pebblefs.DeviceID { return pebblefs.DeviceID{} }
func (i logInfo) ModTime() time.Time          { return i.i.Modified }
func (i logInfo) Sys() any                    { return nil }
func (i logInfo) Mode() os.FileMode {
	if i.i.Dir {
		return os.ModeDir | 0o755
	}
	return 0o644
}
