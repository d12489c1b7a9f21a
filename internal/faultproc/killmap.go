package faultproc

import (
	"os"
	"sync/atomic"

	"github.com/x/embedlog/internal/vfs"
)

// killFS is a file system whose process dies inside a mapped store, when so many
// bytes were stored in its life: a copy to mapped memory makes no system call that
// anybody could stop it at.
type killFS struct {
	vfs.FS
	left *atomic.Int64
}

func newKillFS(fs vfs.FS, after int64) *killFS {
	k := &killFS{FS: fs, left: &atomic.Int64{}}
	k.left.Store(after)
	return k
}

func (k *killFS) Open(name string) (vfs.File, error)   { return k.wrap(k.FS.Open(name)) }
func (k *killFS) Create(name string) (vfs.File, error) { return k.wrap(k.FS.Create(name)) }

func (k *killFS) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &killFile{f, k}, nil
}

type killFile struct {
	vfs.File
	k *killFS
}

func (f *killFile) Map(off int64, n int) (vfs.Mapping, error) {
	m, err := f.File.Map(off, n)
	if err != nil {
		return nil, err
	}
	return &killMapping{m, f.k}, nil
}

type killMapping struct {
	vfs.Mapping
	k *killFS
}

func (m *killMapping) Store(off int, p []byte) error {
	left := m.k.left.Add(-int64(len(p)))
	if left > 0 {
		return m.Mapping.Store(off, p)
	}
	if n := left + int64(len(p)); n > 0 {
		m.Mapping.Store(off, p[:n])
	}
	killSelf()
	return nil
}

// killSelf ends the process as kill -9 does, and does not return.
func killSelf() {
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		p.Kill()
	}
	select {}
}
