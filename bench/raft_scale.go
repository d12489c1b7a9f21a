package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/bench/internal/raftload"
)

// Scale: what partitions cost three nodes that have a replica of each, a third of which each leads.
// Each partition holds a record. Then a node is killed and started again.

const (
	scaleTopic = "scale"
	// The targets are of 300 partitions.
	scaleCPU  = 15.0 // percent of a core per node
	scaleOpen = 5 * time.Second
	// scaleGoroutines and scaleConnections hold for any number.
	scaleGoroutines  = 10
	scaleConnections = 2
)

func init() { raftParts = append(raftParts, raftPart{"scale", runScale}) }

// opRecords has a node put a record into each partition of a topic.
const opRecords = "records"

var raftOperations = map[string]raftload.Operation{opRecords: recordEach}

func recordEach(ctx context.Context, db *embedlog.DB, in json.RawMessage) (any, error) {
	var name string
	if err := json.Unmarshal(in, &name); err != nil {
		return nil, err
	}
	t, err := db.Topic(name)
	if err != nil {
		return nil, err
	}
	n := t.Partitions()
	errs := make([]error, n)
	var all sync.WaitGroup
	room := make(chan struct{}, 32)
	for i := range n {
		room <- struct{}{}
		all.Go(func() {
			_, errs[i] = t.ProduceTo(ctx, int32(i), embedlog.Record{Value: make([]byte, 100)})
			<-room
		})
	}
	all.Wait()
	return nil, errors.Join(errs...)
}

// scaled is one line of the table; what is of a node is the worst of the three.
type scaled struct {
	create, remove time.Duration
	cpu            float64 // percent of a core
	goroutines     float64 // per partition
	heap, resident float64 // KiB per partition
	connections    int     // per pair
	moved          time.Duration
	open, served   time.Duration
	caught         time.Duration
}

func runScale(ctx context.Context, c config, stdout, stderr io.Writer) (missed int, err error) {
	fmt.Fprintf(stdout, "scale: partitions with three replicas on three nodes, default timing, idle for %v; per node, the worst of three\n", c.idle)
	fmt.Fprintf(stdout, "%10s %9s %8s %11s %9s %9s %6s %8s %8s %8s %8s %8s\n",
		"partitions", "create", "idle CPU", "goroutines", "heap", "resident", "conns", "moved", "open", "served", "in sync", "delete")
	for _, n := range c.partitions {
		s, err := scale(ctx, c, n, stderr)
		if err != nil {
			return missed, fmt.Errorf("%d partitions: %w", n, err)
		}
		ms := func(d time.Duration) string { return d.Round(time.Millisecond).String() }
		fmt.Fprintf(stdout, "%10d %9s %7.1f%% %11.1f %5.0f KiB %5.0f KiB %6d %8s %8s %8s %8s %8s\n",
			n, ms(s.create), s.cpu, s.goroutines, s.heap, s.resident, s.connections, ms(s.moved), ms(s.open), ms(s.served), ms(s.caught), ms(s.remove))
		for what, bad := range map[string]bool{
			"idle CPU":    n == 300 && s.cpu > scaleCPU,
			"open":        n == 300 && s.served > scaleOpen,
			"goroutines":  s.goroutines > scaleGoroutines,
			"connections": s.connections > scaleConnections,
		} {
			if bad {
				missed++
				fmt.Fprintf(stdout, "%10s NO: %s\n", "", what)
			}
		}
	}
	fmt.Fprintf(stdout, "targets: of 300 partitions %.0f %% and served within %v; of any at most %d goroutines a partition and %d connections a pair\n\n",
		scaleCPU, scaleOpen, scaleGoroutines, scaleConnections)
	return missed, nil
}

func scale(ctx context.Context, c config, n int, stderr io.Writer) (s scaled, err error) {
	cluster, end, err := raftCluster(c, false)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, end()) }()
	// A first topic, that what is there once is not counted.
	if err := makeTopic(ctx, cluster, raftload.Topic{Name: "first", Partitions: 1, Factor: 3}); err != nil {
		return s, err
	}
	if _, err := inSync(ctx, cluster, "first", 1); err != nil {
		return s, err
	}
	time.Sleep(2 * time.Second)
	before, residentBefore, err := runtimes(ctx, cluster)
	if err != nil {
		return s, err
	}
	began := time.Now()
	if err := makeTopic(ctx, cluster, raftload.Topic{Name: scaleTopic, Partitions: n, Factor: 3}); err != nil {
		return s, err
	}
	if _, err := inSync(ctx, cluster, scaleTopic, n); err != nil {
		return s, err
	}
	s.create = time.Since(began)
	if err := cluster.Ask(ctx, 1, opRecords, scaleTopic, nil); err != nil {
		return s, err
	}
	time.Sleep(c.idle / 2) // until nothing goes on any more
	if c.profile != "" {
		if err := cluster.Profile(ctx, 1, c.profile+"/scale-"+strconv.Itoa(n)); err != nil {
			return s, err
		}
	}
	idle, _, err := runtimes(ctx, cluster)
	if err != nil {
		return s, err
	}
	began = time.Now()
	time.Sleep(c.idle)
	after, residentAfter, err := runtimes(ctx, cluster)
	if err != nil {
		return s, err
	}
	took := time.Since(began)
	if c.profile != "" {
		if err := cluster.Profiled(ctx, 1); err != nil {
			return s, err
		}
	}
	for i := range after {
		s.cpu = max(s.cpu, 100*(after[i].CPU-idle[i].CPU).Seconds()/took.Seconds())
		s.goroutines = max(s.goroutines, float64(after[i].Goroutines-before[i].Goroutines)/float64(n))
		s.heap = max(s.heap, (float64(after[i].HeapBytes)-float64(before[i].HeapBytes))/1024/float64(n))
		s.resident = max(s.resident, float64(residentAfter[i]-residentBefore[i])/1024/float64(n))
	}
	if s.connections, err = pairConnections(cluster); err != nil {
		return s, err
	}
	fmt.Fprintf(stderr, "%d partitions: %.1f %% of a core when idle\n", n, s.cpu)

	// The others take over what node 3 led.
	began = time.Now()
	if err := cluster.Kill(3); err != nil {
		return s, err
	}
	if s.moved, err = served(ctx, cluster, 1, n, 3, began); err != nil {
		return s, err
	}
	time.Sleep(time.Second)
	began = time.Now()
	if err := cluster.Start(3); err != nil {
		return s, err
	}
	s.open = time.Since(began)
	if s.served, err = served(ctx, cluster, 3, n, 0, began); err != nil {
		return s, err
	}
	if _, err := inSync(ctx, cluster, scaleTopic, n); err != nil {
		return s, err
	}
	s.caught = time.Since(began)
	began = time.Now()
	if err := cluster.Ask(ctx, 1, opDelete, scaleTopic, nil); err != nil {
		return s, err
	}
	s.remove = time.Since(began)
	return s, nil
}

// opDelete has a node delete a topic.
const opDelete = "delete"

func init() {
	raftOperations[opDelete] = func(ctx context.Context, db *embedlog.DB, in json.RawMessage) (any, error) {
		var name string
		if err := json.Unmarshal(in, &name); err != nil {
			return nil, err
		}
		return nil, db.DeleteTopic(ctx, name)
	}
}

// served waits until a node knows a leader of each partition, other than one that is gone.
func served(ctx context.Context, cluster *raftload.Cluster, node int32, n int, gone int32, began time.Time) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	err := raftload.Until(ctx, "all partitions are served", func() (bool, error) {
		var st raftload.Status
		if err := cluster.Ask(ctx, node, raftload.OpStatus, nil, &st); err != nil {
			return false, err
		}
		have := 0
		for _, l := range st.Logs {
			if l.Topic == scaleTopic && l.Leader > 0 && l.Leader != gone {
				have++
			}
		}
		return have == n, nil
	})
	return time.Since(began), err
}

// runtimes are of all nodes, after a collection of garbage.
func runtimes(ctx context.Context, cluster *raftload.Cluster) (list []raftload.Runtime, resident []int64, err error) {
	for _, node := range cluster.Running() {
		r, err := cluster.Runtime(ctx, node)
		if err != nil {
			return nil, nil, err
		}
		list = append(list, r)
		n, err := residentOf(cluster.PID(node))
		if err != nil {
			return nil, nil, err
		}
		resident = append(resident, n)
	}
	return list, resident, nil
}

// pairConnections is how many connections the two nodes of a pair have with each other, the most of
// all pairs: those that the kernel has of their processes.
func pairConnections(cluster *raftload.Cluster) (most int, err error) {
	nodes := cluster.Running()
	of := make(map[int32][][2]string)
	for _, node := range nodes {
		if of[node], err = openConnections(cluster.PID(node)); err != nil {
			return 0, err
		}
	}
	for i, a := range nodes {
		for _, b := range nodes[i+1:] {
			ends := make(map[[2]string]bool)
			for _, c := range of[b] {
				ends[c] = true
			}
			n := 0
			for _, c := range of[a] {
				if ends[[2]string{c[1], c[0]}] {
					n++
				}
			}
			most = max(most, n)
		}
	}
	return most, nil
}
