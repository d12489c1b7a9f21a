package vfs_test

import (
	"runtime"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// A file that is written and synced over and over takes its size once, and one that
// is removed nothing.
func TestVolatileKeepsNothing(t *testing.T) {
	m := vfs.NewMem(vfs.Volatile())
	const size = 8 << 20
	heap := func() int64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	before := heap()
	for range 3 {
		f, err := m.Create("a")
		must(err)
		for i := range 4 {
			_, err := f.WriteAt(make([]byte, size), 0)
			must(err)
			_, err = f.WriteAt([]byte{byte(i)}, size/2)
			must(err)
			must(f.Sync())
			must(m.SyncDir("."))
		}
		if took := heap() - before; took > size+size/4 {
			t.Errorf("a file of %d bytes takes %d", size, took)
		}
		must(f.Close())
		must(m.Remove("a"))
	}
	if left := heap() - before; left > size/4 {
		t.Errorf("%d bytes are left of files that were removed", left)
	}
	runtime.KeepAlive(m)
}

func TestVolatileDoesNotCrash(t *testing.T) {
	for name, crash := range map[string]func(m *vfs.Mem){
		"power cut": func(m *vfs.Mem) { m.AfterCrash(nil) },
		"kill":      func(m *vfs.Mem) { m.AfterKill() },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic: the caller would take an empty file system for what a crash left")
				}
			}()
			crash(vfs.NewMem(vfs.Volatile()))
		})
	}
}
