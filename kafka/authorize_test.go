package kafka

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	embedlog "github.com/x/embedlog"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// rules is an authorizer that allows what is listed, as "op:type:name".
type rules struct {
	mu      sync.Mutex
	allowed []string
	asked   []string
}

func (a *rules) Authorize(_ context.Context, p Principal, host string, op Operation, resource ResourceType, name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	rule := fmt.Sprintf("%d:%d:%s", op, resource, name)
	a.asked = append(a.asked, p.String()+" "+rule)
	return slices.Contains(a.allowed, rule)
}

func (a *rules) AuthorizeAny(_ context.Context, p Principal, host string, op Operation, resource ResourceType) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(a.allowed, func(rule string) bool { return strings.HasPrefix(rule, fmt.Sprintf("%d:%d:", op, resource)) })
}

func rule(op Operation, resource ResourceType, name string) string {
	return fmt.Sprintf("%d:%d:%s", op, resource, name)
}

// Each request is allowed by one rule, refused without it with the code that Kafka
// has for it, and does nothing then.
func TestAuthorization(t *testing.T) {
	db := openMemory(t, nil)
	topic := createTopic(t, db, "orders", nil)
	mustAppend(t, topic, 0, batch(t, plain(), "a"))
	auth := &rules{}
	x := dial(t, pipeServer(t, db, Options{Authorizer: auth}), known{"User", "ann"})

	metadataByID := kmsg.NewPtrMetadataRequest()
	metadataByID.Version = 12
	metadataByID.Topics = []kmsg.MetadataRequestTopic{{TopicID: topic.ID()}}
	metadataByName := kmsg.NewPtrMetadataRequest()
	metadataByName.Version = 5
	metadataByName.Topics = []kmsg.MetadataRequestTopic{{Topic: kmsg.StringPtr("orders")}}
	metadataCode := func(r kmsg.Response) int16 { return r.(*kmsg.MetadataResponse).Topics[0].ErrorCode }
	list := kmsg.NewPtrListOffsetsRequest()
	list.Version = 5
	listPart := kmsg.NewListOffsetsRequestTopicPartition()
	listPart.Timestamp = -1
	list.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "orders", Partitions: []kmsg.ListOffsetsRequestTopicPartition{listPart}}}
	epochs := kmsg.NewPtrOffsetForLeaderEpochRequest()
	epochs.Version = 4
	epochs.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: "orders", Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{{CurrentLeaderEpoch: -1}}}}
	findGroup := kmsg.NewPtrFindCoordinatorRequest()
	findGroup.Version, findGroup.CoordinatorKeys = 4, []string{"g"}
	findTxn := kmsg.NewPtrFindCoordinatorRequest()
	findTxn.Version, findTxn.CoordinatorType, findTxn.CoordinatorKey = 2, 1, "tx"
	initIdempotent := kmsg.NewPtrInitProducerIDRequest()
	initIdempotent.Version = 2
	initTxn := kmsg.NewPtrInitProducerIDRequest()
	initTxn.Version, initTxn.TransactionalID, initTxn.TransactionTimeoutMillis = 2, kmsg.StringPtr("tx"), 1000
	initCode := func(r kmsg.Response) int16 { return r.(*kmsg.InitProducerIDResponse).ErrorCode }
	addOffsets := kmsg.NewPtrAddOffsetsToTxnRequest()
	addOffsets.TransactionalID, addOffsets.Group = "tx", "g"
	end := kmsg.NewPtrEndTxnRequest()
	end.TransactionalID = "tx"
	producers := kmsg.NewPtrDescribeProducersRequest()
	producers.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: "orders", Partitions: []int32{0}}}
	describe := kmsg.NewPtrDescribeTransactionsRequest()
	describe.TransactionalIDs = []string{"nobody"}

	for _, row := range []struct {
		name    string
		q       kmsg.Request
		code    func(kmsg.Response) int16
		rules   []string
		refused int16
		allowed int16 // what it says when it is
	}{
		{"produce", produceRequest(12, topic, 0, batch(t, plain(), "b")), func(r kmsg.Response) int16 { return produced(t, r.(*kmsg.ProduceResponse)).ErrorCode },
			[]string{rule(OpWrite, ResourceTopic, "orders")}, codeTopicAuthorizationFailed, 0},
		{"produce by id", produceRequest(13, topic, 0, batch(t, plain(), "b")), func(r kmsg.Response) int16 { return produced(t, r.(*kmsg.ProduceResponse)).ErrorCode },
			[]string{rule(OpWrite, ResourceTopic, "orders")}, codeTopicAuthorizationFailed, 0},
		{"fetch", fetchRequest(12, topic, 0, 0), func(r kmsg.Response) int16 { return fetched(t, r.(*kmsg.FetchResponse)).ErrorCode },
			[]string{rule(OpRead, ResourceTopic, "orders")}, codeTopicAuthorizationFailed, 0},
		{"fetch by id", fetchRequest(13, topic, 0, 0), func(r kmsg.Response) int16 { return fetched(t, r.(*kmsg.FetchResponse)).ErrorCode },
			[]string{rule(OpRead, ResourceTopic, "orders")}, codeTopicAuthorizationFailed, 0},
		{"metadata by id", metadataByID, metadataCode, []string{rule(OpDescribe, ResourceTopic, "orders")}, codeUnknownTopicID, 0},
		{"metadata by name", metadataByName, metadataCode, []string{rule(OpDescribe, ResourceTopic, "orders")}, codeTopicAuthorizationFailed, 0},
		{"list offsets", list, func(r kmsg.Response) int16 { return r.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0].ErrorCode },
			[]string{rule(OpDescribe, ResourceTopic, "orders")}, codeTopicAuthorizationFailed, 0},
		{"epochs", epochs, func(r kmsg.Response) int16 {
			return r.(*kmsg.OffsetForLeaderEpochResponse).Topics[0].Partitions[0].ErrorCode
		},
			[]string{rule(OpDescribe, ResourceTopic, "orders")}, codeTopicAuthorizationFailed, 0},
		{"coordinator of a group", findGroup, func(r kmsg.Response) int16 { return r.(*kmsg.FindCoordinatorResponse).Coordinators[0].ErrorCode },
			[]string{rule(OpDescribe, ResourceGroup, "g")}, codeGroupAuthorizationFailed, 0},
		{"coordinator of a transaction", findTxn, func(r kmsg.Response) int16 { return r.(*kmsg.FindCoordinatorResponse).ErrorCode },
			[]string{rule(OpDescribe, ResourceTransactionalID, "tx")}, codeTransactionalIDAuthorizationFailed, 0},
		{"idempotent producer", initIdempotent, initCode, []string{rule(OpIdempotentWrite, ResourceCluster, ClusterName)}, codeClusterAuthorizationFailed, 0},
		{"idempotent producer of some topic", initIdempotent, initCode, []string{rule(OpWrite, ResourceTopic, "other")}, codeClusterAuthorizationFailed, 0},
		{"transactional producer", initTxn, initCode, []string{rule(OpWrite, ResourceTransactionalID, "tx")}, codeTransactionalIDAuthorizationFailed, 0},
		{"offsets of a transaction", addOffsets, func(r kmsg.Response) int16 { return r.(*kmsg.AddOffsetsToTxnResponse).ErrorCode },
			[]string{rule(OpWrite, ResourceTransactionalID, "tx"), rule(OpRead, ResourceGroup, "g")}, codeTransactionalIDAuthorizationFailed, codeInvalidProducerIDMapping},
		{"end of a transaction", end, func(r kmsg.Response) int16 { return r.(*kmsg.EndTxnResponse).ErrorCode },
			[]string{rule(OpWrite, ResourceTransactionalID, "tx")}, codeTransactionalIDAuthorizationFailed, codeInvalidProducerIDMapping},
		{"producers", producers, func(r kmsg.Response) int16 {
			return r.(*kmsg.DescribeProducersResponse).Topics[0].Partitions[0].ErrorCode
		},
			[]string{rule(OpRead, ResourceTopic, "orders")}, codeTopicAuthorizationFailed, 0},
		{"description of a transaction", describe, func(r kmsg.Response) int16 {
			return r.(*kmsg.DescribeTransactionsResponse).TransactionStates[0].ErrorCode
		},
			[]string{rule(OpDescribe, ResourceTransactionalID, "nobody")}, codeTransactionalIDAuthorizationFailed, codeTransactionalIDNotFound},
	} {
		auth.mu.Lock()
		auth.allowed = nil
		auth.mu.Unlock()
		if got := row.code(do[kmsg.Response](x, row.q)); got != row.refused {
			t.Errorf("%s: error code %d without permission, want %d", row.name, got, row.refused)
		}
		auth.mu.Lock()
		auth.allowed = row.rules
		auth.mu.Unlock()
		if got := row.code(do[kmsg.Response](x, row.q)); got != row.allowed {
			t.Errorf("%s: error code %d with permission, want %d", row.name, got, row.allowed)
		}
	}
	if !slices.Contains(auth.asked, "User:ann "+rule(OpWrite, ResourceTopic, "orders")) {
		t.Errorf("asked for %v", auth.asked[0])
	}
	if top, _ := topic.EngineTopic(); top.Partitions()[0].LogEnd() != 3 {
		t.Errorf("log ends at %d: want 1 record before, and 2 that were allowed", top.Partitions()[0].LogEnd())
	}
}

// What a principal may not describe is not in the list of all topics.
func TestMetadataHidesTopics(t *testing.T) {
	db := openMemory(t, &embedlog.Options{AutoCreateTopics: true})
	createTopic(t, db, "mine", nil)
	createTopic(t, db, "theirs", nil)
	auth := &rules{allowed: []string{rule(OpDescribe, ResourceTopic, "mine"), rule(OpRead, ResourceTopic, "mine"), rule(OpDescribe, ResourceTopic, "new"), rule(OpDescribe, ResourceTopic, "newer"), rule(OpCreate, ResourceTopic, "newer")}}
	x := dial(t, pipeServer(t, db, Options{Authorizer: auth}), nil)
	for _, version := range []int16{0, 1, 9, 13} {
		q := kmsg.NewPtrMetadataRequest()
		q.Version, q.IncludeTopicAuthorizedOperations = version, true
		if version == 0 {
			q.Topics = []kmsg.MetadataRequestTopic{}
		}
		m := do[*kmsg.MetadataResponse](x, q)
		if len(m.Topics) != 1 || *m.Topics[0].Topic != "mine" {
			t.Errorf("version %d: %+v", version, m.Topics)
		} else if version >= 8 && m.Topics[0].AuthorizedOperations != 1<<OpRead|1<<OpDescribe {
			t.Errorf("version %d: operations %b", version, m.Topics[0].AuthorizedOperations)
		}
	}
	q := kmsg.NewPtrMetadataRequest()
	q.Version, q.AllowAutoTopicCreation = 9, true
	for _, name := range []string{"mine", "theirs", "new", "newer"} {
		q.Topics = append(q.Topics, kmsg.MetadataRequestTopic{Topic: &name})
	}
	got := ""
	for _, top := range do[*kmsg.MetadataResponse](x, q).Topics {
		got += fmt.Sprintf("%s:%d ", *top.Topic, top.ErrorCode)
	}
	if want := "mine:0 theirs:29 new:29 newer:0 "; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Topics are made when they are asked for, where the database and the request say so.
func TestMetadataMakesTopics(t *testing.T) {
	for _, row := range []struct {
		option, request bool
		version         int16
		topic           string
		code            int16
	}{
		{true, true, 9, "new", 0}, {true, false, 9, "new", 3}, {false, true, 9, "new", 3}, {true, false, 3, "new", 0},
		{true, true, 9, "no/name", 17}, {false, false, 9, "no/name", 17}, {true, true, 9, "__mine", 17},
	} {
		db := openMemory(t, &embedlog.Options{AutoCreateTopics: row.option, TopicDefaults: embedlog.TopicConfig{Partitions: 3}})
		x := dial(t, pipeServer(t, db, Options{}), nil)
		q := kmsg.NewPtrMetadataRequest()
		q.Version, q.AllowAutoTopicCreation = row.version, row.request
		q.Topics = []kmsg.MetadataRequestTopic{{Topic: &row.topic}}
		m := do[*kmsg.MetadataResponse](x, q).Topics[0]
		if m.ErrorCode != row.code || (len(m.Partitions) == 3) != (row.code == 0) {
			t.Errorf("%+v: %+v", row, m)
		}
	}
}

// slowDown makes everybody wait for each byte moved.
type slowDown struct {
	mu    sync.Mutex
	moved []Moved
}

func (s *slowDown) Throttle(m Moved) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved = append(s.moved, m)
	return time.Duration(m.ProducedBytes+m.FetchedBytes) * time.Millisecond
}

// A client that is throttled is answered at once, told for how long, and its next
// request waits.
func TestThrottle(t *testing.T) {
	for _, version := range []int16{3, 9, 12} {
		synctest.Test(t, func(t *testing.T) {
			db := openMemory(t, nil)
			topic := createTopic(t, db, "orders", nil)
			slow := &slowDown{}
			x := dial(t, pipeServer(t, db, Options{Throttler: slow}), known{"User", "ann"})
			b := batch(t, plain(), "a")
			began := time.Now()
			p := do[*kmsg.ProduceResponse](x, produceRequest(version, topic, 0, b))
			if p.ThrottleMillis != int32(len(b)) || time.Since(began) != 0 {
				t.Errorf("produce: throttled for %d ms after %v, want %d", p.ThrottleMillis, time.Since(began), len(b))
			}
			f := do[*kmsg.FetchResponse](x, fetchRequest(12, topic, 0, 0))
			if want := time.Duration(len(b)) * time.Millisecond; time.Since(began) != want || f.ThrottleMillis != int32(len(b)) {
				t.Errorf("fetch: throttled for %d ms after %v, want after %v", f.ThrottleMillis, time.Since(began), want)
			}
			do[*kmsg.ApiVersionsResponse](x, apiVersionsRequest(3))
			if got := time.Since(began); got != 2*time.Duration(len(b))*time.Millisecond {
				t.Errorf("the third request was answered after %v", got)
			}
			want := []Moved{{ProducedBytes: int64(len(b)), Key: 0}, {FetchedBytes: int64(len(b)), Key: 1}, {Key: 18}}
			for i, m := range slow.moved {
				if m.ProducedBytes != want[i].ProducedBytes || m.FetchedBytes != want[i].FetchedBytes || m.Key != want[i].Key || m.Principal.Name != "ann" || m.ClientID != "raw" {
					t.Errorf("request %d: %+v", i, m)
				}
			}
			if len(slow.moved) != 3 {
				t.Errorf("asked %d times", len(slow.moved))
			}
		})
	}
}

// ApiVersions says what is served, with the exceptions that clients need.
func TestApiVersions(t *testing.T) {
	db := openMemory(t, nil)
	x := dial(t, pipeServer(t, db, Options{}), nil)
	for version := range int16(6) {
		resp := do[*kmsg.ApiVersionsResponse](x, apiVersionsRequest(version))
		seen := make(map[int16]kmsg.ApiVersionsResponseApiKey)
		for _, k := range resp.ApiKeys {
			seen[k.ApiKey] = k
			if a := apiOf(k.ApiKey); a == nil || k.MaxVersion != a.max || k.MinVersion > a.min {
				t.Errorf("version %d: %+v is not served", version, k)
			}
			if a := apiOf(k.ApiKey); k.MinVersion != a.min && k.ApiKey != 0 && k.ApiKey != 11 && k.ApiKey != 17 {
				t.Errorf("version %d: %+v is named from another version on than it is served", version, k)
			}
		}
		if resp.ErrorCode != 0 || seen[0].MinVersion != 0 || seen[0].MaxVersion != 13 {
			t.Errorf("version %d: %+v", version, resp)
		}
		features := ""
		for _, f := range resp.FinalizedFeatures {
			features += fmt.Sprintf("%s=%d ", f.Name, f.MaxVersionLevel)
		}
		if version >= 3 && (features != "group.version=1 metadata.version=25 share.version=1 transaction.version=2 " || resp.FinalizedFeaturesEpoch < 0) {
			t.Errorf("version %d: features %s, epoch %d", version, features, resp.FinalizedFeaturesEpoch)
		}
	}
	// A version to come is answered in the oldest form.
	q := apiVersionsRequest(0)
	x.c.Write(framed(header(18, 99, 5)))
	if resp := x.recv(q, 5).(*kmsg.ApiVersionsResponse); resp.ErrorCode != codeUnsupportedVersion || len(resp.ApiKeys) == 0 {
		t.Errorf("version 99: %+v", resp)
	}
	bad := apiVersionsRequest(3)
	bad.ClientSoftwareName = "a client!"
	if resp := do[*kmsg.ApiVersionsResponse](x, bad); resp.ErrorCode != codeInvalidRequest {
		t.Errorf("a name that is none: %+v", resp)
	}
}

// What may be done is said as one bit for each operation, and only for those that a
// resource of the type has.
func TestAuthorizedOperations(t *testing.T) {
	s := pipeServer(t, openMemory(t, nil), Options{})
	r := &request{srv: s}
	for _, row := range []struct {
		resource ResourceType
		ops      []Operation
		want     int32 // as Kafka's AclEntry.supportedOperations has them
	}{
		{ResourceTopic, topicOperations, 0b1101_1111_1000 &^ (1 << 9)},
		{ResourceGroup, groupOperations, 1<<3 | 1<<6 | 1<<8 | 1<<10 | 1<<11},
		{ResourceCluster, clusterOperations, 1<<5 | 1<<7 | 1<<8 | 1<<9 | 1<<10 | 1<<11 | 1<<12},
	} {
		if got := r.operations(row.resource, "any", row.ops...); got != row.want {
			t.Errorf("resource type %d: operations %b, want %b", row.resource, got, row.want)
		}
	}
}
