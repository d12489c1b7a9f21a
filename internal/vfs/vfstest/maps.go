package vfstest

import (
	"errors"
	"io/fs"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// mapped maps a window, or skips the test where there is no mapping.
func mapped(t *testing.T, f vfs.File, off int64, n int) vfs.Mapping {
	t.Helper()
	m, err := f.Map(off, n)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("no mapping here: ", err)
	}
	must(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

func testMap(t *testing.T, fsys vfs.FS) {
	f := create(t, fsys, "a", "")
	must(t, f.Truncate(3*vfs.MapAlign))
	m := mapped(t, f, vfs.MapAlign, vfs.MapAlign)
	if got := len(m.Bytes()); got != vfs.MapAlign {
		t.Fatalf("the window has %d bytes, want %d", got, vfs.MapAlign)
	}
	must(t, m.Store(0, []byte("start")))
	must(t, m.Store(vfs.MapAlign-3, []byte("end")))
	must(t, m.Store(vfs.MapAlign, nil))
	var loaded [5]byte
	must(t, m.Load(0, loaded[:]))
	if string(loaded[:]) != "start" {
		t.Fatalf("loaded %q", loaded)
	}
	must(t, m.Load(vfs.MapAlign, nil))
	must(t, f.Datasync())
	want := make([]byte, 3*vfs.MapAlign)
	copy(want[vfs.MapAlign:], "start")
	copy(want[2*vfs.MapAlign-3:], "end")
	wantContent(t, f, string(want))

	wantErr(t, "store past the window", m.Store(vfs.MapAlign-2, []byte("abc")), fs.ErrInvalid)
	wantErr(t, "store before the window", m.Store(-1, []byte("abc")), fs.ErrInvalid)
	wantErr(t, "load past the window", m.Load(vfs.MapAlign-2, loaded[:]), fs.ErrInvalid)
	wantErr(t, "load before the window", m.Load(-1, loaded[:]), fs.ErrInvalid)
	for _, c := range []struct {
		off int64
		n   int
	}{{1, 10}, {4096 + 1, 10}, {-vfs.MapAlign, 10}, {0, 0}, {0, -1}} {
		_, err := f.Map(c.off, c.n)
		wantErr(t, "bad window", err, fs.ErrInvalid)
	}
	must(t, m.Close())
	wantErr(t, "second close", m.Close(), fs.ErrClosed)
	wantErr(t, "store after close", m.Store(0, []byte("x")), fs.ErrClosed)
	wantErr(t, "load after close", m.Load(0, loaded[:]), fs.ErrClosed)
}

// testMapCoherent checks that two windows and reads and writes of the file show
// the same bytes at once.
func testMapCoherent(t *testing.T, fsys vfs.FS) {
	f := create(t, fsys, "a", strings.Repeat("-", 2*vfs.MapAlign))
	all := mapped(t, f, 0, 2*vfs.MapAlign)
	half := mapped(t, f, vfs.MapAlign, vfs.MapAlign)
	at := func(off int, want string) {
		t.Helper()
		buf := make([]byte, len(want))
		if _, err := f.ReadAt(buf, int64(off)); err != nil {
			t.Fatal(err)
		}
		if got := string(all.Bytes()[off : off+len(want)]); got != want || string(buf) != want {
			t.Fatalf("at %d: mapped %q, read %q, want %q", off, got, buf, want)
		}
		if off >= vfs.MapAlign {
			if got := string(half.Bytes()[off-vfs.MapAlign:][:len(want)]); got != want {
				t.Fatalf("at %d: second window shows %q, want %q", off, got, want)
			}
		}
	}
	at(vfs.MapAlign-4, "--------"[:4])
	write(t, f, "write", 100)
	at(100, "write")
	must(t, half.Store(10, []byte("store")))
	at(vfs.MapAlign+10, "store")
	must(t, all.Store(vfs.MapAlign-2, []byte("over")))
	at(vfs.MapAlign-2, "ov")
	at(vfs.MapAlign, "er")
	must(t, f.Zero(vfs.MapAlign+11, 2))
	at(vfs.MapAlign+10, "s\x00\x00re")
	must(t, f.Datasync())
	must(t, all.Store(200, []byte("after sync")))
	at(200, "after sync")
	must(t, f.Close())
	must(t, all.Store(300, []byte("after close")))
	wantFileAt(t, fsys, "a", 300, "after close")
}

func wantFileAt(t *testing.T, fsys vfs.FS, name string, off int64, want string) {
	t.Helper()
	f, err := fsys.Open(name)
	must(t, err)
	defer f.Close()
	buf := make([]byte, len(want))
	if n, err := f.ReadAt(buf, off); n != len(want) || string(buf) != want {
		t.Fatalf("%s at %d: got %q, %v, want %q", name, off, buf[:n], err, want)
	}
}

// testMapEnd touches what lies past the end of the file.
func testMapEnd(t *testing.T, fsys vfs.FS) {
	f := create(t, fsys, "a", strings.Repeat("x", 2*vfs.MapAlign))
	m := mapped(t, f, 0, 3*vfs.MapAlign)
	isFault := func(what string, err error) {
		t.Helper()
		var fault *vfs.FaultError
		if !errors.As(err, &fault) || !errors.Is(err, vfs.ErrFault) || path.Base(fault.Name) != "a" {
			t.Fatalf("%s: got %v, want a *FaultError of a", what, err)
		}
	}
	isFault("store past the end", m.Store(2*vfs.MapAlign+5, []byte("x")))
	isFault("load past the end", m.Load(2*vfs.MapAlign, make([]byte, vfs.MapAlign)))
	must(t, f.Truncate(vfs.MapAlign))
	isFault("store after the file was cut", m.Store(vfs.MapAlign+5, []byte("y")))
	isFault("load after the file was cut", m.Load(vfs.MapAlign+5, make([]byte, 1)))
	isFault("store that crosses the end", m.Store(vfs.MapAlign-2, []byte("abcd")))
	must(t, m.Store(vfs.MapAlign-5, []byte("fine")))
	wantFileAt(t, fsys, "a", vfs.MapAlign-5, "fine")
}

// testMapGrow lets the file grow under the window, and come back after a cut.
func testMapGrow(t *testing.T, fsys vfs.FS) {
	f := create(t, fsys, "a", strings.Repeat("x", 100))
	m := mapped(t, f, 0, 2*vfs.MapAlign)
	must(t, f.Truncate(vfs.MapAlign))
	must(t, m.Store(vfs.MapAlign-4, []byte("last")))
	write(t, f, "more", vfs.MapAlign)
	if got := string(m.Bytes()[vfs.MapAlign-4 : vfs.MapAlign+4]); got != "lastmore" {
		t.Fatalf("after growing the window shows %q, want lastmore", got)
	}
	if _, err := f.Append([]byte("and")); err != nil {
		t.Fatal(err)
	}
	if got := string(m.Bytes()[vfs.MapAlign+4:][:3]); got != "and" {
		t.Fatalf("after an append the window shows %q, want and", got)
	}
	must(t, f.Truncate(50))
	must(t, f.Truncate(2*vfs.MapAlign))
	for i, b := range m.Bytes() {
		if want := byte('x'); i < 50 && b != want || i >= 50 && b != 0 {
			t.Fatalf("byte %d is %q after the file was cut at 50 and grown", i, b)
		}
	}
	must(t, f.Truncate(50))
	write(t, f, "z", 80) // a gap over what was cut
	if got := string(m.Bytes()[48:82]); got != "xx"+strings.Repeat("\x00", 30)+"z\x00" {
		t.Fatalf("the window shows %q over a gap", got)
	}
}

func testMapUnlinked(t *testing.T, fsys vfs.FS) {
	f := create(t, fsys, "a", strings.Repeat("x", vfs.MapAlign))
	m := mapped(t, f, 0, vfs.MapAlign)
	must(t, f.Close())
	must(t, fsys.Remove("a"))
	must(t, m.Store(1, []byte("y")))
	if got := string(m.Bytes()[:3]); got != "xyx" {
		t.Fatalf("the window of an unlinked file shows %q", got)
	}
}

// testConcurrentMap stores in one goroutine what others load after it was
// published; under the race detector it shows that this is no race.
func testConcurrentMap(t *testing.T, fsys vfs.FS) {
	f := create(t, fsys, "a", "")
	must(t, f.Truncate(vfs.MapAlign))
	m := mapped(t, f, 0, vfs.MapAlign)
	const piece, pieces = 100, 300
	var end atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range pieces {
			if err := m.Store(i*piece, []byte(strings.Repeat(string(rune('a'+i%26)), piece))); err != nil {
				t.Error(err)
			}
			end.Store(int64(i+1) * piece)
			if i%50 == 49 {
				if err := f.Datasync(); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for range 2 {
		wg.Go(func() {
			buf := make([]byte, piece)
			for seen := int64(0); seen < piece*pieces; {
				if now := end.Load(); now > seen {
					i := now/piece - 1
					got := string(m.Bytes()[i*piece : now])
					if _, err := f.ReadAt(buf, i*piece); err != nil {
						t.Error(err)
					}
					if want := strings.Repeat(string(rune('a'+i%26)), piece); got != want || string(buf) != want {
						t.Errorf("piece %d: mapped %q, read %q", i, got, buf)
						return
					}
					seen = now
				}
			}
		})
	}
	wg.Wait()
}
