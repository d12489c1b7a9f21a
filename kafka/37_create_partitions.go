package kafka

import (
	"context"

	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// CreatePartitions, versions 0 to 3.

func init() { register(0, 3, createPartitions) }

func createPartitions(r *request, q *kmsg.CreatePartitionsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.CreatePartitionsResponse)
	if err := r.grow(len(q.Topics), explainedBytes); err != nil {
		return nil, err
	}
	ctx, cancel := r.within(q.TimeoutMillis)
	defer cancel()
	times := counted(q.Topics, func(t *kmsg.CreatePartitionsRequestTopic) string { return t.Topic })
	for i := range q.Topics {
		asked := &q.Topics[i]
		n := times[asked.Topic]
		delete(times, asked.Topic)
		var err error
		switch {
		case n == 0:
			continue
		case n > 1:
			err = refuse(codeInvalidRequest, "Duplicate topic name.")
		case !r.authorize(OpAlter, ResourceTopic, asked.Topic):
			err = errTopicDenied
		default:
			err = r.addPartitions(ctx, asked, q.ValidateOnly)
		}
		answer := kmsg.NewCreatePartitionsResponseTopic()
		answer.Topic = asked.Topic
		answer.ErrorCode, answer.ErrorMessage = answerTo(err)
		resp.Topics = append(resp.Topics, answer)
	}
	return resp, nil
}

func (r *request) addPartitions(ctx context.Context, asked *kmsg.CreatePartitionsRequestTopic, validateOnly bool) error {
	t, err := r.topic(asked.Topic)
	if err != nil {
		return err
	}
	has, total := len(t.Partitions()), int(asked.Count)
	switch {
	case total == has:
		return refuse(codeInvalidPartitions, "Topic already has %d partition(s).", has)
	case total < has:
		return refuse(codeInvalidPartitions, "The topic %s currently has %d partition(s); %d would not be an increase.", asked.Topic, has, total)
	case total > engine.MaxPartitions:
		return refuse(codeInvalidPartitions, "%d partitions: at most %d are allowed", total, engine.MaxPartitions)
	case asked.Assignment != nil && len(asked.Assignment) != total-has:
		return refuse(codeInvalidReplicaAssignment, "%d partitions are to be added, and replicas are given for %d", total-has, len(asked.Assignment))
	}
	var replicas [][]int32 // alone there is nothing to choose
	for _, a := range asked.Assignment {
		if err := r.checkReplicas(a.Replicas); err != nil {
			return err
		}
		if r.engine.Cluster() != nil {
			replicas = append(replicas, a.Replicas)
		}
	}
	if validateOnly {
		return r.engine.CheckAddPartitions(ctx, t.ID(), total, replicas...)
	}
	if err := r.mutate(total-has, r.version >= createPartitionsStrict); err != nil {
		return err
	}
	return r.engine.AddPartitionsByID(ctx, t.ID(), total, replicas...)
}
