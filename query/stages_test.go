package query

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
)

// stalled is a graph whose first stage has read what the second one has not been given, because nothing is committed.
func stalled(t *testing.T, add func(g *Graph, s *Stream[string, string])) (*fixture, *Graph) {
	f := newFixture(t, 2)
	g := f.graphOf(atClose, func(g *Graph) {
		Add(g, "first", Count(f.stream()))
		add(g, f.stream().Repartition("again", 3))
	})
	f.put(f.top, "a=1 b=2 c=3")
	tasks, err := g.all(f.ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks[:2] {
		if err := task.catchUp(f.ctx); err != nil {
			t.Fatal(err)
		}
	}
	return f, g
}

// What a stage behind a repartition has not got is behind.
func TestLagBehindRepartition(t *testing.T) {
	f, g := stalled(t, func(g *Graph, s *Stream[string, string]) { Add(g, "second", Count(s)) })
	sum := func() (n int64) {
		t.Helper()
		list, err := g.Lag(f.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range list {
			n += l.Records
		}
		return n
	}
	if n := sum(); n != 3 {
		t.Errorf("%d records behind, want 3", n)
	}
	tx, err := f.db.Begin(f.ctx, nil) // its end is no lag
	if err != nil {
		t.Fatal(err)
	}
	for p := range int32(2) {
		if _, err := tx.ProduceTo(f.ctx, embedlog.Record{Topic: "t", Partition: p, Key: []byte("x"), Value: []byte("1")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Abort(f.ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.CatchUp(f.ctx); err != nil {
		t.Fatal(err)
	}
	if n := sum(); n != 0 {
		t.Errorf("caught up, %d records behind", n)
	}
	f.close(g)
}

// The past of a graph with repartitions cannot be read, because its stages have other versions: Start says so.
func TestRetainWithRepartition(t *testing.T) {
	f := newFixture(t, 2)
	g := NewGraph(f.db.DB, "g", nil)
	Add(g, "v", Count(f.stream().Repartition("again", 2))).Retain(Retention{})
	if err := g.Start(f.ctx); err == nil || !strings.Contains(err.Error(), "repartition") {
		t.Errorf("start: %v", err)
		g.Close()
	}
}

// A record that two stages read is one dead letter.
func TestDeadLetterOfTwoStages(t *testing.T) {
	ctx, db := t.Context(), embedlogtest.Open(t, nil)
	top, err := db.EnsureTopic(ctx, "t", &embedlog.TopicConfig{Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	g := NewGraph(db.DB, "g", atClose)
	s := From(top, codec.String, codec.Int64)
	Add(g, "v", Join(Count(s), Count(s.Repartition("again", 2)), func(_ string, a, b int64) int64 { return a + b }))
	if err := g.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := top.Produce(ctx, embedlog.Record{Key: []byte("a"), Value: []byte("bad")}, embedlog.Record{Key: []byte("a"), Value: mustInt(1)}); err != nil {
		t.Fatal(err)
	}
	if err := g.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	if n := g.Stats().DeadLetters; n != 1 {
		t.Errorf("%d dead letters are counted", n)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	dead, err := db.Topic("g-dead-letter")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range dead.Scan(ctx, nil) {
		if n++; err != nil {
			t.Fatal(err)
		}
	}
	if n != 1 {
		t.Errorf("%d dead letters", n)
	}
}

// A row of a weight that no row has is not taken from a repartition: what it counts for is not believed.
func TestRepartitionWeight(t *testing.T) {
	for _, weight := range []int64{0, -1, 2, 1 << 60} {
		ctx, db := t.Context(), embedlogtest.Open(t, nil)
		_, _, g, _, perGroup, err := repGraph(ctx, db.DB, nil)
		if err != nil {
			t.Fatal(err)
		}
		top, err := db.Topic("g-by-group-repartition")
		if err != nil {
			t.Fatal(err)
		}
		v := []byte{kindRow, 0}
		for _, n := range []int64{weight, 0, 0} {
			v = binary.AppendVarint(v, n)
		}
		v = append(v, mustInt(1)...)
		if _, err := top.ProduceTo(ctx, 0, embedlog.Record{Key: []byte("g1"), Value: v}); err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			if _, err = perGroup.Len(ctx); err != nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if !errors.Is(err, errRepartition) {
			t.Errorf("weight %d: %v", weight, err)
		}
		g.Close()
	}
}

// Rows of one task lie around a commit of another one: what was applied is not applied again after a restart, and what waits for its mark is not lost.
func TestRepartitionInterleaved(t *testing.T) {
	ctx, db := t.Context(), embedlogtest.Open(t, nil)
	_, _, g, _, perGroup, err := repGraph(ctx, db.DB, atClose)
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{"g1"}
	partition := embedlog.KeyPartition([]byte(keys[0]), 3)
	for i := 2; len(keys) < 2; i++ {
		if key := fmt.Sprint("g", i); embedlog.KeyPartition([]byte(key), 3) == partition {
			keys = append(keys, key)
		}
	}
	row := func(task byte, n int64) embedlog.Record {
		return embedlog.Record{Key: []byte(keys[task]), Value: slices.Concat([]byte{kindRow, task, 2, 0, 0}, mustInt(n))} // weight 1
	}
	mark := func(task byte) embedlog.Record { return embedlog.Record{Value: []byte{kindMark, task, 9, 0, 0}} }
	put := func(recs ...embedlog.Record) {
		t.Helper()
		top, err := db.Topic("g-by-group-repartition")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := top.ProduceTo(ctx, partition, recs...); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, want ...int64) {
		t.Helper()
		var got []int64
		for range 2000 { // what was written by hand is not waited for
			got = nil
			for _, key := range keys {
				n, _, err := perGroup.GetNow(ctx, key)
				if err != nil {
					t.Fatal(err)
				}
				got = slices.Concat(got, []int64{n})
			}
			if slices.Equal(got, want) {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Errorf("%s: %v, want %v", what, got, want)
	}
	put(row(0, 7), row(1, 5), mark(1))
	check("the other task's mark", 0, 5)
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, g, _, perGroup, err = repGraph(ctx, db.DB, atClose); err != nil {
		t.Fatal(err)
	}
	put(row(1, 1), mark(1))
	check("after a restart", 0, 6)
	put(mark(0))
	check("its own mark", 7, 6)
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
}
