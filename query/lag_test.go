package query

import (
	"errors"
	"testing"
	"time"

	"github.com/x/embedlog"
)

func TestLag(t *testing.T) {
	f := newFixture(t, 2)
	f.put(f.top, "a=1 b=2 c=3")
	if _, err := f.top.DeleteRecords(f.ctx, 0, 1); err != nil { // the view begins behind it
		t.Fatal(err)
	}
	g := NewGraph(f.db.DB, "g", &Options{OneTask: true})
	Add(g, "v", f.table())
	if err := g.Err(); err != nil {
		t.Errorf("before the start: %v", err)
	}
	if _, err := g.Lag(f.ctx); !errors.Is(err, ErrNotStarted) {
		t.Errorf("before the start: %v", err)
	}
	if err := g.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	behind := func() (list []Lag) {
		t.Helper()
		list, err := g.Lag(f.ctx)
		if err != nil || len(list) != 2 || list[0].Topic != "t" || list[0].Partition != 0 || list[1].Partition != 1 {
			t.Fatalf("lag: %+v, %v", list, err)
		}
		return list
	}
	if err := g.CatchUp(f.ctx); err != nil {
		t.Fatal(err)
	}
	for _, l := range behind() {
		if l.Records != 0 || l.Behind != 0 || l.Position != l.LastStable {
			t.Errorf("caught up: %+v", l)
		}
	}
	if s := g.Stats(); s.Lag != 0 || s.Records != 2 {
		t.Errorf("caught up: %+v", s)
	}
	// An open transaction is not lag, and what its end leaves in the log is not, either.
	tx, err := f.db.Begin(f.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ProduceTo(f.ctx, embedlog.Record{Topic: "t", Partition: 1, Key: []byte("x"), Value: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	if l := behind(); l[1].Records != 0 {
		t.Errorf("in a transaction: %+v", l)
	}
	if err := tx.Abort(f.ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.CatchUp(f.ctx); err != nil {
		t.Fatal(err)
	}
	if l := behind(); l[1].Records != 0 || g.Stats().Lag != 0 {
		t.Errorf("behind a transaction: %+v, %+v", l, g.Stats())
	}
	// A task that has fetched what is not in its rows yet is behind.
	if _, err := f.top.ProduceTo(f.ctx, 1, embedlog.Record{Key: []byte("w"), Value: []byte("1"), Timestamp: time.Now().Add(-time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if err := g.CatchUp(f.ctx); err != nil {
		t.Fatal(err)
	}
	tasks, _ := g.all(f.ctx)
	end := behind()[1].LastStable
	tasks[0].fetched.Add(1)
	tasks[0].clock.Lock()
	tasks[0].positions[place{"t", 1}] = end - 1
	tasks[0].clock.Unlock()
	if l := behind()[1]; l.Records != 1 || l.Position != end-1 || l.Behind < time.Hour || l.Behind > time.Hour+time.Minute || g.Stats().Lag != 1 {
		t.Errorf("%+v, %+v", l, g.Stats())
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if err := g.Err(); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := g.Lag(f.ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// What is not in the rows is as old as its first record.
func TestAge(t *testing.T) {
	f := newFixture(t, 1)
	for _, back := range []time.Duration{3 * time.Hour, 2 * time.Hour, time.Hour} {
		if _, err := f.top.Produce(f.ctx, embedlog.Record{Value: []byte("v"), Timestamp: time.Now().Add(-back)}); err != nil {
			t.Fatal(err)
		}
	}
	for offset, want := range []time.Duration{3 * time.Hour, 2 * time.Hour, time.Hour, 0} {
		if got := age(f.ctx, f.top, 0, int64(offset)); got < want || got > want+time.Minute {
			t.Errorf("from %d: %v, want %v", offset, got, want)
		}
	}
	if got := age(f.ctx, f.top, 0, 9); got != -1 {
		t.Errorf("outside: %v", got)
	}
}
