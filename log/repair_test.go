package log

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// laid is a frame of a closed log.
type laid struct {
	file     string
	pos, end int64
	value    string
}

// repairable makes a closed log of several segments and says where its frames lie.
func repairable(t *testing.T, fs vfs.FS) (frames []laid, cfg Config) {
	t.Helper()
	cfg = Config{SegmentBytes: 1100, IndexIntervalBytes: 200}
	l := openTest(t, fs, cfg)
	for i := range 24 {
		appendTest(t, l, 1, fmt.Sprintf("v%d %060d", i, i))
	}
	for _, s := range *l.segs.Load() {
		c := cursor{seg: s, pos: segmentHeaderLen, limit: s.end.Load()}
		for c.pos < c.limit {
			var h frameHeader
			pos := c.pos
			b, err := c.next(&h)
			if err != nil {
				break
			}
			for rec := range Batch(b[frameHeaderLen:]).Records(0) {
				frames = append(frames, laid{file: s.name, pos: pos, end: c.pos, value: string(rec.Value)})
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if len(frames) != 24 {
		t.Fatalf("%d frames", len(frames))
	}
	return frames, cfg
}

// wantRepaired repairs, and checks that exactly these values are there, that the
// log can be written, and that there is nothing more to repair.
func wantRepaired(t *testing.T, fs vfs.FS, cfg Config, want []string, damaged bool) RepairReport {
	t.Helper()
	report, err := Repair("", &Options{FS: fs, Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	if damaged != (len(report.Damage) > 0) || damaged != (report.File != "") {
		t.Fatalf("want damage: %t, got %+v", damaged, report)
	}
	wantWhole(t, fs, cfg, want)
	return report
}

func wantWhole(t *testing.T, fs vfs.FS, cfg Config, want []string) {
	t.Helper()
	l, err := Open("", &Options{FS: fs, Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Err(); err != nil {
		t.Fatalf("repaired: %v", err)
	}
	if got := contents(t, l); !slices.Equal(got, want) {
		t.Fatalf("got  %q\nwant %q", short(got), short(want))
	}
	wantVerified(t, l)
	for i := range 20 {
		appendTest(t, l, 1, fmt.Sprintf("after %d", i))
	}
	if got := contents(t, l); len(got) != len(want)+20 {
		t.Fatalf("%d values after 20 appends behind %d", len(got), len(want))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if again, err := Repair("", &Options{FS: fs, Config: cfg}); err != nil || len(again.Damage) > 0 {
		t.Fatalf("repaired again: %+v %v", again, err)
	}
}

func short(values []string) (s []string) {
	for _, v := range values {
		s = append(s, strings.Fields(v)[0])
	}
	return s
}

// without is what is left when a range of a file is damaged.
func without(frames []laid, file string, from, to int64) (values []string) {
	for _, f := range frames {
		if f.file != file || f.end <= from || f.pos >= to {
			values = append(values, f.value)
		}
	}
	return values
}

// disk is the names and bytes of all files.
func disk(t *testing.T, fs vfs.FS) map[string][]byte {
	t.Helper()
	infos, err := fs.List(".")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, info := range infos {
		if info.Name == lockName {
			continue
		}
		f, err := fs.Open(info.Name)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, info.Size)
		f.ReadAt(b, 0)
		f.Close()
		all[info.Name] = b
	}
	return all
}

func TestRepairLeavesGoodLogs(t *testing.T) {
	base := vfs.NewMem()
	frames, cfg := repairable(t, base)
	torn := base.AfterCrash(vfs.KeepAll)
	l := openTest(t, torn, cfg)
	last := (*l.segs.Load())[len(*l.segs.Load())-1]
	f, err := torn.Open(last.name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{7}, 40), last.end.Load()); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for name, fs := range map[string]*vfs.Mem{"closed": base.AfterCrash(vfs.KeepAll), "torn tail": torn.AfterCrash(vfs.KeepAll)} {
		before := disk(t, fs)
		report := wantRepairedNothing(t, fs, cfg)
		after := disk(t, fs)
		for file := range before {
			if !bytes.Equal(before[file], after[file]) {
				t.Errorf("%s: %s was changed: %+v", name, file, report)
			}
		}
		if len(before) != len(after) {
			t.Errorf("%s: %d files became %d", name, len(before), len(after))
		}
		wantWhole(t, fs, cfg, without(frames, "", 0, 0))
	}
}

func wantRepairedNothing(t *testing.T, fs vfs.FS, cfg Config) RepairReport {
	t.Helper()
	report, err := Repair("", &Options{FS: fs, Config: cfg})
	if err != nil || len(report.Damage) > 0 {
		t.Fatalf("nothing is damaged, but: %+v %v", report, err)
	}
	return report
}

func TestRepairBytes(t *testing.T) {
	base := vfs.NewMem()
	frames, cfg := repairable(t, base)
	rng := rand.New(rand.NewPCG(1, 2))
	files := map[string]int64{}
	for _, f := range frames {
		files[f.file] = f.end
	}
	for file, size := range files {
		for range 12 {
			from := rng.Int64N(size)
			to := min(size, from+1+rng.Int64N(1+rng.Int64N(400)))
			fs := base.AfterCrash(vfs.KeepAll)
			f, err := fs.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			b := make([]byte, to-from)
			f.ReadAt(b, from)
			for i := range b {
				b[i] ^= byte(1 + rng.IntN(255))
			}
			f.WriteAt(b, from)
			f.Sync()
			f.Close()
			t.Logf("%s bytes %d to %d of %d", file, from, to, size)
			report := wantRepaired(t, fs, cfg, without(frames, file, from, to), true)
			if len(report.SetAside) == 0 {
				t.Fatalf("nothing was set aside: %+v", report)
			}
		}
	}
}

func TestRepairFiles(t *testing.T) {
	base := vfs.NewMem()
	frames, cfg := repairable(t, base)
	var files []string
	for _, f := range frames {
		if !slices.Contains(files, f.file) {
			files = append(files, f.file)
		}
	}
	first, middle, last := files[0], files[2], files[len(files)-1]
	lastSize := frames[len(frames)-1].end
	truncate := func(file string, size int64) func(*testing.T, vfs.FS) {
		return func(t *testing.T, fs vfs.FS) {
			f, err := fs.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := errors.Join(f.Truncate(size), f.Sync()); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(file string) func(*testing.T, vfs.FS) {
		return func(t *testing.T, fs vfs.FS) {
			if err := errors.Join(fs.Remove(file), fs.SyncDir(".")); err != nil {
				t.Fatal(err)
			}
		}
	}
	all := without(frames, "", 0, 0)
	for _, c := range []struct {
		name    string
		harm    func(*testing.T, vfs.FS)
		want    []string
		lostEnd bool
	}{
		{"middle is missing", remove(middle), without(frames, middle, 0, 1<<20), false},
		{"last is missing", remove(last), without(frames, last, 0, 1<<20), true},
		{"middle is empty", truncate(middle, 0), without(frames, middle, 0, 1<<20), false},
		{"first is cut", truncate(first, 400), without(frames, first, 400, 1<<20), false},
		{"last is cut", truncate(last, lastSize-10), without(frames, last, lastSize-10, 1<<20), true},
		{"checkpoint is empty", truncate(checkpointName, 0), all, false},
		{"checkpoint and the middle", func(t *testing.T, fs vfs.FS) {
			truncate(checkpointName, 100)(t, fs)
			flip(t, fs, middle, 300)
		}, without(frames, middle, 300, 301), false},
		{"headers of all", func(t *testing.T, fs vfs.FS) {
			for _, f := range files {
				flip(t, fs, f, 30)
			}
		}, all, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := base.AfterCrash(vfs.KeepAll)
			c.harm(t, fs)
			if report := wantRepaired(t, fs, cfg, c.want, true); report.LostEnd != c.lostEnd {
				t.Errorf("lost end: %+v", report)
			}
		})
	}
	t.Run("all is missing", func(t *testing.T) {
		fs := base.AfterCrash(vfs.KeepAll)
		for _, f := range files {
			flip(t, fs, f, 30)
			truncate(f, 50)(t, fs)
		}
		if report := wantRepaired(t, fs, cfg, nil, true); !report.LostEnd || report.Start == 0 {
			t.Errorf("%+v", report)
		}
	})
}

func TestRepairCrash(t *testing.T) {
	base := vfs.NewMem()
	frames, cfg := repairable(t, base)
	flip(t, base, frames[2].file, frames[2].pos+60)
	flip(t, base, frames[12].file, 30)
	flip(t, base, frames[len(frames)-1].file, frames[len(frames)-1].pos+60)
	var want []string
	for i, f := range frames {
		if i != 2 && i != len(frames)-1 {
			want = append(want, f.value)
		}
	}
	for n := 0; ; n++ {
		m := base.AfterCrash(vfs.KeepAll, vfs.CrashAt(n))
		if _, err := Repair("", &Options{FS: m, Config: cfg}); err == nil && !m.Crashed() {
			if n < 20 {
				t.Fatalf("the whole run took %d operations", n)
			}
			return
		}
		for seed := range uint64(3) {
			after := m.AfterCrash(vfs.Random(seed + uint64(n)*10))
			report, err := Repair("", &Options{FS: after, Config: cfg})
			if err != nil {
				t.Fatalf("crash at %d, seed %d: %v", n, seed, err)
			}
			t.Logf("crash at %d, seed %d: %+v", n, seed, report)
			wantWhole(t, after, cfg, want)
		}
	}
}
