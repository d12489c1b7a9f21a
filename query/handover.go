package query

import (
	"context"
	"errors"
	"time"

	"github.com/x/embedlog"
)

// In a cluster a task that cannot go on because of what its node keeps beside the log, a store on disk or a checkpoint, goes on at another node: that has
// files of its own, and the rows are in the changelogs. The node that has failed says so when it is asked, and goes on leading the task's partition of the
// progress topic: nobody has to be elected, and nothing can be given back to it. Whoever leads says who has the task:
//
//	fails at A, which leads ──> A chooses B, and says so ──> B has it, until it fails, goes, or others lead
//	fails at B, which does not ──> A hears of it, and chooses again
//
// It chooses, of the nodes that run the graph, the one that has failed least often, which may be itself. Who has failed twice, without having run for
// wellAfter in between, and not because of something that passes, is not chosen for an hour. When nobody is left the graph has stopped, at each node
// with the node's own error.

const (
	wellAfter     = 10 * time.Minute
	defaultOutFor = time.Hour
	// againAfter is the pause before a node tries again that has failed once; it doubles.
	againAfter = 200 * time.Millisecond
)

// nodeError is an error of what a node keeps of a task beside the log: of the calls of a RowStore, or of the files of the database's StateDir. Another
// node would not have it.
type nodeError struct{ err error }

func (e *nodeError) Error() string { return e.err.Error() }
func (e *nodeError) Unwrap() error { return e.err }

// ofNode makes err one, unless it says that somebody has closed something, or waits no more.
func ofNode(err error) error {
	if err == nil || errors.Is(err, embedlog.ErrClosed) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &nodeError{err}
}

func ofThisNode(err error) bool {
	_, ok := errors.AsType[*nodeError](err)
	return ok
}

// failures are a node's at the tasks of a number.
type failures struct {
	n     int       // so many
	err   error     // the last one
	at    time.Time // of it
	again time.Time // it tries no sooner
	out   time.Time // it is not to be chosen before
	given bool      // another node has had the tasks since
}

// standing is what a node says of tasks at which it has failed.
type standing struct {
	Failures int  `json:"failures"`
	Out      bool `json:"out,omitempty"` // it is not to be chosen
	// To is who has the tasks, if the node leads; Of how often that one had failed when it was chosen.
	To int32 `json:"to"`
	Of int   `json:"of,omitempty"`
}

func (f *failures) isOut() bool { return time.Now().Before(f.out) }

// failed are this node's failures.
func (o *owners) failed(index int) failures {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failures[index]
}

func (o *owners) standings() map[int]standing {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := map[int]standing{}
	for i := range o.failures {
		if f := &o.failures[i]; f.n > 0 {
			list[i] = standing{f.n, f.isOut(), o.tasks[i].node, o.tasks[i].failed}
		}
	}
	return list
}

// stopped says why nobody has the tasks of a number: what went wrong at this node. It is nil as long as there may be somebody.
func (o *owners) stopped(graph string, index int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f := &o.failures[index]; o.tasks[index].node == nobody && f.err != nil {
		return &StoppedError{graph, f.err}
	}
	return nil
}

func (o *owners) anyStopped(graph string) error {
	for i := range o.tasks {
		if err := o.stopped(graph, i); err != nil {
			return err
		}
	}
	return nil
}

// gaveAway says that a node asks for a task at which this one has failed, and which nobody has.
func (g *Graph) gaveAway(q *request) bool {
	if q.Op == "" || q.Slot < 0 || q.Slot >= len(g.slots) {
		return false
	}
	_, index := g.of(q.Slot)
	return g.owners.stopped(g.name, index) != nil
}

// handOver notes that this node has failed at a task, so that another one gets it.
func (g *Graph) handOver(s *slot, t *task, err error) {
	s.mu.Lock()
	well := s.task != nil && time.Since(s.since) >= wellAfter
	s.mu.Unlock()
	o, passes := &g.owners, g.passes(t, err)
	o.mu.Lock()
	f := &o.failures[t.index]
	if o.tasks[t.index].node == g.db.Cluster().Node() { // otherwise it was a task of another stage that has failed, of the same
		f.n++
		f.err, f.at, f.given, f.out = err, time.Now(), false, time.Time{}
		f.again = f.at.Add(min(againAfter<<min(f.n-1, 10), lastPause))
		if f.n > 1 && !well && !passes {
			f.out = f.at.Add(g.outFor)
		}
		o.setLocked(t.index, owner{node: unowned}) // whoever looks now knows of it
	}
	n := f.n
	o.mu.Unlock()
	if g.opts.Logger != nil {
		g.opts.Logger.Error("a task of a view graph has failed because of what its node keeps of it", "graph", g.name, "task", t.index, "failures", n, "err", err)
	}
	s.set(nil, nil)
	t.publish()
	g.unpinTask(t)
}

// owned notes who has the tasks of a number. It was found out when this node had failed so often.
func (g *Graph) owned(index, failed int, now owner) {
	o := &g.owners
	o.mu.Lock()
	f, was := &o.failures[index], o.tasks[index].node
	if now.node == g.db.Cluster().Node() && time.Now().Before(f.again) {
		now = owner{node: unowned}
	}
	if f.n != failed || was == now.node && o.tasks[index].failed == now.failed {
		o.mu.Unlock()
		return
	}
	o.setLocked(index, now)
	given := f.n > 0 && !f.given && now.node >= 0 && now.node != g.db.Cluster().Node()
	f.given = f.given || given
	err := f.err
	o.mu.Unlock()
	if given {
		g.handovers.Add(1)
	}
	switch log := g.opts.Logger; {
	case log == nil:
	case given:
		log.Warn("another node has a task of a view graph", "graph", g.name, "task", index, "node", now.node)
	case now.node == nobody && was != nobody:
		log.Error("a view graph has stopped", "graph", g.name, "task", index, "err", err)
	}
}

// chooseOwner says who has the tasks of a number whose leader has failed at them, or does not run the graph. Where this node leads, it is the only one that
// chooses, so that whoever has them keeps them.
func (g *Graph) chooseOwner(ctx context.Context, index int, own failures, leader int32, a *asking) owner {
	self := g.db.Cluster().Node()
	g.owners.mu.Lock()
	has := g.owners.tasks[index]
	g.owners.mu.Unlock()
	best, keep, unknowns := owner{node: nobody}, false, false
	look := func(node int32, s standing) {
		if s.Out {
			return
		}
		keep = keep || leader == self && node == has.node && s.Failures <= has.failed
		if best.node == nobody || s.Failures < best.failed {
			best = owner{node, s.Failures}
		}
	}
	mine := standing{Failures: own.n, Out: own.isOut()}
	if leader == self {
		look(self, mine)
	}
	for _, node := range g.db.Peers().Nodes() {
		switch {
		case node == leader:
		case node == self:
			look(self, mine)
		default:
			if n := a.of(ctx, node); n.says == runsIt {
				look(node, n.tasks[index])
			} else if n.says == unknown || n.at.Before(own.at) { // it may have started since
				unknowns = true
			}
		}
	}
	switch {
	case keep:
		return has
	case unknowns && (best.node == nobody || best.failed > 0):
		return owner{node: unowned}
	}
	return best
}
