package log

import (
	"errors"
	"fmt"
	"strings"

	"github.com/x/embedlog/internal/vfs"
)

// What a caller branches on. Wrapped errors match them with errors.Is.
var (
	// ErrClosed says that the log was closed.
	ErrClosed = errors.New("embedlog: closed")
	// ErrCorrupt is matched by *CorruptionError: bytes that were durable are damaged.
	ErrCorrupt = errors.New("embedlog: corrupt")
	// ErrBadBatch is matched by *BadBatchError: a batch that does not parse.
	ErrBadBatch = errors.New("embedlog: bad record batch")
	// ErrStorageFailed says that a write or sync failed in a way that leaves the
	// log's end unknown. Nothing more is acknowledged until it is opened again.
	ErrStorageFailed = errors.New("embedlog: storage failed")
	// ErrNoSpace says that the disk or the log's byte cap is full. Nothing was
	// written; the same call succeeds when there is room.
	ErrNoSpace = vfs.ErrNoSpace
	// ErrLocked is matched by *LockedError: somebody else has the directory open.
	ErrLocked = vfs.ErrLocked
	// ErrNewerFormat says that a newer version wrote the directory. Nothing was changed.
	ErrNewerFormat = errors.New("embedlog: written by a newer version")
	// ErrOffsetGone says that an offset lies below the log start offset.
	ErrOffsetGone = errors.New("embedlog: offset below the log start offset")
	// ErrOffsetAhead says that an offset lies past the log end offset.
	ErrOffsetAhead = errors.New("embedlog: offset past the log end offset")
)

// LockedError names who has the directory open.
type LockedError = vfs.LockedError

// CapError says that Config.CapBytes does not allow the log to grow.
type CapError struct {
	Limit, Used, Wanted int64 // bytes
}

func (e *CapError) Error() string {
	return fmt.Sprintf("%d bytes of %d are taken, %d more wanted: %v", e.Used, e.Limit, e.Wanted, ErrNoSpace)
}

// Is matches ErrNoSpace.
func (e *CapError) Is(target error) bool { return target == ErrNoSpace }

// CorruptionError is damage to bytes that were known to be durable. The rest of
// the log stays readable; Repair is the way to go on writing.
type CorruptionError struct {
	File     string // name within the log's directory
	Position int64  // byte in the file where the damage starts
	End      int64  // byte where the next whole frame starts; -1 when there is none
	// Offsets that may be missing, half-open; -1 where unknown.
	FirstOffset, EndOffset int64
	Cause                  error
}

func (e *CorruptionError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: corrupt at byte %d", e.File, e.Position)
	if e.End >= 0 {
		fmt.Fprintf(&b, " to %d", e.End)
	}
	if e.FirstOffset >= 0 {
		fmt.Fprintf(&b, ", from offset %d", e.FirstOffset)
	}
	if e.EndOffset >= 0 {
		fmt.Fprintf(&b, ", up to offset %d", e.EndOffset)
	}
	fmt.Fprintf(&b, ": %v", e.Cause)
	return b.String()
}

// Is matches ErrCorrupt.
func (e *CorruptionError) Is(target error) bool { return target == ErrCorrupt }

// Unwrap returns the cause.
func (e *CorruptionError) Unwrap() error { return e.Cause }

// BadBatchError is a record batch that does not hold what it claims.
type BadBatchError struct {
	BaseOffset int64  // as the batch has it; -1 when that could not be read
	LastOffset int64  // -1 when unknown
	Position   int    // byte within the batch, or within its decompressed records
	Reason     string // what is wrong there
	Cause      error  // nil, or what a decompressor said
}

func (e *BadBatchError) Error() string {
	s := fmt.Sprintf("record batch at offset %d: byte %d: %s", e.BaseOffset, e.Position, e.Reason)
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Is matches ErrBadBatch.
func (e *BadBatchError) Is(target error) bool { return target == ErrBadBatch }

// Unwrap returns the cause.
func (e *BadBatchError) Unwrap() error { return e.Cause }
