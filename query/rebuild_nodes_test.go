package query

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
)

// One node has a graph rebuilt that three share; then another definition takes its place at one of them.
func TestRebuildNodes(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := openNodes(t, 3)
	if err := c.graph[0].Rebuild(ctx); !errors.Is(err, ErrSink) {
		t.Errorf("with a repartition before the sink: %v", err)
	}
	start := func(i int, by int64) (*Graph, *View[string, int64], error) {
		out, err := c.dbs[i].EnsureTopic(ctx, "h-out", nil)
		if err != nil {
			return nil, nil, err
		}
		top, err := c.dbs[i].Topic("orders")
		if err != nil {
			return nil, nil, err
		}
		g := NewGraph(c.dbs[i], "h", &Options{CommitInterval: 5 * time.Millisecond, Rebuild: true})
		s := From(top, codec.String, codec.Int64)
		for range by {
			s = s.Filter(func(string, int64) bool { return true })
		}
		v := Add(g, "sums", Sum(s, func(_ string, n int64) int64 { return by * n }))
		To(g, MapValues(s, func(_ string, n int64) string { return fmt.Sprint(n) }), out)
		return g, v, g.Start(ctx)
	}
	graphs, sums := make([]*Graph, 3), make([]*View[string, int64], 3)
	for i := range graphs {
		var err error
		if graphs[i], sums[i], err = start(i, 1); err != nil {
			t.Fatal(err)
		}
	}
	check := func(i int, by int64, n int) {
		t.Helper()
		want, got := map[string]int64{}, map[string]int64{}
		for k := range int64(n) {
			want[fmt.Sprint("k", k%5)] += by * k
		}
		for { // a snapshot that loses an owner is interrupted
			clear(got)
			var failed error
			for row, err := range sums[i].All(ctx) {
				if failed = err; err == nil {
					got[row.Key] = row.Value
				}
			}
			if failed == nil {
				break
			}
			if !errors.Is(failed, ErrInterrupted) && !embedlog.IsRetriable(failed) {
				t.Fatalf("node %d: %v", i+1, failed)
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("node %d: %v, want %v", i+1, got, want)
		}
	}
	c.produce(0, 20)
	for i := range graphs {
		check(i, 1, 20)
	}
	done := make(chan error, 1)
	go func() { done <- graphs[1].Rebuild(ctx) }()
	c.produce(20, 20)
	check(0, 1, 40)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c.produce(40, 20)
	for i := range graphs {
		check(i, 1, 60)
		c.until(fmt.Sprintf("node %d follows", i+1), func() bool { return graphs[i].serving().number == 2 }) // its rows of before were as good
	}
	// Another definition, at node 3: the old one stops at the others.
	if err := graphs[2].Close(); err != nil { // another node had the task already
		t.Fatal(err)
	}
	var err error
	if graphs[2], sums[2], err = start(2, 2); err != nil {
		t.Fatal(err)
	}
	c.produce(60, 20)
	for i := range 2 {
		c.until("the old definition stops", func() bool { return errors.Is(graphs[i].Err(), ErrDefinition) })
		if _, _, err := sums[i].Get(ctx, "k1"); !errors.Is(err, ErrDefinition) {
			t.Errorf("node %d: %v", i+1, err)
		}
		if err := graphs[i].Close(); err != nil && !errors.Is(err, ErrDefinition) {
			t.Errorf("node %d: close: %v", i+1, err)
		}
	}
	check(2, 2, 80)
	out, err := c.dbs[2].Topic("h-out")
	if err != nil {
		t.Fatal(err)
	}
	c.until("all is appended once", func() bool {
		n, seen := 0, map[string]bool{}
		for rec, err := range out.Scan(ctx, &embedlog.ScanOptions{Linearizable: true}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
			seen[string(rec.Value)] = true
		}
		if n > len(seen) {
			t.Fatalf("%d records, of %d", n, len(seen))
		}
		return n == 80
	})
}
