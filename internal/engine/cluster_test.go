package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/clustertest"
	. "github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

var ctx = context.Background()

// meta is the log of the metadata.
var meta LogID

// peers are engines that are one cluster, each with its own disk.
type peers struct {
	t     testing.TB
	net   *clustertest.Net
	files map[int32]vfs.FS
	open  map[int32]*Engine
	nodes map[int32]*clustertest.Node
	quiet bool                    // what is logged is not wanted
	ahead map[int32]time.Duration // of the clocks of nodes, set before they start
	// preferred is Options.PreferredLeaders: -1, so that leaders stay where a test has put them.
	preferred time.Duration
}

// newPeers opens nodes 1 to n, which begin a cluster together, and waits until all of
// them are registered.
func newPeers(t testing.TB, n int32) *peers {
	var all []int32
	for id := range n {
		all = append(all, id+1)
	}
	p := &peers{t: t, net: clustertest.New(all...), files: map[int32]vfs.FS{}, open: map[int32]*Engine{}, nodes: map[int32]*clustertest.Node{}, preferred: -1}
	for _, id := range all {
		p.files[id] = vfs.NewMem()
		p.start(id)
	}
	t.Cleanup(p.stopAll)
	p.registered(all...)
	return p
}

func (p *peers) options(id int32) *Options {
	p.nodes[id] = p.net.Node(id)
	ahead := p.ahead[id]
	return &Options{FS: p.files[id], Cluster: p.nodes[id], MaintenanceInterval: -1, PreferredLeaders: p.preferred, Now: func() time.Time { return time.Now().Add(ahead) }, Logger: slog.New(slog.NewTextHandler(logTo{p}, nil)).With("node", id)}
}

// logTo writes what engines log where a test that fails shows it.
type logTo struct{ p *peers }

func (l logTo) Write(b []byte) (int, error) {
	if !l.p.quiet {
		l.p.t.Logf("%s", b[:len(b)-1])
	}
	return len(b), nil
}

func (p *peers) start(id int32) {
	p.t.Helper()
	e, err := Open(fmt.Sprint("node", id), p.options(id))
	if err != nil {
		p.t.Fatal(err)
	}
	p.open[id] = e
}

func (p *peers) stop(id int32) {
	p.t.Helper()
	if err := p.open[id].Close(); err != nil {
		p.t.Errorf("node %d: %v", id, err)
	}
	delete(p.open, id)
}

func (p *peers) stopAll() {
	for _, id := range []int32{1, 2, 3, 4, 5} {
		if p.open[id] != nil {
			p.stop(id)
		}
	}
}

// until waits for something that nodes do by themselves.
func (p *peers) until(what string, f func() bool) {
	p.t.Helper()
	for range 20_000 {
		if f() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	for id, e := range p.open {
		p.t.Logf("node %d: %+v", id, e.ClusterStatus())
	}
	p.t.Fatalf("it does not come: %s", what)
}

// registered waits until every open node knows of the nodes and their directories.
func (p *peers) registered(nodes ...int32) {
	p.t.Helper()
	p.until(fmt.Sprint("nodes ", nodes), func() bool {
		for _, e := range p.open {
			var has []int32
			for _, n := range e.Nodes() {
				if !n.Directory.IsZero() {
					has = append(has, n.ID)
				}
			}
			if !slices.Equal(has, nodes) {
				return false
			}
		}
		return true
	})
}

// leader is the engine that leads the metadata.
func (p *peers) leader() *Engine {
	for _, e := range p.open {
		node, _ := e.MetaLeader()
		return p.open[node]
	}
	return nil
}

// agree waits until all open nodes have applied what the leader has, and compares them.
func (p *peers) agree() {
	p.t.Helper()
	want := ""
	for id, e := range p.open {
		if err := e.SyncMetadata(ctx); err != nil {
			p.t.Fatal(err)
		}
		got := topics(e)
		if want == "" {
			want = got
		}
		if got != want {
			p.t.Fatalf("node %d has\n%s\nanother one\n%s", id, got, want)
		}
		for _, top := range e.Topics() {
			for _, part := range top.Partitions() {
				mine := slices.Contains(top.Replicas(part.ID()), id)
				if mine != (part.Replicated() != nil) || mine == part.Elsewhere() {
					p.t.Errorf("node %d: %s of %v: %v", id, part, top.Replicas(part.ID()), part.Err())
				}
			}
		}
	}
}

func topics(e *Engine) (text string) {
	for _, t := range e.Topics() {
		retention, _ := t.Settings().Get("retention.ms")
		text += fmt.Sprintf("%s %s retention %s factor %d", t.Name(), t.ID(), retention, t.ReplicationFactor())
		for n := range t.Partitions() {
			text += fmt.Sprint(" ", t.Replicas(int32(n)))
		}
		text += "\n"
	}
	return text
}

func (p *peers) create(name string, partitions, factor int) *Topic {
	p.t.Helper()
	t, err := p.leader().CreateTopic(ctx, TopicSpec{Name: name, Partitions: partitions, ReplicationFactor: factor})
	if err != nil {
		p.t.Fatal(err)
	}
	return t
}

// dirs are the directories of partitions that a node has.
func (p *peers) dirs(id int32, topic TopicID) (names []string) {
	infos, err := p.files[id].List("topics/" + topic.String())
	if err != nil && !isNotExist(err) {
		p.t.Fatal(err)
	}
	for _, info := range infos {
		if info.Dir {
			names = append(names, info.Name)
		}
	}
	return names
}

func isNotExist(err error) bool { return err != nil && errors.Is(err, fs.ErrNotExist) }

// What the leader makes is made on all nodes, and what one replica takes is on the
// others.
func TestTopicsOnAllNodes(t *testing.T) { synctest.Test(t, testTopicsOnAllNodes) }

func testTopicsOnAllNodes(t *testing.T) {
	p := newPeers(t, 3)
	p.create("orders", 4, 0)
	p.create("small", 3, 1)
	p.agree()
	lead := p.leader()
	if err := lead.AlterTopic(ctx, "orders", map[string]string{"retention.ms": "7"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := lead.AddPartitions(ctx, "small", 6); err != nil {
		t.Fatal(err)
	}
	p.agree()
	top, err := lead.Topic("orders")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range top.Partitions() {
		node, _ := part.Leader()
		at, err := p.open[node].Topic("orders")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := at.Partitions()[part.ID()].Append(ctx, []log.Record{{Value: []byte("v")}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for id, e := range p.open {
		at, _ := e.Topic("orders")
		for _, part := range at.Partitions() {
			if part.HighWatermark() != 1 {
				t.Errorf("node %d: %s ends at %d", id, part, part.HighWatermark())
			}
		}
	}
	if err := lead.DeleteTopic(ctx, "orders"); err != nil {
		t.Fatal(err)
	}
	p.agree()
	p.until("files are gone", func() bool {
		for id, e := range p.open {
			if len(e.Info().Deleting) > 0 || len(p.dirs(id, top.ID())) > 0 {
				return false
			}
		}
		return true
	})
	if _, err := lead.CreateTopic(ctx, TopicSpec{Name: "many", ReplicationFactor: 4}); !errors.Is(err, ErrInvalidReplicationFactor) {
		t.Errorf("four replicas on three nodes: %v", err)
	}
}

// A change that is under way when another node becomes the leader holds, or it does
// not, or is said to be unknown; all nodes say the same.
func TestLeaderMovesWithinAChange(t *testing.T) { synctest.Test(t, testLeaderMovesWithinAChange) }

func testLeaderMovesWithinAChange(t *testing.T) {
	p := newPeers(t, 3)
	for i := range 3 {
		lead := p.leader()
		release := p.net.Hold(meta)
		done := make(chan error)
		name := fmt.Sprint("t", i)
		go func() {
			_, err := lead.CreateTopic(ctx, TopicSpec{Name: name})
			done <- err
		}()
		time.Sleep(time.Duration(i) * 5 * time.Millisecond) // before, or in the middle
		next := lead.NodeID()%3 + 1
		if err := p.net.Elect(meta, next); err != nil {
			t.Fatal(err)
		}
		release()
		err := <-done
		if err != nil && !errors.Is(err, partition.ErrNotLeader) && !errors.Is(err, partition.ErrUnknownOutcome) {
			t.Fatal(err)
		}
		p.agree()
		_, there := p.leader().Topic(name)
		if (err == nil) != (there == nil) && !errors.Is(err, partition.ErrUnknownOutcome) {
			t.Errorf("create says %v, and the topic %v", err, there)
		}
		// A follower has the leader do it.
		if _, err := lead.CreateTopic(ctx, TopicSpec{Name: name}); errors.Is(err, ErrTopicExists) != (there == nil) || err != nil && there != nil {
			t.Errorf("a change at a follower, where the topic was there: %t: %v", there == nil, err)
		}
		if _, err := lead.AllocateProducerID(ctx); err != nil {
			t.Errorf("producer ids from a follower: %v", err)
		}
	}
}

// Without a majority a change does not end before its context, and what became of it is
// unknown.
func TestChangeWithoutAMajority(t *testing.T) { synctest.Test(t, testChangeWithoutAMajority) }

func testChangeWithoutAMajority(t *testing.T) {
	p := newPeers(t, 3)
	lead := p.leader()
	release := p.net.Hold(meta)
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := lead.CreateTopic(short, TopicSpec{Name: "t"}); !errors.Is(err, partition.ErrUnknownOutcome) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	release()
	p.until("the topic", func() bool {
		_, err := lead.Topic("t")
		return err == nil
	})
	p.agree()
}

// A node that was away when topics were made, altered and deleted agrees when it is back,
// and files of topics that were deleted wait for it.
func TestNodeThatWasAway(t *testing.T) { synctest.Test(t, testNodeThatWasAway) }

func testNodeThatWasAway(t *testing.T) {
	p := newPeers(t, 3)
	gone := p.create("gone", 2, 3)
	kept := p.create("kept", 2, 3)
	p.agree()
	p.stop(3)
	lead := p.leader()
	for _, do := range []func() error{
		func() error { return lead.DeleteTopic(ctx, "gone") },
		func() error { return lead.AddPartitions(ctx, "kept", 3) },
		func() error { return lead.AlterTopic(ctx, "kept", map[string]string{"retention.ms": "9"}, nil) },
		func() error { _, err := lead.CreateTopic(ctx, TopicSpec{Name: "gone", Partitions: 3}); return err },
		func() error { _, err := lead.CreateTopic(ctx, TopicSpec{Name: "brief"}); return err },
		func() error { return lead.DeleteTopic(ctx, "brief") },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	if len(lead.Info().Deleting) != 2 {
		t.Errorf("files that wait: %+v", lead.Info().Deleting)
	}
	if len(p.dirs(3, gone.ID())) != 2 || len(p.dirs(3, kept.ID())) != 2 {
		t.Error("a node that is closed changed its files")
	}
	p.start(3)
	p.until("all is gone", func() bool {
		return len(lead.Info().Deleting) == 0 && len(p.dirs(3, gone.ID())) == 0 && len(p.dirs(3, kept.ID())) == 3
	})
	p.agree()
	for _, id := range []int32{1, 2, 3} {
		if orphans := p.orphans(id); len(orphans) > 0 {
			t.Errorf("node %d: moved aside: %v", id, orphans)
		}
	}
}

func (p *peers) orphans(id int32) (names []string) {
	infos, err := p.files[id].List("topics")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, info := range infos {
		if _, err := ParseTopicID(info.Name); err != nil {
			names = append(names, info.Name)
		}
	}
	return names
}

// A directory that was used alone becomes the first node, with its id and all that it
// holds; the others get it, and then it may go.
func TestFromOneToThree(t *testing.T) { synctest.Test(t, testFromOneToThree) }

func testFromOneToThree(t *testing.T) {
	files := vfs.NewMem()
	e, err := Open("alone", &Options{FS: files})
	if err != nil {
		t.Fatal(err)
	}
	top, err := e.CreateTopic(ctx, TopicSpec{Name: "orders", Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, err := top.Partitions()[i%2].Append(ctx, []log.Record{{Value: []byte{byte(i)}}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	cluster := e.Info().ClusterID
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	p := &peers{t: t, net: clustertest.New(), files: map[int32]vfs.FS{1: files, 2: vfs.NewMem(), 3: vfs.NewMem()}, open: map[int32]*Engine{}, nodes: map[int32]*clustertest.Node{}, preferred: -1}
	t.Cleanup(p.stopAll)
	p.start(1)
	p.registered(1)
	first := p.open[1]
	if i := first.Info(); i.ClusterID != cluster || i.NodeID != 1 {
		t.Errorf("cluster %s, node %d; it was %s", i.ClusterID, i.NodeID, cluster)
	}
	if at, err := first.Topic("orders"); err != nil || at.ID() != top.ID() || !slices.Equal(at.Replicas(1), []int32{1}) {
		t.Fatal(at, err)
	}
	for id := int32(2); id <= 3; id++ {
		p.start(id)
		if err := first.AddNode(ctx, id, fmt.Sprint("node-", id)); err != nil {
			t.Fatal(err)
		}
	}
	p.registered(1, 2, 3)
	if err := first.SetReplicationFactor(ctx, "orders", 3); err != nil {
		t.Fatal(err)
	}
	p.agree()
	p.until("all have it", func() bool { return p.everywhere("orders", 5, 1, 2, 3) })
	if _, err := Open("node1", &Options{FS: files}); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	// And the first one goes.
	if err := first.DrainNode(ctx, 1); err != nil {
		t.Fatal(err)
	}
	p.until("node 1 has no replica", func() bool {
		at, err := first.Topic("orders")
		return err == nil && at.Partitions()[0].Elsewhere() && at.Partitions()[1].Elsewhere() && len(p.dirs(1, top.ID())) == 0
	})
	p.agree()
	p.until("node 1 knows who leads", func() bool {
		at, _ := first.Topic("orders")
		node, _ := at.Partitions()[0].Leader()
		return node == 2 || node == 3
	})
	at, _ := first.Topic("orders")
	// An append where there is no replica is refused, or taken, by who leads.
	var other *partition.UnexpectedOffsetError
	o := &partition.AppendOptions{Expect: true, ExpectedOffset: 1}
	if _, err := at.Partitions()[0].Append(ctx, []log.Record{{Value: []byte("v")}}, o); !errors.As(err, &other) || other.LogEnd != 5 {
		t.Errorf("append where there is no replica: %v", err)
	}
	p.until("node 1 is removed", func() bool { // as soon as the groups say that they have let it go
		err := first.RemoveNode(ctx, 1)
		if err != nil && !strings.Contains(err.Error(), "still a member") {
			t.Fatal(err)
		}
		return err == nil
	})
	time.Sleep(10 * time.Second) // it does not come back by itself
	// What it asks others for is refused, in a read as in a write.
	if _, err := at.Partitions()[0].Append(ctx, []log.Record{{Value: []byte("v")}}, nil); !errors.Is(err, ErrNodeRemoved) {
		t.Errorf("append at a node that was removed: %v", err)
	}
	if _, err := at.Partitions()[0].ReadIndex(ctx); !errors.Is(err, ErrNodeRemoved) {
		t.Errorf("read at a node that was removed: %v", err)
	}
	if why := first.ClusterStatus()[0].Reason; !strings.Contains(why, "node 1 was removed from the cluster") {
		t.Errorf("its status says %q", why)
	}
	if nodes := p.open[2].Nodes(); len(nodes) != 2 {
		t.Errorf("after one was removed there are %+v", nodes)
	}
	if s := p.open[2].ClusterStatus()[0]; len(s.Members) != 2 || s.Leader == 1 {
		t.Errorf("members of the metadata's group: %+v", s)
	}
	p.stop(1)
	p.until("two nodes", func() bool { lead := p.leader(); return lead != nil && len(lead.Nodes()) == 2 })
	if !p.everywhere("orders", 5, 2, 3) {
		t.Error("records are lost")
	}
	if _, err := Open("node1", &Options{FS: files}); !errors.Is(err, ErrInvalidNode) {
		t.Errorf("a node's directory opened alone: %v", err)
	}
}

// everywhere says whether nodes have so many records in each partition of a topic.
func (p *peers) everywhere(name string, records int64, nodes ...int32) bool {
	for _, id := range nodes {
		top, err := p.open[id].Topic(name)
		if err != nil {
			return false
		}
		for _, part := range top.Partitions() {
			if part.HighWatermark() != records || part.Elsewhere() {
				return false
			}
		}
	}
	return true
}

// Replicas that are assigned anew begin empty and get the log; those that are not go when
// the group has let them.
func TestReassign(t *testing.T) { synctest.Test(t, testReassign) }

func testReassign(t *testing.T) {
	p := newPeers(t, 3)
	top, err := p.leader().CreateTopic(ctx, TopicSpec{Name: "t", Replicas: [][]int32{{1}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.open[1].Topics()[0].Partitions()[0].Append(ctx, []log.Record{{Value: []byte("v")}}, nil); err != nil {
		t.Fatal(err)
	}
	for _, nodes := range [][]int32{{2, 3}, {1, 2, 3}, {3}, {2, 1}} {
		if err := p.leader().Reassign(ctx, "t", 0, nodes); err != nil {
			t.Fatal(err)
		}
		p.until(fmt.Sprint("replicas are ", nodes), func() bool {
			for id := range p.open {
				at, err := p.open[id].Topic("t")
				if err != nil {
					return false
				}
				part, mine := at.Partitions()[0], slices.Contains(nodes, id)
				if mine != (len(p.dirs(id, top.ID())) == 1) || mine == part.Elsewhere() || mine && part.HighWatermark() != 1 {
					return false
				}
				if leader, _ := part.Leader(); !slices.Contains(nodes, leader) {
					return false
				}
			}
			return true
		})
		p.agree()
	}
	for _, row := range []struct {
		nodes []int32
		want  error
	}{{nil, ErrInvalidAssignment}, {[]int32{1, 1}, ErrInvalidAssignment}, {[]int32{4}, ErrInvalidAssignment}} {
		if err := p.leader().Reassign(ctx, "t", 0, row.nodes); !errors.Is(err, row.want) {
			t.Errorf("replicas %v: %v", row.nodes, err)
		}
	}
	if err := p.leader().Reassign(ctx, "t", 1, []int32{1}); !errors.Is(err, ErrUnknownPartition) {
		t.Error(err)
	}
	if err := p.leader().RemoveNode(ctx, 1); !errors.Is(err, ErrInvalidNode) {
		t.Errorf("a node with a replica removed: %v", err)
	}
}

// A directory that is not the one that is registered for its node has no part in
// anything, and says why; one of another node, or cluster, is not opened.
func TestDirectoriesOfOthers(t *testing.T) { synctest.Test(t, testDirectoriesOfOthers) }

func testDirectoriesOfOthers(t *testing.T) {
	p := newPeers(t, 3)
	p.quiet = true
	p.create("t", 1, 3)
	p.agree()
	p.stop(2)
	p.stop(3)
	two := p.files[2]
	p.files[2] = vfs.NewMem() // somebody emptied it, and with it what it has promised
	if err := p.nodes[2].Forget(meta, true); err != nil {
		t.Fatal(err)
	}
	p.start(2)
	time.Sleep(10 * time.Second)
	e := p.open[2]
	top, err := e.Topic("t")
	if err != nil {
		t.Fatal(err)
	}
	if !top.Partitions()[0].Elsewhere() || !strings.Contains(e.ClusterStatus()[0].Reason, "registered with") {
		t.Errorf("an emptied directory takes part: %+v", e.ClusterStatus())
	}
	p.stop(2)
	p.files[2] = two
	if _, err := Open("node3", &Options{FS: two, Cluster: p.net.Node(3)}); !errors.Is(err, ErrInvalidNode) {
		t.Errorf("node 2's directory opened as node 3's: %v", err)
	}
	if _, err := Open("node2", &Options{FS: two}); !errors.Is(err, ErrInvalidNode) {
		t.Errorf("opened without its cluster: %v", err)
	}
	if _, err := Open("node0", &Options{FS: vfs.NewMem(), Cluster: p.net.Node(0)}); !errors.Is(err, ErrInvalidNode) {
		t.Errorf("node 0: %v", err)
	}
	p.start(2)
	p.until("node 2 has its replica", func() bool {
		top, err := p.open[2].Topic("t")
		return err == nil && !top.Partitions()[0].Elsewhere()
	})
}

// A node that is drained gets nothing new, until it is taken back.
func TestDrain(t *testing.T) { synctest.Test(t, testDrain) }

func testDrain(t *testing.T) {
	p := newPeers(t, 3)
	lead := p.leader()
	if err := lead.DrainNode(ctx, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := lead.CreateTopic(ctx, TopicSpec{Name: "three", ReplicationFactor: 3}); !errors.Is(err, ErrInvalidReplicationFactor) {
		t.Errorf("three replicas on two nodes: %v", err)
	}
	if top := p.create("t", 4, 0); top.ReplicationFactor() != 2 {
		t.Errorf("%d replicas", top.ReplicationFactor())
	}
	if err := lead.DrainNode(ctx, 9); !errors.Is(err, ErrUnknownNode) {
		t.Error(err)
	}
	if err := lead.Undrain(ctx, 2); err != nil {
		t.Fatal(err)
	}
	if err := lead.SetReplicationFactor(ctx, "t", 3); err != nil {
		t.Fatal(err)
	}
	if err := lead.DrainNode(ctx, 3); err != nil { // there is nobody to take them
		t.Fatal(err)
	}
	time.Sleep(10 * time.Second)
	p.agree()
	top, _ := lead.Topic("t")
	for n := range top.Partitions() {
		if nodes := top.Replicas(int32(n)); len(nodes) != 2 || slices.Contains(nodes, 3) {
			t.Errorf("partition %d is on %v", n, nodes)
		}
	}
	if !lead.Nodes()[2].Draining {
		t.Error("node 3 is not said to be drained")
	}
	if err := lead.DrainNode(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if err := lead.DrainNode(ctx, 2); !errors.Is(err, ErrInvalidReplicationFactor) {
		t.Errorf("the last one drained: %v", err)
	}
}

// Fewer replicas are first those that are not there, and more are first on nodes that are: else the records of a topic
// that goes from three replicas to two may depend on a node that is gone.
func TestFactorLooksAtWhoIsThere(t *testing.T) { synctest.Test(t, testFactorLooksAtWhoIsThere) }

func testFactorLooksAtWhoIsThere(t *testing.T) {
	p := newPeers(t, 4)
	p.create("down", 8, 3)
	p.create("up", 8, 1)
	lead := p.leader()
	gone := lead.NodeID()%4 + 1
	time.Sleep(10 * time.Second)
	p.stop(gone)
	time.Sleep(time.Minute)
	for _, topic := range []string{"down", "up"} {
		if err := lead.SetReplicationFactor(ctx, topic, 2); err != nil {
			t.Fatal(err)
		}
		top, err := lead.Topic(topic)
		if err != nil {
			t.Fatal(err)
		}
		was := 0
		for n := range top.Partitions() {
			nodes := top.Replicas(int32(n))
			if slices.Contains(nodes, gone) {
				was++
			}
			if len(nodes) != 2 || topic == "down" && slices.Contains(nodes, gone) {
				t.Errorf("%s/%d is on %v, node %d is gone", topic, n, nodes, gone)
			}
		}
		if topic == "up" && was != 2 { // those whose only replica is there
			t.Errorf("%d partitions of %s are on node %d, which is gone", was, topic, gone)
		}
	}
}

// What a drain has no room for is remembered, and made good when there is room: by a node that is added, by one that is
// taken back, and after a drain of which nothing but the intention was written.
func TestPlacesAreFoundLater(t *testing.T) { synctest.Test(t, testPlacesAreFoundLater) }

func testPlacesAreFoundLater(t *testing.T) {
	p := newPeers(t, 3)
	p.create("three", 2, 3)
	p.create("one", 3, 1)
	lead := p.leader()
	on := func(topic string, want func(nodes []int32) bool) func() bool {
		return func() bool {
			top, err := lead.Topic(topic)
			if err != nil {
				return false
			}
			for n := range top.Partitions() {
				if !want(top.Replicas(int32(n))) {
					return false
				}
			}
			return true
		}
	}
	without := func(node int32, many int) func([]int32) bool {
		return func(nodes []int32) bool { return len(nodes) == many && !slices.Contains(nodes, node) }
	}
	gone := lead.NodeID()%3 + 1
	// A node that is gone has what no other node has: that is not given up.
	if err := lead.Reassign(ctx, "one", 0, []int32{gone}); err != nil {
		t.Fatal(err)
	}
	p.until("it is there", func() bool {
		part := p.open[gone].Topics()
		return len(part) > 0 && on("one", func([]int32) bool { return true })()
	})
	time.Sleep(10 * time.Second)
	p.stop(gone)
	time.Sleep(time.Minute)
	err := lead.DrainNode(ctx, gone)
	if !errors.Is(err, ErrInvalidNode) || !strings.Contains(err.Error(), "one/0") || !strings.Contains(err.Error(), "--accept-loss") {
		t.Errorf("the only replica of a node that is gone: %v", err)
	}
	if lead.Nodes()[gone-1].Draining {
		t.Error("it is drained although that was refused")
	}
	if err := lead.DrainLostNode(ctx, gone); err != nil {
		t.Fatal(err)
	}
	p.until("there is one replica less", on("three", without(gone, 2)))
	p.until("status says so", func() bool { // the member that goes is said before
		top, err := lead.Topic("three")
		return err == nil && top.ReplicationFactor() == 3 && strings.Contains(top.Partitions()[0].Status().Reason, "2 of 3 replicas")
	})
	time.Sleep(time.Minute)
	if !on("three", without(gone, 2))() {
		t.Error("a replica went to a node that is drained or gone")
	}
	// The replacement.
	p.files[4] = vfs.NewMem()
	if err := lead.AddNode(ctx, 4, "node-4"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
	if !on("three", without(4, 2))() {
		t.Error("a replica went to a node that never came")
	}
	p.start(4)
	p.until("the new node has the third", on("three", without(gone, 3)))
	// Of a drain that was interrupted only the intention is written. Its leader, or the next one, goes on with it.
	if err := lead.SetReplicationFactor(ctx, "three", 2); err != nil {
		t.Fatal(err)
	}
	if err := DrainOnly(ctx, lead, 4); err != nil {
		t.Fatal(err)
	}
	p.until("node 4 has none", func() bool {
		return on("three", without(4, 2))() && on("one", without(4, 1))()
	})
	// Chosen by hand, fewer are wanted from then on.
	for n := range int32(2) {
		if err := lead.Reassign(ctx, "three", n, []int32{lead.NodeID()}); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Minute)
	if !on("three", without(4, 1))() {
		t.Error("replicas that were taken away by hand are there again")
	}
	if err := lead.Undrain(ctx, 4); err != nil {
		t.Fatal(err)
	}
	p.agree()
}
