package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/bench/internal/raftload"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

// Takeover: three nodes with a view of so many rows. The node that owns it, and leads its source, is killed (SIGKILL). What is measured is the
// time from the signal to the first read at another node that has a record which was acknowledged after it: the read's own write. Beside
// it stands when that record was acknowledged, which is what the election takes. The others stand by, warm; or, cold, they have no graph, and
// one is started when the owner is gone.

const (
	takeoverTopic = "orders"
	takeoverGraph = "spent"
)

// What nodes are asked for.
const (
	opViewStart = "view start"
	opViewClose = "view close"
	opViewFill  = "view fill"  // int, so many rows
	opViewOwner = "view owner" // int32, a node
	opViewRows  = "view rows"  // int64, that this node has: of a task that runs, or of one that stands by
	opViewLead  = "view lead"  // int32, the node that is to lead the source
	opViewRead  = "view read"  // readOwn
)

// readOwn is when a record was acknowledged, and when it was read, after the question.
type readOwn struct{ Acked, Read time.Duration }

func init() {
	raftParts = append(raftParts, raftPart{"takeover", runTakeover})
	v := &takenOver{}
	for name, f := range map[string]func(ctx context.Context, db *embedlog.DB, in json.RawMessage) (any, error){
		opViewStart: v.start, opViewClose: v.close, opViewFill: v.fill, opViewOwner: v.owner, opViewRows: v.rows, opViewLead: v.lead, opViewRead: v.read,
	} {
		raftOperations[name] = f
	}
}

// takenOver is the view in a node's process.
type takenOver struct {
	mu    sync.Mutex
	graph *query.Graph
	view  *query.View[string, int64]
}

func (v *takenOver) start(ctx context.Context, db *embedlog.DB, _ json.RawMessage) (any, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.graph != nil {
		return nil, nil
	}
	orders, err := db.EnsureTopic(ctx, takeoverTopic, &embedlog.TopicConfig{Partitions: 1, ReplicationFactor: 3})
	if err != nil {
		return nil, err
	}
	g := query.NewGraph(db, takeoverGraph, nil)
	view := query.Add(g, takeoverGraph, query.Sum(query.From(orders, codec.String, codec.Int64), func(_ string, n int64) int64 { return n }))
	if err := g.Start(ctx); err != nil {
		return nil, err
	}
	v.graph, v.view = g, view
	return nil, nil
}

func (v *takenOver) close(context.Context, *embedlog.DB, json.RawMessage) (any, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.graph == nil {
		return nil, nil
	}
	err := v.graph.Close()
	v.graph = nil
	return nil, err
}

func rowKey(i int) string { return fmt.Sprintf("key-%012d", i) }

func (v *takenOver) fill(ctx context.Context, db *embedlog.DB, in json.RawMessage) (any, error) {
	var rows int
	if err := json.Unmarshal(in, &rows); err != nil {
		return nil, err
	}
	p, err := db.Producer(&embedlog.ProducerConfig{BatchBytes: 1 << 20})
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var failed error
	room := make(chan struct{}, 10_000)
	for i := range rows {
		room <- struct{}{}
		rec := embedlog.Record{Topic: takeoverTopic, Key: []byte(rowKey(i)), Value: binary.BigEndian.AppendUint64(nil, 1)}
		err := p.Send(ctx, rec, func(_ embedlog.Position, err error) {
			<-room
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
		})
		if err != nil {
			return nil, err
		}
	}
	if err := p.Close(); err != nil {
		return nil, err
	}
	return nil, failed
}

func (v *takenOver) owner(_ context.Context, db *embedlog.DB, _ json.RawMessage) (any, error) {
	top, err := db.Topic(takeoverGraph + "-progress")
	if err != nil {
		return nil, err
	}
	return top.Leader(0)
}

func (v *takenOver) rows(ctx context.Context, db *embedlog.DB, _ json.RawMessage) (any, error) {
	v.mu.Lock()
	g, view := v.graph, v.view
	v.mu.Unlock()
	if g == nil {
		return int64(0), nil
	}
	if rows := g.Stats().StandbyRows; rows > 0 {
		return rows, nil
	}
	n, err := view.Len(ctx)
	return int64(n), err
}

func (v *takenOver) lead(ctx context.Context, db *embedlog.DB, in json.RawMessage) (any, error) {
	var node int32
	if err := json.Unmarshal(in, &node); err != nil {
		return nil, err
	}
	return nil, db.Cluster().TransferLeadership(ctx, takeoverTopic, 0, node)
}

func (v *takenOver) read(ctx context.Context, db *embedlog.DB, in json.RawMessage) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	v.mu.Lock()
	view := v.view
	v.mu.Unlock()
	began := time.Now()
	top, err := db.Topic(takeoverTopic)
	if err != nil {
		return nil, err
	}
	key := rowKey(rand.IntN(1000))
	if _, err := top.Produce(ctx, embedlog.Record{Key: []byte(key), Value: binary.BigEndian.AppendUint64(nil, 1)}); err != nil {
		return nil, err
	}
	acked := time.Since(began)
	for {
		_, found, err := view.Get(ctx, key)
		if err == nil && !found {
			err = fmt.Errorf("%s is not there", key)
		}
		if err == nil || !errors.Is(err, query.ErrInterrupted) {
			return readOwn{acked, time.Since(began)}, err
		}
	}
}

// took is what one kill took.
type took struct{ acked, read time.Duration }

func runTakeover(ctx context.Context, c config, stdout, stderr io.Writer) (missed int, err error) {
	fmt.Fprintln(stdout, "takeover: kills of a view's owner, time to the first acknowledgement, to the first read of an own write at another node, and from the one to the other")
	fmt.Fprintf(stdout, "%-8s %8s %-6s %6s  %-31s %-31s %s\n", "timing", "rows", "others", "kills", "acknowledged p50 p90 p99 max", "read p50 p90 p99 max", "in between p50 p90 p99 max")
	for _, m := range []struct {
		fast bool
		rows int
		cold bool
		part int // of the kills
	}{{false, 10_000, false, 5}, {true, 10_000, false, 2}, {true, 1_000_000, false, 5}, {true, 10_000, true, 10}, {true, 1_000_000, true, 20}} {
		times, err := takeovers(ctx, c, m.fast, m.rows, m.cold, max(c.kills/m.part, 2), stderr)
		if err != nil {
			return missed, fmt.Errorf("%d rows, after %d kills: %w", m.rows, len(times), err)
		}
		timing, others := "default", "warm"
		if m.fast {
			timing = "fast"
		}
		if m.cold {
			others = "cold"
		}
		fmt.Fprintf(stdout, "%-8s %8d %-6s %6d  %-31s %-31s %s\n", timing, m.rows, others, len(times),
			percentiles(times, func(t took) time.Duration { return t.acked }), percentiles(times, func(t took) time.Duration { return t.read }),
			percentiles(times, func(t took) time.Duration { return t.read - t.acked }))
	}
	fmt.Fprintln(stdout)
	return missed, nil
}

// percentiles are p50, p90, p99 and the most, by the nearest rank.
func percentiles(times []took, of func(took) time.Duration) string {
	var list []time.Duration
	for _, t := range times {
		list = append(list, of(t))
	}
	slices.Sort(list)
	text := ""
	for _, p := range []int{50, 90, 99, 100} {
		text += fmt.Sprintf("%v ", list[(len(list)*p+99)/100-1].Round(time.Millisecond))
	}
	return text
}

func takeovers(ctx context.Context, c config, fast bool, rows int, cold bool, kills int, stderr io.Writer) (times []took, err error) {
	cluster, end, err := raftCluster(c, fast)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	if err := makeTopic(ctx, cluster, raftload.Topic{Name: takeoverTopic, Partitions: 1, Factor: 3}); err != nil {
		return nil, err
	}
	if err := startViews(ctx, cluster); err != nil {
		return nil, err
	}
	if err := cluster.Ask(ctx, 1, opViewFill, rows, nil); err != nil {
		return nil, err
	}
	for i := range kills {
		owner, err := takeoverReady(ctx, cluster, int64(rows))
		if err != nil {
			return times, err
		}
		if cold {
			for _, n := range cluster.Running() {
				if n != owner {
					if err := cluster.Ask(ctx, n, opViewClose, nil, nil); err != nil {
						return times, err
					}
				}
			}
		}
		t, err := takeover(ctx, cluster, owner, cold)
		if err != nil {
			return times, err
		}
		times = append(times, t)
		fmt.Fprintf(stderr, "kill %d of node %d: acknowledged after %v, read after %v\n", i+1, owner, t.acked.Round(time.Millisecond), t.read.Round(time.Millisecond))
		if err := cluster.Start(owner); err != nil {
			return times, err
		}
		if err := startViews(ctx, cluster); err != nil {
			return times, err
		}
	}
	return times, nil
}

func startViews(ctx context.Context, cluster *raftload.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return raftload.Until(ctx, "the view is started", func() (bool, error) {
		for _, n := range cluster.Running() {
			if err := cluster.Ask(ctx, n, opViewStart, nil, nil); err != nil {
				return false, err
			}
		}
		return true, nil
	})
}

// takeoverReady waits until all nodes have all rows, and one leads the source and owns the view.
func takeoverReady(ctx context.Context, cluster *raftload.Cluster, rows int64) (owner int32, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	return owner, raftload.Until(ctx, "the standbys are warm", func() (bool, error) {
		if _, err := inSync(ctx, cluster, takeoverGraph+"-progress", 1); err != nil {
			return false, err
		}
		leads, err := inSync(ctx, cluster, takeoverTopic, 1)
		if err != nil {
			return false, err
		}
		for _, n := range cluster.Running() {
			var has int64
			if err := cluster.Ask(ctx, n, opViewRows, nil, &has); err != nil || has < rows {
				return false, err
			}
		}
		if err := cluster.Ask(ctx, 1, opViewOwner, nil, &owner); err != nil {
			return false, err
		}
		if owner == leads[0] {
			return true, nil
		}
		return false, cluster.Ask(ctx, owner, opViewLead, owner, nil)
	})
}

// takeover kills the owner at a moment of chance, while the others produce and read.
func takeover(ctx context.Context, cluster *raftload.Cluster, owner int32, cold bool) (t took, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var clients sync.WaitGroup
	var mu sync.Mutex
	var killed time.Time
	begin := func() {
		for _, node := range cluster.Running() {
			if node == owner {
				continue
			}
			clients.Go(func() {
				for cold && ctx.Err() == nil && cluster.Ask(ctx, node, opViewStart, nil, nil) != nil { // nobody may lead yet
					time.Sleep(time.Millisecond)
				}
				for ctx.Err() == nil {
					began := time.Now()
					var r readOwn
					err := cluster.Ask(ctx, node, opViewRead, nil, &r)
					mu.Lock()
					if err == nil && !killed.IsZero() && began.After(killed) {
						if acked := began.Add(r.Acked).Sub(killed); t.acked == 0 || acked < t.acked {
							t.acked = acked
						}
						if read := began.Add(r.Read).Sub(killed); t.read == 0 || read < t.read {
							t.read = read
						}
						mu.Unlock()
						cancel()
						return
					}
					mu.Unlock()
					if err != nil {
						time.Sleep(time.Millisecond)
					}
				}
			})
		}
	}
	if !cold {
		begin()
	}
	time.Sleep(time.Second + rand.N(time.Second))
	at, err := cluster.KillAt(owner)
	mu.Lock()
	killed = at
	mu.Unlock()
	if cold {
		begin()
	}
	clients.Wait()
	if err == nil && t.read == 0 {
		err = fmt.Errorf("nothing was read within two minutes after node %d was killed", owner)
	}
	return t, err
}
