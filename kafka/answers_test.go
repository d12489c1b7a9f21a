package kafka

import (
	"fmt"
	"strings"
	"testing"
	"time"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// many is n times the same.
func many[T any](n int, x T) []T {
	list := make([]T, n)
	for i := range list {
		list[i] = x
	}
	return list
}

// A few bytes of a request that ask for the same again and again do not make an answer
// of any size: it is given once, or the connection ends.
func TestAnswersHaveABound(t *testing.T) {
	db := openMemory(t, nil)
	topic := createTopic(t, db, "orders", &embedlog.TopicConfig{Partitions: 100})
	auth := db.Authorizer(&embedlog.AuthorizerOptions{SuperUsers: []embedlog.Principal{Anonymous}})
	s := pipeServer(t, db, Options{Authorizer: auth, Limits: Limits{FrameBytes: 1 << 20, ConnectionMemoryBytes: 4 << 20}})
	for i := range int64(100) {
		h := plain()
		h.ProducerID, h.ProducerEpoch, h.BaseSequence = 1000+i, 0, 0
		mustAppend(t, topic, 0, batch(t, h, "a"))
	}
	for i := range int32(100) {
		commit := engine.CommitRequest{Group: "offsets", MemberEpoch: -1, Offsets: []engine.OffsetCommit{{Topic: "orders", Partition: i, LeaderEpoch: -1, Metadata: strings.Repeat("m", 4000)}}}
		if err := db.Engine().Groups().Commit(t.Context(), commit); err != nil {
			t.Fatal(err)
		}
	}
	setup := dial(t, s, nil)
	join := joinOf("classic", "")
	join.Version = 3
	join.Protocols[0].Metadata = append(join.Protocols[0].Metadata, make([]byte, 20_000)...)
	joined := do[*kmsg.JoinGroupResponse](setup, join)
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Version, sync.Group, sync.MemberID, sync.Generation = 3, "classic", joined.MemberID, joined.Generation
	sync.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: joined.MemberID}}
	if resp := do[*kmsg.SyncGroupResponse](setup, sync); resp.ErrorCode != 0 {
		t.Fatalf("sync: %+v", resp)
	}
	var long []string
	for i := range 500 {
		long = append(long, fmt.Sprintf("%0100d", i))
	}
	heartbeat := engine.HeartbeatRequest{Group: "server", MemberID: "m", Topics: long, SessionTimeout: time.Hour}
	if _, err := db.Engine().Groups().Heartbeat(t.Context(), heartbeat); err != nil {
		t.Fatal(err)
	}
	id, epoch := initTxn(t, setup, "tx")
	all := engine.TopicPartitions{Topic: topic.ID()}
	for i := range int32(100) {
		all.Partitions = append(all.Partitions, i)
	}
	if err := db.Engine().Txns().AddPartitions(t.Context(), "tx", id, epoch, []engine.TopicPartitions{all}); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		a := embedlog.ACL{Resource: embedlog.ResourceTopic, Name: fmt.Sprint("t", i), Principal: "User:a", Operation: embedlog.OpRead}
		if err := db.CreateACLs(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}

	metadata := kmsg.NewPtrMetadataRequest()
	metadata.Version, metadata.Topics = 12, many(10_000, kmsg.MetadataRequestTopic{Topic: kmsg.StringPtr("orders")})
	resp := do[*kmsg.MetadataResponse](dial(t, s, nil), metadata)
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 100 {
		t.Errorf("a topic that is asked for again and again is there %d times", len(resp.Topics))
	}
	producers := kmsg.NewPtrDescribeProducersRequest()
	producers.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: "orders", Partitions: make([]int32, 5000)}}
	txns := kmsg.NewPtrDescribeTransactionsRequest()
	txns.TransactionalIDs = many(5000, "tx")
	classic := kmsg.NewPtrDescribeGroupsRequest()
	classic.Groups = many(5000, "classic")
	server := kmsg.NewPtrConsumerGroupDescribeRequest()
	server.Groups = many(5000, "server")
	offsets := kmsg.NewPtrOffsetFetchRequest()
	offsets.Version, offsets.Groups = 8, many(5000, kmsg.OffsetFetchRequestGroup{Group: "offsets", MemberEpoch: -1})
	acls := kmsg.NewPtrDeleteACLsRequest()
	filter := kmsg.NewDeleteACLsRequestFilter()
	filter.ResourceType, filter.ResourcePatternType, filter.Operation, filter.PermissionType = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny, kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
	acls.Version, acls.Filters = 1, many(5000, filter)
	commits := kmsg.NewPtrOffsetCommitRequest()
	commits.Version, commits.Group, commits.Generation = 6, "offsets", -1
	commits.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "orders", Partitions: make([]kmsg.OffsetCommitRequestTopicPartition, 20_000)}}
	inTxn := kmsg.NewPtrTxnOffsetCommitRequest()
	inTxn.Version, inTxn.TransactionalID, inTxn.Group, inTxn.ProducerID, inTxn.ProducerEpoch, inTxn.Generation = 3, "tx", "offsets", id, epoch, -1
	inTxn.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "orders", Partitions: make([]kmsg.TxnOffsetCommitRequestTopicPartition, 20_000)}}
	for _, q := range []kmsg.Request{commits, inTxn, producers, txns, classic, server, offsets, acls} {
		t.Run(kmsg.NameForKey(q.Key()), func(t *testing.T) {
			x := dial(t, s, nil)
			x.send(q)
			x.gone()
			if used := s.memory.used(); used != 0 {
				t.Errorf("%d bytes are taken afterwards", used)
			}
		})
	}
	if n := len(db.ACLs(embedlog.ACLFilter{})); n != 100 {
		t.Errorf("%d ACLs are left, and the request failed", n)
	}
}
