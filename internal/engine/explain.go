package engine

import (
	"fmt"
	"maps"

	"github.com/x/embedlog/log"
)

// What the records of internal topics and of the metadata hold, for who prints a
// log's files without a database around them.

// Explainer returns a function that decodes the records of a log of ours: the topic with
// that name, or "meta". It is nil for any other. What the function returns marshals to
// JSON, names its fields as Kafka does, and is for people to read: fields may change.
// ok is false for a record that is none of the topic's.
func Explainer(name string) func(rec *log.Record) (v any, ok bool) {
	switch name {
	case "meta":
		return explainCommand
	case offsetsTopicName:
		return explainOffset
	case txnTopicName:
		return explainTxn
	case shareTopicName:
		return func(rec *log.Record) (any, bool) { return explainShare(rec.Key, rec.Value) }
	}
	return nil
}

// explained is a value for JSON, which sorts the names.
type explained map[string]any

func explainOffset(rec *log.Record) (any, bool) {
	k, err := parseOffsetKey(rec.Key)
	if err != nil {
		return nil, false
	}
	f := explained{"group": k.group}
	switch k.version {
	case offsetKeyVersion:
		f["type"], f["topic"], f["partition"] = "offset", k.topic, k.partition
	case groupKeyVersion:
		f["type"] = "group"
	case shareGroupKeyVersion:
		f["type"] = "share group"
	case classicKeyVersion:
		f["type"] = "classic group"
	default:
		return nil, false
	}
	if rec.Value == nil {
		f["tombstone"] = true
		return f, true
	}
	switch k.version {
	case offsetKeyVersion:
		v, err := parseOffsetValue(rec.Value)
		if err != nil {
			return nil, false
		}
		f["offset"], f["leader_epoch"], f["commit_timestamp"] = v.offset, v.leaderEpoch, v.commitMillis
		if v.metadata != "" {
			f["metadata"] = v.metadata
		}
		if v.topicID != (TopicID{}) {
			f["topic_id"] = v.topicID.String()
		}
	case groupKeyVersion, shareGroupKeyVersion:
		v, err := parseGroupValue(rec.Value)
		if err != nil {
			return nil, false
		}
		f["epoch"] = v.epoch
		if v.unused >= 0 {
			f["unused_since_running_ms"] = v.unused
		}
	case classicKeyVersion:
		v, err := parseClassicValue(rec.Value)
		if err != nil {
			return nil, false
		}
		f["generation"], f["protocol_type"], f["current_state_timestamp"] = v.generation, v.protocolType, v.millis
		f["protocol"], f["leader"] = v.protocol, v.leader
		members := make([]explained, len(v.members))
		for i, m := range v.members {
			members[i] = explained{
				"member_id": m.id, "client_id": m.client, "client_host": m.host,
				"rebalance_timeout_ms": m.rebalance.Milliseconds(), "session_timeout_ms": m.session.Milliseconds(),
				"subscription_bytes": len(m.subscription), "assignment_bytes": len(m.assignment),
			}
			if m.instance != "" {
				members[i]["instance_id"] = m.instance
			}
		}
		f["members"] = members
	}
	return f, true
}

func explainTxn(rec *log.Record) (any, bool) {
	id, err := parseTxnKey(rec.Key)
	if err != nil {
		return nil, false
	}
	f := explained{"type": "transaction", "transactional_id": id}
	if rec.Value == nil {
		f["tombstone"] = true
		return f, true
	}
	v, err := parseTxnValue(rec.Value)
	if err != nil {
		return nil, false
	}
	maps.Copy(f, explained{
		"state": v.State.String(), "producer_id": v.ProducerID, "producer_epoch": v.Epoch, "timeout_ms": v.TimeoutMillis,
		"last_update_timestamp": v.UpdatedMillis, "start_timestamp": v.StartedMillis,
	})
	for name, other := range map[string]int64{"previous_producer_id": v.PreviousProducerID, "next_producer_id": v.NextProducerID} {
		if other != -1 {
			f[name] = other
		}
	}
	partitions := []string{}
	for _, t := range v.Topics {
		for _, p := range t.Partitions {
			partitions = append(partitions, fmt.Sprintf("%s/%d", t.Topic, p))
		}
	}
	f["partitions"] = partitions
	f["owner"] = map[txnOwner]string{ownerClient: "client", ownerLocal: "local", ownerAnonymous: "anonymous"}[v.Owner]
	return f, true
}

func explainCommand(rec *log.Record) (any, bool) {
	c, err := decodeCommand(rec.Value)
	if err != nil {
		return nil, false
	}
	id := c.topic.id.String()
	switch c.kind {
	case createTopicCommand:
		f := explainTopic(&c.topic)
		f["type"] = "create topic"
		return f, true
	case alterTopicCommand:
		return explained{"type": "alter topic", "topic_id": id, "set": c.set, "unset": c.unset}, true
	case addPartitionsCommand:
		return explained{"type": "add partitions", "topic_id": id, "total": c.total}, true
	case deleteTopicCommand:
		return explained{"type": "delete topic", "topic_id": id}, true
	case topicDeletedCommand:
		return explained{"type": "topic deleted", "topic_id": id}, true
	case allocateIDsCommand:
		return explained{"type": "allocate producer ids", "count": c.count}, true
	case snapshotCommand:
		return explained{
			"type": "snapshot", "first": c.flags&snapshotFirst != 0, "last": c.flags&snapshotLast != 0, "next_producer_id": c.nextID,
			"topics": explainTopics(c.topics), "deleting": explainTopics(c.deleting),
		}, true
	}
	if c.kind >= registerNodeCommand {
		return explainCluster(c)
	}
	return explainSecurity(c)
}

func explainTopic(t *topicMeta) explained {
	return explained{"topic": t.name, "topic_id": t.id.String(), "partitions": t.partitions, "internal": t.internal, "settings": t.settings}
}

func explainTopics(list []*topicMeta) []explained {
	all := make([]explained, 0, len(list))
	for _, t := range list {
		all = append(all, explainTopic(t))
	}
	return all
}
