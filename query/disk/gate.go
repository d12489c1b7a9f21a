package disk

import (
	"errors"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// gate is the file system of a store that is open, until something goes wrong with it. From then on nothing is written or removed any more, whatever pebble,
// which would like to end the process, goes on with: so what is there is what a kill at this moment leaves.
//
//	write, sync, make, rename, link fail   the store has failed
//	a read fails                           the same
//	remove fails                           pebble tries again
//	a sync of the directory fails          the store has failed, and pebble is told that it has not: see gateDir
type gate struct {
	vfs.FS
	shut func() error    // why the store has failed
	fail func(err error) // it has
}

// change does what changes something.
func (g *gate) change(f func() error) error {
	if err := g.shut(); err != nil {
		return err
	}
	return g.hear(f())
}

// hear tells the store of an error that is none of names. (A file that is not there is looked for, too.)
func (g *gate) hear(err error) error {
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrExist) {
		g.fail(err)
	}
	return err
}

// changed is change of what gives a file.
func (g *gate) changed(f func() (vfs.File, error)) (file vfs.File, err error) {
	if err := g.change(func() (err error) { file, err = f(); return err }); err != nil {
		return nil, err
	}
	return &gateFile{file, g}, nil
}

func (g *gate) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return g.changed(func() (vfs.File, error) { return g.FS.Create(name, c) })
}

func (g *gate) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return g.changed(func() (vfs.File, error) { return g.FS.OpenReadWrite(name, c, o...) })
}

func (g *gate) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return g.changed(func() (vfs.File, error) { return g.FS.ReuseForWrite(from, to, c) })
}

func (g *gate) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := g.FS.Open(name, o...)
	if err != nil {
		return nil, g.hear(err)
	}
	return &gateFile{f, g}, nil
}

func (g *gate) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, g.hear(err)
	}
	return &gateDir{gateFile{f, g}}, nil
}

func (g *gate) Link(from, to string) error {
	return g.change(func() error { return g.FS.Link(from, to) })
}

func (g *gate) Rename(from, to string) error {
	return g.change(func() error { return g.FS.Rename(from, to) })
}

func (g *gate) MkdirAll(dir string, perm os.FileMode) error {
	return g.change(func() error { return g.FS.MkdirAll(dir, perm) })
}

func (g *gate) Remove(name string) error {
	if err := g.shut(); err != nil {
		return err
	}
	return g.FS.Remove(name)
}

func (g *gate) RemoveAll(name string) error {
	if err := g.shut(); err != nil {
		return err
	}
	return g.FS.RemoveAll(name)
}

func (g *gate) Unwrap() vfs.FS { return g.FS }

// gateFile is a file of it.
type gateFile struct {
	vfs.File
	g *gate
}

func (f *gateFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	return n, f.g.hear(err)
}

func (f *gateFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	return n, f.g.hear(err)
}

func (f *gateFile) Write(p []byte) (n int, err error) {
	err = f.g.change(func() (err error) { n, err = f.File.Write(p); return err })
	return n, err
}

func (f *gateFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.g.change(func() (err error) { n, err = f.File.WriteAt(p, off); return err })
	return n, err
}

func (f *gateFile) Sync() error     { return f.g.change(f.File.Sync) }
func (f *gateFile) SyncData() error { return f.g.change(f.File.SyncData) }

func (f *gateFile) SyncTo(length int64) (full bool, err error) {
	err = f.g.change(func() (err error) { full, err = f.File.SyncTo(length); return err })
	return full, err
}

// Preallocate may fail: the write says whether there is room.
func (f *gateFile) Preallocate(off, length int64) error {
	if err := f.g.shut(); err != nil {
		return err
	}
	return f.File.Preallocate(off, length)
}

// gateDir is a directory to be synced. Where that fails pebble panics, in a goroutine of its own: so it does not hear of it. The store has failed, and nothing
// that follows from its belief is written or removed.
type gateDir struct{ gateFile }

func (d *gateDir) Sync() error {
	_ = d.gateFile.Sync()
	return nil
}
