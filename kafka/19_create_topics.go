package kafka

import (
	"context"
	"slices"

	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// CreateTopics, versions 2 to 7.

func init() { register(2, 7, createTopics) }

// createdBytes is about what describing a topic with all its settings takes.
const createdBytes = 6 << 10

func createTopics(r *request, q *kmsg.CreateTopicsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.CreateTopicsResponse)
	if err := r.grow(len(q.Topics), createdBytes); err != nil {
		return nil, err
	}
	ctx, cancel := r.within(q.TimeoutMillis)
	defer cancel()
	all := r.authorize(OpCreate, ResourceCluster, ClusterName)
	times := counted(q.Topics, func(t *kmsg.CreateTopicsRequestTopic) string { return t.Topic })
	for i := range q.Topics {
		asked := &q.Topics[i]
		n := times[asked.Topic]
		delete(times, asked.Topic) // one answer for each name
		answer := kmsg.NewCreateTopicsResponseTopic()
		answer.Topic, answer.Configs = asked.Topic, []kmsg.CreateTopicsResponseTopicConfig{}
		var err error
		switch {
		case n == 0:
			continue
		case n > 1:
			err = refuse(codeInvalidRequest, "Duplicate topic name.")
		case !all && !r.authorize(OpCreate, ResourceTopic, asked.Topic):
			err = errTopicDenied
		default:
			err = r.createTopic(ctx, asked, &answer, q.ValidateOnly)
		}
		answer.ErrorCode, answer.ErrorMessage = answerTo(err)
		resp.Topics = append(resp.Topics, answer)
	}
	return resp, nil
}

func (r *request) createTopic(ctx context.Context, asked *kmsg.CreateTopicsRequestTopic, answer *kmsg.CreateTopicsResponseTopic, validateOnly bool) error {
	spec, err := r.topicSpec(asked)
	if err != nil {
		return err
	}
	if validateOnly {
		settings, err := r.engine.CheckCreateTopic(ctx, spec)
		if err == nil {
			r.describeCreated(answer, spec.Partitions, max(spec.ReplicationFactor, 1), settings)
		}
		return err
	}
	if err := r.mutate(spec.Partitions, r.version >= createTopicsStrict); err != nil {
		return err
	}
	t, err := r.engine.CreateTopic(ctx, spec)
	if err == nil {
		answer.TopicID = t.ID()
		r.describeCreated(answer, len(t.Partitions()), t.ReplicationFactor(), t.Settings())
	}
	return err
}

// topicSpec is what a client wants made, checked as far as it is about brokers,
// which the engine does not know.
func (r *request) topicSpec(asked *kmsg.CreateTopicsRequestTopic) (engine.TopicSpec, error) {
	spec := engine.TopicSpec{Name: asked.Topic, Partitions: int(asked.NumPartitions), Settings: make(map[string]string, len(asked.Configs))}
	// The name first: whoever gets it wrong should hear of that.
	if err := engine.CheckTopicName(asked.Topic); err != nil {
		return spec, err
	}
	if _, err := r.engine.Topic(asked.Topic); err == nil && r.engine.Cluster() != nil {
		// Another node may have deleted it.
		if err := r.know(); err != nil {
			return spec, err
		}
	}
	if _, err := r.engine.Topic(asked.Topic); err == nil {
		return spec, refuse(codeTopicAlreadyExists, "Topic '%s' already exists.", asked.Topic)
	}
	for _, c := range asked.Configs {
		if c.Value == nil {
			return spec, refuse(codeInvalidConfig, "the value of %s is null", c.Name)
		}
		spec.Settings[c.Name] = *c.Value
	}
	if len(asked.ReplicaAssignment) > 0 {
		n, err := r.assignedPartitions(asked)
		if spec.Partitions = n; err == nil && r.engine.Cluster() != nil {
			spec.Replicas = make([][]int32, n)
			for _, a := range asked.ReplicaAssignment {
				spec.Replicas[a.Partition] = a.Replicas
			}
		}
		return spec, err
	}
	switch {
	case asked.ReplicationFactor == 0 || asked.ReplicationFactor < -1:
		return spec, refuse(codeInvalidReplicationFactor, "Replication factor must be larger than 0, or -1 to use the default value.")
	case asked.ReplicationFactor > 1 && r.engine.Cluster() == nil:
		return spec, refuse(codeInvalidReplicationFactor, "Unable to replicate the partition %d time(s): there is only one broker.", asked.ReplicationFactor)
	case asked.NumPartitions == -1:
		spec.Partitions = r.srv.db.DefaultPartitions()
	case asked.NumPartitions < 1:
		return spec, refuse(codeInvalidPartitions, "Number of partitions was set to an invalid non-positive value.")
	}
	spec.ReplicationFactor = int(max(asked.ReplicationFactor, 0))
	if spec.Partitions > engine.MaxPartitions {
		return spec, refuse(codeInvalidPartitions, "%d partitions: at most %d are allowed", spec.Partitions, engine.MaxPartitions)
	}
	return spec, nil
}

// assignedPartitions is how many partitions an assignment by hand has.
func (r *request) assignedPartitions(asked *kmsg.CreateTopicsRequestTopic) (int, error) {
	if asked.ReplicationFactor != -1 {
		return 0, refuse(codeInvalidRequest, "replicas are assigned by hand, so the replication factor must be -1")
	}
	if asked.NumPartitions != -1 {
		return 0, refuse(codeInvalidRequest, "replicas are assigned by hand, so the number of partitions must be -1")
	}
	numbers := make([]int32, 0, len(asked.ReplicaAssignment))
	for _, a := range asked.ReplicaAssignment {
		if err := r.checkReplicas(a.Replicas); err != nil {
			return 0, err
		}
		numbers = append(numbers, a.Partition)
	}
	slices.Sort(numbers)
	for i, n := range numbers {
		if int(n) != i {
			return 0, refuse(codeInvalidReplicaAssignment, "partitions must be numbered from 0 on, each once")
		}
	}
	if len(numbers) > engine.MaxPartitions {
		return 0, refuse(codeInvalidPartitions, "%d partitions: at most %d are allowed", len(numbers), engine.MaxPartitions)
	}
	return len(numbers), nil
}

// describeCreated says what a topic has become. Who may not see settings is told so.
func (r *request) describeCreated(answer *kmsg.CreateTopicsResponseTopic, partitions, factor int, settings engine.Settings) {
	if !r.authorize(OpDescribeConfigs, ResourceTopic, answer.Topic) {
		answer.ConfigErrorCode = codeTopicAuthorizationFailed
		return
	}
	answer.NumPartitions, answer.ReplicationFactor = int32(partitions), int16(factor)
	for _, c := range topicConfigs(settings, false) {
		x := kmsg.NewCreateTopicsResponseTopicConfig()
		// Clients refuse a source that is not positive.
		x.Name, x.Value, x.ReadOnly, x.Source = c.name, &c.value, c.readOnly, int8(c.source)
		answer.Configs = append(answer.Configs, x)
	}
}
