package engine

import (
	"encoding/json"
	"testing"

	"github.com/x/embedlog/log"
)

func TestExplain(t *testing.T) {
	id := TopicID{1, 2, 3}
	encoded := func(c command) []byte { return c.encode() }
	topic := topicMeta{id: id, name: "orders", partitions: 2, settings: map[string]string{"retention.ms": "1"}}
	offset := appendOffsetKey(nil, &offsetKey{version: offsetKeyVersion, group: "g", topic: "orders", partition: 1})
	group := appendOffsetKey(nil, &offsetKey{version: groupKeyVersion, group: "g"})
	txn := &txnValue{ProducerID: 7, PreviousProducerID: -1, NextProducerID: 9, Epoch: 2, TimeoutMillis: 1000, Owner: ownerLocal,
		Topics: []txnTopic{{"orders", []int32{0, 1}}}, UpdatedMillis: 5, StartedMillis: 4}
	for _, row := range []struct {
		name       string
		key, value []byte
		want       string // "" is not known
	}{
		{"__consumer_offsets", offset, appendOffsetValue(nil, &offsetValue{offset: 12, leaderEpoch: -1, commitMillis: 34, topicID: id}),
			`{"commit_timestamp":34,"group":"g","leader_epoch":-1,"offset":12,"partition":1,"topic":"orders","topic_id":"` + id.String() + `","type":"offset"}`},
		{"__consumer_offsets", offset, nil, `{"group":"g","partition":1,"tombstone":true,"topic":"orders","type":"offset"}`},
		{"__consumer_offsets", group, appendGroupValue(nil, groupValue{3, -1}), `{"epoch":3,"group":"g","type":"group"}`},
		{"__consumer_offsets", group, appendGroupValue(nil, groupValue{3, 7000}), `{"epoch":3,"group":"g","type":"group","unused_since_running_ms":7000}`},
		{"__consumer_offsets", group, []byte("x"), ""},
		{"__consumer_offsets", nil, []byte("x"), ""},
		{"__consumer_offsets", appendOffsetKey(nil, &offsetKey{version: shareGroupKeyVersion, group: "q"}), appendGroupValue(nil, groupValue{3, -1}), `{"epoch":3,"group":"q","type":"share group"}`},
		{"__share_group_state", appendShareKey(nil, &shareKey{shareSnapshotKeyVersion, "q", topicPart{id, 1}}), appendShareSnapshot(nil, &shareSnapshot{1, 2, 3, 4, 5, 6, -1, []shareBatch{{7, 8, shareAvailable, 2}}}),
			`{"batches":[{"delivery_count":2,"first_offset":7,"last_offset":8,"state":"available"}],"create_timestamp":5,"group":"q","leader_epoch":3,"partition":1,"snapshot_epoch":1,"start_offset":4,"state_epoch":2,"topic_id":"` + id.String() + `","type":"share snapshot","write_timestamp":6}`},
		{"__share_group_state", appendShareKey(nil, &shareKey{version: shareSettingsKeyVersion, group: "q"}), appendShareSettings(nil, map[string]string{"a": "b"}), `{"group":"q","settings":{"a":"b"},"type":"share settings"}`},
		{"__share_group_state", appendShareKey(nil, &shareKey{version: shareSettingsKeyVersion, group: "q"}), nil, `{"group":"q","tombstone":true,"type":"share settings"}`},
		{"__share_group_state", []byte("?"), nil, ""},
		{"__transaction_state", appendTxnKey(nil, "pay"), appendTxnValue(nil, txn),
			`{"last_update_timestamp":5,"next_producer_id":9,"owner":"local","partitions":["orders/0","orders/1"],"producer_epoch":2,"producer_id":7,"start_timestamp":4,"state":"` +
				txn.State.String() + `","timeout_ms":1000,"transactional_id":"pay","type":"transaction"}`},
		{"__transaction_state", appendTxnKey(nil, "pay"), nil, `{"tombstone":true,"transactional_id":"pay","type":"transaction"}`},
		{"__transaction_state", []byte("?"), nil, ""},
		{"meta", nil, encoded(command{kind: createTopicCommand, topic: topic}),
			`{"internal":false,"partitions":2,"settings":{"retention.ms":"1"},"topic":"orders","topic_id":"` + id.String() + `","type":"create topic"}`},
		{"meta", nil, encoded(command{kind: alterTopicCommand, topic: topicMeta{id: id}, set: map[string]string{"a": "b"}, unset: []string{"c"}}),
			`{"set":{"a":"b"},"topic_id":"` + id.String() + `","type":"alter topic","unset":["c"]}`},
		{"meta", nil, encoded(command{kind: addPartitionsCommand, topic: topicMeta{id: id}, total: 4}), `{"topic_id":"` + id.String() + `","total":4,"type":"add partitions"}`},
		{"meta", nil, encoded(command{kind: deleteTopicCommand, topic: topicMeta{id: id}}), `{"topic_id":"` + id.String() + `","type":"delete topic"}`},
		{"meta", nil, encoded(command{kind: topicDeletedCommand, topic: topicMeta{id: id}}), `{"topic_id":"` + id.String() + `","type":"topic deleted"}`},
		{"meta", nil, encoded(command{kind: allocateIDsCommand, count: 1000}), `{"count":1000,"type":"allocate producer ids"}`},
		{"meta", nil, encoded(command{kind: snapshotCommand, flags: snapshotFirst | snapshotLast, nextID: 5, topics: []*topicMeta{&topic}}),
			`{"deleting":[],"first":true,"last":true,"next_producer_id":5,"topics":[{"internal":false,"partitions":2,"settings":{"retention.ms":"1"},"topic":"orders","topic_id":"` + id.String() + `"}],"type":"snapshot"}`},
		{"meta", nil, encoded(command{kind: registerNodeCommand, node: nodeMeta{id: 2, directory: id, address: "h:1", endpoints: []Endpoint{{"L", "h", 9}}}}),
			`{"address":"h:1","directory":"` + id.String() + `","draining":false,"endpoints":[{"host":"h","listener":"L","port":9}],"node":2,"type":"register node"}`},
		{"meta", nil, encoded(command{kind: removeNodeCommand, node: nodeMeta{id: 2}}), `{"node":2,"type":"remove node"}`},
		{"meta", nil, encoded(command{kind: drainNodeCommand, node: nodeMeta{id: 2}, flags: 1}), `{"draining":true,"node":2,"type":"drain node"}`},
		{"meta", nil, encoded(command{kind: createReplicatedCommand, topic: topicMeta{id: id, name: "o", partitions: 1, settings: map[string]string{}}, factor: 2, placed: []placed{{0, assignment{1, []int32{1, 2}}}}}),
			`{"internal":false,"partitions":1,"replicas":[[1,2]],"replication_factor":2,"settings":{},"topic":"o","topic_id":"` + id.String() + `","type":"create topic"}`},
		{"meta", nil, encoded(command{kind: addReplicatedCommand, topic: topicMeta{id: id}, total: 2, placed: []placed{{1, assignment{1, []int32{1}}}}}),
			`{"replicas":[[1]],"topic_id":"` + id.String() + `","total":2,"type":"add partitions"}`},
		{"meta", nil, encoded(command{kind: assignCommand, topic: topicMeta{id: id}, factor: 1, placed: []placed{{0, assignment{2, []int32{1}}}}}),
			`{"partitions":[{"epoch":2,"partition":0,"replicas":[1]}],"replication_factor":1,"topic_id":"` + id.String() + `","type":"assign replicas"}`},
		{"meta", nil, encoded(command{kind: movedCommand, topic: topicMeta{id: id}, placed: []placed{{3, assignment{epoch: 2}}}}),
			`{"partitions":[{"epoch":2,"partition":3}],"topic_id":"` + id.String() + `","type":"replicas moved"}`},
		{"meta", nil, encoded(command{kind: clusterSnapshotCommand, moves: []move{{id, 3, []int32{2, 1}}}}),
			`{"deleting":[],"last":false,"moves":[{"before":[2,1],"partition":3,"topic_id":"` + id.String() + `"}],"nodes":[],"topics":[],"type":"snapshot of a cluster"}`},
		{"meta", nil, encoded(command{kind: topicGoneCommand, topic: topicMeta{id: id}, node: nodeMeta{id: 2}}), `{"node":2,"topic_id":"` + id.String() + `","type":"topic gone"}`},
		{"meta", nil, encoded(command{kind: clusterSnapshotCommand, flags: snapshotLast, nodes: []*nodeMeta{{id: 2}}, placements: []placement{{id, 1, 0, []assignment{{1, []int32{2}}}}}, waiting: []waiting{{id, []int32{2}}}}),
			`{"deleting":[{"nodes":[2],"topic_id":"` + id.String() + `"}],"last":true,"nodes":[{"address":"","directory":"AAAAAAAAAAAAAAAAAAAAAA","draining":false,"endpoints":[],"node":2}],"topics":[{"partitions":[{"epoch":1,"partition":0,"replicas":[2]}],"replication_factor":1,"topic_id":"` + id.String() + `"}],"type":"snapshot of a cluster"}`},
		{"meta", nil, []byte("no command"), ""},
	} {
		v, ok := Explainer(row.name)(&log.Record{Key: row.key, Value: row.value})
		if !ok {
			if row.want != "" {
				t.Errorf("%s: %s is not known", row.name, row.want)
			}
			continue
		}
		if b, err := json.Marshal(v); err != nil || string(b) != row.want {
			t.Errorf("%s: %v\n got %s\nwant %s", row.name, err, b, row.want)
		}
	}
	if Explainer("orders") != nil {
		t.Error("an application's topic is explained")
	}
}
