// Package vfstest is what every implementation of vfs.FS passes.
//
//	func TestMem(t *testing.T) {
//		vfstest.Run(t, func(*testing.T) vfs.FS { return vfs.NewMem() })
//	}
//
// Where an implementation may answer errors.ErrUnsupported (Map, Allocate), the
// tests of that method are skipped when it does.
package vfstest

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// Run runs the suite. newFS returns a new, empty file system for each test.
func Run(t *testing.T, newFS func(t *testing.T) vfs.FS) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, fs vfs.FS)
	}{
		{"create", testCreate},
		{"names", testNames},
		{"mkdir", testMkdir},
		{"list", testList},
		{"rename", testRename},
		{"link", testLink},
		{"remove", testRemove},
		{"syncdir", testSyncDir},
		{"lock", testLock},
		{"close", testClose},
		{"read", testRead},
		{"write", testWrite},
		{"writev", testWritev},
		{"append", testAppend},
		{"truncate", testTruncate},
		{"allocate", testAllocate},
		{"zero", testZero},
		{"sync", testSync},
		{"unlinked", testUnlinked},
		{"map", testMap},
		{"map/coherent", testMapCoherent},
		{"map/end", testMapEnd},
		{"map/grow", testMapGrow},
		{"map/unlinked", testMapUnlinked},
		{"concurrent", testConcurrent},
		{"concurrent/map", testConcurrentMap},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, newFS(t)) })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: got error %v, want one that matches %v", what, err, want)
	}
}

func create(t *testing.T, fs vfs.FS, name, content string) vfs.File {
	t.Helper()
	f, err := fs.Create(name)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	if content != "" {
		write(t, f, content, 0)
	}
	return f
}

func write(t *testing.T, f vfs.File, s string, off int64) {
	t.Helper()
	if n, err := f.WriteAt([]byte(s), off); n != len(s) || err != nil {
		t.Fatalf("write %d bytes at %d: got %d, %v", len(s), off, n, err)
	}
}

func size(t *testing.T, f vfs.File) int64 {
	t.Helper()
	i, err := f.Info()
	must(t, err)
	return i.Size
}

// wantContent checks the whole file, read through f.
func wantContent(t *testing.T, f vfs.File, want string) {
	t.Helper()
	if got := size(t, f); got != int64(len(want)) {
		t.Fatalf("size is %d, want %d", got, len(want))
	}
	buf := make([]byte, len(want)+1)
	n, err := f.ReadAt(buf, 0)
	if n != len(want) || err != io.EOF {
		t.Fatalf("read of %d bytes: got %d, %v, want %d, EOF", len(buf), n, err, len(want))
	}
	if got := buf[:n]; !bytes.Equal(got, []byte(want)) {
		t.Fatalf("content is %s, want %s", abridged(got), abridged([]byte(want)))
	}
}

func wantFile(t *testing.T, fs vfs.FS, name, want string) {
	t.Helper()
	f, err := fs.Open(name)
	must(t, err)
	defer f.Close()
	wantContent(t, f, want)
}

// abridged is text short enough to read in a failure.
func abridged(p []byte) string {
	if len(p) > 64 {
		return string(bytes.ReplaceAll(p[:64], []byte{0}, []byte("."))) + "..."
	}
	return string(bytes.ReplaceAll(p, []byte{0}, []byte(".")))
}
