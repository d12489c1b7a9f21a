package vfs

import "io/fs"

// checkName refuses every name that is not plain: absolute, empty, with "." or
// ".." elements or a trailing slash. os.Root would allow "a/../b"; one spelling
// per file keeps the implementations alike.
func checkName(op, name string) error {
	if !fs.ValidPath(name) {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return nil
}

// checkRange refuses negative offsets and lengths, and ends past the largest offset.
func checkRange(op, name string, off, n int64) error {
	if off < 0 || n < 0 || off > 1<<62-n {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return nil
}

// noSpaceError gives the system's error for a full disk or quota our sentinel.
type noSpaceError struct{ err error }

func (e *noSpaceError) Error() string        { return e.err.Error() }
func (e *noSpaceError) Unwrap() error        { return e.err }
func (e *noSpaceError) Is(target error) bool { return target == ErrNoSpace }
