package query

import (
	"context"
	"encoding/json"
	"fmt"
)

// The RowStore of a task has the rows of all its stores, each under its prefix, and under markKey the mark that says what they are of. Both change at
// once, after the transaction: what is in the store is committed, always.
var markKey = []byte{0, 0}

// pendingBytes is how much of a changelog is applied at once.
const pendingBytes = 1 << 20

// openStore has the rows of a task in a RowStore.
func (s *saver) openStore(dir, name string) (err error) {
	if s.store, err = s.t.g.opts.Store.OpenStore(dir, name); err != nil {
		s.store = nil
		return ofNode(err)
	}
	s.number = map[string]int{}
	cache := &rowCache{limit: s.t.g.opts.CacheBytes}
	for i, k := range s.t.stores {
		s.number[s.t.g.changelogName(k.label())] = i
		k.toDisk(s.store, i, cache)
	}
	return nil
}

// closeStore ends the task's reads: those that come later fail.
func (s *saver) closeStore() error {
	if s.store == nil {
		return nil
	}
	s.t.ended.Store(true)
	return s.store.Close()
}

// take has the store take what was committed.
func (s *saver) take(c *commitOf) error {
	changes := make([]RowChange, 0, len(c.recs)+1)
	for i := range c.recs {
		changes = append(changes, s.t.stores[s.number[c.recs[i].Topic]].change(&c.recs[i]))
	}
	return s.applyWith(changes, c.rows)
}

// apply has the store take what a changelog has.
func (s *saver) apply(changes []RowChange) error {
	rows := make([]int64, len(s.t.stores))
	for i, k := range s.t.stores {
		rows[i] = int64(k.count())
	}
	return s.applyWith(changes, rows)
}

func (s *saver) applyWith(changes []RowChange, rows []int64) error {
	text, err := json.Marshal(s.mark(rows))
	if err != nil {
		return err
	}
	if err := s.store.Apply(append(changes, RowChange{Key: markKey, Row: text})); err != nil {
		return fmt.Errorf("store of %s: %w", s.t.g.name, ofNode(err))
	}
	return nil
}

// fromStore restores what came after the store's mark.
func (t *task) fromStore(ctx context.Context) error {
	raw, found, err := t.saver.store.Get(nil, markKey)
	if err != nil {
		return stale("%w", err)
	}
	if !found { // nothing should be there
		if err := t.saver.store.Clear(); err != nil {
			return ofNode(err)
		}
		return t.restoreFrom(ctx, nil)
	}
	m := new(mark)
	if err := json.Unmarshal(raw, m); err != nil {
		return stale("its mark: %w", err)
	}
	if err := t.fits(m); err != nil {
		return err
	}
	for i, k := range t.stores {
		k.resume(m.Stores[i].Rows)
		t.g.saved.rows.Add(m.Stores[i].Rows)
	}
	return t.restoreFrom(ctx, m)
}

// settled takes the end of a commit.
func (t *task) settled(err error) error {
	t.committing = nil
	if err != nil || t.saver.store == nil {
		return err
	}
	t.clock.Lock()
	defer t.clock.Unlock()
	for _, s := range t.stores {
		s.flushed()
	}
	return nil
}

// readErr says why what was read of a task is not to be believed.
func (t *task) readErr() error {
	err := t.clock.err()
	if err == nil {
		return nil
	}
	if t.ended.Load() || t.g.clustered() && ofThisNode(err) { // another node goes on
		err = ErrInterrupted
	}
	if gone := t.g.replaced(t); gone != nil {
		err = gone
	}
	return err
}
