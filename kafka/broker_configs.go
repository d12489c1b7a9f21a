package kafka

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// brokerConfigs are the settings of this node that are true here, under Kafka's
// names: what a client could find out by trying. None of them can be changed while
// the program runs; they come from its options.
func (r *request) brokerConfigs() []config {
	s := r.srv
	l := &s.limits
	e := r.engine
	delay, minSession, maxSession, members := e.GroupLimits()
	list := []config{
		number("node.id", int64(s.nodeID), -1, "The number of this node."),
		number("broker.id", int64(s.nodeID), -1, "The number of this node."),
		text("listeners", s.listenersText(false), "PLAINTEXT://:"+strconv.Itoa(DefaultPort), kmsg.ConfigTypeString, "Where the server listens."),
		text("advertised.listeners", s.listenersText(true), "", kmsg.ConfigTypeString, "Where clients are told to connect to."),
		text("log.dirs", e.Info().Dir, "", kmsg.ConfigTypeString, "The directory of the database."),
		text("auto.create.topics.enable", strconv.FormatBool(s.db.AutoCreatesTopics()), "false", kmsg.ConfigTypeBoolean, "Whether a topic that is not there is made when it is asked for. Kafka's default is true."),
		text("delete.topic.enable", "true", "true", kmsg.ConfigTypeBoolean, "Topics can be deleted."),
		number("num.partitions", int64(s.db.DefaultPartitions()), 1, "How many partitions a topic gets that says nothing else."),
		number("default.replication.factor", 1, 1, "There is one copy of the data."),
		number("offsets.topic.replication.factor", 1, 1, "There is one copy of the data. Kafka's default is 3."),
		number("transaction.state.log.replication.factor", 1, 1, "There is one copy of the data. Kafka's default is 3."),
		number("transaction.state.log.min.isr", 1, 1, "There is one copy of the data. Kafka's default is 2."),
		number("offset.metadata.max.bytes", engine.MaxOffsetMetadataBytes, 4096, "How much text a committed offset may carry."),
		number("transaction.max.timeout.ms", engine.MaxTxnTimeout.Milliseconds(), 900_000, "The longest that a transaction may ask for."),
		number("group.consumer.session.timeout.ms", engine.DefaultSessionTimeout.Milliseconds(), 45_000, "How long a member of a consumer group may be silent."),
		number("group.consumer.heartbeat.interval.ms", engine.HeartbeatInterval.Milliseconds(), 5_000, "How often a member of a consumer group is to send a heartbeat."),
		text("group.consumer.assignors", assignors, assignors, kmsg.ConfigTypeList, "How the server assigns partitions."),
		number("group.initial.rebalance.delay.ms", delay.Milliseconds(), engine.DefaultGroupInitialDelay.Milliseconds(), "How long an empty classic group waits for more members. Kafka's default is 3 s."),
		number("group.min.session.timeout.ms", minSession.Milliseconds(), engine.DefaultGroupMinSessionTimeout.Milliseconds(), "The shortest session timeout of a member of a classic group."),
		number("group.max.session.timeout.ms", maxSession.Milliseconds(), engine.DefaultGroupMaxSessionTimeout.Milliseconds(), "The longest session timeout of a member of a classic group."),
		number("group.max.size", int64(members), engine.DefaultGroupMaxSize, "How many members a classic group may have. Kafka has no bound."),
		number("group.consumer.max.size", int64(members), engine.DefaultGroupMaxSize, "How many members a group may have that the server assigns. Kafka has no bound."),
		number("socket.request.max.bytes", int64(l.FrameBytes), defaultFrameBytes, "The largest request."),
		long("queued.max.request.bytes", l.MemoryBytes, max(defaultMemoryBytes, int64(l.FrameBytes)), "The memory that all requests together may take."),
		number("max.connections", unlimited(l.Connections), defaultConnections, "How many connections there may be."),
		number("max.connections.per.ip", unlimited(l.ConnectionsPerIP), defaultConnectionsPerIP, "How many connections there may be from one address."),
		long("connections.max.idle.ms", l.IdleTimeout.Milliseconds(), defaultIdleTimeout.Milliseconds(), "After what time without a request a connection is closed."),
		number("fetch.max.bytes", int64(l.FetchBytes), defaultFetchBytes, "The most records that one fetch returns."),
		number("offsets.retention.minutes", minutes(e.OffsetsRetention()), 7*24*60, "How long the offsets of a group without members are kept."),
	}
	if every := e.MaintenanceInterval(); every > 0 {
		list = append(list, long("log.retention.check.interval.ms", every.Milliseconds(), 30_000, "How often retention, compaction and the disk cap are looked after. Kafka's default is 5 minutes."))
	}
	list = append(list, topicDefaults(e.DefaultSettings())...)
	slices.SortFunc(list, func(a, b config) int { return strings.Compare(a.name, b.name) })
	return list
}

// assignors are the ways to assign partitions, as Kafka lists them.
const assignors = engine.UniformAssignor + "," + engine.RangeAssignor

// topicDefaults are what topics have that say nothing themselves.
func topicDefaults(s engine.Settings) []config {
	var list []config
	docs := engine.SettingDocs()
	for i := range docs {
		d := &docs[i]
		said := brokerSynonyms(s, d)
		if said == nil {
			continue
		}
		first := said[0]
		list = append(list, config{name: first.name, value: first.value, kind: configTypes[d.Kind], source: first.source, readOnly: true, doc: settingDoc(d), synonyms: said})
	}
	return list
}

// text is a setting of the node, which is static where it is not the default.
func text(name, value, def string, kind kmsg.ConfigType, doc string) config {
	c := config{name: name, value: value, kind: kind, source: kmsg.ConfigSourceDefaultConfig, readOnly: true, doc: doc}
	if value != def {
		c.source = kmsg.ConfigSourceStaticBrokerConfig
	}
	c.synonyms = []synonym{{name, value, c.source}}
	return c
}

func number(name string, value, def int64, doc string) config {
	return text(name, strconv.FormatInt(value, 10), strconv.FormatInt(def, 10), kmsg.ConfigTypeInt, doc)
}

func long(name string, value, def int64, doc string) config {
	c := number(name, value, def, doc)
	c.kind = kmsg.ConfigTypeLong
	return c
}

const maxInt32 = 1<<31 - 1

// unlimited is a bound as Kafka says it: its largest number where there is none.
func unlimited(n int) int64 {
	if n < 0 {
		return maxInt32
	}
	return int64(n)
}

// minutes are those of a duration, rounded up; a negative one is for ever.
func minutes(d time.Duration) int64 {
	if d < 0 {
		return maxInt32
	}
	return min(int64((d+time.Minute-1)/time.Minute), maxInt32)
}

// listenersText is all listeners as Kafka writes them.
func (s *Server) listenersText(advertised bool) string {
	list := make([]string, len(s.listeners))
	for i, l := range s.listeners {
		at := l.net.Addr().String()
		if advertised {
			at = l.advertise.String()
		}
		list[i] = l.protocol() + "://" + at
	}
	return strings.Join(list, ",")
}

// protocol is Kafka's name for how a listener is protected.
func (l *Listener) protocol() string {
	name := "PLAINTEXT"
	if l.TLS != nil {
		name = "SSL"
	}
	if l.SASL != nil {
		name = "SASL_" + name
	}
	return name
}

// groupConfigs are what a group has. Those of consumer groups are the same for all.
func (r *request) groupConfigs(name string) ([]config, error) {
	explicit, err := r.engine.Shares().Settings(r.ctx, name)
	if err != nil {
		return nil, err
	}
	list := []config{
		number("consumer.heartbeat.interval.ms", engine.HeartbeatInterval.Milliseconds(), engine.HeartbeatInterval.Milliseconds(), "How often a member is to send a heartbeat. The same for all groups."),
		number("consumer.session.timeout.ms", engine.DefaultSessionTimeout.Milliseconds(), engine.DefaultSessionTimeout.Milliseconds(), "How long a member may be silent. The same for all groups."),
	}
	for _, d := range engine.ShareSettingDocs() {
		c := config{name: d.Name, value: d.Default, kind: configTypes[d.Kind], source: kmsg.ConfigSourceDefaultConfig, doc: d.Doc}
		if value, said := explicit[d.Name]; said {
			c.value, c.source = value, kmsg.ConfigSourceGroupConfig
			c.synonyms = append(c.synonyms, synonym{d.Name, value, c.source})
		}
		c.synonyms = append(c.synonyms, synonym{"group." + d.Name, d.Default, kmsg.ConfigSourceDefaultConfig})
		list = append(list, c)
	}
	return list, nil
}
