package faultproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// One directory has one owner, and who comes second is told who that is.
func TestSecondOpenNamesTheHolder(t *testing.T) {
	dir := t.TempDir()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, pid int) {
		t.Helper()
		p, err := partition.Open(dir, nil)
		if err == nil {
			p.Close()
		}
		var locked *log.LockedError
		if !errors.As(err, &locked) || !errors.Is(err, log.ErrLocked) {
			t.Fatalf("%s: open is answered with %v", what, err)
		}
		if locked.PID != pid || locked.Host != host || time.Since(locked.Since) > time.Hour {
			t.Errorf("%s: %+v, want process %d on %s", what, locked, pid, host)
		}
	}

	holder, err := start(&Spec{Dir: dir, Work: "hold", Life: 1})
	if err != nil {
		t.Fatal(err)
	}
	refused("another process has it", holder.cmd.Process.Pid)
	second, err := child(t.Context(), &Spec{Dir: dir, Work: "hold", Life: 2})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := second.Output(); err == nil || !strings.Contains(string(out), fmt.Sprintf("locked by process %d on %s", holder.cmd.Process.Pid, host)) {
		t.Errorf("a second process: %v, %s", err, out)
	}

	// What a refused open left behind would be seen here, too.
	j := NewJournal()
	if err := j.Read(holder.kill()); err != nil {
		t.Fatal(err)
	}
	if err := j.Check(dir); err != nil {
		t.Fatalf("the holder was killed: %v", err)
	}

	p, err := partition.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	refused("the same process has it", os.Getpid())
	if _, err := p.Append(context.Background(), records("1.x.1s", 1), nil); err != nil {
		t.Errorf("append after others were refused: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if p, err = partition.Open(dir, nil); err != nil {
		t.Fatalf("open after a close: %v", err)
	}
	p.Close()
}

// descriptors counts the open descriptors of this process that lead below dir.
func descriptors(t *testing.T, dir string) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("open files cannot be counted here: ", err)
	}
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && strings.HasPrefix(to, dir+"/") && strings.HasSuffix(to, "log") {
			n++
		}
	}
	return n
}

// Many partitions share one bound on open data files, and use every one of them
// all the same. The directory and its lock stay open: two descriptors a partition,
// which the bound does not count.
func TestOpenFilesAreBounded(t *testing.T) {
	const partitions, most = 400, 64
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	goroutines := runtime.NumGoroutine()
	all := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("open files cannot be counted here: ", err)
		}
		return len(entries)
	}
	before := all()

	files := log.NewFileCache(most)
	ps, js := make([]*partition.Partition, partitions), make([]*sink, partitions)
	for i := range ps {
		cfg := partition.Config{Log: log.Config{Level: log.Level(i % 3), SegmentBytes: 4 << 10}}
		ps[i], err = partition.Open(filepath.Join(base, fmt.Sprint(i)), &partition.Options{Files: files, Config: cfg})
		if err != nil {
			t.Fatal(err)
		}
		js[i] = &sink{j: NewJournal()}
	}
	highest := 0
	for round := range 3 {
		for i, p := range ps {
			w := &work{out: js[i], p: p}
			if err := w.append(context.Background(), fmt.Sprintf("1.m.%ds", round), 10, nil); err != nil {
				t.Fatalf("partition %d: %v", i, err)
			}
			if next, err := readTo(p, p.LogEnd()); err != nil || next != p.LogEnd() {
				t.Fatalf("partition %d: read to %d of %d: %v", i, next, p.LogEnd(), err)
			}
			if i%10 == 0 {
				highest = max(highest, descriptors(t, base))
			}
		}
	}
	for i, p := range ps {
		if err := js[i].j.compare(p); err != nil {
			t.Errorf("partition %d: %v", i, err)
		}
	}
	// Two are being opened or read while the bound is looked at.
	if highest > most+2 || highest < most/2 {
		t.Errorf("%d data files were open at once, the bound is %d", highest, most)
	}
	t.Logf("at most %d data files open, %d descriptors in all, for %d partitions and a bound of %d", highest, all()-before, partitions, most)
	for i, p := range ps {
		if err := errors.Join(js[i].err, p.Close()); err != nil {
			t.Errorf("partition %d: %v", i, err)
		}
	}
	if open := files.Open(); open != 0 {
		t.Errorf("%d files stay open in the cache after all was closed", open)
	}
	for until := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		after, now := all(), runtime.NumGoroutine()
		if after <= before && now <= goroutines {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("after all was closed: %d descriptors, before %d; %d goroutines, before %d", after, before, now, goroutines)
		}
	}
}

// Somebody truncates files that are mapped for writing and for scanning: errors
// come of it, and the process lives.
func TestTruncatedByAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	r, err := start(&Spec{Dir: dir, Work: "gone", Life: 1})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // scans and writes are on their way
	names, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(names) < 2 {
		t.Fatalf("segments: %v, %v", names, err)
	}
	for _, name := range names {
		if err := os.Truncate(name, 4096); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-r.done; err != nil {
		t.Fatalf("the process did not live: %v\n%s", err, r.out)
	}
	r.cancel()
	lines := strings.Split(strings.TrimSpace(r.out.String()), "\n")
	if n := len(lines); lines[n-1] != "end" {
		t.Errorf("%s", r.out)
	} else {
		t.Log(lines[n-2])
	}
	// What was durable is gone: that is damage, and says so.
	p, err := partition.Open(dir, nil)
	if err == nil {
		defer p.Close()
		_, err = readTo(p, p.LogEnd()) // open reads only the end
	}
	if !errors.Is(err, log.ErrCorrupt) {
		t.Errorf("cut files are read: %v", err)
	}
}

// The writer's own file is cut below it: the next append that stores there fails,
// and so does every one after it.
func TestActiveFileTruncated(t *testing.T) {
	dir := t.TempDir()
	p, err := partition.Open(dir, &partition.Options{Config: partition.Config{Log: log.Config{Level: log.OS}}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx := context.Background()
	for i := range 3 {
		if _, err := p.Append(ctx, records(fmt.Sprintf("1.m.%ds", i), 10), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(dir, "00000000000000000000.log"), 128); err != nil {
		t.Fatal(err)
	}
	failed := 0
	for i := range 200 {
		_, err := p.Append(ctx, records(fmt.Sprintf("1.m.%ds", 10+i), 10), nil)
		switch {
		case err != nil && !errors.Is(err, log.ErrStorageFailed):
			t.Fatalf("append %d after the file was cut: %v", i, err)
		case err != nil:
			failed++
		case failed > 0:
			t.Fatalf("append %d is acknowledged after one that failed", i)
		}
	}
	t.Logf("%d of 200 appends failed: %v", failed, p.Err())
	if err := p.Err(); failed == 0 && err == nil {
		t.Skip("nothing is stored through mappings on this file system")
	}
}
