package raftload

import (
	"path"
	"strings"
	"sync/atomic"

	"github.com/x/embedlog/internal/vfs"
)

// Written is what was given to files to write, by what it is for: the bytes of the calls, a
// byte that is written twice counts twice.
type Written struct {
	Segments int64 // data files: frames, marks behind them, headers
	Zeros    int64 // laid ahead of frames
	Indexes  int64
	// Checkpoints are what is written whole: checkpoints, the node's own files.
	Checkpoints int64
	Votes       int64 // terms and votes
	Syncs       int64 // calls, of all files
}

// Minus is what was written since earlier.
func (w Written) Minus(earlier Written) Written {
	return Written{w.Segments - earlier.Segments, w.Zeros - earlier.Zeros, w.Indexes - earlier.Indexes, w.Checkpoints - earlier.Checkpoints, w.Votes - earlier.Votes, w.Syncs - earlier.Syncs}
}

// Bytes is all that was written, without the zeros.
func (w Written) Bytes() int64 { return w.Segments + w.Indexes + w.Checkpoints + w.Votes }

// countingFS counts what is written to the files of another. A file counts for what its name
// said when it was opened: a segment that is begun under another name is one from its suffix on.
type countingFS struct {
	vfs.FS
	segments, zeros, indexes, checkpoints, votes, syncs atomic.Int64
}

func (c *countingFS) written() Written {
	return Written{c.segments.Load(), c.zeros.Load(), c.indexes.Load(), c.checkpoints.Load(), c.votes.Load(), c.syncs.Load()}
}

// kind is where the bytes of a file count.
func (c *countingFS) kind(name string) *atomic.Int64 {
	base := strings.TrimSuffix(path.Base(name), ".tmp")
	switch {
	case strings.HasSuffix(base, ".log"), strings.HasPrefix(base, "spare"):
		return &c.segments
	case strings.HasSuffix(base, ".index"), strings.HasSuffix(base, ".timeindex"), strings.HasSuffix(base, ".txnindex"):
		return &c.indexes
	case strings.HasPrefix(base, "raft.votes"):
		return &c.votes
	}
	return &c.checkpoints
}

func (c *countingFS) Open(name string) (vfs.File, error) { return c.file(c.FS.Open(name)) }

func (c *countingFS) Create(name string) (vfs.File, error) { return c.file(c.FS.Create(name)) }

func (c *countingFS) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &countingFile{File: f, c: c, bytes: c.kind(f.Name())}, nil
}

type countingFile struct {
	vfs.File
	c     *countingFS
	bytes *atomic.Int64
}

func (f *countingFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	f.bytes.Add(int64(n))
	return n, err
}

func (f *countingFile) WritevAt(pieces [][]byte, off int64) (int, error) {
	n, err := f.File.WritevAt(pieces, off)
	f.bytes.Add(int64(n))
	return n, err
}

func (f *countingFile) Append(p []byte) (int, error) {
	n, err := f.File.Append(p)
	f.bytes.Add(int64(n))
	return n, err
}

func (f *countingFile) Zero(off, n int64) error {
	f.c.zeros.Add(n)
	return f.File.Zero(off, n)
}

func (f *countingFile) Sync() error {
	f.c.syncs.Add(1)
	return f.File.Sync()
}

func (f *countingFile) Datasync() error {
	f.c.syncs.Add(1)
	return f.File.Datasync()
}

func (f *countingFile) Map(off int64, n int) (vfs.Mapping, error) {
	m, err := f.File.Map(off, n)
	if err != nil {
		return nil, err
	}
	return &countingMapping{m, f.bytes}, nil
}

type countingMapping struct {
	vfs.Mapping
	bytes *atomic.Int64
}

func (m *countingMapping) Store(off int, p []byte) error {
	m.bytes.Add(int64(len(p)))
	return m.Mapping.Store(off, p)
}
