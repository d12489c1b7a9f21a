package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// Scratch is one directory that shows files which lie elsewhere, and keeps every
// change to them in memory: for opening what must not be written to. Memory is
// taken by what is written, not by what is there. It has no directories below it.
//
// It counts as durable what was written: nothing can be lost but all of it. Map and
// Allocate answer errors.ErrUnsupported.
func Scratch(files []ScratchFile) FS {
	s := &scratchFS{files: make(map[string]*scratchNode)}
	for _, f := range files {
		s.files[f.Name] = &scratchNode{fs: f.FS, as: f.As, base: f.Bytes, size: f.Bytes}
	}
	return s
}

// ScratchFile is a file that a Scratch shows.
type ScratchFile struct {
	Name  string // in the Scratch
	FS    FS     // where it lies,
	As    string // under this name
	Bytes int64  // how much of it is shown, from its beginning
}

// ScratchOf is a Scratch of the files in a directory, as they are now.
func ScratchOf(fsys FS, dir string) (FS, error) {
	infos, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	var files []ScratchFile
	for _, info := range infos {
		if !info.Dir {
			files = append(files, ScratchFile{info.Name, fsys, path.Join(dir, info.Name), info.Size})
		}
	}
	return Scratch(files), nil
}

type scratchFS struct {
	mu     sync.Mutex
	files  map[string]*scratchNode
	locked bool
}

func scratchError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// errNoDirs says that a Scratch is flat.
var errNoDirs = fmt.Errorf("no directories here: %w", fs.ErrInvalid)

func (s *scratchFS) node(op, name string) (*scratchNode, error) {
	if err := checkName(op, name); err != nil {
		return nil, err
	}
	n := s.files[name]
	if n == nil {
		return nil, scratchError(op, name, fs.ErrNotExist)
	}
	return n, nil
}

func (s *scratchFS) Open(name string) (File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.node("open", name)
	if err != nil {
		return nil, err
	}
	f := &scratchFile{node: n, name: name}
	if n.fs != nil {
		if f.under, err = n.fs.Open(n.as); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (s *scratchFS) Create(name string) (File, error) {
	if err := checkName("create", name); err != nil {
		return nil, err
	}
	if strings.Contains(name, "/") || name == "." {
		return nil, scratchError("create", name, errNoDirs)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files[name] != nil {
		return nil, scratchError("create", name, fs.ErrExist)
	}
	n := new(scratchNode)
	s.files[name] = n
	return &scratchFile{node: n, name: name}, nil
}

func (s *scratchFS) Mkdir(name string) error {
	if name == "." {
		return nil
	}
	return scratchError("mkdir", name, errNoDirs)
}

func (s *scratchFS) Rename(oldName, newName string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.node("rename", oldName)
	if err := errors.Join(err, checkName("rename", newName)); err != nil {
		return err
	}
	delete(s.files, oldName)
	s.files[newName] = n
	return nil
}

func (s *scratchFS) Link(oldName, newName string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.node("link", oldName)
	if err := errors.Join(err, checkName("link", newName)); err != nil {
		return err
	}
	if s.files[newName] != nil {
		return scratchError("link", newName, fs.ErrExist)
	}
	s.files[newName] = n
	return nil
}

func (s *scratchFS) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.node("remove", name); err != nil {
		return err
	}
	delete(s.files, name)
	return nil
}

func (s *scratchFS) List(dir string) (infos []Info, err error) {
	if dir != "." {
		return nil, scratchError("list", dir, fs.ErrNotExist)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, n := range s.files {
		infos = append(infos, n.info(name))
	}
	slices.SortFunc(infos, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return infos, nil
}

func (s *scratchFS) Stat(name string) (Info, error) {
	if name == "." {
		return Info{Name: name, Dir: true}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.node("stat", name)
	if err != nil {
		return Info{}, err
	}
	return n.info(name), nil
}

func (s *scratchFS) SyncDir(dir string) error {
	if dir != "." {
		return scratchError("syncdir", dir, fs.ErrNotExist)
	}
	return nil
}

func (s *scratchFS) Lock(name string) (io.Closer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked {
		return nil, &LockedError{}
	}
	s.locked = true
	return scratchLock{s}, nil
}

type scratchLock struct{ s *scratchFS }

func (l scratchLock) Close() error {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.s.locked = false
	return nil
}

func (s *scratchFS) Close() error { return nil }

const scratchPage = 4096

// scratchNode is a file: what lies below, up to base, under what was written.
type scratchNode struct {
	fs FS // nil for one that was created here
	as string

	mu    sync.RWMutex
	base  int64 // bytes of the file below that still show
	size  int64
	pages map[int64]*[scratchPage]byte // by number; what they hold counts
}

func (n *scratchNode) info(name string) Info {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return Info{Name: name, Size: n.size, Allocated: n.size, Modified: time.Time{}}
}

type scratchFile struct {
	node  *scratchNode
	name  string
	under File // the file below; nil for none

	mu     sync.Mutex
	closed bool
}

func (f *scratchFile) check(op string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return scratchError(op, f.name, fs.ErrClosed)
	}
	return nil
}

func (f *scratchFile) Name() string { return f.name }

func (f *scratchFile) Info() (Info, error) {
	return f.node.info(path.Base(f.name)), f.check("stat")
}

func (f *scratchFile) ReadAt(p []byte, off int64) (int, error) {
	if err := errors.Join(f.check("read"), checkRange("read", f.name, off, int64(len(p)))); err != nil {
		return 0, err
	}
	n := f.node
	n.mu.RLock()
	defer n.mu.RUnlock()
	if off >= n.size {
		return 0, io.EOF
	}
	short := int64(len(p)) > n.size-off
	p = p[:min(int64(len(p)), n.size-off)]
	if err := f.readBase(p, off); err != nil {
		return 0, err
	}
	if len(n.pages) > 0 {
		for at := off; at < off+int64(len(p)); at = (at/scratchPage + 1) * scratchPage {
			if page := n.pages[at/scratchPage]; page != nil {
				copy(p[at-off:], page[at%scratchPage:])
			}
		}
	}
	if short {
		return len(p), io.EOF
	}
	return len(p), nil
}

// readBase fills p with what the file below shows from off on, and zeros behind it.
func (f *scratchFile) readBase(p []byte, off int64) error {
	show := min(max(f.node.base-off, 0), int64(len(p)))
	clear(p[show:])
	if show == 0 {
		return nil
	}
	if m, err := f.under.ReadAt(p[:show], off); int64(m) < show {
		return errors.Join(err, io.ErrUnexpectedEOF) // it became shorter below us
	}
	return nil
}

func (f *scratchFile) WriteAt(p []byte, off int64) (int, error) {
	if err := errors.Join(f.check("write"), checkRange("write", f.name, off, int64(len(p)))); err != nil {
		return 0, err
	}
	f.node.mu.Lock()
	defer f.node.mu.Unlock()
	return f.writeLocked(p, off)
}

func (f *scratchFile) WritevAt(pieces [][]byte, off int64) (n int, err error) {
	if err := errors.Join(f.check("write"), checkRange("write", f.name, off, int64(piecesBytes(pieces)))); err != nil {
		return 0, err
	}
	f.node.mu.Lock()
	defer f.node.mu.Unlock()
	for _, p := range pieces {
		w, err := f.writeLocked(p, off+int64(n))
		n += w
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (f *scratchFile) writeLocked(p []byte, off int64) (int, error) {
	n := f.node
	done := 0
	for done < len(p) {
		at := off + int64(done)
		page := n.pages[at/scratchPage]
		if page == nil {
			page = new([scratchPage]byte)
			if err := f.readBase(page[:], at/scratchPage*scratchPage); err != nil {
				return done, err
			}
			if n.pages == nil {
				n.pages = make(map[int64]*[scratchPage]byte)
			}
			n.pages[at/scratchPage] = page
		}
		done += copy(page[at%scratchPage:], p[done:])
		n.size = max(n.size, off+int64(done))
	}
	return done, nil
}

func (f *scratchFile) Append(p []byte) (int, error) {
	if err := f.check("append"); err != nil {
		return 0, err
	}
	f.node.mu.Lock()
	defer f.node.mu.Unlock()
	return f.writeLocked(p, f.node.size)
}

func (f *scratchFile) Sync() error     { return f.check("sync") }
func (f *scratchFile) Datasync() error { return f.check("datasync") }

func (f *scratchFile) Truncate(size int64) error {
	if err := errors.Join(f.check("truncate"), checkRange("truncate", f.name, size, 0)); err != nil {
		return err
	}
	n := f.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if size < n.size {
		n.base = min(n.base, size)
		for i, page := range n.pages {
			switch from := i * scratchPage; {
			case from >= size:
				delete(n.pages, i)
			case from+scratchPage > size:
				clear(page[size-from:])
			}
		}
	}
	n.size = size
	return nil
}

func (f *scratchFile) Allocate(off, n int64) error {
	return scratchError("allocate", f.name, errors.ErrUnsupported)
}

// Zero keeps zeros behind the end, which cost nothing, as a size.
func (f *scratchFile) Zero(off, n int64) error {
	if err := errors.Join(f.check("zero"), checkRange("zero", f.name, off, n)); err != nil {
		return err
	}
	node := f.node
	node.mu.Lock()
	defer node.mu.Unlock()
	end := off + n
	zeros := make([]byte, scratchPage)
	for at := off; at < min(end, node.size); {
		m, err := f.writeLocked(zeros[:min(scratchPage, min(end, node.size)-at)], at)
		if err != nil {
			return err
		}
		at += int64(m)
	}
	node.size = max(node.size, end)
	return nil
}

func (f *scratchFile) Map(off int64, n int) (Mapping, error) {
	return nil, scratchError("map", f.name, errors.ErrUnsupported)
}

func (f *scratchFile) Close() error {
	if err := f.check("close"); err != nil {
		return err
	}
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	if f.under != nil {
		return f.under.Close()
	}
	return nil
}
