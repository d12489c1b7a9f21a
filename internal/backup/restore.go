package backup

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"path"
	"slices"

	"github.com/x/embedlog/internal/vfs"
)

// Restore writes the files of the backup in src, whose manifest is m and which was
// verified, into dst, makes them durable, and verifies what was written. skip leaves
// files out, by path: those that the caller writes. dst holds nothing that a file
// here is called.
func Restore(ctx context.Context, src, dst vfs.FS, m *Manifest, o *Options, skip func(path string) bool) error {
	r := &restorer{ctx: ctx, objects: vfs.Sub(src, objectsName), dst: dst, manifest: m, total: m.Bytes(), dirs: make(map[string]bool)}
	if o != nil {
		r.progress = o.Progress
	}
	for i := range m.Entries {
		if e := &m.Entries[i]; !skip(e.Path) {
			if err := r.file(e); err != nil {
				return fmt.Errorf("restore %s: %w", e.Path, err)
			}
		}
	}
	if err := r.syncDirs(); err != nil {
		return err
	}
	return r.check()
}

// ReadFile reads a small file of a backup that was verified.
func ReadFile(src vfs.FS, m *Manifest, path string) ([]byte, error) {
	for i := range m.Entries {
		if e := &m.Entries[i]; e.Path == path && e.Bytes <= maxLine {
			f, err := src.Open(objectsName + "/" + e.Object)
			if err != nil {
				return nil, err
			}
			defer f.Close()
			b := make([]byte, e.Bytes)
			if n, err := f.ReadAt(b, 0); n < len(b) {
				return nil, err
			}
			return b, nil
		}
	}
	return nil, damaged(manifestName, 0, "it does not name %s", path)
}

type restorer struct {
	ctx         context.Context
	objects     vfs.FS
	dst         vfs.FS
	manifest    *Manifest
	progress    func(Progress)
	done, total int64
	dirs        map[string]bool // made
}

func (r *restorer) file(e *Entry) error {
	dir := path.Dir(e.Path)
	if dir != "." && !r.dirs[dir] {
		if err := r.dst.Mkdir(dir); err != nil {
			return err
		}
		r.dirs[dir] = true
	}
	from, err := r.objects.Open(e.Object)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := r.dst.Create(e.Path)
	if err != nil {
		return err
	}
	err = r.copy(e, from, to)
	if err == nil {
		err = to.Sync()
	}
	return errors.Join(err, to.Close())
}

func (r *restorer) copy(e *Entry, from, to vfs.File) error {
	b := make([]byte, min(max(e.Bytes, 1), 256<<10))
	sum := uint32(0)
	for at := int64(0); at < e.Bytes; {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		n, err := from.ReadAt(b[:min(int64(len(b)), e.Bytes-at)], at)
		if n == 0 && err != nil {
			return errors.Join(err, io.ErrUnexpectedEOF)
		}
		if _, err := to.Append(b[:n]); err != nil {
			return err
		}
		sum = crc32.Update(sum, castagnoli, b[:n])
		at += int64(n)
		if r.done += int64(n); r.progress != nil {
			r.progress(Progress{Stage: "restore", Done: r.done, Total: r.total, Path: e.Path})
		}
	}
	if crc(sum) != e.CRC {
		return damaged(path.Join(objectsName, e.Object), 0, "checksum %08x, %08x was written", sum, uint32(e.CRC))
	}
	return nil
}

// syncDirs makes all names durable, the deepest first.
func (r *restorer) syncDirs() error {
	all := make(map[string]bool)
	for dir := range r.dirs {
		for ; dir != "."; dir = path.Dir(dir) {
			all[dir] = true
		}
	}
	dirs := slices.Sorted(maps.Keys(all))
	slices.Reverse(dirs)
	for _, dir := range append(dirs, ".") {
		if err := r.dst.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// check reads back what was written, without changing it.
func (r *restorer) check() error {
	for i := range r.manifest.Logs {
		cut := &r.manifest.Logs[i]
		scratch, err := vfs.ScratchOf(r.dst, cut.Path)
		if err == nil {
			err = CheckLog(r.ctx, scratch, cut, true)
		}
		if err != nil {
			return fmt.Errorf("verify restored %s: %w", cut.Name, err)
		}
	}
	return nil
}
