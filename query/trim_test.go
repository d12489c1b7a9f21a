package query

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
)

// Two stages read one repartition with tasks of other numbers, at several nodes: what both have committed is deleted, and nobody waits for ever.
func TestTrimAcrossNodes(t *testing.T) {
	c := openNodes(t, 3)
	var joined []*View[string, int64]
	var graphs []*Graph
	for _, db := range c.dbs {
		top, err := db.Topic("orders")
		if err != nil {
			t.Fatal(err)
		}
		g := NewGraph(db, "h", &Options{CommitInterval: 2 * time.Millisecond})
		smallRepartitions(g)
		rows := Rekey(From(top, codec.String, codec.Int64), codec.String, func(_ string, n int64) string { return fmt.Sprint("g", n%7) }).Repartition("first", 4)
		sums := Add(g, "sums", Sum(rows, func(_ string, n int64) int64 { return n })) // by four tasks
		again := GroupBy(sums.Table(), codec.String, func(key string, _ int64) string { return key }).Repartition("second", 2)
		one := Sum(again, func(_ string, n int64) int64 { return n }) // by one, which reads all partitions of the first
		joined = append(joined, Add(g, "joined", Join(Count(rows), one, func(_ string, a, b int64) int64 { return a + b })))
		graphs = append(graphs, g)
		if err := g.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := graphs[0].Stats().Tasks; got != 2+4+1 {
		t.Fatalf("%d tasks, want 2, 4 and 1", got)
	}
	for p := range int32(4) {
		if err := c.lead(graphs[0].progressName(), 2+p, 1+p%3); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := range 60 {
		var recs []embedlog.Record
		for k := range 20 {
			recs = append(recs, embedlog.Record{Key: []byte("k"), Value: mustInt(int64(i*20 + k))})
		}
		for {
			if _, err := c.top.Produce(ctx, recs...); err == nil {
				break
			} else if !embedlog.IsRetriable(err) {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	for i, g := range graphs {
		if err := g.CatchUp(ctx); err != nil {
			t.Fatalf("node %d: %v", i+1, err)
		}
		if n, err := joined[i].Len(ctx); err != nil || n != 7 {
			t.Fatalf("node %d: %d rows, %v", i+1, n, err)
		}
	}
	c.until("what was read is deleted", func() bool {
		full, err := backlog(ctx, graphs[0].between["h-first-repartition"])
		return err == nil && full < 400
	})
	for i := range graphs {
		if err := graphs[i].Close(); err != nil {
			t.Error(err)
		}
	}
}
