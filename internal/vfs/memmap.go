package vfs

import (
	"errors"
	"io/fs"
	"slices"
	"sync/atomic"
)

// memMapping is a window on a file: a copy of its bytes that every write to the
// file updates. What lies past the end of the file is unspecified, as it is a
// fault on a real system; growViews clears it before the file grows over it.
type memMapping struct {
	node   *memNode
	name   string
	off    int64
	buf    []byte
	high   int64 // the largest size from which the file shrank; guarded by node.mu
	closed atomic.Bool
}

func (f *memFile) Map(off int64, count int) (Mapping, error) {
	if err := checkRange("map", f.name, off, int64(count)); err != nil {
		return nil, err
	}
	if off%MapAlign != 0 || count == 0 {
		return nil, memError(OpMap, f.name, fs.ErrInvalid)
	}
	m := f.node.mem
	if count > m.mapBytes {
		return nil, memError(OpMap, f.name, errors.ErrUnsupported)
	}
	n := f.node
	m.mu.Lock()
	defer m.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := f.beginLocked(OpMap); err != nil {
		return nil, err
	}
	v := &memMapping{node: n, name: f.name, off: off, buf: make([]byte, count)}
	n.readLocked(v.buf, off, false)
	n.maps = append(slices.Clip(n.maps), v)
	n.opens++
	return v, nil
}

// growViews clears what a shrinking file left between its end and its new end.
// Nobody may read there before the file has grown, so this is not a race.
func (n *memNode) growViews(size int64) {
	if size <= n.size {
		return
	}
	for _, v := range n.maps {
		from, to := max(n.size, v.off), min(size, v.high, v.off+int64(len(v.buf)))
		if from < to {
			clear(v.buf[from-v.off : to-v.off])
		}
	}
}

// showIn copies bytes that were written at off into the mappings, zeros where p is
// nil. No lock is held: the race detector must see a reader that is too early.
func showIn(views []*memMapping, off int64, p []byte, count int) {
	for _, v := range views {
		from, to := max(off, v.off), min(off+int64(count), v.off+int64(len(v.buf)))
		if from >= to {
			continue
		}
		if p == nil {
			clear(v.buf[from-v.off : to-v.off])
		} else {
			copy(v.buf[from-v.off:to-v.off], p[from-off:])
		}
	}
}

func (v *memMapping) Bytes() []byte { return v.buf }

func (v *memMapping) check(op Op, off, count int) error {
	if v.closed.Load() {
		return memError(op, v.name, fs.ErrClosed)
	}
	if off < 0 || count < 0 || off > len(v.buf)-count {
		return memError(op, v.name, fs.ErrInvalid)
	}
	return nil
}

// Store copies p into the window. The part before the end of the file arrives; the
// rest, and a hole that a full disk cannot back, is a fault.
func (v *memMapping) Store(off int, p []byte) error {
	if err := v.check(OpStore, off, len(p)); err != nil {
		return err
	}
	n, at := v.node, v.off+int64(off)
	n.mu.Lock()
	arrive, err := n.mem.step(OpStore, v.name, len(p))
	inside := int(max(0, min(int64(arrive), n.size-at)))
	done := n.putLocked(at, p, inside)
	if done < arrive && err == nil {
		err = &FaultError{Name: v.name, Addr: uintptr(at) + uintptr(done)}
	}
	views := n.maps
	n.mu.Unlock()
	showIn(views, at, p, done)
	return err
}

// Load copies from the window. What lies past the end of the file is a fault.
func (v *memMapping) Load(off int, p []byte) error {
	if err := v.check(OpRead, off, len(p)); err != nil {
		return err
	}
	n, at := v.node, v.off+int64(off)
	n.mu.Lock()
	_, err := n.mem.step(OpRead, v.name, len(p))
	size := n.size
	n.mu.Unlock()
	switch {
	case err != nil:
		return err
	case at+int64(len(p)) > size:
		return &FaultError{Name: v.name, Addr: uintptr(max(at, size))}
	}
	copy(p, v.buf[off:]) // with no lock: the race detector must see a load that is too early
	return nil
}

func (v *memMapping) Close() error {
	if v.closed.Swap(true) {
		return &fs.PathError{Op: "unmap", Path: v.name, Err: fs.ErrClosed}
	}
	n, m := v.node, v.node.mem
	m.mu.Lock()
	defer m.mu.Unlock()
	n.mu.Lock()
	i := slices.Index(n.maps, v)
	n.maps = slices.Delete(slices.Clone(n.maps), i, i+1)
	n.mu.Unlock()
	m.dropLocked(n)
	if m.Crashed() {
		return &fs.PathError{Op: "unmap", Path: v.name, Err: ErrCrashed}
	}
	return nil
}
