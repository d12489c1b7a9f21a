package vfs_test

import (
	"testing"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/internal/vfs/vfstest"
)

func TestOS(t *testing.T) {
	vfstest.Run(t, func(t *testing.T) vfs.FS { return openOS(t, t.TempDir()) })
}

func TestMem(t *testing.T) {
	vfstest.Run(t, func(*testing.T) vfs.FS { return vfs.NewMem() })
}

// TestHeirs runs the suite on what crashes and kills leave: they are whole file systems.
func TestVolatile(t *testing.T) {
	vfstest.Run(t, func(*testing.T) vfs.FS { return vfs.NewMem(vfs.Volatile()) })
}

func TestHeirs(t *testing.T) {
	vfstest.Run(t, func(*testing.T) vfs.FS { return vfs.NewMem().AfterCrash(nil).AfterKill() })
}

func TestFaultOfMem(t *testing.T) {
	vfstest.Run(t, func(*testing.T) vfs.FS { return vfs.NewFault(vfs.NewMem()) })
}

func TestFaultOfOS(t *testing.T) {
	vfstest.Run(t, func(t *testing.T) vfs.FS { return vfs.NewFault(openOS(t, t.TempDir())) })
}

func openOS(t testing.TB, dir string) vfs.FS {
	t.Helper()
	fs, err := vfs.OS(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	return fs
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
