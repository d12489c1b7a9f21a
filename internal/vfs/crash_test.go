package vfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

func create(t testing.TB, fs vfs.FS, name, content string) vfs.File {
	t.Helper()
	f, err := fs.Create(name)
	must(t, err)
	write(t, f, content, 0)
	return f
}

func write(t testing.TB, f vfs.File, s string, off int64) {
	t.Helper()
	if n, err := f.WriteAt([]byte(s), off); n != len(s) || err != nil {
		t.Fatalf("write of %d bytes at %d: %d, %v", len(s), off, n, err)
	}
}

func durable(t testing.TB, fs vfs.FS, name, content string) vfs.File {
	t.Helper()
	f := create(t, fs, name, content)
	must(t, f.Sync())
	must(t, fs.SyncDir("."))
	return f
}

// show is a tree as text: "a=content d/ d/b=content", zeros as dots.
func show(t testing.TB, fs vfs.FS) string {
	t.Helper()
	return strings.Join(showDir(t, fs, "."), " ")
}

func showDir(t testing.TB, fs vfs.FS, dir string) []string {
	infos, err := fs.List(dir)
	must(t, err)
	var all []string
	for _, i := range infos {
		name := i.Name
		if dir != "." {
			name = dir + "/" + name
		}
		if i.Dir {
			all = append(append(all, name+"/"), showDir(t, fs, name)...)
			continue
		}
		all = append(all, name+"="+strings.ReplaceAll(content(t, fs, name), "\x00", "."))
	}
	return all
}

func content(t testing.TB, fs vfs.FS, name string) string {
	t.Helper()
	f, err := fs.Open(name)
	must(t, err)
	defer f.Close()
	i, err := f.Info()
	must(t, err)
	p := make([]byte, i.Size)
	if n, err := f.ReadAt(p, 0); int64(n) != i.Size || err != nil && err != io.EOF {
		t.Fatalf("%s: read %d of %d: %v", name, n, i.Size, err)
	}
	return string(p)
}

// outcomes is every tree that a power cut can leave, sorted, torn bytes as '?'.
func outcomes(t testing.TB, m *vfs.Mem) []string {
	t.Helper()
	var all []string
	for w := vfs.NewWalk(); w.Next(); {
		got := show(t, m.AfterCrash(w))
		got = strings.ReplaceAll(got, "\x5a", "?") // the garbage of a Walk
		if !slices.Contains(all, got) {
			all = append(all, got)
		}
		if len(all) > 1000 {
			t.Fatal("too many outcomes")
		}
	}
	slices.Sort(all)
	return all
}

func TestPowerCut(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, m *vfs.Mem)
		want string // every outcome, between bars
	}{
		{"nothing is durable by itself", func(t *testing.T, m *vfs.Mem) {
			create(t, m, "a", "xy")
		}, "|a=|a=..|a=.?|a=.y|a=?.|a=??|a=?y|a=x.|a=x?|a=xy"},
		{"a synced file without its directory", func(t *testing.T, m *vfs.Mem) {
			must(t, create(t, m, "a", "xy").Sync())
		}, "|a=xy"},
		{"a synced directory without its file", func(t *testing.T, m *vfs.Mem) {
			create(t, m, "a", "x")
			must(t, m.SyncDir("."))
		}, "a=|a=.|a=?|a=x"},
		{"both synced", func(t *testing.T, m *vfs.Mem) {
			durable(t, m, "a", "xy")
		}, "a=xy"},
		{"a torn sector changes only what was written", func(t *testing.T, m *vfs.Mem) {
			write(t, durable(t, m, "a", "abcdef"), "CX", 2)
		}, "a=ab??ef|a=ab?Xef|a=ab?def|a=abC?ef|a=abCXef|a=abCdef|a=abc?ef|a=abcXef|a=abcdef"},
		{"a byte written as it was stays", func(t *testing.T, m *vfs.Mem) {
			write(t, durable(t, m, "a", "abc"), "abC", 0)
		}, "a=ab?|a=abC|a=abc"},
		{"truncated", func(t *testing.T, m *vfs.Mem) {
			must(t, durable(t, m, "a", "ab").Truncate(1))
		}, "a=a|a=a.|a=a?|a=ab"},
		{"grown", func(t *testing.T, m *vfs.Mem) {
			must(t, durable(t, m, "a", "ab").Truncate(4))
		}, "a=ab|a=ab.."},
		{"size synced by datasync", func(t *testing.T, m *vfs.Mem) {
			f := durable(t, m, "a", "")
			write(t, f, "ab", 0)
			must(t, f.Datasync())
		}, "a=ab"},
		{"renamed over, atomic", func(t *testing.T, m *vfs.Mem) {
			durable(t, m, "a", "old")
			durable(t, m, "b", "new")
			must(t, m.Rename("b", "a"))
		}, "a=new|a=old b=new"},
		{"renamed, the new file's creation not synced", func(t *testing.T, m *vfs.Mem) {
			durable(t, m, "a", "old")
			must(t, create(t, m, "b", "new").Sync())
			must(t, m.Rename("b", "a"))
		}, "a=new|a=old|a=old b=new"},
		{"renamed before the bytes were synced", func(t *testing.T, m *vfs.Mem) {
			durable(t, m, "a", "old")
			create(t, m, "b", "n")
			must(t, m.Rename("b", "a"))
			must(t, m.SyncDir("."))
		}, "a=|a=.|a=?|a=n"},
		{"moved between directories", func(t *testing.T, m *vfs.Mem) {
			must(t, m.Mkdir("d"))
			durable(t, m, "a", "x")
			must(t, m.Rename("a", "d/b"))
		}, "a=x d/|a=x d/ d/b=x|d/|d/ d/b=x"},
		{"removed", func(t *testing.T, m *vfs.Mem) {
			durable(t, m, "a", "x")
			must(t, m.Remove("a"))
		}, "|a=x"},
		{"removed and made again", func(t *testing.T, m *vfs.Mem) {
			durable(t, m, "a", "x")
			must(t, m.Remove("a"))
			must(t, create(t, m, "a", "y").Sync())
		}, "|a=x|a=y"},
		{"linked", func(t *testing.T, m *vfs.Mem) {
			durable(t, m, "a", "x")
			must(t, m.Link("a", "b"))
		}, "a=x|a=x b=x"},
		{"two changes, any subset", func(t *testing.T, m *vfs.Mem) {
			must(t, create(t, m, "a", "x").Sync())
			must(t, create(t, m, "b", "y").Sync())
		}, "|a=x|a=x b=y|b=y"},
		{"a lost directory takes its files along", func(t *testing.T, m *vfs.Mem) {
			must(t, m.Mkdir("d"))
			f := create(t, m, "d/a", "x")
			must(t, f.Sync())
			must(t, m.SyncDir("d"))
		}, "|d/ d/a=x"},
		{"the sync of a directory does not reach its own name", func(t *testing.T, m *vfs.Mem) {
			must(t, m.Mkdir("d/e"))
			must(t, m.SyncDir("d"))
		}, "|d/ d/e/"},
		{"a failed sync", func(t *testing.T, m *vfs.Mem) {
			f := durable(t, m, "a", "old")
			write(t, f, "new", 0)
			failSync(t, f)
			must(t, f.Sync()) // the retry succeeds and proves nothing
		}, "a=old"},
		{"a failed sync, written again", func(t *testing.T, m *vfs.Mem) {
			f := durable(t, m, "a", "old")
			write(t, f, "new", 0)
			failSync(t, f)
			write(t, f, "n", 0)
			must(t, f.Sync())
		}, "a=new"},
		{"a failed sync of a grown file", func(t *testing.T, m *vfs.Mem) {
			f := durable(t, m, "a", "")
			write(t, f, "new", 0)
			failSync(t, f)
			must(t, f.Sync())
		}, "a=..."},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := vfs.NewMem()
			c.do(t, m)
			before := m.AfterKill() // taken first: it shares pages with the others
			if got := strings.Join(outcomes(t, m), "|"); got != c.want {
				t.Errorf("a power cut leaves\n got %s\nwant %s", got, c.want)
			}
			// A kill in between changes nothing about what a later power cut can do.
			if got := strings.Join(outcomes(t, before.AfterKill()), "|"); got != c.want {
				t.Errorf("a power cut after a kill leaves\n got %s\nwant %s", got, c.want)
			}
			if got, want := show(t, m.AfterKill()), show(t, m.AfterKill().AfterKill()); got != want {
				t.Errorf("two kills show %s and %s", got, want)
			}
			m = m.AfterCrash(vfs.KeepAll)
			if got := outcomes(t, m); len(got) != 1 {
				t.Errorf("after a power cut not all is durable: %q", got)
			}
		})
	}
}

func failSync(t testing.TB, f vfs.File) {
	t.Helper()
	err := f.(interface{ FailSync(error) error }).FailSync(syscall.EIO)
	if !errors.Is(err, syscall.EIO) {
		t.Fatalf("failed sync: got %v, want EIO", err)
	}
}

func TestFailedSyncReadsNewUntilThePowerCut(t *testing.T) {
	m := vfs.NewMem()
	f := durable(t, m, "a", "old")
	write(t, f, "new", 0)
	failSync(t, f)
	if got := content(t, m, "a"); got != "new" {
		t.Fatalf("after the failed sync: %q, want new", got)
	}
	m = m.AfterKill()
	if got := content(t, m, "a"); got != "new" {
		t.Fatalf("after the kill: %q, want new", got)
	}
	f, err := m.Open("a")
	must(t, err)
	must(t, f.Sync())
	if got := content(t, m.AfterCrash(vfs.KeepAll), "a"); got != "old" {
		t.Fatalf("after kill, sync and power cut: %q, want old", got)
	}
}

// TestSectors checks that sectors are kept or lost one by one, and others untouched.
func TestSectors(t *testing.T) {
	m := vfs.NewMem()
	f := durable(t, m, "a", strings.Repeat("o", 6*vfs.SectorBytes+100))
	write(t, f, strings.Repeat("n", 3*vfs.SectorBytes), vfs.SectorBytes+10) // touches sectors 1 to 4
	write(t, f, "n", 6*vfs.SectorBytes+50)
	now := content(t, m, "a")
	synced := strings.Repeat("o", len(now))
	for mask := range uint64(32) {
		got := content(t, m.AfterCrash(vfs.Bits(mask)), "a")
		want, bit := []byte(synced), mask
		for _, s := range []int{1, 2, 3, 4, 6} {
			if bit&1 == 1 {
				copy(want[s*vfs.SectorBytes:min((s+1)*vfs.SectorBytes, len(want))], now[s*vfs.SectorBytes:])
			}
			bit >>= 1
		}
		if got != string(want) {
			t.Fatalf("mask %05b: got %s", mask, got)
		}
	}
}

// TestRandom checks what holds for each byte of every random power cut, and that
// each fate does occur.
func TestRandom(t *testing.T) {
	m := vfs.NewMem()
	f := durable(t, m, "a", strings.Repeat("o", 10000))
	write(t, f, strings.Repeat("n", 3000), 5000)
	must(t, create(t, m, "b", "x").Sync())
	seen := map[string]int{}
	for seed := range uint64(300) {
		c := m.AfterCrash(vfs.Random(seed))
		got := content(t, c, "a")
		if again := content(t, m.AfterCrash(vfs.Random(seed)), "a"); again != got {
			t.Fatalf("seed %d: two runs differ", seed)
		}
		if len(got) != 10000 {
			t.Fatalf("seed %d: size %d", seed, len(got))
		}
		for i, b := range []byte(got) {
			switch {
			case (i < 5000 || i >= 8000) && b != 'o':
				t.Fatalf("seed %d: byte %d is %q, and nobody wrote there", seed, i, b)
			case b == 'n':
				seen["new"]++
			case b == 'o' && i >= 5000 && i < 8000:
				seen["old"]++
			case b != 'o':
				seen["garbage"]++
			}
		}
		if _, err := c.Open("b"); err == nil {
			seen["kept name"]++
		} else {
			seen["lost name"]++
		}
	}
	for _, fate := range []string{"new", "old", "garbage", "kept name", "lost name"} {
		if seen[fate] < 20 {
			t.Errorf("%s came %d times in 300 power cuts", fate, seen[fate])
		}
	}
}

// workload does one of each counted operation; it is stopped by the crash.
func workload(m *vfs.Mem) (err error) {
	step := func(e error) {
		if err == nil {
			err = e
		}
	}
	lock, e := m.Lock("LOCK")
	step(e)
	step(m.Mkdir("d"))
	f, e := m.Create("d/a")
	step(e)
	if err != nil {
		return err
	}
	_, e = f.WriteAt([]byte("0123456789"), 0)
	step(e)
	_, e = f.Append([]byte("abcdefghij"))
	step(e)
	step(f.Zero(2, 5))
	step(f.Allocate(0, 100))
	step(f.Truncate(50))
	step(f.Sync())
	w, e := f.Map(0, 100)
	step(e)
	if err != nil {
		return err
	}
	step(w.Store(30, []byte("stored")))
	step(f.Datasync())
	step(m.Rename("d/a", "d/b"))
	step(m.Link("d/b", "d/c"))
	step(m.Remove("d/b"))
	step(m.SyncDir("d"))
	_, e = m.Open("d/c")
	step(e)
	step(lock.Close())
	return err
}

func TestCrashAt(t *testing.T) {
	whole := vfs.NewMem()
	must(t, workload(whole))
	const want = 17
	if whole.Ops() != want {
		t.Fatalf("the workload counts %d operations, want %d", whole.Ops(), want)
	}
	last := ""
	for k := 0; ; k++ {
		m := vfs.NewMem(vfs.CrashAt(k))
		err := workload(m)
		if !m.Crashed() {
			must(t, err)
			if k != want {
				t.Fatalf("the run needed %d operations, want %d", k, want)
			}
			return
		}
		if !errors.Is(err, vfs.ErrCrashed) || m.Ops() != k+1 {
			t.Fatalf("k=%d: error %v after %d operations", k, err, m.Ops())
		}
		for what, err := range map[string]error{
			"open":  second(m.Open("d")),
			"list":  second(m.List(".")),
			"stat":  second(m.Stat(".")),
			"mkdir": m.Mkdir("x"),
			"lock":  second(m.Lock("L")),
		} {
			if !errors.Is(err, vfs.ErrCrashed) {
				t.Fatalf("k=%d: %s after the crash: %v", k, what, err)
			}
		}
		got := show(t, m.AfterKill())
		if k > 0 && got == last && k != 9 && k != 10 && k != 12 && k != 16 {
			t.Errorf("k=%d: the operation before left no trace: %s", k, got)
		}
		last = got
		show(t, m.AfterCrash(vfs.Random(uint64(k))))
	}
}

func second[T any](_ T, err error) error { return err }

func TestCrashByte(t *testing.T) {
	for _, c := range []struct {
		name string
		k    int // the operation that is cut
		do   func(f vfs.File, w vfs.Mapping) error
		want string
	}{
		{"write", 3, func(f vfs.File, _ vfs.Mapping) error { return second(f.WriteAt([]byte("ABCD"), 1)) }, "0AB3456789"},
		{"vector", 3, func(f vfs.File, _ vfs.Mapping) error {
			return second(f.WritevAt([][]byte{[]byte("A"), []byte("BC"), []byte("D")}, 1))
		}, "0AB3456789"},
		{"append", 3, func(f vfs.File, _ vfs.Mapping) error { return second(f.Append([]byte("ABCD"))) }, "0123456789AB"},
		{"zero", 3, func(f vfs.File, _ vfs.Mapping) error { return f.Zero(3, 4) }, "012..56789"},
		{"store", 3, func(_ vfs.File, w vfs.Mapping) error { return w.Store(6, []byte("abcd")) }, "012345ab89"},
		{"truncate", 3, func(f vfs.File, _ vfs.Mapping) error { return f.Truncate(4) }, "0123456789"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := vfs.NewMem(vfs.CrashAt(c.k), vfs.CrashByte(2))
			f := create(t, m, "a", "0123456789")
			w, err := f.Map(0, 4096)
			must(t, err)
			if err := c.do(f, w); !errors.Is(err, vfs.ErrCrashed) {
				t.Fatalf("got %v, want ErrCrashed", err)
			}
			if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, vfs.ErrCrashed) {
				t.Fatalf("read after the crash: %v", err)
			}
			if err := w.Store(0, []byte("x")); !errors.Is(err, vfs.ErrCrashed) {
				t.Fatalf("store after the crash: %v", err)
			}
			if got := show(t, m.AfterKill()); got != "a="+c.want {
				t.Fatalf("got %s, want a=%s", got, c.want)
			}
		})
	}
}

func TestCrashOptions(t *testing.T) {
	var asked []int
	m := vfs.NewMem(vfs.CountReads(), vfs.CrashAt(2), vfs.CrashCut(func(n int) int { asked = append(asked, n); return n + 5 }))
	must(t, second(m.List(".")))
	f, err := m.Create("a")
	must(t, err)
	if n, err := f.WriteAt([]byte("abc"), 0); n != 0 || !errors.Is(err, vfs.ErrCrashed) {
		t.Fatalf("cut write: %d, %v", n, err)
	}
	if !slices.Equal(asked, []int{3}) {
		t.Fatalf("asked to cut %v, want one write of 3", asked)
	}
	next := m.AfterKill(vfs.CrashAt(1))
	if got := second(next.Stat("a")); got != nil || next.Ops() != 1 {
		t.Fatalf("stat: %v, %d operations", got, next.Ops())
	}
	if _, err := next.List("."); !errors.Is(err, vfs.ErrCrashed) {
		t.Fatalf("the heir's own crash: %v", err)
	}
	if got := show(t, next.AfterKill()); got != "a=abc" {
		t.Fatalf("got %s, want a=abc", got)
	}
}

// TestFrozen checks that a crash can be looked at twice, and that its heirs do not
// share what they write.
func TestFrozen(t *testing.T) {
	m := vfs.NewMem()
	f := durable(t, m, "a", "one")
	write(t, f, "two", 0)
	w, err := f.Map(0, 4096)
	must(t, err)
	kill, cut := m.AfterKill(), m.AfterCrash(vfs.KeepAll)
	for i, heir := range []*vfs.Mem{kill, cut} {
		g, err := heir.Open("a")
		must(t, err)
		write(t, g, fmt.Sprint(i), 2)
		create(t, heir, fmt.Sprint("n", i), "")
	}
	if err := w.Store(0, []byte("x")); !errors.Is(err, vfs.ErrCrashed) {
		t.Fatalf("store after the kill: %v", err)
	}
	for _, c := range []struct {
		m    *vfs.Mem
		want string
	}{{kill, "a=tw0 n0="}, {cut, "a=tw1 n1="}, {m.AfterKill(), "a=two"}, {m.AfterCrash(nil), "a=one"}} {
		if got := show(t, c.m); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

// TestFrozenDisk checks the same of pages that were synced more than once, which
// a file overwrites in place.
func TestFrozenDisk(t *testing.T) {
	m := vfs.NewMem()
	f := durable(t, m, "a", "one")
	for _, s := range []string{"two", "six"} {
		write(t, f, s, 0)
		must(t, f.Sync())
	}
	write(t, f, "ten", 0)
	heir := m.AfterKill()
	g, err := heir.Open("a")
	must(t, err)
	for range 3 {
		write(t, g, "bad", 0)
		must(t, g.Sync())
	}
	if got := content(t, m.AfterCrash(nil), "a"); got != "six" {
		t.Fatalf("the frozen disk holds %q, want six", got)
	}
	if got := content(t, m.AfterKill(), "a"); got != "ten" {
		t.Fatalf("the frozen cache holds %q, want ten", got)
	}
}

// TestLostPageBetweenGoodOnes writes around a page of a failed sync: only what was
// written again becomes durable.
func TestLostPageBetweenGoodOnes(t *testing.T) {
	const block = 4096
	m := vfs.NewMem()
	f := durable(t, m, "a", strings.Repeat("o", 3*block))
	write(t, f, strings.Repeat("n", 3*block), 0)
	failSync(t, f)
	write(t, f, "n", 10)
	write(t, f, "n", 2*block)
	must(t, f.Sync())
	want := strings.Repeat("n", block) + strings.Repeat("o", block) + strings.Repeat("n", block)
	if got := content(t, m.AfterCrash(vfs.KeepAll), "a"); got != want {
		t.Fatalf("pages are %c %c %c, want n o n", got[0], got[block], got[2*block])
	}
}

// TestLostSize keeps the sectors of an append and loses the size: the bytes past it
// must not come back when the file grows.
func TestLostSize(t *testing.T) {
	m := vfs.NewMem()
	f := durable(t, m, "a", "ab")
	_, err := f.Append([]byte("cd"))
	must(t, err)
	m = m.AfterCrash(vfs.ChoiceFunc(func(q vfs.Question, n int) int {
		if q.Kind == vfs.KeepSize {
			return 0
		}
		return 1
	}))
	f, err = m.Open("a")
	must(t, err)
	must(t, f.Truncate(4))
	if got := show(t, m); got != "a=ab.." {
		t.Fatalf("got %s, want a=ab..", got)
	}
}

func TestLocksAreFreeAfterACrash(t *testing.T) {
	m := vfs.NewMem()
	_, err := m.Lock("LOCK")
	must(t, err)
	for _, heir := range []*vfs.Mem{m.AfterKill(), m.AfterCrash(vfs.KeepAll), m.AfterCrash(nil)} {
		l, err := heir.Lock("LOCK")
		must(t, err)
		must(t, l.Close())
	}
}

func TestCapacity(t *testing.T) {
	const block = 4096
	m := vfs.NewMem(vfs.Capacity(4 * block))
	f := create(t, m, "a", "")
	n, err := f.WriteAt(bytes.Repeat([]byte("x"), 5*block), block/2)
	if n != 3*block+block/2 || !errors.Is(err, vfs.ErrNoSpace) {
		t.Fatalf("write over the end of the disk: %d, %v", n, err)
	}
	write(t, f, "inside", 0)
	must(t, f.Truncate(100*block)) // sparse: free
	w, err := f.Map(0, 16*block)
	must(t, err)
	must(t, w.Store(0, []byte("inside")))
	if err := w.Store(10*block, []byte("hole")); !errors.Is(err, vfs.ErrFault) {
		t.Fatalf("store into a hole of a full disk: %v", err)
	}
	for what, err := range map[string]error{
		"allocate": f.Allocate(8*block, block),
		"zero":     f.Zero(8*block, block),
		"append":   second(f.Append([]byte("x"))),
	} {
		if !errors.Is(err, vfs.ErrNoSpace) {
			t.Errorf("%s on a full disk: %v", what, err)
		}
	}
	g := create(t, m, "b", "") // names are free
	m.SetCapacity(5 * block)
	write(t, g, "fits", 0)
	if n, err := g.WriteAt([]byte("not"), block); n != 0 || !errors.Is(err, vfs.ErrNoSpace) {
		t.Fatalf("write past the new size: %d, %v", n, err)
	}
	must(t, f.Truncate(0)) // gives 4 blocks back
	must(t, g.Allocate(0, 5*block))
	must(t, m.Remove("b"))
	if n, err := f.WriteAt([]byte("x"), 0); n != 0 || !errors.Is(err, vfs.ErrNoSpace) {
		t.Fatalf("the blocks of an open unlinked file were given away: %d, %v", n, err)
	}
	must(t, g.Close())
	write(t, f, "x", 0)
	// The heirs count what they hold: one block of five is taken.
	for _, heir := range []*vfs.Mem{m.AfterKill(), m.AfterCrash(vfs.KeepAll)} {
		h, err := heir.Create("c")
		must(t, err)
		if n, err := h.WriteAt(make([]byte, 6*block), 0); n != 4*block || !errors.Is(err, vfs.ErrNoSpace) {
			t.Fatalf("heir: %d, %v, want room for 4 blocks", n, err)
		}
	}
}

// TestMappingHoldsBlocks unlinks and closes a file that is still mapped.
func TestMappingHoldsBlocks(t *testing.T) {
	m := vfs.NewMem(vfs.Capacity(4096))
	f := create(t, m, "a", "x")
	w, err := f.Map(0, 4096)
	must(t, err)
	must(t, f.Close())
	must(t, m.Remove("a"))
	g := create(t, m, "b", "")
	if _, err := g.WriteAt([]byte("x"), 0); !errors.Is(err, vfs.ErrNoSpace) {
		t.Fatalf("the block of a mapped file was given away: %v", err)
	}
	must(t, w.Close())
	write(t, g, "x", 0)
}

func TestReadsAreNotCounted(t *testing.T) {
	m := vfs.NewMem()
	f := create(t, m, "a", "x")
	w, err := f.Map(0, 1)
	must(t, err)
	before := m.Ops()
	must(t, errors.Join(second(f.ReadAt(make([]byte, 1), 0)), second(f.Info()), second(m.Stat("a")), second(m.List(".")), w.Load(0, make([]byte, 1))))
	if got := m.Ops() - before; got != 0 {
		t.Fatalf("%d operations were counted, want 0", got)
	}
}

// TestHalfMovesMakeNoCircle moves two directories in and out of each other. A power
// cut that keeps one half of each move would leave each inside the other.
func TestHalfMovesMakeNoCircle(t *testing.T) {
	m := vfs.NewMem()
	must(t, m.Mkdir("a"))
	must(t, m.Mkdir("b"))
	must(t, m.SyncDir("."))
	must(t, m.Rename("a", "b/a"))
	must(t, m.Rename("b/a", "a"))
	must(t, m.Rename("b", "a/b"))
	got := outcomes(t, m)
	if len(got) < 4 || !slices.Contains(got, "a/ a/b/") {
		t.Fatalf("outcomes: %q", got)
	}
}

func TestMapBytes(t *testing.T) {
	m := vfs.NewMem(vfs.MapBytes(vfs.MapAlign))
	f := create(t, m, "a", "x")
	if _, err := f.Map(0, vfs.MapAlign+1); !errors.Is(err, errors.ErrUnsupported) {
		t.Fatalf("a window past the limit: %v", err)
	}
	must(t, second(f.Map(0, vfs.MapAlign)))
}
