package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/views"
)

// Options are the settings of a graph; nil is the defaults.
type Options struct {
	// CommitInterval is how often what has changed is committed: what has not been is computed again after a restart. Each commit
	// waits for the disk. Zero means 100 ms.
	CommitInterval time.Duration
	// MaxAhead is how far a record's timestamp may be ahead of all before it in its partition. One that is further ahead does not move the
	// time by which windows are over, unless ten follow each other that are: a wrong clock must not make late what others send. Zero
	// means an hour; it should be longer than the pauses between records. Negative is no bound.
	MaxAhead time.Duration
	// Rebuild lets the graph be another one than the graph of its name that was started before: it is computed from the beginning of its sources, beside
	// what the other one keeps, and takes its place when it has caught up. Reads wait for that. Without it Start fails with a
	// *DefinitionError: records may have been deleted since, and what was made of them would go.
	Rebuild bool
	// OneTask has one task read all partitions, whatever the graph is. It is for topics whose records are not where their keys belong.
	OneTask bool
	// CheckpointInterval is how often the rows that are in memory are written to a file of the database's at most, so that a restart reads the changelogs
	// from there on. It is done when the changelogs have got as many records since the last one as there are rows, and when the graph is
	// closed: the disk takes about twice what changelogs alone take, and a restart reads no more than twice the rows. Zero
	// means a minute; negative is never.
	CheckpointInterval time.Duration
	// Store has the rows of the graph's tables on disk: nil has them in memory. What has changed since the last commit, and what is used
	// most, is in memory all the same. See package query/disk.
	Store Stores
	// CacheBytes is how much each task keeps in memory of rows that are on disk, roughly. Zero means 64 MiB.
	CacheBytes int
	// Logger is told when a task is started again, and why. Nil is silent.
	Logger *slog.Logger
}

const defaultCommitInterval = 100 * time.Millisecond

// Graph is views and sinks that are computed together: what their descriptions have in common is computed once, and their rows are of one
// version. It runs from Start until Close, or until its database is closed.
//
//	g := query.NewGraph(db, "shop", nil)
//	spent := query.Add(g, "spent", query.Sum(orders, cents))
//	query.To(g, large, alerts)
//	err := g.Start(ctx)
//
// All methods may be called from several goroutines.
type Graph struct {
	db   *embedlog.DB
	name string
	opts Options
	// chunk is how many records a task takes at a time.
	chunk int

	mu         sync.Mutex
	outputs    []output
	started    bool
	misuse     error // what was added too late
	names      map[string]bool
	storeNames *storeNames
	detach     []func()
	offers     map[string]offeredView
	retained   map[*node]bool // views that keep their past
	retention  Retention
	retainErr  error

	// Set by Start.
	sources    map[string]*embedlog.Topic
	between    map[string]*embedlog.Topic // of repartitions
	stages     []*stage
	progress   *embedlog.Topic
	owners     owners
	pinMu      sync.Mutex
	pins       map[uint64]*lease // of other nodes' snapshots
	run                          // of which generation it is, and what that is allowed to do
	lastPin    uint64
	views      map[string]served
	weak       bool // a source may lose records in a power cut
	gate       *gate
	trimMu     sync.Mutex
	trims      map[place]map[int]int64 // of repartitions' partitions: what their stages have committed
	definition string
	globals    []graphGlobal
	contents   views.Contents
	slots      []slot
	ctx        context.Context
	cancel     context.CancelFunc
	running    sync.WaitGroup

	answers     atomic.Bool // other nodes: it has been started
	closing     atomic.Bool
	closeOnce   sync.Once
	closeErr    error        // of the last commit; under mu
	read        atomic.Int64 // records
	deadLetters atomic.Int64
	restarts    atomic.Int64
	handovers   atomic.Int64
	saved       saveStats

	checkpointAfter, trimRecords, repartitionRecords int64 // records; see there
	outFor                                           time.Duration
}

// output is a view or a sink.
type output struct {
	kind, name string
	n          *node
	build      func(b *builder)
	err        error // what is wrong with it, beside what is with n
}

// slot is where the task of an index is found.
type slot struct {
	mu      sync.Mutex
	task    *task
	follows *task         // it stands by
	changed chan struct{} // closed when task or err is another
	since   time.Time     // when task was set
	err     error         // for good
}

func (s *slot) set(t *task, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.task, s.err, s.since = t, err, time.Now()
	close(s.changed)
	s.changed = make(chan struct{})
}

// NewGraph makes a graph. What it keeps is in topics that begin with its name.
func NewGraph(db *embedlog.DB, name string, o *Options) *Graph {
	g := &Graph{
		db: db, name: name, chunk: chunk, names: map[string]bool{}, views: map[string]served{}, offers: map[string]offeredView{}, retained: map[*node]bool{},
		checkpointAfter: checkpointAfter, trimRecords: trimRecords, repartitionRecords: repartitionRecords, gate: newGate(),
		outFor:     defaultOutFor,
		storeNames: &storeNames{byNode: map[*node]string{}, stage: map[*node]int{}, made: map[stageNode]string{}, used: map[string]int{}},
	}
	if o != nil {
		g.opts = *o
	}
	if g.opts.CommitInterval <= 0 {
		g.opts.CommitInterval = defaultCommitInterval
	}
	if g.opts.MaxAhead == 0 {
		g.opts.MaxAhead = defaultMaxAhead
	}
	if g.opts.CheckpointInterval == 0 {
		g.opts.CheckpointInterval = defaultCheckpointInterval
	}
	if g.opts.CacheBytes <= 0 {
		g.opts.CacheBytes = defaultCacheBytes
	}
	return g
}

const changelogSuffix = "-changelog"

func (g *Graph) changelogName(store string) string {
	if store == g.name {
		return g.kept + changelogSuffix
	}
	return g.kept + "-" + store + changelogSuffix
}
func (g *Graph) progressName() string { return g.kept + views.ProgressSuffix }
func (g *Graph) deadName() string     { return g.name + "-dead-letter" }

// Name is the graph's name.
func (g *Graph) Name() string { return g.name }

// add takes an output, before the graph is started. Afterwards it is an error of all that is read from the graph: nobody would notice
// a sink that does nothing.
func (g *Graph) add(o output) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.started {
		g.misuse = fmt.Errorf("%w: %s %s was added afterwards", ErrStarted, o.kind, o.name)
		return
	}
	g.outputs = append(g.outputs, o)
}

// Add has a table kept as a view, whose name is one in the graph. It is read after Start.
func Add[K, V any](g *Graph, name string, t *Table[K, V]) *View[K, V] {
	v := &View[K, V]{g: g, name: name, t: t}
	g.storeNames.take(t.n, name)
	g.add(output{"view", name, t.n, func(b *builder) { tableRows(b, t, name) }, (&node{kind: "view"}).named(name).err})
	g.offer(name, viewDoor[K, V]{v})
	g.serves(name, serve(t))
	return v
}

// To has each row of a stream appended to a topic, in the transaction that its sources' positions are in: once, whatever happens. The topic's
// partition is its key's.
func To[K, V any](g *Graph, s *Stream[K, V], t *embedlog.Topic) {
	n := &node{kind: "sink", inputs: []*node{s.n}}
	if n.of(t, s.key != nil, s.value != nil); n.err != nil {
		g.add(output{kind: "sink", name: n.label, n: n})
		return
	}
	if !s.n.appends {
		n.err = fmt.Errorf("sink %s: %w", t.Name(), ErrNotReversible)
	}
	g.add(output{"sink", t.Name(), n, func(b *builder) {
		k := &keyer[K]{codec: s.key}
		b.task.keyers(&k.err)
		var bytes arena
		portOf[K, V](b, s.n).to(func(ds []delta[K, V]) {
			if b.task.g.muted[t.Name()] && b.task.mutedNow() {
				return
			}
			for i := range ds {
				d := &ds[i]
				rec := embedlog.Record{Topic: t.Name(), Timestamp: time.UnixMilli(d.time.ms)}
				if !d.null {
					rec.Key = bytes.copy(keyOf(k, d))
				}
				value, err := s.value.Append(bytes.room(), d.val)
				if err != nil {
					b.task.fail(fmt.Errorf("encode a value for %s: %w", t.Name(), err))
					return
				}
				if rec.Value = bytes.took(value); rec.Value == nil {
					rec.Value = []byte{}
				}
				for range d.weight {
					b.task.out = append(b.task.out, rec)
				}
			}
		})
	}, nil})
}

// Materialize starts a graph of one view, which both have the name.
func Materialize[K, V any](name string, t *Table[K, V]) (*View[K, V], error) {
	var db *embedlog.DB
	t.n.walk(func(n *node) {
		if n.source != nil {
			db = n.source.topic.DB()
		}
	})
	g := NewGraph(db, name, nil)
	v := Add(g, name, t)
	return v, g.Start(context.Background())
}

// Start makes the topics that the graph needs, and has it run. It returns before the views have caught up: reads wait for that. ctx is for
// the call alone.
func (g *Graph) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("start view graph %s: %w", g.name, err)
		}
	}()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.started {
		return ErrRunning
	}
	if err := g.check(); err != nil {
		return err
	}
	if err := g.findGlobals(); err != nil {
		return err
	}
	// First of all: what another definition keeps is not touched while it runs here.
	g.number = 0 // a start that failed may have left it
	unregister, err := g.db.Peers().Handle(g.service(), g.answerFirst)
	if err != nil {
		return fmt.Errorf("%w (%w)", ErrRunning, err)
	}
	defer func() {
		if err != nil {
			unregister()
		}
	}()
	if err := g.plan(); err != nil {
		return err
	}
	if err := g.makeTopics(ctx); err != nil {
		return err
	}
	g.prepare()
	g.life, g.endLife = context.WithCancel(context.Background())
	uncall, err := g.db.BeforeClose(func() { g.Close() })
	if err != nil {
		g.endLife()
		return err
	}
	g.detach = []func(){unregister, uncall}
	if err := g.launch(); err != nil {
		g.endLife()
		uncall()
		return err
	}
	g.started = true
	if views.Of(g.db).First() {
		g.removeState()
	}
	g.generationsBegin()
	g.detach = append(g.detach, views.Of(g.db).Offer(offered{g}))
	return nil
}

// prepare makes what the run's tasks are in.
func (g *Graph) prepare() {
	g.owners.begin(g.widest().tasks)
	g.pins = map[uint64]*lease{}
	g.slots = make([]slot, g.total())
	for i := range g.slots {
		g.slots[i].changed = make(chan struct{})
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
}

// launch has the tasks run.
func (g *Graph) launch() error {
	if g.number > 1 { // the first generation's name is that of the graph, which nobody else here may have
		unregister, err := g.db.Peers().Handle(g.service(), g.answer)
		if err != nil {
			g.cancel()
			return err
		}
		g.leave = unregister
	}
	g.answers.Store(true)
	if g.clustered() {
		g.running.Go(func() { g.watchOwners(g.ctx) })
	}
	for i := range g.slots {
		g.running.Go(func() { g.live(i) })
	}
	for _, r := range g.globals {
		g.running.Go(func() { g.readGlobal(r) })
	}
	return nil
}

// check says what is wrong with the descriptions, all of it.
func (g *Graph) check() error {
	var bad []error
	if g.name == "" {
		bad = append(bad, errors.New("its name is empty"))
	}
	if len(g.outputs) == 0 {
		bad = append(bad, errors.New("it has neither views nor sinks"))
	}
	if len(g.retained) > 0 && g.opts.Store != nil {
		bad = append(bad, ErrRetainOnDisk)
	}
	if g.retainErr != nil {
		bad = append(bad, g.retainErr)
	}
	seen := map[*node]bool{}
	views := map[string]bool{}
	for _, o := range g.outputs {
		if name := o.kind + " " + o.name; o.kind != "sink" {
			if views[name] {
				bad = append(bad, fmt.Errorf("two %s are named %s", map[string]string{"view": "views", "index": "indexes"}[o.kind], o.name))
			}
			views[name] = true
		}
		if o.err != nil {
			bad = append(bad, o.err)
		}
		o.n.walk(func(n *node) {
			if seen[n] {
				return
			}
			seen[n] = true
			if n.err != nil {
				bad = append(bad, n.err)
			}
			if n.rep != nil && len(g.retained) > 0 {
				bad = append(bad, fmt.Errorf("a view keeps its past, which is of one version, and stages have their own: %s", n.title()))
			}
			if n.source != nil && n.source.topic.DB() != g.db {
				bad = append(bad, fmt.Errorf("topic %s is of another database", n.label))
			}
		})
	}
	return errors.Join(bad...)
}

// walk calls f for a node and all that it is made of, these first, each once.
func (n *node) walk(f func(*node)) { n.walkNew(map[*node]bool{}, f) }

func (n *node) walkNew(seen map[*node]bool, f func(*node)) {
	if seen[n] {
		return
	}
	seen[n] = true
	for _, in := range n.inputs {
		in.walkNew(seen, f)
	}
	f(n)
}

// plan decides on stages and tasks.
func (g *Graph) plan() error {
	g.sources, g.between, g.trims = map[string]*embedlog.Topic{}, map[string]*embedlog.Topic{}, map[place]map[int]int64{}
	g.stages = nil
	for _, o := range g.outputs {
		o.n.walk(func(n *node) {
			if n.source != nil && g.sources[n.label] == nil {
				g.sources[n.label] = n.source.topic
			}
		})
	}
	g.definition = g.describe(false)
	for _, t := range g.sources {
		if info, err := t.Describe(); err == nil {
			for _, s := range info.Settings {
				g.weak = g.weak || s.Name == "embedlog.durability" && s.Value != "durable"
			}
		}
	}
	return g.planStages()
}

// makeTopics makes what the graph writes to.
func (g *Graph) makeTopics(ctx context.Context) error {
	if err := g.chooseGeneration(ctx); err != nil {
		return err
	}
	return g.makeKept(ctx)
}

// makeKept makes the topics of the generation.
func (g *Graph) makeKept(ctx context.Context) error {
	total := g.total()
	if err := g.makeTopic(ctx, g.progressName(), &embedlog.TopicConfig{Partitions: total, Cleanup: embedlog.Compact}, total); err != nil {
		return err
	}
	var err error
	if g.progress, err = g.db.Topic(g.progressName()); err != nil {
		return err
	}
	names := map[string]bool{}
	for _, s := range g.stages {
		t := g.newTask(s.first) // to see what stores it has
		if t.failed != nil {
			return t.failed
		}
		s.keyed = len(t.stores) > 0
		g.keeps(t)
		for _, k := range t.stores {
			if name := g.changelogName(k.label()); names[name] {
				return fmt.Errorf("two stores are named %s", k.label())
			}
			names[g.changelogName(k.label())] = true
			if err := g.makeTopic(ctx, g.changelogName(k.label()), &embedlog.TopicConfig{Partitions: s.tasks, Cleanup: embedlog.Compact}, s.tasks); err != nil {
				return err
			}
		}
		for _, n := range s.writes {
			c := &embedlog.TopicConfig{
				Partitions: g.width(n), Durability: embedlog.Durable, Retention: -1, SegmentBytes: 16 << 20, MaxRecordBytes: 8 << 20,
			}
			if err := g.makeTopic(ctx, g.repName(n), c, c.Partitions); err != nil {
				return err
			}
			var err error
			if g.between[g.repName(n)], err = g.db.Topic(g.repName(n)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *Graph) makeTopic(ctx context.Context, name string, c *embedlog.TopicConfig, tasks int) error {
	_, err := g.db.EnsureTopic(ctx, name, c)
	for errors.Is(err, embedlog.ErrUnknownOutcome) && ctx.Err() == nil { // who led has gone meanwhile: it is there, or is made now
		_, err = g.db.EnsureTopic(ctx, name, c)
	}
	if differs := (*embedlog.TopicDiffersError)(nil); errors.As(err, &differs) {
		return &DefinitionError{Graph: g.name, Was: g.definition, Now: g.definition, Tasks: tasks}
	}
	return err
}

// live has a task live again and again, until the graph is closed or something is wrong for good.
func (g *Graph) live(index int) {
	s := &g.slots[index]
	pause := firstPause
	var t *task
	for {
		if t == nil || t.warm == nil { // otherwise it did not come to run: what it follows is as good as it was
			t = g.newTask(index)
		}
		began := time.Now()
		err := g.turn(s, t)
		if errors.Is(err, embedlog.ErrUnknownTopic) && g.ctx.Err() == nil { // what another definition has replaced is deleted
			gone := (*embedlog.UnknownTopicError)(nil)
			if now := g.current(g.ctx); now != nil {
				err = now
			} else if errors.As(err, &gone) && gone.Deleted {
				err = gone // and not that its log is closed: nobody has closed anything of the program's
			}
		}
		if g.ctx.Err() != nil {
			if err != nil && !s.stopped() && !errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed) && !g.taken(err) {
				g.mu.Lock()
				g.closeErr = errors.Join(g.closeErr, err)
				g.mu.Unlock()
			}
			s.set(nil, &StoppedError{g.name, ErrClosed})
			t.publish() // who waits for the task sees that it is over
			return
		}
		if g.clustered() && ofThisNode(err) {
			g.handOver(s, t, err)
			continue
		}
		if !g.passes(t, err) {
			s.set(nil, &StoppedError{g.name, err})
			t.publish()
			if g.opts.Logger != nil {
				g.opts.Logger.Error("a view graph has stopped", "graph", g.name, "task", index, "err", err)
			}
			return
		}
		s.set(nil, nil)
		t.publish()
		g.unpinTask(t)
		if errors.Is(err, errMoved) {
			continue
		}
		if errors.Is(err, errStale) { // what it followed: it begins anew
			t.warm = nil
		}
		g.restarts.Add(1)
		if g.opts.Logger != nil {
			g.opts.Logger.Warn("a task of a view graph begins again", "graph", g.name, "task", index, "err", err)
		}
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		if t.warm != nil { // others wait for it, and it has all that it needs but its id
			pause = min(pause, takePause)
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, lastPause)
		case <-g.ctx.Done():
		}
	}
}

// stopped says that the task has been stopped, and why is known.
func (s *slot) stopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil
}

// taken says that another node has a task: it goes on from the last commit, and computes what this one could not commit.
func (g *Graph) taken(err error) bool {
	return g.clustered() && (errors.Is(err, errMoved) || errors.Is(err, embedlog.ErrFenced) || errors.Is(err, embedlog.ErrTransactorEnded))
}

// A task that fails for a reason that may pass is started again, later each time.
const (
	firstPause = 10 * time.Millisecond
	takePause  = 20 * time.Millisecond // at most, of one that takes over
	lastPause  = 5 * time.Second
)

// passes says whether a task can go on from its last commit.
func (g *Graph) passes(t *task, err error) bool {
	if errors.Is(err, errStale) {
		return true
	}
	if g.clustered() && (t == nil || t.failed == nil) { // no function of the program's has said it
		for _, passing := range []error{
			errMoved, embedlog.ErrFenced, embedlog.ErrTransactorEnded, embedlog.ErrPeerUnreachable, // another node has it, or will find out that it has not
			context.Canceled, context.DeadlineExceeded, embedlog.ErrClosed, // a node that was asked for something: this one goes on
		} {
			if errors.Is(err, passing) {
				return true
			}
		}
	}
	if !g.clustered() && errors.Is(err, embedlog.ErrStorageFailed) {
		return false // until the database is opened again: what could be tried would wait for ever
	}
	return errors.Is(err, errRetired) || embedlog.IsRetriable(err) || errors.Is(err, embedlog.ErrUnknownOutcome) || errors.Is(err, embedlog.ErrTxnAborted)
}

// Close commits what has changed, and ends the graph: reads fail with an error that matches ErrClosed. A graph of its name, started later,
// goes on where this one was. An error is the last commit's: what it would have written is computed again. Close may be called more than once.
//
// DB.Close closes graphs, too, in the same way.
func (g *Graph) Close() error {
	g.mu.Lock()
	started := g.started
	g.mu.Unlock()
	if !started {
		return ErrNotStarted
	}
	g.closeOnce.Do(func() {
		g.endLife()
		g.rebuildMu.Lock()
		g.over = true
		g.rebuildMu.Unlock()
		g.followers.Wait()
		g.serving().end()
		g.end()
		for _, f := range g.detach {
			f()
		}
	})
	return g.serving().endError() // what one that was replaced would have written does not matter
}

// end ends the run.
func (g *Graph) end() {
	g.endOnce.Do(func() {
		defer g.drain()()
		g.closing.Store(true)
		g.cancel()
		g.running.Wait()
		g.unpinAll()
		if g.leave != nil {
			g.leave()
		}
	})
}

func (g *Graph) endError() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closeErr
}

// Stats are a graph's counters since it was started.
type Stats struct {
	// Tasks is how many goroutines compute the graph.
	Tasks int
	// Records is how many were read of the sources.
	Records int64
	// Lag is how many records there are that were not read yet, as far as this node knows by itself. Graph.Lag says it for each partition.
	Lag int64
	// DeadLetters are records that could not be decoded; they are in the topic <graph>-dead-letter.
	DeadLetters int64
	// NoKey are rows that were left out because they have no key to be grouped by.
	NoKey int64
	// Late are rows that were left out of a window, or of a join within a time, because it was over: see Late.
	Late int64
	// Restarts is how often a task began again after something that passes had gone wrong.
	Restarts int64
	// Handovers is how often another node of the cluster got a task because this one had failed at it: what it keeps of the task beside the log
	// could not be read or written.
	Handovers int64
	// StandbyRows is how many rows the tasks have that stand by on this node, for those that other nodes run.
	StandbyRows int64
	// RestoredRows is how many rows were there from checkpoints, or stores on disk, when tasks began; RestoredRecords how many records were
	// read from changelogs for what came after.
	RestoredRows, RestoredRecords int64
	// Checkpoints is how many were written, CheckpointBytes the length of the last one. CheckpointsRefused were there and could not be used.
	Checkpoints, CheckpointBytes, CheckpointsRefused int64
	// CheckpointStop is the longest time for which a checkpoint kept a task from going on.
	CheckpointStop time.Duration
}

// Stats returns the counters.
func (g *Graph) Stats() Stats {
	g = g.serving()
	s := Stats{
		Tasks: len(g.slots), Records: g.read.Load(), DeadLetters: g.deadLetters.Load(), Restarts: g.restarts.Load(), Handovers: g.handovers.Load(), Lag: g.behind(),
		RestoredRows: g.saved.rows.Load(), RestoredRecords: g.saved.records.Load(),
		Checkpoints: g.saved.written.Load(), CheckpointBytes: g.saved.bytes.Load(), CheckpointsRefused: g.saved.refused.Load(),
		CheckpointStop: time.Duration(g.saved.stop.Load()),
	}
	for i := range g.slots {
		g.slots[i].mu.Lock()
		if t := g.slots[i].follows; t != nil {
			t.clock.RLock()
			for _, k := range t.stores {
				s.StandbyRows += int64(k.count())
			}
			t.clock.RUnlock()
		}
		if t := g.slots[i].task; t != nil {
			s.NoKey += t.noKey.Load()
			s.Late += t.late.Load()
		}
		g.slots[i].mu.Unlock()
	}
	return s
}
