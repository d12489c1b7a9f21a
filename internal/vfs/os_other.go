//go:build !linux

package vfs

import (
	"errors"
	"io/fs"
	"os"
)

// datasync is Sync: these systems have no weaker call that is safe. On macOS
// os.File.Sync is F_FULLFSYNC, where fsync(2) leaves bytes in the drive's cache.
func datasync(f *os.File) error { return f.Sync() }

func allocate(f *os.File, _, _ int64) error {
	return &fs.PathError{Op: "allocate", Path: f.Name(), Err: errors.ErrUnsupported}
}

func appendTo(*os.File, []byte) (int, error) { return 0, errors.ErrUnsupported }

// writev writes the pieces one by one: x/sys has the call for few of these systems,
// and what it would save is small beside pieces that are not worth a copy.
func (f *osFile) writev(pieces [][]byte, off int64) (n int, err error) {
	for _, p := range pieces {
		w, err := f.WriteAt(p, off+int64(n))
		n += w
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// mapFile is not offered where shared writable mappings were not tested.
func mapFile(_ *os.File, name string, _ int64, _ int) (Mapping, error) {
	return nil, &fs.PathError{Op: "map", Path: name, Err: errors.ErrUnsupported}
}
