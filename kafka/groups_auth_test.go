package kafka

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// groupRules allow all but some operations, each written as operation/type/name.
type groupRules []string

func (g groupRules) Authorize(_ context.Context, _ Principal, _ string, op Operation, resource ResourceType, name string) bool {
	return !slices.Contains(g, fmt.Sprintf("%d/%d/%s", op, resource, name))
}

func (g groupRules) AuthorizeAny(context.Context, Principal, string, Operation, ResourceType) bool {
	return true
}

func forbid(op Operation, resource ResourceType, name string) string {
	return fmt.Sprintf("%d/%d/%s", op, resource, name)
}

// Each API asks for the operation that Kafka's does, and says no where Kafka's does.
func TestGroupAuthorization(t *testing.T) {
	db := openMemory(t, nil)
	createTopic(t, db, "orders", nil)
	createTopic(t, db, "secret", nil)
	for _, group := range []string{"g", "closed"} {
		if err := db.Engine().Groups().Commit(t.Context(), engine.CommitRequest{Group: group, MemberEpoch: -1, Offsets: []engine.OffsetCommit{
			{Topic: "orders", LeaderEpoch: -1}, {Topic: "secret", LeaderEpoch: -1},
		}}); err != nil {
			t.Fatal(err)
		}
	}
	rules := groupRules{
		forbid(OpRead, ResourceTopic, "secret"), forbid(OpDescribe, ResourceTopic, "secret"), forbid(OpDescribe, ResourceCluster, ClusterName),
		forbid(OpRead, ResourceGroup, "closed"), forbid(OpDescribe, ResourceGroup, "closed"), forbid(OpDelete, ResourceGroup, "closed"),
	}
	c := client(t, serve(t, db, Options{Authorizer: rules}))
	closed := codeGroupAuthorizationFailed

	wantGroupCode(t, "commit", askVersion[*kmsg.OffsetCommitResponse](t, c, 8, offsetCommitOf("closed", "", -1, "orders", engine.TopicID{}, 0)).Topics[0].Partitions[0].ErrorCode, closed)
	q := offsetCommitOf("g", "", -1, "orders", engine.TopicID{}, 1)
	q.Topics = append(q.Topics, offsetCommitOf("g", "", -1, "secret", engine.TopicID{}, 1).Topics...)
	committed := askVersion[*kmsg.OffsetCommitResponse](t, c, 8, q)
	wantGroupCode(t, "commit of a topic", committed.Topics[0].Partitions[0].ErrorCode, codeNone)
	wantGroupCode(t, "commit of a secret topic", committed.Topics[1].Partitions[0].ErrorCode, codeTopicAuthorizationFailed)

	fetch := kmsg.NewPtrOffsetFetchRequest()
	for _, name := range []string{"closed", "g"} {
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = name
		fetch.Groups = append(fetch.Groups, g)
	}
	named := kmsg.NewOffsetFetchRequestGroup()
	named.Group = "g"
	named.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: "secret", Partitions: []int32{0}}}
	fetch.Groups = append(fetch.Groups, named)
	fetched := askVersion[*kmsg.OffsetFetchResponse](t, c, 8, fetch)
	wantGroupCode(t, "fetch", fetched.Groups[0].ErrorCode, closed)
	if all := fetched.Groups[1]; all.ErrorCode != 0 || len(all.Topics) != 1 || all.Topics[0].Topic != "orders" || all.Topics[0].Partitions[0].Offset != 1 {
		t.Errorf("all offsets that may be seen: %+v", all)
	}
	wantGroupCode(t, "fetch of a secret topic", fetched.Groups[2].Topics[0].Partitions[0].ErrorCode, codeTopicAuthorizationFailed)
	fetch.Group, fetch.Topics = "closed", []kmsg.OffsetFetchRequestTopic{{Topic: "orders", Partitions: []int32{0}}}
	wantGroupCode(t, "fetch with version 1", askVersion[*kmsg.OffsetFetchResponse](t, c, 1, fetch).Topics[0].Partitions[0].ErrorCode, closed)

	wantGroupCode(t, "join", askVersion[*kmsg.JoinGroupResponse](t, c, 9, joinOf("closed", "")).ErrorCode, closed)
	wantGroupCode(t, "join with version 2", askVersion[*kmsg.JoinGroupResponse](t, c, 2, joinOf("closed", "")).ErrorCode, closed)
	sync, beat, leave := kmsg.NewPtrSyncGroupRequest(), kmsg.NewPtrHeartbeatRequest(), kmsg.NewPtrLeaveGroupRequest()
	sync.Group, beat.Group, leave.Group = "closed", "closed", "closed"
	wantGroupCode(t, "sync", askVersion[*kmsg.SyncGroupResponse](t, c, 5, sync).ErrorCode, closed)
	wantGroupCode(t, "heartbeat", askVersion[*kmsg.HeartbeatResponse](t, c, 4, beat).ErrorCode, closed)
	wantGroupCode(t, "leave", askVersion[*kmsg.LeaveGroupResponse](t, c, 5, leave).ErrorCode, closed)

	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Groups, describe.IncludeAuthorizedOperations = []string{"closed", "g", "none"}, true
	described := askVersion[*kmsg.DescribeGroupsResponse](t, c, 6, describe)
	wantGroupCode(t, "describe", described.Groups[0].ErrorCode, closed)
	if g := described.Groups[1]; g.ErrorCode != 0 || g.State != "Empty" || g.AuthorizedOperations != 1<<OpRead|1<<OpDescribe|1<<OpDelete|1<<OpDescribeConfigs|1<<OpAlterConfigs {
		t.Errorf("described as %+v", g)
	}
	wantGroupCode(t, "describe an unknown one", described.Groups[2].ErrorCode, codeGroupIDNotFound)
	if g := askVersion[*kmsg.DescribeGroupsResponse](t, c, 5, describe).Groups[2]; g.ErrorCode != 0 || g.State != "Dead" {
		t.Errorf("describe an unknown one with version 5: %+v", g)
	}
	var names []string
	for _, g := range askVersion[*kmsg.ListGroupsResponse](t, c, 5, kmsg.NewPtrListGroupsRequest()).Groups {
		names = append(names, g.Group)
	}
	if got := strings.Join(names, " "); got != "g" {
		t.Errorf("listed %q", got)
	}

	remove := kmsg.NewPtrOffsetDeleteRequest()
	remove.Group = "closed"
	wantGroupCode(t, "delete offsets", askVersion[*kmsg.OffsetDeleteResponse](t, c, 0, remove).ErrorCode, closed)
	remove.Group = "g"
	remove.Topics = []kmsg.OffsetDeleteRequestTopic{
		{Topic: "orders", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{}, {Partition: 5}}},
		{Topic: "secret", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{}}},
	}
	removed := askVersion[*kmsg.OffsetDeleteResponse](t, c, 0, remove)
	wantGroupCode(t, "delete an offset", removed.Topics[0].Partitions[0].ErrorCode, codeNone)
	wantGroupCode(t, "delete one of no partition", removed.Topics[0].Partitions[1].ErrorCode, codeUnknownTopicOrPartition)
	wantGroupCode(t, "delete one of a secret topic", removed.Topics[1].Partitions[0].ErrorCode, codeTopicAuthorizationFailed)

	member := heartbeatOf("closed", "m")
	wantGroupCode(t, "member", askVersion[*kmsg.ConsumerGroupHeartbeatResponse](t, c, 1, member).ErrorCode, closed)
	member = heartbeatOf("server", "m")
	member.SubscribedTopicNames = []string{"secret"}
	wantGroupCode(t, "subscribe to a secret topic", askVersion[*kmsg.ConsumerGroupHeartbeatResponse](t, c, 1, member).ErrorCode, codeTopicAuthorizationFailed)
	member.SubscribedTopicNames, member.SubscribedTopicRegex = nil, kmsg.StringPtr("orders|secret")
	if a := askVersion[*kmsg.ConsumerGroupHeartbeatResponse](t, c, 1, member).Assignment; a == nil || len(a.Topics) != 1 {
		t.Errorf("by a pattern it gets %+v", a)
	}
	if _, err := db.Engine().Groups().Heartbeat(t.Context(), engine.HeartbeatRequest{Group: "server", MemberID: "n", Topics: []string{"secret"}}); err != nil {
		t.Fatal(err)
	}
	d := kmsg.NewPtrConsumerGroupDescribeRequest()
	d.Groups = []string{"server", "closed"}
	about := askVersion[*kmsg.ConsumerGroupDescribeResponse](t, c, 1, d)
	wantGroupCode(t, "a group that reads a secret topic", about.Groups[0].ErrorCode, codeTopicAuthorizationFailed)
	wantGroupCode(t, "a closed group", about.Groups[1].ErrorCode, closed)
	if len(about.Groups[0].Members) != 0 {
		t.Errorf("it tells %+v", about.Groups[0].Members)
	}

	del := kmsg.NewPtrDeleteGroupsRequest()
	del.Groups = []string{"closed", "g", "none", "server"}
	deleted := askVersion[*kmsg.DeleteGroupsResponse](t, c, 3, del)
	for i, want := range []int16{closed, codeNone, codeGroupIDNotFound, codeNonEmptyGroup} {
		wantGroupCode(t, "delete group "+del.Groups[i], deleted.Groups[i].ErrorCode, want)
	}
}

// Filters of ListGroups, whatever their case.
func TestListGroupsFilters(t *testing.T) {
	db := openMemory(t, nil)
	createTopic(t, db, "orders", &embedlog.TopicConfig{Partitions: 1})
	c := client(t, serve(t, db, Options{}))
	joinAlone(t, c, "classic")
	askVersion[*kmsg.ConsumerGroupHeartbeatResponse](t, c, 1, heartbeatOf("server", "m"))
	askVersion[*kmsg.OffsetCommitResponse](t, c, 8, offsetCommitOf("simple", "", -1, "orders", engine.TopicID{}, 0))
	for _, row := range []struct{ states, types, want string }{
		{"", "", "classic:consumer:Stable:classic server:consumer:Stable:consumer simple::Empty:classic"},
		{"empty", "", "simple::Empty:classic"},
		{"Stable", "CONSUMER", "server:consumer:Stable:consumer"},
		{"", "Classic", "classic:consumer:Stable:classic simple::Empty:classic"},
		{"Dead", "", ""},
		{"", "share", ""},
	} {
		q := kmsg.NewPtrListGroupsRequest()
		q.StatesFilter, q.TypesFilter = strings.Fields(row.states), strings.Fields(row.types)
		var got []string
		for _, g := range askVersion[*kmsg.ListGroupsResponse](t, c, 5, q).Groups {
			got = append(got, g.Group+":"+g.ProtocolType+":"+g.GroupState+":"+g.GroupType)
		}
		if g := strings.Join(got, " "); g != row.want {
			t.Errorf("states %q, types %q: got %s, want %s", row.states, row.types, g, row.want)
		}
	}
}

// Offsets in an open transaction are said to be unstable at once.
func TestUnstableOffsets(t *testing.T) {
	db := openMemory(t, nil)
	createTopic(t, db, "orders", nil)
	c := client(t, serve(t, db, Options{}))
	ctx := deadline(t)
	txns := db.Engine().Txns()
	begin := kmsg.NewPtrInitProducerIDRequest()
	begin.TransactionalID, begin.TransactionTimeoutMillis = kmsg.StringPtr("tx"), 60_000
	producer := askVersion[*kmsg.InitProducerIDResponse](t, c, 5, begin)
	wantGroupCode(t, "producer id", producer.ErrorCode, codeNone)
	commit := kmsg.NewPtrTxnOffsetCommitRequest()
	commit.TransactionalID, commit.Group, commit.ProducerID, commit.ProducerEpoch, commit.Generation = "tx", "g", producer.ProducerID, producer.ProducerEpoch, -1
	commit.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "orders", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Offset: 0, LeaderEpoch: -1}}}}
	wantGroupCode(t, "commit", askVersion[*kmsg.TxnOffsetCommitResponse](t, c, 5, commit).Topics[0].Partitions[0].ErrorCode, codeNone)
	fetch := kmsg.NewPtrOffsetFetchRequest()
	fetch.Group, fetch.Topics = "g", []kmsg.OffsetFetchRequestTopic{{Topic: "orders", Partitions: []int32{0}}}
	get := func(stable bool) (int64, int16) {
		fetch.RequireStable = stable
		p := askVersion[*kmsg.OffsetFetchResponse](t, c, 7, fetch).Topics[0].Partitions[0]
		return p.Offset, p.ErrorCode
	}
	if offset, code := get(false); offset != -1 || code != 0 {
		t.Errorf("offset %d, code %d", offset, code)
	}
	if offset, code := get(true); offset != -1 || code != codeUnstableOffsetCommit {
		t.Errorf("stable: offset %d, code %d", offset, code)
	}
	if _, _, err := txns.End(ctx, "tx", producer.ProducerID, producer.ProducerEpoch, true); err != nil {
		t.Fatal(err)
	}
	if offset, code := get(true); offset != 0 || code != 0 {
		t.Errorf("after the transaction: offset %d, code %d", offset, code)
	}
}
