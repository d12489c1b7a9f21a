package backup

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/crc64"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

var ecma = crc64.MakeTable(crc64.ECMA)

// Source is what is to be copied.
type Source struct {
	Head  Head
	Logs  []Log
	Files []File
}

// Log is a log of the database, held for as long as the backup runs.
type Log struct {
	Path, Name string
	*log.Capture
	Release func() // called as soon as the log is copied; nil is nothing
}

// File is a small file of the database.
type File struct {
	Path string
	Data []byte
}

// Progress is how far a backup, a check or a restore has come.
type Progress struct {
	Stage       string // "copy", "verify", "restore"
	Done, Total int64  // bytes
	Path        string // what is being worked on
}

// Options say how. Nil is all defaults.
type Options struct {
	Progress func(Progress)
	// VerifyNew checks only what this run has written, not what it reuses.
	VerifyNew bool
}

// Report says what was written.
type Report struct {
	Manifest *Manifest
	Logs     int
	Files    int   // all
	Bytes    int64 // all
	// Reused were there already, from the backup before or from one that was stopped.
	ReusedFiles int
	ReusedBytes int64
	Removed     int // objects of older backups that nothing needs any more
	// Trimmed are logs of which retention deleted something between the cut and the
	// copy: what is deleted is not in the backup.
	Trimmed []string
}

// writer is one run.
type writer struct {
	ctx      context.Context
	fs       vfs.FS
	objects  vfs.FS
	opts     Options
	report   Report
	manifest *Manifest
	known    map[string]Entry // by object, of the backup before
	fresh    map[string]bool  // objects written in this run
	done     int64
	total    int64
}

// Write makes dst hold a backup of src, and returns when it is durable and was read
// back. Nothing of an earlier backup there is lost before. When it fails the earlier
// one still counts, and another Write goes on with what is there.
func Write(ctx context.Context, dst vfs.FS, src *Source, o *Options) (Report, error) {
	w := &writer{ctx: ctx, fs: dst, objects: vfs.Sub(dst, objectsName), manifest: &Manifest{Head: src.Head}, known: make(map[string]Entry), fresh: make(map[string]bool)}
	if o != nil {
		w.opts = *o
	}
	w.manifest.Format = manifestVersion
	err := w.run(src)
	w.report.Manifest = w.manifest
	return w.report, err
}

func (w *writer) run(src *Source) error {
	if err := checkDestination(w.fs); err != nil {
		return err
	}
	lock, err := w.fs.Lock(lockName)
	if err != nil {
		return err
	}
	defer lock.Close()
	before, err := ReadManifest(w.fs)
	switch {
	case err == nil:
		for _, e := range before.Entries {
			w.known[e.Object] = e
		}
	case !errors.Is(err, ErrIncomplete) && !errors.Is(err, log.ErrCorrupt): // a damaged one is no backup: it is made anew
		return err
	}
	if err := w.fs.Mkdir(objectsName); err != nil {
		return err
	}
	for i := range src.Logs {
		for _, s := range src.Logs[i].Segments {
			w.total += s.Bytes
		}
	}
	for i := range src.Logs {
		if err := w.log(&src.Logs[i]); err != nil {
			return fmt.Errorf("%s: %w", src.Logs[i].Name, err)
		}
	}
	for _, f := range src.Files {
		if err := w.small(f.Path, f.Data); err != nil {
			return err
		}
	}
	if err := w.fs.SyncDir(objectsName); err != nil {
		return err
	}
	if err := w.fs.SyncDir("."); err != nil {
		return err
	}
	w.report.Logs, w.report.Files, w.report.Bytes = len(w.manifest.Logs), len(w.manifest.Entries), w.manifest.Bytes()
	// Read back before it counts: a backup that was never read is a hope.
	v := &verifier{ctx: w.ctx, objects: w.objects, manifest: w.manifest, progress: w.opts.Progress}
	if w.opts.VerifyNew {
		v.only = w.fresh
	}
	if err := v.run(); err != nil {
		return err
	}
	if err := w.commit(); err != nil {
		return err
	}
	return w.sweep()
}

// commit makes the manifest the one that counts.
func (w *writer) commit() error {
	b, err := w.manifest.encode()
	if err != nil {
		return err
	}
	return replaceFile(w.fs, manifestName, b)
}

// replaceFile gives a file in the root new content in one step.
func replaceFile(fsys vfs.FS, name string, b []byte) error {
	if err := writeNew(fsys, name+tmpSuffix, b); err != nil {
		return err
	}
	if err := fsys.Rename(name+tmpSuffix, name); err != nil {
		return err
	}
	return fsys.SyncDir(".")
}

// writeNew makes a file, durable but for its name, in place of one that a run before left.
func writeNew(fsys vfs.FS, name string, b []byte) error {
	f, err := createAnew(fsys, name)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func createAnew(fsys vfs.FS, name string) (vfs.File, error) {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return fsys.Create(name)
}

// log copies a log. Retention may take its first segments meanwhile; then the copy
// starts behind them.
func (w *writer) log(l *Log) error {
	if l.Release != nil {
		defer l.Release()
	}
	var entries []Entry
	trimmed := false
	for i := 0; i < len(l.Segments); {
		e, err := w.segment(l, i)
		if errors.Is(err, log.ErrGone) {
			l.Drop(i)
			entries, i, trimmed = nil, 0, true
			continue
		}
		if err != nil {
			return err
		}
		entries = append(entries, e)
		i++
	}
	if trimmed {
		w.report.Trimmed = append(w.report.Trimmed, l.Name)
	}
	w.manifest.Entries = append(w.manifest.Entries, entries...)
	if err := w.small(l.Path+"/checkpoint", l.Checkpoint()); err != nil {
		return err
	}
	w.manifest.Logs = append(w.manifest.Logs, Cut{Path: l.Path, Name: l.Name, Start: l.Start, End: l.End})
	return nil
}

func (w *writer) segment(l *Log, i int) (Entry, error) {
	s := l.Segments[i]
	e := Entry{Path: l.Path + "/" + s.Name, Object: fmt.Sprintf("%016x-%020d-%016x-%d", l.LogID, s.BaseOffset, s.Tag, s.Bytes), Bytes: s.Bytes}
	if found, err := w.reuse(&e); found || err != nil {
		return e, err
	}
	return e, w.object(&e, func(to io.Writer) error { return l.CopySegment(w.ctx, i, to) })
}

func (w *writer) small(name string, data []byte) error {
	sum := crc32.Checksum(data, castagnoli)
	// 96 bits: thousands of checkpoints of one size must not be taken for each other.
	e := Entry{Path: name, Object: fmt.Sprintf("%08x%016x-%d-%s", sum, crc64.Checksum(data, ecma), len(data), path.Base(name)), Bytes: int64(len(data)), CRC: crc(sum)}
	found, err := w.reuse(&e)
	if err == nil && !found {
		err = w.object(&e, func(to io.Writer) error {
			_, err := to.Write(data)
			return err
		})
	}
	w.manifest.Entries = append(w.manifest.Entries, e)
	return err
}

// reuse looks for an object that is there already. Its checksum is known from the
// manifest before; where that does not name it, a run was stopped, and it is read.
func (w *writer) reuse(e *Entry) (found bool, err error) {
	if w.fresh[e.Object] {
		return true, nil // the same small file twice
	}
	info, err := w.objects.Stat(e.Object)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (info.Dir || info.Size != e.Bytes) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if before, ok := w.known[e.Object]; ok && before.Bytes == e.Bytes {
		e.CRC = before.CRC
	} else if e.CRC, err = sumOf(w.ctx, w.objects, e.Object, e.Bytes, nil); err != nil {
		return false, err
	}
	w.report.ReusedFiles++
	w.report.ReusedBytes += e.Bytes
	w.step(e, e.Bytes)
	return true, nil
}

func (w *writer) step(e *Entry, n int64) {
	if w.done += n; w.opts.Progress != nil {
		w.opts.Progress(Progress{Stage: "copy", Done: min(w.done, w.total), Total: w.total, Path: e.Path})
	}
}

// object writes an object: it gets its name when it is whole and durable.
func (w *writer) object(e *Entry, write func(io.Writer) error) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	f, err := createAnew(w.objects, e.Object+tmpSuffix)
	if err != nil {
		return err
	}
	out := &summing{w: w, e: e, f: f}
	err = write(out)
	if err == nil && out.size != e.Bytes {
		err = fmt.Errorf("%s: %d bytes, expected %d", e.Path, out.size, e.Bytes)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		w.objects.Remove(e.Object + tmpSuffix) // otherwise the next run does
		return err
	}
	e.CRC = crc(out.sum)
	w.fresh[e.Object] = true
	return w.objects.Rename(e.Object+tmpSuffix, e.Object)
}

// summing writes to the end of a file and sums up.
type summing struct {
	w    *writer
	e    *Entry
	f    vfs.File
	sum  uint32
	size int64
}

func (s *summing) Write(p []byte) (int, error) {
	n, err := s.f.Append(p)
	s.sum = crc32.Update(s.sum, castagnoli, p[:n])
	s.size += int64(n)
	s.w.step(s.e, int64(n))
	return n, err
}

// sweep removes the objects that the manifest does not name, and nothing that is
// not called as objects are.
func (w *writer) sweep() error {
	named := make(map[string]bool)
	for _, e := range w.manifest.Entries {
		named[e.Object] = true
	}
	infos, err := w.objects.List(".")
	if err != nil {
		return err
	}
	for _, info := range infos {
		if named[info.Name] || info.Dir || !objectName.MatchString(info.Name) {
			continue
		}
		if err := w.objects.Remove(info.Name); err != nil {
			return err
		}
		if !strings.HasSuffix(info.Name, tmpSuffix) {
			w.report.Removed++
		}
	}
	return nil
}

// sumOf reads an object of which the size is known.
func sumOf(ctx context.Context, fsys vfs.FS, name string, size int64, step func(n int64)) (crc, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b := make([]byte, min(max(size, 1), 256<<10))
	sum := uint32(0)
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := f.ReadAt(b[:min(int64(len(b)), size-at)], at)
		if n == 0 && err != nil {
			if err == io.EOF {
				return 0, damaged(path.Join(objectsName, name), at, "it ends here, %d bytes were expected", size)
			}
			return 0, err
		}
		sum = crc32.Update(sum, castagnoli, b[:n])
		at += int64(n)
		if step != nil {
			step(int64(n))
		}
	}
	return crc(sum), nil
}
