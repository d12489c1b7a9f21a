package faultproc

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/x/embedlog/internal/testcount"
)

func TestMain(m *testing.M) {
	Main() // a child does not come back
	os.Exit(m.Run())
}

// killPoints is how many points at which a process is killed a run is to have:
// EMBEDLOG_KILL_POINTS in the environment, or a number that keeps `go test` short.
// "all" tries every operation on a file, every system call and every n-th byte once.
func killPoints(t *testing.T) (n int, all bool) {
	text := os.Getenv("EMBEDLOG_KILL_POINTS")
	switch text {
	case "":
		return testcount.N(40), false
	case "all":
		return 1 << 20, true
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("EMBEDLOG_KILL_POINTS=%q: want a number from 1 on, or all", text)
	}
	return n, false
}

// share is what a test gets of n points: never none.
func share(n, percent int) int { return max(n*percent/100, 1) }

func needStrace(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed: system calls cannot be made to fail")
	}
	if out, err := exec.Command("strace", "-qq", "-e", "trace=none", "true").CombinedOutput(); err != nil {
		t.Skipf("strace may not trace here: %v: %s", err, out)
	}
}

// tally adds up what the trials of a test saw.
type tally struct {
	mu                            sync.Mutex
	trials, kills, opens, acks    int
	recoveries, poisoned, reading int
}

func (c *tally) String() string {
	return fmt.Sprintf("%d trials, %d kills, %d of them in a second life, %d lives opened, %d records acknowledged, 0 lost, 0 invented, 0 out of order",
		c.trials, c.kills, c.recoveries, c.opens, c.acks)
}

// trial is one directory: a life that is killed, one more that opens what it left
// and may be killed meanwhile, and the check.
type trial struct {
	name   string
	first  Spec
	kill   func(j *Journal, s *Spec) (killed bool, err error)
	second int64 // operation on a file at which the second life is killed; 0 never, -1 no second life
}

func (c *tally) run(t *testing.T, dir string, tr trial) (killed bool) {
	j := NewJournal()
	tr.first.Dir, tr.first.Life = dir, 1
	defer os.RemoveAll(dir)
	fail := func(what string, err error) {
		t.Errorf("%s: %s: %v\nfirst life %+v, second life killed at operation %d", tr.name, what, err, tr.first, tr.second)
		keep(t, dir, tr.name)
	}
	killed, err := tr.kill(j, &tr.first)
	if err != nil {
		fail("first life", err)
		return killed
	}
	again := false
	if tr.second >= 0 {
		second := Spec{Dir: dir, Work: tr.first.Work, Life: 2, Seed: tr.first.Seed, Rounds: 6, KillOp: tr.second}
		if again, err = j.life(&second, 0); err != nil {
			fail("second life", err)
			return killed
		}
	}
	if err := j.Check(dir); err != nil {
		fail("check", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trials++
	c.opens += j.Opens
	c.acks += j.Acknowledged
	c.poisoned += j.Poisoned
	c.reading += j.Hit
	for _, k := range []bool{killed, again} {
		if k {
			c.kills++
		}
	}
	if again {
		c.recoveries++
	}
	return killed
}

// keep copies a directory that a check failed on to where EMBEDLOG_KEEP says.
func keep(t *testing.T, dir, name string) {
	to := os.Getenv("EMBEDLOG_KEEP")
	if to == "" {
		t.Log("EMBEDLOG_KEEP=dir keeps the files")
		return
	}
	to = filepath.Join(to, name)
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Logf("files not kept: %v", err)
		return
	}
	t.Logf("files kept in %s", to)
}

// inParallel runs f(0) to f(n-1), as many at once as there are processors. It
// stops early once the test has failed.
func inParallel(t *testing.T, n int, f func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				if !t.Failed() {
					f(i)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}
