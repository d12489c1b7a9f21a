package crashtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"

	"github.com/x/embedlog/internal/vfs"
)

// Store is a log or a partition that a test has opened.
type Store interface {
	// Contents reads all of it.
	Contents() (*Contents, error)
	// Append sends a few batches and notes in the trace what became of them.
	Append(tr *Trace) error
	// Close closes it properly. Abandon lets go of it as a crash does.
	Close() error
	Abandon()
}

// Judge is a Store that has more to say than its contents, such as what it knows
// of producers and transactions. tr is of what it shows: all of it is durable.
type Judge interface {
	Judge(tr *Trace) error
}

// Workload is what is run and crashed.
type Workload struct {
	Name string
	// FS are the options of its file system.
	FS []vfs.Option
	// Run does it, on an empty file system, and says in tr what it did. It ends at
	// the first error, and leaves no goroutine behind.
	Run func(fs vfs.FS, tr *Trace) error
	// Open opens what is there, and fails if the log says that it is damaged. clean
	// says that nothing had to be repaired.
	Open func(fs vfs.FS) (s Store, clean bool, err error)
	// Cramped says that there may be no room for what makes the next open cheap.
	Cramped bool
}

// Totals count what was done.
type Totals struct {
	Runs   int // of workloads, up to a crash
	States int // crash states opened and checked
	Twice  int // of these, after a crash that interrupted the opening or what followed
	Passes int // times all crash points of all workloads were tried
}

func (a *Totals) add(b Totals) {
	a.Runs += b.Runs
	a.States += b.States
	a.Twice += b.Twice
	a.Passes += b.Passes
}

func (a Totals) String() string {
	return fmt.Sprintf("%d passes, %d runs, %d crash states (%d after a second crash)", a.Passes, a.Runs, a.States, a.Twice)
}

// Explorer goes through the crash points of workloads.
type Explorer struct {
	Workloads []Workload
	// PerRun is how many states of each frozen file system are looked at.
	PerRun int
	// Step is how far one operation that is tried is from the next; zero is each. A pass begins one further
	// than the one before.
	Step int
	// Progress, if not nil, is told the totals after each pass.
	Progress func(pass int, t Totals)
}

// Explore makes passes until at least states crash states were checked, beginning
// with the pass of number from. A pass tries every operation of every workload
// (see Step), each pass with other cuts and other states. It stops at the first error.
func (x *Explorer) Explore(from, states int) (Totals, error) {
	var all Totals
	step := max(x.Step, 1)
	for pass := from; all.States < states; pass++ {
		var this Totals
		for i := range x.Workloads {
			for k := pass % step; ; k += step {
				done, t, err := x.Point(i, k, pass)
				this.add(t)
				if err != nil {
					all.add(this)
					return all, err
				}
				if done {
					break
				}
				if all.States+this.States >= states && pass > from {
					break // the first pass is never cut short
				}
			}
		}
		this.Passes = 1
		all.add(this)
		if x.Progress != nil {
			x.Progress(pass, this)
		}
	}
	return all, nil
}

// Point runs workload i up to operation k and checks the states after it. done
// says that the workload needs no more operations than that.
func (x *Explorer) Point(i, k, pass int) (done bool, t Totals, err error) {
	w := &x.Workloads[i]
	rng := rand.New(rand.NewPCG(uint64(pass)<<32|uint64(i), uint64(k)))
	m := vfs.NewMem(append([]vfs.Option{vfs.CrashAt(k), vfs.CrashCut(cutter(rng))}, w.FS...)...)
	tr := NewTrace()
	err = guard(func() error { return w.Run(m, tr) })
	if err != nil && (!m.Crashed() || isBroken(err)) {
		return false, t, fmt.Errorf("%s, operation %d, pass %d: run: %w", w.Name, k, pass, err)
	}
	done = !m.Crashed()
	if err = x.states(w, m, tr, rng, &t); err != nil {
		err = fmt.Errorf("%s, operation %d, pass %d: %w", w.Name, k, pass, err)
	}
	return done, t, err
}

// FaultPoint runs workload i with a fault at the k-th operation that the effect
// applies to, and checks the states after it: of the machine as the first error
// left it, or, when tolerant, after the workload has lived with it to its end. done
// says that it needs no more such operations than that.
func (x *Explorer) FaultPoint(i, k int, effect vfs.Effect, tolerant bool) (done bool, t Totals, err error) {
	w := &x.Workloads[i]
	rng := rand.New(rand.NewPCG(uint64(i), uint64(k)))
	m := vfs.NewMem(w.FS...)
	f := vfs.NewFault(m, vfs.Rule{Op: vfs.OpAny, Skip: k, Effect: effect})
	tr := NewTrace()
	tr.Tolerant = tolerant
	left := m
	tr.stopping = func() { left = m.AfterKill() }
	err = guard(func() error { return w.Run(f, tr) })
	if err != nil && (tolerant || f.Hits() == 0 || isBroken(err)) {
		return false, t, fmt.Errorf("%s, fault at %d: run: %w", w.Name, k, err)
	}
	if err = x.states(w, left, tr, rng, &t); err != nil {
		err = fmt.Errorf("%s, fault at %d: %w", w.Name, k, err)
	}
	return f.Hits() == 0, t, err
}

// states checks PerRun states of a frozen file system.
func (x *Explorer) states(w *Workload, m *vfs.Mem, tr *Trace, rng *rand.Rand, t *Totals) error {
	t.Runs++
	for n := range x.PerRun {
		s := state{w: w, frozen: m, tr: tr, rng: rng, n: n}
		err := guard(s.check)
		t.States += s.opens
		t.Twice += s.opens - 1
		if err != nil {
			return fmt.Errorf("state %d (%s): %w", n, s.story, err)
		}
	}
	return nil
}

// cutter draws how much of the interrupted operation arrives.
func cutter(rng *rand.Rand) func(int) int {
	style, r := rng.IntN(6), rng.Uint64()
	return func(n int) int {
		switch {
		case n == 0 || style == 0:
			return 0
		case style == 1:
			return n
		case style == 2:
			return n - 1
		case style == 3: // at the border of a sector or close to it
			return min(n, int(r%8)*vfs.SectorBytes+int(r>>8%3)-1)
		case style == 4: // inside the first frame's header
			return min(n, int(r%120))
		}
		return int(r % uint64(n))
	}
}

// state is one way that things went on after the crash.
type state struct {
	w      *Workload
	frozen *vfs.Mem
	tr     *Trace
	rng    *rand.Rand
	n      int
	opens  int
	story  string
}

// after makes the file system that an event leaves.
func (s *state) after(m *vfs.Mem, e Event, opts ...vfs.Option) *vfs.Mem {
	if e == Kill {
		s.story += " kill"
		return m.AfterKill(opts...)
	}
	seed := s.rng.Uint64()
	s.story += fmt.Sprintf(" power(%#x)", seed)
	choice := vfs.Random(seed)
	if s.opens == 0 && s.n < 2 {
		choice = [...]vfs.Choice{vfs.KeepNone, vfs.KeepAll}[s.n]
	}
	return m.AfterCrash(choice, opts...)
}

func (s *state) event() Event {
	if s.n == 2 || s.n > 2 && s.rng.IntN(4) == 0 {
		return Kill
	}
	return Power
}

// check opens what is left, up to three times with a crash in between, and looks
// each time whether all is there.
func (s *state) check() error {
	tr, worst := s.tr, Kill
	m := s.frozen
	for crashes := s.rng.IntN(3); ; crashes-- {
		e := s.event()
		worst = max(worst, e)
		var opts []vfs.Option
		if crashes > 0 {
			k := s.rng.IntN(40)
			if s.rng.IntN(4) == 0 {
				k = s.rng.IntN(150)
			}
			s.story += fmt.Sprintf(" [crash at %d]", k)
			opts = []vfs.Option{vfs.CrashAt(k), vfs.CrashCut(cutter(s.rng))}
		}
		m = s.after(m, e, opts...)
		s.opens++
		next, done, err := s.live(m, tr, worst)
		if err != nil || done {
			return err
		}
		if next != nil { // it was opened, so all that it showed is safe
			tr, worst = next, Kill
		}
	}
}

// live opens the log on m, checks it, appends, closes and opens it again. A crash
// of m ends it early: then done is false, and the trace is the one to check the
// next life with. It is nil when the open did not come to an end.
func (s *state) live(m *vfs.Mem, tr *Trace, e Event) (next *Trace, done bool, err error) {
	// unless excuses an error of a machine that has crashed.
	unless := func(what string, err error) error {
		if m.Crashed() && !isPanic(err) {
			return nil
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	store, _, err := s.w.Open(m)
	if err != nil {
		return nil, false, unless("open", err)
	}
	defer store.Abandon()
	c, err := store.Contents()
	if err != nil {
		return nil, false, unless("read", err)
	}
	if err := tr.Check(c, e); err != nil {
		return nil, false, err
	}
	tr = tr.Reopened(c)
	if j, ok := store.(Judge); ok {
		if err := j.Judge(tr); err != nil {
			return tr, false, unless("judge", err)
		}
	}
	if err := store.Append(tr); err != nil {
		return tr, false, unless("append after open", err)
	}
	if m.Crashed() {
		return tr, false, nil
	}
	if s.rng.IntN(2) == 0 {
		s.story += " kept open"
		return tr, true, s.again(s.after(m, Power), tr, Power, false)
	}
	err = store.Close()
	if errors.Is(err, vfs.ErrNoSpace) {
		s.story += " closed for want of room" // all is durable, and the next open has something to do
		return tr, true, s.again(s.after(m, Power), tr, Power, false)
	}
	if err != nil {
		return tr, false, unless("close", err)
	}
	if m.Crashed() {
		return tr, false, nil
	}
	s.story += " closed"
	return tr, true, s.again(s.after(m, Power), tr, Power, true)
}

// again opens the log once more and only looks. After a close there is nothing to
// repair, and all that was sent is there.
func (s *state) again(m *vfs.Mem, tr *Trace, e Event, closed bool) error {
	s.opens++
	if closed {
		e = Nothing
	}
	store, clean, err := s.w.Open(m)
	if err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	defer store.Abandon()
	if closed && !clean && !s.w.Cramped {
		return errors.New("the log was closed, and still had to be repaired")
	}
	c, err := store.Contents()
	if err != nil {
		return fmt.Errorf("read again: %w", err)
	}
	if err := tr.Check(c, e); err != nil {
		return err
	}
	if j, ok := store.(Judge); ok {
		return j.Judge(tr.Reopened(c))
	}
	return nil
}

// panicked is a panic on the way.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v\n%s", p.value, p.stack) }

func isBroken(err error) bool { return isPanic(err) || errors.Is(err, ErrBroken) }

func isPanic(err error) bool {
	var p *panicked
	return errors.As(err, &p)
}

func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicked{v, debug.Stack()}
		}
	}()
	return f()
}
