package query

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/seed"
)

// PunctuationType is the time that timers go by.
type PunctuationType uint8

const (
	// StreamTime is the time of records: the least stream time of the partitions that a task reads for the processor. A timer fires when the record that
	// moves it there has been processed, before the next one, wherever the log was cut into batches and whatever the hour is.
	StreamTime PunctuationType = iota
	// WallClockTime is the clock of the machine. A timer fires when it says so or later: when the graph runs, and has nothing else
	// to do for a moment.
	WallClockTime
)

func (p PunctuationType) String() string {
	if p > WallClockTime {
		return fmt.Sprintf("punctuation type %d", uint8(p))
	}
	return [...]string{"stream time", "wall clock time"}[p]
}

// ErrTimer says that a timer's function set a timer that is not later than the one that it was called for: it would fire for ever.
var ErrTimer = errors.New("query: a timer's function set a timer that is not later")

// Timers call a function of a processor at times that it sets: one for each key. They are kept like the rows of a store, in the changelog
// <graph>-<name>-changelog, so that they outlive the process, and fire once: a timer, and what its function keeps and makes, are in one
// transaction. They fire in the order of their times, then of the bytes of their keys. (Punctuator)
//
// What the function makes has the timer's time, and is judged by windows further down as if it had come then.
//
// A timer by WallClockTime that was due while the graph did not run fires when it runs again. When the process dies after it fired and before the
// commit, the function is called again, and nothing of the first call is left; so the function is called once or more, and
// counts once. When, and between which records, is not determined: views that depend on it are not a function of
// the records any more. A clock that is set back makes timers late, one that is set ahead is noticed within a second.
type Timers[K, K2, V2 any] struct {
	n    *node
	key  Codec[K]
	kind PunctuationType
	f    func(c *Context[K2, V2], key K, at time.Time) error
}

// NewTimers describes timers of a processor whose rows have keys of K2 and values of V2. Their name is one in the graph.
func NewTimers[K, K2, V2 any](name string, key Codec[K], kind PunctuationType, f func(c *Context[K2, V2], key K, at time.Time) error) *Timers[K, K2, V2] {
	t := &Timers[K, K2, V2]{&node{kind: "timers", label: name}, key, kind, f}
	if kind > WallClockTime {
		t.n.err = fmt.Errorf("timers %s: the type of punctuation is %d", name, kind)
		return t
	}
	t.n.kind = kind.String() + " timers"
	t.n.named(name).needs("codec", key != nil).needs("function", f != nil)
	return t
}

// timer is a key's: when it fires, and how far stream time was when it was set.
type timer struct{ at, set int64 }

func timerCodec() rowCodec[timer] {
	return rowCodec[timer]{
		func(dst []byte, t timer) ([]byte, []embedlog.Header, error) {
			return binary.AppendVarint(binary.AppendVarint(dst, t.at), t.set), nil, nil
		},
		func(rec *embedlog.Record) (t timer, err error) {
			at, n := binary.Varint(rec.Value)
			if n <= 0 {
				return t, errTimerBytes
			}
			set, m := binary.Varint(rec.Value[n:])
			if m <= 0 || n+m != len(rec.Value) {
				return t, errTimerBytes
			}
			return timer{at, set}, nil
		},
	}
}

var errTimerBytes = errors.New("query: invalid encoding of a timer")

// timerRows are timers in a task. The order is not kept: it is made again from the rows.
type timerRows[K any] struct {
	s     *store[timer]
	k     *keyer[K]
	order ends
}

func (t *Timers[K, K2, V2]) stateNode() *node { return t.n }

// makes says whether a processor with such a context can have the timers.
func (t *Timers[K, K2, V2]) makes(c any) error {
	if _, ok := c.(*Context[K2, V2]); !ok {
		return fmt.Errorf("timers %s: their function has a %T, the processor's a %T", t.n.label, (*Context[K2, V2])(nil), c)
	}
	return nil
}

func (t *Timers[K, K2, V2]) attach(b *builder, p *processing, _ *node) error {
	if b.ports[t.n] != nil {
		return fmt.Errorf("timers %s: two processors have been given them", t.n.label)
	}
	b.names.take(t.n, t.n.label)
	rows := &timerRows[K]{s: newKept(b, t.n.label, timerCodec()), k: &keyer[K]{codec: t.key}}
	b.task.keyers(&rows.k.err)
	b.ports[t.n], p.states[t.n] = rows, rows
	b.task.loaded = append(b.task.loaded, func() {
		reader := &storeRows[timer, timer]{rows.s, same[timer]}
		var some []row[timer]
		for next := new(string); next != nil; {
			some, next = reader.page(some[:0], rows.s.c.version, *next, "", page)
			for _, r := range some {
				rows.order.add(r.val.at, r.key)
			}
		}
	})
	return nil
}

// runs has the timers fire in a task.
func (t *Timers[K, K2, V2]) runs(b *builder, p *processing, processor *node, c any, settle func()) {
	rows, context := p.states[t.n].(*timerRows[K]), c.(*Context[K2, V2])
	mark := b.watermark(processor)
	fire := func(now int64) (fired bool) {
		rows.order.due(0, now, func(raw string, at int64) {
			if b.task.failed != nil {
				return
			}
			fired = true
			tm, ok := rows.s.get(rawOf(raw))
			if !ok {
				return
			}
			key, err := t.key.Decode([]byte(raw))
			if err != nil {
				p.fail(fmt.Errorf("timers %s: decode a key: %w", t.n.label, err))
				return
			}
			if !seed.Is(seed.ViewTimer) {
				rows.s.del([]byte(raw))
			}
			m := moment{ms: at, stream: max(at, tm.set)}
			if t.kind == WallClockTime {
				m.stream = mark.now()
			}
			p.firing = at
			p.call(m, func() error { return t.f(context, key, atMillis(at)) })
			p.firing = unknownTime
		})
		if fired && b.task.failed == nil {
			settle()
		}
		return fired
	}
	if t.kind == WallClockTime {
		b.task.wall.clocks = append(b.task.wall.clocks, wallTimers{fire, rows.order.first})
		return
	}
	b.task.single = true // or it would depend on batches what a timer finds
	b.everyChunk(processor, whenOver, func() { fire(mark.now()) })
}

func (t *Timers[K, K2, V2]) find(c StateContext, key K) (*timerRows[K], []byte) {
	p := c.processing()
	rows, _ := p.state(t.n).(*timerRows[K])
	if rows == nil {
		return nil, nil
	}
	raw := keyOf(rows.k, &delta[K, timer]{key: key})
	if rows.k.err != nil || !p.owns(t.n.label, placeOf(t.key, raw)) {
		return nil, nil
	}
	return rows, raw
}

// Schedule sets the timer of a key, in the place of the one that it had, if it had one. A time that has passed is as good as now; in a timer's
// function it must be later than the time that this was called for. Times are whole milliseconds.
func (t *Timers[K, K2, V2]) Schedule(c StateContext, key K, at time.Time) {
	rows, raw := t.find(c, key)
	if rows == nil {
		return
	}
	p, ms := c.processing(), millisOf(at)
	if p.firing != unknownTime && ms <= p.firing {
		p.fail(fmt.Errorf("timers %s: %w: %v", t.n.label, ErrTimer, at.UTC()))
		return
	}
	if was, ok := rows.s.get(raw); ok {
		rows.order.remove(was.at, string(raw))
	}
	rows.s.put(raw, timer{ms, p.now.stream})
	rows.order.add(ms, string(raw))
}

// Cancel takes the timer of a key away, if it has one.
func (t *Timers[K, K2, V2]) Cancel(c StateContext, key K) {
	rows, raw := t.find(c, key)
	if rows == nil {
		return
	}
	if was, ok := rows.s.get(raw); ok {
		rows.order.remove(was.at, string(raw))
		rows.s.del(raw)
	}
}

// Get is when the timer of a key fires.
func (t *Timers[K, K2, V2]) Get(c StateContext, key K) (at time.Time, found bool) {
	if rows, raw := t.find(c, key); rows != nil {
		if tm, ok := rows.s.get(raw); ok {
			return atMillis(tm.at), true
		}
	}
	return time.Time{}, false
}

// first is the end that comes first.
func (x *ends) first() (ms int64, ok bool) {
	key, _, ok := x.order.Min()
	if !ok {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64([]byte(key[:8])) ^ 1<<63), true
}

// wallClock has the timers of a task that go by the machine's clock.
type wallClock struct {
	clocks  []wallTimers
	timer   *time.Timer
	changed bool // since the last commit
}

type wallTimers struct {
	fire  func(now int64) bool
	first func() (ms int64, ok bool)
}

// wallPatience is how long a clock that was set ahead can go unnoticed.
const wallPatience = time.Second

// wake is when the next timer is due. It is asked for by the task, before it waits.
func (w *wallClock) wake() <-chan time.Time {
	next, some := int64(0), false
	for _, c := range w.clocks {
		if ms, ok := c.first(); ok && (!some || ms < next) {
			next, some = ms, true
		}
	}
	if !some {
		return nil
	}
	wait := max(0, min(time.Until(time.UnixMilli(next)), wallPatience))
	if w.timer == nil {
		w.timer = time.NewTimer(wait)
	} else {
		w.timer.Reset(wait)
	}
	return w.timer.C
}

// strike fires what is due by the machine's clock.
func (t *task) strike() (err error) {
	t.clock.Lock()
	defer t.clock.Unlock()
	defer t.recovered(&err)
	t.clock.writing = true
	defer func() { t.clock.writing = false }()
	t.nextVersion()
	now, fired := millisOf(time.Now()), false
	for _, c := range t.wall.clocks {
		fired = c.fire(now) || fired
	}
	if !fired {
		return nil
	}
	t.wall.changed = true
	if err := t.settle(); err != nil {
		return err
	}
	t.moveLocked()
	return nil
}
