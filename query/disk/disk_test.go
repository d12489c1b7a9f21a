package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/query"
	"github.com/x/embedlog/query/storetest"
)

func TestStores(t *testing.T) {
	storetest.Run(t, func(_ *testing.T, dir string) query.Stores { return New(&Options{Dir: dir, WriteBytes: 1 << 16}) })
}

// set is a batch of which each row says which one it is.
func set(t *testing.T, s query.RowStore, n int) {
	t.Helper()
	var changes []query.RowChange
	for k := range 20 {
		changes = append(changes, query.RowChange{Key: fmt.Appendf(nil, "k%d", (k+n)%30), Row: fmt.Appendf(nil, "%d %s", n, strings.Repeat("x", 500))})
	}
	if err := s.Apply(append(changes, query.RowChange{Key: []byte("mark"), Row: fmt.Append(nil, n)})); err != nil {
		t.Fatal(err)
	}
}

// After a crash a store is as it was after some batch: all of it, and nothing of the next one.
func TestCrashes(t *testing.T) {
	for seed := range uint64(testcount.N(40)) {
		r := rand.New(rand.NewPCG(seed, 5))
		fs := vfs.NewCrashableMem()
		stores := New(&Options{Dir: "d", WriteBytes: 1 << 16})
		stores.fs = fs
		s, err := stores.OpenStore("", "s")
		if err != nil {
			t.Fatal(err)
		}
		last := 0
		for range 2 {
			for range r.IntN(100) {
				last++
				set(t, s, last)
			}
			left := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: r})
			s.Close()
			fs, stores.fs = left, left
			if s, err = stores.OpenStore("", "s"); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			raw, found, err := s.Get(nil, []byte("mark"))
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			n := 0
			if found {
				fmt.Sscan(string(raw), &n)
			}
			if n > last {
				t.Fatalf("seed %d: batch %d of %d", seed, n, last)
			}
			want := map[string]int{}
			for b := 1; b <= n; b++ {
				for k := range 20 {
					want[fmt.Sprintf("k%d", (k+b)%30)] = b
				}
			}
			if err := s.Walk([]byte("k"), []byte("l"), false, func(key, row []byte) bool {
				got := 0
				fmt.Sscan(string(row), &got)
				if got != want[string(key)] {
					t.Errorf("seed %d: after batch %d %s is of batch %d, want %d", seed, n, key, got, want[string(key)])
				}
				delete(want, string(key))
				return true
			}); err != nil || len(want) != 0 {
				t.Errorf("seed %d: after batch %d these rows are missing: %v, %v", seed, n, want, err)
			}
			last = n // what was lost comes again
		}
		s.Close()
	}
}

// A disk that fails is an error, ends nobody's program, and leaves nothing that is believed afterwards.
func TestFailingDisk(t *testing.T) {
	mem := vfs.NewMem()
	var broken errorfs.Toggle
	broken.Injector = errorfs.ErrInjected.If(errorfs.Writes)
	stores := New(&Options{Dir: "d", WriteBytes: 1 << 16})
	stores.fs = errorfs.Wrap(mem, &broken)
	s, err := stores.OpenStore("", "s")
	if err != nil {
		t.Fatal(err)
	}
	for n := range 10 {
		set(t, s, n)
	}
	broken.On()
	deadline := time.Now().Add(20 * time.Second)
	for err == nil {
		if time.Now().After(deadline) {
			t.Fatal("writes do not fail")
		}
		err = s.Apply([]query.RowChange{{Key: []byte("k"), Row: make([]byte, 1<<14)}})
	}
	if _, _, e := s.Get(nil, []byte("k0")); e == nil {
		t.Error("it is read after it has failed")
	}
	broken.Off()
	s.Close()
	s, err = stores.OpenStore("", "s")
	if err != nil {
		t.Fatal(err)
	}
	if _, found, err := s.Get(nil, []byte("mark")); found || err != nil {
		t.Errorf("a store that had failed is used again: %v", err)
	}
	s.Close()
}

// A store whose memory is smaller than its rows takes them all the same, and nobody else may look into it.
func TestLittleMemory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "stores")
	stores := New(&Options{Dir: dir, WriteBytes: 1})
	s, err := stores.OpenStore("", "s")
	if err != nil {
		t.Fatal(err)
	}
	row := func(n int) []byte { return bytes.Repeat([]byte{byte(n)}, 1<<20) }
	for n := range 4 {
		if err := s.Apply([]query.RowChange{{Key: []byte{byte(n)}, Row: row(n)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = stores.OpenStore("", "s"); err != nil {
		t.Fatal(err)
	}
	for n := range 4 {
		if got, found, err := s.Get(nil, []byte{byte(n)}); !found || err != nil || !bytes.Equal(got, row(n)) {
			t.Errorf("row %d: %v, %v", n, found, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm() != 0o700 {
			t.Errorf("%s is %v", path, info.Mode())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// A damaged store is removed, and the views are made again.
func TestDamage(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	want := map[string]int64{}
	run := func(produce bool) query.Stats {
		db, err := embedlog.Open(dir, &embedlog.Options{Durability: embedlog.OS})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		top, err := db.EnsureTopic(ctx, "t", nil)
		if err != nil {
			t.Fatal(err)
		}
		g := query.NewGraph(db, "g", &query.Options{Store: New(nil), CacheBytes: 1})
		v := query.Add(g, "sums", query.Sum(query.From(top, codec.String, codec.Int64), func(_ string, n int64) int64 { return n }))
		if err := g.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if produce {
			var recs []embedlog.Record
			for i := range 500 {
				key := fmt.Sprint("k", i%200)
				value, _ := codec.Int64.Append(nil, int64(i))
				recs = append(recs, embedlog.Record{Key: []byte(key), Value: value})
				want[key] += int64(i)
			}
			if _, err := top.Produce(ctx, recs...); err != nil {
				t.Fatal(err)
			}
		}
		n := 0
		for row, err := range v.All(ctx) {
			if err != nil {
				t.Error(err)
				break
			}
			if n++; row.Value != want[row.Key] {
				t.Errorf("%s is %d, want %d", row.Key, row.Value, want[row.Key])
			}
		}
		if n != len(want) {
			t.Errorf("%d rows, want %d", n, len(want))
		}
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		return g.Stats()
	}
	run(true)
	if s := run(false); s.RestoredRows != 200 || s.RestoredRecords != 0 {
		t.Errorf("the store was not used: %+v", s)
	}
	files, err := filepath.Glob(filepath.Join(dir, "views", "*.store", "*"))
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	damaged := 0
	for _, file := range files {
		if strings.Contains(filepath.Base(file), "MANIFEST") || strings.HasSuffix(file, ".sst") {
			if err := os.WriteFile(file, []byte("not what was there"), 0o600); err != nil {
				t.Fatal(err)
			}
			damaged++
		}
	}
	if s := run(false); damaged == 0 || s.RestoredRows != 0 || s.RestoredRecords == 0 {
		t.Errorf("%d files were damaged: %+v", damaged, s)
	}
}

// Without a directory there is an error.
func TestNoDirectory(t *testing.T) {
	if _, err := New(nil).OpenStore("", "s"); !errors.Is(err, ErrNoDirectory) {
		t.Error(err)
	}
}

// Who has a store open keeps it.
func TestOpenTwice(t *testing.T) {
	stores, dir := New(nil), t.TempDir()
	s, err := stores.OpenStore(dir, "s")
	if err != nil {
		t.Fatal(err)
	}
	set(t, s, 1)
	if _, err := stores.OpenStore(dir, "s"); err == nil {
		t.Fatal("it is open twice")
	}
	if raw, found, err := s.Get(nil, []byte("mark")); string(raw) != "1" || !found || err != nil {
		t.Errorf("after another one wanted it: %q, %v, %v", raw, found, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
