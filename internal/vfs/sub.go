package vfs

import (
	"errors"
	"io"
	"path"
)

// Sub is the directory dir of fs as a file system of its own: names are relative
// to it, and none leaves it. Errors name files as fs does, so that they lead from
// the top. Closing it does nothing: fs belongs to who opened it.
//
// It costs nothing to have: thousands of them share the one open root of fs.
func Sub(fs FS, dir string) FS {
	if s, ok := fs.(*subFS); ok {
		return &subFS{fs: s.fs, dir: path.Join(s.dir, dir)}
	}
	return &subFS{fs: fs, dir: dir}
}

type subFS struct {
	fs  FS
	dir string
}

// at is the name in the file system above. It is checked first: joining would
// turn "../x" into a name outside that looks plain.
func (s *subFS) at(op, name string) (string, error) {
	if err := checkName(op, name); err != nil {
		return "", err
	}
	return path.Join(s.dir, name), nil
}

func (s *subFS) Open(name string) (File, error) {
	full, err := s.at("open", name)
	if err != nil {
		return nil, err
	}
	return named(name)(s.fs.Open(full))
}

func (s *subFS) Create(name string) (File, error) {
	full, err := s.at("create", name)
	if err != nil {
		return nil, err
	}
	return named(name)(s.fs.Create(full))
}

func named(name string) func(File, error) (File, error) {
	return func(f File, err error) (File, error) {
		if err != nil {
			return nil, err
		}
		return &subFile{File: f, name: name}, nil
	}
}

// subFile is a file under the name that it has in the directory.
type subFile struct {
	File
	name string
}

func (f *subFile) Name() string { return f.name }

func (s *subFS) Mkdir(name string) error {
	full, err := s.at("mkdir", name)
	if err != nil {
		return err
	}
	return s.fs.Mkdir(full)
}

func (s *subFS) Rename(oldName, newName string) error {
	from, err1 := s.at("rename", oldName)
	to, err2 := s.at("rename", newName)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	return s.fs.Rename(from, to)
}

func (s *subFS) Link(oldName, newName string) error {
	from, err1 := s.at("link", oldName)
	to, err2 := s.at("link", newName)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	return s.fs.Link(from, to)
}

func (s *subFS) Remove(name string) error {
	full, err := s.at("remove", name)
	if err != nil {
		return err
	}
	return s.fs.Remove(full)
}

func (s *subFS) List(dir string) ([]Info, error) {
	full, err := s.at("list", dir)
	if err != nil {
		return nil, err
	}
	return s.fs.List(full)
}

func (s *subFS) Stat(name string) (Info, error) {
	full, err := s.at("stat", name)
	if err != nil {
		return Info{}, err
	}
	info, err := s.fs.Stat(full)
	if err == nil && name == "." {
		info.Name = "." // and not the name that it has above
	}
	return info, err
}

func (s *subFS) SyncDir(dir string) error {
	full, err := s.at("syncdir", dir)
	if err != nil {
		return err
	}
	return s.fs.SyncDir(full)
}

func (s *subFS) Lock(name string) (io.Closer, error) {
	full, err := s.at("lock", name)
	if err != nil {
		return nil, err
	}
	return s.fs.Lock(full)
}

func (s *subFS) Close() error { return nil }
