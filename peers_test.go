package embedlog_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/clustertest"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/vfs"
)

// peerSet is databases in one process that are one cluster.
type peerSet struct {
	t     *testing.T
	net   *clustertest.Net
	nodes []*clustertest.Node
	dbs   []*embedlog.DB // node i+1
}

func openPeers(t *testing.T, n int) *peerSet {
	t.Helper()
	var all []int32
	for i := range n {
		all = append(all, int32(i+1))
	}
	p := &peerSet{t: t, net: clustertest.New(all...)}
	for _, id := range all {
		node := p.net.Node(id)
		db, err := embedlog.OpenFS(vfs.NewMem(), &embedlog.Options{
			Replication: node, MaintenanceInterval: -1, PreferredLeaders: -1, Logger: slog.New(slog.NewTextHandler(logTo{t}, nil)).With("node", id),
		})
		if err != nil {
			t.Fatal(err)
		}
		p.nodes, p.dbs = append(p.nodes, node), append(p.dbs, db)
	}
	t.Cleanup(p.close)
	p.until("all nodes are registered", func() bool {
		for _, db := range p.dbs {
			for _, n := range db.Engine().Nodes() {
				if n.Directory.IsZero() {
					return false
				}
			}
			if len(db.Engine().Nodes()) != n {
				return false
			}
		}
		return true
	})
	return p
}

type logTo struct{ t testing.TB }

func (l logTo) Write(b []byte) (int, error) {
	l.t.Logf("%s", b[:len(b)-1])
	return len(b), nil
}

func (p *peerSet) close() {
	for _, n := range p.nodes {
		n.Cut(false)
		n.Lose(nil)
	}
	for _, db := range p.dbs {
		if err := db.Close(); err != nil {
			p.t.Errorf("close: %v", err)
		}
	}
}

func (p *peerSet) until(what string, f func() bool) {
	p.t.Helper()
	for range 2000 {
		if f() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	p.t.Fatalf("it does not come: %s", what)
}

// topic makes a topic at one node, and waits until all have it.
func (p *peerSet) topic(name string, partitions, factor int) {
	p.t.Helper()
	spec := engine.TopicSpec{Name: name, Partitions: partitions, ReplicationFactor: factor}
	top, err := p.dbs[1].Engine().CreateTopic(context.Background(), spec)
	if err != nil {
		p.t.Fatal(err)
	}
	p.until("topic "+name, func() bool {
		for _, db := range p.dbs {
			if t, err := db.Engine().TopicByID(top.ID()); err != nil || len(t.Partitions()) != partitions {
				return false
			}
		}
		return true
	})
}

func (p *peerSet) handle(i int, name string) *embedlog.Topic {
	p.t.Helper()
	t, err := p.dbs[i].Topic(name)
	if err != nil {
		p.t.Fatal(err)
	}
	return t
}

// read scans a topic at node i and returns "partition:value" in order of partitions.
func (p *peerSet) read(i int, name string) (list []string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for rec, err := range p.handle(i, name).Scan(ctx, &embedlog.ScanOptions{Linearizable: true}) {
		if err != nil {
			p.t.Fatalf("scan at node %d: %v", i+1, err)
		}
		list = append(list, fmt.Sprintf("%d:%s", rec.Partition, rec.Value))
	}
	return list
}

func value(s string) embedlog.Record { return embedlog.Record{Value: []byte(s)} }

// Any node takes records, and shows them, whoever has the replicas.
func TestPeersProduceAndScan(t *testing.T) {
	ctx := context.Background()
	p := openPeers(t, 3)
	p.topic("one", 3, 1)
	p.topic("all", 1, 3)
	var want []string
	for i := range p.dbs {
		for part := range int32(3) {
			v := fmt.Sprintf("n%d", i+1)
			at, err := p.handle(i, "one").ProduceTo(ctx, part, value(v))
			if err != nil {
				t.Fatalf("node %d, partition %d: %v", i+1, part, err)
			}
			if at[0].Offset != int64(i) {
				t.Errorf("node %d, partition %d: offset %d", i+1, part, at[0].Offset)
			}
			want = append(want, fmt.Sprintf("%d:%s", part, v))
		}
	}
	slices.Sort(want)
	for i := range p.dbs {
		if got := p.read(i, "one"); !slices.Equal(got, want) {
			t.Errorf("node %d reads %v, want %v", i+1, got, want)
		}
	}
	// What is refused is refused as it is alone.
	var at *embedlog.UnexpectedOffsetError
	for i := range p.dbs {
		if _, err := p.handle(i, "one").ProduceAt(ctx, 0, 7, value("x")); !errors.As(err, &at) || at.LogEnd != 3 {
			t.Errorf("node %d: %v", i+1, err)
		}
		big := embedlog.Record{Value: make([]byte, 2<<20)}
		if _, err := p.handle(i, "one").Produce(ctx, big); !errors.Is(err, embedlog.ErrRecordTooLarge) {
			t.Errorf("node %d: %v", i+1, err)
		}
		start, err := p.handle(i, "one").DeleteRecords(ctx, 1, int64(i+1))
		if err != nil || start != int64(i+1) {
			t.Errorf("node %d: log start %d, %v", i+1, start, err)
		}
		list, err := p.handle(i, "one").ListOffsets(ctx, embedlog.Earliest)
		if err != nil || list[1].Offset != int64(i+1) {
			t.Errorf("node %d: %v, %v", i+1, list, err)
		}
	}
}

// A topic that one node has made is there for all of them, at once.
func TestPeersEnsureTopic(t *testing.T) {
	ctx := context.Background()
	p := openPeers(t, 3)
	for i := range 30 {
		name := fmt.Sprint("t", i)
		if _, err := p.dbs[i%3].EnsureTopic(ctx, name, &embedlog.TopicConfig{Partitions: 2}); err != nil {
			t.Fatal(err)
		}
		for n := range p.dbs {
			if _, err := p.dbs[n].Topic(name); err != nil {
				t.Errorf("node %d: %v", n+1, err)
			}
		}
		var making sync.WaitGroup
		for n := range p.dbs { // together
			making.Go(func() {
				if _, err := p.dbs[n].EnsureTopic(ctx, name+"x", nil); err != nil {
					t.Errorf("node %d: %v", n+1, err)
				}
			})
		}
		making.Wait()
	}
	if _, err := p.dbs[2].Topic("none"); !errors.Is(err, embedlog.ErrUnknownTopic) {
		t.Errorf("got %v", err)
	}
	if err := p.dbs[2].DeleteTopic(ctx, "t3"); err != nil {
		t.Fatal(err)
	}
}

// A call whose answer is lost is not made again, unless the leader recognises it.
func TestPeersAnswerLost(t *testing.T) {
	ctx := context.Background()
	p := openPeers(t, 3)
	p.topic("a", 1, 3)
	top, _ := p.dbs[0].Engine().Topic("a")
	id := engine.LogID{Topic: top.ID()}
	if err := p.net.Elect(id, 1); err != nil {
		t.Fatal(err)
	}
	var lost atomic.Int32
	lose := func(service string) bool { return service == "append" && lost.Add(1) <= 2 }
	p.nodes[0].Lose(lose)
	if _, err := p.handle(1, "a").Produce(ctx, value("plain")); !errors.Is(err, embedlog.ErrUnknownOutcome) {
		t.Errorf("got %v", err)
	}
	if got := p.read(2, "a"); !slices.Equal(got, []string{"0:plain"}) {
		t.Errorf("got %v", got)
	}
	lost.Store(0)
	producer, err := p.dbs[1].Producer(nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if err := producer.Send(ctx, embedlog.Record{Topic: "a", Value: fmt.Append(nil, i)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := producer.Close(); err != nil {
		t.Fatal(err)
	}
	if want := []string{"0:plain", "0:0", "0:1", "0:2", "0:3", "0:4"}; !slices.Equal(p.read(1, "a"), want) {
		t.Errorf("got %v, want %v", p.read(1, "a"), want)
	}
	if lost.Load() < 3 {
		t.Errorf("only %d answers", lost.Load())
	}
}

// A call waits for a leader as long as its context allows.
func TestPeersWaitForALeader(t *testing.T) {
	p := openPeers(t, 3)
	p.topic("a", 1, 3)
	top, _ := p.dbs[0].Engine().Topic("a")
	id := engine.LogID{Topic: top.ID()}
	p.net.Depose(id)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.handle(1, "a").Produce(ctx, value("x")); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, embedlog.ErrUnknownOutcome) {
		t.Errorf("got %v", err)
	}
	done := make(chan error)
	go func() {
		_, err := p.handle(1, "a").Produce(context.Background(), value("y"))
		done <- err
	}()
	if err := p.net.Elect(id, 3); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := p.read(0, "a"); !slices.Equal(got, []string{"0:y"}) {
		t.Errorf("got %v", got)
	}
}

// Random producers at random nodes, while leaders move and nodes are cut off: each
// acknowledged record is there once, each producer's in order, and the others are there
// once or not at all, where that is unknown.
func TestPeersUnderElections(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	p := openPeers(t, 3)
	p.topic("a", 2, 3)
	top, _ := p.dbs[0].Engine().Topic("a")
	stop := make(chan struct{})
	var chaos sync.WaitGroup
	chaos.Go(func() {
		r := rand.New(rand.NewPCG(seed, 0))
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(r.IntN(3000)) * time.Microsecond):
			}
			id := engine.LogID{Topic: top.ID(), Partition: r.Int32N(2)}
			switch r.IntN(6) {
			case 0:
				p.net.Depose(id)
			case 1:
				n := p.nodes[r.IntN(3)]
				n.Cut(true)
				time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)
				n.Cut(false)
			case 2:
				var count atomic.Int32
				p.nodes[r.IntN(3)].Lose(func(s string) bool { return s == "append" && count.Add(1) == 1 })
			default:
				_ = p.net.Elect(id, 1+r.Int32N(3))
			}
		}
	})
	const each = 150
	type sent struct{ acked, unknown map[string]bool }
	results := make([]sent, 4)
	var work sync.WaitGroup
	for w := range results {
		res := &results[w]
		res.acked, res.unknown = map[string]bool{}, map[string]bool{}
		work.Go(func() {
			ctx := context.Background()
			if w < 2 { // an idempotent producer at one node
				producer, err := p.dbs[w].Producer(nil)
				if err != nil {
					t.Error(err)
					return
				}
				var mu sync.Mutex
				for i := range each {
					v := fmt.Sprintf("w%d-%05d", w, i)
					rec := embedlog.Record{Topic: "a", Key: fmt.Append(nil, w), Value: []byte(v)}
					if err := producer.Send(ctx, rec, func(_ embedlog.Position, err error) {
						mu.Lock()
						defer mu.Unlock()
						if err != nil {
							t.Errorf("an idempotent producer: %v", err)
						}
						res.acked[v] = err == nil
					}); err != nil {
						t.Error(err)
					}
				}
				if err := producer.Close(); err != nil {
					t.Error(err)
				}
				return
			}
			r := rand.New(rand.NewPCG(seed, uint64(w)))
			for i := range each { // plain appends at any node
				v := fmt.Sprintf("w%d-%05d", w, i)
				_, err := p.handle(r.IntN(3), "a").Produce(ctx, embedlog.Record{Key: fmt.Append(nil, w), Value: []byte(v)})
				switch {
				case err == nil:
					res.acked[v] = true
				case errors.Is(err, embedlog.ErrUnknownOutcome):
					res.unknown[v] = true
				default:
					t.Errorf("append %s: %v", v, err)
				}
			}
		})
	}
	work.Wait()
	close(stop)
	chaos.Wait()
	for n := range p.nodes {
		p.nodes[n].Cut(false)
		p.nodes[n].Lose(nil)
	}
	for part := range int32(2) {
		if err := p.net.Elect(engine.LogID{Topic: top.ID(), Partition: part}, 2); err != nil {
			t.Fatal(err)
		}
	}
	first := p.read(0, "a")
	for i := 1; i < 3; i++ {
		if got := p.read(i, "a"); !slices.Equal(got, first) {
			t.Errorf("nodes differ: %d and %d records", len(got), len(first))
		}
	}
	last, seen := map[string]string{}, map[string]int{}
	for _, s := range first {
		v := s[2:]
		seen[v]++
		w, _, _ := strings.Cut(v, "-")
		if v <= last[w] {
			t.Errorf("seed %d: %s comes behind %s", seed, v, last[w])
		}
		last[w] = v
	}
	unknown := 0
	for w := range results {
		for v := range results[w].acked {
			if seen[v] != 1 {
				t.Errorf("seed %d: %s was acknowledged and is there %d times", seed, v, seen[v])
			}
		}
		for v := range results[w].unknown {
			unknown++
			if seen[v] > 1 {
				t.Errorf("seed %d: %s, of which the outcome is unknown, is there %d times", seed, v, seen[v])
			}
		}
	}
	t.Logf("%d records, %d of unknown outcome", len(first), unknown)
}

// Consumers of one group at three nodes share its partitions and read each record, also
// when its coordinator and the partitions' leaders move.
func TestPeersShareAGroup(t *testing.T) {
	p := openPeers(t, 3)
	p.topic("a", 6, 2)
	top, _ := p.dbs[0].Engine().Topic("a")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var mu sync.Mutex
	seen := map[string]int{}
	by := map[int]int{}
	var reading sync.WaitGroup
	for i, db := range p.dbs {
		c, err := db.Consumer(&embedlog.ConsumerConfig{Group: "g", Topics: []string{"a"}, CommitInterval: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		reading.Go(func() {
			defer c.Close()
			for rec, err := range c.Records(ctx) {
				if err != nil {
					if ctx.Err() == nil {
						t.Errorf("node %d: %v", i+1, err)
					}
					return
				}
				mu.Lock()
				seen[string(rec.Value)]++
				by[i]++
				mu.Unlock()
			}
		})
	}
	const n = 300
	total := 0
	send := func() {
		for i := range n {
			rec := embedlog.Record{Key: fmt.Append(nil, i), Value: fmt.Append(nil, total)}
			if _, err := p.handle(i%3, "a").Produce(ctx, rec); err != nil {
				t.Fatal(err)
			}
			total++
		}
	}
	all := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(seen) == total
	}
	send()
	p.until("all records are read", all)
	offsets, err := p.dbs[0].Engine().Topic("__consumer_offsets")
	if err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		// To another node each time, those of the topic where they can be.
		for _, node := range offsets.Replicas(0) {
			if now, _ := p.dbs[int(node)-1].Engine().AnyGroups().OffsetsPartition(ctx, "g"); now != nil {
				if leader, _ := now.Leader(); leader != node {
					if err := p.net.Elect(engine.LogID{Topic: offsets.ID(), Partition: now.ID()}, node); err != nil {
						t.Fatal(err)
					}
					break
				}
			}
		}
		for part := range int32(6) {
			nodes := top.Replicas(part)
			if err := p.net.Elect(engine.LogID{Topic: top.ID(), Partition: part}, nodes[round%len(nodes)]); err != nil {
				t.Fatal(err)
			}
		}
		send()
		p.until("all records are read after elections", all)
	}
	for i := range p.dbs {
		info, err := p.dbs[i].DescribeGroup(ctx, "g")
		if err != nil {
			t.Fatal(err)
		}
		list, err := p.dbs[i].Groups(ctx)
		if err != nil || len(list) != 1 || list[0].Group != "g" {
			t.Errorf("node %d lists %v, %v", i+1, list, err)
		}
		if len(info.Partitions) != 6 {
			t.Errorf("node %d: %d partitions", i+1, len(info.Partitions))
		}
	}
	// Who lost his place by an election reads again what he had not committed, and commits it.
	state := func(i int) (lag int64, members int) {
		info, err := p.dbs[i].DescribeGroup(context.Background(), "g")
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range info.Partitions {
			lag += part.Lag
		}
		return lag, len(info.Members)
	}
	said := ""
	p.until("all is committed, by three members", func() bool {
		lag, members := state(0)
		if now := fmt.Sprintf("lag %d, %d members", lag, members); now != said {
			said = now
			t.Log(said)
		}
		return lag == 0 && members == 3
	})
	cancel()
	reading.Wait()
	t.Logf("records by node: %v", by)
	for i := range p.dbs {
		if lag, members := state(i); lag != 0 || members != 0 {
			t.Errorf("node %d: lag %d, %d members", i+1, lag, members)
		}
	}
}

// What is open when the last node of a cluster closes does not wait for long.
func TestPeersCloseWithoutACoordinator(t *testing.T) {
	ctx := context.Background()
	p := openPeers(t, 3)
	p.topic("a", 1, 3)
	db := p.dbs[0]
	if _, err := p.handle(0, "a").Produce(ctx, value("x")); err != nil {
		t.Fatal(err)
	}
	c, err := db.Consumer(&embedlog.ConsumerConfig{Group: "g", Topics: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Poll(ctx, 1); err != nil {
		t.Fatal(err)
	}
	txn, err := db.Begin(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := txn.Produce(ctx, embedlog.Record{Topic: "a", Value: []byte("y")}); err != nil {
		t.Fatal(err)
	}
	for _, top := range db.Engine().Topics() {
		for part := range top.Partitions() {
			p.net.Depose(engine.LogID{Topic: top.ID(), Partition: int32(part)})
		}
	}
	joins, err := db.Consumer(&embedlog.ConsumerConfig{Group: "g", Topics: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	for err == nil { // the coordinator may hear a moment later that it is none
		_, err = joins.Poll(soon, 1)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("without a coordinator it got %v", err)
	}
	began := time.Now()
	if err := db.Close(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("close: %v", err)
	}
	if took := time.Since(began); took > 25*time.Second {
		t.Errorf("it took %v", took)
	}
}

// Transactions from any node are there as a whole or not at all, on every node.
func TestPeersTransactions(t *testing.T) {
	ctx := context.Background()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	p := openPeers(t, 3)
	p.topic("a", 3, 3)
	p.topic("b", 1, 1)
	top, _ := p.dbs[0].Engine().Topic("a")
	r := rand.New(rand.NewPCG(seed, 1))
	committed, unknown := map[string]bool{}, map[string]bool{}
	for i := range 40 {
		if i%3 == 1 {
			_ = p.net.Elect(engine.LogID{Topic: top.ID(), Partition: r.Int32N(3)}, 1+r.Int32N(3))
		}
		if i%5 == 2 {
			if state, err := p.dbs[0].Engine().Topic("__transaction_state"); err == nil {
				_ = p.net.Elect(engine.LogID{Topic: state.ID(), Partition: r.Int32N(int32(len(state.Partitions())))}, 1+r.Int32N(3))
			}
		}
		if i%7 == 3 {
			var count atomic.Int32
			p.nodes[r.IntN(3)].Lose(func(string) bool { return count.Add(1) == 1 })
		}
		name := fmt.Sprintf("t%02d", i)
		txn, err := p.dbs[r.IntN(3)].Begin(ctx, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var recs []embedlog.Record
		for part := range int32(3) {
			recs = append(recs, embedlog.Record{Topic: "a", Partition: part, Value: []byte(name)})
		}
		recs = append(recs, embedlog.Record{Topic: "b", Value: []byte(name)})
		if _, err := txn.ProduceTo(ctx, recs...); err != nil {
			t.Logf("%s: %v", name, err)
			if err := txn.Abort(ctx); err != nil {
				t.Errorf("%s: abort: %v", name, err)
			}
			continue
		}
		if err := txn.CommitPositions(ctx, "g", embedlog.Position{Topic: "b", Offset: int64(i) + 1000}); err != nil {
			t.Logf("%s: offsets: %v", name, err)
		}
		if r.IntN(3) == 0 {
			if err := txn.Abort(ctx); err != nil && !errors.Is(err, embedlog.ErrTxnEnded) {
				t.Errorf("%s: abort: %v", name, err)
			}
			continue
		}
		switch err := txn.Commit(ctx); {
		case err == nil:
			committed[name] = true
		case errors.Is(err, embedlog.ErrUnknownOutcome):
			unknown[name] = true
		default:
			t.Logf("%s: commit: %v", name, err)
			if err := txn.Abort(ctx); err != nil && !errors.Is(err, embedlog.ErrTxnEnded) {
				t.Errorf("%s: abort: %v", name, err)
			}
		}
	}
	for _, n := range p.nodes {
		n.Lose(nil)
	}
	p.until("nothing is undecided", func() bool {
		for _, name := range []string{"a", "b"} {
			list, err := p.handle(0, name).ListOffsets(ctx, embedlog.Latest)
			if err != nil {
				t.Fatal(err)
			}
			top, _ := p.dbs[0].Engine().Topic(name)
			for _, part := range top.Partitions() {
				bounds, err := part.LeaderView().Bounds(ctx)
				if err != nil || bounds.LastStable < list[part.ID()].Offset {
					return false
				}
			}
		}
		return true
	})
	for i := range p.dbs {
		count := map[string]int{}
		for _, s := range append(p.read(i, "a"), p.read(i, "b")...) {
			count[s[2:]]++
		}
		for name := range committed {
			if count[name] != 4 {
				t.Errorf("seed %d: node %d: %s is committed, %d of 4 records are there", seed, i+1, name, count[name])
			}
		}
		for name, n := range count {
			if n != 4 || !committed[name] && !unknown[name] {
				t.Errorf("seed %d: node %d: %s: %d records, committed %t, unknown %t", seed, i+1, name, n, committed[name], unknown[name])
			}
		}
	}
	t.Logf("%d committed, %d unknown", len(committed), len(unknown))
	if len(committed) < 10 {
		t.Errorf("only %d are committed", len(committed))
	}
}
