package faultproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// mount makes a small file system of a kind, or says why there is none.
func mount(t *testing.T, kind string) string {
	t.Helper()
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("mounting a small file system takes root on Linux")
	}
	base := t.TempDir()
	dir := filepath.Join(base, "mnt")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	command := []string{"mount", "-t", "tmpfs", "-o", "size=8m", "embedlog-test", dir}
	if kind == "ext4" {
		image := filepath.Join(base, "image")
		if err := os.WriteFile(image, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(image, 64<<20); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
			t.Skipf("no ext4 to be had: %v: %s", err, out)
		}
		command = []string{"mount", "-o", "loop", image, dir}
	}
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Skipf("mounting is not allowed here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
			exec.Command("umount", "-l", dir).Run()
		}
	})
	return filepath.Join(dir, "p")
}

// A disk that fills: nothing is lost, readers go on, deletion goes on, and appends
// come back by themselves. 20 times, on a tmpfs of 8 MiB and an ext4 of 64 MiB.
func TestSmallDisk(t *testing.T) {
	for _, kind := range []string{"tmpfs", "ext4"} {
		t.Run(kind, func(t *testing.T) {
			dir := mount(t, kind)
			out := &sink{j: NewJournal()}
			w := &work{out: out, dir: dir}
			var err error
			s := Spec{Dir: dir}
			if w.p, err = s.open(out, fillConfig, nil); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { w.p.Close(); s.fs.Close() }) // before the disk goes
			cycles := testcount.N(20)
			if n, _ := killPoints(t); kind == "ext4" && n < 100 {
				cycles = testcount.N(4) // the larger disk takes a second to fill
			}
			var slowest time.Duration
			for c := range cycles {
				if err := w.p.SetLevel(log.Level(c % 3)); err != nil {
					t.Fatalf("cycle %d: %v", c, err)
				}
				slowest = max(slowest, fillAndFree(t, w, dir, c))
				if out.err != nil {
					t.Fatalf("cycle %d: %v", c, out.err)
				}
				if t.Failed() {
					t.Fatalf("cycle %d at level %v failed", c, log.Level(c%3))
				}
			}
			t.Logf("%d cycles, %d records acknowledged, 0 lost; appends were back at most %v after there was room", cycles, out.j.Acknowledged, slowest)
			if err := w.p.Close(); err != nil {
				t.Fatal(err)
			}
			if err := out.j.Check(dir); err != nil {
				t.Error(err)
			}
		})
	}
}

// fillAndFree is one cycle. It returns how long it took until an append passed
// again once there was room.
func fillAndFree(t *testing.T, w *work, dir string, c int) time.Duration {
	ctx := context.Background()
	fill(t, w, c)

	// Full. Reads go on, and see all there is.
	if err := w.out.(*sink).j.compare(w.p); err != nil {
		t.Errorf("cycle %d: on the full disk: %v", c, err)
		return 0
	}
	// Room comes by a deletion, which needs a little room itself, or from elsewhere.
	if c%4 == 3 {
		ballast := filepath.Join(filepath.Dir(dir), "ballast")
		if err := os.Remove(ballast); err != nil {
			t.Error(err)
		}
	} else {
		to := w.p.LogStart() + (w.p.LogEnd()-w.p.LogStart())*3/4
		w.say("del %d", to)
		start, err := w.p.DeleteRecords(ctx, to)
		if err != nil {
			t.Errorf("cycle %d: deletion on the full disk: %v", c, err)
			return 0
		}
		w.say("deleted %d", start)
	}
	began := time.Now()
	for n := 0; ; n++ {
		err := w.append(ctx, fmt.Sprintf("%d.again.%ds", c, n), 2, nil)
		took := time.Since(began)
		if err == nil {
			return took
		}
		if !errors.Is(err, log.ErrNoSpace) {
			t.Errorf("cycle %d: %v", c, err)
			return took
		}
		if took > time.Minute { // that it takes milliseconds is in the log, not asserted
			t.Errorf("cycle %d: there is room, and after %v an append still fails: %v", c, took, err)
			return took
		}
		time.Sleep(time.Millisecond)
	}
}

// fill appends, alone and from several callers at once, until the disk is full,
// large records first and then small ones, and then some more.
func fill(t *testing.T, w *work, c int) {
	if c%4 == 3 {
		// Somebody else's file takes the room; it is freed at the end of the cycle.
		to := w.p.LogStart() + (w.p.LogEnd()-w.p.LogStart())/2
		w.say("del %d", to)
		start, err := w.p.DeleteRecords(context.Background(), to)
		if err != nil {
			t.Error(err)
			return
		}
		w.say("deleted %d", start)
		if err := os.WriteFile(filepath.Join(filepath.Dir(w.dir), "ballast"), make([]byte, 2<<20), 0o600); err != nil && !strings.Contains(err.Error(), "no space") {
			t.Error(err)
			return
		}
	}
	var wg sync.WaitGroup
	for g := range 3 {
		wg.Go(func() {
			full := 0
			for n := 0; full < 10; n++ {
				size := "b"
				if full > 0 || n%2 == 1 {
					size = "s"
				}
				err := w.append(context.Background(), fmt.Sprintf("%d.g%d.%d%s", c, g, n, size), 1+n%3, nil)
				if errors.Is(err, log.ErrNoSpace) {
					full++
				} else if err != nil {
					t.Errorf("cycle %d, level %v: append on a disk that fills: %v", c, w.p.Config().Log.Level, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// Killed while the disk is full, the partition opens on the full disk, with all
// that was acknowledged, and goes on when there is room.
func TestKillOnFullDisk(t *testing.T) {
	dir := mount(t, "tmpfs")
	for c := range 6 {
		j := NewJournal()
		r, err := start(&Spec{Dir: dir, Work: "fill", Life: 1, Seed: uint64(c)})
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Read(r.kill()); err != nil {
			t.Fatal(err)
		}
		p, err := partition.Open(dir, &partition.Options{Config: fillConfig})
		if err != nil {
			t.Fatalf("level %v: open on the full disk: %v", log.Level(c%3), err)
		}
		if err := j.compare(p); err != nil {
			t.Errorf("level %v: on the full disk: %v", log.Level(c%3), err)
		}
		out := &sink{j: j}
		w := &work{out: out, p: p}
		to := p.LogStart() + (p.LogEnd()-p.LogStart())/2
		w.say("del %d", to)
		if to, err = p.DeleteRecords(context.Background(), to); err != nil {
			t.Errorf("level %v: deletion on the full disk, after a kill: %v", log.Level(c%3), err)
		} else {
			w.say("deleted %d", to)
		}
		if err := w.append(context.Background(), "2.m.1s", 3, nil); err != nil {
			t.Errorf("level %v: append when there is room: %v", log.Level(c%3), err)
		}
		if err := errors.Join(out.err, p.Close()); err != nil {
			t.Error(err)
		}
		if err := j.Check(dir); err != nil {
			t.Errorf("level %v: %v", log.Level(c%3), err)
		}
		t.Logf("level %v: %d records acknowledged", log.Level(c%3), j.Acknowledged)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}
