package vfs_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/internal/vfs/vfstest"
)

// closing closes the file system above as well, as the suite expects of one that
// stands alone.
type closing struct {
	vfs.FS
	above vfs.FS
}

func (c closing) Close() error { return c.above.Close() }

func sub(t *testing.T, above vfs.FS, dir string) vfs.FS {
	t.Helper()
	if err := above.Mkdir(dir); err != nil {
		t.Fatal(err)
	}
	return closing{vfs.Sub(above, dir), above}
}

func TestSubOfMem(t *testing.T) {
	vfstest.Run(t, func(t *testing.T) vfs.FS { return sub(t, vfs.NewMem(), "a/b") })
}

func TestSubOfSub(t *testing.T) {
	vfstest.Run(t, func(t *testing.T) vfs.FS {
		m := vfs.NewMem()
		return closing{vfs.Sub(sub(t, m, "a"), "."), m}
	})
}

func TestSubOfOS(t *testing.T) {
	vfstest.Run(t, func(t *testing.T) vfs.FS {
		above, err := vfs.OS(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { above.Close() })
		return sub(t, above, "d")
	})
}

func TestSubStaysInside(t *testing.T) {
	m := vfs.NewMem()
	f, err := m.Create("secret")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	s := vfs.Sub(vfs.Sub(m, "a"), "b")
	if err := m.Mkdir("a/b"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../../secret", "..", "../..", "x/../../../secret", "/secret"} {
		if _, err := s.Open(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("open of %q: got %v, want fs.ErrInvalid", name, err)
		}
		if err := s.Rename("x", name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("rename to %q: got %v, want fs.ErrInvalid", name, err)
		}
	}
	if f, err = s.Create("inside"); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := m.Stat("a/b/inside"); err != nil || f.Name() != "inside" {
		t.Errorf("file %q made below a/b: %v", f.Name(), err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := m.Stat("a/b/inside"); err != nil {
		t.Errorf("after a sub was closed, above it: %v", err)
	}
}
