package query

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
)

// standingBy is a task of the graph's that has followed the changelogs up to now, as on another node.
func (c *checkpointed) standingBy(index int) *task {
	c.t.Helper()
	t := c.g.newTask(index)
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	turn := make(chan struct{})
	mine := func() (bool, <-chan struct{}) {
		select {
		case <-turn:
			return true, nil
		default:
			return false, turn
		}
	}
	end := int64(0)
	top, err := c.db.Topic(c.g.progressName())
	if err != nil {
		c.t.Fatal(err)
	}
	for rec, err := range top.Scan(ctx, &embedlog.ScanOptions{Partitions: []int32{t.slot()}}) {
		if err != nil {
			c.t.Fatal(err)
		}
		end = rec.Offset + 1
	}
	go func() {
		for ctx.Err() == nil {
			t.clock.RLock()
			next, rows := int64(0), 0
			if t.warm != nil {
				next = t.warm.next[c.g.progressName()]
			}
			for _, k := range t.stores {
				rows += k.count()
			}
			t.clock.RUnlock()
			if next >= end && rows > 0 {
				close(turn)
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if err := t.stand(ctx, mine); err != nil {
		c.t.Fatal(err)
	}
	return t
}

// takesOver has a task run, and returns the rows of the table when it has them.
func (c *checkpointed) takesOver(t *task) map[string]int64 {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	rows := map[string]int64{}
	err := t.live(ctx, func() {
		t.clock.RLock()
		defer t.clock.RUnlock()
		for _, key := range keysOf(t, c.counts) {
			v, _ := t.tables[c.counts.t.n].(rowReader[int64]).get([]byte(key))
			rows[key] = v
		}
		cancel()
	})
	if ctx.Err() == nil {
		c.t.Fatalf("it does not take over: %v", err)
	}
	return rows
}

func keysOf(t *task, v *View[string, int64]) (keys []string) {
	rows := t.tables[v.t.n].(rowReader[int64])
	var some []row[int64]
	for from := new(string); from != nil; {
		some, from = rows.page(some[:0], t.clock.version, *from, "", page)
		for _, r := range some {
			keys = append(keys, r.key)
		}
	}
	return keys
}

// wantOf is what the table has in a task.
func (c *checkpointed) wantOf(index int) map[string]int64 {
	want := map[string]int64{}
	for k, n := range c.want {
		if embedlog.KeyPartition([]byte(k), 2) == int32(index) {
			want[k] = n
		}
	}
	return want
}

// A standby that was so far behind that compaction has removed tombstones that it had not read begins anew, when it is its turn: it must
// not have rows that were deleted, and the graph must not stop.
func TestStandbyBehindCompaction(t *testing.T) {
	c := newCheckpointed(t)
	c.produce(0, 100, 5)
	c.check()
	c.close()
	c.open(time.Hour)
	c.check()
	for index := range 2 {
		late := c.standingBy(index)
		c.produce(40*index, 40*index+20, -1)
		c.produce(90, 100, int64(index))
		c.check()
		c.close()
		for range 2 {
			if err := c.db.Compact(t.Context(), "g-latest-changelog", "g-sums-changelog", "g-tops-changelog", "g-tops-rows-changelog"); err != nil {
				t.Fatal(err)
			}
			c.db.Advance(time.Second)
		}
		top, err := c.db.Topic("g-latest-changelog")
		if err != nil {
			t.Fatal(err)
		}
		for rec, err := range top.Scan(t.Context(), nil) {
			if err != nil || rec.Value == nil {
				t.Fatalf("a tombstone is left, and nothing is tested: %v", err)
			}
		}
		if got, want := c.takesOver(late), c.wantOf(index); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("task %d has %d rows, want %d", index, len(got), len(want))
		}
		c.open(time.Hour)
		c.check()
	}
	c.close()
}

// Nor does one go on that has read what the changelog does not have any more.
func TestStandbyAheadOfChangelog(t *testing.T) {
	c := newCheckpointed(t)
	c.produce(0, 100, 5)
	c.check()
	c.close()
	c.open(time.Hour)
	c.check()
	s := c.standingBy(0)
	c.close()
	s.warm.next["g-sums-changelog"] += 1000
	if got, want := c.takesOver(s), c.wantOf(0); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("task 0 has %d rows, want %d", len(got), len(want))
	}
}

// What a standby keeps is bounded by the rows that there are, not by those that there were; and those are in their order.
func TestStandbyKeepsNoMoreThanRows(t *testing.T) {
	c := newCheckpointed(t)
	defer c.close()
	follows := c.g.newTask(0)
	k := &keptStore[int64]{newKept(&builder{task: follows}, "churn", plain(codec.Int64)), plain(codec.Int64)}
	follows.warm = &standby{stores: map[string]kept{"churn": k}, next: map[string]int64{}}
	for i := range 100_000 {
		rec := embedlog.Record{Topic: "churn", Key: fmt.Appendf(nil, "k%08d", i), Value: mustInt(1)}
		if err := follows.warm.take(follows, &rec); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 {
			continue // it stays
		}
		rec.Value = nil
		if err := follows.warm.take(follows, &rec); err != nil {
			t.Fatal(err)
		}
	}
	if n := k.count(); n != 100 {
		t.Errorf("there are %d rows, want 100", n)
	}
	if n := len(k.unsorted) + k.order.Len() + len(k.rows); n > 3000 {
		t.Errorf("%d entries are kept for 100 rows", n)
	}
	k.restored()
	if n := k.order.Len(); n != 100 {
		t.Errorf("%d rows are in order, want 100", n)
	}
}
