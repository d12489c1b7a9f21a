package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
// the other nodes that run it has the task.

// owners is who has which task, as far as this node knows.
type owners struct {
	mu      sync.Mutex
	node    []int32       // by the tasks' number; -1 where it is not known
	changed chan struct{} // closed when node is another
}

const (
	ownerInterval = 50 * time.Millisecond  // between two looks at who leads
	askInterval   = 250 * time.Millisecond // between two questions whether who leads runs the graph
	askPatience   = time.Second
)

func (o *owners) of(index int) (node int32, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.node[index], o.changed
}

func (o *owners) set(index int, node int32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.node[index] != node {
		o.node[index] = node
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

// watchOwners finds out who has the tasks, until ctx ends.
func (g *Graph) watchOwners(ctx context.Context) {
	asked, runs := map[int32]time.Time{}, map[int32]bool{}
	for ctx.Err() == nil {
		for i := range g.widest().tasks {
			g.owners.set(i, g.owner(ctx, i, asked, runs))
		}
		select {
		case <-time.After(ownerInterval):
		case <-ctx.Done():
		}
	}
}

// owner is who has the tasks of a number. asked says when nodes were asked whether they run the graph, and runs what they said.
func (g *Graph) owner(ctx context.Context, index int, asked map[int32]time.Time, runs map[int32]bool) int32 {
	self := g.db.Cluster().Node()
	leader, err := g.progress.Leader(int32(g.widest().first + index))
	if err != nil || leader < 0 {
		return -1
	}
	// ask says whether a node has no such graph. Who cannot be reached is not asked again at once.
	without := func(node int32) bool {
		if time.Since(asked[node]) >= askInterval {
			ctx, cancel := context.WithTimeout(ctx, askPatience)
			_, err := g.db.Peers().Call(ctx, node, g.service(), []byte(`{}`))
			cancel()
			asked[node], runs[node] = time.Now(), !errors.Is(err, embedlog.ErrNoHandler)
		}
		return !runs[node]
	}
	if leader == self || !without(leader) {
		return leader
	}
	for _, node := range g.db.Peers().Nodes() {
		if node == self || node != leader && !without(node) {
			return node
		}
	}
	return -1
}

func (g *Graph) service() string { return "embedlog/query/" + g.name }

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
	s := &standby{stores: map[string]kept{}, next: map[string]int64{}}
	t.warm = s
	var assign []embedlog.Position
	for _, k := range t.stores {
		s.stores[t.g.changelogName(k.label())] = k
	}
	for name := range s.stores {
		assign = append(assign, embedlog.Position{Topic: name, Partition: int32(t.index), LeaderEpoch: -1, Offset: embedlog.OffsetEarliest})
	}
	assign = append(assign, embedlog.Position{Topic: t.g.progressName(), Partition: t.slot(), LeaderEpoch: -1, Offset: embedlog.OffsetEarliest})
	var reset error
	c, err := t.g.db.Consumer(&embedlog.ConsumerConfig{Assign: assign, OnReset: func(_ context.Context, _ *embedlog.Consumer, r embedlog.Reset) {
		reset = fmt.Errorf("changelog %s/%d: %w", r.Topic, r.Partition, r.Cause)
	}})
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
	return nil
}

// take takes a record of a changelog, or of the progress.
func (s *standby) take(t *task, rec *embedlog.Record) error {
	s.next[rec.Topic] = max(s.next[rec.Topic], rec.Offset+1)
	if k := s.stores[rec.Topic]; k != nil {
		s.records++
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

// takeOver reads what is left. The task has its transactional id, so that nobody writes any more.
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
			if err != nil {
				return fmt.Errorf("take over %s/%d: %w", name, o.Partitions[0], err)
			}
		}
	}
	found := t.warm.found
	for name, next := range t.warm.next {
		t.saver.next[name] = next
	}
	t.saver.progress, t.saver.since = t.warm.text, t.warm.records
	t.warm = nil
	if found == nil {
		return nil
	}
	if err := t.adopt(found); err != nil {
		return err
	}
	for _, k := range t.stores {
		k.restored()
		if want, ok := found.Rows[k.label()]; ok && want != int64(k.count()) {
			return &StateError{Graph: t.g.name, Store: k.label(), Rows: int64(k.count()), Want: want}
		}
	}
	for _, f := range t.loaded {
		f()
	}
	return nil
}
