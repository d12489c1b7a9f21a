package vfs_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/internal/vfs/vfstest"
)

func newQuota(t *testing.T, inner vfs.FS, limit, spare int64) *vfs.Quota {
	t.Helper()
	q, err := vfs.NewQuota(inner, limit, spare, func(name string) bool { return path.Base(name) == "essential" })
	must(t, err)
	return q
}

// A view is a file system like any other.
func TestQuotaIsAFileSystem(t *testing.T) {
	for name, inner := range map[string]func(t *testing.T) vfs.FS{
		"mem": func(*testing.T) vfs.FS { return vfs.NewMem() },
		"os":  func(t *testing.T) vfs.FS { return openOS(t, t.TempDir()) },
	} {
		t.Run(name, func(t *testing.T) {
			vfstest.Run(t, func(t *testing.T) vfs.FS { return newQuota(t, inner(t), 1<<40, 0).View(vfs.QuotaOrdinary) })
		})
	}
}

// taken counts what lies below dir, by asking the file system.
func taken(t *testing.T, fs vfs.FS, dir string) (n int64) {
	t.Helper()
	list, err := fs.List(dir)
	must(t, err)
	for _, info := range list {
		if info.Dir {
			n += 4096 + taken(t, fs, path.Join(dir, info.Name))
			continue
		}
		n += max((info.Size+4095)&^4095, info.Allocated)
	}
	return n
}

func TestQuotaClasses(t *testing.T) {
	const block = 4096
	q := newQuota(t, vfs.NewMem(), 10*block, 4*block)
	ordinary, internal := q.View(vfs.QuotaOrdinary), q.View(vfs.QuotaInternal)
	a, b := create(t, ordinary, "a", ""), create(t, internal, "b", "")
	c := create(t, ordinary, "essential", "")
	fill := func(f vfs.File) (blocks int64) {
		for {
			info, err := f.Info()
			must(t, err)
			_, err = f.WriteAt(make([]byte, block), info.Size)
			if err == nil {
				blocks++
				continue
			}
			var full *vfs.QuotaError
			if !errors.Is(err, vfs.ErrNoSpace) || !errors.As(err, &full) || full.Used != q.Used() || full.Wanted != block || full.Name != f.Name() {
				t.Fatalf("full: %v", err)
			}
			after, err := f.Info()
			must(t, err)
			if after.Size != info.Size {
				t.Fatalf("a refused write grew the file from %d to %d", info.Size, after.Size)
			}
			return blocks
		}
	}
	for _, row := range []struct {
		f    vfs.File
		want int64
	}{{a, 6}, {b, 2}, {a, 0}, {c, 2}, {b, 0}} {
		if got := fill(row.f); got != row.want {
			t.Errorf("%s could take %d blocks, want %d", row.f.Name(), got, row.want)
		}
	}
	if err := b.Zero(0, 3*block); !errors.Is(err, vfs.ErrNoSpace) {
		t.Errorf("zero ahead in the spare part: %v", err)
	}
	if err := ordinary.Mkdir("dir"); !errors.Is(err, vfs.ErrNoSpace) {
		t.Errorf("mkdir: %v", err)
	}
	// Within what a file has it is written as before, and an open view can be raised.
	write(t, a, "inside", 0)
	must(t, a.Truncate(5*block))
	if got := fill(a); got != 0 { // the block that came free lies in the spare part
		t.Errorf("an ordinary file took %d blocks of the spare part", got)
	}
	ordinary.SetClass(vfs.QuotaEssential)
	if got := fill(a); got != 1 {
		t.Errorf("a raised view took %d blocks, want 1", got)
	}
	ordinary.SetClass(vfs.QuotaOrdinary)
	// Lowered below what is taken, only what is essential goes on.
	q.SetLimit(5*block, 2*block)
	if n := fill(b); n != 0 {
		t.Errorf("above the limit an internal file took %d blocks", n)
	}
	write(t, c, strings.Repeat("x", 3*block), 0)
	must(t, a.Truncate(0))
	must(t, c.Truncate(0))
	q.SetLimit(0, 0)
	if n := q.Room(vfs.QuotaOrdinary); n < 1<<50 {
		t.Errorf("without a limit there is room for %d", n)
	}
	write(t, a, strings.Repeat("x", 100*block), 0)
}

func TestQuotaCountsWhatIsThere(t *testing.T) {
	for name, inner := range map[string]vfs.FS{"mem": vfs.NewMem(), "os": openOS(t, t.TempDir())} {
		must(t, inner.Mkdir("a/b"))
		create(t, inner, "a/b/c", strings.Repeat("x", 5000))
		create(t, inner, "empty", "")
		if got, want := newQuota(t, inner, 1<<30, 0).Used(), taken(t, inner, "."); got != want || want < 16<<10 {
			t.Errorf("%s: used %d, want %d", name, got, want)
		}
	}
}

// What somebody else writes beside counts when it is counted anew, also over the bound, and goes with its name.
func TestQuotaRecount(t *testing.T) {
	for name, inner := range map[string]vfs.FS{"mem": vfs.NewMem(), "os": openOS(t, t.TempDir())} {
		q := newQuota(t, inner, 64<<10, 0)
		low := 0
		q.OnLow(8<<10, func() { low++ })
		v := q.View(vfs.QuotaOrdinary)
		must(t, vfs.Recount(v, "beside"))
		want := func(when string, used int64) {
			t.Helper()
			if q.Used() != used || q.Held() != 0 {
				t.Errorf("%s: %s: used %d, held %d, want %d, 0", name, when, q.Used(), q.Held(), used)
			}
		}
		want("none", 0)
		f, err := inner.Create("beside")
		must(t, err)
		defer f.Close()
		for _, size := range []int{10, 5000, 100 << 10, 20 << 10} {
			must(t, f.Truncate(0))
			write(t, f, strings.Repeat("x", size), 0)
			must(t, vfs.Recount(v, "beside"))
			must(t, vfs.Recount(v, "beside"))
			want(fmt.Sprint(size), taken(t, inner, "."))
		}
		if low == 0 {
			t.Errorf("%s: nobody was told that there is little room", name)
		}
		must(t, vfs.Recount(inner, "beside")) // no quota
		must(t, v.Remove("beside"))
		want("removed", 0)
	}
}

// A file without a name counts until nobody has it.
func TestQuotaHeld(t *testing.T) {
	q := newQuota(t, vfs.NewMem(), 1<<20, 0)
	v := q.View(vfs.QuotaOrdinary)
	f, err := v.Create("a")
	must(t, err)
	write(t, f, strings.Repeat("x", 64<<10), 0)
	m, err := f.Map(0, 64<<10)
	must(t, err)
	want := func(when string, used, held int64) {
		t.Helper()
		if q.Used() != used || q.Held() != held {
			t.Errorf("%s: used %d, held %d, want %d, %d", when, q.Used(), q.Held(), used, held)
		}
	}
	want("named", 64<<10, 0)
	must(t, v.Remove("a"))
	want("removed", 64<<10, 64<<10)
	write(t, f, "x", 64<<10)
	want("grown", 68<<10, 68<<10)
	must(t, f.Close())
	want("closed", 68<<10, 68<<10)
	released := q.Released()
	select {
	case <-released:
		t.Error("released while it is mapped")
	default:
	}
	defer func() { <-released }()
	must(t, m.Close())
	want("unmapped", 0, 0)
	<-q.Released() // nothing is held
}

// A file counts once, whatever its names, and until the last of them is gone.
func TestQuotaLinks(t *testing.T) {
	q := newQuota(t, vfs.NewMem(), 1<<20, 0)
	v := q.View(vfs.QuotaOrdinary)
	f, err := v.Create("a")
	must(t, err)
	write(t, f, strings.Repeat("x", 8<<10), 0)
	must(t, f.Close())
	must(t, v.Link("a", "b"))
	must(t, v.Rename("a", "b")) // of one file: nothing happens
	for _, row := range []struct {
		remove string
		used   int64
	}{{"", 8 << 10}, {"a", 8 << 10}, {"b", 0}} {
		if row.remove != "" {
			must(t, v.Remove(row.remove))
		}
		if q.Used() != row.used {
			t.Errorf("without %q: used %d, want %d", row.remove, q.Used(), row.used)
		}
	}
}

func TestQuotaOnLow(t *testing.T) {
	q := newQuota(t, vfs.NewMem(), 10*4096, 0)
	calls := 0
	q.OnLow(2*4096, func() { calls++ })
	f := create(t, q.View(vfs.QuotaOrdinary), "a", "")
	write(t, f, strings.Repeat("x", 8*4096), 0)
	if calls != 0 {
		t.Errorf("called with the headroom whole")
	}
	write(t, f, "x", 8*4096)
	if calls != 1 {
		t.Errorf("called %d times, want once", calls)
	}
	// What is laid ahead does not take the headroom.
	must(t, f.Truncate(7*4096))
	must(t, f.Zero(7*4096, 4096))
	if err := f.Zero(8*4096, 4096); !errors.Is(err, vfs.ErrNoSpace) || calls != 1 {
		t.Errorf("zeros in the headroom: %v, %d calls", err, calls)
	}
}

// After any operations, also such that fail half-way, what is counted is what is there.
func TestQuotaModel(t *testing.T) {
	for seed := range uint64(testcount.N(300)) {
		rng := rand.New(rand.NewPCG(seed, 1))
		mem := vfs.NewMem()
		if seed%3 == 0 {
			mem.SetCapacity(40 << 12)
		}
		fault := vfs.NewFault(mem)
		limit := int64(30+rng.IntN(30)) << 12
		q := newQuota(t, fault, limit, 8<<12)
		views := []*vfs.QuotaView{q.View(vfs.QuotaOrdinary), q.View(vfs.QuotaInternal), q.View(vfs.QuotaEssential)}
		var files []vfs.File
		var did []string
		names := []string{"a", "b", "d/a", "d/b", "d/e/a", "essential", "f/a"}
		for range 60 {
			v := views[rng.IntN(3)]
			name, other := names[rng.IntN(len(names))], names[rng.IntN(len(names))]
			dir := []string{"d", "d/e", "f", "g", "d/e/h"}[rng.IntN(5)]
			size := int64(rng.IntN(12 << 12))
			if rng.IntN(10) == 0 {
				fault.Add(vfs.Rule{Op: vfs.OpAny, Count: 1, Skip: rng.IntN(3), Effect: vfs.Fail(io.ErrNoProgress)})
			}
			var err error
			op := rng.IntN(14)
			switch op {
			case 0, 1:
				var f vfs.File
				if f, err = v.Create(name); err == nil {
					files = append(files, f)
				}
			case 2:
				err = v.Remove(name)
			case 3:
				err = v.Rename(name, other)
			case 4, 5:
				err = v.Mkdir(dir)
			case 6:
				err = v.Remove(dir)
			case 7:
				err = v.Rename(dir, []string{"d", "g", "f"}[rng.IntN(3)])
			default:
				if len(files) == 0 {
					continue
				}
				i := rng.IntN(len(files))
				f := files[i]
				switch op {
				case 8:
					_, err = f.WriteAt(make([]byte, rng.IntN(20000)), size)
				case 13:
					_, err = f.WritevAt(split(rng, make([]byte, rng.IntN(20000))), size)
				case 9:
					_, err = f.Append(make([]byte, rng.IntN(20000)))
				case 10:
					err = f.Truncate(size)
				case 11:
					err = f.Zero(size, int64(rng.IntN(20000)))
				case 12:
					err = f.Close()
					files = append(files[:i], files[i+1:]...)
				}
			}
			fault.Clear()
			did = append(did, fmt.Sprintf("%d %s %s %s %d: %v", op, name, other, dir, size, err))
			there := taken(t, mem, ".")
			if counted := q.Used() - q.Held(); counted < there || q.Used() > limit {
				t.Fatalf("seed %d: counted %d of a limit of %d (%d held), there are %d after\n%s",
					seed, q.Used(), limit, q.Held(), there, strings.Join(did, "\n"))
			}
		}
		for _, f := range files {
			must(t, f.Close())
		}
		// Holes count as if they were written; counted anew they are still holes, and count by size.
		fresh := newQuota(t, mem, 0, 0)
		if q.Held() != 0 || q.Used() > fresh.Used() {
			t.Fatalf("seed %d: in the end counted %d, held %d, there are %d after\n%s", seed, q.Used(), q.Held(), fresh.Used(), strings.Join(did, "\n"))
		}
	}
}

// However many write at once, the bound holds at every moment.
func TestQuotaConcurrently(t *testing.T) {
	const limit = 64 << 12
	q := newQuota(t, vfs.NewMem(), limit, 16<<12)
	q.OnLow(limit, func() { // called behind each growth
		if used := q.Used(); used > limit {
			t.Errorf("%d are taken of %d", used, limit)
		}
	})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			v := q.View(vfs.QuotaClass(i % 3))
			rng := rand.New(rand.NewPCG(uint64(i), 7))
			for range testcount.N(500) {
				name := fmt.Sprint("f", rng.IntN(4))
				f, err := v.Create(name)
				if err != nil {
					if f, err = v.Open(name); err != nil {
						continue
					}
				}
				f.WriteAt(make([]byte, rng.IntN(40000)), int64(rng.IntN(40000)))
				if rng.IntN(2) == 0 {
					v.Remove(name)
				}
				f.Close()
			}
		})
	}
	wg.Wait()
	for i := range 4 {
		q.View(0).Remove(fmt.Sprint("f", i))
	}
	if q.Used() != 0 || q.Held() != 0 {
		t.Errorf("with all gone %d are taken, %d held", q.Used(), q.Held())
	}
}
