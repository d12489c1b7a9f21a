package faultproc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// byHook is a kill that the spec itself has.
func byHook(j *Journal, s *Spec) (bool, error) { return j.life(s, 0) }

// The works that are killed, in turns.
var killed = []string{"local", "raft", "compact"}

const killRounds = 20

// second spreads the operation at which the second life dies: most often while it
// recovers, which takes the first dozens of operations, now and then later, or never.
func second(i int) int64 { return int64(i * 7 % 64) }

func TestKillAtRandomTimes(t *testing.T) {
	n, all := killPoints(t)
	if n = share(n, 20); all {
		n = 400
	}
	var c tally
	dir := t.TempDir()
	inParallel(t, n, func(i int) {
		// A child takes some 5 ms to start, and lives for some 50 to 200.
		after := time.Duration(3000+i*977%90000) * time.Microsecond
		c.run(t, filepath.Join(dir, fmt.Sprint(i)), trial{
			name:   fmt.Sprintf("random-%d", i),
			first:  Spec{Work: killed[i%len(killed)], Seed: uint64(i), Rounds: 8 * killRounds},
			kill:   func(j *Journal, s *Spec) (bool, error) { return j.life(s, after) },
			second: second(i),
		})
	})
	t.Log(&c)
	if c.kills == 0 {
		t.Error("nobody was killed")
	}
}

func TestKillInsideMappedStore(t *testing.T) {
	n, all := killPoints(t)
	if n = share(n, 25); all {
		n = 800
	}
	dir := t.TempDir()
	var c tally
	inParallel(t, n, func(i int) {
		// Every byte of the first frames, then further and further apart.
		at := int64(1 + i)
		if i > n/4 {
			at = int64(i) * int64(i) * 3 % 60000
		}
		c.run(t, filepath.Join(dir, fmt.Sprint(i)), trial{
			name:   fmt.Sprintf("store-%d", at),
			first:  Spec{Work: killed[i%len(killed)], Seed: uint64(i), Rounds: 3 * killRounds, KillStore: at + 1},
			kill:   byHook,
			second: second(i),
		})
	})
	t.Log(&c)
	if c.kills == 0 {
		t.Skip("nothing is stored through mappings on this file system")
	}
}

// Every operation on a file of one life of each work, or as many as there are points for.
func TestKillAtFileOperation(t *testing.T) {
	n, all := killPoints(t)
	dir := t.TempDir()
	var c tally
	for w, work := range killed {
		// How many operations the life has.
		const most = 1 << 20
		low, high := 1, most
		for low < high {
			mid := min(2*low, (low+high)/2)
			if c.run(t, filepath.Join(dir, "probe"), trial{
				name: fmt.Sprintf("%s-op-%d", work, mid), first: Spec{Work: work, Seed: 1, Rounds: killRounds, KillOp: int64(mid)}, kill: byHook, second: -1,
			}) {
				low = mid + 1
			} else {
				high = mid
			}
			if t.Failed() {
				return
			}
		}
		points := low - 1
		if points < 100 {
			t.Errorf("%s: a life of %d operations", work, points)
		}
		tries := points
		if !all {
			tries = min(points, share(n, 25)/len(killed)+1)
		}
		inParallel(t, tries, func(i int) {
			at := 1 + i*points/tries
			c.run(t, filepath.Join(dir, fmt.Sprint(w, ".", i)), trial{
				name:   fmt.Sprintf("%s-op-%d", work, at),
				first:  Spec{Work: work, Seed: 1, Rounds: killRounds, KillOp: int64(at)},
				kill:   byHook,
				second: second(i),
			})
		})
		t.Logf("%s: %d operations, %d of them tried", work, points, tries)
	}
	t.Log(&c)
	if c.kills == 0 {
		t.Error("nobody was killed")
	}
}

// calls are the system calls at which a child is killed.
var calls = []string{"pwrite64", "fdatasync", "fsync", "ftruncate", "fallocate", "renameat,renameat2", "unlinkat", "openat", "write", "madvise", "munmap", "mmap", "pread64", "close"}

// The kill happens when the call is entered: it is not made any more.
func TestKillAtSystemCall(t *testing.T) {
	needStrace(t)
	n, all := killPoints(t)
	dir := t.TempDir()
	var c tally
	type point struct {
		work, call string
		at         int
		seed       uint64
	}
	var points []point
	start := countCalls(t, dir, &Spec{Work: "none"})
	for _, work := range killed {
		made := countCalls(t, dir, &Spec{Work: work, Seed: 1, Rounds: killRounds})
		for _, call := range calls {
			// A call that the runtime makes at its start is no point.
			from, to := start[call], made[call]
			for at := from + 1; at <= to; at++ {
				points = append(points, point{work, call, at, 1})
			}
			t.Logf("%s: %s is called %d times", work, call, to-from)
		}
	}
	if t.Failed() || len(points) < 100 {
		t.Fatalf("only %d calls to kill at", len(points))
	}
	if tries := share(n, 30); !all && len(points) > tries {
		few := make([]point, tries)
		for i := range few {
			few[i] = points[i*len(points)/tries]
		}
		points = few
	}
	inParallel(t, len(points), func(i int) {
		p := points[i]
		c.run(t, filepath.Join(dir, fmt.Sprint(i)), trial{
			name:  fmt.Sprintf("%s-%s-%d", p.work, p.call, p.at),
			first: Spec{Work: p.work, Seed: p.seed, Rounds: killRounds},
			kill: func(j *Journal, s *Spec) (bool, error) {
				return j.life(s, 0, "--seccomp-bpf", "-e", "trace="+p.call, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", p.call, p.at), "-o", os.DevNull)
			},
			second: second(i),
		})
	})
	t.Log(&c)
	// The threads share the calls in another way each time, and the last ones may not
	// come; where most do not, the point is not where it is thought to be.
	if 2*c.kills < len(points) {
		t.Errorf("%d of %d points killed", c.kills, len(points))
	}
}

// countCalls is how often the thread that makes a call most often makes it, for
// each of calls.
func countCalls(t *testing.T, dir string, s *Spec) map[string]int {
	t.Helper()
	trace := filepath.Join(dir, "trace")
	s.Dir, s.Life = filepath.Join(dir, "count"), 1
	defer os.RemoveAll(s.Dir)
	if killed, err := NewJournal().life(s, 0, "--seccomp-bpf", "-e", "trace="+strings.Join(calls, ","), "-e", "signal=none", "-o", trace); err != nil || killed {
		t.Fatalf("counting calls: killed %t, %v", killed, err)
	}
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	of, most := map[string]int{}, map[string]int{}
	for line := range bytes.Lines(b) {
		// THREAD CALL(ARGUMENTS) = RESULT; the second half of an interrupted line does not count.
		fields := strings.Fields(string(line))
		if len(fields) < 2 {
			continue
		}
		name, _, ok := strings.Cut(fields[1], "(")
		if !ok {
			continue
		}
		for _, call := range calls {
			if slices.Contains(strings.Split(call, ","), name) {
				of[fields[0]+call]++
				most[call] = max(most[call], of[fields[0]+call])
			}
		}
	}
	return most
}

// After a failed sync nothing is acknowledged until the partition is opened again,
// and then all is there that had been acknowledged.
func TestFailedSync(t *testing.T) {
	needStrace(t)
	n, all := killPoints(t)
	dir := t.TempDir()
	var c tally
	for _, work := range killed {
		made := countCalls(t, dir, &Spec{Work: work, Seed: 1, Rounds: killRounds})
		for _, call := range []string{"fdatasync", "fsync"} {
			points := made[call] // the runtime makes none at its start
			tries := points
			if !all {
				tries = min(points, share(n, 5))
			}
			inParallel(t, tries, func(i int) {
				at := 1 + i*points/tries
				c.run(t, filepath.Join(dir, fmt.Sprint(i)), trial{
					name:  fmt.Sprintf("%s-%s-eio-%d", work, call, at),
					first: Spec{Work: work, Seed: 1, Rounds: killRounds, Faulty: true},
					kill: func(j *Journal, s *Spec) (bool, error) {
						return j.life(s, 0, "--seccomp-bpf", "-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:error=EIO:when=%d", call, at), "-e", "signal=none", "-o", os.DevNull)
					},
					second: second(i),
				})
			})
		}
	}
	t.Logf("%v; %d lives met a failed sync", &c, c.poisoned)
	if c.poisoned == 0 {
		t.Error("no failed sync was noticed")
	}
}

// An error of the disk on a read is that reader's alone.
func TestReadErrorHitsOneReader(t *testing.T) {
	needStrace(t)
	var c tally
	base := t.TempDir()
	inParallel(t, 6, func(i int) {
		dir := filepath.Join(base, fmt.Sprint(i))
		j := NewJournal()
		if _, err := j.life(&Spec{Dir: dir, Work: "local", Life: 1, Seed: uint64(i), Rounds: 20}, 0); err != nil {
			t.Error(err)
			return
		}
		s := Spec{Dir: dir, Work: "read", Life: 2, Rounds: 30}
		from := 60 + 5*i // behind what open reads
		if _, err := j.life(&s, 0, "-e", "trace=pread64", "-e", fmt.Sprintf("inject=pread64:error=EIO:when=%d+40", from), "-e", "signal=none", "-o", os.DevNull); err != nil {
			t.Errorf("pread %d fails: %v", from, err)
			return
		}
		if err := j.Check(dir); err != nil {
			t.Errorf("pread %d failed: %v", from, err)
		}
		c.mu.Lock()
		c.reading += j.Hit
		c.mu.Unlock()
	})
	t.Logf("%d readers were hit", c.reading)
	if c.reading == 0 {
		t.Error("no reader was hit")
	}
}
