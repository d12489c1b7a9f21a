package kafka

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestDescribeCluster(t *testing.T) {
	db := openMemory(t, nil)
	s := serve(t, db, Options{Listeners: []Listener{{Address: "127.0.0.1:0", Advertise: "log.example:19092"}}})
	w := dialWire(t, s)
	for version := int16(0); version <= 2; version++ {
		got := ask[*kmsg.DescribeClusterResponse](w, kmsg.NewPtrDescribeClusterRequest(), version)
		if got.ErrorCode != 0 || got.ClusterID != db.Info().ClusterID || got.ControllerID != 1 || len(got.Brokers) != 1 ||
			got.Brokers[0].NodeID != 1 || got.Brokers[0].Host != "log.example" || got.Brokers[0].Port != 19092 || got.ClusterAuthorizedOperations != math.MinInt32 {
			t.Errorf("version %d: %+v", version, got)
		}
	}
	for _, row := range []struct {
		endpoint int8
		code     int16
	}{{1, 0}, {2, codeMismatchedEndpointType}, {3, codeUnsupportedEndpointType}, {0, codeUnsupportedEndpointType}} {
		q := kmsg.NewPtrDescribeClusterRequest()
		q.EndpointType = row.endpoint
		if got := newest[*kmsg.DescribeClusterResponse](w, q); got.ErrorCode != row.code || (len(got.Brokers) > 0) != (row.code == 0) {
			t.Errorf("endpoint type %d: %+v, want code %d", row.endpoint, got, row.code)
		}
	}
	q := kmsg.NewPtrDescribeClusterRequest()
	q.IncludeClusterAuthorizedOperations = true
	want := int32(0)
	for _, op := range clusterOperations {
		want |= 1 << op
	}
	if got := newest[*kmsg.DescribeClusterResponse](w, q).ClusterAuthorizedOperations; got != want {
		t.Errorf("operations %b, want %b", got, want)
	}
	for _, row := range []struct {
		deny Operation
		want int32
	}{{OpAlter, want &^ (1 << OpAlter)}, {OpDescribe, 0}} {
		w := dialWire(t, serve(t, db, Options{Authorizer: denied(row.deny, ResourceCluster, ClusterName)}))
		if got := newest[*kmsg.DescribeClusterResponse](w, q); got.ErrorCode != 0 || got.ClusterAuthorizedOperations != row.want {
			t.Errorf("without operation %d: %+v, want %b", row.deny, got, row.want)
		}
	}
}

func TestDescribeLogDirs(t *testing.T) {
	db, w := openAdmin(t, "orders/2 a/1", Options{}, &embedlog.Options{MaxBytes: 64 << 20})
	top, _ := db.Topic("orders")
	if _, err := top.Produce(t.Context(), embedlog.Record{Key: []byte("k"), Value: make([]byte, 5000)}); err != nil {
		t.Fatal(err)
	}
	some := kmsg.NewDescribeLogDirsRequestTopic()
	some.Topic, some.Partitions = "orders", []int32{1, 7}
	none := kmsg.NewDescribeLogDirsRequestTopic()
	none.Topic, none.Partitions = "none", []int32{0}
	for version := int16(1); version <= 5; version++ {
		for _, row := range []struct {
			topics []kmsg.DescribeLogDirsRequestTopic
			want   string
		}{
			{nil, "a:0 orders:0 orders:1"},
			{[]kmsg.DescribeLogDirsRequestTopic{some, none}, "orders:1"},
			{[]kmsg.DescribeLogDirsRequestTopic{}, ""},
		} {
			q := kmsg.NewPtrDescribeLogDirsRequest()
			q.Topics = row.topics
			resp := ask[*kmsg.DescribeLogDirsResponse](w, q, version)
			if resp.ErrorCode != 0 || len(resp.Dirs) != 1 || resp.Dirs[0].Dir != "memory" || resp.Dirs[0].ErrorCode != 0 {
				t.Fatalf("version %d: %+v", version, resp)
			}
			if d := resp.Dirs[0]; version >= 4 && (d.TotalBytes != 64<<20 || d.UsableBytes <= 0 || d.UsableBytes >= d.TotalBytes) {
				t.Errorf("version %d: %d bytes of %d usable, want some of the cap", version, d.UsableBytes, d.TotalBytes)
			}
			var got []string
			for _, x := range resp.Dirs[0].Topics {
				for _, p := range x.Partitions {
					got = append(got, fmt.Sprintf("%s:%d", x.Topic, p.Partition))
					e, _ := db.Engine().Topic(x.Topic)
					if want := e.Partitions()[p.Partition].Log().AllocatedBytes(); p.Size != want || p.OffsetLag != 0 || p.IsFuture {
						t.Errorf("version %d: %s/%d is %+v, want %d bytes and no lag", version, x.Topic, p.Partition, p, want)
					}
				}
			}
			if s := strings.Join(got, " "); s != row.want {
				t.Errorf("version %d: %s, want %s", version, s, row.want)
			}
		}
	}
	shut := dialWire(t, serve(t, db, Options{Authorizer: denied(OpDescribe, ResourceCluster, ClusterName)}))
	for version := int16(1); version <= 5; version++ {
		want := int16(0) // there is no place for it yet
		if version >= 3 {
			want = codeClusterAuthorizationFailed
		}
		if got := ask[*kmsg.DescribeLogDirsResponse](shut, kmsg.NewPtrDescribeLogDirsRequest(), version); got.ErrorCode != want || len(got.Dirs) != 0 {
			t.Errorf("denied, version %d: %+v, want code %d", version, got, want)
		}
	}
}

// A database on a real disk tells how large that is.
func TestDescribeLogDirsOnDisk(t *testing.T) {
	db, err := embedlog.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	w := dialWire(t, serve(t, db, Options{}))
	d := newest[*kmsg.DescribeLogDirsResponse](w, kmsg.NewPtrDescribeLogDirsRequest()).Dirs[0]
	total, usable := db.Engine().DiskSpace()
	if d.Dir != db.Info().Dir || d.TotalBytes != total || (total > 0) != (usable >= 0) || d.UsableBytes > d.TotalBytes {
		t.Errorf("%+v, want %s with %d bytes", d, db.Info().Dir, total)
	}
}

func TestElectLeaders(t *testing.T) {
	db, w := openAdmin(t, "orders/2", Options{}, nil)
	shut := dialWire(t, serve(t, db, Options{Authorizer: denied(OpAlter, ResourceCluster, ClusterName)}))
	asked := kmsg.NewElectLeadersRequestTopic()
	asked.Topic, asked.Partitions = "orders", []int32{0, 1, 2}
	other := kmsg.NewElectLeadersRequestTopic()
	other.Topic, other.Partitions = "none", []int32{0}
	for version := int16(0); version <= 2; version++ {
		for _, row := range []struct {
			what string
			w    *raw
			kind int8
			all  bool
			top  int16
			want string
		}{
			{"preferred", w, 0, false, 0, "orders/0:84 orders/1:84 orders/2:3 none/0:3"},
			{"unclean", w, 1, false, 0, "orders/0:84 orders/1:84 orders/2:3 none/0:3"},
			{"all", w, 0, true, 0, ""},
			{"no such kind", w, 2, false, codeInvalidRequest, "orders/0:42 orders/1:42 orders/2:42 none/0:42"},
			{"denied", shut, 0, false, codeClusterAuthorizationFailed, "orders/0:31 orders/1:31 orders/2:31 none/0:31"},
			{"denied all", shut, 0, true, codeClusterAuthorizationFailed, ""},
		} {
			if version == 0 && row.kind > 1 {
				continue // it has no kinds
			}
			q := kmsg.NewPtrElectLeadersRequest()
			q.ElectionType = row.kind
			if !row.all {
				q.Topics = []kmsg.ElectLeadersRequestTopic{asked, other}
			}
			resp := ask[*kmsg.ElectLeadersResponse](row.w, q, version)
			var got []string
			for _, x := range resp.Topics {
				for _, p := range x.Partitions {
					got = append(got, fmt.Sprintf("%s/%d:%d", x.Topic, p.Partition, p.ErrorCode))
				}
			}
			if s := strings.Join(got, " "); s != row.want || version > 0 && resp.ErrorCode != row.top {
				t.Errorf("version %d, %s: %s, code %d; want %s, code %d", version, row.what, s, resp.ErrorCode, row.want, row.top)
			}
		}
	}
}

func TestPartitionReassignments(t *testing.T) {
	db, w := openAdmin(t, "orders/2", Options{}, nil)
	shut := dialWire(t, serve(t, db, Options{Authorizer: denied(OpAlter, ResourceCluster, ClusterName, OpDescribe, ResourceCluster, ClusterName)}))
	for _, row := range []struct {
		what, topic string
		partition   int32
		replicas    []int32
		code        int16
	}{
		{"to where it is", "orders", 1, []int32{1}, 0},
		{"to nobody", "orders", 0, []int32{}, codeInvalidReplicaAssignment},
		{"to another", "orders", 0, []int32{2}, codeInvalidReplicaAssignment},
		{"to two", "orders", 0, []int32{1, 2}, codeInvalidReplicaAssignment},
		{"twice to one", "orders", 0, []int32{1, 1}, codeInvalidReplicaAssignment},
		{"called off", "orders", 0, nil, codeNoReassignmentInProgress},
		{"no such partition", "orders", 2, []int32{1}, codeUnknownTopicOrPartition},
		{"no such topic", "none", 0, []int32{1}, codeUnknownTopicOrPartition},
	} {
		for version := int16(0); version <= 1; version++ {
			q := kmsg.NewPtrAlterPartitionAssignmentsRequest()
			x := kmsg.NewAlterPartitionAssignmentsRequestTopic()
			x.Topic = row.topic
			p := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
			p.Partition, p.Replicas = row.partition, row.replicas
			x.Partitions = append(x.Partitions, p)
			q.Topics = append(q.Topics, x)
			resp := ask[*kmsg.AlterPartitionAssignmentsResponse](w, q, version)
			if got := resp.Topics[0].Partitions[0]; resp.ErrorCode != 0 || got.ErrorCode != row.code || got.Partition != row.partition {
				t.Errorf("version %d, %s: %+v %s, want code %d", version, row.what, got, said(got.ErrorMessage), row.code)
			}
			resp = ask[*kmsg.AlterPartitionAssignmentsResponse](shut, q, version)
			if got := resp.Topics[0].Partitions[0]; resp.ErrorCode != codeClusterAuthorizationFailed || got.ErrorCode != codeClusterAuthorizationFailed {
				t.Errorf("version %d, denied: %+v", version, resp)
			}
		}
	}
	if got := newest[*kmsg.ListPartitionReassignmentsResponse](w, kmsg.NewPtrListPartitionReassignmentsRequest()); got.ErrorCode != 0 || len(got.Topics) != 0 {
		t.Errorf("%+v, want none", got)
	}
	if got := newest[*kmsg.ListPartitionReassignmentsResponse](shut, kmsg.NewPtrListPartitionReassignmentsRequest()); got.ErrorCode != codeClusterAuthorizationFailed {
		t.Errorf("denied: %+v", got)
	}
}

func TestUpdateFeatures(t *testing.T) {
	db, w := openAdmin(t, "", Options{}, nil)
	shut := dialWire(t, serve(t, db, Options{Authorizer: denied(OpAlter, ResourceCluster, ClusterName)}))
	type update struct {
		name  string
		level int16
	}
	for version := int16(0); version <= 2; version++ {
		for _, row := range []struct {
			what    string
			w       *raw
			updates []update
			code    int16
			words   string
		}{
			{"as it is", w, []update{{"group.version", 1}, {"transaction.version", 2}}, 0, ""},
			{"lower", w, []update{{"transaction.version", 1}}, codeInvalidUpdateVersion, "transaction.version is 2"},
			{"off", w, []update{{"group.version", 0}}, codeInvalidUpdateVersion, "group.version is 1"},
			{"higher, after one that holds", w, []update{{"group.version", 1}, {"transaction.version", 3}}, codeInvalidUpdateVersion, "transaction.version is 2"},
			{"unknown", w, []update{{"teleport.version", 1}}, codeInvalidUpdateVersion, "teleport.version"},
			{"denied", shut, []update{{"group.version", 1}}, codeClusterAuthorizationFailed, ""},
		} {
			q := kmsg.NewPtrUpdateFeaturesRequest()
			for _, u := range row.updates {
				x := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
				x.Feature, x.MaxVersionLevel, x.AllowDowngrade, x.UpgradeType = u.name, u.level, true, 2
				q.FeatureUpdates = append(q.FeatureUpdates, x)
			}
			got := ask[*kmsg.UpdateFeaturesResponse](row.w, q, version)
			wantCode(t, fmt.Sprintf("version %d, %s", version, row.what), got.ErrorCode, got.ErrorMessage, row.code, row.words)
			want := 0
			if version < 2 && row.code == 0 {
				want = len(row.updates)
			}
			if len(got.Results) != want {
				t.Errorf("version %d, %s: %d results, want %d", version, row.what, len(got.Results), want)
			}
		}
	}
}

// pages are the answers to a request and those that go on at their cursors, a line
// each: topic:code:partitions, and the cursor.
func pages(t *testing.T, w *raw, q *kmsg.DescribeTopicPartitionsRequest) (lines []string) {
	t.Helper()
	for range 20 {
		resp := newest[*kmsg.DescribeTopicPartitionsResponse](w, q)
		var got []string
		for _, x := range resp.Topics {
			var parts []string
			for _, p := range x.Partitions {
				parts = append(parts, fmt.Sprint(p.Partition))
				if p.LeaderID != 1 || !slices.Equal(p.Replicas, []int32{1}) || !slices.Equal(p.ISR, []int32{1}) || p.EligibleLeaderReplicas == nil || p.LastKnownELR == nil || len(p.OfflineReplicas) > 0 {
					t.Errorf("%s: %+v", *x.Topic, p)
				}
			}
			got = append(got, fmt.Sprintf("%s:%d:%s", *x.Topic, x.ErrorCode, strings.Join(parts, ",")))
		}
		line := strings.Join(got, " ")
		if resp.NextCursor == nil {
			return append(lines, line)
		}
		lines = append(lines, fmt.Sprintf("%s -> %s/%d", line, resp.NextCursor.Topic, resp.NextCursor.Partition))
		c := kmsg.NewDescribeTopicPartitionsRequestCursor()
		c.Topic, c.Partition = resp.NextCursor.Topic, resp.NextCursor.Partition
		q.Cursor = &c
	}
	t.Fatal("the pages do not end")
	return nil
}

func TestDescribeTopicPartitions(t *testing.T) {
	db, w := openAdmin(t, "a/3 b/2 c/1", Options{}, nil)
	shut := dialWire(t, serve(t, db, Options{Authorizer: denied(OpDescribe, ResourceTopic, "b", OpDescribe, ResourceTopic, "none")}))
	for _, row := range []struct {
		what, topics string
		w            *raw
		limit        int32
		cursor       string // topic/partition
		want         string
	}{
		{"all at once", "", w, 2000, "", "a:0:0,1,2 b:0:0,1 c:0:0"},
		{"all in pages of 2", "", w, 2, "", "a:0:0,1 -> a/2|a:0:2 b:0:0 -> b/1|b:0:1 c:0:0"},
		{"pages that end with topics", "", w, 3, "", "a:0:0,1,2 -> b/0|b:0:0,1 c:0:0"},
		{"no limit is 1", "c b", w, 0, "", "b:0:0 -> b/1|b:0:1 -> c/0|c:0:0"},
		{"some", "c none a", w, 10, "", "a:0:0,1,2 c:0:0 none:3:"},
		{"bad name", "a!b c", w, 10, "", "a!b:17: c:0:0"},
		{"from a cursor", "a b c", w, 10, "b/1", "b:0:1 c:0:0"},
		{"cursor at what was deleted", "", w, 10, "bb/1", "c:0:0"},
		{"cursor past the partitions", "a", w, 10, "a/9", "a:0:"},
		{"cursor that is not asked for", "a c", w, 10, "b/0", "a:42: c:42:"},
		{"negative cursor", "a", w, 10, "a/-1", "a:42:"},
		{"denied by name", "a b none c", shut, 10, "", "a:0:0,1,2 c:0:0 b:29: none:29:"},
		{"denied is left out", "", shut, 10, "", "a:0:0,1,2 c:0:0"},
		{"denied does not make a page", "", shut, 3, "", "a:0:0,1,2 -> c/0|c:0:0"},
	} {
		q := kmsg.NewPtrDescribeTopicPartitionsRequest()
		q.ResponsePartitionLimit = row.limit
		for _, name := range strings.Fields(row.topics) {
			x := kmsg.NewDescribeTopicPartitionsRequestTopic()
			x.Topic = name
			q.Topics = append(q.Topics, x)
		}
		if topic, n, ok := strings.Cut(row.cursor, "/"); ok {
			c := kmsg.NewDescribeTopicPartitionsRequestCursor()
			c.Topic = topic
			fmt.Sscan(n, &c.Partition)
			q.Cursor = &c
		}
		if got := strings.Join(pages(t, row.w, q), "|"); got != row.want {
			t.Errorf("%s:\n got %s\nwant %s", row.what, got, row.want)
		}
	}
}

// What clients' own admin libraries make of it all, end to end.
func TestAdminThroughAClient(t *testing.T) {
	db := openMemory(t, nil)
	s := serve(t, db, Options{})
	c := kadm.NewClient(client(t, s))
	ctx := t.Context()
	made, err := c.CreateTopic(ctx, 3, 1, map[string]*string{"cleanup.policy": kadm.StringPtr("compact")}, "orders")
	if err != nil || made.NumPartitions != 3 || made.ReplicationFactor != 1 || engine.TopicID(made.ID) != topicID(t, db, "orders") {
		t.Fatalf("create: %+v, %v", made, err)
	}
	if _, err := c.ValidateCreateTopics(ctx, 1, 1, nil, "checked"); err != nil {
		t.Errorf("validate: %v", err)
	}
	if r, err := c.UpdatePartitions(ctx, 5, "orders"); err != nil || r.Error() != nil {
		t.Errorf("partitions: %v %v", err, r.Error())
	}
	if r, err := c.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: kadm.StringPtr("7000")}, {Op: kadm.AppendConfig, Name: "cleanup.policy", Value: kadm.StringPtr("delete")}}, "orders"); err != nil || r[0].Err != nil {
		t.Errorf("alter: %v %+v", err, r)
	}
	configs, err := c.DescribeTopicConfigs(ctx, "orders")
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]string)
	for _, x := range configs[0].Configs {
		values[x.Key] = x.MaybeValue()
	}
	if values["retention.ms"] != "7000" || values["cleanup.policy"] != "compact,delete" {
		t.Errorf("settings %v", values)
	}
	if r, err := c.DescribeBrokerConfigs(ctx, 1); err != nil || len(r) != 1 || r[0].Err != nil || len(r[0].Configs) < 50 {
		t.Errorf("broker: %v %+v", err, r)
	}
	dirs, err := c.DescribeAllLogDirs(ctx, nil)
	if err != nil {
		t.Fatalf("log dirs: %v", err)
	}
	if n := len(dirs[1]["memory"].Topics["orders"]); n != 5 {
		t.Errorf("log dirs: %d partitions of orders: %+v", n, dirs)
	}
	if m, err := c.BrokerMetadata(ctx); err != nil || m.Cluster != db.Info().ClusterID {
		t.Errorf("cluster: %v %+v", err, m)
	}
	if _, err := c.DeleteTopics(ctx, "orders"); err != nil || len(topicNames(db)) != 0 {
		t.Errorf("delete: %v, topics %v", err, topicNames(db))
	}
}
