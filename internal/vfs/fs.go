// Package vfs is the file system as embedlog sees it: one small interface with
// three implementations.
//
//	                FS, File, Mapping
//	                       |
//	    +------------------+------------------+
//	    |                  |                  |
//	  OS(dir)           NewMem()        NewFault(fs, ...)
//	the operating     memory that      any of them, with
//	system, through   forgets what     errors, short and
//	os.Root           was not synced   misplaced writes, ...
//
// Everything that touches a disk goes through it, so that a test can stop the
// world after any operation, at any byte of a mapped store, and look at each
// state that a power cut could have left behind.
//
// # What an implementation promises
//
//   - Names are slash-separated and relative to the root; a name that leaves the
//     root is refused.
//   - A File and a Mapping of it show the same bytes at once (one page cache).
//   - Bytes are durable after Sync or Datasync, names after SyncDir of the
//     directory that holds them. Nothing else is.
//   - A write that a power cut interrupts leaves each 512-byte sector of what it
//     touched old, new or torn, and no other byte changed ("powersafe overwrite",
//     https://www.sqlite.org/psow.html).
//   - A failed Sync proves nothing about what is on the disk, now or after a
//     later Sync that succeeds (Rebello et al., "Can Applications Recover from
//     fsync Failures?", USENIX ATC 2020).
//
// All methods may be called from several goroutines at once. Two writes to the
// same bytes are ordered by the caller.
package vfs

import (
	"errors"
	"io"
	"time"
)

// SectorBytes is the unit in which a disk keeps or loses a write.
const SectorBytes = 512

// FS is a directory tree.
type FS interface {
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	// Create makes a new, empty file. It fails with fs.ErrExist when the name is taken.
	Create(name string) (File, error)
	// Mkdir makes a directory and its parents. One that exists is no error.
	Mkdir(name string) error
	// Rename gives a file or directory another name, in one step. It replaces a file that had it.
	Rename(oldName, newName string) error
	// Link gives a file a second name. It fails with fs.ErrExist when the name is taken.
	Link(oldName, newName string) error
	// Remove unlinks a file or an empty directory. Open files and mappings of it stay usable.
	Remove(name string) error
	// List returns the entries of a directory, sorted by name.
	List(dir string) ([]Info, error)
	// Stat describes one file or directory.
	Stat(name string) (Info, error)
	// SyncDir makes the names in a directory durable. "." is the root.
	SyncDir(dir string) error
	// Lock takes the advisory lock that the file name stands for, and writes who
	// holds it there. Another holder, in this process or outside it, is a *LockedError.
	// Closing the result releases it.
	Lock(name string) (io.Closer, error)
	// Close releases the root. Open files stay usable.
	Close() error
}

// Info describes a file or directory.
type Info struct {
	Name      string // the last element
	Size      int64  // bytes
	Allocated int64  // bytes of disk that it takes; Size where the system does not tell
	Dir       bool
	Modified  time.Time
}

// File is an open file.
type File interface {
	// ReadAt is a pread: n < len(p) comes with an error, io.EOF at the end.
	io.ReaderAt
	// WriteAt is a pwrite. On a full disk it may write a part: n tells, and the
	// error matches ErrNoSpace.
	io.WriterAt
	// WritevAt is WriteAt of the pieces one behind the other: one write, whose bytes
	// lie in several places. It keeps and changes neither pieces nor what they hold.
	WritevAt(pieces [][]byte, off int64) (n int, err error)
	// Append writes at the end of the file, wherever that is now.
	Append(p []byte) (n int, err error)
	// Name is the name the file was opened under.
	Name() string
	// Info describes the open file, also after its name is gone.
	Info() (Info, error)
	// Sync makes bytes and metadata durable (fsync).
	Sync() error
	// Datasync makes bytes durable, and of the metadata what is needed to read
	// them back, the size above all (fdatasync).
	Datasync() error
	// Truncate sets the size. New bytes read as zeros.
	Truncate(size int64) error
	// Allocate reserves blocks for [off, off+n), growing the file where needed,
	// without writing them; ErrNoSpace when there are none. A system without the
	// call answers errors.ErrUnsupported.
	Allocate(off, n int64) error
	// Zero writes zeros over [off, off+n), growing the file where needed.
	Zero(off, n int64) error
	// Map maps [off, off+n), shared and writable. off is a multiple of MapAlign.
	// The range may reach past the end of the file; touching what lies past the
	// end is a fault until the file grows. A system or file system on which
	// mapping was not tested answers errors.ErrUnsupported.
	Map(off int64, n int) (Mapping, error)
	// Close releases the file. Mappings of it stay usable.
	Close() error
}

// MapAlign is what the offset of a mapping must be a multiple of: the largest
// page size of the systems we build for.
const MapAlign = 64 << 10

// Mapping is a window on a file, kept in memory by the system.
type Mapping interface {
	// Bytes is the window, for reading. Touch it only inside Guard: when the file
	// was truncated below it, or the disk fails, a load is a fault. A byte that is
	// being stored to by another goroutine must not be read.
	Bytes() []byte
	// Store copies p to offset off of the window. All stores to mapped memory in
	// the module go through it: it is one operation to a fault or a crash, and can
	// be cut after any byte. A fault is a *FaultError, and how many bytes arrived
	// is then unknown.
	Store(off int, p []byte) error
	// Load copies the bytes at offset off of the window to p. A fault is a
	// *FaultError. It is a read to rules and crashes, and needs no Guard.
	Load(off int, p []byte) error
	// Close unmaps. No one may touch Bytes afterwards.
	Close() error
}

// ErrNoSpace says that the disk, the quota or the cap is full.
var ErrNoSpace = errors.New("embedlog: no space left on device")
