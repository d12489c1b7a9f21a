package log

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog/internal/vfs"
)

// A runway is the part of the active segment's file in front of the writer that
// is ready to be written: zeros, with their blocks allocated.
//
//	file      |######## frames ########|....... zeros .......|   not there yet
//	          0                       pos                  ready
//	window            [---------------------------------------------------)
//
// At the levels that acknowledge before a sync a group is stored through a
// mapping, with no system call and no allocation. That is fast only where the
// pages are in the page cache already, so a goroutine that lives as long as it has
// something to do lays zeros ahead with write(2), which is also what finds out
// cleanly that the disk is full. The pages are not populated in the page tables:
// the folios that a large write makes are mapped whole at the first touch, while
// populated ones are write-protected by each sync and then fault one by one
// (docs/decisions/0001). At Durable the writer lays a few zeros itself: a sync of
// bytes over zeros changes no size and no block map.
//
// Only one of the writer and the goroutine may touch the file at or past ready at
// a time: the one that set busy.
type runway struct {
	seg      *segment
	allow    func(grow int64) error // the byte cap
	allocate bool                   // reserve blocks instead of writing zeros
	half     int64                  // of a window

	ready atomic.Int64
	// amount is how far ahead of the writer the goroutine goes. It follows the
	// writer's speed.
	amount atomic.Int64

	mu      sync.Mutex
	moved   sync.Cond // busy or working changed
	busy    bool
	working bool
	stopped bool
	waiters int // the goroutine makes way for them
	target  int64
	started time.Time
	running *sync.WaitGroup // the goroutine, and unmappings

	// window is what the writer stores through; nil for none. Readers at the tail
	// find it in the segment.
	window *window
	// unmapped says that this file system does not map: every group is written.
	unmapped bool
}

const (
	// A window is small enough to be had on 32 bits, and overlaps the next by half,
	// so that every mapped group fits one of them.
	maxWindow = 16 << 20

	// maxMappedGroup is the largest group that goes through a mapping. A larger one
	// is written with write(2): as fast or faster, on one core instead of two, and
	// without zeros that the disk would be given first.
	maxMappedGroup = 32 << 10

	aheadPiece = 256 << 10
	minAhead   = 64 << 10
	maxAhead   = 4 << 20 // what lies ahead is dirty, and the next sync writes it
)

// windowBytes is the size of a window on a segment that may grow to limit.
func windowBytes(limit int64) int64 {
	return min(maxWindow, 2*((limit+vfs.MapAlign-1)&^(vfs.MapAlign-1)))
}

func newRunway(seg *segment, ready, limit int64, allocate bool, allow func(int64) error, running *sync.WaitGroup) *runway {
	r := &runway{seg: seg, allow: allow, allocate: allocate, running: running, half: windowBytes(limit) / 2}
	r.moved.L = &r.mu
	r.set(ready)
	r.amount.Store(minAhead)
	return r
}

// close stops the goroutine and unmaps: afterwards nobody lays anything. Unmapping
// takes milliseconds, so it goes on behind it.
func (r *runway) close() {
	r.mu.Lock()
	r.stopped = true
	r.dropLocked()
	r.mu.Unlock()
}

// drop unmaps the window. Writer.
func (r *runway) drop() {
	r.mu.Lock()
	r.dropLocked()
	r.mu.Unlock()
}

func (r *runway) dropLocked() {
	r.claimLocked()
	w := r.window
	r.window = nil
	r.seg.tail.Store(nil)
	r.yieldLocked()
	if w == nil {
		return
	}
	r.running.Add(1)
	go func() {
		defer r.running.Done()
		w.release()
	}()
}

// window is a mapping of a part of the active segment, which the writer and
// readers at the tail share. The last one who holds it unmaps it.
type window struct {
	vfs.Mapping
	at, end int64        // its range in the file
	holders atomic.Int64 // the runway is one until it drops the window
}

// hold keeps the window mapped until release. It is false when the window is gone.
func (w *window) hold() bool {
	for {
		n := w.holders.Load()
		if n == 0 {
			return false
		}
		if w.holders.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (w *window) release() {
	if w.holders.Add(-1) == 0 {
		w.Close()
	}
}

// load copies the bytes at pos to p, if the window has them.
func (w *window) load(pos int64, p []byte) bool {
	if w == nil || pos < w.at || pos+int64(len(p)) > w.end || !w.hold() {
		return false
	}
	defer w.release()
	return w.Load(int(pos-w.at), p) == nil
}

// claimLocked waits until nobody is busy past ready, and is then.
func (r *runway) claimLocked() {
	r.waiters++
	for r.busy {
		r.moved.Wait()
	}
	r.waiters--
	r.busy = true
}

func (r *runway) yieldLocked() {
	r.busy = false
	r.moved.Broadcast()
}

// enter waits until nobody else touches the file at or past ready, and returns
// ready. The caller may then write or truncate there, and calls leave. Writer.
func (r *runway) enter() (ready int64) {
	r.mu.Lock()
	r.claimLocked()
	r.mu.Unlock()
	return r.ready.Load()
}

// leave ends what enter began, with the file ready up to there.
func (r *runway) leave(ready int64) {
	r.set(ready)
	r.mu.Lock()
	r.yieldLocked()
	r.mu.Unlock()
}

// reach makes the file ready up to need, and a piece further if that is not past
// limit. Writer.
func (r *runway) reach(need, limit int64) error {
	if need <= r.ready.Load() {
		return nil
	}
	r.faster() // the writer caught up
	r.mu.Lock()
	r.claimLocked()
	r.mu.Unlock()
	var err error
	for err == nil && r.ready.Load() < need {
		if err = r.lay(max(need, limit)); errors.Is(err, vfs.ErrNoSpace) {
			err = r.lay(need) // no room to be ahead
		}
	}
	r.mu.Lock()
	r.yieldLocked()
	r.mu.Unlock()
	return err
}

func (r *runway) faster() { r.amount.Store(min(2*r.amount.Load(), maxAhead)) }

// more has the goroutine lay more in front of pos, up to limit. Writer.
func (r *runway) more(pos, limit int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.working || r.stopped {
		return
	}
	now := time.Now()
	switch since := now.Sub(r.started); {
	case since < 20*time.Millisecond:
		r.faster()
	case since > time.Second:
		r.amount.Store(max(r.amount.Load()/2, minAhead))
	}
	r.started = now
	r.target = min(pos+r.amount.Load(), limit)
	if r.target <= r.ready.Load() {
		return
	}
	r.working = true
	r.running.Add(1)
	go r.work()
}

// forgo makes a goroutine that was begun lay nothing more. Writer.
func (r *runway) forgo() {
	r.mu.Lock()
	r.target = 0
	r.mu.Unlock()
}

func (r *runway) work() {
	defer r.running.Done()
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.stopped && !r.busy && r.waiters == 0 && r.ready.Load() < r.target {
		r.busy = true
		r.mu.Unlock()
		err := r.lay(r.target)
		r.mu.Lock()
		r.yieldLocked()
		if err != nil {
			break // the writer finds out by itself when it gets there
		}
	}
	r.working = false
}

// lay makes the next piece ready, or what is missing up to limit if that is less.
// Whoever calls it is busy.
func (r *runway) lay(limit int64) error {
	from := r.ready.Load()
	to := min((from/aheadPiece+1)*aheadPiece, limit)
	to = (to + 4095) &^ 4095
	if err := r.allow(to - from); err != nil {
		return err
	}
	f, err := r.seg.handle.acquire()
	if err != nil {
		return err
	}
	defer r.seg.handle.release()
	if r.allocate {
		err = f.Allocate(from, to-from)
	}
	if !r.allocate || errors.Is(err, errors.ErrUnsupported) {
		err = f.Zero(from, to-from)
	}
	if err != nil {
		return err
	}
	r.set(to)
	return nil
}

func (r *runway) set(ready int64) {
	r.ready.Store(ready)
	r.seg.allocated.Store(ready)
}

// cover makes the window cover [from, to). It answers false where there is no
// mapping to be had. Writer.
func (r *runway) cover(from, to int64) bool {
	if w := r.window; w != nil && from >= w.at && to <= w.end {
		return true
	}
	if r.unmapped {
		return false
	}
	r.drop()
	at := from / r.half * r.half
	if to > at+2*r.half {
		return false
	}
	f, err := r.seg.handle.acquire()
	if err != nil {
		return false
	}
	defer r.seg.handle.release()
	m, err := f.Map(at, int(2*r.half))
	if err != nil {
		// Not here, or no address space left: write(2) does the same, only slower.
		r.unmapped = errors.Is(err, errors.ErrUnsupported)
		return false
	}
	r.window = &window{Mapping: m, at: at, end: at + 2*r.half}
	r.window.holders.Store(1)
	r.seg.tail.Store(r.window)
	return true
}
