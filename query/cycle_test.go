package query

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/embedlogtest"
)

// cycle is graphs that append to what they, or each other, read: each record above 0 brings about one that is one less.
type cycle struct {
	*testing.T
	ctx    context.Context
	db     *embedlogtest.DB
	names  []string // of the topics, one after another
	graphs []*Graph
	seen   []*View[string, int64] // how many records of each topic there are, by key
}

func (c *cycle) open(r *rand.Rand) {
	c.Helper()
	c.graphs, c.seen = nil, nil
	topics := make([]*embedlog.Topic, len(c.names))
	for i, name := range c.names {
		var err error
		if topics[i], err = c.db.EnsureTopic(c.ctx, name, &embedlog.TopicConfig{Partitions: 2}); err != nil {
			c.Fatal(err)
		}
	}
	for i, top := range topics {
		g := NewGraph(c.db.DB, "g-"+c.names[i], &Options{CommitInterval: time.Duration(r.IntN(3)+1) * ms})
		s := From(top, codec.String, codec.Int64)
		c.seen = append(c.seen, Add(g, "seen", Count(s)))
		To(g, MapValues(s.Filter(func(_ string, n int64) bool { return n > 0 }), func(_ string, n int64) int64 { return n - 1 }), topics[(i+1)%len(topics)])
		if err := g.Start(c.ctx); err != nil {
			c.Fatal(err)
		}
		c.graphs = append(c.graphs, g)
	}
}

// there is how many records of a key can be read.
func (c *cycle) there(topic, key string) (n int64) {
	c.Helper()
	top, err := c.db.Topic(topic)
	if err != nil {
		c.Fatal(err)
	}
	for rec, err := range top.Scan(c.ctx, nil) {
		if err != nil {
			c.Fatal(err)
		}
		if string(rec.Key) == key {
			n++
		}
	}
	return n
}

func TestCycles(t *testing.T) {
	for _, names := range [][]string{{"a"}, {"a", "b"}, {"a", "b", "c"}} {
		t.Run(fmt.Sprint(len(names), " topics"), func(t *testing.T) {
			const turns = 12
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			r := rand.New(rand.NewPCG(uint64(len(names)), 11))
			c := &cycle{T: t, ctx: ctx, db: embedlogtest.Open(t, nil), names: names}
			c.open(r)
			first, err := c.db.Topic("a")
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range []string{"x", "y"} {
				if _, err := embedlog.Typed(first, codec.String, codec.Int64).Produce(ctx, key, turns); err != nil {
					t.Fatal(err)
				}
			}
			lives := 0
			for total := int64(0); total < 2*(turns+1); {
				total = 0
				for i, name := range names {
					for _, key := range []string{"x", "y"} {
						// What was there before a read is in it; the read does not wait for the cycle to come to rest.
						before := c.there(name, key)
						n, _, err := c.seen[i].Get(ctx, key)
						if err != nil {
							t.Fatal(err)
						}
						if n < before {
							t.Fatalf("%d records of %s are in topic %s, %d in its view", before, key, name, n)
						}
						total += n
					}
				}
				if lives < 6 && r.IntN(3) == 0 {
					lives++
					if r.IntN(2) == 0 {
						c.db.Crash()
					} else {
						c.db.Kill()
					}
					c.open(r)
				}
			}
			// It is at rest: each turn happened once, whatever was killed.
			for _, g := range c.graphs {
				if err := g.CatchUp(ctx); err != nil {
					t.Fatal(err)
				}
			}
			for i, name := range names {
				want := int64(0)
				for n := range turns + 1 {
					if (turns-n)%len(names) == i {
						want++
					}
				}
				for _, key := range []string{"x", "y"} {
					got, _, err := c.seen[i].Get(ctx, key)
					if there := c.there(name, key); got != want || there != want || err != nil {
						t.Errorf("%s in %s: %d in the view, %d in the topic, want %d: %v", key, name, got, there, want, err)
					}
				}
			}
			if err := c.db.DB.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A cycle that never rests keeps nobody waiting.
func TestEndlessCycle(t *testing.T) {
	f := newFixture(t, 1)
	var v *View[string, int64]
	g := f.graphOf(&Options{CommitInterval: ms}, func(g *Graph) {
		s := From(f.top, codec.String, codec.String)
		v = Add(g, "v", Count(s))
		To(g, s, f.top)
	})
	f.put(f.top, "a=1")
	last := int64(0)
	for range 20 {
		n, _, err := v.Get(f.ctx, "a")
		if err != nil || n < 1 || n < last {
			t.Fatalf("%d after %d: %v", n, last, err)
		}
		if last = n; n < 4 { // it goes on by itself
			if err := g.Wait(f.ctx, embedlog.Position{Topic: "t", Offset: n}); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.close(g)
}
