package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/bench/internal/nexmark"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

func init() {
	for _, r := range viewRows() {
		name := strings.TrimPrefix(r.name, "views/")
		switch kind, rest, _ := strings.Cut(name, "/"); {
		case strings.HasSuffix(name, "/codec=json"):
			register(r.name, side{fresh: true, setup: produceEvents(asJSON), run: profiled(runQuery("q1", asJSON, false))})
		case strings.HasPrefix(name, "query="):
			q := strings.TrimPrefix(kind, "query=")
			register(r.name, side{fresh: true, setup: produceEvents(compact), run: profiled(runQuery(q, compact, q == "q20" || rest == "sink=topic"))})
		case strings.HasPrefix(name, "decode/"):
			register(r.name, side{fresh: true, setup: produceEvents(compact), run: readEvents(compact)})
		case strings.HasPrefix(name, "of="):
			register(r.name, side{fresh: true, setup: produceAmounts, run: profiled(viewOfAmounts(strings.TrimPrefix(kind, "of=")))})
		case strings.HasPrefix(name, "get/"):
			register(r.name, side{fresh: true, setup: fillRows, run: getFromView(strings.HasSuffix(name, "written"))})
		case name == "restore/from=changelog":
			register(r.name, side{fresh: true, setup: fillView(noCheckpoint), run: profiled(restoreView(noCheckpoint))})
		case name == "restore/from=checkpoint":
			register(r.name, side{fresh: true, setup: fillView(oneCheckpoint), run: profiled(restoreView(oneCheckpoint))})
		case strings.HasPrefix(name, "checkpoint/"):
			register(r.name, side{fresh: true, setup: fillView(noCheckpoint), run: checkpointStop})
		case strings.HasPrefix(name, "visible/"):
			register(r.name, side{fresh: true, run: visible})
		}
	}
}

// viewName is the name of the graphs of one view.
const viewName = "view"

// Checkpoints are measured by rows of their own: the others have none, or the one of when the graph is closed.
const (
	noCheckpoint  = -1
	oneCheckpoint = time.Hour
)

// runQuery is a query from the moment when its graph runs until it has all events and they are committed.
func runQuery(name string, c query.Codec[nexmark.Event], sink bool) subject {
	return func(r *rep) (result, error) {
		q, ok := nexmark.Named(name)
		if !ok {
			return result{}, fmt.Errorf("there is no query %s", name)
		}
		return runGraph(r, func(in graphInput) (err error) {
			n := nexmark.Input{Graph: in.graph, Events: in.topic, Codec: c}
			if sink {
				if n.Out, err = in.db.EnsureTopic(context.Background(), viewName+"-out", &embedlog.TopicConfig{Durability: embedlog.OS}); err != nil {
					return err
				}
			}
			q.Add(n)
			return nil
		})
	}
}

type graphInput struct {
	db    *embedlog.DB
	topic *embedlog.Topic
	graph *query.Graph
}

// runGraph times a graph over the topic. What it made is deleted again, for the next repetition.
func runGraph(r *rep, add func(in graphInput) error) (res result, err error) {
	defer cores(r)()
	ctx := context.Background()
	db, err := embedlog.Open(r.Dir, nil)
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, deleteViews(ctx, db), db.Close()) }()
	t, err := db.Topic(dbTopic)
	if err != nil {
		return result{}, err
	}
	g := query.NewGraph(db, viewName, &query.Options{CheckpointInterval: noCheckpoint})
	if err := add(graphInput{db, t, g}); err != nil {
		return result{}, err
	}
	if err := g.Start(ctx); err != nil {
		return result{}, err
	}
	taken, start := processorTime(), time.Now()
	err = g.CatchUp(ctx)
	var n int64
	if err == nil {
		var v query.Version
		v, err = g.Version(ctx)
		for _, p := range v {
			n += p.Offset
		}
	}
	s := g.Stats()
	err = errors.Join(err, g.Close())
	elapsed := time.Since(start)
	taken = processorTime() - taken
	if err == nil && (n != r.Records || s.DeadLetters+s.Restarts+s.Late > 0 || s.Tasks != r.Count) {
		err = fmt.Errorf("the graph has %d records of %d: %+v", n, r.Records, s)
	}
	return result{Records: n, Elapsed: elapsed, CPU: taken}, err
}

// deleteViews deletes what a graph has made.
func deleteViews(ctx context.Context, db *embedlog.DB) (err error) {
	for _, t := range db.Topics() {
		if strings.HasPrefix(t.Name, viewName) {
			err = errors.Join(err, db.DeleteTopic(ctx, t.Name))
		}
	}
	return err
}

// total is a group's rows.
type total struct{ N, Sum int64 }

type totalCodec struct{}

func (totalCodec) Append(dst []byte, t total) ([]byte, error) {
	return nexmark.AppendNumbers(dst, t.N, t.Sum), nil
}

func (totalCodec) Decode(b []byte) (t total, err error) {
	err = nexmark.Numbers(b, &t.N, &t.Sum)
	return t, err
}

func viewOfAmounts(of string) subject {
	return func(r *rep) (result, error) {
		return runGraph(r, func(in graphInput) error {
			if of == "latest" {
				query.Add(in.graph, viewName, query.TableFrom(in.topic, codec.Int64, query.Codec[amountOf](amountCodec{})))
				return nil
			}
			by := query.GroupBy(query.From(in.topic, codec.Int64, query.Codec[amountOf](amountCodec{})), codec.Int64, func(_ int64, a amountOf) int64 { return a.Group })
			query.Add(in.graph, viewName, query.Fold(by, totalCodec{}, func(t total, _ int64, a amountOf) total {
				return total{t.N + 1, t.Sum + a.Amount}
			}, nil))
			return nil
		})
	}
}

// produceRows writes one record for each of Count keys.
func produceRows(r *rep) error {
	one := *r
	one.Count, one.Records = 1, int64(r.Count)
	return produceTyped(&one, codec.Int64, query.Codec[amountOf](amountCodec{}), func(i int64) (int64, amountOf, time.Time) {
		return i, amountOf{Group: i, At: i}, time.UnixMilli(1_700_000_000_000 + i)
	})
}

// startView opens the directory and starts the view of its topic, the latest record of each key.
func startView(r *rep, checkpoints time.Duration) (*embedlog.DB, *query.View[int64, amountOf], error) {
	db, err := embedlog.Open(r.Dir, nil)
	if err != nil {
		return nil, nil, err
	}
	t, err := db.Topic(dbTopic)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	v, err := latestView(db, t, checkpoints)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return db, v, nil
}

func latestView(db *embedlog.DB, t *embedlog.Topic, checkpoints time.Duration) (*query.View[int64, amountOf], error) {
	g := query.NewGraph(db, viewName, &query.Options{CheckpointInterval: checkpoints})
	v := query.Add(g, viewName, query.TableFrom(t, codec.Int64, query.Codec[amountOf](amountCodec{})))
	return v, g.Start(context.Background())
}

// getFromView reads rows while nothing is written or committed: as they are, or with what was written before the call.
func getFromView(written bool) subject {
	return func(r *rep) (result, error) {
		ctx := context.Background()
		db, v, err := startView(r, noCheckpoint)
		if err != nil {
			return result{}, err
		}
		if err := v.Graph().CatchUp(ctx); err != nil {
			return result{}, errors.Join(err, db.Close())
		}
		runtime.GC() // what starting has left is not the reads' to clean up
		get := v.GetNow
		if written {
			get = v.Get
		}
		res, err := timeGets(r, func(k int64) (amountOf, bool, error) { return get(ctx, k) })
		return res, errors.Join(err, v.Close(), db.Close())
	}
}

// fillView is fillRows for the repetition's number of records, with or without a checkpoint when it is closed.
func fillView(checkpoints time.Duration) subject0 {
	return func(r *rep) error {
		one := *r
		one.Count = int(r.Records)
		return fill(&one, checkpoints)
	}
}

// fillRows writes rows, and has a view of them committed.
func fillRows(r *rep) error { return fill(r, noCheckpoint) }

func fill(r *rep, checkpoints time.Duration) error {
	if err := produceRows(r); err != nil {
		return err
	}
	db, v, err := startView(r, checkpoints)
	if err != nil {
		return err
	}
	err = errors.Join(v.Graph().CatchUp(context.Background()), v.Close())
	if s := v.Graph().Stats(); err == nil && (s.Checkpoints > 0) != (checkpoints > 0) {
		err = fmt.Errorf("%d checkpoints were written", s.Checkpoints)
	}
	return errors.Join(err, db.Close())
}

// restoreView is a view from the start until it can be read, which is when it has its rows.
func restoreView(checkpoints time.Duration) subject {
	return func(r *rep) (result, error) {
		defer cores(r)()
		db, err := embedlog.Open(r.Dir, nil)
		if err != nil {
			return result{}, err
		}
		t, err := db.Topic(dbTopic)
		if err != nil {
			return result{}, errors.Join(err, db.Close())
		}
		taken, start := processorTime(), time.Now()
		v, err := latestView(db, t, checkpoints)
		if err != nil {
			return result{}, errors.Join(err, db.Close())
		}
		n, err := v.Len(context.Background())
		elapsed := time.Since(start)
		taken = processorTime() - taken
		if s := v.Graph().Stats(); err == nil && (int64(n) != r.Records || s.CheckpointsRefused > 0) {
			err = fmt.Errorf("the view has %d rows, %d were committed: %+v", n, r.Records, s)
		}
		return result{Records: int64(n), Elapsed: elapsed, CPU: taken}, errors.Join(err, v.Close(), db.Close())
	}
}

// checkpointStop is for how long at most a checkpoint of all rows keeps the view from taking records.
func checkpointStop(r *rep) (result, error) {
	start := time.Now()
	db, v, err := startView(r, oneCheckpoint) // there is none yet
	if err != nil {
		return result{}, err
	}
	err = errors.Join(v.Graph().CatchUp(context.Background()), v.Close())
	s := v.Graph().Stats()
	if err == nil && s.Checkpoints != 1 {
		err = fmt.Errorf("%d checkpoints were written", s.Checkpoints)
	}
	return result{Records: r.Records, Elapsed: time.Since(start), Value: float64(s.CheckpointStop) / float64(time.Millisecond)}, errors.Join(err, db.Close(), os.RemoveAll(filepath.Join(r.Dir, "views"))) // for the next repetition
}

// visible produces evenly and measures, for one record of fifty, how long it takes from before the call until the view has it.
func visible(r *rep) (result, error) {
	ctx := context.Background()
	one := *r
	one.Count, one.Batch = visibleKeys, visibleKeys
	if err := produceRows(&one); err != nil {
		return result{}, err
	}
	db, v, err := startView(r, noCheckpoint)
	if err != nil {
		return result{}, err
	}
	fail := func(err error) (result, error) { return result{}, errors.Join(err, v.Close(), db.Close()) }
	if err := v.Graph().CatchUp(ctx); err != nil {
		return fail(err)
	}
	top, err := db.Topic(dbTopic)
	if err != nil {
		return fail(err)
	}
	type sample struct {
		sent time.Time
		at   embedlog.Position
		row  amountOf
	}
	samples := make(chan sample, r.Records/everySeen+1) // a view that is behind must not hold the producer up
	waited := make(chan error, 1)
	var took []time.Duration
	go func() {
		var failed error
		for s := range samples {
			err := v.Graph().Wait(ctx, s.at)
			took = append(took, time.Since(s.sent))
			row, ok, errGet := v.GetNow(ctx, s.row.Group)
			if err = errors.Join(err, errGet); err == nil && (!ok || row.At < s.row.At) {
				err = fmt.Errorf("row %+v, %t after %+v", row, ok, s.row)
			}
			failed = errors.Join(failed, err)
		}
		waited <- failed
	}()
	var sent time.Time
	elapsed, err := produceEvenly(r, top, func(int64) { sent = time.Now() }, func(i int64, at embedlog.Position, row amountOf) {
		if i%everySeen == 0 {
			samples <- sample{sent, at, row}
		}
	})
	close(samples)
	if err = errors.Join(err, <-waited); err != nil {
		return fail(err)
	}
	return evenly(r, elapsed, took), errors.Join(v.Close(), db.Close())
}

// startProfiles begins a profile of the processor's time. What it returns ends it, and writes what was allocated beside it.
func startProfiles(path string) (stop func() error, err error) {
	f, err := os.Create(path + ".cpu")
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		allocs, err := os.Create(path + ".allocs")
		if err == nil {
			err = errors.Join(pprof.Lookup("allocs").WriteTo(allocs, 0), allocs.Close())
		}
		return errors.Join(err, f.Close())
	}, nil
}
