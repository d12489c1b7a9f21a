package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/seed"
	"github.com/x/embedlog/internal/views"
)

// chunk is how many records a task takes at a time: readers wait as long as that takes, at most.
const chunk = 256

// dirtyBytes is what may have changed before a commit is due, whatever the interval.
const dirtyBytes = 8 << 20

// sentBytes is the same for rows that go to repartitions: the tasks behind apply at once what a commit has.
const sentBytes = 1 << 20

// task is a part of a graph that runs: one goroutine, the only one that writes its stores. It has one life: when something
// passing goes wrong another task begins where the last commit was.
type task struct {
	g     *Graph
	stage *stage
	index int    // in the stage
	life  uint64 // tells it from those before and after it
	clock clock  // and the lock of everything below that readers read
	// Readers, with the lock: where the sources are read up to.
	positions map[place]int64
	// applied are the batches whose records are in the stores; fetched those that were taken from the consumer.
	applied, fetched atomic.Int64
	aside            []*embedlog.Batch // that wait until a snapshot is taken; written with the gate's lock
	opened           <-chan struct{}   // says that they may be taken
	moved            chan struct{}     // closed and made anew when positions have moved; under the lock
	noKey            atomic.Int64      // records that cannot be grouped, because they have no key
	late             atomic.Int64      // rows that came when their windows were over
	// Readers, with the lock: the version whose rows are committed, and the commit's number.
	durable   uint64
	settledAt int64

	tables   map[*node]any
	indexes  map[any]any // *Index to the store of its places
	stores   []kept
	decoders []*taskSource
	keyErrs  []*error
	later    []*deferred
	times    map[place]*streamTime
	ticks    []tick
	atEnd    []func() // at the end of each chunk
	loaded   []func() // when rows are restored
	single   bool     // record by record: an operator depends on their order
	wall     wallClock
	hist     *history  // nil: no view keeps its past
	since    time.Time // when the version of now was published, where there is a hist
	failed   error

	consumer   *embedlog.Consumer
	transactor *embedlog.Transactor
	out        []embedlog.Record // of sinks, since the last commit
	outBytes   int               // of the first outSeen of them
	outSeen    int
	dead       []embedlog.Record
	committed  map[place]int64
	committing chan error    // nil when no commit is under way
	seq        int64         // of the last commit that began
	hurry      chan struct{} // somebody waits for a commit
	again      bool          // one is due when the one under way has ended
	reps       map[*node]*repSource
	writers    []*repWriter
	sent       []embedlog.Record // to repartitions, since the last commit
	sentBytes  int
	marked     bool // a mark was applied since the last commit
	trimmed    map[place]int64
	muted      bool                        // what comes of the records was appended by an older generation
	held       map[place][]*embedlog.Batch // what is beyond the bound
	bounded    *bound                      // that something of it has met
	resumes    bool                        // a batch may have been taken in part
	warm       *standby                    // what it followed before it ran
	writing    context.Context             // of commits
	giveUp     context.CancelFunc
	saver      *saver      // from restore on
	ended      atomic.Bool // its store is closed
}

// place is a partition of a source.
type place struct {
	topic     string
	partition int32
}

// taskSource is a source in a task.
type taskSource struct {
	*source
	dec   decoder
	again bool // a stage before has it, too
}

// deferred is an operator that waits until all before it have their rows.
type deferred struct {
	rank int
	due  bool
	run  func()
}

// decoder is the task's decoder of a source: sources of one topic with the same codecs share it.
func (t *task) decoder(b *builder, s *source) decoder {
	for _, ts := range t.decoders {
		if ts.same(s) {
			return ts.dec
		}
	}
	ts := &taskSource{s, s.build(b), t.stage.readBefore(s)}
	t.decoders = append(t.decoders, ts)
	return ts.dec
}

// shareDecoding has the decoders take part in what other tasks decode, until the function that it returns is called.
func (t *task) shareDecoding() (leave func()) {
	var all []func()
	for _, ts := range t.decoders {
		var partitions []int32
		for at := range t.positions {
			if at.topic == ts.topic.Name() {
				partitions = append(partitions, at.partition)
			}
		}
		all = append(all, ts.dec.join(partitions))
	}
	return func() {
		for _, f := range all {
			f()
		}
	}
}

func (t *task) keyers(err *error) { t.keyErrs = append(t.keyErrs, err) }

// fail notes the first thing that went wrong; the chunk is the last one.
func (t *task) fail(err error) {
	if t.failed == nil {
		t.failed = err
	}
}

// deferTo registers an operator that runs when those of lower rank have run.
func (t *task) deferTo(rank int, run func()) *deferred {
	d := &deferred{rank: rank, run: run}
	i, _ := slices.BinarySearchFunc(t.later, rank, func(d *deferred, rank int) int {
		if d.rank <= rank {
			return -1
		}
		return 1
	})
	t.later = slices.Insert(t.later, i, d)
	return d
}

// newTask makes the operators of a slot's task.
func (g *Graph) newTask(slot int) *task {
	t := &task{g: g, life: rand.Uint64(), positions: map[place]int64{}, committed: map[place]int64{}, moved: make(chan struct{}), times: map[place]*streamTime{}, tables: map[*node]any{}, indexes: map[any]any{}}
	t.stage, t.index = g.of(slot)
	t.reps, t.trimmed, t.hurry = map[*node]*repSource{}, map[place]int64{}, make(chan struct{}, 1)
	t.clock.version, t.clock.breaks = 1, make(chan struct{}, 1)
	t.held = map[place][]*embedlog.Batch{}
	g.keepPast(t)
	b := &builder{task: t, stage: t.stage, ports: map[*node]any{}, tables: t.tables, names: g.storeNames}
	for _, o := range t.stage.outputs {
		o.build(b)
	}
	for n := range g.retained {
		t.tables[n].(interface{ keepPast(*history) }).keepPast(t.hist)
	}
	return t
}

// live runs a task until ctx ends or something goes wrong.
func (t *task) live(ctx context.Context, ready func()) (err error) {
	// A commit does not end with ctx: whoever closes the graph waits for it.
	writing, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	t.writing, t.giveUp = writing, giveUp
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer func() {
		giveUp()
		if t.committing != nil {
			if e := <-t.committing; err == nil {
				err = e
			}
		}
		if t.saver != nil {
			t.saver.wait()
			err = errors.Join(err, t.saver.closeStore())
		}
	}()
	// Whoever had the id before cannot commit any more, and what he committed is seen.
	if t.transactor, err = t.g.db.Transactor(ctx, embedlog.TxnOptions{ID: txnID(t.g.kept, t.id()), Timeout: txnTimeout}); err != nil {
		return err
	}
	if err := t.g.current(ctx); err != nil {
		return err
	}
	if err := t.restore(ctx); err != nil {
		return err
	}
	t.settledNow(t.clock.version, t.seq)
	var gap error
	cfg := &embedlog.ConsumerConfig{
		Assign: t.assignment(),
		OnReset: func(_ context.Context, _ *embedlog.Consumer, r embedlog.Reset) {
			gap = &GapError{Graph: t.g.name, Reset: r}
		},
	}
	if t.consumer, err = t.g.db.Consumer(cfg); err != nil {
		if out := (*embedlog.OffsetOutOfRangeError)(nil); errors.As(err, &out) {
			return &GapError{t.g.name, t.outside(out, err)}
		}
		return err
	}
	if t.resumes = t.g.bound.Load() != nil; !t.resumes { // or it would stop in the middle of what others decode
		defer t.shareDecoding()()
	}
	batches := make(chan fetched, 4)
	done := make(chan struct{})
	defer func() {
		cancel()
		<-done
		t.consumer.Close()
	}()
	go func() {
		defer close(done)
		for b, err := range t.consumer.Batches(ctx) {
			t.fetched.Add(1)
			if err == nil {
				err = gap
			}
			select {
			case batches <- fetched{b, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	ready()
	return t.loop(ctx, batches)
}

// outside is the position that a consumer cannot begin at.
func (t *task) outside(out *embedlog.OffsetOutOfRangeError, cause error) embedlog.Reset {
	r := embedlog.Reset{Partition: -1, From: out.Offset, To: out.LogStart, Cause: cause}
	if out.Offset > out.LogEnd {
		r.To = out.LogEnd
	}
	for at, pos := range t.positions {
		if pos == out.Offset {
			r.Topic, r.Partition = at.topic, at.partition // the cause says it in any case
		}
	}
	return r
}

type fetched struct {
	batch *embedlog.Batch
	err   error
}

func txnID(graph, task string) string { return "embedlog.query." + graph + "." + task }

// txnTimeout bounds a commit.
const txnTimeout = 5 * time.Minute

// loop takes batches, and commits from time to time.
func (t *task) loop(ctx context.Context, batches <-chan fetched) error {
	interval := t.g.opts.CommitInterval
	timer := time.NewTimer(interval)
	timer.Stop()
	armed := false
	for {
		var err error
		select {
		case f := <-batches:
			if err = f.err; err == nil {
				err = t.takeNext(ctx, f.batch)
			}
		case <-t.opened:
			err = t.takeAside(ctx)
		case <-t.unbound():
			err = t.takeHeld(ctx)
		case e := <-t.committing:
			if err = t.settled(e); err == nil && t.again {
				t.again = false
				err = t.commit()
			}
		case <-t.hurry:
			if t.again = t.committing != nil; !t.again {
				err = t.commit()
			}
		case <-t.wall.wake():
			err = t.strike()
		case <-t.clock.breaks: // a reader has found out
			err = t.clock.err()
		case <-timer.C:
			armed = false
			if t.committing != nil {
				armed = true
				timer.Reset(interval)
			} else {
				err = t.commit()
			}
		case <-ctx.Done():
			return t.last(ctx.Err())
		}
		if err != nil {
			if ctx.Err() != nil {
				return t.last(ctx.Err())
			}
			return err
		}
		if !armed && t.dirty() {
			armed = true
			timer.Reset(interval)
		}
	}
}

// last commits what there is when the graph is closed.
func (t *task) last(why error) error {
	if t.failed != nil || !t.g.closing.Load() {
		return why
	}
	defer time.AfterFunc(closePatience, t.giveUp).Stop()
	if t.committing != nil {
		if err := t.settled(<-t.committing); err != nil {
			return err
		}
	}
	if err := t.commit(); err != nil {
		return err
	}
	if t.committing != nil {
		if err := t.settled(<-t.committing); err != nil {
			return err
		}
	}
	t.saver.close()
	return nil
}

// closePatience bounds the last commits.
const closePatience = 10 * time.Second

// takeSome brings a batch's records into the stores, or those that the task may read. Of one that was held, what is there already is left out.
func (t *task) takeSome(ctx context.Context, b *embedlog.Batch) (held bool, err error) {
	defer t.recovered(&err)         // codecs are the program's, too
	for _, r := range t.g.globals { // rows meet what was acknowledged before them
		if seed.Is(seed.ViewGlobal) {
			break
		}
		if err := r.wait(ctx); err != nil {
			return false, err
		}
	}
	if r := t.rep(b.Topic); r != nil {
		return false, t.takeRows(ctx, r, b)
	}
	at := place{b.Topic, b.Partition}
	var decs []decoder
	var again []bool
	for _, ts := range t.decoders {
		if ts.topic.Name() == b.Topic {
			decs, again = append(decs, ts.dec), append(again, ts.again)
		}
	}
	times, maxAhead := t.streamTime(at), t.g.opts.MaxAhead.Milliseconds()
	size := t.g.chunk
	if t.single && len(t.ticks) > 0 { // what is over is over between two records, too
		size = 1
	}
	n := 0
	for _, d := range decs {
		d.begin(b)
	}
	for rec, err := range records(b) {
		if err != nil {
			return false, err
		}
		if t.resumes && rec.Offset < t.positions[at] {
			continue
		}
		if t.stage.tasks > 1 && rec.Key != nil && t.stage.keyed && embedlog.KeyPartition(rec.Key, t.stage.tasks) != rec.Partition {
			return false, &MisplacedKeyError{Graph: t.g.name, Position: rec.Position(), Key: slices.Clone(rec.Key)}
		}
		bd := t.g.bound.Load()
		if limit, ok := bd.limit(t, at); ok && rec.Offset >= limit {
			t.g.read.Add(int64(n))
			t.bounded = bd
			return true, t.flush(at, limit, decs)
		}
		if muted := bd.mutes(at, rec.Offset); muted != t.muted {
			if n > 0 { // what comes of the records before is for other sinks
				t.g.read.Add(int64(n))
				if err := t.flush(at, rec.Offset, decs); err != nil {
					return false, err
				}
				n = 0
			}
			t.muted = muted
		}
		times.see(millisOf(rec.Timestamp), maxAhead)
		for i, d := range decs {
			if err := d.take(rec, times.Time); err != nil && !again[i] {
				if !t.muted {
					t.dead = append(t.dead, deadLetter(t.g.deadName(), rec, err))
				}
				t.g.deadLetters.Add(1)
			}
		}
		if n++; n == size {
			t.g.read.Add(int64(n))
			if err := t.flush(at, rec.Offset+1, decs); err != nil {
				return false, err
			}
			n = 0
			if err := t.relieve(ctx); err != nil {
				return false, err
			}
		}
	}
	t.g.read.Add(int64(n))
	return false, t.flush(at, b.LastOffset+1, decs)
}

// flush runs the operators for what was decoded, and publishes what comes of it together with the position.
func (t *task) flush(at place, end int64, decs []decoder) (err error) {
	return t.advance(func() { t.emit(decs) }, func() { t.positions[at] = max(t.positions[at], end) })
}

// advance makes the task's next version: emit hands rows to the operators, and position says what they are of.
func (t *task) advance(emit, position func()) (err error) {
	t.clock.Lock()
	defer t.clock.Unlock()
	defer t.recovered(&err)
	t.clock.writing = true
	defer func() { t.clock.writing = false }()
	t.nextVersion()
	emit()
	if err := t.settle(); err != nil {
		return err
	}
	position()
	t.moveLocked()
	return nil
}

// nextVersion begins another version of the rows.
func (t *task) nextVersion() {
	if t.hist != nil {
		now := time.Now()
		t.hist.keep(&t.clock, t.positions, t.since, now)
		t.since = now
	}
	t.clock.version++
}

// recovered makes an error of a panic of a function.
func (t *task) recovered(err *error) {
	if p := recover(); p != nil {
		*err = panicked(t.g.name, p)
		t.fail(*err)
	}
}

// settle runs what waits until others have run, and says what went wrong.
func (t *task) settle() error {
	t.runLater()
	for i := range t.ticks {
		t.ticks[i].run()
		t.runLater()
	}
	for _, f := range t.atEnd {
		f()
	}
	for _, e := range t.keyErrs {
		if *e != nil {
			t.fail(fmt.Errorf("encode a key: %w", *e))
		}
	}
	if err := t.clock.err(); err != nil {
		t.fail(err)
	}
	if t.failed != nil {
		return fmt.Errorf("view graph %s: %w", t.g.name, t.failed)
	}
	for _, s := range t.stores {
		s.evict()
	}
	return nil
}

// runLater runs the operators that wait for those before them.
func (t *task) runLater() {
	for i := 0; i < len(t.later); i++ {
		if d := t.later[i]; d.due {
			d.due = false
			d.run()
		}
	}
}

func (t *task) moveLocked() {
	close(t.moved)
	t.moved = make(chan struct{})
}

func (t *task) publish() {
	t.clock.Lock()
	defer t.clock.Unlock()
	t.moveLocked()
}

// relieve commits when so much has changed that it cannot wait.
func (t *task) relieve(ctx context.Context) error {
	if t.sentBytes < sentBytes && t.changedBytes() < dirtyBytes {
		return nil
	}
	if t.committing != nil {
		select {
		case err := <-t.committing:
			if err = t.settled(err); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return t.commit()
}

func (t *task) changedBytes() (n int) {
	for _, s := range t.stores {
		n += s.size()
	}
	for ; t.outSeen < len(t.out); t.outSeen++ {
		t.outBytes += len(t.out[t.outSeen].Key) + len(t.out[t.outSeen].Value)
	}
	return n + t.outBytes
}

func (t *task) dirty() bool {
	if len(t.dead) > 0 || len(t.out) > 0 || len(t.sent) > 0 || t.marked || t.wall.changed {
		return true
	}
	for at, pos := range t.positions {
		if t.committed[at] != pos {
			return true
		}
	}
	return false
}

// progress is a task's record in the graph's progress topic: where its rows are of.
type progress struct {
	Definition string           `json:"definition"`
	Tasks      int              `json:"tasks"`
	Commit     int64            `json:"commit"` // its number
	Positions  []sourcePosition `json:"positions"`
	// Rows is how many each store has: see restore.
	Rows map[string]int64 `json:"rows,omitempty"`
	views.Contents
}

type sourcePosition struct {
	Topic     string `json:"topic"`
	ID        string `json:"id"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	// Times is the partition's stream time there.
	Times *streamTime `json:"times,omitempty"`
	// From is, of a repartition, what was applied of each task that writes to it, and Writer their stage.
	From   []*upstream `json:"from,omitempty"`
	Writer int         `json:"writer,omitempty"`
}

func (t *task) progressKey() string { return "task " + t.id() }

// commit begins to write what has changed, and where it is of. It does not wait for the disk.
func (t *task) commit() error {
	if !t.dirty() {
		if t.committing == nil {
			t.settledNow(t.clock.version, t.seq)
		}
		return nil
	}
	keyed := append(t.out, t.dead...)
	var rows []embedlog.Record
	for _, s := range t.stores {
		var err error
		if rows, err = s.changes(rows, t.g.changelogName(s.label()), int32(t.index)); err != nil {
			return err
		}
	}
	changed := len(rows)
	t.seq++
	version := t.versionLocked(nil) // nobody else writes what it reads
	rows = t.marks(append(rows, t.sent...), t.seq, version)
	p := progress{Definition: t.g.definition, Tasks: t.stage.tasks, Commit: t.seq, Contents: t.g.contents, Rows: map[string]int64{}}
	for _, s := range t.stores {
		p.Rows[s.label()] = int64(s.count())
	}
	for at, pos := range t.positions {
		s := sourcePosition{Topic: at.topic, ID: t.g.source(at.topic).ID().String(), Partition: at.partition, Offset: pos, Times: t.times[at]}
		if r := t.rep(at.topic); r != nil {
			s.From, s.Writer = t.part(r, at.partition).from, t.g.writer(r.node).index
		}
		p.Positions = append(p.Positions, s)
	}
	slices.SortFunc(p.Positions, func(a, b sourcePosition) int {
		if c := strings.Compare(a.Topic, b.Topic); c != 0 {
			return c
		}
		return int(a.Partition - b.Partition)
	})
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	rows = append(rows, embedlog.Record{Topic: t.g.progressName(), Partition: t.slot(), Key: []byte(t.progressKey()), Value: text})
	// From here on it is the transaction that has them: when it fails, this task ends, and another one begins at what was
	// committed before.
	t.clock.Lock()
	for _, s := range t.stores {
		s.committed()
	}
	c := t.saver.begin(string(text), rows[:changed])
	t.clock.Unlock()
	t.wall.changed = false
	t.sent, t.sentBytes, t.marked = nil, 0, false
	dead := len(t.dead) > 0
	if !seed.Is(seed.ViewDeadTwice) {
		t.dead = nil
	}
	if !seed.Is(seed.ViewSinkTwice) {
		t.out = nil
	}
	t.outBytes, t.outSeen = 0, 0
	for at, pos := range t.positions {
		t.committed[at] = pos
	}
	done, committed, now, seq := make(chan error, 1), maps.Clone(t.committed), t.clock.version, t.seq
	t.committing = done
	go func() {
		err := t.saver.committed(c, t.write(t.writing, rows, keyed, dead, c))
		if err == nil {
			t.settledNow(now, seq)
			err = t.written(t.writing, committed)
		}
		done <- err
	}()
	return nil
}

// write is the transaction: rows name their partitions, keyed records go where their keys belong.
func (t *task) write(ctx context.Context, rows, keyed []embedlog.Record, dead bool, c *commitOf) error {
	if t.g.weak { // rows must not survive the records that they are of
		if err := t.g.db.Sync(ctx); err != nil {
			return err
		}
	}
	if dead {
		if _, err := t.g.db.EnsureTopic(ctx, t.g.deadName(), nil); err != nil {
			return err
		}
	}
	x, err := t.transactor.Begin(ctx)
	if err != nil {
		return err
	}
	defer x.Abort(context.WithoutCancel(ctx)) // does nothing after Commit
	if err := inParts(rows, func(recs []embedlog.Record) error {
		pos, err := x.ProduceTo(ctx, recs...)
		c.produced(pos)
		return err
	}); err != nil {
		return err
	}
	if err := inParts(keyed, func(recs []embedlog.Record) error { _, err := x.Produce(ctx, recs...); return err }); err != nil {
		return err
	}
	return x.Commit(ctx)
}

// inParts calls f for some of the records at a time: what a call is given is one batch in each partition.
func inParts(recs []embedlog.Record, f func([]embedlog.Record) error) error {
	for len(recs) > 0 {
		n, bytes := 0, 0
		for n < len(recs) && n < 1000 && (n == 0 || bytes < 512<<10) {
			bytes += len(recs[n].Key) + len(recs[n].Value)
			n++
		}
		if err := f(recs[:n]); err != nil {
			return err
		}
		recs = recs[n:]
	}
	return nil
}

// assignment is where the sources are read from.
func (t *task) assignment() (list []embedlog.Position) {
	names := slices.Clone(t.stage.topics)
	for _, n := range t.stage.reads {
		names = append(names, t.g.repName(n))
	}
	for _, name := range names {
		for p := range int32(t.g.source(name).Partitions()) {
			if t.stage.tasks > 1 && int(p) != t.index {
				continue
			}
			at := place{name, p}
			if r := t.rep(name); r != nil {
				t.part(r, p)
			}
			pos, ok := t.positions[at]
			if !ok || seed.Is(seed.ViewRestore) {
				t.positions[at], pos = 0, embedlog.OffsetEarliest
			}
			list = append(list, embedlog.Position{Topic: name, Partition: p, LeaderEpoch: -1, Offset: pos})
		}
	}
	return list
}
