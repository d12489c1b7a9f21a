package kafka

import (
	"context"
	"errors"

	embedlog "github.com/x/embedlog"
	"github.com/x/embedlog/internal/engine"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteTopics, versions 1 to 6: by name, and from version 6 on by id.

func init() { register(1, 6, deleteTopics) }

func deleteTopics(r *request, q *kmsg.DeleteTopicsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.DeleteTopicsResponse)
	ctx, cancel := r.within(q.TimeoutMillis)
	defer cancel()
	if q.Version < 6 {
		q.Topics = nil
		for _, name := range q.TopicNames {
			t := kmsg.NewDeleteTopicsRequestTopic()
			t.Topic = &name
			q.Topics = append(q.Topics, t)
		}
	}
	if err := r.grow(len(q.Topics), explainedBytes); err != nil {
		return nil, err
	}
	all := r.authorize(OpDelete, ResourceCluster, ClusterName)
	type asked struct {
		name string
		id   engine.TopicID
	}
	key := func(t *kmsg.DeleteTopicsRequestTopic) asked {
		if t.Topic == nil {
			return asked{id: t.TopicID}
		}
		return asked{*t.Topic, t.TopicID}
	}
	times := counted(q.Topics, key)
	// A topic may be named by its id and by its name at once.
	byID, twice := make(map[engine.TopicID]bool), make(map[engine.TopicID]bool)
	for i := range q.Topics {
		byID[q.Topics[i].TopicID] = byID[q.Topics[i].TopicID] || q.Topics[i].Topic == nil
	}
	for i := range q.Topics {
		if name := q.Topics[i].Topic; name != nil {
			if t, err := r.topic(*name); err == nil && byID[t.ID()] {
				twice[t.ID()] = true
			}
		}
	}
	for i := range q.Topics {
		t := &q.Topics[i]
		n := times[key(t)]
		delete(times, key(t))
		if n == 0 {
			continue
		}
		answer := kmsg.NewDeleteTopicsResponseTopic()
		answer.Topic, answer.TopicID = t.Topic, t.TopicID
		id := engine.TopicID(t.TopicID)
		var err error
		switch {
		case t.Topic == nil && id.IsZero():
			err = refuse(codeInvalidRequest, "Neither topic name nor id were specified.")
		case t.Topic != nil && !id.IsZero():
			err = refuse(codeInvalidRequest, "You may not specify both topic name and topic id.")
		case n > 1 && t.Topic == nil:
			err = refuse(codeInvalidRequest, "Duplicate topic id.")
		case n > 1:
			err = refuse(codeInvalidRequest, "Duplicate topic name.")
		case t.Topic == nil:
			err = r.deleteTopicByID(ctx, &answer, id, all, twice)
		default:
			err = r.deleteTopicByName(ctx, &answer, *t.Topic, all, twice)
		}
		answer.ErrorCode, answer.ErrorMessage = answerTo(err)
		resp.Topics = append(resp.Topics, answer)
	}
	return resp, nil
}

func (r *request) deleteTopicByName(ctx context.Context, answer *kmsg.DeleteTopicsResponseTopic, name string, all bool, twice map[engine.TopicID]bool) error {
	if !all && !r.authorize(OpDescribe, ResourceTopic, name) {
		return errTopicDenied
	}
	t, err := r.topic(name)
	if err != nil {
		return err
	}
	if !all && !r.authorize(OpDelete, ResourceTopic, name) {
		return errTopicDenied
	}
	answer.TopicID = t.ID()
	if twice[t.ID()] {
		return errNamedTwice
	}
	if err := r.mutate(len(t.Partitions()), r.version >= deleteTopicsStrict); err != nil {
		return err
	}
	// The one that was looked at, and no other that may have the name by now.
	return r.engine.DeleteTopicByID(ctx, t.ID())
}

func (r *request) deleteTopicByID(ctx context.Context, answer *kmsg.DeleteTopicsResponseTopic, id engine.TopicID, all bool, twice map[engine.TopicID]bool) error {
	t, err := r.topicByID(id)
	if err != nil {
		return unknownID(err)
	}
	name := t.Name()
	if all || r.authorize(OpDescribe, ResourceTopic, name) {
		answer.Topic = &name
	}
	switch {
	case !all && !r.authorize(OpDelete, ResourceTopic, name):
		return errTopicDenied
	case twice[id]:
		return errNamedTwice
	}
	if err := r.mutate(len(t.Partitions()), r.version >= deleteTopicsStrict); err != nil {
		return err
	}
	return unknownID(r.engine.DeleteTopicByID(ctx, id))
}

var errNamedTwice = refuse(codeInvalidRequest, "The topic is named by its name and by its id.")

// unknownID gives an error the code for a topic that was asked for by its id.
func unknownID(err error) error {
	if errors.Is(err, embedlog.ErrUnknownTopic) {
		return &refusal{codeUnknownTopicID, err.Error()}
	}
	return err
}
