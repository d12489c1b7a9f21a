package vfstest

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog/internal/vfs"
)

func testCreate(t *testing.T, fsys vfs.FS) {
	f := create(t, fsys, "a", "hello")
	if f.Name() != "a" {
		t.Fatalf("name is %q, want a", f.Name())
	}
	_, err := fsys.Create("a")
	wantErr(t, "create of a taken name", err, fs.ErrExist)
	_, err = fsys.Open("b")
	wantErr(t, "open of a missing file", err, fs.ErrNotExist)
	_, err = fsys.Stat("b")
	wantErr(t, "stat of a missing file", err, fs.ErrNotExist)
	_, err = fsys.Create("d/b")
	wantErr(t, "create in a missing directory", err, fs.ErrNotExist)
	if _, err = fsys.Create("a/b"); err == nil {
		t.Fatal("created a file below a file")
	}
	wantFile(t, fsys, "a", "hello")
	must(t, f.Close())
	wantErr(t, "second close", f.Close(), fs.ErrClosed)
	_, err = f.WriteAt([]byte("x"), 0)
	wantErr(t, "write after close", err, fs.ErrClosed)
	_, err = f.ReadAt(make([]byte, 1), 0)
	wantErr(t, "read after close", err, fs.ErrClosed)
	wantErr(t, "sync after close", f.Sync(), fs.ErrClosed)
	wantErr(t, "datasync after close", f.Datasync(), fs.ErrClosed)
	wantErr(t, "truncate after close", f.Truncate(1), fs.ErrClosed)
	i, err := fsys.Stat("a")
	must(t, err)
	if i.Name != "a" || i.Size != 5 || i.Dir || i.Allocated <= 0 || time.Since(i.Modified).Abs() > time.Hour {
		t.Fatalf("stat gives %+v, want a, 5 bytes, now", i)
	}
}

func testNames(t *testing.T, fsys vfs.FS) {
	must(t, fsys.Mkdir("d"))
	create(t, fsys, "a", "x")
	for _, name := range []string{"", "/a", "../a", "d/../../a", "d/../a", "./a", "d//a", "d/", ".."} {
		for what, err := range map[string]error{
			"open":       second(fsys.Open(name)),
			"create":     second(fsys.Create(name)),
			"mkdir":      fsys.Mkdir(name),
			"remove":     fsys.Remove(name),
			"rename":     fsys.Rename(name, "z"),
			"rename to":  fsys.Rename("a", name),
			"link":       fsys.Link(name, "z"),
			"link to":    fsys.Link("a", name),
			"list":       second(fsys.List(name)),
			"stat":       second(fsys.Stat(name)),
			"syncdir":    fsys.SyncDir(name),
			"lock":       second(fsys.Lock(name)),
			"create odd": second(fsys.Create(name + "/../../b")),
		} {
			if !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%s of %q: got %v, want fs.ErrInvalid", what, name, err)
			}
		}
	}
	wantFile(t, fsys, "a", "x")
}

func second[T any](_ T, err error) error { return err }

func testMkdir(t *testing.T, fsys vfs.FS) {
	must(t, fsys.Mkdir("a/b/c"))
	must(t, fsys.Mkdir("a/b"))
	must(t, fsys.Mkdir("."))
	create(t, fsys, "a/b/c/f", "x")
	i, err := fsys.Stat("a/b")
	must(t, err)
	if !i.Dir || i.Name != "b" {
		t.Fatalf("stat of a directory gives %+v", i)
	}
	if err := fsys.Mkdir("a/b/c/f"); err == nil {
		t.Fatal("made a directory over a file")
	}
	if err := fsys.Mkdir("a/b/c/f/g"); err == nil {
		t.Fatal("made a directory below a file")
	}
}

// names lists a directory as "a b/ c": sorted, directories with a slash.
func names(t *testing.T, fsys vfs.FS, dir string) string {
	t.Helper()
	infos, err := fsys.List(dir)
	must(t, err)
	var all []string
	for _, i := range infos {
		if i.Dir {
			i.Name += "/"
		}
		all = append(all, i.Name)
	}
	return strings.Join(all, " ")
}

func wantNames(t *testing.T, fsys vfs.FS, dir, want string) {
	t.Helper()
	if got := names(t, fsys, dir); got != want {
		t.Fatalf("%s holds %q, want %q", dir, got, want)
	}
}

func testList(t *testing.T, fsys vfs.FS) {
	wantNames(t, fsys, ".", "")
	for _, name := range []string{"b", "a10", "c", "a", "a2"} {
		create(t, fsys, name, name)
	}
	must(t, fsys.Mkdir("b5/x"))
	wantNames(t, fsys, ".", "a a10 a2 b b5/ c")
	wantNames(t, fsys, "b5", "x/")
	infos, err := fsys.List(".")
	must(t, err)
	if infos[1].Size != 3 {
		t.Fatalf("size of a10 is %d, want 3", infos[1].Size)
	}
	_, err = fsys.List("nope")
	wantErr(t, "list of a missing directory", err, fs.ErrNotExist)
	if _, err := fsys.List("a"); err == nil {
		t.Fatal("listed a file")
	}
}

func testRename(t *testing.T, fsys vfs.FS) {
	f := create(t, fsys, "a", "first")
	g := create(t, fsys, "b", "second")
	must(t, fsys.Rename("a", "b"))
	wantNames(t, fsys, ".", "b")
	wantFile(t, fsys, "b", "first")
	wantContent(t, g, "second") // replaced, still open
	write(t, f, "F", 0)
	wantFile(t, fsys, "b", "First")
	must(t, fsys.Rename("b", "b"))
	must(t, fsys.Mkdir("d/e"))
	must(t, fsys.Rename("b", "d/e/c"))
	wantNames(t, fsys, ".", "d/")
	wantFile(t, fsys, "d/e/c", "First")
	must(t, fsys.Rename("d/e", "e"))
	wantFile(t, fsys, "e/c", "First")
	wantNames(t, fsys, "d", "")
	wantErr(t, "rename of a missing file", fsys.Rename("nope", "x"), fs.ErrNotExist)
	wantErr(t, "rename into a missing directory", fsys.Rename("e/c", "nope/x"), fs.ErrNotExist)
	if err := fsys.Rename("e/c", "d"); err == nil {
		t.Fatal("renamed a file over a directory")
	}
	if err := fsys.Rename("e", "e/f"); err == nil {
		t.Fatal("moved a directory into itself")
	}
}

func testLink(t *testing.T, fsys vfs.FS) {
	f := create(t, fsys, "a", "one")
	create(t, fsys, "c", "other")
	must(t, fsys.Link("a", "b"))
	write(t, f, "two", 0)
	wantFile(t, fsys, "b", "two")
	wantErr(t, "link to a taken name", fsys.Link("a", "c"), fs.ErrExist)
	wantErr(t, "link of a missing file", fsys.Link("nope", "x"), fs.ErrNotExist)
	must(t, fsys.Rename("a", "b")) // two names of one file: POSIX leaves both or takes one away
	wantFile(t, fsys, "b", "two")
	must(t, fsys.Remove("b"))
	wantContent(t, f, "two")
}

func testRemove(t *testing.T, fsys vfs.FS) {
	create(t, fsys, "a", "x")
	must(t, fsys.Mkdir("d"))
	create(t, fsys, "d/f", "x").Close()
	if err := fsys.Remove("d"); err == nil {
		t.Fatal("removed a directory that is not empty")
	}
	must(t, fsys.Remove("d/f"))
	must(t, fsys.Remove("d"))
	wantErr(t, "second remove", fsys.Remove("d"), fs.ErrNotExist)
	wantNames(t, fsys, ".", "a")
	if err := fsys.Remove("."); err == nil {
		t.Fatal("removed the root")
	}
}

func testSyncDir(t *testing.T, fsys vfs.FS) {
	must(t, fsys.SyncDir("."))
	must(t, fsys.Mkdir("d"))
	create(t, fsys, "d/f", "x")
	must(t, fsys.SyncDir("d"))
	must(t, fsys.SyncDir("."))
	wantErr(t, "sync of a missing directory", fsys.SyncDir("nope"), fs.ErrNotExist)
	wantFile(t, fsys, "d/f", "x")
}

func testLock(t *testing.T, fsys vfs.FS) {
	l, err := fsys.Lock("LOCK")
	must(t, err)
	i, err := fsys.Stat("LOCK")
	must(t, err)
	if i.Size == 0 {
		t.Fatal("the lock file does not say who holds it")
	}
	_, err = fsys.Lock("LOCK")
	wantErr(t, "second lock", err, vfs.ErrLocked)
	var held *vfs.LockedError
	if !errors.As(err, &held) || path.Base(held.Name) != "LOCK" || held.PID != os.Getpid() || held.Host == "" || time.Since(held.Since).Abs() > time.Hour {
		t.Fatalf("second lock: got %#v, want this process, now", err)
	}
	other, err := fsys.Lock("LOCK2")
	must(t, err)
	must(t, other.Close())
	must(t, l.Close())
	if l.Close() == nil {
		t.Fatal("a lock was released twice")
	}
	wantFile(t, fsys, "LOCK", "") // left in place, emptied
	l, err = fsys.Lock("LOCK")
	must(t, err)
	must(t, l.Close())
}

func testClose(t *testing.T, fsys vfs.FS) {
	f := create(t, fsys, "a", "x")
	must(t, fsys.Close())
	write(t, f, "y", 0)
	wantContent(t, f, "y")
	if _, err := fsys.Open("a"); err == nil {
		t.Fatal("opened a file of a closed file system")
	}
	if _, err := fsys.List("."); err == nil {
		t.Fatal("listed a closed file system")
	}
}
