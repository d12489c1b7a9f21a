package vfstest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

func testRead(t *testing.T, fsys vfs.FS) {
	f := create(t, fsys, "a", "0123456789")
	for _, c := range []struct {
		off  int64
		n    int
		want string
		err  error
	}{
		{0, 10, "0123456789", nil},
		{3, 4, "3456", nil},
		{8, 2, "89", nil},
		{8, 3, "89", io.EOF},
		{10, 1, "", io.EOF},
		{5000, 1, "", io.EOF},
	} {
		p := make([]byte, c.n)
		n, err := f.ReadAt(p, c.off)
		// A reader may give EOF with the last bytes; only a short read must.
		if string(p[:n]) != c.want || err != c.err && !(err == io.EOF && n == c.n) {
			t.Errorf("read %d at %d: got %q, %v, want %q, %v", c.n, c.off, p[:n], err, c.want, c.err)
		}
	}
	if _, err := f.ReadAt(make([]byte, 1), -1); err == nil || err == io.EOF {
		t.Fatalf("read at -1: got %v, want an error", err)
	}
}

func testWrite(t *testing.T, fsys vfs.FS) {
	f := create(t, fsys, "a", "")
	write(t, f, "abc", 5)
	wantContent(t, f, "\x00\x00\x00\x00\x00abc")
	write(t, f, "XY", 4)
	wantContent(t, f, "\x00\x00\x00\x00XYbc")
	write(t, f, "end", 9000) // past the end, over a page that stays a hole
	wantContent(t, f, "\x00\x00\x00\x00XYbc"+strings.Repeat("\x00", 9000-8)+"end")
	write(t, f, strings.Repeat("z", 6000), 3000) // over page boundaries
	wantContent(t, f, "\x00\x00\x00\x00XYbc"+strings.Repeat("\x00", 3000-8)+strings.Repeat("z", 6000)+"end")
	write(t, f, "", 20000)
	if got := size(t, f); got != 9003 {
		t.Fatalf("an empty write past the end made the size %d, want 9003", got)
	}
	if _, err := f.WriteAt([]byte("x"), -1); err == nil {
		t.Fatal("wrote at -1")
	}
}

func testWritev(t *testing.T, fsys vfs.FS) {
	f := create(t, fsys, "a", "0123456789")
	many := make([][]byte, 3000) // more than a system takes in one call
	for i := range many {
		many[i] = []byte(strings.Repeat(string(rune('a'+i%26)), i%4))
	}
	want := "0123456789"
	for _, c := range []struct {
		name   string
		pieces [][]byte
		off    int64
	}{
		{"none", nil, 50},
		{"empty", [][]byte{nil, {}, nil}, 50},
		{"one", [][]byte{[]byte("A")}, 1},
		{"inside", [][]byte{[]byte("BC"), nil, []byte("D"), {}}, 2},
		{"behind a hole", [][]byte{nil, []byte("EF"), []byte("GH")}, 5000},
		{"over pages", [][]byte{[]byte(strings.Repeat("x", 4000)), []byte(strings.Repeat("y", 9000)), []byte("z")}, 100},
		{"many", many, 200},
	} {
		all := string(bytes.Join(c.pieces, nil))
		if n, err := f.WritevAt(c.pieces, c.off); n != len(all) || err != nil {
			t.Fatalf("%s: wrote %d of %d bytes, %v", c.name, n, len(all), err)
		}
		if got := string(bytes.Join(c.pieces, nil)); got != all {
			t.Fatalf("%s: the caller's pieces were changed", c.name)
		}
		if len(all) > 0 {
			want += strings.Repeat("\x00", max(0, int(c.off)+len(all)-len(want)))
			want = want[:c.off] + all + want[int(c.off)+len(all):]
		}
		wantContent(t, f, want)
	}
	if _, err := f.WritevAt([][]byte{[]byte("x"), []byte("y")}, -1); err == nil {
		t.Fatal("wrote at -1")
	}
	must(t, f.Close())
	if _, err := f.WritevAt([][]byte{[]byte("x"), []byte("y")}, 0); !errors.Is(err, fs.ErrClosed) {
		t.Fatalf("write to a closed file: %v", err)
	}
}

func testAppend(t *testing.T, fsys vfs.FS) {
	f := create(t, fsys, "a", "")
	g, err := fsys.Open("a")
	must(t, err)
	defer g.Close()
	app := func(f vfs.File, s string) {
		t.Helper()
		if n, err := f.Append([]byte(s)); n != len(s) || err != nil {
			t.Fatalf("append %q: got %d, %v", s, n, err)
		}
	}
	app(f, "ab")
	app(g, "cd")
	app(f, "ef")
	write(t, f, "X", 0)
	wantContent(t, g, "Xbcdef")
	must(t, f.Truncate(3))
	app(f, "!")
	wantContent(t, f, "Xbc!")
}

func testTruncate(t *testing.T, fsys vfs.FS) {
	f := create(t, fsys, "a", strings.Repeat("x", 5000))
	must(t, f.Truncate(100))
	wantContent(t, f, strings.Repeat("x", 100))
	must(t, f.Truncate(6000))
	wantContent(t, f, strings.Repeat("x", 100)+strings.Repeat("\x00", 5900))
	must(t, f.Truncate(0))
	wantContent(t, f, "")
	must(t, f.Truncate(10<<20))
	if i, err := f.Info(); err != nil || i.Size != 10<<20 || i.Allocated > 1<<20 {
		t.Fatalf("a sparse file: %+v, %v", i, err)
	}
	if err := f.Truncate(-1); err == nil {
		t.Fatal("truncated to -1")
	}
}

func testAllocate(t *testing.T, fsys vfs.FS) {
	f := create(t, fsys, "a", "abc")
	err := f.Allocate(0, 100<<10)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("no allocation here")
	}
	must(t, err)
	wantContent(t, f, "abc"+strings.Repeat("\x00", 100<<10-3))
	if i, err := f.Info(); err != nil || i.Allocated < 100<<10 {
		t.Fatalf("after allocating 100 KiB: %+v, %v", i, err)
	}
	must(t, f.Allocate(0, 10)) // never shrinks
	if got := size(t, f); got != 100<<10 {
		t.Fatalf("size is %d, want %d", got, 100<<10)
	}
	must(t, f.Allocate(5, 0))
	if f.Allocate(-1, 5) == nil || f.Allocate(0, -5) == nil {
		t.Fatal("allocated a negative range")
	}
}

func testZero(t *testing.T, fsys vfs.FS) {
	f := create(t, fsys, "a", strings.Repeat("x", 10000))
	must(t, f.Zero(10, 5))
	must(t, f.Zero(1000, 8000))
	want := []byte(strings.Repeat("x", 10000))
	clear(want[10:15])
	clear(want[1000:9000])
	wantContent(t, f, string(want))
	must(t, f.Zero(9990, 600<<10)) // grows, in more than two pieces
	clear(want[9990:])
	wantContent(t, f, string(want)+strings.Repeat("\x00", 600<<10-10))
	if i, err := f.Info(); err != nil || i.Allocated < 600<<10 {
		t.Fatalf("zeros take no disk: %+v, %v", i, err)
	}
	must(t, f.Zero(5, 0))
	if f.Zero(-1, 5) == nil || f.Zero(0, -5) == nil {
		t.Fatal("zeroed a negative range")
	}
}

func testSync(t *testing.T, fsys vfs.FS) {
	f := create(t, fsys, "a", "abc")
	must(t, f.Sync())
	write(t, f, "B", 1)
	must(t, f.Datasync())
	must(t, f.Datasync())
	wantContent(t, f, "aBc")
}

func testUnlinked(t *testing.T, fsys vfs.FS) {
	f := create(t, fsys, "a", "abc")
	must(t, fsys.Remove("a"))
	wantNames(t, fsys, ".", "")
	write(t, f, "d", 3)
	must(t, f.Sync())
	wantContent(t, f, "abcd")
	create(t, fsys, "a", "new")
	wantContent(t, f, "abcd")
}

// testConcurrent writes disjoint ranges of one file, and files of its own, from
// several goroutines; the race detector and the final content judge it.
func testConcurrent(t *testing.T, fsys vfs.FS) {
	f := create(t, fsys, "shared", "")
	const workers, rounds, piece = 4, 30, 700
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			name := string(rune('a' + w))
			mine, err := fsys.Create(name)
			if err != nil {
				t.Error(err)
				return
			}
			defer mine.Close()
			data := []byte(strings.Repeat(name, piece))
			for r := range rounds {
				at := int64((r*workers + w) * piece)
				if _, err := f.WriteAt(data, at); err != nil {
					t.Error(err)
				}
				if _, err := mine.Append(data); err != nil {
					t.Error(err)
				}
				got := make([]byte, piece)
				if n, err := f.ReadAt(got, at); n != piece || err != nil && err != io.EOF || string(got) != string(data) {
					t.Errorf("read back %d bytes, %v", n, err)
				}
				if r%10 == 9 {
					if err := errors.Join(f.Datasync(), fsys.SyncDir("."), second(fsys.List("."))); err != nil {
						t.Error(err)
					}
				}
			}
			if err := fsys.Rename(name, name+"2"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	round := ""
	for w := range workers {
		round += strings.Repeat(string(rune('a'+w)), piece)
	}
	wantContent(t, f, strings.Repeat(round, rounds))
	wantFile(t, fsys, "b2", strings.Repeat("b", piece*rounds))
	wantNames(t, fsys, ".", "a2 b2 c2 d2 shared")
}
