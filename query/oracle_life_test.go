package query

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/internal/vfs"
)

// What a case of the oracles lives through beside its records.

// circumstances are what must not make a difference to any row: a graph's rows are a function of the records alone.
type circumstances struct {
	partitions int
	interval   time.Duration       // of commits
	chunk      int                 // records that are taken at a time; 0 is what it is by default
	oneTask    bool                // whatever the graph is
	level      embedlog.Durability // of the sources
	onDisk     bool                // rows are in stores that forget some of the last changes at a crash, and next to none in memory
	eager      bool                // a checkpoint after every commit
	crashes    bool                // the process ends at file operations, too, not only between two calls
}

// choose makes a case's circumstances. Whatever else rows must not depend on is chosen here, and in options.
func choose(r *rand.Rand) (c circumstances) {
	c.partitions = r.IntN(3) + 1
	c.interval = []time.Duration{time.Millisecond, 10 * time.Millisecond, time.Hour}[r.IntN(3)]
	c.chunk = []int{0, 0, 1, 2, 5}[r.IntN(5)]
	c.oneTask = r.IntN(6) == 0
	c.level = []embedlog.Durability{embedlog.Durable, embedlog.Durable, embedlog.Interval, embedlog.OS}[r.IntN(4)]
	c.crashes = r.IntN(3) == 0
	c.onDisk = r.IntN(3) == 0
	c.eager = r.IntN(2) == 0
	return c
}

// graph is a graph of the circumstances.
func (l *life) graph(db *embedlog.DB, o Options) *Graph {
	c := &l.circumstances
	o.CommitInterval, o.OneTask, o.CheckpointInterval = c.interval, c.oneTask, 1
	if c.onDisk {
		o.Store, o.CacheBytes = &l.stores, 1
	}
	g := NewGraph(db, "g", &o)
	if c.eager {
		g.checkpointAfter = 1
	}
	if c.chunk > 0 {
		g.chunk = c.chunk
	}
	return g
}

func (c *circumstances) String() string {
	return fmt.Sprintf("%d partitions, commits every %v, chunks of %d, one task %v, on disk %v, checkpoints %v, sources at %v, crashes at file operations %v",
		c.partitions, c.interval, c.chunk, c.oneTask, c.onDisk, c.eager, c.level, c.crashes)
}

// record is one that was acknowledged.
type record struct {
	topic     string
	partition int32
	offset    int64
	key       string
	null      bool // no key
	val       int64
	tombstone bool
	bad       bool // it cannot be decoded
	ms        int64
}

func (r *record) record() embedlog.Record {
	rec := embedlog.Record{Topic: r.topic, Timestamp: time.UnixMilli(r.ms)}
	if !r.null {
		rec.Key = []byte(r.key)
	}
	switch {
	case r.bad:
		rec.Value = []byte("bad")
	case !r.tombstone:
		rec.Value = mustInt(r.val)
	}
	return rec
}

// life is a database in memory that dies and lives again, with a graph of the topics a and b.
type life struct {
	*testing.T
	circumstances
	r      *rand.Rand
	ctx    context.Context // ends soon after a crash: who waits for a graph of a database that cannot write may wait for ever
	stop   func()
	fs     *vfs.Mem
	db     *embedlog.DB
	g      *Graph
	stores MemStores
	start  func(*life) (*Graph, error) // makes the graph and starts it
	log    []record                    // all that was acknowledged, in each partition's order
	fixed  []record                    // of a topic that does not change
	loop   bool                        // the graph reads what it appends to the topic loop
	doubt  int                         // records of the call that had no answer
	cut    bool                        // the power was, since the log was compared
	counts map[string]int64
	steps  []string // what happened, for who has to find out why a case fails
}

// step notes what happens.
func (l *life) step(format string, args ...any) {
	l.steps = append(l.steps, fmt.Sprintf(format, args...))
}

func newLife(t *testing.T, r *rand.Rand, c circumstances, start func(*life) (*Graph, error)) *life {
	l := &life{T: t, circumstances: c, r: r, start: start, counts: map[string]int64{}}
	l.begin(vfs.NewMem(vfs.MapBytes(0), l.crashAt()))
	l.open()
	return l
}

// begin begins a life on some files.
func (l *life) begin(fs *vfs.Mem) {
	l.fs, l.db, l.g = fs, nil, nil
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for !fs.Crashed() && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
		cancel()
	}()
	l.ctx, l.stop = ctx, func() { cancel(); <-watched }
}

// crashAt is the file operation at which the next life ends, if it does.
func (l *life) crashAt() vfs.Option {
	if !l.crashes || l.r.IntN(2) == 0 {
		return vfs.CrashAt(-1)
	}
	return vfs.CrashAt(l.r.IntN(1 << (l.r.IntN(6) + 5)))
}

// open opens the database and starts the graph, again when that crashes.
func (l *life) open() {
	l.Helper()
	for {
		var err error
		l.db, err = embedlog.OpenFS(l.fs, &embedlog.Options{MaintenanceInterval: -1})
		if err == nil {
			for _, name := range []string{"a", "b"} {
				if _, err = l.db.EnsureTopic(l.ctx, name, &embedlog.TopicConfig{Partitions: l.partitions, Durability: l.level}); err != nil {
					break
				}
			}
			if err == nil {
				l.g, err = l.start(l)
			}
		}
		if err == nil {
			return
		}
		if !l.fs.Crashed() {
			l.Fatalf("open: %v", err)
		}
		l.die(l.r.IntN(2) == 0)
	}
}

// die ends the process, or the power, and makes the files that are left.
func (l *life) die(power bool) {
	left := l.fs.AfterKill
	if power {
		l.cut = true
		l.counts["power cuts"]++
		left = func(o ...vfs.Option) *vfs.Mem { return l.fs.AfterCrash(vfs.Random(l.r.Uint64()), o...) }
	} else {
		l.counts["kills"]++
	}
	if l.fs.Crashed() {
		l.counts["crashes at a file operation"]++
	}
	l.step("dies, power cut %v, crashed before %v", power, l.fs.Crashed())
	fs := left(vfs.MapBytes(0), l.crashAt())
	if l.db != nil {
		l.db.Close() // its files are gone; what it says of that is no news
	}
	l.stop()
	l.stores.Forget(l.r)
	l.begin(fs)
}

// again kills what runs, and finds out what is there of the records: all that was acknowledged, unless the power took it at a level that
// allows that, and of the call without an answer anything.
func (l *life) again(power bool) {
	l.Helper()
	for {
		l.die(power)
		l.open()
		log, err := l.scan()
		if err == nil {
			l.compare(log)
			l.log, l.doubt, l.cut = log, 0, false
			l.step("%d records are left", len(log))
			return
		}
		if !l.fs.Crashed() {
			l.Fatal(err)
		}
	}
}

func (l *life) scan() (log []record, err error) {
	for _, name := range []string{"a", "b"} {
		some, err := l.scanTopic(name)
		if err != nil {
			return nil, err
		}
		log = append(log, some...)
	}
	return log, nil
}

// scanTopic is a topic's records; none where it is not there.
func (l *life) scanTopic(name string) (log []record, err error) {
	top, err := l.db.Topic(name)
	if errors.Is(err, embedlog.ErrUnknownTopic) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for rec, err := range top.Scan(l.ctx, nil) {
		if err != nil {
			return nil, err
		}
		r := record{topic: name, partition: rec.Partition, offset: rec.Offset, key: string(rec.Key), null: rec.Key == nil, tombstone: rec.Value == nil, ms: rec.Timestamp.UnixMilli()}
		if r.bad = string(rec.Value) == "bad"; rec.Value != nil && !r.bad {
			if r.val, err = codec.Int64.Decode(rec.Value); err != nil {
				return nil, err
			}
		}
		log = append(log, r)
	}
	return log, nil
}

// compare says whether the records that are there can be.
func (l *life) compare(log []record) {
	l.Helper()
	there := map[record]bool{}
	for _, r := range log {
		there[r] = true
	}
	lost := 0
	for _, r := range l.log {
		if !there[r] {
			lost++
		}
	}
	if lost > 0 && (l.level == embedlog.Durable || !l.cut) || len(log) > len(l.log)-lost+l.doubt {
		l.Fatalf("%d records are there; %d were acknowledged, %d of them are lost, %d had no answer", len(log), len(l.log), lost, l.doubt)
	}
}

// try does something, and has the world go on when it crashed meanwhile. It says whether it was done. What a process sees whose disk is gone
// is no error: a commit that was decided before is acknowledged, and its records cannot be shown any more.
func (l *life) try(f func() error) bool {
	l.Helper()
	err := f()
	if err == nil {
		return true
	}
	if !l.fs.Crashed() {
		l.Fatal(err)
	}
	l.again(l.r.IntN(2) == 0)
	return false
}

// restart closes the graph, and starts it again.
func (l *life) restart() {
	l.Helper()
	l.counts["restarts"]++
	l.step("restart")
	l.try(func() (err error) {
		if err = l.g.Close(); err == nil {
			l.g, err = l.start(l)
		}
		return err
	})
}

// produce appends records: in a transaction that is committed, or aborted, in one call or in several, or without one.
func (l *life) produce(recs []record) {
	l.Helper()
	how := l.r.IntN(8)
	l.step("produce %d in way %d", len(recs), how)
	l.doubt = len(recs)
	l.try(func() error {
		if how >= 5 {
			return l.append(recs)
		}
		tx, err := l.db.Begin(l.ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Abort(context.WithoutCancel(l.ctx)) // after a commit it does nothing
		rest := recs
		for len(rest) > 0 {
			n := len(rest)
			if how < 2 { // in some batches
				n = l.r.IntN(n) + 1
			}
			some := make([]embedlog.Record, n)
			for i := range some {
				some[i] = rest[i].record()
			}
			at, err := tx.Produce(l.ctx, some...)
			if err != nil {
				return err
			}
			for i, p := range at {
				rest[i].partition, rest[i].offset = p.Partition, p.Offset
			}
			rest = rest[n:]
		}
		if how == 4 {
			l.counts["records aborted"] += int64(len(recs))
			return tx.Abort(l.ctx)
		}
		if err := tx.Commit(l.ctx); err != nil {
			return err
		}
		l.log = append(l.log, recs...)
		l.counts["records"] += int64(len(recs))
		return nil
	})
	l.doubt = 0
}

// append appends records without a transaction.
func (l *life) append(recs []record) error {
	for len(recs) > 0 {
		n := 1
		for n < len(recs) && recs[n].topic == recs[0].topic && l.r.IntN(3) > 0 {
			n++
		}
		top, err := l.db.Topic(recs[0].topic)
		if err != nil {
			return err
		}
		some := make([]embedlog.Record, n)
		for i := range some {
			some[i] = recs[i].record()
		}
		at, err := top.Produce(l.ctx, some...)
		if err != nil {
			return err
		}
		for i, p := range at {
			recs[i].partition, recs[i].offset = p.Partition, p.Offset
		}
		l.log = append(l.log, recs[:n]...)
		l.doubt -= n
		l.counts["records"] += int64(n)
		recs = recs[n:]
	}
	return nil
}

// rest waits until the graph has read and committed all that there is, also of what it appends to a topic that it reads.
func (l *life) rest() error {
	for last := int64(-1); ; {
		end := int64(0)
		if l.loop {
			top, err := l.db.Topic("loop")
			if err != nil {
				return err
			}
			ends, err := top.ListOffsets(l.ctx, embedlog.LastStable)
			if err != nil {
				return err
			}
			for _, e := range ends {
				end += e.Offset
			}
		}
		if end == last {
			return nil
		}
		last = end
		for slot := range l.g.slots {
			if _, err := l.g.settle(l.ctx, slot, true); err != nil {
				return err
			}
		}
	}
}

// view looks at a snapshot: of all that was acknowledged, or of whatever the graph has come to, which is a prefix of each partition. f is given its
// records, behind those of the topic that does not change.
func (l *life) view(all bool, f func(s *Snapshot, log []record) error) {
	l.Helper()
	l.try(func() error {
		take := l.g.SnapshotNow
		if all {
			take = l.g.Snapshot
			if l.loop {
				if err := l.rest(); err != nil {
					return err
				}
			}
		}
		s, err := take(l.ctx)
		if err != nil {
			return err
		}
		defer s.Release()
		log := l.log
		if l.loop {
			turned, err := l.scanTopic("loop")
			if err != nil {
				return err
			}
			log = slices.Concat(log, turned)
		}
		acknowledged := log
		if !all {
			l.counts["prefixes"]++
			upTo := map[place]int64{}
			for _, p := range s.Version() {
				upTo[place{p.Topic, p.Partition}] = p.Offset
			}
			log = nil
			for _, r := range acknowledged {
				if r.offset < upTo[place{r.topic, r.partition}] {
					log = append(log, r)
				}
			}
		}
		log = slices.Concat(l.fixed, log)
		l.counts["comparisons"]++
		l.step("look at %v, all %v", s.Version(), all)
		return f(s, log)
	})
}

// end closes all that is there, and verifies the database in some cases.
func (l *life) end(verify bool) {
	l.Helper()
	l.try(func() error {
		if err := l.g.Close(); err != nil {
			return err
		}
		if verify {
			report, err := l.db.Verify(l.ctx)
			if err != nil {
				return err
			}
			for i := range report.Problems {
				l.Errorf("%v\n%s", &report.Problems[i], strings.Join(l.steps, "\n"))
			}
		}
		return nil
	})
	if err := l.db.Close(); err != nil && !l.fs.Crashed() {
		l.Fatal(err)
	}
	l.stop()
}
