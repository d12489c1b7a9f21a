package embedlogtest

import (
	"bytes"
	"runtime"
	"sync"
	"testing"
	"time"
)

// The databases that are open now. Only when there is none can a goroutine be told
// from one that is at work.
var open struct {
	mu     sync.Mutex
	n      int
	ignore bool // one of them did not want the check
}

func opened(_ testing.TB, noCheck bool) {
	open.mu.Lock()
	defer open.mu.Unlock()
	open.n++
	open.ignore = open.ignore || noCheck
}

func closed(tb testing.TB) {
	tb.Helper()
	open.mu.Lock()
	defer open.mu.Unlock()
	open.n--
	if open.n > 0 {
		return
	}
	ignore := open.ignore
	open.ignore = false
	if ignore || tb.Failed() {
		return
	}
	var left []byte
	for range 200 { // those that are just ending get two seconds
		if left = leaked(); left == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	tb.Errorf("embedlogtest: goroutines are left after the database was closed:\n%s", left)
}

// packages are where a goroutine of embedlog's is: in a function of one of them.
var packages = [][]byte{
	[]byte("github.com/x/embedlog."),
	[]byte("github.com/x/embedlog/internal/engine."),
	[]byte("github.com/x/embedlog/partition."),
	[]byte("github.com/x/embedlog/log."),
}

// leaked returns the stacks of goroutines that are in embedlog.
func leaked() []byte {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	var left []byte
	for _, stack := range bytes.Split(buf, []byte("\n\n")) {
		if bytes.Contains(stack, []byte("embedlogtest.leaked(")) {
			continue // this one
		}
		for line := range bytes.Lines(stack) {
			// One that has not begun is in nobody's function yet: it may be ours.
			if within(line) || bytes.Contains(stack, []byte("]:\nsync.(*WaitGroup).Go.func1(")) {
				left = append(append(left, stack...), "\n\n"...)
				break
			}
		}
	}
	return left
}

func within(line []byte) bool {
	for _, p := range packages {
		if bytes.HasPrefix(line, p) {
			return true
		}
	}
	return false
}
