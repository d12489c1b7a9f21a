package query

import (
	"context"
	"sync"
	"testing"
	"time"
)

// A graph that is closed at the node that has a task, and its database after it, is no error for readers at others: they have their answers from who takes over.
func TestReadsWhileOwnersClose(t *testing.T) {
	c := openNodes(t, 3)
	c.produce(0, 20)
	c.check("at first", 0, 1, 2)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stop := make(chan struct{})
	var reading sync.WaitGroup
	defer reading.Wait()
	defer close(stop)
	for range 4 {
		reading.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, key := range []string{"k1", "k2", "k3"} {
					if _, found, err := c.key[0].Get(ctx, key); !found || err != nil {
						t.Errorf("%s: %v, %v", key, found, err)
						return
					}
				}
				if n, err := c.key[0].Len(ctx); n != 5 || err != nil {
					t.Errorf("%d rows, %v", n, err)
					return
				}
			}
		})
	}
	for i := range 6 {
		node := 1 + i%2
		for p := range int32(5) {
			if err := c.lead(c.graph[0].progressName(), p, int32(node+1)); err != nil {
				t.Fatal(err)
			}
		}
		c.until("it has tasks", func() bool { return len(c.owns(node)) > 0 })
		if i < 4 {
			if err := c.graph[node].Close(); err != nil {
				t.Fatal(err)
			}
		} else {
			if err := c.dbs[node].Close(); err != nil {
				t.Fatal(err)
			}
			c.open(node)
		}
		c.start(node)
	}
}
