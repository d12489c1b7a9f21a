package embedlog

import (
	"context"
	"sync"
)

// roomWaiter is a Send that waits for room in the buffer. They are let in in the
// order they came, so that a large record is not passed by small ones for ever.
type roomWaiter struct {
	need int64
	done chan struct{}
	err  error // set before done is closed
}

func (w *roomWaiter) refuse(err error) {
	w.err = err
	close(w.done)
}

// takeRoomLocked takes need bytes of the buffer. It gives the lock free while it
// waits, and holds it again when it returns. After an error nothing is taken.
func (p *Producer) takeRoomLocked(ctx context.Context, need int64) error {
	if p.closed {
		return ErrClosed
	}
	if len(p.waiters) == 0 && p.used+need <= p.cfg.BufferBytes {
		p.used += need
		return nil
	}
	w := &roomWaiter{need: need, done: make(chan struct{})}
	p.waiters = append(p.waiters, w)
	if len(p.waiters) == 1 {
		// Lingering now would keep the room that others wait for.
		p.hurryLocked()
	}
	p.mu.Unlock()
	var err error
	select {
	case <-w.done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.mu.Lock()
	select {
	case <-w.done: // perhaps at the same moment
		if w.err != nil {
			return w.err
		}
		if err == nil && p.closed {
			err = ErrClosed // between being let in and here
		}
		if err != nil {
			p.giveRoomLocked(need)
		}
		return err
	default:
	}
	for i := range p.waiters {
		if p.waiters[i] == w {
			p.waiters = append(p.waiters[:i], p.waiters[i+1:]...)
			break
		}
	}
	p.giveRoomLocked(0) // it may have stood before others that fit
	return err
}

// giveRoomLocked gives bytes back and lets in who waits.
func (p *Producer) giveRoomLocked(n int64) {
	p.used -= n
	for len(p.waiters) > 0 {
		w := p.waiters[0]
		if p.used+w.need > p.cfg.BufferBytes {
			return
		}
		p.used += w.need
		p.waiters = p.waiters[1:]
		close(w.done)
	}
}

// answer is where a record's outcome goes.
type answer struct {
	done  func(Position, error)
	group *produceGroup // of a Produce, instead of done
	index int
}

// produceGroup collects the outcomes of one call of Producer.Produce.
type produceGroup struct {
	mu        sync.Mutex
	positions []Position
	errs      []error
	answered  []bool
	left      int
	failed    bool
	done      chan struct{}
}

func newProduceGroup(n int) *produceGroup {
	g := &produceGroup{
		positions: make([]Position, n), errs: make([]error, n), answered: make([]bool, n),
		left: n, done: make(chan struct{}),
	}
	if n == 0 {
		close(g.done)
	}
	return g
}

func (g *produceGroup) answer(i int, pos Position, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.positions[i], g.errs[i], g.answered[i] = pos, err, true
	g.failed = g.failed || err != nil
	if g.left--; g.left == 0 {
		close(g.done)
	}
}

// skip answers for a record that was not taken.
func (g *produceGroup) skip(i int, err error) { g.answer(i, noPosition, err) }

// noPosition is the place of a record that was not written.
var noPosition = Position{Partition: -1, LeaderEpoch: -1, Offset: -1}

// wait returns when all is answered, or ctx ends.
func (g *produceGroup) wait(ctx context.Context) ([]Position, error) {
	select {
	case <-g.done:
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left == 0 && !g.failed {
		return g.positions, nil
	}
	// Those that come later write into the group's own slices.
	e := &ProduceError{Errs: append([]error(nil), g.errs...)}
	positions := append([]Position(nil), g.positions...)
	for i, ok := range g.answered {
		if !ok {
			positions[i] = noPosition
			e.Errs[i] = &UnknownOutcomeError{BaseOffset: -1, LastOffset: -1, Err: ctx.Err()}
		}
	}
	if len(e.Errs) == 1 {
		return nil, e.Errs[0]
	}
	return positions, e
}
