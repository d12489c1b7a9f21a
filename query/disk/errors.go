package disk

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/x/embedlog"
)

// ErrNoDirectory says that the database is in no directory, and Options.Dir names none.
var ErrNoDirectory = errors.New("disk: no directory for the rows of views: Options.Dir names none, and the database is in memory")

// StoreError says what went wrong with a store's files. It matches embedlog.ErrNoSpace where there was no room for them, embedlog.ErrCorrupt
// where they are damaged, and embedlog.ErrStorageFailed otherwise. No row is lost by any of them: all are in changelogs.
type StoreError struct {
	// Dir is the store's directory.
	Dir string
	// Err is what the file system says, or pebble.
	Err error
}

func (e *StoreError) Error() string { return fmt.Sprintf("store %s: %v", e.Dir, e.Err) }

// Unwrap is what the file system says, or pebble.
func (e *StoreError) Unwrap() error { return e.Err }

// Is matches one of the three.
func (e *StoreError) Is(target error) bool {
	switch target {
	case embedlog.ErrNoSpace, embedlog.ErrCorrupt, embedlog.ErrStorageFailed:
		return target == kindOf(e.Err)
	}
	return false
}

// kindOf is what an error of a store comes to for who met it.
func kindOf(err error) error {
	switch {
	case vfs.IsNoSpaceError(err), errors.Is(err, syscall.EDQUOT), errors.Is(err, embedlog.ErrNoSpace):
		return embedlog.ErrNoSpace
	case pebble.IsCorruptionError(err), errors.Is(err, errPanic):
		return embedlog.ErrCorrupt
	}
	return embedlog.ErrStorageFailed
}

// errPanic is a panic of pebble's: bytes that it does not expect.
var errPanic = errors.New("pebble panicked")

// typed is an error of the store in dir, which is not nil.
func typed(dir string, err error) *StoreError {
	if s := (*StoreError)(nil); errors.As(err, &s) {
		return s
	}
	return &StoreError{Dir: dir, Err: err}
}
