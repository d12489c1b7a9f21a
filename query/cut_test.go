package query

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
	"github.com/x/embedlog/internal/testcount"
)

// Snapshots of a graph with three stages, one of which reads the topic as well, are one cut while it is being written to: each view has as many records.
func TestCutThroughStages(t *testing.T) {
	ctx, db := t.Context(), embedlogtest.Open(t, nil)
	orders, err := db.EnsureTopic(ctx, "orders", &embedlog.TopicConfig{Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	g := NewGraph(db.DB, "g", &Options{CommitInterval: time.Millisecond})
	s := From(orders, codec.String, codec.Int64)
	perKey := Count(s)
	byGroup := Count(Rekey(s, codec.String, func(_ string, n int64) string { return fmt.Sprint("g", n%7) }).Repartition("by-group", 2))
	total := func(_ string, n int64) int64 { return n }
	byParity := Sum(GroupBy(byGroup, codec.String, func(k string, _ int64) string { return k[1:] }).Repartition("by-parity", 3), total)
	beside := OuterJoin(perKey, byGroup, func(_ string, l, r *int64) int64 { // keys of the two are different
		if l != nil {
			return *l
		}
		return *r
	})
	views := []*View[string, int64]{Add(g, "per-key", perKey), Add(g, "by-group", byGroup), Add(g, "by-parity", byParity), Add(g, "beside", beside)}
	if err := g.Start(ctx); err != nil {
		t.Fatal(err)
	}
	var writer sync.WaitGroup
	stop := make(chan struct{})
	writer.Go(func() {
		for i := int64(0); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := orders.Produce(ctx, embedlog.Record{Key: fmt.Appendf(nil, "k%d", i%5), Value: mustInt(i)}); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(20 * time.Microsecond)
		}
	})
	defer func() { close(stop); writer.Wait() }()
	last := int64(-1)
	for i := 0; i < testcount.N(60) || last <= 0; i++ {
		take := g.Snapshot
		if i%2 == 0 {
			take = g.SnapshotNow
		}
		s, err := take(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var sums [4]int64
		for i, v := range views {
			for row, err := range v.In(s).All() {
				if err != nil {
					t.Fatal(err)
				}
				sums[i] += row.Value
			}
		}
		records := int64(0)
		for _, p := range s.Version() {
			records += p.Offset
		}
		s.Release()
		if sums != [4]int64{records, records, records, 2 * records} || records < last {
			t.Fatalf("version %v, %d records: %v", s.Version(), records, sums)
		}
		last = records
	}
}
