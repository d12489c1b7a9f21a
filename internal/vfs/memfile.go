package vfs

import (
	"io"
	"io/fs"
	"sync/atomic"
	"time"
)

// memFile is an open file of a Mem.
type memFile struct {
	node   *memNode
	name   string
	closed atomic.Bool
}

func (f *memFile) Name() string { return f.name }

// beginLocked counts an operation that happens whole or not at all.
func (f *memFile) beginLocked(op Op) error {
	if f.closed.Load() {
		return memError(op, f.name, fs.ErrClosed)
	}
	_, err := f.node.mem.step(op, f.name, 0)
	return err
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) { return f.read(p, off, false) }

// ReadSyncedAt reads the bytes as of the last sync: what a disk shows that lost
// the writes since. A Fault asks for it.
func (f *memFile) ReadSyncedAt(p []byte, off int64) (int, error) { return f.read(p, off, true) }

func (f *memFile) read(p []byte, off int64, synced bool) (int, error) {
	if err := checkRange("read", f.name, off, int64(len(p))); err != nil {
		return 0, err
	}
	n := f.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := f.beginLocked(OpRead); err != nil {
		return 0, err
	}
	got := n.readLocked(p, off, synced)
	if got < len(p) {
		return got, io.EOF
	}
	return got, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if err := checkRange("write", f.name, off, int64(len(p))); err != nil {
		return 0, err
	}
	return f.write(OpWrite, off, len(p), p)
}

func (f *memFile) WritevAt(pieces [][]byte, off int64) (int, error) {
	count := piecesBytes(pieces)
	if err := checkRange("write", f.name, off, int64(count)); err != nil {
		return 0, err
	}
	return f.write(OpWrite, off, count, pieces...)
}

func piecesBytes(pieces [][]byte) (n int) {
	for _, p := range pieces {
		n += len(p)
	}
	return n
}

func (f *memFile) Append(p []byte) (int, error) { return f.write(OpAppend, -1, len(p), p) }

// zeroPiece bounds one step of Zero where an int is 32 bits.
const zeroPiece = 1 << 30

func (f *memFile) Zero(off, n int64) error {
	if err := checkRange("zero", f.name, off, n); err != nil {
		return err
	}
	for {
		piece := min(n, zeroPiece)
		if _, err := f.write(OpZero, off, int(piece)); err != nil {
			return err
		}
		if off, n = off+piece, n-piece; n == 0 {
			return nil
		}
	}
}

// write is one pwrite of pieces that have count bytes, or of count zeros where there
// are none; off is -1 for the end of the file.
func (f *memFile) write(op Op, off int64, count int, pieces ...[]byte) (int, error) {
	if f.closed.Load() {
		return 0, memError(op, f.name, fs.ErrClosed)
	}
	n := f.node
	n.mu.Lock()
	arrive, err := n.mem.step(op, f.name, count)
	if off < 0 {
		off = n.size
	}
	if arrive > 0 {
		n.growViews(off)
		done := inPieces(arrive, pieces, func(at, count int, p []byte) int {
			return n.putLocked(off+int64(at), p, count)
		})
		if done < arrive && err == nil {
			err = memError(op, f.name, ErrNoSpace)
		}
		arrive = done
		n.modified = time.Now()
	}
	views := n.maps
	n.mu.Unlock()
	inPieces(arrive, pieces, func(at, count int, p []byte) int {
		showIn(views, off+int64(at), p, count)
		return count
	})
	if err != nil && n.mem.Crashed() {
		return 0, err // nobody is told what arrived
	}
	return arrive, err
}

// inPieces calls do for the parts of the first count bytes of pieces, until it has done
// less than a part, and returns how much was done. Without pieces p is nil: zeros.
func inPieces(count int, pieces [][]byte, do func(at, count int, p []byte) (done int)) (done int) {
	if len(pieces) == 0 {
		return do(0, count, nil)
	}
	for _, p := range pieces {
		part := min(len(p), count-done)
		if part == 0 {
			continue
		}
		n := do(done, part, p)
		done += n
		if n < part {
			break
		}
	}
	return done
}

func (f *memFile) Truncate(size int64) error {
	if err := checkRange("truncate", f.name, size, 0); err != nil {
		return err
	}
	n := f.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := f.beginLocked(OpTruncate); err != nil {
		return err
	}
	n.resizeLocked(size)
	n.modified = time.Now()
	return nil
}

func (f *memFile) Allocate(off, count int64) error {
	if err := checkRange("allocate", f.name, off, count); err != nil {
		return err
	}
	n := f.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := f.beginLocked(OpAllocate); err != nil {
		return err
	}
	if count == 0 {
		return nil
	}
	if !n.allocateLocked(off, count) {
		return memError(OpAllocate, f.name, ErrNoSpace)
	}
	if off+count > n.size {
		n.resizeLocked(off + count)
	}
	return nil
}

func (f *memFile) Sync() error     { return f.sync(OpSync) }
func (f *memFile) Datasync() error { return f.sync(OpDatasync) }

func (f *memFile) sync(op Op) error {
	n := f.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := f.beginLocked(op); err != nil {
		return err
	}
	n.syncLocked()
	return nil
}

// FailSync is a sync that fails: it answers err, and from now on the dirty pages
// read new, count as clean and are gone after a power cut, also when the process
// was killed in between. A Fault asks for it.
func (f *memFile) FailSync(err error) error {
	n := f.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if e := f.beginLocked(OpSync); e != nil {
		return e
	}
	n.failSyncLocked()
	return memError(OpSync, f.name, err)
}

func (f *memFile) Close() error {
	if f.closed.Swap(true) {
		return &fs.PathError{Op: "close", Path: f.name, Err: fs.ErrClosed}
	}
	m := f.node.mem
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropLocked(f.node)
	if m.Crashed() {
		return &fs.PathError{Op: "close", Path: f.name, Err: ErrCrashed}
	}
	return nil
}
