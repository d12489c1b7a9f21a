package query

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/x/embedlog"
)

// stage is a part of a graph that runs without the log in between: the outputs that have equally many repartitions before them, and
// what they are made of as far as those. Each has tasks of its own, one for each partition of what it reads. A graph
// without repartitions has one stage.
type stage struct {
	g       *Graph
	index   int
	outputs []output // views and sinks, and what is written to repartition topics
	writes  []*node  // the repartitions among the outputs
	reads   []*node  // repartitions that it reads
	topics  []string // topics that it reads
	tasks   int
	first   int  // of its slots
	keyed   bool // there are stores: keys must be where they belong
}

// planStages divides the graph's outputs.
func (g *Graph) planStages() error {
	depths := map[*node]int{}
	var reps []*node
	most := 0
	for _, o := range g.outputs {
		o.n.walk(func(n *node) {
			if _, ok := depths[n]; ok {
				return
			}
			d := 0
			for _, in := range n.inputs {
				d = max(d, depths[in])
			}
			if n.rep != nil {
				reps = append(reps, n)
				d++
			}
			depths[n] = d
			most = max(most, d)
		})
	}
	for d := range most + 1 {
		s := &stage{g: g, index: d}
		for _, o := range g.outputs {
			if depths[o.n] == d {
				s.outputs = append(s.outputs, o)
			}
		}
		for _, n := range reps {
			if depths[n] == d+1 {
				s.outputs = append(s.outputs, output{"repartition", n.rep.name, n.inputs[0], func(b *builder) { n.rep.write(b, n) }, nil})
				s.writes = append(s.writes, n)
			}
		}
		g.stages = append(g.stages, s)
	}
	names := map[string]bool{}
	for _, n := range reps {
		if names[n.rep.name] {
			return fmt.Errorf("two repartitions are named %s", n.rep.name)
		}
		names[n.rep.name] = true
	}
	first := 0
	for _, s := range g.stages {
		s.plan()
		s.first = first
		first += s.tasks
		for _, o := range s.outputs {
			if o.kind == "view" {
				g.storeNames.stage[o.n] = s.index
			}
		}
	}
	return nil
}

// within calls f for the nodes that a stage has for an output, first those that others are made of. Repartitions that it reads are
// among them, and what they are made of is not.
func within(n *node, seen map[*node]bool, f func(*node)) {
	if seen[n] {
		return
	}
	seen[n] = true
	if n.rep == nil {
		for _, in := range n.inputs {
			within(in, seen, f)
		}
	}
	f(n)
}

// plan decides on the stage's tasks. Those before it have theirs.
func (s *stage) plan() {
	moved := map[*node]bool{} // rows leave under other keys than those that their partition is of
	one := false
	counts := map[int]bool{}
	known, seen := map[string]bool{}, map[*node]bool{}
	for _, o := range s.outputs {
		within(o.n, seen, func(n *node) {
			switch {
			case n.rep != nil:
				s.reads = append(s.reads, n)
				counts[s.g.width(n)] = true
				return
			case n.source != nil:
				if !known[n.label] {
					known[n.label] = true
					s.topics = append(s.topics, n.label)
					counts[n.source.topic.Partitions()] = true
					one = one || s.g.opts.OneTask
				}
				return
			}
			moved[n] = n.rekeys
			for _, in := range n.inputs {
				moved[n] = moved[n] || moved[in]
			}
			one = one || moved[n] && !n.stateless
		})
		one = one || moved[o.n] && o.kind != "repartition"
	}
	s.tasks = 1
	for c := range counts {
		s.tasks = c
	}
	if one || len(counts) != 1 || s.tasks < 1 {
		s.tasks = 1
	}
}

// origins adds the partitions of the sources that the rows of a task come from, at the beginning.
func (s *stage) origins(index int, v Version) Version {
	for _, name := range s.topics {
		for p := range int32(s.g.source(name).Partitions()) {
			if s.tasks <= 1 || int(p) == index {
				v = v.merged(Version{{Topic: name, Partition: p, LeaderEpoch: -1}})
			}
		}
	}
	for _, rep := range s.reads {
		before := s.g.writer(rep)
		for i := range before.tasks {
			v = before.origins(i, v)
		}
	}
	return v
}

// readBefore says whether one of the stages before reads a source, too: then it is the one that speaks of records that cannot be decoded.
func (s *stage) readBefore(src *source) (before bool) {
	for _, other := range s.g.stages[:s.index] {
		seen := map[*node]bool{}
		for _, o := range other.outputs {
			within(o.n, seen, func(n *node) { before = before || n.source != nil && n.source.same(src) })
		}
	}
	return before
}

// width is how many partitions a repartition has: as many as what is written to it has at most, where nothing is said.
func (g *Graph) width(n *node) int {
	if n.rep.partitions > 0 {
		return n.rep.partitions
	}
	most := 1
	within(n.inputs[0], map[*node]bool{}, func(n *node) {
		switch {
		case n.rep != nil:
			most = max(most, g.width(n))
		case n.source != nil:
			most = max(most, n.source.topic.Partitions())
		}
	})
	return most
}

// stageOf is the stage of a view.
func (g *Graph) stageOf(view string) *stage {
	if len(g.stages) == 1 {
		return g.stages[0]
	}
	for _, s := range g.stages {
		for _, o := range s.outputs {
			if o.kind == "view" && o.name == view {
				return s
			}
		}
	}
	return g.stages[0]
}

// slotOf is the slot of the task that has a key.
func (s *stage) slotOf(key []byte) int {
	if s.tasks == 1 {
		return s.first
	}
	return s.first + int(embedlog.KeyPartition(key, s.tasks))
}

// writer is the stage that writes a repartition.
func (g *Graph) writer(rep *node) *stage {
	for _, s := range g.stages {
		for _, n := range s.writes {
			if n == rep {
				return s
			}
		}
	}
	return nil
}

// of finds the stage and the number in it of a slot's task.
func (g *Graph) of(slot int) (*stage, int) {
	for _, s := range g.stages {
		if slot < s.first+s.tasks {
			return s, slot - s.first
		}
	}
	panic("query: no such task")
}

// total is how many tasks the graph has.
func (g *Graph) total() int {
	last := g.stages[len(g.stages)-1]
	return last.first + last.tasks
}

// slot is the task's number among all of the graph. Its progress is in a partition of its own: in one that others write to, a transaction of theirs that is
// open would hide it, but not what the changelogs have.
func (t *task) slot() int32 { return int32(t.stage.first + t.index) }

// running waits until each of the stage's tasks has its rows.
func (s *stage) running(ctx context.Context) ([]*task, error) {
	if err := s.g.ready(); err != nil {
		return nil, err
	}
	list := make([]*task, s.tasks)
	for i := range list {
		var err error
		if list[i], err = s.g.local(ctx, s.first+i); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// turn has a task stand by until it is this node's turn, and run then.
func (g *Graph) turn(s *slot, t *task) (err error) {
	defer t.recovered(&err) // codecs that restore rows are the program's, too
	if err := g.known(t); err != nil {
		return err
	}
	if mine, _ := g.mine(t.index); !mine {
		s.stands(t)
		err := t.stand(g.ctx, func() (bool, <-chan struct{}) { return g.mine(t.index) })
		s.stands(nil)
		if err != nil {
			return err
		}
	}
	ctx, done := g.whileMine(g.ctx, t.index)
	defer done()
	err = t.live(ctx, func() { s.set(t, nil) })
	if g.ctx.Err() == nil && errors.Is(context.Cause(ctx), errMoved) {
		return errMoved
	}
	return err
}

// known waits until it is known who has a task that follows nothing yet: what is this node's begins from its checkpoint.
func (g *Graph) known(t *task) error {
	for g.clustered() && t.warm == nil {
		node, changed := g.owners.of(t.index)
		if node >= 0 {
			return nil
		}
		select {
		case <-changed:
		case <-g.ctx.Done():
			return g.ctx.Err()
		}
	}
	return nil
}

func (s *slot) stands(t *task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.follows = t
}

// id tells a task from the others of its graph, in its transactional id and in the topic of progress.
func (t *task) id() string {
	if t.stage.index == 0 {
		return fmt.Sprint(t.index)
	}
	return fmt.Sprintf("%d-%d", t.stage.index, t.index)
}

// settledNow says that the rows of a version are committed.
func (t *task) settledNow(version uint64, commit int64) {
	t.clock.Lock()
	defer t.clock.Unlock()
	t.durable, t.settledAt = version, commit
	t.moveLocked()
}

// written is what follows a commit. The next one waits for it.
func (t *task) written(ctx context.Context, committed map[place]int64) error {
	if err := t.trim(ctx, committed); err != nil {
		return err
	}
	return t.room(ctx)
}

// settleCommit waits until what a task has applied when it is called is committed, and returns the number of a commit that has it. A commit is due at
// once when somebody waits for it.
func (t *task) settleCommit(ctx context.Context) (commit int64, err error) {
	t.clock.RLock()
	want := t.clock.version
	t.clock.RUnlock()
	pause := firstWait
	for {
		t.clock.RLock()
		settled, commit, moved := t.durable, t.settledAt, t.moved
		t.clock.RUnlock()
		if settled >= want {
			return commit, nil
		}
		select {
		case t.hurry <- struct{}{}:
		default:
		}
		if err := t.await(ctx, moved, &pause); err != nil {
			return 0, err
		}
	}
}

// settle has the task of a slot, here or at another node, commit what it has applied; fresh, what was acknowledged before.
func (g *Graph) settle(ctx context.Context, slot int, fresh bool) (commit int64, err error) {
	err = g.at(ctx, slot, func(t *task) (err error) {
		if fresh {
			if err := t.catchUp(ctx); err != nil {
				return err
			}
		}
		commit, err = t.settleCommit(ctx)
		return err
	}, request{Op: opSettle, Fresh: fresh}, func(_ int32, a *reply) error { commit = a.Commit; return nil })
	return commit, err
}

// nothing is for answers that say no more than that they came.
func nothing(int32, *reply) error { return nil }

// firstWait is how long await waits at first.
const firstWait = 50 * time.Microsecond

// await waits for a task to move, or for some time, longer each time.
func (t *task) await(ctx context.Context, moved <-chan struct{}, pause *time.Duration) error {
	timer := time.NewTimer(*pause)
	defer timer.Stop()
	select {
	case <-moved:
		*pause = firstWait
	case <-timer.C:
		*pause = min(2**pause, 10*time.Millisecond)
	case <-ctx.Done():
		return ctx.Err()
	}
	if t.g.closing.Load() {
		return &StoppedError{t.g.name, ErrClosed}
	}
	return t.g.replaced(t)
}

// follow waits until a task has what the tasks before it have committed. Settle gives the number of the commit of one of them.
func (t *task) follow(ctx context.Context, rep *node, settle func(ctx context.Context, slot int) (int64, error)) (err error) {
	before := t.g.writer(rep)
	commits, errs := make([]int64, before.tasks), make(chan error, before.tasks)
	for i := range commits {
		go func() {
			var err error
			commits[i], err = settle(ctx, before.first+i)
			errs <- err
		}()
	}
	for range commits {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		return err
	}
	pause := firstWait
	for {
		t.clock.RLock()
		has, moved := t.hasLocked(rep, commits), t.moved
		t.clock.RUnlock()
		if has {
			return nil
		}
		if err := t.await(ctx, moved, &pause); err != nil {
			return err
		}
	}
}

// hasLocked says whether the task has what some commits of the tasks before it wrote.
func (t *task) hasLocked(rep *node, commits []int64) bool {
	for _, part := range t.reps[rep].parts {
		for i, c := range commits {
			if part.from[i].Commit < c {
				return false
			}
		}
	}
	return true
}

// pin pins the rows of now for a snapshot.
func (t *task) pin() (pin uint64, version Version) {
	t.clock.Lock()
	defer t.clock.Unlock()
	return t.clock.pin(), t.versionLocked(nil)
}

// merged adds positions to a version: of one that is in both, the least.
func (v Version) merged(more Version) Version {
	for _, p := range more {
		found := false
		for i := range v {
			if v[i].Topic == p.Topic && v[i].Partition == p.Partition {
				v[i].Offset = min(v[i].Offset, p.Offset)
				found = true
			}
		}
		if !found {
			v = append(v, p)
		}
	}
	return v
}

// source is a topic that the graph reads: one of the application's, or a repartition's.
func (g *Graph) source(name string) *embedlog.Topic {
	if t := g.sources[name]; t != nil {
		return t
	}
	return g.between[name]
}
