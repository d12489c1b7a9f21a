package vfs_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// TestMemIsLikeOS does the same random operations on memory and on the operating
// system and wants the same results and the same bytes. Now and then the memory is
// killed and its heir goes on, or all is synced and the power cut.
func TestMemIsLikeOS(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { compare(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

// twin is a file, and perhaps a window on it, of both file systems.
type twin struct {
	mem, disk   vfs.File
	memW, diskW vfs.Mapping
}

func (w *twin) close() {
	if w.mem != nil {
		w.mem.Close()
		w.disk.Close()
	}
	if w.memW != nil {
		w.memW.Close()
		w.diskW.Close()
	}
	*w = twin{}
}

func compare(t *testing.T, rng *rand.Rand) {
	mem, disk := vfs.NewMem(), openOS(t, t.TempDir())
	names := []string{"a", "b", "d/a"}
	must(t, mem.Mkdir("d"))
	must(t, disk.Mkdir("d"))
	var open twin
	defer func() { open.close() }()
	both := func(what string, a, b error) bool {
		t.Helper()
		if kind(a) != kind(b) {
			t.Fatalf("%s: memory says %v, the system %v", what, a, b)
		}
		return a == nil
	}
	for i := range 250 {
		name, other := names[rng.IntN(3)], names[rng.IntN(3)]
		off, n := rng.Int64N(30000), rng.IntN(10000)
		p := make([]byte, n)
		for j := range p {
			p[j] = byte('a' + (i+j)%26)
		}
		op := rng.IntN(18)
		what := fmt.Sprintf("step %d, operation %d on %s, %d bytes at %d", i, op, name, n, off)
		switch op {
		case 0, 1, 2:
			a, errA := mem.Open(name)
			b, errB := disk.Open(name)
			if errors.Is(errA, fs.ErrNotExist) && errors.Is(errB, fs.ErrNotExist) {
				a, errA = mem.Create(name)
				b, errB = disk.Create(name)
			}
			if both(what, errA, errB) {
				open.close()
				open = twin{mem: a, disk: b}
			}
			continue
		case 3:
			both(what, mem.Rename(name, other), disk.Rename(name, other))
			continue
		case 4:
			both(what, mem.Remove(name), disk.Remove(name))
			continue
		case 5:
			both(what, mem.Link(name, other), disk.Link(name, other))
			continue
		case 6:
			open.close() // the handles die with the process
			mem = mem.AfterKill()
			continue
		case 7:
			open.close()
			syncAll(t, mem)
			mem = mem.AfterCrash(vfs.Random(uint64(i)))
			continue
		}
		if open.mem == nil {
			continue
		}
		switch op {
		case 8, 9:
			n1, err1 := open.mem.WriteAt(p, off)
			n2, err2 := open.disk.WriteAt(p, off)
			both(what, err1, err2)
			if n1 != n2 {
				t.Fatalf("%s: wrote %d and %d", what, n1, n2)
			}
		case 17:
			pieces := split(rng, p)
			n1, err1 := open.mem.WritevAt(pieces, off)
			n2, err2 := open.disk.WritevAt(pieces, off)
			both(what, err1, err2)
			if n1 != n2 || n1 != len(p) {
				t.Fatalf("%s: wrote %d and %d", what, n1, n2)
			}
		case 10:
			both(what, second(open.mem.Append(p)), second(open.disk.Append(p)))
		case 11:
			both(what, open.mem.Truncate(off), open.disk.Truncate(off))
		case 12:
			both(what, open.mem.Zero(off, int64(n)), open.disk.Zero(off, int64(n)))
		case 13:
			both(what, open.mem.Allocate(off, int64(n)), open.disk.Allocate(off, int64(n)))
		case 14:
			if open.memW == nil {
				a, errA := open.mem.Map(0, vfs.MapAlign)
				b, errB := open.disk.Map(0, vfs.MapAlign)
				if errors.Is(errB, errors.ErrUnsupported) {
					t.Skip("no mapping here: ", errB)
				}
				if both(what, errA, errB) {
					open.memW, open.diskW = a, b
				}
			}
		case 15:
			// Inside the file only: past its end a system faults by pages, the memory by bytes.
			if i, err := open.mem.Info(); err == nil && open.memW != nil && off+int64(n) <= min(i.Size, vfs.MapAlign) {
				both(what, open.memW.Store(int(off), p), open.diskW.Store(int(off), p))
			}
		case 16:
			both(what, open.mem.Datasync(), open.disk.Datasync())
		}
		sameFile(t, what, &open)
	}
	if a, b := show(t, mem), show(t, disk); a != b {
		t.Fatalf("memory holds\n%.2000s\nthe system\n%.2000s", a, b)
	}
}

// split cuts p into pieces at random places.
func split(rng *rand.Rand, p []byte) (pieces [][]byte) {
	for {
		n := rng.IntN(len(p) + 1)
		pieces, p = append(pieces, p[:n]), p[n:]
		if len(p) == 0 {
			return pieces
		}
	}
}

func sameFile(t *testing.T, what string, w *twin) {
	t.Helper()
	a, b := read(t, w.mem), read(t, w.disk)
	if a != b {
		t.Fatalf("%s: memory reads %d bytes, the system %d, or they differ", what, len(a), len(b))
	}
	if w.memW != nil {
		n := min(len(a), vfs.MapAlign)
		if string(w.memW.Bytes()[:n]) != a[:n] || string(w.diskW.Bytes()[:n]) != b[:n] {
			t.Fatalf("%s: a window differs from the file", what)
		}
	}
}

func read(t *testing.T, f vfs.File) string {
	t.Helper()
	i, err := f.Info()
	must(t, err)
	p := make([]byte, i.Size+1)
	n, err := f.ReadAt(p, 0)
	if err != io.EOF {
		t.Fatalf("read past the end: %v", err)
	}
	return string(p[:n])
}

func syncAll(t *testing.T, m *vfs.Mem) {
	t.Helper()
	for _, dir := range []string{".", "d"} {
		infos, err := m.List(dir)
		must(t, err)
		for _, i := range infos {
			if i.Dir {
				continue
			}
			f, err := m.Open(map[string]string{".": "", "d": "d/"}[dir] + i.Name)
			must(t, err)
			must(t, f.Sync())
			must(t, f.Close())
		}
		must(t, m.SyncDir(dir))
	}
}

var errOther = errors.New("another error")

// kind is what a caller can tell errors apart by.
func kind(err error) error {
	for _, k := range []error{fs.ErrNotExist, fs.ErrExist, fs.ErrInvalid, fs.ErrClosed, vfs.ErrNoSpace, vfs.ErrFault, vfs.ErrCrashed, syscall.EIO} {
		if errors.Is(err, k) {
			return k
		}
	}
	if err != nil {
		return errOther
	}
	return nil
}
