package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/clustertest"
	. "github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/vfs"
)

// Leads go back to where they were meant to be by themselves, when the preferred leader was well for long
// enough, and one a second.
func TestPreferredLeadersComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t, 3)
		top := p.create("orders", 6, 3)
		p.agree()
		elsewhere := func() (n int) {
			for i := range top.Partitions() {
				part := p.open[1].Topics()[0].Partitions()[i]
				if node, _ := part.Leader(); node != top.Replicas(int32(i))[0] {
					n++
				}
			}
			return n
		}
		move := func() {
			t.Helper()
			for i := range top.Partitions() {
				to := top.Replicas(int32(i))[1]
				if err := p.net.Elect(LogID{Topic: top.ID(), Partition: int32(i)}, to); err != nil {
					t.Fatal(err)
				}
			}
		}
		move()
		time.Sleep(5 * time.Minute)
		if n := elsewhere(); n != 6 {
			t.Fatalf("switched off, and %d of 6 leads are elsewhere", n)
		}
		p.preferred = time.Minute
		for id := int32(1); id <= 3; id++ {
			p.stop(id)
			p.start(id)
		}
		p.registered(1, 2, 3)
		time.Sleep(5 * time.Second)
		move()
		time.Sleep(50 * time.Second)
		if n := elsewhere(); n != 6 {
			t.Errorf("before the time, %d of 6 leads are elsewhere", n)
		}
		time.Sleep(time.Minute)
		if n := elsewhere(); n != 0 {
			t.Errorf("%d of 6 leads are elsewhere", n)
		}
	})
}

// Whoever is asked, the node that leads a partition gives the lead away.
func TestTransferFromAnyNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t, 3)
		top := p.create("orders", 1, 2)
		p.agree()
		replicas := top.Replicas(0)
		third := 6 - replicas[0] - replicas[1]
		for _, asked := range []int32{1, 2, 3} {
			for _, to := range replicas {
				if err := p.open[asked].TransferLeadership(ctx, "orders", 0, to); err != nil {
					t.Fatalf("node %d asked for node %d: %v", asked, to, err)
				}
				p.until("that one leads", func() bool {
					part := p.open[to].Topics()[0].Partitions()[0]
					return part.Leads()
				})
			}
			for _, none := range []int32{third, 9} {
				err := p.open[asked].TransferLeadership(ctx, "orders", 0, none)
				if !errors.Is(err, ErrInvalidAssignment) || !strings.Contains(err.Error(), "has no replica") {
					t.Errorf("node %d asked for node %d: %v", asked, none, err)
				}
			}
		}
		if moved, err := p.open[third].ElectPreferred(ctx); err != nil || moved != 1 {
			t.Errorf("%d moved, %v", moved, err)
		}
	})
}

// A topic that needs nodes which are expected waits for them, as long as the caller does.
func TestTopicWaitsForNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t, 1)
		e := p.open[1]
		if err := e.AddNode(ctx, 2, "node-2"); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := e.CreateTopic(short, TopicSpec{Name: "orders", ReplicationFactor: 2})
		if !errors.Is(err, ErrInvalidReplicationFactor) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 more known that never came") {
			t.Errorf("a second for a node that does not come: %v", err)
		}
		began := time.Now()
		if _, err = e.CreateTopic(ctx, TopicSpec{Name: "orders", ReplicationFactor: 3}); !errors.Is(err, ErrInvalidReplicationFactor) || time.Since(began) > 0 {
			t.Errorf("more than there can be: %v after %v", err, time.Since(began))
		}
		var comes sync.WaitGroup
		comes.Go(func() {
			time.Sleep(3 * time.Second)
			p.files[2] = vfs.NewMem()
			p.start(2)
		})
		top, err := e.CreateTopic(ctx, TopicSpec{Name: "orders", ReplicationFactor: 2})
		comes.Wait()
		if err != nil || len(top.Replicas(0)) != 2 || time.Since(began) < 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// A topic that is created as soon as a node of a new cluster is open waits for those that begin with it, on whichever node: it gets as many replicas as later ones.
func TestTopicOfNewCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peers{t: t, net: clustertest.New(1, 2, 3), files: map[int32]vfs.FS{}, open: map[int32]*Engine{}, nodes: map[int32]*clustertest.Node{}, preferred: -1}
		t.Cleanup(p.stopAll)
		var creating sync.WaitGroup
		for id := int32(1); id <= 3; id++ {
			p.files[id] = vfs.NewMem()
			p.start(id)
			e := p.open[id]
			creating.Go(func() {
				top, err := e.CreateTopic(ctx, TopicSpec{Name: fmt.Sprint("orders-", id)})
				if err != nil || len(top.Replicas(0)) != 3 {
					t.Errorf("at node %d: %v", id, err)
				}
			})
		}
		creating.Wait()
	})
}

// What would leave the cluster unable to decide anything, or waiting for nobody, is refused in words.
func TestNodesThatMustStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t, 3)
		p.create("orders", 1, 1)
		p.agree()
		e := p.leader()
		var others []int32
		for _, n := range e.Nodes() {
			if n.ID != e.NodeID() {
				others = append(others, n.ID)
			}
		}
		p.stop(others[0])
		time.Sleep(time.Minute)
		for _, row := range []struct {
			name string
			err  error
			is   error
			says string
		}{
			{"the majority", e.RemoveNode(ctx, others[1]), ErrInvalidNode, "which is no majority"},
			{"an address twice", e.AddNode(ctx, 4, "node-2"), ErrInvalidNode, "is where node 2 is"},
			{"nobody", e.RemoveNode(ctx, 9), ErrUnknownNode, "9"},
			{"a number twice", e.AddNode(ctx, others[1], "node-9"), ErrInvalidNode, "it is there already"},
			{"a new one", e.AddNode(ctx, 4, "node-4"), nil, ""},
			{"one that never came", e.Reassign(ctx, "orders", 0, []int32{4}), ErrInvalidAssignment, "node 4 was added and never came"},
			{"the one that is gone", e.RemoveNode(ctx, others[0]), nil, ""},
			{"the one that never came", e.RemoveNode(ctx, 4), nil, ""},
		} {
			if row.is == nil && row.err != nil && !strings.Contains(row.err.Error(), "has a replica") || row.is != nil && (!errors.Is(row.err, row.is) || !strings.Contains(row.err.Error(), row.says)) {
				t.Errorf("%s: %v", row.name, row.err)
			}
		}
		if slices.ContainsFunc(e.Nodes(), func(n NodeInfo) bool { return n.ID == 4 }) {
			t.Error("node 4 is still there")
		}
	})
}
