package takeover

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

// A record is a key and a number that no other one has. What is computed of them, at every node:
//
//	flat   sums of each key, by two tasks; every record once more in a topic
//	deep   the same records under other keys, behind a repartition of two partitions
const (
	ordersTopic = "orders"
	outTopic    = "out"
	keys        = 4
	groups      = 3
)

func keyOf(i int) string           { return fmt.Sprint("k", i%keys) }
func groupOf(n int64) string       { return fmt.Sprint("g", n%groups) }
func number(b []byte) int64        { n, _ := codec.Int64.Decode(b); return n }
func encoded(n int64) []byte       { b, _ := codec.Int64.Append(nil, n); return b }
func self(_ string, n int64) int64 { return n }

type graphs struct {
	orders, out *embedlog.Topic
	flat, deep  *query.Graph
	byKey       *query.View[string, int64]
	byGroup     *query.View[string, int64]
}

// newGraphs makes the topics, and starts the graphs.
func newGraphs(ctx context.Context, db *embedlog.DB, log *slog.Logger) (g *graphs, err error) {
	g = &graphs{}
	if g.orders, err = db.EnsureTopic(ctx, ordersTopic, &embedlog.TopicConfig{Partitions: 2}); err != nil {
		return nil, err
	}
	if g.out, err = db.EnsureTopic(ctx, outTopic, nil); err != nil {
		return nil, err
	}
	rows := query.From(g.orders, codec.String, codec.Int64)
	options := &query.Options{CommitInterval: 20 * time.Millisecond, Logger: log}
	g.flat = query.NewGraph(db, "flat", options)
	g.byKey = query.Add(g.flat, "by-key", query.Sum(rows, self))
	query.To(g.flat, rows, g.out)
	g.deep = query.NewGraph(db, "deep", options)
	others := query.Rekey(rows, codec.String, func(_ string, n int64) string { return groupOf(n) }).Repartition("by-group", 2)
	g.byGroup = query.Add(g.deep, "by-group", query.Sum(others, self))
	if err := g.flat.Start(ctx); err != nil {
		return nil, err
	}
	if err := g.deep.Start(ctx); err != nil {
		return nil, errors.Join(err, g.flat.Close())
	}
	return g, nil
}

// owner is the node that leads the partition of a graph's task.
func owner(db *embedlog.DB, graph string, task int32) int32 {
	top, err := db.Topic(graph + "-progress")
	if err != nil {
		return -1
	}
	node, err := top.Leader(task)
	if err != nil {
		return -1
	}
	return node
}

// truth is what the log has.
type truth struct {
	byKey, byGroup map[string]int64
	times          map[int64]int // how often each number is there
}

// read is what a topic has, as its leaders know.
func read(ctx context.Context, top *embedlog.Topic) (*truth, error) {
	w := &truth{map[string]int64{}, map[string]int64{}, map[int64]int{}}
	for rec, err := range top.Scan(ctx, &embedlog.ScanOptions{Linearizable: true}) {
		if err != nil {
			return nil, err
		}
		n := number(rec.Value)
		w.byKey[string(rec.Key)] += n
		w.byGroup[groupOf(n)] += n
		w.times[n]++
	}
	return w, nil
}

// compare says what a node answers otherwise than the log says. Nobody writes meanwhile.
func (g *graphs) compare(ctx context.Context, want *truth) error {
	rows := map[string]int64{}
	if err := collect(rows, g.byKey.All(ctx)); err != nil {
		return fmt.Errorf("all rows: %w", err)
	}
	if !maps.Equal(rows, want.byKey) {
		return fmt.Errorf("%w: by key there are %v, the records come to %v", errWrong, rows, want.byKey)
	}
	for group := range groups {
		key := fmt.Sprint("g", group)
		v, _, err := g.byGroup.Get(ctx, key)
		if err != nil {
			return fmt.Errorf("get %s: %w", key, err)
		}
		if v != want.byGroup[key] {
			return fmt.Errorf("%w: %s is %d, the records come to %d", errWrong, key, v, want.byGroup[key])
		}
	}
	n, err := g.byGroup.Len(ctx)
	if err != nil {
		return fmt.Errorf("number of groups: %w", err)
	}
	if n != len(want.byGroup) {
		return fmt.Errorf("%w: there are %d groups, the records have %d", errWrong, n, len(want.byGroup))
	}
	return nil
}

// appendedOf says what a sink has otherwise than once for each record.
func (w *truth) appendedOf(sent *truth) error {
	for n, times := range w.times {
		if times > sent.times[n] {
			return fmt.Errorf("%w: %d was appended %d times, sent %d times", errWrong, n, times, sent.times[n])
		}
	}
	if len(w.times) != len(sent.times) {
		return fmt.Errorf("%d numbers were appended, %d sent", len(w.times), len(sent.times))
	}
	return nil
}

var errWrong = errors.New("wrong")

func collect(rows map[string]int64, all iter.Seq2[query.Row[string, int64], error]) error {
	for row, err := range all {
		if err != nil {
			return err
		}
		if _, twice := rows[row.Key]; twice {
			return fmt.Errorf("%w: %s comes twice", errWrong, row.Key)
		}
		rows[row.Key] = row.Value
	}
	return nil
}

// again says that a call failed because of what was done to the nodes, and may be made again.
func again(err error) bool {
	return embedlog.IsRetriable(err) || errors.Is(err, query.ErrInterrupted)
}
