package vfs_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

func TestOSMakesItsDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	f := openOS(t, dir)
	create(t, f, "file", "x")
	must(t, f.Mkdir("sub"))
	if runtime.GOOS == "windows" {
		return // modes mean nothing there
	}
	for name, want := range map[string]fs.FileMode{"": 0o700, "file": 0o600, "sub": 0o700} {
		i, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		if got := i.Mode().Perm(); got != want {
			t.Errorf("mode of %q is %o, want %o", name, got, want)
		}
	}
}

func TestOSStaysInside(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0o600))
	f := openOS(t, filepath.Join(dir, "root"))
	if err := os.Symlink("../secret", filepath.Join(dir, "root", "link")); err != nil {
		t.Skip("no symbolic links here: ", err)
	}
	if _, err := f.Open("link"); err == nil {
		t.Fatal("a symbolic link led out of the root")
	}
}

func TestOSLockFile(t *testing.T) {
	dir := t.TempDir()
	f := openOS(t, dir)
	path := filepath.Join(dir, "LOCK")
	must(t, os.WriteFile(path, []byte(strings.Repeat("what an older owner left ", 100)), 0o600))
	l, err := f.Lock("LOCK")
	must(t, err)
	text, err := os.ReadFile(path)
	must(t, err)
	var holder struct {
		PID   int
		Host  string
		Since string
	}
	if err := json.Unmarshal(text, &holder); err != nil || holder.PID != os.Getpid() {
		t.Fatalf("the lock file says %q (%v)", text, err)
	}
	// Another root, as another process would open it.
	_, err = openOS(t, dir).Lock("LOCK")
	if !errors.Is(err, vfs.ErrLocked) || !strings.Contains(err.Error(), holder.Host) {
		t.Fatalf("second lock: %v", err)
	}
	for _, text := range []string{"", "not json", `{"pid":"x"}`, strings.Repeat("[", 10000)} {
		must(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := f.Lock("LOCK")
		var held *vfs.LockedError
		if !errors.As(err, &held) || held.PID != 0 {
			t.Fatalf("lock over %q: %v", text, err)
		}
	}
	must(t, l.Close())
}

func TestGuard(t *testing.T) {
	boom := errors.New("boom")
	if err := vfs.Guard("a", func() error { return boom }); err != boom {
		t.Fatalf("got %v, want the error of the function", err)
	}
	wantPanic := func(name string, f func()) {
		t.Helper()
		defer func() {
			t.Helper()
			if recover() == nil {
				t.Errorf("%s: the panic was swallowed", name)
			}
		}()
		vfs.Guard("a", func() error { f(); return nil })
	}
	wantPanic("a nil dereference", func() { var p *int; *p = 1 })
	wantPanic("an index", func() { var p []int; i := 3; p[i] = 1 })
	wantPanic("a panic with a string", func() { panic("x") })

	f := create(t, openOS(t, t.TempDir()), "a", "")
	must(t, f.Truncate(vfs.MapAlign))
	w, err := f.Map(0, vfs.MapAlign)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("no mapping here: ", err)
	}
	must(t, err)
	sum := 0
	read := func() error {
		for _, b := range w.Bytes() {
			sum += int(b)
		}
		return nil
	}
	must(t, vfs.Guard("a", read))
	must(t, f.Truncate(0))
	err = vfs.Guard("a", read)
	var fault *vfs.FaultError
	if !errors.As(err, &fault) || fault.Name != "a" || fault.Addr == 0 {
		t.Fatalf("a load past the end: %#v, want a *FaultError", err)
	}
	// Nested: the inner guard must leave the outer one's protection on.
	err = vfs.Guard("outer", func() error {
		if err := vfs.Guard("inner", read); !errors.Is(err, vfs.ErrFault) {
			t.Errorf("inner: %v", err)
		}
		if err := w.Store(0, []byte("x")); !errors.Is(err, vfs.ErrFault) {
			t.Errorf("store: %v", err)
		}
		return read()
	})
	if !errors.As(err, &fault) || fault.Name != "outer" {
		t.Fatalf("after a nested guard: %v", err)
	}
}
