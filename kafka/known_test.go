package kafka

import (
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/x/embedlog/internal/engine"
)

// What a node that cannot catch up with the metadata says of a topic that it has not heard of is to be tried
// again; from when it can, it knows the topic.
func TestUnheardOfTopics(t *testing.T) {
	c := openTrio(t)
	if err := c.net.Elect(engine.LogID{}, 1); err != nil {
		t.Fatal(err)
	}
	hear := c.net.Deafen(engine.LogID{}, 3)
	made, err := kadm.NewClient(client(t, c.servers[0])).CreateTopic(t.Context(), 1, 1, nil, "orders")
	if err != nil {
		t.Fatal(err)
	}
	id := [16]byte(made.ID)
	rows := []struct {
		what string
		ask  func(w *raw) int16
		code int16 // while it cannot catch up
		then int16 // from when it has; leaderElsewhere is 0 or NOT_LEADER_OR_FOLLOWER
	}{
		{"metadata", func(w *raw) int16 {
			q := kmsg.NewPtrMetadataRequest()
			q.Topics = []kmsg.MetadataRequestTopic{{Topic: kmsg.StringPtr("orders")}}
			return newest[*kmsg.MetadataResponse](w, q).Topics[0].ErrorCode
		}, codeLeaderNotAvailable, codeNone},
		{"metadata by id", func(w *raw) int16 {
			q := kmsg.NewPtrMetadataRequest()
			q.Topics = []kmsg.MetadataRequestTopic{{TopicID: id}}
			return newest[*kmsg.MetadataResponse](w, q).Topics[0].ErrorCode
		}, codeLeaderNotAvailable, codeNone},
		{"metadata of none", func(w *raw) int16 {
			q := kmsg.NewPtrMetadataRequest()
			q.Topics = []kmsg.MetadataRequestTopic{{Topic: kmsg.StringPtr("none")}}
			return newest[*kmsg.MetadataResponse](w, q).Topics[0].ErrorCode
		}, codeLeaderNotAvailable, codeUnknownTopicOrPartition},
		{"topic partitions", func(w *raw) int16 {
			q := kmsg.NewPtrDescribeTopicPartitionsRequest()
			q.ResponsePartitionLimit = 10
			q.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: "orders"}}
			return newest[*kmsg.DescribeTopicPartitionsResponse](w, q).Topics[0].ErrorCode
		}, codeLeaderNotAvailable, codeNone},
		{"fetch", func(w *raw) int16 {
			q := kmsg.NewPtrFetchRequest()
			q.MaxBytes, q.SessionEpoch = 1<<20, -1
			q.Topics = []kmsg.FetchRequestTopic{{TopicID: id, Partitions: []kmsg.FetchRequestTopicPartition{{CurrentLeaderEpoch: -1, LastFetchedEpoch: -1, PartitionMaxBytes: 1}}}}
			return newest[*kmsg.FetchResponse](w, q).Topics[0].Partitions[0].ErrorCode
		}, codeNotLeaderOrFollower, leaderElsewhere},
		{"produce", func(w *raw) int16 {
			q := kmsg.NewPtrProduceRequest()
			q.Acks, q.TimeoutMillis = -1, 1000
			q.Topics = []kmsg.ProduceRequestTopic{{TopicID: id, Partitions: []kmsg.ProduceRequestTopicPartition{{Records: batch(t, plain(), "a")}}}}
			return newest[*kmsg.ProduceResponse](w, q).Topics[0].Partitions[0].ErrorCode
		}, codeNotLeaderOrFollower, leaderElsewhere},
		{"list offsets", func(w *raw) int16 {
			q := kmsg.NewPtrListOffsetsRequest()
			q.ReplicaID = -1
			q.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "orders", Partitions: []kmsg.ListOffsetsRequestTopicPartition{{CurrentLeaderEpoch: -1, Timestamp: timeEarliest}}}}
			return newest[*kmsg.ListOffsetsResponse](w, q).Topics[0].Partitions[0].ErrorCode
		}, codeNotLeaderOrFollower, leaderElsewhere},
		{"configs", func(w *raw) int16 {
			q := kmsg.NewPtrDescribeConfigsRequest()
			q.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "orders"}}
			return newest[*kmsg.DescribeConfigsResponse](w, q).Resources[0].ErrorCode
		}, codeNotController, codeNone},
	}
	ask := func(while string, want func(i int) int16) {
		var asked sync.WaitGroup
		for i, row := range rows {
			w := dialWire(t, c.servers[2])
			asked.Go(func() {
				got := row.ask(w)
				if wants := want(i); got != wants && (wants != leaderElsewhere || got != codeNone && got != codeNotLeaderOrFollower) {
					t.Errorf("%s, %s: code %d, want %d", while, row.what, got, wants)
				}
			})
		}
		asked.Wait()
	}
	ask("deaf", func(i int) int16 { return rows[i].code })
	hear()
	ask("then", func(i int) int16 { return rows[i].then })
}

// leaderElsewhere is no code: the node may lead, or not.
const leaderElsewhere = -100
