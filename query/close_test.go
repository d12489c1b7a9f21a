package query

import (
	"testing"
	"time"
)

// Closing the database commits what graphs have computed: their sinks have it, and nothing is computed again.
func TestDBCloseCommits(t *testing.T) {
	f := newFixture(t, 1)
	out := f.topic("out", 1)
	g := NewGraph(f.db.DB, "g", &Options{CommitInterval: time.Hour})
	To(g, f.stream(), out)
	v := Add(g, "v", Count(f.stream()))
	if err := g.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.put(f.top, "a=1 b=2 a=3")
	f.want("rows", rows(f, v), "a=2 b=1")
	f.want("sink before", f.records("out"), "")
	f.db.Reopen()
	f.want("sink", f.records("out"), "a=1 b=2 a=3")
}
