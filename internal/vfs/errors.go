package vfs

import (
	"errors"
	"fmt"
	"time"
)

// ErrLocked is matched by *LockedError.
var ErrLocked = errors.New("embedlog: locked by another owner")

// ErrFault is matched by *FaultError.
var ErrFault = errors.New("embedlog: fault in mapped memory")

// LockedError says who holds a lock.
type LockedError struct {
	Name  string    // the lock file
	PID   int       // 0 when the holder did not say
	Host  string    // "" when the holder did not say
	Since time.Time // zero when the holder did not say
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("%s: locked by an unknown owner", e.Name)
	}
	return fmt.Sprintf("%s: locked by process %d on %s since %s", e.Name, e.PID, e.Host, e.Since.UTC().Format(time.RFC3339))
}

// Is matches ErrLocked.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// FaultError is a load or store of mapped memory that the system refused: the
// file was truncated below the mapping, or the disk could not be read.
type FaultError struct {
	Name string  // the file, where known
	Addr uintptr // 0 when the system did not say
}

func (e *FaultError) Error() string {
	return fmt.Sprintf("%s: fault in mapped memory at %#x (file truncated or unreadable)", e.Name, e.Addr)
}

// Is matches ErrFault.
func (e *FaultError) Is(target error) bool { return target == ErrFault }
