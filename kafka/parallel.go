package kafka

import (
	"sync"
	"sync/atomic"
)

// maxSideBySide bounds how many goroutines a request may have at once: each may
// wait in a system call, with a thread.
const maxSideBySide = 16

// sideBySide calls f for 0 to n-1, several at a time, and returns when all have
// returned.
func sideBySide(n int, f func(i int)) {
	var next atomic.Int32
	work := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			f(i)
		}
	}
	var group sync.WaitGroup
	for range min(n, maxSideBySide) - 1 {
		group.Go(work)
	}
	work()
	group.Wait()
}
