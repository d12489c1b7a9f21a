package query

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/seed"
)

// errStale says that a checkpoint cannot be used. The changelogs are read whole then.
var errStale = errors.New("query: the checkpoint cannot be used")

func stale(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errStale, fmt.Errorf(format, args...))
}

// restore reads what was committed: rows from the checkpoint and what the changelogs have after it, and where they are of.
//
// A checkpoint that has lost its changelog is not used: of other topics, of another definition, ahead of their ends, behind their beginnings.
// Nor is one where rows would be left that were deleted after it, by tombstones that compaction has removed meanwhile. What was not deleted
// has its latest record in the changelog, or is as it is in the checkpoint, so that the only thing that can be wrong is rows too many: with
// each commit the number of rows is written, and there must be as many.
func (t *task) restore(ctx context.Context) (err error) {
	if t.saver, err = t.newSaver(); err != nil {
		return err
	}
	if t.warm != nil {
		err := t.takeOver(ctx)
		if !errors.Is(err, errStale) {
			return errors.Join(err, t.failed)
		}
		t.anew(err)
		t.clock.Lock()
		t.warm = nil
		t.clock.Unlock()
	}
	err = t.fromCheckpoint(ctx)
	if errors.Is(err, errStale) {
		t.g.saved.refused.Add(1)
		t.anew(err)
		if t.saver.store != nil {
			if err := t.saver.store.Clear(); err != nil {
				return ofNode(err)
			}
		}
		// It must not be there when what it is ahead of has been written again, with other rows.
		if err := t.saver.discard(); err != nil {
			return ofNode(err)
		}
		clear(t.positions)
		clear(t.committed)
		clear(t.times)
		for _, r := range t.reps {
			clear(r.parts)
		}
		clear(t.saver.next)
		t.saver.since = 0
		err = t.restoreFrom(ctx, nil)
	}
	if err != nil {
		return err
	}
	for _, f := range t.loaded {
		f()
	}
	return t.failed
}

// anew has the stores begin from nothing, because what they had cannot be used.
func (t *task) anew(why error) {
	if t.g.opts.Logger != nil {
		t.g.opts.Logger.Warn("a view graph reads its changelogs whole", "graph", t.g.name, "task", t.index, "err", why)
	}
	for _, s := range t.stores {
		s.clear()
	}
}

// fromCheckpoint restores from the checkpoint if there is one.
func (t *task) fromCheckpoint(ctx context.Context) error {
	if t.saver.store != nil {
		return t.fromStore(ctx)
	}
	if t.saver.files == nil {
		return t.restoreFrom(ctx, nil)
	}
	f, err := t.saver.files.Open(t.saver.name)
	if errors.Is(err, fs.ErrNotExist) {
		return t.restoreFrom(ctx, nil)
	}
	if err != nil {
		return stale("%w", err)
	}
	defer f.Close()
	info, err := f.Info()
	if err != nil {
		return stale("%w", err)
	}
	c, err := openCheckpoint(bufio.NewReaderSize(&fileReader{f: f}, 4*blockTarget), info.Size)
	if err != nil {
		return stale("%w", err)
	}
	if err := t.fits(c.mark); err != nil {
		return err
	}
	rows := int64(0)
	for i, k := range t.stores {
		k.expect(int(min(c.mark.Stores[i].Rows, info.Size/2)))
		rows += c.mark.Stores[i].Rows
	}
	err = c.blocks(func(b block) error {
		if int64(b.store) >= int64(len(c.mark.Stores)) {
			return fmt.Errorf("%w: rows of store %d", errCheckpoint, b.store)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return t.stores[b.store].load(&b)
	})
	if err := ctx.Err(); err != nil {
		return err
	}
	if err != nil {
		return stale("%w", err)
	}
	t.g.saved.rows.Add(rows)
	return t.restoreFrom(ctx, c.mark)
}

// fits says whether a mark is of the task's definition and topics.
func (t *task) fits(m *mark) error {
	g := t.g
	var p progress
	switch err := json.Unmarshal([]byte(m.Progress), &p); {
	case m.Format != markFormat:
		return stale("its format is %d", m.Format)
	case m.Graph != g.name || m.Task != int(t.slot()):
		return stale("it is of task %d of %s", m.Task, m.Graph)
	case err != nil:
		return stale("its progress: %w", err)
	case p.Definition != g.definition || p.Tasks != t.stage.tasks:
		return stale("it is of another definition")
	case m.ProgressID != t.saver.ids[g.progressName()]:
		return stale("it is of another topic %s", g.progressName())
	case len(m.Stores) != len(t.stores):
		return stale("it has %d stores", len(m.Stores))
	}
	for i, k := range t.stores {
		if s := &m.Stores[i]; s.Name != k.label() || s.ID != t.saver.ids[g.changelogName(k.label())] || s.Rows < 0 {
			return stale("it is of another changelog of %s", k.label())
		}
	}
	return nil
}

// restoreFrom reads the progress and the changelogs from where a mark is of; nil is the beginning.
func (t *task) restoreFrom(ctx context.Context, m *mark) error {
	found, err := t.readProgress(ctx, m)
	if err != nil || found == nil { // then nothing is in the changelogs either: they are written together
		return err
	}
	if err := t.adopt(found); err != nil {
		return err
	}
	if m != nil {
		for i := range m.Stores {
			t.saver.next[t.g.changelogName(m.Stores[i].Name)] = m.Stores[i].Next
		}
	}
	for i, s := range t.stores {
		if seed.Is(seed.ViewAhead) {
			continue
		}
		from := embedlog.Earliest
		if m != nil {
			from = embedlog.AtOffset(m.Stores[i].Next)
		} else {
			s.expect(int(min(max(found.Rows[s.label()], 0), roomAtOnce)))
		}
		if err := t.replay(ctx, s, from); err != nil {
			if m != nil && errors.Is(err, embedlog.ErrOffsetOutOfRange) {
				return stale("%w", err)
			}
			return err
		}
		// What progress of an earlier version does not say is not compared.
		if want, ok := found.Rows[s.label()]; ok && want != int64(s.count()) && !seed.Is(seed.ViewGhosts) {
			if m != nil {
				return stale("%s would have %d rows instead of %d: tombstones after it are gone", s.label(), s.count(), want)
			}
			return &StateError{Graph: t.g.name, Store: s.label(), Rows: int64(s.count()), Want: want}
		}
	}
	return nil
}

// readProgress is the task's last progress record. nil: there is none.
func (t *task) readProgress(ctx context.Context, m *mark) (found *progress, err error) {
	top, err := t.g.db.Topic(t.g.progressName())
	if err != nil {
		return nil, err
	}
	from := embedlog.Earliest
	if m != nil {
		t.saver.progress, t.saver.next[t.g.progressName()] = m.Progress, m.ProgressNext
		from = embedlog.AtOffset(m.ProgressNext)
	}
	for rec, err := range top.Scan(ctx, &embedlog.ScanOptions{Partitions: []int32{t.slot()}, From: from, Linearizable: true}) {
		if m != nil && errors.Is(err, embedlog.ErrOffsetOutOfRange) {
			return nil, stale("%w", err)
		}
		if err != nil {
			return nil, err
		}
		if string(rec.Key) == t.progressKey() {
			t.saver.progress, t.saver.next[t.g.progressName()] = string(rec.Value), rec.Offset+1
		}
	}
	if t.saver.progress == "" {
		return nil, nil
	}
	found = new(progress)
	if err := json.Unmarshal([]byte(t.saver.progress), found); err != nil {
		return nil, fmt.Errorf("progress of %s: %w", t.g.name, err)
	}
	return found, nil
}

// adopt takes what was committed of the task's positions.
func (t *task) adopt(found *progress) error {
	if found.Definition != t.g.definition || found.Tasks != t.stage.tasks {
		return &DefinitionError{Graph: t.g.name, Was: found.Definition, Now: t.g.definition, WasTasks: found.Tasks, Tasks: t.stage.tasks}
	}
	t.seq = found.Commit
	for _, p := range found.Positions {
		src := t.g.source(p.Topic)
		if src == nil || src.ID().String() != p.ID {
			return &DefinitionError{Graph: t.g.name, Was: found.Definition, Now: t.g.definition, WasTasks: found.Tasks, Tasks: t.stage.tasks, Topic: p.Topic}
		}
		if err := t.restoreParts(&p); err != nil {
			return fmt.Errorf("progress of %s: %w", t.g.name, err)
		}
		t.positions[place{p.Topic, p.Partition}] = p.Offset
		t.committed[place{p.Topic, p.Partition}] = p.Offset
		if p.Times != nil && !seed.Is(seed.ViewStreamTime) {
			t.times[place{p.Topic, p.Partition}] = p.Times
		}
	}
	return nil
}

// roomAtOnce bounds the room that is made for rows that are said to be there.
const roomAtOnce = 1 << 22

// replay takes what a changelog has from an offset on.
func (t *task) replay(ctx context.Context, s kept, from embedlog.OffsetSpec) error {
	name := t.g.changelogName(s.label())
	top, err := t.g.db.Topic(name)
	if err != nil {
		return err
	}
	n := int64(0)
	for rec, err := range top.Scan(ctx, &embedlog.ScanOptions{Partitions: []int32{int32(t.index)}, From: from, Linearizable: true}) {
		if err == nil {
			err = s.restore(&rec)
		}
		if err != nil {
			return fmt.Errorf("restore %s: %w", s.label(), err)
		}
		t.saver.next[name] = rec.Offset + 1
		n++
		if s.pendingSize() > pendingBytes {
			if err := t.saver.apply(s.pending()); err != nil {
				return err
			}
		}
	}
	s.restored()
	if list := s.pending(); len(list) > 0 {
		if err := t.saver.apply(list); err != nil {
			return err
		}
	}
	t.saver.since += n
	t.g.saved.records.Add(n)
	return nil
}
