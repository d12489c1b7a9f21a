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

// mapFile is not offered where shared writable mappings were not tested.
func mapFile(_ *os.File, name string, _ int64, _ int) (Mapping, error) {
	return nil, &fs.PathError{Op: "map", Path: name, Err: errors.ErrUnsupported}
}
