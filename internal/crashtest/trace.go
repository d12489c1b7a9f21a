package crashtest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
)

// Rec is a record as a workload sends it. Values are unique within a workload.
type Rec struct{ Key, Value string }

// At is a record where it was found.
type At struct {
	Offset     int64
	Key, Value []byte
}

// Contents is all that an opened log shows.
type Contents struct {
	Start, End int64
	Recs       []At
}

// sent is a record that was sent: its offset is its place in Trace.sent.
type sent struct {
	Rec
	last bool // of its batch
}

// Batch is a batch that was sent and has its place.
type Batch struct {
	Base, Next int64 // half-open
	Meta       any   // what the workload has said of it
}

// ErrBroken is matched by what contradicts a promise, as opposed to a failure that
// a workload may live with.
var ErrBroken = errors.New("promise broken")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrBroken, fmt.Errorf(format, args...))
}

// Trace is what a workload sent and was told. All methods may be called from
// several goroutines, but who sends has to hold the log's own order (the writer's
// lock), or offsets would not be known.
type Trace struct {
	// Tolerant tells the workload to go on after an error: with the next step when
	// the log can, with a reopened log when it cannot.
	Tolerant bool

	stopping func() // by the explorer: see Stopping

	mu        sync.Mutex
	sent      []sent
	placed    []Batch
	loose     []*Offer
	batches   int   // sent so far, failed ones too: makes values unique
	written   int64 // acknowledged at a level that survives a kill, below this offset
	durable   int64 // acknowledged at a level that survives a power cut
	startLow  int64 // the log start offset that was acknowledged
	startHigh int64 // the highest that was asked for
	floor     int64 // a truncation that was asked for and not acknowledged ends the log here
	compacted int64 // below it a record may be missing that a later one with its key replaces
}

// NewTrace is the trace of an empty log.
func NewTrace() *Trace { return &Trace{floor: math.MaxInt64} }

// Stopping says that the workload ends with an error. What it does after that, such
// as closing what it had open, does not happen: the process is killed here.
func (t *Trace) Stopping() {
	if t.stopping != nil {
		t.stopping()
	}
}

// Sending notes a batch that is about to be sent; it gets the offsets from at on,
// which must be the next ones.
func (t *Trace) Sending(at int64, recs ...Rec) error { return t.SendingAs(at, nil, recs...) }

// SendingAs is Sending with what the workload wants to know of the batch later.
func (t *Trace) SendingAs(at int64, meta any, recs ...Rec) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at != int64(len(t.sent)) {
		return broken("the log gives out offset %d, the next one is %d", at, len(t.sent))
	}
	t.placeLocked(meta, recs)
	t.batches++
	return nil
}

func (t *Trace) placeLocked(meta any, recs []Rec) {
	base := int64(len(t.sent))
	for i, r := range recs {
		t.sent = append(t.sent, sent{r, i == len(recs)-1})
	}
	t.placed = append(t.placed, Batch{base, int64(len(t.sent)), meta})
}

// cutLocked forgets what was sent from offset end on.
func (t *Trace) cutLocked(end int64) {
	if end < int64(len(t.sent)) {
		t.sent = t.sent[:end]
	}
	for n := len(t.placed); n > 0 && t.placed[n-1].Next > end; n-- {
		t.placed = t.placed[:n-1]
	}
}

// Placed are the batches that were sent, in the order of their offsets.
func (t *Trace) Placed() []Batch {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.placed)
}

// SetMeta has the n-th of Placed carry something else, in this trace and those that are made of it.
func (t *Trace) SetMeta(n int, meta any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.placed[n].Meta = meta
}

// Batches is how many were sent so far: a number that makes values unique.
func (t *Trace) Batches() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.batches
}

// End is the offset behind all that was sent.
func (t *Trace) End() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return int64(len(t.sent))
}

// Written says that all that was sent is acknowledged as surviving a kill.
func (t *Trace) Written() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.written = int64(len(t.sent))
}

// Failed says that what was sent and not acknowledged is certain not to be there:
// it must never appear, and its offsets go to the next batch.
func (t *Trace) Failed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cutLocked(t.written)
}

// Durable says that all records below end survive a power cut.
func (t *Trace) Durable(end int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if end > int64(len(t.sent)) {
		return broken("the log is durable up to %d, sent was up to %d", end, len(t.sent))
	}
	t.durable = max(t.durable, end)
	t.written = max(t.written, end)
	return nil
}

// Truncating says that a truncation of the log's end was asked for.
func (t *Trace) Truncating(end int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.floor = end
}

// Truncated says that the truncation was acknowledged: it survives a power cut.
func (t *Trace) Truncated() {
	t.mu.Lock()
	defer t.mu.Unlock()
	end := t.floor
	t.floor = math.MaxInt64
	t.cutLocked(end)
	t.written, t.durable = min(t.written, end), min(t.durable, end)
	t.startLow, t.startHigh = min(t.startLow, end), min(t.startHigh, end)
}

// Starting says that the log start offset was asked to move, at most to start.
func (t *Trace) Starting(start int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.startHigh = max(t.startHigh, start)
}

// Started says that the log start offset moved to start: it survives a power cut.
func (t *Trace) Started(start int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if start > t.startHigh || start < t.startLow {
		return broken("the log starts at %d, asked for was %d to %d", start, t.startLow, t.startHigh)
	}
	t.startLow = start
	return nil
}

// Compacting says that from now on records below end may be missing where a later
// record has their key.
func (t *Trace) Compacting(end int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.compacted = max(t.compacted, end)
}

// Event is what stopped the machine or the process.
type Event uint8

const (
	// Kill ends the process: all that it wrote is there.
	Kill Event = iota
	// Power ends the machine: what was not synced may be lost.
	Power
	// Nothing happened: all that was sent is there.
	Nothing
)

func (e Event) String() string { return [...]string{"kill", "power cut", "nothing"}[e] }

// Check compares what was found after e with what was promised before it.
func (t *Trace) Check(c *Contents, e Event) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.loose) > 0 {
		found, err := t.foundLocked(c, e)
		if err != nil {
			return err
		}
		return found.Check(c, e)
	}
	least := int64(len(t.sent))
	switch e {
	case Kill:
		least = t.written
	case Power:
		least = t.durable
	}
	least = min(least, t.floor)
	switch {
	case c.End < least:
		return broken("lost: the log ends at %d, acknowledged was up to %d (%v)", c.End, least, e)
	case c.End > int64(len(t.sent)):
		return broken("invented: the log ends at %d, sent was up to %d", c.End, len(t.sent))
	case c.End > 0 && !t.sent[c.End-1].last:
		return broken("torn: the log ends at %d, inside a batch", c.End)
	case c.Start > t.startHigh:
		return broken("lost: the log starts at %d, asked for was at most %d", c.Start, t.startHigh)
	case c.Start < min(t.startLow, least):
		return broken("come back: the log starts at %d, acknowledged was %d", c.Start, t.startLow)
	case c.Start > c.End:
		return broken("the log starts at %d and ends at %d", c.Start, c.End)
	}
	next := c.Start
	for _, r := range c.Recs {
		if r.Offset < next || r.Offset >= c.End {
			return broken("order: a record at %d where %d is next, the log ends at %d", r.Offset, next, c.End)
		}
		if err := t.mayMissLocked(next, r.Offset, c.End); err != nil {
			return err
		}
		if want := t.sent[r.Offset]; string(r.Value) != want.Value || string(r.Key) != want.Key {
			return broken("wrong: offset %d holds %.40q=%.40q, sent was %.40q=%.40q", r.Offset, r.Key, r.Value, want.Key, want.Value)
		}
		next = r.Offset + 1
	}
	return t.mayMissLocked(next, c.End, c.End)
}

// mayMissLocked checks that compaction may have dropped the records of [from, to)
// from a log that ends at end: each has a later one with its key in the log.
func (t *Trace) mayMissLocked(from, to, end int64) error {
	for o := from; o < to; o++ {
		later := slices.ContainsFunc(t.sent[o+1:end], func(s sent) bool { return s.Key == t.sent[o].Key })
		if o >= t.compacted || !later {
			return broken("lost: nothing at offset %d, the log ends at %d", o, end)
		}
	}
	return nil
}

// Reopened is the trace of a log that was opened again and showed c: all of that
// is durable now, and the rest of what was sent will never appear.
func (t *Trace) Reopened(c *Contents) *Trace {
	t.mu.Lock()
	defer t.mu.Unlock()
	from := t
	if len(t.loose) > 0 {
		if found, err := t.foundLocked(c, Power); err == nil { // it was checked before
			from = found
		}
	}
	n := &Trace{
		sent: slices.Clone(from.sent[:c.End]), placed: slices.Clone(from.placed), batches: t.batches, written: c.End, durable: c.End,
		startLow: c.Start, startHigh: c.Start, floor: math.MaxInt64, compacted: t.compacted,
	}
	n.cutLocked(c.End)
	return n
}

// Adopt goes on with a log that was opened again within the run and showed c: what
// was in doubt is decided, and all of it is durable.
func (t *Trace) Adopt(c *Contents) {
	n := t.Reopened(c)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent, t.placed, t.loose, t.written, t.durable = n.sent, n.placed, nil, n.written, n.durable
	t.startLow, t.startHigh, t.floor = n.startLow, n.startHigh, n.floor
}
