package query

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/vfs"
)

// defaultCheckpointInterval is how often a checkpoint is written at most.
const defaultCheckpointInterval = time.Minute

// checkpointAfter is how many records the changelogs must have got since the last checkpoint before another one is worth it, when there are not
// more rows than that: reading them takes some 20 ms.
const checkpointAfter = 10_000

// saver keeps a task's rows beside the log: what a restart would otherwise have to read from the changelogs, whole. It is never ahead of
// a commit, and may be behind as far as it likes.
type saver struct {
	t     *task
	files vfs.FS // nil: no checkpoints are written
	name  string // of the checkpoint

	store  RowStore       // nil: rows are in memory
	number map[string]int // of the stores, by changelog

	ids      map[string]string // of the changelogs and of the progress topic, by topic
	next     map[string]int64  // the offset behind what was committed, by topic
	progress string            // the last one committed
	since    int64             // records committed to changelogs and not in the checkpoint
	last     time.Time         // when one was begun, or the task was
	running  chan struct{}     // closed when the checkpoint under way has ended; nil is none
}

// saveStats are a graph's, of all its tasks.
type saveStats struct {
	written, refused, bytes, rows, records atomic.Int64
	stop                                   atomic.Int64 // longest, ns
}

func (s *saveStats) stopped(d time.Duration) {
	for {
		was := s.stop.Load()
		if int64(d) <= was || s.stop.CompareAndSwap(was, int64(d)) {
			return
		}
	}
}

// newSaver finds the place where the task's checkpoints are.
func (t *task) newSaver() (*saver, error) {
	s := &saver{t: t, ids: map[string]string{}, next: map[string]int64{}, last: time.Now()}
	for _, name := range append(t.changelogs(), t.g.progressName()) {
		top, err := t.g.db.Topic(name)
		if err != nil {
			return nil, err
		}
		s.ids[name] = top.ID().String()
	}
	if t.g.opts.CheckpointInterval < 0 && t.g.opts.Store == nil || len(t.stores) == 0 {
		return s, nil
	}
	files, dir, err := t.g.db.StateDir()
	if err != nil {
		return nil, ofNode(err)
	}
	// Topics that are deleted and made again have other checkpoints.
	name := fmt.Sprintf("%s-%d", s.ids[t.g.progressName()], t.slot())
	if t.g.opts.Store == nil {
		s.files, s.name = files, name+".checkpoint"
		return s, nil
	}
	return s, s.openStore(dir, name+".store")
}

func (t *task) changelogs() (names []string) {
	for _, s := range t.stores {
		names = append(names, t.g.changelogName(s.label()))
	}
	return names
}

// commitOf is a commit under way, for who keeps what it commits.
type commitOf struct {
	progress   string
	rows       []int64 // of each store
	changed    int64
	next       map[string]int64
	checkpoint bool // one is to be written of this commit: pin has its rows
	pin        uint64
	recs       []embedlog.Record // what the store gets
}

// begin notes what is being committed: changed rows, and the progress record behind them. The task's lock is held, for writing.
func (s *saver) begin(progress string, rows []embedlog.Record) *commitOf {
	c := &commitOf{progress: progress, changed: int64(len(rows)), next: map[string]int64{}}
	if s.store != nil {
		c.recs = rows
	}
	all := int64(0)
	for _, k := range s.t.stores {
		c.rows = append(c.rows, int64(k.count()))
		all += int64(k.count())
	}
	if s.running != nil {
		select {
		case <-s.running:
			s.running = nil
		default:
		}
	}
	if s.files != nil && s.running == nil && s.since+c.changed >= max(all, s.t.g.checkpointAfter) && time.Since(s.last) >= s.t.g.opts.CheckpointInterval {
		c.checkpoint, c.pin = true, s.t.clock.pin()
		s.running = make(chan struct{})
		s.last = time.Now()
	}
	return c
}

// produced notes where the transaction's records are.
func (c *commitOf) produced(pos []embedlog.Position) {
	for _, p := range pos {
		c.next[p.Topic] = p.Offset + 1
	}
}

// committed has the store take what was committed, or begins a checkpoint if it is time for one. err is the transaction's. It runs beside the
// task, which is not told before it returns.
func (s *saver) committed(c *commitOf, err error) error {
	if err != nil {
		if c.checkpoint {
			s.t.clock.release(c.pin)
			close(s.running)
		}
		return err
	}
	for topic, next := range c.next {
		s.next[topic] = next
	}
	s.progress = c.progress
	s.since += c.changed
	if s.store != nil {
		return s.take(c)
	}
	if c.checkpoint {
		s.since = 0
		m, done := s.mark(c.rows), s.running
		go func() {
			defer close(done)
			s.save(m, c.pin)
		}()
	}
	return nil
}

// mark is what was committed last.
func (s *saver) mark(rows []int64) *mark {
	g := s.t.g
	m := &mark{
		Format: markFormat, Graph: g.name, Task: int(s.t.slot()),
		Progress: s.progress, ProgressID: s.ids[g.progressName()], ProgressNext: s.next[g.progressName()],
	}
	for i, k := range s.t.stores {
		topic := g.changelogName(k.label())
		m.Stores = append(m.Stores, storeMark{Name: k.label(), ID: s.ids[topic], Next: s.next[topic], Rows: rows[i]})
	}
	return m
}

// save writes a checkpoint of what is pinned. That it fails is no failure of the task: the one before is used, or none.
func (s *saver) save(m *mark, pin uint64) {
	g := s.t.g
	bytes, err := s.write(m, pin)
	if stop := s.t.clock.release(pin); err == nil {
		g.saved.stopped(stop)
		g.saved.written.Add(1)
		g.saved.bytes.Store(bytes)
		return
	}
	if g.opts.Logger != nil && !errors.Is(err, context.Canceled) {
		g.opts.Logger.Warn("a checkpoint of a view graph could not be written", "graph", g.name, "task", s.t.index, "err", err)
	}
}

// write writes the file beside its name. It replaces the one before when it is on the disk.
func (s *saver) write(m *mark, pin uint64) (bytes int64, err error) {
	tmp := s.name + ".tmp"
	if err := s.remove(tmp); err != nil {
		return 0, err
	}
	f, err := s.files.Create(tmp)
	if err != nil {
		return 0, err
	}
	w := &checkpointWriter{f: f}
	err = w.head(m)
	for i, k := range s.t.stores {
		if err == nil {
			err = k.dump(s.t.writing, pin, s.t.g.saved.stopped, func(key string, row []byte) error { return w.row(i, key, row) })
		}
		if err == nil {
			err = w.endStore(i)
		}
	}
	if err == nil {
		err = w.end()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, errors.Join(err, s.remove(tmp))
	}
	if err := s.files.Rename(tmp, s.name); err != nil {
		return 0, err
	}
	return w.bytes, s.files.SyncDir(".")
}

// discard removes the checkpoint for good.
func (s *saver) discard() error {
	if s.files == nil {
		return nil
	}
	if err := s.remove(s.name); err != nil {
		return fmt.Errorf("remove a checkpoint that cannot be used: %w", err)
	}
	return s.files.SyncDir(".")
}

// remove removes a file that need not be there.
func (s *saver) remove(name string) error {
	if err := s.files.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// close writes a checkpoint of a task that has ended, and committed all that it has, if that saves the next one much.
func (s *saver) close() {
	s.wait()
	all := int64(0)
	rows := make([]int64, len(s.t.stores))
	for i, k := range s.t.stores {
		rows[i] = int64(k.count())
		all += rows[i]
	}
	if s.files == nil || s.progress == "" || s.since == 0 || s.since < max(all, s.t.g.checkpointAfter)/8 {
		return
	}
	s.t.clock.Lock()
	pin := s.t.clock.pin()
	s.t.clock.Unlock()
	s.save(s.mark(rows), pin)
	s.since = 0
}

// wait waits for the checkpoint under way.
func (s *saver) wait() {
	if s.running != nil {
		<-s.running
		s.running = nil
	}
}
