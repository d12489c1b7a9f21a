package engine

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// What a database should hold.
type wantTopic struct {
	id         TopicID // zero: not known
	partitions int
	settings   string // of retention.ms
	records    int    // in partition 0
}

type wantDB struct {
	topics map[string]wantTopic
	nextID int64 // no producer id below it may be given again
}

func (w wantDB) clone() wantDB { return wantDB{maps.Clone(w.topics), w.nextID} }

// step is one operation: how to do it, and what it changes. effect is told what
// do has learned, or nothing when do failed.
type step struct {
	name   string
	do     func(e *Engine) (wantTopic, error)
	effect func(w *wantDB, got wantTopic)
}

func createStep(name string, partitions int) step {
	return step{"create " + name, func(e *Engine) (wantTopic, error) {
		t, err := e.CreateTopic(ctx, TopicSpec{Name: name, Partitions: partitions, Settings: map[string]string{"retention.ms": "7"}})
		if err != nil {
			return wantTopic{}, err
		}
		return wantTopic{id: t.ID()}, nil
	}, func(w *wantDB, got wantTopic) {
		w.topics[name] = wantTopic{id: got.id, partitions: partitions, settings: "7"}
	}}
}

func alterStep(name, retention string) step {
	return step{"alter " + name, func(e *Engine) (wantTopic, error) {
		return wantTopic{}, e.AlterTopic(ctx, name, map[string]string{"retention.ms": retention}, nil)
	}, func(w *wantDB, _ wantTopic) {
		t := w.topics[name]
		t.settings = retention
		w.topics[name] = t
	}}
}

func addStep(name string, total int) step {
	return step{"add partitions " + name, func(e *Engine) (wantTopic, error) {
		return wantTopic{}, e.AddPartitions(ctx, name, total)
	}, func(w *wantDB, _ wantTopic) {
		t := w.topics[name]
		t.partitions = total
		w.topics[name] = t
	}}
}

func deleteStep(name string) step {
	return step{"delete " + name, func(e *Engine) (wantTopic, error) {
		return wantTopic{}, e.DeleteTopic(ctx, name)
	}, func(w *wantDB, _ wantTopic) { delete(w.topics, name) }}
}

func appendStep(name string) step {
	return step{"append " + name, func(e *Engine) (wantTopic, error) {
		t, err := e.Topic(name)
		if err != nil {
			return wantTopic{}, err
		}
		_, err = t.Partitions()[0].Append(ctx, []log.Record{{Value: []byte("v")}}, nil)
		return wantTopic{}, err
	}, func(w *wantDB, _ wantTopic) {
		t := w.topics[name]
		t.records++
		w.topics[name] = t
	}}
}

func idStep() step {
	var got int64
	return step{"producer id", func(e *Engine) (t wantTopic, err error) {
		got, err = e.AllocateProducerID(ctx)
		return t, err
	}, func(w *wantDB, _ wantTopic) { w.nextID = max(w.nextID, got+1) }}
}

func tickStep() step {
	return step{"tick", func(e *Engine) (wantTopic, error) {
		e.Tick(ctx)
		return wantTopic{}, nil
	}, func(*wantDB, wantTopic) {}}
}

func reopenStep() step { return step{name: "reopen"} }

// snapshots lets every command but those of one kind be followed by a snapshot.
func script() []step {
	return []step{
		createStep("orders", 2), appendStep("orders"), idStep(), alterStep("orders", "8"),
		createStep("a", 1), addStep("orders", 4), deleteStep("a"), createStep("a", 3), tickStep(), alterStep("orders", "9"),
		reopenStep(), appendStep("orders"), idStep(), deleteStep("a"), reopenStep(), createStep("a", 1), addStep("a", 2), tickStep(),
	}
}

// run is a script being run on a file system.
type run struct {
	fs      vfs.FS
	e       *Engine
	steps   []step
	at      int // the step that is to come, or that failed
	want    wantDB
	err     error
	options Options
}

func newRun(fs vfs.FS, steps []step) *run {
	return &run{fs: fs, steps: steps, want: wantDB{topics: map[string]wantTopic{}}, options: Options{FS: fs}}
}

func (r *run) open() error {
	o := r.options
	o.FS = r.fs
	r.e, r.err = Open("db", &o)
	return r.err
}

// go on until the end or the first error.
func (r *run) goOn() error {
	if r.e == nil && r.open() != nil {
		return r.err
	}
	for ; r.at < len(r.steps); r.at++ {
		s := &r.steps[r.at]
		if s.do == nil {
			if r.err = r.e.Close(); r.err != nil {
				return r.err
			}
			if r.e = nil; r.open() != nil {
				return r.err
			}
			continue
		}
		got, err := s.do(r.e)
		if r.err = err; err != nil {
			return err
		}
		s.effect(&r.want, got)
	}
	return nil
}

func (r *run) stop() {
	if r.e != nil {
		r.e.Close() // of a crashed file system: for its goroutines
		r.e = nil
	}
}

// after is what should be there if the step that failed took effect.
func (r *run) after() wantDB {
	w := r.want.clone()
	if r.at < len(r.steps) && r.steps[r.at].effect != nil {
		r.steps[r.at].effect(&w, wantTopic{})
	}
	return w
}

// differs says how what is there differs from w; "" is not at all. It learns ids.
func (w wantDB) differs(e *Engine) string {
	seen := 0
	for _, t := range e.Topics() {
		x, ok := w.topics[t.Name()]
		if !ok {
			return "there is " + t.Name()
		}
		seen++
		retention, _ := t.Settings().Get("retention.ms")
		if len(t.Partitions()) != x.partitions || retention != x.settings || !x.id.IsZero() && x.id != t.ID() {
			return fmt.Sprintf("%s has id %s, %d partitions, retention %s; want %+v", t.Name(), t.ID(), len(t.Partitions()), retention, x)
		}
		if end := t.Partitions()[0].LogEnd(); end != int64(x.records) {
			return fmt.Sprintf("%s/0 ends at %d; want %d", t.Name(), end, x.records)
		}
		x.id = t.ID()
		w.topics[t.Name()] = x
	}
	if seen != len(w.topics) {
		return fmt.Sprintf("%d topics; want %v", seen, w.topics)
	}
	return ""
}

// checkDirs says what is in the directories that should not be.
func checkDirs(e *Engine) error {
	return e.meta.checkDirs(e.fs)
}

func (m *metaLog) checkDirs(fsys vfs.FS) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	infos, err := fsys.List(topicsName)
	if err != nil {
		return err
	}
	for _, info := range infos {
		id, err := ParseTopicID(info.Name)
		if err != nil || m.state.byID[id] == nil && m.state.deleting[id] == nil {
			return fmt.Errorf("directory %s is of no topic", info.Name)
		}
	}
	for id, t := range m.state.byID {
		file, err := readTopicFile(fsys, id)
		if err != nil || file == nil || file.made != t.partitions || file.making != t.partitions || file.name != t.name {
			return fmt.Errorf("the file of topic %s says %+v, %v", t.name, file, err)
		}
		infos, err := fsys.List(topicDir(id))
		if err != nil {
			return err
		}
		if len(infos) != t.partitions+1 {
			return fmt.Errorf("topic %s has %d partitions and its directory %v", t.name, t.partitions, infos)
		}
	}
	return nil
}

// inspect opens what a crash has left, and compares it with what is wanted. It
// leaves the engine open.
func (r *run) inspect(fs vfs.FS) (took bool, err error) {
	r.fs = fs
	if err := r.open(); err != nil {
		return false, fmt.Errorf("open: %w", err)
	}
	for _, t := range r.e.Topics() {
		for _, p := range t.Partitions() {
			if err := p.Err(); err != nil {
				return false, fmt.Errorf("%s: %w", p, err)
			}
		}
	}
	if before := r.want.differs(r.e); before != "" {
		w := r.after()
		if after := w.differs(r.e); after != "" {
			return false, fmt.Errorf("neither as before the step: %s; nor as after it: %s", before, after)
		}
		r.want, took = w, true
	}
	r.e.removeDeleted(ctx)
	if err := checkDirs(r.e); err != nil {
		return took, err
	}
	if left := r.e.Info().Deleting; len(left) != 0 {
		return took, fmt.Errorf("still being deleted: %v", left)
	}
	if id, err := r.e.AllocateProducerID(ctx); err != nil || id < r.want.nextID {
		return took, fmt.Errorf("producer id %d, %v: want at least %d", id, err, r.want.nextID)
	}
	return took, nil
}

// finish goes on behind the step that was interrupted, or with it, to the end.
func (r *run) finish(took bool) error {
	if took || r.at < len(r.steps) && r.steps[r.at].do == nil {
		r.at++
	}
	if err := r.goOn(); err != nil {
		return fmt.Errorf("step %d, %s, after the crash: %w", r.at, r.steps[r.at].name, err)
	}
	if d := r.want.differs(r.e); d != "" {
		return fmt.Errorf("at the end: %s", d)
	}
	return nil
}

func alone(t *testing.T) {
	was, after := openers, snapshotAfter
	openers, snapshotAfter = 1, 60 // a snapshot every few commands
	t.Cleanup(func() { openers, snapshotAfter = was, after })
}

// Every operation is there whole or not at all, wherever the power goes, and can be
// repeated.
func TestCrashAtEveryOperation(t *testing.T) {
	alone(t)
	for k := 0; ; k++ {
		mem := vfs.NewMem(vfs.CrashAt(k), vfs.CrashByte(k%700))
		first := newRun(mem, script())
		err := first.goOn()
		first.stop()
		if err == nil && !mem.Crashed() {
			if k < 300 {
				t.Fatalf("the script needs %d operations only", k)
			}
			return
		}
		if err != nil && !errors.Is(err, vfs.ErrCrashed) && !errors.Is(err, log.ErrClosed) {
			t.Fatalf("k=%d: step %d failed with %v", k, first.at, err)
		}
		states := []struct {
			name string
			fs   *vfs.Mem
		}{
			{"nothing kept", mem.AfterCrash(vfs.KeepNone)}, {"all kept", mem.AfterCrash(vfs.KeepAll)}, {"killed", mem.AfterKill()},
		}
		random := testcount.N(3)
		if k < 60 {
			random = testcount.N(12) // a database is being made: few names, all unsynced at once
		}
		for i := range random {
			states = append(states, struct {
				name string
				fs   *vfs.Mem
			}{fmt.Sprint("random ", i), mem.AfterCrash(vfs.Random(uint64(k*100 + i)))})
		}
		for i, s := range states {
			r := newRun(s.fs, first.steps)
			r.at, r.want = first.at, first.want.clone()
			if i > 2 && k%2 == 1 {
				// The power goes again while the first open repairs.
				again := s.fs.AfterKill(vfs.CrashAt(k % 37))
				r.fs = again
				r.open()
				r.stop()
				s.fs = again.AfterCrash(vfs.Random(uint64(k)))
			}
			took, err := r.inspect(s.fs)
			if err == nil {
				err = r.finish(took)
			}
			r.stop()
			if err != nil {
				at := "open"
				if first.at < len(first.steps) {
					at = first.steps[first.at].name
				}
				t.Fatalf("k=%d, %s, in step %d (%s): %v\n%s", k, s.name, first.at, at, err, tree(s.fs))
			}
		}
	}
}

// notOpened says that a partition could not be opened, and stays so until the next open.
func notOpened(e *Engine) bool {
	for _, t := range e.Topics() {
		for _, p := range t.Partitions() {
			if p.Err() != nil {
				return true
			}
		}
	}
	return false
}

// tree lists all names of a file system.
func tree(fsys vfs.FS) string {
	var b strings.Builder
	var walk func(dir string)
	walk = func(dir string) {
		infos, _ := fsys.List(dir)
		for _, i := range infos {
			name := joinPath(dir, i.Name)
			fmt.Fprintf(&b, "%s %d\n", name, i.Size)
			if i.Dir {
				walk(name)
			}
		}
	}
	walk(".")
	return b.String()
}

// Every operation is there whole or not at all, whichever operation of the file
// system fails below it, and can be repeated after a reopen.
func TestErrorAtEveryOperation(t *testing.T) {
	alone(t)
	for _, effect := range []struct {
		name string
		vfs.Effect
		ops []vfs.Op
	}{
		{"error", vfs.Fail(nil), []vfs.Op{vfs.OpAny}},
		{"full", vfs.Full(1), []vfs.Op{vfs.OpAny}},
		{"failed sync", vfs.FailSync(), []vfs.Op{vfs.OpSync, vfs.OpDatasync}},
	} {
		t.Run(effect.name, func(t *testing.T) {
			for _, op := range effect.ops {
				for k := 0; ; k++ {
					mem := vfs.NewMem()
					fault := vfs.NewFault(mem, vfs.Rule{Op: op, Skip: k, Effect: effect.Effect})
					r := newRun(fault, script())
					err := r.goOn()
					if fault.Hits() == 0 {
						r.stop()
						if k < 10 {
							t.Fatalf("only %d operations", k)
						}
						break
					}
					// A step that failed may be tried again at once. It works, says that it is
					// done already, or that the storage failed.
					if err != nil && r.e != nil && r.steps[r.at].do != nil {
						s := r.steps[r.at]
						if got, again := s.do(r.e); again == nil {
							s.effect(&r.want, got)
							r.at++
						} else if !errors.Is(again, log.ErrStorageFailed) && !errors.Is(again, partition.ErrUnknownOutcome) && !notOpened(r.e) {
							t.Fatalf("k=%d: %s again after %v: %v", k, s.name, err, again)
						}
					}
					r.stop()
					took, err := r.inspect(mem.AfterKill())
					if err == nil {
						err = r.finish(took)
					}
					r.stop()
					if err != nil {
						t.Fatalf("k=%d, in step %d: %v\n%s", k, r.at, err, tree(mem))
					}
				}
			}
		})
	}
}

// The power may go again at any operation of the open that repairs.
func TestCrashWhileOpening(t *testing.T) {
	alone(t)
	states := 0
	for k := 33; ; k += 29 {
		mem := vfs.NewMem(vfs.CrashAt(k))
		first := newRun(mem, script())
		err := first.goOn()
		first.stop()
		if err == nil && !mem.Crashed() {
			break
		}
		left := mem.AfterCrash(vfs.KeepAll)
		for j := 0; ; j++ {
			again := left.AfterKill(vfs.CrashAt(j))
			r := newRun(again, nil)
			if r.open() == nil {
				r.e.removeDeleted(ctx)
			}
			r.stop()
			if !again.Crashed() {
				break
			}
			for i := range testcount.N(4) {
				fs := again.AfterCrash(vfs.Random(uint64(k*10_000 + j*10 + i)))
				r := newRun(fs, first.steps)
				r.at, r.want = first.at, first.want.clone()
				_, err := r.inspect(fs)
				r.stop()
				if err != nil {
					t.Fatalf("k=%d, j=%d, i=%d, in step %d: %v\n%s", k, j, i, first.at, err, tree(fs))
				}
				states++
			}
		}
	}
	t.Logf("%d states", states)
}

// A process is killed while it makes the database; the next one makes a topic, and the power goes. Nothing of the first one's may be lost then
// that the topic needs.
func TestPowerCutAfterAKillWhileCreating(t *testing.T) {
	for k := 0; ; k++ {
		mem := vfs.NewMem(vfs.CrashAt(k))
		if e, err := Open("db", &Options{FS: mem}); err == nil {
			e.Close()
		}
		if !mem.Crashed() {
			return
		}
		mem = mem.AfterKill()
		second, err := Open("db", &Options{FS: mem})
		if err != nil {
			t.Fatalf("killed at operation %d: %v", k, err)
		}
		mustTopic(t, second, "orders", 1)
		left := mem.AfterCrash(vfs.KeepNone)
		second.Close()
		third, err := Open("db", &Options{FS: left})
		if err != nil {
			t.Fatalf("killed at operation %d, and the power cut afterwards: %v", k, err)
		}
		if _, err := third.Topic("orders"); err != nil {
			t.Errorf("killed at operation %d, and the power cut afterwards: %v", k, err)
		}
		third.Close()
	}
}
