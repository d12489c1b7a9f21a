package raftrepl

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/vfs"
)

func (c *simCluster) mustStart() {
	c.t.Helper()
	for _, n := range c.nodes {
		if err := n.start(); err != nil {
			c.t.Fatalf("node %d: %v", n.id, err)
		}
	}
}

func (c *simCluster) mustSettle() *simRun {
	c.t.Helper()
	l, err := c.settle(30 * time.Second)
	if err != nil {
		c.t.Fatal(err)
	}
	return l
}

// Whole nodes with TLS: they elect, replicate, lose a leader and take it back, serve each other's
// calls, and leave nothing behind.
func TestNodesReplicate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newSimCluster(t, 3, 3)
		var err error
		if c.ca, err = NewCA("shop"); err != nil {
			t.Fatal(err)
		}
		c.serve = func(_ context.Context, from int32, service string, request []byte) ([]byte, error) {
			return fmt.Appendf(nil, "%d %s %s", from, service, request), nil
		}
		defer c.close()
		c.mustStart()
		end := int64(0)
		for round := range 3 {
			l := c.mustSettle()
			for i := range 10 {
				r, err := l.p.Append(t.Context(), record(fmt.Sprintf("%d/%d", round, i)), nil)
				if err != nil || r.BaseOffset < end {
					t.Fatalf("append: offset %d, %v", r.BaseOffset, err)
				}
				end = r.BaseOffset + 1
			}
			other := l.n.id%3 + 1
			got, err := l.node.Call(t.Context(), other, "echo", []byte("x"))
			if want := fmt.Sprintf("%d echo x", l.n.id); err != nil || string(got) != want {
				t.Errorf("call: %q, %v, want %q", got, err, want)
			}
			l.n.crash(round%2 == 0, uint64(round))
			next := c.mustSettle()
			if next.n == l.n {
				t.Fatal("who is down leads")
			}
			if _, err := next.node.Call(t.Context(), l.n.id, "echo", nil); !errors.Is(err, engine.ErrPeerUnreachable) {
				t.Errorf("call of a node that is down: %v", err)
			}
			if err := l.n.start(); err != nil {
				t.Fatal(err)
			}
		}
		l := c.mustSettle()
		if l.p.HighWatermark() != 30 {
			t.Errorf("high watermark %d, want 30", l.p.HighWatermark())
		}
		if err := c.same(l); err != nil {
			t.Error(err)
		}
	})
}

// A node that joins says where it is, and is made a member of a group then.
func TestNodeJoins(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newSimCluster(t, 3, 4)
		defer c.close()
		var err error
		if c.ca, err = NewCA("shop"); err != nil { // who has a certificate may knock
			t.Fatal(err)
		}
		c.nodes[3].join = simAddress(1)
		c.mustStart()
		l := c.mustSettle()
		if _, err := l.p.Append(t.Context(), record("before"), nil); err != nil {
			t.Fatal(err)
		}
		// It announces itself to one node; the metadata's part is to tell the others.
		time.Sleep(5 * time.Second)
		known := 0
		for _, n := range c.nodes[:3] {
			r := n.run.Load()
			if a, ok := r.node.address(4); ok {
				known++
				for _, other := range c.nodes[:3] {
					other.run.Load().node.learn(4, a)
				}
			}
		}
		if known == 0 {
			t.Fatal("nobody knows where node 4 is")
		}
		c.nodes[3].run.Load().node.learn(l.n.id, simAddress(l.n.id))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := c.mustSettle().g.SetMembers(ctx, []int32{1, 2, 3, 4}); err != nil {
			t.Fatal(err)
		}
		l = c.mustSettle()
		if err := c.same(l); err != nil {
			t.Error(err)
		}
		if hw := c.nodes[3].run.Load().p.HighWatermark(); hw != 1 {
			t.Errorf("node 4 has %d records, want 1", hw)
		}
	})
}

func TestBootsAreCounted(t *testing.T) {
	for k := 0; ; k++ { // a crash at any operation leaves a count that does not go back
		fs := vfs.NewMem(vfs.CrashAt(k))
		last := uint64(0)
		for range 3 {
			n, err := countBoot(fs, false)
			if err != nil {
				break
			}
			if n != last+1 {
				t.Fatalf("boot %d is counted as %d", last+1, n)
			}
			last = n
		}
		if !fs.Crashed() {
			break
		}
		if n, err := countBoot(fs.AfterCrash(vfs.Random(uint64(k))), last > 0); err != nil || n <= last {
			t.Fatalf("crash at operation %d: boot %d behind %d, %v", k, n, last, err)
		}
	}
}

func TestNodeStartsOnceAndClosesTwice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newSimCluster(t, 1, 1)
		defer c.close()
		c.mustStart()
		r := c.nodes[0].run.Load()
		if err := r.node.Start(simHost{r}); err == nil {
			t.Error("it starts twice")
		}
		c.mustSettle()
		c.nodes[0].stop()
		if err := r.node.Close(); err != nil {
			t.Errorf("closed again: %v", err)
		}
		if _, err := r.node.Call(t.Context(), 2, "s", nil); !errors.Is(err, engine.ErrPeerUnreachable) {
			t.Errorf("call of a closed node: %v", err)
		}
	})
}

// A node that starts connects with the others: those that have failed to reach it while it was down
// would wait, and it has nothing to say before it misses a leader.
func TestStartedNodeConnects(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newSimCluster(t, 3, 3)
		defer c.close()
		c.mustStart()
		l := c.mustSettle()
		n := c.nodes[l.n.id%3]
		n.crash(false, 1)
		time.Sleep(time.Minute) // the pauses of the others have grown
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * firstRedial)
		connected := 0
		for _, other := range c.nodes {
			if other == n {
				continue
			}
			p := n.run.Load().node.transport.peer(other.id)
			p.mu.Lock()
			if p.slots[flavourMain].wire != nil {
				connected++
			}
			p.mu.Unlock()
		}
		if connected != 2 {
			t.Errorf("it has connections with %d nodes, not 2", connected)
		}
	})
}
