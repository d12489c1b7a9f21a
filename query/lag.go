package query

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/x/embedlog"
)

// Lag is how far a graph's rows are behind a partition of a source.
type Lag struct {
	Topic     string
	Partition int32
	// Position is up to where the partition's records are in the rows, LastStable up to where there are records that can be read: those of
	// open transactions, and all behind them, cannot.
	Position, LastStable int64
	// Records is how many are in between, at most: a compacted topic has fewer than offsets.
	Records int64
	// Behind is how long ago the first record that is not in the rows yet was produced, by its timestamp; 0 when all are there, and
	// -1 when it cannot be said: this node does not have the partition, or the record was deleted meanwhile.
	Behind time.Duration
}

// Lag says how far the rows are behind each partition of the sources, by topic and partition, at a moment. It fails with a *StoppedError
// when the graph is closed or has stopped.
func (g *Graph) Lag(ctx context.Context) (list []Lag, err error) {
	if err := g.ready(); err != nil {
		return nil, fmt.Errorf("lag of %s: %w", g.name, err)
	}
	err = g.retried(ctx, func(g *Graph) (err error) { list, err = g.lag(ctx); return err })
	return list, err
}

func (g *Graph) lag(ctx context.Context) ([]Lag, error) {
	tasks, err := g.all(ctx)
	if err != nil {
		return nil, fmt.Errorf("lag of %s: %w", g.name, err)
	}
	at := Version{}
	owner, read := map[place]*task{}, map[place]int64{}
	for _, t := range tasks {
		t.clock.RLock()
		for p, offset := range t.positions {
			owner[p], read[p] = t, offset
		}
		at = t.versionLocked(at)
		t.clock.RUnlock()
	}
	at.sort()
	ends := map[place]int64{} // after the positions were looked at: nothing is less than nothing behind
	for name, top := range g.sources {
		list, err := top.ListOffsets(ctx, embedlog.LastStable)
		if err != nil {
			return nil, fmt.Errorf("lag of %s: %w", g.name, err)
		}
		for _, e := range list {
			ends[place{name, e.Partition}] = e.Offset
		}
	}
	starts := map[place]int64{}
	for i, p := range at {
		where := place{p.Topic, p.Partition}
		if p.Offset > 0 { // it has read something
			continue
		}
		if _, ok := starts[where]; !ok {
			list, err := g.sources[p.Topic].ListOffsets(ctx, embedlog.Earliest)
			if err != nil {
				return nil, fmt.Errorf("lag of %s: %w", g.name, err)
			}
			for _, e := range list {
				starts[place{p.Topic, e.Partition}] = e.Offset
			}
		}
		at[i].Offset = starts[where]
	}
	list := make([]Lag, len(at))
	for i, p := range at {
		where := place{p.Topic, p.Partition}
		l := Lag{Topic: p.Topic, Partition: p.Partition, Position: p.Offset, LastStable: max(ends[where], p.Offset)}
		// What a stage behind has of the partition is what it was given, which does not tell of markers either.
		if p.Offset >= read[where] && owner[where].passed(where, l.LastStable) {
			l.Position = l.LastStable
		}
		if l.Records = l.LastStable - l.Position; l.Records > 0 {
			l.Behind = age(ctx, g.sources[p.Topic], p.Partition, l.Position)
		}
		list[i] = l
	}
	return list, nil
}

// passed says that a task's consumer is behind an offset, and that all it has fetched is in the rows. Behind the last record there may
// be markers of transactions, and records of aborted ones: the consumer passes them without a word.
func (t *task) passed(at place, end int64) bool {
	// The order of these lines counts: what lies below the consumer's position was fetched before.
	read, ok := t.consumer.Position(at.topic, at.partition)
	return ok && read.Offset >= end && t.fetched.Load() == t.applied.Load()
}

// age is how long ago the first record at or behind an offset was produced.
func age(ctx context.Context, t *embedlog.Topic, partition int32, offset int64) time.Duration {
	for rec, err := range t.Scan(ctx, &embedlog.ScanOptions{Partitions: []int32{partition}, From: embedlog.AtOffset(offset)}) {
		if err != nil {
			return -1
		}
		return max(time.Since(rec.Timestamp), 0)
	}
	return 0
}

// Err says why the graph has stopped: nil while it runs, and before it was started.
func (g *Graph) Err() error { return g.serving().stopped() }

// stopped says why the run has.
func (g *Graph) stopped() error {
	for i := range g.slots {
		s := &g.slots[i]
		s.mu.Lock()
		err := s.err
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return g.owners.anyStopped(g.name)
}

// behind is how many records the tasks have not read yet, as far as this node knows without asking others.
func (g *Graph) behind() (n int64) {
	for i := range g.slots {
		s := &g.slots[i]
		s.mu.Lock()
		t := s.task
		s.mu.Unlock()
		if t == nil {
			continue
		}
		t.clock.RLock()
		at := maps.Clone(t.positions)
		t.clock.RUnlock()
		for name, top := range g.sources {
			info, err := top.Describe()
			if err != nil {
				continue // it is being deleted
			}
			for _, p := range info.Partitions {
				where := place{name, p.Partition}
				if pos, ok := at[where]; ok && !p.Elsewhere && !t.passed(where, p.LastStable) {
					n += max(p.LastStable-max(pos, p.LogStart), 0)
				}
			}
		}
	}
	return n
}
