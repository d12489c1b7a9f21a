package partition

import (
	"sync/atomic"

	"github.com/x/embedlog/internal/invariant"
)

// Waiter waits for many partitions at once: one goroutine, one channel, and a
// Wait for each partition that has nothing to read.
//
//	partition 0  --- nothing ---  Wait --+
//	partition 1  --- append ----> Wait --+--> woken: 1, 2      C has a token
//	partition 2  --- close -----> Wait --+    Next: 1, then 2, then nil
//
// Whoever moves a partition's bound (an append, a transaction's end, a deletion of
// records, Close) wakes the waits of that partition that it concerns: what a wake
// costs does not depend on how many others wait, and nothing is allocated. A wait
// that was woken waits for nothing until it is armed again.
//
// One goroutine owns a Waiter and its Waits. Wake alone may be called by others.
type Waiter struct {
	c     chan struct{}        // cap 1
	woken atomic.Pointer[Wait] // a stack: others push, the owner takes it whole
	taken *Wait                // what the owner took and Next did not return yet
}

// NewWaiter makes a Waiter that waits for nothing.
func NewWaiter() *Waiter { return &Waiter{c: make(chan struct{}, 1)} }

// C has a token when waits were woken since it was last empty, or Wake was called.
// There may be one for nothing: whoever takes it asks Next.
func (w *Waiter) C() <-chan struct{} { return w.c }

// Wake puts a token into C.
func (w *Waiter) Wake() {
	select {
	case w.c <- struct{}{}:
	default:
	}
}

// Next returns a wait that was woken, each once. Nil says that there are no more.
func (w *Waiter) Next() *Wait {
	if w.taken == nil && w.woken.Load() != nil {
		w.taken = w.woken.Swap(nil)
	}
	x := w.taken
	if x != nil {
		w.taken, x.next, x.armed = x.next, nil, false
	}
	return x
}

// push makes x a woken one. The partition's waiters are locked: see Disarm.
func (w *Waiter) push(x *Wait) {
	for {
		head := w.woken.Load()
		x.next = head
		if w.woken.CompareAndSwap(head, x) {
			if head == nil {
				w.Wake() // whoever made it not empty did so for those behind, too
			}
			return
		}
	}
}

// Wait is a place in a partition that somebody waits for to become readable. Its
// zero value waits for nothing. It must not be copied while it is armed.
type Wait struct {
	Value any // the owner's

	w         *Waiter
	p         *Partition
	offset    int64 // wakes when it lies below the bound
	isolation Isolation
	at        int   // place in p's list, -1 when it is in none; guarded by its lock
	next      *Wait // in the Waiter's lists
	armed     bool  // from Arm until Next or Disarm
}

// Armed says whether the wait was armed and neither returned by Next nor disarmed.
func (x *Wait) Armed() bool { return x.armed }

// Arm makes w learn when a reader of p may read the record at offset, when that
// record is deleted, or when p is closed. It returns false, and nothing is armed,
// when that is so already. An armed wait must not be armed again.
func (x *Wait) Arm(w *Waiter, p *Partition, offset int64, isolation Isolation) bool {
	invariant.True(!x.armed, "wait for offset %d is armed twice", offset)
	if p.bound(isolation) > offset {
		return false
	}
	x.w, x.p, x.offset, x.isolation = w, p, offset, isolation
	l := &p.waiters
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	x.at = len(l.list)
	l.list = append(l.list, x)
	l.waiting.Add(1)
	// The bound may have moved before whoever moved it could see that somebody waits.
	if p.bound(isolation) > offset {
		l.removeLocked(x.at)
		return false
	}
	x.armed = true
	return true
}

// Disarm ends the wait: Next does not return it any more.
func (x *Wait) Disarm() {
	if !x.armed {
		return
	}
	x.armed = false
	l := &x.p.waiters
	l.mu.Lock()
	waits := x.at >= 0
	if waits {
		l.removeLocked(x.at)
	}
	l.mu.Unlock()
	if waits {
		return
	}
	// It was woken, and whoever did that has let go of the lock: it is in a list of ours.
	w := x.w
	if !unlink(&w.taken, x) {
		list := w.woken.Swap(nil)
		unlink(&list, x)
		for list != nil { // in front of those taken before; their order is nobody's
			next := list.next
			list.next, w.taken = w.taken, list
			list = next
		}
		if w.taken != nil {
			w.Wake() // their token may have been seen before they were
		}
	}
	x.next = nil
}

// unlink takes x out of a list, and says whether it was there.
func unlink(list **Wait, x *Wait) bool {
	for ; *list != nil; list = &(*list).next {
		if *list == x {
			*list = x.next
			return true
		}
	}
	return false
}
