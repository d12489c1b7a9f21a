package query

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Record is what a processor is given: a row of a stream.
type Record[K, V any] struct {
	Key   K
	Value V
	// Time is the record's timestamp.
	Time time.Time
	// NoKey says that the record has no key. Key is the zero value then.
	NoKey bool
}

// StateContext is a processor's context, whatever rows it makes: what the methods of its stores and timers are given.
type StateContext interface{ processing() *processing }

// Context is what a processor's function has to do with: it makes rows with Forward, and stands for the task where it uses stores and
// timers. It is valid inside the function, for the goroutine that it is called by.
type Context[K, V any] struct {
	p       *processing
	forward func(key K, value V, at int64)
}

func (c *Context[K, V]) processing() *processing { return c.p }

// Time is the record's timestamp, or the time that a timer was set to.
func (c *Context[K, V]) Time() time.Time { return atMillis(c.p.now.ms) }

// StreamTime is the largest timestamp of the records of the record's partition so far; false while it is not known. In
// a timer's function it is that of all partitions that the task reads for the processor: the least.
func (c *Context[K, V]) StreamTime() (time.Time, bool) {
	if c.p.now.stream == unknownTime {
		return time.Time{}, false
	}
	return atMillis(c.p.now.stream), true
}

// Forward makes a row with Time as its time. It may be called any number of times.
func (c *Context[K, V]) Forward(key K, value V) { c.ForwardAt(key, value, c.Time()) }

// ForwardAt makes a row with another time.
func (c *Context[K, V]) ForwardAt(key K, value V, at time.Time) {
	if c.p.check() {
		c.forward(key, value, millisOf(at))
	}
}

// processing is a processor in a task.
type processing struct {
	t      *task
	name   string
	states map[*node]any
	inside atomic.Bool // its function runs
	now    moment
	firing int64    // the time of the timer whose function runs; unknownTime in that of a record
	settle []func() // after each batch
	// call runs a function of the processor, and takes its error.
	call func(now moment, f func() error)
}

// check says whether the function runs, and stops the graph where it does not.
func (p *processing) check() bool {
	if p.inside.Load() {
		return true
	}
	g := p.t.g.program()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.misuse = errors.Join(g.misuse, fmt.Errorf("processor %s: %w", p.name, ErrOutside))
	return false
}

// fail stops the task.
func (p *processing) fail(err error) { p.t.fail(fmt.Errorf("processor %s: %w", p.name, err)) }

// state is a store or timers in the task.
func (p *processing) state(n *node) any {
	if !p.check() {
		return nil
	}
	s, ok := p.states[n]
	if !ok {
		p.fail(fmt.Errorf("%s: %w", n.title(), ErrNoState))
	}
	return s
}

// Process gives each row of a stream to a function, which has stores and timers of its own (state) and makes any number of rows under any keys:
// what the other operators cannot say. What it keeps and makes counts once for each record, whatever happens in between: state, timers, positions
// and what sinks append are in one transaction.
//
// The function must depend on the record and on its state alone, because it sees records again that were not committed. An error stops the
// graph, as a panic does. The values of its rows are written with DefaultCodec. (Processor)
func Process[K, V, K2, V2 any](s *Stream[K, V], name string, key Codec[K2], f func(c *Context[K2, V2], r Record[K, V]) error, state ...State) *Stream[K2, V2] {
	return processed(s, "process", name, true, key, f, state)
}

// ProcessValues is Process for rows that stay under the key of the record or timer that they are made for, so that a graph has a task for each partition.
// Each has its own part of the stores, and a key of another one's part is a *StateKeyError. (FixedKeyProcessor)
func ProcessValues[K, V, V2 any](s *Stream[K, V], name string, f func(c *Context[K, V2], r Record[K, V]) error, state ...State) *Stream[K, V2] {
	return processed(s, "process values", name, false, s.key, f, state)
}

func processed[K, V, K2, V2 any](s *Stream[K, V], kind, name string, rekeys bool, key Codec[K2], f func(c *Context[K2, V2], r Record[K, V]) error, state []State) *Stream[K2, V2] {
	n := &node{kind: kind, label: name, inputs: []*node{s.n}, timedBy: []*node{s.n}, appends: true, rekeys: rekeys}
	if !rekeys {
		n.windows = windowsOf(s.n)
	}
	if !s.n.appends {
		n.err = fmt.Errorf("%s: %w", n.title(), ErrNotReversible)
	}
	n.needs("codec", key != nil).needs("function", f != nil)
	for _, st := range state {
		if n.needs("store", st != nil); st == nil {
			continue
		}
		n.inputs = append(n.inputs, st.stateNode())
		if t, ok := st.(interface{ makes(any) error }); ok {
			n.err = errors.Join(n.err, t.makes((*Context[K2, V2])(nil)))
		}
	}
	n.build = func(b *builder) any {
		out := new(port[K2, V2])
		k := &keyer[K2]{codec: key}
		b.task.keyers(&k.err)
		p := &processing{t: b.task, name: name, states: map[*node]any{}, firing: unknownTime}
		var buf []delta[K2, V2]
		c := &Context[K2, V2]{p: p}
		c.forward = func(key2 K2, value V2, at int64) {
			d := delta[K2, V2]{key: key2, val: value, time: moment{at, p.now.stream}, weight: 1}
			if !rekeys && b.task.stage.tasks > 1 {
				raw := keyOf(k, &d)
				if k.err != nil || !p.owns(n.title(), placeOf(key, raw)) {
					return
				}
			}
			if buf = append(buf, d); len(buf) >= chunk {
				out.emit(buf)
				buf = buf[:0]
			}
		}
		p.call = func(now moment, f func() error) {
			if b.task.failed != nil {
				return
			}
			p.now = now
			p.inside.Store(true)
			defer p.inside.Store(false)
			if err := f(); err != nil {
				p.fail(err)
			}
		}
		settle := func() {
			for _, f := range p.settle {
				f()
			}
			out.emit(buf)
			clear(buf)
			buf = buf[:0]
		}
		for _, st := range state {
			if err := st.attach(b, p, n); err != nil {
				b.task.fail(err)
				continue
			}
			if t, ok := st.(interface {
				runs(b *builder, p *processing, processor *node, c any, settle func())
			}); ok {
				t.runs(b, p, n, c, settle)
			}
		}
		portOf[K, V](b, s.n).to(func(ds []delta[K, V]) {
			for i := range ds {
				d := &ds[i]
				r := Record[K, V]{Key: d.key, Value: d.val, Time: atMillis(d.time.ms), NoKey: d.null}
				for range d.weight {
					p.call(d.time, func() error { return f(c, r) })
				}
			}
			if b.task.failed == nil {
				settle()
			}
		})
		return out
	}
	return &Stream[K2, V2]{n, key, DefaultCodec[V2]()}
}
