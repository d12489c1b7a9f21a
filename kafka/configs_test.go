package kafka

import (
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func describe(kind kmsg.ConfigResourceType, name string, settings ...string) *kmsg.DescribeConfigsRequest {
	q := kmsg.NewPtrDescribeConfigsRequest()
	q.IncludeSynonyms, q.IncludeDocumentation = true, true
	x := kmsg.NewDescribeConfigsRequestResource()
	x.ResourceType, x.ResourceName, x.ConfigNames = kind, name, settings
	q.Resources = append(q.Resources, x)
	return q
}

// incremental is a change of one resource, by "set NAME VALUE", "delete NAME",
// "append NAME VALUE", "subtract NAME VALUE"; a set without a value has none.
func incremental(kind kmsg.ConfigResourceType, name string, changes ...string) *kmsg.IncrementalAlterConfigsRequest {
	q := kmsg.NewPtrIncrementalAlterConfigsRequest()
	x := kmsg.NewIncrementalAlterConfigsRequestResource()
	x.ResourceType, x.ResourceName = kind, name
	for _, change := range changes {
		c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		words := strings.SplitN(change, " ", 3)
		c.Op = map[string]kmsg.IncrementalAlterConfigOp{"set": 0, "delete": 1, "append": 2, "subtract": 3, "strange": 9}[words[0]]
		c.Name = words[1]
		if len(words) == 3 {
			c.Value = &words[2]
		}
		x.Configs = append(x.Configs, c)
	}
	q.Resources = append(q.Resources, x)
	return q
}

func replaceAll(kind kmsg.ConfigResourceType, name string, settings ...string) *kmsg.AlterConfigsRequest {
	q := kmsg.NewPtrAlterConfigsRequest()
	x := kmsg.NewAlterConfigsRequestResource()
	x.ResourceType, x.ResourceName = kind, name
	for _, s := range settings {
		c := kmsg.NewAlterConfigsRequestResourceConfig()
		value, ok := "", false
		if c.Name, value, ok = strings.Cut(s, "="); ok {
			c.Value = &value
		}
		x.Configs = append(x.Configs, c)
	}
	q.Resources = append(q.Resources, x)
	return q
}

func explicit(t *testing.T, db *embedlog.DB, topic string) string {
	t.Helper()
	top, err := db.Engine().Topic(topic)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	m := top.Settings().Explicit()
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, name+"="+m[name])
	}
	return strings.Join(list, " ")
}

func TestDescribeConfigsOfTopics(t *testing.T) {
	db, w := openAdmin(t, "", Options{}, &embedlog.Options{TopicDefaults: embedlog.TopicConfig{Settings: map[string]string{"retention.ms": "1000"}}})
	if _, err := db.CreateTopic(t.Context(), "orders", &embedlog.TopicConfig{Settings: map[string]string{
		"cleanup.policy": "compact,delete", "retention.ms": "2000", "embedlog.max.bytes": "2097152"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.CreateTopic(t.Context(), "plain", nil); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ topic, name, value, source, kind, synonyms string }{
		{"orders", "cleanup.policy", "compact,delete", "DYNAMIC_TOPIC_CONFIG", "LIST", "cleanup.policy=compact,delete:1 log.cleanup.policy=delete:5"},
		{"orders", "retention.ms", "2000", "DYNAMIC_TOPIC_CONFIG", "LONG", "retention.ms=2000:1 log.retention.ms=1000:4 log.retention.ms=604800000:5"},
		{"plain", "retention.ms", "1000", "STATIC_BROKER_CONFIG", "LONG", "log.retention.ms=1000:4 log.retention.ms=604800000:5"},
		{"plain", "max.message.bytes", "1048588", "DEFAULT_CONFIG", "INT", "message.max.bytes=1048588:5"},
		{"plain", "min.cleanable.dirty.ratio", "0.5", "DEFAULT_CONFIG", "DOUBLE", "log.cleaner.min.cleanable.ratio=0.5:5"},
		{"plain", "preallocate", "false", "DEFAULT_CONFIG", "BOOLEAN", "log.preallocate=false:5"},
		{"plain", "compression.type", "producer", "DEFAULT_CONFIG", "STRING", "compression.type=producer:5"},
		{"plain", "leader.replication.throttled.replicas", "", "DEFAULT_CONFIG", "LIST", ""},
		{"plain", "embedlog.durability", "durable", "DEFAULT_CONFIG", "STRING", "embedlog.durability=durable:5"},
		// Derived from embedlog.max.bytes.
		{"orders", "segment.bytes", "262144", "DEFAULT_CONFIG", "INT", "log.segment.bytes=262144:5"},
	} {
		for version := int16(1); version <= 4; version++ {
			res := ask[*kmsg.DescribeConfigsResponse](w, describe(kmsg.ConfigResourceTypeTopic, row.topic, row.name), version).Resources[0]
			if res.ErrorCode != 0 || len(res.Configs) != 1 {
				t.Fatalf("version %d: %+v", version, res)
			}
			c := res.Configs[0]
			var synonyms []string
			for _, s := range c.ConfigSynonyms {
				synonyms = append(synonyms, fmt.Sprintf("%s=%s:%d", s.Name, said(s.Value), s.Source))
			}
			if said(c.Value) != row.value || c.Source.String() != row.source || strings.Join(synonyms, " ") != row.synonyms {
				t.Errorf("version %d, %s of %s: got %s, %s, %v\nwant %+v", version, row.name, row.topic, said(c.Value), c.Source, synonyms, row)
			}
			if version >= 3 && (c.ConfigType.String() != row.kind || said(c.Documentation) == "") {
				t.Errorf("version %d, %s: type %s, doc %q; want type %s and some doc", version, row.name, c.ConfigType, said(c.Documentation), row.kind)
			}
		}
	}
	q := describe(kmsg.ConfigResourceTypeTopic, "plain")
	q.IncludeSynonyms, q.IncludeDocumentation = false, false
	all := newest[*kmsg.DescribeConfigsResponse](w, q).Resources[0].Configs
	if len(all) != len(engine.SettingDocs()) {
		t.Errorf("%d settings, want all %d", len(all), len(engine.SettingDocs()))
	}
	for _, c := range all {
		if len(c.ConfigSynonyms) != 0 || c.Documentation != nil {
			t.Errorf("%s has synonyms or a doc that nobody asked for", c.Name)
		}
		if one := c.Name == "min.insync.replicas"; one && !c.ReadOnly {
			t.Errorf("%s has one value only, and is said to be writable", c.Name)
		}
	}
}

// Each setting of topics that has no effect says so, to whoever asks.
func TestSettingsWithoutEffectSaySo(t *testing.T) {
	_, w := openAdmin(t, "orders/1", Options{}, nil)
	docs := make(map[string]string)
	for _, c := range newest[*kmsg.DescribeConfigsResponse](w, describe(kmsg.ConfigResourceTypeTopic, "orders")).Resources[0].Configs {
		docs[c.Name] = said(c.Documentation)
	}
	n := 0
	for _, d := range engine.SettingDocs() {
		if d.NoEffect != strings.Contains(docs[d.Name], "without effect") {
			t.Errorf("%s: has no effect: %t, and its documentation is %q", d.Name, d.NoEffect, docs[d.Name])
		}
		if d.NoEffect {
			n++
		}
	}
	if n == 0 {
		t.Error("no setting is without effect: the test looks at nothing")
	}
}

func TestDescribeConfigsOfTheNode(t *testing.T) {
	db := openMemory(t, &embedlog.Options{AutoCreateTopics: true, OffsetsRetention: -1,
		GroupInitialDelay: 3 * time.Second, GroupMinSessionTimeout: time.Second, GroupMaxSessionTimeout: time.Hour, GroupMaxSize: 5,
		TopicDefaults: embedlog.TopicConfig{Partitions: 7, Settings: map[string]string{"segment.bytes": "4096"}}})
	s := serve(t, db, Options{Limits: Limits{Connections: 5, ConnectionsPerIP: -1}})
	w := dialWire(t, s)
	values := make(map[string]string)
	var names []string
	for _, c := range newest[*kmsg.DescribeConfigsResponse](w, describe(kmsg.ConfigResourceTypeBroker, "1")).Resources[0].Configs {
		if values[c.Name] != "" {
			t.Errorf("%s is there twice", c.Name)
		}
		values[c.Name] = fmt.Sprintf("%s:%d", said(c.Value), c.Source)
		names = append(names, c.Name)
		if !c.ReadOnly || said(c.Documentation) == "" || c.ConfigType == 0 || len(c.ConfigSynonyms) == 0 {
			t.Errorf("%+v: want it read only, with documentation, type and synonyms", c)
		}
	}
	if !slices.IsSorted(names) {
		t.Error("not by name")
	}
	address := s.Addrs()[0].String()
	for name, want := range map[string]string{
		"node.id": "1:4", "broker.id": "1:4", "auto.create.topics.enable": "true:4", "num.partitions": "7:4", "default.replication.factor": "1:5",
		"listeners": "PLAINTEXT://" + address + ":4", "advertised.listeners": "PLAINTEXT://" + address + ":4",
		"log.segment.bytes": "4096:4", "log.retention.ms": "604800000:5", "message.max.bytes": "1048588:5",
		"max.connections": "5:4", "max.connections.per.ip": "2147483647:4", "offsets.retention.minutes": "2147483647:4",
		"group.initial.rebalance.delay.ms": "3000:4", "group.min.session.timeout.ms": "1000:4", "group.max.session.timeout.ms": "3600000:4",
		"group.max.size": "5:4", "group.consumer.max.size": "5:4", "group.consumer.assignors": "uniform,range:5",
		"socket.request.max.bytes": "104857600:5", "min.insync.replicas": "1:5", "log.dirs": "memory:4",
		"remote.storage.enable": "", "log.remote.storage.enable": "",
	} {
		if values[name] != want {
			t.Errorf("%s is %q, want %q", name, values[name], want)
		}
	}
}

// A listener's protocol has Kafka's four names.
func TestListenerProtocol(t *testing.T) {
	for want, l := range map[string]Listener{
		"PLAINTEXT": {}, "SSL": {TLS: &tls.Config{}}, "SASL_PLAINTEXT": {SASL: &SASL{}}, "SASL_SSL": {TLS: &tls.Config{}, SASL: &SASL{}},
	} {
		if got := l.protocol(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestDescribeConfigsErrors(t *testing.T) {
	auth := denied(OpDescribeConfigs, ResourceTopic, "secret", OpDescribeConfigs, ResourceTopic, "none", OpDescribeConfigs, ResourceGroup, "secret")
	_, w := openAdmin(t, "secret/1", Options{Authorizer: auth}, nil)
	_, shut := openAdmin(t, "", Options{Authorizer: denied(OpDescribeConfigs, ResourceCluster, ClusterName)}, nil)
	for _, row := range []struct {
		w     *raw
		kind  kmsg.ConfigResourceType
		name  string
		code  int16
		words string
		n     int // settings, at least
	}{
		{w, kmsg.ConfigResourceTypeTopic, "secret", codeTopicAuthorizationFailed, "", 0},
		{w, kmsg.ConfigResourceTypeTopic, "none", codeTopicAuthorizationFailed, "", 0},
		{w, kmsg.ConfigResourceTypeTopic, "other", codeUnknownTopicOrPartition, "other", 0},
		{w, kmsg.ConfigResourceTypeTopic, "a b", codeInvalidTopicException, "letters", 0},
		{w, kmsg.ConfigResourceTypeGroupConfig, "secret", codeGroupAuthorizationFailed, "", 0},
		{w, kmsg.ConfigResourceTypeGroupConfig, "", codeInvalidRequest, "no name", 0},
		{w, kmsg.ConfigResourceTypeGroupConfig, "g", 0, "", 2},
		{w, kmsg.ConfigResourceTypeBroker, "", 0, "", 0},
		{w, kmsg.ConfigResourceTypeBroker, "1", 0, "", 50},
		{w, kmsg.ConfigResourceTypeBroker, "2", codeInvalidRequest, "expected 1", 0},
		{w, kmsg.ConfigResourceTypeBroker, "one", codeInvalidRequest, "number", 0},
		{w, kmsg.ConfigResourceTypeBrokerLogger, "1", 0, "", 0},
		{w, kmsg.ConfigResourceTypeBrokerLogger, "", codeInvalidRequest, "number", 0},
		{w, kmsg.ConfigResourceTypeClientMetrics, "any", 0, "", 0},
		{w, 77, "any", codeInvalidRequest, "77", 0},
		{shut, kmsg.ConfigResourceTypeBroker, "1", codeClusterAuthorizationFailed, "", 0},
		{shut, kmsg.ConfigResourceTypeClientMetrics, "any", codeClusterAuthorizationFailed, "", 0},
	} {
		got := newest[*kmsg.DescribeConfigsResponse](row.w, describe(row.kind, row.name)).Resources[0]
		what := fmt.Sprintf("%s %q", row.kind, row.name)
		wantCode(t, what, got.ErrorCode, got.ErrorMessage, row.code, row.words)
		if got.ResourceType != row.kind || got.ResourceName != row.name || len(got.Configs) < row.n || row.n == 0 && len(got.Configs) > 0 {
			t.Errorf("%s: %d settings of %s %q, want %d or more", what, len(got.Configs), got.ResourceType, got.ResourceName, row.n)
		}
	}
}

func TestIncrementalAlterConfigs(t *testing.T) {
	for _, row := range []struct {
		what, before string // before: settings as "set ..." by semicolons
		changes      []string
		code         int16
		words        string
		after        string
	}{
		{"set", "", []string{"set retention.ms 5", "set segment.bytes 4096"}, 0, "", "retention.ms=5 segment.bytes=4096"},
		{"set again", "set retention.ms 5", []string{"set retention.ms 5"}, 0, "", "retention.ms=5"},
		{"delete", "set retention.ms 5", []string{"delete retention.ms"}, 0, "", ""},
		{"delete what is not set", "", []string{"delete retention.ms"}, 0, "", ""},
		{"delete with a value", "set retention.ms 5", []string{"delete retention.ms 7"}, 0, "", ""},
		{"append to the default", "", []string{"append cleanup.policy compact"}, 0, "", "cleanup.policy=delete,compact"},
		{"append what is there", "set cleanup.policy compact", []string{"append cleanup.policy compact"}, 0, "", "cleanup.policy=compact"},
		{"append to what is set", "set cleanup.policy compact", []string{"append cleanup.policy delete"}, 0, "", "cleanup.policy=compact,delete"},
		{"subtract", "set cleanup.policy compact,delete", []string{"subtract cleanup.policy delete"}, 0, "", "cleanup.policy=compact"},
		{"subtract what is not there", "set cleanup.policy compact", []string{"subtract cleanup.policy delete"}, 0, "", "cleanup.policy=compact"},
		{"subtract the last", "", []string{"subtract cleanup.policy delete"}, codeInvalidConfig, "cleanup.policy", ""},
		{"append what does not exist", "", []string{"append cleanup.policy burn"}, codeInvalidConfig, "compact", ""},
		{"append to a number", "", []string{"append retention.ms 5"}, codeInvalidConfig, "not a list", ""},
		{"append to nothing known", "", []string{"append cleanup.polisy compact"}, codeInvalidConfig, "cleanup.policy", ""},
		{"throttled replicas", "", []string{"set leader.replication.throttled.replicas *"}, 0, "", "leader.replication.throttled.replicas=*"},
		{"unknown", "", []string{"set retention 5"}, codeInvalidConfig, "no such topic setting", ""},
		{"delete unknown", "", []string{"delete no.such"}, codeInvalidConfig, "no.such", ""},
		{"one of two is bad", "", []string{"set retention.ms 5", "set segment.bytes x"}, codeInvalidConfig, "segment.bytes", ""},
		{"two are bad", "", []string{"set retention.ms y", "set segment.bytes x"}, codeInvalidConfig, "retention.ms", ""},
		{"would not hold", "", []string{"set remote.storage.enable true"}, codeInvalidConfig, "no remote storage", ""},
		{"together they do not hold", "", []string{"set min.compaction.lag.ms 10", "set max.compaction.lag.ms 5"}, codeInvalidConfig, "above", ""},
		{"name twice", "", []string{"set retention.ms 5", "delete retention.ms"}, codeInvalidRequest, "duplicate", ""},
		{"no value", "", []string{"set retention.ms"}, codeInvalidRequest, "Null value", ""},
		{"no such operation", "", []string{"strange retention.ms 5"}, codeInvalidRequest, "operation 9", ""},
	} {
		for version := int16(0); version <= 1; version++ {
			db, w := openAdmin(t, "orders/1", Options{}, nil)
			if row.before != "" {
				before := newest[*kmsg.IncrementalAlterConfigsResponse](w, incremental(kmsg.ConfigResourceTypeTopic, "orders", strings.Split(row.before, ";")...)).Resources[0]
				wantCode(t, row.what+", before", before.ErrorCode, before.ErrorMessage, 0, "")
			}
			was := explicit(t, db, "orders")
			for _, only := range []bool{true, false} {
				q := incremental(kmsg.ConfigResourceTypeTopic, "orders", row.changes...)
				q.ValidateOnly = only
				got := ask[*kmsg.IncrementalAlterConfigsResponse](w, q, version).Resources[0]
				wantCode(t, row.what, got.ErrorCode, got.ErrorMessage, row.code, row.words)
				want := was
				if !only && row.code == 0 {
					want = row.after
				}
				if has := explicit(t, db, "orders"); has != want {
					t.Errorf("%s, validate only %t: settings %q, want %q", row.what, only, has, want)
				}
			}
		}
	}
}

func TestAlterConfigs(t *testing.T) {
	for version := int16(0); version <= 2; version++ {
		db, w := openAdmin(t, "orders/1", Options{}, nil)
		for _, row := range []struct {
			what     string
			settings []string
			code     int16
			words    string
			after    string
		}{
			{"set two", []string{"retention.ms=5", "segment.bytes=4096"}, 0, "", "retention.ms=5 segment.bytes=4096"},
			{"what is not named goes", []string{"segment.bytes=8192"}, 0, "", "segment.bytes=8192"},
			{"bad", []string{"segment.bytes=x"}, codeInvalidConfig, "segment.bytes", "segment.bytes=8192"},
			{"null", []string{"segment.bytes"}, codeInvalidRequest, "Null value", "segment.bytes=8192"},
			{"twice", []string{"retention.ms=5", "retention.ms=6"}, codeInvalidRequest, "duplicate", "segment.bytes=8192"},
			{"none", nil, 0, "", ""},
		} {
			for _, only := range []bool{true, false} {
				was := explicit(t, db, "orders")
				q := replaceAll(kmsg.ConfigResourceTypeTopic, "orders", row.settings...)
				q.ValidateOnly = only
				got := ask[*kmsg.AlterConfigsResponse](w, q, version).Resources[0]
				wantCode(t, row.what, got.ErrorCode, got.ErrorMessage, row.code, row.words)
				want := was
				if !only {
					want = row.after
				}
				if has := explicit(t, db, "orders"); has != want {
					t.Errorf("version %d, %s, validate only %t: settings %q, want %q", version, row.what, only, has, want)
				}
			}
		}
	}
}

// Both ways to alter answer the same for what cannot be altered.
func TestAlterConfigsErrors(t *testing.T) {
	auth := denied(OpAlterConfigs, ResourceTopic, "secret", OpAlterConfigs, ResourceTopic, "none", OpAlterConfigs, ResourceGroup, "secret")
	db, w := openAdmin(t, "secret/1 orders/1", Options{Authorizer: auth}, nil)
	_, shut := openAdmin(t, "", Options{Authorizer: denied(OpAlterConfigs, ResourceCluster, ClusterName)}, nil)
	for _, row := range []struct {
		w          *raw
		kind       kmsg.ConfigResourceType
		name, what string
		code       int16
		words      string
	}{
		{w, kmsg.ConfigResourceTypeTopic, "secret", "retention.ms", codeTopicAuthorizationFailed, ""},
		{w, kmsg.ConfigResourceTypeTopic, "none", "retention.ms", codeTopicAuthorizationFailed, ""},
		{w, kmsg.ConfigResourceTypeTopic, "other", "retention.ms", codeUnknownTopicOrPartition, "other"},
		{w, kmsg.ConfigResourceTypeTopic, "", "retention.ms", codeInvalidTopicException, "empty"},
		{w, kmsg.ConfigResourceTypeGroupConfig, "secret", "consumer.session.timeout.ms", codeGroupAuthorizationFailed, ""},
		{w, kmsg.ConfigResourceTypeGroupConfig, "g", "consumer.session.timeout.ms", codeInvalidConfig, "groups"},
		{w, kmsg.ConfigResourceTypeGroupConfig, "", "", codeInvalidRequest, "not allowed"},
		{w, kmsg.ConfigResourceTypeBroker, "1", "log.retention.ms", codeInvalidRequest, "options of the program"},
		{w, kmsg.ConfigResourceTypeBroker, "", "log.retention.ms", codeInvalidRequest, "options of the program"},
		{w, kmsg.ConfigResourceTypeBroker, "1", "", 0, ""},
		{w, kmsg.ConfigResourceTypeBroker, "3", "", codeInvalidRequest, "expected 1"},
		{w, kmsg.ConfigResourceTypeBrokerLogger, "1", "kafka", codeInvalidRequest, "logger"},
		{w, kmsg.ConfigResourceTypeClientMetrics, "m", "interval.ms", codeInvalidRequest, "not collected"},
		{w, 3, "m", "a", codeInvalidRequest, "3"},
		{shut, kmsg.ConfigResourceTypeBroker, "1", "log.retention.ms", codeClusterAuthorizationFailed, ""},
	} {
		what := fmt.Sprintf("%s %q %q", row.kind, row.name, row.what)
		var changes, settings []string
		if row.what != "" {
			changes, settings = []string{"set " + row.what + " 5000"}, []string{row.what + "=5000"}
		}
		a := newest[*kmsg.IncrementalAlterConfigsResponse](row.w, incremental(row.kind, row.name, changes...)).Resources[0]
		wantCode(t, "incremental "+what, a.ErrorCode, a.ErrorMessage, row.code, row.words)
		b := newest[*kmsg.AlterConfigsResponse](row.w, replaceAll(row.kind, row.name, settings...)).Resources[0]
		wantCode(t, "alter "+what, b.ErrorCode, b.ErrorMessage, row.code, row.words)
		if a.ResourceName != row.name || a.ResourceType != row.kind || b.ResourceName != row.name || b.ResourceType != row.kind {
			t.Errorf("%s: answers are about %+v and %+v", what, a, b)
		}
	}
	// Tools tidy up throttles that were never set.
	if got := newest[*kmsg.IncrementalAlterConfigsResponse](w, incremental(kmsg.ConfigResourceTypeBroker, "1", "delete leader.replication.throttled.rate")).Resources[0]; got.ErrorCode != 0 {
		t.Errorf("delete of a node's setting: %d %s", got.ErrorCode, said(got.ErrorMessage))
	}
	q := incremental(kmsg.ConfigResourceTypeTopic, "orders", "set retention.ms 1")
	q.Resources = append(q.Resources, incremental(kmsg.ConfigResourceTypeTopic, "orders", "set segment.bytes 4096").Resources...)
	for _, got := range newest[*kmsg.IncrementalAlterConfigsResponse](w, q).Resources {
		wantCode(t, "a resource twice", got.ErrorCode, got.ErrorMessage, codeInvalidRequest, "at most once")
	}
	if has := explicit(t, db, "orders"); has != "" {
		t.Errorf("settings %q after nothing but refusals", has)
	}
}

func TestListConfigResources(t *testing.T) {
	_, w := openAdmin(t, "orders/1 a/1", Options{}, nil)
	if got := ask[*kmsg.ListConfigResourcesResponse](w, kmsg.NewPtrListConfigResourcesRequest(), 0); got.ErrorCode != 0 || len(got.ConfigResources) != 0 {
		t.Errorf("version 0: %+v: there are no subscriptions of client metrics", got)
	}
	for _, row := range []struct {
		types []int8
		code  int16
		want  string
	}{
		{nil, 0, "a:2 orders:2 1:4 1:8"},
		{[]int8{2}, 0, "a:2 orders:2"},
		{[]int8{4, 4}, 0, "1:4"},
		{[]int8{16, 32}, 0, ""},
		{[]int8{2, 3}, codeUnsupportedVersion, ""},
	} {
		q := kmsg.NewPtrListConfigResourcesRequest()
		q.ResourceTypes = row.types
		resp := ask[*kmsg.ListConfigResourcesResponse](w, q, 1)
		var got []string
		for _, x := range resp.ConfigResources {
			got = append(got, fmt.Sprintf("%s:%d", x.Name, x.Type))
		}
		if s := strings.Join(got, " "); s != row.want || resp.ErrorCode != row.code {
			t.Errorf("%v: %s, code %d; want %s, code %d", row.types, s, resp.ErrorCode, row.want, row.code)
		}
	}
	_, shut := openAdmin(t, "orders/1", Options{Authorizer: denied(OpDescribeConfigs, ResourceCluster, ClusterName)}, nil)
	if got := newest[*kmsg.ListConfigResourcesResponse](shut, kmsg.NewPtrListConfigResourcesRequest()); got.ErrorCode != codeClusterAuthorizationFailed || len(got.ConfigResources) != 0 {
		t.Errorf("denied: %+v", got)
	}
}
