package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

var ctx = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// source is two logs that go on, and a file.
type source struct {
	logs  []*log.Log
	names []string
	n     int
}

func newSource(t testing.TB) *source {
	t.Helper()
	s := &source{names: []string{"topics/a/0", "topics/b/3"}}
	for range s.names {
		l, err := log.Open("", &log.Options{FS: vfs.NewMem(), Config: log.Config{SegmentBytes: 2048}})
		must(t, err)
		t.Cleanup(func() { l.Close() })
		s.logs = append(s.logs, l)
	}
	return s
}

func (s *source) append(t testing.TB, n int) {
	t.Helper()
	for range n {
		s.n++
		for i, l := range s.logs {
			l.Lock()
			h := log.BatchHeader{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
			err := l.StageRecords(1, &h, []log.Record{{Key: []byte("k"), Value: fmt.Appendf(nil, "%d %d %0200d", i, s.n, s.n)}})
			if err == nil {
				err = l.Write()
			}
			if err == nil {
				err = l.Sync()
			}
			l.Unlock()
			must(t, err)
		}
	}
}

// capture is a cut of all of it, and what is in it.
func (s *source) capture(t testing.TB) (*Source, [][]string) {
	t.Helper()
	src := &Source{Head: Head{TakenMillis: int64(s.n), Cluster: "c", Directory: "d"}, Files: []File{{"FORMAT", fmt.Appendf(nil, "format %d", s.n)}, {"topics/a/topic", []byte("a")}, {"topics/b/topic", []byte("a")}}}
	var all [][]string
	for i, l := range s.logs {
		release := l.Hold()
		c, err := l.Capture()
		must(t, err)
		src.Logs = append(src.Logs, Log{Path: s.names[i], Name: fmt.Sprintf("t/%d", i), Capture: c, Release: release})
		all = append(all, values(t, l))
	}
	return src, all
}

func values(t testing.TB, l *log.Log) (values []string) {
	t.Helper()
	r, err := l.ReadFrom(l.StartOffset())
	must(t, err)
	for {
		f, err := r.Next()
		if err == io.EOF {
			return values
		}
		must(t, err)
		for rec, err := range log.Batch(f.Payload).Records(0) {
			must(t, err)
			values = append(values, string(rec.Value))
		}
	}
}

// restore verifies a backup and restores all of it.
func restore(backup, dst vfs.FS) (*Manifest, error) {
	m, err := Verify(ctx, backup, nil)
	if err == nil {
		err = Restore(ctx, backup, dst, m, nil, func(string) bool { return false })
	}
	return m, err
}

// wantRestored restores a backup and compares what it holds.
func wantRestored(t testing.TB, backup vfs.FS, want [][]string, n int) {
	t.Helper()
	dst := vfs.NewMem()
	m, err := restore(backup, dst)
	must(t, err)
	if m.TakenMillis != int64(n) {
		t.Fatalf("backup %d, want %d", m.TakenMillis, n)
	}
	dst = dst.AfterCrash(nil) // nothing but what was synced
	for i, cut := range m.Logs {
		l, err := log.Open("", &log.Options{FS: vfs.Sub(dst, cut.Path)})
		must(t, err)
		if got := values(t, l); !slices.Equal(got, want[i]) {
			t.Errorf("%s: %d records, want %d", cut.Name, len(got), len(want[i]))
		}
		must(t, l.Close())
	}
	f, err := dst.Open("FORMAT")
	must(t, err)
	defer f.Close()
	b := make([]byte, 100)
	k, _ := f.ReadAt(b, 0)
	if string(b[:k]) != fmt.Sprintf("format %d", n) {
		t.Errorf("FORMAT is %q", b[:k])
	}
}

func TestBackupAndRestore(t *testing.T) {
	s := newSource(t)
	s.append(t, 40)
	dst := vfs.NewMem()
	src, want := s.capture(t)
	s.append(t, 5) // later than the cut
	var stages []string
	rep, err := Write(ctx, dst, src, &Options{Progress: func(p Progress) {
		if p.Done > p.Total || p.Path == "" {
			t.Errorf("%+v", p)
		}
		stages = append(stages, p.Stage)
	}})
	must(t, err)
	if rep.Logs != 2 || rep.Files < 10 || rep.ReusedFiles != 0 || rep.Removed != 0 || len(rep.Trimmed) != 0 || len(slices.Compact(stages)) != 2 {
		t.Errorf("%+v, %v", rep, slices.Compact(stages))
	}
	wantRestored(t, dst, want, 40)

	// The next one copies what is new, and takes the place of the first.
	src, want = s.capture(t)
	again, err := Write(ctx, dst, src, &Options{VerifyNew: true})
	must(t, err)
	if again.ReusedFiles != 2*(len(src.Logs[0].Segments)-2)+2 && again.ReusedFiles < 10 || again.ReusedBytes == 0 || again.Removed == 0 {
		t.Errorf("%+v", again)
	}
	wantRestored(t, dst, want, 45)

	// Nothing new: nothing is copied but what has the time in it.
	src, want = s.capture(t)
	third, err := Write(ctx, dst, src, nil)
	must(t, err)
	if third.Files-third.ReusedFiles > 2 {
		t.Errorf("%+v", third)
	}
	wantRestored(t, dst, want, 45)
}

// Retention deletes what was captured and not yet copied.
func TestRetentionMeanwhile(t *testing.T) {
	s := newSource(t)
	s.append(t, 40)
	src, want := s.capture(t)
	l := s.logs[1]
	l.Lock()
	n, err := l.Retain(log.RetentionPolicy{Bytes: 1, Upto: src.Logs[1].Segments[2].BaseOffset})
	l.Unlock()
	if err != nil || n != 2 {
		t.Fatal(n, err)
	}
	dst := vfs.NewMem()
	rep, err := Write(ctx, dst, src, nil)
	must(t, err)
	if !slices.Equal(rep.Trimmed, []string{"t/1"}) {
		t.Errorf("%+v", rep)
	}
	want[1] = want[1][l.StartOffset():]
	wantRestored(t, dst, want, 40)
}

// Killed at each operation: what was complete before still is, and the next run ends
// in the same backup.
func TestCrashAtEachOperation(t *testing.T) {
	s := newSource(t)
	s.append(t, 14)
	base := vfs.NewMem()
	first, was := s.capture(t)
	_, err := Write(ctx, base, first, nil)
	must(t, err)
	s.append(t, 14)
	_, want := s.capture(t)
	for _, before := range []bool{false, true} {
		crashed := 0
		for k := 0; ; k++ {
			dst := vfs.NewMem(vfs.CrashAt(k))
			if before {
				dst = copyTree(t, base, k)
			}
			src, _ := s.capture(t)
			_, err := Write(ctx, dst, src, nil)
			if !dst.Crashed() {
				must(t, err)
				wantRestored(t, dst.AfterKill(), want, 28)
				break
			}
			crashed++
			for mode, after := range map[string]*vfs.Mem{"power cut": dst.AfterCrash(vfs.Random(uint64(k))), "kill": dst.AfterKill()} {
				m, err := Verify(ctx, after, nil)
				switch {
				case err == nil && m.TakenMillis == 28:
					wantRestored(t, after, want, 28)
				case err == nil && before:
					if k%5 == 0 {
						wantRestored(t, after, was, 14)
					}
				case !before && errors.Is(err, ErrIncomplete):
				default:
					t.Fatalf("before=%t k=%d %s: %v", before, k, mode, err)
				}
				if before && k%4 != 0 {
					continue
				}
				src, _ := s.capture(t)
				if _, err := Write(ctx, after, src, nil); err != nil {
					t.Fatalf("before=%t k=%d %s: again: %v", before, k, mode, err)
				}
				wantRestored(t, after, want, 28)
			}
		}
		if crashed < 50 {
			t.Errorf("only %d operations", crashed)
		}
	}
}

// copyTree copies a backup into a file system that crashes at operation k from then on.
func copyTree(t testing.TB, from *vfs.Mem, k int) *vfs.Mem {
	t.Helper()
	probe := vfs.NewMem()
	fill(t, from, probe)
	to := vfs.NewMem(vfs.CrashAt(probe.Ops() + k))
	fill(t, from, to)
	return to
}

func fill(t testing.TB, from, to vfs.FS) {
	t.Helper()
	must(t, to.Mkdir("objects"))
	for _, dir := range []string{".", "objects"} {
		infos, err := from.List(dir)
		must(t, err)
		for _, info := range infos {
			if info.Dir || info.Name == "LOCK" {
				continue
			}
			name := strings.TrimPrefix(dir+"/"+info.Name, "./")
			f, err := from.Open(name)
			must(t, err)
			b := make([]byte, info.Size)
			f.ReadAt(b, 0)
			f.Close()
			g, err := to.Create(name)
			must(t, err)
			_, err = g.WriteAt(b, 0)
			must(t, err)
			must(t, g.Sync())
			must(t, g.Close())
		}
		must(t, to.SyncDir(dir))
	}
}

// A stopped first backup is gone on with: nothing that was written is written again.
func TestResume(t *testing.T) {
	s := newSource(t)
	s.append(t, 40)
	dst := vfs.NewMem()
	src, want := s.capture(t)
	stop, cancel := context.WithCancel(ctx)
	_, err := Write(stop, dst, src, &Options{Progress: func(p Progress) {
		if p.Done > p.Total/2 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := Verify(ctx, dst, nil); !errors.Is(err, ErrIncomplete) {
		t.Fatal(err)
	}
	src, _ = s.capture(t)
	rep, err := Write(ctx, dst, src, nil)
	must(t, err)
	if rep.ReusedBytes < rep.Bytes/4 {
		t.Errorf("%+v", rep)
	}
	wantRestored(t, dst, want, 40)
}

// Any byte of any file, any file missing: said, with the name of the file, and
// nothing is restored.
func TestDamage(t *testing.T) {
	s := newSource(t)
	s.append(t, 12)
	pristine := vfs.NewMem()
	src, _ := s.capture(t)
	_, err := Write(ctx, pristine, src, nil)
	must(t, err)
	infos, err := pristine.List("objects")
	must(t, err)
	for i := range infos {
		infos[i].Name = "objects/" + infos[i].Name
	}
	manifest, err := pristine.Stat("BACKUP")
	must(t, err)
	for _, info := range append(infos, manifest) {
		name := info.Name
		for pos := int64(-2); pos < info.Size; pos += max(info.Size/23, 1) {
			fs := pristine.AfterKill()
			what := fmt.Sprintf("%s byte %d", name, pos)
			switch {
			case pos == -2:
				must(t, fs.Remove(name))
			default:
				f, err := fs.Open(name)
				must(t, err)
				if pos < 0 {
					must(t, f.Truncate(info.Size-1))
				} else {
					var b [1]byte
					f.ReadAt(b[:], pos)
					b[0] ^= 0x10
					f.WriteAt(b[:], pos)
				}
				must(t, f.Close())
			}
			dst := vfs.NewMem()
			_, err := restore(fs, dst)
			if name == "BACKUP" && pos == -2 {
				if !errors.Is(err, ErrIncomplete) {
					t.Errorf("%s: %v", what, err)
				}
				continue
			}
			if !errors.Is(err, log.ErrCorrupt) && !errors.Is(err, log.ErrNewerFormat) || !strings.Contains(err.Error(), name) && name != "BACKUP" {
				t.Errorf("%s: %v", what, err)
			}
			if infos, _ := dst.List("."); len(infos) > 0 {
				t.Errorf("%s: something was restored", what)
			}
		}
	}
}

func TestTwoAtOnce(t *testing.T) {
	s := newSource(t)
	s.append(t, 2)
	dst := vfs.NewMem()
	lock, err := dst.Lock("LOCK")
	must(t, err)
	src, _ := s.capture(t)
	if _, err := Write(ctx, dst, src, nil); !errors.Is(err, vfs.ErrLocked) {
		t.Error(err)
	}
	must(t, lock.Close())
	_, err = Write(ctx, dst, src, nil)
	must(t, err)
}

// A failed operation at each place: an error, and the next run is good.
func TestErrorAtEachOperation(t *testing.T) {
	s := newSource(t)
	s.append(t, 6)
	want := [][]string{values(t, s.logs[0]), values(t, s.logs[1])}
	boom := errors.New("boom")
	for k := 0; ; k++ {
		mem := vfs.NewMem()
		dst := vfs.NewFault(mem, vfs.Rule{Skip: k, Effect: vfs.Fail(boom)})
		src, _ := s.capture(t)
		_, err := Write(ctx, dst, src, nil)
		if dst.Hits() == 0 {
			must(t, err)
			return
		}
		if err != nil && !errors.Is(err, boom) {
			t.Fatalf("k=%d: %v", k, err)
		}
		src, _ = s.capture(t)
		if _, err := Write(ctx, mem, src, nil); err != nil {
			t.Fatalf("k=%d: again: %v", k, err)
		}
		if k%10 == 0 {
			wantRestored(t, mem, want, 6)
		}
	}
}

func FuzzManifest(f *testing.F) {
	m := &Manifest{Head: Head{Format: 1}, Logs: []Cut{{"a", "b", 1, 2}}, Entries: []Entry{{"a/b", "o", 5, 7}}}
	b, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("{}\n{}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeManifest(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := m.encode()
		must(t, err)
		if n, err := decodeManifest(bytes.NewReader(again)); err != nil || fmt.Sprint(n) != fmt.Sprint(m) {
			t.Errorf("%v, %v, %v", m, n, err)
		}
	})
}
