package query

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/x/embedlog"
)

// Global is a description of a table that all tasks of a graph have whole, whatever its topic's partitions are: what streams are joined with by any
// key. See GlobalTable.
type Global[K, V any] struct {
	n     *node
	key   Codec[K]
	value Codec[V]
}

// GlobalTable is the latest record of each key of a topic, for JoinGlobal. A tombstone deletes the key; records without a key are left out, as are
// those that cannot be decoded (Stats.DeadLetters): they stay in their topic, and the key keeps its row.
//
// A graph has it once, in memory. It is not written anywhere: its topic is its changelog, which should be compacted and not deleted from, and is read from
// the beginning when the graph starts.
func GlobalTable[K, V any](t *embedlog.Topic, key Codec[K], value Codec[V]) *Global[K, V] {
	g := &Global[K, V]{&node{kind: "global table"}, key, value}
	if g.n.of(t, key != nil, value != nil); g.n.err != nil {
		return g
	}
	src := newSource(t, key, value)
	g.n.global = &global{source: src, rows: func() globalReader {
		return &globalRows[K, V]{topic: t, key: key, value: value, rows: map[string]V{}, at: map[int32]int64{}, k: keyer[K]{codec: key}, moved: make(chan struct{})}
	}}
	return g
}

// global is a node's table.
type global struct {
	source *source // says which are the same
	rows   func() globalReader
}

// globalReader is a global table of a graph that runs.
type globalReader interface {
	// follow reads the topic until ctx ends.
	follow(ctx context.Context, g *Graph) error
	// wait waits until it has every record that is acknowledged now.
	wait(ctx context.Context) error
}

type graphGlobal struct {
	source *source
	globalReader
}

// findGlobals makes the global tables of a graph, each once.
func (g *Graph) findGlobals() error {
	var bad []error
	for _, o := range g.outputs {
		o.n.walk(func(n *node) {
			if n.global == nil || g.global(n) != nil {
				return
			}
			if n.global.source.topic.DB() != g.db {
				bad = append(bad, fmt.Errorf("topic %s is of another database", n.label))
			}
			g.globals = append(g.globals, graphGlobal{n.global.source, n.global.rows()})
		})
	}
	return errors.Join(bad...)
}

func (g *Graph) global(n *node) globalReader {
	for _, have := range g.globals {
		if have.source.same(n.global.source) {
			return have.globalReader
		}
	}
	return nil
}

// readGlobal has a global table follow its topic, again and again, until the graph is closed or something is wrong for good.
func (g *Graph) readGlobal(r graphGlobal) {
	pause := firstPause
	for {
		began := time.Now()
		err := r.follow(g.ctx, g)
		if g.ctx.Err() != nil {
			return
		}
		name := r.source.topic.Name()
		if !g.passes(nil, err) {
			g.stop(fmt.Errorf("global table %s: %w", name, err))
			return
		}
		if g.opts.Logger != nil {
			g.opts.Logger.Warn("a global table of a view graph is read again", "graph", g.name, "topic", name, "err", err)
		}
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, lastPause)
		case <-g.ctx.Done():
		}
	}
}

// stop ends all tasks for good. What they have not committed is computed again at the next start.
func (g *Graph) stop(err error) {
	for i := range g.slots {
		g.slots[i].set(nil, &StoppedError{g.name, err})
	}
	if g.opts.Logger != nil {
		g.opts.Logger.Error("a view graph has stopped", "graph", g.name, "err", err)
	}
	g.cancel()
}

// globalRows is a global table's rows. Its reader alone writes.
type globalRows[K, V any] struct {
	topic *embedlog.Topic
	key   Codec[K]
	value Codec[V]

	mu       sync.RWMutex
	rows     map[string]V
	at       map[int32]int64 // where the partitions are read up to
	consumer *embedlog.Consumer
	moved    chan struct{} // closed and made anew when at has moved

	k keyer[K] // the reader's own
}

func (r *globalRows[K, V]) follow(ctx context.Context, g *Graph) error {
	var gap error
	cfg := &embedlog.ConsumerConfig{OnReset: func(_ context.Context, _ *embedlog.Consumer, reset embedlog.Reset) {
		gap = &GapError{Graph: g.name, Reset: reset}
	}}
	for p := range int32(r.topic.Partitions()) {
		pos := embedlog.Position{Topic: r.topic.Name(), Partition: p, LeaderEpoch: -1, Offset: embedlog.OffsetEarliest}
		if at, ok := r.at[p]; ok {
			pos.Offset = at
		}
		cfg.Assign = append(cfg.Assign, pos)
	}
	c, err := g.db.Consumer(cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	r.mu.Lock()
	r.consumer = c
	r.mu.Unlock()
	for b, err := range c.Batches(ctx) {
		if err == nil {
			err = gap
		}
		if err == nil {
			err = r.take(b, g)
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// take brings a batch's records into the rows.
func (r *globalRows[K, V]) take(b *embedlog.Batch, g *Graph) error {
	type change struct {
		key   string
		value V
		gone  bool
	}
	var changes []change
	for rec, err := range b.Records() {
		if err != nil {
			return err
		}
		if rec.Key == nil {
			continue
		}
		c := change{gone: rec.Value == nil}
		if !c.gone {
			c.value, err = r.value.Decode(rec.Value)
		}
		var key K
		if err == nil {
			key, err = r.key.Decode(rec.Key)
		}
		if err != nil {
			g.deadLetters.Add(1)
			if g.opts.Logger != nil {
				g.opts.Logger.Warn("a record of a global table cannot be decoded", "graph", g.name, "at", rec.Position(), "err", err)
			}
			continue
		}
		c.key = string(keyOf(&r.k, &delta[K, V]{key: key}))
		if r.k.err != nil {
			return fmt.Errorf("encode a key: %w", r.k.err)
		}
		changes = append(changes, c)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range changes {
		if c.gone {
			delete(r.rows, c.key)
		} else {
			r.rows[c.key] = c.value
		}
	}
	r.at[b.Partition] = b.LastOffset + 1
	close(r.moved)
	r.moved = make(chan struct{})
	return nil
}

func (r *globalRows[K, V]) wait(ctx context.Context) error {
	ends, err := r.topic.ListOffsets(ctx, embedlog.LastStable)
	if err != nil {
		return err
	}
	for _, end := range ends {
		if err := r.reach(ctx, end); err != nil {
			return err
		}
	}
	return nil
}

// reach waits until a partition has been read up to an offset. Behind its last record there may be markers, which the consumer passes without a word: it
// is at a batch until that is in the rows.
func (r *globalRows[K, V]) reach(ctx context.Context, end embedlog.Position) error {
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		r.mu.RLock()
		at, c, moved := r.at[end.Partition], r.consumer, r.moved
		r.mu.RUnlock()
		if at >= end.Offset {
			return nil
		}
		if c != nil {
			if pos, ok := c.Position(end.Topic, end.Partition); ok && pos.Offset >= end.Offset {
				return nil
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-moved:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		timer.Stop()
	}
}

// get is the row of a key.
func (r *globalRows[K, V]) get(key []byte) (v V, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	v, ok = r.rows[string(key)]
	return v, ok
}

// JoinGlobal gives each row of a stream the row that a global table has for the key that by finds in it. Rows for which there is none are left out.
//
// A row meets what the table has when it is computed: every record of it that was acknowledged before the row's own (but for those behind an open
// transaction), and perhaps later ones; after a restart, what was not committed may meet others yet. What changes in the table later changes nothing.
func JoinGlobal[K, V, K2, W, R any](s *Stream[K, V], t *Global[K2, W], by func(key K, value V) K2, f func(key K, value V, row W) R) *Stream[K, R] {
	rows := joinedGlobal("join global", s, t, by, func(k K, v V, w *W) (r R, ok bool) {
		if w == nil {
			return r, false
		}
		return f(k, v, *w), true
	})
	rows.n.needs("function", f != nil)
	return rows
}

// LeftJoinGlobal is JoinGlobal with the rows for which the table has none: row is nil for them.
func LeftJoinGlobal[K, V, K2, W, R any](s *Stream[K, V], t *Global[K2, W], by func(key K, value V) K2, f func(key K, value V, row *W) R) *Stream[K, R] {
	rows := joinedGlobal("left join global", s, t, by, func(k K, v V, w *W) (R, bool) { return f(k, v, w), true })
	rows.n.needs("function", f != nil)
	return rows
}

func joinedGlobal[K, V, K2, W, R any](kind string, s *Stream[K, V], t *Global[K2, W], by func(K, V) K2, f func(K, V, *W) (R, bool)) *Stream[K, R] {
	n := &node{kind: kind, inputs: []*node{t.n, s.n}, timedBy: []*node{s.n}, appends: true, windows: windowsOf(s.n)}
	if !s.n.appends {
		n.err = fmt.Errorf("%s: %w", kind, ErrNotReversible)
	}
	n.needs("function of keys", by != nil)
	n.build = func(b *builder) any {
		out := new(port[K, R])
		rows := b.task.g.global(t.n).(*globalRows[K2, W])
		k := &keyer[K2]{codec: t.key}
		b.task.keyers(&k.err)
		var buf []delta[K, R]
		portOf[K, V](b, s.n).to(func(ds []delta[K, V]) {
			buf = buf[:0]
			for i := range ds {
				d := &ds[i]
				var row *W
				if w, ok := rows.get(keyOf(k, &delta[K2, W]{key: by(d.key, d.val)})); ok {
					row = &w
				}
				if r, ok := f(d.key, d.val, row); ok {
					buf = append(buf, delta[K, R]{key: d.key, val: r, raw: d.raw, time: d.time, weight: d.weight, null: d.null})
				}
			}
			out.emit(buf)
		})
		return out
	}
	return &Stream[K, R]{n, s.key, DefaultCodec[R]()}
}
