package vfs_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/vfs"
)

func TestFaults(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []struct {
		name    string
		op      vfs.Op
		effect  vfs.Effect
		do      func(fs vfs.FS, f vfs.File, w vfs.Mapping) (int, error)
		wantN   int
		wantErr error
		want    string // the file a, which held 0123456789
	}{
		{"write fails", vfs.OpWrite, vfs.Fail(nil), doWrite, 0, syscall.EIO, "0123456789"},
		{"write fails with a given error", vfs.OpAny, vfs.Fail(boom), doWrite, 0, boom, "0123456789"},
		{"write on a full disk", vfs.OpWrite, vfs.Full(2), doWrite, 2, vfs.ErrNoSpace, "01AB456789"},
		{"write just before the disk is full", vfs.OpWrite, vfs.Full(4), doWrite, 4, nil, "01ABCD6789"},
		{"short write", vfs.OpWrite, vfs.Short(3), doWrite, 3, io.ErrShortWrite, "01ABC56789"},
		{"misplaced write", vfs.OpWrite, vfs.Misplace("", 4), doWrite, 4, nil, "012345ABCD"},
		{"write to another file", vfs.OpWrite, vfs.Misplace("b", -1), doWrite, 4, nil, "0123456789"},
		{"lost write", vfs.OpWrite, vfs.Lose(), doWrite, 4, nil, "0123456789"},
		{"flipped write", vfs.OpWrite, vfs.Flip(8 + 5), doWrite, 4, nil, "01AbCD6789"},
		{"vector: write fails", vfs.OpWrite, vfs.Fail(nil), doWritev, 0, syscall.EIO, "0123456789"},
		{"vector: write on a full disk", vfs.OpWrite, vfs.Full(2), doWritev, 2, vfs.ErrNoSpace, "01AB456789"},
		{"vector: write just before the disk is full", vfs.OpWrite, vfs.Full(4), doWritev, 4, nil, "01ABCD6789"},
		{"vector: short write", vfs.OpWrite, vfs.Short(3), doWritev, 3, io.ErrShortWrite, "01ABC56789"},
		{"vector: misplaced write", vfs.OpWrite, vfs.Misplace("", 4), doWritev, 4, nil, "012345ABCD"},
		{"vector: write to another file", vfs.OpWrite, vfs.Misplace("b", -1), doWritev, 4, nil, "0123456789"},
		{"vector: lost write", vfs.OpWrite, vfs.Lose(), doWritev, 4, nil, "0123456789"},
		{"vector: flipped write", vfs.OpWrite, vfs.Flip(8 + 5), doWritev, 4, nil, "01AbCD6789"},
		{"append fails", vfs.OpAppend, vfs.Fail(nil), doAppend, 0, syscall.EIO, "0123456789"},
		{"append on a full disk", vfs.OpAppend, vfs.Full(1), doAppend, 1, vfs.ErrNoSpace, "0123456789A"},
		{"flipped append", vfs.OpAppend, vfs.Flip(5), doAppend, 4, nil, "0123456789aBCD"},
		{"zero on a full disk", vfs.OpZero, vfs.Full(2), doZero, 0, vfs.ErrNoSpace, "01..456789"},
		{"lost zeros", vfs.OpZero, vfs.Lose(), doZero, 0, nil, "0123456789"},
		{"store fails", vfs.OpStore, vfs.Fail(nil), doStore, 0, syscall.EIO, "0123456789"},
		{"store cut by a fault", vfs.OpStore, vfs.Short(3), doStore, 0, vfs.ErrFault, "01ABC56789"},
		{"store into a hole of a full disk", vfs.OpStore, vfs.Full(0), doStore, 0, vfs.ErrFault, "0123456789"},
		{"lost store", vfs.OpStore, vfs.Lose(), doStore, 0, nil, "0123456789"},
		{"flipped store", vfs.OpStore, vfs.Flip(5), doStore, 0, nil, "01aBCD6789"},
		{"misplaced store", vfs.OpStore, vfs.Misplace("", 3), doStore, 0, nil, "01234ABCD9"},
		{"store misplaced out of the window", vfs.OpStore, vfs.Misplace("", -3), doStore, 0, nil, "0123456789"},
		{"read fails", vfs.OpRead, vfs.Fail(nil), doRead("", 4), 0, syscall.EIO, ""},
		{"short read", vfs.OpRead, vfs.Short(3), doRead("012", 4), 3, io.ErrUnexpectedEOF, ""},
		{"flipped read", vfs.OpRead, vfs.Flip(3*8 + 6), doRead("012s", 4), 4, nil, ""},
		{"stale read", vfs.OpRead, vfs.Stale(), doRead("old", 4), 3, io.EOF, ""},
		{"sync fails", vfs.OpSync, vfs.Fail(nil), doErr(func(_ vfs.FS, f vfs.File) error { return f.Sync() }), 0, syscall.EIO, "0123456789"},
		{"datasync finds the disk full", vfs.OpDatasync, vfs.Full(0), doErr(func(_ vfs.FS, f vfs.File) error { return f.Datasync() }), 0, vfs.ErrNoSpace, "0123456789"},
		{"truncate fails", vfs.OpTruncate, vfs.Fail(nil), doErr(func(_ vfs.FS, f vfs.File) error { return f.Truncate(1) }), 0, syscall.EIO, "0123456789"},
		{"allocate on a full disk", vfs.OpAllocate, vfs.Full(0), doErr(func(_ vfs.FS, f vfs.File) error { return f.Allocate(0, 99) }), 0, vfs.ErrNoSpace, "0123456789"},
		{"map fails", vfs.OpMap, vfs.Fail(nil), doErr(func(_ vfs.FS, f vfs.File) error { return second(f.Map(0, 9)) }), 0, syscall.EIO, "0123456789"},
		{"load fails", vfs.OpRead, vfs.Fail(nil), func(_ vfs.FS, _ vfs.File, w vfs.Mapping) (int, error) { return 0, w.Load(0, make([]byte, 9)) }, 0, syscall.EIO, "0123456789"},
		{"open fails", vfs.OpOpen, vfs.Fail(nil), doErr(func(fs vfs.FS, _ vfs.File) error { return second(fs.Open("a")) }), 0, syscall.EIO, ""},
		{"create on a full disk", vfs.OpCreate, vfs.Full(0), doErr(func(fs vfs.FS, _ vfs.File) error { return second(fs.Create("c")) }), 0, vfs.ErrNoSpace, "0123456789"},
		{"mkdir fails", vfs.OpMkdir, vfs.Fail(nil), doErr(func(fs vfs.FS, _ vfs.File) error { return fs.Mkdir("d") }), 0, syscall.EIO, "0123456789"},
		{"rename fails", vfs.OpRename, vfs.Fail(nil), doErr(func(fs vfs.FS, _ vfs.File) error { return fs.Rename("a", "c") }), 0, syscall.EIO, "0123456789"},
		{"link fails", vfs.OpLink, vfs.Fail(nil), doErr(func(fs vfs.FS, _ vfs.File) error { return fs.Link("a", "c") }), 0, syscall.EIO, "0123456789"},
		{"remove fails", vfs.OpRemove, vfs.Fail(nil), doErr(func(fs vfs.FS, _ vfs.File) error { return fs.Remove("a") }), 0, syscall.EIO, "0123456789"},
		{"syncdir fails", vfs.OpSyncDir, vfs.Fail(nil), doErr(func(fs vfs.FS, _ vfs.File) error { return fs.SyncDir(".") }), 0, syscall.EIO, "0123456789"},
		{"lock fails", vfs.OpLock, vfs.Fail(nil), doErr(func(fs vfs.FS, _ vfs.File) error { return second(fs.Lock("L")) }), 0, syscall.EIO, "0123456789"},
		{"list fails", vfs.OpList, vfs.Fail(nil), doErr(func(fs vfs.FS, _ vfs.File) error { return second(fs.List(".")) }), 0, syscall.EIO, "0123456789"},
		{"stat fails", vfs.OpStat, vfs.Fail(nil), doErr(func(fs vfs.FS, _ vfs.File) error { return second(fs.Stat("a")) }), 0, syscall.EIO, "0123456789"},
		{"info fails", vfs.OpStat, vfs.Fail(nil), doErr(func(_ vfs.FS, f vfs.File) error { return second(f.Info()) }), 0, syscall.EIO, "0123456789"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := vfs.NewMem()
			durable(t, m, "b", "other")
			durable(t, m, "a", "old")
			fs := vfs.NewFault(m)
			f, err := fs.Open("a")
			must(t, err)
			write(t, f, "0123456789", 0)
			w, err := f.Map(0, 4096)
			must(t, err)
			fs.Add(vfs.Rule{Op: c.op, Glob: "[aLcd.]", Effect: c.effect})
			n, err := c.do(fs, f, w)
			if n != c.wantN || !errors.Is(err, c.wantErr) || (err == nil) != (c.wantErr == nil) {
				t.Fatalf("got %d, %v, want %d, %v", n, err, c.wantN, c.wantErr)
			}
			if fs.Hits() != 1 && c.wantErr == nil {
				t.Fatalf("%d hits, want 1", fs.Hits())
			}
			if c.want != "" {
				if got := strings.ReplaceAll(content(t, m, "a"), "\x00", "."); got != c.want {
					t.Fatalf("the file holds %q, want %q", got, c.want)
				}
			}
		})
	}
}

func doWrite(_ vfs.FS, f vfs.File, _ vfs.Mapping) (int, error) { return f.WriteAt([]byte("ABCD"), 2) }
func doWritev(_ vfs.FS, f vfs.File, _ vfs.Mapping) (int, error) {
	return f.WritevAt([][]byte{[]byte("A"), nil, []byte("BC"), []byte("D")}, 2)
}
func doAppend(_ vfs.FS, f vfs.File, _ vfs.Mapping) (int, error) {
	return f.Append([]byte("ABCD"))
}
func doZero(_ vfs.FS, f vfs.File, _ vfs.Mapping) (int, error) { return 0, f.Zero(2, 4) }
func doStore(_ vfs.FS, _ vfs.File, w vfs.Mapping) (int, error) {
	return 0, w.Store(2, []byte("ABCD"))
}
func doErr(do func(vfs.FS, vfs.File) error) func(vfs.FS, vfs.File, vfs.Mapping) (int, error) {
	return func(fs vfs.FS, f vfs.File, _ vfs.Mapping) (int, error) { return 0, do(fs, f) }
}

func doRead(want string, n int) func(vfs.FS, vfs.File, vfs.Mapping) (int, error) {
	return func(_ vfs.FS, f vfs.File, _ vfs.Mapping) (int, error) {
		p := make([]byte, n)
		got, err := f.ReadAt(p, 0)
		if string(p[:got]) != want {
			return -1, fmt.Errorf("read %q, want %q", p[:got], want)
		}
		return got, err
	}
}

func TestMisplaceToAnotherFile(t *testing.T) {
	m := vfs.NewMem()
	create(t, m, "b", "other")
	fs := vfs.NewFault(m, vfs.Rule{Op: vfs.OpWrite, Glob: "a", Effect: vfs.Misplace("b", 1)})
	create(t, fs, "a", "XY")
	if got := show(t, m); got != "a= b=oXYer" {
		t.Fatalf("got %s", got)
	}
}

func TestRules(t *testing.T) {
	m := vfs.NewMem()
	fs := vfs.NewFault(m,
		vfs.Rule{Op: vfs.OpSync, Glob: "*.log", Skip: 2, Count: 2, Effect: vfs.Fail(nil)},
		vfs.Rule{Op: vfs.OpSync, Glob: "d/x.log", Skip: 1, Count: -1, Effect: vfs.Fail(io.ErrNoProgress)},
	)
	must(t, fs.Mkdir("d"))
	other := create(t, fs, "d/x.index", "")
	f := create(t, fs, "d/x.log", "")
	got := ""
	for range 7 {
		must(t, other.Sync())
		switch err := f.Sync(); {
		case err == nil:
			got += "."
		case errors.Is(err, syscall.EIO):
			got += "E"
		default:
			got += "n"
		}
	}
	// While the first rule has an operation, the second does not see it.
	if got != ".nEEnnn" {
		t.Fatalf("got %s, want .nEEnnn", got)
	}
	fs.Clear()
	must(t, f.Sync())

	var ops []string
	fs.OnOp(func(op vfs.Op, name string) { ops = append(ops, op.String()+" "+name) })
	write(t, f, "x", 0)
	must(t, f.Datasync())
	must(t, fs.SyncDir("d"))
	fs.OnOp(nil)
	must(t, f.Sync())
	if want := []string{"write d/x.log", "datasync d/x.log", "syncdir d"}; !slices.Equal(ops, want) {
		t.Fatalf("the hook saw %q, want %q", ops, want)
	}

	for name, r := range map[string]vfs.Rule{
		"a bad glob":               {Op: vfs.OpSync, Glob: "[", Effect: vfs.Fail(nil)},
		"no effect":                {Op: vfs.OpSync},
		"an effect that cannot be": {Op: vfs.OpRename, Effect: vfs.Flip(1)},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a rule with %s was taken", name)
				}
			}()
			fs.Add(r)
		}()
	}
}

func TestFaultFailSync(t *testing.T) {
	m := vfs.NewMem()
	durable(t, m, "a", "old")
	fs := vfs.NewFault(m, vfs.Rule{Op: vfs.OpDatasync, Effect: vfs.FailSync()})
	f, err := fs.Open("a")
	must(t, err)
	write(t, f, "new", 0)
	if err := f.Datasync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("got %v, want EIO", err)
	}
	must(t, f.Datasync())
	if got := content(t, fs, "a"); got != "new" {
		t.Fatalf("reads %q, want new", got)
	}
	if got := content(t, m.AfterKill().AfterCrash(vfs.KeepAll), "a"); got != "old" {
		t.Fatalf("after the power cut %q, want old", got)
	}

	disk := vfs.NewFault(openOS(t, t.TempDir()),
		vfs.Rule{Op: vfs.OpSync, Effect: vfs.FailSync()}, vfs.Rule{Op: vfs.OpRead, Effect: vfs.Stale()})
	g := create(t, disk, "a", "x")
	if err := g.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("a failed sync on a real disk: %v", err)
	}
	if _, err := g.ReadAt(make([]byte, 1), 0); !errors.Is(err, errors.ErrUnsupported) {
		t.Fatalf("a stale read of a real disk: %v", err)
	}
}

func TestLyingSyncs(t *testing.T) {
	m := vfs.NewMem()
	fs := vfs.NewFault(m, vfs.Rule{Op: vfs.OpSync, Effect: vfs.Lose()}, vfs.Rule{Op: vfs.OpSyncDir, Skip: 1, Effect: vfs.Lose()})
	f := create(t, fs, "a", "x")
	must(t, fs.SyncDir("."))
	must(t, f.Sync())
	must(t, create(t, fs, "b", "").Datasync())
	must(t, fs.SyncDir("."))
	if got := show(t, m.AfterCrash(nil)); got != "a=" {
		t.Fatalf("got %s, want a=", got)
	}
}

// TestDelay lets a slow disk pass virtual time: no lock is held meanwhile, and
// another goroutine goes on.
func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewFault(vfs.NewMem(), vfs.Rule{Op: vfs.OpDatasync, Glob: "slow", Count: -1, Effect: vfs.Call(func() { time.Sleep(time.Hour) })})
		start := time.Now()
		slow, quick := create(t, fs, "slow", "x"), create(t, fs, "quick", "x")
		done := make(chan time.Duration)
		go func() {
			if err := slow.Datasync(); err != nil {
				t.Error(err)
			}
			done <- time.Since(start)
		}()
		synctest.Wait()
		must(t, quick.Datasync())
		write(t, slow, "y", 0)
		if d := time.Since(start); d != 0 {
			t.Fatalf("the other goroutine waited %v", d)
		}
		if d := <-done; d != time.Hour {
			t.Fatalf("the sync took %v, want an hour", d)
		}
	})
}
