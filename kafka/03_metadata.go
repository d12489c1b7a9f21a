package kafka

import (
	"errors"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Metadata, versions 0 to 13: brokers, topics, leaders. With Options.AutoCreateTopics
// of the database it makes topics that are asked for by name.

func init() { register(0, 13, metadata) }

func metadata(r *request, q *kmsg.MetadataRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.MetadataResponse)
	places := r.placements()
	for _, b := range r.brokers() {
		broker := kmsg.NewMetadataResponseBroker()
		broker.NodeID, broker.Host, broker.Port = b.id, b.host, b.port
		resp.Brokers = append(resp.Brokers, broker)
	}
	resp.ClusterID = &r.srv.clusterID
	resp.ControllerID = r.controller()
	if q.Version >= 8 && q.Version <= 10 && q.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = r.operations(ResourceCluster, ClusterName, clusterOperations...)
	}
	// In version 0 an empty list is all topics, later null is.
	if q.Topics == nil || q.Version == 0 && len(q.Topics) == 0 {
		r.knowOnce()
		for _, t := range r.engine.Topics() {
			if r.authorize(OpDescribe, ResourceTopic, t.Name()) {
				resp.Topics = append(resp.Topics, r.topicMetadata(q, t, &places))
			}
		}
		return resp, nil
	}
	if err := r.grow(len(q.Topics), describedTopicBytes); err != nil {
		return nil, err
	}
	times := counted(q.Topics, askedTopicOf)
	for i := range q.Topics {
		asked := askedTopicOf(&q.Topics[i])
		if times[asked] == 0 {
			continue // one answer for each, as in Kafka
		}
		delete(times, asked)
		t := r.askedTopicMetadata(q, &q.Topics[i], &places)
		if err := r.grow(len(t.Partitions), describedPartitionBytes); err != nil {
			return nil, err
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp, nil
}

// What a topic and a partition take in an answer, about.
const (
	describedTopicBytes     = 150
	describedPartitionBytes = 150
)

// askedTopic is a topic as it was asked for.
type askedTopic struct {
	name string
	id   engine.TopicID
}

func askedTopicOf(t *kmsg.MetadataRequestTopic) askedTopic {
	return askedTopic{orEmpty(t.Topic), t.TopicID}
}

// askedTopicMetadata answers for one topic that was asked for.
func (r *request) askedTopicMetadata(q *kmsg.MetadataRequest, asked *kmsg.MetadataRequestTopic, places *placements) kmsg.MetadataResponseTopic {
	none := kmsg.NewMetadataResponseTopic()
	none.Topic, none.TopicID = asked.Topic, asked.TopicID
	id := engine.TopicID(asked.TopicID)
	if !id.IsZero() && q.Version >= 12 {
		none.Topic = nil
		t, err := r.topicByID(id)
		if r.unsure != nil && err != nil {
			none.ErrorCode = codeLeaderNotAvailable
			return none
		}
		// That there is a topic is not for everybody to know.
		if err != nil || !r.authorize(OpDescribe, ResourceTopic, t.Name()) {
			none.ErrorCode = codeUnknownTopicID
			return none
		}
		return r.topicMetadata(q, t, places)
	}
	if asked.Topic == nil || !id.IsZero() {
		none.ErrorCode = codeInvalidRequest
		return none
	}
	name := *asked.Topic
	if !r.authorize(OpDescribe, ResourceTopic, name) {
		none.ErrorCode = codeTopicAuthorizationFailed
		return none
	}
	t, err := r.topic(name)
	if errors.Is(err, embedlog.ErrUnknownTopic) {
		t, none.ErrorCode = r.autoCreate(name, q.Version < 4 || q.AllowAutoTopicCreation)
	} else {
		none.ErrorCode = r.describedCode(err)
	}
	if none.ErrorCode != codeNone {
		return none
	}
	return r.topicMetadata(q, t, places)
}

// describedCode is codeOf for what describes topics: who leads is not known here.
func (r *request) describedCode(err error) int16 {
	if r.unsure != nil && errors.Is(err, r.unsure) {
		return codeLeaderNotAvailable
	}
	return codeOf(err)
}

// autoCreate makes a topic that is not there, if it may.
func (r *request) autoCreate(name string, allowed bool) (*engine.Topic, int16) {
	if err := engine.CheckTopicName(name); err != nil {
		return nil, codeOf(err)
	}
	if !allowed || !r.srv.db.AutoCreatesTopics() {
		return nil, codeUnknownTopicOrPartition
	}
	if !r.authorize(OpCreate, ResourceCluster, ClusterName) && !r.authorize(OpCreate, ResourceTopic, name) {
		return nil, codeTopicAuthorizationFailed
	}
	_ = r.mutate(r.srv.db.DefaultPartitions(), false) // it is only told to wait: the answer has no code for more
	made, err := r.srv.db.Topic(name)
	if err != nil {
		return nil, codeOf(err)
	}
	t, err := made.EngineTopic()
	return t, codeOf(err)
}

// topicMetadata describes a topic.
func (r *request) topicMetadata(q *kmsg.MetadataRequest, t *engine.Topic, places *placements) kmsg.MetadataResponseTopic {
	name := t.Name()
	m := kmsg.NewMetadataResponseTopic()
	m.Topic, m.TopicID, m.IsInternal = &name, t.ID(), t.Internal()
	if q.Version >= 8 && q.IncludeTopicAuthorizedOperations {
		m.AuthorizedOperations = r.operations(ResourceTopic, name, topicOperations...)
	}
	m.Partitions = make([]kmsg.MetadataResponseTopicPartition, 0, len(t.Partitions()))
	for _, p := range t.Partitions() {
		x := kmsg.NewMetadataResponseTopicPartition()
		at := places.of(t, p)
		x.ErrorCode, x.Partition, x.Leader, x.LeaderEpoch = at.code(), p.ID(), at.leader, at.epoch
		x.Replicas, x.ISR, x.OfflineReplicas = at.replicas, at.isr, at.offline
		m.Partitions = append(m.Partitions, x)
	}
	return m
}
