package vfs

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

func isNoSpace(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}

// allocated is the size: the disk that a file takes would need another call.
func allocated(fi fs.FileInfo) int64 { return fi.Size() }

// lockByte is where the lock lies: locks are mandatory here, so it must not cover
// the text that others read.
const lockByte = 1 << 30

func tryLock(f *os.File) (held bool, err error) {
	at := &windows.Overlapped{Offset: lockByte}
	err = control(f, "lock", func(fd uintptr) error {
		return windows.LockFileEx(windows.Handle(fd), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, at)
	})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return false, nil
	}
	return err == nil, err
}

func unlock(f *os.File) error {
	at := &windows.Overlapped{Offset: lockByte}
	return control(f, "unlock", func(fd uintptr) error {
		return windows.UnlockFileEx(windows.Handle(fd), 0, 1, 0, at)
	})
}

// writeAt is os.File's: this system writes all or nothing when the disk is full.
func writeAt(f *os.File, p []byte, off int64) (int, error) { return f.WriteAt(p, off) }

// syncDir does nothing: NTFS journals names itself, and a directory's handle
// cannot be flushed without rights that we do not ask for.
func syncDir(*os.File) error { return nil }
