//go:build linux || darwin

package sock

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// shortDir is a directory whose socket fits into an address everywhere.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "sock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func mustListen(t *testing.T, dir string) *Listener {
	t.Helper()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// echo answers one connection with what it sends.
func echo(l *Listener) <-chan error {
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = io.Copy(c, c)
			err = errors.Join(err, c.Close())
		}
		done <- err
	}()
	return done
}

func speak(t *testing.T, dir string) {
	t.Helper()
	c, err := Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Fatalf("heard %q, %v", b, err)
	}
}

func TestListen(t *testing.T) {
	dir := shortDir(t)
	l := mustListen(t, dir)
	info, err := os.Lstat(filepath.Join(dir, Name))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 || info.Mode().Type() != fs.ModeSocket {
		t.Fatalf("the socket has mode %v", info.Mode())
	}
	done := echo(l)
	speak(t, dir)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, Name)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := Dial(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Dial after Close: %v, want fs.ErrNotExist", err)
	}
}

func TestCloseEndsAccept(t *testing.T) {
	l := mustListen(t, shortDir(t))
	done := echo(l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Accept: %v, want os.ErrClosed", err)
	}
}

// A path longer than an address takes a way round.
func TestListenInALongDirectory(t *testing.T) {
	dir := filepath.Join(shortDir(t), strings.Repeat("a", 100), strings.Repeat("b", 100))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(dir)
	if runtime.GOOS != "linux" {
		if !errors.Is(err, syscall.ENAMETOOLONG) {
			t.Fatalf("got %v, want ENAMETOOLONG", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	done := echo(l)
	speak(t, dir)
	if err := errors.Join(<-done, l.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestListenReplacesOnlyASocket(t *testing.T) {
	dir := shortDir(t)
	killed, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := killed.f.Close(); err != nil { // as a kill leaves it: the name stays
		t.Fatal(err)
	}
	if _, err := Dial(dir); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Dial to a socket that nobody has: %v, want ECONNREFUSED", err)
	}
	l := mustListen(t, dir)
	done := echo(l)
	speak(t, dir)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(filepath.Join(dir, Name), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(dir); err == nil {
		t.Fatal("a file that is no socket was taken for one")
	}
	if b, err := os.ReadFile(filepath.Join(dir, Name)); err != nil || string(b) != "mine" {
		t.Errorf("the file is %q now, %v", b, err)
	}
}
