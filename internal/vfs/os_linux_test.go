package vfs_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/internal/vfs/vfstest"
)

// smallDisk mounts a tmpfs of 1 MiB, or skips the test.
func smallDisk(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("no small disk here: mount: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestOSOnTmpfs(t *testing.T) {
	vfstest.Run(t, func(t *testing.T) vfs.FS { return openOS(t, smallDisk(t)) })
}

func TestOSFullDisk(t *testing.T) {
	const disk = 1 << 20
	f := openOS(t, smallDisk(t))
	a := create(t, f, "a", "")
	n, err := a.WriteAt(bytes.Repeat([]byte("x"), 2*disk), 0)
	var pathErr *fs.PathError
	if n <= 0 || n > disk || !errors.Is(err, vfs.ErrNoSpace) || !errors.Is(err, unix.ENOSPC) || !errors.As(err, &pathErr) {
		t.Fatalf("a write over the end of the disk: %d, %v", n, err)
	}
	if i, err := a.Info(); err != nil || i.Size != int64(n) {
		t.Fatalf("the file has %d bytes (%v), the write reported %d", i.Size, err, n)
	}
	must(t, a.Truncate(0))
	// In pieces: it stops inside the second one, and starts over behind what arrived.
	n, err = a.WritevAt([][]byte{bytes.Repeat([]byte("y"), disk/2+100), bytes.Repeat([]byte("z"), disk), []byte("end")}, 0)
	if n <= disk/2+100 || n > disk || !errors.Is(err, vfs.ErrNoSpace) || !errors.Is(err, unix.ENOSPC) || !errors.As(err, &pathErr) {
		t.Fatalf("pieces over the end of the disk: %d, %v", n, err)
	}
	if i, err := a.Info(); err != nil || i.Size != int64(n) {
		t.Fatalf("the file has %d bytes (%v), the write of pieces reported %d", i.Size, err, n)
	}
	for what, err := range map[string]error{
		"append":   second(a.Append([]byte("x"))),
		"zero":     a.Zero(disk, 8192),
		"allocate": a.Allocate(disk, 8192),
		"write":    second(create(t, f, "b", "").WriteAt([]byte("x"), 0)),
	} {
		if !errors.Is(err, vfs.ErrNoSpace) {
			t.Errorf("%s on a full disk: %v", what, err)
		}
	}
	must(t, a.Truncate(4*disk))
	w, err := a.Map(0, 4*disk)
	must(t, err)
	if err := w.Store(3*disk, []byte("x")); !errors.Is(err, vfs.ErrFault) {
		t.Errorf("store into a hole: %v", err)
	}
	l, err := f.Lock("LOCK") // a full disk must not keep an owner out
	must(t, err)
	must(t, l.Close())
	must(t, a.Truncate(0))
	write(t, a, "healed", 0)
}
