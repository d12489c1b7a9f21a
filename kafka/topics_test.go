package kafka

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	embedlog "github.com/x/embedlog"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// newTopic is a topic in a CreateTopics request: settings as "name=value", a
// name alone has no value.
func newTopic(name string, partitions int32, replication int16, settings ...string) kmsg.CreateTopicsRequestTopic {
	x := kmsg.NewCreateTopicsRequestTopic()
	x.Topic, x.NumPartitions, x.ReplicationFactor = name, partitions, replication
	for _, s := range settings {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		value, ok := "", false
		if c.Name, value, ok = strings.Cut(s, "="); ok {
			c.Value = &value
		}
		x.Configs = append(x.Configs, c)
	}
	return x
}

// assigned is a topic with replicas for each partition, as "0:1 1:1,2".
func assigned(name string, partitions int32, replication int16, replicas string) kmsg.CreateTopicsRequestTopic {
	x := newTopic(name, partitions, replication)
	for _, item := range strings.Fields(replicas) {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		number, list, _ := strings.Cut(item, ":")
		fmt.Sscan(number, &a.Partition)
		for id := range strings.SplitSeq(list, ",") {
			var n int32
			if _, err := fmt.Sscan(id, &n); err == nil {
				a.Replicas = append(a.Replicas, n)
			}
		}
		x.ReplicaAssignment = append(x.ReplicaAssignment, a)
	}
	return x
}

func create(topics ...kmsg.CreateTopicsRequestTopic) *kmsg.CreateTopicsRequest {
	q := kmsg.NewPtrCreateTopicsRequest()
	q.Topics = topics
	return q
}

func TestCreateTopicsErrors(t *testing.T) {
	db, w := openAdmin(t, "orders/1 a.b/1", Options{}, nil)
	for _, row := range []struct {
		what  string
		topic kmsg.CreateTopicsRequestTopic
		code  int16
		words string
	}{
		{"exists", newTopic("orders", 1, 1), codeTopicAlreadyExists, "already exists"},
		{"bad name", newTopic("a b", 1, 1), codeInvalidTopicException, "letters"},
		{"no name", newTopic("", 1, 1), codeInvalidTopicException, "empty"},
		{"internal name", newTopic("__mine", 1, 1), codeInvalidTopicException, "internal"},
		{"name like another", newTopic("a_b", 1, 1), codeInvalidTopicException, "a.b"},
		{"no partitions", newTopic("n", 0, 1), codeInvalidPartitions, "non-positive"},
		{"negative partitions", newTopic("n", -2, 1), codeInvalidPartitions, "non-positive"},
		{"too many partitions", newTopic("n", 1_000_000, 1), codeInvalidPartitions, "at most"},
		{"no replicas", newTopic("n", 1, 0), codeInvalidReplicationFactor, "-1"},
		{"three replicas", newTopic("n", 1, 3), codeInvalidReplicationFactor, "only one broker"},
		{"null value", newTopic("n", 1, 1, "retention.ms"), codeInvalidConfig, "null"},
		{"unknown setting", newTopic("n", 1, 1, "retentoin.ms=1"), codeInvalidConfig, "retention.ms"},
		{"bad values", newTopic("n", 1, 1, "retention.ms=x", "segment.bytes=y"), codeInvalidConfig, "segment.bytes"},
		{"would not hold", newTopic("n", 1, 1, "min.insync.replicas=2"), codeInvalidConfig, "one copy"},
		{"assigned and a number", assigned("n", 1, -1, "0:1"), codeInvalidRequest, "number of partitions"},
		{"assigned and a factor", assigned("n", -1, 1, "0:1"), codeInvalidRequest, "replication factor"},
		{"assigned elsewhere", assigned("n", -1, -1, "0:2"), codeInvalidReplicaAssignment, "broker 2"},
		{"assigned to two", assigned("n", -1, -1, "0:1,2"), codeInvalidReplicaAssignment, "broker 2"},
		{"assigned twice to one", assigned("n", -1, -1, "0:1,1"), codeInvalidReplicaAssignment, "more than once"},
		{"assigned to none", assigned("n", -1, -1, "0:"), codeInvalidReplicaAssignment, "empty"},
		{"assigned with a gap", assigned("n", -1, -1, "0:1 2:1"), codeInvalidReplicaAssignment, "from 0 on"},
		{"assigned one twice", assigned("n", -1, -1, "0:1 0:1"), codeInvalidReplicaAssignment, "from 0 on"},
	} {
		for _, only := range []bool{true, false} {
			q := create(row.topic)
			q.ValidateOnly = only
			got := newest[*kmsg.CreateTopicsResponse](w, q).Topics[0]
			wantCode(t, fmt.Sprintf("%s, validate only %t", row.what, only), got.ErrorCode, got.ErrorMessage, row.code, row.words)
		}
	}
	if names := topicNames(db); !slices.Equal(names, []string{"a.b", "orders"}) {
		t.Errorf("topics %v after nothing but refusals", names)
	}
}

func topicNames(db *embedlog.DB) (names []string) {
	for _, info := range db.Topics() {
		if !info.Internal {
			names = append(names, info.Name)
		}
	}
	return names
}

func TestCreateTopics(t *testing.T) {
	for version := int16(2); version <= 7; version++ {
		db, w := openAdmin(t, "", Options{}, &embedlog.Options{TopicDefaults: embedlog.TopicConfig{Partitions: 2, Settings: map[string]string{"segment.bytes": "65536"}}})
		q := create(
			newTopic("plain", 3, 1), newTopic("defaults", -1, -1), assigned("byhand", -1, -1, "1:1 0:1"),
			newTopic("set", 1, -1, "cleanup.policy=compact", "retention.ms= 5000 "),
			newTopic("twice", 1, 1), newTopic("twice", 2, 1), newTopic("bad name", 1, 1))
		q.ValidateOnly = true
		for _, only := range []bool{true, false} {
			q.ValidateOnly = only
			resp := ask[*kmsg.CreateTopicsResponse](w, q, version)
			var got []string
			for _, x := range resp.Topics {
				text := fmt.Sprintf("%s:%d", x.Topic, x.ErrorCode)
				if version >= 5 {
					text += fmt.Sprintf(":%d/%d", x.NumPartitions, x.ReplicationFactor)
				}
				got = append(got, text)
				if id := x.TopicID != [16]byte{}; id != (version >= 7 && !only && x.ErrorCode == 0) {
					t.Errorf("version %d, validate only %t: %s has an id: %t", version, only, x.Topic, id)
				}
				for _, c := range x.Configs {
					if c.Source <= 0 || c.Value == nil {
						t.Errorf("version %d: %s of %s has source %d, which clients refuse, or no value", version, c.Name, x.Topic, c.Source)
					}
				}
			}
			want := "plain:0 defaults:0 byhand:0 set:0 twice:42 bad name:17"
			if version >= 5 {
				want = "plain:0:3/1 defaults:0:2/1 byhand:0:2/1 set:0:1/1 twice:42:-1/-1 bad name:17:-1/-1"
			}
			if s := strings.Join(got, " "); s != want {
				t.Errorf("version %d, validate only %t:\n got %s\nwant %s", version, only, s, want)
			}
			if names := topicNames(db); (len(names) == 0) != only {
				t.Errorf("version %d, validate only %t: topics %v", version, only, names)
			}
			if version >= 5 {
				wantSources(t, resp.Topics[3].Configs, "cleanup.policy=compact:1 retention.ms=5000:1 segment.bytes=65536:4 retention.bytes=-1:5")
			}
		}
		top, err := db.Topic("set")
		if err != nil {
			t.Fatal(err)
		}
		if info, _ := top.Describe(); settingOf(info, "cleanup.policy") != "compact" || settingOf(info, "retention.ms") != "5000" {
			t.Errorf("version %d: the Go door sees %+v", version, info.Settings)
		}
	}
}

func settingOf(info embedlog.TopicInfo, name string) string {
	for _, s := range info.Settings {
		if s.Name == name {
			return s.Value
		}
	}
	return "none"
}

func wantSources(t *testing.T, list []kmsg.CreateTopicsResponseTopicConfig, want string) {
	t.Helper()
	for _, item := range strings.Fields(want) {
		if !slices.ContainsFunc(list, func(c kmsg.CreateTopicsResponseTopicConfig) bool {
			return fmt.Sprintf("%s=%s:%d", c.Name, said(c.Value), c.Source) == item
		}) {
			t.Errorf("%s is not among the %d settings answered", item, len(list))
		}
	}
}

func TestCreateTopicsDenied(t *testing.T) {
	auth := denied(OpCreate, ResourceCluster, ClusterName, OpCreate, ResourceTopic, "secret", OpDescribeConfigs, ResourceTopic, "dark")
	db, w := openAdmin(t, "", Options{Authorizer: auth}, nil)
	resp := newest[*kmsg.CreateTopicsResponse](w, create(newTopic("secret", 1, 1), newTopic("open", 1, 1), newTopic("dark", 1, 1)))
	wantCode(t, "secret", resp.Topics[0].ErrorCode, resp.Topics[0].ErrorMessage, codeTopicAuthorizationFailed, "authorization")
	wantCode(t, "open", resp.Topics[1].ErrorCode, resp.Topics[1].ErrorMessage, 0, "")
	if d := resp.Topics[2]; d.ErrorCode != 0 || d.ConfigErrorCode != codeTopicAuthorizationFailed || len(d.Configs) != 0 || d.NumPartitions != -1 {
		t.Errorf("a topic whose settings may not be seen: %+v", d)
	}
	if names := topicNames(db); !slices.Equal(names, []string{"dark", "open"}) {
		t.Errorf("topics %v", names)
	}
}

func TestRequestsHaveTheirTime(t *testing.T) {
	db, w := openAdmin(t, "orders/1", Options{}, nil)
	q := create(newTopic("late", 1, 1))
	q.TimeoutMillis = 0
	if got := newest[*kmsg.CreateTopicsResponse](w, q).Topics[0]; got.ErrorCode != codeRequestTimedOut {
		t.Errorf("create without any time: %d %s", got.ErrorCode, said(got.ErrorMessage))
	}
	d := deleteNames("orders")
	d.TimeoutMillis = -1
	if got := newest[*kmsg.DeleteTopicsResponse](w, d).Topics[0]; got.ErrorCode != codeRequestTimedOut {
		t.Errorf("delete without any time: %d %s", got.ErrorCode, said(got.ErrorMessage))
	}
	p := addTo("orders", 2, "")
	p.TimeoutMillis = 0
	if got := newest[*kmsg.CreatePartitionsResponse](w, p).Topics[0]; got.ErrorCode != codeRequestTimedOut {
		t.Errorf("add partitions without any time: %d %s", got.ErrorCode, said(got.ErrorMessage))
	}
	r := trim("orders", 0, -1)
	r.TimeoutMillis = 0
	if got := newest[*kmsg.DeleteRecordsResponse](w, r).Topics[0].Partitions[0]; got.ErrorCode != codeRequestTimedOut || got.LowWatermark != -1 {
		t.Errorf("delete records without any time: %+v", got)
	}
	if names := topicNames(db); !slices.Equal(names, []string{"orders"}) {
		t.Errorf("topics %v", names)
	}
}

func deleteNames(names ...string) *kmsg.DeleteTopicsRequest {
	q := kmsg.NewPtrDeleteTopicsRequest()
	for _, name := range names {
		q.TopicNames = append(q.TopicNames, name)
		x := kmsg.NewDeleteTopicsRequestTopic()
		x.Topic = &name
		q.Topics = append(q.Topics, x)
	}
	return q
}

func deleteIDs(ids ...[16]byte) *kmsg.DeleteTopicsRequest {
	q := kmsg.NewPtrDeleteTopicsRequest()
	for _, id := range ids {
		x := kmsg.NewDeleteTopicsRequestTopic()
		x.TopicID = id
		q.Topics = append(q.Topics, x)
	}
	return q
}

func topicID(t *testing.T, db *embedlog.DB, name string) [16]byte {
	t.Helper()
	top, err := db.Topic(name)
	if err != nil {
		t.Fatal(err)
	}
	return top.ID()
}

func TestDeleteTopics(t *testing.T) {
	for version := int16(1); version <= 6; version++ {
		db, w := openAdmin(t, "a/1 b/2 keep/1", Options{}, nil)
		id := topicID(t, db, "a")
		resp := ask[*kmsg.DeleteTopicsResponse](w, deleteNames("a", "none", "keep", "keep"), version)
		var got []string
		for _, x := range resp.Topics {
			got = append(got, fmt.Sprintf("%s:%d", said(x.Topic), x.ErrorCode))
			if version >= 6 && *x.Topic == "a" && x.TopicID != id {
				t.Errorf("the id of what was deleted is %x, want %x", x.TopicID, id)
			}
			if (x.ErrorMessage != nil) != (version >= 5 && x.ErrorCode != 0) {
				t.Errorf("version %d: message %q", version, said(x.ErrorMessage))
			}
		}
		if s := strings.Join(got, " "); s != "a:0 none:3 keep:42" {
			t.Errorf("version %d: %s", version, s)
		}
		if names := topicNames(db); !slices.Equal(names, []string{"b", "keep"}) {
			t.Errorf("version %d: topics %v", version, names)
		}
	}
}

func TestDeleteTopicsByID(t *testing.T) {
	db, w := openAdmin(t, "a/1 b/1 c/1 both/1", Options{}, nil)
	a, b, both := topicID(t, db, "a"), topicID(t, db, "b"), topicID(t, db, "both")
	name := "c"
	confused := deleteIDs(topicID(t, db, "c"), [16]byte{})
	confused.Topics[0].Topic = &name
	for _, row := range []struct {
		what string
		q    *kmsg.DeleteTopicsRequest
		want string
	}{
		{"one", deleteIDs(a), "a:0"},
		{"gone", deleteIDs(a), ":100"},
		{"never there", deleteIDs([16]byte{1}), ":100"},
		{"twice", deleteIDs(b, b), ":42"},
		{"name and id, and neither", confused, "c:42 :42"},
		{"one by both", &kmsg.DeleteTopicsRequest{TimeoutMillis: 5000, Topics: append(deleteIDs(both).Topics, deleteNames("both").Topics...)}, "both:42 both:42"},
	} {
		var got []string
		for _, x := range newest[*kmsg.DeleteTopicsResponse](w, row.q).Topics {
			got = append(got, fmt.Sprintf("%s:%d", said(x.Topic), x.ErrorCode))
		}
		if s := strings.Join(got, " "); s != row.want {
			t.Errorf("%s: got %s, want %s", row.what, s, row.want)
		}
	}
	if names := topicNames(db); !slices.Equal(names, []string{"b", "both", "c"}) {
		t.Errorf("topics %v", names)
	}
}

func TestDeleteTopicsDenied(t *testing.T) {
	auth := denied(OpDelete, ResourceCluster, ClusterName,
		OpDelete, ResourceTopic, "seen", OpDelete, ResourceTopic, "unseen", OpDescribe, ResourceTopic, "unseen", OpDescribe, ResourceTopic, "none")
	db, w := openAdmin(t, "seen/1 unseen/1 free/1", Options{Authorizer: auth}, nil)
	for _, row := range []struct {
		what string
		q    *kmsg.DeleteTopicsRequest
		want string // name:code
	}{
		{"by name", deleteNames("seen", "unseen", "none", "other"), "seen:29 unseen:29 none:29 other:3"},
		{"by id", deleteIDs(topicID(t, db, "seen"), topicID(t, db, "unseen"), topicID(t, db, "free")), "seen:29 :29 free:0"},
	} {
		var got []string
		for _, x := range newest[*kmsg.DeleteTopicsResponse](w, row.q).Topics {
			got = append(got, fmt.Sprintf("%s:%d", said(x.Topic), x.ErrorCode))
		}
		if s := strings.Join(got, " "); s != row.want {
			t.Errorf("%s: got %s, want %s", row.what, s, row.want)
		}
	}
	if names := topicNames(db); !slices.Equal(names, []string{"seen", "unseen"}) {
		t.Errorf("topics %v", names)
	}
}

func TestInternalTopicsStay(t *testing.T) {
	db, w := openAdmin(t, "", Options{}, nil)
	internal, err := db.Engine().InternalTopic(t.Context(), "__consumer_offsets", map[string]string{"cleanup.policy": "compact"})
	if err != nil {
		t.Fatal(err)
	}
	name := internal.Name()
	if got := newest[*kmsg.DeleteTopicsResponse](w, deleteNames(name)).Topics[0]; got.ErrorCode != codeInvalidTopicException {
		t.Errorf("delete: %d", got.ErrorCode)
	}
	if got := newest[*kmsg.CreatePartitionsResponse](w, addTo(name, 50, "")).Topics[0]; got.ErrorCode != codeInvalidTopicException {
		t.Errorf("add partitions: %d", got.ErrorCode)
	}
	if got := newest[*kmsg.DeleteRecordsResponse](w, trim(name, 0, -1)).Topics[0].Partitions[0]; got.ErrorCode != codeInvalidTopicException {
		t.Errorf("delete records: %d", got.ErrorCode)
	}
	if got := newest[*kmsg.IncrementalAlterConfigsResponse](w, incremental(kmsg.ConfigResourceTypeTopic, name, "set cleanup.policy delete")).Resources[0]; got.ErrorCode != codeInvalidConfig {
		t.Errorf("alter: %d %s", got.ErrorCode, said(got.ErrorMessage))
	}
	// The value that is there is no change.
	if got := newest[*kmsg.IncrementalAlterConfigsResponse](w, incremental(kmsg.ConfigResourceTypeTopic, name, "set cleanup.policy compact")).Resources[0]; got.ErrorCode != 0 {
		t.Errorf("alter to what it is: %d %s", got.ErrorCode, said(got.ErrorMessage))
	}
}

func addTo(topic string, total int32, replicas string) *kmsg.CreatePartitionsRequest {
	q := kmsg.NewPtrCreatePartitionsRequest()
	x := kmsg.NewCreatePartitionsRequestTopic()
	x.Topic, x.Count = topic, total
	for _, a := range assigned("", 0, 0, replicas).ReplicaAssignment {
		x.Assignment = append(x.Assignment, kmsg.CreatePartitionsRequestTopicAssignment{Replicas: a.Replicas})
	}
	q.Topics = append(q.Topics, x)
	return q
}

func TestCreatePartitions(t *testing.T) {
	db, w := openAdmin(t, "orders/2", Options{Authorizer: denied(OpAlter, ResourceTopic, "secret")}, nil)
	for _, row := range []struct {
		what  string
		q     *kmsg.CreatePartitionsRequest
		code  int16
		words string
	}{
		{"same", addTo("orders", 2, ""), codeInvalidPartitions, "already has 2"},
		{"fewer", addTo("orders", 1, ""), codeInvalidPartitions, "not be an increase"},
		{"too many", addTo("orders", 1_000_000, ""), codeInvalidPartitions, "at most"},
		{"unknown", addTo("none", 2, ""), codeUnknownTopicOrPartition, "none"},
		{"denied", addTo("secret", 2, ""), codeTopicAuthorizationFailed, ""},
		{"replicas for too few", addTo("orders", 4, "0:1"), codeInvalidReplicaAssignment, "2 partitions"},
		{"replicas elsewhere", addTo("orders", 3, "0:9"), codeInvalidReplicaAssignment, "broker 9"},
		{"twice", &kmsg.CreatePartitionsRequest{TimeoutMillis: 5000, Topics: append(addTo("orders", 3, "").Topics, addTo("orders", 4, "").Topics...)}, codeInvalidRequest, "Duplicate"},
	} {
		for _, only := range []bool{true, false} {
			row.q.ValidateOnly = only
			resp := newest[*kmsg.CreatePartitionsResponse](w, row.q)
			if len(resp.Topics) != 1 {
				t.Fatalf("%s: %d answers", row.what, len(resp.Topics))
			}
			wantCode(t, row.what, resp.Topics[0].ErrorCode, resp.Topics[0].ErrorMessage, row.code, row.words)
		}
	}
	total := int32(2)
	for version := int16(0); version <= 3; version++ {
		for _, replicas := range []string{"", "0:1"} {
			q := addTo("orders", total+1, replicas)
			for _, only := range []bool{true, false} {
				q.ValidateOnly = only
				if got := ask[*kmsg.CreatePartitionsResponse](w, q, version).Topics[0]; got.ErrorCode != 0 || got.Topic != "orders" {
					t.Errorf("version %d: %+v %s", version, got, said(got.ErrorMessage))
				}
				if !only {
					total++
				}
				if top, err := db.Topic("orders"); err != nil || int32(top.Partitions()) != total {
					t.Fatalf("version %d, validate only %t: %d partitions, want %d (%v)", version, only, top.Partitions(), total, err)
				}
			}
		}
	}
}

func trim(topic string, partition int32, offset int64) *kmsg.DeleteRecordsRequest {
	q := kmsg.NewPtrDeleteRecordsRequest()
	x := kmsg.NewDeleteRecordsRequestTopic()
	x.Topic = topic
	p := kmsg.NewDeleteRecordsRequestTopicPartition()
	p.Partition, p.Offset = partition, offset
	x.Partitions = append(x.Partitions, p)
	q.Topics = append(q.Topics, x)
	return q
}

func TestDeleteRecords(t *testing.T) {
	for version := int16(0); version <= 2; version++ {
		db, w := openAdmin(t, "orders/1 secret/1", Options{Authorizer: denied(OpDelete, ResourceTopic, "secret", OpDelete, ResourceTopic, "none")}, nil)
		top, err := db.Topic("orders")
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if _, err := top.Produce(t.Context(), embedlog.Record{Value: []byte("x")}); err != nil {
				t.Fatal(err)
			}
		}
		for _, row := range []struct {
			what      string
			topic     string
			partition int32
			offset    int64
			code      int16
			low       int64
		}{
			{"some", "orders", 0, 4, 0, 4},
			{"below the start", "orders", 0, 2, 0, 4},
			{"past the end", "orders", 0, 11, codeOffsetOutOfRange, -1},
			{"negative", "orders", 0, -2, codeOffsetOutOfRange, -1},
			{"all", "orders", 0, -1, 0, 10},
			{"no such partition", "orders", 1, 0, codeUnknownTopicOrPartition, -1},
			{"no such topic", "other", 0, 0, codeUnknownTopicOrPartition, -1},
			{"denied", "secret", 0, 0, codeTopicAuthorizationFailed, -1},
			{"denied, and not there", "none", 0, 0, codeTopicAuthorizationFailed, -1},
		} {
			got := ask[*kmsg.DeleteRecordsResponse](w, trim(row.topic, row.partition, row.offset), version).Topics[0]
			if p := got.Partitions[0]; got.Topic != row.topic || p.Partition != row.partition || p.ErrorCode != row.code || p.LowWatermark != row.low {
				t.Errorf("version %d, %s: %+v, want code %d and low watermark %d", version, row.what, p, row.code, row.low)
			}
		}
		if info, _ := top.Describe(); info.Partitions[0].LogStart != 10 {
			t.Errorf("the Go door sees a log start of %d", info.Partitions[0].LogStart)
		}
	}
}
