package kafka

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/clustertest"
	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/vfs"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// trio is three databases in one process that are one cluster, each with a listener.
type trio struct {
	t       testing.TB
	net     *clustertest.Net
	nodes   []*clustertest.Node
	dbs     []*embedlog.DB
	servers []*Server
}

func openTrio(t testing.TB) *trio {
	c := &trio{t: t, net: clustertest.New(1, 2, 3)}
	for id := range int32(3) {
		node := c.net.Node(id + 1)
		c.nodes = append(c.nodes, node)
		db, err := embedlog.OpenFS(vfs.NewMem(), &embedlog.Options{Replication: node, MaintenanceInterval: -1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		c.dbs = append(c.dbs, db)
		c.servers = append(c.servers, serve(t, db, Options{}))
	}
	c.until("nodes know each other's listeners", func() bool {
		for _, db := range c.dbs {
			nodes := db.Engine().Nodes()
			if len(nodes) != 3 {
				return false
			}
			for _, n := range nodes {
				if len(n.Endpoints) != 1 || !n.Alive {
					return false
				}
			}
		}
		return true
	})
	return c
}

func (c *trio) until(what string, f func() bool) {
	c.t.Helper()
	for range 3000 {
		if f() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	c.t.Fatalf("it does not come: %s", what)
}

func (c *trio) client(opts ...kgo.Opt) *kgo.Client {
	c.t.Helper()
	var seeds []string
	for _, s := range c.servers {
		seeds = append(seeds, s.Addrs()[0].String())
	}
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(seeds...), kgo.MetadataMinAge(10 * time.Millisecond), kgo.RetryBackoffFn(func(int) time.Duration { return 5 * time.Millisecond })}, opts...)...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(cl.Close)
	return cl
}

// lead has another node lead a partition, if the topic is there.
func (c *trio) lead(topic string, n, node int32) {
	t, err := c.dbs[node-1].Engine().Topic(topic)
	if err == nil {
		_ = c.net.Elect(engine.LogID{Topic: t.ID(), Partition: n}, node) // it may not run there yet
	}
}

// A client produces and consumes with a group, in transactions and without, while
// another node comes to lead all the time: each record is there once, and is consumed.
func TestClientWhileLeadersMove(t *testing.T) {
	c := openTrio(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	adm := kadm.NewClient(c.client())
	const parts = 3
	if _, err := adm.CreateTopic(ctx, parts, 3, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64() >> 1
	t.Logf("seed %d", seed)
	moving, stop := context.WithCancel(ctx)
	var movers sync.WaitGroup
	movers.Go(func() {
		rnd := rand.New(rand.NewPCG(seed, 1))
		for moving.Err() == nil {
			node := rnd.Int32N(3) + 1
			switch rnd.IntN(4) {
			case 0:
				c.lead("__consumer_offsets", 0, node)
			case 1:
				c.lead("__transaction_state", 0, node)
			default:
				c.lead("orders", rnd.Int32N(parts), node)
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-moving.Done():
			}
		}
	})
	defer movers.Wait()
	defer stop()

	want := map[string]bool{}
	plain := c.client(kgo.DefaultProduceTopic("orders"))
	for i := range 60 {
		value := fmt.Sprint("plain ", i)
		if err := plain.ProduceSync(ctx, kgo.StringRecord(value)).FirstErr(); err != nil {
			t.Fatalf("produce %d: %v", i, err)
		}
		want[value] = true
	}
	txn := c.client(kgo.DefaultProduceTopic("orders"), kgo.TransactionalID("t"))
	for i := range 15 {
		commit := i%3 != 0
		if err := txn.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		var failed error
		for j := range 3 {
			value := fmt.Sprint("txn ", i, " ", j)
			if err := txn.ProduceSync(ctx, kgo.StringRecord(value)).FirstErr(); err != nil {
				failed = err
			}
			want[value] = commit
		}
		if failed != nil { // as a program would: it is done again
			t.Logf("transaction %d: %v", i, failed)
			commit = false
			for j := range 3 {
				want[fmt.Sprint("txn ", i, " ", j)] = false
			}
		}
		if err := txn.EndTransaction(ctx, kgo.TransactionEndTry(commit)); err != nil {
			t.Fatalf("end transaction %d: %v", i, err)
		}
	}
	for v, there := range want {
		if !there {
			delete(want, v)
		}
	}
	// Two consumers of a group share it, and the second half of what they get is read over moves.
	got := map[string]int{}
	var consumers []*kgo.Client
	for range 2 {
		consumers = append(consumers, c.client(kgo.ConsumerGroup("g"), kgo.ConsumeTopics("orders"), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.HeartbeatInterval(50*time.Millisecond), kgo.FetchMaxWait(50*time.Millisecond)))
	}
	for len(got) < len(want) {
		if ctx.Err() != nil {
			t.Fatalf("%d of %d records consumed", len(got), len(want))
		}
		for _, cl := range consumers {
			poll, done := context.WithTimeout(ctx, 100*time.Millisecond)
			fetches := cl.PollRecords(poll, 10)
			done()
			fetches.EachRecord(func(r *kgo.Record) { got[string(r.Value)]++ })
			// A commit that comes too late, of a member that is none any more, is the group's to refuse.
			if err := cl.CommitUncommittedOffsets(poll); err != nil && ctx.Err() != nil {
				t.Fatal(err)
			}
		}
	}
	for v := range got {
		if !want[v] {
			t.Errorf("%q was consumed, which was not committed", v)
		}
	}
	stop()
	movers.Wait()
	// Without moves: what the partitions hold, each once.
	reader := c.client(kgo.ConsumeTopics("orders"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(50*time.Millisecond))
	once := map[string]int{}
	for len(once) < len(want) && ctx.Err() == nil {
		fetches := reader.PollFetches(ctx)
		fetches.EachRecord(func(r *kgo.Record) { once[string(r.Value)]++ })
	}
	for v := range want {
		if once[v] != 1 {
			t.Errorf("%q is there %d times", v, once[v])
		}
	}
	offsets, err := adm.ListEndOffsets(ctx, "orders")
	if err != nil {
		t.Fatal(err)
	}
	stable, err := adm.ListCommittedOffsets(ctx, "orders")
	if err != nil {
		t.Fatal(err)
	}
	for n := range int32(parts) {
		end, _ := offsets.Lookup("orders", n)
		lso, _ := stable.Lookup("orders", n)
		if end.Offset != lso.Offset {
			t.Errorf("orders/%d: a transaction is open: the last stable offset is %d, the end %d", n, lso.Offset, end.Offset)
		}
	}
}

// What clients are told of a cluster, and what they hear who ask the wrong node.
func TestClusterAsClientsSeeIt(t *testing.T) {
	c := openTrio(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	adm := kadm.NewClient(c.client())
	if _, err := adm.CreateTopic(ctx, 2, 3, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	c.until("orders is everywhere", func() bool {
		for _, db := range c.dbs {
			top, err := db.Engine().Topic("orders")
			if err != nil {
				return false
			}
			for _, p := range top.Partitions() {
				if p.Replicated() == nil {
					return false
				}
			}
		}
		return true
	})
	c.lead("orders", 0, 2)
	c.lead("orders", 1, 3)
	m, err := adm.Metadata(ctx, "orders")
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Brokers) != 3 || m.Controller < 1 {
		t.Errorf("brokers %v, controller %d", m.Brokers.NodeIDs(), m.Controller)
	}
	for n, leader := range map[int32]int32{0: 2, 1: 3} {
		p := m.Topics["orders"].Partitions[n]
		if p.Err != nil || p.Leader != leader || len(p.Replicas) != 3 || len(p.ISR) != 3 || len(p.OfflineReplicas) != 0 || p.LeaderEpoch < 1 {
			t.Errorf("orders/%d: %+v, want leader %d", n, p, leader)
		}
	}
	ask := func(node int, req kmsg.Request) kmsg.Response {
		t.Helper()
		cl := client(t, c.servers[node-1])
		resp, err := cl.Broker(node).Request(ctx, req)
		if err != nil {
			// The seed's number is not known before the first answer.
			_ = cl.Ping(ctx)
			if resp, err = cl.Broker(node).Request(ctx, req); err != nil {
				t.Fatal(err)
			}
		}
		return resp
	}
	top := m.Topics["orders"]
	fetch := func(node int, epoch int32, rack string) *kmsg.FetchResponse {
		q := kmsg.NewPtrFetchRequest()
		q.MaxBytes, q.Rack = 1<<20, rack
		qt := kmsg.NewFetchRequestTopic()
		qt.Topic, qt.TopicID = "orders", top.ID
		qp := kmsg.NewFetchRequestTopicPartition()
		qp.CurrentLeaderEpoch, qp.PartitionMaxBytes = epoch, 1<<20
		qt.Partitions = append(qt.Partitions, qp)
		q.Topics = append(q.Topics, qt)
		return ask(node, q).(*kmsg.FetchResponse)
	}
	epoch := top.Partitions[0].LeaderEpoch
	for _, row := range []struct {
		name  string
		node  int
		epoch int32
		rack  string
		want  int16
	}{
		{"leader", 2, epoch, "", 0},
		{"leader, no epoch said", 2, -1, "", 0},
		{"leader, old epoch", 2, epoch - 1, "", kerr.FencedLeaderEpoch.Code},
		{"leader, newer epoch", 2, epoch + 1, "", kerr.UnknownLeaderEpoch.Code},
		{"follower", 1, epoch, "", kerr.NotLeaderForPartition.Code},
		{"follower, with a rack", 1, epoch, "r", 0},
	} {
		resp := fetch(row.node, row.epoch, row.rack)
		p := resp.Topics[0].Partitions[0]
		if p.ErrorCode != row.want {
			t.Errorf("fetch from the %s: code %d, want %d", row.name, p.ErrorCode, row.want)
		}
		if row.want == kerr.NotLeaderForPartition.Code && (p.CurrentLeader.LeaderID != 2 || p.CurrentLeader.LeaderEpoch != epoch || len(resp.Brokers) != 1 || resp.Brokers[0].NodeID != 2) {
			t.Errorf("fetch from the %s: leader %+v, brokers %+v", row.name, p.CurrentLeader, resp.Brokers)
		}
	}
	// Who coordinates a group is who leads its partition; another one says that it does not.
	if _, err := adm.DescribeGroups(ctx, "g"); err != nil {
		t.Fatal(err)
	}
	c.until("__consumer_offsets is everywhere", func() bool {
		for _, db := range c.dbs {
			top, err := db.Engine().Topic("__consumer_offsets")
			if err != nil || top.Partitions()[0].Replicated() == nil {
				return false
			}
		}
		return true
	})
	c.lead("__consumer_offsets", 0, 3)
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.CoordinatorKey, find.CoordinatorKeys = "g", []string{"g"}
	found := ask(1, find).(*kmsg.FindCoordinatorResponse)
	if x := found.Coordinators[0]; x.ErrorCode != 0 || x.NodeID != 3 {
		t.Errorf("coordinator %+v, want node 3", x)
	}
	hb := kmsg.NewPtrHeartbeatRequest()
	hb.Group, hb.MemberID = "g", "m"
	if code := ask(1, hb).(*kmsg.HeartbeatResponse).ErrorCode; code != kerr.NotCoordinator.Code {
		t.Errorf("heartbeat at another node: code %d", code)
	}
	if code := ask(3, hb).(*kmsg.HeartbeatResponse).ErrorCode; code != kerr.UnknownMemberID.Code {
		t.Errorf("heartbeat at the coordinator: code %d", code)
	}
	// The lead goes to the preferred replica.
	elect := kmsg.NewPtrElectLeadersRequest()
	elect.TimeoutMillis = 5000
	et := kmsg.NewElectLeadersRequestTopic()
	et.Topic, et.Partitions = "orders", []int32{0, 1}
	elect.Topics = append(elect.Topics, et)
	preferred := func(n int32) int32 { return m.Topics["orders"].Partitions[n].Replicas[0] }
	answer := ask(1, elect).(*kmsg.ElectLeadersResponse)
	for _, p := range answer.Topics[0].Partitions {
		want := int16(0)
		if leader := map[int32]int32{0: 2, 1: 3}[p.Partition]; leader == preferred(p.Partition) {
			want = kerr.ElectionNotNeeded.Code
		}
		if p.ErrorCode != want {
			t.Errorf("elect the leader of orders/%d: code %d (%v), want %d", p.Partition, p.ErrorCode, p.ErrorMessage, want)
		}
	}
	c.until("a node names the preferred leaders", func() bool {
		if m, err = adm.Metadata(ctx, "orders"); err != nil {
			return false
		}
		for _, p := range m.Topics["orders"].Partitions {
			if p.Leader != p.Replicas[0] {
				return false
			}
		}
		return true
	})
	if _, err := adm.CreateTopic(ctx, 1, 4, nil, "many"); !errors.Is(err, kerr.InvalidReplicationFactor) {
		t.Errorf("four replicas: %v", err)
	}
}
