package log

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/x/embedlog/internal/vfs"
)

var update = flag.Bool("update", false, "write testdata/format-v1 anew")

// goldenDir holds a log of format 1 as it was written on linux/amd64, and in
// contents.txt what is in it. Every system writes the same bytes, and reads them.
const goldenDir = "testdata/format-v1"

// writeGolden writes a log with everything in it that has a form of its own:
// several segments and epochs, all kinds of frames, batches of each codec, a log
// start offset, a tail that was taken back, indexes, a state of the owner. Zeros laid
// ahead would make it depend on how many that are.
func writeGolden(t *testing.T, fsys vfs.FS) {
	t.Helper()
	old, seed := random64, uint64(0x0101010101010101)
	random64 = func() uint64 { seed += 0x1122334455667788; return seed }
	defer func() { random64 = old }()
	l, err := Open("", &Options{
		FS: fsys, Config: Config{SegmentBytes: 2 << 10, IndexIntervalBytes: 256, NoZeroing: true},
		Snapshot: func(dst []byte) []byte { return append(dst, "the owner's state"...) },
	})
	if err != nil {
		t.Fatal(err)
	}
	stage := func(err error) { // each in a group of its own
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 40 {
		appendTest(t, l, uint64(1+i/10), fmt.Sprintf("value %d %s", i, strings.Repeat("x", 7*i)))
	}
	for _, name := range []string{"none", "gzip", "snappy", "lz4", "zstd", "idempotent"} {
		l.Lock()
		for _, one := range []func() error{
			func() error { return l.StageBatch(0, 5, golden(t, name), -1) },
			func() error { return l.StageEntry(KindNoop, 0, 5, nil) },
			func() error { return l.StageEntry(KindConfiguration, 0, 5, []byte("three peers")) },
			func() error { return l.StageEntry(KindBarrier, 0, 5, nil) },
		} {
			stage(one())
			stage(l.Write())
		}
		stage(l.Sync())
		l.Unlock()
	}
	last := l.NextIndex()
	appendTest(t, l, 6, "taken back")
	l.Lock()
	stage(l.TruncateFrom(last))
	stage(l.TruncateTo(11))
	l.Unlock()
	appendTest(t, l, 7, "the last one")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// readFiles reads all files of a log but for the lock, which names a process.
func readFiles(t *testing.T, fsys vfs.FS) map[string][]byte {
	t.Helper()
	infos, err := fsys.List(".")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, info := range infos {
		if info.Name == lockName {
			continue
		}
		f, err := fsys.Open(info.Name)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, info.Size)
		if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		f.Close()
		files[info.Name] = b
	}
	return files
}

// describe is a log's contents as text.
func describe(t *testing.T, l *Log) string {
	t.Helper()
	var out strings.Builder
	fmt.Fprintf(&out, "offsets %d to %d, next index %d, boundary %+v, state %q\n", l.StartOffset(), l.EndOffset(), l.NextIndex(), l.Boundary(), l.Recovered().State)
	r, err := l.ReadFrom(l.StartOffset())
	if err != nil {
		t.Fatal(err)
	}
	for {
		f, err := r.Next()
		if err == io.EOF {
			return out.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%v index %d epoch %d offsets %d to %d\n", f.Kind, f.Index, f.Epoch, f.Offset, f.NextOffset)
		if f.Kind != KindData {
			fmt.Fprintf(&out, "\t%q\n", f.Payload)
			continue
		}
		for rec, err := range Batch(f.Payload).Records(0) {
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&out, "\t%d at %d: %.20q=%.40q %d headers\n", rec.Offset, rec.Timestamp, rec.Key, rec.Value, len(rec.Headers))
		}
	}
}

func TestGoldenFormatIsWritten(t *testing.T) {
	fsys := vfs.NewMem()
	// In a bubble no time passes: the times in the files are the same in each run.
	synctest.Test(t, func(t *testing.T) { writeGolden(t, fsys) })
	got := readFiles(t, fsys)
	if *update {
		if err := os.RemoveAll(goldenDir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(goldenDir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, b := range got {
			if err := os.WriteFile(filepath.Join(goldenDir, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		l := openTest(t, fsys, Config{})
		if err := os.WriteFile(filepath.Join(goldenDir, "contents.txt"), []byte(describe(t, l)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(goldenDir)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{}
	for _, e := range entries {
		if e.Name() == "contents.txt" {
			continue
		}
		if want[e.Name()], err = os.ReadFile(filepath.Join(goldenDir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(g, w) {
		t.Fatalf("files %v, want %v\na change of the format takes a version and a fixture of its own; before the first release: -update", g, w)
	}
	for name, w := range want {
		if g := got[name]; !bytes.Equal(g, w) {
			at := 0
			for at < len(g) && at < len(w) && g[at] == w[at] {
				at++
			}
			t.Errorf("%s: %d bytes, want %d; they differ from byte %d on\na change of the format takes a version and a fixture of its own; before the first release: -update", name, len(g), len(w), at)
		}
	}
}

func TestGoldenFormatIsRead(t *testing.T) {
	dir := t.TempDir()
	want, err := os.ReadFile(filepath.Join(goldenDir, "contents.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(goldenDir)); err != nil {
		t.Fatal(err)
	}
	// What is read-only in a checkout is not to be so here.
	for _, e := range must(os.ReadDir(dir)) {
		if err := os.Chmod(filepath.Join(dir, e.Name()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := Open(dir, &Options{Config: Config{SegmentBytes: 2 << 10}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if rec := l.Recovered(); !rec.Clean || rec.Corruption != nil {
		t.Errorf("a log that was closed: %+v", rec)
	}
	if got := describe(t, l); got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	appendTest(t, l, 8, "goes on")
	if values := contents(t, l); values[len(values)-1] != "goes on" {
		t.Errorf("last value %q", values[len(values)-1])
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
