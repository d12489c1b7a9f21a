package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/views"
)

// A rebuild computes what a graph keeps anew, as another generation of the same definition. Both are there at once: a Graph that the program has is a
// run of one generation, and beside it there can be another one, a *Graph that nobody has. The old one answers until the new one has what the old one
// has committed. Then the old one ends, the new one reads what is left, and serves. Reads wait for no more than that.

// run is what a graph has of the generation that it computes.
type run struct {
	number  int             // of the generation
	kept    string          // what its topics' names begin with
	rebuilt chan struct{}   // closed when it serves; nil where it did when it was started
	muted   map[string]bool // sinks that older generations had
	bound   atomic.Pointer[bound]
	leave   func() // unregisters it for other nodes
	endOnce sync.Once
	served  sync.Once
	fenced  bool // bound is what the record of generations says
	rounds  int  // of near, and what the one under way waits for
	target  map[stagePlace]int64
	since   time.Time

	// Of the graph that the program has:
	parent    *Graph                // this one, in the others
	answering atomic.Pointer[Graph] // nil: itself
	life      context.Context       // until Close
	endLife   context.CancelFunc
	followers sync.WaitGroup
	rebuildMu sync.Mutex
	rebuild   *rebuild // the last one
	over      bool     // no other one begins
}

// rebuild is another generation of a graph that runs.
type rebuild struct {
	next     *Graph
	launched atomic.Bool   // its tasks are there
	adopted  chan struct{} // closed when it is the one that answers
	done     chan struct{} // closed at the end
	err      error         // once done is closed
}

// program is the graph that the program has.
func (g *Graph) program() *Graph {
	if g.parent != nil {
		return g.parent
	}
	return g
}

// serving is the run that answers.
func (g *Graph) serving() *Graph {
	if n := g.answering.Load(); n != nil {
		return n
	}
	return g
}

// retried calls f with the run that answers, and again when another one has taken its place meanwhile.
func (g *Graph) retried(ctx context.Context, f func(g *Graph) error) error {
	for {
		now := g.serving()
		err := f(now)
		if err == nil || !g.replacedRun(ctx, now, err) {
			return err
		}
	}
}

// replacedRun says whether another run answers than the one that failed. One that has stopped may be about to be replaced.
func (g *Graph) replacedRun(ctx context.Context, failed *Graph, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	if stopped := (*StoppedError)(nil); errors.As(err, &stopped) && g.serving() == failed {
		g.rebuildMu.Lock()
		r := g.rebuild
		g.rebuildMu.Unlock()
		if r != nil && g.life != nil {
			select {
			case <-r.adopted:
			case <-r.done:
			case <-g.life.Done():
			case <-ctx.Done():
			}
		}
	}
	return g.serving() != failed
}

// Rebuild computes what the graph keeps anew, from the records that its topics have now, beside what there is: for rows that
// are not what they should be, or whose functions were mended. Views answer from the old rows meanwhile. When the new ones have caught up with them, they
// take their place, and what the old ones were kept in is deleted. Sinks append nothing a second time. Records that were deleted
// from the sources since the graph read them are missing in what is rebuilt.
//
// Rebuild returns when the new rows answer. When ctx ends, or the program, it goes on, at the next start if need be. It fails with
// ErrRebuilding when the graph is being rebuilt already, and with what stopped the new rows from being computed: the old ones stay then.
func (g *Graph) Rebuild(ctx context.Context) error {
	r, err := g.beginRebuild(ctx)
	if err != nil {
		return fmt.Errorf("rebuild view graph %s: %w", g.name, err)
	}
	select {
	case <-r.done:
		if r.err != nil {
			return fmt.Errorf("rebuild view graph %s: %w", g.name, r.err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// beginRebuild begins another generation.
func (g *Graph) beginRebuild(ctx context.Context) (*rebuild, error) {
	if err := g.ready(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(g.life, cancel)()
	g.rebuildMu.Lock()
	defer g.rebuildMu.Unlock()
	if err := g.mayRebuild(); err != nil {
		return nil, err
	}
	for {
		s, err := g.generations(ctx)
		switch {
		case err != nil:
			return nil, err
		case s == nil || s.Building != nil:
			return nil, ErrRebuilding // by another node, or one has begun this moment
		case s.Serving.Number != g.serving().number:
			return nil, ErrRebuilding
		}
		if err := g.tidyGenerations(ctx, s); err != nil {
			return nil, err
		}
		r, err := g.besideOf(ctx, s, 0)
		if !errors.Is(err, embedlog.ErrUnexpectedOffset) {
			return r, err
		}
	}
}

// mayRebuild says why a rebuild cannot begin now.
func (g *Graph) mayRebuild() error {
	if g.life.Err() != nil {
		return &StoppedError{g.name, ErrClosed}
	}
	if g.building() != nil {
		return ErrRebuilding
	}
	if !g.serving().open() {
		return ErrRebuilding
	}
	if sink := g.firstSink(); sink != "" && len(g.stages) > 1 && g.clustered() {
		return &SinkError{Graph: g.name, Sink: sink, Reason: "the graph has repartitions, and its tasks are on several nodes"}
	}
	return nil
}

// open says that the run's rows are shown.
func (g *Graph) open() bool {
	if g.rebuilt == nil {
		return true
	}
	select {
	case <-g.rebuilt:
		return true
	default:
		return false
	}
}

// building is the rebuild that is under way; nil is none. The lock is held.
func (g *Graph) building() *rebuild {
	if r := g.rebuild; r != nil {
		select {
		case <-r.done:
		default:
			return r
		}
	}
	return nil
}

func (g *Graph) firstSink() string {
	for _, o := range g.outputs {
		if o.kind == "sink" {
			return o.name
		}
	}
	return ""
}

// besideOf has a generation be computed beside the one that answers: number, or a new one. s is the last record. The lock is held.
func (g *Graph) besideOf(ctx context.Context, s *generations, number int) (*rebuild, error) {
	n := g.successor()
	if err := n.findGlobals(); err != nil {
		return nil, err
	}
	if err := n.plan(); err != nil {
		return nil, err
	}
	n.muted = sinksOf([]*generation{&s.Serving})
	if number == 0 {
		n.beginGeneration(s)
		s.Building.Beside, s.Requested = true, false
		if err := g.writeGenerations(ctx, s); err != nil {
			return nil, err
		}
		number = s.Building.Number
	}
	if g.over { // it goes on at the next start
		return nil, &StoppedError{g.name, ErrClosed}
	}
	n.number = number
	n.kept = n.base(number)
	n.rebuilt = make(chan struct{})
	r := &rebuild{next: n, adopted: make(chan struct{}), done: make(chan struct{})}
	g.rebuild = r
	g.followers.Go(func() {
		defer close(r.done)
		r.err = g.carryOut(r)
	})
	return r, nil
}

// successor is a graph of the same description.
func (g *Graph) successor() *Graph {
	n := &Graph{
		db: g.db, name: g.name, opts: g.opts, chunk: g.chunk, names: g.names, views: g.views, offers: g.offers, retained: g.retained, retention: g.retention,
		checkpointAfter: g.checkpointAfter, trimRecords: g.trimRecords, repartitionRecords: g.repartitionRecords, gate: newGate(), outFor: g.outFor,
		outputs: g.outputs, started: true,
		storeNames: &storeNames{byNode: g.storeNames.byNode, stage: map[*node]int{}, made: map[stageNode]string{}, used: map[string]int{}},
	}
	n.parent = g
	return n
}

// carryOut has the new generation run, and serve in the end.
func (g *Graph) carryOut(r *rebuild) error {
	n, old := r.next, g.serving()
	err := insist(g.life, g, "a rebuild could not begin yet", func() error {
		n.contents = views.Contents{}
		if err := n.makeKept(g.life); err != nil {
			return err
		}
		waiting, cancel := context.WithTimeout(g.life, stepPatience)
		defer cancel()
		for i := range old.slots { // what it has already is not for the new one to wait for
			if _, err := old.settle(waiting, i, false); err != nil {
				break
			}
		}
		last, err := g.progressOf(g.life, old.kept)
		n.setBound(&bound{all: true, limits: n.limitsOf(last, map[stagePlace]int64{})})
		return err
	})
	if err != nil {
		return err
	}
	n.prepare()
	if err := n.launch(); err != nil {
		return err
	}
	r.launched.Store(true)
	watching, stop := context.WithCancel(g.life)
	var watcher sync.WaitGroup
	watcher.Go(func() {
		_ = insist(watching, g, "a rebuild cannot read how far the graph is", func() error { return n.followProgress(watching, old) })
	})
	ended := func() {
		stop()
		watcher.Wait()
	}
	err = n.drive(g.life, old, func() {
		ended()
		select {
		case <-r.adopted:
		default:
			g.answering.Store(n)
			close(r.adopted)
		}
		old.end()
	})
	ended()
	select {
	case <-r.adopted:
	default:
		n.end() // it comes to nothing, or the program goes
	}
	return err
}

// insist calls f until it succeeds, or does not pass, or ctx ends.
func insist(ctx context.Context, g *Graph, what string, f func() error) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := f()
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if !g.passes(nil, err) {
			return err
		}
		if g.opts.Logger != nil {
			g.opts.Logger.Warn(what, "graph", g.name, "err", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// drive takes the steps that are left until the generation serves. Other nodes may take them as well. Old is what serves in this program
// meanwhile; adopt ends it.
func (g *Graph) drive(ctx context.Context, old *Graph, adopt func()) error {
	pause := firstPause
	for ctx.Err() == nil {
		done, err := g.step(ctx, old, adopt)
		if done {
			return err
		}
		// It is not there yet, or another node has taken the step.
		if err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, embedlog.ErrUnexpectedOffset) {
			pause = firstPause
			continue
		}
		if g.opts.Logger != nil {
			g.opts.Logger.Warn("a view graph that is rebuilt does not serve yet", "graph", g.name, "err", err)
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, lastPause)
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// stepPatience bounds how long a step waits before it looks again at what other nodes have done.
const stepPatience = 200 * time.Millisecond

// step takes the next one. done says that there are no more.
func (g *Graph) step(ctx context.Context, old *Graph, adopt func()) (done bool, err error) {
	s, err := g.generations(ctx)
	if err != nil {
		return false, err
	}
	b := s.Building
	switch {
	case s.Serving.Number == g.number:
		adopt()
		waiting, cancel := context.WithTimeout(ctx, stepPatience)
		defer cancel()
		err := g.tidyGenerations(waiting, s)
		g.serve() // whatever becomes of the old topics
		return err == nil, err
	case b == nil:
		return true, g.give(errAbandoned)
	case b.Number != g.number:
		return true, g.give(g.supersededBy(&b.generation))
	case b.Beside:
		err := g.stopped()
		if err == nil {
			err = g.ended(ctx, old)
		}
		if err != nil {
			s.Building = nil
			s.Obsolete = append(s.Obsolete, b.Topics...)
			if e := g.writeGenerations(ctx, s); e != nil {
				return false, e
			}
			return true, err
		}
		if ok, err := g.near(ctx, old); !ok || err != nil {
			return false, err
		}
		b.Beside = false
		return false, g.writeGenerations(ctx, s)
	}
	adopt()
	if err := g.stopped(); err != nil {
		return true, g.give(err)
	}
	if !b.Fenced || !g.fenced {
		err := g.fence(ctx, s)
		if unknown := (*SinkError)(nil); errors.As(err, &unknown) {
			return true, g.give(err)
		}
		if err != nil {
			return false, err
		}
	}
	waiting, cancel := context.WithTimeout(ctx, stepPatience)
	defer cancel()
	if err := g.finished(waiting, b); err != nil {
		return false, err
	}
	return false, g.switched(ctx, s)
}

// give gives up: reads of the generation, if it answers, say why.
func (g *Graph) give(err error) error {
	g.stop(err)
	g.serve()
	return err
}

var errAbandoned = errors.New("query: another node has given the rebuild up")

// ended says why the new generation cannot go on where the old one has stopped.
func (g *Graph) ended(ctx context.Context, old *Graph) error {
	if old.stopped() == nil || len(g.stages) == 1 || g.firstSink() == "" {
		return nil
	}
	last, err := g.progressOf(ctx, old.kept)
	if err != nil {
		return err
	}
	var tasks []int
	for _, s := range g.stages {
		tasks = append(tasks, s.tasks)
	}
	if pending := g.pendingOf(last, tasks); len(pending) > 0 {
		return &SinkError{Graph: g.name, Sink: g.firstSink(), Reason: "it has stopped while rows were on their way through " + pending[0]}
	}
	return nil
}

// maxRounds is how often a new generation catches up with the old one before it takes its place, however much there is left.
const maxRounds = 8

// near says whether the new generation has nearly what the old one has. It waits for some time.
func (g *Graph) near(ctx context.Context, old *Graph) (bool, error) {
	if old.stopped() != nil {
		return true, nil // nothing comes any more
	}
	if g.target == nil {
		g.target, g.since = g.bound.Load().limits, time.Now()
	}
	ctx, cancel := context.WithTimeout(ctx, stepPatience)
	defer cancel()
	if err := g.reachAll(ctx, g.target); err != nil {
		return false, err
	}
	g.target = nil
	g.rounds++
	return g.rounds == maxRounds || time.Since(g.since) < time.Second, nil
}

// reachAll waits until the tasks are at some offsets.
func (g *Graph) reachAll(ctx context.Context, ends map[stagePlace]int64) error {
	ctx = whileBuilding(ctx)
	for _, s := range g.stages {
		for _, name := range s.topics {
			for p := range int32(g.source(name).Partitions()) {
				if s.tasks > 1 && int(p) >= s.tasks {
					continue // it was added since
				}
				at := place{name, p}
				end, ok := ends[stagePlace{anyStage, at}]
				if !ok {
					end = ends[stagePlace{s.index, at}]
				}
				slot := s.first
				if s.tasks > 1 {
					slot += int(p)
				}
				err := g.at(ctx, slot, func(t *task) error { return t.reach(ctx, at, end) }, request{Op: opReach, Topic: name, Part: p, Offset: end}, nothing)
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// finished waits until the new generation has committed what it needs to serve: what is acknowledged, or, where its sinks begin then, what the
// old one has appended.
func (g *Graph) finished(ctx context.Context, b *building) error {
	if b.Whole {
		if err := g.reachAll(ctx, boundOf(b).limits); err != nil {
			return err
		}
		return g.settleStages(ctx)
	}
	for i := range g.slots {
		if _, err := g.settle(whileBuilding(ctx), i, true); err != nil {
			return err
		}
	}
	return nil
}

// switched has the generation serve.
func (g *Graph) switched(ctx context.Context, s *generations) error {
	s.Obsolete = append(s.Obsolete, s.Serving.Topics...)
	for _, o := range s.Building.Over {
		s.Obsolete = append(s.Obsolete, o.Topics...)
	}
	s.Serving, s.Building = s.Building.generation, nil
	s.Serving.Mute = false
	return g.writeGenerations(ctx, s)
}

// serve has reads go on, and sinks.
func (g *Graph) serve() {
	g.served.Do(func() {
		g.setBound(nil)
		close(g.rebuilt)
	})
}

// followProgress has the new generation read as far as the old one has committed, wherever its tasks are.
func (g *Graph) followProgress(ctx context.Context, old *Graph) error {
	cfg := &embedlog.ConsumerConfig{}
	for p := range int32(old.progress.Partitions()) {
		cfg.Assign = append(cfg.Assign, embedlog.Position{Topic: old.progress.Name(), Partition: p, LeaderEpoch: -1, Offset: embedlog.OffsetEarliest})
	}
	c, err := g.db.Consumer(cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	limits := g.bound.Load().limits
	for b, err := range c.Batches(ctx) {
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		last := map[string]*progress{}
		for rec, err := range b.Records() {
			if err != nil {
				return err
			}
			p := new(progress)
			if err := json.Unmarshal(rec.Value, p); err != nil {
				return fmt.Errorf("progress of %s: %w", g.name, err)
			}
			last[string(rec.Key)] = p
		}
		limits = g.limitsOf(last, limits)
		g.setBound(&bound{all: true, limits: limits})
	}
	return nil
}

// limitsOf is how far records of progress are; limits is how far those before them were.
func (g *Graph) limitsOf(last map[string]*progress, limits map[stagePlace]int64) map[stagePlace]int64 {
	limits = maps.Clone(limits)
	for key, p := range last {
		for _, at := range p.Positions {
			if src := g.sources[at.Topic]; src != nil && src.ID().String() == at.ID {
				where := stagePlace{stageOfKey(key), place{at.Topic, at.Partition}}
				limits[where] = max(limits[where], at.Offset)
			}
		}
	}
	return limits
}

// generationsBegin goes on with what was begun before the graph was started, and follows what other nodes do.
func (g *Graph) generationsBegin() {
	g.followers.Go(func() {
		if g.rebuilt != nil && g.drive(g.life, g, func() {}) != nil {
			return
		}
		_ = insist(g.life, g, "a view graph does not know whether it is rebuilt", func() error {
			if g.clustered() {
				return g.followGenerations(g.life)
			}
			return g.beginBeside(g.life)
		})
	})
}

// beginBeside begins a rebuild that was asked for while nobody computed the graph, or goes on with one, also with one that other nodes
// have brought to its end.
func (g *Graph) beginBeside(ctx context.Context) error {
	g.rebuildMu.Lock()
	defer g.rebuildMu.Unlock()
	for {
		s, err := g.generations(ctx)
		if err != nil || s == nil || g.building() != nil {
			return err
		}
		now, number := g.serving().number, 0
		switch b := s.Building; {
		case b != nil && g.is(&b.generation) && b.Number > now:
			number = b.Number
		case b == nil && s.Serving.Number > now:
			number = s.Serving.Number
		case b != nil || !s.Requested:
			return nil
		default:
			if err := g.mayRebuild(); err != nil {
				return err
			}
		}
		if _, err := g.besideOf(ctx, s, number); !errors.Is(err, embedlog.ErrUnexpectedOffset) {
			return err
		}
	}
}

// followGenerations does what other nodes have begun.
func (g *Graph) followGenerations(ctx context.Context) error {
	c, err := g.db.Consumer(&embedlog.ConsumerConfig{Assign: []embedlog.Position{{Topic: g.generationName(), LeaderEpoch: -1, Offset: embedlog.OffsetEarliest}}})
	if err != nil {
		return err
	}
	defer c.Close()
	for _, err := range c.Batches(ctx) {
		if err != nil {
			return err
		}
		s, err := g.generations(ctx)
		if err != nil {
			return err
		}
		now := g.serving()
		if b := s.Building; b != nil && !g.is(&b.generation) || b == nil && !g.is(&s.Serving) {
			other := &s.Serving
			if b != nil {
				other = &b.generation
			}
			now.stop(now.supersededBy(other))
			return nil
		}
		if err := g.beginBeside(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// buildingKey is a context's key: reads with it do not wait until the graph is rebuilt.
type buildingKey struct{}

func whileBuilding(ctx context.Context) context.Context {
	return context.WithValue(ctx, buildingKey{}, true)
}

// awaitRebuilt waits until the graph's generation serves.
func (g *Graph) awaitRebuilt(ctx context.Context) error {
	if g.open() || ctx.Value(buildingKey{}) != nil {
		return nil
	}
	select {
	case <-g.rebuilt:
		return nil
	case <-g.ctx.Done():
		if err := g.stopped(); err != nil {
			return err
		}
		return &StoppedError{g.name, ErrClosed}
	case <-ctx.Done():
		return ctx.Err()
	}
}
