package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"
)

// everywhere waits until all nodes know a topic with so many partitions, and have those that are theirs.
func (c *trio) everywhere(topic string, partitions int) *engine.Topic {
	c.t.Helper()
	var found *engine.Topic
	c.until(topic+" is everywhere", func() bool {
		for i, db := range c.dbs {
			top, err := db.Engine().Topic(topic)
			if err != nil || len(top.Partitions()) != partitions {
				return false
			}
			for _, p := range top.Partitions() {
				if mine := slices.Contains(top.Replicas(p.ID()), int32(i+1)); mine != (p.Replicated() != nil) {
					return false
				}
			}
			found = top
		}
		return true
	})
	return found
}

// each calls f with an admin client of each node: requests that are not for a particular node go there.
func (c *trio) each(f func(node int32, adm *kadm.Client, w *raw)) {
	for i, s := range c.servers {
		f(int32(i+1), kadm.NewClient(client(c.t, s)), dialWire(c.t, s))
	}
}

// Replicas by hand, when a topic is made and when it grows, asked for at each node.
func TestClusterAssignmentsByHand(t *testing.T) {
	c := openTrio(t)
	c.each(func(node int32, _ *kadm.Client, w *raw) {
		name := fmt.Sprint("by-hand-", node)
		create := func(lists ...[]int32) (int16, string) {
			q := kmsg.NewPtrCreateTopicsRequest()
			q.TimeoutMillis = 10_000
			x := kmsg.NewCreateTopicsRequestTopic()
			x.Topic, x.NumPartitions, x.ReplicationFactor = name, -1, -1
			for i, list := range lists {
				x.ReplicaAssignment = append(x.ReplicaAssignment, kmsg.CreateTopicsRequestTopicReplicaAssignment{Partition: int32(i), Replicas: list})
			}
			q.Topics = append(q.Topics, x)
			got := newest[*kmsg.CreateTopicsResponse](w, q).Topics[0]
			return got.ErrorCode, said(got.ErrorMessage)
		}
		grow := func(only bool, count int32, lists ...[]int32) (int16, string) {
			q := kmsg.NewPtrCreatePartitionsRequest()
			q.TimeoutMillis, q.ValidateOnly = 10_000, only
			x := kmsg.NewCreatePartitionsRequestTopic()
			x.Topic, x.Count = name, count
			for _, list := range lists {
				x.Assignment = append(x.Assignment, kmsg.CreatePartitionsRequestTopicAssignment{Replicas: list})
			}
			q.Topics = append(q.Topics, x)
			got := newest[*kmsg.CreatePartitionsResponse](w, q).Topics[0]
			return got.ErrorCode, said(got.ErrorMessage)
		}
		for _, row := range []struct {
			what string
			code int16
			f    func() (int16, string)
		}{
			{"create with other numbers of replicas", codeInvalidReplicaAssignment, func() (int16, string) { return create([]int32{1, 2}, []int32{3}) }},
			{"create on a node that there is not", codeInvalidReplicaAssignment, func() (int16, string) { return create([]int32{1, 4}) }},
			{"create", codeNone, func() (int16, string) { return create([]int32{3, 1}, []int32{2, 3}) }},
			{"grow on a node that there is not", codeInvalidReplicaAssignment, func() (int16, string) { return grow(false, 3, []int32{1, 4}) }},
			{"grow on one twice", codeInvalidReplicaAssignment, func() (int16, string) { return grow(false, 3, []int32{1, 1}) }},
			{"grow with fewer replicas", codeInvalidReplicaAssignment, func() (int16, string) { return grow(true, 3, []int32{1}) }},
			{"grow with too few lists", codeInvalidReplicaAssignment, func() (int16, string) { return grow(false, 4, []int32{1, 2}) }},
			{"whether it may grow", codeNone, func() (int16, string) { return grow(true, 3, []int32{1, 2}) }},
			{"grow", codeNone, func() (int16, string) { return grow(false, 4, []int32{1, 2}, []int32{3, 2}) }},
		} {
			if code, message := row.f(); code != row.code {
				t.Errorf("node %d, %s: code %d %s, want %d", node, row.what, code, message, row.code)
			}
		}
		top := c.everywhere(name, 4)
		for n, want := range [][]int32{{3, 1}, {2, 3}, {1, 2}, {3, 2}} {
			if got := top.Replicas(int32(n)); !slices.Equal(got, want) {
				t.Errorf("%s/%d has replicas %v, want %v", name, n, got, want)
			}
		}
	})
}

// What any node says of the cluster, its settings and its leaders.
func TestClusterAdminAtAnyNode(t *testing.T) {
	c := openTrio(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if _, err := kadm.NewClient(c.client()).CreateTopic(ctx, 2, 3, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	top := c.everywhere("orders", 2)
	if err := c.net.Elect(engine.LogID{}, 2); err != nil {
		t.Fatal(err)
	}
	c.each(func(node int32, adm *kadm.Client, w *raw) {
		got := newest[*kmsg.DescribeClusterResponse](w, kmsg.NewPtrDescribeClusterRequest())
		if got.ErrorCode != 0 || got.ControllerID != 2 || len(got.Brokers) != 3 || got.ClusterID != c.dbs[0].Info().ClusterID {
			t.Errorf("node %d describes the cluster: %+v", node, got)
		}
		value := fmt.Sprint(7000 + node)
		if r, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &value}}, "orders"); err != nil || r[0].Err != nil {
			t.Errorf("node %d alters settings: %v %+v", node, err, r)
		}
		configs, err := adm.DescribeTopicConfigs(ctx, "orders")
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range configs[0].Configs {
			if x.Key == "retention.ms" && x.MaybeValue() != value {
				t.Errorf("node %d says that retention.ms is %s, want %s", node, x.MaybeValue(), value)
			}
		}
		for version := int16(0); version <= 2; version++ {
			q := kmsg.NewPtrDescribeQuorumRequest()
			q.Topics = []kmsg.DescribeQuorumRequestTopic{
				{Topic: quorumTopic, Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{Partition: 0}, {Partition: 1}}},
				{Topic: "orders", Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{Partition: 0}}},
			}
			got := ask[*kmsg.DescribeQuorumResponse](w, q, version)
			if got.ErrorCode != 0 || len(got.Topics) != 2 || len(got.Topics[0].Partitions) != 2 {
				t.Fatalf("node %d, version %d: %+v", node, version, got)
			}
			if got.Topics[0].Partitions[1].ErrorCode != codeUnknownTopicOrPartition || got.Topics[1].Partitions[0].ErrorCode != codeUnknownTopicOrPartition {
				t.Errorf("node %d, version %d: %+v", node, version, got.Topics)
			}
			p := got.Topics[0].Partitions[0]
			if p.ErrorCode != 0 || p.LeaderID != 2 || p.LeaderEpoch < 1 || p.HighWatermark < 1 || len(p.CurrentVoters) != 3 || len(p.Observers) != 0 {
				t.Errorf("node %d, version %d: %+v", node, version, p)
			}
			for _, v := range p.CurrentVoters {
				if version >= 2 && (v.ReplicaDirectoryID == [16]byte{} || len(got.Nodes) != 3) || v.LogEndOffset < 1 {
					t.Errorf("node %d, version %d: voter %+v, nodes %+v", node, version, v, got.Nodes)
				}
			}
		}
	})
	shut := dialWire(t, serve(t, c.dbs[0], Options{Authorizer: denied(OpDescribe, ResourceCluster, ClusterName)}))
	if got := newest[*kmsg.DescribeQuorumResponse](shut, kmsg.NewPtrDescribeQuorumRequest()); got.ErrorCode != codeClusterAuthorizationFailed {
		t.Errorf("denied: %+v", got)
	}
	// Each node can have leaders elected; whoever leads by right is left alone.
	c.each(func(node int32, _ *kadm.Client, w *raw) {
		preferred := top.Replicas(0)[0]
		other := preferred%3 + 1
		c.lead("orders", 0, other)
		elect := func(kind int8, part int32) int16 {
			q := kmsg.NewPtrElectLeadersRequest()
			q.ElectionType, q.TimeoutMillis = kind, 10_000
			q.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: "orders", Partitions: []int32{part}}}
			return newest[*kmsg.ElectLeadersResponse](w, q).Topics[0].Partitions[0].ErrorCode
		}
		if code := elect(electUnclean, 0); code != codeElectionNotNeeded {
			t.Errorf("node %d, unclean with a leader: code %d", node, code)
		}
		if code := elect(electPreferred, 0); code != codeNone {
			t.Errorf("node %d, preferred: code %d", node, code)
		}
		if code := elect(electPreferred, 0); code != codeElectionNotNeeded {
			t.Errorf("node %d, preferred again: code %d", node, code)
		}
		if code := elect(electPreferred, 9); code != codeUnknownTopicOrPartition {
			t.Errorf("node %d, no such partition: code %d", node, code)
		}
		c.net.Depose(engine.LogID{Topic: top.ID(), Partition: 1})
		if code := elect(electUnclean, 1); code != codeEligibleLeadersNotAvailable {
			t.Errorf("node %d, unclean without a leader: code %d", node, code)
		}
		c.lead("orders", 1, node)
	})
}

// Records are deleted, and producers described, by who leads; groups and transactions by who coordinates. Others
// say so, and clients find the right one.
func TestClusterAnswersOfTheWrongNode(t *testing.T) {
	c := openTrio(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cl := c.client(kgo.DefaultProduceTopic("orders"), kgo.TransactionalID("tx"))
	adm := kadm.NewClient(c.client())
	if _, err := adm.CreateTopic(ctx, 1, 3, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	c.everywhere("orders", 1)
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(ctx, kgo.StringRecord("a"), kgo.StringRecord("b")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := adm.CommitAllOffsets(ctx, "g", kadm.Offsets{"orders": {0: {Topic: "orders", At: 1, LeaderEpoch: -1}}}); err != nil {
		t.Fatal(err)
	}
	c.everywhere("__transaction_state", 1)
	c.everywhere("__consumer_offsets", 1)
	for leader := int32(1); leader <= 3; leader++ {
		c.lead("orders", 0, leader)
		c.lead("__transaction_state", 0, leader)
		c.lead("__consumer_offsets", 0, leader)
		c.each(func(node int32, adm *kadm.Client, w *raw) {
			right := node == leader
			codes := func(what string, got, wrong int16) {
				if want := map[bool]int16{true: codeNone, false: wrong}[right]; got != want {
					t.Errorf("node %d leads, node %d, %s: code %d, want %d", leader, node, what, got, want)
				}
			}
			d := kmsg.NewPtrDeleteRecordsRequest()
			d.TimeoutMillis = 10_000
			d.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: "orders", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: 0, Offset: 1}}}}
			codes("delete records", newest[*kmsg.DeleteRecordsResponse](w, d).Topics[0].Partitions[0].ErrorCode, codeNotLeaderOrFollower)
			p := kmsg.NewPtrDescribeProducersRequest()
			p.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: "orders", Partitions: []int32{0}}}
			codes("describe producers", newest[*kmsg.DescribeProducersResponse](w, p).Topics[0].Partitions[0].ErrorCode, codeNotLeaderOrFollower)
			x := kmsg.NewPtrDescribeTransactionsRequest()
			x.TransactionalIDs = []string{"tx"}
			c.until("the coordinator of transactions has read its log", func() bool {
				code := newest[*kmsg.DescribeTransactionsResponse](w, x).TransactionStates[0].ErrorCode
				if code == codeCoordinatorLoadInProgress {
					return false
				}
				codes("describe transactions", code, codeNotCoordinator)
				return true
			})
			o := kmsg.NewPtrOffsetFetchRequest()
			o.Version = 8
			o.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "g"}}
			c.until("the coordinator of groups has read its log", func() bool {
				code := ask[*kmsg.OffsetFetchResponse](w, o, 8).Groups[0].ErrorCode
				if code == codeCoordinatorLoadInProgress {
					return false
				}
				codes("fetch offsets", code, codeNotCoordinator)
				return true
			})
			// A client comes to the right one from any.
			producers, err := adm.DescribeProducers(ctx, kadm.TopicsSet{"orders": {0: {}}})
			if err != nil || len(producers["orders"].Partitions[0].ActiveProducers) != 1 {
				t.Errorf("node %d: producers %+v, %v", node, producers, err)
			}
			txns, err := adm.DescribeTransactions(ctx, "tx")
			if err != nil || txns["tx"].State != "Ongoing" || txns["tx"].Err != nil {
				t.Errorf("node %d: transactions %+v, %v", node, txns, err)
			}
			listed, err := adm.ListTransactions(ctx, nil, nil)
			if err != nil || len(listed) != 1 || listed["tx"].State != "Ongoing" {
				t.Errorf("node %d: listed %+v, %v", node, listed, err)
			}
			offsets, err := adm.FetchOffsets(ctx, "g")
			if at, ok := offsets.Lookup("orders", 0); err != nil || !ok || at.At != 1 {
				t.Errorf("node %d: offsets %+v, %v", node, offsets, err)
			}
			deleted, err := adm.DeleteRecords(ctx, kadm.Offsets{"orders": {0: {Topic: "orders", At: 1}}})
			if at, ok := deleted.Lookup("orders", 0); err != nil || !ok || at.Err != nil || at.LowWatermark != 1 {
				t.Errorf("node %d: deleted %+v, %v", node, deleted, err)
			}
		})
	}
	if err := cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
}

// A replica that lags says by how much.
func TestClusterLogDirs(t *testing.T) {
	c := openTrio(t)
	ctx := t.Context()
	adm := kadm.NewClient(c.client())
	if _, err := adm.CreateTopic(ctx, 1, 3, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	top := c.everywhere("orders", 1)
	c.lead("orders", 0, 1)
	lags := func() string {
		dirs, err := adm.DescribeAllLogDirs(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for node := int32(1); node <= 3; node++ {
			for _, d := range dirs[node] {
				list = append(list, fmt.Sprint(d.Topics["orders"][0].OffsetLag))
			}
		}
		return strings.Join(list, " ")
	}
	produce := func(n int) {
		cl := client(t, c.servers[0], kgo.DefaultProduceTopic("orders"))
		for range n {
			if err := cl.ProduceSync(ctx, kgo.StringRecord("x")).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	produce(2)
	if got := lags(); got != "0 0 0" {
		t.Errorf("lags %s", got)
	}
	feed := c.net.Starve(engine.LogID{Topic: top.ID()}, 3)
	produce(3)
	if got := lags(); got != "0 0 3" {
		t.Errorf("lags %s with a replica that gets nothing", got)
	}
	feed()
	if got := lags(); got != "0 0 0" {
		t.Errorf("lags %s at last", got)
	}
}

// Members of a share group get records of a partition of which the group's coordinator has no replica.
func TestShareGroupWithoutAReplicaAtItsCoordinator(t *testing.T) {
	c := openTrio(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	spec := engine.TopicSpec{Name: "jobs", Partitions: 1, Replicas: [][]int32{{1}}}
	made, err := c.dbs[0].Engine().CreateTopic(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	c.everywhere("jobs", 1)
	earliest := func(map[string]string) (map[string]string, error) {
		return map[string]string{"share.auto.offset.reset": "earliest"}, nil
	}
	c.each(func(node int32, _ *kadm.Client, w *raw) { // whoever coordinates it
		q := kmsg.NewPtrIncrementalAlterConfigsRequest()
		set := kmsg.NewIncrementalAlterConfigsRequestResource()
		set.ResourceType, set.ResourceName = kmsg.ConfigResourceTypeGroupConfig, "q"
		value := fmt.Sprint(20_000 + node)
		set.Configs = []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: "share.record.lock.duration.ms", Value: &value}}
		q.Resources = append(q.Resources, set)
		if got := newest[*kmsg.IncrementalAlterConfigsResponse](w, q).Resources[0]; got.ErrorCode != 0 {
			t.Errorf("node %d: set %s: code %d %s", node, value, got.ErrorCode, said(got.ErrorMessage))
		}
		for i := range c.dbs {
			if is, err := c.dbs[i].Engine().Shares().Settings(ctx, "q"); err != nil || is["share.record.lock.duration.ms"] != value {
				t.Errorf("node %d set %s, node %d says %v, %v", node, value, i+1, is, err)
			}
		}
		if err := c.dbs[node-1].Engine().Shares().AlterSettings(ctx, "q", false, earliest); err != nil {
			t.Errorf("node %d: %v", node, err)
		}
	})
	c.everywhere("__share_group_state", 1)
	beat := engine.ShareHeartbeatRequest{Group: "q", MemberID: "m", MemberEpoch: engine.JoinEpoch, Topics: []string{"jobs"}}
	if _, err := c.dbs[1].Engine().AnyGroups().OffsetsPartition(ctx, "q"); err != nil { // which makes the topic
		t.Fatal(err)
	}
	c.everywhere("__consumer_offsets", 1)
	c.lead("__consumer_offsets", 0, 2)
	c.lead("__share_group_state", 0, 2)
	c.until("the member is one", func() bool {
		_, err := c.dbs[1].Engine().Groups().ShareHeartbeat(ctx, beat)
		return err == nil
	})
	jobs, err := c.dbs[0].Topic("jobs")
	if err != nil {
		t.Fatal(err)
	}
	shares := c.dbs[0].Engine().Shares()
	acquire := func() (got []int64) {
		t.Helper()
		for len(got) == 0 {
			res, err := shares.Acquire(ctx, engine.ShareRequest{Group: "q", MemberID: "m", Topic: made.ID()})
			if errors.Is(err, embedlog.ErrCoordinatorLoading) || errors.Is(err, embedlog.ErrUnknownGroup) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range res.Acquired {
				for o := a.First; o <= a.Last; o++ {
					got = append(got, o)
				}
			}
			if len(got) == 0 {
				if err := shares.Await(ctx, "q", []engine.TopicPartitions{{Topic: made.ID(), Partitions: []int32{0}}}, 10*time.Second); err != nil {
					t.Fatal(err)
				}
			}
		}
		return got
	}
	for round := range int64(3) {
		sent := make(chan error, 1)
		go func() {
			_, err := jobs.Produce(ctx, embedlog.Record{Value: []byte("x")}, embedlog.Record{Value: []byte("y")})
			sent <- err
		}()
		got := acquire() // it waits for them
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, []int64{2 * round, 2*round + 1}) {
			t.Fatalf("round %d: acquired %v", round, got)
		}
		if err := shares.Acknowledge(ctx, engine.AckRequest{Group: "q", MemberID: "m", Topic: made.ID(), Acks: []engine.Ack{{First: got[0], Last: got[1], Types: []engine.AckType{engine.AckAccept}}}}); err != nil {
			t.Fatal(err)
		}
	}
	// What was deleted is passed over.
	if _, err := jobs.Produce(ctx, embedlog.Record{Value: []byte("a")}, embedlog.Record{Value: []byte("b")}); err != nil {
		t.Fatal(err)
	}
	if _, err := jobs.DeleteRecords(ctx, 0, 7); err != nil {
		t.Fatal(err)
	}
	if got := acquire(); !slices.Equal(got, []int64{7}) {
		t.Errorf("after records were deleted: acquired %v", got)
	}
}
