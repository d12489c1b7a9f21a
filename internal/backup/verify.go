package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// Verify reads a backup from end to end: the checksum of every file, then each log
// is opened, without a byte of the backup being written, checked, and compared with
// where it was cut. The first thing wrong is the error, and names the file.
func Verify(ctx context.Context, fsys vfs.FS, o *Options) (*Manifest, error) {
	m, err := ReadManifest(fsys)
	if err != nil {
		return nil, err
	}
	v := &verifier{ctx: ctx, objects: vfs.Sub(fsys, objectsName), manifest: m}
	if o != nil {
		v.progress = o.Progress
	}
	return m, v.run()
}

// verifier reads what a manifest names.
type verifier struct {
	ctx      context.Context
	objects  vfs.FS
	manifest *Manifest
	progress func(Progress)
	only     map[string]bool // objects to read; nil is all
	done     int64
	total    int64
}

func (v *verifier) wants(e *Entry) bool { return v.only == nil || v.only[e.Object] }

func (v *verifier) run() error {
	byDir := make(map[string][]Entry)
	for i := range v.manifest.Entries {
		e := &v.manifest.Entries[i]
		byDir[path.Dir(e.Path)] = append(byDir[path.Dir(e.Path)], *e)
		if v.wants(e) {
			v.total += e.Bytes
		}
	}
	for i := range v.manifest.Entries {
		e := &v.manifest.Entries[i]
		if !v.wants(e) {
			continue
		}
		if err := v.entry(e); err != nil {
			return fmt.Errorf("verify %s: %w", e.Path, err)
		}
	}
	for i := range v.manifest.Logs {
		cut := &v.manifest.Logs[i]
		if err := v.log(cut, byDir[cut.Path]); err != nil {
			return fmt.Errorf("verify %s: %w", cut.Name, err)
		}
	}
	return nil
}

func (v *verifier) entry(e *Entry) error {
	file := path.Join(objectsName, e.Object)
	info, err := v.objects.Stat(e.Object)
	if errors.Is(err, fs.ErrNotExist) {
		return damaged(file, 0, "it is missing")
	}
	if err != nil {
		return err
	}
	if info.Size != e.Bytes {
		return damaged(file, min(info.Size, e.Bytes), "%d bytes, %d were written", info.Size, e.Bytes)
	}
	sum, err := sumOf(v.ctx, v.objects, e.Object, e.Bytes, func(n int64) {
		if v.done += n; v.progress != nil {
			v.progress(Progress{Stage: "verify", Done: v.done, Total: v.total, Path: e.Path})
		}
	})
	if err != nil {
		return err
	}
	if sum != e.CRC {
		return damaged(file, 0, "checksum %08x, %08x was written", uint32(sum), uint32(e.CRC))
	}
	return nil
}

// log opens a log out of its objects, with a scratch that takes what opening writes.
func (v *verifier) log(cut *Cut, entries []Entry) error {
	var files []vfs.ScratchFile
	whole := v.only == nil
	for i := range entries {
		e := &entries[i]
		whole = whole || v.wants(e) && strings.HasSuffix(e.Path, ".log")
		files = append(files, vfs.ScratchFile{Name: path.Base(e.Path), FS: v.objects, As: e.Object, Bytes: e.Bytes})
	}
	return CheckLog(v.ctx, vfs.Scratch(files), cut, whole)
}

// CheckLog opens the log in fsys, which may be written to, and compares it with its
// cut. With whole all of it is read.
func CheckLog(ctx context.Context, fsys vfs.FS, cut *Cut, whole bool) (err error) {
	l, err := log.Open("", &log.Options{FS: fsys, NoLock: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	r := l.Recovered()
	switch {
	case r.Corruption != nil:
		return r.Corruption
	case r.CutBytes > 0:
		return damaged(r.CutFile, r.CutPosition, "%d bytes are torn: %s", r.CutBytes, r.CutReason)
	case l.StartOffset() != cut.Start || l.EndOffset() != cut.End:
		return damaged("checkpoint", 0, "offsets %d to %d, the cut has %d to %d", l.StartOffset(), l.EndOffset(), cut.Start, cut.End)
	case !whole:
		return nil
	}
	report, err := l.Verify(ctx)
	if err != nil {
		return err
	}
	for _, p := range report.Problems {
		if !p.Cache {
			return p
		}
	}
	return nil
}
