package vfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

func readAll(t testing.TB, fsys vfs.FS, name string) []byte {
	t.Helper()
	f, err := fsys.Open(name)
	must(t, err)
	defer f.Close()
	info, err := f.Info()
	must(t, err)
	b := make([]byte, info.Size)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		t.Fatal(err)
	}
	return b
}

// Random operations do the same to a Scratch as to a file of its own, and nothing to
// the file below.
func TestScratchAgainstMem(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		content := make([]byte, r.IntN(30_000))
		for i := range content {
			content[i] = byte(r.Uint32())
		}
		below, model := vfs.NewMem(), vfs.NewMem()
		for _, fs := range []vfs.FS{below, model} {
			f, err := fs.Create("a")
			must(t, err)
			_, err = f.WriteAt(content, 0)
			must(t, err)
			must(t, f.Close())
		}
		scratch, err := vfs.ScratchOf(below, ".")
		must(t, err)
		a, err := scratch.Open("a")
		must(t, err)
		b, err := model.Open("a")
		must(t, err)
		for step := range 200 {
			off, n := r.Int64N(40_000), 1+r.IntN(9000)
			p := make([]byte, n)
			for i := range p {
				p[i] = byte(r.Uint32())
			}
			var got, want error
			switch r.IntN(7) {
			case 0:
				_, got = a.WriteAt(p, off)
				_, want = b.WriteAt(p, off)
			case 4:
				pieces := split(r, p)
				_, got = a.WritevAt(pieces, off)
				_, want = b.WritevAt(pieces, off)
			case 1:
				_, got = a.Append(p[:n/10])
				_, want = b.Append(p[:n/10])
			case 2:
				got, want = a.Truncate(off), b.Truncate(off)
			case 3:
				got, want = a.Zero(off, int64(n)), b.Zero(off, int64(n))
			default:
				q := make([]byte, n)
				var x, y int
				x, got = a.ReadAt(p, off)
				y, want = b.ReadAt(q, off)
				if x != y || !bytes.Equal(p[:x], q[:y]) {
					t.Fatalf("seed %d step %d: read %d bytes at %d: %d and %d, or they differ", seed, step, n, off, x, y)
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("seed %d step %d: got %v, want %v", seed, step, got, want)
			}
		}
		if !bytes.Equal(readAll(t, scratch, "a"), readAll(t, model, "a")) {
			t.Fatalf("seed %d: contents differ", seed)
		}
		if !bytes.Equal(readAll(t, below, "a"), content) {
			t.Fatalf("seed %d: the file below was changed", seed)
		}
		must(t, a.Close())
		must(t, b.Close())
	}
}

func TestScratchNames(t *testing.T) {
	below := vfs.NewMem()
	for _, name := range []string{"x", "y"} {
		f, err := below.Create(name)
		must(t, err)
		_, err = f.Append([]byte(name + name + name))
		must(t, err)
		must(t, f.Close())
	}
	s := vfs.Scratch([]vfs.ScratchFile{{Name: "a", FS: below, As: "x", Bytes: 2}, {Name: "b", FS: below, As: "y", Bytes: 3}})
	if got := string(readAll(t, s, "a")) + string(readAll(t, s, "b")); got != "xxyyy" {
		t.Errorf("got %q", got)
	}
	must(t, s.Rename("a", "c"))
	must(t, s.Link("c", "d"))
	must(t, s.Remove("b"))
	f, err := s.Create("e")
	must(t, err)
	must(t, f.Close())
	must(t, s.SyncDir("."))
	infos, err := s.List(".")
	must(t, err)
	if got := fmt.Sprint(len(infos), infos[0].Name, infos[0].Size, infos[1].Name, infos[2].Name); got != "3c2de" {
		t.Errorf("got %s", got)
	}
	for what, row := range map[string]struct{ got, want error }{
		"open gone":   {second(s.Open("a")), fs.ErrNotExist},
		"create":      {second(s.Create("c")), fs.ErrExist},
		"create down": {second(s.Create("x/y")), fs.ErrInvalid},
		"mkdir":       {s.Mkdir("x"), fs.ErrInvalid},
		"link":        {s.Link("c", "d"), fs.ErrExist},
		"remove":      {s.Remove("q"), fs.ErrNotExist},
		"bad name":    {second(s.Stat("../x")), fs.ErrInvalid},
		"list":        {second(s.List("x")), fs.ErrNotExist},
		"map":         {second(f.Map(0, 1)), errors.ErrUnsupported},
		"closed":      {second(f.ReadAt(make([]byte, 1), 0)), fs.ErrClosed},
	} {
		if !errors.Is(row.got, row.want) {
			t.Errorf("%s: got %v, want %v", what, row.got, row.want)
		}
	}
	lock, err := s.Lock("LOCK")
	must(t, err)
	if _, err := s.Lock("LOCK"); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("second lock: %v", err)
	}
	must(t, lock.Close())
	// What is below becomes shorter: an error, not zeros.
	must(t, second(below.Open("x")))
	x, err := below.Open("x")
	must(t, err)
	must(t, x.Truncate(1))
	must(t, x.Close())
	c, err := s.Open("c")
	must(t, err)
	defer c.Close()
	if _, err := c.ReadAt(make([]byte, 2), 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
}
