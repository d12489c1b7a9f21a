package vfs

import (
	"io"
	"slices"
	"syscall"
)

// faultFile is a file of a Fault. Name and Close are the inner file's.
type faultFile struct {
	File
	fault *Fault
}

func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	e := f.fault.on(OpRead, f.Name())
	switch e.kind {
	case fails:
		return 0, e.error(OpRead, f.Name())
	case shortens:
		n, err := f.File.ReadAt(p[:min(len(p), max(e.n, 0))], off)
		if err == nil && n < len(p) {
			err = memError(OpRead, f.Name(), io.ErrUnexpectedEOF)
		}
		return n, err
	case flips:
		n, err := f.File.ReadAt(p, off)
		copy(p, flipped(p[:n], e.n))
		return n, err
	case stales:
		s, ok := f.File.(syncedReader)
		if !ok {
			return 0, memError(OpRead, f.Name(), errNotMem)
		}
		return s.ReadSyncedAt(p, off)
	}
	return f.File.ReadAt(p, off)
}

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	return f.writeAt(f.fault.on(OpWrite, f.Name()), p, off)
}

// WritevAt is one write to the rules. What happens to it happens to all pieces as if
// they lay in one place.
func (f *faultFile) WritevAt(pieces [][]byte, off int64) (int, error) {
	e := f.fault.on(OpWrite, f.Name())
	if e.kind == passes {
		return f.File.WritevAt(pieces, off)
	}
	return f.writeAt(e, slices.Concat(pieces...), off)
}

func (f *faultFile) writeAt(e Effect, p []byte, off int64) (int, error) {
	switch e.kind {
	case misplaces:
		return f.misplace(e, p, off)
	case loses:
		return len(p), nil
	}
	return f.write(OpWrite, e, p, func(p []byte) (int, error) { return f.File.WriteAt(p, off) })
}

func (f *faultFile) Append(p []byte) (int, error) {
	return f.write(OpAppend, f.fault.on(OpAppend, f.Name()), p, f.File.Append)
}

// write does what a write and an append have in common.
func (f *faultFile) write(op Op, e Effect, p []byte, write func([]byte) (int, error)) (int, error) {
	switch e.kind {
	case fails:
		return 0, e.error(op, f.Name())
	case fills, shortens:
		n, err := write(p[:min(len(p), max(e.n, 0))])
		if err == nil && n < len(p) {
			err = e.cut(op, f.Name())
		}
		return n, err
	case flips:
		return write(flipped(p, e.n))
	}
	return write(p)
}

// cut is the error of a write that only a part passed of.
func (e Effect) cut(op Op, name string) error {
	if e.kind == shortens {
		return memError(op, name, io.ErrShortWrite)
	}
	return memError(op, name, ErrNoSpace)
}

// misplace writes elsewhere, and tells nobody whether that worked.
func (f *faultFile) misplace(e Effect, p []byte, off int64) (int, error) {
	to := f.File
	if e.name != "" {
		other, err := f.fault.inner.Open(e.name)
		if err != nil {
			return len(p), nil
		}
		defer other.Close()
		to = other
	}
	to.WriteAt(p, max(off+e.delta, 0)) // the writer believes that all is well
	return len(p), nil
}

func (f *faultFile) Info() (Info, error) {
	if _, err := f.fault.check(OpStat, f.Name()); err != nil {
		return Info{}, err
	}
	return f.File.Info()
}

func (f *faultFile) Sync() error     { return f.sync(OpSync, f.File.Sync) }
func (f *faultFile) Datasync() error { return f.sync(OpDatasync, f.File.Datasync) }

func (f *faultFile) sync(op Op, sync func() error) error {
	e := f.fault.on(op, f.Name())
	switch e.kind {
	case fails, fills:
		return e.error(op, f.Name())
	case loses:
		return nil
	case failsSync:
		if s, ok := f.File.(syncFailer); ok {
			return s.FailSync(syscall.EIO)
		}
		return memError(op, f.Name(), syscall.EIO)
	}
	return sync()
}

func (f *faultFile) Truncate(size int64) error {
	if _, err := f.fault.check(OpTruncate, f.Name()); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *faultFile) Allocate(off, n int64) error {
	if _, err := f.fault.check(OpAllocate, f.Name()); err != nil {
		return err
	}
	return f.File.Allocate(off, n)
}

func (f *faultFile) Zero(off, n int64) error {
	e := f.fault.on(OpZero, f.Name())
	switch e.kind {
	case fails:
		return e.error(OpZero, f.Name())
	case loses:
		return nil
	case fills, shortens:
		if err := f.File.Zero(off, min(n, int64(max(e.n, 0)))); err != nil || n <= int64(e.n) {
			return err
		}
		return e.cut(OpZero, f.Name())
	}
	return f.File.Zero(off, n)
}

func (f *faultFile) Map(off int64, n int) (Mapping, error) {
	if _, err := f.fault.check(OpMap, f.Name()); err != nil {
		return nil, err
	}
	m, err := f.File.Map(off, n)
	if err != nil {
		return nil, err
	}
	return &faultMapping{Mapping: m, fault: f.fault, name: f.Name()}, nil
}

// faultMapping is a window of a Fault. Loads of Bytes are not seen by rules.
type faultMapping struct {
	Mapping
	fault *Fault
	name  string
}

func (m *faultMapping) Store(off int, p []byte) error {
	e := m.fault.on(OpStore, m.name)
	switch e.kind {
	case fails:
		return e.error(OpStore, m.name)
	case fills, shortens:
		if err := m.Mapping.Store(off, p[:min(len(p), max(e.n, 0))]); err != nil || len(p) <= e.n {
			return err
		}
		return &FaultError{Name: m.name}
	case loses:
		return nil
	case flips:
		return m.Mapping.Store(off, flipped(p, e.n))
	case misplaces:
		if to := int64(off) + e.delta; to >= 0 && to <= int64(len(m.Bytes())-len(p)) {
			return m.Mapping.Store(int(to), p)
		}
		return nil
	}
	return m.Mapping.Store(off, p)
}

// Load meets the rules for reads, but for stale ones: what a mapping shows is the
// page cache.
func (m *faultMapping) Load(off int, p []byte) error {
	e := m.fault.on(OpRead, m.name)
	if e.kind == fails {
		return e.error(OpRead, m.name)
	}
	err := m.Mapping.Load(off, p)
	if err == nil && e.kind == flips {
		copy(p, flipped(p, e.n))
	}
	return err
}
