package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/x/embedlog"
)

// In a cluster a graph is started on every node, and each of its tasks runs on one: on the one that leads a partition of the
// progress topic, the same for tasks of one number. Who leads is what the replicas have agreed on, so that whoever takes over has
// what was committed; and the task's transactional id, which the new owner takes first, has the old one commit nothing any more, whatever it
// believes. The others stand by: they read the changelogs into stores of their own, and have little left to read when it is their turn.
//
// A node that leads and does not run the graph, because it was closed there or not started yet, says so when it is asked: then the first of
// the other nodes that run it has the task. One that runs it and has failed at the task gives it to another one: see handover.go.

// owners is who has which task, as far as this node knows.
type owners struct {
	mu       sync.Mutex
	tasks    []owner       // by the tasks' number
	failures []failures    // of this node, the same
	changed  chan struct{} // closed when somebody else has one
}

// owner is who has the tasks of a number.
type owner struct {
	node   int32 // or unowned, or nobody
	failed int   // how often it had failed at them when it was chosen
}

const (
	unowned int32 = -1 // it is not known
	nobody  int32 = -2 // all nodes that run the graph have failed, for good
)

func (o *owners) begin(tasks int) {
	o.tasks, o.failures, o.changed = make([]owner, tasks), make([]failures, tasks), make(chan struct{})
	for i := range o.tasks {
		o.tasks[i].node = unowned
	}
}

const (
	ownerInterval = 10 * time.Millisecond  // between two looks at who leads: a look asks nobody
	askInterval   = 250 * time.Millisecond // between two questions whether a node runs the graph
	askPatience   = time.Second
	askSilence    = 2 * time.Second // for how long one that has said that it runs the graph may say nothing
)

func (o *owners) of(index int) (node int32, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tasks[index].node, o.changed
}

// setLocked says that somebody has the tasks of a number.
func (o *owners) setLocked(index int, now owner) {
	was := o.tasks[index].node
	if o.tasks[index] = now; was != now.node {
		close(o.changed)
		o.changed = make(chan struct{})
	}
}

// clustered says that other nodes may have tasks.
func (g *Graph) clustered() bool { return g.db.Cluster().Node() != 0 }

// widest is the stage with the most tasks: it has one of each number.
func (g *Graph) widest() *stage {
	widest := g.stages[0]
	for _, s := range g.stages {
		if s.tasks > widest.tasks {
			widest = s
		}
	}
	return widest
}

// mine says whether this node has the tasks of a number, and what to wait for until that may be different.
func (g *Graph) mine(index int) (bool, <-chan struct{}) {
	if !g.clustered() {
		return true, nil
	}
	node, changed := g.owners.of(index)
	return node == g.db.Cluster().Node(), changed
}

// runs is what is known of a node: whether it runs the graph.
type runs int

const (
	unknown     runs = iota // it was not asked yet
	runsIt                  // it says so
	runsItNot               // it says so, or runs another definition under the name
	unreachable             // it does not answer
)

// asked is a node that is asked from time to time.
type asked struct {
	says  runs
	tasks map[int]standing // what it says of tasks at which it has failed; not written to
	at    time.Time        // when it was asked last
	heard time.Time        // when it answered last
	under bool             // a question is under way
}

// asking is what nodes have said whether they run the graph. One that does not answer keeps nobody waiting.
type asking struct {
	g     *Graph
	mu    sync.Mutex
	nodes map[int32]*asked
	news  chan struct{} // somebody says something else than before
}

// of is what is known of a node, which is asked again if that was long ago.
func (a *asking) of(ctx context.Context, node int32) asked {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.nodes[node]
	if n == nil {
		n = &asked{}
		a.nodes[node] = n
	}
	if !n.under && time.Since(n.at) >= askInterval {
		n.under = true
		a.g.running.Go(func() { a.ask(ctx, node, n) })
	}
	return *n
}

func (a *asking) ask(ctx context.Context, node int32, n *asked) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	answer, err := a.g.ask(ctx, node, &request{})
	a.mu.Lock()
	defer a.mu.Unlock()
	n.under, n.at = false, time.Now()
	says, tasks := runsIt, n.tasks // who is silent is what he was
	switch {
	case err == nil:
		tasks, n.heard = answer.Tasks, n.at
	case errors.Is(err, embedlog.ErrNoHandler), errors.Is(err, errElsewhere):
		says, tasks = runsItNot, nil
	case n.says != runsIt || n.at.Sub(n.heard) >= askSilence:
		says = unreachable
	}
	if n.says != says || !maps.Equal(n.tasks, tasks) {
		n.says, n.tasks = says, tasks
		select {
		case a.news <- struct{}{}:
		default:
		}
	}
}

// watchOwners finds out who has the tasks, until ctx ends.
func (g *Graph) watchOwners(ctx context.Context) {
	a := &asking{g: g, nodes: map[int32]*asked{}, news: make(chan struct{}, 1)}
	look := time.NewTicker(ownerInterval)
	defer look.Stop()
	for ctx.Err() == nil {
		for i := range g.widest().tasks {
			own := g.owners.failed(i)
			g.owned(i, own.n, g.owner(ctx, i, own, a))
		}
		select {
		case <-look.C:
		case <-a.news:
		case <-ctx.Done():
		}
	}
}

// owner is who has the tasks of a number: who leads, unless he is known not to run the graph, or has given them away. Of the others one must say
// that he runs it: where he cannot be reached he is as good as gone. Own are the failures of this node.
func (g *Graph) owner(ctx context.Context, index int, own failures, a *asking) owner {
	self := g.db.Cluster().Node()
	leader, err := g.progress.Leader(int32(g.widest().first + index))
	if err != nil || leader < 0 {
		return owner{node: unowned}
	}
	if leader == self {
		if own.n == 0 {
			return owner{node: self}
		}
		return g.chooseOwner(ctx, index, own, leader, a)
	}
	says := a.of(ctx, leader)
	if says.says == runsItNot {
		return g.chooseOwner(ctx, index, own, leader, a)
	}
	s, failed := says.tasks[index]
	switch {
	case !failed:
		return owner{node: leader}
	case s.To == self && s.Of < own.n: // it does not know yet that this node has failed
		return owner{node: unowned}
	}
	return owner{s.To, s.Of}
}

func (g *Graph) service() string { return "embedlog/query/" + g.base(g.number) }

// errMoved ends a task whose owner is another node now.
var errMoved = errors.New("query: the task is another node's now")

// whileMine ends when this node has the tasks of a number no longer.
func (g *Graph) whileMine(ctx context.Context, index int) (context.Context, context.CancelFunc) {
	if !g.clustered() {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		for {
			mine, changed := g.mine(index)
			if !mine {
				cancel(errMoved)
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// standby is what a task that does not run knows from the topics that it would be restored from.
type standby struct {
	stores  map[string]kept // by their changelog
	next    map[string]int64
	found   *progress
	text    string // of found
	records int64  // of changelogs
	untidy  int    // of them since the last tidy
}

// stand has the task follow its changelogs until it is this node's turn. Nobody else uses the task meanwhile, but for readers of what it has.
func (t *task) stand(ctx context.Context, changed func() (bool, <-chan struct{})) error {
	if t.g.opts.Store != nil { // its rows are read from there, and what is missing from the changelogs, when its turn has come
		for {
			mine, other := changed()
			if mine {
				return nil
			}
			select {
			case <-other:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	s := t.warm
	if s == nil {
		s = &standby{stores: map[string]kept{}, next: map[string]int64{}}
		for _, k := range t.stores {
			s.stores[t.g.changelogName(k.label())] = k
		}
		t.clock.Lock()
		t.warm = s
		t.clock.Unlock()
	}
	var assign []embedlog.Position
	follow := func(name string, partition int32) {
		at := embedlog.Position{Topic: name, Partition: partition, LeaderEpoch: -1, Offset: embedlog.OffsetEarliest}
		if next := s.next[name]; next > 0 {
			at.Offset = next
		}
		assign = append(assign, at)
	}
	for name := range s.stores {
		follow(name, int32(t.index))
	}
	follow(t.g.progressName(), t.slot())
	var reset error
	c, err := t.g.db.Consumer(&embedlog.ConsumerConfig{Assign: assign, OnReset: func(_ context.Context, _ *embedlog.Consumer, r embedlog.Reset) {
		reset = stale("changelog %s/%d: %w", r.Topic, r.Partition, r.Cause)
	}})
	if errors.Is(err, embedlog.ErrOffsetOutOfRange) {
		return stale("%w", err)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	reading, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		for {
			mine, other := changed()
			if mine {
				stop()
				return
			}
			select {
			case <-other:
			case <-reading.Done():
				return
			}
		}
	}()
	for b, err := range c.Batches(reading) {
		if reading.Err() != nil {
			return ctx.Err() // what was not taken is read when the task begins
		}
		if err == nil {
			err = reset
		}
		if err == nil {
			err = t.takeWarm(b)
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (t *task) takeWarm(b *embedlog.Batch) error {
	t.clock.Lock()
	defer t.clock.Unlock()
	for rec, err := range b.Records() {
		if err == nil {
			err = t.warm.take(t, &rec)
		}
		if err != nil {
			return err
		}
	}
	t.warm.next[b.Topic] = max(t.warm.next[b.Topic], b.LastOffset+1)
	t.warm.tidy(b.Topic)
	return nil
}

// tidyAfter is how many records of changelogs may come before rows are put in their order.
const tidyAfter = 1000

// tidy puts the rows that are new in their order, and forgets those that have come and gone: a standby may stand for a year, and should have nothing left to
// do when its turn comes.
func (s *standby) tidy(topic string) {
	if k := s.stores[topic]; k != nil {
		k.restored()
		s.untidy = 0
	}
}

// take takes a record of a changelog, or of the progress.
func (s *standby) take(t *task, rec *embedlog.Record) error {
	s.next[rec.Topic] = max(s.next[rec.Topic], rec.Offset+1)
	if k := s.stores[rec.Topic]; k != nil {
		s.records++
		if s.untidy++; s.untidy >= tidyAfter {
			s.tidy(rec.Topic)
		}
		return k.restore(rec)
	}
	if string(rec.Key) != t.progressKey() {
		return nil
	}
	found := new(progress)
	if err := json.Unmarshal(rec.Value, found); err != nil {
		return fmt.Errorf("progress of %s: %w", t.g.name, err)
	}
	s.found, s.text = found, string(rec.Value)
	return nil
}

// takeOver reads what is left. The task has its transactional id, so that nobody writes any more. What a standby has is not used when its changelog does not
// go on where it has read up to, or when it has more rows than were committed: then compaction has removed tombstones that it had not read
// yet. It is the same as with a checkpoint, see restore.
func (t *task) takeOver(ctx context.Context) error {
	topics := []string{t.g.progressName()}
	for name := range t.warm.stores {
		topics = append(topics, name)
	}
	slices.Sort(topics)
	for _, name := range topics {
		top, err := t.g.db.Topic(name)
		if err != nil {
			return err
		}
		o := &embedlog.ScanOptions{Partitions: []int32{int32(t.index)}, Linearizable: true}
		if name == t.g.progressName() {
			o.Partitions[0] = t.slot()
		}
		if next := t.warm.next[name]; next > 0 {
			o.From = embedlog.AtOffset(next)
		}
		for rec, err := range top.Scan(ctx, o) {
			if err == nil {
				t.clock.Lock()
				err = t.warm.take(t, &rec)
				t.clock.Unlock()
			}
			if errors.Is(err, embedlog.ErrOffsetOutOfRange) {
				return stale("what it followed: %s/%d: %w", name, o.Partitions[0], err)
			}
			if err != nil {
				return fmt.Errorf("take over %s/%d: %w", name, o.Partitions[0], err)
			}
		}
	}
	found := t.warm.found
	for _, k := range t.stores {
		k.restored()
		if found == nil && k.count() == 0 {
			continue
		}
		if found == nil {
			return stale("what it followed: %s has %d rows, and nothing was committed", k.label(), k.count())
		}
		if want, ok := found.Rows[k.label()]; ok && want != int64(k.count()) {
			return stale("what it followed: %s would have %d rows instead of %d: tombstones are gone", k.label(), k.count(), want)
		}
	}
	for name, next := range t.warm.next {
		t.saver.next[name] = next
	}
	t.saver.progress, t.saver.since = t.warm.text, t.warm.records
	t.clock.Lock()
	t.warm = nil
	t.clock.Unlock()
	if found == nil {
		return nil
	}
	if err := t.adopt(found); err != nil {
		return err
	}
	for _, f := range t.loaded {
		f()
	}
	return nil
}
