package kafka

import (
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// config is one setting of a topic, a broker or a group, as clients see it.
type config struct {
	name, value string
	kind        kmsg.ConfigType
	source      kmsg.ConfigSource
	readOnly    bool
	doc         string
	synonyms    []synonym // where the value comes from, the first counts
}

// synonym is a place that says something about a setting.
type synonym struct {
	name, value string
	source      kmsg.ConfigSource
}

var configTypes = map[engine.SettingKind]kmsg.ConfigType{
	engine.KindBool:   kmsg.ConfigTypeBoolean,
	engine.KindString: kmsg.ConfigTypeString,
	engine.KindInt:    kmsg.ConfigTypeInt,
	engine.KindLong:   kmsg.ConfigTypeLong,
	engine.KindDouble: kmsg.ConfigTypeDouble,
	engine.KindList:   kmsg.ConfigTypeList,
}

// topicConfigs are the settings of a topic. Those that come from the options of the
// database are what Kafka calls static ones of a broker.
func topicConfigs(s engine.Settings, internal bool) []config {
	docs := engine.SettingDocs()
	list := make([]config, 0, len(docs))
	for i := range docs {
		d := &docs[i]
		value, explicit := s.Get(d.Name)
		c := config{name: d.Name, value: value, kind: configTypes[d.Kind], source: kmsg.ConfigSourceDefaultConfig, doc: settingDoc(d)}
		// What has one value only, and what the engine relies on.
		c.readOnly = len(d.Values) == 1 || internal && engine.FixedWhenInternal(d.Name)
		if explicit {
			c.synonyms = append(c.synonyms, synonym{d.Name, value, kmsg.ConfigSourceDynamicTopicConfig})
		}
		c.synonyms = append(c.synonyms, brokerSynonyms(s, d)...)
		if !explicit && len(c.synonyms) > 0 && c.synonyms[0].value != value {
			// Derived from another setting of the topic, as segment.bytes from embedlog.max.bytes.
			c.synonyms = []synonym{{c.synonyms[0].name, value, kmsg.ConfigSourceDefaultConfig}}
		}
		if len(c.synonyms) > 0 {
			c.source = c.synonyms[0].source
		}
		list = append(list, c)
	}
	return list
}

// settingDoc is the documentation, which says so where a setting does nothing.
func settingDoc(d *engine.SettingDoc) string {
	if d.NoEffect {
		return "Accepted, without effect. " + d.Doc
	}
	return d.Doc
}

// brokerSynonyms are what the database says about a setting of topics, under the
// broker's name for it.
func brokerSynonyms(s engine.Settings, d *engine.SettingDoc) []synonym {
	name := brokerName(d.Name)
	if name == "" {
		return nil
	}
	list := []synonym{{name, d.Default, kmsg.ConfigSourceDefaultConfig}}
	if value, said := s.Default(d.Name); said {
		list = append([]synonym{{name, value, kmsg.ConfigSourceStaticBrokerConfig}}, list...)
	}
	return list
}

// brokerNames are a broker's names for the settings of topics where they are not
// "log." and the same. Empty is that there is none. (ServerTopicConfigSynonyms)
var brokerNames = map[string]string{
	"compression.gzip.level":                  "compression.gzip.level",
	"compression.lz4.level":                   "compression.lz4.level",
	"compression.type":                        "compression.type",
	"compression.zstd.level":                  "compression.zstd.level",
	"delete.retention.ms":                     "log.cleaner.delete.retention.ms",
	"file.delete.delay.ms":                    "log.segment.delete.delay.ms",
	"flush.messages":                          "log.flush.interval.messages",
	"flush.ms":                                "log.flush.interval.ms",
	"follower.replication.throttled.replicas": "",
	"leader.replication.throttled.replicas":   "",
	"max.compaction.lag.ms":                   "log.cleaner.max.compaction.lag.ms",
	"max.message.bytes":                       "message.max.bytes",
	"min.cleanable.dirty.ratio":               "log.cleaner.min.cleanable.ratio",
	"min.compaction.lag.ms":                   "log.cleaner.min.compaction.lag.ms",
	"min.insync.replicas":                     "min.insync.replicas",
	"remote.log.copy.disable":                 "",
	"remote.log.delete.on.disable":            "",
	"remote.storage.enable":                   "",
	"segment.index.bytes":                     "log.index.size.max.bytes",
	"segment.jitter.ms":                       "log.roll.jitter.ms",
	"segment.ms":                              "log.roll.ms",
	"unclean.leader.election.enable":          "unclean.leader.election.enable",
}

// brokerName is a broker's name for what topics have as default for a setting.
func brokerName(topicName string) string {
	if name, ok := brokerNames[topicName]; ok {
		return name
	}
	if len(topicName) > len(ownPrefix) && topicName[:len(ownPrefix)] == ownPrefix {
		return topicName
	}
	return "log." + topicName
}

// ownPrefix begins the names of settings that Kafka does not have.
const ownPrefix = "embedlog."
