package query

import (
	"context"
	"fmt"
)

// Lookups in an index at the node that has a task: pages of it, at the version that a snapshot has pinned there.

// servedIndex is an index for other nodes. The task's lock is held.
type servedIndex func(t *task, pin uint64, from, to string) (rows []replyRow, next *string, err error)

// servesIndex notes an index of a view, before the graph is started.
func (g *Graph) servesIndex(view, title string, f servedIndex) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if v, ok := g.views[view]; ok && !g.started {
		v.indexes[title] = f
	}
}

// title is what an index is asked for by. A graph's identity does not have its indexes: one whose keys are of other bytes is not taken for this one.
func (x *Index[IK, K, V]) title() string { return fmt.Sprintf("%s of %T", x.name, x.key) }

// serve is a page for another node: the rows' places in the index, which have both keys, and their values.
func (x *Index[IK, K, V]) serve(t *task, pin uint64, from, to string) (rows []replyRow, next *string, err error) {
	bytes := 0
	next, err = x.page(t, pin, from, to, func(f found[V]) (more bool, err error) {
		b, err := x.v.t.value.Append(nil, f.val)
		if err != nil {
			return false, err
		}
		rows = append(rows, replyRow{[]byte(f.place), b})
		bytes += len(f.place) + len(b)
		return bytes < answerBytes, nil
	})
	return rows, next, err
}

// far is a page of what another node has.
func (s *SnapshotIndex[IK, K, V]) far(i int, buf []found[V], from, to string) ([]found[V], *string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), farPatience)
	defer cancel()
	a, err := s.r.s.read(ctx, i, request{Op: opIndex, View: s.x.v.name, Index: s.x.title(), From: []byte(from), To: []byte(to)})
	if err != nil {
		return nil, nil, err
	}
	for _, r := range a.Rows {
		index, key, err := cutText(r.Key)
		if err != nil {
			return nil, nil, fmt.Errorf("answer of node %d: %w", s.r.s.far[i].node, err)
		}
		v, err := s.x.v.t.value.Decode(r.Value)
		if err != nil {
			return nil, nil, fmt.Errorf("decode the value: %w", err)
		}
		buf = append(buf, found[V]{string(r.Key), index, key, v})
	}
	next, err := a.next(from)
	return buf, next, err
}
